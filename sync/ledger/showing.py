"""Everything the ledger knows about one event, contact, chat or delivery."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sync.cleaning import email_key
from sync.errors import NotFound
from sync.ledger import Ledger
from sync.ledger.rows import chat_of, contact_of
from sync.ledger.settling import lane_of
from sync.models import MAIL, Chat, EventState, Kind, State

NOT_CONFIGURED = "not configured"
"""The state of what is owed to a destination that the settings no longer name."""

NO_MAILER = "no mailer is set"
NOT_DECIDED = "nothing was heard of the chat since a mailer was set up"
"""Reasons why a chat has no follow-up that stand in no row."""


def iso(at: float | None) -> str | None:
    """A time as ISO 8601 in UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def show(ledger: Ledger, wanted: str) -> dict[str, Any]:
    """What an id names (`ev_…`, `co_…`, `ch_…`, `de_…`), or an email, a phone in E.164, or the source's own chat id.

    `kind` says what it is; "contacts" is a list, for a phone that several people gave. Raises NotFound.
    """
    by_prefix = {"ev": _event, "co": _contact, "ch": _chat, "de": _delivery}
    prefix, _, rest = wanted.partition("_")
    found = by_prefix[prefix](ledger, wanted) if prefix in by_prefix and rest else None
    if found is None:
        found = _by_name(ledger, wanted)
    if found is None:
        raise NotFound(f"nothing here is called {wanted}; `crm-sync contacts` searches by name, email or phone")
    return found


def chat_called(ledger: Ledger, wanted: str) -> str:
    """The id of one chat, by our id (`ch_…`) or the source's (v1:172, or just 172). Raises NotFound."""
    if ledger.get("get_chat", id=wanted) is not None:
        return wanted
    found = ledger.engine.rows("find_chats", chat=wanted) or ledger.engine.rows("chats_ending", ending=f":{wanted}")
    if len(found) > 1:
        others = ", ".join(f"{row['chat']} ({row['id']})" for row in found)
        raise NotFound(f"several chats are called {wanted}: {others}")
    if not found:
        raise NotFound(f"no chat is called {wanted}; `crm-sync show EMAIL` lists a person's chats")
    return str(found[0]["id"])


def _by_name(ledger: Ledger, wanted: str) -> dict[str, Any] | None:
    chats = ledger.engine.rows("find_chats", chat=wanted)
    if chats:
        return _chat(ledger, chats[0]["id"])
    people = _led_to(ledger, wanted)
    if len(people) == 1:
        return _contact(ledger, people[0])
    if not people:
        return None
    return {"kind": "contacts", "contacts": [_brief(ledger.get("get_contact", id=contact)) for contact in people]}


def _led_to(ledger: Ledger, wanted: str) -> list[str]:
    """Whom an email or a phone leads to; else who once had that email."""
    keys = [{"kind": "email", "value": email_key(wanted)}, {"kind": "phone", "value": wanted}]
    owners = [{"id": row["contact"]} for row in ledger.engine.rows("load_identities", rows=keys)]
    roots = sorted({row["root"] for row in ledger.engine.rows("roots", rows=owners)})
    return roots or [row["id"] for row in ledger.engine.rows("contacts_with_email", email=wanted)]


def _brief(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "name", "email", "phone")}


def _source_of(order: str) -> str:
    """The event at the end of an order key."""
    return order.rpartition("/")[2]


def _event(ledger: Ledger, event_id: str) -> dict[str, Any] | None:
    row = ledger.get("get_event", id=event_id)
    if row is None:
        return None
    names = ("id", "source", "name", "type", "chat", "state", "error", "copies")
    return {
        "kind": "event",
        **{name: row[name] for name in names},
        "occurred_at": iso(row["occurred_at"]),
        "received_at": iso(row["received_at"]),
        "flags": json.loads(row["flags"]),
        "changed": _changed_by(ledger, row),
        "is_pruned": not row["payload"] and row["state"] != EventState.UNREADABLE,
        "payload": row["payload"],
    }


def _changed_by(ledger: Ledger, event: Any) -> dict[str, Any] | None:
    """The chat and contact of an event. `stands`: what it said that nothing newer has replaced."""
    found = [r for r in ledger.engine.rows("find_chats", chat=event["chat"]) if r["source"] == event["source"]]
    if not found or event["error"] is not None:
        return None
    chat = chat_of(found[0])
    root = _root(ledger, chat.contact)
    contact = None if root is None else ledger.get("get_contact", id=root)
    clocks: Mapping[str, str] = {} if contact is None else json.loads(contact["clocks"])
    return {
        "chat": chat.id,
        "contact": None if contact is None else _brief(contact),
        "said": {name: word.value for name, word in chat.said.items() if _source_of(word.order) == event["id"]},
        "stands": sorted(name for name, order in clocks.items() if _source_of(order) == event["id"]),
    }


def _root(ledger: Ledger, contact: str | None) -> str | None:
    if contact is None:
        return None
    found = ledger.engine.rows("roots", rows=[{"id": contact}])
    return str(found[0]["root"]) if found else contact


def _contact(ledger: Ledger, contact_id: str) -> dict[str, Any] | None:
    row = ledger.get("get_contact", id=contact_id)
    if row is None:
        return None
    rows, contact = ledger.engine.rows, contact_of(row)
    chats = sorted(
        (chat_of(r) for r in rows("load_family_chats", rows=[{"id": contact_id}])),
        key=lambda chat: (chat.started_at or 0.0, chat.id),
    )
    return {
        "kind": "contact",
        **{name: row[name] for name in ("id", "uid", "name", "email", "phone", "version", "joined")},
        "attributes": dict(contact.attributes),
        "said_by": {field: _source_of(order) for field, order in contact.clocks.items()},
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
        "erased_at": iso(row["erased_at"]),
        "identities": [{"kind": r["kind"], "value": r["value"]} for r in rows("identities_of", contact=contact_id)],
        "chats": [{**_chat_line(chat), "followup": mail} for chat, mail in _with_followups(ledger, chats)],
        "deliveries": _deliveries(ledger, contact_id),
        "joins": [
            {name: r[name] for name in ("loser", "winner", "state", "reason")} | {"at": iso(r["at"])}
            for r in rows("joins_with", contact=contact_id)
        ],
        "strays": [
            {"destination": r["destination"], "remote_id": r["remote_id"], "at": iso(r["at"])}
            for r in rows("strays_of", contact=contact_id)
        ],
    }


def _chat_line(chat: Chat) -> dict[str, Any]:
    return {
        "id": chat.id,
        "source": chat.source,
        "chat": chat.chat,
        "started_at": iso(chat.started_at),
        "accepted_at": iso(chat.accepted_at),
        "closed_at": iso(chat.closed_at),
        "agent": chat.agent,
        "messages": len(chat.transcript),
    }


def _chat(ledger: Ledger, chat_id: str) -> dict[str, Any] | None:
    row = ledger.get("get_chat", id=chat_id)
    if row is None:
        return None
    chat = chat_of(row)
    root = _root(ledger, chat.contact)
    events = ledger.engine.rows("events_of_chat", source=chat.source, chat=chat.chat)
    return {
        "kind": "chat",
        **_chat_line(chat),
        "followup": followup_of(ledger, chat),
        "wait_s": chat.wait,
        "duration_s": chat.duration,
        "version": chat.version,
        "contact": None if root is None else _brief(ledger.get("get_contact", id=root)),
        "said": {name: word.value for name, word in chat.said.items()},
        "transcript": [
            {"at": iso(line.at), "sender": line.sender, "name": line.name, "text": line.text}
            for line in chat.transcript
        ],
        "events": [
            {name: r[name] for name in ("id", "name", "state", "copies")}
            | {"occurred_at": iso(r["occurred_at"]), "flags": json.loads(r["flags"])}
            for r in events
        ],
        "deliveries": _deliveries(ledger, chat_id),
    }


def followup_of(ledger: Ledger, chat: Chat) -> dict[str, Any]:
    """What became of a chat's follow-up. `state` None: none is owed so far, `reason` says why."""
    return next(mail for _, mail in _with_followups(ledger, [chat]))


def _with_followups(ledger: Ledger, chats: Sequence[Chat]) -> list[tuple[Chat, dict[str, Any]]]:
    rows = ledger.engine.rows("followups", rows=[{"id": chat.id} for chat in chats], destination=MAIL)
    found = {row["subject"]: row for row in rows}
    return [(chat, _followup(ledger, chat, found.get(chat.id))) for chat in chats]


def _followup(ledger: Ledger, chat: Chat, row: Any | None) -> dict[str, Any]:
    if row is None:
        no_mailer, over = MAIL not in ledger.takers, chat.closed_at is not None
        reason = NO_MAILER if no_mailer else NOT_DECIDED if over else "the chat is not over"
        return dict.fromkeys(("state", "due_at", "in_flight", "mailer", "begun_at", "delivery")) | {"reason": reason}
    line = _delivery_line(ledger, row)
    return {
        "state": line["state"],
        "reason": NO_MAILER if line["state"] == NOT_CONFIGURED else line["reason"],
        "due_at": line["next_at"],
        "in_flight": line["in_flight"],
        "mailer": row["mailer"],
        "begun_at": iso(row["begun_at"]),
        "delivery": row["id"],
    }


def _deliveries(ledger: Ledger, subject: str) -> list[dict[str, Any]]:
    return [_delivery_line(ledger, row) for row in ledger.engine.rows("deliveries_of", subject=subject)]


def _delivery_line(ledger: Ledger, row: Any) -> dict[str, Any]:
    is_configured = row["destination"] in ledger.takers
    is_leased = (row["lease_until"] or 0) > ledger.engine.now
    is_sending = row["kind"] == Kind.EMAIL and row["state"] == State.UNKNOWN and is_leased
    state = State.PENDING if is_sending else row["state"]
    is_waiting = state == State.PENDING
    return {
        "id": row["id"],
        "destination": row["destination"],
        "what": row["kind"],
        "subject": row["subject"],
        "state": NOT_CONFIGURED if is_waiting and not is_configured else state,
        "reason": row["error"],
        "attempts": row["attempts"],
        "wanted": row["wanted"],
        "done": row["done"],
        "owed_at": iso(row["owed_at"]),
        "next_at": iso(row["due_at"]) if is_configured else None,
        "in_flight": bool(is_waiting and is_leased),
        "remote_id": row["remote_id"],
        "ours": bool(row["ours"]),
        "settled_at": iso(row["settled_at"]),
        "replayed": bool(row["replayed"]),
    }


def _delivery(ledger: Ledger, delivery_id: str) -> dict[str, Any] | None:
    row = ledger.get("get_delivery", id=delivery_id)
    if row is None:
        return None
    lane_row = ledger.get("load_destination", name=row["destination"])
    lane = None if lane_row is None else lane_of(lane_row)
    return {
        "kind": "delivery",
        **_delivery_line(ledger, row),
        **_mail_of(ledger, row),
        "paused_until": iso(lane.paused_until) if lane else None,
        "pause_reason": lane.reason if lane and lane.is_paused else None,
        "failures": [
            {"at": iso(r["at"]), **{name: r[name] for name in ("outcome", "status", "error")}}
            for r in ledger.engine.rows("failures_of", delivery=delivery_id)
        ],
    }


def _mail_of(ledger: Ledger, row: Any) -> dict[str, Any]:
    """Of a mail: which mailer it was handed to, and since when."""
    if row["kind"] != Kind.EMAIL:
        return {}
    found = ledger.engine.rows("followups", rows=[{"id": row["subject"]}], destination=row["destination"])[0]
    return {"mailer": found["mailer"], "begun_at": iso(found["begun_at"])}
