"""The state machine of a delivery, the pauses of its destination: pure functions from row to row."""

from dataclasses import dataclass, replace

from sync.models import Kind, State
from sync.outcomes import Dead, Delivered, Ignored, Outcome, Paused, Retry, Unknown

SUSPECTS = 5
"""So many different subjects with a 500 in a row: it is the destination that is broken, not they."""

JOINED = "joined"
"""The reason of a delivery whose contact was joined into another one."""

FORGOTTEN = "the person was forgotten"
"""The reason of a delivery whose person asked for it: nothing makes it owed again."""

DISMISSED = "dismissed: "
"""How the reason begins of what was refused, or could not be read, and of which a person said: let it be."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of `deliveries`. `joined` names the contact that its subject was joined into."""

    id: str
    destination: str
    kind: Kind
    subject: str
    state: State = State.PENDING
    wanted: int = 1
    done: int = 0
    claim: int = 0
    attempts: int = 0
    waited: float = 0.0
    ready_at: float = 0.0
    due_at: float | None = None
    lease_until: float | None = None
    again: bool = False
    intended_at: float | None = None
    replayed: bool = False
    remote_id: str | None = None
    ours: bool = False
    error: str | None = None
    settled_at: float | None = None
    joined: str | None = None

    @property
    def is_forgotten(self) -> bool:
        """Whether its person was forgotten: whatever an attempt still hears of it changes nothing here."""
        return self.state is State.IGNORED and self.error == FORGOTTEN

    @property
    def died_of(self) -> str | None:
        """For what it was refused for good, be it dismissed since or not."""
        if self.error is not None and (self.state is State.DEAD or self.error.startswith(DISMISSED)):
            return self.error.removeprefix(DISMISSED)
        return None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one attempt ended. `claim` is its fence, `version` what it carried.

    `retry_in` and `pause_for` are the seconds that a Retry or a pause would take; `is_probe` marks the one call that
    may end a pause; `intended_at` when an attempt before this one had announced to create
    the record.
    """

    delivery: str
    claim: int
    version: int
    outcome: Outcome
    retry_in: float = 0.0
    pause_for: float = 0.0
    is_probe: bool = False
    intended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of `destinations`: what all hosts share about one destination."""

    name: str
    paused_at: float | None = None
    paused_until: float | None = None
    probe_until: float | None = None
    culprit: str | None = None
    pauses: int = 0
    needs_person: bool = False
    suspects: tuple[str, ...] = ()
    reason: str | None = None
    status: int | None = None

    @property
    def is_paused(self) -> bool:
        """Whether everything for this destination waits."""
        return self.paused_until is not None


def settle(row: Delivery, settlement: Settlement, lane: Lane, now: float) -> Delivery:
    """The row after an attempt. `lane` is the destination as it is after this attempt."""
    went_out = row.kind is Kind.EMAIL and row.state is State.DELIVERED  # whatever another attempt hears
    if row.claim != settlement.claim or went_out:
        return _late(row, settlement, now)
    intended_at = row.intended_at if may_have_landed(settlement.outcome) else settlement.intended_at
    free = replace(row, lease_until=None, settled_at=now, intended_at=intended_at)
    if row.joined is not None:
        return _joined(free, settlement.outcome)
    match settlement.outcome:
        case Delivered(receipt):
            taken = replace(free, remote_id=receipt.remote_id, ours=receipt.ours, intended_at=None, error=None)
            return _at(taken, State.DELIVERED, settlement.version, now)
        case Ignored(reason):
            return _at(replace(free, error=reason), State.IGNORED, settlement.version, now)
        case Dead(reason):
            return _at(replace(free, error=reason), State.DEAD, settlement.version, now)
        case Retry(reason, contact_is_gone=True):
            return replace(free, due_at=None, error=reason)
        case Retry(reason, blames_destination=blames, is_postponed=postponed) if not (blames and lane.is_paused):
            failed = int(not postponed)
            return replace(
                free,
                state=State.PENDING,
                attempts=row.attempts + failed,
                waited=row.waited + failed * settlement.retry_in,
                due_at=now + settlement.retry_in,
                error=reason,
            )
        case Retry(reason) | Paused(reason):
            return replace(free, state=State.PENDING, due_at=max(lane.paused_until or now, now), error=reason)
        case Unknown(reason):
            return replace(free, state=State.UNKNOWN, due_at=None, error=reason)


def may_have_landed(outcome: Outcome) -> bool:
    """Whether an attempt that did not succeed can have taken effect all the same."""
    match outcome:
        case Retry() | Paused():
            return outcome.may_have_landed
        case Unknown():
            return True
        case Delivered() | Ignored() | Dead():
            return False


def _at(row: Delivery, state: State, version: int, now: float) -> Delivery:
    """Settled for good at a version; owed again where a newer one is wanted or a late call may have overwritten it."""
    fresh = replace(row, done=version, attempts=0, waited=0.0)
    if version < row.wanted or row.again:
        return replace(fresh, state=State.PENDING, due_at=now, again=False)
    return replace(fresh, state=state, due_at=None, replayed=False)


def _late(row: Delivery, settlement: Settlement, now: float) -> Delivery:
    """The fence has passed by: the late call may have landed last, so the subject is sent once more. No mail is.

    Its outcome is not written. But where no record is known, the one that it made is what the next attempt changes:
    it must not make a second.
    """
    if row.kind is Kind.EMAIL:
        return _late_mail(row, settlement, now)
    if row.error == JOINED or row.state is State.UNKNOWN:
        return row
    if row.remote_id is None and isinstance(settlement.outcome, Delivered):
        receipt = settlement.outcome.receipt
        row = replace(row, remote_id=receipt.remote_id, ours=receipt.ours)
    if row.lease_until is not None and row.lease_until > now:
        return replace(row, again=True)
    return replace(row, state=State.PENDING, due_at=now if row.due_at is None or row.due_at > now else row.due_at)


def _late_mail(row: Delivery, settlement: Settlement, now: float) -> Delivery:
    """A late answer never makes a mail owed again; but if it says that the mail went out, it did."""
    if row.state is State.DELIVERED or not isinstance(settlement.outcome, Delivered):
        return row
    remote_id = settlement.outcome.receipt.remote_id
    sent = replace(row, state=State.DELIVERED, done=row.wanted, due_at=None, lease_until=None, remote_id=remote_id)
    return replace(sent, settled_at=now, error=None)


def _joined(row: Delivery, outcome: Outcome) -> Delivery:
    """The contact was joined into another one while the call was under way: only the receipt is kept."""
    kept = replace(row, state=State.IGNORED, due_at=None, error=JOINED)
    if isinstance(outcome, Delivered):
        return replace(kept, remote_id=outcome.receipt.remote_id, ours=outcome.receipt.ours)
    return kept


def lane_heard(lane: Lane, row: Delivery, settlement: Settlement, now: float) -> Lane:
    """The destination after an attempt at this row. Where the fence has passed by it is old news: others asked since.

    A probe whose row nobody has claimed since may be late as well: where another row was probed meanwhile (its lease
    ends later), or there is no probe any more, it is a call like all others.
    """
    if row.claim != settlement.claim:
        return lane
    is_probe = settlement.is_probe and _is_last_probe(lane, row)
    return lane_after(lane, row.id, row.subject, replace(settlement, is_probe=is_probe), now)


def _is_last_probe(lane: Lane, row: Delivery) -> bool:
    return lane.probe_until is not None and row.lease_until is not None and lane.probe_until <= row.lease_until


def lane_after(lane: Lane, delivery: str, subject: str, settlement: Settlement, now: float) -> Lane:
    """The destination after an attempt: pauses begin, grow and end here."""
    ended = replace(lane, probe_until=None) if settlement.is_probe else lane
    match settlement.outcome:
        case Paused(reason, status, _, needs_person):
            return _paused(ended, delivery, settlement, now, reason, status, needs_person=needs_person)
        case Retry(reason, status, _, True):
            suspects = (*(s for s in lane.suspects if s != subject), subject)[-SUSPECTS:]
            if len(suspects) < SUSPECTS and not (lane.is_paused and settlement.is_probe):
                return replace(ended, suspects=suspects)
            return _paused(
                replace(ended, suspects=suspects), delivery, settlement, now, f"{reason}, for everybody", status
            )
        case Ignored() | Unknown():
            return ended
        case Delivered():
            return Lane(name=lane.name) if lane.is_paused and settlement.is_probe else replace(ended, suspects=())
        case Dead(status=status) | Retry(status=status):
            has_answered = status is not None
            return Lane(name=lane.name) if lane.is_paused and settlement.is_probe and has_answered else ended


def _paused(
    lane: Lane,
    delivery: str,
    settlement: Settlement,
    now: float,
    reason: str,
    status: int | None,
    *,
    needs_person: bool = False,
) -> Lane:
    until = now + settlement.pause_for
    if lane.paused_until is not None and not settlement.is_probe:
        is_longer = lane.pauses == 1 and until > lane.paused_until
        return replace(lane, paused_until=until, culprit=delivery) if is_longer else lane
    return replace(
        lane,
        paused_at=lane.paused_at if lane.paused_at is not None else now,
        paused_until=until,
        probe_until=None,
        culprit=delivery,
        pauses=lane.pauses + 1,
        needs_person=needs_person,
        reason=reason,
        status=status,
    )


def join(loser: Delivery, winner: Delivery | None, now: float) -> tuple[Delivery, Delivery | None, str | None]:
    """What becomes of two contact deliveries to one destination when their contacts are found to be one person.

    Returns both, and the id of a stray: a second remote record of the person, for somebody to merge over there.
    """
    gone = replace(loser, state=State.IGNORED, due_at=None, error=JOINED)
    if winner is None:
        return gone, None, None
    kept, stray = credit(winner, loser.remote_id, ours=loser.ours)
    if loser.lease_until is not None and loser.lease_until > now and kept.due_at is not None:
        kept = replace(kept, due_at=max(kept.due_at, loser.lease_until))
    return gone, kept, stray


def credit(winner: Delivery, remote_id: str | None, *, ours: bool) -> tuple[Delivery, str | None]:
    """Let the winner of a join inherit a remote record that we made where it has none; any other is a stray."""
    if remote_id is None or remote_id == winner.remote_id:
        return winner, None
    if winner.remote_id is None and ours:
        return replace(winner, remote_id=remote_id, ours=ours), None
    return winner, remote_id


def hurried(row: Delivery, now: float) -> Delivery:
    """The row, due now if it waits for nothing but a time that no longer matters."""
    if row.state is not State.PENDING or row.due_at is None or row.attempts or row.lease_until is not None:
        return row
    return replace(row, due_at=min(row.due_at, now))


def once_more(row: Delivery, now: float) -> Delivery:
    """The row, to be delivered again now: what stands there may not be what we think."""
    if row.state is State.PENDING:
        return hurried(row, now)
    return replace(row, state=State.PENDING, due_at=now, attempts=0, waited=0.0)
