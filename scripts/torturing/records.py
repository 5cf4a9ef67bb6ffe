"""What an imitation HubSpot has: contacts with unique emails, notes on them. Dumb and strict, in memory.

developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/guide
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

UID = "chat_crm_sync_uid"
"""The custom property of this account whose values are unique."""

WRITABLE = frozenset({"email", "firstname", "lastname", "phone", UID})
NOTE_ON_CONTACT = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 202}]


class Refused(Exception):
    """One input that is not taken."""

    def __init__(self, status: int, category: str, message: str) -> None:
        super().__init__(message)
        self.status, self.category, self.message = status, category, message


@dataclass
class Record:
    """A contact, or a note with the contacts that it is about."""

    id: str
    created: float
    properties: dict[str, str]
    contacts: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """As an answer shows it."""
        at = datetime.fromtimestamp(self.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"id": self.id, "properties": {**self.properties, "createdate": at, "hs_createdate": at}}


@dataclass
class Records:
    """Everything that is there. Each effect is appended to the journal, so that a doubled one can be seen."""

    journal: Path
    contacts: dict[str, Record] = field(default_factory=dict)
    notes: dict[str, Record] = field(default_factory=dict)
    held: dict[tuple[str, str], str] = field(default_factory=dict)
    """Unique property and value → the contact that holds it."""
    _last: int = 100

    def create(self, said: Mapping[str, str], created: float | None = None) -> Record:
        """A new contact. Raises Refused: its email or uid is held by another one, or it has no name and no email."""
        properties = self._checked(said, None)
        if not any(properties.get(name) for name in ("email", "firstname", "lastname")):
            raise Refused(400, "VALIDATION_ERROR", "Error creating CONTACT. Some required properties were not set.")
        record = Record(self._next(), created or time.time(), properties)
        self.contacts[record.id] = record
        self._hold(record)
        self._tell("create contact", record)
        return record

    def update(self, record_id: str, said: Mapping[str, str]) -> Record:
        """A contact with changed properties. Raises Refused."""
        if record_id not in self.contacts:
            raise Refused(404, "OBJECT_NOT_FOUND", "Could not get some CONTACT objects, they may be deleted.")
        record = self.contacts[record_id]
        changed = self._checked(said, record_id)
        self._let_go(record)
        record.properties |= changed
        self._hold(record)
        self._tell("update contact", record)
        return record

    def note(self, body: Mapping[str, Any]) -> Record:
        """A new note. Raises Refused: it must be about contacts that are there, and have a time."""
        about = [entry for entry in body.get("associations", []) if entry.get("types") == NOTE_ON_CONTACT]
        contacts = tuple(str(entry["to"]["id"]) for entry in about)
        if not contacts or len(about) != len(body["associations"]) or not self.contacts.keys() >= set(contacts):
            raise Refused(400, "VALIDATION_ERROR", "one or more associations are not valid")
        if not body["properties"].get("hs_timestamp"):
            raise Refused(400, "VALIDATION_ERROR", "Error creating NOTE. Some required properties were not set.")
        record = Record(self._next(), time.time(), dict(body["properties"]), contacts)
        self.notes[record.id] = record
        self._tell("create note", record)
        self._tell("associate note", record)
        return record

    def rewrite(self, record_id: str, said: Mapping[str, str]) -> Record:
        """A note with changed properties. Raises Refused."""
        if record_id not in self.notes:
            raise Refused(404, "OBJECT_NOT_FOUND", "resource not found")
        self.notes[record_id].properties |= said
        self._tell("update note", self.notes[record_id])
        return self.notes[record_id]

    def by(self, value: str, unique: str | None) -> Record | None:
        """The contact with this id, or with this value of a unique property."""
        return self.contacts.get(value if unique is None else self.held.get((unique, value.lower()), ""))

    def _checked(self, said: Mapping[str, str], own: str | None) -> dict[str, str]:
        if strange := said.keys() - WRITABLE:
            raise Refused(400, "VALIDATION_ERROR", f"Property {min(strange)} does not exist")
        properties = {name: value.lower() if name == "email" else value for name, value in said.items()}
        for unique in ("email", UID):
            holder = self.held.get((unique, properties.get(unique, "").lower()))
            if holder is not None and holder != own:
                raise Refused(409, "CONFLICT", f"Contact already exists. Existing ID: {holder}")
        return properties

    def _hold(self, record: Record) -> None:
        for unique in ("email", UID):
            if value := record.properties.get(unique):
                self.held[unique, value.lower()] = record.id

    def _let_go(self, record: Record) -> None:
        for unique in ("email", UID):
            self.held.pop((unique, record.properties.get(unique, "").lower()), None)

    def _next(self) -> str:
        self._last += 1
        return str(self._last)

    def _tell(self, effect: str, record: Record) -> None:
        line = {"at": time.time(), "effect": effect, "id": record.id, "about": record.contacts} | record.properties
        with self.journal.open("a") as journal:
            journal.write(json.dumps(line) + "\n")
