"""Every kind of mischief that a run can make. A new one is its file, and its line here."""

from collections.abc import Callable
from dataclasses import dataclass

from torturing.runs import boundaries, database, frozen, kills, stalled
from torturing.stage import Stage

BOTH = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Run:
    """`play` makes the mischief on a stage where everything is up.

    `share` of all kills is what it gets by default, but `least` of them.
    """

    name: str
    play: Callable[[Stage, int], None]
    engines: tuple[str, ...] = BOTH
    share: float = 0.0
    least: int = 1


RUNS: tuple[Run, ...] = (
    Run("kills", kills.play, share=0.6, least=10),
    Run("boundaries", boundaries.play, share=0.3, least=len(boundaries.POINTS)),
    Run("frozen", frozen.play, share=0.02, least=1),
    Run("database", database.play, ("postgresql",), share=0.08, least=3),
    Run("stalled", stalled.play, ("postgresql",), share=0.01, least=0),
)
