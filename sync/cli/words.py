"""How things are said on a terminal: times, counts, tables, text of strangers."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from sync.errors import SyncError

SPANS = ((90.0, 1.0, "s"), (5400.0, 60.0, "min"), (36 * 3600.0, 3600.0, "h"), (float("inf"), 86400.0, "days"))
JUST_NOW = 2.0


def say(lines: Iterable[str]) -> None:
    """Print lines; styles are left out where nobody looks."""
    _print("\n".join(lines))


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    _print(json.dumps(value, ensure_ascii=False, indent=2))


def _print(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SyncError(f"the answer cannot be written: {error.strerror}") from None


def faint(text: str) -> str:
    """Words that may be skipped."""
    return click.style(text, dim=True)


def strong(text: str) -> str:
    """Words that stand out."""
    return click.style(text, bold=True)


def counted(n: int, noun: str) -> str:
    """A number with its noun."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def span(seconds: float) -> str:
    """How long: "12 min"."""
    unit, word = next((unit, word) for limit, unit, word in SPANS if abs(seconds) < limit)
    return f"{abs(seconds) / unit:.0f} {word}"


def since_epoch(at: str) -> float:
    """An ISO time in epoch seconds."""
    return datetime.fromisoformat(at).timestamp()


def when(at: str | None, now: float) -> str:
    """An ISO time as seen from now: "2 min ago", "in 4 min"."""
    if at is None:
        return "-"
    away = since_epoch(at) - now
    if abs(away) < JUST_NOW:
        return "just now"
    return f"in {span(away)}" if away > 0 else f"{span(away)} ago"


def clock(at: str, now: float) -> str:
    """An ISO time as the clock on this wall shows it, with the day if that is another."""
    local = datetime.fromisoformat(at).astimezone()
    today = datetime.fromtimestamp(now, local.tzinfo).date()
    return local.strftime("%H:%M" if local.date() == today else "%d %b %H:%M")


def plain(text: object, limit: int | None = None) -> str:
    """What a stranger wrote, without anything that a terminal would obey, on one line, cut to `limit`."""
    words = "".join(c if c.isprintable() else " " for c in str(text)).strip()
    return words if limit is None or len(words) <= limit else words[: limit - 1] + "…"


def called(chat: Mapping[str, Any]) -> str:
    """What a chat is called in a command: the source's own name where it can be typed as it is, else our id."""
    name, ours = str(chat["chat"]), str(chat["id"])
    return name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,39}", name) else ours


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """A table, indented; the columns in `right` are numbers."""
    from tabulate import tabulate

    align = ["right" if i in right else "left" for i in range(len(heads))]
    styled = [faint(head) for head in heads]
    text = tabulate(rows, styled, tablefmt="plain", disable_numparse=True, colalign=align, preserve_whitespace=True)
    return [f"  {line.rstrip()}" for line in text.splitlines()]


def pairs(facts: Iterable[tuple[str, str]], *, indent: int = 2) -> list[str]:
    """Names and values, the values below each other. What has no value is left out."""
    said = [(name, value) for name, value in facts if value]
    width = max((len(name) for name, _ in said), default=0)
    return [f"{' ' * indent}{faint(name.ljust(width))}  {value}" for name, value in said]
