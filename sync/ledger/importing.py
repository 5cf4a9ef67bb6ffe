"""Takes in people whom a CRM has already: each with the record there, so that it is adopted and not made again.

What a CRM knows fills only what no chat has said, and any later word of a chat wins. Nothing is owed for an import
alone, and no follow-up is made.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sync.cleaning import email_key
from sync.identity import IMPORTED, Identity, World, find, take_in
from sync.ledger import Ledger
from sync.ledger.owing import delivery_of
from sync.ledger.rows import contact_of, contact_row, dump
from sync.models import Contact, Visitor


@dataclass(frozen=True, slots=True)
class Record:
    """A person as a CRM knows them. At least an email or a phone is said."""

    remote_id: str
    visitor: Visitor


class Became(StrEnum):
    """What became of a record."""

    NEW = "a person who is new here"
    KNOWN = "a person who was here already"
    SAME = "known already"
    SECOND = "it is a second record of one person: merge the two over there"
    OTHER = "by its phone it is a person who has another record there"
    HELD = "another person here has this record"
    BUSY = "the person is being delivered just now: import the file once more"
    FORGOTTEN = "the person was forgotten"


TAKEN = (Became.NEW, Became.KNOWN, Became.SAME)
"""All is well with these; each other record was left alone, for this reason."""


@dataclass
class _Batch:
    """What is known about a batch of records. `held`: contact → its record there, `holders`: the other way round."""

    world: World
    holders: dict[str, str]
    held: dict[str, str]
    busy: frozenset[str]
    adopted: dict[str, str] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    strays: list[dict[str, str]] = field(default_factory=list)


def import_records(
    ledger: Ledger, destination: str, records: Sequence[Record], *, dry_run: bool = False
) -> list[Became]:
    """Take in some records of a destination; what became of each, in order. Inside a transaction."""
    kept = _without_forgotten(ledger, records)
    batch = _load(ledger, destination, [record for record in kept if record is not None])
    became = [Became.FORGOTTEN if record is None else _become(batch, record) for record in kept]
    if not dry_run:
        _write(ledger, destination, batch)
    return became


def _without_forgotten(ledger: Ledger, records: Sequence[Record]) -> list[Record | None]:
    """None for whom we were asked to forget; a phone of somebody forgotten is no word about somebody else."""
    erasures = ledger.erasures
    if erasures is None or not ledger.engine.rows("any_erasure"):
        return list(records)
    emails = [r.visitor.email and erasures.hash(f"email:{email_key(r.visitor.email)}") for r in records]
    phones = [r.visitor.phone and erasures.hash(f"phone:{r.visitor.phone}") for r in records]
    asked = sorted({hashed for hashed in (*emails, *phones) if hashed is not None})
    erased = {row["hash"] for row in ledger.engine.rows("erased", rows=[{"hash": hashed} for hashed in asked])}
    kept: list[Record | None] = []
    for record, email, phone in zip(records, emails, phones, strict=True):
        if email in erased or (email is None and phone in erased):
            kept.append(None)
        elif phone in erased:
            kept.append(replace(record, visitor=replace(record.visitor, phone=None)))
        else:
            kept.append(record)
    return kept


def _load(ledger: Ledger, destination: str, records: Sequence[Record]) -> _Batch:
    engine = ledger.engine
    world = World(now=engine.now, new_id=ledger.new_id)
    keys = [identity._asdict() for identity in sorted({i for r in records for i in _identities(r.visitor)})]
    asked = [{"destination": destination, "remote_id": each} for each in sorted({r.remote_id for r in records})]
    holders = {row["remote_id"]: row["subject"] for row in engine.rows("holders_of", rows=asked)}
    people = engine.rows("load_contacts", places=[], keys=keys)
    people += engine.rows("claimed_contacts", rows=[{"id": contact} for contact in sorted(set(holders.values()))])
    world.contacts = {row["id"]: contact_of(row) for row in people}
    for row in engine.rows("load_identities", rows=keys):
        world.identities.setdefault(Identity(row["kind"], row["value"]), set()).add(row["contact"])
    found = engine.rows("load_contact_deliveries", rows=[{"id": contact} for contact in sorted(world.contacts)])
    deliveries = [each for each in map(delivery_of, found) if each.destination == destination]
    held = {each.subject: each.remote_id for each in deliveries if each.remote_id is not None}
    busy = {each.subject for each in deliveries if each.lease_until is not None and each.lease_until > engine.now}
    return _Batch(world, holders, held, frozenset(busy))


def _identities(visitor: Visitor) -> list[Identity]:
    found = [] if visitor.email is None else [Identity("email", email_key(visitor.email))]
    return found if visitor.phone is None else [*found, Identity("phone", visitor.phone)]


def _become(batch: _Batch, record: Record) -> Became:
    found, holder = find(batch.world, record.visitor), batch.holders.get(record.remote_id)
    if holder is not None:
        return _again(batch, record, found, batch.world.contacts[holder])
    if found is None:
        _adopt(batch, record, None)
        return Became.NEW
    if found.id in batch.busy:
        return Became.BUSY
    if found.id in batch.held:
        if not _has_email_of(found, record.visitor):
            return Became.OTHER
        batch.strays.append({"contact": found.id, "remote_id": record.remote_id})
        return Became.SECOND
    _adopt(batch, record, found)
    batch.known.add(found.id)
    return Became.KNOWN


def _again(batch: _Batch, record: Record, found: Contact | None, holder: Contact) -> Became:
    """A record that somebody has already: it may know more of the same person by now."""
    if record.visitor.email is not None and (found.id != holder.id if found is not None else holder.email is not None):
        return Became.HELD
    take_in(batch.world, record.visitor, holder)
    return Became.SAME


def _has_email_of(contact: Contact, visitor: Visitor) -> bool:
    if visitor.email is None or contact.email is None:
        return False
    return email_key(contact.email) == email_key(visitor.email)


def _adopt(batch: _Batch, record: Record, found: Contact | None) -> None:
    contact = take_in(batch.world, record.visitor, found)
    batch.holders[record.remote_id] = contact.id
    batch.held[contact.id] = batch.adopted[contact.id] = record.remote_id


def _write(ledger: Ledger, destination: str, batch: _Batch) -> None:
    engine, world = ledger.engine, batch.world
    if world.changed_contacts:
        engine.run("write_contacts", rows=[contact_row(world.contacts[c]) for c in sorted(world.changed_contacts)])
    if world.new_identities:
        pairs = [{**identity._asdict(), "contact": contact} for identity, contact in sorted(world.new_identities)]
        engine.run("insert_identities", rows=pairs)
    if batch.adopted:
        engine.run("adopt_records", rows=_adoptions(ledger, batch), destination=destination)
    if batch.known:
        there = [{"destination": destination, "contact": contact} for contact in sorted(batch.known)]
        engine.run("wake_chats", rows=there)
    if batch.strays:
        engine.run("insert_strays", rows=[{"destination": destination, **stray} for stray in batch.strays])


def _adoptions(ledger: Ledger, batch: _Batch) -> list[dict[str, Any]]:
    """The records to adopt. What a chat has said was never sent there: `owe` finds such a person in version 0."""
    contacts = [batch.world.contacts[contact] for contact in sorted(batch.adopted)]
    return [
        {
            "id": ledger.new_id("de", ledger.engine.now),
            "subject": contact.id,
            "remote_id": batch.adopted[contact.id],
            "version": contact.version if all(order == IMPORTED for order in contact.clocks.values()) else 0,
        }
        for contact in contacts
    ]


def place(ledger: Ledger, name: str) -> Mapping[str, Any] | None:
    """Where an import broke off, as it was noted; None where there is none."""
    row = ledger.get("import_place", name=name)
    return None if row is None else dict(json.loads(row["value"]))


def note_place(ledger: Ledger, name: str, value: Mapping[str, Any]) -> None:
    """Note how far an import is. Inside the transaction of what was imported."""
    ledger.engine.run("note_import_place", name=name, value=dump(dict(value)))


def drop_place(ledger: Ledger, name: str) -> None:
    """Note that an import is over: the same file may be imported from its beginning."""
    ledger.engine.run("drop_import_place", name=name)
