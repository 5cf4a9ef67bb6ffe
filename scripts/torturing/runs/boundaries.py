"""SIGKILL exactly before and after everything that is committed, sent or answered."""

from random import Random

from torturing.chance import chance
from torturing.members import Member
from torturing.stage import Stage

POINTS = (
    "store.before",
    "store.after",
    "claim.before",
    "claim.after",
    "intend.before",
    "intend.after",
    "contact.sent",
    "contact.answered",
    "note.sent",
    "note.answered",
    "settle.before",
    "settle.after",
)
"""`crashing/sitecustomize.py` says what each of them is."""


def play(stage: Stage, seed: int) -> None:
    """Let a process die at each point in turn, at a random pass, round after round."""
    random = chance(seed)
    rounds = max(1, stage.budget // (2 * len(POINTS)))
    for _ in range(rounds):
        for point in POINTS:
            member = at(stage, point, random)
            stage.kill(member, TORTURE_POINT=point, TORTURE_HITS=str(random.choice((1, 1, 2, 4))))
            if not stage.await_crash(member):
                raise TimeoutError(f"{member.name} never came to {point}")
            stage.wait(random.uniform(0.1, 0.4))


def at(stage: Stage, point: str, random: Random) -> Member:
    """A process that comes by this point."""
    return random.choice(stage.receivers if point.startswith("store") else stage.dispatchers)
