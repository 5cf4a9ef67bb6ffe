"""How a batch of inputs becomes records: read, check, resolve, refuse or write.

developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/guide
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sync.sandbox.answers import (
    VALIDATION_ERROR,
    Refusal,
    already_exists,
    bad_json,
    duplicates,
    not_found,
    not_unique,
    not_valid,
    required,
    too_many,
    value_taken,
)
from sync.sandbox.faults import Faults
from sync.sandbox.properties import CONTACTS, LIFECYCLE, NOTES, Complaint, check, normal
from sync.sandbox.store import Change, Record, Store

MOST_INPUTS = 100
NOTE_TO_CONTACT = 202
NEEDS_ONE_OF = ("email", "firstname", "lastname")


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a write, its form checked and nothing else."""

    properties: Mapping[str, str | None]
    id: str | None = None
    id_property: str | None = None
    trace: str | None = None
    contacts: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Written:
    """One input that was taken."""

    input: Input
    record: Record
    is_new: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: what was taken, in the order of the inputs, and what was not."""

    written: Sequence[Written]
    refused: Sequence[tuple[Input, Refusal]]

    def errors(self) -> list[dict[str, Any]]:
        """The refused inputs as a batch answer lists them."""
        return [refusal.item(entry.trace) for entry, refusal in self.refused]


Find = Callable[[Sequence[Input]], list[Record | Refusal | None]]


def inputs_of(body: Any) -> list[dict[str, Any]]:
    """The inputs of a batch. Raises Refusal: not a list of objects, or more than a hundred."""
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs):
        raise bad_json("Some required fields were not set: [inputs]")
    if len(inputs) > MOST_INPUTS:
        raise too_many(MOST_INPUTS)
    return inputs


def read_input(raw: Mapping[str, Any]) -> Input:
    """One input. Raises Refusal where its form is wrong; every value must be a string."""
    properties = raw.get("properties")
    if not isinstance(properties, dict):
        raise bad_json("Some required fields were not set: [properties]")
    for name, value in properties.items():
        if value is not None and not isinstance(value, str):
            raise bad_json(f"Cannot deserialize value of type `java.lang.String` for property {name}")
    named = {key: raw.get(key) for key in ("id", "idProperty", "objectWriteTraceId")}
    if any(value is not None and not isinstance(value, str) for value in named.values()):
        raise bad_json("Cannot deserialize value of type `java.lang.String`")
    return Input(properties, named["id"], named["idProperty"], named["objectWriteTraceId"], _contacts_of(raw))


def _contacts_of(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Whom a new note is about. Type 202 is a note on a contact.

    developers.hubspot.com/docs/api-reference/latest/crm/associations/associate-records/guide
    """
    try:
        pairs = [(str(entry["to"]["id"]), entry["types"]) for entry in raw.get("associations") or ()]
        types = {(kind["associationCategory"], kind["associationTypeId"]) for _, kinds in pairs for kind in kinds}
    except (TypeError, KeyError):
        raise bad_json("Some required fields were not set: [to, types]") from None
    if types - {("HUBSPOT_DEFINED", NOTE_TO_CONTACT)}:
        raise Refusal(400, VALIDATION_ERROR, "one or more associations are not valid")
    return tuple(to for to, _ in pairs)


def write(
    store: Store, faults: Faults, kind: str, inputs: Sequence[Input], find: Find, *, made_by: str, now: float
) -> Outcome:
    """Write what can be written. `find` says for each input which record it is about: None makes a new one.

    One bad input is reported by itself only if every input carries a trace of its own; else it fails them all, and
    nothing is written. That is documented for batch create, and seen to hold for upsert and update as well.
    developers.hubspot.com/docs/api-reference/latest/error-handling#multi-status-errors
    """
    plan = _Plan(store, faults, kind, inputs)
    planned = [plan.change(entry, target) for entry, target in zip(inputs, find(inputs), strict=True)]
    refused = [(entry, made) for entry, made in zip(inputs, planned, strict=True) if isinstance(made, Refusal)]
    fatal = next((refusal for _, refusal in refused if refusal.status >= 500), None)
    if fatal is not None:
        raise fatal
    invalid = [refusal for _, refusal in refused if refusal.category != "OBJECT_NOT_FOUND"]
    if invalid and not are_traced(inputs):
        raise invalid[0]
    taken = [(entry, made) for entry, made in zip(inputs, planned, strict=True) if isinstance(made, Change)]
    records = store.write(kind, [made for _, made in taken], made_by=made_by, now=now)
    written = [
        Written(entry, record, is_new=made.record is None) for (entry, made), record in zip(taken, records, strict=True)
    ]
    return Outcome(written, refused)


def are_traced(inputs: Sequence[Input]) -> bool:
    """Whether every input carries a trace that no other one carries."""
    traces = {entry.trace for entry in inputs}
    return None not in traces and "" not in traces and len(traces) == len(inputs)


def by_id(store: Store, kind: str, inputs: Sequence[Input]) -> list[Record | Refusal | None]:
    """The records that the inputs name by `id` and `idProperty`; a Refusal where there is none."""
    found = locate(store, kind, inputs)
    return [record or not_found(kind, [entry.id or ""]) for entry, record in zip(inputs, found, strict=True)]


def locate(store: Store, kind: str, inputs: Sequence[Input]) -> list[Record | None]:
    """The records that the inputs name by `id` and `idProperty`, looked up together; None where there is none.

    Raises Refusal for a property that is not unique and for an id that stands there twice.
    """
    keys = [_key(store, kind, entry) for entry in inputs]
    twice = sorted({key[1] for place, key in enumerate(keys) if key in keys[:place]}) if _repeats(keys) else []
    if twice:
        raise duplicates(twice)
    ids = {key: _number(key[1]) for key in keys if key[0] is None}
    for name in {name for name, _ in keys if name is not None}:
        held = store.find(kind, name, [value for of, value in keys if of == name])
        ids |= {(name, value): record for value, record in held.items()}
    winners = store.winners({record for record in ids.values() if record is not None})
    ids = {key: winners.get(record or 0, record) for key, record in ids.items()}
    records = store.load(kind, {record for record in ids.values() if record is not None})
    return [records.get(ids.get(key) or 0) for key in keys]


def _repeats(keys: Sequence[tuple[str | None, str]]) -> bool:
    return len(set(keys)) < len(keys)


def _key(store: Store, kind: str, entry: Input) -> tuple[str | None, str]:
    if not entry.id:
        raise bad_json("Some required fields were not set: [id]")
    if entry.id_property is None:
        return None, entry.id
    definition = store.definitions[kind].get(entry.id_property)
    if definition is None or not definition.is_unique:
        raise not_unique(kind, entry.id_property)
    return entry.id_property, normal(definition, entry.id)


def _number(said: str) -> int | None:
    return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else None


class _Plan:
    """Turns inputs into changes, one after the other; what an earlier input takes, a later one cannot have."""

    def __init__(self, store: Store, faults: Faults, kind: str, inputs: Sequence[Input]) -> None:
        self.store = store
        self.faults = faults
        self.kind = kind
        self.definitions = store.definitions[kind]
        self.uniques = [name for name, definition in self.definitions.items() if definition.is_unique]
        self.held = {name: store.find(kind, name, self._said(inputs, name)) for name in self.uniques}
        self.blocked = store.blocked(self._said(inputs, "email")) if kind == CONTACTS else set()
        self.people = store.load(CONTACTS, {_number(to) or 0 for entry in inputs for to in entry.contacts})
        self.taken: set[tuple[str, str]] = set()

    def _said(self, inputs: Sequence[Input], name: str) -> set[str]:
        definition = self.definitions[name]
        said = [entry.properties.get(name) for entry in inputs]
        said += [entry.id for entry in inputs if entry.id_property == name]
        return {normal(definition, value) for value in said if value}

    def change(self, entry: Input, target: Record | Refusal | None) -> Change | Refusal:
        if isinstance(target, Refusal):
            return target
        said = dict(entry.properties)
        if target is None and entry.id_property:
            said = {entry.id_property: entry.id, **said}
        kept, complaints = check(self.definitions, said)
        if complaints:
            return not_valid(complaints)
        after = {**(target.properties if target else {}), **kept}
        refusal = self._poisoned(after) or self._incomplete(target, after) or self._conflict(target, kept)
        if refusal is not None:
            return refusal
        if any(_number(to) not in self.people for to in entry.contacts):
            return Refusal(400, VALIDATION_ERROR, "one or more associations are not valid")
        self.taken |= {(name, kept[name]) for name in self.uniques if kept.get(name)}
        return Change(target, _forward(target, kept), tuple(int(to) for to in entry.contacts))

    def _poisoned(self, after: Mapping[str, str]) -> Refusal | None:
        if after.get("email") in self.blocked:
            said = f"Email address {after['email']} was deleted for good"
            return not_valid([Complaint("email", "BLOCKLISTED", said)])
        if not self.faults.refuses(after):
            return None
        if self.faults.reject_status >= 500:
            return Refusal(self.faults.reject_status, "INTERNAL_ERROR", "internal error")
        name = self.faults.reject_names
        refusal = not_valid([Complaint(name, "INVALID_VALUE", f"{after.get(name, '')} was refused by the sandbox")])
        refusal.status = self.faults.reject_status
        return refusal

    def _incomplete(self, target: Record | None, after: Mapping[str, str]) -> Refusal | None:
        if self.kind == CONTACTS and target is None and not any(after.get(name) for name in NEEDS_ONE_OF):
            return required(self.kind, NEEDS_ONE_OF)
        if self.kind == NOTES and not after.get("hs_timestamp"):
            return required(self.kind, ["hs_timestamp"])
        return None

    def _conflict(self, target: Record | None, kept: Mapping[str, str]) -> Refusal | None:
        own = target.id if target else None
        for name in self.uniques:
            value = kept.get(name)
            holder = self.held[name].get(value) if value else None
            if not value or (own is not None and holder == own):
                continue
            if holder is not None or (name, value) in self.taken:
                return already_exists(holder) if name == "email" else value_taken(self.kind, name, value, own, holder)
        return None


def _forward(target: Record | None, kept: dict[str, str]) -> dict[str, str]:
    """Without a lifecycle stage that would go back: HubSpot moves it forward only, until somebody clears it.

    knowledge.hubspot.com/object-settings/create-and-customize-lifecycle-stages
    """
    stage, before = kept.get("lifecyclestage"), target.properties.get("lifecyclestage") if target else None
    if stage and before and LIFECYCLE.index(stage) < LIFECYCLE.index(before):
        return {name: value for name, value in kept.items() if name != "lifecyclestage"}
    return kept
