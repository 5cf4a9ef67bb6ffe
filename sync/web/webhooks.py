"""Takes webhooks: reads the body within its limits, hands it on, and answers exactly 200 once it is stored."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sync.errors import LedgerError, NotAuthentic
from sync.ledger.hearing import heard
from sync.pipeline import Pipeline
from sync.settings import is_loopback
from sync.sources.base import Source, WebhookRequest
from sync.web.feedback import Feedback

log = structlog.get_logger("sync.web")

UNPROVEN = "wrong or missing signature or token"

RETRY_AFTER = 5
"""Seconds after which the source may try again when the ledger could not be written."""

LARGE = 64 << 10
"""Bytes up to which bodies need not wait for each other."""

LENGTH = re.compile(r"[0-9]{1,18}")
"""What a Content-Length may be. `str.isdigit` would take ² as well, and `int` refuses thousands of digits."""

LARGE_AT_ONCE = 200
"""So many larger bodies are in memory at once: what strangers can take of it is bounded."""

NOT_DIRECT = frozenset({"forwarded", "via", "cdn-loop", "origin"})
"""Headers that a proxy adds, or a browser on behalf of a page. Also `X-Forwarded-…` and whatever ends in `-IP`."""


Take = Callable[[WebhookRequest], Awaitable[Response]]
"""What is done with a webhook that was read whole. May raise NotAuthentic and LedgerError."""


@dataclass
class Webhooks:
    """The endpoint `POST /webhooks/{source}[/{token}]`, where `feedback` is a mailer's that tells of bounces.

    `rejected` counts what was not stored, by status, `heard` authentic webhooks, by source; `counted` how much of both
    stands in the ledger already.
    """

    pipeline: Pipeline
    sources: Mapping[str, Source]
    body_limit: int
    body_timeout: float
    feedback: Mapping[str, Feedback] = field(default_factory=dict)
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))
    rejected: Counter[str] = field(default_factory=Counter)
    heard: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)

    async def take(self, request: Request) -> Response:
        """Take one webhook."""
        name = request.path_params["source"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        asked = WebhookRequest(headers, b"", request.path_params.get("token"))
        if (feedback := self.feedback.get(name)) is not None:
            return await self._take(request, asked, partial(self._hear, feedback))
        source = self.sources.get(name)
        if source is None:
            return self._refuse(404, "unknown source")
        if not source.is_guarded and not is_direct(request):
            return self._refuse(403, "without a secret or a token only direct calls from this machine are taken")
        if source.is_hopeless(asked):
            return self._refuse(401, UNPROVEN, close=True)
        return await self._take(request, asked, partial(self._receive, source))

    async def _take(self, request: Request, asked: WebhookRequest, then: Take) -> Response:
        async with AsyncExitStack() as room:
            return await self._take_whole(request, asked, then, room)

    async def _take_whole(self, request: Request, asked: WebhookRequest, then: Take, room: AsyncExitStack) -> Response:
        try:
            async with asyncio.timeout(self.body_timeout):
                body = await self._body(request, room)
        except TimeoutError:
            return self._refuse(408, "the body came too slowly", close=True)
        except ClientDisconnect:
            return self._refuse(400, "the body was cut off", close=True)
        if body is None:
            return self._refuse(413, "the body is too large", close=True)
        try:
            return await then(replace(asked, body=body))
        except NotAuthentic:
            return self._refuse(401, UNPROVEN)
        except LedgerError as error:
            log.error("a webhook could not be stored", reason=str(error))
            answer = self._refuse(503, "it could not be stored now; please send it again")
            answer.headers["Retry-After"] = str(RETRY_AFTER)
            return answer

    async def _receive(self, source: Source, request: WebhookRequest) -> Response:
        applied = await self.pipeline.receive(source, request)
        self.heard[heard(source.name)] += 1
        return JSONResponse({"status": applied.status, "event": applied.event})

    async def _hear(self, feedback: Feedback, request: WebhookRequest) -> Response:
        return JSONResponse({"status": "accepted", "suppressed": await feedback.receive(request)})

    async def _body(self, request: Request, room: AsyncExitStack) -> bytes | None:
        """The body, or None where it is over the limit. A large one takes its place in `room`."""
        length = request.headers.get("content-length", "0")
        if not LENGTH.fullmatch(length) or int(length) > self.body_limit:
            return None
        chunks, size = [], 0
        async for chunk in request.stream():
            if size <= LARGE < size + len(chunk):
                await room.enter_async_context(self.large)
            size += len(chunk)
            if size > self.body_limit:
                return None
            chunks.append(chunk)
        return b"".join(chunks)

    def _refuse(self, status: int, reason: str, *, close: bool = False) -> Response:
        self.rejected[f"rejected_{status}"] += 1
        return JSONResponse({"error": reason}, status, headers={"Connection": "close"} if close else None)


def is_direct(request: Request) -> bool:
    """Whether a program on this machine made a request itself.

    Behind a local proxy or tunnel everybody is loopback, and so is a browser here that some page on the internet sends.
    """
    if any(_tells_of_another(name.replace("_", "-"), value) for name, value in request.headers.items()):
        return False
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or (request.client is not None and not is_loopback(request.client.host)):
        return False
    return is_loopback(hosts[0].rsplit(":", 1)[0] if not hosts[0].endswith("]") else hosts[0])


def _tells_of_another(name: str, value: str) -> bool:
    if name == "sec-fetch-site":
        return value != "none"
    return name in NOT_DIRECT or name.startswith("x-forwarded") or name.endswith("-ip")
