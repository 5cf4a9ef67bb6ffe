"""Puts a chat into Acquire's words: the documents of its first family of webhooks, quirks included. Pure.

START wraps what it says in `data` and has a space in `" id"`; the others are flat, with ids as texts; `users` and
`message` may be JSON inside a text.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from torturing.people import Chat

WAIT = 2
DURATION = 25
AGENT = {"id": "agent-12345", "name": "John Deo", "email": "john.deo@example.com"}


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook, as its bytes."""

    chat: int
    name: str
    body: bytes


def webhooks_of(chat: Chat) -> Iterator[Webhook]:
    """START, ACCEPT, a MESSAGE for each line, CLOSE."""
    for name, document in _documents(chat):
        body = json.dumps({**document, "event": name}, ensure_ascii=False).encode()
        yield Webhook(chat.number, name, body)


def _documents(chat: Chat) -> Iterator[tuple[str, dict[str, Any]]]:
    created = _date(chat.started_at, chat.zone)
    details = {"name": chat.name, "email": chat.email, "phone": chat.phone, "remarks": "", "meta": "_by:visitor"}
    start = {" id": chat.number, "visitor_id": chat.visitor_id, "details": details, "status": "pending"}
    yield "CHAT_ON_START", {"data": {**start, "date_created": created, "date_updated": created, "department_id": ""}}
    user = {"id": AGENT["id"], "status": "active", "type": "agent", "state": "online", "name": AGENT["name"]}
    picked = {"date_created": created, "date_picked": _date(chat.started_at + WAIT, chat.zone)}
    yield "CHAT_ON_ACCEPT", {"id": str(chat.number), "status": "active", "user": user, **picked}
    flat = {"id": str(chat.number), "thread_id": "-1", "visitor_id": chat.visitor_id, "recording": "[]", **picked}
    for place, line in enumerate(chat.lines):
        updated = _date(chat.started_at + WAIT + 3 * (place + 1), chat.zone)
        visitor = {"id": chat.visitor_id, "name": chat.name, "type": "visitor"}
        message = json.dumps({"type": "message", "msg": line, "user": visitor})
        yield "CHAT_ON_MESSAGE", {**flat, "message": message, "date_updated": updated}
    person = {"name": chat.name, "email": chat.email or "", "phone": chat.phone or "", "fields": {}, "tags": {}}
    users = json.dumps({"agent": {**AGENT, "clients": {}}, "visitor": {**person, "meta": "_by:visitor"}})
    spans = {"chat_wait_time": str(WAIT), "chat_duration": str(DURATION), "status": "active", "users": users}
    yield "CHAT_ON_CLOSE", {**flat, **spans, "date_updated": _date(chat.started_at + WAIT + DURATION, chat.zone)}


def _date(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")
