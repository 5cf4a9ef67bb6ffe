"""SIGKILL at random instants, of random processes, again and again."""

from torturing.chance import chance
from torturing.stage import Stage

SQLITE_PAUSES = (0.4, 1.9)
"""Seconds between two kills. The one process needs most of a second to come up, and is killed during that, too."""

POSTGRESQL_PAUSES = (0.3, 0.9)


def play(stage: Stage, seed: int) -> None:
    """Kill any process at any time; it is started again at once."""
    random = chance(seed)
    pauses = SQLITE_PAUSES if stage.is_sqlite else POSTGRESQL_PAUSES
    for _ in range(stage.budget):
        stage.wait(random.uniform(*pauses))
        stage.kill(random.choice(stage.members))
