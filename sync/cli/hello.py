"""The command `hello`: the documented chat start, all the way to the CRM, before your eyes."""

import asyncio
import json
import os
import sys
from importlib.resources import files
from typing import Any

import click

from sync.cli.serving import run
from sync.errors import DeliveryError, NotFound, SettingsError
from sync.followup import FollowupSettings
from sync.http import Client
from sync.settings import Settings, load
from sync.simulation.playing import Endpoint
from sync.sources.acquire import AcquireSettings
from sync.wiring import SANDBOX, SandboxSettings

PATIENCE = 20.0
"""Seconds that the contact may take to arrive."""


@click.command()
def hello() -> None:
    """Play the chat start that Acquire documents against the running service, and show the contact it became.

    Only with the sandbox: the person in the example must not get into a real CRM.
    """
    settings = load(Settings)
    if tuple(settings.destinations) != (SANDBOX,):
        raise SettingsError("hello works with SYNC_DESTINATIONS=sandbox only: its visitor belongs in no real CRM")
    if settings.mailer not in (None, SANDBOX):
        raise SettingsError("hello works with SYNC_MAILER=sandbox, or none: its visitor must get no real mail")
    run(_hello(settings))


async def _hello(settings: Settings) -> None:
    body = files("sync.cli").joinpath("chat-start.json").read_bytes()
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    service = Client(f"http://{host}:{settings.port}", timeout=5)
    crm = Client(load(SandboxSettings).base_url, headers={"Authorization": "Bearer sandbox"}, timeout=5)
    try:
        applied = await _send(service, body)
        email = json.loads(body)["data"]["details"]["email"]
        contact = await _arrived(crm, email)
    finally:
        await service.aclose()
        await crm.aclose()
    _show(applied, contact, typed=email, sandbox=crm.base_url, mails=settings.mailer is not None)


async def _send(service: Client, body: bytes) -> dict[str, Any]:
    given = load(AcquireSettings)
    endpoint = Endpoint(
        service.base_url,
        secret=given.webhook_secret.get_secret_value() if given.webhook_secret is not None else None,
        token=given.url_token.get_secret_value() if given.url_token is not None else None,
    )
    headers = {"Content-Type": "application/JSON", **endpoint.headers(body)}
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    answer = await service.call("POST", endpoint.path, content=body, headers=headers)
                    break
                except DeliveryError:
                    await asyncio.sleep(0.2)
    except TimeoutError:
        raise NotFound(f"nothing answers at {service.base_url}: start it with `crm-sync serve`") from None
    if answer.status != 200:
        raise NotFound(f"{service.base_url} answered {answer.status}: is it crm-sync that listens there?")
    applied: dict[str, Any] = answer.json()
    return applied


async def _arrived(crm: Client, email: str) -> dict[str, Any]:
    asked = {
        "properties": ["firstname", "lastname", "email", "phone"],
        "idProperty": "email",
        "inputs": [{"id": email}],
    }
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await crm.call("POST", "/crm/v3/objects/contacts/batch/read", json=asked)
                if found := (answer.json() or {}).get("results"):
                    contact: dict[str, Any] = found[0]
                    return contact
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise NotFound("the contact did not arrive in the sandbox: `crm-sync status` says why") from None
    except DeliveryError as error:
        raise NotFound(f"the sandbox CRM at {crm.base_url} does not answer: {error.reason}") from None


def _show(applied: dict[str, Any], contact: dict[str, Any], *, typed: str, sandbox: str, mails: bool) -> None:
    said = contact["properties"]
    name = " ".join(filter(None, (said.get("firstname"), said.get("lastname"))))
    tick = click.style("✓", fg="green") if sys.stdout.isatty() else "✓"
    click.echo(f"{tick} The chat start that Acquire documents was sent to us:  {applied['status']}, {applied['event']}")
    click.echo(f"{tick} It stands in the sandbox CRM as contact {contact['id']}:")
    click.echo(f"      name   {name}")
    click.echo(f"      email  {said.get('email')}   (typed as {typed}; like HubSpot, the sandbox keeps lower case)")
    click.echo("")
    command = os.path.relpath(sys.argv[0]) if os.sep in sys.argv[0] else "crm-sync"
    click.echo(f"Look at it:           {sandbox}/contacts/{contact['id']}")
    click.echo(f"See what was done:    {command} status")
    click.echo(f"Play more chats:      {command} simulate --chats 50")
    if mails:
        click.echo(f"Play one to its end:  {command} simulate --chats 1")
        click.echo(f"                      {load(FollowupSettings).delay:.0f} s after it a mail is at {sandbox}/outbox")
