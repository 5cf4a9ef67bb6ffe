"""The durable memory: what the ledger can do.

Everything here is plain synchronous code. In the running service the writer thread calls it (`writer.py`), so that all
that waits shares one transaction; a command calls it on a ledger of its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from sync.ledger.applying import Applied, apply
from sync.ledger.engine import Engine
from sync.ledger.erasing import Erasures
from sync.ledger.machine import Settlement
from sync.ledger.mailing import Mailing, set_up
from sync.ledger.settling import Claimed, claim, settle_all
from sync.models import Event, Kind

__all__ = ["Applied", "Claimed", "Ledger", "Settlement"]

FURTHEST = 600.0
"""Seconds, beside some places, by which a pace can be ahead. What is further ahead is left over from a wrong clock."""


class Ledger:
    """All that is known, on one database.

    `takers` says which configured destination takes which kinds, `mailing` how follow-ups are sent, if they are;
    `erasures` keeps out what was said by people who were forgotten.
    """

    def __init__(
        self,
        engine: Engine,
        takers: Mapping[str, frozenset[Kind]],
        *,
        new_id: Callable[[str, float], str],
        mailing: Mailing | None = None,
        erasures: Erasures | None = None,
    ) -> None:
        self.engine = engine
        self.takers = takers
        self.new_id = new_id
        self.mailing = mailing
        self.erasures = erasures

    def transaction(self, *, exclusive: bool = True) -> AbstractContextManager[None]:
        """One write transaction around everything below; one claim may share. Raises LedgerUnavailable."""
        return self.engine.transaction(exclusive=exclusive)

    def apply(self, events: Sequence[Event]) -> list[Applied]:
        """Store events, fold them into contacts and chats, owe what changed. One answer each, in order."""
        return apply(self.engine, events, self.takers, self.new_id, self.mailing, self.erasures)

    def apply_poison(self, event: Event, error: BaseException) -> Applied:
        """Store an event that cannot be folded as unreadable, with the class of what it raised."""
        reason = f"could not be applied ({type(error).__name__})"
        return self.apply([replace(event, visitor=None, news=None, error=reason)])[0]

    def claim(self, destination: str, kinds: Sequence[tuple[Kind, int]], lease: float) -> Claimed:
        """Lease up to so many due deliveries of the first kind that has any. `lease` is in seconds."""
        return claim(self.engine, destination, kinds, lease, self.mailing)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write down how attempts ended; an attempt whose fence was passed by changes no outcome."""
        settle_all(self.engine, settlements, self.new_id, self.takers)

    def intend(self, claims: Mapping[str, int], at: float | None = None) -> int:
        """Note that these deliveries are about to create their remote record; `at` is the destination's time of it.

        Each comes with its claim. Returns how many of them nobody has claimed since.
        """
        rows = [{"id": delivery, "claim": claim} for delivery, claim in claims.items()]
        return self.engine.run("intend", at=self.engine.now if at is None else at, rows=rows)

    def take_pace(self, destination: str, interval: float, burst: float, within: float = math.inf) -> float:
        """Take the next free place in a destination's pace; returns how many seconds it is away.

        One that is further away than `within` seconds is left to others, and not taken.
        """
        asked = {"name": destination, "cost": interval, "burst": burst, "furthest": FURTHEST + 10 * interval}
        rows = self.engine.rows("take_pace", within=within, **asked)
        if not rows and not (rows := self.engine.rows("next_place", **asked)):
            self.engine.run("add_destination", name=destination)
            rows = self.engine.rows("take_pace", within=within, **asked)
        return max(float(rows[0]["place"]) - self.engine.now, 0.0)

    def ask_again(self) -> None:
        """Do not wait any longer where a person had to act: whoever starts a dispatcher may have."""
        self.engine.run("free_paused")
        self.engine.run("ask_persons_again")

    def take_over(self, grace: float = 5.0) -> int:
        """End the leases of a process that is no more, and ask again where a person had to act.

        Only for the one owner of this ledger, before it claims.
        """
        self.engine.mind_clock()
        self.ask_again()
        self.engine.run("forget_probes")
        return self.engine.run("shorten_leases", grace=grace)

    def set_up_mail(self) -> None:
        """Note which mailer there is, and since when there is one."""
        if self.mailing is not None:
            set_up(self.engine, self.mailing.mailer)

    def suppress(self, address: str, reason: str) -> bool:
        """Let no mail go to an address any more, given as its keyed hash. Returns whether that is new."""
        return self.engine.run("suppress", hash=address, reason=reason) > 0

    def unsuppress(self, address: str) -> bool:
        """Let mail go to an address again, given as its keyed hash. Returns whether it was suppressed."""
        return self.engine.run("unsuppress", hash=address) > 0

    def count(self, counted: Mapping[str, int]) -> None:
        """Add to counters that all processes share."""
        for name, n in counted.items():
            self.engine.run("count", name=name, n=n)

    def prove_writable(self) -> None:
        """Write and commit something that means nothing. Raises LedgerUnavailable."""
        self.engine.run("probe_write", value=str(self.engine.now))

    def get(self, query: str, **parameters: Any) -> Any | None:
        """The first row of a named query, or None."""
        rows = self.engine.rows(query, **parameters)
        return rows[0] if rows else None
