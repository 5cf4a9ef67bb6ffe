"""A start with very much to do: how soon the first delivery leaves, how much memory it takes."""

import time

from benchmarks.figures import Figure, at_most
from benchmarks.ledgers import fill
from benchmarks.plan import Plan
from benchmarks.processes import asked, crm_sync, furnish, memory_mb, part, running

SETTLED = 5.0
"""Seconds of delivering after which memory is looked at."""


def measure(plan: Plan) -> list[Figure]:
    """One start, with a CRM that takes everything."""
    fill(plan.folder / "chat-crm-sync.sqlite3", plan.due)
    with running(part("crm", "crm.sqlite3"), plan.folder) as (_, crm):
        furnish(crm)
        settings = {"SANDBOX_EMBEDDED": "false", "SANDBOX_BASE_URL": crm}
        begun = time.monotonic()
        with running(crm_sync("serve", "--port", "0"), plan.folder, **settings) as (process, _):
            listening = time.monotonic() - begun
            first = _first(crm) - begun
            time.sleep(SETTLED)
            resident, most = memory_mb(process), memory_mb(process, "VmHWM")
    return [
        Figure("due", f"start with {plan.due:,} due: requests are taken after", "s", (listening,)),
        at_most("due", f"start with {plan.due:,} due: first contact after", "s", [first], 2),
        at_most("due", f"memory with {plan.due:,} due, delivering", "MiB", [resident], 150),
        Figure("due", f"memory with {plan.due:,} due, at its peak", "MiB", (most,)),
    ]


def _first(crm: str) -> float:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if arrivals := asked(f"{crm}/_arrivals")["create"]:
            return float(min(arrivals.values()))
        time.sleep(0.05)
    raise RuntimeError("nothing was delivered within 30 seconds")
