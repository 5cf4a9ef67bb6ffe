"""What `resync --verify`, `prune` and `status` take in a ledger of very many contacts that have all arrived."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.ledgers import fill, opened
from benchmarks.plan import Plan
from benchmarks.processes import crm_sync, environment, furnish, memory_mb, part, running
from sync.destinations.hubspot.mapping import properties_of
from sync.destinations.hubspot.settings import NAMES
from sync.ledger import Ledger
from sync.ledger.rows import contact_of
from sync.sandbox.store import Change, Store

LEDGER = "chat-crm-sync.sqlite3"
CRM = "crm.sqlite3"
FIRST = 101
"""The id of the first record of an empty sandbox."""

PAGE = 5000
LOOK = 0.02
"""Seconds between two looks at how much memory a command holds at most so far."""

UNLIMITED = "1000000"
HUBSPOTS = "190"
PRUNED = {"SYNC_KEEP_PAYLOADS": "0"}

ARRIVED = """
UPDATE deliveries SET state = 'delivered', done = wanted, ours = 1, due_at = NULL, settled_at = owed_at,
  remote_id = (SELECT n.place + {first} FROM numbered n WHERE n.id = deliveries.id)
"""
NUMBERED = """
CREATE TEMP TABLE numbered AS
SELECT id, row_number() OVER (ORDER BY kind DESC, subject) - 1 AS place FROM deliveries
"""
CONTACTS = "SELECT * FROM contacts WHERE id > ? ORDER BY id LIMIT ?"


@dataclass(frozen=True, slots=True)
class Took:
    """A command that ended: seconds, and MiB of memory at its peak."""

    seconds: float
    peak: float


def measure(plan: Plan) -> list[Figure]:
    """One ledger and one CRM that hold the same people; each command a process of its own, as cron would start it."""
    rows, sample = plan.contacts, plan.contacts // 10
    _furnish(plan.folder, rows)
    size = (plan.folder / LEDGER).stat().st_size / 2**30
    with running(part("crm", CRM), plan.folder) as (_, crm):
        settings = {"SANDBOX_EMBEDDED": "false", "SANDBOX_BASE_URL": crm}
        verify = ("resync", "--verify", "--json")
        some = (*verify, "--sample", str(sample))
        told = [
            (f"verify a sample of {sample:,}, as fast as it is answered", _run(plan, settings, UNLIMITED, *some)),
            (f"verify a sample of {sample:,}, within HubSpot's limit", _run(plan, settings, HUBSPOTS, *some)),
            (f"verify all {rows:,}, as fast as it is answered", _run(plan, settings, UNLIMITED, *verify)),
            ("status", _run(plan, settings, UNLIMITED, "status")),
            ("ledger check", _run(plan, settings, UNLIMITED, "ledger", "check")),
            (f"prune the payloads of {rows:,} webhooks", _run(plan, settings | PRUNED, UNLIMITED, "prune")),
            ("prune when nothing is left to prune", _run(plan, settings | PRUNED, UNLIMITED, "prune")),
        ]
    name = f"{rows:,} contacts"
    figures = [Figure(name, "the ledger's file", "GiB", (size,))]
    for work, took in told:
        figures += [Figure(name, work, "s", (took.seconds,)), Figure(name, f"{work}: peak", "MiB", (took.peak,))]
    return figures


def _furnish(folder: Path, rows: int) -> None:
    fill(folder / LEDGER, rows)
    ledger = opened(folder / LEDGER, is_safe=False)
    connection: Any = ledger.engine.connection  # type: ignore[attr-defined]
    connection.execute(NUMBERED)
    connection.execute("CREATE UNIQUE INDEX temp.by_id ON numbered (id)")
    connection.execute(ARRIVED.format(first=FIRST))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with running(part("crm", CRM), folder) as (_, crm):
        furnish(crm)
    with closing(Store(folder / CRM)) as store:
        for page in _pages(ledger):
            written = store.write("contacts", page, made_by="bench", now=time.time())
        assert written[-1].id == FIRST + rows - 1
    ledger.engine.close()
    os.sync()


def _pages(ledger: Ledger) -> Iterator[list[Change]]:
    """Every contact as the CRM would have it, in the order of their ids."""
    people = _people(ledger)
    while page := list(islice(people, PAGE)):
        yield page


def _people(ledger: Ledger) -> Iterator[Change]:
    last = ""
    while rows := ledger.engine.read(CONTACTS, (last, PAGE)):
        for contact in map(contact_of, rows):
            said = properties_of(contact, NAMES)
            yield Change(None, {**said, "chat_crm_sync_uid": contact.uid})
        last = rows[-1]["id"]


def _run(plan: Plan, settings: dict[str, str], calls: str, *arguments: str) -> Took:
    """Run a command to its end. Raises RuntimeError where it does not say that all is well."""
    given = environment({**settings, "SANDBOX_CALLS_PER_10S": calls})
    begun = time.monotonic()
    peak = 0.0
    with subprocess.Popen(
        crm_sync(*arguments),
        cwd=plan.folder,
        env=given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        while process.poll() is None:
            with suppress(OSError, StopIteration):  # it may end while it is looked at
                peak = memory_mb(process, "VmHWM")
            time.sleep(LOOK)
    if process.returncode != 0:
        raise RuntimeError(f"crm-sync {' '.join(arguments)} ended with {process.returncode}")
    return Took(time.monotonic() - begun, peak)
