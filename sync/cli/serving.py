"""The commands that run: serve, dispatch, sandbox."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from sync.logs import configure
from sync.settings import Settings, load
from sync.sources.acquire import AcquireSettings

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run something on the fastest event loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _settings() -> Settings:
    settings = load(Settings)
    configure(settings.log_format, settings.log_level)
    return settings


@click.command()
@click.option("--host", help="Address to listen on [SYNC_HOST].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on [SYNC_PORT].")
@click.option(
    "--no-dispatch",
    is_flag=True,
    help="Only take webhooks. With PostgreSQL, `crm-sync dispatch` delivers meanwhile; on SQLite once this has ended.",
)
def serve(host: str | None, port: int | None, no_dispatch: bool) -> None:
    """Take webhooks and deliver contacts, until stopped."""
    from sync.service import serve as serve_until_stopped

    settings = _settings()
    run(
        serve_until_stopped(
            settings,
            host=host or settings.host,
            port=settings.port if port is None else port,
            dispatch=not no_dispatch,
            announce=_announce,
        )
    )


def _announce(url: str, sandbox: str | None) -> None:
    given = load(AcquireSettings)
    token = "/YOUR-ACQUIRE_URL_TOKEN" if given.url_token is not None and given.webhook_secret is None else ""
    click.echo(f"crm-sync listens on {url}/webhooks/acquire{token}", err=True)
    if sandbox is not None:
        click.echo(f"the sandbox CRM is at   {sandbox}/", err=True)


@click.command()
@click.option("--once", is_flag=True, help="End when nothing is due now (for cron).")
def dispatch(once: bool) -> None:
    """Only deliver what is owed."""
    from sync.service import dispatch_once, dispatch_only

    settings = _settings()
    if once:
        click.echo(f"{run(dispatch_once(settings))} attempts made; nothing more is due now")
    else:
        run(dispatch_only(settings))


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, loopback only [SANDBOX_BASE_URL].")
@click.option("--file", type=click.Path(path_type=Path), default=Path("sandbox.sqlite3"), show_default=True)
@click.option("--limit", type=int, help="Calls per 10 seconds before it answers 429.")
@click.option("--token", help="The access token it asks for.")
def sandbox(port: int | None, file: Path, limit: int | None, token: str | None) -> None:
    """Only run the imitation CRM, for trying things out and for measuring."""
    from sync.service import sandbox_only
    from sync.wiring import SandboxSettings

    def announce(url: str) -> None:
        click.echo(f"the sandbox CRM is at {url}/", err=True)

    at = load(SandboxSettings).port if port is None else port
    run(sandbox_only(file, at, limit=limit, token=token, announce=announce))
