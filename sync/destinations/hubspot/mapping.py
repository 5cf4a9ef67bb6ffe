"""From a contact to HubSpot's properties, and what of them may be written to a record. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from nameparser import HumanName

from sync.models import Contact

LONGEST = 65_536
"""Characters that a text property can hold.

knowledge.hubspot.com/properties/property-field-types-in-hubspot
"""

OTHER_EMAILS = "hs_additional_emails"
MERGED_IDS = "hs_merged_object_ids"
CREATED = "createdate"


@dataclass(frozen=True, slots=True)
class Record:
    """A contact as HubSpot has it. `properties` is None where it was not read."""

    id: str
    properties: Mapping[str, str] | None = None

    @property
    def emails(self) -> frozenset[str]:
        """All emails that lead to this record, in lower case."""
        known = self.properties or {}
        return frozenset(_listed(known.get("email", "")) | _listed(known.get(OTHER_EMAILS, "")))

    @property
    def ids(self) -> frozenset[str]:
        """The ids that lead to this record: its own, and those of records that were merged into it."""
        return frozenset({self.id} | _listed((self.properties or {}).get(MERGED_IDS, "")))

    def is_marked(self, uid_property: str | None, uid: str) -> bool:
        """Whether our uid proves that we made it. On a merged record it does not: others had a hand in that one."""
        if uid_property is None or self.ids != {self.id}:
            return False
        return (self.properties or {}).get(uid_property) == uid

    @property
    def created_at(self) -> float | None:
        """When it was created, where that was read."""
        try:
            return datetime.fromisoformat((self.properties or {})[CREATED]).timestamp()
        except (KeyError, ValueError):
            return None

    def keys(self, id_property: str | None) -> frozenset[str]:
        """What leads to this record under such a property, in lower case. None: its ids."""
        if id_property is None:
            return self.ids
        if id_property == "email":
            return self.emails
        return frozenset({(self.properties or {}).get(id_property, "").lower()})


@dataclass(frozen=True, slots=True)
class Write:
    """One input of a batch. `trace` is the delivery's id; `id` is a record's id or a value of `id_property`."""

    trace: str
    id: str
    properties: Mapping[str, str] = field(default_factory=dict)
    id_property: str | None = None

    def without(self, names: frozenset[str]) -> "Write":
        """The same, less some properties."""
        kept = {name: value for name, value in self.properties.items() if name not in names}
        return Write(self.trace, self.id, kept, self.id_property)


def split_name(name: str) -> tuple[str | None, str | None]:
    """First and last name. Titles fall away; a name in one word is a first name."""
    parsed = HumanName(name)
    first = " ".join(filter(None, (parsed.first, parsed.middle)))
    last = " ".join(filter(None, (parsed.last, parsed.suffix)))
    return (first or None, last or None) if first or last else (name, None)


def properties_of(contact: Contact, names: Mapping[str, str]) -> dict[str, str]:
    """What the contact says, under HubSpot's names. What was not said is left out: HubSpot reads "" as "erase"."""
    first, last = split_name(contact.name) if contact.name else (None, None)
    said: dict[str, str | None] = {
        **contact.attributes,
        "name": contact.name,
        "first_name": first,
        "last_name": last,
        "email": contact.email,
        "phone": contact.phone,
    }
    return {name: value[:LONGEST] for field, name in names.items() if (value := said.get(field))}


def changes(wanted: Mapping[str, str], record: Record, *, may_overwrite: bool, is_ours: bool) -> dict[str, str]:
    """What is to be written to a record: what differs, and only into empty properties unless we may overwrite.

    The email of a record that is not ours is never changed.
    """
    if record.properties is None:
        return {name: value for name, value in wanted.items() if may_overwrite and (is_ours or name != "email")}
    there = record.properties
    return {
        name: value
        for name, value in differences(wanted, record).items()
        if not there.get(name) or (may_overwrite and (is_ours or name != "email"))
    }


def differences(wanted: Mapping[str, str], record: Record) -> dict[str, str]:
    """What the contact says and the record does not: the email only where no email of the record is it."""
    there = record.properties or {}
    new = {name: value for name, value in wanted.items() if there.get(name, "") != value}
    if new.get("email", "").lower() in record.emails:
        new.pop("email", None)
    return new


def _listed(values: str) -> set[str]:
    return {value.strip().lower() for value in values.split(";") if value.strip()}
