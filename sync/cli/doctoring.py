"""The command that checks: doctor."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING, TypeVar

import click

from sync.cli.words import counted, faint, plain, say, say_json, strong
from sync.errors import LedgerError, LetterError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from sync.doctor import Finding
    from sync.ledger import Ledger
    from sync.settings import Settings
    from sync.sources.base import Source

T = TypeVar("T")

SCREEN = 90

MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@click.command()
@click.option("--fix", is_flag=True, help="Make what is missing in the destinations, close files to others.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
@click.pass_context
def doctor(ctx: click.Context, fix: bool, as_json: bool) -> None:
    """Check settings, ledger, disk, clock and each destination; say what to do. Exit code 1 when something fails."""
    from sync.doctor import Level, worst

    findings = list(_findings(fix=fix))
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        say(_report(findings))
    ctx.exit(int(worst(findings) is Level.FAIL))


def _report(findings: Sequence["Finding"]) -> Iterator[str]:
    width = max(len(finding.what) for finding in findings)
    bad = [finding for finding in findings if finding.level == "fail"]
    unsure = [finding for finding in findings if finding.level == "warn"]
    if bad:
        yield click.style(f"{counted(len(bad), 'thing')} must be put right.", fg="red", bold=True)
    elif unsure:
        yield click.style(f"Everything works; {counted(len(unsure), 'thing')} could be better.", fg="yellow", bold=True)
    else:
        yield click.style("Everything is in order.", fg="green", bold=True)
    yield ""
    for finding in findings:
        mark, colour = MARKS[finding.level]
        first, *rest = wrap(plain(finding.found), SCREEN - width)
        yield f"  {click.style(mark, fg=colour)} {strong(finding.what.ljust(width))}  {first}"
        yield from (f"    {' ' * width}  {line}" for line in rest)
        if finding.todo:
            first, *rest = wrap(plain(finding.todo), SCREEN - width)
            yield f"    {' ' * width}  {faint('→')} {first}"
            yield from (f"    {' ' * width}    {line}" for line in rest)


def _findings(*, fix: bool) -> Iterator["Finding"]:
    from sync import doctor as checks
    from sync.logs import configure
    from sync.settings import Settings, load

    settings, problem = _tried(lambda: load(Settings))
    if settings is None:
        yield checks.fail("settings", problem, "correct the variables that are named, in the environment or in .env")
        return
    configure(settings.log_format, "error")
    yield checks.ok("settings", f"sources: {', '.join(settings.sources)}; destinations: {_names(settings)}")
    yield from _sources(settings)
    mails = list(_mails(settings))
    can_mail = all(finding.level != "fail" for finding in mails)
    yield from _ledger(settings if can_mail else settings.model_copy(update={"mailer": None}), fix=fix)
    for name in settings.destinations:
        yield from _destination(name, fix=fix)
    if not settings.destinations:
        yield checks.warn("destinations", "there is none: nothing is delivered", "name one in SYNC_DESTINATIONS")
    yield from mails
    if settings.mailer is not None and can_mail:
        yield from _mailer(settings)


def _names(settings: "Settings") -> str:
    return ", ".join(settings.destinations) or "none"


def _tried(work: Callable[[], T]) -> tuple[T | None, str]:
    try:
        return work(), ""
    except (SettingsError, LedgerError, LetterError) as error:
        return None, str(error)


def _sources(settings: "Settings") -> Iterator["Finding"]:
    from sync import doctor as checks

    found, problem = _found_sources(settings)
    if found is None:
        yield checks.fail("sources", problem, "correct the variables that are named")
    else:
        yield from checks.exposure(settings, is_guarded=all(source.is_guarded for source in found.values()))


def _found_sources(settings: "Settings") -> "tuple[dict[str, Source] | None, str]":
    """The sources, with a key of no meaning: a doctor makes no key."""
    from pydantic import SecretStr

    from sync.wiring import sources

    keyed = settings.model_copy(update={"secret_key": settings.secret_key or SecretStr("0" * 32)})
    return _tried(lambda: sources(keyed))


def _ledger(settings: "Settings", *, fix: bool) -> Iterator["Finding"]:
    from sync import doctor as checks
    from sync.wiring import ledger_file, open_ledger

    is_file = settings.ledger.startswith("sqlite:")
    file, problem = _tried(lambda: ledger_file(settings)) if is_file else (None, "")
    if problem:
        yield checks.fail("ledger", problem, "correct SYNC_LEDGER")
        return
    yield checks.secret(settings, None if file is None else file.with_name(file.name + ".key"))
    if file is not None:
        yield from checks.files(file, fix=fix)
        yield from _disk(file, settings)
    if file is None or file.exists():
        opened, problem = _tried(lambda: open_ledger(settings))
        if opened is None:
            yield checks.fail("ledger", problem, "correct what it says; the ledger itself was not changed")
            return
        yield from checks.ledger(opened)
        yield from _silence(settings, opened)
        opened.engine.close()


def _silence(settings: "Settings", opened: "Ledger") -> Iterator["Finding"]:
    """Whether anybody would be told of a source that has gone silent."""
    from sync import doctor as checks

    found, _ = _found_sources(settings)
    for name, source in (found or {}).items():
        yield from checks.silence(opened, name, source.expectation, source.wall)


def _mails(settings: "Settings") -> Iterator["Finding"]:
    """What follow-ups are made of: the rules, the sender, the templates, the address of the links."""
    from sync import doctor as checks
    from sync.followup import FollowupSettings
    from sync.models import MAIL
    from sync.settings import load
    from sync.wiring import SANDBOX, letter_of, mailer

    if settings.mailer is None:
        yield checks.ok(MAIL, "no follow-up emails: SYNC_MAILER is not set")
        return
    _, problem = _tried(lambda: mailer(settings))
    rules, unruly = _tried(lambda: load(FollowupSettings))
    if problem or rules is None:
        yield checks.fail(MAIL, "; ".join(filter(None, (problem, unruly))), "correct the variables that are named")
        return
    letter, problem = _tried(lambda: letter_of(rules, settings))
    _, broken = _tried(lambda: None if letter is None else letter.rehearse())
    if letter is None or broken:
        yield checks.fail(MAIL, problem or broken, "correct what it names")
    else:
        yield checks.followups(rules, mailer=settings.mailer, sender=letter.sender, templates=rules.templates)
    if settings.public_url is None and settings.mailer != SANDBOX:
        yield checks.fail(
            MAIL,
            "SYNC_PUBLIC_URL is not set: the unsubscribe links would lead nowhere",
            "set it to the https address under which this server is reached from outside",
        )
    else:
        yield checks.links(settings.public_url, is_rehearsal=settings.mailer == SANDBOX)


def _mailer(settings: "Settings") -> list["Finding"]:
    from sync import doctor as checks
    from sync.models import MAIL
    from sync.settings import load, variable_of
    from sync.wiring import SANDBOX, SandboxSettings, mailer, mailer_class

    chosen = mailer_class(settings)
    if chosen is None:
        return []
    given = load(chosen.Settings)
    prefix = str(given.model_config.get("env_prefix", ""))
    address = variable_of(type(given), "base_url" if "base_url" in type(given).model_fields else "host")
    is_embedded = settings.mailer == SANDBOX and load(SandboxSettings).embedded

    async def check() -> list["Finding"]:
        checked = mailer(settings)
        if checked is None:
            return []
        try:
            found = await checks.destination(
                checked, address=address, variables=prefix, fix=False, is_embedded=is_embedded
            )
        finally:
            await checked.client.aclose()
        heard = checks.bounces(checked, given, settings.public_url)
        return found if heard is None else [*found, heard]

    found = asyncio.run(check())
    if settings.mailer == SANDBOX and not is_embedded:
        return [*found, checks.warn(MAIL, "`crm-sync serve` does not start the sandbox", "run `crm-sync sandbox`")]
    return found


def _disk(file: "Path", settings: "Settings") -> Iterator["Finding"]:
    from sync import doctor as checks

    if (folder := file.resolve().parent).is_dir():
        yield checks.disk(folder, settings.disk_reserve)


def _destination(name: str, *, fix: bool) -> list["Finding"]:
    from sync import doctor as checks
    from sync.settings import load, variable_of
    from sync.wiring import SANDBOX, SandboxSettings, connect, settings_of

    given, problem = _tried(lambda: load(settings_of(name)))
    if given is None:
        return [checks.fail(name, problem, "correct the variables that are named")]
    is_embedded = name == SANDBOX and isinstance(given, SandboxSettings) and given.embedded
    address, prefix = variable_of(type(given), "base_url"), str(given.model_config.get("env_prefix", ""))

    async def check() -> list["Finding"]:
        checked = connect(name, given)
        try:
            return await checks.destination(
                checked, address=address, variables=prefix, fix=fix, is_embedded=is_embedded
            )
        finally:
            await checked.client.aclose()

    return asyncio.run(check())
