"""What the conformance suite needs of every destination: the adapter on a fake of its vendor, with a wire between them.

To add a destination: a Rig, and its name in RIGS.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, ClassVar

import httpx

from sync.destinations.base import Destination, Result
from sync.destinations.hubspot import HubSpot, HubSpotSettings
from sync.destinations.webhook import Webhook, WebhookSettings
from sync.errors import DeliveryError
from sync.http import Client
from sync.models import Chat, Contact, Message, Owed
from sync.outcomes import Outcome, outcome_of
from sync.sandbox.app import build
from sync.sandbox.faults import Faults
from sync.sandbox.store import Change, Store
from tests.fakes.webhook import Receiver

NOW = 1_750_000_000.0
CANARY = "canary-7f3@example.com"

Handler = Callable[[httpx.Request], httpx.Response]


class Clock:
    """Time that stands still until it is told otherwise."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Wire(httpx.AsyncBaseTransport):
    """Carries calls to the fake, unless `instead` answers them.

    After the fake has acted, `loses_answers` loses what it says, and where `breaks_after` says so it is a 500. Its
    answers are dated where `dates` says what time it is over there.
    """

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app=app)
        self.instead: Handler | None = None
        self.loses_answers = False
        self.breaks_after: Callable[[httpx.Request], bool] = lambda request: False
        self.dates: Callable[[], float] | None = None
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.instead is not None:
            return self.instead(request)
        response = await self._inner.handle_async_request(request)
        if self.dates is not None:
            response.headers["Date"] = format_datetime(datetime.fromtimestamp(self.dates(), UTC), usegmt=True)
        if self.breaks_after(request):
            return httpx.Response(500, json={"status": "error", "message": "internal error"})
        if self.loses_answers and "read" not in request.url.path:
            raise httpx.ReadTimeout("lost", request=request)
        return response


@dataclass(frozen=True)
class Person:
    """A record in the vendor's hands, in our words."""

    remote_id: str
    email: str | None
    phone: str | None


class Rig(ABC):
    """An adapter, its fake, and the wire between them."""

    name: ClassVar[str]
    keeps_what_others_wrote: ClassVar[bool] = False
    reads_answers: ClassVar[bool] = True
    has_ids_of_its_own: ClassVar[bool] = True

    def __init__(self) -> None:
        self.clock = Clock()
        self.own_clock = self.clock
        self.intended: list[str] = []
        self.wire = Wire(self.app())
        self.destination = self.build()

    @abstractmethod
    def app(self) -> Any: ...

    @abstractmethod
    def build(self, **settings: Any) -> Destination: ...

    @abstractmethod
    def people(self) -> Sequence[Person]: ...

    @abstractmethod
    def chats(self) -> int: ...

    @abstractmethod
    def refuse(self, email: str) -> None: ...

    def close(self) -> None:
        return None

    def client(self, base_url: str, headers: Mapping[str, str]) -> Client:
        return Client(
            base_url, headers=headers, transport=self.wire, clock=lambda: self.own_clock(), elapsed=lambda: self.clock()
        )

    async def intend(self, deliveries: Sequence[str], at: float | None = None) -> None:
        self.intended += deliveries

    async def upsert(self, *owed: Owed[Contact]) -> Sequence[Result]:
        return await self.destination.upsert(owed, self.intend)

    async def outcomes(self, *owed: Owed[Contact]) -> list[Outcome]:
        try:
            results = await self.upsert(*owed)
        except DeliveryError as error:
            results = [error] * len(owed)
        return [outcome_of(result) for result in results]

    async def outcome(self, owed: Owed[Contact]) -> Outcome:
        return (await self.outcomes(owed))[0]

    async def logged(self, owed: Owed[Chat]) -> Outcome:
        try:
            return outcome_of(await self.destination.log(owed, self.intend))
        except DeliveryError as error:
            return outcome_of(error)


class HubSpotRig(Rig):
    """HubSpot on its sandbox."""

    name = "hubspot"
    keeps_what_others_wrote = True

    def app(self) -> Any:
        self.store = Store(":memory:")
        self.faults = Faults()
        self.application = build(self.store, faults=self.faults, clock=self.clock, token="t0ken")
        return self.application

    def build(self, **settings: Any) -> Destination:
        chosen = HubSpotSettings(access_token="t0ken", base_url="http://localhost", _env_file=None, **settings)
        client = self.client(chosen.base_url, HubSpot.headers(chosen))
        client.has_heard = True  # it has been at work for a while
        self.destination = HubSpot("hubspot", chosen, client, clock=lambda: self.own_clock())
        return self.destination

    def close(self) -> None:
        self.store.close()

    def people(self) -> Sequence[Person]:
        return [
            Person(str(there.id), there.properties.get("email"), there.properties.get("phone"))
            for there in self.store.contacts
        ]

    def chats(self) -> int:
        return len(self.store.notes)

    def refuse(self, email: str) -> None:
        self.faults.reject = {email}

    def seed(self, **properties: str) -> str:
        """Somebody else makes a record."""
        (record,) = self.store.write("contacts", [Change(None, properties)], made_by="sales", now=self.clock())
        return str(record.id)

    def properties(self, remote_id: str) -> Mapping[str, str]:
        record = self.store.one("contacts", int(remote_id))
        assert record is not None
        return record.properties

    @property
    def calls(self) -> int:
        return int(self.application.state.calls.total)


class WebhookRig(Rig):
    """The generic webhook on a small receiver."""

    name = "webhook"
    reads_answers = False
    has_ids_of_its_own = False

    def app(self) -> Any:
        self.receiver = Receiver()
        return self.receiver

    def build(self, **settings: Any) -> Destination:
        chosen = WebhookSettings(base_url="https://hooks.example.com/in/", _env_file=None, **settings)
        self.destination = Webhook("webhook", chosen, self.client("", Webhook.headers(chosen)), clock=self.clock)
        return self.destination

    def people(self) -> Sequence[Person]:
        return [Person(uid, said.get("email"), said.get("phone")) for uid, said in self.receiver.contacts.items()]

    def chats(self) -> int:
        return len(self.receiver.chats)

    def refuse(self, email: str) -> None:
        self.receiver.refused.add(email)


RIGS: tuple[type[Rig], ...] = (HubSpotRig, WebhookRig)


def owed(number: int = 1, *, version: int = 1, **more: Any) -> Owed[Contact]:
    """A claimed contact. What `Owed` does not know goes into the contact."""
    known = {name: more.pop(name) for name in list(more) if name in Owed.__slots__}
    said = {"name": f"Ada Number{number}", "email": f"ada{number}@example.com", "phone": None, **more}
    contact = Contact(id=f"c{number}", uid=f"uid-{number}", version=version, created_at=NOW, updated_at=NOW, **said)
    return Owed(f"delivery{number}", contact, version, **known)


def owed_chat(number: int = 1, *, version: int = 1, text: str = "Hello", **more: Any) -> Owed[Chat]:
    """A claimed chat of one line."""
    chat = Chat(
        id=f"x{number}",
        source="acquire",
        chat=f"v1:{number}",
        started_at=NOW,
        closed_at=NOW + 185,
        wait=12,
        duration=185,
        agent="Grace",
        transcript=(Message("m1", "visitor", text, at=NOW + 20, name="Ada"),),
        version=version,
        updated_at=NOW + 185,
    )
    return Owed(f"chat{number}", chat, version, **more)
