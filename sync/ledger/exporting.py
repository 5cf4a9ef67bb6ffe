"""Everything the ledger holds about one person, for that person."""

import json
from typing import TYPE_CHECKING, Any

from sync.ledger.persons import Person
from sync.ledger.showing import iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from sync.ledger import Ledger
    from sync.models import Chat, Contact


def export(ledger: "Ledger", person: Person, address: "Callable[[str], str]") -> dict[str, Any]:
    """The person as plain values: times are ISO 8601. `address` hashes an email as suppressions do."""
    rows = ledger.engine.rows
    chats = [{"id": chat.id} for chat in person.chats]
    places = [{"source": chat.source, "chat": chat.chat} for chat in person.chats]
    hashes = {address(email): email for email in person.emails}
    return {
        "contact": person.root.id,
        "erased_at": iso(person.erased_at),
        "contacts": [_contact(contact) for contact in person.contacts],
        "identities": [{"kind": kind, "value": value} for kind, value in sorted(set(person.identities))],
        "chats": [_chat(chat) for chat in person.chats],
        "events": [
            {name: row[name] for name in ("id", "source", "name", "chat", "state", "error", "payload")}
            | {"occurred_at": iso(row["occurred_at"]), "received_at": iso(row["received_at"])}
            | {"flags": json.loads(row["flags"])}
            for row in rows("events_of_places", rows=places)
        ],
        "deliveries": [
            {
                "destination": one.destination,
                "what": str(one.kind),
                "subject": one.subject,
                "state": str(one.state),
                "reason": one.error,
                "remote_id": one.remote_id,
                "ours": one.ours,
                "settled_at": iso(one.settled_at),
            }
            for one in person.deliveries
        ],
        "second_records": [{"destination": there, "remote_id": remote_id} for there, remote_id in person.strays],
        "failures": [
            {name: row[name] for name in ("delivery", "outcome", "status", "error")} | {"at": iso(row["at"])}
            for row in rows("failures_of_deliveries", rows=[{"id": one.id} for one in person.deliveries])
        ],
        "mails": [
            {"chat": row["chat"], "mailer": row["mailer"], "begun_at": iso(row["begun_at"]), "went": bool(row["went"])}
            | {"mail": None if row["rendered"] is None else json.loads(row["rendered"])}
            for row in rows("mails_of_chats", rows=chats)
        ],
        "no_mail_to": [
            {"email": hashes[row["hash"]], "reason": row["reason"]}
            for row in rows("suppressed", rows=[{"hash": hashed} for hashed in sorted(hashes)])
        ],
    }


def _contact(contact: "Contact") -> dict[str, Any]:
    return {
        **{name: getattr(contact, name) for name in ("id", "uid", "name", "email", "phone", "joined")},
        "attributes": dict(contact.attributes),
        "created_at": iso(contact.created_at),
        "updated_at": iso(contact.updated_at),
    }


def _chat(chat: "Chat") -> dict[str, Any]:
    times = {name: iso(getattr(chat, name)) for name in ("started_at", "accepted_at", "closed_at", "pruned_until")}
    return {
        **{name: getattr(chat, name) for name in ("id", "source", "chat", "contact", "agent", "wait", "duration")},
        **times,
        "said": {name: word.value for name, word in chat.said.items()},
        "transcript": [
            {"at": iso(line.at), "sender": line.sender, "name": line.name, "text": line.text}
            for line in chat.transcript
        ],
    }
