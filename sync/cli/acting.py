"""The commands that act on what is stored: replay, dismiss, owe."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sync.cli.opening import opened
from sync.cli.words import counted, plain, say

if TYPE_CHECKING:
    from sync.ledger import Ledger
    from sync.reconcile import Replayed

FOLLOWS = "A running `crm-sync serve` delivers it now; without one: crm-sync dispatch --once"


@click.command()
@click.option("--dead", metavar="DESTINATION", help="Try again what a destination refused for good.")
@click.option("--unreadable", is_flag=True, help="Read the webhooks again that could not be read.")
@click.option("--event", metavar="ID", help="Read one event again.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.pass_context
def replay(ctx: click.Context, dead: str | None, unreadable: bool, event: str | None, dry_run: bool) -> None:
    """Apply once more what is stored. It can only repair: nothing newer is ever undone.

    Exit code 1 when something is left that could not be read or applied.
    """
    if sum((dead is not None, unreadable, event is not None)) != 1:
        raise click.UsageError("say what to replay: --dead DESTINATION, --unreadable or --event ID")
    if dead is not None:
        _replay_dead(dead, dry_run=dry_run)
    else:
        ctx.exit(_replay_events(event, dry_run=dry_run))


def _replay_dead(destination: str, *, dry_run: bool) -> None:
    from sync.reconcile import replay_dead

    with opened() as (_, ledger):
        n = replay_dead(ledger, destination, dry_run=dry_run)
    amount = _deliveries(n)
    if not n:
        say([f"Nothing is dead at {destination}."])
    elif dry_run:
        say([f"{amount} would be tried again at {destination}."])
    else:
        say([f"{amount} to {destination} will be tried again.", FOLLOWS])


def _replay_events(event: str | None, *, dry_run: bool) -> int:
    from sync.reconcile import replay_events
    from sync.wiring import sources

    with opened() as (settings, ledger):
        done = replay_events(ledger, sources(settings), event=event, dry_run=dry_run)
    say(_told(done, dry_run=dry_run))
    return int(bool(done.left))


def _told(done: "Replayed", *, dry_run: bool) -> Iterator[str]:
    if not (done.read or done.same or done.left):
        yield "Every webhook could be read: there is nothing to replay."
    if done.read:
        was = "was" if done.read == 1 else "were"
        yield f"{counted(done.read, 'event')} {'would be' if dry_run else was} read and applied."
    if done.same:
        says = "says" if done.same == 1 else "say"
        yield f"{counted(done.same, 'event')} {says} the same as another: nothing changes."
    for reason, n in done.left.most_common():
        yield f"{counted(n, 'event')} {'stays' if n == 1 else 'stay'} as before: {plain(reason, 200)}."
    if done.read and not dry_run:
        yield FOLLOWS


@click.command()
@click.argument("wanted", metavar="[ID]", required=False)
@click.option("--alike", is_flag=True, help="And whatever was refused for the same reason as the delivery ID.")
@click.option("--dead", metavar="DESTINATION", help="Everything that a destination refused for good.")
@click.option("--unreadable", is_flag=True, help="Every webhook that could not be read.")
def dismiss(wanted: str | None, alike: bool, dead: str | None, unreadable: bool) -> None:
    """Say of what was refused or could not be read that nothing is to be done about it.

    It stays on file with its reason, but neither `status` nor an alarm asks for you any more. ID is that of a delivery
    or an event. A newer word about the same person is sent all the same.
    """
    if sum((wanted is not None, dead is not None, unreadable)) != 1:
        raise click.UsageError("say what to dismiss: ID, --dead DESTINATION or --unreadable")
    if alike and wanted is None:
        raise click.UsageError("--alike goes with the ID of a delivery")
    from sync.reconcile import check_configured

    with opened() as (_, ledger):
        if dead is not None:
            check_configured(ledger, dead)
        with ledger.transaction():
            line = _dismissed(ledger, wanted, dead, alike=alike)
    say([line])


def _dismissed(ledger: "Ledger", wanted: str | None, dead: str | None, *, alike: bool) -> str:
    from sync.ledger import dismissing

    if wanted is not None and alike:
        return f"{_deliveries(dismissing.dismiss_alike(ledger, wanted))} dismissed."
    if wanted is not None:
        return f"Dismissed: {plain(dismissing.dismiss_one(ledger, wanted), 200)}"
    if dead is not None:
        n = dismissing.dismiss_dead(ledger, dead)
        return f"{_deliveries(n)} to {dead} dismissed." if n else f"Nothing is dead at {dead}."
    n = dismissing.dismiss_unreadable(ledger)
    return f"{counted(n, 'webhook')} dismissed." if n else "Every webhook could be read: there is nothing to dismiss."


def _deliveries(n: int) -> str:
    return "1 delivery" if n == 1 else f"{n:,} deliveries"


@click.command()
@click.argument("destination")
def owe(destination: str) -> None:
    """Promise everybody there is to DESTINATION: what a new one needs. What it has already is left alone."""
    from sync.reconcile import owe_everybody

    with opened() as (_, ledger):
        owed = owe_everybody(ledger, destination)
    if owed.contacts or owed.chats:
        what = " and ".join(counted(n, noun) for n, noun in ((owed.contacts, "contact"), (owed.chats, "chat")) if n)
        say([f"{what} {'is' if owed.contacts + owed.chats == 1 else 'are'} now owed to {destination}.", FOLLOWS])
    elif owed.seen:
        say([f"{destination} is owed everybody already: nothing changed."])
    else:
        say(["There is nobody to owe yet."])
