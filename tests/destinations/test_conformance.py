"""What every destination must do, written once: each row of the table "whose fault is it?"."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from sync.destinations.base import Standing
from sync.errors import DeliveryError
from sync.http import ANSWER_LIMIT, send_by
from sync.models import Contact, Owed
from sync.outcomes import Dead, Delivered, Ignored, Outcome, Paused, Retry
from tests.destinations.conformance import CANARY, NOW, Rig, owed, owed_chat


def paused_by_fault(outcome: Outcome) -> bool:
    return isinstance(outcome, Paused) and not outcome.needs_person


def paused_for_a_person(outcome: Outcome) -> bool:
    return isinstance(outcome, Paused) and outcome.needs_person


def dead(outcome: Outcome) -> bool:
    return isinstance(outcome, Dead)


def retried(outcome: Outcome) -> bool:
    return isinstance(outcome, Retry) and not outcome.blames_destination


def retried_and_counted(outcome: Outcome) -> bool:
    return isinstance(outcome, Retry) and outcome.blames_destination


STATUSES = [
    *((status, dead) for status in (400, 422)),
    *((status, paused_for_a_person) for status in (401, 402, 403)),
    *((status, paused_by_fault) for status in (429, 502, 503, 504)),
    *((status, retried) for status in (408, 409, 423, 425)),
    *((status, retried_and_counted) for status in (500, 507)),
]


def always(status: int, **response: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(status, request=request, **response)


def raising(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


async def test_a_contact_is_taken_and_the_receipt_leads_to_it(rig: Rig) -> None:
    outcome = await rig.outcome(owed(phone="+442071234567"))

    assert isinstance(outcome, Delivered)
    assert outcome.receipt.ours
    (person,) = rig.people()
    assert (person.remote_id, person.email, person.phone) == (
        outcome.receipt.remote_id,
        "ada1@example.com",
        "+442071234567",
    )


async def test_somebody_without_email_and_phone_is_not_for_here(rig: Rig) -> None:
    outcome = await rig.outcome(owed(email=None))

    assert isinstance(outcome, Ignored)
    assert rig.people() == []


@pytest.mark.parametrize(("status", "expected"), STATUSES)
async def test_a_status_decides_whose_fault_it_is(rig: Rig, status: int, expected: Callable[[Outcome], bool]) -> None:
    rig.wire.instead = always(status, json={"status": "error", "message": f"no {CANARY}", "category": "OTHER"})

    outcome = await rig.outcome(owed(email=CANARY))

    assert expected(outcome), outcome
    assert not isinstance(outcome, Delivered)
    assert outcome.status == status


@pytest.mark.parametrize(("status", "expected"), STATUSES)
async def test_a_status_decides_whose_fault_a_chat_is(
    rig: Rig, status: int, expected: Callable[[Outcome], bool]
) -> None:
    rig.wire.instead = always(status, json={"status": "error", "message": "no", "category": "OTHER"})

    assert expected(await rig.logged(owed_chat(contact_remote_id="101")))


@pytest.mark.parametrize("status", [400, 401, 403, 409, 422, 429, 500, 503])
async def test_no_reason_holds_what_the_vendor_quoted(rig: Rig, status: int) -> None:
    quoted = {"message": f'Property values were not valid: [{{"name":"{CANARY}","message":"{CANARY}"}}]'}
    rig.wire.instead = always(
        status, json={"status": "error", "category": CANARY, "context": {"id": [CANARY]}, **quoted}
    )

    outcome = await rig.outcome(owed(email=CANARY))

    assert not isinstance(outcome, Delivered)
    assert CANARY not in outcome.reason


async def test_a_wait_hint_is_kept(rig: Rig) -> None:
    rig.wire.instead = always(429, headers={"Retry-After": "77"})

    outcome = await rig.outcome(owed())

    assert isinstance(outcome, Paused)
    assert outcome.after == 77


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.ConnectTimeout("slow"), httpx.ReadError("reset")],
    ids=lambda error: type(error).__name__,
)
async def test_without_an_answer_the_destination_is_paused(rig: Rig, error: Exception) -> None:
    rig.wire.instead = raising(error)

    assert paused_by_fault(await rig.outcome(owed()))


async def test_what_nobody_expected_is_not_swallowed(rig: Rig) -> None:
    rig.wire.instead = raising(RuntimeError("a bug"))

    with pytest.raises(RuntimeError):
        await rig.upsert(owed())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"null", b'{"results":7}', b"[" * 100_000])
async def test_a_success_without_a_sensible_body_is_not_believed(rig: Rig, body: bytes) -> None:
    rig.wire.instead = always(200, content=body)

    outcome = await rig.outcome(owed())

    if rig.reads_answers:
        assert isinstance(outcome, Retry)
    else:
        assert isinstance(outcome, Delivered)


async def test_a_huge_body_is_given_up(rig: Rig) -> None:
    rig.wire.instead = always(200, content=b" " * (ANSWER_LIMIT + 1))

    assert paused_by_fault(await rig.outcome(owed()))


async def test_a_redirect_is_not_followed(rig: Rig) -> None:
    rig.wire.instead = always(302, headers={"Location": "https://elsewhere.example.com/"})

    outcome = await rig.outcome(owed())

    assert not isinstance(outcome, Delivered | Dead)
    assert {request.url.host for request in rig.wire.requests} <= {"localhost", "hooks.example.com"}


async def test_nothing_is_sent_late_in_the_lease(rig: Rig) -> None:
    token = send_by.set(NOW - 1)
    try:
        outcome = await rig.outcome(owed())
    finally:
        send_by.reset(token)

    assert isinstance(outcome, Retry)
    assert rig.people() == []


async def test_one_bad_contact_never_sinks_the_others(rig: Rig) -> None:
    rig.refuse("ada3@example.com")

    outcomes = await rig.outcomes(*(owed(number) for number in range(1, 8)))

    assert [isinstance(outcome, Delivered) for outcome in outcomes] == [True, True, False, True, True, True, True]
    assert isinstance(outcomes[2], Dead)
    assert "ada3@example.com" not in {person.email for person in rig.people()}


async def test_the_same_contact_twice_is_one_record(rig: Rig) -> None:
    await rig.outcome(owed())
    await rig.outcome(owed(claim=2))

    assert len(rig.people()) == 1


async def test_a_lost_answer_makes_no_second_record(rig: Rig) -> None:
    rig.wire.loses_answers = True
    lost = await rig.outcome(owed())
    rig.wire.loses_answers = False

    outcome = await rig.outcome(owed(claim=2, intended_at=NOW if "delivery1" in rig.intended else None))

    assert paused_by_fault(lost)
    assert isinstance(outcome, Delivered)
    assert outcome.receipt.ours
    assert len(rig.people()) == 1


async def test_an_update_reaches_the_known_record_even_with_another_email(rig: Rig) -> None:
    first = await rig.outcome(owed(email="adda@example.com"))
    assert isinstance(first, Delivered)

    second = await rig.outcome(owed(version=2, remote_id=first.receipt.remote_id, ours=True, email="ada@example.com"))

    assert isinstance(second, Delivered)
    assert second.receipt == first.receipt
    assert [person.email for person in rig.people()] == ["ada@example.com"]


async def test_what_was_not_said_is_not_erased(rig: Rig) -> None:
    if not rig.keeps_what_others_wrote:
        pytest.skip("it takes whole states")
    first = await rig.outcome(owed(phone="+442071234567"))
    assert isinstance(first, Delivered)

    await rig.outcome(owed(version=2, remote_id=first.receipt.remote_id, ours=True))

    assert rig.people()[0].phone == "+442071234567"


@pytest.mark.parametrize("status", [404, 410])
async def test_a_record_that_is_gone_is_made_anew_for_an_event_only(rig: Rig, status: int) -> None:
    if not rig.has_ids_of_its_own:
        pytest.skip("it has no records that could be gone")

    by_event = await rig.outcome(owed(1, remote_id="999999", ours=True))
    by_replay = await rig.outcome(owed(2, remote_id="999999", ours=True, is_replay=True))
    rig.wire.instead = always(status, json={})
    by_status = await rig.outcome(owed(3, remote_id="999999", ours=True, is_replay=True))

    assert isinstance(by_event, Delivered)
    assert isinstance(by_replay, Ignored)
    assert isinstance(by_status, Ignored)
    assert [person.email for person in rig.people()] == ["ada1@example.com"]


async def test_results_come_one_for_each_and_in_order(rig: Rig) -> None:
    batch = [owed(number) for number in range(1, 6)]
    batch[2] = replace(batch[2], subject=replace(batch[2].subject, email=None))

    outcomes = await rig.outcomes(*batch)

    receipts = [outcome.receipt.remote_id if isinstance(outcome, Delivered) else None for outcome in outcomes]
    by_email = {person.email: person.remote_id for person in rig.people()}
    assert receipts == [by_email.get(f"ada{number}@example.com") for number in range(1, 6)]
    assert receipts[2] is None


async def test_a_chat_is_taken_once_and_brought_up_to_date(rig: Rig) -> None:
    contact = await rig.outcome(owed())
    assert isinstance(contact, Delivered)
    on = contact.receipt.remote_id

    first = await rig.logged(owed_chat(contact_remote_id=on))
    assert isinstance(first, Delivered)
    second = await rig.logged(owed_chat(version=2, contact_remote_id=on, remote_id=first.receipt.remote_id))

    assert isinstance(second, Delivered)
    assert second.receipt.remote_id == first.receipt.remote_id
    assert rig.chats() == 1


async def test_a_chat_without_a_contact_there_is_not_for_here(rig: Rig) -> None:
    assert isinstance(await rig.logged(owed_chat()), Ignored)
    assert rig.chats() == 0


async def test_a_lost_answer_makes_no_second_chat(rig: Rig) -> None:
    contact = await rig.outcome(owed())
    assert isinstance(contact, Delivered)
    chat = owed_chat(contact_remote_id=contact.receipt.remote_id)
    rig.wire.loses_answers = True
    lost = await rig.logged(chat)
    rig.wire.loses_answers = False
    rig.clock.now += 61

    outcome = await rig.logged(replace(chat, claim=2, intended_at=NOW if "chat1" in rig.intended else None))

    assert paused_by_fault(lost)
    assert isinstance(outcome, Delivered)
    assert rig.chats() == 1


async def test_a_person_can_be_forgotten_and_is_forgotten_only_once(rig: Rig) -> None:
    outcome = await rig.outcome(owed())
    assert isinstance(outcome, Delivered)

    await rig.destination.forget(outcome.receipt.remote_id)
    await rig.destination.forget(outcome.receipt.remote_id)

    assert rig.people() == []


async def known(rig: Rig, *numbers: int) -> list[Owed[Contact]]:
    """Contacts that were delivered, as the ledger has them afterwards."""
    if not rig.destination.reads_back:
        pytest.skip("it cannot be read back")
    batch = [owed(number) for number in numbers]
    outcomes = await rig.outcomes(*batch)
    return [
        replace(one, remote_id=outcome.receipt.remote_id, ours=outcome.receipt.ours)
        for one, outcome in zip(batch, outcomes, strict=True)
        if isinstance(outcome, Delivered)
    ]


async def test_what_was_delivered_stands_as_it_should(rig: Rig) -> None:
    delivered = await known(rig, *range(1, 121))

    standings = await rig.destination.read_back(delivered)

    assert standings == [Standing(one.remote_id, ours=True) for one in delivered]


async def test_what_stands_there_otherwise_is_told_in_our_words(rig: Rig) -> None:
    one, two = await known(rig, 1, 2)
    said = replace(one, subject=replace(one.subject, name="Augusta Number1", phone="+442071234567"))

    first, second = await rig.destination.read_back([said, two])

    assert second == Standing(two.remote_id, ours=True)
    assert {(d.field, d.ours, d.theirs, d.may_write) for d in first.differences} == {
        ("first_name", "Augusta", "Ada", True),
        ("phone", "+442071234567", None, True),
    }


async def test_who_is_not_there_any_more_is_told(rig: Rig) -> None:
    one, two = await known(rig, 1, 2)
    await rig.destination.forget(str(one.remote_id))

    assert await rig.destination.read_back([one, two]) == [Standing(None), Standing(two.remote_id, ours=True)]


async def test_reading_nobody_back_is_no_call(rig: Rig) -> None:
    await known(rig)
    rig.wire.requests.clear()

    assert await rig.destination.read_back([]) == []
    assert rig.wire.requests == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
async def test_an_error_never_means_that_nobody_is_there(rig: Rig, status: int) -> None:
    delivered = await known(rig, 1, 2, 3)
    rig.wire.instead = always(status, json={"status": "error", "message": f"no {CANARY}", "category": "OTHER"})

    with pytest.raises(DeliveryError) as raised:
        await rig.destination.read_back(delivered)

    assert CANARY not in raised.value.reason


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"null", b'{"results":7}'])
async def test_an_answer_without_sense_never_means_that_nobody_is_there(rig: Rig, body: bytes) -> None:
    delivered = await known(rig, 1, 2)
    rig.wire.instead = always(200, content=body)

    with pytest.raises(DeliveryError):
        await rig.destination.read_back(delivered)


async def test_a_check_changes_nothing_and_names_the_account(rig: Rig) -> None:
    assert await rig.destination.check()
    assert rig.people() == []


async def test_a_check_that_finds_nobody_says_so(rig: Rig) -> None:
    rig.wire.instead = always(503)

    with pytest.raises(DeliveryError):
        await rig.destination.check()


async def test_no_secret_is_shown_by_the_settings(rig: Rig) -> None:
    assert "t0ken" not in repr(rig.destination.settings)
