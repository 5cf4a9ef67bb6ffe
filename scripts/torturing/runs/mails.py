"""SIGKILL at every boundary around sending, and at random: at most one follow-up for each chat."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from torturing.acquire import DURATION, WAIT
from torturing.chance import chance
from torturing.checks import WRONG, Finding, findings
from torturing.gathering import evidence_of, said_by
from torturing.mailchecks import SUBJECT, MailEvidence, chat_of, mail_findings, tally
from torturing.mailsink import KINDS, SECRET, Behaviour
from torturing.members import SCRIPTS, Member, until
from torturing.people import Person, person
from torturing.stage import Stage, free_port

POINTS = (
    "mail-claim.before",
    "mail-claim.after",
    "mail.leaving",
    "mail.sent",
    "mail.answered",
    "mail-settle.before",
    "mail-settle.after",
)
"""`crashing/sitecustomize.py` says what each of them is."""

RANDOM = 2
"""Kills at random instants for each at a point."""

SQLITE_PAUSES = (0.3, 1.3)
"""Seconds between two kills at random. The one process needs most of a second to come up."""

POSTGRESQL_PAUSES = (0.2, 0.7)
LAPSING = 45.0
"""Seconds after which nothing can be under way any more: all leases are over."""

ASKED = 4
"""Unknown mails that a person looks up after each part; the others are only counted."""

JOURNAL = "mails.jsonl"
TIMEOUTS = {"smtp": 0.2, "resend": 0.25, "postmark": 0.25}
ENDS = 1.0 - WAIT - DURATION
"""Seconds from now at which somebody's last chat began: so it is over in a moment."""

APART = 2.0
"""Seconds from one chat of a person to the next."""


def kind_of(seed: int) -> str:
    """The mailer of a seed."""
    return KINDS[seed % len(KINDS)]


def prepare(stage: Stage, seed: int) -> None:
    """Set up a mailer, and visitors who chat right now, fewer at a time."""
    random, kind, port = chance(seed, "mails"), kind_of(seed), free_port()
    behaviour = json.dumps(asdict(Behaviour(seed=seed)))
    command = ["-m", "torturing.mailsink", kind, str(port), str(stage.folder / JOURNAL), behaviour]
    stage.neighbours.append(Member("mailsink", [sys.executable, *command], stage.folder, {}, SCRIPTS))
    stage.extra = {
        **stage.extra,
        **_mailer(kind, port),
        "SYNC_MAILER": kind,
        "SYNC_PUBLIC_URL": "https://chat.example.com",
        "FOLLOWUP_FROM": "Our support <support@example.com>",
        "FOLLOWUP_SUBJECT": f"{SUBJECT}{{{{ chat.id }}}}",
        "FOLLOWUP_DELAY": str(random.choice((0, 0.3, 1))),
        "FOLLOWUP_COOLDOWN": "0",
        "FOLLOWUP_MAX_PER_HOUR": "1000000",
    }
    stage.source_options = {"pause": 0.25, "visitor": lambda n: here(person(n, seed, 0.0), time.time())}


def here(someone: Person, now: float) -> Person:
    """Somebody whose chats are all over at this moment."""
    starts = sorted({chat.started_at for chat in someone.chats}, reverse=True)
    places = {start: now + ENDS - APART * place for place, start in enumerate(starts)}
    return replace(someone, chats=tuple(replace(chat, started_at=places[chat.started_at]) for chat in someone.chats))


def _mailer(kind: str, port: int) -> dict[str, str]:
    upper, timeout = kind.upper(), str(TIMEOUTS[kind])
    given = {f"{upper}_TIMEOUT": timeout, f"{upper}_CONNECTIONS": "4"}
    match kind:
        case "smtp":
            return {**given, "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port), "SMTP_SECURITY": "none"}
        case "resend":
            base = {"RESEND_BASE_URL": f"http://127.0.0.1:{port}", "RESEND_CALLS_PER_SECOND": "200"}
            return {**given, **base, "RESEND_API_KEY": SECRET}
        case _:
            return {**given, "POSTMARK_BASE_URL": f"http://127.0.0.1:{port}", "POSTMARK_SERVER_TOKEN": SECRET}


def play(stage: Stage, seed: int) -> None:
    """Let a process that sends die at each point in turn; kill any process at any time in between."""
    random = chance(seed)
    pauses = SQLITE_PAUSES if stage.is_sqlite else POSTGRESQL_PAUSES
    try:
        for turn in count(seed):
            if stage.kills >= stage.budget:
                break
            _at(stage, POINTS[turn % len(POINTS)], random)
            for _ in range(min(RANDOM, stage.budget - stage.kills)):
                stage.wait(random.uniform(*pauses))
                stage.kill(random.choice(stage.members))
    finally:
        (stage.folder / f"{JOURNAL}.calm").touch()


def _at(stage: Stage, point: str, random: Random) -> None:
    member = random.choice(stage.dispatchers)
    stage.replace(member, TORTURE_POINT=point, TORTURE_HITS=str(random.choice((1, 1, 2, 3))))
    if not stage.await_crash(member):
        raise TimeoutError(f"{member.name} never came to {point}")


def judge(stage: Stage) -> Sequence[Finding]:
    """What is wrong with the mails, after a person has looked some of the unknown ones up; and with all the rest."""
    kind = kind_of(stage.seed)
    _lapse(stage, kind)
    found = mail_findings(before := _evidence(stage, kind))
    stage.remarks.append(f"{kind}: {tally(before)}")
    found += _look_up(stage, kind, before)
    told = {(finding.sort, finding.who, finding.what) for finding in found}
    after = mail_findings(_evidence(stage, kind))
    found += [finding for finding in after if (finding.sort, finding.who, finding.what) not in told]
    rest = evidence_of(stage)
    others = [row for row in rest.deliveries if row["destination"] != "mail"]
    return [*found, *findings(replace(rest, deliveries=others, status=(0, "Everything has arrived.")))]


def _lapse(stage: Stage, kind: str) -> None:
    """Wait until no mail can be under way any more."""

    def is_over() -> bool:
        rows = [row for row in _rows(stage) if row["state"] == "unknown" and row["lease_until"] is not None]
        stage.tend()
        return all(kind != "resend" and row["lease_until"] < time.time() for row in rows)

    with suppress(TimeoutError):  # what is not over then is found by the checks
        until(is_over, "the leases of all mails are over", LAPSING)


def _look_up(stage: Stage, kind: str, evidence: MailEvidence) -> Iterator[Finding]:
    """Do as a person does: look at the mailer whether it has the mail, and say so."""
    gone = {chat_of(mail) for mail in evidence.mails}
    unknown = [row for row in evidence.rows if row["state"] == "unknown"]
    unknown.sort(key=lambda row: _number(row) in gone)
    asked = [*unknown[: ASKED // 2], *unknown[ASKED // 2 :][-ASKED // 2 :]]
    for row in asked:
        says = "--sent" if _number(row) in gone else "--send-again"
        code, said = said_by(stage, "followup", "resolve", row["chat"], says)
        if code:
            yield Finding(WRONG, row["chat"], f"cannot be resolved with {says}: {said}", (str(row),))
    ids = {row["subject"] for row in asked}
    with suppress(TimeoutError):
        until(lambda: not any(r["state"] == "pending" for r in _rows(stage)), "what was looked up is sent", LAPSING)
    _lapse(stage, kind)
    for row in (row for row in _rows(stage) if row["subject"] in ids and row["state"] == "unknown"):
        yield Finding(WRONG, row["chat"], "was resolved and is unknown again, though the mailer behaves", (str(row),))
    if asked:
        again = sum(_number(row) not in gone for row in asked)
        stage.remarks.append(f"looked up: {len(asked) - again} sent, {again} sent again")


def _number(row: Any) -> int:
    return int(row["chat"].removeprefix("v1:"))


def _evidence(stage: Stage, kind: str) -> MailEvidence:
    code, said = said_by(stage, "status", "--json")
    return MailEvidence(
        people=stage.source.people,
        mails=mails(stage.folder / JOURNAL),
        rows=_rows(stage),
        listed=[one["id"] for one in json.loads(said)["unknown"]],
        code=code,
        is_repeatable=kind == "resend",
        now=time.time(),
    )


def _rows(stage: Stage) -> list[dict[str, Any]]:
    return stage.ledger.select(
        "SELECT d.*, chats.chat FROM deliveries d JOIN chats ON chats.id = d.subject WHERE d.kind = 'email'"
    )


def mails(journal: Path) -> list[dict[str, Any]]:
    """The mails that went out, from the journal of the sink."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [line for line in map(json.loads, lines) if "subject" in line]
