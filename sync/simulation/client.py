"""A small HTTP/1.1 client on bare sockets: httpx makes a few hundred calls a second, this one thousands.

It is for posting to our own server, whose answers are short and say their length. Nothing else uses it.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")

NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One keep-alive connection, for one request at a time. It is opened when first needed, and again after a loss."""

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        is_secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if is_secure else 80)
        self._ssl = ssl.create_default_context() if is_secure else None
        self._head = f"Host: {parts.netloc}\r\nContent-Type: application/JSON\r\n"
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._received = b""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] = NONE) -> Answer:
        """Post a body of JSON. Raises OSError (TimeoutError included) where no whole answer came."""
        if self._transport is None or self._transport.is_closing():
            self._transport = await self._opened()
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\n{self._head}{more}Content-Length: {len(body)}\r\n\r\n"
        loop = asyncio.get_running_loop()
        self._answer, self._received = loop.create_future(), b""
        self._transport.write(head.encode() + body)
        late = loop.call_later(self._timeout, self._lose, TimeoutError("no answer in time"))
        try:
            return await self._answer
        finally:
            late.cancel()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    async def _opened(self) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout):
            transport, _ = await loop.create_connection(lambda: self, self._host, self._port, ssl=self._ssl)
        return transport

    def data_received(self, data: bytes) -> None:
        """Part of an answer came."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None or self._answer.done():
            return
        head = self._received[:end]
        status, length = STATUS.match(head), LENGTH.search(head)
        if status is None or length is None:
            self._lose(ConnectionError("no answer that we understand"))
        elif len(self._received) >= end + 4 + int(length[1]):
            self._answer.set_result(Answer(int(status[1]), self._received[end + 4 :]))
            if CLOSES.search(head):
                self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self._fail(error or ConnectionResetError("the connection was closed"))

    def _lose(self, error: Exception) -> None:
        self._fail(error)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
