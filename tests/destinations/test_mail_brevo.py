"""Brevo's quirks."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sync.destinations.base import Pace
from sync.destinations.mail.brevo import Brevo, BrevoSettings
from sync.errors import DeliveryError, SettingsError
from sync.models import Heard
from sync.outcomes import Dead, Delivered, Paused, Unknown
from sync.settings import load
from tests.destinations.mail_conformance import KEY, BrevoRig, Call, always, email

TOLD = Heard("ada@example.com", "bounced")


@pytest.fixture
def rig() -> Iterator[BrevoRig]:
    rig = BrevoRig()
    yield rig
    rig.close()


async def test_a_mail_is_sent_as_documented(rig: BrevoRig) -> None:
    await rig.send(email())

    (request,) = rig.wire.requests
    assert (request.method, request.url.path) == ("POST", "/v3/smtp/email")
    assert json.loads(request.content) == {
        "sender": {"email": "hello@engines.example", "name": "Analytical Engines"},
        "to": [{"email": "ada@example.com", "name": "Ada Lovelace"}],
        "subject": "Your chat with us",
        "textContent": "Thank you for the chat.\n",
        "htmlContent": "<p>Thank you for the chat.</p>\n",
        "headers": {**email().headers, "idempotencyKey": KEY},
        "replyTo": {"email": "support@engines.example", "name": "Support"},
    }


async def test_a_name_is_cut_where_the_vendor_would_refuse_it(rig: BrevoRig) -> None:
    await rig.send(email(to_name="A" * 200))

    assert rig.delivered()[0].to == ("A" * 70, "ada@example.com")


async def test_a_key_that_was_seen_before_says_nothing_of_its_mail(rig: BrevoRig) -> None:
    await rig.send(email())

    outcome = await rig.send(email())

    assert isinstance(outcome, Unknown)
    assert "duplicate_parameter" in outcome.reason
    assert len(rig.delivered()) == 1


async def test_a_request_that_never_arrived_is_made_good_by_the_second(rig: BrevoRig) -> None:
    rig.outage()
    await rig.send(email())
    rig.wire.instead = None

    assert isinstance(await rig.send(email()), Delivered)
    assert len(rig.delivered()) == 1


def test_keys_are_trusted_for_less_than_the_shorter_of_the_two_times_documented() -> None:
    assert Brevo.repeatable_for < 15 * 60


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "not_enough_credits"),
        (402, "not_enough_credits"),
        (402, "account_under_validation"),
        (400, "account_under_validation"),
        (400, "permission_denied"),
        (401, "unauthorized"),
        (403, "permission_denied"),
        (404, "document_not_found"),
        (405, "method_not_allowed"),
    ],
)
async def test_what_every_mail_would_meet_waits_for_a_person(rig: BrevoRig, status: int, code: str) -> None:
    rig.wire.instead = always(status, json={"code": code, "message": "no"})

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert outcome.needs_person
    assert code in outcome.reason


@pytest.mark.parametrize("code", ["invalid_parameter", "missing_parameter", "out_of_range", "bad_request"])
async def test_what_is_wrong_with_one_mail_is_its_own(rig: BrevoRig, code: str) -> None:
    rig.wire.instead = always(400, json={"code": code, "message": "no"})

    assert isinstance(await rig.send(email()), Dead)


async def test_a_check_names_the_company(rig: BrevoRig) -> None:
    assert await rig.mailer.check() == "Analytical Engines"

    rig.vendor.company = ""

    assert await rig.mailer.check() == "an account without a name"


async def test_an_account_that_cannot_be_read_proves_nothing(rig: BrevoRig) -> None:
    rig.wire.instead = always(200, content=b"<html>")

    with pytest.raises(DeliveryError):
        await rig.mailer.check()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_may_come_as_a_bearer_token(rig: BrevoRig, scheme: str) -> None:
    rig.mailer.verify({"authorization": f"{scheme} {rig.token}"}, b"{}", None)


def test_the_token_may_come_as_a_password(rig: BrevoRig) -> None:
    call: Call = rig.basic(TOLD)

    rig.mailer.verify(call.headers, call.body, None)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("hard_bounce", "bounced"),
        ("invalid_email", "bounced"),
        ("spam", "complained"),
        ("complaint", "complained"),
        ("unsubscribed", "unsubscribed"),
        ("unsubscribe", "unsubscribed"),
    ],
)
def test_what_is_for_good_is_heard(rig: BrevoRig, event: str, reason: str) -> None:
    said = {"event": event, "email": "ada@example.com", "tags": ["x"]}

    assert list(rig.mailer.heard(json.dumps(said).encode())) == [Heard("ada@example.com", reason)]


@pytest.mark.parametrize("event", ["soft_bounce", "blocked", "deferred", "error", "delivered", "request", "opened", 7])
def test_what_may_pass_is_not_heard(rig: BrevoRig, event: Any) -> None:
    assert list(rig.mailer.heard(json.dumps({"event": event, "email": "ada@example.com"}).encode())) == []


def test_a_batch_is_heard_whole(rig: BrevoRig) -> None:
    batch = [
        {"event": "hard_bounce", "email": "ada@example.com"},
        {"event": "delivered", "email": "bob@example.com"},
        "junk",
        {"event": "spam", "email": "eve@example.com"},
    ]

    heard = rig.mailer.heard(json.dumps(batch).encode())

    assert list(heard) == [Heard("ada@example.com", "bounced"), Heard("eve@example.com", "complained")]


def test_the_settings_are_read_under_the_vendors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREVO_API_KEY", "xkeysib-1")

    settings = load(BrevoSettings)

    assert settings.base_url == "https://api.brevo.com/v3"
    assert Brevo.headers(settings)["api-key"] == "xkeysib-1"
    assert Brevo.pace(settings) == Pace(1000.0, 1.0)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BREVO_API_KEY", ""),
        ("BREVO_BASE_URL", "http://api.brevo.com/v3"),
        ("BREVO_WEBHOOK_TOKEN", "guessable"),
        ("BREVO_CALLS_PER_SECOND", "0"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("BREVO_API_KEY", "xkeysib-1")
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=rf"^{variable}: ") as raised:
        load(BrevoSettings)

    assert "guessable" not in str(raised.value)
