"""What every source must do: prove that a webhook is authentic, then read it. Some can also be asked what they know."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, date, tzinfo
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

from sync.http import Transport
from sync.models import ChatNews, Event, EventType, Visitor
from sync.settings import FromEnvironment
from sync.silence import Expectation

Digest = Callable[[bytes], str]
"""A keyed hash of some bytes as hex text. The key is the ledger's; event keys are made with it."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """The parts of an HTTP request that a source looks at. Header names are lower-case; `token` is from the URL."""

    headers: Mapping[str, str]
    body: bytes
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of what a source lists.

    `key` tells it from every other row (None: it has no id), `mark` changes with what it says, `at` is its latest date.
    """

    key: str | None
    mark: str
    at: float | None
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of a source's list: how many rows there are in all, how many the source gives a page, if it says so."""

    rows: tuple[Row, ...]
    total: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class PulledChat:
    """What a source says NOW about one chat and its visitor.

    `at` is the newest date at which the chat itself can have said so: the words about the visitor count from then.
    `told_by` are the types of webhooks that together say all of it but the transcript: where they are stored, nothing
    else is new. `person_in` are those that tell of the person at all. `is_current` is false where the visitor may have
    been changed after the chat. `has_line_ids` says whether the lines have the ids that they have in webhooks.
    """

    chat: str
    at: float
    visitor: Visitor | None = None
    news: ChatNews = field(default_factory=ChatNews)
    told_by: frozenset[EventType] = frozenset()
    person_in: frozenset[EventType] = frozenset()
    is_current: bool = True
    has_line_ids: bool = True


class Unread(NamedTuple):
    """What could not be read of some rows: the "threads" of a "profile", and why. It holds nobody's data."""

    what: str
    whose: str
    why: str

    def of(self, n: int) -> str:
        """So many of them, as a sentence."""
        return f"{self.what} of {n} {self.whose}{'' if n == 1 else 's'} could not be read: {self.why}"


Settled = Callable[[Collection[str]], Set[str]]
"""Which of these chats need not be asked about."""


class Puller(ABC):
    """One list that a source can be asked for, page by page. Its methods raise SourceError."""

    name: ClassVar[str]
    first_page: ClassVar[int]
    page_size: int

    @property
    @abstractmethod
    def unread(self) -> Mapping[Unread, int]:
        """What could not be read so far, and of how many rows: there may be chats of which nobody knows."""

    @abstractmethod
    async def page(self, number: int, limit: int) -> Listed:
        """The rows of one page."""

    @abstractmethod
    async def chats(self, row: Row, is_settled: Settled) -> Sequence[PulledChat]:
        """The chats that a row leads to, the one that the row itself is about first. Raises UnreadableRow."""

    @abstractmethod
    def body(self, pulled: PulledChat) -> bytes:
        """What was pulled as a body that the source's `read` understands: so it is stored, and replayed."""

    @abstractmethod
    def unreadable(self, row: Row, reason: str) -> bytes:
        """A row that says nothing as a body that `read` finds unreadable for this reason."""

    async def totals(self, first: date, last: date) -> Mapping[date, int] | None:  # noqa: ARG002 - pullers use them
        """How many chats the source counts on each of these days of its zone; None where it cannot say."""
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections."""


class UnreadableRow(Exception):
    """A row that says nothing that can be understood; its text is the reason, without personal data."""


class Source(ABC):
    """A vendor that sends webhooks. A vendor's own words stay in its file."""

    name: ClassVar[str]
    Settings: ClassVar[type[FromEnvironment]]
    zone: tzinfo = UTC
    """The zone of the source's days."""

    @property
    @abstractmethod
    def is_guarded(self) -> bool:
        """Whether there is a secret or a token to check. Without one the server stays on loopback."""

    @property
    def expectation(self) -> Expectation | None:
        """How often a webhook is expected, and when. None: nobody said."""
        return None

    @property
    def wall(self) -> ZoneInfo:
        """The zone of the clock on the wall where webhooks come from."""
        return ZoneInfo("UTC")

    @abstractmethod
    def verify(self, request: WebhookRequest) -> None:
        """Return if the request is authentic. Raises NotAuthentic; the caller takes any other exception as one too."""

    def is_hopeless(self, request: WebhookRequest) -> bool:  # noqa: ARG002 - sources use it
        """Whether no body could make this request authentic, so that reading one would be a waste. It comes without."""
        return False

    @abstractmethod
    def read(self, body: bytes, *, event_id: str, received_at: float) -> Event:
        """Say what happened. NEVER raises: what cannot be read becomes an Event with `error` and the raw payload."""

    @property
    def can_pull(self) -> bool:
        """Whether the source can be asked for what it knows, with the credentials that are set."""
        return False

    def pullers(
        self,
        *,
        clock: Callable[[], float],  # noqa: ARG002 - sources use them
        sleep: Callable[[float], Awaitable[None]],  # noqa: ARG002
        transport: Transport | None = None,  # noqa: ARG002
    ) -> Sequence[Puller]:
        """The lists that can be asked for, each with an HTTP client of its own: close them."""
        return ()
