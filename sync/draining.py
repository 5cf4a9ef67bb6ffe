"""Delivers what is due at the end of a re-sync, and says what could not be."""

import asyncio
import time
from dataclasses import dataclass

from sync.errors import LedgerInUse
from sync.ledger import Ledger
from sync.service import dispatch_once
from sync.settings import Settings

LOOK = 1.0
"""Seconds between two looks at whether everything has been delivered, or can be tried again."""


@dataclass(frozen=True, slots=True)
class Left:
    """What one destination is owed after a drain, but for what is not ready yet: deliveries.

    `due`: could go now, or are on their way. `stuck`: were due when the drain began, or wait for a pause. `free_at`:
    when the first of them can be tried (epoch seconds); `reason`: why it is paused, if it is.
    """

    destination: str
    n: int
    due: int
    stuck: int
    free_at: float
    reason: str | None
    needs_person: bool


def left_over(ledger: Ledger, since: float) -> list[Left]:
    """What is left at each configured destination. `since`: when the drain began, epoch seconds."""
    return [
        Left(
            destination=row["destination"],
            n=row["n"],
            due=row["due"],
            stuck=row["stuck"],
            free_at=row["free_at"] or 0.0 if row["paused_until"] is None else row["paused_until"],
            reason=None if row["paused_until"] is None else row["reason"] or "it does not say why",
            needs_person=bool(row["needs_person"]),
        )
        for row in ledger.engine.rows("left_over", since=since)
        if row["destination"] in ledger.takers
    ]


@dataclass(frozen=True, slots=True)
class Drained:
    """`attempts`: deliveries made by us; `left`: those that are owed still, but for what is not ready yet; `stuck`: a
    sentence for each destination to which something could not be delivered."""

    attempts: int
    left: int
    stuck: list[str]


async def drain(settings: Settings, ledger: Ledger, wait: float) -> Drained:
    """Deliver everything that is due. Wait for a `serve` that does it, or for pauses that end, for so many seconds.

    Raises LedgerError, SettingsError.
    """
    attempts = 0
    left_over(ledger, 0.0)
    since, end = ledger.engine.now, time.monotonic() + wait
    while True:
        try:
            is_served = False
            attempts += await dispatch_once(settings)
        except LedgerInUse:
            is_served = True
        if not await _can_go_on(ledger, since, end, is_served=is_served):
            break
    left = left_over(ledger, since)
    stuck = [_stuck(each, is_served=is_served) for each in left if each.stuck]
    return Drained(attempts, sum(each.n for each in left), stuck)


async def _can_go_on(ledger: Ledger, since: float, end: float, *, is_served: bool) -> bool:
    """Wait until what is left can be tried again by us. False: nothing is left to wait for, or for too long."""
    while time.monotonic() < end:
        left = [each for each in left_over(ledger, since) if each.stuck or (is_served and each.due)]
        hoped = [each for each in left if not each.needs_person]
        if not hoped:
            return False
        await asyncio.sleep(LOOK)
        if not is_served and min(each.free_at for each in hoped) <= ledger.engine.now:
            return True
    return False


def _stuck(left: Left, *, is_served: bool) -> str:
    n = "1 delivery that was" if left.stuck == 1 else f"{left.stuck:,} deliveries that were"
    if left.reason is not None:
        why = f"{left.destination} is paused ({left.reason})"
    elif is_served:
        why = "the `serve` that has this ledger did not deliver in time"
    else:
        why = "see crm-sync status"
    return f"{n} due could not be delivered to {left.destination}: {why}"
