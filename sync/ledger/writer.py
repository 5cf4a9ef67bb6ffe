"""The one thread that writes: it takes everything that waits and commits it in one transaction (group commit)."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sync.errors import LedgerError, LedgerUnavailable, SyncError
from sync.ledger import Applied, Claimed, Ledger, Settlement
from sync.models import Event, Kind
from sync.outcomes import Retry

log = logging.getLogger("sync.ledger")

GROUP = 500
"""The most jobs that share a transaction: it bounds how long the first of them waits."""

WAITING = 20_000
"""More jobs than this in the queue are refused (503): memory is bounded, and the source tries again."""

STOPPED = 8.0
"""Seconds that what waits gets to finish when the writer is closed."""

UNSTORABLE_AGAIN = 60.0
"""Seconds after which a delivery is attempted again whose answer could not be stored."""

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Job:
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    event: Event | None = None
    settlements: Sequence[Settlement] | None = None
    work: Callable[[Ledger], Any] | None = None
    is_claim: bool = False
    result: Any = field(default=None)
    error: SyncError | None = field(default=None)
    is_served: bool = False


class Writer:
    """Answers each job, and only after the commit that holds it. What a job raises reaches who waits as a LedgerError.

    No linger: a job that comes alone is committed alone, and while a commit is under way the next group gathers.
    """

    def __init__(self, ledger: Ledger, *, on_commit: Callable[[], None] = lambda: None) -> None:
        self.ledger = ledger
        self.on_commit = on_commit
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    async def apply(self, event: Event) -> Applied:
        """Store and fold one event. Returns after the commit. Raises LedgerError."""
        applied: Applied = await self._submit(event=event)
        return applied

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write down how attempts ended. Returns after the commit. Raises LedgerError."""
        await self._submit(settlements=settlements)

    async def do(self, work: Callable[[Ledger], T]) -> T:
        """Do anything with the ledger inside the next transaction. Returns after the commit. Raises LedgerError."""
        result: T = await self._submit(work=work)
        return result

    async def claim(self, destination: str, kinds: Sequence[tuple[Kind, int]], lease: float) -> Claimed:
        """Lease what is due. Returns after the commit. Raises LedgerError."""
        claimed: Claimed = await self._submit(
            work=lambda ledger: ledger.claim(destination, kinds, lease), is_claim=True
        )
        return claimed

    def close(self) -> None:
        """Finish what waits, then stop."""
        self._is_closing = True
        self._jobs.put(None)
        self._thread.join(timeout=STOPPED)

    def _submit(self, **job: Any) -> "asyncio.Future[Any]":
        if not self._thread.is_alive():
            raise LedgerUnavailable("the thread that writes the ledger has ended")
        if self._is_closing:
            raise LedgerUnavailable("the service is stopping")
        if self._jobs.qsize() > WAITING:
            raise LedgerUnavailable("too many webhooks wait for the ledger")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put(_Job(loop, future, **job))
        return future

    def _run(self) -> None:
        stopping = False
        while not stopping:
            jobs, stopping = self._gathered()
            if jobs:
                for group in self._apart(jobs):
                    self._serve_surely(group)
                self._answer(jobs)

    def _gathered(self) -> tuple[list[_Job], bool]:
        """The next group, and whether it is the last."""
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
        return jobs, job is None

    def _apart(self, jobs: list[_Job]) -> list[list[_Job]]:
        """One group; but where hosts share the ledger, claims go by themselves and wait for no other host."""
        if self.ledger.engine.is_shared and all(job.is_claim for job in jobs):
            return [[job] for job in jobs]
        return [jobs]

    def _serve_surely(self, jobs: list[_Job]) -> None:
        """Run jobs; if even that is interrupted, who waits is told so, and the thread lives on for the next group."""
        try:
            self._serve(jobs)
        except BaseException as error:  # SystemExit and the like too: nobody else could answer
            _fail([job for job in jobs if not job.is_served], LedgerUnavailable("the ledger could not be written"))
            log.error("the ledger's writer was interrupted", exc_info=error)

    def _serve(self, jobs: list[_Job]) -> None:
        """Run jobs in one transaction; if it fails for anything but the disk, one by one: a bad one sinks alone."""
        try:
            with self._transaction(exclusive=len(jobs) > 1 or not jobs[0].is_claim):
                self._do(jobs)
        except LedgerUnavailable as error:
            _fail(jobs, error)
        except Exception as error:  # noqa: BLE001 - whatever one event raises must not sink its group
            if len(jobs) > 1:
                for job in jobs:
                    self._serve([job])
            else:
                self._sink(jobs[0], error)
        else:
            for job in jobs:
                job.is_served = True

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
        if settling or applying:
            self.ledger.engine.notify()

    def _sink(self, job: _Job, error: Exception) -> None:
        """A job that fails alone: its event is kept as unreadable, its settlements one by one; others are told."""
        log.error("a ledger job failed", exc_info=error)
        try:
            if job.event is not None:
                with self._transaction():
                    job.result = self.ledger.apply_poison(job.event, error)
            elif job.settlements is not None:
                self._settle_apart(job.settlements)
            else:
                _fail([job], error)
            job.is_served = True
        except Exception as worse:  # noqa: BLE001 - not even that can be written: who waits must hear of it
            _fail([job], worse)

    def _settle_apart(self, settlements: Sequence[Settlement]) -> None:
        """Settle each in its own transaction. An outcome that cannot be stored becomes a Retry, behind its fence."""
        for settlement in settlements:
            try:
                self._settle(settlement)
            except LedgerUnavailable:
                raise
            except Exception as error:  # what one answer holds must not sink the others
                log.error("the answer to a delivery could not be stored", exc_info=error)
                lost = Retry("its answer could not be stored", may_have_landed=True)
                self._settle(replace(settlement, outcome=lost, retry_in=UNSTORABLE_AGAIN))

    def _settle(self, settlement: Settlement) -> None:
        with self._transaction():
            self.ledger.settle([settlement])

    @contextmanager
    def _transaction(self, *, exclusive: bool = True) -> Iterator[None]:
        with self.ledger.engine.bounded(), self.ledger.transaction(exclusive=exclusive):
            yield

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


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    """Give jobs their error. What is not ours may quote a visitor, so only its class is told."""
    said = error if isinstance(error, SyncError) else LedgerError(f"the ledger failed ({type(error).__name__})")
    for job in jobs:
        job.error, job.is_served = said, True
