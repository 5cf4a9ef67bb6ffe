"""★ The one path, from a webhook to the CRM. START HERE.

    POST /webhooks/acquire                       `web/webhooks.py` takes the request
      │ receive: verify, then read               `sources/acquire`
      ▼
    writer: one thread, one transaction          `ledger/writer.py`
      │ store the event or see it was there; fold it into its chat, its contact (`identity.py`);
      │ owe what changed to every destination    `ledger/applying.py`, `ledger/owing.py`
      ▼ COMMIT, and only then 200. The lanes wake up.
    lane: one per destination                    `dispatcher.py`
      │ claim a batch: a lease with a fence      `ledger/settling.py`
      │ deliver: the adapter upserts it          `destinations/hubspot`
      ▼
    settle: how each attempt ended               `ledger/machine.py`, through the same writer

Nothing is a queue of events: a delivery is the standing promise that a contact reaches a destination in its newest
version. Ten events about one person while the CRM is down make one call afterwards.
"""

from collections.abc import Callable, Sequence, Set
from contextvars import ContextVar
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import structlog

from sync.destinations.base import Destination, Result
from sync.errors import (
    AnswerLost,
    Busy,
    DeliveryError,
    LedgerError,
    NotAuthentic,
    Postponed,
    Refused,
    Unauthorized,
    UnderWay,
    Unreachable,
    Waiting,
)
from sync.http import send_by
from sync.ledger import Applied, Claimed, Settlement
from sync.ledger.writer import Writer
from sync.models import Email, Erasure, Event, Kind, Owed, Receipt
from sync.outcomes import outcome_of
from sync.retry import delay
from sync.sources.base import Source, WebhookRequest

log = structlog.get_logger("sync.pipeline")

HOUR = 3600.0
"""Seconds by which clocks may differ before a time in the future says nothing any more."""

has_begun: ContextVar[bool] = ContextVar("has_begun", default=False)
"""Whether the attempt at hand has had a place in the limit of calls: who has begun waits longer for the next one."""

EARLIER = UnderWay("an earlier attempt at it is still under way here", after=1.0)

FORBIDDEN = 403
"""The status of what these credentials may not do."""


@dataclass(frozen=True)
class Pipeline:
    """The path with everything it needs passed in. `retry_for`: seconds of backoff after which one subject is dead."""

    writer: Writer
    clock: Callable[[], float]
    new_id: Callable[[str, float], str]
    random: Random
    retry_for: float

    async def receive(self, source: Source, request: WebhookRequest) -> Applied:
        """Take one webhook. Returns once it is safely stored (promise P1).

        Raises NotAuthentic (nothing is stored) and LedgerUnavailable (the source has to try again).
        """
        verify(source, request)
        now = self.clock()
        event: Event = source.read(request.body, event_id=self.new_id("ev", now), received_at=now)
        return await self.writer.apply(event)

    async def claim(self, destination: Destination, limits: Sequence[tuple[Kind, int]], lease: float) -> Claimed:
        """Lease the next batch for a destination. Returns after the claim is committed. Raises LedgerUnavailable."""
        asked_at = self.clock()
        claimed = await self.writer.claim(destination.name, limits, lease)
        return replace(claimed, asked_at=asked_at)

    async def deliver(
        self, destination: Destination, claimed: Claimed, lease: float, under_way: Set[str] = frozenset()
    ) -> list[Settlement]:
        """Attempt a claimed batch. Never raises for what a destination does: whatever happens is an outcome.

        Deliveries that are still `under_way` here, from before their lease lapsed, are put off.
        """
        send_by.set(claimed.asked_at + lease / 2)
        has_begun.set(False)
        going = replace(claimed, owed=tuple(owed for owed in claimed.owed if owed.delivery not in under_way))
        sent = iter(await self._attempt(destination, going) if going.owed else ())
        results = [EARLIER if owed.delivery in under_way else next(sent) for owed in claimed.owed]
        return [self._settlement(claimed, i, result) for i, result in enumerate(results)]

    async def _attempt(self, destination: Destination, claimed: Claimed) -> Sequence[Result]:
        if self.clock() > send_by.get():
            return [Postponed("it was too late in the lease to send") for _ in claimed.owed]
        try:
            results = await self._call(destination, claimed)
            if len(results) != len(claimed.owed):
                raise RuntimeError("an adapter must give one result for each subject")
            return results
        except DeliveryError as error:
            return [error for _ in claimed.owed]
        except Exception as error:
            log.exception("an attempt failed unexpectedly", destination=destination.name, kind=claimed.kind)
            return [Busy(f"unexpected {type(error).__name__}") for _ in claimed.owed]

    async def _call(self, destination: Destination, claimed: Claimed) -> Sequence[Result]:
        async def intend(deliveries: Sequence[str], at: float | None = None) -> None:
            held = {delivery: claims[delivery] for delivery in deliveries}
            try:
                told = await self.writer.do(lambda ledger: ledger.intend(held, at))
            except LedgerError as error:
                raise Postponed("the ledger could not be told what is about to be made") from error
            if told < len(held):
                raise Postponed("it was claimed by another host meanwhile")

        owed: Sequence[Owed[Any]] = claimed.owed
        claims = {one.delivery: one.claim for one in owed}
        if claimed.kind is Kind.CONTACT:
            return await destination.upsert(owed, intend)
        if claimed.kind is Kind.EMAIL:
            return [await self._send(destination, mail.subject) for mail in owed]
        if claimed.kind is Kind.ERASURE:
            return [await self._forget(destination, erasure.subject) for erasure in owed]
        return [await destination.log(chat, intend) for chat in owed]

    async def _send(self, mailer: Destination, email: Email) -> Receipt:
        """Hand over one mail. What may have gone out all the same is not sent again unless the key forbids two (P5)."""
        try:
            return await mailer.send(email)
        except DeliveryError as error:
            if not (isinstance(error, Waiting) and error.may_have_landed):
                raise
            if -HOUR < self.clock() - email.written_at < mailer.repeatable_for:
                raise Unreachable(error.reason, status=error.status, after=error.after) from error
            raise AnswerLost(f"{error.reason}; nobody knows whether it went out", status=error.status) from error
        except Exception as error:
            log.exception("a mailer failed unexpectedly", mailer=mailer.vendor)
            raise AnswerLost(f"unexpected {type(error).__name__}; nobody knows whether it went out") from error

    async def _forget(self, destination: Destination, erasure: Erasure) -> Receipt:
        """Have one record deleted. Who may write but not delete is refused this, and goes on with all the rest."""
        try:
            await destination.forget(erasure.remote_id)
        except Unauthorized as error:
            if error.status != FORBIDDEN:
                raise
            raise Refused(f"it may not be deleted with this token: {error.reason}", status=error.status) from error
        return Receipt(erasure.remote_id, ours=True)

    def postponed(self, claimed: Claimed, reason: str) -> list[Settlement]:
        """Give a batch back without having tried it."""
        return [self._settlement(claimed, i, Postponed(reason, after=0.0)) for i in range(len(claimed.owed))]

    def _settlement(self, claimed: Claimed, i: int, result: Result) -> Settlement:
        owed = claimed.owed[i]
        decided = delay(
            outcome_of(result),
            attempts=owed.attempts,
            waited=claimed.waited[i],
            pauses=claimed.pauses,
            retry_for=self.retry_for,
            random=self.random,
        )
        return Settlement(
            delivery=owed.delivery,
            claim=owed.claim,
            version=owed.version,
            outcome=decided.outcome,
            retry_in=decided.retry_in,
            pause_for=decided.pause_for,
            is_probe=claimed.is_probe,
            intended_at=owed.intended_at,
        )


def verify(source: Source, request: WebhookRequest) -> None:
    """Let only authentic requests pass. Raises NotAuthentic, also where the check itself fails."""
    try:
        source.verify(request)
    except NotAuthentic:
        raise
    except (ValueError, TypeError, KeyError, LookupError, ArithmeticError, RecursionError, AttributeError):
        raise NotAuthentic("the check failed") from None
