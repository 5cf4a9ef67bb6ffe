"""Postmark: one call for one mail, an error code in the body that decides, webhooks that bring a token.

postmarkapp.com/developer/api/email-api
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from sync.cleaning import said
from sync.destinations.base import Pace
from sync.destinations.mail.addresses import address_in, headers_of, plain, recipient_of, reply_to_of, sender_of
from sync.destinations.mail.base import Mailer
from sync.destinations.mail.tokens import check_token, long_enough
from sync.errors import AnswerLost, Broken, DeliveryError, NotSent, Refused, Throttled, Unauthorized
from sync.http import Answer, error_of, wait_hint
from sync.models import Email, Heard, Receipt
from sync.settings import DestinationSettings

FOR_A_PERSON: Mapping[int, str] = {
    10: "check POSTMARK_SERVER_TOKEN",
    400: "the sender has no signature there",
    401: "the sender's signature is not confirmed",
    405: "not allowed to send, out of credits",
    412: "the account is waiting for approval",
    413: "the account may not send",
}
"""Codes that every mail would meet, and what a person can see to."""

REFUSED: Mapping[int, str] = {
    300: "the mail or its recipient is invalid",
    406: "the recipient is inactive there: it bounced or complained before",
}

BOUNCES: Mapping[str, str] = {
    "HardBounce": "bounced",
    "BadEmailAddress": "bounced",
    "SpamComplaint": "complained",
    "Unsubscribe": "unsubscribed",
}
"""Types of a bounce that are for good, postmarkapp.com/developer/api/bounce-api#bounce-types. Any other is for good
where Postmark has made the address inactive."""

SUPPRESSIONS: Mapping[str, str] = {
    "HardBounce": "bounced",
    "SpamComplaint": "complained",
    "ManualSuppression": "unsubscribed",
}


class PostmarkSettings(DestinationSettings):
    """A server's API token, and the stream that mails go through.

    The webhook's token comes back as the password in its address, or at the end of it. No limit of calls is published.
    """

    model_config = SettingsConfigDict(env_prefix="POSTMARK_")

    server_token: SecretStr
    message_stream: str = Field("outbound", pattern="^[A-Za-z0-9_-]{1,100}$")
    base_url: str = "https://api.postmarkapp.com"
    webhook_token: SecretStr | None = None
    calls_per_second: float | None = Field(None, gt=0)

    @field_validator("webhook_token")
    @classmethod
    def _is_long_enough(cls, token: SecretStr | None) -> SecretStr | None:
        return long_enough(token)


class Postmark(Mailer):
    """A Postmark server. It has no idempotency key: a mail whose answer was lost is never sent again by itself."""

    vendor: ClassVar[str] = "postmark"
    Settings: ClassVar[type[DestinationSettings]] = PostmarkSettings

    @classmethod
    def headers(cls, settings: Any) -> dict[str, str]:
        """postmarkapp.com/developer/api/overview#authentication"""
        return {"X-Postmark-Server-Token": settings.server_token.get_secret_value(), "Accept": "application/json"}

    @classmethod
    def pace(cls, settings: Any) -> Pace | None:
        """As wished: `POSTMARK_CALLS_PER_SECOND`."""
        return Pace(settings.calls_per_second, 1.0) if settings.calls_per_second else None

    async def check(self) -> str:
        """The server's name, after a look at the stream as well.

        postmarkapp.com/developer/api/server-api, …/message-streams-api
        """
        server = await self._read("/server", missing="POSTMARK_BASE_URL")
        stream = await self._read(f"/message-streams/{self.settings.message_stream}", missing="POSTMARK_MESSAGE_STREAM")
        if stream.get("ArchivedAt") is not None or stream.get("MessageStreamType") == "Inbound":
            raise Unauthorized("nothing can be sent through this stream: check POSTMARK_MESSAGE_STREAM")
        name = said(server.get("Name")) or "a server without a name"
        return f"{name} (a sandbox: no mail is delivered)" if server.get("DeliveryType") == "Sandbox" else name

    async def _read(self, path: str, *, missing: str) -> dict[str, Any]:
        answer = await self.client.call("GET", path)
        if answer.status in (404, 422):
            raise Unauthorized(f"Postmark answered {answer.status}: check {missing}", status=answer.status)
        if not answer.is_success:
            raise self._error(answer)
        body = answer.json()
        if not isinstance(body, dict):
            raise Broken("Postmark's answer cannot be read", status=answer.status)
        return body

    async def send(self, email: Email) -> Receipt:
        """One call. Our Message-ID is kept only because X-PM-KeepID asks for it."""
        reply_to = reply_to_of(email)
        headers = headers_of(email)
        if any(name.lower() == "message-id" for name in headers):
            headers["X-PM-KeepID"] = "true"
        mail = {
            "From": str(sender_of(email)),
            "To": str(recipient_of(email)),
            "Subject": plain(email.subject),
            "TextBody": email.text,
            "HtmlBody": email.html,
            "MessageStream": self.settings.message_stream,
            "Headers": [{"Name": name, "Value": value} for name, value in headers.items()],
            **({"ReplyTo": str(reply_to)} if reply_to else {}),
        }
        answer = await self.client.call("POST", "/email", json=mail)
        if not answer.is_success or _code_in(answer):
            raise self._error(answer)
        match answer.json():
            case {"MessageID": str(named)} if remote_id := said(named, limit=200):
                return Receipt(remote_id, ours=True)
        raise AnswerLost(f"Postmark answered {answer.status} and named no mail", status=answer.status)

    def _error(self, answer: Answer) -> DeliveryError:
        """The code in the body decides, then the status. postmarkapp.com/developer/api/overview#error-codes"""
        code = _code_in(answer)
        status = answer.status
        reason = f"Postmark answered {status}" + (f" (ErrorCode {code})" if code else "")
        after = wait_hint(answer, self.clock())
        match code:
            case 100:
                return NotSent(f"{reason}: down for maintenance", status=status, after=after)
            case 429:
                return Throttled(reason, status=status, after=after)
            case int() if code in FOR_A_PERSON:
                return Unauthorized(f"{reason}: {FOR_A_PERSON[code]}", status=status, after=after)
            case int() if code in REFUSED:
                return Refused(f"{reason}: {REFUSED[code]}", status=status)
        if 300 <= status < 400 or status in (404, 405, 410):
            return Unauthorized(f"{reason}: check POSTMARK_BASE_URL", status=status)
        return Refused(reason, status=status) if answer.is_success else error_of(answer, self.clock(), reason=reason)

    @property
    def hears(self) -> bool:
        """Once the webhook's token is set."""
        return self.settings.webhook_token is not None

    def verify(self, headers: Mapping[str, str], body: bytes, token: str | None) -> None:  # noqa: ARG002 - not signed
        """postmarkapp.com/developer/webhooks/webhooks-overview#protecting-your-webhook"""
        check_token(self.settings.webhook_token, headers, token)

    def heard(self, body: bytes) -> Sequence[Heard]:
        """One event. postmarkapp.com/developer/webhooks/bounce-webhook, …/spam-complaint-webhook,
        …/subscription-change-webhook
        """
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            return ()
        match event:
            case {"RecordType": "Bounce", "Email": str(address), "Type": str(kind)} if kind in BOUNCES:
                reason = BOUNCES[kind]
            case {"RecordType": "Bounce", "Email": str(address), "Inactive": True}:
                reason = "bounced"
            case {"RecordType": "SpamComplaint", "Email": str(address)}:
                reason = "complained"
            case {"RecordType": "SubscriptionChange", "Recipient": str(address), "SuppressSending": True}:
                reason = SUPPRESSIONS.get(str(event.get("SuppressionReason")), "unsubscribed")
            case _:
                return ()
        there = address_in(address)
        return (Heard(there, reason),) if there else ()


def _code_in(answer: Answer) -> int:
    body = answer.json()
    code = body.get("ErrorCode") if isinstance(body, dict) else None
    return code if type(code) is int and 0 < code < 10_000 else 0
