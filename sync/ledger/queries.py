"""The named queries of the `.sql` files beside this one, and the few words in which two databases differ."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

ROWS = re.compile(r"\{(?P<parameter>\w+) (?P<alias>\w+): (?P<columns>[^}]+)\}")
"""`{rows r: id text, at real}`: the JSON list in `:rows` as a table `r` with these columns."""

ISO = re.compile(r"\{iso (?P<column>[\w.]+)\}")
"""`{iso at}`: a time as ISO 8601 text."""

WORD = re.compile(r"\{(?P<word>in|picked|locked|locked d)\}")
"""`id {in} … {picked}` picks rows to change that nobody else picks; `{locked}` and `{locked d}` hold the rows that are
read (those of `d` only) until the commit."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one database says differently: rows from JSON, picking rows that nobody else picks."""

    rows: Callable[[str, str, list[tuple[str, str]]], str]
    iso: Callable[[str], str]
    words: Mapping[str, str]


def _sqlite_rows(parameter: str, alias: str, columns: list[tuple[str, str]]) -> str:
    picked = ", ".join(f"value ->> '{name}' AS {name}" for name, _ in columns)
    return f"(SELECT {picked} FROM json_each(:{parameter})) AS {alias}"  # noqa: S608 - words of queries.sql only


def _sqlite_iso(column: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%SZ', {column}, 'unixepoch')"


SQLITE = Dialect(_sqlite_rows, _sqlite_iso, {"in": "IN (", "picked": ")", "locked": "", "locked d": ""})


TYPES = {"text": "text", "integer": "bigint", "real": "double precision"}


def _postgres_rows(parameter: str, alias: str, columns: list[tuple[str, str]]) -> str:
    typed = ", ".join(f"{name} {TYPES[kind]}" for name, kind in columns)
    return f"json_to_recordset(:{parameter}) AS {alias} ({typed})"


def _postgres_iso(column: str) -> str:
    return f"to_char(to_timestamp({column}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"


POSTGRES = Dialect(
    _postgres_rows,
    _postgres_iso,
    {
        # As an array: `IN (SELECT … SKIP LOCKED)` may be planned as a join that picks more rows than its LIMIT.
        "in": "= ANY (ARRAY (",
        "picked": "FOR UPDATE SKIP LOCKED))",
        "locked": "FOR UPDATE",
        "locked d": "FOR UPDATE OF d",
    },
)


@cache
def _all() -> Mapping[str, str]:
    """Every query by name. Raises ValueError where two have the same."""
    found: dict[str, str] = {}
    for file in files("sync.ledger").iterdir():
        if file.name.endswith(".sql"):
            more = named(file.read_text("utf-8"))
            if twice := found.keys() & more.keys():
                raise ValueError(f"two queries have the same name: {', '.join(twice)}")
            found |= more
    return found


def named(text: str) -> dict[str, str]:
    """The queries of a file by name. Each begins with `-- name: x`."""
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


def queries(dialect: Dialect) -> dict[str, str]:
    """Every named query in the words of one database."""
    return {name: in_words_of(dialect, sql) for name, sql in _all().items()}


def in_words_of(dialect: Dialect, sql: str) -> str:
    """One SQL text in the words of one database."""

    def rows(found: re.Match[str]) -> str:
        columns = [(name, kind) for name, kind in (c.split() for c in found["columns"].split(","))]
        return dialect.rows(found["parameter"], found["alias"], columns)

    sql = ISO.sub(lambda found: dialect.iso(found["column"]), ROWS.sub(rows, sql))
    return WORD.sub(lambda found: dialect.words[found["word"]], sql)


def migrations(dialect: Dialect) -> list[tuple[int, str]]:
    """The numbered migrations in order, in the words of one database."""
    folder = files("sync.ledger").joinpath("migrations")
    scripts = sorted((f.name, f) for f in folder.iterdir() if f.name.endswith(".sql"))
    return [(int(name[:4]), in_words_of(dialect, script.read_text("utf-8"))) for name, script in scripts]
