"""Compares day by day how many chats a source counts with how many the ledger has."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sync.http import Transport
from sync.ledger import Ledger
from sync.ledger import pulling as stored
from sync.sources.base import Source


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the source's zone on which it counts another number of chats than the ledger."""

    day: date
    source: int
    ledger: int


async def compare_days(
    ledger: Ledger,
    source: Source,
    *,
    clock: Callable[[], float],
    days: int = 14,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    transport: Transport | None = None,
) -> list[Day] | None:
    """The last whole days on which a source counts another number of chats than the ledger. None: it cannot say.

    Raises SourceError.
    """
    last = datetime.fromtimestamp(clock(), source.zone).date() - timedelta(days=1)
    first = last - timedelta(days=days - 1)
    pullers = source.pullers(clock=clock, sleep=sleep, transport=transport)
    try:
        counted = [(puller.name, totals) for puller in pullers if (totals := await puller.totals(first, last))]
    finally:
        for puller in pullers:
            await puller.aclose()
    if not counted:
        return None
    midnight, end = (datetime(d.year, d.month, d.day, tzinfo=source.zone) for d in (first, last + timedelta(days=1)))
    differing = []
    for name, totals in counted:
        began = stored.starts(ledger, source.name, name, midnight.timestamp(), end.timestamp())
        ours = Counter(datetime.fromtimestamp(at, source.zone).date() for at in began)
        differing += [Day(day, n, ours[day]) for day, n in sorted(totals.items()) if n != ours[day]]
    return differing
