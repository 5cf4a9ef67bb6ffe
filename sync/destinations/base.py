"""What every destination must do: take contacts and chats, and say honestly what became of each."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from sync.errors import DeliveryError
from sync.http import Client, Transport
from sync.models import Chat, Contact, Email, Kind, Owed, Receipt
from sync.settings import LaneSettings

Result = Receipt | DeliveryError


class Intend(Protocol):
    """Commit that we are about to CREATE the records of these deliveries, before the call leaves.

    Should its answer be lost in a crash, the next claim carries `intended_at`, and a record that was created just then
    is known to be ours. `at` is the destination's own time, where it is compared with times that the destination tells.
    """

    async def __call__(self, deliveries: Sequence[str], at: float | None = None) -> None:
        """Return once that is committed. Raises LedgerUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """A published limit: `calls` per `seconds`. We use 95 % of it as a steady rate and 3 % as burst.

    The last 2 % are for calls that take longer on their way than others: they arrive closer together than they left.
    """

    calls: float
    seconds: float

    @property
    def interval(self) -> float:
        """Seconds from one call to the next at 95 % of the limit."""
        return self.seconds / (self.calls * 0.95)

    @property
    def burst(self) -> float:
        """How many seconds' worth of calls may go at once: 3 % of the limit."""
        return self.interval * max(self.calls * 0.03, 1.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that stands there otherwise than in the ledger. `field` is our name of it; `theirs` is None where it is
    empty there. `may_write` says whether a delivery would write it: not over what somebody else has put there."""

    field: str
    ours: str | None
    theirs: str | None
    may_write: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How a contact of ours stands there.

    `remote_id` is where its record is now: another id than ours where it was merged into another one or the person has
    another record, None where there is none. `is_deleted`: the vendor says that the record under our id was deleted.
    `others` are further records that carry the person's email, or our uid.
    """

    remote_id: str | None
    ours: bool = False
    is_deleted: bool = False
    differences: tuple[Difference, ...] = ()
    others: tuple[str, ...] = ()


class Destination(ABC):
    """A vendor that gets contacts. A vendor's own words stay in its file; adding one is that file and its fake.

    An adapter holds no state of its own: everything durable is in the ledger. It raises nothing but `DeliveryError`s
    on purpose; anything else that escapes is logged with its traceback and tried again.
    """

    vendor: ClassVar[str]
    Settings: ClassVar[type[LaneSettings]]
    takes: ClassVar[frozenset[Kind]] = frozenset({Kind.CONTACT})
    batch: ClassVar[int] = 1
    repeatable_for: ClassVar[float] = 0.0
    """Seconds in which the same mail may be handed over again under its key without going out twice."""
    reads_back: ClassVar[bool] = False
    """Whether it can say what stands there."""
    tells_deleted_for: ClassVar[float] = float("inf")
    """Seconds for which a record that was deleted there is known as deleted; after that it is merely not there."""

    def __init__(self, name: str, settings: Any, client: Client, *, clock: Callable[[], float]) -> None:
        self.name = name
        self.settings = settings
        self.client = client
        self.clock = clock

    @classmethod
    @abstractmethod
    def headers(cls, settings: Any) -> dict[str, str]:
        """The headers that every call carries, credentials included."""

    @classmethod
    def client_for(
        cls, given: Any, *, clock: Callable[[], float], transport: Transport | None = None, blip: float = 1.0
    ) -> Client:
        """The HTTP client for these settings."""
        return Client(
            given.base_url,
            headers=cls.headers(given),
            connections=given.connections,
            timeout=given.timeout,
            transport=transport,
            clock=clock,
            blip=blip,
        )

    @classmethod
    def pace(cls, settings: Any) -> Pace | None:  # noqa: ARG003 - adapters use it
        """The vendor's published limit, or None where there is none."""
        return None

    @abstractmethod
    async def check(self) -> str:
        """Prove credentials and field names while changing nothing. Returns the account's name.

        Raises DeliveryError with a reason that tells a person what to do.
        """

    async def repair(self) -> Sequence[str]:
        """Create what `check` misses (a custom property, say). Returns a sentence for each thing made."""
        return ()

    @abstractmethod
    async def upsert(self, owed: Sequence[Owed[Contact]], intend: Intend) -> Sequence[Result]:
        """Deliver up to `batch` contacts. One result each, in the same order.

        A DeliveryError that is raised instead of returned counts for the whole batch.
        """

    async def log(self, owed: Owed[Chat], intend: Intend) -> Receipt:
        """Deliver one chat to the record of its contact. Raises DeliveryError."""
        raise NotImplementedError(f"{self.name} takes no chats")

    async def send(self, email: Email) -> Receipt:
        """Hand over one mail. Raises DeliveryError."""
        raise NotImplementedError(f"{self.name} sends no mail")

    async def forget(self, remote_id: str) -> None:
        """Remove a person's record. Raises DeliveryError."""
        raise NotImplementedError(f"{self.name} cannot forget")

    async def read_back(self, known: Sequence[Owed[Contact]]) -> Sequence[Standing]:
        """How contacts stand there that have a record by the ledger. One answer each, in the same order.

        Changes nothing there. Raises DeliveryError: what is not known for certain is not told.
        """
        raise NotImplementedError(f"{self.name} cannot be read back")
