"""What HubSpot documents, its nasty sides included."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from sync.sandbox.app import build
from sync.sandbox.store import Store

CONTACTS = "/crm/v3/objects/contacts"
NOTES = "/crm/v3/objects/notes"
NOTE_TO_CONTACT = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 202}


def ada(**properties: str) -> dict[str, Any]:
    return {"id": "ada@example.com", "idProperty": "email", "properties": properties}


def unique(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "string",
        "fieldType": "text",
        "groupName": "contactinformation",
        "hasUniqueValue": True,
    }


async def post(crm: httpx.AsyncClient, path: str, body: Mapping[str, Any], expect: int = 200) -> Any:
    answer = await crm.post(path, json=body)

    assert answer.status_code == expect, answer.text
    return answer.json()


async def upsert(crm: httpx.AsyncClient, *inputs: Mapping[str, Any], expect: int = 200) -> Any:
    return await post(crm, f"{CONTACTS}/batch/upsert", {"inputs": list(inputs)}, expect)


async def test_an_upsert_creates_once_and_then_updates(crm: httpx.AsyncClient, store: Store) -> None:
    first = await upsert(crm, ada(firstname="Ada"))
    second = await upsert(crm, {**ada(phone="+44 1"), "id": "ADA@Example.com "})

    assert [first["results"][0]["new"], second["results"][0]["new"]] == [True, False]
    (contact,) = store.contacts
    assert contact.properties == {"email": "ada@example.com", "firstname": "Ada", "phone": "+44 1"}


async def test_an_empty_value_clears_and_a_missing_one_is_kept(crm: httpx.AsyncClient, store: Store) -> None:
    await upsert(crm, ada(firstname="Ada", phone="1"))
    await upsert(crm, ada(phone=""))

    assert store.contacts[0].properties == {"email": "ada@example.com", "firstname": "Ada"}


async def test_the_addresses_with_a_date_are_the_same_endpoints(crm: httpx.AsyncClient, store: Store) -> None:
    await post(crm, "/crm/objects/2026-03/contacts/batch/upsert", {"inputs": [ada(firstname="Ada")]})

    assert store.contact("ada@example.com") is not None


async def test_results_carry_strings_and_the_trace(crm: httpx.AsyncClient, clock: Any) -> None:
    (result,) = (await upsert(crm, {**ada(firstname="Ada"), "objectWriteTraceId": "job-1"}))["results"]

    assert result["id"].isdigit()
    assert result["objectWriteTraceId"] == "job-1"
    assert result["properties"] == {
        "email": "ada@example.com",
        "firstname": "Ada",
        "hs_object_id": result["id"],
        "createdate": "2026-02-25T06:13:20.000Z",
        "lastmodifieddate": "2026-02-25T06:13:20.000Z",
    }


async def test_without_traces_one_bad_input_fails_the_whole_batch(crm: httpx.AsyncClient, store: Store) -> None:
    bad = {"id": "grace@example.com", "idProperty": "email", "properties": {"nonsense": "1"}}
    answer = await upsert(crm, ada(firstname="Ada"), bad, expect=400)

    assert answer["category"] == "VALIDATION_ERROR"
    assert answer["errors"][0]["code"] == "PROPERTY_DOESNT_EXIST"
    assert answer["errors"][0]["context"] == {"propertyName": ["nonsense"]}
    assert store.contacts == []


async def test_with_traces_one_bad_input_fails_alone(crm: httpx.AsyncClient, store: Store) -> None:
    bad = {"id": "not-an-email", "idProperty": "email", "properties": {}, "objectWriteTraceId": "b"}
    answer = await upsert(crm, {**ada(firstname="Ada"), "objectWriteTraceId": "a"}, bad, expect=207)

    (error,) = answer["errors"]
    assert (answer["numErrors"], error["context"]) == (1, {"objectWriteTraceId": ["b"]})
    listed = json.loads(error["message"].removeprefix("Property values were not valid: "))
    assert (listed[0]["error"], listed[0]["name"]) == ("INVALID_EMAIL", "email")
    assert [contact.properties["email"] for contact in store.contacts] == ["ada@example.com"]


async def test_a_trace_used_twice_is_no_trace(crm: httpx.AsyncClient) -> None:
    bad = {"id": "not-an-email", "idProperty": "email", "properties": {}, "objectWriteTraceId": "a"}

    await upsert(crm, {**ada(firstname="Ada"), "objectWriteTraceId": "a"}, bad, expect=400)


async def test_the_same_email_twice_fails_the_batch_traced_or_not(crm: httpx.AsyncClient, store: Store) -> None:
    twice = [
        {**ada(firstname="A"), "id": said, "objectWriteTraceId": said}
        for said in ("ada@example.com", "ADA@example.com")
    ]
    answer = await upsert(crm, *twice, expect=400)

    assert answer["message"] == "Duplicate IDs found in batch input: [ada@example.com]. IDs must be unique"
    assert store.contacts == []


async def test_more_than_a_hundred_inputs_are_refused(crm: httpx.AsyncClient) -> None:
    inputs = [{"id": f"p{i}@example.com", "idProperty": "email", "properties": {}} for i in range(101)]
    upserted = await upsert(crm, *inputs, expect=400)
    read = await post(crm, f"{CONTACTS}/batch/read", {"inputs": inputs, "properties": []}, 400)

    assert "supported in a batch is 100" in upserted["message"]
    assert "supported in a batch is 100" in read["message"]


@pytest.mark.parametrize("name", ["phone", "hs_object_id", "nonsense", None])
async def test_only_a_unique_property_identifies(crm: httpx.AsyncClient, name: str | None) -> None:
    answer = await upsert(crm, {"id": "1", "idProperty": name, "properties": {"firstname": "Ada"}}, expect=400)

    assert answer["message"].startswith("Unable to perform update/upsert by non-unique 0-1 property")


@pytest.mark.parametrize("value", [7, True, 1.5, ["a"], {"a": 1}])
async def test_every_value_must_be_a_string(crm: httpx.AsyncClient, value: object) -> None:
    answer = await upsert(crm, {**ada(), "properties": {"phone": value}}, expect=400)

    assert answer["message"].startswith("Invalid input JSON")


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"email": "ada@"}, "INVALID_EMAIL"),
        ({"email": "a b@example.com"}, "INVALID_EMAIL"),
        ({"email": "ada@example"}, "INVALID_EMAIL"),
        ({"lifecyclestage": "friend"}, "INVALID_OPTION"),
        ({"hubspot_owner_id": "Anna"}, "INVALID_FLOAT"),
        ({"createdate": "2026-01-01"}, "READ_ONLY_VALUE"),
        ({"firstname": "x" * 65_537}, "INVALID_LENGTH"),
    ],
)
async def test_a_value_that_does_not_fit_is_refused_by_name(
    crm: httpx.AsyncClient, properties: dict[str, str], code: str
) -> None:
    answer = await post(crm, CONTACTS, {"properties": properties}, 400)

    assert [error["code"] for error in answer["errors"]] == [code]
    assert answer["errors"][0]["context"]["propertyName"] == list(properties)


async def test_a_contact_needs_a_name_or_an_email(crm: httpx.AsyncClient) -> None:
    answer = await post(crm, CONTACTS, {"properties": {"phone": "+44 1"}}, 400)

    assert answer["context"]["properties"] == ["email", "firstname", "lastname"]


async def test_creating_an_email_again_names_the_contact_in_the_text(crm: httpx.AsyncClient) -> None:
    first = await post(crm, CONTACTS, {"properties": {"email": "ada@example.com"}}, 201)
    again = await post(crm, CONTACTS, {"properties": {"email": "Ada@example.com"}}, 409)

    assert again["category"] == "CONFLICT"
    assert again["message"] == f"Contact already exists. Existing ID: {first['id']}"


async def test_a_trace_makes_no_difference_to_a_single_call(crm: httpx.AsyncClient) -> None:
    (known,) = (await upsert(crm, ada()))["results"]
    traced = {"properties": {"email": "not-an-email"}, "objectWriteTraceId": "a"}
    created = await crm.post(CONTACTS, json=traced)
    changed = await crm.patch(f"{CONTACTS}/{known['id']}", json=traced)

    assert (created.status_code, changed.status_code) == (400, 400)


async def test_a_batch_create_stops_at_an_email_that_exists(crm: httpx.AsyncClient, store: Store) -> None:
    await upsert(crm, ada())
    inputs = [{"properties": {"email": "grace@example.com"}}, {"properties": {"email": "ada@example.com"}}]
    untraced = await post(crm, f"{CONTACTS}/batch/create", {"inputs": inputs}, 409)
    traced = [{**entry, "objectWriteTraceId": str(place)} for place, entry in enumerate(inputs)]
    partial = await post(crm, f"{CONTACTS}/batch/create", {"inputs": traced}, 207)

    assert untraced["category"] == "CONFLICT"
    assert partial["errors"][0]["context"]["objectWriteTraceId"] == ["1"]
    assert len(store.contacts) == 2


async def test_a_batch_read_names_those_it_did_not_find(crm: httpx.AsyncClient) -> None:
    await upsert(crm, ada(firstname="Ada"))
    wanted = {
        "idProperty": "email",
        "properties": ["firstname", "phone"],
        "inputs": [{"id": "ADA@example.com"}, {"id": "who@example.com"}],
    }
    answer = await post(crm, f"{CONTACTS}/batch/read", wanted, 207)

    assert answer["results"][0]["properties"]["firstname"] == "Ada"
    assert answer["results"][0]["properties"]["phone"] is None
    assert answer["numErrors"] == 1
    assert answer["errors"][0]["category"] == "OBJECT_NOT_FOUND"
    assert answer["errors"][0]["context"] == {"ids": ["who@example.com"]}


async def test_a_batch_read_by_id_answers_200_when_all_are_there(crm: httpx.AsyncClient) -> None:
    (result,) = (await upsert(crm, ada(firstname="Ada")))["results"]
    answer = await post(crm, f"{CONTACTS}/batch/read", {"properties": ["email"], "inputs": [{"id": result["id"]}]})

    assert answer["results"][0]["properties"]["email"] == "ada@example.com"
    assert "errors" not in answer


async def test_a_batch_update_reports_an_unknown_id_by_itself(crm: httpx.AsyncClient, store: Store) -> None:
    (known,) = (await upsert(crm, ada(firstname="Ada")))["results"]
    inputs = [{"id": known["id"], "properties": {"phone": "1"}}, {"id": "999", "properties": {"phone": "2"}}]
    answer = await post(crm, f"{CONTACTS}/batch/update", {"inputs": inputs}, 207)

    assert answer["errors"][0]["category"] == "OBJECT_NOT_FOUND"
    assert answer["errors"][0]["context"]["ids"] == ["999"]
    assert store.contacts[0].properties["phone"] == "1"


async def test_a_batch_update_by_email_is_refused(crm: httpx.AsyncClient) -> None:
    answer = await post(crm, f"{CONTACTS}/batch/update", {"inputs": [ada(phone="1")]}, 400)

    assert "non-unique 0-1 property email" in answer["message"]


async def test_an_email_can_change_but_not_to_somebody_elses(crm: httpx.AsyncClient, store: Store) -> None:
    (result,) = (await upsert(crm, ada()))["results"]
    await post(crm, CONTACTS, {"properties": {"email": "grace@example.com"}}, 201)
    taken = await crm.patch(f"{CONTACTS}/{result['id']}", json={"properties": {"email": "grace@example.com"}})
    free = await crm.patch(f"{CONTACTS}/{result['id']}", json={"properties": {"email": "ada@new.example"}})

    assert (taken.status_code, free.status_code) == (409, 200)
    assert store.contact("ada@example.com") is None
    assert store.contact("ada@new.example") is not None


async def test_one_contact_is_read_and_changed_by_id_or_email(crm: httpx.AsyncClient) -> None:
    (result,) = (await upsert(crm, ada(firstname="Ada")))["results"]
    by_email = {"idProperty": "email"}
    patched = await crm.patch(f"{CONTACTS}/ada@example.com", params=by_email, json={"properties": {"city": "London"}})
    read = await crm.get(f"{CONTACTS}/{result['id']}", params={"properties": "city,phone"})
    missing = await crm.get(f"{CONTACTS}/999")

    assert patched.json()["properties"]["city"] == "London"
    assert (read.json()["properties"]["city"], read.json()["properties"]["phone"]) == ("London", None)
    assert (missing.status_code, missing.json()["category"]) == (404, "OBJECT_NOT_FOUND")


async def test_a_deleted_contact_is_gone_and_its_email_free(crm: httpx.AsyncClient) -> None:
    (result,) = (await upsert(crm, ada()))["results"]
    deleted = await crm.delete(f"{CONTACTS}/{result['id']}")
    (again,) = (await upsert(crm, ada()))["results"]

    assert deleted.status_code == 204
    assert again["new"] is True
    assert again["id"] != result["id"]


async def test_a_deleted_contact_can_be_read_for_90_days(tmp_path: Path) -> None:
    now = [1_750_000_000.0]
    store = Store(tmp_path / "crm.sqlite3")
    transport = httpx.ASGITransport(build(store, clock=lambda: now[0]))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as crm:
        made = (await upsert(crm, ada(firstname="Ada")))["results"][0]["id"]
        await crm.delete(f"{CONTACTS}/{made}")
        wanted = {"inputs": [{"id": made}], "properties": ["firstname"]}

        there = await post(crm, f"{CONTACTS}/batch/read", wanted, 207)
        archived = await post(crm, f"{CONTACTS}/batch/read?archived=true", wanted)
        now[0] += 90 * 86400
        later = await post(crm, f"{CONTACTS}/batch/read?archived=true", wanted, 207)
        one = await crm.get(f"{CONTACTS}/{made}?archived=true")
    store.close()

    assert (there["results"], later["results"], one.status_code) == ([], [], 404)
    ((found),) = archived["results"]
    assert (found["id"], found["archived"], found["properties"]["firstname"]) == (made, True, "Ada")


async def test_merged_contacts_are_one_new_record_under_all_their_ids(crm: httpx.AsyncClient, store: Store) -> None:
    first, second = [
        (await upsert(crm, {**ada(**said), "id": email}))["results"][0]["id"]
        for email, said in (("ada@example.com", {"firstname": "Ada"}), ("a@work.example", {"phone": "1"}))
    ]

    merged = await post(crm, f"{CONTACTS}/merge", {"primaryObjectId": first, "objectIdToMerge": second})

    assert merged["id"] not in (first, second)
    read = await post(crm, f"{CONTACTS}/batch/read", {"inputs": [{"id": first}, {"id": second}], "properties": []})
    assert [entry["id"] for entry in read["results"]] == [merged["id"]]
    assert store.contacts[0].properties == {
        "email": "ada@example.com",
        "firstname": "Ada",
        "phone": "1",
        "hs_additional_emails": "a@work.example",
        "hs_merged_object_ids": f"{first};{second}",
    }
    by_email = {"inputs": [{"id": "a@work.example"}], "idProperty": "email", "properties": []}
    assert (await post(crm, f"{CONTACTS}/batch/read", by_email))["results"][0]["id"] == merged["id"]
    taken = await crm.post(CONTACTS, json={"properties": {"email": "a@work.example"}})
    assert taken.status_code == 409
    await post(crm, f"{CONTACTS}/merge", {"primaryObjectId": first, "objectIdToMerge": second}, 404)


async def test_a_search_has_its_limits(crm: httpx.AsyncClient) -> None:
    def among(n: int, name: str = "email") -> dict[str, Any]:
        wanted = [f"a{number}@example.com" for number in range(n)]
        return {"filterGroups": [{"filters": [{"propertyName": name, "operator": "IN", "values": wanted}]}]}

    await upsert(crm, ada())
    await post(crm, f"{CONTACTS}/search", among(100))
    await post(crm, f"{CONTACTS}/search", among(101), 400)
    await post(crm, f"{CONTACTS}/search", {**among(100), "properties": ["x" * 3000]}, 400)


async def test_a_gdpr_delete_takes_the_notes_along(crm: httpx.AsyncClient, store: Store) -> None:
    (result,) = (await upsert(crm, ada()))["results"]
    await post(crm, NOTES, note(result["id"]), 201)
    answer = await crm.post(f"{CONTACTS}/gdpr-delete", json={"objectId": "ada@example.com", "idProperty": "email"})

    assert answer.status_code == 204
    assert (store.contacts, store.notes) == ([], [])


async def test_a_gdpr_delete_of_an_unknown_email_blocks_it(crm: httpx.AsyncClient) -> None:
    await crm.post(f"{CONTACTS}/gdpr-delete", json={"objectId": "ada@example.com", "idProperty": "email"})
    answer = await upsert(crm, ada(), expect=400)

    assert answer["errors"][0]["context"] == {"propertyName": ["email"]}


async def test_a_lifecycle_stage_never_goes_back(crm: httpx.AsyncClient, store: Store) -> None:
    await upsert(crm, ada(lifecyclestage="customer"))
    await upsert(crm, ada(lifecyclestage="lead", phone="1"))

    assert store.contacts[0].properties["lifecyclestage"] == "customer"
    assert store.contacts[0].properties["phone"] == "1"


async def test_a_custom_unique_property_identifies_people_without_an_email(
    crm: httpx.AsyncClient, store: Store
) -> None:
    created = await crm.post("/crm/v3/properties/contacts", json=unique("chat_uid"))
    one = {"id": "u-1", "idProperty": "chat_uid", "properties": {"lastname": "Lovelace", "phone": "+44 1"}}
    first, second = await upsert(crm, one), await upsert(crm, one)

    assert (created.status_code, created.json()["hasUniqueValue"]) == (201, True)
    assert [first["results"][0]["new"], second["results"][0]["new"]] == [True, False]
    assert store.contacts[0].properties["chat_uid"] == "u-1"


async def test_two_uids_cannot_share_an_email(crm: httpx.AsyncClient) -> None:
    await crm.post("/crm/v3/properties/contacts", json=unique("chat_uid"))
    inputs = [
        {"id": uid, "idProperty": "chat_uid", "objectWriteTraceId": uid, "properties": {"email": "ada@example.com"}}
        for uid in ("u-1", "u-2")
    ]
    together = await upsert(crm, *inputs, expect=207)
    later = await upsert(crm, inputs[1], expect=207)

    assert together["errors"][0]["category"] == "CONFLICT"
    assert later["errors"][0]["message"] == f"Contact already exists. Existing ID: {together['results'][0]['id']}"


async def test_a_unique_value_can_be_held_once(crm: httpx.AsyncClient) -> None:
    await crm.post("/crm/v3/properties/contacts", json=unique("chat_uid"))
    await upsert(crm, ada(chat_uid="u-1"))
    answer = await post(crm, CONTACTS, {"properties": {"lastname": "B", "chat_uid": "u-1"}}, 400)

    assert answer["errors"][0]["code"] == "CONFLICTING_UNIQUE_VALUE"
    assert answer["errors"][0]["message"].endswith("101 already has that value.")


async def test_properties_are_listed_and_unknown_ones_are_404(crm: httpx.AsyncClient) -> None:
    listed = (await crm.get("/crm/v3/properties/contacts")).json()["results"]
    email = await crm.get("/crm/v3/properties/contacts/email")
    missing = await crm.get("/crm/v3/properties/contacts/chat_uid")
    twice = await crm.post("/crm/v3/properties/contacts", json=unique("email"))
    incomplete = await crm.post("/crm/v3/properties/contacts", json={"name": "chat_uid"})

    assert {"email", "firstname", "lastname", "phone", "lifecyclestage"} <= {entry["name"] for entry in listed}
    assert email.json()["hasUniqueValue"] is True
    assert (missing.status_code, twice.status_code, incomplete.status_code) == (404, 409, 400)


async def test_the_eleventh_unique_property_is_refused(crm: httpx.AsyncClient) -> None:
    answers = [await crm.post("/crm/v3/properties/notes", json=unique(f"uid_{i}")) for i in range(11)]

    assert [answer.status_code for answer in answers] == [201] * 10 + [400]


def note(contact: str, **properties: str) -> dict[str, Any]:
    said = {"hs_timestamp": "2026-03-01T10:00:00Z", "hs_note_body": "<p>Hello</p>", **properties}
    return {"properties": said, "associations": [{"to": {"id": contact}, "types": [NOTE_TO_CONTACT]}]}


async def test_a_note_is_written_once_per_call_and_put_on_its_contact(crm: httpx.AsyncClient, store: Store) -> None:
    (result,) = (await upsert(crm, ada()))["results"]
    made = [await post(crm, NOTES, note(result["id"]), 201) for _ in range(2)]
    await crm.patch(f"{NOTES}/{made[0]['id']}", json={"properties": {"hs_note_body": "<p>Longer</p>"}})
    read = await crm.get(f"{NOTES}/{made[0]['id']}", params={"properties": "hs_note_body,hs_timestamp"})

    assert [entry.id for entry in store.notes_of(int(result["id"]))] == [int(entry["id"]) for entry in made]
    assert read.json()["properties"]["hs_note_body"] == "<p>Longer</p>"
    assert read.json()["properties"]["hs_timestamp"] == "2026-03-01T10:00:00.000Z"


async def test_a_note_takes_epoch_milliseconds(crm: httpx.AsyncClient, store: Store) -> None:
    await post(crm, NOTES, {"properties": {"hs_timestamp": "1772000000000"}}, 201)

    assert store.notes[0].properties["hs_timestamp"] == "2026-02-25T06:13:20.000Z"


@pytest.mark.parametrize(
    "body",
    [
        {"properties": {"hs_note_body": "no time"}},
        {"properties": {"hs_timestamp": "yesterday"}},
        note("999"),
        {**note("999"), "associations": [{"to": {"id": "1"}}]},
        {**note("1"), "associations": [{"to": {"id": "1"}, "types": [{**NOTE_TO_CONTACT, "associationTypeId": 201}]}]},
    ],
)
async def test_a_note_without_its_time_or_its_contact_is_refused(
    crm: httpx.AsyncClient, store: Store, body: dict[str, Any]
) -> None:
    await post(crm, NOTES, body, 400)

    assert store.notes == []


async def test_notes_are_created_in_batches_and_found_by_their_contact(crm: httpx.AsyncClient) -> None:
    (result,) = (await upsert(crm, ada()))["results"]
    await post(crm, f"{NOTES}/batch/create", {"inputs": [note(result["id"]), note(result["id"])]}, 201)
    about = {"propertyName": "associations.contact", "operator": "EQ", "value": result["id"]}
    found = await post(crm, f"{NOTES}/search", {"filterGroups": [{"filters": [about]}]})

    assert found["total"] == 2


async def test_a_note_with_a_uid_is_upserted_and_associated_afterwards(crm: httpx.AsyncClient, store: Store) -> None:
    await crm.post("/crm/v3/properties/notes", json=unique("chat_uid"))
    (person,) = (await upsert(crm, ada()))["results"]
    said = {"id": "c-1", "idProperty": "chat_uid", "properties": {"hs_timestamp": "2026-03-01T10:00:00Z"}}
    for _ in range(2):
        (made,) = (await post(crm, f"{NOTES}/batch/upsert", {"inputs": [said]}))["results"]
        v3 = await crm.put(f"{NOTES}/{made['id']}/associations/contacts/{person['id']}/202")
        v4 = await crm.put(f"/crm/v4/objects/notes/{made['id']}/associations/default/contacts/{person['id']}")

        assert (v3.status_code, v4.status_code) == (200, 200)
    assert [entry.id for entry in store.notes_of(int(person["id"]))] == [int(made["id"])]


def one_filter(name: str, operator: str, **more: Any) -> dict[str, Any]:
    return {"filterGroups": [{"filters": [{"propertyName": name, "operator": operator, **more}]}]}


async def test_search_finds_by_value_whatever_the_letter_case(crm: httpx.AsyncClient) -> None:
    await upsert(crm, ada(firstname="Ada"), {"id": "grace@example.com", "idProperty": "email", "properties": {}})
    totals = [
        (await post(crm, f"{CONTACTS}/search", body))["total"]
        for body in (
            one_filter("email", "EQ", value="ADA@example.com"),
            one_filter("email", "IN", values=["ada@example.com", "grace@example.com", "who@example.com"]),
            one_filter("firstname", "EQ", value="ada"),
            one_filter("firstname", "HAS_PROPERTY"),
            one_filter("firstname", "NOT_HAS_PROPERTY"),
            {"query": "grace"},
            {},
        )
    ]

    assert totals == [1, 2, 1, 1, 1, 1, 2]


async def test_search_groups_are_alternatives_and_filters_in_one_belong_together(crm: httpx.AsyncClient) -> None:
    await upsert(
        crm, ada(firstname="Ada"), {"id": "b@example.com", "idProperty": "email", "properties": {"city": "Rome"}}
    )
    (first,), (second,) = (
        one_filter("firstname", "EQ", value="Ada")["filterGroups"],
        one_filter("city", "EQ", value="Rome")["filterGroups"],
    )
    either = await post(crm, f"{CONTACTS}/search", {"filterGroups": [first, second]})
    both = await post(
        crm, f"{CONTACTS}/search", {"filterGroups": [{"filters": [*first["filters"], *second["filters"]]}]}
    )

    assert (either["total"], both["total"]) == (2, 0)


async def test_search_pages_and_sorts(crm: httpx.AsyncClient) -> None:
    await upsert(crm, *({"id": f"p{i}@example.com", "idProperty": "email", "properties": {}} for i in range(5)))
    body = {"limit": 2, "sorts": ["-email"], "properties": ["email"]}
    first = await post(crm, f"{CONTACTS}/search", body)
    last = await post(crm, f"{CONTACTS}/search", {**body, "after": "4"})

    assert [entry["properties"]["email"] for entry in first["results"]] == ["p4@example.com", "p3@example.com"]
    assert first["paging"]["next"]["after"] == "2"
    assert (len(last["results"]), "paging" in last) == (1, False)


@pytest.mark.parametrize(
    "body",
    [
        one_filter("nonsense", "EQ", value="1"),
        one_filter("email", "LIKE", value="1"),
        one_filter("email", "EQ"),
        {"filterGroups": [{"filters": []}] * 6},
        {"filterGroups": "all"},
        {"limit": 201},
    ],
)
async def test_a_search_that_makes_no_sense_is_refused(crm: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await post(crm, f"{CONTACTS}/search", body, 400)


async def test_a_wrong_token_is_refused(store: Store, connect: Callable[..., httpx.AsyncClient]) -> None:
    async with connect(build(store, token="pat-1")) as crm:
        without = await crm.get("/account-info/v3/details")
        wrong = await crm.get("/account-info/v3/details", headers={"Authorization": "Bearer pat-2"})
        right = await crm.get("/account-info/v3/details", headers={"Authorization": "Bearer pat-1"})
        page = await crm.get("/")

    assert (without.status_code, without.json()["category"]) == (401, "INVALID_AUTHENTICATION")
    assert (wrong.status_code, right.status_code, page.status_code) == (401, 200, 200)
    assert right.json()["accountType"] == "SANDBOX"


async def test_a_body_that_is_not_json_is_refused(crm: httpx.AsyncClient) -> None:
    broken = await crm.post(CONTACTS, content=b"{", headers={"Content-Type": "application/json"})
    a_list = await crm.post(CONTACTS, json=[])
    no_inputs = await crm.post(f"{CONTACTS}/batch/upsert", json={})
    form = await crm.post(CONTACTS, data={"email": "ada@example.com"})

    assert [answer.status_code for answer in (broken, a_list, no_inputs, form)] == [400, 400, 400, 415]


async def test_calls_are_counted_by_endpoint_and_status(app: Starlette, crm: httpx.AsyncClient) -> None:
    for place in range(3):
        await upsert(crm, {"id": f"p{place}@example.com", "idProperty": "email", "properties": {}})
    await crm.get(f"{CONTACTS}/999")

    assert app.state.calls.total == 4
    assert app.state.calls.to("POST contacts/batch/upsert") == 3
    assert app.state.calls.to("GET contacts/{id}") == app.state.calls.answered(404) == 1
    assert app.state.calls.answered(429) == 0


async def test_who_created_it_and_when_each_value_changed_is_known(
    crm: httpx.AsyncClient, store: Store, clock: Any
) -> None:
    began = clock.now
    await upsert(crm, ada(firstname="Ada", phone="1"))
    clock.now += 60
    await upsert(crm, ada(firstname="Ada", phone="2"))

    (contact,) = store.contacts
    assert contact.made_by == "chat-crm-sync"
    assert (contact.created, contact.updated) == (began, began + 60)
    assert contact.changed == {"email": began, "firstname": began, "phone": began + 60}


async def test_a_file_keeps_everything_and_is_its_owners_only(
    tmp_path: Path, connect: Callable[..., httpx.AsyncClient]
) -> None:
    path = tmp_path / "crm.sqlite3"
    first = Store(path)
    async with connect(build(first)) as crm:
        await crm.post("/crm/v3/properties/contacts", json=unique("chat_uid"))
        (made,) = (await upsert(crm, ada(chat_uid="u-1")))["results"]
        await crm.delete(f"{CONTACTS}/{made['id']}")
        await upsert(crm, ada(chat_uid="u-1"))
    first.close()
    second = Store(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert [(entry.id, dict(entry.properties)) for entry in second.contacts] == [
        (102, {"email": "ada@example.com", "chat_uid": "u-1"})
    ]
    assert second.definitions["contacts"]["chat_uid"].is_unique
    second.close()
