"""The whole service in one process: real ledger, real adapters, an imitation CRM behind real HTTP messages."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
from starlette.applications import Starlette

from sync.destinations.base import Destination
from sync.ids import new_id
from sync.ledger import Ledger
from sync.ledger.engine import Engine
from sync.ledger.sqlite import SqliteEngine
from sync.sandbox.app import build as build_sandbox
from sync.sandbox.store import Record, Store
from sync.settings import Settings
from sync.web.app import Health
from sync.web.app import build as build_app
from sync.web.unsubscribe import Unsubscribe
from sync.web.webhooks import Webhooks
from sync.wiring import SandboxSettings, Service, addresses, build, connect, erasures, mailer, mailing, takers
from tests.databases import OnTestClock
from tests.people import Clock


class Crm(httpx.ASGITransport):
    """The imitation CRM as a transport. `unreachable` makes every connection refused; a dropped one is a read error.

    The answers of `loses_answers_of` (a path) never come back; calls of `breaks_at` raise what no adapter expects.
    """

    def __init__(self, app: Starlette) -> None:
        super().__init__(app)
        self.state = app.state
        self.unreachable = False
        self.loses_answers_of: str | None = None
        self.breaks_at: str | None = None
        self.before: Callable[[httpx.Request], None] = lambda request: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.unreachable:
            raise httpx.ConnectError("refused", request=request)
        self.before(request)
        if self.breaks_at == request.url.path:
            raise RuntimeError("nobody expected that")
        try:
            response = await super().handle_async_request(request)
        except ConnectionResetError as error:
            raise httpx.ReadError("reset", request=request) from error
        if self.loses_answers_of == request.url.path:
            raise httpx.ReadError("lost", request=request)
        return response

    @property
    def contacts(self) -> dict[str, dict[str, str]]:
        """What the CRM has: properties by email (by phone where there is none)."""
        found: list[Record] = self.state.store.contacts
        return {r.properties.get("email") or r.properties["phone"]: dict(r.properties) for r in found}


@dataclass
class Running:
    """A service that was put together, with handles on everything that a test wants to touch."""

    service: Service
    ledger: Ledger
    clock: Clock
    crm: Crm
    destination: Destination
    webhooks: Webhooks
    client: httpx.AsyncClient

    async def post(self, body: Any, path: str = "/webhooks/acquire", **headers: str) -> httpx.Response:
        """Send one webhook; a dict goes as JSON, bytes as they are."""
        if isinstance(body, bytes):
            return await self.client.post(path, content=body, headers=headers)
        return await self.client.post(path, json=body, headers=headers)

    async def drain(self) -> int:
        """Let the lanes do what is due now."""
        return await self.service.dispatcher.drain()


@asynccontextmanager
async def running(
    folder: Path, *, limit: int | None = None, database: str | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """A running service without its lanes' loops: a test drains them when it likes, on a clock that stands still.

    `database` is the URL of an empty PostgreSQL database; without one the ledger is a file.
    """
    clock = Clock()
    crm = Crm(build_sandbox(Store(":memory:"), clock=clock))
    crm.state.limit.calls = limit
    given = Settings(ledger=f"sqlite:///{folder / 'ledger.sqlite3'}", **settings)
    engine: Engine = (
        SqliteEngine(folder / "ledger.sqlite3", clock=clock) if database is None else OnTestClock(database, clock)
    )
    engine.migrate()
    ledger = Ledger(engine, takers(given), new_id=new_id, mailing=mailing(given), erasures=erasures(given))
    with ledger.transaction():
        ledger.set_up_mail()
    sends = mailer(given, clock=clock, transport=crm)
    destination = connect("sandbox", SandboxSettings(), clock=clock, transport=crm, blip=0)

    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)

    served = [destination] if sends is None else [destination, sends]
    service = build(given, ledger, served, clock=clock, random=Random(1), sleep=sleep)
    await destination.repair()
    webhooks = Webhooks(service.pipeline, service.sources, given.body_limit, given.body_timeout)
    unsubscribe = Unsubscribe(service.writer, addresses(given))
    app = build_app(webhooks, Health(service.writer, folder, given.disk_reserve), unsubscribe)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8900") as client:
            yield Running(service, ledger, clock, crm, destination, webhooks, client)
    finally:
        for each in served:
            await each.client.aclose()
        service.writer.close()
        engine.close()
        crm.state.store.close()


def start(
    chat: int = 172, email: str | None = "ada@example.com", name: str | None = "Ada", **said: Any
) -> dict[str, Any]:
    """A chat start as the vendor documents it. Ids begin at 1000: the vendor has no chat 0."""
    return {
        "data": {
            " id": 1000 + chat,
            "details": {"name": name, "email": email, "phone": None, "remarks": None, "meta": "_by:app", **said},
            "status": "pending",
            "date_created": "2026-09-21 14:13:00",
            "date_updated": "2026-09-21 14:13:00",
            "department_id": "",
        },
        "event": "CHAT_ON_START",
    }
