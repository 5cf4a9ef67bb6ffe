"""Applies a group of events: load what they can touch, fold them one by one in memory, write what changed.

The number of statements does not depend on the size of the group.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sync.cleaning import email_key
from sync.identity import Identity, World, fold
from sync.ids import NewId
from sync.ledger.engine import Engine
from sync.ledger.erasing import Erasures
from sync.ledger.mailing import Mailing, owe_mails
from sync.ledger.owing import Takers, owe_chats, owe_contacts, write_joins
from sync.ledger.rows import chat_of, chat_row, contact_of, contact_row, event_row
from sync.models import Event, EventState


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one webhook: its event's id, for a duplicate the first one's."""

    status: Literal["accepted", "duplicate", "unreadable"]
    event: str


def apply(
    engine: Engine,
    events: Sequence[Event],
    takers: Takers,
    new_id: NewId,
    mailing: Mailing | None = None,
    erasures: Erasures | None = None,
) -> list[Applied]:
    """Store and fold the events that are new. Inside a transaction; one answer each, in order."""
    asked = list({(e.source, e.key): {"source": e.source, "key": e.key} for e in events}.values())
    known = {(row["source"], row["key"]): row["id"] for row in engine.rows("known_events", rows=asked)}
    answers, new = [], []
    copies: Counter[str] = Counter()
    for event in events:
        first = known.setdefault((event.source, event.key), event.id)
        if first == event.id:
            new.append(event)
            answers.append(Applied("unreadable" if event.error is not None else "accepted", first))
        else:
            copies[first] += 1
            answers.append(Applied("duplicate", first))
    if new:
        new = new if erasures is None else erasures.keep_out(engine, new)
        fresh = {event.id for event in new}
        rows = [event_row(event, state_of(event), 1 + copies[event.id]) for event in new]
        engine.run("insert_events", rows=rows)
        copies = Counter({first: n for first, n in copies.items() if first not in fresh})
        fold_in(engine, new, takers, new_id, mailing)
    if copies:
        engine.run("count_copies", rows=[{"id": first, "n": n} for first, n in copies.items()])
    return answers


def state_of(event: Event) -> EventState:
    """What becomes of an event: unreadable, applied to a chat, or only kept."""
    if event.error is not None:
        return EventState.UNREADABLE
    says_something = event.visitor is not None or event.news is not None
    return EventState.APPLIED if event.chat is not None and says_something else EventState.KEPT


def fold_in(
    engine: Engine,
    events: Iterable[Event],
    takers: Takers,
    new_id: NewId,
    mailing: Mailing | None = None,
    *,
    is_replay: bool = False,
) -> World:
    """Fold events into the ledger, then owe what changed. Returns the world as it was left."""
    telling = [event for event in events if state_of(event) is EventState.APPLIED]
    world = World(now=engine.now, new_id=new_id)
    if telling:
        _load(engine, world, telling)
        for event in telling:
            fold(world, event)
        _write(engine, world)
        chats = [(world.chats[place], _root_id(world, place)) for place in sorted(world.owed_chats)]
        # A chat waits for its contact, so that one is owed too: a destination may be newer than the contact.
        owed = world.owed_contacts | {contact for _, contact in chats if contact is not None}
        owe_contacts(engine, [world.contacts[contact] for contact in sorted(owed)], takers, new_id, is_replay)
        write_joins(engine, [join for join in world.joins if not join.is_possible])
        owe_chats(engine, chats, takers, new_id, is_replay)
        if mailing is not None:
            told = [world.chats[place] for place in sorted(world.changed_chats)]
            followed = [(chat, world.root(chat.contact)) for chat in told if chat.contact is not None]
            owe_mails(engine, followed, mailing, new_id)
    return world


def _root_id(world: World, place: tuple[str, str]) -> str | None:
    contact = world.chats[place].contact
    return None if contact is None else world.root(contact).id


def _load(engine: Engine, world: World, events: Sequence[Event]) -> None:
    places = list({(e.source, e.chat): {"source": e.source, "chat": e.chat} for e in events}.values())
    chats = [chat_of(row) for row in engine.rows("load_chats", rows=places)]
    world.chats = {(chat.source, chat.chat): chat for chat in chats}
    keys = [identity._asdict() for identity in sorted(set(_asked(events)))]
    _load_contacts(engine, world, "load_contacts", places=places, keys=keys)
    for row in engine.rows("load_identities", rows=keys):
        world.identities.setdefault(Identity(row["kind"], row["value"]), set()).add(row["contact"])
    if world.contacts and _may_move(world, events):
        _load_families(engine, world)


def _load_contacts(engine: Engine, world: World, query: str, **parameters: Any) -> None:
    for row in engine.rows(query, **parameters):
        world.contacts[row["id"]] = contact_of(row)


def _load_families(engine: Engine, world: World) -> None:
    """A chat may leave its contact: everything is needed that says what is left of that contact then."""
    ids = [{"id": contact} for contact in world.contacts]
    _load_contacts(engine, world, "load_family", rows=ids)
    for row in engine.rows("load_family_chats", rows=ids):
        chat = chat_of(row)
        world.chats.setdefault((chat.source, chat.chat), chat)
    foreign = engine.rows("foreign_records", rows=[{"id": contact} for contact in world.contacts])
    world.has_foreign_record = {row["subject"] for row in foreign}


def _asked(events: Iterable[Event]) -> Iterable[Identity]:
    """The identities by which events may find a contact: the email, or where there is none, phone and visitor id."""
    for event in events:
        visitor = event.visitor
        if visitor is None:
            continue
        if visitor.email is not None:
            yield Identity("email", email_key(visitor.email))
            continue
        if visitor.phone is not None:
            yield Identity("phone", visitor.phone)
        if visitor.visitor_id is not None:
            yield Identity("visitor", f"{event.source}:{visitor.visitor_id}")


def _may_move(world: World, events: Iterable[Event]) -> bool:
    """Whether some chat of the group may change its email, so that its contact has to be merged anew."""
    emails: dict[tuple[str, str], set[str | None]] = {}
    for place, chat in world.chats.items():
        emails[place] = {None if chat.email is None else email_key(chat.email)}
    for event in events:
        said = emails.setdefault((event.source, event.chat or ""), set())
        email = event.visitor.email if event.visitor is not None else None
        if email is not None:
            said.add(email_key(email))
        elif not said:
            said.add(None)
    return any(len(said) > 1 for said in emails.values())


def _write(engine: Engine, world: World) -> None:
    contacts = [contact_row(world.contacts[contact]) for contact in sorted(world.changed_contacts)]
    if contacts:
        engine.run("write_contacts", rows=contacts)
    joined = [
        {"loser": contact, "winner": world.contacts[contact].joined}
        for contact in sorted(world.changed_contacts)
        if world.contacts[contact].joined is not None
    ]
    if joined:
        engine.run("write_joined", rows=joined)
    if world.changed_chats:
        engine.run("write_chats", rows=[chat_row(world.chats[place]) for place in sorted(world.changed_chats)])
    for query, pairs in (("drop_identities", world.lost_identities), ("insert_identities", world.new_identities)):
        if pairs:
            engine.run(query, rows=[{**identity._asdict(), "contact": contact} for identity, contact in sorted(pairs)])
    if world.joins:
        rows = [
            {
                "loser": j.loser,
                "winner": j.winner,
                "state": "possible" if j.is_possible else "joined",
                "reason": j.reason,
            }
            for j in {(j.loser, j.winner): j for j in world.joins}.values()
        ]
        engine.run("insert_joins", rows=rows)
