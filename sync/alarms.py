"""Tells the operator's URL what needs a person: once a cause, with an all-clear, without personal data."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from sync.errors import DeliveryError
from sync.http import Client
from sync.ledger import Ledger
from sync.ledger.writer import Writer

log = structlog.get_logger("sync.alarms")

LONG_PAUSE = 600.0
"""Seconds after which a pause is worth waking somebody."""


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell: an alarm that was raised, or that is over."""

    key: str
    text: str
    since: float
    is_over: bool


def due(ledger: Ledger, disk: Mapping[str, str]) -> dict[str, str]:
    """The alarms that hold now: key → sentence. `disk` brings those that are not about the ledger's rows."""
    now, found = ledger.engine.now, dict(disk)
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
            f"after the cause is gone: `crm-sync replay --dead {row['destination']}`."
        )
    if ledger.get("newest_unreadable") is not None:
        found["unreadable"] = (
            "A webhook arrived that could not be read. It is kept; see `crm-sync status` and "
            "`crm-sync replay --unreadable`."
        )
    return found


def review(ledger: Ledger, disk: Mapping[str, str]) -> list[News]:
    """Raise what holds, clear what no longer does, and return what the operator was not told yet."""
    holding = due(ledger, disk)
    for key, text in holding.items():
        ledger.engine.run("raise_alarm", key=key, text=text)
    for row in ledger.engine.rows("open_alarms"):
        if row["key"] not in holding:
            ledger.engine.run("clear_alarm", key=row["key"])
    untold = []
    for row in ledger.engine.rows("untold_alarms"):
        if row["cleared_at"] is not None and row["told_at"] is None:
            ledger.engine.run("alarm_told", key=row["key"])  # over before anybody heard of it
        else:
            untold.append(News(row["key"], row["text"], row["raised_at"], is_over=row["cleared_at"] is not None))
    return untold


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


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
