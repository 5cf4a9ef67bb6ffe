"""Clocks that jump by an hour and a day while they are looked at; hosts whose clocks differ; the days clocks change."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from torturing.acquire import DURATION, WAIT
from torturing.chance import chance
from torturing.checks import Finding, findings
from torturing.crm import Behaviour
from torturing.gathering import evidence_of
from torturing.members import Member
from torturing.people import CHATS_APART, Chat, Person, person
from torturing.stage import Stage

HOUR, DAY = 3600.0, 86400.0
JUMPS = (HOUR, -HOUR, DAY, -DAY)
TIMEOUT = 1.0
"""Seconds that a call may take. A claim holds four times six of them and a bit: it bears hosts 5 s apart."""

APART = 5.0
"""Seconds from one host's clock to the other's, where there are several."""

WRONG_FOR = (1.0, 3.0)
"""Seconds that a clock is wrong."""

CAUGHT = 10.0
"""Seconds that a clock is wrong at most until something waits by it."""

SETTLED = 180.0
"""Seconds in which everything must have arrived once all clocks are right: the backoff after five or six 500s in a row,
which one chat in some hundreds gets. Whoever waits by a wrong clock waits for an hour at least."""

BROKEN = 0.15
"""How many calls the CRM answers with 500: so that something always waits for its time when a clock jumps."""

PAST = 30 * HOUR
"""People chat so long ago that no clock here is too early to believe it."""

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
"""The last moves its clocks by half an hour only."""


@dataclass(frozen=True, slots=True)
class Change:
    """When the clocks of a zone change: forward or back."""

    zone: str
    at: float

    @property
    def back(self) -> float:
        """How many seconds of its clock come twice; negative where some are skipped."""
        zone = ZoneInfo(self.zone)
        before, after = (datetime.fromtimestamp(self.at + part, zone).utcoffset() for part in (-1, 1))
        assert before is not None and after is not None
        return (before - after).total_seconds()


def change_of(seed: int, now: float) -> Change:
    """The last change of clocks in the zone of a seed: back for an odd one, forward for an even one."""
    zone = ZONES[seed // 2 % len(ZONES)]
    hour = now - PAST - now % 1800
    while True:
        change = Change(zone, hour)
        if (change.back > 0) if seed % 2 else (change.back < 0):
            return change
        hour -= 1800


def prepare(stage: Stage, seed: int) -> None:
    """Let clocks be moved, calls take long enough for hosts that differ, and dates be local ones around a change."""
    change = change_of(seed, time.time())
    (stage.folder / "clocks").mkdir()
    stage.behaviour = Behaviour(broken=BROKEN, cut=0.01, slow=0.03)
    stage.extra = {
        **stage.extra,
        "TORTURE_CLOCKS": str(stage.folder / "clocks"),
        "HUBSPOT_TIMEOUT": str(TIMEOUT),
        "ACQUIRE_TIMEZONE": change.zone,
    }
    stage.source_options = {"visitor": lambda n: around(change, person(n, seed, change.at + 7200), n)}


def around(change: Change, someone: Person, number: int) -> Person:
    """Somebody who chats while the clocks change, in local dates."""
    shift = -CHATS_APART * (number % 4) + 15
    chats = [replace(c, zone=change.zone, started_at=c.started_at + shift) for c in someone.chats]
    return replace(someone, chats=tuple(chats))


def as_read(at: float, zone: str) -> float:
    """What a local date without its zone means: of two meanings the first, as the service promises."""
    return datetime.fromtimestamp(at, ZoneInfo(zone)).replace(fold=0, microsecond=0).timestamp()


def last_word(chat: Chat) -> float:
    """The latest time that any event of a chat is read as: by it words are older or newer."""
    spans = (0, WAIT, *(WAIT + 3 * (n + 1) for n in range(len(chat.lines))), WAIT + DURATION)
    ended = as_read(chat.started_at, chat.zone) + WAIT + DURATION
    return max(ended, *(as_read(chat.started_at + span, chat.zone) for span in spans))


def play(stage: Stage, seed: int) -> None:
    """Move one clock at a time, now while it is looked at, now over a kill; two hosts stay 5 s apart throughout."""
    random = chance(seed)
    for member in stage.members:
        _set(stage, member, _usual(stage, member))
    jumps = [jump for _ in range(stage.budget) for jump in random.sample(JUMPS, len(JUMPS))][: stage.budget]
    for turn, jump in enumerate(jumps):
        stage.wait(random.uniform(0.5, 1.5))
        member = random.choice(stage.members)
        if turn % 2:
            _come_up(stage, member, jump)
            stage.wait(random.uniform(*WRONG_FOR) + 1.0)
            _come_up(stage, member, _usual(stage, member))
        else:
            _set(stage, member, jump)
            stage.wait(random.uniform(*WRONG_FOR))
            _wait_for_one_that_waits(stage, jump)
            _set(stage, member, _usual(stage, member))
    stage.remarks.append(f"{len(jumps)} jumps; dates of {stage.extra['ACQUIRE_TIMEZONE']}")
    stage.draining = SETTLED


def _wait_for_one_that_waits(stage: Stage, jump: float) -> None:
    """Where the ledger goes by this clock, and it is ahead: until something waits for a time that is far too late."""
    late, end = time.time() + jump / 2, time.monotonic() + CAUGHT
    while stage.is_sqlite and jump > 0 and time.monotonic() < end:
        rows = stage.ledger.select("SELECT MAX(due_at) AS at FROM deliveries WHERE state = 'pending'")
        if (rows[0]["at"] or 0.0) > late:
            return
        stage.wait(0.05)


def _usual(stage: Stage, member: Member) -> float:
    """How wrong the clock of a process is all the time: those of the second host are ahead."""
    return APART if not stage.is_sqlite and member.name.endswith("-1") else 0.0


def _set(stage: Stage, member: Member, seconds: float) -> None:
    file = stage.folder / "clocks" / str(member.pid)
    draft = file.with_suffix(".draft")
    draft.write_text(str(seconds))
    draft.replace(file)


def _come_up(stage: Stage, member: Member, seconds: float) -> None:
    """The machine goes down and comes up with another clock."""
    stage.kill(member, TORTURE_CLOCK=str(seconds))
    member.is_armed = False  # it has no crash point: to end by itself would be news


def judge(stage: Stage) -> Sequence[Finding]:
    """Nothing is lost or doubled; and the newest word of everybody is that which its dates say is the newest."""
    evidence = evidence_of(stage)
    return findings(replace(evidence, people=[_as_told(someone) for someone in evidence.people]))


def _as_told(someone: Person) -> Person:
    return replace(someone, chats=tuple(replace(chat, started_at=last_word(chat)) for chat in someone.chats))
