"""Ten times the usual rate for a while: copies at once at all receivers, newcomers with two chats at one instant."""

import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from torturing.acquire import Webhook
from torturing.people import Person, person
from torturing.source import volleys
from torturing.stage import Stage

USUAL = 2.0
"""Seconds that a worker pauses after each volley at the usual rate."""

CROWD = 36
"""So many more workers send during the burst."""

HURRIED = 0.5
"""Seconds that each worker pauses then: with what an answer takes, ten times the usual rate."""

SECONDS_PER_KILL = 6.0
SHORTEST, LONGEST = 8.0, 60.0
"""Seconds that the burst lasts: nobody is killed here, so what would be kills is time."""

BEFORE = 5.0
"""Seconds at the usual rate before it."""

CROWDED = 0.05
"""How many of the volleys are copies of one event."""

DRAINING = 400.0


def prepare(stage: Stage, seed: int) -> None:
    """Begin at the usual rate; half of all people begin with two chats in one millisecond."""
    stage.source_options = {"pause": USUAL, "visitor": lambda n: newcomer(n, seed, time.time()), "plan": crowded}
    stage.draining = DRAINING


def newcomer(number: int, seed: int, now: float) -> Person:
    """The n-th visitor; every second one of those with several chats begins two of them at once."""
    someone = person(number, seed, now)
    if number % 2 or len(someone.chats) < 2 or someone.are_twins:
        return someone
    first, second, *rest = someone.chats
    twin = replace(second, started_at=first.started_at, name=first.name, phone=first.phone)
    last = [replace(chat, started_at=chat.started_at + 1) for chat in rest]
    return replace(someone, chats=(replace(first), twin, *last), are_twins=True)


def crowded(someone: Person, random: Random) -> Iterator[list[Webhook]]:
    """The usual volleys, and now and then 2 to 50 copies of an event at one instant."""
    for volley in volleys(someone, random):
        yield volley if len(volley) > 1 or random.random() > CROWDED else volley * random.choice((2, 3, 5, 10, 50))


def play(stage: Stage, _seed: int) -> None:
    """The usual rate, then ten times as much."""
    seconds = min(max(stage.budget * SECONDS_PER_KILL, SHORTEST), LONGEST)
    stage.wait(BEFORE)
    usual = _counted(stage, BEFORE)
    stage.source.pause = HURRIED
    stage.source.reinforce(CROWD)
    burst = _counted(stage, seconds)
    stage.source.pause = USUAL
    stage.remarks.append(f"{usual:.0f} webhooks/s, then {burst:.0f} for {seconds:.0f} s")
    refused = {status: n for status, n in stage.source.answers.items() if status != 200}
    stage.remarks.append(f"not taken at once: {refused or 'none'}")


def _counted(stage: Stage, seconds: float) -> float:
    before, began = len(stage.source.taken), time.monotonic()
    stage.wait(seconds)
    return (len(stage.source.taken) - before) / (time.monotonic() - began)
