"""What `show` says of one event, contact, chat or delivery."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click

from sync.cli.words import called, counted, faint, pairs, plain, span, strong, table, when

Found = Mapping[str, Any]

LONGEST = 24
"""Lines of a payload or a transcript that are shown; `--json` has them all."""

WIDTH = 70
COLOURS = {"delivered": "green", "sent": "green", "applied": "green", "pending": "yellow"} | {
    "dead": "red",
    "unknown": "red",
    "unreadable": "red",
}


def card(found: Found, now: float) -> Iterator[str]:
    """The lines about one thing."""
    cards: dict[str, Callable[[Found, float], Iterator[str]]] = {
        "contact": _contact,
        "contacts": _contacts,
        "chat": _chat,
        "event": _event,
        "delivery": _delivery,
    }
    return cards[found["kind"]](found, now)


def person(contact: Found | None) -> str:
    """One line about a contact: who, and its id."""
    if contact is None:
        return ""
    known = [plain(contact[name], WIDTH) for name in ("name", "email", "phone") if contact[name]]
    return f"{', '.join(known) or 'somebody unknown'}  {faint(contact['id'])}"


def _state(state: str) -> str:
    return click.style(state, fg=COLOURS.get(state))


def _title(kind: str, found: Found) -> str:
    return f"{strong(kind)} {found['id']}"


def _contacts(found: Found, _now: float) -> Iterator[str]:
    yield strong(f"{len(found['contacts'])} contacts")
    yield from (f"  {person(contact)}" for contact in found["contacts"])


def _contact(found: Found, now: float) -> Iterator[str]:
    yield _title("contact", found)
    if found["erased_at"]:
        yield f"  erased {when(found['erased_at'], now)}"
    if found["joined"]:
        yield f"  joined into {found['joined']}: lookups follow it there"
    fields = {name: found[name] for name in ("name", "email", "phone")} | {
        name: value for name, value in found["attributes"].items()
    }
    yield from pairs(
        [
            *((plain(name, 24), plain(value or "", WIDTH)) for name, value in fields.items()),
            ("since", when(found["created_at"], now)),
            ("changed", f"{when(found['updated_at'], now)}, version {found['version']}"),
            ("known by", ", ".join(f"{one['kind']} {plain(one['value'], 40)}" for one in found["identities"])),
        ]
    )
    yield from _chats(found["chats"], now)
    yield from _deliveries(found["deliveries"], now)
    yield from _joins(found, now)


def _chats(chats: list[Found], now: float) -> Iterator[str]:
    if chats:
        yield ""
        yield strong(counted(len(chats), "chat"))
        rows = [
            [
                plain(chat["chat"], 24),
                f"started {when(chat['started_at'], now)}",
                _course(chat),
                _mailed(chat["followup"], now),
                chat["id"],
            ]
            for chat in chats[-LONGEST:]
        ]
        yield from table(["", "", "", "", ""], rows)[1:]
        if len(chats) > LONGEST:
            yield faint(f"  and {len(chats) - LONGEST:,} older: --json has them all")


def _course(chat: Found) -> str:
    facts = ["closed" if chat["closed_at"] else "open"]
    facts += [f"with {plain(chat['agent'], 20)}"] if chat["agent"] else []
    facts += [counted(chat["messages"], "message")] if chat["messages"] else []
    return ", ".join(facts)


def _mailed(mail: Found, now: float) -> str:
    """What became of a chat's follow-up, in two or three words."""
    match mail["state"]:
        case "delivered":
            return "mail sent"
        case "pending":
            return "mail is being sent" if mail["in_flight"] else f"mail {when(mail['due_at'], now)}"
        case "unknown" | "dead":
            return f"mail {_state(mail['state'])}"
        case _:
            return faint("no mail")


def followed_up(mail: Found, now: float) -> str:
    """What became of a chat's follow-up, in a line."""
    by = f"{when(mail['begun_at'], now)} by {mail['mailer']}" if mail["begun_at"] else ""
    because = f": {plain(mail['reason'], WIDTH)}" if mail["reason"] else ""
    match mail["state"]:
        case "delivered":
            return f"{_state('sent')} {by}{because}"
        case "pending" if mail["in_flight"]:
            return f"is being sent, begun {by}"
        case "pending":
            return f"due {when(mail['due_at'], now)}{because}"
        case "unknown":
            return f"{_state('unknown')}, begun {by}{because}"
        case "dead":
            return f"{_state('dead')}{because}"
        case _:
            return f"no follow-up{because}"


def _resolving(chat: str) -> Iterator[str]:
    """What to type about a mail that is unknown."""
    yield ""
    yield from pairs(
        [
            ("if it went out", f"crm-sync followup resolve {chat} --sent"),
            ("if it did not", f"crm-sync followup resolve {chat} --send-again"),
        ]
    )


def _deliveries(deliveries: list[Found], now: float) -> Iterator[str]:
    if deliveries:
        yield ""
        yield strong("deliveries")
        rows = [[one["destination"], _state(one["state"]), _fate(one, now), one["id"]] for one in deliveries]
        yield from table(["", "", "", ""], rows)[1:]


def _fate(one: Found, now: float) -> str:
    """What became of a delivery, in words."""
    match one["state"]:
        case "delivered" if one["what"] == "email":
            named = f" as {plain(one['remote_id'], 40)}" if one["remote_id"] else ""
            return f"{when(one['settled_at'], now)}{named}"
        case "delivered":
            made = "made by us" if one["ours"] else "was there before"
            return f"{when(one['settled_at'], now)} as {plain(one['remote_id'], 24)}, {made}"
        case "pending":
            return _prospect(one, now)
        case _:
            return plain(one["reason"] or "", 50)


def _prospect(one: Found, now: float) -> str:
    if one["in_flight"]:
        return "a call is under way"
    if one["next_at"] is None:
        return "waits for its contact"
    told = f"next try {when(one['next_at'], now)}" if one["attempts"] else f"due {when(one['next_at'], now)}"
    return f"{told}: {plain(one['reason'], 40)}" if one["reason"] else told


def _joins(found: Found, now: float) -> Iterator[str]:
    if found["joins"] or found["strays"]:
        yield ""
        yield strong("one person or two?")
    for join in found["joins"]:
        words = {"joined": "was joined into", "possible": "may be the same as", "undone": "was taken apart from"}
        yield f"  {join['loser']} {words[join['state']]} {join['winner']} {when(join['at'], now)}: {join['reason']}"
        if join["state"] == "joined":
            yield f"    {faint('take apart')}  crm-sync duplicates --undo {join['loser']}"
    for stray in found["strays"]:
        yield f"  {stray['destination']} has a second record, {plain(stray['remote_id'], 24)}: merge it there"


def _chat(found: Found, now: float) -> Iterator[str]:
    yield _title("chat", found)
    waited = f", waited {span(found['wait_s'])}" if found["wait_s"] is not None else ""
    lasted = f", lasted {span(found['duration_s'])}" if found["duration_s"] is not None else ""
    yield from pairs(
        [
            ("called", f"{found['source']} {plain(found['chat'], 64)}"),
            ("contact", person(found["contact"])),
            ("agent", plain(found["agent"] or "", 40)),
            ("started", when(found["started_at"], now) + waited),
            ("closed", when(found["closed_at"], now) + lasted if found["closed_at"] else "not yet"),
            ("mail", followed_up(found["followup"], now)),
        ]
    )
    if found["followup"]["state"] == "unknown":
        yield from _resolving(called(found))
    said = {name.removeprefix("attributes."): value for name, value in found["said"].items() if "chat." not in name}
    if said:
        yield ""
        yield strong("said about the visitor")
        yield from pairs((plain(name, 24), plain(value, WIDTH)) for name, value in said.items())
    yield from _transcript(found["transcript"], now)
    yield ""
    yield strong("events")
    rows = [
        [when(e["occurred_at"], now), plain(e["name"], 30), _state(e["state"]), _copies(e), e["id"]]
        for e in found["events"]
    ]
    yield from table(["", "", "", "", ""], rows)[1:]
    yield from _deliveries(found["deliveries"], now)


def _copies(event: Found) -> str:
    return f"came {event['copies']} times" if event["copies"] > 1 else ""


def _transcript(lines: list[Found], now: float) -> Iterator[str]:
    if lines:
        yield ""
        yield strong(counted(len(lines), "message"))
        rows = [
            [when(line["at"], now), plain(line["name"] or line["sender"], 20), plain(line["text"], WIDTH - 10)]
            for line in lines[:LONGEST]
        ]
        yield from table(["", "", ""], rows)[1:]
        if len(lines) > LONGEST:
            yield faint(f"  and {len(lines) - LONGEST:,} more: --json has them all")


def _event(found: Found, now: float) -> Iterator[str]:
    yield _title("event", found)
    what, chat = plain(found["name"] or "-", 40), plain(found["chat"] or "-", 40)
    reason = f": {plain(found['error'], WIDTH)}" if found["error"] else ""
    changed = found["changed"]
    yield from pairs(
        [
            ("what", f"{what} from {found['source']}, chat {chat}"),
            ("happened", when(found["occurred_at"], now)),
            ("received", when(found["received_at"], now) + (f", {_copies(found)}" if _copies(found) else "")),
            ("state", _state(found["state"]) + reason),
            *(("cleaned", plain(flag, WIDTH + 10)) for flag in found["flags"]),
        ]
    )
    if changed is not None:
        yield ""
        yield strong("what it changed")
        yield from pairs(
            [
                ("chat", changed["chat"]),
                ("", _words(changed["said"])),
                ("contact", person(changed["contact"])),
                ("", _words(changed["stands"])),
            ]
        )
    if found["state"] == "unreadable":
        yield ""
        yield f"  {faint('after an update, or once the cause is gone')}  crm-sync replay --event {found['id']}"
        yield f"  {faint('if it is of no use                        ')}  crm-sync dismiss {found['id']}"
    yield ""
    yield strong("what came")
    lines = ["what it said is not kept any more"] if found["is_pruned"] else _payload(found["payload"])
    yield from (f"  {plain_indented(line)}" for line in lines[:LONGEST])
    if len(lines) > LONGEST:
        yield faint(f"  and {len(lines) - LONGEST:,} more lines: --json has them all")


def _words(names: Iterable[str]) -> str:
    """Which words of an event are still the newest."""
    short = [name.removeprefix("attributes.").removeprefix("chat.") for name in names]
    return f"its newest word on {plain(', '.join(short), WIDTH)}" if short else "newer words have been said since"


def plain_indented(line: str) -> str:
    """A line of a payload with its indentation, without anything that a terminal would obey."""
    return " " * (len(line) - len(line.lstrip(" "))) + plain(line, WIDTH + 20)


def _payload(payload: str) -> list[str]:
    """A payload, legibly: JSON indented, bytes as text as far as they are."""
    text = payload
    if payload.startswith("base64:"):
        text = base64.b64decode(payload.removeprefix("base64:")).decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2).splitlines()
    except (ValueError, RecursionError):
        return text.splitlines() or [""]


def _delivery(found: Found, now: float) -> Iterator[str]:
    yield _title("delivery", found)
    is_mail = found["what"] == "email"
    made = "" if is_mail else ", made by us" if found["ours"] else ", was there before"
    receipt = f"{plain(found['remote_id'], 40)}{made}"
    versions = f"{found['wanted']} is wanted, {found['done'] or 'none'} was settled so far"
    paused = when(found["paused_until"], now) if found["paused_until"] else ""
    yield from pairs(
        [
            ("what", f"{'follow-up of' if is_mail else found['what']} {found['subject']} to {found['destination']}"),
            ("state", _state(found["state"]) + (f": {plain(found['reason'], WIDTH)}" if found["reason"] else "")),
            ("next try", _prospect({**found, "reason": None}, now) if found["state"] == "pending" else ""),
            ("paused", f"{found['destination']} is tried again {paused}: {found['pause_reason']}" if paused else ""),
            ("version", "" if is_mail else versions),
            ("begun", f"{when(found['begun_at'], now)} by {found['mailer']}" if is_mail and found["begun_at"] else ""),
            ("receipt", receipt if found["remote_id"] else ""),
            ("owed", when(found["owed_at"], now) + (", by a replay" if found["replayed"] else "")),
            ("settled", when(found["settled_at"], now) if found["settled_at"] else ""),
            ("attempts", f"{found['attempts']} failed since it was owed" if found["attempts"] else ""),
        ]
    )
    if is_mail and found["state"] == "unknown":
        yield from _resolving(found["subject"])
    if found["state"] == "dead":
        yield ""
        yield f"  {faint('once the cause is gone')}  crm-sync replay --dead {found['destination']}"
        yield f"  {faint('if it is to stay so   ')}  crm-sync dismiss {found['id']}"
    if found["failures"]:
        yield ""
        yield strong("failures")
        rows = [
            [when(f["at"], now), f["outcome"], str(f["status"] or ""), plain(f["error"], WIDTH)]
            for f in found["failures"]
        ]
        yield from table(["", "", "", ""], rows)[1:]
