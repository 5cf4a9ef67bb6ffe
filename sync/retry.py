"""When to try again: tenacity is asked how long, the ledger remembers it, nobody sleeps."""

from dataclasses import dataclass
from random import Random

from tenacity import RetryCallState, Retrying, wait_exponential
from tenacity.wait import wait_base

from sync.outcomes import Dead, Outcome, Paused, Retry

SUBJECT = wait_exponential(multiplier=2, max=3600)
"""One subject's own trouble: 2 s, 4 s, 8 s … one hour."""

OUTAGE = wait_exponential(multiplier=1, max=300)
"""A destination that is down or throttles without a hint: 1 s, 2 s, 4 s … five minutes, so it is found soon after."""

PERSON = wait_exponential(multiplier=60, max=3600)
"""A destination that waits for a person to act: 1 min, 2 min … one hour, in case somebody has."""

SHORTEST_HINT = 1.0
"""A wait hint of fewer seconds, or one that is past by our clock, gives no pace: the backoff goes on."""


@dataclass(frozen=True, slots=True)
class Delay:
    """What an attempt's outcome means in time: the outcome, and how long this subject or everybody waits (seconds)."""

    outcome: Outcome
    retry_in: float = 0.0
    pause_for: float = 0.0


def delay(outcome: Outcome, *, attempts: int, waited: float, pauses: int, retry_for: float, random: Random) -> Delay:
    """How long to wait after an outcome, given the failures and seconds of backoff that this subject has had.

    A subject dies by age, not by count: once the backoff it has been granted adds up to `retry_for`. Time in which the
    destination was paused, or we were not running, is not its age. A wait hint is never undercut; one that is next to
    nothing does not undercut the backoff either, or a `Retry-After: 0` would be a loop without a pause.
    """
    match outcome:
        case Retry(contact_is_gone=True):
            return Delay(outcome)
        case Retry(after=after, is_postponed=True):
            return Delay(outcome, _asked(SUBJECT, 1, random) if after is None else after)
        case Retry(reason, status, after, blames):
            wait = max(_asked(SUBJECT, attempts + 1, random), after or 0.0)
            if waited + wait > retry_for:
                return Delay(Dead(f"gave up after {_days(waited)}: {reason}", status))
            return Delay(outcome, wait, _asked(OUTAGE, pauses + 1, random) if blames else 0.0)
        case Paused(_, _, after, needs_person):
            if after is not None and after >= SHORTEST_HINT and not needs_person:
                return Delay(outcome, pause_for=after + random.uniform(0, min(1.0, after * 0.1)))
            return Delay(
                outcome, pause_for=max(_asked(PERSON if needs_person else OUTAGE, pauses + 1, random), after or 0)
            )
        case _:
            return Delay(outcome)


def _asked(wait: wait_base, attempt: int, random: Random) -> float:
    """What tenacity's wait says for the n-th failure, spread over ± 20 % so that many do not come back at once."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    return wait(state) * random.uniform(0.8, 1.2)


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"
