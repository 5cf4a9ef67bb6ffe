"""Stands between two programs and does to what they say what bad networks do. The weather changes while it runs.

`python -m torturing.proxy SORT SEED LISTEN=TARGET …`, where a target is a port here or the path of a socket. Each line
on stdin is a new weather and is answered with what was done so far; the proxy ends with its stdin.
"""

import asyncio
import json
import re
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torturing.chance import chance
from torturing.members import SCRIPTS, environment

FAULTS: Mapping[str, str] = {
    "late": "waits before it hands on",
    "dropped": "cuts the connection and hands nothing on",
    "deaf": "hands nothing on and never answers",
    "reset": "hands it on and cuts the connection instead of answering",
    "mute": "hands it on and never answers",
    "drip": "answers a few bytes at a time, `slowness` seconds apart",
    "cut": "cuts the connection in the middle of the answer",
    "half": "answers half of the body as if it were all",
    "gateway": "hands it on and answers 502",
}
"""What can be done to a request and its answer; `half` and `gateway` only where it is HTTP."""

BLIND = ("late", "dropped", "deaf", "reset", "mute")
"""What can be done to bytes that are not understood."""

BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n<h1>Bad Gateway</h1>"
LENGTH = re.compile(rb"(?i)^content-length:[ \t]*(\d+)", re.MULTILINE)
MOST = 1 << 16
PIECE = 16
"""Bytes of an answer that drips."""


@dataclass(frozen=True, slots=True)
class Weather:
    """`shares`: which share of all requests meets which fault, of those whose first line matches `where`.

    Bytes that are not understood have no first line; there each portion counts as a request. `is_storm` cuts every
    connection that is open at this moment.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    delay: tuple[float, float] = (0.05, 0.3)
    where: str = ""
    slowness: float = 0.02
    is_storm: bool = False


CLEAR = Weather()


class Cut(Exception):
    """This connection ends now, with a reset."""


@dataclass(eq=False)
class Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        """Write all of it out."""
        self.writer.write(data)
        await self.writer.drain()

    async def silence(self) -> None:
        """Say nothing until the other side has had enough."""
        while await self.reader.read(MOST):
            pass
        raise Cut

    async def end(self) -> None:
        """End it after what was said."""
        self.writer.close()
        await self.writer.wait_closed()

    def cut(self) -> None:
        """End it with a reset."""
        if not self.writer.transport.is_closing():
            if (held := self.writer.get_extra_info("socket")).family != socket.AF_UNIX:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()


@dataclass(eq=False)
class Proxy:
    """Listens and hands on. `counted` is what was done so far, by fault."""

    serve: "Conversation"
    seed: int = 0
    weather: Weather = CLEAR
    counted: Counter[str] = field(default_factory=Counter)
    lines: set[Line] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Its moods are its own, the same for the same seed."""
        self.random = chance(self.seed, "weather")

    async def listen(self, port: int, target: str) -> asyncio.Server:
        """Take connections to a port of this machine; a target is a port, or the path of a socket."""

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            caller = Line(reader, writer)
            self.lines.add(caller)
            try:
                called = Line(*await _reached(target))
                try:
                    await self.serve(self, caller, called)
                finally:
                    called.cut()
            except (Cut, OSError, EOFError, asyncio.LimitOverrunError):
                pass
            finally:
                caller.cut()
                self.lines.discard(caller)

        return await asyncio.start_server(take, "127.0.0.1", port)

    def change(self, weather: Weather) -> None:
        """From now on it is like this."""
        self.weather = weather
        for line in list(self.lines) if weather.is_storm else ():
            line.cut()

    def fault(self, request: bytes = b"") -> str:
        """What happens to this request; nothing is an empty word."""
        picked = self.random.random()
        if re.search(self.weather.where, request.partition(b"\r\n")[0].decode("latin-1")):
            for name, share in self.weather.shares.items():
                picked -= share
                if picked < 0:
                    self.counted[name] += 1
                    return name
        self.counted["nothing"] += 1
        return ""

    async def before(self, fault: str, caller: Line) -> None:
        """What happens before a request is handed on, if it is."""
        if fault == "late":
            await asyncio.sleep(self.random.uniform(*self.weather.delay))
        elif fault == "dropped":
            raise Cut
        elif fault == "deaf":
            await caller.silence()


async def http(proxy: Proxy, caller: Line, called: Line) -> None:
    """HTTP: each request and its answer are read whole."""
    while True:
        request = await _message(caller.reader)
        fault = proxy.fault(request)
        await proxy.before(fault, caller)
        await called.say(request)
        answer = await _message(called.reader)
        head, _, body = answer.partition(b"\r\n\r\n")
        match fault:
            case "reset":
                raise Cut
            case "mute":
                await caller.silence()
            case "drip":
                for start in range(0, len(answer), PIECE):
                    await caller.say(answer[start : start + PIECE])
                    await asyncio.sleep(proxy.weather.slowness)
            case "cut":
                await caller.say(answer[: len(answer) - (len(body) + 1) // 2])
                return await caller.end()
            case "half":
                half = body[: len(body) // 2]
                await caller.say(LENGTH.sub(b"Content-Length: %d" % len(half), head) + b"\r\n\r\n" + half)
            case "gateway":
                await caller.say(BAD_GATEWAY)
            case _:
                await caller.say(answer)


async def stream(proxy: Proxy, caller: Line, called: Line) -> None:
    """Bytes that are not understood, for example PostgreSQL's."""

    async def answers() -> None:
        while data := await called.reader.read(MOST):
            await caller.say(data)
        raise Cut

    async def questions() -> None:
        while data := await caller.reader.read(MOST):
            fault = proxy.fault()
            await proxy.before(fault, caller)
            if fault in ("reset", "mute"):
                back.cancel()
            await called.say(data)
            if fault == "reset":
                await asyncio.sleep(0.05)  # so that the other side has acted on it before it sees this one gone
                raise Cut
            if fault == "mute":
                await caller.silence()
        raise Cut

    back, forth = asyncio.ensure_future(answers()), asyncio.ensure_future(questions())
    try:
        await asyncio.wait((back, forth), return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in (back, forth):
            task.cancel()
        await asyncio.gather(back, forth, return_exceptions=True)


Conversation = Callable[[Proxy, Line, Line], Awaitable[None]]
"""Serves one connection, from who calls to who is called, until somebody ends it."""

SORTS: Mapping[str, Conversation] = {"http": http, "stream": stream}


async def _reached(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.startswith("/"):
        return await asyncio.open_unix_connection(target)
    return await asyncio.open_connection("127.0.0.1", int(target))


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


class Between:
    """A proxy in a process of its own, which ends with ours. `mouths` says what is reached through which port."""

    def __init__(self, sort: str, seed: int, mouths: Mapping[int, str], folder: Path) -> None:
        self.ports = list(mouths)
        pairs = [f"{port}={target}" for port, target in mouths.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torturing.proxy", sort, str(seed), *pairs],
            cwd=folder,
            env=environment({}, SCRIPTS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.change(CLEAR)

    def change(self, weather: Weather) -> Counter[str]:
        """Change the weather; returns what was done so far. Raises RuntimeError if the proxy has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asdict(weather)) + "\n")
            self._process.stdin.flush()
            if said := self._process.stdout.readline():
                return Counter(json.loads(said))
        raise RuntimeError("the proxy has ended")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


async def run(sort: str, seed: int, pairs: Sequence[str]) -> None:
    """Serve until stdin ends."""
    proxy = Proxy(SORTS[sort], seed)
    for pair in pairs:
        port, _, target = pair.partition("=")
        await proxy.listen(int(port), target)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := await orders.readline():
        told: dict[str, Any] = json.loads(order)
        proxy.change(Weather(**{**told, "delay": tuple(told["delay"])}))
        print(json.dumps(proxy.counted), flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(run(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
