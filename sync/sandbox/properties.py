"""Which properties a record may have, and what HubSpot says of a value that does not fit.

The names are HubSpot's own: developers.hubspot.com/docs/api-reference/latest/crm/properties/guide
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

CONTACTS = "contacts"
NOTES = "notes"
KINDS = (CONTACTS, NOTES)
OBJECT_TYPES = {CONTACTS: "0-1", NOTES: "0-46"}
SINGULAR = {CONTACTS: "CONTACT", NOTES: "NOTE"}

LIFECYCLE = (
    "subscriber",
    "lead",
    "marketingqualifiedlead",
    "salesqualifiedlead",
    "opportunity",
    "customer",
    "evangelist",
    "other",
)
LEAD_STATUS = (
    "NEW",
    "OPEN",
    "IN_PROGRESS",
    "OPEN_DEAL",
    "UNQUALIFIED",
    "ATTEMPTED_TO_CONTACT",
    "CONNECTED",
    "BAD_TIMING",
)
OTHER_EMAILS = "hs_additional_emails"
MERGED_IDS = "hs_merged_object_ids"
LONGEST_TEXT = 65_536
MOST_UNIQUE = 10

_EMAIL = re.compile(r"[^\s@<>(),;:\"\[\]\\]{1,64}@([\w](?:[\w-]{0,61}[\w])?\.)+[^\W\d_](?:[\w-]{0,61}[\w])")


@dataclass(frozen=True, slots=True)
class Definition:
    """One property of one kind of record."""

    name: str
    label: str
    type: str = "string"
    field_type: str = "text"
    group: str = "contactinformation"
    description: str = ""
    options: tuple[str, ...] = ()
    is_unique: bool = False
    is_read_only: bool = False
    is_standard: bool = True

    def as_stored(self) -> dict[str, Any]:
        """Plain values, for the file."""
        return asdict(self)

    @classmethod
    def from_stored(cls, stored: dict[str, Any]) -> "Definition":
        """The counterpart of `as_stored`."""
        return cls(**{**stored, "options": tuple(stored["options"])})

    def as_answer(self) -> dict[str, Any]:
        """The definition in HubSpot's words."""
        return {
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field_type,
            "groupName": self.group,
            "description": self.description,
            "options": [
                {"label": option, "value": option, "displayOrder": place, "hidden": False}
                for place, option in enumerate(self.options)
            ],
            "hasUniqueValue": self.is_unique,
            "calculated": False,
            "hidden": False,
            "hubspotDefined": self.is_standard,
            "archived": False,
            "modificationMetadata": {
                "archivable": not self.is_standard,
                "readOnlyDefinition": self.is_standard,
                "readOnlyValue": self.is_read_only,
            },
        }


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why one value was not valid."""

    name: str
    error: str
    message: str


def _standard(kind: str) -> dict[str, Definition]:
    named = _CONTACT if kind == CONTACTS else _NOTE
    group = named[0].group
    kept_by_hubspot = (Definition(*said, "text", group, is_read_only=True) for said in _SYSTEM[kind])
    return {definition.name: definition for definition in (*named, *kept_by_hubspot)}


_CONTACT = (
    Definition("email", "Email", is_unique=True),
    Definition("firstname", "First name"),
    Definition("lastname", "Last name"),
    Definition("phone", "Phone number", field_type="phonenumber"),
    Definition("mobilephone", "Mobile phone number", field_type="phonenumber"),
    Definition("fax", "Fax number"),
    Definition("salutation", "Salutation"),
    Definition("jobtitle", "Job title"),
    Definition("company", "Company name"),
    Definition("website", "Website URL"),
    Definition("address", "Street address"),
    Definition("city", "City"),
    Definition("state", "State/Region"),
    Definition("zip", "Postal code"),
    Definition("country", "Country/Region"),
    Definition("message", "Message", field_type="textarea"),
    Definition("industry", "Industry"),
    Definition("lifecyclestage", "Lifecycle stage", "enumeration", "radio", options=LIFECYCLE),
    Definition("hs_lead_status", "Lead status", "enumeration", "radio", options=LEAD_STATUS),
    Definition("hs_language", "Preferred language"),
    Definition("hs_timezone", "Time zone"),
    Definition("hubspot_owner_id", "Contact owner", "number", "number"),
)
_NOTE = (
    Definition("hs_timestamp", "Activity date", "datetime", "date", "engagement"),
    Definition("hs_note_body", "Note body", "string", "html", "engagement"),
    Definition("hs_attachment_ids", "Attached file ids", "string", "text", "engagement"),
    Definition("hubspot_owner_id", "Activity assigned to", "number", "number", "engagement"),
)
_SOURCE = (
    ("hs_object_source", "Record source", "string"),
    ("hs_object_source_label", "Record source label", "string"),
    ("hs_object_source_detail_1", "Record source detail", "string"),
    ("hs_object_id", "Record ID", "number"),
)
_SYSTEM = {
    CONTACTS: (
        *_SOURCE,
        ("createdate", "Create date", "datetime"),
        ("lastmodifieddate", "Last modified date", "datetime"),
        (OTHER_EMAILS, "Additional email addresses", "string"),
        (MERGED_IDS, "Merged record IDs", "string"),
    ),
    NOTES: (
        *_SOURCE,
        ("hs_createdate", "Create date", "datetime"),
        ("hs_lastmodifieddate", "Last modified date", "datetime"),
    ),
}
STANDARD = {kind: _standard(kind) for kind in KINDS}


@lru_cache(maxsize=4096)
def iso(at: float) -> str:
    """An epoch time as HubSpot writes it, with milliseconds and a Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def normal(definition: Definition, value: str) -> str:
    """A value as it is kept: emails are trimmed and lower-cased, times become ISO."""
    if definition.name == "email":
        return value.strip().lower()
    if definition.type == "datetime" and value:
        return iso(_epoch(value))
    return value


def check(
    definitions: Mapping[str, Definition], properties: Mapping[str, str | None]
) -> tuple[dict[str, str], list[Complaint]]:
    """The values as they would be kept, and every complaint about those that cannot be. "" clears a property.

    developers.hubspot.com/docs/api-reference/latest/error-handling
    """
    kept: dict[str, str] = {}
    complaints: list[Complaint] = []
    for name, value in properties.items():
        definition = definitions.get(name)
        complaint = _complaint(name, definition, value or "")
        if complaint is not None:
            complaints.append(complaint)
        elif definition is not None:
            kept[name] = normal(definition, value or "")
    return kept, complaints


def _complaint(name: str, definition: Definition | None, value: str) -> Complaint | None:
    if definition is None:
        return Complaint(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
    if definition.is_read_only:
        return Complaint(name, "READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')
    if len(value) > LONGEST_TEXT:
        return Complaint(name, "INVALID_LENGTH", f"{name} is longer than {LONGEST_TEXT} characters")
    if not value:
        return None
    if name == "email" and not _EMAIL.fullmatch(value.strip()):
        return Complaint(name, "INVALID_EMAIL", f"Email address {value} is invalid")
    return _complaint_of_type(definition, value)


def _complaint_of_type(definition: Definition, value: str) -> Complaint | None:
    name = definition.name
    match definition.type:
        case "enumeration" | "bool":
            allowed = definition.options or ("true", "false")
            if any(part not in allowed for part in value.split(";")):
                listed = ", ".join(allowed)
                return Complaint(name, "INVALID_OPTION", f"{value} was not one of the allowed options: [{listed}]")
        case "number":
            if not _is_number(value):
                return Complaint(name, "INVALID_FLOAT", f"{value} was not a valid number.")
        case "datetime" | "date":
            if not _is_time(value):
                return Complaint(name, "INVALID_DATE", f"{value} was not a valid long.")
    return None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_time(value: str) -> bool:
    try:
        _epoch(value)
    except (ValueError, OverflowError, OSError):
        return False
    return True


def _epoch(value: str) -> float:
    if value.lstrip("-").isdigit():
        at = datetime.fromtimestamp(int(value) / 1000, UTC)
    else:
        at = datetime.fromisoformat(value)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
