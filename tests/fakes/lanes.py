"""A destination that takes everything, as slowly as a test likes."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sync.destinations.base import Destination, Intend, Result
from sync.http import Client
from sync.models import Contact, Kind, Owed, Receipt
from sync.settings import DestinationSettings
from tests.people import Clock


class Recorder(Destination):
    """Takes contacts; waits for `pause` before it answers, if there is one."""

    vendor = "recorder"
    Settings = DestinationSettings
    takes = frozenset({Kind.CONTACT})
    batch = 10

    def __init__(self, name: str, *, pause: asyncio.Event | None = None) -> None:
        settings = DestinationSettings(base_url="http://127.0.0.1:1")
        super().__init__(name, settings, Client(settings.base_url), clock=Clock())
        self.pause = pause
        self.begun = self.finished = 0
        self._changed = asyncio.Condition()

    @classmethod
    def headers(cls, settings: Any) -> dict[str, str]:
        return {}

    async def check(self) -> str:
        return self.name

    async def upsert(self, owed: Sequence[Owed[Contact]], intend: Intend) -> Sequence[Result]:
        self.begun += len(owed)
        await self._tell()
        if self.pause is not None:
            await self.pause.wait()
        self.finished += len(owed)
        await self._tell()
        return [Receipt(one.subject.uid, ours=True) for one in owed]

    async def has(self, n: int) -> None:
        """Return when n contacts have arrived."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.finished >= n)

    async def has_begun(self, n: int) -> None:
        """Return when n contacts were sent."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.begun >= n)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
