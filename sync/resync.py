"""The scheduled re-sync: pull → repair → verify → drain, one at a time per ledger.

    pull     what the source knows and no webhook told of        `pull.py`
    repair   what the ledger knows and is owed to nobody         `reconcile.py`
    verify   what a destination has otherwise than the ledger    `verify.py`
    drain    everything that is due, delivered                   `service.py`, or the `serve` that runs

Each step can go alone. A step that is broken off goes on where it was at the next run.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from typing import Any
from urllib.parse import urlsplit

import structlog

from sync.alarms import raise_repaired
from sync.completeness import Day, compare_days
from sync.destinations.base import Destination
from sync.draining import drain
from sync.errors import DeliveryError, SettingsError, SourceError
from sync.http import Client
from sync.ids import new_id
from sync.ledger import Ledger
from sync.ledger.locking import alone
from sync.models import MAIL, Kind
from sync.pull import Pulled, pull
from sync.reconcile import Replayed, owe_pages, replay_unreadable
from sync.service import sandbox_beside
from sync.settings import Settings
from sync.sources.base import Source
from sync.verify import Drift, DriftKind, Verified, verify
from sync.wiring import destinations, paced, sources

log = structlog.get_logger("sync.resync")

LOCK = "a re-sync"

UNREPAIRED = frozenset({DriftKind.MISSING, DriftKind.CHANGED, DriftKind.DUPLICATE, DriftKind.MOVED})
"""Drift that is somebody's work where it is not owed again. What a person did over there on purpose is respected."""


class Step(StrEnum):
    """What a re-sync does, in this order."""

    PULL = "pull"
    REPAIR = "repair"
    VERIFY = "verify"
    DRAIN = "drain"


class Verdict(IntEnum):
    """How it ended: the exit code."""

    CLEAN = 0
    REPAIRED = 1
    NEEDS_PERSON = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """What to do. `since`: epoch seconds; `wait`: seconds for a `serve` to deliver what is due, or for pauses."""

    steps: frozenset[Step] = frozenset(Step)
    since: float | None = None
    source: str | None = None
    destination: str | None = None
    sample: int | None = None
    fix: bool = False
    fix_missing: bool = False
    fix_deleted: bool = False
    dry_run: bool = False
    wait: float = 600.0


@dataclass
class Report:
    """What was done. `not_asked`: sources without a token for their REST API; `owed`: subjects owed anew by `repair`.

    `attempts`: deliveries made by us; `left`: those that are owed still, but for what is not ready yet. `failed`: a
    sentence for each step that could not be done. `unrepaired`: drift that is a person's work.
    """

    pulled: list[Pulled] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    days: dict[str, list[Day]] = field(default_factory=dict)
    read_again: int = 0
    owed: int = 0
    verified: list[Verified] = field(default_factory=list)
    attempts: int = 0
    left: int = 0
    failed: list[str] = field(default_factory=list)
    unrepaired: int = 0
    needs_person: bool = False

    @property
    def verdict(self) -> Verdict:
        """How it ended."""
        if self.failed:
            return Verdict.FAILED
        if self.needs_person or self.unrepaired:
            return Verdict.NEEDS_PERSON
        repaired = self.owed + self.read_again + sum(found.repaired for found in self.pulled)
        repaired += sum(found.owed for found in self.verified)
        return Verdict.REPAIRED if repaired else Verdict.CLEAN

    def plain(self, *, values: bool = True) -> dict[str, Any]:
        """Plain values for JSON. With `values` they hold what people typed: for the operator only."""
        verified = [found.plain() for found in self.verified]
        for difference in (d for found in verified for drift in found["listed"] for d in drift["differences"]):
            difference |= {} if values else {"ours": None, "theirs": None}
        return {
            "verdict": self.verdict.name.lower(),
            "pulled": [asdict(found) for found in self.pulled],
            "not_asked": self.not_asked,
            "days": {
                source: [{**asdict(day), "day": day.day.isoformat()} for day in days]
                for source, days in self.days.items()
            },
            "read_again": self.read_again,
            "owed": self.owed,
            "verified": verified,
            "attempts": self.attempts,
            "left": self.left,
            "failed": self.failed,
        }


def _is_for_a_person(drift: Drift) -> bool:
    """Whether nobody but a person can repair it, or was asked to. A second record stays where the first is repaired."""
    return drift.kind in UNREPAIRED and (drift.kind is DriftKind.DUPLICATE or not drift.is_owed)


@dataclass
class Told:
    """Who hears how far it is. All of it is for a person's eyes."""

    step: Callable[[Step, str], None] = lambda _step, _name: None
    pulled: Callable[[Pulled], None] = lambda _: None
    drift: Callable[[Drift], None] = lambda _: None


async def resync(settings: Settings, ledger: Ledger, wish: Wish, told: Told | None = None) -> Report:
    """Do what is wished, one re-sync at a time per ledger.

    Raises LedgerInUse where another one runs, SettingsError for a source or destination that nobody serves.
    """
    telling = told or Told()
    asked = _named(sources(settings), wish.source, "SYNC_SOURCES")
    _named({name: None for name in ledger.takers if name != MAIL}, wish.destination, "SYNC_DESTINATIONS")
    report = Report()
    async with alone(ledger, LOCK), sandbox_beside(settings):
        if Step.PULL in wish.steps:
            await _pull(ledger, list(asked.values()), wish, report, telling)
        if Step.REPAIR in wish.steps:
            await _repair(ledger, sources(settings), wish, report, telling)
        if Step.VERIFY in wish.steps:
            await _verify(settings, ledger, wish, report, telling)
    if Step.DRAIN in wish.steps and not wish.dry_run:
        telling.step(Step.DRAIN, "")
        drained = await drain(settings, ledger, wish.wait)
        report.attempts, report.left = drained.attempts, drained.left
        report.failed += drained.stuck
    return report


def _named(known: Mapping[str, Any], wanted: str | None, variable: str) -> Mapping[str, Any]:
    if wanted is None:
        return known
    if wanted not in known:
        raise SettingsError(f"{variable} does not name {wanted!r}")
    return {wanted: known[wanted]}


async def _pull(ledger: Ledger, asked: Sequence[Source], wish: Wish, report: Report, told: Told) -> None:
    for source in asked:
        if not source.can_pull:
            report.not_asked.append(source.name)
            continue
        told.step(Step.PULL, source.name)
        try:
            found = await pull(
                ledger,
                source,
                clock=time.time,
                new_id=new_id,
                since=wish.since,
                dry_run=wish.dry_run,
                told=told.pulled,
            )
        except SourceError as error:
            report.failed.append(f"{source.name} could not be pulled: {error}")
            continue
        report.pulled.append(found)
        if not found.is_complete:
            report.failed.append(f"{source.name} was not read whole, so chats may be missing still: see its notes")
        if not wish.dry_run:
            _tell_missed(ledger, report.pulled)
        await _compare_days(ledger, source, report)


def _tell_missed(ledger: Ledger, pulled: Sequence[Pulled]) -> None:
    """Raise the alarm for what was missed, or clear it where it is sure that nothing was."""
    missed = sum(found.missed for found in pulled)
    if missed or all(found.is_complete for found in pulled):
        with ledger.transaction():
            raise_repaired(ledger, missed)


async def _compare_days(ledger: Ledger, source: Source, report: Report) -> None:
    try:
        days = await compare_days(ledger, source, clock=time.time)
    except SourceError as error:
        report.failed.append(f"the chats a day at {source.name} could not be counted: {error}")
    else:
        report.days |= {source.name: days} if days else {}


async def _repair(ledger: Ledger, known: Mapping[str, Source], wish: Wish, report: Report, told: Told) -> None:
    """Read again what could not be read, and owe whoever is owed to nobody: a destination may be newer than they.

    Nobody of whom only an import has told: nothing is sent for an import alone.
    """
    told.step(Step.REPAIR, "")
    replayed = Replayed()
    for _ in replay_unreadable(ledger, known, replayed, dry_run=wish.dry_run):
        report.read_again = replayed.read
        await asyncio.sleep(0)  # after each page: the lock is to be renewed
    if wish.dry_run:
        return
    for name, kinds in ledger.takers.items():
        if Kind.CONTACT in kinds and wish.destination in (None, name):
            for owed in owe_pages(ledger, name, imported=False):
                report.owed += owed.contacts + owed.chats
                await asyncio.sleep(0)


async def _verify(settings: Settings, ledger: Ledger, wish: Wish, report: Report, told: Told) -> None:
    for served in destinations(settings):
        try:
            if served.name != MAIL and wish.destination in (None, served.name):
                told.step(Step.VERIFY, served.name)
                report.verified.append(await _verified(ledger, served, wish, report, told))
        finally:
            await served.client.aclose()
    report.failed += [f"{found.destination}: {found.stopped}" for found in report.verified if found.stopped]


async def _verified(ledger: Ledger, served: Destination, wish: Wish, report: Report, told: Told) -> Verified:
    found_now = []

    def drift(found: Drift) -> None:
        found_now.append(_is_for_a_person(found))
        told.drift(found)

    paced(served, ledger)
    verified = await verify(
        ledger,
        served,
        sample=wish.sample,
        seed=None,
        fix=wish.fix,
        fix_missing=wish.fix_missing,
        fix_deleted=wish.fix_deleted,
        dry_run=wish.dry_run,
        since=wish.since,
        told=drift,
    )
    # What the run before had found, where this one went on with it, is only listed; there the two may say the same.
    report.unrepaired += max(sum(found_now), sum(map(_is_for_a_person, verified.listed)))
    return verified


def check_heartbeat(settings: Settings) -> None:
    """Raises SettingsError for a heartbeat's address that nothing can be at."""
    if settings.heartbeat_url is None:
        return
    try:
        _ = urlsplit(settings.heartbeat_url.get_secret_value()).port
    except ValueError:
        raise SettingsError("SYNC_HEARTBEAT_URL: its port is none, they end at 65535") from None


async def ping(url: str) -> bool:
    """Tell a heartbeat's address that a re-sync is done. Returns whether it heard."""
    async with _client(url) as client:
        with suppress(DeliveryError):
            return (await client.call("GET", url)).is_success
    return False


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Client]:
    client = Client(url, timeout=10, connections=1)
    try:
        yield client
    finally:
        await client.aclose()


def steps_of(chosen: Collection[Step]) -> frozenset[Step]:
    """The chosen steps; all of them where none is chosen."""
    return frozenset(chosen) or frozenset(Step)
