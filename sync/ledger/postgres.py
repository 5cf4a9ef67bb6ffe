"""The PostgreSQL engine: one connection, one writer at a time, the server's own clock."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg.rows import dict_row

from sync.errors import LedgerError, LedgerTooNew, LedgerUnavailable, SettingsError
from sync.ledger.queries import POSTGRES, migrations, queries
from sync.ledger.watchdog import Watchdog

ONE_WRITER = 0x63726D73
"""The advisory lock of every write transaction: one writer at a time, as on SQLite. Group commit makes it cheap, and it
removes lost updates and deadlocks."""

LOCK = f"SELECT pg_advisory_xact_lock({ONE_WRITER})"
STALLED = 20
"""Seconds after which a host that was frozen in the middle of a transaction loses it, and who waits for it is told."""

STUCK = 60.0
"""Seconds after which the service gives up a transaction that the server has not answered: then it says so."""

LIMITS = f"SET LOCAL idle_in_transaction_session_timeout = '{STALLED}s'; SET LOCAL lock_timeout = '{STALLED}s'"

NOW = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now"

CHANNEL = "chat_crm_sync"
"""Where hosts hint to each other that something may be due. Nobody depends on it: every lane also looks by itself."""

CONNECT_TIMEOUT = 5
"""Seconds to wait for a connection before the ledger counts as unavailable."""


ENCODING = "UTF8"
"""The one encoding that holds what visitors type; with another one text comes back as bytes, or not at all."""

HINTS: dict[type[psycopg.Error], str] = {
    psycopg.errors.LockNotAvailable: f"is locked for over {STALLED} s: an upgrade, a backup, a host that stands still",
    psycopg.errors.InsufficientPrivilege: (
        "is closed to this role: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public to it"
    ),
}
"""What has happened, where a person can do something about it. The server's own words may hold data or secrets."""

PHRASES = {
    "password authentication failed": "the password or the name of the role is wrong",
    "no password supplied": "it wants a password",
    "permission denied for database": "the role may not CONNECT to this database",
    "certificate": "its certificate, or ours, is not as the address wants it",  # before: … file … does not exist
    "does not exist": "there is no such database or role",
    "onnection refused": "nobody listens there",
    "No such file or directory": "nobody listens there",
    "failed to resolve host": "there is no such host, or what is special in the password is not escaped",
    "pg_hba.conf": "its pg_hba.conf does not let us in",
    "timeout expired": "nobody answers there",
}
"""What libpq and psycopg say of a connection that did not come about, without SQLSTATE, and our words for it."""


class PostgresEngine:
    """A ledger on a PostgreSQL server that several hosts share. Not for use by two threads at once.

    Statements are not prepared, so that it works through pgbouncer in transaction mode. A lost connection fails the
    transaction at hand with LedgerUnavailable; the next one connects anew. A host that stands still in the middle of a
    transaction loses its connection after a while, so that it cannot hold up the others; a server that stands still
    loses ours where the transaction is `bounded`.
    """

    name = "postgresql"
    is_shared = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.now = 0.0
        self._queries = {name: _placeholders(sql) for name, sql in queries(POSTGRES).items()}
        self._connection: psycopg.Connection[Any] | None = None
        self.watchdog = Watchdog(STUCK)
        with _translated():
            self.now = self._read_clock()

    def _read_clock(self) -> float:
        return float(self._connected().execute(NOW).fetchone()["now"])

    def _connected(self) -> Any:
        if self._connection is None or self._connection.closed:
            self._connection = _connect(
                self.url,
                autocommit=True,
                row_factory=dict_row,
                client_encoding=ENCODING,
                prepare_threshold=None,
                connect_timeout=CONNECT_TIMEOUT,
                keepalives_idle=STALLED,
                tcp_user_timeout=STALLED * 1000,
                application_name="chat-crm-sync",
            )
            # Behind a pooler the connection may have been somebody's who listened: hints that come must not pile up.
            self._connection.add_notify_handler(lambda _: None)
        return self._connection

    @property
    def bytes(self) -> int:
        """The size of the database."""
        with _translated():
            return int(self._connected().execute("SELECT pg_database_size(current_database()) AS n").fetchone()["n"])

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection is not None and self._connection.info.transaction_status != 0

    @contextmanager
    def transaction(self, *, exclusive: bool = True) -> Iterator[None]:
        """One write transaction: all of it or nothing, durable when it ends. Raises LedgerUnavailable.

        Not exclusive is only for one claim: it holds the row of its destination and skips deliveries that others hold,
        so it waits for nobody who could wait for it.
        """
        try:
            with _translated(), self._connected().transaction():
                self._connected().execute(f"{LIMITS}; {LOCK}" if exclusive else LIMITS)
                self.now = self._read_clock()
                yield
        except LedgerUnavailable as error:
            if isinstance(error.__cause__, psycopg.InternalError):
                self._disconnect()  # a session that began on a standby stays read-only for ever
            raise

    def bounded(self) -> AbstractContextManager[None]:
        """What is inside must not take longer than a minute; else its connection is cut, and it raises."""
        return self.watchdog.watching(self._descriptor)

    def _descriptor(self) -> int | None:
        with suppress(psycopg.OperationalError):
            return None if self._connection is None else self._connection.fileno()
        return None

    def notify(self) -> None:
        """Hint to the other hosts, when this transaction is committed, that something may be due."""
        with _translated():
            self._connected().execute(f"NOTIFY {CHANNEL}")

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        """The rows that a named query gives. A list among the parameters is passed as JSON."""
        return list(self._execute(query, parameters).fetchall())

    def run(self, query: str, **parameters: Any) -> int:
        """Run a named query; returns how many rows it changed. A list among the parameters is passed as JSON."""
        return int(self._execute(query, parameters).rowcount)

    def _execute(self, query: str, parameters: dict[str, Any]) -> Any:
        given = {k: _json(v) if isinstance(v, list) else v for k, v in parameters.items()}
        with _translated():
            connection = self._connected()
            if not self.in_transaction:
                self.now = self._read_clock()
            return connection.execute(self._queries[query], {"now": self.now, **given})

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a text of SQL gives, `?` for each parameter. For copying only: all else is a named query."""
        with _translated():
            return list(self._connected().execute(sql.replace("?", "%s"), parameters).fetchall())

    def write(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a text of SQL once for each of these rows. For copying only. Raises LedgerError for what does not fit."""
        with _translated(), self._connected().cursor() as cursor:
            try:
                cursor.executemany(sql.replace("?", "%s"), rows)
            except (psycopg.IntegrityError, psycopg.DataError) as error:
                reason = error.diag.message_primary or type(error).__name__
                raise LedgerError(f"a row does not fit into the ledger: {reason}") from error

    def shrink(self, pages: int) -> int:  # noqa: ARG002 - autovacuum decides
        """Nothing to do: the server's autovacuum lets the room be used again."""
        return 0

    @property
    def is_shrinkable(self) -> bool:
        """Room that is free is used again, whoever wrote there."""
        return True

    def scrub(self, *, whatever_size: bool = False) -> bool:  # noqa: ARG002 - the server's own affair
        """Not from here: the server's autovacuum frees the old rows, and its WAL ends when its administrator says."""
        return False

    def migrate(self) -> int:
        """Bring the schema up to date; safe when two hosts start at once. Returns its number.

        Raises LedgerTooNew where a newer release wrote it, LedgerError where the database or the role will not do.
        """
        known = migrations(POSTGRES)
        newest = known[-1][0]
        self._check_encoding()
        if self._has(newest):
            return newest  # without the lock of those who write, and without the right to make tables
        with self.transaction(), _making_tables():
            connection = self._connected()
            connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, at DOUBLE PRECISION NOT NULL)"
            )
            done = self.schema
            for number, script in known:
                if number > done:
                    connection.execute(script)
                    connection.execute("INSERT INTO migrations VALUES (%s, %s)", (number, self.now))
        return newest

    def _check_encoding(self) -> None:
        with _translated():
            encoding = self._connected().execute("SHOW server_encoding").fetchone()["server_encoding"]
        if encoding != ENCODING:
            raise LedgerError(
                f"the database has the encoding {encoding}, which cannot hold every name: make one with "
                f"CREATE DATABASE … ENCODING '{ENCODING}' TEMPLATE template0"
            )

    def _has(self, newest: int) -> bool:
        if (done := self.schema) > newest:
            raise LedgerTooNew(f"the ledger has schema {done}, this release knows {newest}: install a newer release")
        return done == newest

    @property
    def schema(self) -> int:
        """The number of the newest migration that was applied; 0 where there is no ledger yet."""
        with _translated():
            if self._connected().execute("SELECT to_regclass('migrations') AS found").fetchone()["found"] is None:
                return 0
            try:
                row = self._connected().execute("SELECT COALESCE(MAX(number), 0) AS n FROM migrations").fetchone()
            except (psycopg.errors.UndefinedColumn, psycopg.errors.DatatypeMismatch) as error:
                raise LedgerError(
                    "the database has a table `migrations` of another program: use one of its own"
                ) from error
            return int(row["n"])

    def own(self) -> None:
        """Nothing to own: any number of hosts may serve this ledger."""

    def mind_clock(self) -> None:
        """Nothing to do: all hosts go by the server's clock, and whoever keeps a server keeps its clock."""

    def close(self) -> None:
        """Close the connection."""
        self.watchdog.close()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()


async def hints(url: str) -> AsyncIterator[None]:
    """Yield whenever some host hints that something may be due, until the connection ends.

    Raises LedgerUnavailable. Through a pooler in transaction mode nothing may ever come.
    """
    with _translated():
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_TIMEOUT, client_encoding=ENCODING
        )
        async with connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            async for _ in connection.notifies():
                yield


def _json(rows: list[Any]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _placeholders(sql: str) -> str:
    """Named parameters as psycopg writes them."""
    return re.sub(r":([a-z_]+)\b", r"%(\1)s", sql.replace("%", "%%"))


def _connect(url: str, **more: Any) -> psycopg.Connection[Any]:
    """Connect. Raises LedgerUnavailable, and SettingsError for what is no address: never with libpq's own words."""
    try:
        return psycopg.connect(url, **more)
    except psycopg.OperationalError as error:
        why = next((ours for theirs, ours in PHRASES.items() if theirs in str(error)), type(error).__name__)
        raise LedgerUnavailable(f"the ledger cannot be reached ({why})") from None
    except psycopg.ProgrammingError:
        raise SettingsError(
            "SYNC_LEDGER is no address of a database: what is special in a password has to be escaped, % as %25"
        ) from None


@contextmanager
def _making_tables() -> Iterator[None]:
    """Say what is missing: since PostgreSQL 15 only the owner of a database may make tables there unasked."""
    try:
        yield
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName) as error:
        raise LedgerError(
            "the role may not make or change tables in this database: make it the owner of the database and its "
            "tables, or GRANT USAGE, CREATE ON SCHEMA public to it"
        ) from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except tuple(HINTS) as error:
        raise LedgerUnavailable(f"the ledger {HINTS[type(error)]}") from error
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
        # The last for a transaction that was ended because we stood still, and for a server that became a standby.
        raise LedgerUnavailable(f"the ledger cannot be reached ({type(error).__name__})") from error
