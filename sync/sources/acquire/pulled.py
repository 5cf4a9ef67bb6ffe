"""What was pulled as a body of our own, so that it is read, stored and replayed like any webhook.

Only what a pull brought that was not known before stands in it. The REST APIs' own rows are not kept.
"""

from collections.abc import Mapping
from typing import Any

from sync.cleaning import ATTRIBUTE_LIMIT, MESSAGE_LIMIT, NAME_LIMIT
from sync.models import ChatNews, EventType, Message
from sync.sources.acquire.dates import OLDEST
from sync.sources.acquire.document import Unreadable, as_object, canonical
from sync.sources.acquire.person import visitor_of
from sync.sources.acquire.reading import ID_LIMIT, Reading, Told
from sync.sources.base import PulledChat

NAME = "PULLED"
UNREADABLE = "PULLED_ROW"
SENDERS = frozenset({"visitor", "agent", "system"})
TIMES = ("started_at", "accepted_at", "closed_at")
SPANS = ("wait", "duration")


def body(pulled: PulledChat) -> bytes:
    """What was pulled about one chat."""
    news = {**{name: getattr(pulled.news, name) for name in (*TIMES, *SPANS, "agent")}, "messages": _lines(pulled.news)}
    data: dict[str, Any] = {"chat": pulled.chat, "at": pulled.at, "news": _said(news)}
    if pulled.visitor is not None:
        visitor = pulled.visitor
        named = {"name": visitor.name, "email": visitor.email, "phone": visitor.phone, "id": visitor.visitor_id}
        data["visitor"] = _said({**named, "fields": dict(visitor.attributes)})
    return canonical({"event": NAME, "data": data})


def unreadable(row: Mapping[str, Any], reason: str) -> bytes:
    """A row that says nothing, with the reason."""
    return canonical({"event": UNREADABLE, "reason": reason, "data": row})


def _lines(news: ChatNews) -> list[Any]:
    return [_said({"id": m.id, "sender": m.sender, "text": m.text, "at": m.at, "name": m.name}) for m in news.messages]


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def tell(document: Mapping[str, Any], name: str, reading: Reading) -> Told:
    """What such a body says. Raises Unreadable."""
    if name == UNREADABLE:
        raise Unreadable(reading.text("reason", document.get("reason")) or "the row could not be understood")
    data = as_object(document.get("data"), "`data`")
    chat = reading.text("chat", data.get("chat"), limit=ID_LIMIT + 3)
    if chat is None:
        raise Unreadable("the event names no chat")
    person = data.get("visitor")
    person = person if isinstance(person, dict) else {}
    return Told(
        key=reading.keyed("pulled", name, chat, data),
        # The first in the life of a chat: at the same moment the word of a webhook counts as newer.
        type=EventType.START,
        occurred_at=reading.believed(reading.time("at", data.get("at"))) or OLDEST,
        chat=chat,
        visitor=visitor_of(
            {key: person.get(key) for key in ("name", "email", "phone", "fields")},
            reading.text("id", person.get("id"), limit=ID_LIMIT + 3),
            reading,
        ),
        news=_news(data.get("news"), reading),
    )


def _news(raw: Any, reading: Reading) -> ChatNews:
    news = raw if isinstance(raw, dict) else {}
    lines = news.get("messages")
    read = [_message(line, reading) for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    return ChatNews(
        **{name: reading.believed(reading.time(name, news.get(name))) for name in TIMES},
        **{name: reading.seconds(name, news.get(name)) for name in SPANS},
        agent=reading.text("agent", news.get("agent"), limit=NAME_LIMIT),
        messages=tuple(line for line in read if line is not None),
    )


def _message(line: Mapping[str, Any], reading: Reading) -> Message | None:
    number = reading.text("id", line.get("id"), limit=ATTRIBUTE_LIMIT)
    text = reading.text("message", line.get("text"), limit=MESSAGE_LIMIT, keep_lines=True)
    sender = line.get("sender")
    if number is None or text is None:
        return None
    return Message(
        id=number,
        sender=sender if isinstance(sender, str) and sender in SENDERS else "system",
        text=text,
        at=reading.believed(reading.time("at", line.get("at"))),
        name=reading.text("sender", line.get("name"), limit=NAME_LIMIT),
    )
