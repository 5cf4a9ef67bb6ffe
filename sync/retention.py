"""Keeps the ledger from growing for ever: by age, by size, in small steps beside everything else."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from sync.ledger import Ledger, pruning
from sync.ledger.pruning import DAY, SHRUNK, Limits, Walk
from sync.ledger.writer import Writer
from sync.settings import FromEnvironment

EVERY = 6 * 3600.0
"""Seconds from the end of one walk through the ledger to the beginning of the next."""

STEPS = 20
"""Steps that one round of housekeeping takes; between any two of them everybody else has a turn."""


def _for_ever(value: object) -> object:
    return None if value == "" else value


Days = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_for_ever)]
Size = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_for_ever)]


class RetentionSettings(FromEnvironment):
    """How long things are kept, in days; empty means for ever. What is still owed is kept in any case."""

    model_config = SettingsConfigDict(env_prefix="SYNC_KEEP_", env_ignore_empty=False)

    payloads: Days = 90.0
    unreadable: Days = 365.0
    transcripts: Days = 365.0
    failures: Days = 90.0
    mails: Days = 90.0
    bytes: Size = 1 << 30

    @property
    def limits(self) -> Limits:
        """The same in seconds."""
        days = {name: getattr(self, name) for name in ("payloads", "unreadable", "transcripts", "failures", "mails")}
        return Limits(**{name: None if n is None else n * DAY for name, n in days.items()}, most=self.bytes)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a whole walk has met: what was pruned (or would be), and what is left."""

    walk: Walk
    is_shrinkable: bool


def prune(ledger: Ledger, limits: Limits, *, dry_run: bool = False) -> Pruned:
    """Walk through the whole ledger at once, each step a transaction of its own. Raises LedgerUnavailable."""
    measured = _whole(ledger, Limits(), Walk(), dry_run=True) if limits.most is not None else Walk()
    payloads = measured.kept.get(pruning.PAYLOADS, pruning.Sum()).size
    excess = 0 if limits.most is None else max(payloads - limits.most, 0)
    walk = _whole(ledger, limits, Walk(excess=excess), dry_run=dry_run)
    if not dry_run:
        with ledger.transaction():
            pruning.publish(ledger.engine, walk)
        while _shrunk(ledger):
            pass
    return Pruned(walk, ledger.engine.is_shrinkable)


def _whole(ledger: Ledger, limits: Limits, walk: Walk, *, dry_run: bool) -> Walk:
    while not walk.is_over:
        if dry_run:
            walk = pruning.step(ledger, walk, limits, dry_run=True)
        else:
            with ledger.transaction():
                walk = pruning.step(ledger, walk, limits)
    return walk


def _shrunk(ledger: Ledger) -> bool:
    with ledger.transaction():
        return ledger.engine.shrink(SHRUNK) > 0


async def tend(writer: Writer, limits: Limits) -> None:
    """One round: some steps of the walk, each a job of its own among all that wait for the ledger.

    Raises LedgerError.
    """
    for _ in range(STEPS):
        if not await writer.do(lambda ledger: pruning.go_on(ledger, limits, EVERY)):
            return
