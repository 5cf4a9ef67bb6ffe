"""The sandbox's outbox: a mailer that sends nothing, for looking at the mails before anybody gets one."""

from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from sync.cleaning import said
from sync.destinations.mail.addresses import headers_of, plain, recipient_of, reply_to_of, sender_of
from sync.destinations.mail.base import Mailer
from sync.errors import AnswerLost
from sync.http import Answer, error_of
from sync.models import Email, Receipt
from sync.settings import DestinationSettings

ID_LIMIT = 200


class SandboxMailSettings(DestinationSettings):
    """The same variables as the imitation CRM has: it is the same server."""

    model_config = SettingsConfigDict(env_prefix="SANDBOX_")

    base_url: str = "http://127.0.0.1:8901"
    access_token: SecretStr = SecretStr("sandbox")


class SandboxMail(Mailer):
    """Puts each mail into the outbox. It has no idempotency key: a mail that is handed over twice is there twice."""

    vendor: ClassVar[str] = "sandbox"
    Settings: ClassVar[type[DestinationSettings]] = SandboxMailSettings

    @classmethod
    def headers(cls, settings: Any) -> dict[str, str]:
        """The token, as for the imitation CRM."""
        return {"Authorization": f"Bearer {settings.access_token.get_secret_value()}"}

    async def check(self) -> str:
        """Whether the sandbox is there and takes the token."""
        answer = await self.client.call("GET", "/account-info/v3/details")
        if not answer.is_success:
            raise error_of(answer, self.clock())
        return f"the outbox of the sandbox at {urlsplit(self.settings.base_url).netloc}"

    async def send(self, email: Email) -> Receipt:
        """Put one mail into the outbox."""
        answer = await self.client.call("POST", "/_mail", json=_said(email))
        if not answer.is_success:
            raise error_of(answer, self.clock())
        if (named := _id_in(answer)) is None:
            raise AnswerLost("the sandbox did not say the id of the mail", status=answer.status)
        return Receipt(named, ours=True)


def _said(email: Email) -> dict[str, Any]:
    to, reply_to = recipient_of(email), reply_to_of(email)
    return {
        "to": to.address,
        "to_name": to.name,
        "from": str(sender_of(email)),
        "reply_to": str(reply_to) if reply_to is not None else None,
        "subject": plain(email.subject),
        "text": email.text,
        "html": email.html,
        "headers": headers_of(email),
        "key": email.key,
    }


def _id_in(answer: Answer) -> str | None:
    body = answer.json()
    named = body.get("id") if isinstance(body, dict) else None
    return said(named, limit=ID_LIMIT) if isinstance(named, str) else None
