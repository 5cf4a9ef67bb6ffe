"""What a group of webhooks and a claim cost in a small ledger and in a large one."""

import os
import random
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, at_most
from benchmarks.ledgers import fill, opened, visit
from benchmarks.plan import Plan
from sync.ledger import Ledger
from sync.models import EventType, Kind

GROUP = 50
BATCH = 100
LEASE = 120.0

Costs = dict[str, list[float]]


def measure(plan: Plan) -> list[Figure]:
    """One ledger for each size, worked on in turn, so that whatever else the machine does meets all of them alike."""
    ledgers = {rows: opened(file) for rows, file in _filled(plan).items()}
    found: dict[int, Costs] = {rows: defaultdict(list) for rows in ledgers}
    chosen = random.Random(1)  # noqa: S311 - a choice, no secret
    open_chats = {rows: chosen.sample(range(rows), GROUP * plan.groups) for rows in ledgers}
    for turn in range(plan.groups):
        for rows, ledger in ledgers.items():
            first = rows + turn * GROUP
            news = [visit(number) for number in range(first, first + GROUP)]
            closes = [visit(number, EventType.CLOSE) for number in open_chats[rows][turn * GROUP :][:GROUP]]
            costs = found[rows]
            costs["accept 50 new visitors"].append(_ms(ledger, partial(ledger.apply, news)))
            costs["accept 50 closes"].append(_ms(ledger, partial(ledger.apply, closes)))
            costs["claim 100"].append(_ms(ledger, partial(ledger.claim, "sandbox", [(Kind.CONTACT, BATCH)], LEASE)))
    for ledger in ledgers.values():
        ledger.engine.close()
    return _figures(found)


def _filled(plan: Plan) -> dict[int, Path]:
    """A ledger of each size; the larger ones begin as copies of the smaller ones."""
    files: dict[int, Path] = {}
    before: tuple[int, Path] | None = None
    for rows in sorted(plan.rows):
        file = plan.folder / f"{rows}.sqlite3"
        if before is not None:
            shutil.copy(before[1], file)
        fill(file, rows, first=before[0] if before is not None else 0)
        files[rows] = file
        before = rows, file
    os.sync()
    return files


def _figures(found: Mapping[int, Costs]) -> list[Figure]:
    least, most = min(found), max(found)
    figures = [
        Figure("growth", f"{work}, {rows:,} visitors", "ms", tuple(_trimmed(costs[work])))
        for work in found[least]
        for rows, costs in found.items()
    ]
    for work in found[least] if most > least else ():
        grown = 100 * (statistics.median(found[most][work]) / statistics.median(found[least][work]) - 1)
        figures.append(at_most("growth", f"{work}: dearer with {most:,} than with {least:,}", "%", [grown], 20))
    return figures


def _ms(ledger: Ledger, work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    with ledger.transaction():
        work()
    return 1000 * (time.perf_counter() - begun)


def _trimmed(values: list[float]) -> list[float]:
    """Without the tenth that took longest: checkpoints, and whatever else the machine did."""
    return sorted(values)[: max(int(len(values) * 0.9), 1)]
