"""What HubSpot's answers mean: the error, the records it names, the properties it blames.

developers.hubspot.com/docs/api-reference/error-handling
All of its fields are optional, by that page. Messages quote what the visitor typed: so no reason holds one, and they
are taken apart only where a visitor's words cannot be taken for HubSpot's.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sync.errors import Busy, DeliveryError, Gone, Refused, Throttled, Unauthorized, Unreachable
from sync.http import Answer, error_of, wait_hint

TEN_SECONDS = 10.0
ONE_HOUR = 3600.0
LOCKED_FOR = 2.0

SETUP_CODES = frozenset({"PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE"})
"""Complaints about our settings, not about the contact: every contact would fail alike."""

EXISTING = re.compile(r"^Contact already exists\. Existing ID: (\d+)")
HOLDER = re.compile(r"(\d+) already has that value\.?$")
NOT_UNIQUE = re.compile(r"^Unable to perform update/upsert by non-unique ")
INVALID = "Property values were not valid: "
CATEGORY = re.compile(r"[A-Z][A-Z_]{2,60}")
NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
CONFLICTING = frozenset({"CONFLICTING_UNIQUE_VALUE"})
PROPERTY_KEYS = ("propertyName", "propertyNames", "properties", "name")


class NotThere(Gone):
    """No record has this id."""


class Exists(Busy):
    """Another record already holds a value that must be unique: `remote_id`.

    `may_be_our_own`: this very call was sent before and failed inside, and may have made that record.
    """

    may_be_our_own = False

    def __init__(self, reason: str, remote_id: str, *, status: int | None = None) -> None:
        super().__init__(reason, status=status)
        self.remote_id = remote_id


class Rejected(Refused):
    """The values of these properties are not taken. None named: the whole contact."""

    def __init__(self, reason: str, properties: frozenset[str], *, status: int | None = None) -> None:
        super().__init__(reason, status=status)
        self.properties = properties


class Unmentioned(Busy):
    """A call was taken, and its answer does not mention this input. Seen for records that were merged away."""

    may_have_landed = True


def error_from(answer: Answer, now: float) -> DeliveryError:
    """The error that a whole answer means."""
    said = answer.json()
    body: Mapping[str, Any] = said if isinstance(said, dict) else {}
    match answer.status:
        case 401:
            return Unauthorized("HubSpot does not accept the access token (401): set a valid one", status=401)
        case 402:
            return Unauthorized("HubSpot says that the account's plan does not cover this (402)", status=402)
        case 403:
            return Unauthorized(f"the access token may not do this (403{_category(body)}): add its scopes", status=403)
        case 429:
            return Throttled("too many calls (429)", status=429, after=_throttled_for(answer, body, now))
        case 423:
            locked_for = max(wait_hint(answer, now) or 0.0, LOCKED_FOR)
            return Busy("locked by other writes (423)", status=423, after=locked_for)
        case 477:
            moving = "the account is moving between data centres (477)"
            return Unreachable(moving, status=477, after=wait_hint(answer, now))
        case 400 | 404 | 409 | 410 | 413 | 414 | 422:
            return refusal(body, answer.status)
    return error_of(answer, now, reason=f"HubSpot answered {answer.status}{_category(body)}")


def _throttled_for(answer: Answer, body: Mapping[str, Any], now: float) -> float:
    if body.get("policyName") == "DAILY":
        # The day ends at midnight in the account's own time zone, which is not said: ask again every hour.
        return ONE_HOUR
    hint = wait_hint(answer, now)
    return TEN_SECONDS if hint is None else max(hint, 1.0)


def refusal(entry: Mapping[str, Any], status: int | None = None) -> DeliveryError:
    """The error that a refused call means, or one entry of a batch's `errors`."""
    codes = _codes(entry)
    said = f"HubSpot refused it ({', '.join(filter(None, (str(status or ''), *sorted(codes)))) or 'no reason given'})"
    properties = frozenset(_properties(entry))
    if codes & SETUP_CODES or NOT_UNIQUE.match(_text(entry, "message")):
        named = ", ".join(sorted(properties)) or "one"
        return Unauthorized(f"{said}: a property in the settings ({named}) cannot be written", status=status)
    if holder := _holder(entry):
        return Exists(f"{said}: another record has that value", holder, status=status)
    if status in (404, 410) or "OBJECT_NOT_FOUND" in codes:
        return NotThere("its record is not there any more", status=status or 404)
    if status == 409 or "CONFLICT" in codes:
        return Busy(said, status=status or 409)
    return Rejected(said, properties, status=status)


def traces_in(entry: Mapping[str, Any]) -> set[str]:
    """The inputs that an error is about, by their `objectWriteTraceId`."""
    return set(_texts(_context(entry).get("objectWriteTraceId")))


def ids_in(entry: Mapping[str, Any]) -> set[str]:
    """The inputs that an error is about, by their ids in lower case."""
    return {text.lower() for key in ("ids", "id") for text in _texts(_context(entry).get(key))}


def entries(body: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The objects in a list of an answer; whatever else is there is left out."""
    listed = body.get(key)
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def _category(body: Mapping[str, Any]) -> str:
    return "".join(f", {code}" for code in sorted(_codes(body)))


def _complaints(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One for each property that is not taken: HubSpot lists them in `errors`, and as JSON inside the message."""
    message = _text(entry, "message")
    if not message.startswith(INVALID):
        return entries(entry, "errors")
    try:
        listed, _ = json.JSONDecoder().raw_decode(message, len(INVALID))
    except (ValueError, RecursionError):
        return entries(entry, "errors")
    return [*entries(entry, "errors"), *entries({"listed": listed}, "listed")]


def _codes(entry: Mapping[str, Any]) -> set[str]:
    said = {_text(entry, "category")}
    for complaint in _complaints(entry):
        said |= {_text(complaint, "code"), _text(complaint, "error")}
    return {code for code in said if CATEGORY.fullmatch(code)}


def _properties(entry: Mapping[str, Any]) -> Iterator[str]:
    for part in (entry, *_complaints(entry)):
        names = [text for key in PROPERTY_KEYS for text in _texts(_context(part).get(key))]
        yield from filter(NAME.fullmatch, (*names, _text(part, "name")))


def _holder(entry: Mapping[str, Any]) -> str | None:
    """The id of the record that already has a value that must be unique. It stands in the text only."""
    if found := EXISTING.match(_text(entry, "message")):
        return found[1]
    for complaint in _complaints(entry):
        if CONFLICTING & {_text(complaint, "code"), _text(complaint, "error")}:
            found = HOLDER.search(_text(complaint, "message"))
            return found[1] if found else None
    return None


def _text(part: Mapping[str, Any], key: str) -> str:
    value = part.get(key)
    return value if isinstance(value, str) else ""


def _context(part: Mapping[str, Any]) -> Mapping[str, Any]:
    context = part.get("context")
    return context if isinstance(context, dict) else {}


def _texts(value: object) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
