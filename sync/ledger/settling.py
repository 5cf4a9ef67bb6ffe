"""Claims what is due, and settles how each attempt ended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sync.ids import NewId
from sync.ledger.engine import Engine
from sync.ledger.erasing import erase_late
from sync.ledger.machine import (
    Delivery,
    Lane,
    Settlement,
    credit,
    hurried,
    lane_heard,
    may_have_landed,
    once_more,
    settle,
)
from sync.ledger.mailing import Mailing, begin, resume
from sync.ledger.owing import Takers, delivery_of, follow, write_deliveries
from sync.ledger.rows import chat_of, contact_of
from sync.models import MAIL, Chat, Contact, Email, Erasure, Kind, Owed
from sync.outcomes import Dead, Delivered, Ignored, Outcome, Paused, Retry, Unknown

SHARED_AFTER = 5
"""Attempts after which one remote record may belong to two contacts of ours: somebody has merged them over there."""

ABSURD = 2 * 86400.0
"""A pause or a probe that ends later than this is left over from a clock that jumped: no host's lease is as long."""

SKEW = 60.0
"""Seconds: what was written further in the future than this was written by a clock that was wrong."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a lane got: `owed` of one kind, or nothing and in how many seconds (`wake_in`) it is worth asking again.

    `pauses` says how many pauses in a row there were, `is_probe` that this one call may end the pause. `waited` tells
    for each delivery how many seconds of backoff it has had. `asked_at` is when the claim was asked for, by the
    clock of the host that asked: by it alone that host tells how much of its lease is left. `has_more`: what was due
    turned out not to be owed now (a mail that was withdrawn, a chat that waits for its contact); others may be.
    """

    kind: Kind
    owed: tuple[Owed[Contact] | Owed[Chat] | Owed[Email] | Owed[Erasure], ...] = ()
    is_probe: bool = False
    pauses: int = 0
    waited: tuple[float, ...] = ()
    wake_in: float | None = None
    asked_at: float = 0.0
    has_more: bool = False


def claim(
    engine: Engine,
    destination: str,
    kinds: Sequence[tuple[Kind, int]],
    lease: float,
    mailing: Mailing | None = None,
) -> Claimed:
    """Claim up to so many deliveries of the first of these kinds that has any due. Inside a transaction.

    Mails are owed and sent only where `mailing` says how.
    """
    if mailing is not None and destination == MAIL:
        resume(engine, mailing)
    lane = _lane(engine, destination)
    is_probe = False
    if lane.paused_until is not None and lane.paused_until < engine.now + ABSURD:
        until = max(0.0 if _is_of_a_clock_ahead(engine, lane) else lane.paused_until, _probed_until(lane, engine.now))
        if until > engine.now:
            return Claimed(kinds[0][0], wake_in=until - engine.now, pauses=lane.pauses)
        is_probe = True
    for kind, limit in kinds:
        rows = _claimed(engine, destination, kind, 1 if is_probe else limit, lease, lane.culprit if is_probe else None)
        if not rows:
            continue
        owed, waited = _with_subjects(engine, destination, kind, rows, mailing)
        if not owed:
            return Claimed(kind, wake_in=0.0, pauses=lane.pauses, has_more=True)
        if is_probe:
            _write_lane(engine, lane, probe_until=engine.now + lease)
        return Claimed(kind, owed, is_probe, lane.pauses, waited)
    return Claimed(kinds[0][0], wake_in=_next_due(engine, destination, kinds), pauses=lane.pauses)


def _is_of_a_clock_ahead(engine: Engine, lane: Lane) -> bool:
    """Whether a pause was begun, or made longer, by a clock that was ahead: then it is tried at once."""
    if (lane.paused_at or 0.0) > engine.now + SKEW:
        return True
    return bool(engine.rows("settled_after", id=lane.culprit or "", at=engine.now + SKEW))


def _probed_until(lane: Lane, now: float) -> float:
    """Until when a probe is under way, be it another host's, with a longer lease and a clock that was read later."""
    return lane.probe_until if lane.probe_until is not None and lane.probe_until < now + ABSURD else 0.0


def _claimed(engine: Engine, destination: str, kind: Kind, limit: int, lease: float, culprit: str | None) -> list[Any]:
    """Rows claimed; as a probe preferably another one than that which closed the lane."""
    asked = {"destination": destination, "kind": kind, "limit": limit, "lease": lease}
    rows = engine.rows("claim", except_=culprit or "", **asked)
    return rows if rows or culprit is None else engine.rows("claim", except_="", **asked)


def _next_due(engine: Engine, destination: str, kinds: Sequence[tuple[Kind, int]]) -> float | None:
    """In how many seconds the next one is due: by the ledger's clock, which may not be that of whoever asks."""
    for kind, _ in kinds:
        engine.run("free_stranded", destination=destination, kind=kind, absurd=ABSURD)
    found = [engine.rows("next_due", destination=destination, kind=kind)[0]["at"] for kind, _ in kinds]
    return min((at - engine.now for at in found if at is not None), default=None)


def _with_subjects(
    engine: Engine, destination: str, kind: Kind, rows: Sequence[Any], mailing: Mailing | None
) -> tuple[tuple[Owed[Any], ...], tuple[float, ...]]:
    if kind is Kind.EMAIL:
        mails = tuple(begin(engine, rows, mailing)) if mailing is not None else ()
        waited = {row["id"]: row["waited"] for row in rows}
        return mails, tuple(waited[mail.delivery] for mail in mails)
    if kind is Kind.ERASURE:
        erasures = tuple(_owed(row, Erasure(row["subject"]), row["wanted"]) for row in rows)
        return erasures, tuple(row["waited"] for row in rows)
    asked = [{"id": row["subject"]} for row in rows]
    if kind is Kind.CHAT:
        found = {r["id"]: r for r in engine.rows("claimed_chats", rows=asked, destination=destination)}
        parked = [row for row in rows if found[row["subject"]]["contact_remote_id"] is None]
        if parked:
            engine.run("park_chats", rows=[{"id": row["id"]} for row in parked])
        rows = [row for row in rows if row not in parked]
        talks = [(row, chat_of(found[row["subject"]]), found[row["subject"]]) for row in rows]
        chats = tuple(_owed(row, chat, chat.version, there["contact_remote_id"]) for row, chat, there in talks)
        return chats, tuple(row["waited"] for row in rows)
    people = {r["id"]: contact_of(r) for r in engine.rows("claimed_contacts", rows=asked)}
    contacts = [(row, people[row["subject"]]) for row in rows]
    return tuple(_owed(row, one, one.version) for row, one in contacts), tuple(row["waited"] for row in rows)


def _owed(row: Any, subject: Any, version: int, contact_remote_id: str | None = None) -> Owed[Any]:
    return Owed(
        delivery=row["id"],
        subject=subject,
        version=version,
        claim=row["claim"],
        attempts=row["attempts"],
        lease_until=row["lease_until"],
        remote_id=row["remote_id"],
        ours=bool(row["ours"]),
        intended_at=row["intended_at"],
        is_replay=bool(row["replayed"]),
        contact_remote_id=contact_remote_id,
    )


def settle_all(engine: Engine, settlements: Sequence[Settlement], new_id: NewId, takers: Takers) -> None:
    """Write down how these attempts ended, and what follows for their destinations and chats. Inside a transaction."""
    rows = engine.rows("load_deliveries", rows=[{"id": s.delivery} for s in settlements])
    deliveries = {row["id"]: delivery_of(row) for row in rows}
    late = [(row, s) for s in settlements if (row := deliveries.get(s.delivery)) and row.is_forgotten]
    erase_late(engine, late, new_id, takers)
    settlements = _without_shared_records(engine, deliveries, settlements)
    settlements = _as_far_as_known(engine, deliveries, settlements)
    lanes: dict[str, Lane] = {}
    before: dict[str, Lane] = {}
    results: list[tuple[Delivery, Settlement]] = []
    for settlement in settlements:
        row = deliveries.get(settlement.delivery)
        if row is None:
            continue
        lane = lanes.get(row.destination) or before.setdefault(row.destination, _lane(engine, row.destination))
        lanes[row.destination] = lane_heard(lane, row, settlement, engine.now)
        free = replace(row, lease_until=None)
        deliveries[row.id] = free if row.is_forgotten else settle(row, settlement, lanes[row.destination], engine.now)
        results.append((deliveries[row.id], settlement))
    write_deliveries(engine, list(deliveries.values()))
    for lane in lanes.values():
        if lane != before[lane.name]:
            _write_lane(engine, lane)
    living = [(d, s) for d, s in results if not d.is_forgotten]
    _write_failures(engine, [s for _, s in living], new_id)
    _note_unsent(engine, results)
    _follow(engine, living)
    _make_anew_after(engine, [d for d, s in living if d.kind is Kind.ERASURE and isinstance(s.outcome, Delivered)])


def _note_unsent(engine: Engine, results: Sequence[tuple[Delivery, Settlement]]) -> None:
    """Mails of which it is known that they did not go out may be written anew."""
    unsent = [
        {"chat": d.subject, "delivery": d.id}
        for d, s in results
        if d.kind is Kind.EMAIL
        and d.claim == s.claim
        and not isinstance(s.outcome, Delivered)
        and not may_have_landed(s.outcome)
    ]
    if unsent:
        engine.run("mails_not_sent_now", rows=unsent)


def _as_far_as_known(
    engine: Engine, deliveries: Mapping[str, Delivery], settlements: Sequence[Settlement]
) -> list[Settlement]:
    """A mail that is refused for good, but that an attempt before may have sent, is not dead: nobody knows (P5)."""
    asked = [
        {"id": s.delivery}
        for s in settlements
        if isinstance(s.outcome, Dead | Ignored)
        and (row := deliveries.get(s.delivery)) is not None
        and row.kind is Kind.EMAIL
    ]
    perhaps = {row["id"] for row in engine.rows("mails_begun_before", rows=asked)} if asked else set()
    return [
        replace(s, outcome=Unknown(f"an earlier attempt may have sent it; then: {s.outcome.reason}", s.outcome.status))
        if s.delivery in perhaps and isinstance(s.outcome, Dead | Ignored)
        else s
        for s in settlements
    ]


def _without_shared_records(
    engine: Engine, deliveries: Mapping[str, Delivery], settlements: Sequence[Settlement]
) -> list[Settlement]:
    """Refuse receipts for records that another person of ours holds (promise P3): both are to try again.

    It happens when a record is inherited by a join while a newcomer with the old email finds it: the holder will write
    its own email there, and the newcomer will then get a record of their own. Where that does not help, somebody merged
    the two over there; after a few attempts that is taken as it is.
    """
    asked = [
        {"destination": row.destination, "remote_id": s.outcome.receipt.remote_id, "subject": row.subject}
        for s in settlements
        if isinstance(s.outcome, Delivered)
        and (row := deliveries.get(s.delivery)) is not None
        and row.kind is Kind.CONTACT
        and row.remote_id != s.outcome.receipt.remote_id
        and not row.is_forgotten
        and row.attempts < SHARED_AFTER
    ]
    held = engine.rows("holders", rows=asked) if asked else []
    write_deliveries(engine, [once_more(delivery_of(row), engine.now) for row in held])
    going = engine.rows("going_records", rows=asked) if asked else []
    taken = {row["asked"] for row in held} | {row["asked"] for row in going}
    return [
        replace(s, outcome=Retry("another contact of ours holds this record there"), retry_in=5.0)
        if s.delivery in deliveries and deliveries[s.delivery].subject in taken and isinstance(s.outcome, Delivered)
        else s
        for s in settlements
    ]


def _follow(engine: Engine, results: Sequence[tuple[Delivery, Settlement]]) -> None:
    """What a settled contact means for its chats, and for the contact that it was joined into."""
    contacts = [(d, s) for d, s in results if d.kind is Kind.CONTACT and d.claim == s.claim]
    answered = [d for d, s in contacts if d.joined is None and isinstance(s.outcome, Delivered | Ignored | Dead)]
    follow(engine, answered)
    for loser in (d for d, _ in contacts if d.joined is not None):
        _credit(engine, loser)
    _write_strays(engine, contacts)
    gone = [d for d, s in results if d.claim == s.claim and isinstance(s.outcome, Retry) and s.outcome.contact_is_gone]
    for chat in gone:
        _make_anew(engine, chat)


def _make_anew(engine: Engine, chat: Delivery) -> None:
    """The record of a chat's contact was deleted there, and the person is back: forget the id, owe the contact anew.

    A contact that was settled since the chat was claimed may have another record by now, made for another of its chats:
    then the chat tries that one first.
    """
    found = engine.rows("claimed_chats", rows=[{"id": chat.subject}], destination=chat.destination)
    root = engine.rows("roots", rows=[{"id": found[0]["contact"]}])[0]["root"]
    claimed_at = engine.rows("get_delivery", id=chat.id)[0]["claimed_at"]
    rows = [delivery_of(row) for row in engine.rows("load_contact_deliveries", rows=[{"id": root}])]
    for row in (row for row in rows if row.destination == chat.destination):
        if row.remote_id is not None and claimed_at < (row.settled_at or 0.0) <= engine.now:
            follow(engine, [row])
        else:
            anew = replace(once_more(row, engine.now), remote_id=None, ours=False, replayed=False)
            write_deliveries(engine, [anew])


def _make_anew_after(engine: Engine, erasures: Sequence[Delivery]) -> None:
    """Whoever had found the record that was deleted now, as somebody new, gets one of their own."""
    asked = [{"destination": d.destination, "remote_id": d.subject, "subject": ""} for d in erasures]
    held = [delivery_of(row) for row in engine.rows("holders", rows=asked)] if asked else []
    anew = [replace(once_more(d, engine.now), remote_id=None, ours=False, replayed=False) for d in held]
    write_deliveries(engine, anew)


def _write_strays(engine: Engine, contacts: Sequence[tuple[Delivery, Settlement]]) -> None:
    rows = [
        {"destination": d.destination, "contact": d.subject, "remote_id": s.outcome.receipt.left_behind}
        for d, s in contacts
        if isinstance(s.outcome, Delivered) and s.outcome.receipt.left_behind is not None
    ]
    if rows:
        engine.run("insert_strays", rows=rows)


def _credit(engine: Engine, loser: Delivery) -> None:
    """A late receipt of a joined contact goes to whom it was joined into, who had waited for it."""
    root = engine.rows("roots", rows=[{"id": loser.subject}])[0]["root"]
    found = [delivery_of(row) for row in engine.rows("load_contact_deliveries", rows=[{"id": root}])]
    for winner in (d for d in found if d.destination == loser.destination):
        kept, stray = credit(winner, loser.remote_id, ours=loser.ours)
        write_deliveries(engine, [hurried(kept, engine.now)])
        if stray is not None:
            row = {"destination": loser.destination, "contact": root, "remote_id": stray}
            engine.run("insert_strays", rows=[row])
        follow(engine, [kept])


def _write_failures(engine: Engine, settlements: Sequence[Settlement], new_id: NewId) -> None:
    rows = [
        {
            "id": new_id("fa", engine.now),
            "delivery": s.delivery,
            "outcome": _word(s.outcome),
            "status": s.outcome.status,
            "error": s.outcome.reason,
        }
        for s in settlements
        if not isinstance(s.outcome, Delivered | Ignored) and not _is_postponed(s.outcome)
    ]
    if rows:
        engine.run("insert_failures", rows=rows)


def _is_postponed(outcome: Outcome) -> bool:
    return isinstance(outcome, Retry) and outcome.is_postponed


def _word(outcome: Outcome) -> str:
    match outcome:
        case Delivered() | Ignored() | Retry() | Paused() | Unknown() | Dead():
            return type(outcome).__name__.lower()


def _lane(engine: Engine, name: str) -> Lane:
    found = engine.rows("load_destination", name=name)
    if not found:
        engine.run("add_destination", name=name)
        return Lane(name=name)
    return lane_of(found[0])


def lane_of(row: Any) -> Lane:
    """The destination that a row holds."""
    return Lane(
        name=row["name"],
        paused_at=row["paused_at"],
        paused_until=row["paused_until"],
        probe_until=row["probe_until"],
        culprit=row["culprit"],
        pauses=row["pauses"],
        needs_person=bool(row["needs_person"]),
        suspects=tuple(json.loads(row["suspects"])),
        reason=row["reason"],
        status=row["status"],
    )


def _write_lane(engine: Engine, lane: Lane, **changed: Any) -> None:
    row = {**asdict(lane), **changed}
    row |= {"needs_person": int(lane.needs_person), "suspects": json.dumps(list(lane.suspects))}
    engine.run("write_destination", **row)
