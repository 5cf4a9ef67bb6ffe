"""Visitors, events and ledgers for tests: obviously fake, deterministic."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sync.identity import World, fold
from sync.ledger import Ledger
from sync.ledger.sqlite import SqliteEngine
from sync.models import ChatNews, Event, EventType, Kind, Message, Visitor

NOON = 1_790_000_000.0
"""Some moment; tests hold time still there and move it by hand."""

CRM = {"crm": frozenset({Kind.CONTACT, Kind.CHAT})}


@dataclass
class Clock:
    """A clock that stands still until it is told to move."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Ids:
    """Ids that count up, so that tests repeat exactly."""

    counter: Any = field(default_factory=itertools.count)

    def __call__(self, prefix: str, now: float) -> str:
        return f"{prefix}_{next(self.counter):06d}"


_numbers = itertools.count()


def event(
    chat: str | None = "v1:1",
    email: str | None = None,
    *,
    name: str | None = None,
    phone: str | None = None,
    visitor_id: str | None = None,
    at: float = 0.0,
    type: EventType = EventType.START,
    received: float | None = None,
    key: str | None = None,
    attributes: dict[str, str] | None = None,
    closed: bool = False,
    messages: tuple[Message, ...] = (),
    agent: str | None = None,
    silent: bool = False,
) -> Event:
    """An event of one chat. `at` is in seconds after NOON; `silent` says nothing about a person."""
    number = next(_numbers)
    visitor = Visitor(name=name, email=email, phone=phone, visitor_id=visitor_id, attributes=attributes or {})
    moment = NOON + at
    return Event(
        id=f"ev_{number:08d}",
        source="acquire",
        key=key or f"key-{number}",
        type=type,
        name=type.upper(),
        occurred_at=moment,
        received_at=moment if received is None else NOON + received,
        payload="{}",
        chat=chat,
        visitor=None if silent else visitor,
        news=ChatNews(
            started_at=moment if type is EventType.START else None,
            closed_at=moment if closed else None,
            agent=agent,
            messages=messages,
        ),
    )


def world_of(*events: Event) -> World:
    """The world after these events, in this order."""
    world = World(now=NOON, new_id=Ids())
    for each in events:
        fold(world, each)
    return world


def open_ledger(path: Path, clock: Clock | None = None, takers: dict[str, frozenset[Kind]] | None = None) -> Ledger:
    """A real ledger on a real file."""
    engine = SqliteEngine(path / "ledger.sqlite3", clock=clock or Clock())
    engine.migrate()
    return Ledger(engine, CRM if takers is None else takers, new_id=Ids())
