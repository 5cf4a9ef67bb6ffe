"""Takes webhooks: reads the body within its limits, hands it on, and answers exactly 200 once it is stored."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sync.errors import LedgerUnavailable, NotAuthentic
from sync.pipeline import Pipeline
from sync.settings import is_loopback
from sync.sources.base import Source, WebhookRequest

log = structlog.get_logger("sync.web")

RETRY_AFTER = 5
"""Seconds after which the source may try again when the ledger could not be written."""

FORWARDED = ("forwarded", "via")


@dataclass
class Webhooks:
    """The endpoint `POST /webhooks/{source}[/{token}]`. `rejected` counts what was not stored, by
    status; `counted` how much of that stands in the ledger already."""

    pipeline: Pipeline
    sources: Mapping[str, Source]
    body_limit: int
    body_timeout: float
    rejected: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)

    async def take(self, request: Request) -> Response:
        """Take one webhook."""
        source = self.sources.get(request.path_params["source"])
        if source is None:
            return self._refuse(404, "unknown source")
        if not source.is_guarded and not is_direct(request):
            return self._refuse(403, "without a secret or a token only direct calls from this machine are taken")
        try:
            async with asyncio.timeout(self.body_timeout):
                body = await self._body(request)
        except TimeoutError:
            return self._refuse(408, "the body came too slowly", close=True)
        except ClientDisconnect:
            return self._refuse(400, "the body was cut off", close=True)
        if body is None:
            return self._refuse(413, "the body is too large", close=True)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        return await self._receive(source, WebhookRequest(headers, body, request.path_params.get("token")))

    async def _receive(self, source: Source, request: WebhookRequest) -> Response:
        try:
            applied = await self.pipeline.receive(source, request)
        except NotAuthentic:
            return self._refuse(401, "wrong or missing signature or token")
        except LedgerUnavailable as error:
            log.error("a webhook could not be stored", reason=str(error))
            answer = self._refuse(503, "it could not be stored now; please send it again")
            answer.headers["Retry-After"] = str(RETRY_AFTER)
            return answer
        return JSONResponse({"status": applied.status, "event": applied.event})

    async def _body(self, request: Request) -> bytes | None:
        """The body, or None where it is over the limit."""
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.body_limit:
            return None
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.body_limit:
                return None
            chunks.append(chunk)
        return b"".join(chunks)

    def _refuse(self, status: int, reason: str, *, close: bool = False) -> Response:
        self.rejected[f"rejected_{status}"] += 1
        return JSONResponse({"error": reason}, status, headers={"Connection": "close"} if close else None)


def is_direct(request: Request) -> bool:
    """Whether a request came straight from this machine: behind a local proxy or tunnel everybody is loopback."""
    if any(name in FORWARDED or name.startswith("x-forwarded") for name in request.headers):
        return False
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return is_loopback(name) and (request.client is None or is_loopback(request.client.host))
