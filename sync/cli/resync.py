"""The command that finds what never arrived and repairs what went apart: resync."""

import asyncio
import re
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from sync.cli.words import counted, faint, plain, say, say_json, strong, table

if TYPE_CHECKING:
    from sync.pull import Pulled
    from sync.resync import Report, Told
    from sync.verify import Drift, Verified

LISTED = 20
"""Drift rows that are shown; `--json` has more."""

EVERY = 10.0
"""Seconds between two lines of progress where no person looks."""

COLOURS = {"clean": "green", "repaired": "yellow", "needs_person": "red", "failed": "red"}


def _since(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        since = _time(value)
    except (ValueError, OverflowError):
        raise click.BadParameter("is neither like 7d, 12h, 30m nor a date such as 2026-11-01") from None
    if since > time.time():
        raise click.BadParameter("is yet to come")
    return max(since, 0.0)


def _time(value: str) -> float:
    """Epoch seconds. Raises ValueError, OverflowError."""
    units = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    if re.fullmatch(r"[0-9]{1,9}[mhdw]", value):
        return time.time() - int(value[:-1]) * units[value[-1]]
    return datetime.fromisoformat(value).astimezone().timestamp()


@click.command()
@click.option("--pull", "steps", flag_value="pull", multiple=True, help="Only fetch what no webhook told of.")
@click.option("--repair", "steps", flag_value="repair", multiple=True, help="Only owe what is owed to nobody.")
@click.option(
    "--verify", "steps", flag_value="verify", multiple=True, help="Only compare destinations with the ledger."
)
@click.option("--drain", "steps", flag_value="drain", multiple=True, help="Only deliver what is due.")
@click.option("--since", callback=_since, metavar="WHEN", help="Only what changed since: 7d, 12h, 2026-11-01.")
@click.option("--source", metavar="NAME", help="Pull only this source.")
@click.option("--destination", metavar="NAME", help="Repair and verify only this destination.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Verify a random sample of so many contacts.")
@click.option("--fix", is_flag=True, help="Owe again what stands there otherwise than here.")
@click.option("--fix-missing", is_flag=True, help="Also make anew what is gone there without a trace.")
@click.option("--fix-deleted", is_flag=True, help="Also bring back what a person deleted there.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--wait", type=click.IntRange(0), default=600, show_default=True, help="Seconds for what is due to go.")
@click.option("--values", is_flag=True, help="Print what differs also into JSON, a file or a log: personal data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
@click.pass_context
def resync(
    ctx: click.Context,
    steps: tuple[str, ...],
    since: float | None,
    source: str | None,
    destination: str | None,
    sample: int | None,
    fix: bool,
    fix_missing: bool,
    fix_deleted: bool,
    dry_run: bool,
    wait: int,
    values: bool,
    as_json: bool,
) -> None:
    """Find what never arrived, repair what went apart: pull, repair, verify, drain; each also alone.

    Made for cron. Exit codes: 0 clean, 1 repaired, 2 needs a person (or a wrong option), 3 failed.
    """
    from sync.alarms import REPAIRED
    from sync.cli.opening import opened
    from sync.cli.screen import needs_person
    from sync.ledger import reporting
    from sync.resync import Step, Wish, check_heartbeat, ping, steps_of
    from sync.resync import resync as run

    wish = Wish(
        steps_of({Step(step) for step in steps}),
        since=since,
        source=source,
        destination=destination,
        sample=sample,
        fix=fix or fix_missing or fix_deleted,
        fix_missing=fix_missing,
        fix_deleted=fix_deleted,
        dry_run=dry_run,
        wait=wait,
    )
    with opened() as (settings, ledger):
        check_heartbeat(settings)
        report = asyncio.run(run(settings, ledger, wish, _progress()))
        stands = reporting.status(ledger)
        alarms = [alarm for alarm in stands["alarms"] if alarm["key"] != REPAIRED]  # that is what code 1 says
        report.needs_person = needs_person({**stands, "alarms": alarms})
        if settings.heartbeat_url is not None and not report.failed and not dry_run:
            heard = asyncio.run(ping(settings.heartbeat_url.get_secret_value()))
            report.failed += [] if heard else ["the address in SYNC_HEARTBEAT_URL did not answer"]
    if as_json:
        say_json(report.plain(values=values))
    else:
        say(_told(report, dry_run=dry_run, values=values or sys.stdout.isatty()))
    ctx.exit(int(report.verdict))


def _progress() -> "Told":
    """A line that is written over on a terminal; plain lines, not too many, elsewhere."""
    from sync.resync import Told

    shown = _OneLine() if sys.stderr.isatty() else _Lines()
    counts = {"drift": 0}

    def pulled(found: "Pulled") -> None:
        shown.say(f"pull {found.source}: {counted(found.rows, 'row')}, {counted(found.missed, 'chat')} missed so far")

    def drift(_: "Drift") -> None:
        counts["drift"] += 1
        shown.say(f"verify: {counts['drift']:,} found so far")

    return Told(lambda step, name: shown.say(f"{step} {name}".strip(), at_once=True), pulled, drift)


class _OneLine:
    def say(self, text: str, *, at_once: bool = False) -> None:
        """Write over what was said before; a new step begins a new line."""
        click.echo(f"{chr(10) if at_once else chr(13)}{text:<70}", nl=False, err=True)


class _Lines:
    def __init__(self) -> None:
        self._next = 0.0

    def say(self, text: str, *, at_once: bool = False) -> None:
        """One line, unless one was said a moment ago."""
        if at_once or time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            click.echo(text, err=True)


def _told(report: "Report", *, dry_run: bool, values: bool) -> Iterator[str]:
    verdict = report.verdict.name.lower()
    yield click.style(_in_words(report, dry_run=dry_run), fg=COLOURS[verdict], bold=True)
    yield from (f"  {plain(sentence)}" for sentence in report.failed)
    for found in report.pulled:
        yield from _pulled(found)
    yield from (faint(f"  {name} was not asked: no token for its REST API is set") for name in report.not_asked)
    for source, days in report.days.items():
        yield ""
        yield strong(f"days on which {source} counts another number of chats than the ledger")
        yield from table(["day", source, "ledger"], [[str(d.day), f"{d.source:,}", f"{d.ledger:,}"] for d in days])
    if report.read_again:
        yield f"  {counted(report.read_again, 'webhook')} could be read after all"
    if report.owed:
        yield f"  {report.owed:,} contacts and chats owed that were owed to nobody"
    for verified in report.verified:
        yield from _verified(verified, values=values)
    if report.attempts:
        yield f"  {counted(report.attempts, 'delivery attempt')}"
    if report.left:
        yield f"  {report.left:,} still on the way: see crm-sync status"


def _in_words(report: "Report", *, dry_run: bool) -> str:
    match report.verdict.name:
        case "CLEAN":
            return "Nothing was missing." if not dry_run else "Nothing is missing."
        case "REPAIRED":
            return "Something was missing, and is repaired." if not dry_run else "Something is missing."
        case "NEEDS_PERSON":
            return "Something needs a person."
        case _:
            return "It could not be done to the end."


def _pulled(found: "Pulled") -> Iterator[str]:
    said = [counted(found.rows, "row"), counted(found.chats, "chat"), f"{found.missed:,} missed by webhooks"]
    said += [f"{found.repaired:,} repaired"] if found.repaired else []
    yield f"  pulled {found.source}: {', '.join(said)}"
    yield from (faint(f"    {plain(note)}") for note in found.notes)


def _verified(found: "Verified", *, values: bool) -> Iterator[str]:
    if found.cannot is not None:
        yield faint(f"  {plain(found.cannot)}")
        return
    drift = ", ".join(f"{n:,} {kind}" for kind, n in sorted(found.counts.items()) if n) or "all as it should be"
    owed = f"; {found.owed:,} owed again" if found.owed else ""
    yield f"  verified {found.destination}: {counted(found.seen, 'contact')} read back, {drift}{owed}"
    if found.listed:
        yield from table(
            ["", "contact", "record", "fields"], [_row(drift, values=values) for drift in found.listed[:LISTED]]
        )
    if len(found.listed) > LISTED:
        yield faint(f"  the first {LISTED} are shown: --json has more")


def _row(drift: "Drift", *, values: bool) -> Sequence[str]:
    """What differs, by name alone where it would go into a file: what people typed must not stay in one."""
    fields = "; ".join(
        f"{d.field}: {plain(d.theirs or '-', 24)} there, {plain(d.ours or '-', 24)} here" if values else d.field
        for d in drift.differences
    )
    others = f"also {', '.join(plain(record, 20) for record in drift.records)}" if drift.records else ""
    return [str(drift.kind), drift.contact, plain(drift.remote_id, 20), "; ".join(filter(None, (fields, others)))]
