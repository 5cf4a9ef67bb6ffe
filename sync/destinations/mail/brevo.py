"""Brevo: one call for one mail, an idempotency key for a quarter of an hour, webhooks that bring a token.

developers.brevo.com/reference/send-transac-email
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from sync.cleaning import clip, said
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
from sync.destinations.mail.tokens import check_token, long_enough
from sync.errors import AnswerLost, Broken, DeliveryError, Unauthorized
from sync.http import Answer, error_of, wait_hint
from sync.models import Email, Heard, Receipt
from sync.settings import DestinationSettings

NAME_LIMIT = 70
"""Characters of a name beside an address."""

KNOWN = frozenset(
    {
        "account_under_validation",
        "bad_request",
        "document_not_found",
        "duplicate_parameter",
        "duplicate_request",
        "invalid_parameter",
        "method_not_allowed",
        "missing_parameter",
        "not_acceptable",
        "not_enough_credits",
        "out_of_range",
        "permission_denied",
        "reseller_permission_denied",
        "unauthorized",
    }
)
"""The codes of errors, developers.brevo.com/reference/send-transac-email. No other word of an answer is shown."""

FOR_A_PERSON = frozenset(
    {
        "account_under_validation",
        "not_enough_credits",
        "permission_denied",
        "reseller_permission_denied",
        "unauthorized",
    }
)
"""Errors that every mail would meet, until somebody sees to the key, the account or the plan."""

TAKEN_BEFORE = frozenset({"duplicate_parameter", "duplicate_request"})

EVENTS: Mapping[str, str] = {
    "hard_bounce": "bounced",
    "invalid_email": "bounced",
    "spam": "complained",
    "complaint": "complained",
    "unsubscribed": "unsubscribed",
    "unsubscribe": "unsubscribed",
}
"""What says that no mail should go there any more. `blocked` does not: it can be about the sender."""


class BrevoSettings(DestinationSettings):
    """An API key (v3). The webhook's token comes back as a bearer token, as a password, or in the webhook's address."""

    model_config = SettingsConfigDict(env_prefix="BREVO_")

    api_key: SecretStr
    base_url: str = "https://api.brevo.com/v3"
    webhook_token: SecretStr | None = None
    calls_per_second: float = Field(1000.0, gt=0)

    @field_validator("webhook_token")
    @classmethod
    def _is_long_enough(cls, token: SecretStr | None) -> SecretStr | None:
        return long_enough(token)


class Brevo(Mailer):
    """A Brevo account. A key is known for 15 minutes or for 30, as one reads; ours are trusted for 14.

    developers.brevo.com/changelog/email-api-now-supports-idempotency,
    developers.brevo.com/docs/heterogenous-versions-batch-emails
    """

    vendor: ClassVar[str] = "brevo"
    Settings: ClassVar[type[DestinationSettings]] = BrevoSettings
    repeatable_for: ClassVar[float] = 14 * 60.0

    @classmethod
    def headers(cls, settings: Any) -> dict[str, str]:
        """developers.brevo.com/docs/how-it-works"""
        return {"api-key": settings.api_key.get_secret_value(), "Accept": "application/json"}

    @classmethod
    def pace(cls, settings: Any) -> Pace:
        """1000 calls a second. developers.brevo.com/docs/api-limits"""
        return Pace(settings.calls_per_second, 1.0)

    async def check(self) -> str:
        """The company's name. Whether the account may send yet is not said: only a mail would show.

        developers.brevo.com/reference/get-account
        """
        answer = await self.client.call("GET", "/account")
        if not answer.is_success:
            raise self._error(answer)
        account = answer.json()
        if not isinstance(account, dict):
            raise Broken("Brevo's account cannot be read", status=answer.status)
        return said(account.get("companyName")) or "an account without a name"

    async def send(self, email: Email) -> Receipt:
        """One call. A key that Brevo has seen is refused there without a word about its mail, so that stays unknown."""
        reply_to = reply_to_of(email)
        mail: dict[str, Any] = {
            "sender": _named(sender_of(email)),
            "to": [_named(recipient_of(email))],
            "subject": plain(email.subject),
            "textContent": email.text,
            "htmlContent": email.html,
            "headers": {**headers_of(email), "idempotencyKey": email.key},
            **({"replyTo": _named(reply_to)} if reply_to else {}),
        }
        answer = await self.client.call("POST", "/smtp/email", json=mail)
        if not answer.is_success:
            raise self._error(answer)
        match answer.json():
            case {"messageId": str(named)} if remote_id := said(named, limit=200):
                return Receipt(remote_id, ours=True)
        raise AnswerLost(f"Brevo answered {answer.status} and named no mail", status=answer.status)

    def _error(self, answer: Answer) -> DeliveryError:
        body = answer.json()
        code = body.get("code") if isinstance(body, dict) else None
        code = code if isinstance(code, str) and code in KNOWN else None
        reason = f"Brevo answered {answer.status}" + (f" ({code})" if code else "")
        match answer.status, code:
            case status, str() if code in TAKEN_BEFORE and status < 500:
                return AnswerLost(f"{reason}: it knows this key and does not say whether the mail went", status=status)
            case 401, _:
                return Unauthorized(f"{reason}: check BREVO_API_KEY, and the authorised IP addresses", status=401)
            case status, str() if code in FOR_A_PERSON and status < 500:
                return Unauthorized(reason, status=status, after=wait_hint(answer, self.clock()))
            case status, _ if 300 <= status < 400 or status in (404, 405, 410):
                return Unauthorized(f"{reason}: check BREVO_BASE_URL", status=status)
        return error_of(answer, self.clock(), reason=reason)

    @property
    def hears(self) -> bool:
        """Once the webhook's token is set."""
        return self.settings.webhook_token is not None

    def verify(self, headers: Mapping[str, str], body: bytes, token: str | None) -> None:  # noqa: ARG002 - not signed
        """developers.brevo.com/docs/secured-webhooks"""
        check_token(self.settings.webhook_token, headers, token)

    def heard(self, body: bytes) -> Sequence[Heard]:
        """One event, or a list of them where the webhook is batched.

        developers.brevo.com/docs/transactional-webhooks
        """
        try:
            events = json.loads(body)
        except (ValueError, RecursionError):
            return ()
        return [heard for event in (events if isinstance(events, list) else [events]) if (heard := _heard(event))]


def _named(box: Mailbox) -> dict[str, str]:
    return {"email": box.address, **({"name": clip(box.name, NAME_LIMIT)} if box.name else {})}


def _heard(event: object) -> Heard | None:
    match event:
        case {"event": str(kind), "email": str(address)} if kind in EVENTS and (there := address_in(address)):
            return Heard(there, EVENTS[kind])
    return None
