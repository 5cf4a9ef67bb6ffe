"""How many contacts per second get to a CRM that allows 190 calls in ten seconds."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.ledgers import fill
from benchmarks.plan import Plan
from benchmarks.processes import asked, crm_sync, running

LIMIT = 190
WINDOW = 10.0
CREATE = "POST contacts/batch/create"


def measure(plan: Plan) -> list[Figure]:
    """More contacts are due than can be delivered meanwhile; the first seconds, with their burst, do not count."""
    command = crm_sync("sandbox", "--port", "0", "--file", "crm.sqlite3", "--limit", str(LIMIT))
    with running(command, plan.folder) as (_, crm):
        fill(plan.folder / "chat-crm-sync.sqlite3", int(1200 * plan.delivery_seconds))
        settings = {"SANDBOX_EMBEDDED": "false", "SANDBOX_BASE_URL": crm, "SANDBOX_CALLS_PER_10S": str(LIMIT)}
        with running(crm_sync("serve", "--port", "0"), plan.folder, **settings):
            samples = _sampled(crm, plan.delivery_seconds)
        ended = asked(f"{crm}/_calls")["calls"]
    full = _contacts(plan.folder / "crm.sqlite3") / _calls(ended, CREATE)
    warm = [(at, calls) for at, calls in samples if at >= samples[0][0] + plan.delivery_seconds / 5]
    (began_at, before), (ended_at, after) = warm[0], warm[-1]
    took = ended_at - began_at
    calls = _calls(after) - _calls(before)
    creates = _calls(after, CREATE) - _calls(before, CREATE)
    throttled = sum(n for by_status in after.values() for status, n in by_status.items() if status == "429")
    return [
        Figure("delivery", "contacts delivered under HubSpot's limit", "contacts/s", (creates * full / took,)),
        at_least("delivery", "share of the limit that is used", "%", [100 * calls / took / (LIMIT / WINDOW)], 90),
        at_most("delivery", "calls answered 429", "calls", [float(throttled)], 0),
        at_most("delivery", "calls for 1,000 new contacts", "calls", [1000 * calls / max(creates * full, 1)], 22),
    ]


def _sampled(crm: str, seconds: float) -> list[tuple[float, dict[str, dict[str, int]]]]:
    samples = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        samples.append((time.monotonic(), asked(f"{crm}/_calls")["calls"]))
        time.sleep(0.25)
    return samples


def _contacts(file: Path) -> int:
    """How many there are in the CRM that has just been stopped."""
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("select count(*) from objects where kind = 'contacts'").fetchone()[0])


def _calls(counts: dict[str, dict[str, int]], endpoint: str | None = None) -> int:
    return sum(n for name, by_status in counts.items() if endpoint in (None, name) for n in by_status.values())
