"""The one screen of `status`: the verdict in words first, then what needs a person, then the numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import click

from sync.cli.words import called, clock, counted, faint, plain, since_epoch, span, strong, table, when
from sync.ledger.machine import JOINED
from sync.ledger.reporting import NOT_CONFIGURED
from sync.models import MAIL

Status = Mapping[str, Any]

SLOW = 60.0
"""Seconds after which something that waits without a pause is worth a question."""

RECENT = 3
REASON = 90
NARROW = 60
NARROWER = 68
WIDTH = 98
NOUNS = {"contact": "contact", "chat": "chat", "email": "email", "erasure": "erasure"}
RESOLVE = "crm-sync followup resolve"
REFUSALS = {
    "401": "wrong or missing signature or token",
    "403": "not called directly, and nothing to check",
    "404": "unknown source",
    "408": "too slow",
    "413": "too large",
    "503": "could not be stored, sent again by the source",
}


@dataclass(frozen=True, slots=True)
class Todo:
    """What needs a person: a sentence, and what to type about it."""

    sentence: str
    steps: tuple[tuple[str, str], ...] = ()


def needs_person(status: Status) -> bool:
    """Whether something goes on only after a person has acted."""
    return any(todos(status, 0.0))


def screen(status: Status, now: float) -> Iterator[str]:
    """The lines of the screen."""
    todo = list(todos(status, now))
    waiting = list(waits(status, now))
    yield from _verdict(status, todo, waiting)
    if len(todo) == 1:
        yield from _steps(todo[0])
    else:
        for item in todo:
            yield ""
            yield from (f"  {line}" for line in wrap(item.sentence, WIDTH))
            yield from _steps(item)
    if todo and waiting:
        yield ""
        yield from (f"  {line}" for line in waiting)
    yield ""
    yield from _numbers(status)
    yield ""
    yield from _notes(status, now)
    yield from _failures(status, now)


def _verdict(status: Status, todo: list[Todo], waiting: list[str]) -> Iterator[str]:
    words, colour = _in_words(status, todo, waiting)
    yield from (click.style(line, fg=colour, bold=True) for line in wrap(words, WIDTH))


def _in_words(status: Status, todo: list[Todo], waiting: list[str]) -> tuple[str, str | None]:
    """The verdict, and its colour."""
    if len(todo) > 1:
        return f"{len(todo)} things need you. Nothing is lost.", "red"
    if todo:
        return todo[0].sentence, "red"
    if waiting:
        return " ".join([*waiting, "Nothing is lost."]), "yellow"
    if not sum(status["events"].values()):
        return "Nothing has come yet.", None
    return " ".join(["Everything has arrived.", *_later(status)]), "green"


def _steps(todo: Todo) -> Iterator[str]:
    width = max((len(label) for label, _ in todo.steps), default=0)
    for label, command in todo.steps:
        yield f"    {faint(label.ljust(width))}  {command}"


def todos(status: Status, now: float) -> Iterator[Todo]:
    """What needs a person, the most urgent first."""
    for alarm in status["alarms"]:
        if alarm["key"] in ("disk", "repaired") or alarm["key"].startswith("silence:"):
            yield Todo(alarm["text"])
    for name, there in _served(status):
        if there["needs_person"]:
            yield _refusal(name, there, now)
    for cause in status["dead"]:
        yield _dead(cause)
    if status["unknown"]:
        yield _unknown(status["unknown"], now)
    if n := status["events"]["unreadable"]:
        newest = status["unreadable"][0]
        which = newest["id"] if n == 1 else "--unreadable"
        yield Todo(
            f"{counted(n, 'webhook')} could not be read: {plain(newest['error'], REASON)}.",
            (
                ("look", f"crm-sync show {newest['id']}"),
                ("after an update", "crm-sync replay --unreadable"),
                ("if it is of no use", f"crm-sync dismiss {which}"),
            ),
        )


def _unknown(mails: Sequence[Mapping[str, Any]], now: float) -> Todo:
    """Mails whose answer was lost, each with the command for when it was found out what became of it."""
    n = len(mails)
    what, they = ("1 email", "it") if n == 1 else (f"{n:,} emails", "they")
    verb = "is" if n == 1 else "are"
    steps = [
        (f"{called(mail)}, {when(mail['begun_at'], now)} by {mail['mailer']}", f"{RESOLVE} {called(mail)} --sent")
        for mail in mails[:RECENT]
    ]
    if n > RECENT:
        steps.append((f"and {n - RECENT:,} more", "crm-sync followup list"))
    return Todo(
        f"Nobody knows whether {what} went out, so {they} {verb} not sent again. "
        "Look it up at the mailer, then say --sent or --send-again.",
        tuple(steps),
    )


def _refusal(name: str, there: Mapping[str, Any], now: float) -> Todo:
    waiting = _amount(there, "pending", less=there["later"])
    last = "for FOLLOWUP_MAX_AGE at most" if name == MAIL else "nothing is lost"
    return Todo(
        f"{'The mailer' if name == MAIL else name} takes nothing until you act ({_because(there)})."
        + (f" {waiting} {_verb(waiting)}; {last}." if waiting else ""),
        (
            ("what to do", "crm-sync doctor"),
            ("after that", f"nothing: it is tried again by itself, next at {clock(there['paused_until'], now)}"),
        ),
    )


def _dead(cause: Mapping[str, Any]) -> Todo:
    was = "was" if cause["n"] == 1 else "were"
    what = "could not be sent" if cause["destination"] == MAIL else f"{was} refused by {cause['destination']}"
    return Todo(
        f"{counted(cause['n'], cause['kind'])} {what}: {_sentence(cause['reason'])}",
        (
            ("look", f"crm-sync show {cause['example']}"),
            ("once the cause is gone", f"crm-sync replay --dead {cause['destination']}"),
            ("if it is to stay so", _dismissal(cause)),
        ),
    )


def _dismissal(cause: Mapping[str, Any]) -> str:
    return f"crm-sync dismiss {cause['example']}{' --alike' if cause['n'] > 1 else ''}"


def waits(status: Status, now: float) -> Iterator[str]:
    """A sentence for each destination that is still owed something, unless it stands among the todos."""
    for name, there in _served(status):
        amount = _amount(there, "pending", less=there["later"])
        if not amount or there["needs_person"]:
            continue
        paused, oldest = there["paused_until"], there["oldest_waiting_s"] or 0.0
        name = "the mailer" if name == MAIL else name
        if paused and (late := now - since_epoch(paused)) < SLOW:
            until = f"until {clock(paused, now)}" if late < 0 else "and about to be tried again"
            yield f"{amount} {_verb(amount)} for {name}, paused {until} ({_because(there)})."
        elif oldest < SLOW or there["in_flight"]:
            yield f"{amount} {'is' if _verb(amount) == 'waits' else 'are'} on the way to {name}."
        else:
            yield f"{amount} {_verb(amount)} for {name}, the oldest for {span(oldest)}. Does `crm-sync serve` run?"


def _verb(amount: str) -> str:
    return "waits" if amount.startswith("1 ") and " and " not in amount else "wait"


def _because(there: Mapping[str, Any]) -> str:
    reason = plain(there["reason"], REASON).rstrip(".")
    code = str(there["status"] or "")
    return f"{code}: {reason}" if code and code not in reason else reason


def _sentence(reason: object) -> str:
    return plain(reason or "no reason was given", REASON).rstrip(".") + "."


def _served(status: Status) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, there) for name, there in status["destinations"].items() if there["configured"]]


def _amount(there: Mapping[str, Any], state: str, *, less: Mapping[str, int] | None = None) -> str:
    """How much is in a state, in words: "3 contacts and 1 chat"."""
    counts = {kind: states.get(state, 0) - (less or {}).get(kind, 0) for kind, states in there["deliveries"].items()}
    return " and ".join(counted(n, NOUNS[kind]) for kind, n in sorted(counts.items(), reverse=True) if n > 0)


def _later(status: Status) -> Iterator[str]:
    """What is not due yet: chats that are not over, mails whose time has not come."""
    if n := max((there["later"].get("chat", 0) for _, there in _served(status)), default=0):
        yield f"{counted(n, 'chat')} will follow when the conversation is over."
    if n := max((there["later"].get("email", 0) for _, there in _served(status)), default=0):
        yield f"{counted(n, 'email')} will go out when {'its' if n == 1 else 'their'} time has come."


COLUMNS = (
    ("arrived", "delivered"),
    ("waiting", "pending"),
    ("ignored", "ignored"),
    ("unknown", "unknown"),
    ("refused", "dead"),
    (NOT_CONFIGURED, NOT_CONFIGURED),
)
ALWAYS = 3


def _numbers(status: Status) -> Iterator[str]:
    everywhere = [states for there in status["destinations"].values() for states in there["deliveries"].values()]
    columns = [
        column for i, column in enumerate(COLUMNS) if i < ALWAYS or any(states.get(column[1]) for states in everywhere)
    ]
    rows = []
    for name, there in status["destinations"].items():
        kinds = sorted(there["deliveries"], reverse=True) or [""]
        for i, kind in enumerate(kinds):
            counts = _counts(status, name, kind)
            cells = [_cell(counts.get(state, 0), state) for _, state in columns]
            rows.append([strong(name) if i == 0 else "", f"{NOUNS[kind]}s" if kind else "", *cells])
    if rows:
        yield from table(["", "", *(head for head, _ in columns)], rows, right=range(2, 2 + len(columns)))


def _counts(status: Status, destination: str, kind: str) -> dict[str, int]:
    """Deliveries by state, without those of joined contacts: they live on in others."""
    counts = Counter(status["destinations"][destination]["deliveries"].get(kind, {}))
    for cause in status["ignored"]:
        if (cause["destination"], cause["kind"], cause["reason"]) == (destination, kind, JOINED):
            counts["ignored"] -= cause["n"]
    return counts


def _cell(n: int, state: str) -> str:
    if not n:
        return faint("·")
    colours = {"pending": "yellow", "unknown": "red", "dead": "red"}
    return click.style(f"{n:,}", fg=colours.get(state))


def _notes(status: Status, now: float) -> Iterator[str]:
    events = status["events"]
    said = [f"{counted(status['contacts'], 'contact')} from {counted(sum(events.values()), 'event')}"]
    if events["kept"]:
        said.append(f"{events['kept']:,} said nothing of use about a person")
    if status["redelivered"]:
        said.append(f"{status['redelivered']:,} came twice and changed nothing")
    yield f"  {', '.join(said)}"
    ignored = [cause for cause in status["ignored"] if cause["reason"] != JOINED]
    for cause in [cause for cause in ignored if cause["destination"] != MAIL][:RECENT]:
        what = counted(cause["n"], cause["kind"])
        yield f"  {what} ignored at {cause['destination']}: {plain(cause['reason'], NARROW)}"
    for cause in [cause for cause in ignored if cause["destination"] == MAIL][:RECENT]:
        yield f"  {counted(cause['n'], 'chat')} without a follow-up: {plain(cause['reason'], NARROWER)}"
    pairs, strays = status["joins"].get("possible", 0), sum(status["strays"].values())
    joined = status["joins"].get("joined", 0)
    if pairs or strays or joined:
        found = [counted(joined, "join")] if joined else []
        found += [counted(pairs, "possible duplicate")] if pairs else []
        found += [counted(strays, "second record") + " of one person"] if strays else []
        yield f"  {', '.join(found)}: crm-sync duplicates"
    for code, refused in status["rejected"].items():
        why = REFUSALS.get(code, "refused")
        yield f"  {counted(refused['n'], 'request')} refused with {code} ({why}), last {when(refused['last'], now)}"
    ledger = status["ledger"]
    yield faint(f"  ledger: {ledger['engine']}, {_size(ledger['bytes'])}")


def _size(n: int) -> str:
    return f"{n / 1e6:,.1f} MB" if n < 1e9 else f"{n / 1e9:,.1f} GB"


def _failures(status: Status, now: float) -> Iterator[str]:
    """The newest failures of what still waits or is dead; what went well in the end is no news."""
    found = [
        {**failure, "destination": name}
        for name, there in _served(status)
        if any(states.get(state) for states in there["deliveries"].values() for state in ("pending", "dead", "unknown"))
        for failure in there["failures"]
    ]
    if not found:
        return
    yield ""
    yield f"  {faint('latest failures')}"
    rows: dict[tuple[str, str, str], list[str]] = {}
    for failure in sorted(found, key=lambda failure: failure["at"], reverse=True):
        kind = (failure["destination"], failure["outcome"], plain(failure["error"], NARROW))
        rows.setdefault(kind, [when(failure["at"], now), *kind])
    yield from table(["", "", "", ""], list(rows.values())[:RECENT])[1:]
