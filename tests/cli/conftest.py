"""A desk to sit at: a real ledger on a real file, a CRM in memory, and the commands as a person types them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from sync import wiring
from sync.cli import main
from sync.ids import new_id
from sync.ledger import Ledger
from sync.ledger.mailing import SINCE
from sync.sandbox.app import build
from sync.sandbox.store import Mail, Store
from sync.settings import Settings, load
from tests.people import Clock

Handler = Callable[[httpx.Request], httpx.Response]


@dataclass
class Desk:
    """`take` stores webhooks, `deliver` lets the lanes run until nothing is due, `run` types a command."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    clock: Clock
    crm: Store = field(default_factory=Store)

    @property
    def ledger_file(self) -> Path:
        return self.folder / "ledger.sqlite3"

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    def open(self) -> Ledger:
        return wiring.open_ledger(load(Settings), clock=self.clock)

    def take(self, *bodies: dict[str, Any] | bytes) -> list[str]:
        """Store webhooks; the ids of their events."""
        settings, ledger = load(Settings), self.open()
        source = wiring.sources(settings)["acquire"]
        events = [
            source.read(
                body if isinstance(body, bytes) else json.dumps(body).encode(),
                event_id=new_id("ev", self.clock()),
                received_at=self.clock(),
            )
            for body in bodies
        ]
        with ledger.transaction():
            applied = ledger.apply(events)
        ledger.engine.close()
        return [one.event for one in applied]

    def mail(self, **variables: str) -> None:
        """Set up a mailer, the sandbox's if no other is named, as if it had been there since yesterday."""
        self.set(**{"SYNC_MAILER": "sandbox", **variables})
        ledger = self.open()
        with ledger.transaction():
            ledger.set_up_mail()
            ledger.engine.run("set_mark", name=SINCE, value=repr(self.clock() - 86400))
        ledger.engine.close()

    @property
    def outbox(self) -> list[Mail]:
        return self.crm.mails()

    async def deliver(
        self, answer: Handler | None = None, *, names: Sequence[str] | None = None, mail: Handler | None = None
    ) -> None:
        """Let the lanes run. The CRM is the sandbox, or `answer` says what comes back; of a mailer `mail` says it."""
        settings, ledger = load(Settings), self.open()
        app = build(self.crm, clock=self.clock)
        served = [
            wiring.connect(
                name,
                load(wiring.settings_of(name)),
                clock=self.clock,
                transport=httpx.MockTransport(answer) if answer else httpx.ASGITransport(app=app),
            )
            for name in names or settings.destinations
        ]
        transport = httpx.MockTransport(mail) if mail else httpx.ASGITransport(app=app)
        sends = wiring.mailer(settings, clock=self.clock, transport=transport)
        served += [] if sends is None else [sends]
        service = wiring.build(settings, ledger, served, clock=self.clock, random=Random(1))
        for destination in served:
            if answer is None and destination.name == wiring.SANDBOX:
                await destination.repair()
        await service.dispatcher.drain()
        service.writer.close()
        for destination in served:
            await destination.client.aclose()
        ledger.engine.close()

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, list(words))

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)


def start(chat: int, **details: str | None) -> dict[str, Any]:
    """A chat begins."""
    return {"event": "CHAT_ON_START", "data": {"id": chat, "details": details, "date_created": "2026-09-21 10:00:00"}}


def close(chat: int, at: float | None = None, **visitor: str | None) -> dict[str, Any]:
    """A chat ends, some hours ago or at a time."""
    began = "2026-09-21 10:00:00" if at is None else f"{datetime.fromtimestamp(at - 65, UTC):%Y-%m-%d %H:%M:%S}"
    return {
        "event": "CHAT_ON_CLOSE",
        "id": str(chat),
        "users": {"visitor": visitor, "agent": {"name": "Grace"}},
        "chat_wait_time": 5,
        "chat_duration": 60,
        "date_created": began,
    }


def loses(request: httpx.Request) -> httpx.Response:
    """A server whose answers never come."""
    raise httpx.ReadError("lost", request=request)


def says(status: int, message: str = "no") -> Handler:
    """A CRM that gives the same answer to everything."""
    return lambda request: httpx.Response(status, json={"status": "error", "message": message, "category": "ERROR"})


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    clock = Clock()
    desk = Desk(tmp_path, monkeypatch, clock)
    desk.set(
        SYNC_LEDGER=f"sqlite:///{desk.ledger_file}", SYNC_SECRET_KEY="k" * 32, SANDBOX_BASE_URL="http://127.0.0.1:1"
    )
    opening = wiring.open_ledger
    monkeypatch.setattr(wiring, "open_ledger", lambda settings, clock=clock: opening(settings, clock=clock))
    yield desk
    desk.crm.close()
