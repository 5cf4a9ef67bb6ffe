"""A mail server on this machine, in a thread of its own: aiosmtpd, which can be told to misbehave."""

import asyncio
import re
import ssl
import tempfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

USERNAME = "engines"
PASSWORD = "analytical-canary-5c1"


@cache
def certificate(*names: str) -> str:
    """A key and a certificate that it signed itself, made now: for these hosts and addresses, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test only: {names[0]}")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (private + made.public_bytes(Encoding.PEM)).decode()


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


HERE = ("localhost", "127.0.0.1")
ELSEWHERE = ("elsewhere.example",)
"""Whom a certificate is for: this machine, or another."""


class MailServer:
    """Keeps the mails that it took. Its troubles are named by step: EHLO, AUTH, MAIL, RCPT, DATA, TEXT, QUIT.

    `answers` replaces an answer, `hangs_up` closes the connection instead of answering, `stalls` never answers, `drips`
    answers without an end. At TEXT the last three have taken the mail.
    """

    def __init__(
        self,
        *,
        security: str = "none",
        names: Sequence[str] = HERE,
        methods: Sequence[str] = ("PLAIN", "LOGIN"),
        utf8: bool = True,
    ) -> None:
        self.mails: list[Envelope] = []
        self.logged_in: list[str] = []
        self.heard = bytearray()
        self.answers: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.hangs_up: set[str] = set()
        self.stalls: set[str] = set()
        self.drips: set[str] = set()
        self.password = PASSWORD
        self.methods = methods
        self.utf8 = utf8
        self.security = security
        self.port = 0
        self._folder = tempfile.TemporaryDirectory()
        self.ca_file = Path(self._folder.name) / "certificate.pem"
        self.ca_file.write_text(certificate(*names))
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening: whoever connects now is refused."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        self._folder.cleanup()

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self.ca_file)
        implicit = tls if self.security == "tls" else None
        server = loop.run_until_complete(loop.create_server(lambda: _Session(self, tls), "127.0.0.1", 0, ssl=implicit))
        self.port = server.sockets[0].getsockname()[1]
        loop.call_soon(self._listening.set)
        loop.run_forever()
        server.close()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, method: str, login: Any) -> AuthResult:
        """aiosmtpd asks whether a login is good."""
        good = isinstance(login, LoginPassword) and login == LoginPassword(USERNAME.encode(), self.password.encode())
        if good:
            self.logged_in.append(method)
        return AuthResult(success=good, handled=False)

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name for it
        self, server: "_Session", session: Session, envelope: Envelope, name: str, lines: list[str]
    ) -> list[str]:
        """aiosmtpd lets this change what it offers."""
        session.host_name = name
        auth = [f"250-AUTH {' '.join(self.methods)}"] if self.methods else []
        return [line for one in lines for line in (auth if one.startswith("250-AUTH") else [one])]

    async def handle_RCPT(  # noqa: N802
        self, server: "_Session", session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """aiosmtpd asks about each recipient."""
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: "_Session", session: Session, envelope: Envelope) -> str:  # noqa: N802
        """aiosmtpd asks what to say to a whole mail."""
        answer = self.answers.get("TEXT", "250 OK: queued as 4F2A1")
        if re.match("2|garbage", answer):
            self.mails.append(envelope)
        await server.misbehave("TEXT")
        return answer


class _Session(SMTP):
    """One connection: aiosmtpd's, with a chance to misbehave at each step."""

    def __init__(self, server: MailServer, tls: ssl.SSLContext) -> None:
        self._server = server
        super().__init__(
            server,
            hostname="mail.test",
            tls_context=tls if server.security == "starttls" else None,
            enable_SMTPUTF8=server.utf8,
            auth_require_tls=server.security == "starttls",
            authenticator=server.authenticate,
            loop=asyncio.get_event_loop(),
        )

    def data_received(self, data: bytes) -> None:
        self._server.heard += data
        super().data_received(data)

    async def misbehave(self, step: str) -> None:
        """Do what the test wants at this step, where that is more than another answer."""
        if step in self._server.hangs_up:
            self.transport.abort()
        if step in self._server.hangs_up | self._server.stalls:
            await asyncio.Event().wait()  # until the connection is gone
        while step in self._server.drips:
            for byte in b"250-slowly\r\n":
                self._writer.write(bytes([byte]))
                await asyncio.sleep(0.01)

    async def _instead(self, step: str) -> bool:
        await self.misbehave(step)
        answer = self._server.answers.get(step)
        if answer is not None:
            await self.push(answer)
        return answer is not None

    async def smtp_EHLO(self, arg: Any) -> None:  # noqa: N802
        if not await self._instead("EHLO"):
            await super().smtp_EHLO(arg)

    async def smtp_AUTH(self, arg: Any) -> None:  # noqa: N802
        if not await self._instead("AUTH"):
            await super().smtp_AUTH(arg)

    async def smtp_NOOP(self, arg: Any) -> None:  # noqa: N802
        if not await self._instead("NOOP"):
            await super().smtp_NOOP(arg)

    async def smtp_MAIL(self, arg: Any) -> None:  # noqa: N802
        if not await self._instead("MAIL"):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: Any) -> None:  # noqa: N802
        if not await self._instead("RCPT"):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: Any) -> None:  # noqa: N802
        if not await self._instead("DATA"):
            await super().smtp_DATA(arg)

    async def smtp_QUIT(self, arg: Any) -> None:  # noqa: N802
        if not await self._instead("QUIT"):
            await super().smtp_QUIT(arg)
