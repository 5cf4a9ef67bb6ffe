"""Reads what a webhook says about a person."""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from sync.cleaning import ATTRIBUTE_LIMIT, EMAIL_LIMIT, NAME_LIMIT, PHONE_LIMIT, email, phone, said, spelled
from sync.models import Visitor
from sync.sources.acquire.reading import Reading

SPREAD = ("fields", "custom_fields")
"""Fields of the account's own making, as an object or as a list of `{"name", "value"}`."""

TECHNICAL = frozenset({"id", "id_real", "type", "status", "owner", "virtual", "role", "clients", "photo", "online"})
"""What the vendor says about the connection of a person: no attributes."""

ADDRESS = "ip"
"""Another one at every visit: as an attribute it would make every chat change the contact."""

PASSING = frozenset({"clients", "online", "photo", "date_updated", "dateUpdated"})
"""What changes while nothing new is said: no part of an event key."""

PRESENCE = frozenset({"online", "offline", "away", "idle", "busy", "invisible"})
"""Values of `state` that mean presence. Any other state is a place, such as California."""

NAMING = ("name", "key", "label")
CORE = frozenset({"name", "email", "phone"})
KEY_LIMIT = 100
MOST_ATTRIBUTES = 100

DEEPEST = 50
"""Levels of a value that are compared one by one; what lies deeper is compared as a text."""


def visitor_of(
    person: Mapping[str, Any], visitor_id: str | None, reading: Reading, *, also: Any = None
) -> Visitor | None:
    """The person as our Visitor; None if nothing at all is said about them. `also` holds further attributes."""
    values: dict[str, Any] = {}
    others = (pair for pair in _pairs(also) if pair[0] not in CORE)
    for key, value in chain(_spread(person), others):
        if key != ADDRESS and _says_something(value):
            values.setdefault(key, value)
    name = reading.text("name", values.pop("name", None), limit=NAME_LIMIT)
    address = reading.text("email", values.pop("email", None), limit=EMAIL_LIMIT)
    number = reading.text("phone", values.pop("phone", None), limit=PHONE_LIMIT)
    attributes = _attributes(values, reading)
    valid_email = email(address) if address else None
    valid_phone = phone(number, reading.region) if number else None
    if address and not valid_email:
        attributes["email_as_typed"] = address
        reading.note("email: not a valid address, kept as typed")
    if number and not valid_phone:
        attributes["phone_as_typed"] = number
        reading.note("phone: not a possible number, kept as typed")
    if not (name or address or number or visitor_id or attributes):
        return None
    return Visitor(name=name, email=valid_email, phone=valid_phone, visitor_id=visitor_id, attributes=attributes)


def lasting(value: Any, levels: int = DEEPEST) -> Any:
    """What a JSON value says, to compare it: without what passes, without what says nothing, 2 the same as "2"."""
    match value:
        case dict() if levels:
            return {
                key: kept
                for key, inner in value.items()
                if _lasts(key, inner)
                and (kept := (_whole if key in SPREAD else lasting)(inner, levels - 1)) is not None
            }
        case list() if levels:
            return [lasting(inner, levels - 1) for inner in value]
        case dict() | list():
            return _as_json(value)
        case _:
            return spelled(value)


def _whole(value: Any, levels: int) -> Any:
    """Like `lasting`, for fields of the account's own making: there a key may be called anything."""
    match value:
        case dict() if levels:
            return {key: kept for key, inner in value.items() if (kept := _whole(inner, levels - 1)) is not None}
        case list() if levels:
            return [_whole(inner, levels - 1) for inner in value]
        case dict() | list():
            return _as_json(value)
        case _:
            return spelled(value)


def _as_json(value: Any) -> str | None:
    """An object or a list as text; None where it is nested so deeply that it could be read, but not written."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return None


def _lasts(key: str, value: Any) -> bool:
    return key not in PASSING and not _is_presence(key, value)


def _is_presence(key: str, value: Any) -> bool:
    return key == "state" and isinstance(value, str) and value.lower() in PRESENCE


def _spread(person: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The person's own values first, then the account's own fields."""
    for key, value in person.items():
        if key not in SPREAD and key not in TECHNICAL and _lasts(key, value):
            yield said(key, limit=KEY_LIMIT) or "", value
    for field in SPREAD:
        yield from _pairs(person.get(field))


def _pairs(fields: Any) -> Iterator[tuple[str, Any]]:
    match fields:
        case dict():
            for key, value in fields.items():
                yield said(key, limit=KEY_LIMIT) or "", value["value"] if _has_value(value) else value
        case list():
            for row in filter(_has_value, fields):
                name = next((row[word] for word in NAMING if said(row.get(word))), None)
                yield said(name, limit=KEY_LIMIT) or "", row["value"]


def _has_value(row: Any) -> bool:
    return isinstance(row, dict) and "value" in row


def _says_something(value: Any) -> bool:
    return bool(value) if isinstance(value, (dict, list)) else said(value) is not None


def _attributes(values: Mapping[str, Any], reading: Reading) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for key, value in values.items():
        flat = _flat(value)
        if flat is None:
            reading.note(f"{key}: nested too deeply, left out")
        text = reading.text(key, flat, limit=ATTRIBUTE_LIMIT)
        if not key or text is None:
            continue
        if len(attributes) == MOST_ATTRIBUTES:
            reading.note(f"more than {MOST_ATTRIBUTES} attributes, the rest was left out")
            break
        attributes[key] = text
    return attributes


def _flat(value: Any) -> Any:
    """A scalar as it is; a list of scalars, or of things with a name, as a comma list; anything else as JSON.

    An object whose keys are all numbers is a list: so does PHP spell one that does not count from 0.
    """
    if isinstance(value, dict) and all(key.isdigit() for key in value):
        value = list(value.values())
    if isinstance(value, list):
        words = [said(_named(item)) for item in value]
        return ", ".join(word for word in words if word) if all(words) else _as_json(value)
    return _as_json(value) if isinstance(value, dict) else value


def _named(item: Any) -> Any:
    return next((item[word] for word in NAMING if word in item), None) if isinstance(item, dict) else item
