"""What every mailer must do, written once."""

import json
import re
from collections.abc import Callable, Iterator
from email.header import decode_header, make_header
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sync.errors import DeliveryError, NotAuthentic, Unauthorized
from sync.http import ANSWER_LIMIT, send_by
from sync.models import Heard
from sync.outcomes import Dead, Delivered, Outcome, Paused, Retry, Unknown
from tests.destinations.conformance import NOW
from tests.destinations.mail_conformance import (
    CANARY,
    HEARING_RIGS,
    HTTP_RIGS,
    RIGS,
    SECRET,
    HttpMailRig,
    MailRig,
    always,
    email,
    raising,
)
from tests.destinations.mail_conformance_sandbox import SandboxRig
from tests.destinations.mail_conformance_smtp import SmtpRig

NAMES = [
    'Ada "the Countess" Lovelace, PhD',
    "Zoë Ünïcode",
    "李小龍",
    "Dr. O'Neill (retired)",
    "back\\slash",
    "Eve <eve@example.com>",
    "a; b: c@d [e]",
    "A" * 60,
]

TROUBLES: dict[str, Callable[[MailRig], object]] = {
    "refused": lambda rig: rig.refuse_recipient(CANARY),
    "bad credentials": lambda rig: rig.bad_credentials(),
    "throttled": lambda rig: rig.throttle(),
    "outage": lambda rig: rig.outage(),
    "lost answer": lambda rig: rig.lose_answer(),
}

GARBAGE = [
    b"",
    b"<html>",
    b"[]",
    b"null",
    b"{}",
    b'{"id":null,"messageId":[],"MessageID":{}}',
    b'{"id":"","messageId":"","MessageID":""}',
    b'{"id":true,"messageId":true,"MessageID":true,"ErrorCode":"0"}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"ErrorCode":' + b"9" * 5000 + b"}",
]


@pytest.fixture(params=(*RIGS, SandboxRig, SmtpRig), ids=lambda rig: rig.name)
def rig(request: pytest.FixtureRequest) -> Iterator[MailRig]:
    rig: MailRig = request.param()
    yield rig
    rig.close()


@pytest.fixture(params=HTTP_RIGS, ids=lambda rig: rig.name)
def http(request: pytest.FixtureRequest) -> Iterator[HttpMailRig]:
    rig: HttpMailRig = request.param()
    yield rig
    rig.close()


@pytest.fixture(params=HEARING_RIGS, ids=lambda rig: rig.name)
def hearing(request: pytest.FixtureRequest) -> Iterator[HttpMailRig]:
    rig: HttpMailRig = request.param()
    yield rig
    rig.close()


def landed(outcome: Outcome) -> bool:
    """Whether the outcome leaves it open that a mail went out."""
    return isinstance(outcome, Unknown) or (isinstance(outcome, Paused | Retry) and outcome.may_have_landed)


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text))


def quoted(name: str, address: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{address}>'


async def test_a_mail_goes_out_once_and_whole(rig: MailRig) -> None:
    mail = email()

    outcome = await rig.send(mail)

    assert isinstance(outcome, Delivered)
    assert outcome.receipt.remote_id
    assert outcome.receipt.ours
    (arrived,) = rig.delivered()
    assert arrived.to == ("Ada Lovelace", "ada@example.com")
    assert arrived.sender == ("Analytical Engines", "hello@engines.example")
    assert arrived.reply_to == ("Support", "support@engines.example")
    assert (arrived.subject, arrived.text, arrived.html) == (mail.subject, mail.text, mail.html)
    assert {name: arrived.headers.get(name) for name in mail.headers} == mail.headers


async def test_a_mail_may_do_without_names_and_without_an_address_for_replies(rig: MailRig) -> None:
    outcome = await rig.send(email(to_name=None, sender="hello@engines.example", reply_to=None, headers={}))

    assert isinstance(outcome, Delivered)
    (arrived,) = rig.delivered()
    assert (arrived.to, arrived.sender) == (("", "ada@example.com"), ("", "hello@engines.example"))
    assert arrived.reply_to is None


async def test_each_mail_is_its_own(rig: MailRig) -> None:
    await rig.send(email())
    await rig.send(email(key="6f2b9c1e-2a51-4f0e-8f55-0c5a7b0d9e22", to="grace@example.com"))

    assert [arrived.to[1] for arrived in rig.delivered()] == ["ada@example.com", "grace@example.com"]


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_keeps_its_words_and_its_place(rig: MailRig, name: str) -> None:
    mail = email(
        to_name=name,
        sender=quoted(name, "hello@engines.example"),
        reply_to=quoted(name, "support@engines.example"),
    )

    assert isinstance(await rig.send(mail), Delivered)
    (arrived,) = rig.delivered()
    assert arrived.reply_to is not None
    for box, address in (
        (arrived.to, "ada@example.com"),
        (arrived.sender, "hello@engines.example"),
        (arrived.reply_to, "support@engines.example"),
    ):
        assert (words(box[0]), box[1]) == (words(name), address)


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x00", "\u2028", "\x85"])
async def test_no_text_begins_another_header(rig: MailRig, end: str) -> None:
    evil = f"Hello{end}Bcc: eve@example.com"
    mail = email(
        to_name=evil,
        subject=evil,
        sender=f'"{evil}" <hello@engines.example>',
        headers={"List-Unsubscribe": f"<https://engines.example/u>{end}Bcc: eve@example.com"},
    )

    outcome = await rig.send(mail)

    assert isinstance(outcome, Delivered)
    (arrived,) = rig.delivered()
    assert arrived.to[1] == "ada@example.com"
    assert arrived.sender[1] == "hello@engines.example"
    assert "bcc" not in {name.lower() for name in arrived.headers}
    assert not any(end in text for text in (arrived.subject, arrived.to[0], arrived.sender[0]))
    assert not any(end in value for value in arrived.headers.values())


@pytest.mark.parametrize("word", ["=?utf-8?q?http=3A//evil.example?=", "=?UTF-8?B?aHR0cDovL2V2aWwuZXhhbXBsZQ==?="])
async def test_nothing_hides_in_an_encoded_word(http: HttpMailRig, word: str) -> None:
    await http.send(email(to_name=word, subject=word))

    (arrived,) = http.delivered()
    for text in (arrived.to[0], arrived.subject):
        assert str(make_header(decode_header(text))) == text


@pytest.mark.parametrize(
    "to",
    [
        "",
        "ada",
        "ada@example.com, eve@example.com",
        "ada@example.com;eve@example.com",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\x00",
    ],
)
async def test_what_is_not_one_plain_address_gets_no_mail(rig: MailRig, to: str) -> None:
    assert isinstance(await rig.send(email(to=to)), Dead)
    assert rig.delivered() == []


@pytest.mark.parametrize("wrong", [{"sender": "nobody"}, {"sender": "a@b.example, c@d.example"}, {"reply_to": "@"}])
async def test_a_wrong_sender_is_for_a_person(rig: MailRig, wrong: dict[str, Any]) -> None:
    outcome = await rig.send(email(**wrong))

    assert isinstance(outcome, Paused)
    assert outcome.needs_person
    assert rig.delivered() == []


async def test_the_same_mail_twice_goes_out_once_where_the_vendor_knows_keys(rig: MailRig) -> None:
    if not rig.mailer.repeatable_for:
        pytest.skip("it has no idempotency key")
    await rig.send(email())
    rig.clock.now += rig.mailer.repeatable_for - 1

    again = await rig.send(email())

    assert isinstance(again, Delivered) or landed(again)
    assert len(rig.delivered()) == 1


async def test_a_lost_answer_leaves_it_open_whether_the_mail_went(rig: MailRig) -> None:
    rig.lose_answer()

    outcome = await rig.send(email())

    assert landed(outcome), outcome
    assert len(rig.delivered()) == 1


async def test_a_refused_recipient_is_for_good(rig: MailRig) -> None:
    rig.refuse_recipient("ada@example.com")

    assert isinstance(await rig.send(email()), Dead)
    assert rig.delivered() == []


async def test_wrong_credentials_wait_for_a_person(rig: MailRig) -> None:
    rig.bad_credentials()

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert outcome.needs_person
    assert not outcome.may_have_landed
    assert rig.delivered() == []


async def test_too_many_mails_wait_as_long_as_the_vendor_says(rig: MailRig) -> None:
    hint = rig.throttle()

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert not outcome.needs_person
    assert not outcome.may_have_landed
    assert outcome.after == hint
    assert rig.delivered() == []


async def test_where_nobody_answers_nothing_went_out(rig: MailRig) -> None:
    rig.outage()

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert not outcome.needs_person
    assert not outcome.may_have_landed
    assert rig.delivered() == []


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_reason_holds_an_address_or_a_secret(rig: MailRig, trouble: str) -> None:
    TROUBLES[trouble](rig)

    outcome = await rig.send(email(to=CANARY, to_name=CANARY, subject=CANARY, text=CANARY))

    assert not isinstance(outcome, Delivered)
    assert outcome.reason
    assert CANARY not in outcome.reason
    assert SECRET not in outcome.reason


async def test_a_check_sends_nothing_and_says_what_it_found(rig: MailRig) -> None:
    found = await rig.mailer.check()

    assert found
    assert SECRET not in found
    assert rig.delivered() == []


async def test_a_check_with_wrong_credentials_says_so(rig: MailRig) -> None:
    rig.bad_credentials()

    with pytest.raises(Unauthorized) as raised:
        await rig.mailer.check()

    assert SECRET not in raised.value.reason


async def test_a_check_that_finds_nobody_says_so(rig: MailRig) -> None:
    rig.outage()

    with pytest.raises(DeliveryError):
        await rig.mailer.check()


def test_no_secret_is_shown_by_the_settings(rig: MailRig) -> None:
    assert SECRET not in repr(rig.mailer.settings)


STATUSES = [
    *((status, Dead, False) for status in (400, 413, 422, 451)),
    *((status, Paused, False) for status in (301, 302, 307, 401, 402, 403, 404, 405, 410, 429)),
    *((status, Retry, False) for status in (408, 423, 425)),
    *((status, Retry, True) for status in (500, 507)),
    *((status, Paused, True) for status in (502, 503, 504)),
]


@pytest.mark.parametrize(("status", "expected", "open_"), STATUSES)
async def test_a_status_decides_whose_fault_it_is_and_whether_it_may_have_landed(
    http: HttpMailRig, status: int, expected: type[Outcome], open_: bool
) -> None:
    said = {"name": CANARY, "code": CANARY, "ErrorCode": CANARY, "message": f"{CANARY} {SECRET}", "Message": CANARY}
    http.wire.instead = always(status, json=said, headers={"Location": "https://elsewhere.example/"})

    outcome = await http.send(email(to=CANARY))

    assert isinstance(outcome, expected), outcome
    assert not isinstance(outcome, Delivered)
    assert landed(outcome) is open_
    assert outcome.status == status
    assert CANARY not in outcome.reason
    assert SECRET not in outcome.reason
    assert {request.url.host for request in http.wire.requests} == {"localhost"}


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: body[:12].decode("latin-1"))
async def test_a_success_that_names_no_mail_leaves_it_open(http: HttpMailRig, body: bytes) -> None:
    http.wire.instead = always(200, content=body)

    assert landed(await http.send(email()))


@pytest.mark.parametrize("status", [200, 302, 400, 401, 409, 422, 429, 500, 503])
@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: body[:12].decode("latin-1"))
async def test_a_garbled_answer_is_an_ordinary_failure(http: HttpMailRig, status: int, body: bytes) -> None:
    http.wire.instead = always(status, content=body, headers={"Retry-After": "soon", "x-sib-ratelimit-reset": "-1"})

    assert not isinstance(await http.send(email()), Delivered)
    try:
        await http.mailer.check()
    except DeliveryError as error:
        assert SECRET not in error.reason


@pytest.mark.parametrize(
    "error",
    [httpx.ReadTimeout("slow"), httpx.WriteError("reset"), httpx.ReadError("reset"), httpx.RemoteProtocolError("bye")],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_breaks_after_the_connection_leaves_it_open(http: HttpMailRig, error: Exception) -> None:
    http.wire.instead = raising(error)

    outcome = await http.send(email())

    assert landed(outcome)
    assert len(http.wire.requests) == 1


async def test_a_huge_answer_leaves_it_open(http: HttpMailRig) -> None:
    http.wire.instead = always(200, content=b" " * (ANSWER_LIMIT + 1))

    assert landed(await http.send(email()))


async def test_nothing_is_sent_late_in_the_lease(http: HttpMailRig) -> None:
    token = send_by.set(NOW - 1)
    try:
        outcome = await http.send(email())
    finally:
        send_by.reset(token)

    assert isinstance(outcome, Retry)
    assert not landed(outcome)
    assert http.wire.requests == []


@pytest.mark.parametrize("reason", ["bounced", "complained", "unsubscribed"])
def test_what_the_vendor_tells_is_heard(hearing: HttpMailRig, reason: str) -> None:
    heard = Heard("Ada.L@example.com", reason)
    try:
        call = hearing.tell(heard)
    except KeyError:
        pytest.skip(f"it tells of nobody who {reason}")

    hearing.mailer.verify(call.headers, call.body, call.token)

    assert list(hearing.mailer.heard(call.body)) == [heard]


def test_what_is_not_authentic_is_refused(hearing: HttpMailRig) -> None:
    for call in hearing.tampered(Heard("ada@example.com", "bounced")):
        with pytest.raises(NotAuthentic) as raised:
            hearing.mailer.verify(call.headers, call.body, call.token)
        assert "ada@example.com" not in str(raised.value)


def test_it_hears_only_with_a_secret(hearing: HttpMailRig) -> None:
    call = hearing.tell(Heard("ada@example.com", "bounced"))
    deaf = hearing.build(webhook_secret=None, webhook_token=None)

    assert hearing.mailer.hears
    assert not deaf.hears
    for token in (call.token, "", None):
        with pytest.raises(NotAuthentic):
            deaf.verify(call.headers, call.body, token)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("a@b.example")
NAMED = st.sampled_from(
    ["type", "data", "to", "bounce", "event", "email", "RecordType", "Type", "Email", "Recipient", "SuppressSending"]
)
VALUES = st.sampled_from(["email.bounced", "email.complained", "hard_bounce", "spam", "Bounce", "SubscriptionChange"])
ANYTHING = st.recursive(
    SCALARS | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMED, inner, max_size=4),
    max_leaves=8,
)


@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary(max_size=60) | ANYTHING.map(lambda said: json.dumps(said).encode()))
def test_nothing_that_is_told_breaks_anything(hearing: HttpMailRig, body: bytes) -> None:
    for heard in hearing.mailer.heard(body):
        assert "@" in heard.email


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: body[:12].decode("latin-1"))
def test_garbage_says_nothing_of_anybody(hearing: HttpMailRig, body: bytes) -> None:
    assert list(hearing.mailer.heard(body)) == []


@hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(headers=st.dictionaries(st.sampled_from(["authorization", "svix-id", "svix-timestamp"]), st.text(max_size=20)))
def test_no_header_breaks_anything(hearing: HttpMailRig, headers: dict[str, str]) -> None:
    with pytest.raises(NotAuthentic):
        hearing.mailer.verify({**headers, "svix-signature": "v1,AAAA"}, b"{}", None)
