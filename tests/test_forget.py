"""Forgetting somebody through the whole service: no trace of them is left anywhere that is ours (promise P8)."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from sync.cli import main
from sync.errors import Unauthorized
from sync.forget import forget
from sync.ledger import Ledger
from sync.ledger.checking import check
from sync.ledger.erasing import Erasures
from sync.ledger.sqlite import SqliteEngine
from sync.models import Message
from sync.secret import digest
from sync.settings import Settings
from sync.web.metrics import LedgerCollector
from sync.wiring import secret_key
from tests.databases import Server, select
from tests.people import CRM, Clock, Ids, event
from tests.processes import TOKEN, Stage, get
from tests.running import Running, running, start

EMAIL, PHONE, NAME, WORDS = "canary.bird@example.com", "+31612345678", "Canary Birdwell", "zyxwv-token-98765"
TRACES = (EMAIL, "canary", "birdwell", PHONE, "31612345678", WORDS, "61111777")
HOUR, DAY = 3600.0, 86400.0


def closed(chat: int = 172, **visitor: Any) -> dict[str, Any]:
    return {
        "event": "CHAT_ON_CLOSE",
        "id": str(1000 + chat),
        "users": {"visitor": {"name": NAME, "email": EMAIL, **visitor}, "agent": {"name": "Grace"}},
        "chat_wait_time": 5,
        "chat_duration": 60,
        "messages": [{"id": "1", "message": f"my password is {WORDS}", "sender": "visitor"}],
        "date_created": "2026-09-21 14:13:00",
    }


def canary(chat: int = 172, **said: Any) -> dict[str, Any]:
    return start(chat, EMAIL.upper(), NAME, phone=PHONE, remarks=f"token {WORDS}", visitor_id="61111777", **said)


async def life(service: Running) -> None:
    """Chats, a refusal that quotes the person, a mail, other people in between."""
    for n in range(300, 340):  # the file's pages split and move
        await service.post(start(n, f"n{n}@example.com", f"Person {n}"))
        if n % 10 == 0:
            await service.post(canary(500 + n))
    service.crm.state.faults.reject = [EMAIL]
    await service.post(canary())
    await service.post(closed())
    await service.post(b'{"event": "CHAT_ON_START", "data": "' + EMAIL.encode() + b'"}')
    await service.drain()
    service.crm.state.faults.reject = []
    with service.ledger.transaction():
        (dead, *_) = select(service.ledger, "SELECT id FROM deliveries WHERE state = 'dead'")
        failure = {"id": "fa_1", "delivery": dead["id"], "outcome": "dead", "status": 400}
        service.ledger.engine.run("insert_failures", rows=[{**failure, "error": f"{EMAIL} is refused"}])
        service.ledger.engine.run("revive_dead", destination="sandbox")
        service.ledger.engine.run("raise_alarm", key="dead:1", text=f"sandbox refuses: {EMAIL} is refused.")
    service.clock.now += HOUR
    await service.post(closed(chat=810))
    await service.drain()
    service.clock.now += HOUR
    await service.drain()


def traces_in(content: bytes) -> list[str]:
    low = content.lower()
    return [trace for trace in TRACES if trace.lower().encode() in low]


def dump(ledger: Ledger) -> bytes:
    tables = ("events", "contacts", "identities", "chats", "deliveries", "failures", "emails", "alarms", "joins")
    more = ("marks", "cursors", "erasures", "destinations", "counters", "suppressions", "strays")
    return json.dumps({t: select(ledger, f"SELECT * FROM {t}") for t in (*tables, *more)}).encode()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_no_trace_is_left_anywhere(
    engine: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SYNC_SECRET_KEY", "k" * 32)
    caplog.set_level(logging.DEBUG, logger="sync")
    database = server.database() if engine == "postgresql" else None
    async with running(tmp_path, database=database, mailer="sandbox") as service:
        await life(service)
        assert set(traces_in(dump(service.ledger))) == set(TRACES)
        assert EMAIL in service.crm.contacts
        key = digest(secret_key(Settings(mailer="sandbox")))

        done = forget(service.ledger, EMAIL, key)
        await service.drain()

        assert traces_in(dump(service.ledger)) == []
        assert traces_in(json.dumps(done.receipt).encode()) == []
        assert EMAIL not in service.crm.contacts
        assert traces_in("\n".join(record.getMessage() for record in caplog.records).encode()) == []
        metrics = LedgerCollector({})
        await metrics.refresh(service.service.writer)
        assert traces_in(str([family.samples for family in metrics.collect()]).encode()) == []
        assert check(service.ledger.engine) == []
        if engine == "sqlite":
            assert done.is_scrubbed
            file: Any = service.ledger.engine
            file.backup(tmp_path / "backup.sqlite3")
            for path in tmp_path.glob("*sqlite3*"):
                assert traces_in(path.read_bytes()) == [], path.name

        await service.post(canary())
        await service.post(canary(phone_again=1))
        late = await service.post({**closed(), "chat_duration": 61})
        assert late.status_code == 200
        assert EMAIL not in str(select(service.ledger, "SELECT email FROM contacts"))

        service.clock.now += 30 * DAY
        new = start(900, EMAIL, "Canary")
        new["data"]["date_created"] = new["data"]["date_updated"] = "2026-10-20 14:13:00"
        await service.post(new)
        await service.drain()
        assert service.crm.contacts[EMAIL]["firstname"] == "Canary"
        contacts = select(service.ledger, "SELECT uid, erased_at FROM contacts WHERE email IS NOT NULL")
        assert len([one for one in contacts if one["erased_at"] is None]) == 41


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, {"SYNC_SECRET_KEY": "k" * 32})
    yield made
    made.close()


FILL = """
import sys, time, json
from sync.settings import Settings, load
from sync.wiring import open_ledger, sources
from sync.ids import new_id
ledger = open_ledger(load(Settings))
source = sources(load(Settings))["acquire"]
bodies = json.loads(sys.stdin.read())
with ledger.transaction():
    ledger.apply([
        source.read(json.dumps(b).encode(), event_id=new_id("ev", 1e9 + n), received_at=1.79e9)
        for n, b in enumerate(bodies)
    ])
ledger.engine.close()
"""


def fill(stage: Stage, bodies: list[dict[str, Any]]) -> None:
    root = Path(__file__).parent.parent
    environment = {**stage.environment, "PYTHONPATH": str(root)}
    subprocess.run(
        [sys.executable, "-c", FILL], input=json.dumps(bodies), text=True, check=True, env=environment, cwd=stage.folder
    )


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_a_command_that_is_killed_leaves_all_or_nothing_and_goes_on(stage: Stage, after: float) -> None:
    bodies = [canary(n, number=str(n)) for n in range(1500)] + [start(2000, "bob@example.com", "Bob")]
    fill(stage, bodies)
    file = stage.folder / "ledger.sqlite3"
    wal = file.with_name(file.name + "-wal")

    process = stage.start("forget", EMAIL, "--yes")
    stage.until(lambda: process.poll() is not None or (wal.exists() and wal.stat().st_size > 0))
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    engine = SqliteEngine(file, clock=time.time)
    left = engine.read("SELECT COUNT(*) AS n FROM events WHERE payload LIKE '%anary%'")[0]["n"]
    erased = engine.read("SELECT COUNT(*) AS n FROM contacts WHERE erased_at IS NOT NULL")[0]["n"]
    engine.close()
    assert (left, erased) in ((1500, 0), (0, 1))

    done = stage.command("forget", EMAIL, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert receipt["counts"]["events"] == 1500
    assert stage.command("ledger", "check").returncode == 0
    assert [p.name for p in stage.folder.glob("ledger.sqlite3*") if traces_in(p.read_bytes())] == []
    bob = json.loads(stage.command("contacts", "--json").stdout)
    assert [one["email"] for one in bob] == ["bob@example.com"]


def test_the_command_says_what_it_would_do_then_does_it_and_proves_it(stage: Stage) -> None:
    stage.settings["SYNC_DESTINATIONS"] = "hubspot"
    fill(stage, [canary(), start(2, "bob@example.com", "Bob")])
    stage.crm()
    assert stage.command("dispatch", "--once").returncode == 0

    plan = stage.command("forget", PHONE)
    assert "This would be erased, and nothing has been yet" in plan.stdout
    assert "hubspot 101: hubspot is asked to delete it" in plan.stdout.replace("102", "101")
    exported = json.loads(stage.command("export", EMAIL).stdout)
    assert exported["contacts"][0]["name"] == NAME
    receipt = stage.folder / "receipt.json"
    done = stage.command("forget", EMAIL, "--yes", "--receipt", str(receipt))
    assert "Forgotten." in done.stdout, done.stderr
    assert stage.command("forget", "--verify", str(receipt)).returncode == 0
    assert stage.command("dispatch", "--once").returncode == 0
    again = stage.command("forget", EMAIL, "--yes", "--receipt", str(receipt))
    assert "was forgotten already" in again.stdout
    assert json.loads(receipt.read_text())["records"][0]["state"] == "delivered"
    receipt.write_text(receipt.read_text().replace('"chats": 1', '"chats": 2'))
    assert stage.command("forget", "--verify", str(receipt)).returncode == 1
    assert stage.command("forget", "nobody@example.com", "--yes").returncode == 2
    assert traces_in((stage.folder / "stderr.txt").read_bytes()) == []


def test_one_says_whom_or_which_receipt() -> None:
    assert CliRunner().invoke(main, ["forget"]).exit_code == 2


async def test_a_token_that_may_not_delete_pauses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_SECRET_KEY", "k" * 32)
    async with running(tmp_path) as service:
        await service.post(canary())
        await service.drain()
        forget(service.ledger, EMAIL, digest(b"k" * 32))
        deletes = service.destination.forget

        async def forbidden(remote_id: str) -> None:
            raise Unauthorized("missing scope", status=403)

        monkeypatch.setattr(service.destination, "forget", forbidden)
        await service.post(start(5, "bob@example.com", "Bob"))
        await service.drain()
        (erasure,) = select(service.ledger, "SELECT state, error FROM deliveries WHERE kind = 'erasure'")
        assert erasure["state"] == "dead"
        assert "bob@example.com" in service.crm.contacts

        monkeypatch.setattr(service.destination, "forget", deletes)
        with service.ledger.transaction():
            service.ledger.engine.run("revive_dead", destination="sandbox")
        await service.drain()
        assert EMAIL not in service.crm.contacts


def test_beside_a_running_service_no_trace_is_left_in_its_files_either(stage: Stage) -> None:
    stage.crm()
    stage.serve()
    post = f"{stage.url}/webhooks/acquire/{TOKEN}"
    for n in range(20):
        assert get(post, method="POST", body=canary(n))[0] == 200
    stage.until(lambda: "delivered" in stage.command("contacts", "--json").stdout)

    done = stage.command("forget", EMAIL, "--yes", "--json")

    assert done.returncode == 0, done.stderr
    assert [p.name for p in stage.folder.glob("ledger.sqlite3*") if traces_in(p.read_bytes())] == []
    stage.until(lambda: '"state": "pending"' not in stage.command("forget", EMAIL, "--yes", "--json").stdout)
    assert get(post, method="POST", body=canary(3))[1]["status"] == "duplicate"
    assert get(post, method="POST", body=canary(3, remarks_too="x"))[0] == 200
    assert json.loads(stage.command("contacts", "--json").stdout) == []


def test_nothing_is_left_where_pages_of_the_file_were_split(tmp_path: Path) -> None:
    """What `secure_delete` does not reach: without the rewrite some of these emails can still be read in the file."""
    clock, chance, key = Clock(), Random(1), digest(b"k" * 32)
    engine = SqliteEngine(tmp_path / "ledger.sqlite3", clock=clock)
    engine.migrate()
    ledger = Ledger(engine, CRM, new_id=Ids(), erasures=Erasures(key))
    people = [f"canary{n}@example.com" for n in range(10)] + [f"{chance.random()}@example.com" for _ in range(1200)]
    chance.shuffle(people)
    for turn in range(3):
        lines = {m: (Message(f"m{turn}", "visitor", m * chance.randrange(1, 12)),) for m in people}
        for some in range(0, len(people), 100):
            with ledger.transaction():
                ledger.apply([event(f"v1:{m}", m, at=turn, messages=lines[m]) for m in people[some : some + 100]])
    engine.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"canary" in engine.path.read_bytes()

    for n in range(10):
        assert forget(ledger, f"canary{n}@example.com", key).is_scrubbed

    assert b"canary" not in engine.path.read_bytes()
    engine.close()


def test_a_large_file_is_rewritten_only_when_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.ledger.sqlite.SMALL", 0)
    engine = SqliteEngine(tmp_path / "ledger.sqlite3", clock=Clock())
    engine.migrate()

    assert not engine.scrub()
    assert engine.scrub(whatever_size=True)
    engine.close()
