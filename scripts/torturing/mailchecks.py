"""Compares the mails that went out with what was promised: at most one for a chat, and nothing silent. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torturing.checks import DOUBLED, LOST, SILENT, WRONG, Finding
from torturing.people import Chat, Person

Row = Mapping[str, Any]

SUBJECT = "About your chat "
"""How the subject of every mail begins; the number of its chat follows."""

NOT_ASKED_AGAIN = ("its answer was lost; not asked again: ", "an earlier attempt may have sent it; then: ")
"""How the reason of a mail begins that might be handed over again, but for something that came up meanwhile, or that
was asked again and refused for good."""


@dataclass(frozen=True)
class MailEvidence:
    """All that is known of the mails after a run.

    `mails` went out, by the sink's journal; `rows` are the ledger's, with the source's id of the chat; `listed` and
    `code` are what `crm-sync status` says of unknown ones, and its exit code. `is_repeatable`: the mailer can be asked
    again without a second mail.
    """

    people: Sequence[Person]
    mails: Sequence[Row]
    rows: Sequence[Row]
    listed: Sequence[str]
    code: int
    is_repeatable: bool
    now: float


def mail_findings(evidence: MailEvidence) -> list[Finding]:
    """All that is wrong. Empty: the promise was kept."""
    checks = (_doubled, _of_chats, _recipients, _words)
    return [finding for check in checks for finding in check(evidence)]


def chat_of(mail: Row) -> int:
    """The chat that a mail is about; 0 where it is about none."""
    said = str(mail["subject"]).removeprefix(SUBJECT)
    return int(said) if said.isdigit() else 0


def sent(evidence: MailEvidence) -> Mapping[int, list[Row]]:
    """The mails that went out, by chat."""
    found: dict[int, list[Row]] = {}
    for mail in evidence.mails:
        found.setdefault(chat_of(mail), []).append(mail)
    return found


def _doubled(evidence: MailEvidence) -> Iterator[Finding]:
    """No chat has two mails, by whatever name; no mail belongs to no chat."""
    rows = {row["chat"]: row for row in evidence.rows}
    chats = {chat.number for person in evidence.people for chat in person.chats}
    for number, mails in sent(evidence).items():
        told = (str(rows.get(f"v1:{number}")), *map(str, mails))
        if number not in chats:
            yield Finding(DOUBLED, f"chat {number}", "is no chat, and a mail went out about it", told)
        elif len(mails) > 1:
            yield Finding(DOUBLED, f"chat {number}", f"got {len(mails)} mails", told)
    for name, n in Counter(mail["message_id"] for mail in evidence.mails).items():
        if n > 1:
            yield Finding(DOUBLED, str(name), f"is the Message-ID of {n} mails")
    for chat, n in Counter(row["chat"] for row in evidence.rows).items():
        if n > 1:
            yield Finding(DOUBLED, str(chat), f"has {n} mail deliveries in the ledger")


def _of_chats(evidence: MailEvidence) -> Iterator[Finding]:
    """Each closed chat has its mail, or says why not; and what it says agrees with what went out."""
    rows = {row["chat"]: row for row in evidence.rows}
    gone = sent(evidence)
    for person in evidence.people:
        for chat in person.chats:
            row, mails = rows.get(f"v1:{chat.number}"), gone.get(chat.number, [])
            if row is None:
                yield Finding(SILENT, f"chat {chat.number}", "is closed, and no mail is owed or declined", ())
            elif found := _stands(evidence, person, chat, row, len(mails)):
                yield Finding(found[0], f"chat {chat.number}", found[1], (str(row), *map(str, mails)))


def _stands(evidence: MailEvidence, person: Person, chat: Chat, row: Row, mails: int) -> tuple[str, str] | None:
    """What is wrong with how one chat's mail stands: sort, words."""
    state, reason = row["state"], row["error"]
    if state == "delivered":
        return (LOST, "its mail counts as sent, and none went out") if not mails else None
    if not reason:
        return SILENT, f"its mail is {state} and does not say why"
    match state:
        case "pending" if row["due_at"] is None or row["due_at"] <= evidence.now:
            return LOST, f"its mail still waits ({reason})"
        case "pending" | "ignored" | "dead" if mails:
            return WRONG, f"its mail is {state} ({reason}), and one went out"
        case "pending":
            return LOST, f"its mail was put off ({reason}), and nothing asks for that"
        case "ignored" if chat.email is not None and len(person.chats) == 1:
            return LOST, f"its mail was declined ({reason}), and there is no ground for that"
        case "unknown" if evidence.is_repeatable and not reason.startswith(NOT_ASKED_AGAIN):
            return LOST, f"its mail is unknown ({reason}), and this mailer can be asked again"
        case "unknown" if row["lease_until"] is not None and row["lease_until"] > evidence.now:
            return LOST, "its mail is still being sent"
        case "ignored" | "dead" | "unknown":
            return None
    return SILENT, f"its mail is {state!r}, which is no state"


def _recipients(evidence: MailEvidence) -> Iterator[Finding]:
    """Each mail went to the person of its chat."""
    wanted = {chat.number: person.key for person in evidence.people for chat in person.chats}
    for mail in evidence.mails:
        to = str(mail["to"]).lower()
        if to != wanted.get(chat_of(mail), to):
            yield Finding(WRONG, f"chat {chat_of(mail)}", f"its mail went to {mail['to']}", (str(mail),))


def _words(evidence: MailEvidence) -> Iterator[Finding]:
    """`crm-sync status` lists exactly those that are unknown, and calls for a person where there is one to call."""
    unknown = {row["subject"] for row in evidence.rows if row["state"] == "unknown"}
    if unknown != set(evidence.listed):
        said = f"lists {len(evidence.listed)} unknown mails; there are {len(unknown)}"
        yield Finding(SILENT, "crm-sync status", said)
    needs_person = any(row["state"] in ("unknown", "dead") for row in evidence.rows)
    if evidence.code != int(needs_person):
        yield Finding(SILENT, "crm-sync status", f"has exit code {evidence.code}, and it should be {int(needs_person)}")


def tally(evidence: MailEvidence) -> str:
    """How the mails stand, in a line."""
    states = Counter(row["state"] for row in evidence.rows)
    reasons = Counter(row["error"] for row in evidence.rows if row["state"] == "ignored")
    doubled = sum(len(mails) - 1 for mails in sent(evidence).values())
    ignored = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    return (
        f"mails accepted: {len(evidence.mails)}, doubled: {doubled}, unknown: {states['unknown']}, "
        f"dead: {states['dead']}, ignored: {states['ignored']}" + (f" ({ignored})" if ignored else "")
    )
