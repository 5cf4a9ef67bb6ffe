"""The commands that look: status, contacts, show, duplicates."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from sync.cli.opening import opened
from sync.cli.words import counted, faint, plain, say, say_json, strong, table, when

MOST = 10
"""Pairs of each sort that are shown."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")


@click.command()
@as_json
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """How everything stands, on one screen. Exit code 1 when something needs a person."""
    from sync.cli.screen import needs_person, screen
    from sync.ledger import reporting

    with opened() as (_, ledger):
        found, now = reporting.status(ledger), ledger.engine.now
    if as_json:
        say_json(found)
    else:
        say(screen(found, now))
    ctx.exit(int(needs_person(found)))


@click.command()
@click.argument("query", default="")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@as_json
def contacts(query: str, limit: int, as_json: bool) -> None:
    """The people whose name, email or phone holds QUERY, the newest first."""
    from sync.ledger import reporting

    with opened() as (_, ledger):
        found, now = reporting.contacts(ledger, query, limit), ledger.engine.now
    if as_json:
        say_json(found)
    elif found:
        say(_people(found, limit, now))
    else:
        say([f"Nobody's name, email or phone holds {plain(query)}." if query else "There are no contacts yet."])


def _people(found: Sequence[Mapping[str, Any]], limit: int, now: float) -> Iterator[str]:
    rows = [
        [
            plain(one["name"] or "-", 24),
            plain(one["email"] or one["phone"] or one["id"], 34),
            plain(one["phone"] or "", 16) if one["email"] else "",
            ", ".join(f"{name} {_short(state)}" for name, state in one["destinations"].items()),
            when(one["updated_at"], now),
        ]
        for one in found
    ]
    yield from table(["name", "email", "phone", "stands", "changed"], rows)
    if len(found) == limit:
        yield faint(f"  only the newest {limit} are shown: --limit shows more")


def _short(state: str) -> str:
    colours = {"delivered": "green", "pending": "yellow", "dead": "red", "unknown": "red"}
    words = {"delivered": "✓", "pending": "waits"}
    return click.style(words.get(state, state), fg=colours.get(state))


@click.command()
@click.argument("name")
@as_json
def show(name: str, as_json: bool) -> None:
    """Everything about one contact, chat, event or delivery.

    NAME is an id (co_…, ch_…, ev_…, de_…), an email, a phone, or the source's own chat id (v1:172).
    """
    from sync.cli.cards import card
    from sync.ledger import reporting

    with opened() as (settings, ledger):
        found = reporting.show(ledger, as_phone(name.strip(), settings.phone_region))
        now = ledger.engine.now
    if as_json:
        say_json(found)
    else:
        say(card(found, now))


def as_phone(name: str, region: str) -> str:
    """A phone as the ledger writes it; anything else as it is."""
    if sum(c.isdigit() for c in name) < 5 or set(name) - set("0123456789 +-/()."):
        return name
    from sync.cleaning import phone

    return phone(name, region) or name


@click.command()
@click.option("--undo", metavar="CONTACT", help="Take a join apart: CONTACT becomes a person of its own again.")
@as_json
def duplicates(undo: str | None, as_json: bool) -> None:
    """Who may be one person, who was joined, and who has two records in a destination."""
    from sync.ledger import reporting
    from sync.reconcile import undo_join

    with opened() as (_, ledger):
        if undo is not None:
            winner = undo_join(ledger, undo.strip())
            say([f"{undo} and {winner} are two people again. The first is delivered now, the second follows."])
            return
        found, now = reporting.duplicates(ledger), ledger.engine.now
    if as_json:
        say_json(found)
    elif not any(found.values()):
        say(["Nobody seems to be here twice."])
    else:
        say(_duplicates(found, now))


def _duplicates(found: Mapping[str, Sequence[Mapping[str, Any]]], now: float) -> Iterator[str]:
    from sync.cli.cards import person

    if found["strays"]:
        yield strong(f"{counted(len(found['strays']), 'second record')} of one person: merge them over there")
        for stray in found["strays"][:MOST]:
            yield f"  {stray['destination']} {plain(stray['remote_id'], 24)} is also {person(stray['contact'])}"
        yield ""
    if found["possible"] or found["shared"]:
        yield strong("perhaps one person: nothing was changed, look for yourself")
        for pair in found["possible"][:MOST]:
            yield f"  {person(pair['loser'])}"
            yield f"  {person(pair['winner'])}"
            yield faint(f"    {pair['reason']}, {when(pair['at'], now)}")
        for shared in found["shared"][:MOST]:
            yield from (f"  {person(contact)}" for contact in shared["contacts"])
            others = f" and {shared['n'] - 2} more" if shared["n"] > 2 else ""
            what = "visitor id" if shared["kind"] == "visitor" else shared["kind"]
            yield faint(f"    the same {what} {plain(shared['value'], 40)}{others}")
        yield ""
    if found["joined"]:
        yield strong(f"{counted(len(found['joined']), 'join')}: each counts as one person")
        for pair in found["joined"][:MOST]:
            yield f"  {person(pair['loser'])}"
            yield f"  {faint('is')} {person(pair['winner'])}"
            yield faint(f"    {pair['reason']}, {when(pair['at'], now)}")
            yield f"    {faint('take apart')}  crm-sync duplicates --undo {pair['loser']['id']}"
    if any(len(listed) > MOST for listed in found.values()):
        yield ""
        yield faint(f"the first {MOST} of each are shown: --json has more")
