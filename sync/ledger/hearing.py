"""When a source was heard: its last webhook, its silences."""

from dataclasses import dataclass

from sync.ids import first_id
from sync.ledger import Ledger

FINE = 900.0
"""Seconds below which a silence is not looked for."""

EVENT = "ev"

SILENCE = "silence:"
"""What the key of an alarm begins with that is about a source that has gone silent."""


def heard(source: str) -> str:
    """The counter of a source's authentic webhooks, repetitions among them. Its time is that of the last one."""
    return f"heard_{source}"


def heard_at(ledger: Ledger, source: str) -> float | None:
    """When the last authentic webhook of a source came, to a few seconds; None if there never was one."""
    row = ledger.get("counted_at", name=heard(source))
    if row is not None:
        return float(row["at"])
    newest = ledger.get("newest_event_of", source=source)  # stored before webhooks were counted
    return None if newest is None else float(newest["received_at"])


def waiting_since(ledger: Ledger, source: str) -> float:
    """When a source was last heard; where it never was, since when that is noticed. Inside a transaction."""
    at = heard_at(ledger, source)
    if at is not None:
        return at
    name = f"expecting_{source}"
    mark = ledger.get("get_mark", name=name)
    if mark is None:
        ledger.engine.run("set_mark", name=name, value=repr(ledger.engine.now))
        return ledger.engine.now
    return float(mark["value"])


def silent(ledger: Ledger) -> list[str]:
    """The sentences of the alarms about sources that are silent now."""
    return [row["text"] for row in ledger.engine.rows("open_alarms") if row["key"].startswith(SILENCE)]


@dataclass(frozen=True, slots=True)
class History:
    """When a source was heard first and last, and its silences in between: begin and end of each."""

    begins: float
    ends: float
    silences: tuple[tuple[float, float], ...]


def history(ledger: Ledger, source: str, since: float) -> History | None:
    """What is known of a source since a time; None where nothing was heard.

    It jumps from the last event of a quarter of an hour to that of the next: its cost is that of the days, not of the
    events.
    """
    row = ledger.get("next_event_of", source=source, after=first_id(EVENT, since))
    if row is None:
        return None
    begins = row["received_at"]
    silences: list[tuple[float, float]] = []
    while True:
        at = row["received_at"]
        further = ledger.get("last_event_until", source=source, after=row["id"], until=first_id(EVENT, at + FINE))
        if further is None:
            further = ledger.get("next_event_of", source=source, after=row["id"])
            if further is None:
                return History(begins, at, tuple(silences))
            silences.append((at, further["received_at"]))
        row = further
