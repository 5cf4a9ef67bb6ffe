"""How soon a webhook is answered, and how soon its visitor is on the way to the CRM."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure, at_most, percentile
from benchmarks.loading import Offered, offer
from benchmarks.plan import Plan
from benchmarks.processes import asked, crm_sync, furnish, part, running

UNPACED = "1000000000"
PERCENTILES = (50, 95, 99)


def accepting(plan: Plan) -> list[Figure]:
    """Webhooks at a steady rate; each is measured from when it was to be sent, however late the one before it was."""
    figures = []
    command = crm_sync("serve", "--port", "0", "--no-dispatch")
    with running(command, plan.folder, SANDBOX_EMBEDDED="false") as (_, url):
        offer(url, plan.folder, count=500, rate=500)
        for rate in (200, 1000):
            runs = [_offered(url, plan, rate) for _ in range(2)]
            figures += _percentiles(f"accept at {rate:,}/s", runs, goal=100 if rate == 1000 else None)
    delivering = plan.folder / "delivering"
    delivering.mkdir()
    with _delivering(delivering) as (url, _):
        offer(url, plan.folder, count=500, rate=500)
        runs = [_offered(url, plan, 200)]
        figures += _percentiles("accept at 200/s, delivering meanwhile", runs, goal=None)
    return figures


def _offered(url: str, plan: Plan, rate: int) -> Offered:
    return offer(url, plan.folder, count=int(rate * plan.open_loop_seconds), rate=rate, connections=256)


def _percentiles(name: str, runs: list[Offered], goal: float | None) -> list[Figure]:
    figures = []
    for each in PERCENTILES:
        values = [1000 * percentile(run.seconds, each / 100) for run in runs]
        is_goal = goal is not None and each == 99
        line = f"{name}, p{each}"
        figures.append(
            at_most("latency", line, "ms", values, goal or 0)
            if is_goal
            else Figure("latency", line, "ms", tuple(values))
        )
    return figures


def first_byte(plan: Plan) -> list[Figure]:
    """New visitors at 200 a second: from our answer 200 to the first byte, at the CRM, of a call that names them.

    The CRM's published limit is lifted here: with it a lane waits for its place, and that wait would be measured.
    """
    with _delivering(plan.folder) as (url, crm):
        offer(url, plan.folder, count=200, rate=200, kind="starts")
        count = int(200 * plan.open_loop_seconds)
        offered = offer(url, plan.folder, count=count, rate=200, kind="starts", connections=256)
        arrivals = asked(f"{crm}/_arrivals")
    figures = []
    for verb, name in (("read", "first call that names the visitor"), ("create", "the call that creates them")):
        there = arrivals[verb]
        waits = [1000 * (there[email] - at) for email, at in offered.taken_at.items() if email in there]
        figures += [
            Figure("first byte", f"accept → {name}, p50", "ms", (percentile(waits, 0.5),)),
            at_most("first byte", f"accept → {name}, p95", "ms", [percentile(waits, 0.95)], 50),
        ]
    return figures


@contextmanager
def _delivering(folder: Path) -> Iterator[tuple[str, str]]:
    """The service and a CRM without a limit; gives the addresses of both."""
    with running(part("crm", "crm.sqlite3"), folder) as (_, crm):
        furnish(crm)
        settings = {"SANDBOX_EMBEDDED": "false", "SANDBOX_BASE_URL": crm, "SANDBOX_CALLS_PER_10S": UNPACED}
        with running(crm_sync("serve", "--port", "0"), folder, **settings) as (_, url):
            yield url, crm
