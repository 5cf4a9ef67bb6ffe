"""What the two families of webhooks share while ONE webhook is read: its setting, its flags, its result."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import tzinfo

from sync.cleaning import ATTRIBUTE_LIMIT, is_clean, said
from sync.models import ChatNews, EventType, Visitor
from sync.sources.acquire.dates import moment

CLOCK_TOLERANCE = 300.0
"""How many seconds a date may be later than its receipt before it is not believed."""

LONGEST = 366 * 86400.0
MOST_FLAGS = 20
ID_LIMIT = 64
NO_ID = frozenset({"0", "-1"})

Keyed = Callable[[str, str, str | None, object], str]
"""The event key of: family, the event's name, its chat, what it says."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one webhook says, once it is understood."""

    key: str
    type: EventType
    occurred_at: float
    chat: str | None = None
    visitor: Visitor | None = None
    news: ChatNews | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The setting in which one webhook is read. Its methods read one value each, noting what was wrong with it."""

    received_at: float
    zone: tzinfo
    region: str
    keyed: Keyed
    flags: dict[str, None] = field(default_factory=dict)

    def note(self, flag: str) -> None:
        """Flag something that was cleaned or left out; the same flag once."""
        if len(self.flags) < MOST_FLAGS:
            self.flags[flag] = None

    def text(self, field: str, value: object, *, limit: int = ATTRIBUTE_LIMIT, keep_lines: bool = False) -> str | None:
        """A value as clean text, or None where nothing was said."""
        if isinstance(value, str):
            if not is_clean(value):
                self.note(f"{field}: control characters were removed")
            if len(value) > limit:
                self.note(f"{field}: longer than {limit} characters, the rest was left out")
        return said(value, limit=limit, keep_lines=keep_lines)

    def id(self, family: str, field: str, value: object) -> str | None:
        """An id under its family (`v1:172`). The vendor writes 0 and -1 where there is none."""
        text = self.text(field, value, limit=ID_LIMIT)
        return None if text is None or text in NO_ID else f"{family}:{text}"

    def time(self, field: str, value: object) -> float | None:
        """A point in time in epoch seconds, or None where nothing was said."""
        if said(value) is None:
            return None
        seconds = moment(value, self.zone)
        if seconds is None:
            self.note(f"{field}: not a date")
        return seconds

    def seconds(self, field: str, value: object) -> float | None:
        """A span of time in seconds, or None where nothing was said."""
        text = said(value)
        if text is None:
            return None
        try:
            span = float(text)
        except ValueError:
            span = -1.0
        if not 0.0 <= span <= LONGEST:
            self.note(f"{field}: not a number of seconds")
            return None
        return span

    def believed(self, seconds: float | None) -> float | None:
        """A point in time that is not in the future."""
        return None if seconds is None or seconds > self.received_at + CLOCK_TOLERANCE else seconds

    def occurred_at(self, dates: Iterable[float | None]) -> float:
        """When the event happened: the latest date it names, else the time of its receipt."""
        latest = max((date for date in dates if date is not None), default=None)
        if latest is None:
            self.note("no date: the time of receipt was taken")
        elif self.believed(latest) is None:
            self.note("a date lies in the future: the time of receipt was taken")
            return self.received_at
        return self.received_at if latest is None else latest
