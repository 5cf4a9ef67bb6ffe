"""Any mail server that takes mail for others (RFC 5321, RFC 6409): one connection for each mail.

SMTP has no idempotency key. So what counts is to know whether a mail may have gone out: not before its text was sent,
not where the server refused it with 4yz or 5yz, and perhaps whenever the answer to the text did not come.
"""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from sync.destinations.base import Pace
from sync.destinations.mail.base import Mailer
from sync.destinations.mail.message import Written, written
from sync.errors import AnswerLost, Busy, DeliveryError, NotSent, Postponed, Refused, Throttled, Unauthorized
from sync.http import Gate, Transport, send_by
from sync.models import MAIL, Email, Receipt
from sync.settings import LaneSettings, is_loopback

if TYPE_CHECKING:
    from aiosmtplib import SMTP, SMTPResponse

OPENING = 4
"""All the steps before the text of a mail together may take so many times as long as one of them."""

PATIENCE = 6
"""The answer to the text may take so many times as long: servers look through a mail before they take it, RFC 5321
allows them 10 minutes, and an answer given up on leaves a mail that nobody dares to send again."""

GOODBYE = 2.0
"""Seconds that a server gets to say goodbye. Whether it does matters to nobody."""

METHODS = ("plain", "login", "cram-md5")
"""Ways to log in, the first that the server offers is used: a wrong password is tried once and locks no account."""

ID_LIMIT = 120

_HOST = re.compile(r"[^\s/@<>\[\]]+")
_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|\[[0-9A-Za-z.:]+\]")


class SmtpSettings(LaneSettings):
    """How the mail server is reached. Without a user name we do not log in."""

    model_config = SettingsConfigDict(env_prefix="SMTP_")

    host: str
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    helo_name: str | None = None
    mails_per_hour: float | None = Field(None, gt=0)
    connections: int = Field(1, ge=1, le=100)
    timeout: float = Field(20.0, gt=0, le=300)

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str) -> str:
        bare = host.removeprefix("[").removesuffix("]")
        if not _HOST.fullmatch(bare):
            raise ValueError("is not the name of a host")
        return bare

    @field_validator("security")
    @classmethod
    def _is_secure(cls, security: str, info: ValidationInfo) -> str:
        if security == "none" and "host" in info.data and not is_loopback(info.data["host"]):
            raise ValueError("must be starttls or tls: password and mails would cross the network in the clear")
        return security

    @field_validator("ca_file")
    @classmethod
    def _holds_certificates(cls, file: Path | None) -> Path | None:
        if file is not None:
            try:
                ssl.create_default_context(cafile=file)
            except OSError:
                raise ValueError("is not a file with certificates (PEM)") from None
        return file

    @field_validator("helo_name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError("is not a full host name such as chat.example.com")
        return name

    @model_validator(mode="after")
    def _says_both_or_neither(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("SMTP_USERNAME and SMTP_PASSWORD go together: one is set and the other is not")
        return self


class Smtp(Mailer):
    """A mail server. What became of a mail that it took, it tells the sender's mailbox and not us."""

    vendor: ClassVar[str] = "smtp"
    Settings: ClassVar[type[LaneSettings]] = SmtpSettings
    client: "Relay"  # type: ignore[assignment]  # all that a lane asks of a client, without HTTP

    @classmethod
    def connect(
        cls,
        given: Any,
        *,
        clock: Callable[[], float],
        transport: Transport | None = None,  # noqa: ARG003 - it carries HTTP
        blip: float = 1.0,  # noqa: ARG003 - the ledger remembers
    ) -> "Smtp":
        """The mailer with its way to the server. Nothing is opened yet."""
        return cls(MAIL, given, cast(Any, Relay(given)), clock=clock)

    @classmethod
    def headers(cls, settings: Any) -> dict[str, str]:  # noqa: ARG003 - SMTP has none
        """Nothing: credentials go once, after the connection is encrypted."""
        return {}

    @classmethod
    def pace(cls, settings: Any) -> Pace | None:
        """As the provider wishes: `SMTP_MAILS_PER_HOUR`."""
        return Pace(settings.mails_per_hour, 3600.0) if settings.mails_per_hour else None

    async def check(self) -> str:
        """Connect, encrypt and log in, and send nothing."""
        async with self.client.conversation() as server:
            await server.nothing()
        return f"{self.settings.username or 'nobody'} at {self.settings.host}"

    async def send(self, email: Email) -> Receipt:
        """Hand over one mail. AnswerLost, and nothing else that is raised, says that it may have gone out."""
        mail = written(email)
        await self.client.gate()
        self._be_in_time()
        async with self.client.conversation() as server:
            await server.envelope(mail)
            answer = await server.text(mail, self._be_in_time)
        return Receipt(_id_in(answer) or mail.message_id, ours=True)

    def _be_in_time(self) -> None:
        if self.clock() > send_by.get():
            raise Postponed("it was too late in the lease to send")


class Relay:
    """The way to one mail server. Keeps nothing open between mails."""

    def __init__(self, settings: SmtpSettings) -> None:
        self.gate: Gate = _at_once
        self._settings = settings
        self._tls = None if settings.security == "none" else ssl.create_default_context(cafile=settings.ca_file)

    @property
    def longest_call(self) -> float:
        """Seconds after which a call has certainly ended, whatever the other side does."""
        # One step more, as the last one before the deadline can be two commands.
        return self._settings.timeout * (OPENING + 1 + PATIENCE) + GOODBYE

    async def aclose(self) -> None:
        """Nothing is open."""

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator["Conversation"]:
        """A server that is connected to, encrypted and logged in to. Raises DeliveryError; nothing was sent then."""
        from aiosmtplib import SMTP

        given = self._settings
        client = SMTP(
            hostname=given.host,
            port=given.port,
            local_hostname=given.helo_name or own_name(),
            use_tls=given.security == "tls",
            start_tls=False,
            tls_context=self._tls,
        )
        server = Conversation(client, given.timeout)
        try:
            await server.open(given)
            yield server
        finally:
            await server.leave()


class Step(StrEnum):
    """What a server answers to, as an operator may read it."""

    CONNECT = "our connection"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    NOOP = "NOOP"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    TEXT = "the mail itself"


class Conversation:
    """One connection, step by step, under one deadline. Every step raises what is true of the mail at that point.

    The library bounds each whole answer, however slowly its bytes drip; what is left of the deadline is its bound.
    """

    def __init__(self, client: "SMTP", timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._deadline = time.monotonic() + OPENING * timeout
        self._is_amid_mail = False
        self._transport: asyncio.BaseTransport | None = None

    async def open(self, given: SmtpSettings) -> None:
        """Connect, encrypt, log in: in this order, or not at all."""
        client = self._client
        await self._step(Step.CONNECT, lambda left: client.connect(timeout=left))
        await self._step(Step.EHLO, lambda left: client.ehlo(timeout=left))
        if given.security == "starttls":
            if not client.supports_extension("starttls"):
                raise Unauthorized(
                    "the mail server offers no STARTTLS, so nothing was told to it: check SMTP_SECURITY and SMTP_PORT"
                )
            await self._step(Step.STARTTLS, lambda left: client.starttls(timeout=left))
            await self._step(Step.EHLO, lambda left: client.ehlo(timeout=left))
        if given.username is not None and given.password is not None:
            await self._log_in(given.username, given.password)

    async def _log_in(self, username: str, password: SecretStr) -> None:
        client = self._client
        method = next((method for method in METHODS if method in client.server_auth_methods), None)
        if method is None:
            raise Unauthorized("the mail server offers no way to log in that we know (AUTH PLAIN, LOGIN, CRAM-MD5)")
        log_in = {"plain": client.auth_plain, "login": client.auth_login, "cram-md5": client.auth_crammd5}[method]
        await self._step(Step.AUTH, lambda left: log_in(username, password.get_secret_value(), timeout=left))

    async def nothing(self) -> None:
        """See that the server is willing."""
        await self._step(Step.NOOP, lambda left: self._client.noop(timeout=left))

    async def envelope(self, mail: Written) -> None:
        """Say from whom and to whom."""
        client, options, encoding = self._client, [], "ascii"
        if client.supports_extension("size"):
            options.append(f"SIZE={len(mail.data)}")
        if mail.needs_utf8:
            self._must_take_utf8(mail)
            options.append("SMTPUTF8")
            encoding = "utf-8"
        await self._step(
            Step.MAIL, lambda left: client.mail(mail.sender, options=options, encoding=encoding, timeout=left)
        )
        await self._step(Step.RCPT, lambda left: client.rcpt(mail.to, encoding=encoding, timeout=left))

    def _must_take_utf8(self, mail: Written) -> None:
        if self._client.supports_extension("smtputf8"):
            return
        if mail.to.isascii():
            raise Unauthorized("the mail server takes no such sender or address for replies (no SMTPUTF8)")
        raise Refused("the mail server takes no international addresses (no SMTPUTF8)", field="email")

    async def text(self, mail: Written, be_in_time: Callable[[], None]) -> "SMTPResponse":
        """Send the mail itself, and hear that it was taken."""
        be_in_time()
        self._is_amid_mail = True
        await self._step(Step.DATA, self._begin)
        be_in_time()
        protocol = self._client.protocol
        if protocol is None or not protocol.is_connected:
            raise NotSent("the mail server hung up before the mail was sent")
        try:
            protocol.write(re.sub(rb"(?m)^\.", b"..", mail.data) + b".\r\n")
            answer = await protocol.read_response(timeout=PATIENCE * self._timeout)
        except Exception as error:  # whatever it was, the mail may have gone out
            lost = f"the mail server did not say whether it took the mail ({type(error).__name__})"
            raise AnswerLost(lost) from error
        self._is_amid_mail = False
        if 200 <= answer.code < 300:
            return answer
        if 400 <= answer.code < 600:
            raise refusal(Step.TEXT, answer.code, answer.message)
        raise AnswerLost(f"the mail server answered {answer.code} to {Step.TEXT}, which means nothing")

    async def _begin(self, left: float) -> None:
        from aiosmtplib import SMTPDataError

        answer = await self._client.execute_command(b"DATA", timeout=left)
        if answer.code != 354:
            self._is_amid_mail = False
            raise SMTPDataError(answer.code, answer.message)

    async def _step(self, step: Step, command: Callable[[float], Awaitable[object]]) -> None:
        """One step before anything of the mail has been sent."""
        from aiosmtplib import SMTPException, SMTPResponseException, SMTPTimeoutError

        left = min(self._timeout, self._deadline - time.monotonic())
        if left <= 0:
            raise NotSent(f"the mail server was too slow, before {step}")
        try:
            await command(left)
            self._transport = self._client.transport
        except SMTPResponseException as error:
            raise refusal(step, error.code, error.message) from None
        except SMTPTimeoutError:
            raise NotSent(f"timed out at {step}") from None
        except (SMTPException, OSError, ValueError) as error:
            raise _not_connected(step, error) from None

    async def leave(self) -> None:
        """Say goodbye where that is polite. Never raises: what became of the mail is known by now."""
        from aiosmtplib import SMTPException

        client = self._client
        if client.is_connected and not self._is_amid_mail:
            with suppress(SMTPException, OSError):
                await client.quit(timeout=min(self._timeout, GOODBYE))
        client.close()
        if self._transport is not None:
            # To close would wait for a deaf server, until it has read the rest of a mail or has ended TLS.
            cast(asyncio.WriteTransport, self._transport).abort()


def _not_connected(step: Step, error: Exception) -> DeliveryError:
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        said = f"the mail server's certificate cannot be trusted (OpenSSL's finding {cause.verify_code})"
        return Unauthorized(f"{said}: check SMTP_HOST and SMTP_CA_FILE")
    if isinstance(cause, ssl.SSLError):
        return NotSent(f"no TLS at {step}: check SMTP_SECURITY and SMTP_PORT (tls is mostly 465, starttls 587)")
    lost = "no connection to the mail server" if step is Step.CONNECT else f"the connection broke at {step}"
    return NotSent(f"{lost} ({type(error).__name__})")


_QUOTED = re.compile(r"<[^>]*>|\S*@\S*")
_DETAIL = re.compile(r"\s*[245]\.(\d{1,3}\.\d{1,3})\b")
_TOO_MUCH = re.compile(r"\btoo many (?!hops)|\brate[ -]?limit|\b(sending|daily|hourly|relay)( \w+){0,2} (quota|limit)")
_NOT_FOR_US = re.compile(
    r"\brelay(ing)? (access )?(is )?(denied|not |prohibited)|\bto relay\b|\bsend ?as|\bnot owned by"
    r"|\bsender (address )?(rejected|refused|denied)|\bsender verify|\bclient host (rejected|blocked)"
)
_NO_SENDER = ("1.7", "1.8")
_CONGESTED = "4.5"


def refusal(step: Step, code: int, text: str) -> DeliveryError:
    """What a refusal means: whose fault is it? The mail was not taken, whichever it is (RFC 5321 section 4.2.1).

    The text tells what the code cannot, as servers refuse a sender only when they hear of the recipient. What a visitor
    may have typed is not looked at, and nothing of the text is repeated: it likes to quote addresses.
    """
    said = f"the mail server answered {code} to {step}"
    words = " ".join(_QUOTED.sub(" ", text).lower().split())
    found = _DETAIL.match(text)
    detail = found[1] if found else ""
    if not 400 <= code < 600:
        return NotSent(f"{said}, which means nothing here")
    if code == 421:
        return NotSent(f"{said}: it is closing", status=code)
    if code in (530, 534, 535, 538) or (step is Step.AUTH and code >= 500):
        return Unauthorized(f"{said}: check SMTP_USERNAME and SMTP_PASSWORD", status=code)
    if detail == _CONGESTED or _TOO_MUCH.search(words):
        return Throttled(f"{said}: too many mails", status=code)
    if detail in _NO_SENDER or _NOT_FOR_US.search(words):
        return Unauthorized(f"{said}: it takes no mail from us, check FOLLOWUP_FROM and SMTP_USERNAME", status=code)
    if step in (Step.RCPT, Step.DATA, Step.TEXT):
        return _of_this_mail(code, said, detail)
    return _of_all_mails(step, code, said)


def _of_this_mail(code: int, said: str, detail: str) -> DeliveryError:
    if code == 452 and not detail.startswith(("1.", "2.")):  # those are about one mailbox: it is full, say
        return Throttled(f"{said}: too many mails", status=code)
    if code < 500:
        return Busy(f"{said}: not now", status=code)
    return Refused(said, status=code)


def _of_all_mails(step: Step, code: int, said: str) -> DeliveryError:
    if code == 452:
        return Throttled(f"{said}: too many mails", status=code)
    if code < 500:
        return NotSent(f"{said}: not now", status=code)
    if code == 552:
        return Refused(f"{said}: the mail is too long", status=code)
    what = {Step.MAIL: "FOLLOWUP_FROM", Step.EHLO: "SMTP_HELO_NAME"}.get(step, "SMTP_HOST, SMTP_PORT and SMTP_SECURITY")
    return Unauthorized(f"{said}: check {what}", status=code)


def own_name() -> str:
    """What we call ourselves: this machine's full name, or an address where it has none. No DNS is asked."""
    name = socket.gethostname()
    return name if _NAME.fullmatch(name) else "[127.0.0.1]"


def _id_in(answer: "SMTPResponse") -> str | None:
    """What a server calls the mail: `queued as 4F2A1`. None where it says nothing that could be found again."""
    text = re.sub(r"^[245]\.\d{1,3}\.\d{1,3}\s+", "", answer.message.splitlines()[-1] if answer.message else "").strip()
    is_an_id = len(text) <= ID_LIMIT and text.isascii() and text.isprintable() and re.search(r"\d", text)
    return text if is_an_id and not re.search("[@<>]", text) else None


async def _at_once() -> None:
    return None
