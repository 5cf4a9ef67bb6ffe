"""Parses a webhook's body as JSON, or says in a sentence why it cannot be read."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sync.cleaning import clip, said
from sync.errors import SyncError
from sync.sources.acquire.reading import Reading

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
FORM = re.compile(r"[\w.\[\]%+-]+=")
SHAPES = {list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}


class Unreadable(SyncError):
    """This body says nothing that can be understood. The text is the reason, without personal data."""


def parse(body: bytes, reading: Reading) -> dict[str, Any]:
    """The JSON object that a body holds. Raises Unreadable."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("the body is not UTF-8") from None
    try:
        document = _decode(text, reading)
    except json.JSONDecodeError as error:
        raise Unreadable(_why(text, error)) from None
    except RecursionError:
        raise Unreadable("the JSON is nested too deeply") from None
    except ValueError:
        raise Unreadable("the JSON holds a number that is none (NaN, infinite or thousands of digits)") from None
    return as_object(document, "the body")


def as_object(value: Any, what: str) -> dict[str, Any]:
    """The value, which has to be an object. Raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable(f"{what} is {SHAPES[type(value)]}, not a JSON object")
    return value


def unfold(value: Any, field: str, reading: Reading) -> Any:
    """The list or object that a text holds as JSON; every other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return _decode(value, reading)
    except (ValueError, RecursionError):
        reading.note(f"{field}: looks like JSON inside a text, but cannot be parsed")
        return value


def trimmed(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with its keys trimmed: the documented START has `" id"`. A key that fits exactly wins."""
    return {**{key.strip(): value for key, value in mapping.items()}, **mapping}


def canonical(value: Any) -> bytes:
    """One spelling of a JSON value, whatever the order of its keys."""
    return CANONICAL.encode(value).encode("ascii")


def _decode(text: str, reading: Reading) -> Any:
    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        collected = dict(pairs)
        if len(collected) < len(pairs):
            for key in _repeated(key for key, _ in pairs):
                reading.note(f"{clip(said(key) or 'a key', 40)}: said twice, the last one counts")
        return collected

    return json.loads(text, strict=False, object_pairs_hook=collect, parse_constant=_refuse, parse_float=_finite)


def _repeated(keys: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _finite(literal: str) -> float:
    number = float(literal)
    return number if math.isfinite(number) else _refuse(literal)


def _why(text: str, error: json.JSONDecodeError) -> str:
    start = text.lstrip()
    if not start:
        return "the body is empty"
    if start.startswith("<"):
        return "the body looks like XML: set the webhook's format to JSON"
    if FORM.match(start):
        return "the body looks like a form: set the webhook's format to JSON"
    return f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
