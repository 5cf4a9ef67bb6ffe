"""The proxy of `scripts/torture`: each fault does what its line in the table says. The weather changes at run time."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from torturing.proxy import BLIND, CLEAR, FAULTS, Between, Proxy, Weather, http, stream

pytestmark = pytest.mark.anyio

BODY = b'{"results": [{"id": "7"}], "status": "COMPLETE"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
ASKED = b"POST /notes HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
SOON = 0.15
"""Seconds after which whoever was not answered counts as never answered."""

Take = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Called:
    """Who is behind the proxy: remembers what arrived, and answers it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                self.heard.append(data)
                writer.write(ANSWER)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def behind(proxy: Proxy) -> AsyncIterator[tuple[Called, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Somebody behind a proxy, and a connection through it."""
    called = Called()
    target = await asyncio.start_server(called.take, "127.0.0.1", 0)
    server = await proxy.listen(0, str(target.sockets[0].getsockname()[1]))
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield called, reader, writer
    finally:
        writer.transport.abort()
        for each in (server, target):
            each.close()
        await asyncio.sleep(0.01)


async def told(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """All that comes, and how it ends."""
    got = b""
    while len(got) < len(ANSWER):
        try:
            async with asyncio.timeout(SOON):
                data = await reader.read(4096)
        except TimeoutError:
            return got, "silent"
        except ConnectionResetError:
            return got, "reset"
        if not data:
            return got, "ended"
        got += data
    return got, "whole"


@pytest.mark.parametrize("fault", ["", *FAULTS])
async def test_what_each_fault_does_to_http(fault: str) -> None:
    weather = Weather({fault: 1.0} if fault else {}, (0.02, 0.02), slowness=0.0)
    async with behind(Proxy(http, weather=weather)) as (called, reader, writer):
        writer.write(ASKED)
        answer, how = await told(reader)
        got, _, body = answer.partition(b"\r\n\r\n")

    arrived = called.heard == [ASKED]
    match fault:
        case "" | "late" | "drip":
            assert (arrived, answer, how) == (True, ANSWER, "whole")
        case "dropped":
            assert (arrived, answer, how) == (False, b"", "reset")
        case "deaf":
            assert (arrived, answer, how) == (False, b"", "silent")
        case "reset":
            assert (arrived, answer, how) == (True, b"", "reset")
        case "mute":
            assert (arrived, answer, how) == (True, b"", "silent")
        case "cut":
            assert (arrived, got, body, how) == (
                True,
                ANSWER.partition(b"\r\n\r\n")[0],
                BODY[: len(BODY) // 2],
                "ended",
            )
        case "half":
            half = BODY[: len(BODY) // 2]
            assert (arrived, body, how) == (True, half, "silent")
            assert b"Content-Length: %d" % len(half) in got
        case "gateway":
            assert arrived
            assert got.startswith(b"HTTP/1.1 502 ")
        case _:
            raise AssertionError(f"nobody looks at {fault}")


@pytest.mark.parametrize("fault", ["", *BLIND])
async def test_what_each_fault_does_to_bytes_that_are_not_understood(fault: str) -> None:
    weather = Weather({fault: 1.0} if fault else {}, (0.02, 0.02))
    async with behind(Proxy(stream, weather=weather)) as (called, reader, writer):
        writer.write(b"Q...")
        answer, how = await told(reader)

    arrived = called.heard == [b"Q..."]
    expected = {
        "": (True, "whole"),
        "late": (True, "whole"),
        "dropped": (False, "reset"),
        "deaf": (False, "silent"),
        "reset": (True, "reset"),
        "mute": (True, "silent"),
    }
    assert (arrived, how) == expected[fault]
    assert answer == (ANSWER if how == "whole" else b"")


async def test_what_is_late_waits() -> None:
    weather = Weather({"late": 1.0}, (SOON * 1.5, SOON * 1.5))
    async with behind(Proxy(http, weather=weather)) as (
        _called,
        reader,
        writer,
    ):
        writer.write(ASKED)
        first = await told(reader)
        second = await told(reader)

    assert (first, second) == ((b"", "silent"), (ANSWER, "whole"))


async def test_what_drips_comes_slowly() -> None:
    async with behind(Proxy(http, weather=Weather({"drip": 1.0}, slowness=SOON * 2))) as (_called, reader, writer):
        writer.write(ASKED)
        answer, how = await told(reader)

    assert how == "silent"
    assert 0 < len(answer) < len(ANSWER)


async def test_the_weather_changes_on_an_open_connection() -> None:
    proxy = Proxy(http)
    async with behind(proxy) as (_called, reader, writer):
        answers = []
        for weather in (CLEAR, Weather({"gateway": 1.0}), CLEAR):
            proxy.change(weather)
            writer.write(ASKED)
            answers.append((await reader.readuntil(b"\r\n"), await reader.readuntil(b"\r\n\r\n"))[0])
            await reader.readexactly(20 if weather.shares else len(BODY))

    assert [answer.split()[1] for answer in answers] == [b"200", b"502", b"200"]
    assert proxy.counted == {"nothing": 2, "gateway": 1}


async def test_only_the_requests_that_are_meant_are_met() -> None:
    proxy = Proxy(http, weather=Weather({"reset": 1.0}, where="POST /contacts "))
    async with behind(proxy) as (_called, reader, writer):
        writer.write(ASKED)

        assert (await told(reader))[1] == "whole"


async def test_a_storm_cuts_every_connection() -> None:
    proxy = Proxy(stream)
    async with behind(proxy) as (_called, reader, writer):
        writer.write(b"Q...")
        await told(reader)
        proxy.change(Weather(is_storm=True))

        assert (await told(reader))[1] == "reset"


async def test_the_same_seed_makes_the_same_weather() -> None:
    weather = Weather({"reset": 0.3, "mute": 0.3})

    first, again, other = [[proxy.fault() for _ in range(50)] for proxy in (Proxy(http, n, weather) for n in (1, 1, 2))]

    assert first == again != other


def test_a_proxy_in_a_process_of_its_own_takes_orders(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        between = Between("http", 1, {port: str(target.getsockname()[1])}, tmp_path)
        try:
            between.change(Weather({"dropped": 1.0}))
            with socket.create_connection(("127.0.0.1", port)) as caller, pytest.raises(ConnectionResetError):
                caller.sendall(ASKED)
                caller.recv(1)

            assert between.change(CLEAR) == {"dropped": 1}
        finally:
            between.close()


def test_a_proxy_that_has_ended_says_so(tmp_path: Path) -> None:
    between = Between("stream", 1, {}, tmp_path)
    between.close()

    with pytest.raises((RuntimeError, ValueError)):
        between.change(CLEAR)
