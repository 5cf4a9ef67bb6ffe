"""HubSpot's quirks."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from sync.destinations.base import Pace, Standing
from sync.destinations.hubspot import HubSpot, HubSpotSettings
from sync.destinations.hubspot.answers import Rejected
from sync.destinations.hubspot.contacts import wait_for_index
from sync.destinations.hubspot.mapping import LONGEST, properties_of, split_name
from sync.destinations.hubspot.notes import body_of, in_words
from sync.destinations.hubspot.settings import NAMES
from sync.errors import (
    Broken,
    Busy,
    ContactGone,
    DeliveryError,
    Gone,
    NotForHere,
    Refused,
    SettingsError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from sync.models import Chat, Contact, Message, Owed, Receipt
from sync.outcomes import Retry, outcome_of
from sync.sandbox.faults import Scripted
from sync.sandbox.properties import iso
from sync.sandbox.store import Change
from sync.settings import load
from tests.destinations.conformance import NOW, Clock, HubSpotRig, owed, owed_chat

UID = "chat_uid"


async def delivered(rig: HubSpotRig, one: Owed[Contact]) -> Receipt:
    (result,) = await rig.upsert(one)
    assert isinstance(result, Receipt), result
    return result


async def failed(rig: HubSpotRig, one: Owed[Contact]) -> DeliveryError:
    (result,) = await rig.upsert(one)
    assert isinstance(result, DeliveryError), result
    return result


def only_phone(**more: Any) -> Owed[Contact]:
    return owed(email=None, phone="+442071234567", **more)


# How many calls


async def test_a_thousand_new_contacts_take_at_most_22_calls(hubspot: HubSpotRig) -> None:
    for start in range(0, 1000, 100):
        await hubspot.upsert(*(owed(number) for number in range(start, start + 100)))

    assert len(hubspot.people()) == 1000
    assert hubspot.calls <= 22


async def test_a_hundred_records_of_ours_take_one_call(hubspot: HubSpotRig) -> None:
    first = await hubspot.upsert(*(owed(number) for number in range(100)))
    before = hubspot.calls

    again = [
        owed(number, version=2, name="Ada New", remote_id=there.remote_id, ours=True)
        for number, there in enumerate(first)
        if isinstance(there, Receipt)
    ]
    await hubspot.upsert(*again)

    assert len(again) == 100
    assert hubspot.calls - before == 1
    assert {record.properties["lastname"] for record in hubspot.store.contacts} == {"New"}


async def test_where_nothing_would_change_nothing_is_written(hubspot: HubSpotRig) -> None:
    there = hubspot.seed(email="ada1@example.com", firstname="Ada", lastname="King")

    receipt = await delivered(hubspot, owed())

    assert receipt == Receipt(there, ours=False)
    assert hubspot.calls == 1


# A stranger at the keyboard


async def test_a_record_of_somebody_else_is_only_filled_where_it_is_empty(hubspot: HubSpotRig) -> None:
    there = hubspot.seed(email="ada1@example.com", firstname="Augusta")

    receipt = await delivered(hubspot, owed(name="Mallory Jones", phone="+442071234567"))

    assert receipt == Receipt(there, ours=False)
    assert hubspot.properties(there) == {
        "email": "ada1@example.com",
        "firstname": "Augusta",
        "lastname": "Jones",
        "phone": "+442071234567",
    }


async def test_an_adopted_record_stays_theirs_whatever_was_once_intended(hubspot: HubSpotRig) -> None:
    there = hubspot.seed(email="ada1@example.com", firstname="Augusta")

    receipt = await delivered(
        hubspot, owed(version=2, phone="+442071234567", remote_id=there, ours=False, intended_at=NOW)
    )

    assert receipt == Receipt(there, ours=False)
    assert hubspot.properties(there)["firstname"] == "Augusta"
    assert hubspot.properties(there)["phone"] == "+442071234567"


async def test_the_email_of_a_record_that_is_not_ours_never_changes(hubspot: HubSpotRig) -> None:
    there = hubspot.seed(email="augusta@example.com", firstname="Augusta")
    hubspot.build(overwrite="always")

    await delivered(hubspot, owed(remote_id=there, ours=False))

    assert hubspot.properties(there) == {"email": "augusta@example.com", "firstname": "Ada", "lastname": "Number1"}


@pytest.mark.parametrize(
    ("overwrite", "ours", "expected"),
    [
        ("never", True, "Augusta"),
        ("never", False, "Augusta"),
        ("ours", True, "Ada"),
        ("ours", False, "Augusta"),
        ("always", True, "Ada"),
        ("always", False, "Ada"),
    ],
)
async def test_overwrite_says_which_records_may_lose_a_value(
    hubspot: HubSpotRig, overwrite: str, ours: bool, expected: str
) -> None:
    there = hubspot.seed(email="ada1@example.com", firstname="Augusta")
    hubspot.build(overwrite=overwrite)

    receipt = await delivered(hubspot, owed(remote_id=there, ours=ours))

    assert receipt == Receipt(there, ours=ours)
    assert hubspot.properties(there)["firstname"] == expected


@pytest.mark.parametrize("uid_property", [None, UID])
async def test_a_record_made_by_somebody_else_meanwhile_stays_theirs(
    hubspot: HubSpotRig, uid_property: str | None
) -> None:
    destination = hubspot.build(uid_property=uid_property, create_fields={"hs_lead_status": "NEW"})
    await destination.repair()
    theirs = {"email": "ada1@example.com", "firstname": "Alice", "phone": "+12025550177"}

    async def meanwhile(deliveries: object, at: float | None = None) -> None:
        hubspot.seed(**theirs)

    ours, taken = await destination.upsert([owed(2), owed(phone="+442071234567")], meanwhile)

    assert isinstance(ours, Receipt)
    assert isinstance(taken, Receipt)
    assert (ours.ours, taken.ours) == (True, False)
    assert hubspot.properties(taken.remote_id) == {**theirs, "lastname": "Number1"}


@pytest.mark.parametrize("uid_property", [None, UID])
async def test_a_batch_that_was_made_and_failed_all_the_same_is_known_to_be_ours(
    hubspot: HubSpotRig, uid_property: str | None
) -> None:
    destination = hubspot.build(uid_property=uid_property)
    await destination.repair()
    calls = []

    def fails_after_the_first_create(request: httpx.Request) -> bool:
        calls.extend([request] if request.url.path.endswith("/batch/create") else [])
        return len(calls) == 1 and request is calls[0]

    hubspot.wire.breaks_after = fails_after_the_first_create
    receipts = await destination.upsert([owed(1), owed(2)], hubspot.intend)

    assert [isinstance(receipt, Receipt) and receipt.ours for receipt in receipts] == [True, True]
    assert len(hubspot.people()) == 2


HOURS = 3600.0


@pytest.mark.parametrize("uid_property", [None, UID])
async def test_an_announcement_does_not_make_a_later_record_ours(hubspot: HubSpotRig, uid_property: str | None) -> None:
    await hubspot.build(uid_property=uid_property).repair()
    there = hubspot.seed(email="ada1@example.com", firstname="Alice", phone="+12025550177")

    receipt = await delivered(hubspot, owed(claim=2, phone="+442071234567", intended_at=NOW - 2 * HOURS))

    assert receipt == Receipt(there, ours=False)
    assert hubspot.properties(there)["firstname"] == "Alice"
    assert hubspot.properties(there)["phone"] == "+12025550177"


async def test_where_our_uid_is_written_an_announcement_proves_nothing(hubspot: HubSpotRig) -> None:
    rig = await with_uid(hubspot)
    there = rig.seed(email="ada1@example.com", firstname="Alice")

    receipt = await delivered(rig, owed(claim=2, intended_at=NOW))

    assert receipt == Receipt(there, ours=False)
    assert rig.properties(there)["firstname"] == "Alice"


@pytest.mark.parametrize(
    ("made", "is_ours"),
    [
        (iso(NOW - 299), True),
        (iso(NOW + 899), True),
        (iso(NOW - 301), False),
        (iso(NOW + 901), False),
        ("yesterday", False),
        (None, False),
    ],
)
async def test_without_a_uid_a_record_is_ours_if_it_was_made_when_we_announced_it(
    hubspot: HubSpotRig, made: str | None, is_ours: bool
) -> None:
    said = {"email": "ada1@example.com", "firstname": "Ada", "lastname": "Number1", "createdate": made}
    hubspot.wire.instead = lambda request: httpx.Response(200, json={"results": [{"id": "7", "properties": said}]})

    assert await delivered(hubspot, owed(claim=2, intended_at=NOW)) == Receipt("7", ours=is_ours)


async def test_a_record_that_landed_late_after_all_is_known_to_be_ours(hubspot: HubSpotRig) -> None:
    async def lands_late(deliveries: object, at: float | None = None) -> None:
        hubspot.seed(email="ada1@example.com", firstname="Adda")

    (receipt,) = await hubspot.destination.upsert([owed(claim=2, intended_at=NOW - 60)], lands_late)

    assert isinstance(receipt, Receipt)
    assert receipt.ours
    assert hubspot.properties(receipt.remote_id)["firstname"] == "Ada"


async def test_the_intent_is_committed_before_anything_is_created(hubspot: HubSpotRig) -> None:
    async def refuses(deliveries: object, at: float | None = None) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await hubspot.destination.upsert([owed()], refuses)

    assert hubspot.people() == []


async def test_only_what_is_created_is_announced(hubspot: HubSpotRig) -> None:
    hubspot.seed(email="ada1@example.com")

    await hubspot.upsert(owed(1), owed(2))

    assert hubspot.intended == ["delivery2"]


async def test_fields_for_creation_are_written_only_on_creation(hubspot: HubSpotRig) -> None:
    there = hubspot.seed(email="ada1@example.com")
    hubspot.build(create_fields={"hs_lead_status": "NEW"})

    new = await hubspot.upsert(owed(1), owed(2))

    assert "hs_lead_status" not in hubspot.properties(there)
    assert isinstance(new[1], Receipt)
    assert hubspot.properties(new[1].remote_id)["hs_lead_status"] == "NEW"


# Who is it?


async def test_two_contacts_of_one_call_never_share_an_email(hubspot: HubSpotRig) -> None:
    first, second = await hubspot.upsert(owed(1), owed(2, email="ADA1@example.com"))

    assert isinstance(first, Receipt)
    assert isinstance(second, Busy)
    assert len(hubspot.people()) == 1


@pytest.mark.parametrize("ours", [True, False])
async def test_two_contacts_of_one_call_never_write_one_record(hubspot: HubSpotRig, ours: bool) -> None:
    there = hubspot.seed(email="ada@example.com")

    first, second = await hubspot.upsert(owed(1, remote_id=there, ours=ours), owed(2, remote_id=there, ours=ours))

    assert isinstance(first, Receipt)
    assert isinstance(second, Busy)


async def test_a_corrected_email_that_somebody_already_has_leads_to_their_record(hubspot: HubSpotRig) -> None:
    typo = await delivered(hubspot, owed(email="adda@example.com"))
    right = hubspot.seed(email="ada1@example.com", firstname="Augusta")

    receipt = await delivered(hubspot, owed(version=2, remote_id=typo.remote_id, ours=True))

    assert receipt == Receipt(right, ours=False, left_behind=typo.remote_id)
    assert hubspot.properties(right)["firstname"] == "Augusta"
    assert hubspot.properties(typo.remote_id)["email"] == "adda@example.com"


async def test_a_deleted_record_does_not_lead_to_overwriting_somebody_elses(hubspot: HubSpotRig) -> None:
    there = hubspot.seed(email="ada1@example.com", firstname="Augusta")

    receipt = await delivered(hubspot, owed(remote_id="999", ours=True, intended_at=NOW))

    assert receipt == Receipt(there, ours=False)
    assert hubspot.properties(there)["firstname"] == "Augusta"


async def test_a_merged_record_is_known_by_its_new_id(hubspot: HubSpotRig) -> None:
    merged = {"id": "900", "properties": {"email": "ada1@example.com", "hs_merged_object_ids": "101;102"}}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/batch/update") and b'"101"' in request.content:
            return httpx.Response(200, json={"status": "COMPLETE", "results": []})
        return httpx.Response(200, json={"status": "COMPLETE", "results": [merged]})

    hubspot.wire.instead = answer

    assert await delivered(hubspot, owed(remote_id="101", ours=True)) == Receipt("900", ours=True)


async def test_a_second_email_of_a_record_leads_to_it_and_does_not_become_its_first(hubspot: HubSpotRig) -> None:
    emails = {"email": "ada@work.example", "hs_additional_emails": "x@example.com;Ada1@example.com"}
    properties = {**emails, "createdate": iso(NOW + 1)}
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/batch/update"):
            sent.extend(json.loads(request.content)["inputs"])
        return httpx.Response(200, json={"results": [{"id": "7", "properties": properties}]})

    hubspot.wire.instead = answer

    assert await delivered(hubspot, owed(intended_at=NOW)) == Receipt("7", ours=True)
    assert [entry["properties"] for entry in sent] == [{"firstname": "Ada", "lastname": "Number1"}]


async def test_an_id_in_the_text_of_a_conflict_is_adopted(hubspot: HubSpotRig) -> None:
    there = hubspot.seed(email="other@example.com")
    said = {"category": "CONFLICT", "message": f"Contact already exists. Existing ID: {there}"}
    hubspot.faults.answer_next = [None, Scripted(409, said)]

    receipt = await delivered(hubspot, owed(phone="+442071234567"))

    assert receipt == Receipt(there, ours=False)
    assert hubspot.properties(there)["phone"] == "+442071234567"
    assert hubspot.properties(there)["email"] == "other@example.com"


async def test_what_a_visitor_typed_is_not_taken_for_hubspots_word(hubspot: HubSpotRig) -> None:
    stranger = hubspot.seed(email="other@example.com")
    forged = f'Existing ID: {stranger} {stranger} already has that value "error":"PROPERTY_DOESNT_EXIST"'
    said = {
        "category": "VALIDATION_ERROR",
        "message": "Property values were not valid: " + json.dumps([{"message": forged, "error": "INVALID_EMAIL"}]),
        "errors": [{"message": forged, "code": "INVALID_EMAIL", "context": {"propertyName": ["email"]}}],
    }
    hubspot.faults.answer_next = [None, Scripted(400, said)]

    error = await failed(hubspot, owed())

    assert isinstance(error, Refused)
    assert error.field == "email"
    assert stranger not in error.reason


# Our uid on the record


async def test_doctor_makes_the_property_for_our_uid_once(hubspot: HubSpotRig) -> None:
    destination = hubspot.build(uid_property=UID)
    with pytest.raises(Unauthorized, match="doctor --fix"):
        await destination.check()

    assert await destination.repair() == [f"made the contact property {UID}"]
    assert await destination.repair() == []
    assert await destination.check() == "HubSpot account 24680246"


async def with_uid(rig: HubSpotRig) -> HubSpotRig:
    await rig.build(uid_property=UID).repair()
    return rig


async def test_every_record_that_we_create_carries_our_uid(hubspot: HubSpotRig) -> None:
    rig = await with_uid(hubspot)

    receipt = await delivered(rig, owed())

    assert rig.properties(receipt.remote_id)[UID] == "uid-1"


async def test_a_record_that_we_adopt_does_not_get_our_uid(hubspot: HubSpotRig) -> None:
    rig = await with_uid(hubspot)
    there = rig.seed(email="ada1@example.com")

    await delivered(rig, owed())

    assert UID not in rig.properties(there)


async def test_our_uid_on_a_record_says_that_it_is_ours(hubspot: HubSpotRig) -> None:
    rig = await with_uid(hubspot)
    there = rig.seed(**{"email": "ada1@example.com", "firstname": "Typo", UID: "uid-1"})

    assert await delivered(rig, owed()) == Receipt(there, ours=True)
    assert rig.properties(there)["firstname"] == "Ada"


async def test_a_phone_without_email_can_be_sent_again_under_our_uid(hubspot: HubSpotRig) -> None:
    rig = await with_uid(hubspot)

    first = await delivered(rig, only_phone())
    second = await delivered(rig, only_phone(claim=2, intended_at=NOW))

    assert first == second
    assert len(rig.people()) == 1


async def test_a_lost_record_is_found_by_uid_although_its_email_has_changed(hubspot: HubSpotRig) -> None:
    rig = await with_uid(hubspot)
    first = await delivered(rig, owed(email="adda@example.com"))

    second = await delivered(rig, owed(version=2, claim=2, intended_at=NOW))

    assert second == first
    assert [person.email for person in rig.people()] == ["ada1@example.com"]


async def test_a_uid_that_another_record_has_leads_to_it(hubspot: HubSpotRig) -> None:
    rig = await with_uid(hubspot)
    there = rig.seed(**{"email": "adda@example.com", UID: "uid-1"})

    assert await delivered(rig, owed()) == Receipt(there, ours=True)
    assert [person.email for person in rig.people()] == ["ada1@example.com"]


# A phone only, and nothing to know the record by


async def test_a_phone_without_email_is_created(hubspot: HubSpotRig) -> None:
    receipt = await delivered(hubspot, only_phone())

    assert receipt.ours
    assert [(person.email, person.phone) for person in hubspot.people()] == [(None, "+442071234567")]


async def test_a_lost_create_is_searched_for_once_the_index_has_it(hubspot: HubSpotRig) -> None:
    hubspot.faults.index_lag = 30
    hubspot.wire.loses_answers = True
    await failed(hubspot, only_phone())
    hubspot.wire.loses_answers = False

    hubspot.clock.now += 20
    too_soon = await failed(hubspot, only_phone(claim=2, intended_at=NOW))
    hubspot.clock.now += 60
    found = await delivered(hubspot, only_phone(claim=3, intended_at=NOW))

    assert isinstance(too_soon, Busy)
    assert too_soon.after == 41
    assert found.ours
    assert len(hubspot.people()) == 1


async def test_somebody_elses_record_with_the_same_phone_is_not_taken_for_the_lost_one(hubspot: HubSpotRig) -> None:
    hubspot.clock.now -= 10_000
    family = hubspot.seed(phone="+442071234567", firstname="Byron")
    hubspot.clock.now += 10_000
    mother = hubspot.seed(phone="+442071234567", email="anne@example.com")

    receipt = await delivered(hubspot, only_phone(claim=2, intended_at=NOW - 100))

    assert receipt.remote_id not in (family, mother)


async def test_a_record_with_the_same_phone_made_much_later_is_not_the_lost_one(hubspot: HubSpotRig) -> None:
    theirs = hubspot.seed(phone="+442071234567", firstname="Byron")

    receipt = await delivered(hubspot, only_phone(claim=2, intended_at=NOW - 2 * HOURS))

    assert receipt.remote_id != theirs


async def test_a_create_whose_answer_names_no_id_may_have_landed(hubspot: HubSpotRig) -> None:
    hubspot.faults.answer_next = [Scripted(201, {"properties": {}})]

    outcome = outcome_of(await failed(hubspot, only_phone()))

    assert isinstance(outcome, Retry)
    assert outcome.may_have_landed


async def test_a_phone_that_is_not_mapped_reaches_nobody(hubspot: HubSpotRig) -> None:
    hubspot.build(fields={"phone": ""})

    assert isinstance(await failed(hubspot, only_phone()), NotForHere)


async def test_a_refused_phone_without_email_is_refused(hubspot: HubSpotRig) -> None:
    hubspot.faults.reject, hubspot.faults.reject_names = (lambda there: "phone" in there), "phone"

    error = await failed(hubspot, only_phone())

    assert isinstance(error, Refused)
    assert error.field == "phone"


# Answers


async def test_a_refused_phone_costs_the_phone_not_the_contact(hubspot: HubSpotRig) -> None:
    hubspot.faults.reject, hubspot.faults.reject_names = (lambda there: "phone" in there), "phone"

    results = await hubspot.upsert(owed(1, phone="+1"), owed(2))

    assert all(isinstance(result, Receipt) for result in results)
    assert [(person.email, person.phone) for person in hubspot.people()] == [
        ("ada2@example.com", None),
        ("ada1@example.com", None),
    ]


async def test_a_refused_email_is_named_in_our_words(hubspot: HubSpotRig) -> None:
    hubspot.refuse("ada1@example.com")

    error = await failed(hubspot, owed())

    assert isinstance(error, Refused)
    assert error.field == "email"
    assert error.reason.endswith("at email")


async def test_one_poisonous_contact_does_not_hold_up_a_batch_that_fails_inside(hubspot: HubSpotRig) -> None:
    hubspot.refuse("ada37@example.com")
    hubspot.faults.reject_status = 500

    results = await hubspot.upsert(*(owed(number) for number in range(100)))

    assert [number for number, result in enumerate(results) if not isinstance(result, Receipt)] == [37]
    assert isinstance(results[37], Broken)
    assert hubspot.calls < 20


async def test_a_destination_that_fails_inside_gets_few_more_calls(hubspot: HubSpotRig) -> None:
    hubspot.faults.share_500 = 1.0

    results = await hubspot.upsert(*(owed(number) for number in range(100)))

    assert all(isinstance(result, Broken) for result in results)
    assert hubspot.calls < 20


async def test_a_throttled_batch_makes_no_further_calls(hubspot: HubSpotRig) -> None:
    there = hubspot.seed(email="ada2@example.com")
    hubspot.faults.answer_next = [None, Scripted(429, {"policyName": "TEN_SECONDLY_ROLLING"})]

    results = await hubspot.upsert(owed(1), owed(2), only_phone(number=3))

    assert all(isinstance(result, Throttled) for result in results)
    assert hubspot.calls == 2
    assert hubspot.properties(there) == {"email": "ada2@example.com"}


async def test_what_was_taken_before_a_throttle_stays_taken(hubspot: HubSpotRig) -> None:
    hubspot.seed(email="ada2@example.com")
    hubspot.faults.answer_next = [None, None, Scripted(429, {})]

    created, updated = await hubspot.upsert(owed(1), owed(2))

    assert isinstance(created, Receipt)
    assert isinstance(updated, Throttled)


async def test_a_silent_no_op_is_not_believed(hubspot: HubSpotRig) -> None:
    hubspot.faults.silent = True

    assert isinstance(await failed(hubspot, owed()), Broken)


async def test_shuffled_results_find_their_contacts(hubspot: HubSpotRig) -> None:
    hubspot.faults.shuffled = True

    results = await hubspot.upsert(*(owed(number) for number in range(20)))

    by_email = {person.email: person.remote_id for person in hubspot.people()}
    found = [result.remote_id for result in results if isinstance(result, Receipt)]
    assert found == [by_email[f"ada{number}@example.com"] for number in range(20)]


def writes_answered(answer: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> Callable[[httpx.Request], Any]:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/batch/read"):
            return httpx.Response(200, json={"status": "COMPLETE", "results": []})
        return httpx.Response(207, json={"status": "COMPLETE", **answer(json.loads(request.content)["inputs"])})

    return handler


def taken(entry: dict[str, Any]) -> dict[str, Any]:
    email = entry["properties"]["email"]
    return {"id": email.split("@")[0], "properties": {"email": email}}


async def test_what_an_answer_does_not_mention_is_tried_again(hubspot: HubSpotRig) -> None:
    hubspot.wire.instead = writes_answered(lambda inputs: {"results": [taken(inputs[0])]})

    first, second = await hubspot.upsert(owed(1), owed(2))

    assert isinstance(first, Receipt)
    assert isinstance(second, Busy)


async def test_an_error_that_names_nobody_is_narrowed_down(hubspot: HubSpotRig) -> None:
    def answer(inputs: list[dict[str, Any]]) -> dict[str, Any]:
        bad = [entry for entry in inputs if entry["properties"]["email"] == "ada2@example.com"]
        results = [taken(entry) for entry in inputs if entry not in bad]
        if len(inputs) > 2:
            results = results[:1]
        return {"results": results, "errors": [{"category": "VALIDATION_ERROR"}] if bad or len(inputs) > 2 else []}

    hubspot.wire.instead = writes_answered(answer)

    results = await hubspot.upsert(*(owed(number) for number in range(1, 6)))

    kinds = [Receipt, Refused, Receipt, Receipt, Receipt]
    assert [isinstance(result, kind) for result, kind in zip(results, kinds, strict=True)] == [True] * 5


@pytest.mark.parametrize("code", ["PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE"])
async def test_a_property_that_cannot_be_written_pauses_and_kills_nobody(hubspot: HubSpotRig, code: str) -> None:
    complaint = {"message": "no", "code": code, "context": {"propertyName": ["favourite_engine"]}}
    hubspot.faults.answer_next = [None, Scripted(400, {"category": "VALIDATION_ERROR", "errors": [complaint]})]

    first, second = await hubspot.upsert(owed(1), owed(2))

    assert isinstance(first, Unauthorized)
    assert isinstance(second, Unauthorized)
    assert "favourite_engine" in first.reason


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "after"),
    [
        (429, {"policyName": "DAILY"}, {"X-HubSpot-RateLimit-Interval-Milliseconds": "10000"}, Throttled, 3600),
        (429, {}, {"X-HubSpot-RateLimit-Interval-Milliseconds": "10000"}, Throttled, 10),
        (429, {}, {"X-HubSpot-RateLimit-Interval-Milliseconds": "5"}, Throttled, 1),
        (429, {}, {}, Throttled, 10),
        (423, {}, {}, Busy, 2),
        (423, {}, {"Retry-After": "9"}, Busy, 9),
        (477, {}, {"Retry-After": "7200"}, Unreachable, 7200),
    ],
)
async def test_how_long_hubspot_wants_us_to_wait(
    hubspot: HubSpotRig, status: int, body: dict[str, str], headers: dict[str, str], kind: type, after: float
) -> None:
    hubspot.faults.answer_next = [Scripted(status, body, headers)]

    error = await failed(hubspot, owed())

    assert isinstance(error, kind)
    assert getattr(error, "after", None) == after


async def test_missing_scopes_are_told_to_the_operator(hubspot: HubSpotRig) -> None:
    hubspot.faults.answer_next = [Scripted(403, {"category": "MISSING_SCOPES"})]

    error = await failed(hubspot, owed())

    assert error.reason == "the access token may not do this (403, MISSING_SCOPES): add its scopes"


async def test_a_wrong_address_pauses_and_kills_nobody(hubspot: HubSpotRig) -> None:
    hubspot.wire.instead = lambda request: httpx.Response(404, text="nginx")

    assert isinstance(await failed(hubspot, owed()), Unauthorized)
    with pytest.raises(Unauthorized, match="base URL"):
        await hubspot.destination.check()


# Chats


async def on_ada(rig: HubSpotRig) -> str:
    return (await delivered(rig, owed())).remote_id


async def test_a_note_can_be_read_by_a_person(hubspot: HubSpotRig) -> None:
    contact = await on_ada(hubspot)

    await hubspot.destination.log(owed_chat(contact_remote_id=contact), hubspot.intend)

    (note,) = hubspot.store.notes_of(int(contact))
    assert note.properties["hs_note_body"] == (
        "<p><strong>Live chat</strong></p><ul><li>Started: 2025-06-15 15:06 UTC</li><li>Closed: 2025-06-15 15:09 UTC"
        "</li><li>Waited: 12 seconds</li><li>Lasted: 3 minutes 5 seconds</li><li>Agent: Grace</li></ul>"
        "<p><strong>Ada</strong> (15:07): Hello</p><p><small>Ref chat-crm-sync/chat1</small></p>"
    )


def test_what_a_visitor_typed_is_never_markup() -> None:
    body = body_of(owed_chat(text="<img src=x onerror=alert(1)>\nsecond").subject, "chat1")

    assert "<img" not in body
    assert "&lt;img src=x onerror=alert(1)&gt;<br>second" in body


def test_a_long_transcript_is_clipped_and_says_so() -> None:
    chat = owed_chat().subject
    lines = tuple(Message(f"m{number}", "visitor", "&" * 1000) for number in range(100))

    body = body_of(replace(chat, transcript=lines), "chat1")

    assert 60_000 < len(body) <= 65_536
    assert "The rest of the transcript is left out" in body
    assert body.endswith("<small>Ref chat-crm-sync/chat1</small></p>")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 seconds"), (1, "1 second"), (61, "1 minute 1 second"), (3600, "1 hour"), (90061, "25 hours 1 minute")],
)
def test_a_span_of_time_is_said_in_words(seconds: float, said: str) -> None:
    assert in_words(seconds) == said


async def test_a_deleted_note_is_written_anew_for_an_event_only(hubspot: HubSpotRig) -> None:
    contact = await on_ada(hubspot)

    anew = await hubspot.destination.log(owed_chat(1, contact_remote_id=contact, remote_id="999"), hubspot.intend)
    with pytest.raises(Gone):
        await hubspot.destination.log(
            owed_chat(2, contact_remote_id=contact, remote_id="999", is_replay=True), hubspot.intend
        )

    assert [str(note.id) for note in hubspot.store.notes] == [anew.remote_id]


async def refused_chat(rig: HubSpotRig, one: Owed[Chat]) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        await rig.destination.log(one, rig.intend)
    return raised.value


async def test_a_chat_of_a_deleted_contact_says_so_and_costs_one_read(hubspot: HubSpotRig) -> None:
    error = await refused_chat(hubspot, owed_chat(contact_remote_id="999"))

    assert type(error) is ContactGone
    assert error.reason == "its contact is not there any more"
    assert hubspot.calls == 2
    assert hubspot.chats() == 0


@pytest.mark.parametrize("status", [400, 404])
async def test_a_refused_note_says_that_its_contact_is_gone_only_if_it_is(hubspot: HubSpotRig, status: int) -> None:
    contact = await on_ada(hubspot)
    refusal = Scripted(status, {"category": "VALIDATION_ERROR" if status == 400 else "OBJECT_NOT_FOUND"})

    hubspot.faults.answer_next = [refusal]
    there = await refused_chat(hubspot, owed_chat(1, contact_remote_id=contact))
    hubspot.store.remove(int(contact))
    hubspot.faults.answer_next = [refusal]
    gone = await refused_chat(hubspot, owed_chat(2, contact_remote_id=contact))

    assert type(there) is (Rejected if status == 400 else Busy)
    assert type(gone) is ContactGone


async def test_whether_a_contact_is_gone_is_not_guessed(hubspot: HubSpotRig) -> None:
    hubspot.faults.answer_next = [None, Scripted(503, {})]

    assert isinstance(await refused_chat(hubspot, owed_chat(contact_remote_id="999")), Unreachable)


async def test_a_replayed_chat_of_a_deleted_contact_brings_nobody_back(hubspot: HubSpotRig) -> None:
    error = await refused_chat(hubspot, owed_chat(contact_remote_id="999", is_replay=True))

    assert type(error) is Gone


async def test_a_chat_without_a_contact_there_waits_for_it(hubspot: HubSpotRig) -> None:
    error = await refused_chat(hubspot, owed_chat())

    assert isinstance(error, NotForHere)
    assert error.reason == "its contact is not there yet"


async def test_a_lost_note_is_not_looked_for_before_the_index_can_have_it(hubspot: HubSpotRig) -> None:
    contact = await on_ada(hubspot)

    with pytest.raises(Busy) as raised:
        lost = owed_chat(contact_remote_id=contact, claim=2, intended_at=NOW - 5)
        await hubspot.destination.log(lost, hubspot.intend)

    assert raised.value.after == 56


async def test_another_chat_of_the_same_contact_is_not_taken_for_the_lost_one(hubspot: HubSpotRig) -> None:
    contact = await on_ada(hubspot)
    other = await hubspot.destination.log(owed_chat(11, contact_remote_id=contact), hubspot.intend)

    lost = owed_chat(1, contact_remote_id=contact, claim=2, intended_at=NOW - 100)
    receipt = await hubspot.destination.log(lost, hubspot.intend)

    assert receipt.remote_id != other.remote_id
    assert hubspot.chats() == 2


# The account


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fields": {"City": "no_such_property"}}, "there is no contact property no_such_property"),
        ({"fields": {"City": "createdate"}}, "the contact property createdate cannot be written"),
        ({"create_fields": {"no_such_property": "x"}}, "there is no contact property no_such_property"),
        ({"uid_property": "city"}, "the contact property city does not hold unique values"),
    ],
)
async def test_a_check_says_what_to_put_right(hubspot: HubSpotRig, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(Unauthorized, match=said):
        await hubspot.build(**settings).check()


async def test_a_wrong_token_is_told_by_the_check(hubspot: HubSpotRig) -> None:
    wrong = hubspot.client("http://localhost", {"Authorization": "Bearer wrong"})
    destination = HubSpot("hubspot", hubspot.destination.settings, wrong, clock=hubspot.clock)

    with pytest.raises(Unauthorized, match="does not accept the access token"):
        await destination.check()


# Reading back


async def as_known(rig: HubSpotRig, one: Owed[Contact]) -> Owed[Contact]:
    """A contact as the ledger has it after its delivery."""
    receipt = await delivered(rig, one)
    return replace(one, remote_id=receipt.remote_id, ours=receipt.ours)


async def standing(rig: HubSpotRig, one: Owed[Contact]) -> Standing:
    (found,) = await rig.destination.read_back([one])
    return found


async def test_a_deleted_record_is_known_as_deleted_until_it_is_purged(hubspot: HubSpotRig) -> None:
    one = await as_known(hubspot, owed())
    hubspot.store.archive(int(str(one.remote_id)), now=NOW)

    deleted = await standing(hubspot, one)
    hubspot.clock.now += HubSpot.tells_deleted_for

    assert deleted == Standing(None, is_deleted=True)
    assert await standing(hubspot, one) == Standing(None)


async def test_a_merged_record_is_read_back_under_its_new_id_and_is_nobodys(hubspot: HubSpotRig) -> None:
    await hubspot.build(uid_property=UID).repair()
    one = await as_known(hubspot, owed())
    store = hubspot.store
    theirs = store.one("contacts", int(hubspot.seed(email="sales@example.com", firstname="Augusta")))
    mine = store.one("contacts", int(str(one.remote_id)))
    assert theirs is not None
    assert mine is not None
    merged = store.merge(theirs, mine, made_by="sales", now=NOW)

    found = await standing(hubspot, one)

    assert (found.remote_id, found.ours) == (str(merged.id), False)
    assert [(d.field, d.theirs, d.may_write) for d in found.differences] == [("first_name", "Augusta", False)]


async def test_our_uid_on_a_merged_record_proves_nothing(hubspot: HubSpotRig) -> None:
    await hubspot.build(uid_property=UID).repair()
    there = hubspot.seed(email="ada1@example.com", firstname="Augusta", chat_uid="uid-1", hs_merged_object_ids="1;2")

    receipt = await delivered(hubspot, owed(remote_id=there, is_replay=True))

    assert not receipt.ours
    assert hubspot.properties(there)["firstname"] == "Augusta"


@pytest.mark.parametrize("uid_property", [None, UID])
async def test_a_record_made_anew_by_somebody_else_is_found_and_theirs(
    hubspot: HubSpotRig, uid_property: str | None
) -> None:
    await hubspot.build(uid_property=uid_property).repair()
    one = await as_known(hubspot, owed())
    hubspot.store.archive(int(str(one.remote_id)), now=NOW)
    other = hubspot.seed(email="ada1@example.com")

    found = await standing(hubspot, one)

    assert (found.remote_id, found.ours, found.is_deleted) == (other, False, True)
    assert {(d.field, d.may_write) for d in found.differences} == {("first_name", True), ("last_name", True)}


async def test_another_record_with_our_uid_is_told(hubspot: HubSpotRig) -> None:
    await hubspot.build(uid_property=UID).repair()
    one = await as_known(hubspot, only_phone())
    (record,) = hubspot.store.contacts
    hubspot.store.write("contacts", [Change(record, {UID: ""})], made_by="sales", now=NOW)
    other = hubspot.seed(lastname="Second", chat_uid="uid-1")

    assert (await standing(hubspot, one)).others == (other,)


async def test_whom_a_read_does_not_find_a_search_may(hubspot: HubSpotRig) -> None:
    """It is documented nowhere that a batch read by email finds people by their second emails."""
    one = await as_known(hubspot, owed())
    (record,) = hubspot.store.contacts
    hubspot.store.write("contacts", [Change(record, {"email": "changed@example.com"})], made_by="sales", now=NOW)
    other = hubspot.seed(email="x@example.com", hs_additional_emails="Ada1@example.com")
    hubspot.faults.answer_next = [None, Scripted(200, {"status": "COMPLETE", "results": []})]

    assert (await standing(hubspot, one)).others == (other,)


async def test_searches_keep_to_their_own_limits(hubspot: HubSpotRig) -> None:
    known = [owed(n, remote_id=str(5000 + n), email=f"{n}{'a' * 50}@example.com") for n in range(60)]
    gates = 0

    async def gate() -> None:
        nonlocal gates
        gates += 1

    hubspot.build(calls_per_10s=190)
    hubspot.destination.client.gate = gate

    standings = await hubspot.destination.read_back(known)

    searches = [request for request in hubspot.wire.requests if request.url.path.endswith("/search")]
    assert standings == [Standing(None)] * 60
    assert len(searches) > 1
    assert all(len(request.content) <= 3000 for request in searches)
    assert gates == len(hubspot.wire.requests) + 3 * len(searches)  # 19 calls a second, so a search counts for four


async def test_an_email_in_other_letters_is_no_difference(hubspot: HubSpotRig) -> None:
    one = await as_known(hubspot, owed(email="Ada1@Example.com"))

    assert await standing(hubspot, one) == Standing(one.remote_id, ours=True)


def test_the_pace_is_the_published_limit_and_can_be_set() -> None:
    settings = HubSpotSettings(access_token="x", calls_per_10s=190, _env_file=None)

    assert HubSpot.pace(settings) == Pace(190, 10)


# Mapping


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("Ada", "Ada", None),
        ("Ada Lovelace", "Ada", "Lovelace"),
        ("Lovelace, Ada", "Ada", "Lovelace"),
        ("Juan Carlos de la Vega", "Juan Carlos", "de la Vega"),
        ("Dr. Smith", None, "Smith"),
        ("Martin Luther King Jr.", "Martin Luther", "King Jr."),
        ("Dr", "Dr", None),
        ("ms", "ms", None),
        ("...", "...", None),
    ],
)
def test_a_name_is_split_as_people_mean_it(name: str, first: str | None, last: str | None) -> None:
    assert split_name(name) == (first, last)


def test_what_was_not_said_is_not_mapped() -> None:
    assert properties_of(Contact("c", "u", email="a@example.com"), NAMES) == {"email": "a@example.com"}


def test_an_attribute_goes_where_the_table_says() -> None:
    contact = Contact("c", "u", email="a@example.com", attributes={"City": "London", "Shoe": "38", "email": "forged"})

    mapped = properties_of(contact, {**NAMES, "City": "city"})

    assert mapped == {"email": "a@example.com", "city": "London"}


def test_a_value_is_clipped_to_what_a_property_holds() -> None:
    contact = Contact("c", "u", name="A" * (LONGEST + 1))

    assert len(properties_of(contact, NAMES)["firstname"]) == LONGEST


def test_the_table_of_names_can_be_changed_and_cut() -> None:
    settings = HubSpotSettings(access_token="x", fields={"phone": "mobilephone", "last_name": ""}, _env_file=None)

    assert settings.names == {"email": "email", "first_name": "firstname", "phone": "mobilephone"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HUBSPOT_FIELDS", '{"email": "work_email"}'),
        ("HUBSPOT_FIELDS", '{"City": "firstname"}'),
        ("HUBSPOT_FIELDS", '{"City": "Not A Name"}'),
        ("HUBSPOT_FIELDS", "city"),
        ("HUBSPOT_UID_PROPERTY", "Not A Name"),
        ("HUBSPOT_OVERWRITE", "sometimes"),
        ("HUBSPOT_BASE_URL", "http://crm.example.com"),
        ("HUBSPOT_CALLS_PER_10S", "0"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("HUBSPOT_ACCESS_TOKEN", "x")
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=variable):
        load(HubSpotSettings)


async def test_somebody_who_left_only_a_phone_is_called_by_it(hubspot: HubSpotRig) -> None:
    receipt = await delivered(hubspot, owed(email=None, name=None, phone="+12025550177"))

    assert hubspot.properties(receipt.remote_id)["lastname"] == "+12025550177"


async def test_who_holds_a_record_goes_before_who_found_it_by_its_old_email(hubspot: HubSpotRig) -> None:
    held = await delivered(hubspot, owed(1, email="old@example.com"))
    newcomer = owed(2, email="old@example.com")
    holder = owed(3, email="new@example.com", remote_id=held.remote_id, ours=True)

    first = await hubspot.upsert(newcomer, holder)
    again = await delivered(hubspot, newcomer)

    assert isinstance(first[0], Busy)
    assert first[1] == Receipt(held.remote_id, ours=True)
    assert again.remote_id != held.remote_id
    assert sorted(str(person.email) for person in hubspot.people()) == ["new@example.com", "old@example.com"]


def test_nobody_waits_longer_for_the_index_than_it_lags() -> None:
    for intended_at in (NOW - 10, NOW, NOW + HOURS):
        with pytest.raises(Busy) as raised:
            wait_for_index(intended_at, NOW, 60.0)
        assert raised.value.after is not None
        assert 0 < raised.value.after <= 61
    wait_for_index(NOW - 61, NOW, 60.0)
    wait_for_index(None, NOW, 60.0)


# Whose clock


class Announced:
    """Keeps when a creation was announced."""

    def __init__(self) -> None:
        self.at: float | None = None

    async def __call__(self, deliveries: object, at: float | None = None) -> None:
        self.at = at


@pytest.fixture(params=[-24 * HOURS, -1200, 0, 1200, 24 * HOURS])
def wrong(request: pytest.FixtureRequest, hubspot: HubSpotRig) -> HubSpotRig:
    """Our clock is wrong; HubSpot dates its answers."""
    hubspot.own_clock = Clock(NOW + request.param)
    hubspot.wire.dates = hubspot.clock
    return hubspot


async def test_a_record_whose_answer_was_lost_is_known_by_hubspots_clock(wrong: HubSpotRig) -> None:
    announced = Announced()
    await wrong.destination.check()
    wrong.wire.loses_answers = True
    await wrong.destination.upsert([only_phone()], announced)
    wrong.wire.loses_answers = False

    wrong.own_clock.now = NOW  # somebody sets it
    too_soon = await failed(wrong, only_phone(claim=2, intended_at=announced.at))
    wrong.clock.now += 70
    found = await delivered(wrong, only_phone(claim=2, intended_at=announced.at))

    assert isinstance(too_soon, Busy)
    assert found.ours
    assert len(wrong.people()) == 1


async def test_a_note_whose_answer_was_lost_waits_by_hubspots_clock(wrong: HubSpotRig) -> None:
    announced = Announced()
    contact = await on_ada(wrong)
    wrong.faults.index_lag = 60
    wrong.wire.loses_answers = True
    with pytest.raises(Unreachable):
        await wrong.destination.log(owed_chat(contact_remote_id=contact), announced)
    wrong.wire.loses_answers = False

    wrong.own_clock.now += 24 * HOURS  # somebody sets it
    again = owed_chat(contact_remote_id=contact, claim=2, intended_at=announced.at)
    with pytest.raises(Busy):
        await wrong.destination.log(again, announced)
    wrong.clock.now += 61
    await wrong.destination.log(again, announced)

    assert wrong.chats() == 1


async def test_before_the_first_answer_hubspot_is_asked_what_time_it_is(hubspot: HubSpotRig) -> None:
    announced = Announced()
    hubspot.own_clock = Clock(NOW - 24 * HOURS)
    hubspot.wire.dates = hubspot.clock
    hubspot.destination.client.has_heard = False

    await hubspot.destination.upsert([only_phone()], announced)

    assert announced.at == NOW
