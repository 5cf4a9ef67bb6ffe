"""Compares what a destination has with the ledger, and owes again what has gone apart.

    page of contacts that it has by the ledger       `ledger/verifying.py`
      │ read back, a hundred in a call               `destination.read_back`
      ▼
    drift: a value for each way of going apart       `drifts_of`, pure
      │ only where nothing has happened meanwhile: claim and version are compared again
      ▼ COMMIT: owed again, strays, how far it got
    lanes: they deliver it, this module never does

What a person did over there is respected: a record that they deleted stays deleted, what they wrote into a record that
is not ours stays. On our own record the ledger has the word, as with every delivery. A record that is gone without a
trace may have been deleted for good (as GDPR demands) or lost with a restore: only a person can tell, so it is listed.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

import structlog

from sync.destinations.base import Destination, Difference, Standing
from sync.errors import DeliveryError
from sync.ledger import Ledger, verifying
from sync.ledger.verifying import Known, Repair, Stray

PAGE = 100
"""Contacts in one call and in one transaction: the running service gets its turn in between."""

SAMPLED = 5000
"""Ids that are looked at together while a sample is drawn."""

LISTED = 1000
"""Drift rows that are kept; all are counted."""

log = structlog.get_logger("sync.verify")


class DriftKind(StrEnum):
    """In which way a contact has gone apart. Deleted: the record is in the bin there; missing: there is no trace."""

    MISSING = "missing"
    DELETED = "deleted"
    CHANGED = "changed"
    THEIRS = "theirs"
    DUPLICATE = "duplicate"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Drift:
    """One way in which one contact has gone apart.

    `remote_id` is the record by the ledger; `records` are other ones: where it moved to, or its duplicates. The values
    in `differences` are for the operator's own screen, never for a log; they are None where a run was resumed.
    `is_owed`: it is owed again, or in a dry run would be.
    """

    contact: str
    remote_id: str
    kind: DriftKind
    differences: tuple[Difference, ...] = ()
    records: tuple[str, ...] = ()
    is_owed: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Our names of the fields that differ."""
        return tuple(difference.field for difference in self.differences)


@dataclass
class Verified:
    """What was found at one destination.

    `seen`: contacts read back. `counts`: drift by kind. `owed`: contacts owed again. `passed_over`: contacts about
    which something happened meanwhile, so nothing is said of them. `listed`: the first thousand drifts. `stopped` says
    why it ended early, if it did: the same call goes on from there. `cannot` says why nothing can be verified there.
    """

    destination: str
    seen: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    owed: int = 0
    passed_over: int = 0
    listed: list[Drift] = field(default_factory=list)
    resumed: bool = False
    stopped: str | None = None
    cannot: str | None = None

    @property
    def is_clean(self) -> bool:
        """Whether everything was looked at and stands as the ledger says."""
        return not self.counts and self.stopped is None and self.cannot is None

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON. They hold what people typed: for the operator only."""
        return asdict(self) | {"counts": {str(kind): self.counts[kind] for kind in DriftKind}}


@dataclass(frozen=True, slots=True)
class Asked:
    """What to verify, and what to do about it. `since`: only what was delivered at or after (epoch seconds)."""

    sample: int | None = None
    seed: int | None = 0
    fix: bool = False
    fix_missing: bool = False
    fix_deleted: bool = False
    since: float | None = None

    def going_on_with(self, noted: Mapping[str, Any] | None, now: float) -> "Asked":
        """The same, where what moves with the clock (any seed, a `since` of some days ago) is as a run noted it."""
        seed, since = self.seed, self.since
        if seed is None:
            seed = int(now) if noted is None else noted["seed"]
        if since is not None and noted is not None and noted["since"] is not None:
            since = noted["since"] if 0 <= since - noted["since"] <= verifying.RESUMABLE else since
        return replace(self, seed=seed, since=since)


def _nobody(_drift: Drift) -> None:
    return None


async def verify(
    ledger: Ledger,
    destination: Destination,
    *,
    sample: int | None = None,
    seed: int | None = 0,
    fix: bool = False,
    fix_missing: bool = False,
    fix_deleted: bool = False,
    dry_run: bool = False,
    since: float | None = None,
    told: Callable[[Drift], None] = _nobody,
) -> Verified:
    """Compare everybody whom a destination has by the ledger, or a random sample of them, with what stands there.

    `fix` owes again what may be repaired, `fix_missing` also who is missing there, `fix_deleted` also who was deleted.
    Without `fix` only strays are listed; a `dry_run` writes nothing at all. Safe beside a running `serve`. A run that
    is broken off goes on where it was when it is asked for the same within a day. `told` hears of every drift. Raises
    LedgerError.
    """
    if not destination.reads_back:
        return Verified(destination.name, cannot=f"{destination.name} cannot be read back")
    asked = Asked(sample, seed, fix or fix_missing or fix_deleted, fix_missing, fix_deleted, since)
    run = _Run(ledger, destination, asked, told, dry_run=dry_run)
    run.begin()
    for page in run.pages():
        run.result.stopped = verifying.pause_of(ledger, destination.name) or await run.compare(page)
        if run.result.stopped is not None:
            break
    else:
        run.end()
    found = run.result
    log.info(
        "verified",
        destination=destination.name,
        seen=found.seen,
        owed=found.owed,
        stopped=found.stopped,
        **{str(kind): n for kind, n in found.counts.items()},
    )
    return found


class _Run:
    """One verification of one destination, from page to page."""

    def __init__(
        self, ledger: Ledger, destination: Destination, asked: Asked, told: Callable[[Drift], None], *, dry_run: bool
    ) -> None:
        self.ledger = ledger
        self.destination = destination
        self.asked = asked
        self.told = told
        self.dry_run = dry_run
        self.result = Verified(destination.name)
        self._name = f"verify:{destination.name}"
        self._after = ""
        self._page = 0

    def begin(self) -> None:
        """Go on where the same run was broken off, else from the start."""
        notes = verifying.load_notes(self.ledger, self._name)
        noted = notes.said.get("asked")
        self.asked = self.asked.going_on_with(noted, self.ledger.engine.now)
        if self.dry_run:
            return
        if noted != asdict(self.asked):
            self.end()
            return
        said, result = notes.said, self.result
        self._after, self._page = said["after"], said["page"]
        result.resumed = True
        result.seen, result.owed, result.passed_over = said["seen"], said["owed"], said["passed_over"]
        result.counts.update(said["counts"])
        result.listed += [_drift_of(noted) for page in notes.pages for noted in page][:LISTED]

    def end(self) -> None:
        """Nothing is left to go on with."""
        if not self.dry_run:
            with self.ledger.transaction():
                verifying.drop_notes(self.ledger, self._name)

    def pages(self) -> Iterator[list[Known]]:
        """The contacts that are left, in pages."""
        return self._everybody() if self.asked.sample is None else self._some(self.asked.sample)

    def _everybody(self) -> Iterator[list[Known]]:
        name, since = self.destination.name, self.asked.since or 0.0
        while page := verifying.delivered(self.ledger, name, self._after, PAGE, since):
            yield page

    def _some(self, n: int) -> Iterator[list[Known]]:
        """A sample is those with the smallest hashes: the same again with the same seed, whoever has come meanwhile."""
        chosen = sorted(heapq.nsmallest(n, self._ids(), key=lambda id_: _draw(self.asked.seed, id_)))
        left = [contact for contact in chosen if contact > self._after]
        for start in range(0, len(left), PAGE):
            contacts = left[start : start + PAGE]
            if page := verifying.delivered_among(self.ledger, self.destination.name, contacts):
                yield page

    def _ids(self) -> Iterator[str]:
        after, since = "", self.asked.since or 0.0
        while ids := verifying.delivered_ids(self.ledger, self.destination.name, after, SAMPLED, since):
            yield from ids
            after = ids[-1]

    async def compare(self, page: Sequence[Known]) -> str | None:
        """Read one page back and write down what was found. Returns why that was not possible, if it was not."""
        try:
            standings = await self.destination.read_back([known.owed for known in page])
        except DeliveryError as error:
            return error.reason
        now = self.ledger.engine.now
        apart = [
            (known, standing, drifts)
            for known, standing in zip(page, standings, strict=True)
            if (drifts := drifts_of(known, standing, now=now, tells_deleted_for=self.destination.tells_deleted_for))
        ]
        if self.dry_run:
            drifts = self._judged(page, apart)
        else:
            with self.ledger.transaction():
                drifts = self._judged(page, apart)
                self._write_notes(drifts)
        for drift in drifts:
            self.told(drift)
        return None

    def _judged(self, page: Sequence[Known], apart: Sequence[tuple[Known, Standing, Sequence[Drift]]]) -> list[Drift]:
        """Take what still holds into the result, and owe it again where that is asked for."""
        untouched = verifying.untouched(self.ledger, [known for known, _, _ in apart])
        sure = [entry for entry in apart if entry[0].owed.delivery in untouched]
        elsewhere = [
            Stray(drift.contact, record) for _, _, drifts in sure for drift in drifts for record in drift.records
        ]
        held = verifying.held(self.ledger, self.destination.name, elsewhere)
        repairs = self._repairs(sure, held) if self.asked.fix else []
        owed = {repair.known.owed.delivery for repair in repairs}
        found = [
            Drift(d.contact, d.remote_id, d.kind, d.differences, d.records, known.owed.delivery in owed)
            for known, _, drifts in sure
            for d in drifts
        ]
        if not self.dry_run:
            self._write(repairs, found, held)
        self._count(page, len(apart) - len(sure), found, len(repairs))
        return found

    def _repairs(self, sure: Sequence[tuple[Known, Standing, Sequence[Drift]]], held: frozenset[Stray]) -> list[Repair]:
        """Who is owed again. A record that another person of ours has, or takes now, is for a person to look at."""
        repairs: list[Repair] = []
        taken: set[str] = set()
        for known, standing, drifts in sure:
            repair = self._repair(known, standing, drifts[0].kind)
            if repair is None:
                continue
            record = repair.remote_id
            if record is not None and record != known.owed.remote_id:
                if record in taken or Stray(known.owed.subject.id, record) in held:
                    continue
                taken.add(record)
            repairs.append(repair)
        return repairs

    def _repair(self, known: Known, standing: Standing, kind: DriftKind) -> Repair | None:
        match kind:
            case DriftKind.MISSING:
                return Repair(known, None, ours=False) if self.asked.fix_missing else None
            case DriftKind.DELETED:
                return Repair(known, None, ours=False) if self.asked.fix_deleted else None
            case DriftKind.CHANGED:
                return Repair(known, known.owed.remote_id, ours=known.owed.ours)
            case DriftKind.MOVED:
                return Repair(known, standing.remote_id, ours=standing.ours)
            case DriftKind.THEIRS | DriftKind.DUPLICATE:
                return None

    def _write(self, repairs: Sequence[Repair], found: Sequence[Drift], held: frozenset[Stray]) -> None:
        """Who is owed again gets no stray: the lane finds out which of the records is the person's."""
        name = self.destination.name
        verifying.owe_repairs(self.ledger, repairs)
        duplicates = [drift for drift in found if drift.kind is DriftKind.DUPLICATE]
        strays = [Stray(d.contact, r) for d in duplicates if not d.is_owed for r in d.records]
        verifying.list_strays(self.ledger, name, [stray for stray in strays if stray not in held])
        adopted = [Stray(d.contact, record) for d in found if d.is_owed for record in d.records]
        verifying.unlist_strays(self.ledger, name, adopted)

    def _count(self, page: Sequence[Known], passed_over: int, found: Sequence[Drift], owed: int) -> None:
        self._after = page[-1].owed.subject.id
        self._page += 1
        result = self.result
        result.seen += len(page)
        result.passed_over += passed_over
        result.owed += owed
        result.counts.update(str(drift.kind) for drift in found)
        result.listed += found[: LISTED - len(result.listed)]

    def _write_notes(self, found: Sequence[Drift]) -> None:
        result = self.result
        said = {
            "asked": asdict(self.asked),
            "after": self._after,
            "page": self._page,
            "seen": result.seen,
            "owed": result.owed,
            "passed_over": result.passed_over,
            "counts": dict(result.counts),
        }
        noted = [_noted(drift) for drift in found] if result.counts.total() - len(found) < LISTED else []
        verifying.write_notes(self.ledger, self._name, said, self._page, noted)


def drifts_of(known: Known, standing: Standing, *, now: float, tells_deleted_for: float) -> list[Drift]:
    """In which ways a contact has gone apart; what decides what is done about it comes first. Pure."""
    one = known.owed
    contact, remote_id = one.subject.id, str(one.remote_id)
    found: list[Drift] = []
    if standing.remote_id is None:
        # Deleted so long ago that nobody can tell any more: what may have been a person's wish counts as one.
        is_deleted = standing.is_deleted or known.settled_at < now - tells_deleted_for
        found.append(Drift(contact, remote_id, DriftKind.DELETED if is_deleted else DriftKind.MISSING))
    elif standing.remote_id != remote_id:
        found.append(Drift(contact, remote_id, DriftKind.MOVED, standing.differences, (standing.remote_id,)))
    elif standing.differences:
        may_write = any(difference.may_write for difference in standing.differences)
        kind = DriftKind.CHANGED if may_write else DriftKind.THEIRS
        found.append(Drift(contact, remote_id, kind, standing.differences))
    if standing.others:
        found.append(Drift(contact, remote_id, DriftKind.DUPLICATE, (), standing.others))
    return found


def _draw(seed: int | None, id_: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{id_}".encode(), digest_size=8).digest()


def _noted(drift: Drift) -> list[Any]:
    """A drift as it is kept between two runs: names of fields, no values."""
    fields = [[difference.field, difference.may_write] for difference in drift.differences]
    return [drift.contact, drift.remote_id, drift.kind, fields, list(drift.records), drift.is_owed]


def _drift_of(noted: Sequence[Any]) -> Drift:
    contact, remote_id, kind, fields, records, is_owed = noted
    differences = tuple(Difference(name, None, None, may_write) for name, may_write in fields)
    return Drift(contact, remote_id, DriftKind(kind), differences, tuple(records), is_owed)
