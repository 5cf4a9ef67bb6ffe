"""Writes a mail as it goes over the wire (RFC 5322): the same bytes for the same mail, whatever a stranger typed.

Header lines are written here and not by the standard library's `EmailMessage`: that one reads encoded words in what it
is given, so a visitor who calls herself `=?utf-8?q?…?=` would say in a header what our own checks never saw.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, getaddresses

from email_validator import EmailNotValidError, validate_email

from sync.cleaning import clip
from sync.errors import Refused, Unauthorized
from sync.models import Email

LINE = 76
"""Characters in a line, where it can be broken (RFC 2047 section 2, RFC 2045 section 6.7)."""

LONGEST_WORD = 900
"""Characters that cannot be broken: a line must not have more than 998."""

LONGEST_ENCODED = 58
"""Characters of an encoded word: it fits behind the name of any header."""

ADDRESS_LIMIT = 320
NAME_LIMIT = 200

OURS = frozenset({"from", "to", "cc", "bcc", "sender", "subject", "reply-to", "date", "mime-version", "return-path"})
"""Headers that say what the other fields of a mail say: a second one would contradict them."""

_ADDRESS = re.compile(r'[^\s<>()\[\],;:\\"@]+@[^\s<>()\[\],;:\\"@]+')
_NAME_OF_HEADER = re.compile(r"[A-Za-z0-9-]{1,60}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~ -]+")


@dataclass(frozen=True, slots=True)
class Written:
    """A mail on its way: the bare addresses of its envelope, and its bytes with CRLF at the end of each line."""

    sender: str
    to: str
    message_id: str
    data: bytes

    @property
    def needs_utf8(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it: an address has other letters before its @."""
        return not (self.data.isascii() and self.sender.isascii() and self.to.isascii())


def written(email: Email) -> Written:
    """Write a mail. Raises Refused where it can go to nobody, Unauthorized where the sender is no address."""
    to = _address(email.to)
    if to is None:
        raise Refused("the visitor's email cannot be put into a mail", field="email")
    sender_name, sender = _of_ours(email.sender, "the sender of the mails is no address: check FOLLOWUP_FROM")
    headers = {"From": _mailbox(sender_name, sender), "To": _mailbox(email.to_name, to)}
    if email.reply_to is not None:
        headers["Reply-To"] = _mailbox(*_of_ours(email.reply_to, "the address for replies is no address"))
    headers["Subject"] = _text(email.subject)
    headers["Date"] = format_datetime(datetime.fromtimestamp(int(email.written_at), UTC))
    further = _further(email)
    named = {name.lower(): value for name, value in further.items()}
    message_id = named.get("message-id") or f"<{_digest(email.key)}@{sender.rpartition('@')[2]}>"
    if "message-id" not in named:
        headers["Message-ID"] = message_id
    block = "".join(_folded(name, value) for name, value in (headers | further).items())
    return Written(sender, to, message_id, block.encode() + _body(email))


def _body(email: Email) -> bytes:
    body = EmailMessage(policy=SMTP.clone(max_line_length=LINE))
    body.set_content(_encodable(email.text), cte="quoted-printable")
    body.add_alternative(_encodable(email.html), subtype="html", cte="quoted-printable")
    body.set_boundary(f"=_{_digest(email.key)}")  # "=_" is in no quoted-printable text
    return body.as_bytes()


def _further(email: Email) -> dict[str, str]:
    for name in email.headers:
        if not _NAME_OF_HEADER.fullmatch(name) or name.lower() in OURS or name.lower().startswith("content-"):
            raise Refused("the mail carries a header that it must not carry")
    return {name: _text(value) for name, value in email.headers.items()}


def _digest(key: str) -> str:
    return hashlib.sha256(_encodable(key).encode()).hexdigest()[:32]


def _encodable(text: str) -> str:
    """The text without halves of characters, which have no bytes."""
    return text.encode("utf-8", "replace").decode()


def _line(text: str) -> str:
    """The text on one line: without control characters, with single spaces."""
    return " ".join("".join(" " if unicodedata.category(one) in ("Cc", "Cs") else one for one in text).split())


def _address(text: str) -> str | None:
    """A bare address, with its domain in ASCII where that makes all of it ASCII; None where it is none."""
    if len(text) > ADDRESS_LIMIT or text != _line(text) or not _ADDRESS.fullmatch(text):
        return None
    if text.isascii():
        return text
    try:
        valid = validate_email(text, check_deliverability=False)
    except EmailNotValidError:
        return None
    return valid.ascii_email or valid.normalized


def _of_ours(text: str, reason: str) -> tuple[str, str]:
    """Name and address of `Ada <ada@example.com>`, which somebody has set."""
    named = [(name, _address(bare)) for name, bare in getaddresses([_line(text)])]
    if len(named) == 1 and (address := named[0][1]) is not None:
        return named[0][0], address
    raise Unauthorized(reason)


def _mailbox(name: str | None, address: str) -> str:
    called = clip(_line(name or ""), NAME_LIMIT)
    if not called:
        return address
    if not _is_plain(called):
        return f"{_encoded(called)} <{address}>"
    if not _PLAIN_NAME.fullmatch(called):
        called = '"' + re.sub(r'(["\\])', r"\\\1", called) + '"'
    return f"{called} <{address}>"


def _text(text: str) -> str:
    line = _line(text)
    return line if _is_plain(line) else _encoded(line)


def _is_plain(line: str) -> bool:
    """Whether a line means itself in a header, and can be broken into lines."""
    return line.isascii() and "=?" not in line and all(len(word) <= LONGEST_WORD for word in line.split(" "))


def _encoded(line: str) -> str:
    """A line as encoded words (RFC 2047), one space between each and the next: it is not part of the text."""
    return " ".join(Header(line, "utf-8", maxlinelen=LONGEST_ENCODED).encode().split())


def _folded(name: str, value: str) -> str:
    first, *words = value.split(" ")
    lines = [f"{name}: {first}"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) <= LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(f" {word}")
    return "\r\n".join(lines) + "\r\n"
