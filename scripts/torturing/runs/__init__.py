"""Every kind of mischief that a run can make. A new one is its file, and its line here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torturing.checks import Finding, findings
from torturing.gathering import evidence_of
from torturing.runs import (
    backlog,
    boundaries,
    burst,
    clocks,
    database,
    disk,
    files,
    frozen,
    kills,
    mails,
    network,
    slow,
    stalled,
)
from torturing.stage import Stage

BOTH = ("sqlite", "postgresql")


def judged(stage: Stage) -> Sequence[Finding]:
    """What is wrong by all that the promises say of contacts, chats and events."""
    return findings(evidence_of(stage))


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
    is_in_short: bool = True
    """Whether the short version plays it, too."""
    prepare: Callable[[Stage, int], None] = lambda _stage, _seed: None
    """Sets the stage before anything is up."""
    judge: Callable[[Stage], Sequence[Finding]] = judged
    """Says what is wrong when everything has drained."""


RUNS: tuple[Run, ...] = (
    Run("kills", kills.play, share=0.6, least=10),
    Run("boundaries", boundaries.play, share=0.3, least=len(boundaries.POINTS)),
    Run("frozen", frozen.play, share=0.02, least=1),
    Run("database", database.play, ("postgresql",), share=0.08, least=3),
    Run("clocks", clocks.play, share=0.02, least=2, prepare=clocks.prepare, judge=clocks.judge, is_in_short=False),
    Run("burst", burst.play, share=0.03, prepare=burst.prepare, is_in_short=False),
    Run("backlog", backlog.play, share=0.08, prepare=backlog.prepare, is_in_short=False),
    Run("mails", mails.play, share=0.1, least=6, prepare=mails.prepare, judge=mails.judge),
    Run("stalled", stalled.play, ("postgresql",), share=0.01, least=0, is_in_short=False),
    Run("disk", disk.play, share=0.01),
    Run("files", files.play, share=0.01, least=2, is_in_short=False),
    Run("network", network.play, share=0.04, least=network.ROUND, prepare=network.prepare, is_in_short=False),
    Run("slow", slow.play, ("postgresql",), share=0.01, prepare=slow.prepare, is_in_short=False),
)
