"""The command that takes in a CRM's export: import."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sync.cli.opening import opened
from sync.cli.words import counted, faint, plain, say, say_json, strong

if TYPE_CHECKING:
    from sync.importing import Export, Imported, Told

LINE_EVERY = 50_000
"""Rows between two lines of progress."""


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--destination", required=True, help="Whose export it is: its records are adopted there.")
@click.option("--id", "id_", metavar="COLUMN", help="The column of the record ids [guessed].")
@click.option("--email", metavar="COLUMN", help="The column of the emails [guessed].")
@click.option("--phone", metavar="COLUMN", help="The column of the phones [guessed].")
@click.option("--name", metavar="COLUMN", multiple=True, help="The column of the names; twice: first, last [guessed].")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
@click.pass_context
def import_(
    ctx: click.Context,
    file: Path,
    destination: str,
    id_: str | None,
    email: str | None,
    phone: str | None,
    name: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take in the people whom a CRM has already, from its CSV export FILE, so that their records are adopted.

    What the export says fills only what no chat has said. Nothing is delivered for it, and nobody gets a mail.
    Exit code 1 when rows were left alone.
    """
    from sync.importing import Columns, check_destination, import_export, look

    with opened() as (settings, ledger):
        check_destination(ledger, destination)
        export = look(file, Columns(id_, email, phone, name))
        click.echo(_seen(export), err=True)
        with _progress(export.lines) as told:
            done = import_export(ledger, export, destination, region=settings.phone_region, told=told, dry_run=dry_run)
    if as_json:
        say_json(_as_json(export, done, dry_run=dry_run))
    else:
        say(_report(done, destination, dry_run=dry_run))
    ctx.exit(int(bool(done.left)))


def _seen(export: "Export") -> str:
    written = "UTF-8" if export.encoding.startswith("utf-8") else "Windows-1252, for it is not UTF-8"
    columns = "; ".join(f"{what}: {plain(' + '.join(names), 60)}" for what, names in export.columns.items())
    return f"{export.path.name} is read as {written}; {columns}"


def _report(done: "Imported", destination: str, *, dry_run: bool) -> Iterator[str]:
    from sync.importing import names

    n = names(done.taken)
    if done.resumed is not None:
        yield faint(f"It had broken off behind row {done.resumed:,}; the numbers are those of the whole file.")
    yield strong(f"{counted(done.rows, 'row')} {'would be read' if dry_run else 'read'}.")
    for number, says in (
        (n["new"], f"new here, with {'its' if n['new'] == 1 else 'their'} record at {destination}"),
        (n["known"], f"here already: the record at {destination} {'would be' if dry_run else 'is'} known now"),
        (n["same"], "known with that record before: at most gaps are filled"),
    ):
        if number:
            yield f"  {number:>9,}  {says}"
    for reason, (number, rows) in sorted(done.left.items(), key=lambda item: -item[1][0]):
        named = ", ".join(f"{row:,}" for row in rows)
        yield f"  {number:>9,}  left alone: {reason}  {faint(f'row {named}' + (' …' if number > len(rows) else ''))}"


def _as_json(export: "Export", done: "Imported", *, dry_run: bool) -> dict[str, object]:
    from sync.importing import names, reasons

    short = reasons()
    return {
        "file": str(export.path),
        "encoding": export.encoding,
        "columns": export.columns,
        "dry_run": dry_run,
        "resumed": done.resumed,
        "rows": done.rows,
        **names(done.taken),
        "left": {short[why]: {"n": n, "reason": why, "rows": rows} for why, (n, rows) in done.left.items()},
    }


def _progress(rows: int) -> "AbstractContextManager[Told]":
    return _bar(rows) if sys.stderr.isatty() else _lines()


@contextmanager
def _bar(rows: int) -> "Iterator[Told]":
    with click.progressbar(length=rows, label="rows", file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def _lines() -> "Iterator[Told]":
    so_far = 0

    def told(n: int) -> None:
        nonlocal so_far
        so_far += n
        if (so_far - n) // LINE_EVERY < so_far // LINE_EVERY:
            click.echo(f"{counted(so_far, 'row')} read", err=True)

    yield told
