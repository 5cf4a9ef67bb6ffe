"""The commands about follow-up emails: followup, suppress, unsuppress, suppressions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import click

from sync.cli.opening import opened
from sync.cli.serving import run
from sync.cli.words import called, clock, faint, pairs, plain, say, say_json, span, strong, table, when
from sync.errors import DeliveryError, SettingsError, SyncError

if TYPE_CHECKING:
    from sync.destinations.mail.base import Mailer
    from sync.followup import Due, NotDue
    from sync.ledger import Ledger
    from sync.ledger.mailing import Mailing
    from sync.models import Email
    from sync.settings import Settings

BY_HAND = "suppressed by hand"
"""The reason of a suppression that somebody typed."""

REASON = 60
HEAD = 88

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The follow-up of one chat: how it `stands`, what is decided now, and the mail.

    `is_past`: the mail is the one that was handed over, not the one that would be. `decision` is None where no mailer
    is set.
    """

    stands: Mapping[str, Any]
    decision: "Due | NotDue | None"
    email: "Email"
    is_past: bool


@click.group()
def followup() -> None:
    """See a follow-up email before it goes, try the mailer, settle what is unknown.

    CHAT is our id of a chat (ch_…), or the source's own (v1:172, or just 172).
    """


@followup.command()
@click.argument("chat")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the HTML part into this file.")
@as_json
def preview(chat: str, html: Path | None, as_json: bool) -> None:
    """Show the follow-up of CHAT; nothing is changed.

    What it would be now, and when it is due or why it is not; once it has gone out, what it was.
    """
    with opened() as (settings, ledger):
        found, now = _foreseen(settings, ledger, chat.strip()), ledger.engine.now
    if html is not None:
        _write(html, found.email.html)
    if as_json:
        say_json(_as_json(found))
        return
    say(_preview(found, now))
    if html is not None:
        say(["", faint(f"The HTML part is in {html}.")])


def _foreseen(settings: "Settings", ledger: "Ledger", name: str) -> Foreseen:
    from sync.ledger import reporting
    from sync.ledger.mailing import TEMPLATE, decided
    from sync.models import Email

    chat_id, mailing = reporting.chat_called(ledger, name), _mailing(settings, ledger)
    decision, chat, contact = decided(ledger.engine, chat_id, mailing)
    stands = reporting.followup_of(ledger, chat)
    before = ledger.get("get_mail", chat=chat_id, template=TEMPLATE)
    if before is not None and before["went"] and before["rendered"] is not None:
        email, is_past = Email(**json.loads(before["rendered"])), True
    else:
        email, is_past = mailing.write(chat, contact, "", ledger.engine.now), False
    return Foreseen(stands, decision if ledger.mailing is not None else None, email, is_past)


def _mailing(settings: "Settings", ledger: "Ledger") -> "Mailing":
    """How follow-ups are written; where no mailer is set, as they would be for the sandbox."""
    from sync import wiring

    as_if = settings.model_copy(update={"mailer": wiring.SANDBOX})
    return ledger.mailing or cast("Mailing", wiring.mailing(as_if))


def _preview(found: Foreseen, now: float) -> Iterator[str]:
    email = found.email
    yield strong(_prospect(found, now))
    yield ""
    to = f"{email.to_name} <{email.to}>" if email.to_name else email.to
    heads = {
        "To": to if email.to else "nobody yet",
        "From": email.sender,
        "Reply-To": email.reply_to or "",
        "Subject": email.subject,
    }
    yield from pairs((name, plain(value)) for name, value in {**heads, **email.headers}.items())
    yield ""
    yield from (f"  {_printable(line)}".rstrip() for line in email.text.splitlines())


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line)


def _prospect(found: Foreseen, now: float) -> str:
    """When the mail goes, or went, or why it does not, in a sentence."""
    from sync.followup import Due, NotDue

    stands, decision = found.stands, found.decision
    begun = f"{when(stands['begun_at'], now)} by {stands['mailer']}" if stands["begun_at"] else ""
    because = f": {plain(stands['reason'])}" if stands["reason"] else ""
    if found.is_past:
        if stands["in_flight"]:
            return "It is being sent right now. This is what is handed over."
        if stands["state"] == "unknown":
            return f"Unknown{because}. This is what was handed over {begun}."
        return f"It went out {begun}. This is what was sent."
    if stands["state"] == "dead":
        return f"It could not be sent{because}. Written anew, it is this."
    match decision:
        case None:
            return "No mail is sent: SYNC_MAILER is not set. It would look like this."
        case NotDue(reason):
            return f"No mail is sent: {reason}. It would look like this."
        case Due() if stands["state"] != "pending":
            return f"No mail is sent{because}. Only another word of the chat would change that."
        case Due(at) if at <= now:
            return "It is due now."
        case Due(at, reason):
            away = f"in {span(at - now)}"
            return f"It is due {away}, at {clock(_iso(at), now)}" + (f": {reason}." if reason else ".")


def _iso(at: float) -> str:
    from sync.ledger.reporting import iso

    return iso(at) or ""


def _as_json(found: Foreseen) -> dict[str, Any]:
    from sync.followup import Due

    email, decision = found.email, found.decision
    due = decision.at if isinstance(decision, Due) and found.stands["state"] == "pending" else None
    return {
        **found.stands,
        "due_at": None if due is None else _iso(due),
        "decided": None if decision is None else {"due": isinstance(decision, Due), "reason": decision.reason},
        "is_past": found.is_past,
        "mail": {**asdict(email), "written_at": _iso(email.written_at), "headers": dict(email.headers)},
    }


def _write(file: Path, html: str) -> None:
    """Write a file of one's own: a mail holds personal data. Raises SyncError."""
    try:
        file.touch(mode=0o600)
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise SyncError(f"{file} cannot be written: {error.strerror}") from None


@followup.command("list")
@as_json
def list_unknown(as_json: bool) -> None:
    """List the mails of which nobody knows whether they went out."""
    from sync.ledger import reporting

    with opened() as (_, ledger):
        found, now = reporting.unknown_mails(ledger), ledger.engine.now
    if as_json:
        say_json(found)
    elif found:
        say(_unknown(found, now))
    else:
        say(["Of every mail it is known whether it went out."])


def _unknown(found: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    n = len(found)
    yield strong(f"Nobody knows whether {'this mail' if n == 1 else f'these {n:,} mails'} went out.")
    yield ""
    rows = [
        [called(mail), when(mail["begun_at"], now), f"by {mail['mailer']}", plain(mail["reason"] or "", REASON)]
        for mail in found
    ]
    yield from table(["chat", "begun", "", ""], rows)
    yield ""
    yield "Look each up at the mailer (`crm-sync followup preview CHAT` shows the mail), then say which it is:"
    yield from pairs(
        [
            ("it went out", "crm-sync followup resolve CHAT --sent"),
            ("it did not", "crm-sync followup resolve CHAT --send-again"),
        ]
    )


@followup.command()
@click.argument("chat")
@click.option("--sent", is_flag=True, help="It went out.")
@click.option("--send-again", is_flag=True, help="It did not: send it, unless there is a reason against it by now.")
def resolve(chat: str, sent: bool, send_again: bool) -> None:
    """Settle an unknown mail, once you know what became of it.

    Nobody but the mailer knows whether a mail went out whose answer was lost: look it up there.
    """
    from sync.ledger import mailing, reporting

    if sent == send_again:
        raise click.UsageError("say what you found out: --sent or --send-again")
    with opened() as (_, ledger):
        chat_id = reporting.chat_called(ledger, chat.strip())
        if send_again and ledger.mailing is None:
            raise SettingsError("SYNC_MAILER is not set: nothing can be sent again")
        with ledger.transaction():
            mailing.resolve(ledger.engine, chat_id, was_sent=sent)
        told = [_sentence(ledger, chat_id, was_sent=sent)]
    say(told)


def _sentence(ledger: "Ledger", chat_id: str, *, was_sent: bool) -> str:
    from sync.followup import Due
    from sync.ledger.mailing import decided

    if was_sent or ledger.mailing is None:
        return "It counts as sent: this chat gets no other mail."
    now = ledger.engine.now
    match decided(ledger.engine, chat_id, ledger.mailing)[0]:
        case Due(at) if at <= now:
            return "It will be sent again: a running `crm-sync serve` does it now."
        case Due(at, reason):
            return f"It will be sent again in {span(at - now)}" + (f": {reason}." if reason else ".")
        case held:
            return f"It may be sent again, but will not be: {held.reason}."


@followup.command("send-test")
@click.option("--to", required=True, metavar="EMAIL", help="Your own address: the mail really goes there.")
def send_test(to: str) -> None:
    """Send a made-up follow-up to yourself, now. Nothing is stored."""
    from sync import wiring
    from sync.followup import FollowupSettings
    from sync.logs import configure
    from sync.settings import Settings, load

    settings = load(Settings)
    configure(settings.log_format, "error")
    address = _address(to)
    if settings.mailer is None:
        raise SettingsError("SYNC_MAILER is not set: there is nothing to send with")
    email = wiring.letter_of(load(FollowupSettings), settings).rehearse()
    key = str(uuid4())
    domain = email.headers["Message-ID"].rpartition("@")[2]
    headers = {**email.headers, "Message-ID": f"<test-{key}@{domain}"}  # one that is no repetition to anybody
    test = replace(email, to=address, to_name=None, key=key, headers=headers)
    say([run(_sent(settings, test))])


async def _sent(settings: "Settings", email: "Email") -> str:
    """Hand over one mail; what became of it. Raises SyncError."""
    from sync import wiring

    mailer = cast("Mailer", wiring.mailer(settings))
    try:
        receipt = await mailer.send(email)
    except DeliveryError as error:
        raise SyncError(_failed(error, settings)) from None
    finally:
        await mailer.client.aclose()
    where = ": look at its outbox page" if settings.mailer == wiring.SANDBOX else ""
    return f"{settings.mailer} took the mail to {email.to} (as {plain(receipt.remote_id, REASON)}){where}."


def _failed(error: DeliveryError, settings: "Settings") -> str:
    code = f" ({error.status})" if error.status is not None and str(error.status) not in error.reason else ""
    reason = plain(error.reason, HEAD).rstrip(".")
    if getattr(error, "may_have_landed", False):
        return f"nobody knows whether the mail went out through {settings.mailer}: {reason}{code}"
    return f"{settings.mailer} did not take the mail: {reason}{code}; `crm-sync doctor` may know more"


@click.command()
@click.argument("email")
def suppress(email: str) -> None:
    """Send no more follow-ups to EMAIL, until `unsuppress`."""
    address = _address(email)
    with opened() as (settings, ledger):
        hashed = _hash(settings, address)
        with ledger.transaction():
            is_new = ledger.suppress(hashed, BY_HAND)
        before = ledger.get("get_suppression", hash=hashed)
    if is_new:
        say([f"No follow-up goes to {address} any more."])
    else:
        say([f"No follow-up went to {address} before: {before['reason'] if before else BY_HAND}."])


@click.command()
@click.argument("email")
def unsuppress(email: str) -> None:
    """Send follow-ups to EMAIL again. Who unsubscribed did not want that: only where they ask for it."""
    address = _address(email)
    with opened() as (settings, ledger):
        hashed = _hash(settings, address)
        before = ledger.get("get_suppression", hash=hashed)
        with ledger.transaction():
            was_suppressed = ledger.unsuppress(hashed)
    if was_suppressed and before is not None:
        say([f"Follow-ups may go to {address} again. Until now none did: {before['reason']}."])
    else:
        say([f"Nothing held back follow-ups to {address}."])


@click.command()
@click.argument("email", required=False)
@as_json
def suppressions(email: str | None, as_json: bool) -> None:
    """How many addresses get no follow-up, and why. With EMAIL: whether that one is among them.

    Addresses are not stored, only keyed hashes of them: they cannot be listed, but each can be looked up.
    """
    from sync.ledger import reporting

    with opened() as (settings, ledger):
        now = ledger.engine.now
        if email is not None:
            _look_up(settings, ledger, _address(email), as_json=as_json)
            return
        found = reporting.suppressions(ledger)
    if as_json:
        say_json(found)
    else:
        say(_suppressions(found, now))


def _look_up(settings: "Settings", ledger: "Ledger", address: str, *, as_json: bool) -> None:
    row = ledger.get("get_suppression", hash=_hash(settings, address))
    if as_json:
        say_json(None if row is None else {"reason": row["reason"], "at": _iso(row["at"])})
    elif row is None:
        say([f"Nothing holds back follow-ups to {address}."])
    else:
        say([f"No follow-up goes to {address}: {row['reason']}, {when(_iso(row['at']), ledger.engine.now)}."])


def _suppressions(found: Mapping[str, Any], now: float) -> Iterator[str]:
    n = sum(found["reasons"].values())
    if not n:
        yield "No address is suppressed."
        return
    yield strong(f"{'1 address gets' if n == 1 else f'{n:,} addresses get'} no follow-up.")
    yield from table(["", ""], [[f"{n:,}", plain(reason, REASON)] for reason, n in found["reasons"].items()])[1:]
    yield ""
    newest = found["newest"][0]
    yield f"The newest: {plain(newest['reason'], REASON)}, {when(newest['at'], now)}."
    yield faint("Only keyed hashes of the addresses are stored. To look one up: crm-sync suppressions EMAIL")


def _address(said: str) -> str:
    """An address as it counts. Raises SettingsError where it is none."""
    from sync.cleaning import email

    if (address := email(said)) is None:
        raise SettingsError(f"{plain(said, REASON)} is no email address")
    return address


def _hash(settings: "Settings", address: str) -> str:
    from sync.wiring import addresses

    return addresses(settings).hash(address)
