"""The same server without a part of its work: it answers 200 without storing. The argument is "parse" or "nothing".

The app, its routes, the server below it and how the body is read are those of the service. "parse" verifies and reads
each webhook as the service does; "nothing" does not even look at it.
"""

import asyncio
import sys
import time
from typing import Any, cast

from sync.cli.serving import run
from sync.ids import new_id
from sync.ledger import Applied
from sync.pipeline import Pipeline, verify
from sync.settings import Settings, load
from sync.sources.base import Source, WebhookRequest
from sync.web.app import Health, build
from sync.web.server import Server
from sync.web.webhooks import Webhooks
from sync.wiring import sources


class Parsing:
    """Verifies and reads, and forgets."""

    async def receive(self, source: Source, request: WebhookRequest) -> Applied:
        """Say what the service would say."""
        verify(source, request)
        now = time.time()
        event = source.read(request.body, event_id=new_id("ev", now), received_at=now)
        return Applied("accepted" if event.error is None else "unreadable", event.id)


class Nothing:
    """Says yes."""

    def __init__(self) -> None:
        self._event = new_id("ev", time.time())

    async def receive(self, source: Source, request: WebhookRequest) -> Applied:
        """Say what the service would say."""
        del source, request
        return Applied("accepted", self._event)


async def serve(kind: str) -> None:
    """Serve until ended."""
    settings = load(Settings)
    pipeline = cast("Pipeline", Parsing() if kind == "parse" else Nothing())
    webhooks = Webhooks(pipeline, sources(settings), settings.body_limit, settings.body_timeout)
    server = Server(build(webhooks, Health(cast("Any", None), None, 0)), "127.0.0.1", settings.port)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started()
        print(f"listens on {server.url}/", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(serve(sys.argv[1]))
