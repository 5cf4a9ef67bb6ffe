"""The one place where concrete classes meet settings."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sync.addresses import Addresses
from sync.alarms import Postbox
from sync.destinations.base import Destination
from sync.destinations.hubspot import HubSpot, HubSpotSettings
from sync.destinations.mail.base import Mailer
from sync.destinations.mail.brevo import Brevo
from sync.destinations.mail.postmark import Postmark
from sync.destinations.mail.resend import Resend
from sync.destinations.mail.sandbox import SandboxMail
from sync.destinations.mail.smtp import Smtp
from sync.destinations.webhook import Webhook
from sync.dispatcher import Dispatcher, Lane
from sync.errors import LedgerError, Postponed, SettingsError
from sync.followup import FollowupSettings
from sync.http import Transport, send_by
from sync.ids import new_id
from sync.ledger import Ledger
from sync.ledger.engine import Engine
from sync.ledger.erasing import Erasures
from sync.ledger.mailing import Mailing
from sync.ledger.sqlite import SqliteEngine
from sync.ledger.writer import Writer
from sync.letter import Letter
from sync.models import MAIL, Chat, Contact, Email, Kind
from sync.pipeline import Pipeline, has_begun
from sync.retention import RetentionSettings
from sync.secret import digest, key_beside
from sync.settings import FromEnvironment, Settings, load, unknown_names
from sync.sources.acquire import Acquire, AcquireSettings
from sync.sources.base import Digest, Source

VENDORS: tuple[type[Destination], ...] = (HubSpot, Webhook)
"""Every destination there is. A new one is its file, and its name here."""

MAILERS: tuple[type[Mailer], ...] = (Smtp, Resend, Brevo, Postmark, SandboxMail)
"""Every mailer there is, likewise."""

SANDBOX = "sandbox"

PATIENCE = 10.0
"""Seconds that an attempt waits for its place in a limit of calls: fewer than calls in flight get at shutdown."""

MARGIN = 1.0
"""Seconds that an attempt needs from its place to the moment after which it must not send."""

Clock = Callable[[], float]


class SandboxSettings(HubSpotSettings):
    """The imitation CRM: reached like HubSpot, on this machine."""

    model_config = SettingsConfigDict(env_prefix="SANDBOX_")

    base_url: str = "http://127.0.0.1:8901"
    access_token: SecretStr = SecretStr("sandbox")
    file: str | None = None
    embedded: bool = True
    uid_property: str | None = "chat_crm_sync_uid"
    calls_per_10s: float = Field(190, gt=0)
    search_lag: float = Field(1.0, ge=0)

    @property
    def port(self) -> int:
        """The port that the imitation listens on."""
        return urlsplit(self.base_url).port or 80


def settings_of(destination: str) -> type[FromEnvironment]:
    """The settings class of a destination by its name. Raises SettingsError for a name that nobody has."""
    known = {vendor.vendor: vendor.Settings for vendor in VENDORS} | {SANDBOX: SandboxSettings}
    if destination not in known:
        raise SettingsError(f"SYNC_DESTINATIONS names {destination!r}, which is none of {', '.join(sorted(known))}")
    return known[destination]


def check_names() -> None:
    """Refuse a `.env` that names what is no setting: a typo would leave something unset. Raises SettingsError."""
    groups: list[type[FromEnvironment]] = [
        Settings,
        AcquireSettings,
        SandboxSettings,
        FollowupSettings,
        RetentionSettings,
    ]
    groups += [vendor.Settings for vendor in (*VENDORS, *MAILERS)]
    for name, meant in unknown_names(groups).items():
        hint = f"; did you mean {meant}?" if meant is not None else ""
        raise SettingsError(f".env names {name}, which is no setting{hint}")


def mailer_class(settings: Settings) -> type[Mailer] | None:
    """The mailer that SYNC_MAILER names. Raises SettingsError for a name that nobody has."""
    if settings.mailer is None:
        return None
    known = {mailer.vendor: mailer for mailer in MAILERS}
    if settings.mailer not in known:
        raise SettingsError(f"SYNC_MAILER names {settings.mailer!r}, which is none of {', '.join(known)}")
    return known[settings.mailer]


def mailing(settings: Settings) -> Mailing | None:
    """How follow-ups are decided and written, or None where no mailer is set. Raises SettingsError, LetterError."""
    mailer = mailer_class(settings)
    if mailer is None:
        return None
    rules = load(FollowupSettings)
    known = addresses(settings)
    public_url = (settings.public_url or _own_address(settings)).rstrip("/")
    letter = letter_of(rules, settings)

    def write(chat: Chat, contact: Contact, key: str, at: float) -> Email:
        to = contact.email or ""
        url = f"{public_url}/unsubscribe/{known.token(to)}"
        return letter.write(chat, contact, to=to, key=key, at=at, unsubscribe_url=url)

    return Mailing(settings.mailer or "", mailer.repeatable_for, rules, known.hash, known.digest, write)


def letter_of(rules: FollowupSettings, settings: Settings) -> Letter:
    """The follow-up as the settings have it. Raises SettingsError, LetterError."""
    sender = rules.sender or ("Our support <support@example.com>" if settings.mailer == SANDBOX else None)
    if sender is None:
        raise SettingsError("FOLLOWUP_FROM has to be set where SYNC_MAILER is: whom the mails are from")
    return Letter(
        sender=sender,
        subject=rules.subject,
        templates=rules.templates,
        reply_to=rules.reply_to,
        company=rules.company,
        transcript=rules.transcript,
        timezone=rules.timezone,
    )


def _own_address(settings: Settings) -> str:
    """Where the unsubscribe links lead when SYNC_PUBLIC_URL is not set: good enough for the sandbox only."""
    if settings.mailer != SANDBOX:
        raise SettingsError("SYNC_PUBLIC_URL has to be set where SYNC_MAILER is: the unsubscribe link leads there")
    return f"http://127.0.0.1:{settings.port}"


def erasures(settings: Settings) -> Erasures:
    """Whom we were asked to forget."""
    return Erasures(digest(secret_key(settings)))


def addresses(settings: Settings) -> Addresses:
    """The keyed hashes of addresses."""
    return Addresses(digest(secret_key(settings)))


def mailer(settings: Settings, *, clock: Clock = time.time, transport: Transport | None = None) -> Mailer | None:
    """The configured mailer, or None. Raises SettingsError."""
    chosen = mailer_class(settings)
    return None if chosen is None else chosen.connect(load(chosen.Settings), clock=clock, transport=transport)


def postbox(settings: Settings, *, clock: Clock = time.time, transport: Transport | None = None) -> Postbox | None:
    """Where alarms go by mail, or None where SYNC_ALARM_EMAIL is not set. Raises SettingsError."""
    sends = mailer(settings, clock=clock, transport=transport) if settings.alarm_email is not None else None
    if sends is None or settings.alarm_email is None:
        return None
    return Postbox(sends, settings.alarm_email, letter_of(load(FollowupSettings), settings).sender)


def vendor_of(destination: str) -> type[Destination]:
    """The class that serves a destination of this name."""
    return next((vendor for vendor in VENDORS if vendor.vendor == destination), HubSpot)


def takers(settings: Settings) -> dict[str, frozenset[Kind]]:
    """Which configured destination takes which kinds."""
    for name in settings.destinations:
        settings_of(name)
    taking = {name: vendor_of(name).takes for name in settings.destinations}
    return taking if settings.mailer is None else {**taking, MAIL: frozenset({Kind.EMAIL})}


def ledger_file(settings: Settings) -> Path:
    """The file of an SQLite ledger. Raises SettingsError for anything else."""
    prefix = "sqlite:///"
    if not settings.ledger.startswith(prefix) or settings.ledger == prefix:
        raise SettingsError(
            "SYNC_LEDGER must be sqlite:///FILE (four slashes for an absolute path) or postgresql://USER@HOST/DATABASE"
        )
    return Path(settings.ledger.removeprefix(prefix))


def is_postgres(settings: Settings) -> bool:
    """Whether the ledger is on a PostgreSQL server."""
    return settings.ledger.startswith(("postgresql://", "postgres://"))


def ledger_folder(settings: Settings) -> Path | None:
    """The folder of the ledger's file; None where it is on a server."""
    return None if is_postgres(settings) else ledger_file(settings).resolve().parent


def open_engine(settings: Settings, clock: Clock = time.time) -> Engine:
    """The database that SYNC_LEDGER names, as it is. Raises LedgerError, SettingsError."""
    if not is_postgres(settings):
        return SqliteEngine(ledger_file(settings), clock=clock)
    try:
        from sync.ledger.postgres import PostgresEngine
    except ImportError:
        raise SettingsError(
            "SYNC_LEDGER names a PostgreSQL server, and its driver is not installed: "
            "pip install 'chat-crm-sync[postgres]'"
        ) from None
    return PostgresEngine(settings.ledger)


def hints(settings: Settings) -> AsyncIterator[None]:
    """Hints of other hosts that something may be due. Only for a ledger on a server. Raises LedgerUnavailable."""
    from sync.ledger.postgres import hints as of_server

    return of_server(settings.ledger)


def open_ledger(settings: Settings, *, clock: Clock = time.time) -> Ledger:
    """The ledger, brought up to date. Raises LedgerError, SettingsError."""
    engine = open_engine(settings, clock)
    engine.migrate()
    return Ledger(engine, takers(settings), new_id=new_id, mailing=mailing(settings), erasures=erasures(settings))


def secret_key(settings: Settings) -> bytes:
    """The key of all keyed hashes."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    if is_postgres(settings):
        raise SettingsError("SYNC_SECRET_KEY has to be set, the same on all hosts, where the ledger is on a server")
    return key_beside(ledger_file(settings))


def sources(settings: Settings) -> dict[str, Source]:
    """The configured sources by name."""
    known: dict[str, Callable[[Digest], Source]] = {
        Acquire.name: lambda keyed: Acquire(load(AcquireSettings), digest=keyed, phone_region=settings.phone_region)
    }
    for name in settings.sources:
        if name not in known:
            raise SettingsError(f"SYNC_SOURCES names {name!r}, which is none of {', '.join(known)}")
    keyed = digest(secret_key(settings))
    return {name: known[name](keyed) for name in settings.sources}


def connect(
    name: str,
    given: Any,
    *,
    clock: Clock = time.time,
    transport: Transport | None = None,
    blip: float = 1.0,
) -> Destination:
    """One destination with its HTTP client."""
    vendor = vendor_of(name)
    client = vendor.client_for(given, clock=clock, transport=transport, blip=blip)
    return vendor(name, given, client, clock=clock)


def destinations(settings: Settings, *, clock: Clock = time.time) -> list[Destination]:
    """The configured destinations, the mailer among them. Raises SettingsError."""
    served = [connect(name, load(settings_of(name)), clock=clock) for name in settings.destinations]
    sends = mailer(settings, clock=clock)
    return served if sends is None else [*served, sends]


@dataclass
class Service:
    """Everything that runs, put together."""

    settings: Settings
    ledger: Ledger
    writer: Writer
    pipeline: Pipeline
    dispatcher: Dispatcher
    sources: Mapping[str, Source]


def build(
    settings: Settings,
    ledger: Ledger,
    served: Sequence[Destination],
    *,
    clock: Clock = time.time,
    random: Random | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Service:
    """Put a service together on an open ledger. Inside a running event loop."""
    writer = Writer(ledger)
    pipeline = Pipeline(writer, clock, new_id, random or Random(), settings.retry_for)  # noqa: S311 - jitter, no secret
    dispatcher = Dispatcher([Lane(pipeline, destination) for destination in served])
    for lane in dispatcher.lanes:
        _pace(lane, writer, clock, sleep)
    writer.on_commit = dispatcher.wake
    return Service(settings, ledger, writer, pipeline, dispatcher, sources(settings))


def paced(destination: Destination, ledger: Ledger, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Let every call of a command wait for its place in the limit that it shares with the running service."""
    pace = destination.pace(destination.settings)
    if pace is None:
        return

    async def gate() -> None:
        with ledger.transaction():
            wait = ledger.take_pace(destination.name, pace.interval, pace.burst)
        if wait > 0:
            await sleep(wait)

    destination.client.gate = gate


def _pace(lane: Lane, writer: Writer, clock: Clock, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Let every call of a destination wait for its place in the published limit, if that is near.

    A place that is far away is not taken: the attempt would outlive its lease, or a shutdown, while it waits. Only who
    has made a call already waits for the next one as long as the lease allows.
    """
    destination = lane.destination
    pace = destination.pace(destination.settings)
    if pace is None:
        return

    async def gate() -> None:
        left = max(send_by.get() - clock() - MARGIN, 0.0)
        within = left if has_begun.get() else min(PATIENCE, left)
        try:
            wait = await writer.do(lambda ledger: ledger.take_pace(destination.name, pace.interval, pace.burst, within))
        except LedgerError as error:
            raise Postponed("the ledger could not be asked for a place in the limit of calls") from error
        if wait > within:
            lane.hold(wait - within)
            raise Postponed("its place in the limit of calls comes later", after=wait)
        has_begun.set(True)
        if wait > 0:
            await sleep(wait)

    destination.client.gate = gate
