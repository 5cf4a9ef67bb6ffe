"""The generic webhook's quirks. The receiver is respx here: what counts is what goes over the wire."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import respx

from sync.destinations.base import Pace
from sync.destinations.webhook import Webhook, WebhookSettings
from sync.errors import DeliveryError, SettingsError, Unauthorized
from sync.http import Client
from sync.models import Receipt
from sync.settings import load
from tests.destinations.conformance import NOW, Clock, owed, owed_chat

URL = "https://hooks.example.com/in/?team=7"
KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def webhook(**settings: Any) -> Webhook:
    chosen = WebhookSettings(base_url=URL, _env_file=None, **settings)
    client = Client(chosen.base_url, headers=Webhook.headers(chosen), clock=Clock())
    return Webhook("webhook", chosen, client, clock=Clock())


@pytest.fixture
def receiver() -> Iterator[respx.Route]:
    with respx.mock(assert_all_called=False) as router:
        yield router.route(url=URL).respond(200)


async def no_intent(deliveries: object) -> None:
    raise AssertionError("a webhook announces nothing")


async def test_a_message_says_the_whole_contact_at_the_exact_address(receiver: respx.Route) -> None:
    contact = owed(version=3, attributes={"City": "London"})

    await webhook().upsert([contact], no_intent)

    request = receiver.calls.last.request
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == request.headers["webhook-id"] == "delivery1-3"
    assert json.loads(request.content) == {
        "type": "contact.updated",
        "timestamp": "2025-06-15T15:06:40Z",
        "data": {
            "uid": "uid-1",
            "name": "Ada Number1",
            "email": "ada1@example.com",
            "attributes": {"City": "London"},
            "version": 3,
        },
    }


async def test_a_message_is_signed_as_standard_webhooks_say(receiver: respx.Route) -> None:
    await webhook(secret=SECRET).upsert([owed()], no_intent)

    request = receiver.calls.last.request
    said = f"delivery1-1.{int(NOW)}.".encode() + request.content
    expected = base64.b64encode(hmac.new(KEY, said, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-timestamp"] == str(int(NOW))
    assert request.headers["webhook-signature"] == f"v1,{expected}"


async def test_without_a_secret_nothing_pretends_to_be_signed(receiver: respx.Route) -> None:
    await webhook().upsert([owed()], no_intent)

    assert "webhook-signature" not in receiver.calls.last.request.headers


async def test_a_chat_is_told_with_its_transcript(receiver: respx.Route) -> None:
    receipt = await webhook().log(owed_chat(contact_remote_id="uid-1"), no_intent)

    said = json.loads(receiver.calls.last.request.content)
    assert said["type"] == "chat.closed"
    assert said["data"]["contact"] == "uid-1"
    assert said["data"]["transcript"] == [
        {"id": "m1", "sender": "visitor", "text": "Hello", "at": "2025-06-15T15:07:00Z", "name": "Ada"}
    ]
    assert receipt == Receipt("acquire:v1:1", ours=True)


@pytest.mark.parametrize(
    ("body", "remote_id"),
    [
        ('{"id": "crm-9"}', "crm-9"),
        ('{"id": 9}', "9"),
        ('{"id": true}', "uid-1"),
        ('{"id": ""}', "uid-1"),
        ('{"id": "\\ud800"}', "uid-1"),
        ('{"id": "crm\\u0000-\\ud8009"}', "crm-9"),
        ('{"id": ["crm-9"]}', "uid-1"),
        ('{"id": "' + "9" * 300 + '"}', "9" * 200),
        ("", "uid-1"),
    ],
)
async def test_a_receiver_may_name_its_own_id(receiver: respx.Route, body: str, remote_id: str) -> None:
    receiver.respond(200, text=body)

    assert await webhook().upsert([owed()], no_intent) == [Receipt(remote_id, ours=True)]


async def test_an_id_that_was_named_once_is_kept(receiver: respx.Route) -> None:
    assert await webhook().upsert([owed(remote_id="crm-9")], no_intent) == [Receipt("crm-9", ours=True)]


@pytest.mark.parametrize("status", [301, 302, 307, 404, 410])
async def test_an_address_that_takes_no_webhooks_waits_for_a_person(receiver: respx.Route, status: int) -> None:
    receiver.respond(status, headers={"Location": "https://elsewhere.example.com/"})

    (error,) = await webhook().upsert([owed()], no_intent)

    assert isinstance(error, Unauthorized)
    assert "WEBHOOK_URL" in error.reason
    assert receiver.call_count == 1


async def test_an_erasure_is_told(receiver: respx.Route) -> None:
    await webhook().forget("uid-1")

    said = json.loads(receiver.calls.last.request.content)
    assert (said["type"], said["data"]) == ("contact.erased", {"uid": "uid-1"})


async def test_a_check_sends_no_message(receiver: respx.Route) -> None:
    assert await webhook().check() == "hooks.example.com"
    assert [call.request.method for call in receiver.calls] == ["HEAD"]


async def test_a_check_without_anybody_there_fails(receiver: respx.Route) -> None:
    receiver.mock(side_effect=httpx.ConnectTimeout)

    with pytest.raises(DeliveryError):
        await webhook().check()


@pytest.mark.parametrize(("calls", "pace"), [(None, None), (5, Pace(5, 1))])
def test_the_pace_is_the_receivers_wish(calls: float | None, pace: Pace | None) -> None:
    settings = WebhookSettings(base_url=URL, calls_per_second=calls, _env_file=None)

    assert Webhook.pace(settings) == pace


def test_the_address_is_read_from_webhook_url_to_the_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_URL", URL)

    assert load(WebhookSettings).base_url == URL


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WEBHOOK_URL", ""),
        ("WEBHOOK_URL", "http://hooks.example.com/"),
        ("WEBHOOK_URL", "hooks"),
        ("WEBHOOK_SECRET", "whsec_%%%"),
        ("WEBHOOK_SECRET", "whsec_c2hvcnQ="),
        ("WEBHOOK_CALLS_PER_SECOND", "0"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("WEBHOOK_URL", URL)
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=rf"^{variable}: ") as raised:
        load(WebhookSettings)

    assert not value or value not in str(raised.value).split(": ", 1)[1] or len(value) < 3
