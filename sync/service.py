"""Runs the service: servers, lanes, housekeeping, until a signal ends it."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import structlog
from pydantic import SecretStr

from sync.alarms import Postbox, disk_alarms, review, tell, tell_by_mail
from sync.destinations.base import Destination
from sync.errors import LedgerError, SettingsError
from sync.followup import FollowupSettings
from sync.http import Client
from sync.ledger.pruning import Limits
from sync.ledger.writer import Writer
from sync.logs import escaped
from sync.retention import RetentionSettings, tend
from sync.sandbox.app import build as build_sandbox
from sync.sandbox.store import Store
from sync.settings import Settings, is_loopback, load
from sync.web.app import Health
from sync.web.app import build as build_app
from sync.web.feedback import Feedback
from sync.web.server import Server
from sync.web.unsubscribe import Unsubscribe
from sync.web.webhooks import Webhooks
from sync.wiring import (
    SANDBOX,
    SandboxSettings,
    Service,
    addresses,
    build,
    check_names,
    connect,
    destinations,
    hints,
    is_postgres,
    ledger_folder,
    mailer,
    open_ledger,
    postbox,
    sources,
)

log = structlog.get_logger("sync.service")

LAST_COUNT = 3.0
"""Seconds that a stop waits for the last counts to be written: a database that stands still must not hold it up."""

HOUSEKEEPING = 5.0
"""Seconds between two rounds of housekeeping, and between two looks at whether the writer lives."""


HINTED = 0.02
"""Seconds from one hint of another host to the next that is heeded: many that come at once are one."""


def check_exposure(settings: Settings, host: str) -> None:
    """Refuse to listen to the world without anything to check. Raises SettingsError."""
    for name, source in sources(settings).items():
        if not source.is_guarded and not is_loopback(host):
            upper = name.upper()
            raise SettingsError(
                f"SYNC_HOST is {host}, and nobody could tell a real webhook from a forged one: set "
                f"{upper}_WEBHOOK_SECRET or {upper}_URL_TOKEN first (or listen on 127.0.0.1)"
            )


async def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    dispatch: bool = True,
    announce: Callable[[str, str | None], None] = lambda _url, _sandbox: None,
) -> None:
    """Take webhooks and, unless told otherwise, serve the lanes, until SIGTERM or SIGINT.

    `announce` is called with our address and the sandbox's once requests are taken. Raises LedgerInUse, SettingsError,
    and LedgerError if the ledger's writer ends before we do.
    """
    check_exposure(settings, host)
    stop = _watch()
    async with AsyncExitStack() as stack:
        service = await _start(stack, settings, dispatch=dispatch)
        feedback = _feedback(stack, service, settings)
        webhooks = Webhooks(service.pipeline, service.sources, settings.body_limit, settings.body_timeout, feedback)
        unsubscribe = Unsubscribe(service.writer, addresses(settings), load(FollowupSettings).company)
        folder = ledger_folder(settings)
        health = Health(service.writer, folder, settings.disk_reserve)
        servers = [Server(build_app(webhooks, health, unsubscribe), host, port)]
        sandbox = _sandbox(stack, settings)
        servers += [sandbox] if sandbox is not None else []
        _tune()
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.run())
            for server in servers:
                await server.started()
            if sandbox is not None:
                await _furnish(sandbox.url)
            work = _work(service, settings, webhooks, folder, dispatch=dispatch)
            tasks = [group.create_task(each) for each in work]
            announce(servers[0].url, sandbox.url if sandbox is not None else None)
            await _until_stopped(stop, service.writer)
            log.info("stopping: calls in flight may finish")
            servers[0].stop()
            await service.dispatcher.stop()
            for task in tasks:
                task.cancel()
            for server in servers:
                server.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_COUNT):
                await _count_rejected(service, webhooks)
        _check_alive(service.writer)


async def dispatch_only(settings: Settings) -> None:
    """Serve the lanes until SIGTERM or SIGINT. Raises LedgerInUse, SettingsError, LedgerError."""
    stop = _watch()
    async with AsyncExitStack() as stack:
        service = await _start(stack, settings, dispatch=True)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in _lanes(service, settings)]
            await _until_stopped(stop, service.writer)
            await service.dispatcher.stop()
            for task in tasks:
                task.cancel()
        _check_alive(service.writer)


async def dispatch_once(settings: Settings) -> int:
    """Serve the lanes until nothing is due now; returns how many attempts were made. Raises LedgerInUse."""
    async with AsyncExitStack() as stack:
        service = await _start(stack, settings, dispatch=True)
        await stack.enter_async_context(sandbox_beside(settings))
        return await service.dispatcher.drain()


@asynccontextmanager
async def sandbox_beside(settings: Settings) -> AsyncIterator[None]:
    """The embedded sandbox, for a command: where it is needed, and nobody serves it already."""
    async with AsyncExitStack() as stack:
        sandbox = None if _is_served(load(SandboxSettings).port) else _sandbox(stack, settings)
        if sandbox is None:
            yield
            return
        running = asyncio.create_task(sandbox.run())
        try:
            await sandbox.started()
            await _furnish(sandbox.url)
            yield
        finally:
            sandbox.stop()
            await running


def _is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _feedback(stack: AsyncExitStack, service: Service, settings: Settings) -> dict[str, Feedback]:
    """Where the mailer tells of bounces, if it does."""
    sends = mailer(settings)
    if sends is None:
        return {}
    stack.push_async_callback(sends.client.aclose)
    return {sends.vendor: Feedback(service.writer, addresses(settings), sends)} if sends.hears else {}


def _tune() -> None:
    """Collect garbage seldom: what a webhook leaves behind has no cycles, and a collection holds up all that wait."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _start(stack: AsyncExitStack, settings: Settings, *, dispatch: bool) -> Service:
    """Open everything; what was opened is closed when the stack ends."""
    check_names()
    served: Sequence[Destination] = destinations(settings) if dispatch else ()
    ledger = open_ledger(settings)
    stack.callback(ledger.engine.close)
    ledger.engine.own()
    with ledger.transaction():
        if not ledger.engine.is_shared:
            ledger.take_over()
        elif dispatch:
            ledger.ask_again()
        ledger.set_up_mail()
    service = build(settings, ledger, served)
    stack.callback(service.writer.close)
    for destination in served:
        stack.push_async_callback(destination.client.aclose)
    return service


def _sandbox(stack: AsyncExitStack, settings: Settings) -> Server | None:
    if SANDBOX not in (*settings.destinations, settings.mailer):
        return None
    given = load(SandboxSettings)
    if not given.embedded:
        return None
    file = Path(given.file) if given.file else (ledger_folder(settings) or Path()) / "sandbox.sqlite3"
    store = Store(file)
    stack.callback(store.close)
    return Server(build_sandbox(store), "127.0.0.1", given.port)


async def _furnish(url: str, token: str | None = None) -> None:
    """Give the sandbox the custom property that `doctor --fix` would give a real CRM."""
    given = load(SandboxSettings)
    changed = {"base_url": url} if token is None else {"base_url": url, "access_token": SecretStr(token)}
    destination = connect(SANDBOX, given.model_copy(update=changed))
    try:
        await destination.repair()
    finally:
        await destination.client.aclose()


def _work(
    service: Service, settings: Settings, webhooks: Webhooks, folder: Path | None, *, dispatch: bool
) -> list[Coroutine[object, object, None]]:
    keeping = _housekeeping(service, settings, webhooks, folder, load(RetentionSettings).limits)
    return [keeping, *_lanes(service, settings)] if dispatch else [keeping]


def _lanes(service: Service, settings: Settings) -> list[Coroutine[object, object, None]]:
    lanes = service.dispatcher.run()
    return [lanes, _listen(service, settings)] if is_postgres(settings) else [lanes]


async def _listen(service: Service, settings: Settings) -> None:
    """Let the lanes look for work as soon as another host hints that there is some."""
    while True:
        try:
            async for _ in hints(settings):
                service.dispatcher.wake()
                await asyncio.sleep(HINTED)
        except LedgerError as error:
            log.debug("no hints for a while; the lanes look by themselves", reason=str(error))
        await asyncio.sleep(HOUSEKEEPING)


async def _housekeeping(
    service: Service, settings: Settings, webhooks: Webhooks, folder: Path | None, limits: Limits
) -> None:
    """Count what was refused, look after the alarms, prune."""
    url = settings.alarm_url.get_secret_value() if settings.alarm_url is not None else None
    client = Client(url, timeout=10, connections=1) if url is not None else None
    box = postbox(settings)
    try:
        while True:
            try:
                await _round(service, settings, webhooks, folder, client, box)
                await tend(service.writer, limits)
            except LedgerError as error:
                log.error("housekeeping has to wait", reason=str(error))
            except Exception:
                # Whatever a stranger's alarm URL answers, or the disk says, must not end the taking of webhooks.
                log.exception("a round of housekeeping failed")
            await asyncio.sleep(HOUSEKEEPING)
    finally:
        if client is not None:
            await client.aclose()
        if box is not None:
            await box.mailer.client.aclose()


async def _round(
    service: Service,
    settings: Settings,
    webhooks: Webhooks,
    folder: Path | None,
    client: Client | None,
    box: Postbox | None,
) -> None:
    disk = disk_alarms(folder, settings.disk_reserve) if folder is not None else {}
    expected = {name: rule for name, source in service.sources.items() if (rule := source.expectation) is not None}
    await _count_rejected(service, webhooks)
    news = await service.writer.do(lambda ledger: review(ledger, disk, expected))
    if client is not None:
        await tell(client, service.writer, news)
    if box is not None:
        await tell_by_mail(box, service.writer)


async def _count_rejected(service: Service, webhooks: Webhooks) -> None:
    """Move the counts of refused requests into the ledger, where `status` shows them, and those of authentic ones."""
    counted = dict(webhooks.rejected + webhooks.heard - webhooks.counted)
    if not counted:
        return
    webhooks.counted.update(counted)  # before it is: who is cut off while waiting cannot tell, and must not count twice
    try:
        await service.writer.do(lambda ledger: ledger.count(counted))
    except LedgerError as error:
        webhooks.counted.subtract(counted)
        log.warning("refused requests are counted later", reason=str(error))


def _watch() -> asyncio.Event:
    """What SIGTERM and SIGINT set. Asked for first of all: a signal that comes during the start ends it cleanly too."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(escaped)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    return stop


async def _until_stopped(stop: asyncio.Event, writer: Writer) -> None:
    """Return at a signal, or when the thread that writes has ended: without it nothing can be taken or delivered."""
    while not stop.is_set() and writer.is_alive:
        with suppress(TimeoutError):
            async with asyncio.timeout(HOUSEKEEPING):
                await stop.wait()


def _check_alive(writer: Writer) -> None:
    if not writer.is_alive:
        raise LedgerError("the thread that writes the ledger has ended; start the service again")


async def sandbox_only(
    file: Path, port: int, *, limit: int | None, token: str | None, announce: Callable[[str], None]
) -> None:
    """Serve the imitation CRM until SIGTERM or SIGINT. `limit` is in calls per 10 seconds."""
    stop = _watch()
    store = Store(file)
    app = build_sandbox(store, token=token)
    server = Server(app, "127.0.0.1", port)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started()
        await _furnish(server.url, token)
        app.state.limit.calls = limit
        announce(server.url)
        await stop.wait()
        server.stop()
    store.close()
