"""Reads a ledger's tables directly, on either engine, without the service's own code."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Rows = list[Row]


@dataclass(frozen=True)
class LedgerTables:
    """`select` gives the rows of any query. Raises OSError where the database cannot be read now."""

    engine: str
    url: str
    select: Callable[[str], Rows]


def in_file(path: Path) -> LedgerTables:
    """A ledger in an SQLite file."""

    def select(sql: str) -> Rows:
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
                connection.row_factory = sqlite3.Row
                return [dict(row) for row in connection.execute(sql).fetchall()]
        except sqlite3.OperationalError as error:
            raise OSError(str(error)) from error

    return LedgerTables("sqlite", f"sqlite:///{path}", select)


def on_server(url: str) -> LedgerTables:
    """A ledger on a PostgreSQL server."""
    import psycopg
    from psycopg.rows import dict_row

    def select(sql: str) -> Rows:
        try:
            with psycopg.connect(url, row_factory=dict_row, connect_timeout=5) as connection:
                return [dict(row) for row in connection.execute(sql.encode()).fetchall()]
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable) as error:
            raise OSError(str(error)) from error

    return LedgerTables("postgresql", url, select)
