"""Forgets a person: what is left are rows that say nothing, and keyed hashes that keep old words out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sync.cleaning import email_key
from sync.errors import LedgerError, LedgerUnavailable, NotFound
from sync.ids import NewId
from sync.ledger.engine import Engine
from sync.ledger.machine import FORGOTTEN, Delivery, Settlement
from sync.ledger.mailing import Digest
from sync.ledger.owing import Takers
from sync.ledger.persons import Person, Plan, Record, person_of, places_of, plan, why_left
from sync.ledger.rows import dump
from sync.models import Event, Kind, State
from sync.outcomes import Delivered

if TYPE_CHECKING:
    from sync.ledger import Ledger

FLAGS = dump([FORGOTTEN])
"""What an event says of itself whose person was forgotten."""

TEXT = "A delivery failed for good; its person was forgotten since. See `crm-sync status`."
"""What an alarm says that had told of the person's delivery."""

TELLING = 12
"""Characters from which on a text can be told from others that happen to be the same."""

RECEIPT = "forgotten:"
"""The prefix of the mark that keeps what was done."""


@dataclass
class Erasures:
    """Whom we were asked to forget, known by keyed hashes only. `are_any` is remembered once there was somebody."""

    digest: Digest
    are_any: bool = False

    def hash(self, key: str) -> str:
        """What is kept of a key such as `email:ada@example.com`."""
        return self.digest(b"erasure:" + key.encode())

    def keep_out(self, engine: Engine, events: Sequence[Event]) -> list[Event]:
        """The events, of those that speak of forgotten people in the time before only that they came."""
        self.are_any = self.are_any or bool(engine.rows("any_erasure"))
        if not self.are_any:
            return list(events)
        keys = {event.id: {key: self.hash(key) for key in keys_of(event)} for event in events}
        asked = sorted({hashed for each in keys.values() for hashed in each.values()})
        found = {row["hash"]: row["at"] for row in engine.rows("erased", rows=[{"hash": hashed} for hashed in asked])}
        if not found:
            return list(events)
        return [
            _without_old(event, {k: found[hashed] for k, hashed in keys[event.id].items() if hashed in found})
            for event in events
        ]


def keys_of(event: Event) -> Iterable[str]:
    """What an event could bring a forgotten person back by."""
    if event.chat is not None:
        yield f"chat:{event.source}:{event.chat}"
    visitor = event.visitor
    if visitor is None:
        return
    if visitor.email is not None:
        yield f"email:{email_key(visitor.email)}"
    if visitor.phone is not None:
        yield f"phone:{visitor.phone}"
    if visitor.visitor_id is not None:
        yield f"visitor:{event.source}:{visitor.visitor_id}"


def _without_old(event: Event, erased: Mapping[str, float]) -> Event:
    """Nothing of an event from before the erasure; of a later one all but the lines of the chat from before it."""
    if not erased:
        return event
    if min(event.occurred_at, event.received_at) <= max(erased.values()):
        return replace(event, payload="", chat=None, visitor=None, news=None, flags=(FORGOTTEN,), error=None)
    at = max((at for key, at in erased.items() if key.startswith("chat:")), default=None)
    if at is None or event.news is None:
        return event
    newer = tuple(line for line in event.news.messages if line.at is None or line.at > at)
    return replace(event, news=replace(event.news, messages=newer))


def erase(ledger: "Ledger", planned: Plan, *, also_adopted: bool) -> dict[str, Any]:
    """Erase a person; returns what was done, without saying who it was. Inside a transaction: all of it or nothing.

    The person is looked up anew, so that nothing is missed that came since the plan. Raises LedgerUnavailable while a
    call about the person is under way, NotFound where there is nobody any more.
    """
    engine, erasures = ledger.engine, ledger.erasures
    if erasures is None:
        raise LedgerError("nobody can be forgotten without the key of the hashes")
    person = person_of(engine, planned.person.root.id)
    if person.erased_at is not None or person.root.joined is not None:
        raise NotFound(f"{person.root.id} was forgotten or joined meanwhile: try again")
    check_idle(engine, person)
    now = plan(ledger, person, also_adopted=also_adopted, mentions=planned.mentions)
    hashes = [erasures.hash(key) for key in person.keys]
    engine.run("insert_erasures", rows=[{"hash": hashed} for hashed in hashes])
    told = _erase_alarms(engine, person)
    _erase_rows(engine, now)
    owe_erasures(engine, now.records, ledger.new_id)
    facts = _facts(now, engine.now, hashes, told)
    engine.run("drop_cursors", name="pull", under="pull:%")  # a pull that broke off has noted whom it saw
    engine.run("set_mark", name=f"{RECEIPT}{person.root.id}", value=dump(facts))
    engine.notify()
    return facts


def check_idle(engine: Engine, person: Person) -> None:
    """Raises LedgerUnavailable while a call about the person is under way: it might bring back what is erased."""
    for one in person.deliveries:
        if one.lease_until is not None and engine.now < one.lease_until < engine.now + 86400:
            raise LedgerUnavailable(f"a call to {one.destination} about this person is under way: try again soon")


def _erase_rows(engine: Engine, planned: Plan) -> None:
    person = planned.person
    family = [{"id": contact.id} for contact in person.contacts]
    chats = [{"id": chat.id} for chat in person.chats]
    deliveries = [{"id": delivery.id} for delivery in person.deliveries]
    engine.run("erase_events", rows=places_of(person), flags=FLAGS)
    engine.run("blank_payloads", rows=[{"id": event} for event in planned.mentions])
    engine.run("erase_failures", rows=deliveries, reason=FORGOTTEN)
    engine.run("erase_mails", rows=chats)
    engine.run("withdraw_deliveries", rows=deliveries, reason=FORGOTTEN)
    for query in ("erase_identities", "erase_joins", "erase_strays"):
        engine.run(query, rows=family)
    engine.run("erase_chats", rows=chats)
    engine.run("erase_contacts", rows=family)


def _erase_alarms(engine: Engine, person: Person) -> int:
    """Alarms that tell of the person's deliveries, or name the person, say less from now on."""
    asked = [{"id": one.id} for one in person.deliveries]
    errors = {row["error"] for row in engine.rows("failures_of_deliveries", rows=asked)}
    errors |= {one.died_of for one in person.deliveries if one.died_of is not None}
    needles = [text for text in errors if len(text) >= TELLING] + person.words
    told = [row["key"] for row in engine.rows("all_alarms") if any(needle in row["text"] for needle in needles)]
    for key in told:
        engine.run("erase_alarm", key=key, text=TEXT)
    return len(told)


def owe_erasures(engine: Engine, records: Iterable[Record], new_id: NewId) -> None:
    """Owe the deletion of each record that is not left to a person; the others are written down with their reason."""
    rows = [
        {
            "id": new_id("de", engine.now),
            "destination": record.destination,
            "remote_id": record.remote_id,
            "state": State.PENDING if record.left is None else State.IGNORED,
            "error": record.left,
            "ours": int(record.ours),
        }
        for record in records
    ]
    if rows:
        engine.run("owe_erasures", rows=rows)


def erase_late(engine: Engine, answers: Sequence[tuple[Delivery, Settlement]], new_id: NewId, takers: Takers) -> None:
    """A record that was made by a call which nobody waited for any more goes the way of all others."""
    made = [
        (row.destination, settlement.outcome.receipt)
        for row, settlement in answers
        if row.kind is Kind.CONTACT and isinstance(settlement.outcome, Delivered)
    ]
    late = [Record(name, r.remote_id, r.ours, why_left(takers, name, is_ours=r.ours)) for name, r in made]
    owe_erasures(engine, late, new_id)


def _facts(done: Plan, at: float, hashes: Sequence[str], alarms: int) -> dict[str, Any]:
    return {
        "contact": done.person.root.id,
        "erased_at": at,
        "subject": list(hashes),
        "counts": {**done.counts, "alarms": alarms},
        "records": [record.facts for record in done.records],
        "lost": list(done.lost),
        "mails": dict(done.mails),
    }


def done_before(ledger: "Ledger", wanted: str) -> list[dict[str, Any]]:
    """What was done when a contact, or whoever had this email or phone, was forgotten; the newest last."""
    if ledger.erasures is None:
        return []
    keys = [wanted, ledger.erasures.hash(f"email:{email_key(wanted)}"), ledger.erasures.hash(f"phone:{wanted}")]
    rows = [row for key in keys for row in ledger.engine.rows("receipts", holds=f'%"{key}"%')]
    found = {row["value"]: json.loads(row["value"]) for row in rows}
    return sorted(found.values(), key=lambda facts: float(facts["erased_at"]))


def states(engine: Engine, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where the deletion of each record stands now."""
    asked = [{"destination": r["destination"], "remote_id": r["record"]} for r in facts["records"]]
    found = {(row["destination"], row["remote_id"]): row for row in engine.rows("erasure_states", rows=asked)}
    told = []
    for record in facts["records"]:
        row = found.get((record["destination"], record["record"]))
        state = None if row is None else row["state"]
        told.append({**record, "state": state, "reason": None if row is None else row["error"]})
    return told
