"""The endpoints of HubSpot's API that the imitation knows. START HERE for what it can do.

developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/guide, …/crm/activities/notes/guide and
…/crm/properties/guide. The addresses with a date (`/crm/objects/2026-03/contacts`) are the same endpoints.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync.sandbox.answers import (
    DEFAULT_PROPERTIES,
    PORTAL,
    VALIDATION_ERROR,
    Answer,
    Refusal,
    bad_json,
    batch,
    no_such,
    not_found,
    not_unique,
    shown,
)
from sync.sandbox.faults import Faults
from sync.sandbox.properties import CONTACTS, KINDS, MOST_UNIQUE, NOTES, SINGULAR, Definition
from sync.sandbox.search import names_of, search
from sync.sandbox.store import Record, Store
from sync.sandbox.writes import (
    Input,
    Outcome,
    by_id,
    inputs_of,
    locate,
    read_input,
    write,
)

RESTORABLE = 90 * 86400.0
"""Seconds for which an archived record can be read and restored."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what it says, and everything that is needed to answer it. `made_by` is who calls."""

    store: Store
    faults: Faults
    now: float
    kind: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    made_by: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a call goes. `name` is how calls are counted: `POST contacts/batch/upsert`."""

    method: str
    paths: Sequence[str]
    name: str
    kind: str
    answer: Callable[[Call], Answer]
    is_batch_write: bool = False
    is_search: bool = False


def read_batch(call: Call) -> Answer:
    """POST …/batch/read?archived=true. Those not found are one error in a 207; a merged id leads to its winner."""
    names, id_property = names_of(call.body), call.body.get("idProperty")
    wanted = [{"id": entry.get("id"), "idProperty": id_property, "properties": {}} for entry in inputs_of(call.body)]
    inputs = list({entry.id: entry for entry in map(read_input, wanted)}.values())
    found = _found(call, inputs)
    missing = [entry.id or "" for entry, record in zip(inputs, found, strict=True) if record is None]
    records = {record.id: record for record in found if record is not None}.values()
    results = [
        shown(record, names or DEFAULT_PROPERTIES[call.kind], archived=_wants_archived(call)) for record in records
    ]
    errors = [not_found(call.kind, missing).item(None)] if missing else []
    return batch(_mixed(call, results), errors, now=call.now)


def upsert_batch(call: Call) -> Answer:
    """POST …/batch/upsert. Properties that are not sent stay as they are.

    HubSpot documents that "partial upserts are not supported" by email, and its own example sends only a phone; what
    integrators see is that the properties sent are set and the others are kept. It is imitated that way.
    """
    inputs = [read_input(raw) for raw in inputs_of(call.body)]
    inputs = [Input(i.properties, i.id, i.id_property or "hs_object_id", i.trace) for i in inputs]
    outcome = _write(call, inputs, lambda entries: [*locate(call.store, call.kind, entries)])
    return _batch(call, outcome, status=200, tells_new=True)


def update_batch(call: Call) -> Answer:
    """POST …/batch/update. By record id, or by a custom unique property; by email it is refused."""
    inputs = [read_input(raw) for raw in inputs_of(call.body)]
    if any(entry.id_property == "email" for entry in inputs):
        raise not_unique(call.kind, "email")
    outcome = _write(call, inputs, lambda entries: by_id(call.store, call.kind, entries))
    return _batch(call, outcome, status=200)


def create_batch(call: Call) -> Answer:
    """POST …/batch/create."""
    inputs = [_new(raw) for raw in inputs_of(call.body)]
    return _batch(call, _write(call, inputs, lambda entries: [None] * len(entries)), status=201)


def create(call: Call) -> Answer:
    """POST …/{contacts|notes}. 409 names the contact that has the email, in its text."""
    return Answer(201, _write_one(call, _new(call.body), None))


def get(call: Call) -> Answer:
    """GET …/{id}?idProperty=email&properties=a,b&archived=true."""
    names = [name for name in call.query.get("properties", "").split(",") if name]
    (record,) = _found(call, [Input({}, call.path["id"], call.query.get("idProperty"))])
    if record is None:
        raise no_such()
    return Answer(200, shown(record, names or DEFAULT_PROPERTIES[call.kind], archived=_wants_archived(call)))


def update(call: Call) -> Answer:
    """PATCH …/{id}?idProperty=email."""
    return Answer(200, _write_one(call, read_input(call.body), _named(call)))


def archive(call: Call) -> Answer:
    """DELETE …/{id}. Its email is free again; for 90 days the record can be read with `archived=true`.

    developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/archive-contact
    """
    call.store.archive(_named(call).id, now=call.now)
    return Answer(204)


def merge(call: Call) -> Answer:
    """POST …/contacts/merge: two contacts become one new record. It cannot be undone.

    developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/merge-contacts
    """
    said = [str(call.body.get(name) or "") for name in ("primaryObjectId", "objectIdToMerge")]
    primary, other = locate(call.store, call.kind, [Input({}, record) for record in said])
    if primary is None or other is None or primary.id == other.id:
        raise no_such()
    made = call.store.merge(primary, other, made_by=call.made_by, now=call.now)
    return Answer(200, shown(made, DEFAULT_PROPERTIES[call.kind]))


def gdpr_delete(call: Call) -> Answer:
    """POST …/gdpr-delete: the contact and what hangs on it. An email that nobody has is blocked for good.

    developers.hubspot.com/docs/api-reference/legacy/crm/objects/contacts/gdpr/gdpr-delete-contact
    """
    said = call.body
    entry = read_input({"id": said.get("objectId"), "idProperty": said.get("idProperty"), "properties": {}})
    (record,) = locate(call.store, CONTACTS, [entry])
    if record is not None:
        call.store.remove(record.id, with_notes=True)
    elif entry.id_property == "email":
        call.store.block(entry.id or "")
    else:
        raise no_such()
    return Answer(204)


def search_records(call: Call) -> Answer:
    """POST …/search."""
    return search(call.store, call.kind, call.body, seen_until=call.now - call.faults.index_lag)


def associate(call: Call) -> Answer:
    """PUT …/notes/{id}/associations/…/contacts/{contact}: puts a note on a contact, as often as one likes.

    developers.hubspot.com/docs/api-reference/latest/crm/associations/associate-records/guide
    """
    note, (contact,) = _named(call), locate(call.store, CONTACTS, [Input({}, call.path["contact"])])
    if contact is None or call.path.get("type", "202") not in ("202", "note_to_contact"):
        raise no_such()
    call.store.associate(note.id, contact.id)
    return Answer(200, shown(note, DEFAULT_PROPERTIES[NOTES]))


def list_properties(call: Call) -> Answer:
    """GET /crm/v3/properties/{kind}."""
    return Answer(200, {"results": [entry.as_answer() for entry in call.store.definitions[call.kind].values()]})


def get_property(call: Call) -> Answer:
    """GET /crm/v3/properties/{kind}/{name}."""
    definition = call.store.definitions[call.kind].get(call.path["name"])
    if definition is None:
        raise no_such(f"Property {call.path['name']} does not exist for object type {SINGULAR[call.kind]}")
    return Answer(200, definition.as_answer())


def create_property(call: Call) -> Answer:
    """POST /crm/v3/properties/{kind}. At most ten can be unique.

    developers.hubspot.com/docs/api-reference/latest/crm/properties/guide#create-unique-identifier-properties
    """
    definition, existing = _definition(call.body), call.store.definitions[call.kind]
    if definition.name in existing:
        raise Refusal(409, "OBJECT_ALREADY_EXISTS", f"A property named '{definition.name}' already exists.")
    unique = sum(entry.is_unique and not entry.is_standard for entry in existing.values())
    if definition.is_unique and unique >= MOST_UNIQUE:
        raise Refusal(400, VALIDATION_ERROR, f"There can be at most {MOST_UNIQUE} unique properties")
    call.store.define(call.kind, definition)
    return Answer(201, definition.as_answer())


def account(_call: Call) -> Answer:
    """GET /account-info/v3/details.

    developers.hubspot.com/docs/api-reference/latest/account/account-information/guide
    """
    details = {
        "portalId": PORTAL,
        "accountType": "SANDBOX",
        "timeZone": "UTC",
        "companyCurrency": "EUR",
        "additionalCurrencies": [],
        "utcOffset": "+00:00",
        "utcOffsetMilliseconds": 0,
        "uiDomain": "sandbox.invalid",
        "dataHostingLocation": "here",
    }
    return Answer(200, details)


def _definition(body: Any) -> Definition:
    wanted = ("name", "label", "type", "fieldType", "groupName")
    missing = [key for key in wanted if not isinstance(body.get(key), str) or not body[key]]
    if missing:
        raise bad_json(f"Some required fields were not set: [{', '.join(missing)}]")
    name, label, kind, field_type, group = (str(body[key]) for key in wanted)
    if kind not in ("string", "number", "date", "datetime", "enumeration", "bool"):
        raise bad_json(f"{kind} is no type of property")
    try:
        options = tuple(str(option["value"]) for option in body.get("options") or ())
    except (TypeError, KeyError):
        raise bad_json("options must be a list of objects with a value") from None
    is_unique = body.get("hasUniqueValue") is True
    said = str(body.get("description") or "")
    return Definition(name, label, kind, field_type, group, said, options, is_unique, is_standard=False)


def _new(raw: Mapping[str, Any]) -> Input:
    entry = read_input(raw)
    return Input(entry.properties, trace=entry.trace, contacts=entry.contacts)


def _wants_archived(call: Call) -> bool:
    return call.query.get("archived") == "true"


def _found(call: Call, inputs: Sequence[Input]) -> list[Record | None]:
    """The records that are asked for, or, if those are wanted, the archived ones under these ids."""
    if not _wants_archived(call):
        return locate(call.store, call.kind, inputs)
    numbers = [int(entry.id or "") if (entry.id or "").isdecimal() and not entry.id_property else 0 for entry in inputs]
    found = call.store.load_archived(call.kind, numbers, call.now - RESTORABLE)
    return [found.get(number) for number in numbers]


def _named(call: Call) -> Record:
    (record,) = locate(call.store, call.kind, [Input({}, call.path["id"], call.query.get("idProperty"))])
    if record is None:
        raise no_such()
    return record


def _write(call: Call, inputs: Sequence[Input], find: Callable[[Sequence[Input]], Any]) -> Outcome:
    return write(call.store, call.faults, call.kind, inputs, find, made_by=call.made_by, now=call.now)


def _write_one(call: Call, entry: Input, target: Record | None) -> dict[str, Any]:
    outcome = _write(call, [entry], lambda _entries: [target])
    for _, refusal in outcome.refused:
        raise refusal
    return shown(outcome.written[0].record, list(entry.properties))


def _batch(call: Call, outcome: Outcome, *, status: int, tells_new: bool = False) -> Answer:
    results = []
    for written in outcome.written:
        more: dict[str, Any] = {"new": written.is_new} if tells_new else {}
        more |= {"objectWriteTraceId": written.input.trace} if written.input.trace else {}
        identity = [written.input.id_property] if written.input.id_property else []
        results.append(shown(written.record, [*written.input.properties, *identity], **more))
    return batch(_mixed(call, results), outcome.errors(), now=call.now, status=status)


def _mixed(call: Call, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The order of results is not promised anywhere."""
    return call.faults.random.sample(results, len(results)) if call.faults.shuffled else results


def _endpoints() -> tuple[Endpoint, ...]:
    found = [endpoint for kind in KINDS for endpoint in _of_kind(kind)]
    for method, address, answer in (
        ("PUT", "/crm/v3/objects/notes/{id}/associations/contacts/{contact}/{type}", associate),
        ("PUT", "/crm/v4/objects/notes/{id}/associations/default/contacts/{contact}", associate),
        ("GET", "/account-info/{version}/details", account),
    ):
        name = f"{method} {'notes/{id}/associations' if answer is associate else 'account'}"
        found.append(Endpoint(method, [address], name, NOTES, answer))
    gone = Endpoint("POST", _addresses("contacts/gdpr-delete"), "POST contacts/gdpr-delete", CONTACTS, gdpr_delete)
    merged = Endpoint("POST", _addresses("contacts/merge"), "POST contacts/merge", CONTACTS, merge)
    return (gone, merged, *found)


def _of_kind(kind: str) -> list[Endpoint]:
    def at(method: str, rest: str, answer: Callable[[Call], Answer], *, writes: bool = False) -> Endpoint:
        where = f"{kind}{rest}"
        is_search = answer is search_records
        return Endpoint(method, _addresses(where), f"{method} {where}", kind, answer, writes, is_search)

    properties = f"/crm/properties/{{version}}/{kind}", f"/crm/v3/properties/{kind}"
    one = [f"{address}/{{name}}" for address in properties]
    return [
        at("POST", "/batch/read", read_batch),
        at("POST", "/batch/upsert", upsert_batch, writes=True),
        at("POST", "/batch/update", update_batch, writes=True),
        at("POST", "/batch/create", create_batch, writes=True),
        at("POST", "/search", search_records),
        at("POST", "", create),
        at("GET", "/{id}", get),
        at("PATCH", "/{id}", update),
        at("DELETE", "/{id}", archive),
        Endpoint("GET", properties, f"GET properties/{kind}", kind, list_properties),
        Endpoint("POST", properties, f"POST properties/{kind}", kind, create_property),
        Endpoint("GET", one, f"GET properties/{kind}/{{name}}", kind, get_property),
    ]


def _addresses(where: str) -> list[str]:
    return [f"/crm/v3/objects/{where}", f"/crm/objects/{{version}}/{where}"]


ENDPOINTS = _endpoints()
