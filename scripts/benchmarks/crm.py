"""The sandbox CRM with a clock: it notes when the first byte came of the first calls that named each email.

`GET /_arrivals` answers `{"read": {email: time}, "create": {email: time}}` in seconds of the machine's monotonic clock.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sync.cli.serving import run
from sync.sandbox.app import build
from sync.sandbox.store import Store
from sync.web.server import Server


class Noting:
    """Stands before the sandbox."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.arrivals: dict[str, dict[str, float]] = {"read": {}, "create": {}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        at = time.monotonic()
        if scope["path"] == "/_arrivals":
            await JSONResponse(self.arrivals)(scope, receive, send)
            return
        verb = scope["path"].rpartition("/")[2]
        if verb not in self.arrivals:
            await self.app(scope, receive, send)
            return
        body = bytearray()

        async def noting() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await self.app(scope, noting, send)
        self.note(verb, json.loads(body), at)

    def note(self, verb: str, body: Any, at: float) -> None:
        """Keep the time of every email that comes for the first time."""
        for each in body.get("inputs", ()):
            if "@" in (name := str(each.get("id") or each.get("properties", {}).get("email")).lower()):
                self.arrivals[verb].setdefault(name, at)


async def serve(file: Path) -> None:
    """Serve until ended."""
    server = Server(Noting(build(Store(file))), "127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started()
        print(f"listens on {server.url}/", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(serve(Path(sys.argv[1])))
