"""Whoever connects and says nothing, or too much, takes no place from a webhook for long."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sync.web.app import Health, build
from sync.web.connection import HEAD_BYTES
from sync.web.server import Server
from tests.running import running

PATIENCE = 0.2

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
PADDING = b"a: " + b"b" * 8000 + b"\r\n"


async def greet(request: Request) -> Response:
    """Answers at once, and with enough to fill a pipe."""
    return PlainTextResponse("x" * 10_000)


async def count(request: Request) -> Response:
    """Takes its time, and counts what was sent."""
    body = await request.body()
    await asyncio.sleep(2 * PATIENCE)
    return PlainTextResponse(str(len(body)))


def app() -> Starlette:
    return Starlette(routes=[Route("/", greet, methods=["GET", "POST"]), Route("/count", count, methods=["POST"])])


@asynccontextmanager
async def served(app: Any, patience: float = PATIENCE) -> AsyncIterator[Server]:
    server = Server(app, "127.0.0.1", 0, patience=patience)
    task = asyncio.create_task(server.run())
    try:
        await server.started()
        async with asyncio.timeout(20):
            yield server
    finally:
        server.stop()
        await task


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with served(app()) as made:
        yield made


class Client:
    """A connection on which one can say whatever one likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.heard = b""
        self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        with suppress(ConnectionError):
            while piece := await self._reader.read(65536):
                self.heard += piece

    @property
    def is_cut(self) -> bool:
        return self._hearing.done()

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def until(self, it: Callable[[], bool]) -> None:
        while not it():
            await asyncio.sleep(0.005)

    async def goes_on(self, data: bytes, *, pause: float, seconds: float) -> bool:
        """Say something again and again; returns whether that is still listened to after so many seconds."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while loop.time() < ends and not self.is_cut:
            self.say(data)
            await asyncio.sleep(pause)
        return not self.is_cut


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    made = Client(reader, writer)
    try:
        yield made
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        await made._hearing


IDLERS = {
    "who says nothing": (b"", b""),
    "whose head never ends": (GET, b"a: b\r\n"),
    "who sends newlines after an answer": (GET + b"\r\n", b"\r\n"),
    "whose next head never ends": (GET + b"\r\n" + GET, b"a: b\r\n"),
    "whose body nobody reads": (POST + b"Content-Length: 99999\r\n\r\n", b"x"),
    "whose trailers nobody reads": (POST + CHUNKED + b"0\r\n", b"a: b\r\n"),
}


@pytest.mark.parametrize("case", IDLERS)
async def test_who_does_not_come_to_the_point_is_cut_off(server: Server, case: str) -> None:
    first, then = IDLERS[case]
    async with client(server) as idler:
        idler.say(first)

        assert not await idler.goes_on(then, pause=PATIENCE / 10, seconds=5)


async def test_who_says_nothing_leaves_their_place_to_others(server: Server) -> None:
    server._server.config.limit_concurrency = 4
    async with client(server) as a, client(server) as b, client(server) as c:
        async with client(server) as late:
            late.say(GET + b"\r\n")
            await late.until(lambda: late.is_cut)
        await a.until(lambda: a.is_cut and b.is_cut and c.is_cut)
        async with client(server) as later:
            later.say(GET + b"\r\n")
            await later.until(lambda: len(later.heard) > 10_000)

    assert late.heard.startswith(b"HTTP/1.1 503 ")
    assert later.heard.startswith(b"HTTP/1.1 200 ")


ENDLESS = {
    "headers": (GET, PADDING),
    "one header": (GET + b"a: ", b"b" * 8000),
    "an address": (b"GET /", b"b" * 8000),
    "trailers": (b"POST /count HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"0\r\n", PADDING),
}


@pytest.mark.parametrize("case", ENDLESS)
async def test_a_head_without_end_is_cut_off(case: str) -> None:
    first, then = ENDLESS[case]
    told = 0
    async with served(app(), patience=600) as server, client(server) as endless:
        endless.say(first)
        await asyncio.sleep(0.02)
        while not endless.is_cut:
            endless.say(then)
            told += len(then)
            await asyncio.sleep(0.001)

    assert told < 2 * HEAD_BYTES


async def test_a_head_is_measured_however_it_comes(server: Server) -> None:
    fits, does_not = PADDING * (HEAD_BYTES // len(PADDING)), PADDING * (HEAD_BYTES // len(PADDING) + 1)
    async with client(server) as one, client(server) as other:
        one.say(GET + fits + b"\r\n")
        other.say(GET + does_not + b"\r\n")
        await one.until(lambda: one.heard != b"" and other.is_cut)

        assert one.heard.startswith(b"HTTP/1.1 200 ")
        assert not other.heard.startswith(b"HTTP/1.1 200 ")


BODIES = {
    "whole": (b"Content-Length: 300000\r\n\r\n", b"x" * 300_000, 1),
    "slow": (b"Content-Length: 300000\r\n\r\n", b"x" * 30_000, 10),
    "in chunks": (CHUNKED, b"7530\r\n" + b"x" * 30_000 + b"\r\n", 10),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_large_body_and_a_slow_answer_are_not_cut_off(server: Server, case: str) -> None:
    head, piece, times = BODIES[case]
    async with client(server) as sender:
        for _ in range(2):  # the second on a connection that was used before
            sender.heard = b""
            sender.say(b"POST /count HTTP/1.1\r\nHost: a\r\n" + head)
            for _ in range(times):
                sender.say(piece)
                await asyncio.sleep(2 * PATIENCE / times)
            sender.say(b"0\r\n\r\n" if head is CHUNKED else b"")
            await sender.until(lambda: sender.heard.endswith(b"300000"))
        assert not sender.is_cut


async def test_who_asks_again_and_who_waits_after_an_answer_stay(server: Server) -> None:
    async with client(server) as busy, client(server) as idle:
        idle.say(GET + b"\r\n")
        assert await busy.goes_on(GET + b"\r\n", pause=PATIENCE / 4, seconds=4 * PATIENCE)
        assert not idle.is_cut
        idle.say(GET + b"\r\n")
        await idle.until(lambda: idle.heard.count(b"HTTP/1.1 200 ") == 2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is left to the system")
async def test_who_never_reads_an_answer_is_cut_off(server: Server) -> None:
    connections = server._server.server_state.connections
    with socket.create_connection((server.host, server.port)) as deaf:
        deaf.setblocking(False)
        with suppress(BlockingIOError):
            deaf.sendall((GET + b"\r\n") * 2000)
        while not connections:
            await asyncio.sleep(0.01)
        while connections:
            await asyncio.sleep(0.01)


async def test_a_webhook_whose_body_is_slow_is_given_up(tmp_path: Path) -> None:
    async with running(tmp_path, body_timeout=0.1) as service:
        whole = build(service.webhooks, Health(service.service.writer, tmp_path, 0))
        async with served(whole, patience=600) as server, client(server) as slow:
            slow.say(b"POST /webhooks/acquire HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n")

            assert not await slow.goes_on(b"x", pause=0.01, seconds=5)
            assert service.webhooks.rejected == {"rejected_408": 1}
