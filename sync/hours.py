"""Hours of the day and days of the week, read off a clock on the wall. Pure.

Where the clock is put forward over the opening, the hours begin at the jump; where it is put back, what comes twice is
open, or closed, twice.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_TIMES = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")
_WITH_DAYS = re.compile(r"\s*([A-Za-z][A-Za-z\s,-]*?)\s+(\d.*)")


@dataclass(frozen=True, slots=True)
class Hours:
    """From `opens` to `closes`, on these days of the week (0 is Monday).

    Where they close before they open, or then, they last over midnight and count to the day on which they opened.
    """

    opens: time
    closes: time
    days: frozenset[int] = frozenset(range(7))

    def are_open(self, at: float, zone: ZoneInfo) -> bool:
        """Whether it is open at a time (epoch seconds)."""
        local = datetime.fromtimestamp(at, zone)
        clock, day = local.time(), local.weekday()
        if self.opens < self.closes:
            return day in self.days and self.opens <= clock < self.closes
        return (day in self.days and clock >= self.opens) or ((day - 1) % 7 in self.days and clock < self.closes)

    def opening(self, at: float, zone: ZoneInfo) -> float:
        """The time itself if it is open then, else when it next opens."""
        if self.are_open(at, zone):
            return at
        return next(moment for moment in self.changes(at, at + 9 * 86400, zone) if self.are_open(moment, zone))

    def open_for(self, since: float, until: float, zone: ZoneInfo) -> float:
        """How many seconds between two times it was open."""
        moments = pairwise([since, *self.changes(since, until, zone), until])
        return sum((end - begin for begin, end in moments if self.are_open(begin, zone)), 0.0)

    def changes(self, since: float, until: float, zone: ZoneInfo) -> list[float]:
        """Every moment between two times at which it may open or close, in order; some change nothing."""
        found: set[float] = set()
        day = datetime.fromtimestamp(since, zone).date() - timedelta(days=1)
        begins = _at(day, time(), zone)
        while begins < until:
            after = day + timedelta(days=1)
            ends = _at(after, time(), zone)
            found |= {_at(day, clock, zone, fold) for clock in (self.opens, self.closes) for fold in (0, 1)}
            found |= {begins} | _clock_changes(begins, ends, zone)
            day, begins = after, ends
        return sorted(moment for moment in found if since < moment < until)

    def __str__(self) -> str:
        times = f"{_short(self.opens)}-{_short(self.closes)}"
        return times if len(self.days) == 7 else f"{_named(self.days)} {times}"


def hours_of_day(value: object) -> object:
    """`9:00-18:00` as a pair of times. Raises ValueError."""
    if not isinstance(value, str):
        return value
    opens, closes = _times(value)
    if opens == closes:
        raise ValueError("opens and closes at the same time: leave it empty for the whole day")
    return opens, closes


def hours_of_week(value: object) -> object:
    """`9:00-18:00` or `Mon-Fri 9:00-18:00` as Hours. Raises ValueError."""
    if not isinstance(value, str):
        return value
    found = _WITH_DAYS.fullmatch(value)
    if found is not None:
        return Hours(*_times(found[2]), _days(found[1]))
    opens, closes = _times(value)
    if opens == closes:
        raise ValueError("opens and closes at the same time: leave it empty for the whole day")
    return Hours(opens, closes)


def _times(text: str) -> tuple[time, time]:
    found = _TIMES.fullmatch(text)
    if found is None:
        raise ValueError("is not like 9:00-18:00")
    closes = time() if (found[3], found[4]) == ("24", "00") else time(int(found[3]), int(found[4]))
    return time(int(found[1]), int(found[2])), closes


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, *last = (_day(name) for name in part.split("-", 1))
        found |= {(first + n) % 7 for n in range((last[0] - first) % 7 + 1)} if last else {first}
    return frozenset(found)


def _day(name: str) -> int:
    short = name.strip().title()[:3]
    if short not in DAYS:
        raise ValueError("names no days such as Mon-Fri")
    return DAYS.index(short)


def _named(days: frozenset[int]) -> str:
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)


def _short(clock: time) -> str:
    return f"{clock.hour}:{clock.minute:02}"


def _at(day: date, clock: time, zone: ZoneInfo, fold: int = 0) -> float:
    return datetime.combine(day, clock, zone).replace(fold=fold).timestamp()


def _clock_changes(begins: float, ends: float, zone: ZoneInfo) -> set[float]:
    """The moment of this day at which the clock was put forward or back, to the second, if it was."""
    before = _offset(begins, zone)
    if before == _offset(ends, zone):
        return set()
    low, high = int(begins), int(ends)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return {float(high)}


def _offset(at: float, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(at, zone).utcoffset()
