"""The follow-up emails in the ledger: owed by what the chat says, written down before they leave, at most once (P5)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sync.errors import LetterError, NotFound
from sync.followup import HOUR, Due, FollowupSettings, History, NotDue, decide
from sync.ids import NewId
from sync.ledger.engine import Engine
from sync.ledger.machine import Delivery
from sync.ledger.owing import delivery_of, write_deliveries
from sync.ledger.rows import chat_of, contact_of, dump
from sync.models import MAIL, Chat, Contact, Email, Owed, State

TEMPLATE = "followup"

SINCE = "mailer_since"
"""The mark of when a mailer was first set up."""

MAILER = "mailer"
"""The mark of which mailer was the last."""

Digest = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Mailing:
    """What the ledger has to know of follow-ups. `repeatable_for` is the mailer's, in seconds.

    `address` hashes an email, `digest` makes the keys; `write` renders a mail (chat, contact, key, time) and raises
    LetterError.
    """

    mailer: str
    repeatable_for: float
    rules: FollowupSettings
    address: Callable[[str], str]
    digest: Digest
    write: Callable[[Chat, Contact, str, float], Email]


def set_up(engine: Engine, mailer: str) -> None:
    """Note since when there is a mailer, and let another one begin without the pause of the one before."""
    if not engine.rows("get_mark", name=SINCE):
        engine.run("set_mark", name=SINCE, value=repr(engine.now))
    before = engine.rows("get_mark", name=MAILER)
    if not before or before[0]["value"] != mailer:
        engine.run("forget_pause", name=MAIL)
        engine.run("set_mark", name=MAILER, value=mailer)


def owe_mails(engine: Engine, chats: Sequence[tuple[Chat, Contact]], mailing: Mailing, new_id: NewId) -> None:
    """Decide the follow-up of these chats anew. Each comes with its contact, joins followed. Inside a transaction."""
    told = [(chat, contact) for chat, contact in chats if _may_be_owed(chat, mailing.rules)]
    if not told:
        return
    histories = _histories(engine, told, mailing)
    rows = []
    for chat, contact in told:
        decision = decide(mailing.rules, chat, contact, histories[chat.id], engine.now)
        if decision is not None:
            row = {"id": new_id("de", engine.now), "destination": MAIL, "subject": chat.id}
            rows.append({**row, **_as_columns(decision)})
    if rows:
        engine.run("owe_mails", rows=rows)


def _may_be_owed(chat: Chat, rules: FollowupSettings) -> bool:
    return chat.closed_at is not None or (rules.after_start is not None and chat.started_at is not None)


def _as_columns(decision: Due | NotDue) -> dict[str, Any]:
    match decision:
        case Due(at, reason):
            return {"state": State.PENDING, "due_at": at, "error": reason}
        case NotDue(reason):
            return {"state": State.IGNORED, "due_at": None, "error": reason}


def _histories(engine: Engine, told: Sequence[tuple[Chat, Contact]], mailing: Mailing) -> dict[str, History]:
    """What else counts for each of these chats, in a constant number of statements."""
    marks = engine.rows("get_mark", name=SINCE)
    since = float(marks[0]["value"]) if marks else engine.now
    asked = [
        {"chat": chat.id, "contact": contact.id, "over_at": min(chat.closed_at or chat.started_at or 0.0, engine.now)}
        for chat, contact in told
    ]
    found = {row["chat"]: row for row in engine.rows("mail_history", rows=asked)}
    hashes = {chat.id: mailing.address(contact.email) for chat, contact in told if contact.email is not None}
    suppressed = {
        row["hash"]: row["reason"]
        for row in engine.rows("suppressed", rows=[{"hash": hash} for hash in sorted(set(hashes.values()))])
    }
    sent_at = tuple(row["begun_at"] for row in engine.rows("begun_since", since=engine.now - HOUR))
    return {
        chat.id: History(
            mailer_since=since,
            suppressed=suppressed.get(hashes.get(chat.id, "")),
            last_mail_at=found[chat.id]["last_mail_at"],
            newer_chat=found[chat.id]["newer_chats"] > 0,
            sent_at=sent_at,
        )
        for chat, _ in told
    }


def begin(engine: Engine, rows: Sequence[Any], mailing: Mailing) -> list[Owed[Email]]:
    """Of claimed mails those that are to leave now, each written down as `unknown` before it does.

    The others are put off or withdrawn, with their reason. Inside the transaction of the claim.
    """
    found = {
        row["id"]: delivery_of(row) for row in engine.rows("load_deliveries", rows=[{"id": r["id"]} for r in rows])
    }
    begun = [_begin(engine, found[row["id"]], mailing) for row in rows]
    write_deliveries(engine, [delivery for delivery, _ in begun])
    return [_owed(delivery, email) for delivery, email in begun if email is not None]


def _begin(engine: Engine, row: Delivery, mailing: Mailing) -> tuple[Delivery, Email | None]:
    """One claimed mail: the row as it is to be written, and the mail if it is to leave."""
    free = replace(row, lease_until=None, due_at=None)
    before = next(iter(engine.rows("get_mail", chat=row.subject, template=TEMPLATE)), None)
    decision, chat, contact = decided(engine, row.subject, mailing)
    may_have_gone = before["went"] if before is not None else False
    match decision:
        case Due(at, reason) if at > engine.now and not may_have_gone:
            return replace(free, due_at=at, ready_at=at, error=reason), None
        case NotDue(reason) if may_have_gone:
            return replace(free, state=State.UNKNOWN, error=f"its answer was lost; not asked again: {reason}"), None
        case NotDue(reason):
            return replace(free, state=State.IGNORED, error=reason), None
    sending = replace(row, state=State.UNKNOWN, due_at=None, error=f"sending since {_iso(engine.now)}")
    if before is not None and may_have_gone:
        if not _is_repeatable(before, mailing, engine.now):
            return replace(free, state=State.UNKNOWN, error="its answer was lost, and it cannot be asked again"), None
        return sending, Email(**json.loads(before["rendered"]))
    turn = 1 if before is None else before["turn"] + 1
    key = str(UUID(mailing.digest(f"mail:{row.subject}:{TEMPLATE}:{turn}".encode())))
    try:
        email = mailing.write(chat, contact, key, engine.now)
    except LetterError as error:
        return replace(free, state=State.DEAD, error=str(error)), None
    written = {"chat": row.subject, "template": TEMPLATE, "mailer": mailing.mailer, "turn": turn, "key": key}
    engine.run("write_mail", rendered=dump(asdict(email)), **written)
    return sending, email


def decided(engine: Engine, chat_id: str, mailing: Mailing) -> tuple[Due | NotDue, Chat, Contact]:
    """What is decided about a chat's follow-up now, with the chat and whom it belongs to. Changes nothing."""
    row = engine.rows("mail_subject", chat=chat_id)[0]
    chat = chat_of(row)
    people = engine.rows("get_contact", id=row["root"]) if row["root"] is not None else []
    if not people:
        return NotDue("no email is known"), chat, Contact(id="", uid="")
    contact = contact_of(people[0])
    history = _histories(engine, [(chat, contact)], mailing)[chat.id]
    decision = decide(mailing.rules, chat, contact, history, engine.now)
    return decision or NotDue("the chat is not over"), chat, contact


def _is_repeatable(before: Any, mailing: Mailing, now: float) -> bool:
    is_here = before["mailer"] == mailing.mailer and before["rendered"] is not None
    began = before["begun_at"]  # one in the future was written by a clock that was wrong: it says nothing
    return is_here and began <= now + HOUR and now < began + mailing.repeatable_for


def _owed(row: Delivery, email: Email) -> Owed[Email]:
    return Owed(
        delivery=row.id,
        subject=email,
        version=row.wanted,
        claim=row.claim,
        attempts=row.attempts,
        lease_until=row.lease_until or 0.0,
    )


def resume(engine: Engine, mailing: Mailing) -> None:
    """Take up again what a process left in the middle, where the mailer sends it once only."""
    if mailing.repeatable_for > 0:
        window = {"mailer": mailing.mailer, "window": mailing.repeatable_for}
        engine.run("resume_mails", destination=MAIL, **window)


def resolve(engine: Engine, chat_id: str, *, was_sent: bool) -> Delivery:
    """What a person found out about a mail whose answer was lost. Inside a transaction. Raises NotFound."""
    found = [delivery_of(row) for row in engine.rows("mail_delivery", chat=chat_id, destination=MAIL)]
    row = next(iter(found), None)
    if row is None or row.state is not State.UNKNOWN:
        state = "no mail was owed" if row is None else f"it is {row.state}"
        raise NotFound(f"the mail of this chat is not unknown: {state}")
    if row.lease_until is not None and row.lease_until > engine.now:
        raise NotFound("the mail of this chat is being sent right now; look again in a minute")
    free = replace(row, lease_until=None, settled_at=engine.now)
    if was_sent:
        after = replace(free, state=State.DELIVERED, done=row.wanted, error="a person says that it was sent")
    else:
        engine.run("mails_not_sent", rows=[{"chat": chat_id}])
        after = replace(free, state=State.PENDING, due_at=engine.now, error="a person says that it is to be sent again")
    write_deliveries(engine, [after])
    return after


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
