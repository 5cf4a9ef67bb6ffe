"""The commands about what is kept: forget, export, prune."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sync.cli.looking import as_json, as_phone
from sync.cli.opening import opened
from sync.cli.words import counted, faint, pairs, plain, say, say_json, strong
from sync.errors import SettingsError, SyncError

if TYPE_CHECKING:
    from sync.forget import Forgotten
    from sync.ledger.mailing import Digest
    from sync.ledger.persons import Plan
    from sync.retention import Pruned

NOUNS = {
    "contacts": "contact",
    "identities": "email, phone or visitor id",
    "chats": "chat",
    "messages": "message",
    "events": "stored webhook",
    "mentions": "webhook of others that names the email",
    "mails": "mail",
}
"""What is erased here, as a person says it."""

BY_HAND = {
    "lost": "an answer was lost, so a record may stand there that nobody knows of: search there for the email",
    "mails": "is in the mailer's own log and in the mailbox: ask your mail provider",
}


@click.command()
@click.argument("who", required=False)
@click.option("--yes", "is_sure", is_flag=True, help="Do it. Without this it is only said what would be done.")
@click.option("--also-adopted", is_flag=True, help="Delete also records that were in the CRM before us.")
@click.option("--receipt", type=click.Path(path_type=Path, dir_okay=False), help="Write the signed receipt to a file.")
@click.option(
    "--verify", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Check a receipt; erases nothing."
)
@as_json
@click.pass_context
def forget(
    ctx: click.Context,
    who: str | None,
    is_sure: bool,
    also_adopted: bool,
    receipt: Path | None,
    verify: Path | None,
    as_json: bool,
) -> None:
    """Erase a person here and in every destination. WHO is an email, a phone or a contact's id (co_…).

    What is said before this moment never comes back; who starts a new chat later is somebody new.
    """
    if (who is None) == (verify is None):
        raise click.UsageError("say whom to forget, or --verify FILE")
    if verify is not None:
        ctx.exit(_verify(verify))
    elif is_sure:
        _forget(str(who), also_adopted=also_adopted, file=receipt, as_json=as_json)
    else:
        _plan(str(who), also_adopted=also_adopted, as_json=as_json)


def _digest(settings: Any) -> "Digest":
    from sync.secret import digest
    from sync.wiring import secret_key

    return digest(secret_key(settings))


def _verify(file: Path) -> int:
    from sync.forget import is_genuine
    from sync.settings import Settings, load

    try:
        receipt = json.loads(file.read_text("utf-8"))
    except (ValueError, OSError):
        receipt = None
    if not isinstance(receipt, dict) or not is_genuine(receipt, _digest(load(Settings))):
        say([click.style("This receipt was not signed with our key, or was changed since.", fg="red", bold=True)])
        return 1
    say([f"This receipt is genuine: {plain(receipt['contact'])} was forgotten {plain(receipt['erased_at'])}."])
    return 0


def _plan(who: str, *, also_adopted: bool, as_json: bool) -> None:
    from sync.forget import plan

    with opened() as (settings, ledger):
        planned = plan(ledger, as_phone(who.strip(), settings.phone_region), also_adopted=also_adopted)
    if as_json:
        say_json(_plan_as_json(planned))
    else:
        say(_planned(planned))


def _plan_as_json(planned: "Plan") -> dict[str, Any]:
    return {
        "would_erase": planned.counts,
        "contacts": [contact.id for contact in planned.person.contacts],
        "records": [record.facts for record in planned.records],
        "lost": list(planned.lost),
        "mails": dict(planned.mails),
    }


def _planned(planned: "Plan") -> Iterator[str]:
    from sync.cli.cards import person

    root = planned.person.root
    yield f"{strong('This would be erased')}, and nothing has been yet:"
    yield f"  {person({'id': root.id, 'name': root.name, 'email': root.email, 'phone': root.phone})}"
    yield from _counts(planned.counts)
    yield ""
    records = [{**record.facts, "state": None} for record in planned.records]
    yield from _elsewhere(records, planned.lost, planned.mails)
    yield ""
    yield f"  {faint('to do it')}  crm-sync forget {root.id} --yes --receipt FILE"


def _counts(counts: Mapping[str, int]) -> Iterator[str]:
    found = [counted(counts[name], noun) for name, noun in NOUNS.items() if counts.get(name)]
    yield f"  here: {', '.join(found)}"


def _elsewhere(records: Sequence[Mapping[str, Any]], lost: Sequence[str], mails: Mapping[str, int]) -> Iterator[str]:
    """What becomes of each record at a destination, and what is out of our hands."""
    from sync.ledger.persons import ADOPTED

    if not records and not lost and not mails:
        yield "  nothing of this person is anywhere else"
    for one in records:
        name = f"{one['destination']} {plain(one['record'], 40)}"
        if one["left"] is not None:
            yield f"  {name}: {strong('left to you')}, {one['left']}"
            if one["notes"]:
                yield f"    our notes on it: {', '.join(plain(note, 40) for note in one['notes'])}"
        elif one["state"] is None or one["state"] == "pending":
            yield f"  {name}: {one['destination']} is asked to delete it, until it has"
        else:
            yield f"  {name}: {'deleted' if one['state'] == 'delivered' else plain(one['state'])}"
        if one["left"] == ADOPTED and one["state"] is None:
            yield faint("    --also-adopted deletes it as well")
    for destination in lost:
        yield f"  {destination}: {strong('look yourself')}, {BY_HAND['lost']}"
    for mailer, n in mails.items():
        yield f"  {counted(n, 'mail')} by {mailer}: what went out {BY_HAND['mails']}"


def _forget(who: str, *, also_adopted: bool, file: Path | None, as_json: bool) -> None:
    from sync.forget import forget as forget_person

    with opened() as (settings, ledger):
        wanted = as_phone(who.strip(), settings.phone_region)
        done = forget_person(ledger, wanted, _digest(settings), also_adopted=also_adopted)
        is_file = not ledger.engine.is_shared
    if file is not None:
        _write(file, done.receipt)
    if as_json:
        say_json(done.receipt)
    else:
        say(_done(done, file, is_file=is_file))


def _write(file: Path, receipt: Mapping[str, Any]) -> None:
    try:
        file.write_text(json.dumps(receipt, ensure_ascii=False, indent=2) + "\n", "utf-8")
    except OSError as error:
        again = f"crm-sync forget {receipt['contact']} --yes --receipt FILE"
        raise SyncError(f"the person is forgotten, but {file} cannot be written ({error.strerror}): {again}") from error


def _done(done: "Forgotten", file: Path | None, *, is_file: bool) -> Iterator[str]:
    receipt = done.receipt
    yield strong("Forgotten." if done.is_new else f"This person was forgotten already, {receipt['erased_at']}.")
    yield from _counts(receipt["counts"])
    yield from _elsewhere(receipt["records"], receipt["lost"], receipt["mails"])
    if any(one["state"] == "pending" for one in receipt["records"]):
        yield faint(f"  how far that is: crm-sync forget {receipt['contact']} --yes")
    if is_file and not done.is_scrubbed:
        yield "  The ledger's file is large or in use, so traces may be left in it until it is rewritten:"
        yield "    crm-sync prune --rewrite"
    if not is_file:
        yield "  PostgreSQL frees the old rows at its next autovacuum."
    yield "  Backups from before still hold this person; your retention of backups ends that."
    if file is not None:
        yield f"  The signed receipt is in {file}; crm-sync forget --verify checks it."


@click.command()
@click.argument("who")
def export(who: str) -> None:
    """Everything about a person, as JSON. WHO is an email, a phone or a contact's id (co_…)."""
    from sync.forget import export as export_person
    from sync.wiring import addresses

    with opened() as (settings, ledger):
        found = export_person(ledger, as_phone(who.strip(), settings.phone_region), addresses(settings).hash)
    say_json(found)


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be pruned, and change nothing.")
@click.option("--rewrite", is_flag=True, help="Rewrite an SQLite file, so that it shrinks and holds no traces.")
@as_json
def prune(dry_run: bool, rewrite: bool, as_json: bool) -> None:
    """Prune what is older than the SYNC_KEEP_… settings. `serve` does the same by itself, a little at a time."""
    from sync.retention import RetentionSettings
    from sync.retention import prune as prune_ledger
    from sync.settings import load

    limits = load(RetentionSettings).limits
    with opened() as (_, ledger):
        done = prune_ledger(ledger, limits, dry_run=dry_run)
        if rewrite and not dry_run:
            if ledger.engine.is_shared:
                raise SettingsError("the ledger is on a PostgreSQL server: VACUUM FULL is its administrator's")
            ledger.engine.scrub(whatever_size=True)
        size, is_shrinkable = ledger.engine.bytes, ledger.engine.is_shrinkable
    if as_json:
        say_json(_pruned_as_json(done, size))
    else:
        say(_pruned(done, size, is_shrinkable=is_shrinkable, dry_run=dry_run))


def _pruned_as_json(done: "Pruned", size: int) -> dict[str, Any]:
    from dataclasses import asdict

    walk = done.walk
    return {
        "bytes": size,
        "pruned": {part: asdict(found) for part, found in walk.pruned.items()},
        "kept": {part: asdict(found) for part, found in walk.kept.items()},
    }


def _pruned(done: "Pruned", size: int, *, is_shrinkable: bool, dry_run: bool) -> Iterator[str]:
    walk = done.walk
    found = {part: n for part, n in walk.pruned.items() if n.rows}
    if not found:
        yield "Nothing is old enough to be pruned."
    else:
        what = ", ".join(f"{n.rows:,} {part} ({_mib(n.size)})" for part, n in found.items())
        yield f"{strong('Would be pruned' if dry_run else 'Pruned')}: {what}."
    yield from pairs([(part, f"{n.rows:,}, {_mib(n.size)}") for part, n in walk.kept.items()])
    yield f"  The ledger takes {_mib(size)}."
    if not is_shrinkable:
        yield "  This file was made by an earlier release: its free room is used again, but it shrinks only when it is"
        yield "  rewritten: crm-sync prune --rewrite (webhooks wait meanwhile)"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
