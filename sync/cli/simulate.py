"""The command that plays made-up chats against a running server."""

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

import click

from sync.cli.serving import run
from sync.errors import SettingsError, SyncError
from sync.settings import DestinationSettings, Settings, is_loopback, load
from sync.simulation import MOST_CHATS, Conversation, conversations, in_order
from sync.simulation.playing import Endpoint, Played, play
from sync.sources.acquire import AcquireSettings
from sync.sources.acquire.dates import zone

SEEDS = 1_000_000
SHARE = click.FloatRange(0, 1)


@click.command()
@click.option("--chats", type=click.IntRange(1, MOST_CHATS), default=100, show_default=True, help="How many chats.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Webhooks per second [as fast as it answers].")
@click.option("--duplicates", type=SHARE, default=0.1, show_default=True, help="Share of webhooks delivered twice.")
@click.option("--repeat-visitors", type=SHARE, default=0.3, show_default=True, help="Share of chats by known people.")
@click.option(
    "--seed", type=click.IntRange(0), help="Which people and chats; each seed has its own [another each time]."
)
@click.option("--email", help="Whose chats they all are [made-up people].")
@click.option("--url", help="The server [SYNC_HOST and SYNC_PORT of this machine].")
@click.option(
    "--into-real-crm", is_flag=True, help="Allow it although made-up people would get into a real CRM, and mail."
)
def simulate(
    chats: int,
    rate: float | None,
    duplicates: float,
    repeat_visitors: float,
    seed: int | None,
    email: str | None,
    url: str | None,
    into_real_crm: bool,
) -> None:
    """Play made-up chats against a running server, as Acquire would send them.

    Everybody lives at example.com. The last chat is over just now, so that its follow-up becomes due. With
    ACQUIRE_WEBHOOK_SECRET the webhooks are signed, with ACQUIRE_URL_TOKEN they carry the token. The exit code is 3 if
    any webhook was never acknowledged.
    """
    settings, acquire = load(Settings), load(AcquireSettings)
    url = url or f"http://127.0.0.1:{settings.port}"
    if not into_real_crm:
        refuse_real_crms(settings, url)
    seed = random.randrange(SEEDS) if seed is None else seed  # noqa: S311 - any other seed does
    told = conversations(
        seed,
        chats=chats,
        now=time.time(),
        duplicates=duplicates,
        repeat_visitors=repeat_visitors,
        zone=zone(acquire.timezone),
        email=email,
    )
    secret, token = acquire.webhook_secret, acquire.url_token
    endpoint = Endpoint(
        url,
        secret=secret.get_secret_value() if secret is not None else None,
        token=token.get_secret_value() if token is not None else None,
    )
    click.echo(f"seed {seed}: {chats} chats against {url}", err=True)
    people: set[str] = set()
    with _progress(chats) as count:
        played = run(play(in_order(_counted(told, people, count)), endpoint, rate=rate))
    click.echo(summary(played, people=len(people)))
    if played.never:
        raise SyncError(complaint(played))


def refuse_real_crms(settings: Settings, url: str) -> None:
    """Refuse unless everything stays on this machine. Raises SettingsError."""
    from sync.wiring import SANDBOX, settings_of

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"--url is no http(s) address: {url}")
    if settings.mailer not in (None, SANDBOX):
        raise SettingsError(
            f"SYNC_MAILER is {settings.mailer}, and made-up people would get real mail: "
            "set SYNC_MAILER=sandbox, or add --into-real-crm if that is what you want"
        )
    given = [(name, load(settings_of(name))) for name in settings.destinations]
    places = {name: urlsplit(each.base_url).hostname for name, each in given if isinstance(each, DestinationSettings)}
    for name, host in (("the server", parts.hostname), *places.items()):
        if not is_loopback(host or ""):
            raise SettingsError(
                f"{name} is at {host}, not on this machine, and made-up people would get into a real CRM: "
                "set SYNC_DESTINATIONS=sandbox, or add --into-real-crm if that is what you want"
            )


def summary(played: Played, *, people: int) -> str:
    """What was sent and what became of it, for a person."""
    answers = played.answers
    refused = played.refused.total()
    others = {status: n for status, n in answers.items() if status not in ("accepted", "duplicate")}
    parts = [
        f"{answers['accepted']} accepted",
        f"{answers['duplicate']} duplicates",
        *(f"{n} {status}" for status, n in sorted(others.items())),
        f"{refused} refused" + (f" ({_by_status(played)})" if refused else ""),
        *([f"{played.never} never acknowledged"] if played.never else []),
    ]
    return (
        f"sent {played.sent} webhooks about {people} people: {', '.join(parts)}\n"
        f"{played.took:.1f} seconds, {played.per_second:,.0f} events per second"
    )


def complaint(played: Played) -> str:
    """Why some webhooks were never acknowledged, in a sentence."""
    worst = max(played.refused, key=lambda status: played.refused[status], default=0)
    reasons = {
        0: "nobody answered; is `crm-sync serve` running there?",
        401: "the server wants another secret or token: set ACQUIRE_WEBHOOK_SECRET or ACQUIRE_URL_TOKEN as it has it",
        403: "without a secret or a token the server takes only direct calls under its own name",
        404: "there is no /webhooks/acquire at this address",
    }
    return reasons.get(worst, f"the server kept answering {worst}")


def _by_status(played: Played) -> str:
    return ", ".join(f"{n} times {status or 'no answer'}" for status, n in sorted(played.refused.items()))


def _counted(told: Iterator[Conversation], people: set[str], count: Callable[[int], None]) -> Iterator[Conversation]:
    for conversation in told:
        people.add(conversation.person.id)
        count(1)
        yield conversation


def _progress(chats: int) -> AbstractContextManager[Callable[[int], None]]:
    return _bar(chats) if sys.stderr.isatty() else _lines(chats)


@contextmanager
def _bar(chats: int) -> Iterator[Callable[[int], None]]:
    with click.progressbar(length=chats, label="chats", file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def _lines(chats: int) -> Iterator[Callable[[int], None]]:
    begun = 0

    def count(more: int) -> None:
        nonlocal begun
        begun += more
        if begun * 10 // chats > (begun - more) * 10 // chats:
            click.echo(f"{begun} of {chats} chats", err=True)

    yield count
