"""A command that is killed and run again leaves what one leaves that nobody killed. (Pulling: see test_resync.py.)"""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from click.testing import CliRunner, Result

from sync import wiring
from sync.cli import main
from sync.errors import LedgerUnavailable
from sync.ids import new_id
from sync.ledger import Ledger, Settlement
from sync.ledger.copying import TABLES
from sync.ledger.pruning import PAGE
from sync.models import Event, Kind, Message, Receipt
from sync.outcomes import Delivered
from sync.sandbox.store import Change, Store
from sync.settings import Settings
from tests.databases import Server, select
from tests.people import NOON, event
from tests.processes import Stage, free_port
from tests.running import start
from tests.test_forget import EMAIL, canary, traces_in

KEY = "canary" * 6
TIMES = ("at", "since", "until", "pace", "pruned_until")


@dataclass
class Machine(Stage):
    """A ledger on either engine, and the commands that are run on it."""

    def open(self) -> Ledger:
        return wiring.open_ledger(Settings(ledger=self.settings["SYNC_LEDGER"], secret_key=KEY))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        ledger = self.open()
        with closing(ledger.engine):
            return sorted((tuple(row.values()) for row in select(ledger, sql)), key=repr)

    def hear(
        self, bodies: Sequence[tuple[bytes, float]], others: Sequence[Event] = (), *, is_owed: bool = True
    ) -> list[str]:
        """Webhooks arrive, each at its time; what became of them."""
        ledger = self.open()
        source = wiring.sources(Settings(ledger=self.settings["SYNC_LEDGER"], secret_key=KEY))["acquire"]
        ledger.takers = ledger.takers if is_owed else {}
        read = [source.read(body, event_id=new_id("ev", at), received_at=at) for body, at in bodies]
        with closing(ledger.engine), ledger.transaction():
            return [applied.status for applied in ledger.apply([*read, *others])]

    def run(self, *arguments: str) -> Result:
        """Run a command to its end, without a process of its own."""
        return CliRunner(env=self.environment).invoke(main, arguments, catch_exceptions=False)

    def killed(self, *arguments: str, once: str, after: float = 0.0) -> bool:
        """Kill a command as soon as this query has a new answer, or so long after. False where it ended before.

        At once means: before its next transaction. This asks in transactions of its own, which keep the command's out.
        """
        ledger = self.open()
        with closing(ledger.engine):
            if not self.is_postgres:
                select(ledger, "PRAGMA busy_timeout = 0")
            before = select(ledger, once)
            process = self.start(*arguments)

            def is_over() -> bool:
                with suppress(LedgerUnavailable), ledger.transaction():
                    is_new = select(ledger, once) != before
                    if is_new and not after:
                        self.kill(process)
                    return is_new
                return False

            _until(is_over, process)
        time.sleep(after)
        ended = self.kill(process)
        self.wait_for_the_server()
        return ended == -signal.SIGKILL

    def kill(self, process: "subprocess.Popen[bytes]") -> int:
        process.send_signal(signal.SIGKILL)
        return process.wait(timeout=10)

    def wait_for_the_server(self) -> None:
        """PostgreSQL goes on with the statement of a client that is no more; what it then does is undone."""
        if self.is_postgres:
            others = (
                "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            with psycopg.connect(self.settings["SYNC_LEDGER"], autocommit=True) as connection:
                _until(lambda: connection.execute(others).fetchone() == (0,))

    @property
    def is_postgres(self) -> bool:
        return self.settings["SYNC_LEDGER"].startswith("postgresql:")

    @property
    def crm_file(self) -> Path:
        return self.folder / "crm.sqlite3"

    def everything(self, *, but: Collection[str] = ()) -> dict[str, list[Any]]:
        """All rows of the ledger, without times and these columns."""
        ledger = self.open()
        with closing(ledger.engine):
            found = {table.name: select(ledger, f"SELECT * FROM {table.name}") for table in TABLES}
        return {table: sorted((_without(row, table, but) for row in rows), key=repr) for table, rows in found.items()}

    def twin(self, server: Server) -> "Machine":
        """The same again, down to the ids: a machine on which nobody is killed."""
        folder = self.folder.with_name("twin")
        shutil.copytree(self.folder, folder)
        address = f"sqlite:///{folder / 'ledger.sqlite3'}"
        if self.is_postgres:
            self.wait_for_the_server()
            name = urlsplit(self.settings["SYNC_LEDGER"]).path[1:]
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}_twin TEMPLATE {name}")
            address = self.settings["SYNC_LEDGER"].replace(f"/{name}?", f"/{name}_twin?")
        return Machine(folder, _settings(address, folder))


def _without(row: dict[str, Any], table: str, but: Collection[str]) -> dict[str, Any]:
    kept = {k: v for k, v in row.items() if not (k in TIMES or k.endswith("_at") or f"{table}.{k}" in but)}
    return {**kept, "is_erased": row["erased_at"] is not None} if table == "contacts" else kept


def _until(holds: Callable[[], bool], process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Look until something holds, or until the process has ended; bounded."""
    end = time.monotonic() + 60
    while not holds() and (process is None or process.poll() is None):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.0001)


def _settings(address: str, folder: Path) -> dict[str, str]:
    return {
        "SYNC_LEDGER": address,
        "SYNC_SECRET_KEY": KEY,
        "SYNC_DESTINATIONS": "sandbox",
        "SYNC_LOG_LEVEL": "error",
        "SANDBOX_BASE_URL": f"http://127.0.0.1:{free_port()}",
        "SANDBOX_FILE": str(folder / "crm.sqlite3"),
        "SANDBOX_CALLS_PER_10S": "10000",
    }


@pytest.fixture(params=["sqlite", "postgresql"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Iterator[Machine]:
    folder = tmp_path / "machine"
    folder.mkdir()
    address = f"sqlite:///{folder / 'ledger.sqlite3'}" if request.param == "sqlite" else server.database()
    made = Machine(folder, _settings(address, folder))
    made.open().engine.close()
    yield made
    made.close()


def as_json(done: "Result | subprocess.CompletedProcess[str]") -> Any:
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


PEOPLE = 4000
IMPORTED = (
    "SELECT name, email, phone, attributes, clocks, version FROM contacts",
    "SELECT i.kind, i.value, c.email, c.phone FROM identities i JOIN contacts c ON c.id = i.contact",
    "SELECT s.destination, s.remote_id, c.email, c.phone FROM strays s JOIN contacts c ON c.id = s.contact",
    "SELECT c.email, c.phone, d.destination, d.kind, d.state, d.remote_id, d.ours, d.wanted, d.done, d.due_at IS NULL"
    " FROM deliveries d JOIN contacts c ON c.id = d.subject",
    "SELECT x.chat, d.destination, d.kind, d.state, d.remote_id, d.wanted, d.done, d.due_at IS NULL"
    " FROM deliveries d JOIN chats x ON x.id = d.subject",
    "SELECT name FROM cursors",
)


def _export_of_the_crm(file: Path) -> Path:
    """Every tenth of its rows is of a kind that is left alone."""
    rows = ["Record ID,First Name,Last Name,Email,Phone Number"]
    for n in range(PEOPLE):
        email, phone, before = f"p{n}@example.com", f"+4420{70000000 + n}", n - 5
        match n % 50:
            case 7:
                rows.append(f",Ada,N{n},{email},{phone}")
            case 17:
                rows.append(f"{1000 + n},Ada,N{n},P{before}@example.com,")
            case 27:
                rows.append(f"{1000 + before},Ada,N{n},{email},{phone}")
            case 37:
                rows.append(f"{1000 + n},Ada,N{n},not an email,")
            case 47:
                rows.append(f"{1000 + n},Ada,N{n},,+4420{70000000 + before}")
            case _:
                rows.append(f"{1000 + n},Ada,N{n},{email},{phone}")
    file.write_text("\n".join(rows) + "\n")
    return file


def test_an_import_that_is_killed_and_run_again_ends_as_one_that_is_not(machine: Machine, server: Server) -> None:
    file = _export_of_the_crm(machine.folder.with_name("contacts.csv"))
    known = [event(f"v1:{n}", f"p{n}@example.com", name="Ada by chat", closed=True) for n in range(1, PEOPLE, 20)]
    machine.hear([], known)
    people, place = "SELECT COUNT(*) FROM contacts", "SELECT value FROM cursors WHERE name LIKE 'import:%'"
    command = ("import", str(file), "--destination", "sandbox", "--json")
    twin = machine.twin(server)
    whole = as_json(twin.run(*command))
    assert (whole["rows"], whole["known"], len(whole["left"])) == (PEOPLE, len(known), 5)

    reached = []
    for once, after in ((people, 0.0), (place, 0.0), (people, 0.03)):
        if not machine.killed(*command, once=once, after=after):
            break
        reached += machine.rows(people)
    assert len(set(reached)) >= 2, reached
    done = as_json(machine.command(*command))

    assert done["resumed"] > 1
    assert {**done, "resumed": None} == whole
    for sql in IMPORTED:
        assert machine.rows(sql) == twin.rows(sql)
    before = machine.everything()
    again = as_json(machine.run(*command))
    assert (again["rows"], again["new"], again["known"]) == (PEOPLE, 0, 0)
    assert machine.everything() == before
    assert machine.run("ledger", "check").exit_code == 0


OLD = 20_000
CONVERSATIONS = 600


def _old_webhooks(machine: Machine) -> None:
    """Of many nothing is known but that they came; of some there are chats that nobody is owed; a few are of today."""
    bodies = [(json.dumps(start(n)).encode(), float(n)) for n in range(100)]
    bodies += [(b'{"event": "CHAT_ON_START", "data": "%d"}' % n, time.time()) for n in range(30)]
    silent = [event(None, silent=True, at=n - NOON) for n in range(OLD - len(bodies) - CONVERSATIONS)]
    said = (Message("m1", "visitor", "Hello, is anybody there?"),)
    closed = [event(f"v2:{n}", at=n - NOON, closed=True, messages=said) for n in range(CONVERSATIONS)]
    old = [replace(one, id=new_id("ev", one.received_at), payload="x" * 300) for one in (*silent, *closed)]
    machine.hear(bodies, old, is_owed=False)


def test_a_prune_that_is_killed_and_run_again_ends_as_one_that_is_not(machine: Machine, server: Server) -> None:
    _old_webhooks(machine)
    payloads = "SELECT COUNT(*) FROM events WHERE payload <> ''"
    transcripts = "SELECT COUNT(*) FROM chats WHERE transcript <> '[]'"
    twin = machine.twin(server)
    for each in (machine, twin):
        each.settings |= {"SYNC_KEEP_PAYLOADS": "0", "SYNC_KEEP_TRANSCRIPTS": "0"}
    whole = as_json(twin.run("prune", "--json"))
    assert (whole["pruned"]["payloads"]["rows"], whole["kept"]["payloads"]["rows"]) == (OLD - 30, 30)
    assert whole["pruned"]["transcripts"]["rows"] == CONVERSATIONS

    left = []
    for once, after in ((payloads, 0.03), (transcripts, 0.0)):
        if not machine.killed("prune", once=once, after=after):
            break
        left += machine.rows(payloads)
    assert len(set(left)) >= 2, left
    assert 0 < left[0][0] < OLD
    assert (OLD - left[0][0]) % PAGE == 0
    assert machine.command("prune", "--json").returncode == 0

    assert machine.everything() == twin.everything()
    assert machine.hear([(json.dumps(start(7)).encode(), time.time())]) == ["duplicate"]
    assert machine.rows(payloads) == [(30,)]
    assert machine.run("ledger", "check").exit_code == 0


WEBHOOKS = 1500
ERASED = (
    "SELECT (SELECT COUNT(*) FROM events WHERE payload LIKE '%anary%') AS events,"
    " (SELECT COUNT(*) FROM chats WHERE said LIKE '%anary%') AS chats,"
    " (SELECT COUNT(*) FROM contacts WHERE erased_at IS NOT NULL) AS contacts,"
    " (SELECT COUNT(*) FROM erasures) AS hashes"
)


def _somebody_who_wrote_much(machine: Machine) -> None:
    """One person with a record in the CRM that we made, and two others."""
    bodies = [(json.dumps(canary(n, number=str(n), more="x" * 2000)).encode(), NOON) for n in range(WEBHOOKS)]
    bodies += [
        (json.dumps(start(n, f"{name}@example.com")).encode(), NOON) for n, name in ((2000, "bob"), (2001, "eve"))
    ]
    machine.hear(bodies)
    ledger = machine.open()
    with closing(ledger.engine):
        with ledger.transaction():
            owed = ledger.claim("sandbox", [(Kind.CONTACT, 10)], 60.0).owed
        with ledger.transaction():
            given = [(one, Delivered(Receipt(str(n), ours=True))) for n, one in enumerate(owed, 101)]
            ledger.settle([Settlement(one.delivery, one.claim, one.version, outcome) for one, outcome in given])


@contextmanager
def _held_amid(machine: Machine) -> Iterator[Callable[[], bool]]:
    """Says whether an erasure has begun to write and is not committed.

    SQLite writes more than it keeps in memory into its WAL beforehand; PostgreSQL waits here for a row of ours.
    """
    if not machine.is_postgres:
        wal = machine.folder / "ledger.sqlite3-wal"
        yield lambda: wal.exists() and wal.stat().st_size > 1 << 18
        return
    address = machine.settings["SYNC_LEDGER"]
    waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(address) as holding, psycopg.connect(address, autocommit=True) as looking:
        holding.execute("SELECT 1 FROM contacts FOR UPDATE")
        yield lambda: looking.execute(waits).fetchone() == (1,)


def _killed_amid(machine: Machine, *command: str, after: float) -> bool:
    process = machine.start(*command)
    with _held_amid(machine) as is_amid:
        _until(is_amid, process)
        if after == 0.0:
            machine.kill(process)
    time.sleep(after)
    ended = machine.kill(process)
    machine.wait_for_the_server()
    return ended == -signal.SIGKILL


def test_a_person_is_forgotten_wholly_or_not_at_all_whenever_it_is_killed(machine: Machine, server: Server) -> None:
    _somebody_who_wrote_much(machine)
    nothing = machine.rows(ERASED)
    twin = machine.twin(server)
    command = ("forget", EMAIL, "--yes", "--json")
    whole = as_json(twin.run(*command))
    wholly = twin.rows(ERASED)
    assert whole["counts"]["events"] == WEBHOOKS
    assert (wholly[0][:3], nothing[0][:3]) == ((0, 0, 1), (WEBHOOKS, WEBHOOKS, 0))

    kills, delays = 0, [0.0, 0.01, 0.03]
    while delays and machine.rows(ERASED) == nothing:
        after = delays.pop(0)
        kills += _killed_amid(machine, *command, after=after)
        assert machine.rows(ERASED) in ([nothing] if after == 0.0 else [nothing, wholly])
    assert kills >= 2
    if machine.rows(ERASED) == nothing:
        machine.killed(*command, once=ERASED)
        assert machine.rows(ERASED) == wholly
    done = machine.command(*command)

    assert done.returncode == 0, done.stderr
    receipt = as_json(done)
    assert all(receipt[said] == whole[said] for said in ("contact", "subject", "counts", "records", "lost", "mails"))
    random = {"deliveries.id", "marks.value"}
    assert machine.everything(but=random) == twin.everything(but=random)
    assert machine.is_postgres or not any(traces_in(p.read_bytes()) for p in machine.folder.glob("ledger.sqlite3*"))
    old = [canary(3, number="3", more="x" * 2000), canary(3, late="1"), canary(WEBHOOKS, late="1")]
    became = machine.hear([(json.dumps(body).encode(), NOON) for body in old])
    assert became == ["duplicate", "accepted", "accepted"]
    people = as_json(machine.run("contacts", "--json"))
    assert sorted(one["email"] for one in people) == ["bob@example.com", "eve@example.com"]
    assert machine.run("ledger", "check").exit_code == 0


DELIVERED = 800
APART = {"changed": 140, "theirs": 40, "deleted": 20, "missing": 20, "duplicate": 40, "moved": 20}
NOTED = "SELECT value FROM cursors WHERE name = 'verify:sandbox'"
OWED = "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'"


def _delivered(machine: Machine) -> None:
    """Everybody stands in the CRM; every twentieth stood there before us."""
    with closing(Store(machine.crm_file)) as store:
        before = [Change(None, {"email": f"p{n}@example.com", "firstname": "Ada"}) for n in range(0, DELIVERED, 20)]
        store.write("contacts", before, made_by="sales", now=time.time())
    bodies = [json.dumps(start(n, f"p{n}@example.com", f"Ada N{n}")).encode() for n in range(DELIVERED)]
    machine.hear([(body, NOON) for body in bodies])
    assert machine.run("resync", "--drain").exit_code == 0


def _edit(machine: Machine) -> None:
    """Somebody edits the CRM behind our back."""
    now = time.time()
    with closing(Store(machine.crm_file)) as store:

        def write(record: Any, **properties: str) -> Any:
            return store.write("contacts", [Change(record, properties)], made_by="sales", now=now)[0]

        for n in range(DELIVERED):
            email = f"p{n}@example.com"
            record = store.contact(email)
            assert record is not None
            match n % 40:
                case 0 | 1 | 2 | 3 | 21 | 22 | 23:
                    write(record, firstname="Somebody")
                case 4:
                    store.archive(record.id, now=now)
                case 24:
                    store.remove(record.id)
                case 5 | 20:
                    write(record, email=f"old{n}@example.com")
                    write(None, email=email, firstname="Second")
                case 25:
                    store.merge(write(None, email=f"sales{n}@example.com"), record, made_by="sales", now=now)


def _stands(machine: Machine) -> tuple[list[Any], list[Any]]:
    """Who is in the CRM; and what is said of each in the ledger, with the record that it leads to."""
    ledger = machine.open()
    with closing(ledger.engine), closing(Store(machine.crm_file)) as store:
        deliveries = select(ledger, "SELECT * FROM deliveries")
        known = store.load("contacts", [int(one["remote_id"]) for one in deliveries if one["remote_id"] is not None])
        records = {str(id_): dict(record.properties) for id_, record in known.items()}
        said = ("kind", "subject", "state", "wanted", "done", "ours", "error")
        told = [([one[name] for name in said], records.get(one["remote_id"])) for one in deliveries]
        return sorted((dict(one.properties) for one in store.contacts), key=repr), sorted(told, key=repr)


def _let_go(machine: Machine) -> None:
    """What the lease of the lock does by itself two minutes later."""
    ledger = machine.open()
    with closing(ledger.engine):
        (held,) = ledger.engine.rows("get_lock", name="a re-sync")
        ledger.engine.run("drop_lock", name="a re-sync", owner=held["owner"])


def test_a_verification_that_is_killed_and_run_again_ends_as_one_that_is_not(machine: Machine, server: Server) -> None:
    _delivered(machine)
    _edit(machine)
    command = ("resync", "--verify", "--fix", "--json", "--destination", "sandbox")
    twin = machine.twin(server)
    (whole,) = as_json(twin.run(*command))["verified"]
    assert (whole["seen"], whole["counts"]) == (DELIVERED, APART)
    assert whole["owed"] == APART["changed"] + APART["moved"]
    assert {one["kind"] for one in whole["listed"] if not one["is_owed"]} >= {"missing", "deleted"}

    machine.settings["SANDBOX_CALLS_PER_10S"] = "200"
    seen = []
    for once in (NOTED, OWED):
        if not machine.killed(*command, once=once):
            break
        _let_go(machine)
        seen += [json.loads(value)["seen"] for (value,) in machine.rows(NOTED)]
    assert len(set(seen)) >= 2, seen
    machine.settings["SANDBOX_CALLS_PER_10S"] = "10000"
    (done,) = as_json(machine.command(*command))["verified"]

    assert done["resumed"]
    for said in ("seen", "counts", "owed", "passed_over", "stopped"):
        assert done[said] == whole[said], said
    assert [_drift(one) for one in done["listed"]] == [_drift(one) for one in whole["listed"]]
    strays = "SELECT destination, contact, remote_id FROM strays"
    assert machine.rows(strays) == twin.rows(strays)
    for each in (machine, twin):
        assert as_json(each.run("resync", "--drain", "--json"))["left"] == 0
    assert _stands(machine) == _stands(twin)
    assert machine.rows(NOTED) == []
    assert machine.rows(strays) == twin.rows(strays)
    assert machine.run("ledger", "check").exit_code == 0


def _drift(told: dict[str, Any]) -> tuple[Any, ...]:
    fields = [difference["field"] for difference in told["differences"]]
    return told["contact"], told["remote_id"], told["kind"], fields, told["records"], told["is_owed"]
