"""The lanes: one task per destination, so that a slow or broken one never holds up another."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from sync.destinations.base import Destination
from sync.errors import LedgerError
from sync.ledger import Claimed, Settlement
from sync.models import Kind
from sync.outcomes import Delivered
from sync.pipeline import Pipeline

log = structlog.get_logger("sync.dispatcher")

POLL = 0.5
"""Seconds after which an idle lane looks by itself: for leases that lapsed, and for what another process owed."""

NAP = 1.0
"""Seconds that a lane waits when the ledger cannot be written."""

GRACE = 20.0
"""Seconds that calls in flight get to finish at shutdown; their leases take care of the rest."""


@dataclass
class Lane:
    """Serves one destination: claims when there is something due, keeps several calls in flight, settles each."""

    pipeline: Pipeline
    destination: Destination
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    _running: asyncio.Task[None] | None = None
    _held_until: float = 0.0
    _carrying: set[asyncio.Task[None]] = field(default_factory=set)
    _under_way: set[str] = field(default_factory=set)

    @property
    def lease(self) -> float:
        """Seconds a claim holds: twice the longest attempt, which is a read and a write."""
        return 2 * 2 * self.destination.client.longest_call

    @property
    def limits(self) -> list[tuple[Kind, int]]:
        """What to claim, contacts before chats, and how many at once. A delete that is refused holds up no lead."""
        takes = self.destination.takes
        known = ((Kind.CONTACT, self.destination.batch), (Kind.CHAT, 1), (Kind.EMAIL, 1), (Kind.ERASURE, 1))
        return [(kind, n) for kind, n in known if kind in takes]

    def wake(self) -> None:
        """Look for work now."""
        self.woken.set()

    def hold(self, seconds: float) -> None:
        """Claim nothing for a while: there is no place in the limit of calls until then."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    async def run(self) -> None:
        """Serve until `stop`."""
        self._running = asyncio.current_task()
        slots = asyncio.Semaphore(self.destination.settings.connections)
        while not self.stopping:
            await slots.acquire()
            await self._held()
            claimed = None if self.stopping else await self._claim()
            if claimed is not None and claimed.owed:
                task = asyncio.create_task(self._give_back(claimed) if self.stopping else self._carry(claimed))
                self._carrying.add(task)
                task.add_done_callback(self._carrying.discard)
                task.add_done_callback(lambda _: slots.release())
            else:
                slots.release()
                await self._idle(claimed)

    async def stop(self) -> None:
        """Claim nothing more and let calls in flight finish, also that of a claim which is on its way."""
        self.stopping = True
        self.wake()
        end = time.monotonic() + GRACE
        if self._running is not None:
            await asyncio.wait([self._running], timeout=GRACE)
        if self._carrying:
            await asyncio.wait(self._carrying, timeout=max(end - time.monotonic(), 0.0))

    async def drain(self) -> int:
        """Serve until nothing is due now, then end; returns how many attempts were made."""
        attempts = 0
        while (claimed := await self._claim()) is not None and (claimed.owed or claimed.has_more):
            if claimed.owed:
                await self._carry(claimed)
                attempts += len(claimed.owed)
        return attempts

    async def _claim(self) -> Claimed | None:
        self.woken.clear()
        try:
            return await self.pipeline.claim(self.destination, self.limits, self.lease)
        except LedgerError as error:
            log.warning("cannot claim", destination=self.destination.name, reason=str(error))
            return None

    async def _held(self) -> None:
        while not self.stopping and (left := self._held_until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, POLL))

    async def _idle(self, claimed: Claimed | None) -> None:
        if self.stopping:
            return
        if claimed is None:
            await asyncio.sleep(NAP)
            return
        wait = POLL if claimed.wake_in is None else min(max(claimed.wake_in, 0.0), POLL)
        try:
            async with asyncio.timeout(wait + 0.001):
                await self.woken.wait()
        except TimeoutError:
            return

    async def _carry(self, claimed: Claimed) -> None:
        settlements = await self._attempt(claimed)
        await self._settle(settlements, claimed.asked_at + self.lease)
        for settlement in settlements:
            _tell(self.destination.name, claimed.kind, settlement)

    async def _give_back(self, claimed: Claimed) -> None:
        """What was claimed while we were told to stop is for whoever comes next: a mail would else be unknown."""
        await self._settle(self.pipeline.postponed(claimed, "this host is stopping"), claimed.asked_at + self.lease)

    async def _attempt(self, claimed: Claimed) -> list[Settlement]:
        """Attempt a batch; of what outlived its lease here, and is claimed again, the earlier attempt has to end first.

        A machine that stood still for longer than a lease would else send twice what cannot be known by a key.
        """
        earlier = frozenset(owed.delivery for owed in claimed.owed) & self._under_way
        begun = frozenset(owed.delivery for owed in claimed.owed) - earlier
        self._under_way |= begun
        try:
            return await self.pipeline.deliver(self.destination, claimed, self.lease, earlier)
        finally:
            self._under_way -= begun

    async def _settle(self, settlements: Sequence[Settlement], lease_until: float) -> None:
        while True:
            try:
                await self.pipeline.writer.settle(settlements)
            except LedgerError as error:
                log.warning("cannot settle", destination=self.destination.name, reason=str(error))
                if self.pipeline.clock() + NAP > lease_until:
                    return
                await asyncio.sleep(NAP)
            else:
                return


def _tell(destination: str, kind: Kind, settlement: Settlement) -> None:
    """One log line per attempt."""
    outcome = settlement.outcome
    facts = {"destination": destination, "kind": str(kind), "delivery": settlement.delivery}
    if isinstance(outcome, Delivered):
        log.info("delivered", **facts, remote_id=outcome.receipt.remote_id)
    else:
        log.info(type(outcome).__name__.lower(), **facts, reason=outcome.reason, status=outcome.status)


@dataclass
class Dispatcher:
    """All lanes together."""

    lanes: Sequence[Lane]

    def wake(self) -> None:
        """Something was committed: every lane looks for work."""
        for lane in self.lanes:
            lane.wake()

    async def run(self) -> None:
        """Serve all destinations until `stop`."""
        async with asyncio.TaskGroup() as group:
            for lane in self.lanes:
                group.create_task(lane.run())

    async def stop(self) -> None:
        """Claim nothing more and let calls in flight finish."""
        await asyncio.gather(*(lane.stop() for lane in self.lanes))

    async def drain(self) -> int:
        """Serve until nothing is due anywhere now; returns how many attempts were made."""
        return sum(await asyncio.gather(*(lane.drain() for lane in self.lanes)))
