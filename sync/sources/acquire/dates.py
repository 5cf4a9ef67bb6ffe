"""Reads a point in time in each of the spellings that Acquire uses."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

OLDEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
NEWEST = datetime(2200, 1, 1, tzinfo=UTC).timestamp()
MILLISECONDS = 1e11
"""Epoch numbers from here on count milliseconds; as seconds this would be the year 5138."""

NUMBER = re.compile(r"\d{1,16}(\.\d{1,9})?", re.ASCII)
JAVASCRIPT = re.compile(
    r"[A-Za-z]{3},? ([A-Za-z]{3}) (\d{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT([+-])(\d{2}):?(\d{2})(?: \(.*\))?",
    re.ASCII,
)
MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}


def zone(name: str) -> tzinfo:
    """The time zone of a name. UTC needs no time zone database. Raises ValueError or KeyError."""
    return UTC if name.upper() == "UTC" else ZoneInfo(name)


def moment(value: object, zone: tzinfo) -> float | None:
    """Epoch seconds of `2017-09-20 10:17:08` (in `zone`), ISO 8601, JavaScript's `Date.toString()`, or an epoch number.

    A time that the clocks skipped or showed twice is read as the first of its two meanings. None where it is no date,
    or one outside the years 2000 to 2199: such a date is a mistake or a placeholder (`0000-00-00 00:00:00`).
    """
    try:
        seconds = _seconds(value, zone)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and OLDEST <= seconds < NEWEST else None


def _seconds(value: object, zone: tzinfo) -> float | None:
    match value:
        case bool():
            return None
        case int() | float():
            return _epoch(float(value))
        case str():
            return _written(value.strip(), zone)
        case _:
            return None


def _epoch(number: float) -> float:
    return number / 1000 if number >= MILLISECONDS else number


def _written(text: str, zone: tzinfo) -> float | None:
    if NUMBER.fullmatch(text):
        return _epoch(float(text))
    if parts := JAVASCRIPT.fullmatch(text):
        return _javascript(parts)
    date = datetime.fromisoformat(text)
    return (date if date.tzinfo else date.replace(tzinfo=zone)).timestamp()


def _javascript(parts: re.Match[str]) -> float | None:
    month, day, year, hour, minute, second, sign, hours, minutes = parts.groups()
    if month not in MONTHS:
        return None
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    date = datetime(int(year), MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=timezone(offset))
    return date.timestamp()
