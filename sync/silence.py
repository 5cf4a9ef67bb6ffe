"""When a source has been silent for too long: counted only in the hours in which webhooks are expected. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from sync.hours import Hours

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
UNITS = {"s": 1.0, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY}
LONGEST = 31 * DAY

SLACK = 1.5
"""How much longer than the longest silence so far the proposal is."""

STEPS = (15 * MINUTE, HOUR, 6 * HOUR)
"""What a proposal is rounded up to: below two hours, below a day, beyond."""

ENOUGH_DAYS = 5
"""Days with webhooks without which nothing is proposed."""

OFTEN = 0.6
"""The share of its days on which an hour has to have webhooks to count as busy."""

_SPAN = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*(s|m|min|h|d)?\s*")


@dataclass(frozen=True, slots=True)
class Expectation:
    """A webhook is expected at least every so many seconds within the hours (None: always) of a zone."""

    every: float
    hours: Hours | None
    zone: ZoneInfo

    def is_broken(self, heard_at: float, now: float) -> bool:
        """Whether the source has been silent for longer than that."""
        return silent_for(heard_at, now, self.hours, self.zone) > self.every


def span(value: object) -> object:
    """`3h`, `45m`, `90` (seconds) as seconds. Raises ValueError."""
    if not isinstance(value, str):
        return value
    found = _SPAN.fullmatch(value)
    if found is None:
        raise ValueError("is not a span of time such as 3h or 45m")
    seconds = float(found[1]) * UNITS[found[2] or "s"]
    if not MINUTE <= seconds <= LONGEST:
        raise ValueError("is not between a minute and 31 days")
    return seconds


def spelled(seconds: float) -> str:
    """Seconds as a setting has them: `3h`, `45m`."""
    unit, size = next((unit, size) for unit, size in (("h", HOUR), ("m", MINUTE), ("s", 1.0)) if seconds % size == 0)
    return f"{seconds / size:.0f}{unit}"


def in_words(seconds: float) -> str:
    """Seconds for a person, in hours and minutes."""
    hours, minutes = divmod(round(seconds / MINUTE), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def silent_for(heard_at: float, now: float, hours: Hours | None, zone: ZoneInfo) -> float:
    """For how many seconds of the expected hours nothing was heard. What was heard in the future counts as now."""
    if heard_at >= now:
        return 0.0
    return now - heard_at if hours is None else hours.open_for(heard_at, now, zone)


def longest(gaps: Iterable[tuple[float, float]], hours: Hours | None, zone: ZoneInfo) -> float:
    """The longest of these silences (begin, end), counted in the expected hours."""
    return max((silent_for(begin, end, hours, zone) for begin, end in gaps), default=0.0)


def rounded_up(seconds: float) -> float:
    """A span with some slack that is easy to read."""
    wanted = seconds * SLACK
    step = STEPS[0] if wanted <= 2 * HOUR else STEPS[1] if wanted <= DAY else STEPS[2]
    return max(-(-wanted // step), 1.0) * step


def busy_hours(gaps: Sequence[tuple[float, float]], since: float, until: float, zone: ZoneInfo) -> Hours | None:
    """The days and hours in which webhooks usually come, told by the silences (begin, end) between two times.

    None where there is too little to say so, or where they come around the clock.
    """
    lively = _lively(gaps, since, until, zone)
    dates = {date for date, _ in lively}
    if len(dates) < ENOUGH_DAYS:
        return None
    weeks = max((until - since) / (7 * DAY), 1.0)
    days = frozenset(d for d in range(7) if sum(date.weekday() == d for date in dates) >= weeks / 2)
    working = [date for date in dates if date.weekday() in days]
    busy = [h for h in range(24) if sum((date, h) in lively for date in working) >= OFTEN * len(working) > 0]
    if not busy or not days or (len(busy) == 24 and len(days) == 7):
        return None
    first, last = _longest_run(busy)
    return Hours(time(first), time((last + 1) % 24), days)


def _lively(gaps: Sequence[tuple[float, float]], since: float, until: float, zone: ZoneInfo) -> set[tuple[date, int]]:
    """The hours (date, hour) that are not wholly within a silence."""
    found = set()
    begin = since - since % HOUR
    for at in (begin + n * HOUR for n in range(int((until - begin) // HOUR))):
        if not any(silent <= at and at + HOUR <= heard for silent, heard in gaps):
            local = datetime.fromtimestamp(at, zone)
            found.add((local.date(), local.hour))
    return found


def _longest_run(hours: Sequence[int]) -> tuple[int, int]:
    """The longest run of hours of the day, which may go over midnight: its first and its last."""
    busy = set(hours)
    firsts = [hour for hour in hours if (hour - 1) % 24 not in busy] or [0]
    runs = {first: next(n for n in range(1, 25) if n == 24 or (first + n) % 24 not in busy) for first in firsts}
    first = max(runs, key=lambda each: runs[each])
    return first, (first + runs[first] - 1) % 24
