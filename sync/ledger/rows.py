"""How nouns are written into rows, and read back."""

import json
from typing import Any

from sync.models import Chat, Contact, Event, EventState, Message, Said


def dump(value: Any) -> str:
    """JSON as it stands in a TEXT column."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def event_row(event: Event, state: EventState, copies: int) -> dict[str, Any]:
    """An event as a row."""
    return {
        "id": event.id,
        "source": event.source,
        "key": event.key,
        "type": str(event.type),
        "name": event.name,
        "chat": event.chat,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "payload": event.payload,
        "state": str(state),
        "flags": dump(list(event.flags)),
        "error": event.error,
        "copies": copies,
    }


def contact_row(contact: Contact) -> dict[str, Any]:
    """A contact as a row."""
    return {
        "id": contact.id,
        "uid": contact.uid,
        "name": contact.name,
        "email": contact.email,
        "phone": contact.phone,
        "attributes": dump(dict(contact.attributes)),
        "clocks": dump(dict(contact.clocks)),
        "version": contact.version,
        "created_at": contact.created_at,
        "updated_at": contact.updated_at,
    }


def contact_of(row: Any) -> Contact:
    """The contact that a row holds."""
    return Contact(
        id=row["id"],
        uid=row["uid"],
        name=row["name"],
        email=row["email"],
        phone=row["phone"],
        attributes=json.loads(row["attributes"]),
        clocks=json.loads(row["clocks"]),
        version=row["version"],
        joined=row["joined"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def chat_row(chat: Chat) -> dict[str, Any]:
    """A chat as a row, but for what only pruning writes."""
    return {
        "id": chat.id,
        "source": chat.source,
        "chat": chat.chat,
        "contact": chat.contact,
        "email": chat.email,
        "said": dump({key: [said.value, said.order] for key, said in chat.said.items()}),
        "started_at": chat.started_at,
        "accepted_at": chat.accepted_at,
        "closed_at": chat.closed_at,
        "wait": chat.wait,
        "duration": chat.duration,
        "agent": chat.agent,
        "transcript": dump([[m.id, m.sender, m.text, m.at, m.name] for m in chat.transcript]),
        "last_message_at": chat.last_message_at,
        "version": chat.version,
        "updated_at": chat.updated_at,
    }


def chat_of(row: Any) -> Chat:
    """The chat that a row holds."""
    return Chat(
        id=row["id"],
        source=row["source"],
        chat=row["chat"],
        contact=row["contact"],
        said={key: Said(value, order) for key, (value, order) in json.loads(row["said"]).items()},
        started_at=row["started_at"],
        accepted_at=row["accepted_at"],
        closed_at=row["closed_at"],
        wait=row["wait"],
        duration=row["duration"],
        agent=row["agent"],
        transcript=tuple(Message(*line) for line in json.loads(row["transcript"])),
        last_message_at=row["last_message_at"],
        version=row["version"],
        updated_at=row["updated_at"],
        pruned_until=row["pruned_until"],
    )
