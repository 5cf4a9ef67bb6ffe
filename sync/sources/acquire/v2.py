"""Reads the second family of webhooks, which tell of a case: its status, its contact, its messages so far.

One payload is documented (`case:status`); of the other events only some names are. So the shape decides what a webhook
says. The name is asked only where it says more than the shape.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync.cleaning import MESSAGE_LIMIT, NAME_LIMIT, said, spelled
from sync.models import ChatNews, EventType, Message, Visitor
from sync.sources.acquire.document import Unreadable, trimmed, unfold
from sync.sources.acquire.person import lasting, visitor_of
from sync.sources.acquire.reading import ID_LIMIT, Reading, Told

NAMES = {"case:message:new": EventType.MESSAGE}
STATUSES = {
    "new": EventType.START,
    "open": EventType.START,
    "pending": EventType.START,
    "queue": EventType.START,
    "active": EventType.ACCEPT,
    "closed": EventType.CLOSE,
}
SENDERS = {"contact": "visitor", "user": "agent"}
INTERNAL = "note"
MOST_MESSAGES = 2000
"""Messages of one webhook that are read: as many as are kept of a chat."""

FOLDED = ("contact", "messages", "fields")
PERSON = ("name", "email", "phone", "fields", "custom_fields", "tags")
SAYS_OF_MESSAGE = ("id", "channel", "senderId", "senderType", "type", "message", "dateCreated")
CHANGED = "dateUpdated"
DATES = ("dateCreated", "dateQueue", "dateActive", "dateClosed", CHANGED)


def is_family(data: Any) -> bool:
    """Whether `data` has the shape of a case, or of something that belongs to one."""
    return isinstance(data, dict) and (_is_case(data) or "caseId" in data)


def _is_case(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("contact"), dict) and "senderType" not in data


@dataclass(frozen=True, slots=True)
class Facts:
    """One webhook of this family: its fields unfolded, its messages as our Messages."""

    fields: Mapping[str, Any]
    contact: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    rows_sent: int
    messages: tuple[Message, ...]
    status: str | None
    dates: Mapping[str, float | None]

    @property
    def is_message(self) -> bool:
        """Whether `data` is one message instead of a case."""
        return "senderType" in self.fields


def tell(data: Mapping[str, Any], name: str, reading: Reading) -> Told:
    """What a webhook of this family says. Raises Unreadable where it names a visitor but no chat."""
    facts = _facts(data, reading)
    chat = _chat(facts, reading)
    event_type = _type(name, facts)
    visitor = _visitor(facts, reading)
    if visitor and chat is None:
        raise Unreadable("the event names a visitor, but no chat")
    tells_of_chat = chat is not None and (visitor is not None or event_type is not EventType.OTHER)
    occurred_at = reading.occurred_at((*facts.dates.values(), *(message.at for message in facts.messages)))
    return Told(
        key=reading.keyed("v2", name, chat, _says(facts)),
        type=event_type,
        occurred_at=occurred_at,
        chat=chat,
        visitor=visitor,
        news=_news(event_type, facts, occurred_at, reading) if tells_of_chat else None,
    )


def _facts(data: Mapping[str, Any], reading: Reading) -> Facts:
    fields = trimmed(data)
    for field in FOLDED:
        if field in fields:
            fields[field] = unfold(fields[field], field, reading)
    contact = fields.get("contact")
    sent = _rows(fields)
    rows = _read_of(sent, reading)
    return Facts(
        fields=fields,
        contact=contact if isinstance(contact, dict) else {},
        rows=rows,
        rows_sent=len(sent),
        messages=tuple(message for row in rows if (message := _message(row, reading))),
        status=(reading.text("status", fields.get("status")) or "").lower() or None,
        dates={field: reading.time(field, fields.get(field)) for field in DATES},
    )


def _rows(fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The raw messages: a case's list of them, or the one message that `data` itself is."""
    if "senderType" in fields:
        return [fields]
    messages = fields.get("messages")
    return [row for row in messages if isinstance(row, dict)] if isinstance(messages, list) else []


def _read_of(rows: Sequence[Mapping[str, Any]], reading: Reading) -> Sequence[Mapping[str, Any]]:
    """The first rows, which say what the case is about, and the last one, which says how and when it ended."""
    if len(rows) <= MOST_MESSAGES:
        return rows
    reading.note(f"messages: more than {MOST_MESSAGES}, the rest was left out")
    return [*rows[: MOST_MESSAGES - 1], rows[-1]]


def _message(row: Mapping[str, Any], reading: Reading) -> Message | None:
    """One line of the transcript; None for an internal note, or where nothing is written."""
    kind = said(row.get("type"))
    text = reading.text("message", row.get("message"), limit=MESSAGE_LIMIT, keep_lines=True)
    if text is None or kind == INTERNAL:
        return None
    sender = row.get("sender")
    return Message(
        id=_id(row) or reading.keyed("v2", "message", None, _says_of_message(row)),
        sender="system" if kind == "event" else _sender(row),
        text=text,
        at=reading.believed(reading.time("message.dateCreated", row.get("dateCreated"))),
        name=reading.text("sender", sender.get("name"), limit=NAME_LIMIT) if isinstance(sender, dict) else None,
    )


def _id(row: Mapping[str, Any]) -> str | None:
    text = said(row.get("id"))
    return text if text is not None and len(text) <= ID_LIMIT else None


def _sender(row: Mapping[str, Any]) -> str:
    return SENDERS.get((said(row.get("senderType")) or "").lower(), "system")


def _chat(facts: Facts, reading: Reading) -> str | None:
    """The case. An object that is itself a case, as in the REST API, calls its id just `id`."""
    chat = reading.id("v2", "caseId", facts.fields.get("caseId"))
    if chat is None and _is_case(facts.fields):
        chat = reading.id("v2", "id", facts.fields.get("id"))
    return chat


def _type(name: str, facts: Facts) -> EventType:
    """What the name says, else the status, else the shape. An unknown status with messages is a MESSAGE."""
    by_shape = EventType.MESSAGE if facts.messages else EventType.OTHER
    return NAMES.get(name) or STATUSES.get(facts.status or "", by_shape)


def _says(facts: Facts) -> dict[str, Any]:
    """What makes the event key, with the dates on which the case and its contact were last changed, if they are said.

    They tell a word that was taken back (a@, b@, a@ again) from a redelivery of the first one, which has its bytes and
    so its dates. Should a redelivery carry a later date all the same, it is stored twice and changes nothing: folding
    is idempotent. A newest word taken for a duplicate would be lost.
    """
    return {
        "changed": [
            None if facts.is_message else spelled(facts.fields.get(CHANGED)),
            spelled(facts.contact.get(CHANGED)),
        ],
        "status": facts.status,
        "contact": lasting({"id": facts.contact.get("id"), **_person(facts.contact)}),
        "case": lasting({"fields": facts.fields.get("fields")}),
        "messages": [_says_of_message(row) for row in facts.rows],
        "messages_sent": facts.rows_sent,
    }


def _says_of_message(row: Mapping[str, Any]) -> dict[str, Any]:
    return {field: lasting(row.get(field)) for field in SAYS_OF_MESSAGE}


def _person(contact: Mapping[str, Any]) -> dict[str, Any]:
    return {field: contact[field] for field in PERSON if field in contact}


def _visitor(facts: Facts, reading: Reading) -> Visitor | None:
    """The contact; else whoever wrote the one message, if that was a contact and not one of our own people."""
    visitor_id = reading.id("v2", "contact.id", facts.contact.get("id"))
    if visitor_id is None and facts.is_message and _sender(facts.fields) == "visitor":
        visitor_id = reading.id("v2", "senderId", facts.fields.get("senderId"))
    return visitor_of(_person(facts.contact), visitor_id, reading, also=facts.fields.get("fields"))


def _news(event_type: EventType, facts: Facts, occurred_at: float, reading: Reading) -> ChatNews:
    """The times of the case where it names them, else those of its messages, else the event's own."""
    return ChatNews(
        started_at=_case_date(facts, "dateCreated", reading)
        or (None if facts.is_message else _earliest(message.at for message in facts.messages))
        or (occurred_at if event_type is EventType.START else None),
        accepted_at=_case_date(facts, "dateActive", reading)
        or _earliest(_seen_by_agent(event_type, facts, reading))
        or (occurred_at if event_type is EventType.ACCEPT else None),
        closed_at=_case_date(facts, "dateClosed", reading) or (occurred_at if event_type is EventType.CLOSE else None),
        agent=None if facts.is_message else _last_agent(facts.messages),
        messages=facts.messages,
    )


def _last_agent(messages: Sequence[Message]) -> str | None:
    return next((message.name for message in reversed(messages) if message.sender == "agent" and message.name), None)


def _case_date(facts: Facts, field: str, reading: Reading) -> float | None:
    """A date of the case; where `data` is one message, its dates are the message's."""
    return None if facts.is_message else reading.believed(facts.dates[field])


def _seen_by_agent(event_type: EventType, facts: Facts, reading: Reading) -> list[float | None]:
    """When an agent joined or wrote. To close a case without having been in it is no acceptance."""
    if facts.is_message:
        return []
    is_closing = event_type is EventType.CLOSE and facts.rows and facts.rows[-1].get("type") == "event"
    rows = facts.rows[:-1] if is_closing else facts.rows
    return [
        reading.believed(reading.time("message.dateCreated", row.get("dateCreated")))
        for row in rows
        if _sender(row) == "agent" and row.get("type") != INTERNAL
    ]


def _earliest(dates: Iterable[float | None]) -> float | None:
    return min((date for date in dates if date is not None), default=None)
