"""Fills a ledger with visitors whom every destination is owed."""

import json
import time
from pathlib import Path

from sync.ids import new_id
from sync.ledger import Ledger
from sync.ledger.engine import Engine
from sync.ledger.sqlite import SqliteEngine
from sync.models import ChatNews, Event, EventType, Kind, Visitor

GROUP = 500
FIRST = 10**12
"""The first of their chat ids: far from those of any simulation that is played."""


def opened(file: Path, *, is_safe: bool = True) -> Ledger:
    """The ledger in a file. Without `is_safe` nothing is waited for: only for filling it."""
    engine = SqliteEngine(file, clock=time.time)
    engine.migrate()
    if not is_safe:
        engine.connection.execute("PRAGMA synchronous=OFF")
    return ledger_on(engine)


def ledger_on(engine: Engine) -> Ledger:
    """A ledger whose only destination is the sandbox."""
    return Ledger(engine, {"sandbox": frozenset({Kind.CONTACT, Kind.CHAT})}, new_id=new_id)


def fill(file: Path, count: int, *, first: int = 0) -> None:
    """Add visitors `first` … `count`, by the way that webhooks go, only without HTTP and JSON."""
    ledger = opened(file, is_safe=False)
    fill_into(ledger, count, first=first)
    ledger.engine.close()


def fill_into(ledger: Ledger, count: int, *, first: int = 0) -> None:
    """The same for a ledger that is open."""
    for start in range(first, count, GROUP):
        with ledger.transaction():
            ledger.apply([visit(number) for number in range(start, min(start + GROUP, count))])


def visit(number: int, event_type: EventType = EventType.START) -> Event:
    """The start of a chat by somebody new; or its close."""
    now = time.time()
    is_start = event_type is EventType.START
    email, phone = f"visitor.{number}@example.com", f"+1202555{number % 10000:04}"
    details = {"name": f"Visitor {number}", "email": email, "phone": phone, "remarks": "Do you ship to Norway?"}
    payload = {"data": {" id": FIRST + number, "details": details, "status": "pending"}, "event": event_type.upper()}
    return Event(
        id=new_id("ev", now),
        source="acquire",
        key=f"{number:024x}{list(EventType).index(event_type):08x}",
        type=event_type,
        name=event_type.upper(),
        occurred_at=now,
        received_at=now,
        payload=json.dumps(payload),
        chat=f"v1:{FIRST + number}",
        visitor=Visitor(f"Visitor {number}", email, phone, attributes={"remarks": "Do you ship to Norway?"}),
        news=ChatNews(started_at=now) if is_start else ChatNews(closed_at=now, wait=2.0, duration=60.0),
    )
