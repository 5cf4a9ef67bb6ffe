"""SIGSTOP of a host in the middle of its transaction: the others must go on after a while."""

import time

from torturing.checks import WRONG, Finding
from torturing.members import until
from torturing.stage import Stage

POINTS = ("settle.before", "store.before")
GOES_ON = 25.0
"""Seconds in which a webhook must be taken again, or a claim be settled, while one host holds a transaction open."""


def play(stage: Stage, _seed: int) -> None:
    """Freeze one host with the ledger's lock in its hand; see whether anything is taken before it goes on."""
    for turn in range(stage.budget):
        point = POINTS[turn % len(POINTS)]
        member = (stage.receivers if point.startswith("store") else stage.dispatchers)[0]
        stage.wait(1.0)
        stage.replace(member, TORTURE_POINT=point, TORTURE_HITS="2", TORTURE_ACTION="stop")
        until(lambda member=member: member.is_frozen, f"{member.name} comes to {point}", 40)  # type: ignore[misc]
        stage.kills += 1
        frozen = time.monotonic()
        time.sleep(1.0)  # what others had committed before may still be answered
        taken = len(stage.source.taken)
        while len(stage.source.taken) == taken and time.monotonic() < frozen + GOES_ON:
            time.sleep(0.1)
        waited = time.monotonic() - frozen
        member.thaw()
        if waited > GOES_ON:
            said = f"frozen at {point}: no other host took a webhook for {waited:.0f} s"
            stage.complaints.append(Finding(WRONG, member.name, said))
        else:
            stage.remarks.append(f"frozen at {point}: the others went on after {waited:.1f} s")
        stage.wait(2.0)
