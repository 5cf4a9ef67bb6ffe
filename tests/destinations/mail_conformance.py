"""What the conformance suite needs of every mailer: the adapter on a fake of its vendor, and the ways to trouble it.

To add a mailer: a MailRig, and its name in RIGS. One that is spoken to over HTTP takes HttpMailRig, which has a wire.
"""

import base64
import hashlib
import hmac
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx

from sync.destinations.mail.base import Mailer
from sync.destinations.mail.brevo import Brevo, BrevoSettings
from sync.destinations.mail.postmark import Postmark, PostmarkSettings
from sync.destinations.mail.resend import Resend, ResendSettings
from sync.errors import DeliveryError
from sync.models import Email, Heard
from sync.outcomes import Outcome, outcome_of
from tests.destinations.conformance import NOW, Clock, Handler, Wire
from tests.fakes.mail import Arrived, FakeBrevo, FakePostmark, FakeResend, Vendor

CANARY = "canary-7f3@example.com"
SECRET = "s3cret-canary-of-the-rig-01"
"""The vendor's credential in every rig: no reason and no setting may show it."""

KEY = "0d8f1a5e-6b1d-4c58-9d2e-3f1f6c0a7b11"


@dataclass(frozen=True)
class Call:
    """A webhook as it reaches us. Header names are lower-case."""

    headers: Mapping[str, str]
    body: bytes
    token: str | None = None


class MailRig(ABC):
    """A mailer on a fake of its vendor. Each trouble lasts until the rig is closed."""

    name: ClassVar[str]
    mailer: Mailer

    def __init__(self) -> None:
        self.clock = Clock()

    def close(self) -> None:
        return None

    async def send(self, email: Email) -> Outcome:
        try:
            return outcome_of(await self.mailer.send(email))
        except DeliveryError as error:
            return outcome_of(error)

    @abstractmethod
    def delivered(self) -> Sequence[Arrived]:
        """What the vendor has sent on, as its recipient sees it."""

    @abstractmethod
    def refuse_recipient(self, address: str) -> None:
        """The vendor refuses this address, and quotes it."""

    @abstractmethod
    def bad_credentials(self) -> None:
        """The vendor knows our credentials no more."""

    @abstractmethod
    def throttle(self) -> float | None:
        """The vendor takes nothing for a while. Returns how many seconds its hint says, None where it gives none."""

    @abstractmethod
    def outage(self) -> None:
        """Nobody answers the connection."""

    @abstractmethod
    def lose_answer(self) -> None:
        """The vendor takes the mail, and then the connection is gone."""

    def tell(self, heard: Heard) -> Call:
        """The webhook in which the vendor says this, authentic. Only for those that send some."""
        raise NotImplementedError

    def tampered(self, heard: Heard) -> Sequence[Call]:
        """Webhooks that are not authentic: a wrong signature or token, an old one, none."""
        raise NotImplementedError


class HttpMailRig(MailRig):
    """A mailer that speaks HTTP: the wire between it and the fake can be cut."""

    vendor: Vendor

    def __init__(self) -> None:
        super().__init__()
        self.vendor = self.fake()
        self.wire = Wire(self.vendor.app)
        self.mailer = self.build()

    @abstractmethod
    def fake(self) -> Any: ...

    @abstractmethod
    def build(self, **settings: Any) -> Mailer: ...

    def delivered(self) -> Sequence[Arrived]:
        return self.vendor.sent

    def refuse_recipient(self, address: str) -> None:
        self.vendor.refused.add(address)

    def bad_credentials(self) -> None:
        self.vendor.secret = "another"

    def throttle(self) -> float | None:
        self.vendor.throttled = True
        return self.vendor.hint

    def outage(self) -> None:
        def nobody(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused", request=request)

        self.wire.instead = nobody

    def lose_answer(self) -> None:
        self.wire.loses_answers = True


class ResendRig(HttpMailRig):
    """Resend; its webhooks are signed by Svix."""

    name = "resend"
    signing_key = b"0123456789abcdef01234567"

    def fake(self) -> FakeResend:
        return FakeResend(SECRET, self.clock)

    def build(self, **settings: Any) -> Mailer:
        secret = "whsec_" + base64.b64encode(self.signing_key).decode()
        chosen = {"webhook_secret": secret, **settings}
        given = ResendSettings(api_key=SECRET, base_url="http://localhost", _env_file=None, **chosen)
        return Resend.connect(given, clock=self.clock, transport=self.wire, blip=0.0)

    def tell(self, heard: Heard) -> Call:
        data: dict[str, Any] = {"email_id": "e1", "to": [heard.email], "subject": "Hello"}
        if heard.reason == "bounced":
            data["bounce"] = {"type": "Permanent", "subType": "General", "message": "no such user"}
        kind = {"bounced": "email.bounced", "complained": "email.complained"}[heard.reason]
        return self.signed(json.dumps({"type": kind, "created_at": "2025-06-15T15:06:40Z", "data": data}).encode())

    def signed(self, body: bytes, *, at: float = NOW, key: bytes | None = None) -> Call:
        content = f"msg_1.{int(at)}.".encode() + body
        mac = base64.b64encode(hmac.new(key or self.signing_key, content, hashlib.sha256).digest()).decode()
        return Call({"svix-id": "msg_1", "svix-timestamp": str(int(at)), "svix-signature": f"v1,{mac}"}, body)

    def tampered(self, heard: Heard) -> Sequence[Call]:
        good = self.tell(heard)
        without = [{k: v for k, v in good.headers.items() if k != name} for name in good.headers]
        return [
            Call(good.headers, good.body + b" "),
            Call({**good.headers, "svix-id": "msg_2"}, good.body),
            self.signed(good.body, key=b"another key"),
            self.signed(good.body, at=NOW - 301),
            self.signed(good.body, at=NOW + 301),
            Call({**good.headers, "svix-timestamp": "soon"}, good.body),
            Call({**good.headers, "svix-timestamp": "\u0661" * 10}, good.body),
            Call({**good.headers, "svix-signature": "v1,\u00e9"}, good.body),
            Call({**good.headers, "svix-signature": ""}, good.body),
            Call({}, good.body, "whsec_"),
            *(Call(headers, good.body) for headers in without),
        ]


class TokenRig(HttpMailRig):
    """A vendor whose webhooks bring a token, in the address or in the header Authorization."""

    token = "the-token-of-our-webhooks"

    @abstractmethod
    def body(self, heard: Heard) -> bytes: ...

    def tell(self, heard: Heard) -> Call:
        return Call({}, self.body(heard), self.token)

    def basic(self, heard: Heard, password: str | None = None) -> Call:
        pair = base64.b64encode(f"{self.name}:{password or self.token}".encode()).decode()
        return Call({"authorization": f"Basic {pair}"}, self.body(heard))

    def tampered(self, heard: Heard) -> Sequence[Call]:
        body = self.body(heard)
        return [
            Call({}, body),
            Call({}, body, ""),
            Call({}, body, self.token[:-1]),
            Call({}, body, self.token + "\u00e9"),
            self.basic(heard, "guessed"),
            Call({"authorization": f"Digest {self.token}"}, body),
            Call({"authorization": "Basic %%%"}, body),
            Call({"authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()}, body),
            Call({"authorization": "Basic " + base64.b64encode(self.token.encode()).decode()}, body),
            Call({"authorization": self.token}, body),
            Call({"authorization": ""}, body),
        ]


class BrevoRig(TokenRig):
    """Brevo; its webhooks bring our token."""

    name = "brevo"

    def fake(self) -> FakeBrevo:
        return FakeBrevo(SECRET, self.clock)

    def build(self, **settings: Any) -> Mailer:
        chosen = {"webhook_token": self.token, **settings}
        given = BrevoSettings(api_key=SECRET, base_url="http://localhost/v3", _env_file=None, **chosen)
        return Brevo.connect(given, clock=self.clock, transport=self.wire, blip=0.0)

    def body(self, heard: Heard) -> bytes:
        events = {"bounced": "hard_bounce", "complained": "spam", "unsubscribed": "unsubscribed"}
        return json.dumps({"event": events[heard.reason], "email": heard.email, "id": 1, "ts": int(NOW)}).encode()


class PostmarkRig(TokenRig):
    """Postmark; its webhooks bring our token."""

    name = "postmark"

    def fake(self) -> FakePostmark:
        return FakePostmark(SECRET, self.clock)

    def build(self, **settings: Any) -> Mailer:
        chosen = {"webhook_token": self.token, **settings}
        given = PostmarkSettings(server_token=SECRET, base_url="http://localhost", _env_file=None, **chosen)
        return Postmark.connect(given, clock=self.clock, transport=self.wire, blip=0.0)

    def body(self, heard: Heard) -> bytes:
        said: dict[str, Any] = {
            "bounced": {"RecordType": "Bounce", "Type": "HardBounce", "Email": heard.email, "Inactive": True},
            "complained": {"RecordType": "SpamComplaint", "Type": "SpamComplaint", "Email": heard.email},
            "unsubscribed": {
                "RecordType": "SubscriptionChange",
                "Recipient": heard.email,
                "SuppressSending": True,
                "SuppressionReason": "ManualSuppression",
            },
        }[heard.reason]
        return json.dumps(said).encode()


RIGS: tuple[type[MailRig], ...] = (ResendRig, BrevoRig, PostmarkRig)

HTTP_RIGS: tuple[type[HttpMailRig], ...] = tuple(rig for rig in RIGS if issubclass(rig, HttpMailRig))

HEARING_RIGS: tuple[type[MailRig], ...] = tuple(rig for rig in RIGS if rig.tell is not MailRig.tell)


def email(**more: Any) -> Email:
    """A follow-up mail, whole."""
    said = {
        "to": "ada@example.com",
        "to_name": "Ada Lovelace",
        "sender": "Analytical Engines <hello@engines.example>",
        "reply_to": "Support <support@engines.example>",
        "subject": "Your chat with us",
        "text": "Thank you for the chat.\n",
        "html": "<p>Thank you for the chat.</p>\n",
        "key": KEY,
        "written_at": NOW,
        "headers": {
            "Message-ID": "<4711.followup@engines.example>",
            "List-Unsubscribe": "<https://engines.example/u/abc>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "Auto-Submitted": "auto-generated",
        },
    }
    return Email(**{**said, **more})


def always(status: int, **response: Any) -> Handler:
    return lambda request: httpx.Response(status, request=request, **response)


def raising(error: Exception) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler
