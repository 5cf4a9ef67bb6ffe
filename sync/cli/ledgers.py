"""The commands about the ledger itself: check, backup, copy, upgrade."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sync.cli.opening import check_there, opened
from sync.cli.words import counted, faint, plain, say, say_json, strong
from sync.errors import LedgerError, SettingsError

if TYPE_CHECKING:
    from sync.ledger.checking import Finding
    from sync.ledger.copying import Copied, Told
    from sync.settings import Settings

LINE_EVERY = 100_000
"""Rows of a table between two lines of progress."""


@click.group()
def ledger() -> None:
    """Check, back up, move and upgrade the ledger itself."""


@ledger.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Look for what must never be in a ledger; nothing is changed. Exit code 1 when something is found."""
    from sync.ledger import checking

    with opened() as (_, found):
        findings, checks = checking.check(found.engine), len(checking.checks(found.engine))
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        say(_report(findings, checks))
    ctx.exit(int(bool(findings)))


def _report(findings: Sequence["Finding"], checks: int) -> Iterator[str]:
    if not findings:
        yield click.style(f"The ledger is sound: {checks} checks found nothing.", fg="green", bold=True)
        return
    yield click.style(f"{len(findings)} of {checks} checks found something.", fg="red", bold=True)
    yield ""
    width = max(len(f"{finding.n:,}") for finding in findings)
    for finding in findings:
        number, example = f"{finding.n:,}".rjust(width), faint(f"for example {plain(finding.example)}")
        yield f"  {strong(number)}  {finding.found}  {example}"


@ledger.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(file: Path) -> None:
    """Copy an SQLite ledger to FILE, with its key. Safe while the service runs; FILE must not be there yet."""
    from sync.ledger.sqlite import SqliteEngine
    from sync.wiring import is_postgres, ledger_file

    settings = _settings()
    if is_postgres(settings):
        raise SettingsError("the ledger is on a PostgreSQL server: back it up with pg_dump")
    check_there(settings)
    key, key_copy = _beside(ledger_file(settings)), _beside(file)
    for made in (file, key_copy):
        if made.exists():
            raise SettingsError(f"{made} is there already: a backup never overwrites")
    with closing(SqliteEngine(ledger_file(settings), clock=time.time)) as engine:
        engine.backup(file)
    if settings.secret_key is None and key.exists():
        try:
            _copy_private(key, key_copy)
        except BaseException:
            file.unlink()  # half a backup would be in the way of the next
            raise
        say([f"The ledger is in {file}, its key in {key_copy}: keep both, and keep them private."])
    else:
        say([f"The ledger is in {file}. SYNC_SECRET_KEY is not in it: keep that too."])


def _beside(file: Path) -> Path:
    return file.with_name(file.name + ".key")


def _copy_private(file: Path, target: Path) -> None:
    try:
        key, opened_copy = file.read_bytes(), os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(opened_copy, "wb") as copy:
                copy.write(key)
                copy.flush()
                os.fsync(copy.fileno())
        except BaseException:
            target.unlink()
            raise
    except OSError as error:
        raise LedgerError(f"the key {file} cannot be copied to {target}: {error.strerror}") from error


@ledger.command("copy")
@click.option("--from", "source", metavar="URL", required=True, help="The ledger to copy, as in SYNC_LEDGER.")
@click.option("--to", "target", metavar="URL", required=True, help="An empty one: sqlite:///FILE or postgresql://…")
def copy_(source: str, target: str) -> None:
    """Copy a ledger to another database, then compare the two. Stop the service first; go on by starting it again."""
    from sync.ledger import copying
    from sync.wiring import open_engine

    before, after = _settings(source), _settings(target)
    check_there(before)
    if _place(before) == _place(after):
        raise SettingsError("--from and --to are the same ledger")
    with closing(open_engine(before)) as one, closing(open_engine(after)) as other:
        if copying.are_same(one, other):
            raise SettingsError("--from and --to are the same ledger")
        if one.schema == 0:
            raise SettingsError("there is no ledger at --from")
        copying.prepare(one, other)
        with _progress(copying.count(one)) as told:
            done = copying.copy(one, other, told)
    say(_copied(done, before, after))


def _copied(done: Sequence["Copied"], before: "Settings", after: "Settings") -> Iterator[str]:
    from sync.wiring import is_postgres, ledger_file

    rows = counted(sum(table.rows for table in done), "row")
    yield strong(f"{rows} in {len(done)} tables are the same in both.")
    yield from (faint(f"  {table.checksum[:16]}  {table.rows:>10,}  {table.table}") for table in done)
    is_beside = before.secret_key is None and not is_postgres(before)  # the variable goes before any file
    key = _beside(ledger_file(before)) if is_beside else None
    yield "Before you serve it:"
    yield "  set SYNC_LEDGER to what --to says, on every host"
    if key is None or not key.exists():
        yield "  keep SYNC_SECRET_KEY as it is: by it, repetitions are known"
    elif is_postgres(after):
        yield f"  set SYNC_SECRET_KEY to the content of {key}, on every host: by it, repetitions are known"
    else:
        yield f"  copy {key} to {_beside(ledger_file(after))}, or set SYNC_SECRET_KEY to its content"


@ledger.command()
def upgrade() -> None:
    """Bring the schema of the ledger up to date. `serve` and the other commands do so, too."""
    from sync.wiring import open_engine

    settings = _settings()
    check_there(settings)
    with closing(open_engine(settings)) as engine:
        before = engine.schema
        after = engine.migrate()
    say(
        [f"The ledger has schema {after} already." if before == after else f"Upgraded from schema {before} to {after}."]
    )


def _settings(address: str | None = None) -> "Settings":
    """The settings, with another ledger where one is named."""
    from sync.logs import configure
    from sync.settings import Settings, load

    settings = load(Settings)
    configure(settings.log_format, settings.log_level)
    return settings if address is None else settings.model_copy(update={"ledger": address})


def _place(settings: "Settings") -> str:
    from sync.wiring import is_postgres, ledger_file

    return settings.ledger if is_postgres(settings) else str(ledger_file(settings).resolve())


def _progress(rows: int) -> "AbstractContextManager[Told]":
    """Every row is counted twice: when it is copied and when it is compared."""
    return _bar(2 * rows) if sys.stderr.isatty() else _lines()


@contextmanager
def _bar(steps: int) -> "Iterator[Told]":
    with click.progressbar(length=steps, label="rows", file=sys.stderr) as bar:
        yield lambda _done, _table, n: bar.update(n)


@contextmanager
def _lines() -> "Iterator[Told]":
    so_far: dict[tuple[str, str], int] = {}

    def told(done: str, table: str, n: int) -> None:
        before = so_far.get((done, table), 0)
        so_far[done, table] = before + n
        if not before or before // LINE_EVERY < (before + n) // LINE_EVERY:
            click.echo(f"{done} {counted(before + n, 'row')} of {table}", err=True)

    yield told
