"""The sandbox's outbox in the conformance suite of the mailers: its fake is the sandbox itself."""

from collections.abc import Sequence
from email.utils import parseaddr
from typing import Any

from sync.destinations.mail.base import Mailer
from sync.destinations.mail.sandbox import SandboxMail, SandboxMailSettings
from sync.sandbox.app import build
from sync.sandbox.store import Store
from tests.destinations.mail_conformance import SECRET, HttpMailRig
from tests.fakes.mail import Arrived


class Outbox:
    """The sandbox as a vendor of mail."""

    def __init__(self, clock: Any) -> None:
        self.store = Store(":memory:")
        self.app = build(self.store, clock=clock, token=SECRET)


class SandboxRig(HttpMailRig):
    """The sandbox; it tells of no bounces."""

    name = "sandbox"

    def fake(self) -> Outbox:
        return Outbox(self.clock)

    def build(self, **settings: Any) -> Mailer:
        given = SandboxMailSettings(access_token=SECRET, base_url="http://localhost", _env_file=None, **settings)
        return SandboxMail.connect(given, clock=self.clock, transport=self.wire, blip=0.0)

    def close(self) -> None:
        self.vendor.store.close()

    def delivered(self) -> Sequence[Arrived]:
        return [_arrived(mail.said) for mail in reversed(self.vendor.store.mails())]

    def refuse_recipient(self, address: str) -> None:
        self.vendor.app.state.faults.reject = {address}

    def bad_credentials(self) -> None:
        self.mailer.client._headers["Authorization"] = "Bearer another"
        self.mailer.client._client.headers["Authorization"] = "Bearer another"

    def throttle(self) -> float | None:
        self.vendor.app.state.faults.share_429 = 1.0
        self.vendor.app.state.faults.retry_after = 7
        return 7.0


def _arrived(said: Any) -> Arrived:
    reply_to = None if said["reply_to"] is None else parseaddr(said["reply_to"])
    return Arrived(
        to=(said["to_name"] or "", said["to"]),
        sender=parseaddr(said["from"]),
        subject=said["subject"],
        text=said["text"],
        html=said["html"],
        reply_to=reply_to,
        headers=said["headers"],
    )
