"""A great deal is due when the service starts; it is killed while it drains, and started again."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from torturing.acquire import webhooks_of
from torturing.members import until
from torturing.people import Person, person
from torturing.source import Taken
from torturing.stage import Stage

DUE_PER_KILL = 3_500
LEAST, MOST = 5_000, 100_000
"""Deliveries that are due at the start: so many for each kill that the run may make, though it makes but two."""

FIRST = 200_000
"""The number of the first of these visitors: far from those who come while it drains."""

GROUP = 500
NOTED = 20
"""One visitor in so many has talked, and left: a note is due once they are there."""

CALLS_PER_10S = 5_000
"""The limit of the imitation CRM: the usual one would be all that is measured."""

SHARES = (0.3, 0.6)
"""How much of it has been delivered when a process is killed."""

ENOUGH = 0.95
FIRST_WITHIN = 60.0
DRAINING = 1_200.0
PAUSE = 1.0


def prepare(stage: Stage, seed: int) -> None:
    """Fill the ledger by the way that webhooks go, only without HTTP."""
    stage.calls_per_10s = CALLS_PER_10S
    stage.draining = DRAINING
    people = [visitor(FIRST + n, seed) for n in range(min(max(stage.budget * DUE_PER_KILL, LEAST), MOST))]
    key = stage.settings["SYNC_SECRET_KEY"].encode()
    stage.source_options = {"pause": PAUSE, "people": people, "taken": list(fill(stage.ledger.url, key, people))}


def visitor(number: int, seed: int) -> Person:
    """Somebody with an email and one chat; of most chats only the start has come."""
    someone, address = person(number, seed, time.time()), f"visitor.{number}@example.com"
    first = someone.chats[0]
    chat = replace(first, email=first.email or address, lines=() if number % NOTED else first.lines)
    return Person(address, (chat,))


def fill(url: str, key: bytes, people: Sequence[Person]) -> Iterator[Taken]:
    """Put what these people said into a ledger, with a contact and a chat owed to `hubspot`."""
    from sync.ids import new_id
    from sync.ledger import Ledger
    from sync.ledger.sqlite import SqliteEngine
    from sync.models import Kind
    from sync.secret import digest
    from sync.settings import load
    from sync.sources.acquire import Acquire, AcquireSettings

    engine: Any
    if url.startswith("sqlite"):
        engine = SqliteEngine(Path(url.removeprefix("sqlite:///")), clock=time.time)
    else:
        from sync.ledger.postgres import PostgresEngine

        engine = PostgresEngine(url)
    engine.migrate()
    ledger = Ledger(engine, {"hubspot": frozenset({Kind.CONTACT, Kind.CHAT})}, new_id=new_id)
    source = Acquire(load(AcquireSettings), digest=digest(key), phone_region="US")
    try:
        for start in range(0, len(people), GROUP):
            bodies = [body for one in people[start : start + GROUP] for body in _said(one)]
            now = time.time()
            events = [source.read(body, event_id=new_id("ev", now), received_at=now) for body in bodies]
            with ledger.transaction():
                answers = ledger.apply(events)
            yield from (Taken(b.decode(), a.event, a.status) for b, a in zip(bodies, answers, strict=True))
    finally:
        engine.close()


def _said(someone: Person) -> Iterator[bytes]:
    (chat,) = someone.chats
    webhooks = [webhook.body for webhook in webhooks_of(chat)]
    yield from webhooks if chat.lines else webhooks[:1]


def play(stage: Stage, _seed: int) -> None:
    """Kill whoever drains, twice; note how soon the first delivery was made."""
    due = stage.ledger.select("SELECT COUNT(*) AS n FROM deliveries WHERE state = 'pending'")[0]["n"]
    began = min(psutil.Process(member.pid).create_time() for member in stage.dispatchers)
    stage.remarks.append(f"{len(stage.source.people):,} people before")
    until(lambda: _delivered(stage) > 0, "the first delivery", FIRST_WITHIN)
    first = stage.ledger.select("SELECT MIN(settled_at) AS at FROM deliveries")[0]["at"]
    stage.remarks.append(f"first delivery {first - began:.1f} s after the start")
    for share in SHARES:
        until(lambda share=share: _delivered(stage) >= share * due, f"{share:.0%} of it", DRAINING)  # type: ignore[misc]
        stage.remarks.append(f"{_peak(stage):.0f} MB at most")
        for member in stage.dispatchers:
            stage.kill(member)
    until(lambda: _delivered(stage) >= ENOUGH * due, "nearly all of it", DRAINING)
    took = time.time() - began
    stage.remarks.append(f"{_peak(stage):.0f} MB at most; {due:,} in {took:.0f} s, kills included")


def _delivered(stage: Stage) -> int:
    time.sleep(0.2)
    stage.tend()
    found = stage.ledger.select("SELECT COUNT(*) AS n FROM deliveries WHERE state = 'delivered'")
    return int(found[0]["n"])


def _peak(stage: Stage) -> float:
    """The most memory that any process of the service has held, in MB."""
    statuses = [Path(f"/proc/{member.pid}/status") for member in stage.members]
    lines = [line for status in statuses if status.exists() for line in status.read_text().splitlines()]
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0.0)
