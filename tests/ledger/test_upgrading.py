"""A ledger of an older schema is brought up to date while webhooks come in; a newer one is refused."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.errors import LedgerTooNew
from sync.ledger import Ledger
from sync.ledger.checking import check
from sync.ledger.engine import Engine
from sync.ledger.postgres import PostgresEngine
from sync.ledger.queries import POSTGRES, SQLITE, migrations
from sync.ledger.sqlite import SqliteEngine
from sync.ledger.writer import Writer
from tests.databases import Server
from tests.people import CRM, Clock, Ids, event

FIRST = 1


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> str | Path:
    return server.database() if request.param == "postgresql" else tmp_path / "ledger.sqlite3"


@pytest.fixture
def older(place: str | Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A ledger as the first release made it."""
    for module, dialect in (("sqlite", SQLITE), ("postgres", POSTGRES)):
        first = migrations(dialect)[:FIRST]
        monkeypatch.setattr(f"sync.ledger.{module}.migrations", lambda _, first=first: first)
    engine = opened(place)
    assert engine.migrate() == FIRST
    monkeypatch.undo()
    yield engine
    engine.close()


def opened(place: str | Path) -> Engine:
    return SqliteEngine(place, clock=Clock()) if isinstance(place, Path) else PostgresEngine(place)


async def test_an_older_schema_is_upgraded_under_load_without_loss(place: str | Path, older: Engine) -> None:
    writer = Writer(Ledger(older, CRM, new_id=Ids()))
    newest = opened(place)
    answers: list[str] = []
    is_over = asyncio.Event()

    async def load() -> None:
        while not is_over.is_set():
            n = len(answers)
            answers.append((await writer.apply(event(f"v1:{n}", f"p{n}@example.com"))).status)

    loading = asyncio.create_task(load())
    while len(answers) < 50:
        await asyncio.sleep(0)
    schema = await asyncio.to_thread(newest.migrate)
    so_far = len(answers)
    while len(answers) < so_far + 50:
        await asyncio.sleep(0)
    is_over.set()
    await loading

    assert schema == newest.schema == migrations(SQLITE)[-1][0] > FIRST
    assert set(answers) == {"accepted"}
    assert newest.rows("count_contacts")[0]["n"] == len(answers)
    assert check(newest) == []
    writer.close()
    newest.close()


def test_a_newer_schema_is_refused_with_a_sentence(place: str | Path, older: Engine) -> None:
    older.write("INSERT INTO migrations (number, at) VALUES (?, ?)", [(99, 0.0)])

    engine = opened(place)
    with pytest.raises(LedgerTooNew, match=r"schema 99, this release knows .*: install a newer release"):
        engine.migrate()
    engine.close()


def test_what_was_pruned_before_that_was_remembered_is_marked_by_the_upgrade(place: str | Path, older: Engine) -> None:
    chats = [
        # id, closed_at, transcript, last_message_at, and up to when it was pruned
        ("closed later", 20.0, "[]", 10.0, 20.0),
        ("written to later", 10.0, "[]", 20.0, 20.0),
        ("never closed", None, "[]", 10.0, 10.0),
        ("never written to", 10.0, "[]", None, None),
        ("still there", 10.0, '[["m", "visitor", "hello", 10.0, null]]', 10.0, None),
    ]
    columns = "id, source, chat, said, closed_at, transcript, last_message_at, version, updated_at"
    older.write(
        f"INSERT INTO chats ({columns}) VALUES (?, 'acquire', ?, '{{}}', ?, ?, ?, 1, 30)",
        [(name, name, *told) for name, *told, _ in chats],
    )

    newest = opened(place)
    newest.migrate()

    assert {row["id"]: row["pruned_until"] for row in newest.read("SELECT * FROM chats")} == {
        name: until for name, *_, until in chats
    }
    newest.close()
