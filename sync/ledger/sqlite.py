"""The SQLite engine: one connection, immediate transactions, durable commits."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]

from sync.errors import LedgerError, LedgerInUse, LedgerTooNew, LedgerUnavailable
from sync.ledger.queries import SQLITE, migrations, queries
from sync.ledger.setback import Setback, since_boot

FIXED = (3, 51, 3)
"""SQLite before this can corrupt a WAL file when two connections write or checkpoint at once (the WAL-reset bug)."""

BUSY_TIMEOUT = 5.0
"""Seconds that a write waits for another process before it says that the ledger is locked."""

PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "secure_delete=ON",  # what is deleted is overwritten
)

INCREMENTAL = 2

CLOCK = "clock"
"""The mark that says how far the clock on the wall was from one that nobody sets."""

SMALL = 256 << 20
"""Bytes up to which a file is rewritten at once after an erasure: a few seconds, in which webhooks wait."""

DAMAGED = "disk image is malformed"
"""What SQLite says of a broken file; mere "malformed" it also says of JSON."""

TRANSIENT = ("full", "readonly", "read-only", "locked", "unable to open", "disk i/o", "busy", DAMAGED)
"""Words in SQLite's messages that mean: nothing was written, and it is not the fault of what was asked."""


class SqliteEngine:
    """A ledger in one file. Not for use by two threads at once: the writer thread, or one command, owns it."""

    name = "sqlite"
    is_shared = False

    def __init__(
        self, path: str | Path, *, clock: Callable[[], float], elapsed: Callable[[], float] = since_boot
    ) -> None:
        self.path = Path(path)
        self.clock = clock
        self._setback = Setback(elapsed)
        self._minds_clock = False
        self.now = clock()
        self._queries = queries(SQLITE)
        self._lock: IO[str] | None = None
        self._served: IO[str] | None = None
        with _translated():
            _create_private(self.path)
            self.connection = self._connect()
        self.db = Database(self.connection, execute_plugins=False)

    def _connect(self) -> Any:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT, cached_statements=256
        )
        connection.row_factory = sqlite3.Row
        if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
            # Before the first table: a file that is there already changes at its next VACUUM. It waits for who writes.
            connection.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        if sqlite3.sqlite_version_info < FIXED:
            self._lock = _private_file(self._beside(".lock"))
        return connection

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    @property
    def version(self) -> str:
        """The version of the SQLite library in use."""
        return str(sqlite3.sqlite_version)

    @property
    def is_safe(self) -> bool:
        """Whether this SQLite has the WAL-reset bug fixed. Where not, a file lock keeps our writers apart."""
        return bool(sqlite3.sqlite_version_info >= FIXED)

    @property
    def bytes(self) -> int:
        """The size of the ledger's files."""
        files = (self.path, self._beside("-wal"))
        return sum(f.stat().st_size for f in files if f.exists())

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self.connection.in_transaction)

    @contextmanager
    def transaction(self, *, exclusive: bool = True) -> Iterator[None]:  # noqa: ARG002 - here each is exclusive
        """One write transaction: all of it or nothing, on disk when it ends. Raises LedgerUnavailable."""
        with self._apart(), _translated():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                self.now = self.clock()
                self._mind_clock()
                yield
                self.connection.execute("COMMIT")
                self._setback.keep(self.now)
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def mind_clock(self) -> None:
        """From now on move back what waits by as much as the clock is set back, or was since the last process.

        Inside a transaction. For the one server only: else it would be done twice.
        """
        found = self.rows("get_mark", name=CLOCK)
        self._setback.load(found[0]["value"] if found else None)
        self._minds_clock = True
        self._mind_clock()

    def _mind_clock(self) -> None:
        if not self._minds_clock:
            return
        jump = self._setback.look(self.now)
        if jump < 0:
            self.run("set_back_deliveries", by=jump)
            self.run("set_back_destinations", by=jump)
        if jump or self._setback.apart is None:
            self.run("set_mark", name=CLOCK, value=self._setback.note(self.now))

    def bounded(self) -> AbstractContextManager[None]:
        """A file answers: to wait for another writer has an end of its own."""
        return nullcontext()

    def notify(self) -> None:
        """Nobody to tell: there is one server of this file."""

    @contextmanager
    def _apart(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        """The rows that a named query gives. A list among the parameters is passed as JSON."""
        return list(self._execute(query, parameters).fetchall())

    def run(self, query: str, **parameters: Any) -> int:
        """Run a named query; returns how many rows it changed. A list among the parameters is passed as JSON."""
        return int(self._execute(query, parameters).rowcount)

    def _execute(self, query: str, parameters: dict[str, Any]) -> Any:
        given = {k: _json(v) if isinstance(v, list) else v for k, v in parameters.items()}
        if not self.connection.in_transaction:
            self.now = self.clock()
        with _translated():
            return self.connection.execute(self._queries[query], {"now": self.now, **given})

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a text of SQL gives, `?` for each parameter. For copying and checking: all else is named."""
        with _translated():
            return list(self.connection.execute(sql, parameters).fetchall())

    def write(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a text of SQL once for each of these rows. For copying only. Raises LedgerError for what does not fit."""
        with _translated():
            try:
                self.connection.executemany(sql, rows)
            except sqlite3.IntegrityError as error:
                raise LedgerError(f"a row does not fit into the ledger: {error}") from error

    def backup(self, path: Path) -> None:
        """Copy the ledger as it is at one moment to a new private file; writers go on meanwhile. Raises LedgerError.

        Where that fails nothing is left of it: the next attempt must not find a file in its way.
        """
        _create_new(path)
        try:
            with _translated(), _written(path), closing(sqlite3.connect(path)) as copy:
                self.connection.backup(copy)
                if copy.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise LedgerError(
                        f"the backup {path} cannot be read back; the ledger itself may be damaged: "
                        f"`crm-sync ledger check` tells"
                    )
        except BaseException:
            for suffix in ("", "-journal", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            raise

    def shrink(self, pages: int) -> int:
        """Give up to so many unused pages back to the disk; returns how many there are still. Inside a transaction.

        A file that was made before this was known keeps its size until it is rewritten (see `scrub`).
        """
        with _translated():
            self.connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            return int(self.connection.execute("PRAGMA freelist_count").fetchone()[0]) if self.is_shrinkable else 0

    @property
    def is_shrinkable(self) -> bool:
        """Whether unused pages can be given back one by one."""
        return int(self.connection.execute("PRAGMA auto_vacuum").fetchone()[0]) == INCREMENTAL

    def scrub(self, *, whatever_size: bool = False) -> bool:
        """Rewrite the file, so that nothing of what was deleted is left in it, nor in the WAL. Not in a transaction.

        That `secure_delete` overwrites what is deleted is not enough: where a page was once split, a copy may be left.
        Returns whether the file was rewritten: a large one is only where that is asked for. Raises LedgerUnavailable.
        """
        is_due = whatever_size or self.bytes <= SMALL
        with self._apart(), _translated():
            if is_due:
                self.connection.execute("VACUUM")
            busy = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return is_due and not busy

    def migrate(self) -> int:
        """Bring the schema up to date; safe when two processes start at once. Returns its number.

        Raises LedgerTooNew where a newer release wrote it.
        """
        known = migrations(SQLITE)
        newest = known[-1][0]
        if self._has(newest):
            return newest  # who only looks does not wait for who writes
        with self.transaction():
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, at REAL NOT NULL)"
            )
            done = self._schema()
            for number, script in known:
                if number > done:
                    for statement in _statements(script):
                        self.connection.execute(statement)
                    self.connection.execute("INSERT INTO migrations VALUES (?, ?)", (number, self.now))
        return newest

    def _has(self, newest: int) -> bool:
        if (done := self.schema) > newest:
            raise LedgerTooNew(f"the ledger has schema {done}, this release knows {newest}: install a newer release")
        return done == newest

    def _schema(self) -> int:
        return int(self.connection.execute("SELECT COALESCE(MAX(number), 0) FROM migrations").fetchone()[0])

    @property
    def schema(self) -> int:
        """The number of the newest migration that was applied; 0 where there is no ledger yet."""
        with _translated():
            return self._schema() if self.db.table("migrations").exists() else 0

    def own(self) -> None:
        """Become the one server of this file. Raises LedgerInUse."""
        if self._served is not None:
            return
        served = _private_file(self._beside(".serve"))
        try:
            fcntl.flock(served, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            served.close()
            raise LedgerInUse(f"another crm-sync already serves {self.path}; stop it first") from None
        self._served = served

    def close(self) -> None:
        """Close the files; the WAL is folded into the ledger."""
        with self._apart():
            self.connection.close()
        for held in (self._lock, self._served):
            if held is not None:
                held.close()


def _json(rows: Sequence[Any]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _private_file(path: Path) -> IO[str]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")


def _create_private(path: Path) -> None:
    try:
        _private_file(path).close()
    except OSError as error:
        raise LedgerUnavailable(f"cannot open the ledger {path}: {error.strerror}") from error


def _create_new(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise LedgerError(f"cannot make {path}: {error.strerror}") from error


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """What goes wrong here but for a damaged ledger is this file's fault: its disk is full, not the ledger's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if DAMAGED in str(error).lower():
            raise
        raise LedgerError(f"the backup {path} cannot be written: {error}") from error


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        message = str(error).lower()
        if isinstance(error, sqlite3.OperationalError) and any(word in message for word in TRANSIENT):
            raise LedgerUnavailable(f"the ledger cannot be written: {error}") from error
        if DAMAGED in message or "not a database" in message:
            raise LedgerError(f"the ledger file is damaged: {error}") from error
        raise
