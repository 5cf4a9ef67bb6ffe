"""What a run came to: a row of the table, and in words what was lost or doubled."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from torturing.checks import DOUBLED, LOST, Finding

HEADERS = ("run", "engine", "seed", "kills", "acknowledged", "people", "lost", "doubled", "other", "seconds")
MOST = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: what was done, and what was found wrong. `budget` is how many kills were asked for."""

    run: str
    engine: str
    seed: int
    budget: int
    kills: int
    acknowledged: int
    people: int
    seconds: float
    findings: Sequence[Finding]
    remarks: Sequence[str] = ()
    folder: Path | None = None
    """Where everything was kept for a look, if something is wrong."""

    @property
    def row(self) -> tuple[object, ...]:
        """For the table."""
        sorts = Counter(finding.sort for finding in self.findings)
        other = len(self.findings) - sorts[LOST] - sorts[DOUBLED]
        done = (self.run, self.engine, self.seed, self.kills, self.acknowledged, self.people)
        return (*done, sorts[LOST], sorts[DOUBLED], other, round(self.seconds))

    @property
    def again(self) -> str:
        """The command that repeats it."""
        return f"scripts/torture --only {self.run} --engine {self.engine} --seed {self.seed} --kills {self.budget}"


def table(outcomes: Sequence[Outcome]) -> str:
    """All runs as text that is Markdown, too."""
    total = [sum(int(str(outcome.row[place])) for outcome in outcomes) for place in range(3, len(HEADERS))]
    rows = [*(outcome.row for outcome in outcomes), ("all", "", "", *total)]
    return tabulate(rows, HEADERS, tablefmt="github")


def told(outcome: Outcome) -> Iterator[str]:
    """What is wrong after a run, one thing after the other, with the delivery rows that it is about."""
    yield f"{outcome.run} on {outcome.engine}: {len(outcome.findings)} things are wrong"
    yield f"  again: {outcome.again}"
    yield f"  kept:  {outcome.folder}"
    for finding in outcome.findings[:MOST]:
        yield f"  {finding.sort.upper():8} {finding.who}: {finding.what}"
        yield from (f"             {row}" for row in finding.rows)
    if len(outcome.findings) > MOST:
        yield f"  … and {len(outcome.findings) - MOST} more"
