"""Checks everything that the service stands on, and says what to do about each finding."""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from sync.alarms import disk_alarms
from sync.destinations.base import Destination
from sync.destinations.mail.base import Mailer
from sync.errors import DeliveryError, LedgerError, Throttled, Unauthorized, Unreachable
from sync.followup import FollowupSettings
from sync.ledger import Ledger
from sync.ledger.hearing import history
from sync.ledger.reporting import NOT_CONFIGURED, status
from sync.ledger.sqlite import FIXED, SqliteEngine
from sync.letter import words_for
from sync.models import MAIL
from sync.settings import FromEnvironment, Settings, is_loopback, variable_of
from sync.silence import DAY, ENOUGH_DAYS, Expectation, busy_hours, in_words, longest, rounded_up, spelled

AHEAD = 60.0
"""Seconds that the newest event may be ahead of this machine's clock."""

JUDGED_BY = 30
"""Days of webhooks by which it is judged how long a silence may last."""

PRIVATE = 0o600
BESIDE = ("", "-wal", "-shm", ".key", ".lock", ".serve")
"""The files of a ledger, by what follows its name."""


class Level(StrEnum):
    """How bad a finding is. Only `fail` keeps the service from doing its work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked, what was found in one sentence, and what to do about it."""

    level: Level
    what: str
    found: str
    todo: str | None = None


def ok(what: str, found: str) -> Finding:
    """All is well here."""
    return Finding(Level.OK, what, found)


def warn(what: str, found: str, todo: str) -> Finding:
    """It works, and could be better or safer."""
    return Finding(Level.WARN, what, found, todo)


def fail(what: str, found: str, todo: str) -> Finding:
    """It cannot work like this."""
    return Finding(Level.FAIL, what, found, todo)


def exposure(settings: Settings, *, is_guarded: bool) -> Iterator[Finding]:
    """Who can reach us, and whether we can tell a real webhook from a forged one."""
    if is_guarded:
        yield ok("exposure", f"webhooks are proved by a signature or a token; we listen on {settings.host}")
    elif is_loopback(settings.host):
        yield ok("exposure", f"nothing proves a webhook, so only this machine is served ({settings.host})")
    else:
        yield fail(
            "exposure",
            f"SYNC_HOST is {settings.host}, and nobody could tell a real webhook from a forged one",
            "set ACQUIRE_WEBHOOK_SECRET or ACQUIRE_URL_TOKEN, or listen on 127.0.0.1",
        )
    yield from _address(settings.public_url, is_guarded=is_guarded)
    if settings.alarm_url is None and settings.alarm_email is None and is_guarded:
        yield warn(
            "alarms",
            "what needs a person is only shown by `crm-sync status`",
            "set SYNC_ALARM_URL to an address that tells you, or SYNC_ALARM_EMAIL to yours",
        )


def _address(url: str | None, *, is_guarded: bool) -> Iterator[Finding]:
    if url is None:
        if is_guarded:
            yield warn(
                "address",
                "SYNC_PUBLIC_URL is not set, so nobody can say which address the source has to call",
                "set it to the https address under which this server is reached from outside",
            )
    elif not url.startswith("https://"):
        yield warn("address", f"{url} is not https: visitors' data would cross the network in the clear", "use https")
    else:
        yield ok("address", f"the source has to call {url.rstrip('/')}/webhooks/acquire (and /TOKEN if one is set)")


def secret(settings: Settings, file: Path | None) -> Finding:
    """Where the key of our hashes comes from. `file` is where it would be made."""
    if settings.secret_key is not None:
        return ok("secret key", "it comes from SYNC_SECRET_KEY; every host of this ledger needs the same")
    if file is None:
        return fail("secret key", "this ledger has no folder for a key of its own", "set SYNC_SECRET_KEY")
    if file.exists():
        return ok("secret key", f"it is in {file}; back it up together with the ledger")
    return ok("secret key", f"`crm-sync serve` will make it, in {file}")


def files(ledger: Path, *, fix: bool) -> Iterator[Finding]:
    """The ledger's files belong to their owner alone."""
    folder = ledger.resolve().parent
    if not ledger.exists():
        yield from _place(folder)
        return
    for path in (ledger.with_name(ledger.name + suffix) for suffix in BESIDE):
        if path.exists() and (open_to := _open_to(path)):
            if fix:
                path.chmod(PRIVATE)
                yield ok("files", f"{path} was open to {open_to}; now it is yours alone")
            else:
                yield warn("files", f"{path} is open to {open_to}", f"chmod 600 {path}, or crm-sync doctor --fix")


def _place(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield fail("ledger", f"there is no folder {folder}", "make it, or name another one in SYNC_LEDGER")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield fail("ledger", f"{folder} cannot be written", "give this user the right to, or set SYNC_LEDGER")
    else:
        yield ok("ledger", f"there is none yet; `crm-sync serve` will make it in {folder}")


def _open_to(path: Path) -> str | None:
    mode = stat.S_IMODE(path.stat().st_mode)
    return "everybody" if mode & 0o007 else "its group" if mode & 0o070 else None


def ledger(opened: Ledger) -> Iterator[Finding]:
    """The ledger can be written, and its database is one to trust."""
    engine = opened.engine
    try:
        with opened.transaction():
            opened.prove_writable()
    except LedgerError as error:
        yield fail("ledger", str(error), "make room, give this user the right to write, or end what locks it")
    else:
        yield ok("ledger", f"it can be written: {engine.name}, schema {engine.schema}, {engine.bytes / 1e6:,.1f} MB")
    if isinstance(engine, SqliteEngine):
        yield _version(engine)
    yield _clock(opened)
    yield from _left_over(opened)


def _version(engine: SqliteEngine) -> Finding:
    if engine.is_safe:
        return ok("sqlite", f"version {engine.version} has the WAL-reset bug fixed")
    return warn(
        "sqlite",
        f"version {engine.version} has the WAL-reset bug; we lock around it, other programs do not",
        f"install SQLite {'.'.join(map(str, FIXED))} or newer (pip install pysqlite3); do not write to the file from "
        "other programs meanwhile",
    )


def _clock(opened: Ledger) -> Finding:
    newest = opened.get("newest_event")
    ahead = 0.0 if newest is None else newest["received_at"] - opened.engine.now
    if ahead > AHEAD:
        return fail(
            "clock",
            f"the newest event was received {ahead:,.0f} seconds in the future: a clock has jumped",
            "set the clock by NTP; until then what was due in the future has to wait",
        )
    return ok("clock", "no event comes from the future")


def _left_over(opened: Ledger) -> Iterator[Finding]:
    for name, there in status(opened)["destinations"].items():
        n = sum(states.get(NOT_CONFIGURED, 0) for states in there["deliveries"].values())
        if n:
            yield (
                warn(MAIL, f"{n:,} emails are left over from when there was a mailer", "set SYNC_MAILER to send them")
                if name == MAIL
                else warn(
                    "destinations",
                    f"{n:,} deliveries are left over for {name}, which SYNC_DESTINATIONS does not name",
                    "name it again to deliver them; else nothing has to be done",
                )
            )


def silence(opened: Ledger, source: str, expectation: Expectation | None, zone: ZoneInfo) -> Iterator[Finding]:
    """Whether it would be noticed that a source sends nothing any more, judged by its last days."""
    every, hours = f"{source.upper()}_EXPECT_EVERY", f"{source.upper()}_EXPECT_HOURS"
    known = history(opened, source, opened.engine.now - JUDGED_BY * DAY)
    if known is None or known.ends - known.begins < ENOUGH_DAYS * DAY:
        if expectation is not None:
            after = spelled(expectation.every)
            yield ok("silence", f"an alarm is raised {after} after the last webhook; too little has come to judge that")
        return
    if expectation is None:
        busy = busy_hours(known.silences, known.begins, known.ends, zone)
        enough = spelled(rounded_up(longest(known.silences, busy, zone)))
        within = "" if busy is None else f" and {hours}={busy} ({zone.key})"
        yield warn(
            "silence",
            f"nobody is told when {source} sends nothing any more",
            f"set {every}={enough}{within}: in the last {JUDGED_BY} days that had been no false alarm",
        )
        return
    silent = longest(known.silences, expectation.hours, expectation.zone)
    told = f"in the last {JUDGED_BY} days {source} was silent for {in_words(silent)} at most"
    if silent > expectation.every:
        enough = spelled(rounded_up(silent))
        yield warn(
            "silence",
            f"{told}, longer than {every} ({spelled(expectation.every)})",
            f"if that was no outage, set {every}={enough} or other {hours}",
        )
    else:
        yield ok("silence", f"{told}; an alarm is raised after {spelled(expectation.every)}")


def disk(folder: Path, reserve: int) -> Finding:
    """There is room to grow."""
    free = shutil.disk_usage(folder).free
    if alarms := disk_alarms(folder, reserve):
        return fail("disk", next(iter(alarms.values())), "make room, or lower SYNC_DISK_RESERVE")
    return ok("disk", f"{free / 1e9:,.1f} GB are free beside the ledger")


async def destination(
    checked: Destination, *, address: str, variables: str, fix: bool, is_embedded: bool = False
) -> list[Finding]:
    """Credentials and field names of one destination; with `fix` what it misses is made first.

    `address` is the variable that says where it is, `variables` the prefix of all of them.
    """
    try:
        made = await checked.repair() if fix else ()
        account = await checked.check()
    except Unreachable as error:
        if is_embedded:
            return [ok(checked.name, "it runs inside `crm-sync serve`, which does not run now: nothing to check")]
        return [fail(checked.name, f"it does not answer: {error.reason}", f"check the network and {address}")]
    except DeliveryError as error:
        return [fail(checked.name, _said(error), _remedy(error, variables))]
    return [*(ok(checked.name, sentence) for sentence in made), ok(checked.name, f"ready: {account}")]


def followups(rules: FollowupSettings, *, mailer: str, sender: str, templates: str | None) -> Finding:
    """When follow-ups go out, whom from, and what they are written with, in words."""
    after = f"{_span(rules.delay)} after the close" if rules.delay else "at the close"
    hours = "at any hour"
    if rules.hours is not None:
        opens, closes = (f"{each:%H:%M}" for each in rules.hours)
        hours = f"between {opens} and {closes} ({rules.timezone})"
    written = f"the templates in {templates}" if templates else "the templates that come with it"
    return ok(MAIL, f"follow-ups go out through {mailer}, {after}, {hours}, from {sender}; {written} can be rendered")


def links(public_url: str | None, *, is_rehearsal: bool) -> Finding:
    """Where the unsubscribe links lead. A rehearsal needs no address that others can reach."""
    host = urlsplit(public_url).hostname if public_url else None
    if host is not None and not is_loopback(host):
        return ok(MAIL, f"the unsubscribe links lead to {(public_url or '').rstrip('/')}")
    if is_rehearsal:
        return ok(MAIL, "the unsubscribe links lead to this machine: enough for the sandbox")
    return warn(
        MAIL,
        f"the unsubscribe links lead to {public_url}, which nobody but this machine can open",
        "set SYNC_PUBLIC_URL to the https address under which this server is reached from outside",
    )


def bounces(mailer: Mailer, given: FromEnvironment, public_url: str | None) -> Finding | None:
    """Whether we hear of bounces and complaints, and what to enter where."""
    secret = next((field for field in type(given).model_fields if field.startswith("webhook_")), None)
    if secret is None:
        said = "bounces come back to the sender's mailbox: `crm-sync suppress` whom they name"
        return None if mailer.vendor == "sandbox" else ok(MAIL, said)
    variable = variable_of(type(given), secret)
    address = f"{(public_url or '').rstrip('/')}/webhooks/{mailer.vendor}"
    if mailer.hears:
        return ok(MAIL, f"{mailer.vendor} is to tell of bounces and complaints at {address}, proved by {variable}")
    return warn(
        MAIL,
        f"{variable} is not set, so bounces and complaints that {mailer.vendor} sees are not heard of",
        f"at {mailer.vendor}, add a webhook for bounces and complaints to {address}; see `.env.example` for {variable}",
    )


def _span(seconds: float) -> str:
    return f"{seconds:g} seconds" if seconds < 60 else words_for(seconds) or f"{seconds / 86400:.0f} days"


def _said(error: DeliveryError) -> str:
    return error.reason if error.status is None else f"{error.reason} ({error.status})"


def _remedy(error: DeliveryError, variables: str) -> str:
    match error:
        case Throttled():
            return "wait a minute and ask again"
        case Unauthorized(status=None):
            return "do what it says; what can be made by itself: crm-sync doctor --fix"
        case Unauthorized():
            return f"check the credentials and permissions behind {variables}*"
        case _:
            return f"check {variables}*, then ask again"


def worst(findings: Sequence[Finding]) -> Level:
    """The worst level among findings."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)
