"""The search endpoint, and how far its index stays behind.

developers.hubspot.com/docs/api-reference/latest/crm/search-the-crm
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync.sandbox.answers import DEFAULT_PROPERTIES, VALIDATION_ERROR, Answer, Refusal, bad_json, shown
from sync.sandbox.properties import CONTACTS, OTHER_EMAILS, normal
from sync.sandbox.store import Record, Store

MOST_GROUPS = 5
MOST_FILTERS = 10
MOST_FILTERS_IN_ALL = 25
MOST_RESULTS = 200
MOST_VALUES = 100
MOST_CHARACTERS = 3000
ASSOCIATED = "associations.contact"


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition: a property, an operator, the values it may have (lower-cased)."""

    name: str
    operator: str
    values: frozenset[str]


def search(store: Store, kind: str, body: Any, *, seen_until: float) -> Answer:
    """Find records. What was written after `seen_until` is not in the index yet. Raises Refusal."""
    if not isinstance(body, dict):
        raise _refused("The search request is not an object")
    if len(json.dumps(body, ensure_ascii=False, separators=(",", ":"))) > MOST_CHARACTERS:
        raise _refused(f"The search request is longer than {MOST_CHARACTERS} characters")
    groups = _groups(store, kind, body.get("filterGroups") or [])
    limit, after = _whole(body, "limit", 10, MOST_RESULTS), _whole(body, "after", 0, 10_000)
    query = str(body.get("query") or "").strip().lower()
    found = [
        record
        for record in _candidates(store, kind, groups)
        if record.created <= seen_until
        and (not groups or any(_matches(store, record, group, seen_until) for group in groups))
        and (not query or any(query in said.lower() for said in record.properties.values()))
    ]
    found = _sorted(found, body.get("sorts") or [])
    page = found[after : after + limit]
    names = names_of(body) or DEFAULT_PROPERTIES[kind]
    answer: dict[str, Any] = {"total": len(found), "results": [shown(record, names) for record in page]}
    if after + limit < len(found):
        answer["paging"] = {"next": {"after": str(after + limit)}}
    return Answer(200, answer)


def names_of(body: Mapping[str, Any]) -> list[str]:
    """The properties that the answer should hold. Raises Refusal."""
    names = body.get("properties") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_json("properties must be a list of names")
    return names


def _refused(said: str) -> Refusal:
    return Refusal(400, VALIDATION_ERROR, said)


def _whole(body: Mapping[str, Any], name: str, default: int, most: int) -> int:
    said = str(body.get(name, default) or default)
    if not (said.isascii() and said.isdigit()) or len(said) > 5 or int(said) > most:
        raise _refused(f"{name} must be a whole number up to {most}")
    return int(said)


def _groups(store: Store, kind: str, raw: Any) -> list[list[Filter]]:
    try:
        groups = [[_filter(store, kind, entry) for entry in group["filters"]] for group in raw]
    except (TypeError, KeyError, AttributeError):
        raise _refused("There was a problem with the request: filterGroups are not valid") from None
    most_in_one = max((len(group) for group in groups), default=0)
    if len(groups) > MOST_GROUPS or most_in_one > MOST_FILTERS or sum(map(len, groups)) > MOST_FILTERS_IN_ALL:
        raise _refused("There was a problem with the request: too many filterGroups or filters")
    return groups


def _filter(store: Store, kind: str, raw: Mapping[str, Any]) -> Filter:
    name, operator = str(raw["propertyName"]), str(raw["operator"])
    if name not in store.definitions[kind] and name != ASSOCIATED:
        raise _refused(f"There was a problem with the request: property {name} does not exist")
    if operator not in _OPERATORS:
        raise _refused(f"There was a problem with the request: the sandbox knows no operator {operator}")
    said = raw.get("values") if operator in ("IN", "NOT_IN") else [raw.get("value")]
    if not operator.endswith("HAS_PROPERTY") and (not said or any(value is None for value in said)):
        raise _refused(f"There was a problem with the request: {operator} needs a value")
    if len(said or ()) > MOST_VALUES:
        raise _refused(f"There was a problem with the request: {operator} takes up to {MOST_VALUES} values")
    definition = store.definitions[kind].get(name)
    values = (str(value) for value in said or () if value is not None)
    return Filter(name, operator, frozenset((normal(definition, v) if definition else v).lower() for v in values))


_OPERATORS: Mapping[str, Callable[[set[str], frozenset[str]], bool]] = {
    "EQ": lambda said, values: bool(said & values),
    "IN": lambda said, values: bool(said & values),
    "NEQ": lambda said, values: bool(said) and not said & values,
    "NOT_IN": lambda said, values: bool(said) and not said & values,
    "HAS_PROPERTY": lambda said, _values: bool(said),
    "NOT_HAS_PROPERTY": lambda said, _values: not said,
}


def _matches(store: Store, record: Record, group: Iterable[Filter], seen_until: float) -> bool:
    return all(_OPERATORS[entry.operator](_said(store, record, entry, seen_until), entry.values) for entry in group)


def _said(store: Store, record: Record, entry: Filter, seen_until: float) -> set[str]:
    """The value as the index knows it: one that changed since is not there yet."""
    if entry.name == ASSOCIATED:
        return {str(who) for who in _people(entry) if any(note.id == record.id for note in store.notes_of(who))}
    value = record.value(entry.name)
    if not value or record.changed.get(entry.name, 0.0) > seen_until:
        return set()
    return set(value.lower().split(";")) if entry.name == OTHER_EMAILS else {value.lower()}


def _candidates(store: Store, kind: str, groups: Sequence[Sequence[Filter]]) -> Iterable[Record]:
    """All records, or the few that can match where every group names an email or is about one contact."""
    ids: set[int] = set()
    for group in groups:
        narrow = next((entry for entry in group if entry.operator in ("EQ", "IN") and _is_narrow(kind, entry)), None)
        if narrow is None:
            return store.all(kind)
        if narrow.name == ASSOCIATED:
            ids |= {note.id for who in _people(narrow) for note in store.notes_of(who)}
        else:
            ids |= set(store.find(kind, "email", narrow.values).values())
    found = store.load(kind, ids) if groups else {}
    return [found[record] for record in sorted(found)] if groups else store.all(kind)


def _people(entry: Filter) -> list[int]:
    return [int(said) for said in entry.values if said.isascii() and said.isdigit() and len(said) < 19]


def _is_narrow(kind: str, entry: Filter) -> bool:
    return entry.name == ASSOCIATED or (kind == CONTACTS and entry.name in ("email", OTHER_EMAILS))


def _sorted(found: list[Record], sorts: Any) -> list[Record]:
    for entry in reversed(sorts if isinstance(sorts, list) else []):
        name, descending = _sort(entry)
        found = sorted(found, key=lambda record, name=name: record.value(name) or "", reverse=descending)  # type: ignore[misc]
    return found


def _sort(entry: Any) -> tuple[str, bool]:
    if isinstance(entry, dict):
        return str(entry.get("propertyName", "")), entry.get("direction") == "DESCENDING"
    return str(entry).lstrip("-"), str(entry).startswith("-")
