"""Writes down what is owed: every changed contact and every finished chat, to every destination that takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sync.identity import Join
from sync.ids import NewId
from sync.ledger.engine import Engine
from sync.ledger.machine import Delivery, join
from sync.models import Chat, Contact, Kind, State

QUIET = 900.0
"""Seconds after its last message when a chat that nobody closed counts as over."""

UNREACHABLE = "no way to reach this person"

Takers = Mapping[str, frozenset[Kind]]
"""Which destination takes which kinds."""


def owe_contacts(
    engine: Engine, contacts: Sequence[Contact], takers: Takers, new_id: NewId, is_replay: bool = False
) -> None:
    """Owe each contact, in its present version, to each destination that takes contacts."""
    rows = [
        {
            "id": new_id("de", engine.now),
            "destination": destination,
            "subject": contact.id,
            "state": State.PENDING if contact.is_reachable else State.IGNORED,
            "version": contact.version,
            "error": None if contact.is_reachable else UNREACHABLE,
            "replayed": int(is_replay),
        }
        for contact in contacts
        for destination, kinds in takers.items()
        if Kind.CONTACT in kinds
    ]
    if rows:
        engine.run("owe_contacts", rows=rows)


def owe_chats(
    engine: Engine,
    chats: Sequence[tuple[Chat, str | None]],
    takers: Takers,
    new_id: NewId,
    is_replay: bool = False,
) -> None:
    """Owe each chat that is over, or quiet for long enough by then, to each destination that takes chats.

    Each chat comes with the id of its contact, joins followed.
    """
    rows = [
        {
            "id": new_id("de", engine.now),
            "destination": destination,
            "subject": chat.id,
            "contact": contact,
            "version": chat.version,
            "ready_at": ready_at,
            "replayed": int(is_replay),
        }
        for chat, contact in chats
        if contact is not None and (ready_at := ready(chat, engine.now)) is not None
        for destination, kinds in takers.items()
        if Kind.CHAT in kinds
    ]
    if rows:
        engine.run("owe_chats", rows=rows)


def ready(chat: Chat, now: float) -> float | None:
    """When a chat may be written to the CRM: at its close, or when it has been quiet; None: nothing to write yet."""
    if chat.closed_at is not None:
        return now
    if chat.last_message_at is None:
        return None
    return max(now, min(chat.last_message_at, now) + QUIET)


def write_joins(engine: Engine, joins: Sequence[Join]) -> None:
    """Bring the deliveries of joined contacts together; chats of the loser follow where the winner is already."""
    for found in joins:  # one by one: a join may build on the one before
        pairs = load_pairs(engine, found.loser, found.winner)
        changed, strays = [], []
        for loser, winner in pairs:
            gone, kept, stray = join(loser, winner, engine.now)
            changed += [gone] if kept is None else [gone, kept]
            strays += (
                []
                if stray is None
                else [{"destination": loser.destination, "contact": found.winner, "remote_id": stray}]
            )
        write_deliveries(engine, changed)
        if strays:
            engine.run("insert_strays", rows=strays)
        follow(engine, [kept for _, kept in load_pairs(engine, found.loser, found.winner) if kept is not None])


def follow(engine: Engine, contacts: Sequence[Delivery]) -> None:
    """Let the chats of contacts follow to where these have a record, and be ignored where these will get none."""
    there = [{"destination": d.destination, "contact": d.subject} for d in contacts if d.remote_id is not None]
    if there:
        engine.run("wake_chats", rows=there)
    for state in (State.IGNORED, State.DEAD):
        never = [
            {"destination": d.destination, "contact": d.subject}
            for d in contacts
            if d.remote_id is None and d.state is state
        ]
        if never:
            engine.run("ignore_chats", rows=never, state=state)


def load_pairs(engine: Engine, loser: str, winner: str) -> list[tuple[Delivery, Delivery | None]]:
    """The contact deliveries of two contacts, paired by destination."""
    found = [delivery_of(row) for row in engine.rows("load_contact_deliveries", rows=[{"id": loser}, {"id": winner}])]
    winners = {d.destination: d for d in found if d.subject == winner}
    return [(d, winners.get(d.destination)) for d in found if d.subject == loser]


def delivery_of(row: Any) -> Delivery:
    """The delivery that a row holds."""
    return Delivery(
        id=row["id"],
        destination=row["destination"],
        kind=Kind(row["kind"]),
        subject=row["subject"],
        state=State(row["state"]),
        wanted=row["wanted"],
        done=row["done"],
        claim=row["claim"],
        attempts=row["attempts"],
        waited=row["waited"],
        ready_at=row["ready_at"],
        due_at=row["due_at"],
        lease_until=row["lease_until"],
        again=bool(row["again"]),
        intended_at=row["intended_at"],
        replayed=bool(row["replayed"]),
        remote_id=row["remote_id"],
        ours=bool(row["ours"]),
        error=row["error"],
        settled_at=row["settled_at"],
        joined=row["joined"],
    )


def write_deliveries(engine: Engine, deliveries: Sequence[Delivery]) -> None:
    """Write deliveries back, each only where nobody has claimed it since it was read."""
    if deliveries:
        flags = ("again", "replayed", "ours")
        rows = [{k: int(v) if k in flags else v for k, v in asdict(d).items()} for d in deliveries]
        engine.run("write_deliveries", rows=rows)
