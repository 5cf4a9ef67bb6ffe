"""A sandbox in memory, a clock that stands still, and a client that talks to it in process."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
from starlette.applications import Starlette

from sync.sandbox.app import build
from sync.sandbox.faults import Faults
from sync.sandbox.store import Store


@dataclass
class Clock:
    """Time that moves only when it is told to."""

    now: float = 1_772_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.close()


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def app(store: Store, faults: Faults, clock: Clock) -> Starlette:
    return build(store, faults=faults, clock=clock)


@pytest.fixture
async def crm(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def client_of(app: Starlette, **more: object) -> httpx.AsyncClient:
    headers = {"User-Agent": "chat-crm-sync/0.1", **(more.get("headers") or {})}  # type: ignore[dict-item]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sandbox", headers=headers)


@pytest.fixture
def connect() -> Callable[..., httpx.AsyncClient]:
    """A client for an app that the test builds itself."""
    return client_of
