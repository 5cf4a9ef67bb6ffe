"""What the ledger needs of a database."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Engine(Protocol):
    """A database that runs the named queries of `queries.sql`. A list among the parameters is passed as JSON rows."""

    name: str
    is_shared: bool
    """Whether several hosts may serve this ledger at once: then nobody may end another's leases."""
    now: float
    """The time of the present transaction, epoch seconds: the one clock of everything that is written in it."""

    @property
    def schema(self) -> int:
        """The number of the newest migration that was applied; 0 where there is no ledger yet."""
        ...

    @property
    def bytes(self) -> int:
        """How much room the ledger takes."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def transaction(self, *, exclusive: bool = True) -> AbstractContextManager[None]:
        """One write transaction: all of it or nothing, durable when it ends. Raises LedgerUnavailable.

        Exclusive: no other writes at the same time, on whatever host. A claim may do without where rows can be locked.
        """
        ...

    def bounded(self) -> AbstractContextManager[None]:
        """What is inside raises LedgerUnavailable after a while, where else it could wait for ever."""
        ...

    def notify(self) -> None:
        """Hint to the other hosts, at the end of this transaction, that something may be due. They also look often."""
        ...

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        """The rows that a named query gives; each can be read by column name."""
        ...

    def run(self, query: str, **parameters: Any) -> int:
        """Run a named query; returns how many rows it changed."""
        ...

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a text of SQL gives, `?` for each parameter. For copying and checking: all else is named."""
        ...

    def write(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a text of SQL once for each of these rows. For copying only. Raises LedgerError for what does not fit."""
        ...

    def migrate(self) -> int:
        """Bring the schema up to date. Returns its number; raises LedgerTooNew."""
        ...

    def shrink(self, pages: int) -> int:
        """Give up to so many unused pages back to the disk; returns how many there are still. Inside a transaction."""
        ...

    @property
    def is_shrinkable(self) -> bool:
        """Whether what is pruned makes the ledger smaller, or its room at least usable again, without a rewrite."""
        ...

    def scrub(self, *, whatever_size: bool = False) -> bool:
        """Leave no trace of what was deleted, if that can be done from here; returns whether it was.

        Not inside a transaction. Raises LedgerUnavailable.
        """
        ...

    def own(self) -> None:
        """Become the one server of this ledger, where only one may be. Raises LedgerInUse."""
        ...

    def mind_clock(self) -> None:
        """See to it that nothing waits longer because the clock is set back. For the one server, in a transaction."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...
