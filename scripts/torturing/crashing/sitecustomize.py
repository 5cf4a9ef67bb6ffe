"""Ends a process of the service at one exact instant. Python imports this by itself when its folder is on the path.

`TORTURE_POINT` names the instant, `TORTURE_HITS` how often it passes unharmed before, less one, and `TORTURE_ACTION`
what happens then: "kill" or "stop". `TORTURE_CLOCK` moves the clock by so many seconds, and again whenever a file of
the folder `TORTURE_CLOCKS` that is called like the process's number says so. Nothing else changes.

The instants: `store`, `claim`, `intend` and `settle`, each `.before` and `.after` its commit; `contact` and `note`,
each `.sent` (the request has left, nothing of the answer is read) and `.answered` (it is read, nothing is settled).
Of mails likewise: `mail-claim` (it is written down as unknown), `mail.leaving`, `mail.sent`, `mail.answered`,
`mail-settle`.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LINGER = 0.03
"""Seconds between the instant and the end, where what has escaped too early gets a chance to arrive."""

WRITES = {"/crm/v3/objects/contacts": "contact", "/crm/v3/objects/notes": "note", "/email": "mail"}
GLANCE = 0.02
"""Seconds from one look at what the clock should say to the next."""

READS = ("/batch/read", "/search")


class Crash:
    """Counts how often the chosen instant is passed, and ends the process there."""

    def __init__(self, point: str, hits: int, action: str) -> None:
        self.point = point
        self.left = hits
        self.signal = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[action]

    def pass_by(self, point: str) -> None:
        """Come by an instant."""
        if point != self.point:
            return
        self.left -= 1
        if self.left == 0:
            if not point.endswith(".after"):  # what comes after a commit must not get out any more
                time.sleep(LINGER)
            signal.pthread_kill(threading.get_ident(), self.signal)  # this thread itself gets no step further


class Clock:
    """A clock on the wall that goes wrong by so many seconds; how many can change while it is looked at."""

    def __init__(self, seconds: float, folder: str | None) -> None:
        self.seconds = seconds
        self.file = None if folder is None else Path(folder) / str(os.getpid())
        self.looked = 0.0
        self.real = time.time

    def time(self) -> float:
        """The wrong time."""
        if self.file is not None and time.monotonic() - self.looked > GLANCE:
            self.looked = time.monotonic()
            with suppress(OSError, ValueError):
                self.seconds = float(self.file.read_text())
        return self.real() + self.seconds


def move_clock(seconds: float, folder: str | None) -> None:
    """Let every clock on the wall in this process go wrong."""
    time.time = Clock(seconds, folder).time


def watch_ledger(crash: Crash) -> None:
    """Come by before and after the commit of everything that is written."""
    from sync.ledger import Ledger

    done: set[str] = set()
    mails: set[str] = set()

    def noting(name: str, word: str, counts: Callable[[Any], bool]) -> None:
        original = getattr(Ledger, name)

        def noted(self: Any, *given: Any, **named: Any) -> Any:
            result = original(self, *given, **named)
            if counts(result):
                done.add(word)
            if name == "claim" and result.owed and result.kind == "email":
                done.add("mail-claim")
                mails.update(mail.delivery for mail in result.owed)
            if name == "settle" and any(settlement.delivery in mails for settlement in given[0]):
                done.add("mail-settle")
            return result

        setattr(Ledger, name, noted)

    noting("apply", "store", lambda _: True)
    noting("claim", "claim", lambda claimed: bool(claimed.owed))
    noting("intend", "intend", lambda _: True)
    noting("settle", "settle", lambda _: True)
    original = Ledger.transaction

    @contextmanager
    def transaction(self: Any, *given: Any, **named: Any) -> Iterator[None]:
        done.clear()
        with original(self, *given, **named):
            yield
            for word in sorted(done):
                crash.pass_by(f"{word}.before")
        for word in sorted(done):
            crash.pass_by(f"{word}.after")

    Ledger.transaction = transaction  # type: ignore[method-assign]


def watch_calls(crash: Crash) -> None:
    """Come by when a request that writes has left, and when its answer has been read."""
    import httpx

    original = httpx.AsyncClient.send

    async def send(self: Any, request: httpx.Request, **named: Any) -> httpx.Response:
        if (word := word_of(request.url.path)) is not None:
            crash.pass_by(f"{word}.leaving")
            request.extensions = {**request.extensions, "trace": tracer(crash, word, request.extensions["trace"])}
        return await original(self, request, **named)

    httpx.AsyncClient.send = send  # type: ignore[method-assign]


def tracer(
    crash: Crash, word: str, theirs: Callable[[str, Any], Awaitable[None]]
) -> Callable[[str, Any], Awaitable[None]]:
    """What httpcore tells how far a request has come; the service itself listens, too."""

    async def trace(event: str, info: Any) -> None:
        await theirs(event, info)
        if event.endswith(".send_request_body.complete"):
            await asyncio.sleep(LINGER / 3)  # what was written leaves with the next turn of the loop
            crash.pass_by(f"{word}.sent")
        elif event.endswith(".receive_response_body.complete"):
            crash.pass_by(f"{word}.answered")

    return trace


def watch_smtp(crash: Crash) -> None:
    """Come by before the text of a mail is sent, when it has left, and when its answer has been read."""
    try:
        from aiosmtplib.protocol import SMTPProtocol
    except ImportError:
        return
    write, read = SMTPProtocol.write, SMTPProtocol.read_response
    awaited: set[int] = set()

    def writing(self: Any, data: bytes) -> None:
        if data.endswith(b"\r\n.\r\n"):
            crash.pass_by("mail.leaving")
            awaited.add(id(self))
        write(self, data)

    async def reading(self: Any, *given: Any, **named: Any) -> Any:
        if id(self) not in awaited:
            return await read(self, *given, **named)
        awaited.discard(id(self))
        reading_on = asyncio.ensure_future(read(self, *given, **named))  # an answer that nobody awaits is lost
        await asyncio.sleep(LINGER / 3)  # what was written leaves with the next turn of the loop
        crash.pass_by("mail.sent")
        answer = await reading_on
        crash.pass_by("mail.answered")
        return answer

    SMTPProtocol.write, SMTPProtocol.read_response = writing, reading  # type: ignore[method-assign]


def word_of(path: str) -> str | None:
    """What a call writes; None for one that reads."""
    if path.endswith(READS):
        return None
    return next((word for start, word in WRITES.items() if path.startswith(start)), None)


def arm() -> None:
    """Do what the environment asks for."""
    offset, folder = os.environ.get("TORTURE_CLOCK"), os.environ.get("TORTURE_CLOCKS")
    if offset or folder:
        move_clock(float(offset or 0), folder)
    if point := os.environ.get("TORTURE_POINT"):
        crash = Crash(point, int(os.environ.get("TORTURE_HITS", "1")), os.environ.get("TORTURE_ACTION", "kill"))
        watch_ledger(crash)
        watch_calls(crash)
        watch_smtp(crash)


arm()
