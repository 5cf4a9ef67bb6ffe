"""Any address that takes a POST: signed as Standard Webhooks say, one message per contact or chat.

github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from sync.cleaning import said
from sync.destinations.base import Destination, Intend, Pace, Result
from sync.errors import DeliveryError, NotForHere, Unauthorized
from sync.http import Answer, error_of
from sync.models import Chat, Contact, Kind, Owed, Receipt
from sync.settings import DestinationSettings

PREFIX = "whsec_"
ID_LIMIT = 200
SHORTEST_SECRET = 24
"""Bytes, by the specification."""


class WebhookSettings(DestinationSettings):
    """`WEBHOOK_URL` is the whole address, taken to the letter. Without a secret messages go unsigned."""

    model_config = SettingsConfigDict(env_prefix="WEBHOOK_", loc_by_alias=False, populate_by_name=True)

    base_url: str = Field(validation_alias="WEBHOOK_URL")
    secret: SecretStr | None = None
    calls_per_second: float | None = Field(None, gt=0)

    @field_validator("base_url")
    @classmethod
    def _is_https_or_loopback(cls, value: str) -> str:
        super()._is_https_or_loopback(value)
        return value

    @field_validator("secret")
    @classmethod
    def _is_a_key(cls, secret: SecretStr | None) -> SecretStr | None:
        try:
            long_enough = secret is None or len(key_of(secret)) >= SHORTEST_SECRET
        except binascii.Error:
            raise ValueError("is not base64 (whsec_ and then the key)") from None
        if not long_enough:
            raise ValueError(f"holds less than {SHORTEST_SECRET} bytes")
        return secret


class Webhook(Destination):
    """One address of the user's own. Every 2xx counts as taken.

    A message says the whole state, so the newest `version` is all that its receiver needs; a message that is sent again
    has the same `webhook-id`.
    """

    vendor: ClassVar[str] = "webhook"
    Settings: ClassVar[type[DestinationSettings]] = WebhookSettings
    takes: ClassVar[frozenset[Kind]] = frozenset({Kind.CONTACT, Kind.CHAT, Kind.ERASURE})

    @classmethod
    def headers(cls, settings: Any) -> dict[str, str]:  # noqa: ARG003 - each message is signed for itself
        """What every message carries; signatures come with each."""
        return {"Content-Type": "application/json", "User-Agent": "chat-crm-sync"}

    @classmethod
    def pace(cls, settings: Any) -> Pace | None:
        """As the receiver wishes: `WEBHOOK_CALLS_PER_SECOND`."""
        return Pace(settings.calls_per_second, 1.0) if settings.calls_per_second else None

    async def check(self) -> str:
        """Whether somebody answers. A message would be taken for a real one, so none is sent."""
        answer = await self.client.call("HEAD", self.settings.base_url)
        if answer.status >= 500:
            raise self._error(answer)
        return urlsplit(self.settings.base_url).hostname or ""

    async def upsert(self, owed: Sequence[Owed[Contact]], intend: Intend) -> Sequence[Result]:  # noqa: ARG002 - the key makes repeats harmless
        """One message for each contact."""
        results: list[Result] = []
        for one in owed:
            try:
                results.append(await self._contact(one))
            except DeliveryError as error:
                results.append(error)
        return results

    async def _contact(self, one: Owed[Contact]) -> Receipt:
        contact = one.subject
        if not contact.is_reachable:
            raise NotForHere("no way to reach this person")
        data = {
            "uid": contact.uid,
            "name": contact.name,
            "email": contact.email,
            "phone": contact.phone,
            "attributes": dict(contact.attributes),
            "version": one.version,
        }
        key = f"{one.delivery}-{one.version}"
        answer = await self._post(key, "contact.updated", contact.updated_at, data)
        return Receipt(_id_in(answer) or one.remote_id or contact.uid, ours=True)

    async def log(self, owed: Owed[Chat], intend: Intend) -> Receipt:  # noqa: ARG002 - the same
        """One message for each chat, and one more whenever it changed."""
        if owed.contact_remote_id is None:
            raise NotForHere("its contact is not there yet")
        chat = owed.subject
        data = {
            "chat": chat.chat,
            "source": chat.source,
            "contact": owed.contact_remote_id,
            "started_at": _iso(chat.started_at),
            "accepted_at": _iso(chat.accepted_at),
            "closed_at": _iso(chat.closed_at),
            "wait": chat.wait,
            "duration": chat.duration,
            "agent": chat.agent,
            "transcript": [_said({**asdict(line), "at": _iso(line.at)}) for line in chat.transcript],
            "version": owed.version,
        }
        key = f"{owed.delivery}-{owed.version}"
        answer = await self._post(key, "chat.closed", chat.closed_at or chat.updated_at, data)
        return Receipt(_id_in(answer) or owed.remote_id or f"{chat.source}:{chat.chat}", ours=True)

    async def forget(self, remote_id: str) -> None:
        """Tell the receiver to forget a person; what it does is its own affair."""
        await self._post(f"erasure-{remote_id}", "contact.erased", self.clock(), {"uid": remote_id})

    async def _post(self, key: str, kind: str, at: float, data: Mapping[str, Any]) -> Answer:
        message = {"type": kind, "timestamp": _iso(at), "data": _said(data)}
        body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"Idempotency-Key": key, **self._signed(key.replace(".", "_"), body)}
        answer = await self.client.call("POST", self.settings.base_url, content=body, headers=headers)
        if not answer.is_success:
            raise self._error(answer)
        return answer

    def _signed(self, key: str, body: bytes) -> dict[str, str]:
        at = str(int(self.clock()))
        named = {"webhook-id": key, "webhook-timestamp": at}
        if self.settings.secret is None:
            return named
        signed = f"{key}.{at}.".encode() + body
        mac = hmac.new(key_of(self.settings.secret), signed, hashlib.sha256).digest()
        return {**named, "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}

    def _error(self, answer: Answer) -> DeliveryError:
        match answer.status:
            case 404 | 410:
                said = f"the address takes no webhooks any more ({answer.status}): set another WEBHOOK_URL"
                return Unauthorized(said, status=answer.status)
            case status if 300 <= status < 400:
                return Unauthorized(f"the address has moved ({status}): set the new WEBHOOK_URL", status=status)
        return error_of(answer, self.clock(), reason=f"the webhook's receiver answered {answer.status}")


def key_of(secret: SecretStr) -> bytes:
    """The signing key in a secret. Raises binascii.Error where it is not base64."""
    return base64.b64decode(secret.get_secret_value().removeprefix(PREFIX), validate=True)


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _id_in(answer: Answer) -> str | None:
    body = answer.json()
    named = body.get("id") if isinstance(body, dict) else None
    is_an_id = isinstance(named, str | int) and not isinstance(named, bool)
    return said(named, limit=ID_LIMIT) if is_an_id else None
