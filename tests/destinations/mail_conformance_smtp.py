"""What the conformance suite needs to try SMTP: a real mail server on this machine."""

from collections.abc import Sequence
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

from sync.destinations.mail.smtp import Smtp, SmtpSettings
from tests.destinations.mail_conformance import SECRET, MailRig
from tests.fakes.mail import Arrived
from tests.fakes.smtp import USERNAME, MailServer


class SmtpRig(MailRig):
    """A mail server that wants STARTTLS and a password."""

    name = "smtp"

    def __init__(self) -> None:
        super().__init__()
        self.server = MailServer(security="starttls")
        self.server.password = SECRET
        self.server.__enter__()
        self.mailer = self.build()

    def close(self) -> None:
        self.server.close()

    def build(self, **settings: Any) -> Smtp:
        given = SmtpSettings(
            host="127.0.0.1",
            port=self.server.port,
            username=USERNAME,
            password=SECRET,
            ca_file=self.server.ca_file,
            _env_file=None,
            **settings,
        )
        return Smtp.connect(given, clock=self.clock)

    def delivered(self) -> Sequence[Arrived]:
        return [_arrived(mail.content) for mail in self.server.mails]

    def refuse_recipient(self, address: str) -> None:
        self.server.refused[address] = f"550 5.1.1 <{address}>: no such user"

    def bad_credentials(self) -> None:
        self.server.password = "another"

    def throttle(self) -> float | None:
        self.server.answers["RCPT"] = "450 4.7.1 too many messages"
        return None

    def outage(self) -> None:
        self.server.close()

    def lose_answer(self) -> None:
        self.server.hangs_up.add("TEXT")


def _arrived(content: Any) -> Arrived:
    mail = message_from_bytes(content, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    raw = message_from_bytes(content)
    text, html = (str(part.get_content()).replace("\r\n", "\n") for part in mail.iter_parts())
    return Arrived(
        to=_named(raw["To"]),
        sender=_named(raw["From"]),
        subject=mail["Subject"],
        text=text,
        html=html,
        reply_to=_named(raw["Reply-To"]) if "Reply-To" in raw else None,
        headers={name: str(value) for name, value in mail.items()},
    )


def _named(header: str) -> tuple[str, str]:
    name, address = parseaddr(header)
    return str(make_header(decode_header(name))), address
