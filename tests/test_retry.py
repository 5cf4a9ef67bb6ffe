"""When to try again: asked of tenacity, never slept."""

from random import Random

import pytest

from sync.models import Receipt
from sync.outcomes import Dead, Delivered, Ignored, Outcome, Paused, Retry, Unknown
from sync.retry import Delay, delay

DAYS = 86400.0


def asked(
    outcome: Outcome, attempts: int = 0, waited: float = 0.0, pauses: int = 0, retry_for: float = 3 * DAYS
) -> Delay:
    return delay(outcome, attempts=attempts, waited=waited, pauses=pauses, retry_for=retry_for, random=Random(7))


def test_waits_grow_and_stay_under_an_hour_and_a_bit() -> None:
    waits = [asked(Retry("locked"), attempts).retry_in for attempts in range(30)]

    assert 1.6 <= waits[0] <= 2.4
    assert waits[5] > waits[0] * 8
    assert max(waits) <= 3600 * 1.2


@pytest.mark.parametrize("after", [0.5, 30.0, 7200.0])
def test_a_wait_hint_is_never_undercut(after: float) -> None:
    assert asked(Retry("locked", after=after)).retry_in >= after
    assert asked(Paused("429", after=after)).pause_for >= after
    assert asked(Paused("402", after=after, needs_person=True)).pause_for >= after


def test_a_short_hint_makes_a_short_pause_however_often_it_came() -> None:
    assert asked(Paused("429", after=1.0), pauses=50).pause_for <= 1.1


@pytest.mark.parametrize("after", [0.0, 0.01, 0.9])
def test_a_hint_that_is_next_to_nothing_is_no_loop_without_a_pause(after: float) -> None:
    pauses = [asked(Paused("429", after=after), pauses=n).pause_for for n in range(40)]

    assert min(pauses) >= max(after, 0.8)
    assert pauses[5] > pauses[0] * 8
    assert min(pauses[20:]) >= 300 * 0.8


def test_an_outage_is_looked_at_every_few_minutes_at_the_latest() -> None:
    pauses = [asked(Paused("timed out"), pauses=n).pause_for for n in range(40)]

    assert pauses[0] <= 1.2
    assert max(pauses) <= 300 * 1.2


def test_a_destination_that_needs_a_person_is_asked_seldom() -> None:
    pauses = [asked(Paused("401", needs_person=True), pauses=n).pause_for for n in range(40)]

    assert pauses[0] >= 48
    assert max(pauses) <= 3600 * 1.2


def test_a_subject_dies_by_age_and_says_why() -> None:
    dead = asked(Retry("locked", 423), attempts=80, waited=3 * DAYS).outcome

    assert isinstance(dead, Dead)
    assert (dead.reason, dead.status) == ("gave up after 3.0 days: locked", 423)


def test_a_subject_does_not_die_by_count() -> None:
    assert isinstance(asked(Retry("locked"), attempts=10_000, waited=60).outcome, Retry)


def test_a_500_says_how_long_everybody_would_wait_should_it_be_everybody() -> None:
    assert asked(Retry("500", 500, blames_destination=True)).pause_for > 0
    assert asked(Retry("locked", 423)).pause_for == 0


@pytest.mark.parametrize(
    "outcome", [Delivered(Receipt("1", ours=True)), Ignored("x"), Unknown("x"), Dead("x")], ids=str
)
def test_what_is_settled_waits_for_nothing(outcome: Outcome) -> None:
    assert asked(outcome) == Delay(outcome)


def test_a_chat_that_waits_for_its_contact_does_not_age() -> None:
    gone = Retry("deleted there", 404, contact_is_gone=True)

    assert asked(gone, waited=10 * DAYS) == Delay(gone)
