"""Writes what a person asks for: stored events once more, everybody to a new destination, a join taken apart."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from sync.cleaning import email_key
from sync.errors import LedgerError, LedgerUnavailable, NotFound
from sync.identity import IMPORTED
from sync.ledger import Ledger
from sync.ledger.applying import fold_in, state_of
from sync.ledger.machine import JOINED, Delivery
from sync.ledger.owing import UNREACHABLE, delivery_of, owe_chats, owe_contacts, write_deliveries
from sync.ledger.rows import chat_of, contact_of, dump
from sync.models import Contact, Event, EventState, Kind, State

FIRST = 120.0
"""Seconds that the winner of an undone join waits for the loser: its email has to leave the record that they shared."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it was stored: what it takes to read it once more."""

    id: str
    source: str
    key: str
    received_at: float
    payload: str
    is_gone: bool = False
    """Whether its payload was pruned or erased; a webhook without a body is unreadable for ever."""


@dataclass(frozen=True, slots=True)
class Page:
    """What one page of `owe` did: where the next begins, how many subjects it saw, how many of them are owed newly."""

    after: str | None
    seen: int = 0
    new: int = 0


def unreadable(ledger: Ledger, after: str, limit: int) -> list[Stored]:
    """The next unreadable events by id."""
    return [_stored(row) for row in ledger.engine.rows("unreadable_events", after=after, limit=limit)]


def stored(ledger: Ledger, event_id: str) -> Stored:
    """One event. Raises NotFound."""
    row = ledger.get("get_event", id=event_id)
    if row is None:
        raise NotFound(f"there is no event {event_id}")
    return _stored(row)


def _stored(row: Any) -> Stored:
    is_gone = not row["payload"] and row["state"] != EventState.UNREADABLE
    return Stored(row["id"], row["source"], row["key"], row["received_at"], row["payload"], is_gone)


def twins(ledger: Ledger, events: Sequence[Event]) -> dict[str, str]:
    """Of these events those that say the same as another: id → the other's id."""
    keys = [{"source": event.source, "key": event.key} for event in events]
    owners = {(r["source"], r["key"]): r["id"] for r in ledger.engine.rows("known_events", rows=keys)}
    first = {event.id: owners.setdefault((event.source, event.key), event.id) for event in events}
    return {event: other for event, other in first.items() if event != other}


def apply_again(ledger: Ledger, events: Sequence[Event], copies: Mapping[str, str], keys: Mapping[str, str]) -> None:
    """Write events as they are read now, fold them in, owe their subjects once more. Inside a transaction.

    `copies` are those that say the same as another: they keep their old key (`keys`) and change nothing.
    """
    if ledger.erasures is not None:
        events = ledger.erasures.keep_out(ledger.engine, events)
        ledger.engine.run("blank_payloads", rows=[{"id": event.id} for event in events if not event.payload])
    ledger.engine.run("reread_events", rows=[_row(event, copies.get(event.id), keys) for event in events])
    telling = [event for event in events if event.id not in copies]
    world = fold_in(ledger.engine, telling, ledger.takers, ledger.new_id, ledger.mailing, is_replay=True)
    places = {(event.source, event.chat) for event in telling if event.chat is not None}
    chats = [world.chats[place] for place in sorted(places) if place in world.chats]
    subjects = {chat.id for chat in chats} | {world.root(chat.contact).id for chat in chats if chat.contact is not None}
    ledger.engine.run("owe_again", rows=[{"id": subject} for subject in sorted(subjects)])


def _row(event: Event, copy_of: str | None, keys: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": event.id,
        "key": event.key if copy_of is None else keys[event.id],
        "type": str(event.type),
        "name": event.name,
        "chat": event.chat,
        "occurred_at": event.occurred_at,
        "state": str(state_of(event) if copy_of is None else EventState.KEPT),
        "flags": dump(list(event.flags)),
        "error": None if copy_of is None else f"says the same as {copy_of}",
    }


def revive_dead(ledger: Ledger, destination: str) -> int:
    """Try again what is dead at a destination. Inside a transaction; returns how many."""
    return ledger.engine.run("revive_dead", destination=destination)


def count_dead(ledger: Ledger, destination: str) -> int:
    """How much is dead at a destination."""
    return int(ledger.engine.rows("count_dead", destination=destination)[0]["n"])


def owe_contacts_page(ledger: Ledger, destination: str, after: str, limit: int, *, imported: bool = True) -> Page:
    """Owe the next contacts to one destination. Inside a transaction; what it has already is left alone.

    Without `imported` so is everybody of whom only an import has told: nothing is sent for an import alone.
    """
    page = [contact_of(row) for row in ledger.engine.rows("all_contacts", after=after, limit=limit)]
    people = page if imported else [contact for contact in page if not _is_only_imported(contact)]
    new = _new(ledger, destination, Kind.CONTACT, [contact.id for contact in people])
    owe_contacts(ledger.engine, people, _only(ledger, destination), ledger.new_id, is_replay=True)
    return Page(page[-1].id if len(page) == limit else None, len(page), new)


def _is_only_imported(contact: Contact) -> bool:
    return bool(contact.clocks) and all(order == IMPORTED for order in contact.clocks.values())


def owe_chats_page(ledger: Ledger, destination: str, after: str, limit: int) -> Page:
    """Owe the next chats to one destination, after all contacts. Inside a transaction."""
    chats = [chat_of(row) for row in ledger.engine.rows("all_chats", after=after, limit=limit)]
    asked = [{"id": contact} for contact in sorted({chat.contact for chat in chats if chat.contact is not None})]
    roots = {row["start"]: row["root"] for row in ledger.engine.rows("roots", rows=asked)}
    new = _new(ledger, destination, Kind.CHAT, [chat.id for chat in chats])
    pairs = [(chat, roots.get(chat.contact)) for chat in chats]
    owe_chats(ledger.engine, pairs, _only(ledger, destination), ledger.new_id, is_replay=True)
    return Page(chats[-1].id if len(chats) == limit else None, len(chats), new)


def _only(ledger: Ledger, destination: str) -> dict[str, frozenset[Kind]]:
    return {destination: ledger.takers[destination]}


def _new(ledger: Ledger, destination: str, kind: Kind, subjects: Sequence[str]) -> int:
    asked = [{"id": subject} for subject in subjects]
    return len(subjects) - len(ledger.engine.rows("owed_already", rows=asked, destination=destination, kind=kind))


def undo_join(ledger: Ledger, contact_id: str) -> str:
    """Make two people of a joined contact and its winner again; returns the winner's id. Inside a transaction.

    Raises NotFound where nothing was joined, LedgerUnavailable while a call for one of them is under way, LedgerError
    where somebody else has the email by now.
    """
    found = ledger.get("get_join", loser=contact_id)
    row = ledger.get("get_contact", id=contact_id)
    if found is None or row is None or row["joined"] is None:
        raise NotFound(f"{contact_id} was not joined into anybody")
    loser, root = contact_of(row), ledger.engine.rows("roots", rows=[{"id": contact_id}])[0]["root"]
    holders = sorted({found["winner"], root})
    records = _records(ledger, contact_id, holders)
    _restore_email(ledger, loser)
    ledger.engine.run("undo_join", loser=contact_id)
    ledger.engine.run("mark_undone", loser=contact_id)
    _give_back(ledger, loser, holders, records)
    people = [contact_of(r) for r in ledger.engine.rows("claimed_contacts", rows=[{"id": contact_id}, {"id": root}])]
    owe_contacts(ledger.engine, people, ledger.takers, ledger.new_id, is_replay=True)
    ledger.engine.run("owe_again", rows=[{"id": root}])
    return str(root)


def _records(ledger: Ledger, loser: str, holders: Sequence[str]) -> list[Delivery]:
    """The contact deliveries of everybody who takes part."""
    asked = [{"id": contact} for contact in (loser, *holders)]
    records = [delivery_of(row) for row in ledger.engine.rows("load_contact_deliveries", rows=asked)]
    if any(r.lease_until is not None and r.lease_until > ledger.engine.now for r in records):
        raise LedgerUnavailable(f"a call about {loser} is under way: try again in a minute")
    return records


def _restore_email(ledger: Ledger, loser: Contact) -> None:
    """Let the email of the contact lead to it again. Raises LedgerError where it leads to somebody else by now."""
    if loser.email is None:
        return
    identity = {"kind": "email", "value": email_key(loser.email)}
    owners = [row["contact"] for row in ledger.engine.rows("load_identities", rows=[identity])]
    if owners and owners != [loser.id]:
        raise LedgerError(f"the email of {loser.id} leads to {owners[0]} by now: it would be one person twice")
    ledger.engine.run("insert_identities", rows=[{**identity, "contact": loser.id}])


def _give_back(ledger: Ledger, loser: Contact, holders: Sequence[str], records: Sequence[Delivery]) -> None:
    """Take from the winner the records that it inherited, and let the loser be delivered again, the loser first."""
    now = ledger.engine.now
    own = {r.destination: r for r in records if r.subject == loser.id and r.error == JOINED}
    shared = [r for r in records if r.subject in holders and _is_same(r, own.get(r.destination))]
    _check_open(ledger, {r.destination for r in shared})
    kept = {r.destination: r.subject for r in shared if loser.email is None}
    freed = [_freed(r, loser, now, kept.get(r.destination)) for r in own.values()]
    bare = [
        replace(r, remote_id=None, ours=False, state=State.PENDING, due_at=now + FIRST, error=None, replayed=True)
        for r in shared
        if loser.email is not None and r.error != JOINED
    ]
    write_deliveries(ledger.engine, [*freed, *bare])
    strays = [{"destination": r.destination, "remote_id": r.remote_id} for r in own.values() if r.remote_id is not None]
    ledger.engine.run("drop_strays", rows=[{**stray, "contact": holder} for stray in strays for holder in holders])


def _is_same(one: Delivery, other: Delivery | None) -> bool:
    return other is not None and one.remote_id is not None and one.remote_id == other.remote_id


def _check_open(ledger: Ledger, destinations: Set[str]) -> None:
    """Raises LedgerUnavailable where a destination is paused: who goes first could not be told after a pause."""
    for row in ledger.engine.rows("load_destinations"):
        if row["name"] in destinations and row["paused_until"] is not None:
            raise LedgerUnavailable(f"{row['name']} has one record for both and is paused: try again after the pause")


def _freed(delivery: Delivery, loser: Contact, now: float, keeper: str | None) -> Delivery:
    """A loser's delivery, to be made again. A record that took on the winner's email cannot be split from here."""
    if not loser.is_reachable:
        return replace(delivery, state=State.IGNORED, error=UNREACHABLE, due_at=None)
    if keeper is not None:
        reason = f"its record there has become that of {keeper}"
        done = max(delivery.wanted, loser.version)
        return replace(delivery, state=State.IGNORED, error=reason, done=done, remote_id=None, ours=False, due_at=None)
    return replace(
        delivery, state=State.PENDING, error=None, due_at=now, attempts=0, waited=0.0, replayed=True, lease_until=None
    )
