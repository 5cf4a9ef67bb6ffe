"""Resend's quirks."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from sync.destinations.base import Pace
from sync.destinations.mail.resend import Resend, ResendSettings
from sync.errors import DeliveryError, SettingsError, Unauthorized
from sync.models import Heard
from sync.outcomes import Dead, Delivered, Paused, Retry, Unknown
from sync.settings import load
from tests.destinations.mail_conformance import KEY, ResendRig, always, email


@pytest.fixture
def rig() -> Iterator[ResendRig]:
    rig = ResendRig()
    yield rig
    rig.close()


async def test_a_mail_is_sent_as_documented(rig: ResendRig) -> None:
    await rig.send(email())

    (request,) = rig.wire.requests
    assert (request.method, request.url.path) == ("POST", "/emails")
    assert request.headers["idempotency-key"] == KEY
    assert request.headers["user-agent"].startswith("chat-crm-sync/")
    assert json.loads(request.content) == {
        "from": "Analytical Engines <hello@engines.example>",
        "to": ["Ada Lovelace <ada@example.com>"],
        "subject": "Your chat with us",
        "text": "Thank you for the chat.\n",
        "html": "<p>Thank you for the chat.</p>\n",
        "headers": dict(email().headers),
        "reply_to": ["Support <support@engines.example>"],
    }


async def test_a_name_goes_without_what_would_have_to_be_quoted(rig: ResendRig) -> None:
    await rig.send(email(sender='"Engines, Inc. (\\"AE\\")" <hello@engines.example>'))

    assert rig.delivered()[0].sender == ("Engines Inc. AE", "hello@engines.example")


async def test_a_mail_that_was_taken_before_gives_the_same_receipt(rig: ResendRig) -> None:
    first = await rig.send(email())
    again = await rig.send(email())

    assert isinstance(first, Delivered)
    assert again == first
    assert len(rig.delivered()) == 1


async def test_another_mail_under_the_same_key_is_never_believed_unsent(rig: ResendRig) -> None:
    await rig.send(email())

    outcome = await rig.send(email(text="Something else"))

    assert isinstance(outcome, Unknown)
    assert "invalid_idempotent_request" in outcome.reason
    assert len(rig.delivered()) == 1


async def test_a_mail_that_is_still_being_sent_is_asked_for_again(rig: ResendRig) -> None:
    rig.wire.instead = always(409, json={"statusCode": 409, "name": "concurrent_idempotent_requests"})

    outcome = await rig.send(email())

    assert isinstance(outcome, Retry)
    assert outcome.may_have_landed
    assert not outcome.blames_destination


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (401, "missing_api_key"),
        (401, "restricted_api_key"),
        (403, "invalid_api_key"),
        (403, "validation_error"),
        (422, "invalid_from_address"),
        (422, "invalid_access"),
        (429, "daily_quota_exceeded"),
        (429, "monthly_quota_exceeded"),
        (404, "not_found"),
        (405, "method_not_allowed"),
    ],
)
async def test_what_every_mail_would_meet_waits_for_a_person(rig: ResendRig, status: int, name: str) -> None:
    rig.wire.instead = always(status, json={"name": name}, headers={"retry-after": "3600"})

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert outcome.needs_person
    assert name in outcome.reason


@pytest.mark.parametrize(
    ("status", "name"),
    [(400, "invalid_idempotency_key"), (400, "validation_error"), (422, "validation_error"), (451, "security_error")],
)
async def test_what_is_wrong_with_one_mail_is_its_own(rig: ResendRig, status: int, name: str) -> None:
    rig.wire.instead = always(status, json={"name": name})

    assert isinstance(await rig.send(email()), Dead)


async def test_a_quota_waits_as_long_as_it_says(rig: ResendRig) -> None:
    rig.wire.instead = always(429, json={"name": "daily_quota_exceeded"}, headers={"retry-after": "3600"})

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert outcome.after == 3600


async def test_a_check_names_the_domains(rig: ResendRig) -> None:
    rig.vendor.domains.append({"name": "second.example"})

    assert await rig.mailer.check() == "engines.example, second.example"


async def test_a_key_that_may_only_send_proves_itself(rig: ResendRig) -> None:
    rig.vendor.may_only_send = True

    assert "may only send" in await rig.mailer.check()


async def test_without_a_domain_mail_would_reach_nobody(rig: ResendRig) -> None:
    rig.vendor.domains.clear()

    with pytest.raises(Unauthorized, match="domain"):
        await rig.mailer.check()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":7}'])
async def test_a_list_that_cannot_be_read_proves_nothing(rig: ResendRig, body: bytes) -> None:
    rig.wire.instead = always(200, content=body)

    with pytest.raises(DeliveryError):
        await rig.mailer.check()


def test_while_the_secret_changes_either_signature_will_do(rig: ResendRig) -> None:
    call = rig.tell(Heard("ada@example.com", "bounced"))
    headers = {**call.headers, "svix-signature": f"v1,AAAA v1a,BBBB {call.headers['svix-signature']}"}

    rig.mailer.verify(headers, call.body, None)


@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_signature_is_good_for_five_minutes(rig: ResendRig, seconds: float) -> None:
    call = rig.tell(Heard("ada@example.com", "bounced"))
    rig.clock.now += seconds

    rig.mailer.verify(call.headers, call.body, None)


@pytest.mark.parametrize(
    ("event", "heard"),
    [
        ({"type": "email.bounced", "data": {"to": ["ada@example.com"]}}, [Heard("ada@example.com", "bounced")]),
        ({"type": "email.bounced", "data": {"to": ["Ada <ada@example.com>"]}}, [Heard("ada@example.com", "bounced")]),
        ({"type": "email.bounced", "data": {"to": ["ada@example.com"], "bounce": {"type": "Transient"}}}, []),
        ({"type": "email.bounced", "data": {"to": ["ada@example.com"], "bounce": {"type": "Undetermined"}}}, []),
        ({"type": "email.bounced", "data": {"to": ["ada@example.com", "eve@example.com"]}}, []),
        ({"type": "email.complained", "data": {"to": []}}, []),
        ({"type": "email.complained", "data": {"to": "ada@example.com"}}, []),
        ({"type": "email.delivery_delayed", "data": {"to": ["ada@example.com"]}}, []),
        ({"type": "email.delivered", "data": {"to": ["ada@example.com"]}}, []),
    ],
)
def test_only_what_is_for_good_and_of_one_person_is_heard(rig: ResendRig, event: Any, heard: list[Heard]) -> None:
    assert list(rig.mailer.heard(json.dumps(event).encode())) == heard


def test_the_settings_are_read_under_the_vendors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEND_API_KEY", "re_123")
    monkeypatch.setenv("RESEND_WEBHOOK_SECRET", "whsec_" + base64.b64encode(b"k" * 24).decode())
    monkeypatch.setenv("RESEND_CALLS_PER_SECOND", "2")

    settings = load(ResendSettings)

    assert settings.base_url == "https://api.resend.com"
    assert Resend.headers(settings) == {"Authorization": "Bearer re_123"}
    assert Resend.pace(settings) == Pace(2.0, 1.0)
    assert Resend.repeatable_for < 24 * 3600


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RESEND_API_KEY", ""),
        ("RESEND_BASE_URL", "http://api.resend.com"),
        ("RESEND_WEBHOOK_SECRET", "whsec_%%%"),
        ("RESEND_WEBHOOK_SECRET", "whsec_"),
        ("RESEND_CALLS_PER_SECOND", "0"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("RESEND_API_KEY", "re_123")
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=rf"^{variable}: ") as raised:
        load(ResendSettings)

    assert "%%%" not in str(raised.value)
