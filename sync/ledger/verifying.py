"""Reads who should stand at a destination, and writes what was found there: owed again, strays, how far it got."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sync.ledger import Ledger
from sync.ledger.rows import contact_of, dump
from sync.ledger.settling import lane_of
from sync.models import Contact, Owed

RESUMABLE = 86400.0
"""Seconds after which a reading that was broken off is begun anew: too much has happened."""


@dataclass(frozen=True, slots=True)
class Known:
    """A contact that a destination has by the ledger, and when it last took it."""

    owed: Owed[Contact]
    settled_at: float


@dataclass(frozen=True, slots=True)
class Repair:
    """A delivery that is owed again, and the record that it is known by from now on: None to forget it."""

    known: Known
    remote_id: str | None
    ours: bool


@dataclass(frozen=True, slots=True)
class Stray:
    """A second record of a person."""

    contact: str
    remote_id: str


@dataclass(frozen=True, slots=True)
class Notes:
    """How far a reading got that was broken off, and what it noted on the way, page by page. Empty: from the start."""

    said: Mapping[str, Any] = field(default_factory=dict)
    pages: Sequence[Any] = ()


def delivered(ledger: Ledger, destination: str, after: str, limit: int, since: float) -> list[Known]:
    """The next contacts, by id, that a destination took at or after a time, and that it is owed nothing about."""
    asked = {"destination": destination, "after": after, "limit": limit, "since": since}
    return _known(ledger, ledger.engine.rows("delivered_contacts", **asked))


def delivered_ids(ledger: Ledger, destination: str, after: str, limit: int, since: float) -> list[str]:
    """Their ids only."""
    asked = {"destination": destination, "after": after, "limit": limit, "since": since}
    return [row["subject"] for row in ledger.engine.rows("delivered_contacts", **asked)]


def delivered_among(ledger: Ledger, destination: str, contacts: Iterable[str]) -> list[Known]:
    """Those of these contacts, by id, that a destination has and is owed nothing about."""
    rows = [{"id": contact} for contact in contacts]
    found = _known(ledger, ledger.engine.rows("delivered_some", destination=destination, rows=rows))
    return sorted(found, key=lambda known: known.owed.subject.id)


def _known(ledger: Ledger, rows: Sequence[Any]) -> list[Known]:
    asked = [{"id": row["subject"]} for row in rows]
    people = {row["id"]: contact_of(row) for row in ledger.engine.rows("claimed_contacts", rows=asked)} if rows else {}
    return [
        Known(
            Owed(
                delivery=row["id"],
                subject=people[row["subject"]],
                version=people[row["subject"]].version,
                claim=row["claim"],
                remote_id=row["remote_id"],
                ours=bool(row["ours"]),
                is_replay=True,
            ),
            row["settled_at"] or 0.0,
        )
        for row in rows
        if row["subject"] in people
    ]


def untouched(ledger: Ledger, known: Sequence[Known]) -> frozenset[str]:
    """The deliveries about which nothing has happened since they were read; inside a transaction nothing will."""
    rows = [
        {"id": k.owed.delivery, "claim": k.owed.claim, "remote_id": k.owed.remote_id, "version": k.owed.version}
        for k in known
    ]
    return frozenset(row["id"] for row in ledger.engine.rows("still_delivered", rows=rows)) if rows else frozenset()


def held(ledger: Ledger, destination: str, records: Sequence[Stray]) -> frozenset[Stray]:
    """Those of these records that belong to another person of ours."""
    rows = [{"destination": destination, "remote_id": r.remote_id, "subject": r.contact} for r in records]
    found = ledger.engine.rows("holders", rows=rows) if rows else []
    return frozenset(Stray(row["asked"], row["remote_id"]) for row in found)


def owe_repairs(ledger: Ledger, repairs: Sequence[Repair]) -> None:
    """Owe contacts again without a new word about them. Inside a transaction."""
    rows = [
        {
            "id": r.known.owed.delivery,
            "claim": r.known.owed.claim,
            "remote_id": r.remote_id,
            "ours": int(r.ours),
        }
        for r in repairs
    ]
    if rows:
        ledger.engine.run("owe_drifted", rows=rows)
        ledger.engine.notify()


def list_strays(ledger: Ledger, destination: str, strays: Sequence[Stray]) -> None:
    """List second records, for a person to merge there. Inside a transaction."""
    if strays:
        ledger.engine.run("insert_strays", rows=_rows(destination, strays))


def unlist_strays(ledger: Ledger, destination: str, strays: Sequence[Stray]) -> None:
    """Take records off that list. Inside a transaction."""
    if strays:
        ledger.engine.run("drop_strays", rows=_rows(destination, strays))


def _rows(destination: str, strays: Sequence[Stray]) -> list[dict[str, Any]]:
    return [{"destination": destination, "contact": s.contact, "remote_id": s.remote_id} for s in strays]


def pause_of(ledger: Ledger, destination: str) -> str | None:
    """Why a destination is to be left alone now, if it is."""
    found = ledger.engine.rows("load_destination", name=destination)
    lane = lane_of(found[0]) if found else None
    if lane is None or lane.paused_until is None or lane.paused_until <= ledger.engine.now:
        return None
    return f"{destination} is paused: {lane.reason}"


def load_notes(ledger: Ledger, name: str) -> Notes:
    """How far a reading got; nothing where it was finished, or broken off too long ago."""
    found = {row["name"]: row for row in ledger.engine.rows("load_notes_of", name=name)}
    own = found.pop(name, None)
    if own is None or own["at"] < ledger.engine.now - RESUMABLE:
        return Notes()
    return Notes(json.loads(own["value"]), [json.loads(found[page]["value"]) for page in sorted(found)])


def write_notes(ledger: Ledger, name: str, said: Mapping[str, Any], page: int, noted: Sequence[Any]) -> None:
    """Write down how far a reading got, and what it noted on this page. Inside a transaction."""
    ledger.engine.run("write_note", name=name, value=dump(dict(said)))
    if noted:
        ledger.engine.run("write_note", name=f"{name}/{page:09d}", value=dump(list(noted)))


def drop_notes(ledger: Ledger, name: str) -> None:
    """The reading is finished, or begins anew. Inside a transaction."""
    ledger.engine.run("drop_notes_of", name=name)
