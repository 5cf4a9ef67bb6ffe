"""Compares day by day how many chats a source counts with how many the ledger has."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

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

    A day that is short of no more chats than were forgotten since it began is none of them: when those began is not
    kept. Raises SourceError.
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
    forgotten = stored.forgotten(ledger, source.name, midnight.timestamp())
    differing = []
    for name, totals in counted:
        began = stored.starts(ledger, source.name, name, midnight.timestamp(), end.timestamp())
        ours = Counter(datetime.fromtimestamp(at, source.zone).date() for at in began)
        found = [Day(day, n, ours[day]) for day, n in sorted(totals.items()) if n != ours[day]]
        differing += [day for day in found if not _is_forgotten(day, forgotten, source.zone)]
    return differing


def _is_forgotten(day: Day, forgotten: Collection[float], zone: tzinfo) -> bool:
    began = datetime(day.day.year, day.day.month, day.day.day, tzinfo=zone).timestamp()
    return 0 < day.source - day.ledger <= sum(at >= began for at in forgotten)
