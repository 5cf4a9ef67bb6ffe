"""Prunes what was dealt with long ago: one walk through the ledger, a small page at a time, that also measures it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sync.ledger.engine import Engine
from sync.ledger.rows import dump
from sync.models import EventState

if TYPE_CHECKING:
    from sync.ledger import Ledger

PAGE = 100
"""Rows that one step looks at: a few milliseconds, in which nobody else writes."""

SHRUNK = 100
"""Pages that one step gives back to the disk."""

DAY = 86400.0
WALK = "prune"
SIZES = "sizes"
OWED = "owed"

PAYLOADS, TRANSCRIPTS, FAILURES, MAILS = "payloads", "transcripts", "failures", "mails"
PARTS = (PAYLOADS, TRANSCRIPTS, FAILURES, MAILS)
"""What is walked through, in this order."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each part is kept, in seconds, and how many characters of payloads at most; None: for ever, any number.

    Webhooks that could not be read have a limit of their own (`unreadable`).
    """

    payloads: float | None = None
    unreadable: float | None = None
    transcripts: float | None = None
    failures: float | None = None
    mails: float | None = None
    most: int | None = None

    def of(self, part: str, state: str) -> float | None:
        """How long a row of this part is kept. What is still owed is kept."""
        if part == PAYLOADS:
            return self.unreadable if state == EventState.UNREADABLE else self.payloads
        ages = {TRANSCRIPTS: self.transcripts, FAILURES: self.failures, MAILS: self.mails}
        return None if state == OWED else ages[part]


@dataclass(frozen=True, slots=True)
class Sum:
    """How much there is of a part: rows that hold something, and their characters."""

    rows: int = 0
    size: int = 0

    def plus(self, rows: int, size: int) -> "Sum":
        """With so much more."""
        return Sum(self.rows + rows, self.size + size)


@dataclass(frozen=True, slots=True)
class Walk:
    """How far a walk has come: the part, the last id. `kept` and `pruned` count by part what was met so far.

    `excess`: characters of payloads that are too many, the oldest to go first.
    """

    part: int = 0
    after: str = ""
    excess: int = 0
    kept: Mapping[str, Sum] = field(default_factory=dict)
    pruned: Mapping[str, Sum] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether everything was walked through."""
        return self.part >= len(PARTS)


def step(ledger: "Ledger", walk: Walk, limits: Limits, *, dry_run: bool = False) -> Walk:
    """Take one more page. Inside a transaction, but for a dry run; returns how far the walk has come."""
    part = PARTS[walk.part]
    takers = [{"name": name} for name in ledger.takers]
    extra = {"takers": takers} if part == TRANSCRIPTS else {}
    rows = ledger.engine.rows(f"{part}_page", after=walk.after, limit=PAGE, **extra)
    gone, excess = _due(rows, part, limits, ledger.engine.now, walk.excess)
    if gone and not dry_run:
        _PRUNE[part](ledger.engine, gone, limits)
    kept = _counted([row for row in rows if row["size"]], walk.kept.get(part, Sum()), gone)
    pruned = _counted(gone, walk.pruned.get(part, Sum()), ())
    after = replace(walk, excess=excess, kept={**walk.kept, part: kept}, pruned={**walk.pruned, part: pruned})
    if len(rows) == PAGE:
        return replace(after, after=rows[-1]["id"])
    return replace(after, part=walk.part + 1, after="")


def _due(rows: Sequence[Any], part: str, limits: Limits, now: float, excess: int) -> tuple[list[Any], int]:
    """Which of these rows go, and how much is still too much then."""
    gone = []
    for row in rows:
        age = limits.of(part, row["state"])
        is_old = age is not None and row["at"] < now - age
        is_too_much = part == PAYLOADS and excess > 0 and row["state"] != EventState.UNREADABLE
        if row["size"] and (is_old or is_too_much):
            gone.append(row)
            excess -= row["size"] if part == PAYLOADS else 0
    return gone, excess


def _counted(rows: Sequence[Any], before: Sum, but: Sequence[Any]) -> Sum:
    less = {row["id"] for row in but}
    sizes = [row["size"] for row in rows if row["id"] not in less]
    return before.plus(len(sizes), sum(sizes))


def _ids(rows: Sequence[Any]) -> list[dict[str, str]]:
    return [{"id": row["id"]} for row in rows]


def _prune_transcripts(engine: Engine, rows: Sequence[Any], limits: Limits) -> None:
    """A transcript goes with everything that was said before the limit, and with what was said later in it."""
    limit = engine.now - (limits.transcripts or 0.0)
    marked = [{"id": row["id"], "until": _until(row, limit)} for row in rows]
    engine.run("prune_transcripts", rows=marked)
    engine.run("prune_notes", rows=_ids(rows))


def _until(row: Any, limit: float) -> float:
    times = (row["closed_at"], row["last_message_at"], row["pruned_until"])
    return max([limit, *(float(at) for at in times if at is not None)])


_PRUNE: Mapping[str, Callable[[Engine, Sequence[Any], Limits], object]] = {
    PAYLOADS: lambda engine, rows, _: engine.run("blank_payloads", rows=_ids(rows)),
    TRANSCRIPTS: _prune_transcripts,
    FAILURES: lambda engine, rows, _: engine.run("prune_failures", rows=_ids(rows)),
    MAILS: lambda engine, rows, _: engine.run("erase_mails", rows=_ids(rows)),
}


def go_on(ledger: "Ledger", limits: Limits, every: float) -> bool:
    """One step of the walk that all processes share; a new one begins `every` so many seconds after the last.

    Inside a transaction. Returns whether there is more to do now.
    """
    engine = ledger.engine
    row = next(iter(engine.rows("get_cursor_at", name=WALK)), None)
    said = None if row is None else json.loads(row["value"])
    if row is not None and said is None and engine.now < row["at"] + every:
        return engine.shrink(SHRUNK) > 0
    walk = step(ledger, first(ledger, limits) if said is None else _walk_of(said), limits)
    if walk.is_over:
        publish(engine, walk)
    engine.run("keep_cursor", name=WALK, value=dump(None if walk.is_over else asdict(walk)))
    return True


def first(ledger: "Ledger", limits: Limits) -> Walk:
    """The beginning of a walk: by what the last one measured it is known how much is too much."""
    known = sizes(ledger.engine)
    if limits.most is None or known is None:
        return Walk()
    return Walk(excess=max(known[PAYLOADS]["size"] - limits.most, 0))


def _walk_of(said: Mapping[str, Any]) -> Walk:
    sums = {name: {part: Sum(**each) for part, each in said[name].items()} for name in ("kept", "pruned")}
    return Walk(said["part"], said["after"], said["excess"], sums["kept"], sums["pruned"])


def publish(engine: Engine, walk: Walk) -> None:
    """Keep what a walk has measured, for `status`. Inside a transaction."""
    engine.run("keep_cursor", name=SIZES, value=dump({part: asdict(walk.kept.get(part, Sum())) for part in PARTS}))


def sizes(engine: Engine) -> dict[str, Any] | None:
    """What the last walk has measured: rows and characters of each part, and when (`at`). None before the first."""
    row = next(iter(engine.rows("get_cursor_at", name=SIZES)), None)
    return None if row is None else {**json.loads(row["value"]), "at": row["at"]}
