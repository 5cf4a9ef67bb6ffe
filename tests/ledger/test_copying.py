"""A ledger that moves to another database is the same ledger there."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from sync.errors import LedgerError, LedgerInUse, LedgerTooNew
from sync.ledger import Ledger, Settlement, copying
from sync.ledger.copying import TABLES, copy
from sync.ledger.postgres import PostgresEngine
from sync.ledger.sqlite import SqliteEngine
from sync.models import Event, Kind, Receipt
from sync.outcomes import Delivered, Retry
from tests.databases import Server, open_on
from tests.people import Clock, event

ADA, BOB = "ada@example.com", "bob@example.com"

Open = Callable[[str], Ledger]


@pytest.fixture
def opened(tmp_path: Path, server: Server) -> Iterator[Open]:
    made: list[Ledger] = []

    def open_one(engine: str) -> Ledger:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(open_on(engine, folder, server, Clock(), None))
        return made[-1]

    yield open_one
    for ledger in made:
        ledger.engine.close()


def apply(ledger: Ledger, *events: Event) -> list[str]:
    with ledger.transaction():
        return [applied.status for applied in ledger.apply(events)]


def deliver(ledger: Ledger, remote_id: str | None) -> list[str]:
    """Claim one delivery and settle it; its subject."""
    with ledger.transaction():
        owed = ledger.claim("crm", [(Kind.CONTACT, 1), (Kind.CHAT, 1)], 60.0).owed
        outcome = Retry("busy") if remote_id is None else Delivered(Receipt(remote_id, True))
        ledger.settle([Settlement(o.delivery, o.claim, o.version, outcome, retry_in=60.0) for o in owed])
    return [o.subject.id for o in owed]


def lived(ledger: Ledger) -> Ledger:
    """A ledger to which everything has happened: text of all sorts, joins, deliveries, failures, odd numbers."""
    apply(ledger, event("v1:1", ADA, name="Ádá 🙂 'x'\n", closed=True, key="first"), event("v1:2", BOB, at=0.1 + 0.2))
    apply(ledger, event("v1:2", "robert@example.com", at=9.7), event("v1:3", phone="+31612345678", visitor_id="v"))
    deliver(ledger, "r1")
    deliver(ledger, None)
    with ledger.transaction():
        ledger.count({"rejected_size": 3})
        ledger.suppress("ab" * 16, "bounced")
        mail = {"chat": "ch_1", "template": "followup", "mailer": "smtp", "turn": 1, "key": "k", "rendered": "{}"}
        ledger.engine.run("write_mail", **mail)
        ledger.engine.write("INSERT INTO erasures (hash, at) VALUES (?, ?)", [("cd" * 16, 1.5)])
        ledger.engine.write("INSERT INTO cursors (name, value, at) VALUES (?, ?, ?)", [("pull:acquire", "{}", 1.5)])
        ledger.engine.write(
            "INSERT INTO locks (name, owner, since, until) VALUES (?, ?, ?, ?)", [("resync", "h", 1, 2)]
        )
        ledger.engine.run("raise_alarm", key="k", text="t")
        ledger.engine.write("INSERT INTO marks (name, value) VALUES (?, ?)", [("m", "1")])
    ledger.take_pace("crm", 0.1, 1.0)
    return ledger


def ignore(done: str, table: str, n: int) -> None:
    """Nobody watches."""


def rows(ledger: Ledger, table: str) -> list[str]:
    return sorted(json.dumps(dict(row), sort_keys=True) for row in ledger.engine.read(f"SELECT * FROM {table}"))


def everything(ledger: Ledger) -> dict[str, list[str]]:
    return {table.name: rows(ledger, table.name) for table in TABLES}


@pytest.mark.parametrize(
    ("one", "other"), [("sqlite", "postgresql"), ("postgresql", "sqlite"), ("sqlite", "sqlite")], ids=str
)
def test_every_row_is_the_same_on_the_other_side(opened: Open, one: str, other: str) -> None:
    source, target = lived(opened(one)), opened(other)

    done = copy(source.engine, target.engine, ignore)

    assert everything(target) == everything(source)
    assert {table.table: table.rows for table in done} == {name: len(rows) for name, rows in everything(source).items()}
    assert all(table.rows for table in done if table.table != "strays")


def test_it_comes_back_from_postgresql_as_it_went(opened: Open) -> None:
    source, between, back = lived(opened("sqlite")), opened("postgresql"), opened("sqlite")

    there = copy(source.engine, between.engine, ignore)

    assert copy(between.engine, back.engine, ignore)[:-1] == there[:-1]
    assert everything(back) == everything(between)


def test_every_table_of_the_schema_is_copied(opened: Open) -> None:
    ledger = opened("sqlite")

    found = {row["name"] for row in ledger.engine.read("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {table.name for table in TABLES} | {"migrations"} == found


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_each_table_is_paged_by_its_primary_key(opened: Open, table: copying.Table) -> None:
    ledger = opened("sqlite")

    columns = ledger.engine.read("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table.name,))
    assert tuple(row["name"] for row in columns) == table.key


@pytest.mark.parametrize("other", ["sqlite", "postgresql"])
def test_a_copy_of_many_pages_is_whole(opened: Open, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    source, target = opened("sqlite"), opened(other)
    apply(source, *[event(f"v1:{n}", f"n{n}@example.com", phone=f"+316123456{n:02}") for n in range(25)])
    monkeypatch.setattr(copying, "PAGE", 7)

    copy(source.engine, target.engine, ignore)

    assert everything(target) == everything(source)


@pytest.mark.parametrize("other", ["sqlite", "postgresql"])
def test_contacts_follow_whom_they_were_joined_into_whatever_their_ids(
    opened: Open, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    source, target = opened("sqlite"), opened(other)
    apply(source, *[event(f"v1:{n}", f"n{n}@example.com") for n in range(9)])
    ids = [row["id"] for row in source.engine.read("SELECT id FROM contacts ORDER BY id")]
    with source.transaction():
        source.engine.write("UPDATE contacts SET joined = ? WHERE id = ?", list(zip(ids[1:], ids[:-1], strict=True)))
    monkeypatch.setattr(copying, "PAGE", 2)

    copy(source.engine, target.engine, ignore)

    assert rows(target, "contacts") == rows(source, "contacts")


def test_a_circle_of_joins_ends_the_copy_with_a_sentence(opened: Open) -> None:
    source, target = opened("sqlite"), opened("postgresql")
    apply(source, event("v1:1", ADA), event("v1:2", BOB))
    with source.transaction():
        source.engine.write("UPDATE contacts SET joined = (SELECT MAX(id) FROM contacts) WHERE 1 = ?", [(1,)])

    with pytest.raises(LedgerError, match="joined in a circle"):
        copy(source.engine, target.engine, ignore)


class Interrupted(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize("step", range(1, 12))
def test_a_copy_that_broke_off_anywhere_goes_on(opened: Open, step: int) -> None:
    source, target = lived(opened("sqlite")), opened("postgresql")
    steps = iter(range(1, 100))

    def break_off(done: str, table: str, n: int) -> None:
        if next(steps) == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        copy(source.engine, target.engine, break_off)
    copy(source.engine, target.engine, ignore)

    assert everything(target) == everything(source)


@pytest.mark.parametrize("other", ["sqlite", "postgresql"])
def test_a_target_that_holds_other_data_is_refused_and_left_alone(opened: Open, other: str) -> None:
    source, target = lived(opened("sqlite")), opened(other)
    apply(target, event("v1:7", "eve@example.com"))
    before = everything(target)

    with pytest.raises(LedgerError, match="the target holds other data: its table events has rows"):
        copy(source.engine, target.engine, ignore)

    assert [rows(target, name) for name in ("events", "contacts")] == [before["events"], before["contacts"]]


def test_a_copy_that_was_served_since_is_never_rolled_back(opened: Open) -> None:
    source, target = lived(opened("sqlite")), opened("postgresql")
    copy(source.engine, target.engine, ignore)
    deliver(target, "r3")

    with pytest.raises(LedgerError, match="the target holds other data: its table deliveries has rows"):
        copy(source.engine, target.engine, ignore)


def test_a_target_that_only_a_doctor_has_seen_counts_as_empty(opened: Open) -> None:
    source, target = lived(opened("sqlite")), opened("postgresql")
    target.prove_writable()

    copy(source.engine, target.engine, ignore)

    assert everything(target) == everything(source)


def test_a_source_that_is_written_to_meanwhile_is_noticed(opened: Open) -> None:
    source, target = lived(opened("sqlite")), opened("postgresql")

    def meanwhile(done: str, table: str, n: int) -> None:
        if (done, table) == ("copied", "marks"):
            apply(source, event("v1:9", "late@example.com"))

    with pytest.raises(LedgerError, match="the copy of events differs from the source"):
        copy(source.engine, target.engine, meanwhile)


def test_a_source_that_is_served_is_refused(opened: Open) -> None:
    source, target = lived(opened("sqlite")), opened("postgresql")
    assert isinstance(source.engine, SqliteEngine)
    served = SqliteEngine(source.engine.path, clock=Clock())
    served.own()

    with pytest.raises(LedgerInUse):
        copy(source.engine, target.engine, ignore)
    served.close()


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_ledger_on_a_server_that_another_serves_is_refused(opened: Open, side: str) -> None:
    one, other = ("postgresql", "sqlite") if side == "source" else ("sqlite", "postgresql")
    source, target = opened(one), opened(other)
    engine = source.engine if side == "source" else target.engine
    assert isinstance(engine, PostgresEngine)

    with (
        closing(PostgresEngine(engine.url)),
        pytest.raises(LedgerInUse, match=f"another crm-sync is connected to the {side}: stop it"),
    ):
        copy(source.engine, target.engine, ignore)
    assert rows(target, "marks") == []


def test_who_comes_to_a_server_while_it_is_copied_is_noticed_in_the_end(opened: Open) -> None:
    source, target = lived(opened("postgresql")), opened("sqlite")
    assert isinstance(source.engine, PostgresEngine)
    came: list[PostgresEngine] = []

    def meanwhile(done: str, table: str, n: int) -> None:
        if (done, table) == ("compared", "marks"):
            apply(source, event("v1:9", "late@example.com"))
            came.append(PostgresEngine(source.engine.url))  # type: ignore[attr-defined]

    with pytest.raises(LedgerInUse, match="another crm-sync is connected to the source"):
        copy(source.engine, target.engine, meanwhile)
    came[0].close()


def test_whoever_else_looks_into_the_database_is_no_matter(opened: Open) -> None:
    source, target = lived(opened("postgresql")), opened("sqlite")
    assert isinstance(source.engine, PostgresEngine)

    with psycopg.connect(source.engine.url, application_name="psql"):
        copy(source.engine, target.engine, ignore)

    assert everything(target) == everything(source)


def test_a_source_of_a_newer_release_asks_for_that_release(opened: Open) -> None:
    source, target = lived(opened("sqlite")), opened("postgresql")
    source.engine.write("INSERT INTO migrations (number, at) VALUES (?, ?)", [(99, 0.0)])

    with pytest.raises(
        LedgerTooNew, match=r"the source has schema 99, this release knows \d+: install a newer release"
    ):
        copy(source.engine, target.engine, ignore)


def test_a_source_of_another_schema_is_refused(opened: Open) -> None:
    source, target = lived(opened("sqlite")), opened("postgresql")
    source.engine.write("DELETE FROM migrations WHERE number > ?", [(1,)])

    with pytest.raises(LedgerError, match="the source has schema 1, the target"):
        copy(source.engine, target.engine, ignore)


def test_what_the_target_cannot_hold_ends_with_a_sentence(opened: Open) -> None:
    source, target = opened("sqlite"), opened("postgresql")
    source.engine.write("INSERT INTO counters VALUES ('big', ?, 0)", [(2**40,)])

    with pytest.raises(LedgerError, match="a row does not fit into the ledger: integer out of range"):
        copy(source.engine, target.engine, ignore)


@pytest.mark.parametrize(("one", "other"), [("sqlite", "postgresql"), ("postgresql", "sqlite")], ids=str)
def test_the_service_goes_on_with_the_copy(opened: Open, one: str, other: str) -> None:
    source, target = opened(one), opened(other)
    apply(source, event("v1:1", ADA, closed=True, key="first"), event("v1:2", BOB))
    (ada,) = deliver(source, "r1")
    copy(source.engine, target.engine, ignore)

    assert apply(target, event("v1:1", ADA, key="first")) == ["duplicate"]
    with target.transaction():
        claimed = target.claim("crm", [(Kind.CONTACT, 9)], 60.0)
    assert [owed.subject.email for owed in claimed.owed] == [BOB]
    (record,) = target.engine.rows("standings", rows=[{"id": ada}])
    assert (record["state"], record["remote_id"]) == ("delivered", "r1")
