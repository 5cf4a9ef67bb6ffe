"""Postmark's quirks."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sync.destinations.base import Pace
from sync.destinations.mail.postmark import Postmark, PostmarkSettings
from sync.errors import DeliveryError, SettingsError, Unauthorized
from sync.models import Heard
from sync.outcomes import Dead, Paused
from sync.settings import load
from tests.destinations.mail_conformance import PostmarkRig, always, email


@pytest.fixture
def rig() -> Iterator[PostmarkRig]:
    rig = PostmarkRig()
    yield rig
    rig.close()


async def test_a_mail_is_sent_as_documented(rig: PostmarkRig) -> None:
    await rig.send(email(to_name="Lovelace, Ada"))

    (request,) = rig.wire.requests
    assert (request.method, request.url.path) == ("POST", "/email")
    assert json.loads(request.content) == {
        "From": "Analytical Engines <hello@engines.example>",
        "To": '"Lovelace, Ada" <ada@example.com>',
        "Subject": "Your chat with us",
        "TextBody": "Thank you for the chat.\n",
        "HtmlBody": "<p>Thank you for the chat.</p>\n",
        "MessageStream": "outbound",
        "Headers": [
            *({"Name": name, "Value": value} for name, value in email().headers.items()),
            {"Name": "X-PM-KeepID", "Value": "true"},
        ],
        "ReplyTo": "Support <support@engines.example>",
    }


def test_a_mail_is_never_repeated() -> None:
    assert Postmark.repeatable_for == 0


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("code", [10, 400, 401, 405, 412, 413])
async def test_what_every_mail_would_meet_waits_for_a_person(rig: PostmarkRig, status: int, code: int) -> None:
    rig.wire.instead = always(status, json={"ErrorCode": code, "Message": "no"})

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert outcome.needs_person
    assert not outcome.may_have_landed
    assert f"ErrorCode {code}" in outcome.reason


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("code", [300, 402, 403, 406, 409, 411, 9999])
async def test_what_is_wrong_with_one_mail_is_its_own(rig: PostmarkRig, status: int, code: int) -> None:
    rig.wire.instead = always(status, json={"ErrorCode": code, "Message": "no", "MessageID": "m1"})

    outcome = await rig.send(email())

    assert isinstance(outcome, Dead)
    assert f"ErrorCode {code}" in outcome.reason


@pytest.mark.parametrize("status", [200, 422, 503])
async def test_maintenance_is_waited_for_and_nothing_went_out(rig: PostmarkRig, status: int) -> None:
    rig.wire.instead = always(status, json={"ErrorCode": 100, "Message": "maintenance"})

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert not outcome.needs_person
    assert not outcome.may_have_landed


async def test_a_limit_that_only_the_code_tells_of_is_a_limit(rig: PostmarkRig) -> None:
    rig.wire.instead = always(422, json={"ErrorCode": 429, "Message": "too many"})

    outcome = await rig.send(email())

    assert isinstance(outcome, Paused)
    assert not outcome.needs_person


async def test_a_check_looks_at_the_stream_too(rig: PostmarkRig) -> None:
    assert await rig.mailer.check() == "Engines"
    assert [request.url.path for request in rig.wire.requests] == ["/server", "/message-streams/outbound"]


async def test_a_check_says_when_no_mail_would_be_delivered(rig: PostmarkRig) -> None:
    rig.vendor.server["DeliveryType"] = "Sandbox"

    assert "no mail is delivered" in await rig.mailer.check()


@pytest.mark.parametrize(
    "streams",
    [
        {},
        {"outbound": {"MessageStreamType": "Inbound"}},
        {"outbound": {"MessageStreamType": "Transactional", "ArchivedAt": "2025-01-01T00:00:00Z"}},
    ],
)
async def test_a_stream_that_takes_no_mail_is_found_by_the_check(rig: PostmarkRig, streams: Any) -> None:
    rig.vendor.streams = streams

    with pytest.raises(Unauthorized, match="POSTMARK_MESSAGE_STREAM"):
        await rig.mailer.check()


async def test_a_server_that_cannot_be_read_proves_nothing(rig: PostmarkRig) -> None:
    rig.wire.instead = always(200, content=b"<html>")

    with pytest.raises(DeliveryError):
        await rig.mailer.check()


def test_the_token_may_come_as_a_password(rig: PostmarkRig) -> None:
    call = rig.basic(Heard("ada@example.com", "bounced"))

    rig.mailer.verify(call.headers, call.body, None)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"RecordType": "Bounce", "Type": "HardBounce"}, "bounced"),
        ({"RecordType": "Bounce", "Type": "BadEmailAddress"}, "bounced"),
        ({"RecordType": "Bounce", "Type": "SpamComplaint", "Inactive": True}, "complained"),
        ({"RecordType": "Bounce", "Type": "Unsubscribe"}, "unsubscribed"),
        ({"RecordType": "Bounce", "Type": "ManuallyDeactivated", "Inactive": True}, "bounced"),
        ({"RecordType": "Bounce", "Type": "SoftBounce", "Inactive": False}, None),
        ({"RecordType": "Bounce", "Type": "Transient"}, None),
        ({"RecordType": "Bounce", "Type": "AutoResponder", "Inactive": "true"}, None),
        ({"RecordType": "SpamComplaint"}, "complained"),
        ({"RecordType": "Delivery"}, None),
        ({"RecordType": "SubscriptionChange", "SuppressSending": True, "SuppressionReason": "HardBounce"}, "bounced"),
        (
            {"RecordType": "SubscriptionChange", "SuppressSending": True, "SuppressionReason": "SpamComplaint"},
            "complained",
        ),
        ({"RecordType": "SubscriptionChange", "SuppressSending": True, "SuppressionReason": []}, "unsubscribed"),
        ({"RecordType": "SubscriptionChange", "SuppressSending": False, "SuppressionReason": None}, None),
    ],
)
def test_only_what_is_for_good_is_heard(rig: PostmarkRig, event: dict[str, Any], reason: str | None) -> None:
    said = {"Email": "ada@example.com", "Recipient": "ada@example.com", "ID": 1, **event}

    heard = list(rig.mailer.heard(json.dumps(said).encode()))

    assert heard == ([Heard("ada@example.com", reason)] if reason else [])


def test_the_settings_are_read_under_the_vendors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTMARK_SERVER_TOKEN", "t-1")
    monkeypatch.setenv("POSTMARK_MESSAGE_STREAM", "follow-ups")

    settings = load(PostmarkSettings)

    assert settings.base_url == "https://api.postmarkapp.com"
    assert settings.message_stream == "follow-ups"
    assert Postmark.headers(settings)["X-Postmark-Server-Token"] == "t-1"
    assert Postmark.pace(settings) is None


def test_the_pace_is_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTMARK_SERVER_TOKEN", "t-1")
    monkeypatch.setenv("POSTMARK_CALLS_PER_SECOND", "10")

    assert Postmark.pace(load(PostmarkSettings)) == Pace(10.0, 1.0)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTMARK_SERVER_TOKEN", ""),
        ("POSTMARK_MESSAGE_STREAM", "../servers"),
        ("POSTMARK_BASE_URL", "http://api.postmarkapp.com"),
        ("POSTMARK_WEBHOOK_TOKEN", "guessable"),
        ("POSTMARK_CALLS_PER_SECOND", "0"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("POSTMARK_SERVER_TOKEN", "t-1")
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=rf"^{variable}: ") as raised:
        load(PostmarkSettings)

    assert "guessable" not in str(raised.value)
