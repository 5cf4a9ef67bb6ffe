"""The public app: webhooks, liveness, readiness, metrics."""

import asyncio
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sync.errors import LedgerError
from sync.ledger.hearing import silent
from sync.ledger.writer import Writer
from sync.web.metrics import LedgerCollector
from sync.web.unsubscribe import Unsubscribe
from sync.web.webhooks import Webhooks, is_direct


@dataclass
class Health:
    """Whether the service lives, and whether it can do its work. `folder` is where the ledger is, if on this disk."""

    writer: Writer
    folder: Path | None
    disk_reserve: int
    fresh_for: float = 1.0
    _checked: tuple[float, list[str], list[str]] = field(default=(-1e9, [], []))

    async def healthz(self, request: Request) -> Response:
        """The process answers, and the thread that writes lives."""
        del request
        if not self.writer.is_alive:
            return JSONResponse({"status": "the thread that writes the ledger has ended"}, 503)
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """The ledger can be written, and the disk is not nearly full. Of what is only strange there are warnings."""
        del request
        if time.monotonic() - self._checked[0] > self.fresh_for:
            self._checked = (time.monotonic(), await self.findings(), await self.warnings())
        _, findings, warnings = self._checked
        return JSONResponse(
            {"status": "ready" if not findings else "not ready", "findings": findings, "warnings": warnings},
            503 if findings else 200,
        )

    async def warnings(self) -> list[str]:
        """What is no fault of this service, a sentence each: a source that has gone silent."""
        try:
            async with asyncio.timeout(10):
                return await self.writer.do(silent)
        except (LedgerError, TimeoutError):
            return []

    async def findings(self) -> list[str]:
        """What keeps the service from doing its work, a sentence each."""
        found = []
        try:
            async with asyncio.timeout(10):
                await self.writer.do(lambda ledger: ledger.prove_writable())
        except LedgerError as error:
            found.append(str(error))
        except TimeoutError:
            found.append("the ledger did not answer within 10 seconds")
        if self.folder is not None and (free := shutil.disk_usage(self.folder).free) < self.disk_reserve:
            found.append(f"the disk is nearly full: {free >> 20} MiB are free")
        return found


def build(webhooks: Webhooks, health: Health, unsubscribe: Unsubscribe | None = None) -> Starlette:
    """The ASGI app."""
    registry = CollectorRegistry()
    collector = LedgerCollector(webhooks.rejected)
    registry.register(collector)

    async def metrics(request: Request) -> Response:
        if not is_direct(request):
            return PlainTextResponse("metrics are served to this machine only", 403)
        try:
            await collector.refresh(health.writer)
        except LedgerError as error:
            return PlainTextResponse(str(error), 503)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def greet(request: Request) -> Response:
        del request
        return PlainTextResponse("chat-crm-sync: webhooks are taken at /webhooks/… (POST); /readyz says how it is.\n")

    return Starlette(
        routes=[
            Route("/webhooks/{source}", webhooks.take, methods=["POST"]),
            Route("/webhooks/{source}/{token}", webhooks.take, methods=["POST"]),
            Route("/webhooks/{source}/{token}/", webhooks.take, methods=["POST"]),
            *([] if unsubscribe is None else unsubscribe.routes),
            Route("/", greet),
            Route("/healthz", health.healthz),
            Route("/readyz", health.readyz),
            Route("/metrics", metrics),
        ]
    )
