"""The imitation CRM as one application: the API, the pages, the outbox, the controls."""

import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sync.sandbox import control, outbox, pages
from sync.sandbox.api import ENDPOINTS, Endpoint
from sync.sandbox.faults import Faults
from sync.sandbox.gate import OUTERMOST_SEND, Calls, Gate
from sync.sandbox.guard import Guard
from sync.sandbox.limits import Limit
from sync.sandbox.store import Store


class Sandbox(Starlette):
    """Remembers the server's own `send`, so that a fault can close the connection behind it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        scope[OUTERMOST_SEND] = send
        await super().__call__(scope, receive, send)


def build(
    store: Store,
    *,
    faults: Faults | None = None,
    clock: Callable[[], float] = time.time,
    token: str | None = None,
) -> Starlette:
    """The sandbox over a store. With a `token` the API wants it as Bearer; the pages never do.

    `app.state` holds what a test or a benchmark wants to reach: `store`, `faults`, `limit` and `search_limit` (set
    `.calls`; the search limit counts per second), and `calls` (what came, and how it was answered).
    """
    gate = Gate(
        store=store,
        faults=faults or Faults(),
        limit=Limit(clock),
        search_limit=Limit(clock, seconds=1.0, policy="SECONDLY"),
        calls=Calls(),
        clock=clock,
        token=token,
    )
    endpoints = (*ENDPOINTS, outbox.TAKE)
    api = [Route(path, _passing(gate, entry), methods=[entry.method]) for entry in endpoints for path in entry.paths]
    shown = [*control.routes(gate), *outbox.routes(gate), *pages.routes(gate)]
    app = Sandbox(routes=[*api, *shown], middleware=[Middleware(Guard)])
    for name in ("store", "faults", "limit", "search_limit", "calls"):
        setattr(app.state, name, getattr(gate, name))
    return app


def _passing(gate: Gate, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def pass_on(request: Request) -> Response:
        return await gate.pass_on(request, endpoint)

    return pass_on
