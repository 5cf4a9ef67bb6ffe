"""The shapes of what HubSpot answers.

developers.hubspot.com/docs/api-reference/latest/error-handling
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sync.sandbox.properties import CONTACTS, OBJECT_TYPES, SINGULAR, Complaint, iso
from sync.sandbox.store import Record

PORTAL = 24_680_246
VALIDATION_ERROR = "VALIDATION_ERROR"
DEFAULT_PROPERTIES = {
    CONTACTS: ("createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"),
    "notes": ("hs_createdate", "hs_lastmodifieddate", "hs_object_id"),
}
ALWAYS = {
    CONTACTS: ("createdate", "hs_object_id", "lastmodifieddate"),
    "notes": ("hs_createdate", "hs_lastmodifieddate", "hs_object_id"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a status and a JSON body, or no body at all."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A call, or one input of a batch, that HubSpot does not take."""

    def __init__(
        self,
        status: int,
        category: str,
        message: str,
        *,
        complaints: Sequence[Complaint] = (),
        context: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.category = category
        self.message = message
        self.complaints = complaints
        self.context = context or {}

    def answer(self) -> Answer:
        """The whole call is refused."""
        body = {"status": "error", "message": self.message, "correlationId": str(uuid4()), "category": self.category}
        if self.context:
            body |= {"context": dict(self.context)}  # type: ignore[dict-item]
        if self.complaints:
            body |= {"errors": [_detail(complaint) for complaint in self.complaints]}  # type: ignore[dict-item]
        return Answer(self.status, body)

    def item(self, trace: str | None) -> dict[str, Any]:
        """One input of a batch is refused: it is named by its trace, never by its place."""
        named = {"objectWriteTraceId": [trace]} if trace else {}
        context = {**self.context, **named}
        return {"status": "error", "category": self.category, "message": self.message, "context": context}


def _detail(complaint: Complaint) -> dict[str, Any]:
    return {
        "message": complaint.message,
        "code": complaint.error,
        "context": {"propertyName": [complaint.name]},
    }


def not_valid(complaints: Sequence[Complaint]) -> Refusal:
    """The values of some properties cannot be taken; the list stands as JSON inside the message."""
    listed = [
        {
            "isValid": False,
            "message": complaint.message,
            "error": complaint.error,
            "name": complaint.name,
            "localizedErrorMessage": complaint.message,
            "portalId": PORTAL,
        }
        for complaint in complaints
    ]
    said = json.dumps(listed, separators=(",", ":"), ensure_ascii=False)
    return Refusal(400, VALIDATION_ERROR, f"Property values were not valid: {said}", complaints=complaints)


def already_exists(record: int | None) -> Refusal:
    """Another contact holds this email. Its id, where it has one already, stands in the text only."""
    known = "" if record is None else f". Existing ID: {record}"
    return Refusal(409, "CONFLICT", f"Contact already exists{known}")


def value_taken(kind: str, name: str, value: str, record: int | None, holder: int | None) -> Refusal:
    """Another record holds this value of a custom unique property."""
    where = f"{{portalId={PORTAL}, objectTypeId=ObjectTypeId{{legacyObjectType={SINGULAR[kind]}}}"
    said = f"Cannot set PropertyValueCoordinates{where}, propertyName={name}, value={value}}} on {record or 'null'}."
    return not_valid(
        [Complaint(name, "CONFLICTING_UNIQUE_VALUE", f"{said} {holder or 'null'} already has that value.")]
    )


def not_unique(kind: str, name: str) -> Refusal:
    """The property that should identify records is not unique."""
    said = f"Unable to perform update/upsert by non-unique {OBJECT_TYPES[kind]} property {name} in portal ID {PORTAL}"
    return Refusal(400, VALIDATION_ERROR, said)


def duplicates(ids: Sequence[str]) -> Refusal:
    """The same id stands twice in one batch: refused as a whole, traced or not."""
    said = f"Duplicate IDs found in batch input: [{', '.join(ids)}]. IDs must be unique"
    return Refusal(400, VALIDATION_ERROR, said, context={"ids": list(ids)})


def too_many(most: int) -> Refusal:
    """More inputs than a batch can hold."""
    said = f"The maximum number of inputs supported in a batch is {most}."
    return Refusal(400, VALIDATION_ERROR, f"{said} Please reduce the number of items and try again")


def not_found(kind: str, ids: Sequence[str]) -> Refusal:
    """Some records of a batch do not exist."""
    said = f"Could not get some {SINGULAR[kind]} objects, they may be deleted or not exist. Check that ids are valid."
    return Refusal(404, "OBJECT_NOT_FOUND", said, context={"ids": list(ids)})


def no_such(what: str = "resource not found") -> Refusal:
    """The thing that the address names does not exist."""
    return Refusal(404, "OBJECT_NOT_FOUND", what)


def required(kind: str, names: Sequence[str]) -> Refusal:
    """A record cannot be made without these properties."""
    said = f"Error creating {SINGULAR[kind]}. Some required properties were not set."
    return Refusal(400, VALIDATION_ERROR, said, context={"properties": list(names)})


def bad_json(said: str) -> Refusal:
    """The body is not what it should be."""
    return Refusal(400, VALIDATION_ERROR, f"Invalid input JSON on line 1, column 1: {said}")


def shown(record: Record, names: Sequence[str], *, archived: bool = False, **more: Any) -> dict[str, Any]:
    """A record with these properties and those that are always there; one that is not set is null."""
    wanted = {*names, *ALWAYS[record.kind]}
    return {
        "id": str(record.id),
        "properties": {name: record.value(name) for name in sorted(wanted)},
        "createdAt": iso(record.created),
        "updatedAt": iso(record.updated),
        "archived": archived,
        **more,
    }


def batch(results: Sequence[Any], errors: Sequence[Any], *, now: float, status: int = 200) -> Answer:
    """The answer to a batch: 207 as soon as one input failed."""
    body: dict[str, Any] = {"status": "COMPLETE", "results": list(results)}
    if errors:
        body |= {"numErrors": len(errors), "errors": list(errors)}
    body |= {"startedAt": iso(now), "completedAt": iso(now)}
    return Answer(207 if errors else status, body)
