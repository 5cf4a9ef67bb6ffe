"""Tells a chat in Acquire's words: the webhooks that its servers would send, as documented, quirks included."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from sync.simulation.people import Chat, Person, as_typed, without_phone

AGENT = {"id": "agent-12345", "name": "John Deo", "email": "john.deo@example.com"}


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook. `at` is when it is sent, in epoch seconds; `is_copy` marks one that is delivered again."""

    at: float
    chat: str
    body: bytes
    is_copy: bool = False


def webhooks_of(chat: Chat) -> tuple[Webhook, ...]:
    """All webhooks of one chat, in order."""
    told = _case(chat) if chat.is_case else _chat(chat)
    return tuple(Webhook(at, chat.id, _json(body).encode()) for at, body in told)


def _chat(chat: Chat) -> Iterator[tuple[float, dict[str, Any]]]:
    """The first family: four kinds of event, each a new shape."""
    early = without_phone(chat.person) if chat.is_phone_late else chat.person
    details = {**_person(chat, early), "remarks": chat.lines[0][1], "meta": "_by:visitor"}
    dates = {"date_created": _date(chat.started_at, chat.zone), "date_updated": _date(chat.started_at, chat.zone)}
    start = {" id": chat.number, "details": details, "status": "pending", **dates, "department_id": ""}
    yield chat.started_at, {"data": start, "event": "CHAT_ON_START"}
    agent = {"id": AGENT["id"], "type": "agent", "state": "online", "name": AGENT["name"], "photo": None}
    accept = {"id": str(chat.number), "status": "active", "chat_wait_time": "null", "user": agent, **dates}
    yield chat.accepted_at, {**accept, "date_updated": _date(chat.accepted_at, chat.zone), "event": "CHAT_ON_ACCEPT"}
    at = chat.accepted_at
    for is_visitor, text, pause in chat.lines:
        at += pause
        yield at, {**_flat(chat, at), **_message(chat, text, is_visitor=is_visitor), "event": "CHAT_ON_MESSAGE"}
    yield chat.ended_at, {**_flat(chat, chat.ended_at), **_closed(chat), "event": "CHAT_ON_CLOSE"}


def _flat(chat: Chat, at: float) -> dict[str, Any]:
    return {
        "id": str(chat.number),
        "thread_id": "-1",
        "visitor_id": chat.person.id,
        "chat_wait_time": "null",
        "chat_duration": "null",
        "date_created": _date(chat.started_at, chat.zone),
        "date_updated": _date(at, chat.zone),
        "date_picked": _date(chat.accepted_at, chat.zone),
    }


def _message(chat: Chat, text: str, *, is_visitor: bool) -> dict[str, Any]:
    visitor = {"id": chat.person.id, "name": chat.person.name, "type": "visitor"}
    agent = {"id": AGENT["id"], "name": AGENT["name"], "type": "agent"}
    message = {"type": "message", "msg": text, "user": visitor if is_visitor else agent}
    return {"message": _json(message) if is_visitor else message, "recording": "[]"}


def _closed(chat: Chat) -> dict[str, Any]:
    said = _person(chat, chat.person)
    visitor = {**said, "phone": said["phone"] or "", "remarks": chat.lines[0][1], "meta": "_by:visitor"}
    agent = {"name": AGENT["name"], "email": AGENT["email"], "role": "Administrator", "clients": {}}
    return {
        "status": "active",
        "chat_wait_time": str(chat.wait),
        "chat_duration": str(int(chat.ended_at - chat.accepted_at)),
        "users": _json({"agent": agent, "visitor": {**visitor, "fields": {}, "tags": {}, "custom_fields": []}}),
        "by": AGENT["id"],
    }


def _case(chat: Chat) -> Iterator[tuple[float, dict[str, Any]]]:
    """The second family: the whole case each time, with its messages so far."""
    early = without_phone(chat.person) if chat.is_phone_late else chat.person
    messages = list(_case_messages(chat))
    yield chat.accepted_at, _case_status(chat, "active", early, messages[:1])
    yield chat.ended_at, _case_status(chat, "closed", chat.person, messages)


def _case_status(chat: Chat, status: str, person: Person, messages: list[dict[str, Any]]) -> dict[str, Any]:
    said = _person(chat, person)
    fields = {**said, "phone": said["phone"] or "", "city": "", "countryId": "517", "ip": "203.0.113.7"}
    contact = {"id": person.id, "fields": fields}
    data = {"caseId": str(chat.number), "status": status, "fields": {}, "contact": contact, "messages": messages}
    return {"event": "case:status", "data": data}


def _case_messages(chat: Chat) -> Iterator[dict[str, Any]]:
    at = chat.accepted_at
    closing = (False, "The thread has been closed by John Deo.", 1)
    joining = (False, "John Deo just joined this thread.", 0)
    lines = ((joining, "event"), *((line, "message") for line in chat.lines), (closing, "event"))
    for number, ((is_visitor, text, pause), kind) in enumerate(lines):
        at += pause
        yield {
            "id": f"{chat.number}{number:02}",
            "channel": "chat",
            "senderId": chat.person.id if is_visitor else "1",
            "senderType": "contact" if is_visitor else "user",
            "type": kind,
            "message": text,
            "seen": "yes",
            "dateCreated": _javascript_date(at),
        }


def _person(chat: Chat, person: Person) -> dict[str, str | None]:
    return {"name": person.name, "email": person.email, "phone": as_typed(person.phone, chat.number)}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _date(at: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M:%S")


def _javascript_date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)")
