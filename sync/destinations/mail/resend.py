"""Resend: one call for one mail, an idempotency key for a day, webhooks signed by Svix.

resend.com/docs/api-reference/emails/send-email
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from sync.cleaning import said
from sync.destinations.base import Pace
from sync.destinations.mail.addresses import (
    Mailbox,
    address_in,
    headers_of,
    plain,
    recipient_of,
    reply_to_of,
    sender_of,
)
from sync.destinations.mail.base import Mailer
from sync.errors import AnswerLost, Broken, Busy, DeliveryError, NotAuthentic, Unauthorized
from sync.http import Answer, error_of, wait_hint
from sync.models import Email, Heard, Receipt
from sync.settings import DestinationSettings

PREFIX = "whsec_"
TOLERANCE = 300
"""Seconds that a signature may be old, or ahead of our clock."""

KNOWN = frozenset(
    {
        "application_error",
        "concurrent_idempotent_requests",
        "daily_quota_exceeded",
        "internal_server_error",
        "invalid_access",
        "invalid_api_key",
        "invalid_from_address",
        "invalid_idempotency_key",
        "invalid_idempotent_request",
        "invalid_parameter",
        "method_not_allowed",
        "missing_api_key",
        "missing_required_field",
        "monthly_quota_exceeded",
        "not_found",
        "rate_limit_exceeded",
        "restricted_api_key",
        "security_error",
        "validation_error",
    }
)
"""The names of errors, resend.com/docs/api-reference/errors. No other word of an answer is shown."""

FOR_A_PERSON = frozenset(
    {
        "daily_quota_exceeded",
        "invalid_access",
        "invalid_api_key",
        "invalid_from_address",
        "method_not_allowed",
        "missing_api_key",
        "monthly_quota_exceeded",
        "not_found",
        "restricted_api_key",
    }
)
"""Errors that every mail would meet, until somebody sees to the key, the plan, the sender or the address of the API."""

_NEEDS_QUOTES = re.compile(r"""[][\\()<>@,:;"]+""")


class StillSending(Busy):
    """Another call with the same key has not been answered yet: its mail may go out."""

    may_have_landed = True


class ResendSettings(DestinationSettings):
    """An API key that may send. The webhook's signing secret begins with `whsec_`."""

    model_config = SettingsConfigDict(env_prefix="RESEND_")

    api_key: SecretStr
    base_url: str = "https://api.resend.com"
    webhook_secret: SecretStr | None = None
    calls_per_second: float = Field(5.0, gt=0)

    @field_validator("webhook_secret")
    @classmethod
    def _is_a_key(cls, secret: SecretStr | None) -> SecretStr | None:
        try:
            is_there = secret is None or bool(_key_of(secret))
        except binascii.Error:
            raise ValueError("is not base64 (whsec_ and then the key)") from None
        if not is_there:
            raise ValueError("holds no key")
        return secret


class Resend(Mailer):
    """A Resend team. Its keys are known for 24 hours; ours are trusted for 23.

    resend.com/docs/dashboard/emails/idempotency-keys
    """

    vendor: ClassVar[str] = "resend"
    Settings: ClassVar[type[DestinationSettings]] = ResendSettings
    repeatable_for: ClassVar[float] = 23 * 3600.0

    @classmethod
    def headers(cls, settings: Any) -> dict[str, str]:
        """resend.com/docs/api-reference/introduction"""
        return {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}

    @classmethod
    def pace(cls, settings: Any) -> Pace:
        """5 calls a second and team by default. resend.com/docs/api-reference/rate-limit"""
        return Pace(settings.calls_per_second, 1.0)

    async def check(self) -> str:
        """The domains that mail may come from. A key that may only send proves itself, and nothing else.

        resend.com/docs/api-reference/domains/list-domains
        """
        answer = await self.client.call("GET", "/domains")
        if answer.status == 401 and _name_in(answer) == "restricted_api_key":
            return "a key that may only send (its domains cannot be read)"
        if not answer.is_success:
            raise self._error(answer)
        body = answer.json()
        listed = body.get("data") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            raise Broken("Resend's list of domains cannot be read", status=answer.status)
        names = [name for domain in listed if isinstance(domain, dict) and (name := said(domain.get("name")))]
        if not names:
            raise Unauthorized("no domain is set up at Resend: mail would reach nobody but the account's owner")
        return ", ".join(names)

    async def send(self, email: Email) -> Receipt:
        """One call."""
        reply_to = reply_to_of(email)
        mail = {
            "from": _spelled(sender_of(email)),
            "to": [_spelled(recipient_of(email))],
            "subject": plain(email.subject),
            "text": email.text,
            "html": email.html,
            "headers": headers_of(email),
            **({"reply_to": [_spelled(reply_to)]} if reply_to else {}),
        }
        answer = await self.client.call("POST", "/emails", json=mail, headers={"Idempotency-Key": email.key})
        if not answer.is_success:
            raise self._error(answer)
        match answer.json():
            case {"id": str(named)} if remote_id := said(named, limit=200):
                return Receipt(remote_id, ours=True)
        raise AnswerLost(f"Resend answered {answer.status} and named no mail", status=answer.status)

    def _error(self, answer: Answer) -> DeliveryError:
        name = _name_in(answer)
        reason = f"Resend answered {answer.status}" + (f" ({name})" if name else "")
        after = wait_hint(answer, self.clock())
        match answer.status, name:
            case 409, "invalid_idempotent_request":
                return AnswerLost(f"{reason}: another mail went out under this key", status=409)
            case 409, _:
                return StillSending(reason, status=409, after=after)
            case status, _ if 300 <= status < 400 or status in (404, 405, 410):
                return Unauthorized(f"{reason}: check RESEND_BASE_URL", status=status)
            case status, str() if name in FOR_A_PERSON:
                return Unauthorized(reason, status=status, after=after)
        return error_of(answer, self.clock(), reason=reason)

    @property
    def hears(self) -> bool:
        """Once the webhook's signing secret is set."""
        return self.settings.webhook_secret is not None

    def verify(self, headers: Mapping[str, str], body: bytes, token: str | None) -> None:  # noqa: ARG002 - it is signed
        """resend.com/docs/webhooks/verify-webhooks-requests, docs.svix.com/receiving/verifying-payloads/how-manual"""
        if self.settings.webhook_secret is None:
            raise NotAuthentic("no secret is set for these webhooks")
        at = headers.get("svix-timestamp", "")
        if not re.fullmatch("[0-9]{1,12}", at) or abs(self.clock() - int(at)) > TOLERANCE:
            raise NotAuthentic("the webhook is too old, or bears no time")
        content = f"{headers.get('svix-id', '')}.{at}.".encode("utf-8", "surrogatepass") + body
        mac = hmac.new(_key_of(self.settings.webhook_secret), content, hashlib.sha256).digest()
        expected = b"v1," + base64.b64encode(mac)
        shown = headers.get("svix-signature", "").encode("utf-8", "surrogatepass").split(b" ")
        if not any([hmac.compare_digest(one, expected) for one in shown]):
            raise NotAuthentic("the signature is wrong or missing")

    def heard(self, body: bytes) -> Sequence[Heard]:
        """Mails that bounced for good, and complaints, of mails that had one recipient: of several, none is named.

        resend.com/docs/webhooks/emails/bounced, …/complained
        """
        match _read(body):
            case {"type": "email.bounced", "data": {"to": [str(to)], **data}} if _is_for_good(data.get("bounce")):
                reason = "bounced"
            case {"type": "email.complained", "data": {"to": [str(to)]}}:
                reason = "complained"
            case _:
                return ()
        there = address_in(to)
        return (Heard(there, reason),) if there else ()


def _spelled(box: Mailbox) -> str:
    """With the name bare: Resend refuses names in quotes, and encoded ones in `from`, so what needs them is left out.

    github.com/anymail/django-anymail/blob/main/anymail/backends/resend.py
    """
    name = " ".join(_NEEDS_QUOTES.sub(" ", box.name or "").split())
    return f"{name} <{box.address}>" if name else box.address


def _name_in(answer: Answer) -> str | None:
    body = answer.json()
    name = body.get("name") if isinstance(body, dict) else None
    return name if isinstance(name, str) and name in KNOWN else None


def _is_for_good(bounce: object) -> bool:
    return not isinstance(bounce, dict) or bounce.get("type", "Permanent") == "Permanent"


def _read(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _key_of(secret: SecretStr) -> bytes:
    return base64.b64decode(secret.get_secret_value().removeprefix(PREFIX), validate=True)
