"""Copies a ledger from one database to another, page by page, to the last bit."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from secrets import randbits
from typing import Any

from sync.errors import LedgerError, LedgerInUse, LedgerTooNew
from sync.ledger.engine import Engine

PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its primary key. `after` is a column that names another row of it, which has to be there first."""

    name: str
    key: tuple[str, ...]
    after: str | None = None


TABLES = (
    Table("events", ("id",)),
    Table("contacts", ("id",), after="joined"),
    Table("identities", ("kind", "value", "contact")),
    Table("chats", ("id",)),
    Table("deliveries", ("id",)),
    Table("failures", ("id",)),
    Table("joins", ("loser", "winner")),
    Table("strays", ("destination", "remote_id")),
    Table("emails", ("chat", "template")),
    Table("suppressions", ("hash",)),
    Table("erasures", ("hash",)),
    Table("cursors", ("name",)),
    Table("locks", ("name",)),
    Table("destinations", ("name",)),
    Table("counters", ("name",)),
    Table("alarms", ("key",)),
    Table("marks", ("name",)),
)
"""Everything but `migrations`, of which each database keeps its own; what others refer to comes before them."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What both databases hold of a table. `checksum` does not depend on the order of the rows."""

    table: str
    rows: int
    checksum: str


Told = Callable[[str, str, int], None]
"""Is told what was done ("copied", "compared") to which table, and with how many more rows."""


def count(engine: Engine) -> int:
    """How many rows a ledger has in all."""
    return sum(engine.read(f"SELECT COUNT(*) AS n FROM {table.name}")[0]["n"] for table in TABLES)  # noqa: S608


def prepare(source: Engine, target: Engine) -> None:
    """Make sure that nobody serves either ledger and that both have the same tables: an empty target gets them.

    Raises LedgerInUse, LedgerTooNew, LedgerError. A file is owned from here on. On a server one can only look who is
    connected: who comes and goes between two looks is not seen, and nobody is where a pooler hides the names.
    """
    source.own()
    target.own()
    _check_unused(source, target)
    _check_schema(source, target)


def copy(source: Engine, target: Engine, told: Told) -> list[Copied]:
    """Copy everything, then compare. What is there already is not sent twice, so a copy that broke off goes on.

    Nobody may serve either ledger meanwhile. Raises LedgerInUse where somebody does, LedgerError where the schemas
    differ, where the target holds rows that the source has not, or where the two are not the same in the end.
    """
    prepare(source, target)
    mark = str(source.now)
    for engine in (source, target):  # `doctor` leaves it: in an otherwise empty target it is nobody's data
        engine.run("probe_write", value=mark)
    for table in TABLES:
        _check_free_of_others(source, target, table)
    for table in TABLES:
        for rows in _pages(source, table):
            _offer(target, table, _in_order(source, table, rows))
            told("copied", table.name, len(rows))
    same = [_compare(source, target, table, told) for table in TABLES]
    _check_unused(source, target)  # who came meanwhile may have written to a table that was compared before
    return same


def _check_unused(source: Engine, target: Engine) -> None:
    for side, engine in (("source", source), ("target", target)):
        if _is_used(engine):
            raise LedgerInUse(
                f"another crm-sync is connected to the {side}: stop it, then copy again (a pooler may keep its "
                f"connection for a while: copy past it)"
            )


def _check_schema(source: Engine, target: Engine) -> None:
    before, now = source.schema, target.migrate()
    if before == 0:
        raise LedgerError("there is no ledger to copy from")
    if before > now:
        raise LedgerTooNew(f"the source has schema {before}, this release knows {now}: install a newer release")
    if before != now:
        raise LedgerError(f"the source has schema {before}, the target {now}: `crm-sync ledger upgrade` the source")


def _check_free_of_others(source: Engine, target: Engine, table: Table) -> None:
    for rows in _pages(target, table):
        known = {_key(table, row): _canonical(row) for row in _find(source, table, [_key(table, row) for row in rows])}
        others = [row for row in rows if known.get(_key(table, row)) != _canonical(row)]
        if others:
            raise LedgerError(
                f"the target holds other data: its table {table.name} has rows that differ from the source. Copy into "
                f"an empty database; neither ledger may have been served since a copy that broke off"
            )


def _compare(source: Engine, target: Engine, table: Table, told: Told) -> Copied:
    ours = _sum(source, table)
    told("compared", table.name, ours.rows)
    if ours != _sum(target, table):
        raise LedgerError(
            f"the copy of {table.name} differs from the source: was it written to meanwhile? "
            f"Stop everything that writes, empty the target, and copy again"
        )
    return ours


def _sum(engine: Engine, table: Table) -> Copied:
    """Count and add up: databases order text differently, so the checksum is a sum of the hashes of the rows."""
    n, total = 0, 0
    for rows in _pages(engine, table):
        n += len(rows)
        total += sum(int.from_bytes(hashlib.sha256(_canonical(row).encode()).digest(), "big") for row in rows)
    return Copied(table.name, n, f"{total % 2**256:064x}")


def _canonical(row: Any) -> str:
    return json.dumps(dict(row), sort_keys=True, separators=(",", ":"))


def _key(table: Table, row: Any) -> tuple[Any, ...]:
    return tuple(row[column] for column in table.key)


# The only SQL outside of queries.sql: two questions to a server, and the same few statements for every table. The
# words of these are those of TABLES and the database's own columns, never a stranger's; so a new column is copied
# without anybody thinking of it.


def are_same(one: Engine, other: Engine) -> bool:
    """Whether two addresses lead to one database on one server: what is locked by the one is not free to the other.

    Names and identifiers would not do: a server that was restored from another's backup has the same.
    """
    if not (one.is_shared and other.is_shared):
        return False
    number = randbits(62)
    with one.transaction(exclusive=False):
        one.read("SELECT pg_advisory_xact_lock(?)", [number])
        return not other.read("SELECT pg_try_advisory_xact_lock(?) AS free", [number])[0]["free"]


def _is_used(engine: Engine) -> bool:
    """Whether another session of ours is connected to this database. Of a file `own` has made sure."""
    sql = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'chat-crm-sync' AND pid <> pg_backend_pid() LIMIT 1"
    )
    return engine.is_shared and bool(engine.read(sql))


def _pages(engine: Engine, table: Table) -> Iterator[list[Any]]:
    key, marks = ", ".join(table.key), _marks(table.key)
    first = f"SELECT * FROM {table.name} ORDER BY {key} LIMIT {PAGE}"  # noqa: S608
    further = f"SELECT * FROM {table.name} WHERE ({key}) > ({marks}) ORDER BY {key} LIMIT {PAGE}"  # noqa: S608
    rows = engine.read(first)
    while rows:
        yield rows
        rows = engine.read(further, _key(table, rows[-1])) if len(rows) == PAGE else []


def _find(engine: Engine, table: Table, keys: Sequence[tuple[Any, ...]]) -> list[Any]:
    wanted = ", ".join([f"({_marks(table.key)})"] * len(keys))
    sql = f"SELECT * FROM {table.name} WHERE ({', '.join(table.key)}) IN (VALUES {wanted})"  # noqa: S608
    return engine.read(sql, [value for key in keys for value in key])


def _offer(engine: Engine, table: Table, rows: Sequence[Any]) -> None:
    columns = list(rows[0].keys())
    sql = (
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({_marks(columns)}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(table.key)}) DO NOTHING"
    )
    with engine.transaction():
        engine.write(sql, [tuple(row[column] for column in columns) for row in rows])


def _marks(columns: Sequence[str]) -> str:
    return ", ".join("?" * len(columns))


def _in_order(source: Engine, table: Table, rows: list[Any]) -> list[Any]:
    """These rows behind those that they need: a contact behind whom it was joined into."""
    if table.after is None:
        return rows
    generations, seen = [rows], set()
    while needed := frozenset(row[table.after] for row in generations[-1] if row[table.after] is not None):
        if needed in seen:
            raise LedgerError("contacts are joined in a circle: `crm-sync ledger check` tells which")
        seen.add(needed)
        generations.append(_find(source, table, [(key,) for key in sorted(needed)]))
    return [row for generation in reversed(generations) for row in generation]
