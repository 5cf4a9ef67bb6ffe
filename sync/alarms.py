"""Tells the operator what needs a person: once a cause, with an all-clear, without personal data.

By a POST to a URL, by a mail, or both. What is told by mail is written down before it leaves: one that may have gone
out is not repeated for an hour.
"""

import hashlib
import html
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import structlog

from sync.destinations.mail.base import Mailer
from sync.errors import DeliveryError, Waiting
from sync.http import Client
from sync.ledger import Ledger
from sync.ledger.hearing import SILENCE, heard_at, waiting_since
from sync.ledger.writer import Writer
from sync.models import Email
from sync.silence import Expectation, spelled

log = structlog.get_logger("sync.alarms")

LONG_PAUSE = 600.0
"""Seconds after which a pause is worth waking somebody."""

REPAIRED = "repaired"
"""The alarm that a pull raises and clears, not a round of housekeeping."""

UNHELD = 300.0
"""Seconds after which an alarm about a silence is over that no host has held: its setting, or the host, is gone."""

QUIET = 3600.0
"""Seconds for which an alarm is not told by mail again that may have been told."""

MAIL_RETRY = (60.0, 3600.0)
"""Seconds until the next mail after one that failed: they double from the first to the second."""

SUBJECT = 150
"""Characters of a subject."""

MAILED = "alarm_mail"
"""The mark of what was told by mail."""


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell: an alarm that was raised, or that is over."""

    key: str
    text: str
    since: float
    is_over: bool


Expected = Mapping[str, Expectation]
"""How often each source is expected to send something."""


def due(ledger: Ledger, disk: Mapping[str, str], expected: Expected) -> dict[str, str]:
    """The alarms that hold now: key → sentence. `disk` brings those that are not about the ledger's rows."""
    now, found = ledger.engine.now, dict(disk) | _silences(ledger, expected)
    waiting = {row["destination"] for row in ledger.engine.rows("waiting")}
    for row in ledger.engine.rows("load_destinations"):
        if row["name"] in waiting and row["paused_at"] is not None and now - row["paused_at"] > LONG_PAUSE:
            found[f"paused:{row['name']}"] = (
                f"{row['name']} has been paused since {_iso(row['paused_at'])}: {row['reason']}. "
                "Nothing is lost; it waits."
            )
    for row in ledger.engine.rows("dead_causes"):
        key = hashlib.sha256(f"{row['destination']}/{row['kind']}/{row['error']}".encode()).hexdigest()[:12]
        found[f"dead:{row['destination']}:{key}"] = (
            f"{row['destination']} refuses a {row['kind']} for good: {row['error']}. See `crm-sync status`; "
            f"after the cause is gone: `crm-sync replay --dead {row['destination']}`, else `crm-sync dismiss`."
        )
    if ledger.get("newest_unreadable") is not None:
        found["unreadable"] = (
            "A webhook arrived that could not be read. It is kept; see `crm-sync status` and "
            "`crm-sync replay --unreadable`, or `crm-sync dismiss`."
        )
    if ledger.engine.rows("unknown_mails"):
        found["unknown"] = (
            "Nobody knows whether a follow-up went out, so it is not sent again. See `crm-sync status`; then "
            "`crm-sync followup resolve`."
        )
    return found


def _silences(ledger: Ledger, expected: Expected) -> dict[str, str]:
    found = {}
    for source, rule in expected.items():
        since = waiting_since(ledger, source)
        if rule.is_broken(since, ledger.engine.now):
            hours = "" if rule.hours is None else f" ({rule.hours}, {rule.zone.key})"
            found[f"{SILENCE}{source}"] = (
                f"No webhook has come from {source} since {_iso(since)}, though one is expected every "
                f"{spelled(rule.every)}{hours}. Is it still switched on there, and can this server be reached?"
            )
    return found


def review(ledger: Ledger, disk: Mapping[str, str], expected: Expected | None = None) -> list[News]:
    """Raise what holds, clear what no longer does, and return what the operator's URL was not told yet."""
    holding = due(ledger, disk, expected or {})
    for key, text in holding.items():
        ledger.engine.run("raise_alarm", key=key, text=text)
        if _may_differ(ledger, key):
            ledger.engine.run("set_mark", name=_held(key), value=repr(ledger.engine.now))
    for row in ledger.engine.rows("open_alarms"):
        if row["key"] not in holding and _is_over(ledger, row["key"], row["raised_at"]):
            ledger.engine.run("clear_alarm", key=row["key"])
    untold = []
    for row in ledger.engine.rows("untold_alarms"):
        if row["cleared_at"] is not None and row["told_at"] is None:
            ledger.engine.run("alarm_told", key=row["key"])  # over before anybody heard of it
        else:
            untold.append(News(row["key"], row["text"], row["raised_at"], is_over=row["cleared_at"] is not None))
    return untold


def _may_differ(ledger: Ledger, key: str) -> bool:
    """Whether an alarm may hold at one host and not at another, for each has settings of its own."""
    return ledger.engine.is_shared and key.startswith(SILENCE)


def _is_over(ledger: Ledger, key: str, raised_at: float) -> bool:
    """Whether an alarm is over that does not hold at this host.

    Another host may expect more of a source than this one. Its alarm stands until a webhook comes, whoever took it, or
    until no host has held it for a while; else the two would raise and clear it in turn.
    """
    if key == REPAIRED:
        return False
    if not _may_differ(ledger, key):
        return True
    heard = heard_at(ledger, key.removeprefix(SILENCE))
    held = ledger.get("get_mark", name=_held(key))
    came = heard is not None and heard > raised_at
    return came or held is None or ledger.engine.now - float(held["value"]) > UNHELD


def _held(key: str) -> str:
    """The mark of when a host last held an alarm."""
    return f"held_{key}"


def raise_repaired(ledger: Ledger, n: int) -> None:
    """Raise the alarm that a pull found chats which no webhook had told of; clear it where it found none.

    Inside a transaction. A webhook that is lost now and then is worth a look at the source.
    """
    if n:
        which, were = ("1 chat", "was") if n == 1 else (f"{n:,} chats", "were")
        text = f"{which} had been missed by webhooks and {were} pulled: check the webhook at the source."
        ledger.engine.run("raise_alarm", key=REPAIRED, text=text)
    else:
        ledger.engine.run("clear_alarm", key=REPAIRED)


def disk_alarms(folder: Path, reserve: int) -> dict[str, str]:
    """The alarm for a disk that is nearly full, if it is."""
    free = shutil.disk_usage(folder).free
    if free >= reserve:
        return {}
    return {
        "disk": f"The disk of the ledger is nearly full (under {reserve >> 20} MiB free). Soon webhooks will get 503."
    }


async def tell(client: Client, writer: Writer, news: list[News]) -> None:
    """POST each alarm as JSON; what could not be told is told in the next round."""
    for item in news:
        state = "cleared" if item.is_over else "raised"
        text = f"Over: {item.text}" if item.is_over else item.text
        body = {"service": "chat-crm-sync", "alarm": item.key, "state": state, "since": _iso(item.since), "text": text}
        try:
            answer = await client.call("POST", "", json=body)
        except DeliveryError as error:
            log.warning("the alarm URL cannot be reached", reason=error.reason)
            return
        if not answer.is_success:
            log.warning("the alarm URL refuses", status=answer.status)
            return
        await writer.do(lambda ledger, key=item.key: ledger.engine.run("alarm_told", key=key))  # type: ignore[misc]


@dataclass
class Mailed:
    """What was told by mail. `told`: key of an alarm that was told → when it was raised; its end is still to be told.

    `perhaps`: what may have been told → until when it is not told again. After `failures` in a row nothing is told
    before `next_at`.
    """

    told: dict[str, float] = field(default_factory=dict)
    perhaps: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    next_at: float = 0.0

    def untold(self, alarms: Collection[News], now: float) -> list[News]:
        """What is to be told now, of all alarms that are open and of those whose end is not told yet."""
        if now < self.next_at:
            return []
        return [each for each in alarms if self._is_news(each) and self.perhaps.get(_instance(each), 0.0) <= now]

    def _is_news(self, alarm: News) -> bool:
        if alarm.is_over:
            return alarm.key in self.told or _instance(replace(alarm, is_over=False)) in self.perhaps
        return self.told.get(alarm.key) != alarm.since

    def begin(self, news: Sequence[News], now: float) -> None:
        """From now on each may have been told."""
        going = {_instance(item): now + QUIET for item in news}
        self.perhaps = {each: until for each, until in self.perhaps.items() if until > now} | going

    def end(self, news: Sequence[News]) -> None:
        """They were told."""
        self.forgive(news)
        for item in news:
            if item.is_over:
                self.told.pop(item.key, None)
                self.forgive([replace(item, is_over=False)])
            else:
                self.told[item.key] = item.since
        self.failures, self.next_at = 0, 0.0

    def forgive(self, news: Sequence[News]) -> None:
        """They were certainly not told."""
        for item in news:
            self.perhaps.pop(_instance(item), None)

    def wait(self, now: float) -> None:
        """The mailer failed: try again later, ever later up to a limit."""
        first, last = MAIL_RETRY
        self.next_at = now + min(first * 2 ** min(self.failures, 10), last)
        self.failures += 1


@dataclass(frozen=True, slots=True)
class Postbox:
    """Where alarms go by mail."""

    mailer: Mailer
    to: str
    sender: str


async def tell_by_mail(postbox: Postbox, writer: Writer) -> None:
    """Send one mail with everything that was not told yet; what could not be told is tried again later."""
    news, now = await writer.do(_begin_mail)
    if not news:
        return
    try:
        await postbox.mailer.send(mail_of(news, postbox, now))
    except DeliveryError as error:
        log.warning("an alarm could not be mailed", reason=error.reason)
        may_have_gone = isinstance(error, Waiting) and error.may_have_landed
        await writer.do(lambda ledger: _end_mail(ledger, news, went=None if may_have_gone else False))
    else:
        await writer.do(lambda ledger: _end_mail(ledger, news, went=True))


def mail_of(news: Sequence[News], postbox: Postbox, now: float) -> Email:
    """One mail about some alarms: the same key for the same alarms."""
    names = [f"{'over: ' if item.is_over else ''}{item.key}" for item in news]
    subject = names[0] if len(names) == 1 else f"{len(names)} alarms: {', '.join(names)}"
    lines = [f"{'Over' if item.is_over else 'Since ' + _iso(item.since)}: {item.text}" for item in news]
    text = "\n\n".join([*lines, "`crm-sync status` shows how everything stands."]) + "\n"
    digest = hashlib.sha256("\n".join(sorted(map(_instance, news))).encode()).hexdigest()
    return Email(
        to=postbox.to,
        sender=postbox.sender,
        subject=f"[chat-crm-sync] {subject}"[:SUBJECT],
        text=text,
        html=f"<pre>{html.escape(text)}</pre>",
        key=str(UUID(digest[:32])),
        written_at=now,
        headers={"Auto-Submitted": "auto-generated"},
    )


def _begin_mail(ledger: Ledger) -> tuple[list[News], float]:
    now, mailed = ledger.engine.now, _mailed(ledger)
    heard_of = {*mailed.told, *(instance.split(" ")[0] for instance in mailed.perhaps)}
    news = mailed.untold(_alarms(ledger, heard_of), now)
    if news:
        mailed.begin(news, now)
        _keep(ledger, mailed)
    return news, now


def _alarms(ledger: Ledger, told: Collection[str]) -> list[News]:
    found = [News(r["key"], r["text"], r["raised_at"], is_over=False) for r in ledger.engine.rows("open_alarms")]
    ended = ledger.engine.rows("ended_alarms", rows=[{"key": key} for key in sorted(told)]) if told else []
    return [*found, *(News(r["key"], r["text"], r["raised_at"], is_over=True) for r in ended)]


def _end_mail(ledger: Ledger, news: Sequence[News], *, went: bool | None) -> None:
    """Note how a mail ended. None: nobody knows."""
    mailed = _mailed(ledger)
    if went:
        mailed.end(news)
    else:
        mailed.wait(ledger.engine.now)
        if went is not None:
            mailed.forgive(news)
    _keep(ledger, mailed)


def _mailed(ledger: Ledger) -> Mailed:
    mark = ledger.get("get_mark", name=MAILED)
    return Mailed() if mark is None else Mailed(**json.loads(mark["value"]))


def _keep(ledger: Ledger, mailed: Mailed) -> None:
    ledger.engine.run("set_mark", name=MAILED, value=json.dumps(asdict(mailed)))


def _instance(item: News) -> str:
    return f"{item.key} {item.since!r} {'over' if item.is_over else 'raised'}"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
