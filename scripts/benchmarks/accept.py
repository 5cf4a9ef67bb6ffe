"""How many webhooks per second are taken, against the same server that does not store them."""

from contextlib import ExitStack

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.loading import offer
from benchmarks.plan import Plan
from benchmarks.processes import crm_sync, part, running

STORED = "everything stored"
PARSED = "verified and read, not stored"
NOTHING = "answered 200 at once"

COMMANDS = {
    STORED: crm_sync("serve", "--port", "0", "--no-dispatch"),
    PARSED: part("twin", "parse"),
    NOTHING: part("twin", "nothing"),
}


def measure(plan: Plan) -> list[Figure]:
    """The three in turn, several times, so that whatever else the machine does meets all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    busy: list[float] = []
    with ExitStack() as stack:
        urls = {}
        for name, command in COMMANDS.items():
            folder = plan.folder / name.replace(" ", "-")
            folder.mkdir()
            settings = {"SYNC_PORT": "0", "SANDBOX_EMBEDDED": "false"}
            urls[name] = stack.enter_context(running(command, folder, **settings))[1]
        rates = {name: offer(url, plan.folder, count=1500).per_second for name, url in urls.items()}
        for _ in range(plan.repetitions):
            for name, url in urls.items():
                offered = offer(url, plan.folder, count=int(rates[name] * plan.seconds))
                found[name].append(offered.per_second)
                busy.append(offered.busy)
    return [
        at_least("accept", STORED, "webhooks/s", found[STORED], 1500),
        Figure("accept", PARSED, "webhooks/s", tuple(found[PARSED])),
        Figure("accept", NOTHING, "webhooks/s", tuple(found[NOTHING])),
        at_least("accept", f"{STORED} ÷ {NOTHING}", "%", _percent(found[STORED], found[NOTHING]), 30),
        Figure("accept", f"{STORED} ÷ {PARSED}", "%", tuple(_percent(found[STORED], found[PARSED]))),
        at_most("accept", "the generator's own share of a core", "%", [100 * max(busy)], 90),
    ]


def _percent(some: list[float], all_of_it: list[float]) -> list[float]:
    return [100 * a / b for a, b in zip(some, all_of_it, strict=True)]
