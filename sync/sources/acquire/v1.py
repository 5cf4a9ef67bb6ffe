"""Reads the first family of webhooks: CHAT_ON_START, CHAT_ON_ACCEPT, CHAT_ON_MESSAGE, CHAT_ON_CLOSE.

START wraps what it says in `data`, the others are flat; ids are numbers here and texts there; `users` and `message` may
be JSON inside a text. Whatever the spelling, it is read the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sync.cleaning import MESSAGE_LIMIT, NAME_LIMIT, said
from sync.models import ChatNews, EventType, Message, Visitor
from sync.sources.acquire.document import Unreadable, trimmed, unfold
from sync.sources.acquire.person import lasting, visitor_of
from sync.sources.acquire.reading import Reading, Told

TYPES = {
    "CHAT_ON_START": EventType.START,
    "CHAT_ON_ACCEPT": EventType.ACCEPT,
    "CHAT_ON_MESSAGE": EventType.MESSAGE,
    "CHAT_ON_CLOSE": EventType.CLOSE,
}
SAYS = {
    EventType.START: ("visitor_id", "status", "details"),
    EventType.ACCEPT: ("status", "chat_wait_time", "user"),
    EventType.MESSAGE: ("visitor_id", "message"),
    EventType.CLOSE: ("visitor_id", "status", "chat_wait_time", "chat_duration", "users"),
}
"""The fields that make an event key: what is said, not when it was sent."""

FOLDED = ("details", "user", "users", "message")
DATES = ("date_created", "date_picked", "date_updated", "date_closed")
SENDERS = {"agent": "agent", "visitor": "visitor", "contact": "visitor"}
TEXTS = ("msg", "message", "text")


def is_family(name: str) -> bool:
    """Whether an event of this name is one of the four that tell of a chat."""
    return name.upper() in TYPES


@dataclass(frozen=True, slots=True)
class Facts:
    """One webhook of this family: its fields unfolded, its times read. Times are epoch seconds, spans seconds."""

    type: EventType
    key: str
    chat: str
    fields: Mapping[str, Any]
    created: float | None
    picked: float | None
    wait: float | None
    duration: float | None
    ended: float | None
    occurred_at: float

    def part(self, *path: str) -> Mapping[str, Any]:
        """The object at a path of fields; an empty one where there is none."""
        value: Any = self.fields
        for field in path:
            value = value.get(field) if isinstance(value, dict) else None
        return value if isinstance(value, dict) else {}

    @property
    def sender(self) -> str:
        """Who wrote the message of a MESSAGE; "system" where the vendor does not say."""
        if self.part("message").get("type") == "event":
            return "system"
        return SENDERS.get((said(self.part("message", "user").get("type")) or "").lower(), "system")


def tell(fields: Mapping[str, Any], name: str, reading: Reading) -> Told:
    """What a webhook of this family says. Raises Unreadable where it names no chat.

    `fields` are those of the envelope together with those of its `data`.
    """
    facts = _facts(fields, name.upper(), reading)
    return Told(
        key=facts.key,
        type=facts.type,
        occurred_at=facts.occurred_at,
        chat=facts.chat,
        visitor=_visitor(facts, reading),
        news=NEWS[facts.type](facts, reading),
    )


def _facts(raw: Mapping[str, Any], name: str, reading: Reading) -> Facts:
    fields = _fields(raw, reading)
    event_type = TYPES[name]
    chat = reading.id("v1", "id", fields.get("id"))
    if chat is None:
        raise Unreadable("the event names no chat")
    dates = {field: reading.time(field, fields.get(field)) for field in DATES}
    created = dates["date_created"]
    wait = reading.seconds("chat_wait_time", fields.get("chat_wait_time"))
    duration = reading.seconds("chat_duration", fields.get("chat_duration"))
    ended = _ended(created, wait, duration) if event_type is EventType.CLOSE else None
    return Facts(
        type=event_type,
        key=reading.keyed("v1", name, chat, {field: lasting(fields.get(field)) for field in SAYS[event_type]}),
        chat=chat,
        fields=fields,
        created=reading.believed(created),
        picked=reading.believed(dates["date_picked"]),
        wait=wait,
        duration=duration,
        ended=reading.believed(ended),
        occurred_at=reading.occurred_at((*dates.values(), ended)),
    )


def _ended(created: float | None, wait: float | None, duration: float | None) -> float | None:
    return None if created is None or duration is None else created + (wait or 0.0) + duration


def _fields(raw: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    fields = trimmed(raw)
    for field in FOLDED:
        unfolded = unfold(fields.get(field), field, reading)
        if isinstance(unfolded, dict):
            fields[field] = unfolded
    return fields


def _visitor(facts: Facts, reading: Reading) -> Visitor | None:
    """The visitor, never the agent: ACCEPT names only the agent, and so does an agent's MESSAGE."""
    visitor_id = reading.id("v1", "visitor_id", facts.fields.get("visitor_id"))
    match facts.type:
        case EventType.START:
            return visitor_of(facts.part("details"), visitor_id, reading)
        case EventType.CLOSE:
            return visitor_of(facts.part("users", "visitor"), visitor_id, reading)
        case EventType.MESSAGE if facts.sender == "visitor":
            return visitor_of({"name": facts.part("message", "user").get("name")}, visitor_id, reading)
        case _:
            return None


def _started(facts: Facts, _reading: Reading) -> ChatNews:
    return ChatNews(started_at=facts.created or facts.occurred_at)


def _accepted(facts: Facts, reading: Reading) -> ChatNews:
    return ChatNews(
        started_at=facts.created,
        accepted_at=facts.picked or facts.occurred_at,
        wait=facts.wait,
        agent=reading.text("agent", facts.part("user").get("name"), limit=NAME_LIMIT),
    )


def _wrote(facts: Facts, reading: Reading) -> ChatNews:
    return ChatNews(started_at=facts.created, accepted_at=facts.picked, messages=_messages(facts, reading))


def _closed(facts: Facts, reading: Reading) -> ChatNews:
    return ChatNews(
        started_at=facts.created,
        accepted_at=facts.picked,
        closed_at=facts.ended or facts.occurred_at,
        wait=facts.wait,
        duration=facts.duration,
        agent=reading.text("agent", facts.part("users", "agent").get("name"), limit=NAME_LIMIT),
    )


def _messages(facts: Facts, reading: Reading) -> tuple[Message, ...]:
    """The one line that a MESSAGE carries, without internal notes.

    It has no id of its own, so it gets the event key, which is the same over all redeliveries.
    """
    message = facts.part("message")
    written = next((message[field] for field in TEXTS if field in message), facts.fields.get("message"))
    text = reading.text("message", written, limit=MESSAGE_LIMIT, keep_lines=True)
    if text is None or message.get("type") == "note":
        return ()
    return (
        Message(
            id=facts.key,
            sender=facts.sender,
            text=text,
            at=reading.believed(reading.time("message.date_created", message.get("date_created"))),
            name=reading.text("sender", facts.part("message", "user").get("name"), limit=NAME_LIMIT),
        ),
    )


NEWS: Mapping[EventType, Callable[[Facts, Reading], ChatNews]] = {
    EventType.START: _started,
    EventType.ACCEPT: _accepted,
    EventType.MESSAGE: _wrote,
    EventType.CLOSE: _closed,
}
