"""The command: plays the chosen runs one after the other, prints a table, and says exactly what is wrong."""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from torturing.checks import LOST, WRONG, Finding
from torturing.ledgers import in_file, on_server
from torturing.report import Outcome, table, told
from torturing.runs import BOTH, RUNS, Run
from torturing.server import PostgresServer
from torturing.stage import Stage

MOST_AT_ONCE = 50
"""Kills before everything is drained and checked; then a new ledger and a new seed."""

SHORT = 30
LONG = 1000


@dataclass(frozen=True, slots=True)
class Planned:
    """One row of the table to come."""

    run: Run
    engine: str
    seed: int
    kills: int


def plan(kills: int, seed: int, only: str | None, engine: str | None, *, short: bool = False) -> Iterator[Planned]:
    """Share the kills out over runs and engines, in parts that are checked one by one."""
    runs = [run for run in RUNS if only == run.name or (only is None and (run.is_in_short or not short))]
    pairs = [(run, e) for run in runs for e in run.engines if engine in (None, e)]
    weight = sum(run.share / len(run.engines) for run, _ in pairs)
    for run, where in pairs:
        share = run.share / len(run.engines) / weight if weight else 1 / len(pairs)
        left = max(run.least if only is None else 1, round(kills * share))
        turn = 0
        while left > 0:
            part = min(left, MOST_AT_ONCE)
            yield Planned(run, where, seed + turn, part)
            left, turn = left - part, turn + 1


@click.command()
@click.option("--kills", type=click.IntRange(1), help=f"How many kills in all, about. [default: {LONG}]")
@click.option("--seed", type=int, default=1, show_default=True, help="The seed of the first part of each run.")
@click.option("--only", type=click.Choice([run.name for run in RUNS]), help="Only this run.")
@click.option("--engine", type=click.Choice(BOTH), help="Only on this engine.")
@click.option("--short", is_flag=True, help="A few kills of each sort: for every change.")
def torture(kills: int | None, seed: int, only: str | None, engine: str | None, short: bool) -> None:
    """Kill the service while webhooks come in; exit code 1 if anything is lost or doubled."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _end)
    planned = list(plan(kills or (SHORT if short else LONG), seed, only, engine, short=short))
    outcomes: list[Outcome] = []
    with servers(any(each.engine == "postgresql" for each in planned)) as server:
        for each in planned:
            outcomes.append(played(each, server if each.engine == "postgresql" else None))
            say(outcomes[-1])
    click.echo(f"\n{table(outcomes)}")
    if wrong := [outcome for outcome in outcomes if outcome.findings]:
        sys.exit(f"\n{len(wrong)} of {len(outcomes)} runs found something wrong: see above.")


@contextmanager
def servers(is_wanted: bool) -> Iterator[PostgresServer | None]:
    """A PostgreSQL server, where a run needs one."""
    if not is_wanted:
        yield None
        return
    server = PostgresServer()
    try:
        yield server
    finally:
        server.close()


def played(each: Planned, server: PostgresServer | None) -> Outcome:
    """Play one run to its end. Its folder is kept if anything is wrong."""
    folder = Path(tempfile.mkdtemp(prefix=f"torture-{each.run.name}-{each.engine}-{each.seed}-"))
    ledger = in_file(folder / "ledger.sqlite3")
    if server is not None:
        ledger = on_server(server.database(folder.name))
    stage = Stage(folder, ledger, each.seed, each.kills, server)
    began = time.monotonic()
    found: list[Finding] = []
    try:
        each.run.prepare(stage, each.seed)
        stage.open()
        try:
            each.run.play(stage, each.seed)
        except (TimeoutError, RuntimeError) as error:
            found.append(Finding(WRONG, each.run.name, f"could not be played: {error}"))
        if not stage.drain():
            found.append(Finding(LOST, "the rest", "was not delivered in time"))
        found += [*stage.complaints, *each.run.judge(stage)]
    finally:
        stage.close()
    if not found:
        shutil.rmtree(folder)
    return Outcome(
        run=each.run.name,
        engine=each.engine,
        seed=each.seed,
        budget=each.kills,
        kills=stage.kills,
        acknowledged=len(stage.source.taken),
        people=len(stage.source.people),
        seconds=time.monotonic() - began,
        findings=found,
        remarks=stage.remarks,
        folder=folder if found else None,
    )


def say(outcome: Outcome) -> None:
    """Tell how a run went while the others are still to come."""
    verdict = "ok" if not outcome.findings else f"{len(outcome.findings)} WRONG"
    remarks = f" ({'; '.join(outcome.remarks)})" if outcome.remarks else ""
    click.echo(f"{outcome.run} on {outcome.engine}, seed {outcome.seed}, {outcome.kills} kills: {verdict}{remarks}")
    if outcome.findings:
        click.echo("\n".join(told(outcome)), err=True)


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit("ended from outside")
