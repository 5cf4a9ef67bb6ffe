"""SIGSTOP of a process in the middle of an attempt until others have taken over what it held, then SIGCONT."""

import time
from random import Random

from torturing.chance import chance
from torturing.checks import WRONG, Finding
from torturing.members import Member, until
from torturing.stage import LEASE, Stage

POINTS = ("note.answered", "intend.after", "contact.answered", "claim.after", "note.sent", "contact.sent")
AT_ONCE = 2
TRIES = 24
TAKEN_OVER = LEASE + 20
"""Seconds in which others must have taken over what a frozen process held."""


def play(stage: Stage, seed: int) -> None:
    """Freeze dispatchers past their leases; with PostgreSQL others go on meanwhile, with SQLite nobody can."""
    random = chance(seed)
    at_once = 1 if stage.is_sqlite else AT_ONCE
    for start in range(0, max(stage.budget, at_once), at_once):
        held: dict[str, int] = {}
        frozen = random.sample(stage.dispatchers, at_once)
        try:
            for place, member in enumerate(frozen):
                held |= _frozen(stage, member, POINTS[(start + place) % len(POINTS)], random)
            _outlive(stage, held)
        finally:
            stage.thaw()
        stage.wait(1.0)


def _frozen(stage: Stage, member: Member, point: str, random: Random) -> dict[str, int]:
    """Let a process freeze at a point; returns the claims that it holds: those that nobody settles any more.

    Its writer may be in a transaction just then. That is another run's business: `stalled`.
    """
    for _ in range(TRIES):
        stage.replace(member, TORTURE_POINT=point, TORTURE_HITS=str(random.choice((1, 2, 3, 5))), TORTURE_ACTION="stop")
        until(lambda: member.is_frozen, f"{member.name} comes to {point}", 40)
        stage.kills += 1
        before = stage.claims()
        time.sleep(1.5)
        if not stage.is_stalled():
            stage.remarks.append(f"frozen at {point}")
            return {row: claim for row, claim in stage.claims().items() if before.get(row) == claim}
        member.thaw()
    raise TimeoutError(f"{member.name} came to {point} only with a transaction open")


def _outlive(stage: Stage, held: dict[str, int]) -> None:
    """Wait until the leases are over, and with PostgreSQL until others have claimed all of that anew."""
    end = time.monotonic() + TAKEN_OVER
    time.sleep(LEASE + 1)
    while not stage.is_sqlite and time.monotonic() < end:
        rows = stage.ledger.select("SELECT id, claim FROM deliveries")
        if all(row["claim"] > held[row["id"]] for row in rows if row["id"] in held):
            stage.remarks.append(f"{len(held)} claims overtaken")
            return
        time.sleep(0.3)
    if not stage.is_sqlite:
        stage.complaints.append(Finding(WRONG, "leases", "nobody took over what a frozen process held"))
