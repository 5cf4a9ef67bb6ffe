"""The one thread that writes: it takes everything that waits and commits it in one transaction (group commit)."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sync.errors import LedgerUnavailable
from sync.ledger import Applied, Ledger, Settlement
from sync.models import Event

log = logging.getLogger("sync.ledger")

GROUP = 500
"""The most jobs that share a transaction: it bounds how long the first of them waits."""

WAITING = 20_000
"""More jobs than this in the queue are refused (503): memory is bounded, and the source tries again."""

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Job:
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    event: Event | None = None
    settlements: Sequence[Settlement] | None = None
    work: Callable[[Ledger], Any] | None = None
    result: Any = field(default=None)
    error: BaseException | None = field(default=None)


class Writer:
    """Answers each job only after the commit that holds it.

    No linger: a job that comes alone is committed alone, and while a commit is under way the next group gathers.
    """

    def __init__(self, ledger: Ledger, *, on_commit: Callable[[], None] = lambda: None) -> None:
        self.ledger = ledger
        self.on_commit = on_commit
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    async def apply(self, event: Event) -> Applied:
        """Store and fold one event. Returns after the commit. Raises LedgerUnavailable."""
        applied: Applied = await self._submit(event=event)
        return applied

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write down how attempts ended. Returns after the commit. Raises LedgerUnavailable."""
        await self._submit(settlements=settlements)

    async def do(self, work: Callable[[Ledger], T]) -> T:
        """Do anything with the ledger inside the next transaction. Returns after the commit."""
        result: T = await self._submit(work=work)
        return result

    def close(self) -> None:
        """Finish what waits, then stop."""
        self._jobs.put(None)
        self._thread.join(timeout=30)

    def _submit(self, **job: Any) -> "asyncio.Future[Any]":
        if self._jobs.qsize() > WAITING or not self._thread.is_alive():
            raise LedgerUnavailable("too many webhooks wait for the ledger")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put(_Job(loop, future, **job))
        return future

    def _run(self) -> None:
        stopping = False
        while not stopping:
            jobs: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) >= GROUP:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            stopping = job is None
            if jobs:
                self._serve(jobs)
                self._answer(jobs)

    def _serve(self, jobs: list[_Job]) -> None:
        """Run jobs in one transaction; if it fails for anything but the disk, one by one: a bad one sinks alone."""
        try:
            with self.ledger.transaction():
                self._do(jobs)
        except LedgerUnavailable as error:
            for job in jobs:
                job.error = error
        except Exception as error:  # noqa: BLE001 - whatever one event raises must not sink its group
            if len(jobs) > 1:
                for job in jobs:
                    self._serve([job])
            else:
                self._sink(jobs[0], error)

    def _do(self, jobs: list[_Job]) -> None:
        settling = [job for job in jobs if job.settlements is not None]
        if settling:
            self.ledger.settle([s for job in settling for s in job.settlements or ()])
        applying = [job for job in jobs if job.event is not None]
        if applying:
            answers = self.ledger.apply([job.event for job in applying if job.event is not None])
            for job, answer in zip(applying, answers, strict=True):
                job.result = answer
        for job in jobs:
            if job.work is not None:
                job.result = job.work(self.ledger)

    def _sink(self, job: _Job, error: Exception) -> None:
        log.error("a ledger job failed", exc_info=error)
        if job.event is None:
            job.error = error
            return
        try:
            with self.ledger.transaction():
                job.result = self.ledger.apply_poison(job.event, error)
        except LedgerUnavailable as unavailable:
            job.error = unavailable

    def _answer(self, jobs: list[_Job]) -> None:
        """Wake each waiting loop once for all its jobs."""
        for loop in {job.loop for job in jobs}:
            mine = [job for job in jobs if job.loop is loop]
            try:
                loop.call_soon_threadsafe(self._resolve, mine)
            except RuntimeError:  # the loop was closed while its jobs were committed
                log.debug("nobody waits any longer for %d jobs", len(mine))

    def _resolve(self, jobs: list[_Job]) -> None:
        for job in jobs:
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
        if any(job.event is not None or job.settlements is not None for job in jobs):
            self.on_commit()
