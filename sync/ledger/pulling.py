"""What a pull keeps in the ledger: where it goes on, and what it has to know of the chats that it tells of."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync.cleaning import email_key
from sync.ledger import Ledger
from sync.ledger.rows import chat_of, dump
from sync.models import Chat, Event, EventType

MOST_SAID = 1000
"""Events of one chat that are read again to see what it said before."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One event as it came."""

    id: str
    received_at: float
    payload: str


def load_cursors(ledger: Ledger, name: str) -> dict[str, Any]:
    """A cursor by its name, and those under it (`name:…`)."""
    found = ledger.engine.rows("cursors", name=name, under=f"{name}:%")
    return {row["name"]: json.loads(row["value"]) for row in found}


def save_cursor(ledger: Ledger, name: str, value: Mapping[str, Any]) -> None:
    """Remember where to go on. Inside the transaction of what was done until there."""
    ledger.engine.run("set_cursor", name=name, value=dump(value))


def drop_cursors(ledger: Ledger, name: str) -> None:
    """Forget a cursor and those under it."""
    ledger.engine.run("drop_cursors", name=name, under=f"{name}:%")


def load_chats(ledger: Ledger, source: str, chats: Iterable[str]) -> dict[str, Chat]:
    """Those of these chats that are known."""
    rows = [{"source": source, "chat": chat} for chat in chats]
    return {row["chat"]: chat_of(row) for row in ledger.engine.rows("load_chats", rows=rows)}


def told_types(ledger: Ledger, source: str, chats: Iterable[str]) -> dict[str, set[EventType]]:
    """Which types of webhooks came about each of these chats."""
    found: dict[str, set[EventType]] = {}
    for row in ledger.engine.rows("told_types", rows=[{"source": source, "chat": chat} for chat in chats]):
        found.setdefault(row["chat"], set()).add(EventType(row["type"]))
    return found


def said_in(ledger: Ledger, source: str, chat: str) -> list[Stored] | None:
    """What was said about a chat, as it came; None where some of it was pruned, or is too much to read again."""
    rows = ledger.engine.rows("chat_payloads", source=source, chat=chat, limit=MOST_SAID + 1)
    if len(rows) > MOST_SAID or not all(row["payload"] for row in rows):
        return None
    return [Stored(row["id"], row["received_at"], row["payload"]) for row in rows]


def versions(ledger: Ledger, events: Sequence[Event], *, by_email: bool) -> dict[str, tuple[str, int]]:
    """Everybody whom these events can touch: id → whom to count, version.

    They are counted by id, as what was counted is written down; `by_email` in a rehearsal, where ids do not last.
    """
    places = [{"source": event.source, "chat": event.chat} for event in events if event.chat is not None]
    keys = [{"kind": kind, "value": value} for event in events for kind, value in _identities(event)]
    rows = ledger.engine.rows("load_contacts", places=places, keys=keys) if places else []
    counted = {row["id"]: email_key(row["email"]) for row in rows if by_email and row["email"]}
    return {row["id"]: (counted.get(row["id"], row["id"]), row["version"]) for row in rows}


def _identities(event: Event) -> list[tuple[str, str]]:
    visitor = event.visitor
    if visitor is None:
        return []
    named = [
        ("email", None if visitor.email is None else email_key(visitor.email)),
        ("phone", visitor.phone),
        ("visitor", None if visitor.visitor_id is None else f"{event.source}:{visitor.visitor_id}"),
    ]
    return [(kind, value) for kind, value in named if value is not None]


def forgotten(ledger: Ledger, source: str, since: float) -> Collection[float]:
    """When each chat was forgotten that was since a time."""
    return [row["at"] for row in ledger.engine.rows("forgotten_chats", source=source, since=since)]


def starts(ledger: Ledger, source: str, family: str, since: float, until: float) -> Collection[float]:
    """When the chats of one family began that began in this span."""
    rows = ledger.engine.rows("chat_starts", source=source, family=f"{family}:%", since=since, until=until)
    return [row["started_at"] for row in rows]
