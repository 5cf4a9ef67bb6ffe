"""How an attempt ends: the values that an attempt returns and `settle` writes down."""

from dataclasses import dataclass

from sync.errors import (
    AnswerLost,
    Broken,
    Busy,
    ContactGone,
    DeliveryError,
    Gone,
    NotForHere,
    Postponed,
    Refused,
    Throttled,
    Unauthorized,
    Unreachable,
)
from sync.models import Receipt


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has it."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Ignored:
    """Not for this destination. Not a failure."""

    reason: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Not this time, for this subject alone. `blames_destination` marks a 500: five subjects in a row make a pause.

    `contact_is_gone`: a chat whose contact's record was deleted there; it waits until the contact has one again.
    `is_postponed`: nothing was tried, so it is no failure of anybody's.
    """

    reason: str
    status: int | None = None
    after: float | None = None
    blames_destination: bool = False
    may_have_landed: bool = False
    contact_is_gone: bool = False
    is_postponed: bool = False


@dataclass(frozen=True, slots=True)
class Paused:
    """The destination's fault: everything for it waits. `after` is its wait hint in seconds."""

    reason: str
    status: int | None = None
    after: float | None = None
    needs_person: bool = False
    may_have_landed: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may or may not have been taken, and sending it again could do harm."""

    reason: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """This subject is refused for good. A person looks at it."""

    reason: str
    status: int | None = None


Outcome = Delivered | Ignored | Retry | Paused | Unknown | Dead


def outcome_of(result: Receipt | DeliveryError) -> Outcome:
    """The outcome that an adapter's answer becomes: the right column of the tree in `errors.py`."""
    match result:
        case Receipt():
            return Delivered(result)
        case ContactGone():
            return Retry(result.reason, result.status, contact_is_gone=True)
        case NotForHere() | Gone():
            return Ignored(result.reason, result.status)
        case Refused():
            return Dead(result.reason, result.status)
        case Busy():
            landed, postponed = result.may_have_landed, isinstance(result, Postponed)
            return Retry(result.reason, result.status, result.after, may_have_landed=landed, is_postponed=postponed)
        case Broken():
            landed = result.may_have_landed
            return Retry(result.reason, result.status, result.after, blames_destination=True, may_have_landed=landed)
        case Throttled() | Unreachable():
            return Paused(result.reason, result.status, result.after, may_have_landed=result.may_have_landed)
        case Unauthorized():
            landed = result.may_have_landed
            return Paused(result.reason, result.status, result.after, needs_person=True, may_have_landed=landed)
        case AnswerLost():
            return Unknown(result.reason, result.status)
        case _:
            return Retry(result.reason, result.status)
