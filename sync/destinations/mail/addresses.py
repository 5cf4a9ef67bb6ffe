"""Names and addresses of a mail: taken apart, and harmless wherever they are put together again."""

import re
from dataclasses import dataclass
from email.utils import getaddresses

from sync.cleaning import EMAIL_LIMIT
from sync.cleaning import email as clean
from sync.errors import Refused, Unauthorized
from sync.models import Email

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_PART = r"""[^\s@<>()\[\]\\,;:"\x00-\x1f\x7f-\x9f]+"""
_PLAIN = re.compile(f"{_PART}@{_PART}")
_ENCODED = re.compile(r"=\?(?=[^?\s]+\?[bq]\?)", re.IGNORECASE)
_SPECIAL = re.compile(r"""[][\\()<>@,:;".]""")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address and the name beside it."""

    address: str
    name: str | None = None

    def __str__(self) -> str:
        """As in RFC 5322, its name quoted where it must be. Not encoded: JSON carries any letter."""
        if not self.name:
            return self.address
        quoted = re.sub(r'(["\\])', r"\\\1", self.name)
        return f'"{quoted}" <{self.address}>' if _SPECIAL.search(self.name) else f"{self.name} <{self.address}>"


def one_line(text: str) -> str:
    """A text that cannot begin another header: every run of control characters is a space."""
    return _CONTROL.sub(" ", text).strip()


def plain(text: str) -> str:
    """A name or a subject that says what it shows: one line, no encoded word (RFC 2047) to be decoded.

    Whoever may choose a name could else hide an address of the web in it from our own checks.
    """
    return _ENCODED.sub("= ?", one_line(text))


def mailbox(text: str) -> Mailbox | None:
    """The one mailbox in a text like `Ada <ada@example.com>`, or None."""
    match getaddresses([plain(text)]):
        case [(name, address)] if _PLAIN.fullmatch(address):
            return Mailbox(address, name or None)
    return None


def address_in(text: str) -> str | None:
    """The address in a vendor's word of it, spelled as we keep addresses, or None."""
    return clean(text) if len(text) <= EMAIL_LIMIT else None


def sender_of(email: Email) -> Mailbox:
    """Whom a mail is from. Raises Unauthorized: no mail can go before a person has set it right."""
    if (sender := mailbox(email.sender)) is None:
        raise Unauthorized("FOLLOWUP_FROM is not one address, with or without a name")
    return sender


def reply_to_of(email: Email) -> Mailbox | None:
    """Where answers go, if elsewhere. Raises Unauthorized."""
    if email.reply_to is None:
        return None
    if (reply_to := mailbox(email.reply_to)) is None:
        raise Unauthorized("FOLLOWUP_REPLY_TO is not one address, with or without a name")
    return reply_to


def recipient_of(email: Email) -> Mailbox:
    """Whom a mail is for. Raises Refused for anything but one plain address: a comma would make it two."""
    if not _PLAIN.fullmatch(email.to):
        raise Refused("the recipient is not one plain address")
    return Mailbox(email.to, plain(email.to_name or "") or None)


def headers_of(email: Email) -> dict[str, str]:
    """The headers of a mail, none of which can begin another."""
    return {name: one_line(value) for name, value in email.headers.items()}
