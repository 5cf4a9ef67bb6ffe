"""How the imitation misbehaves when it is told to."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

Predicate = Callable[[Mapping[str, str]], bool]


class Mishap(StrEnum):
    """What goes wrong with one call."""

    TOO_MANY = "429"
    ERROR = "500"
    ERROR_AFTER = "500 after"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"


@dataclass(frozen=True, slots=True)
class Scripted:
    """One answer, word for word. A str body is sent as it is, anything else as JSON."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Faults:
    """Everything that can go wrong; as built, nothing does.

    `share_…` are probabilities (0 to 1) per call; `share_500_after` answers 500 although the write took effect.
    `retry_after` is sent with made-up 429s and 503s. `latency` plus up to `jitter` seconds pass between the write and
    its answer, so a client that gives up has written all the same. `down` is "503" or "close" (no answer at all).
    `silent` takes a batch, answers 200 with nothing in it, and writes nothing. `shuffled` returns results in another
    order than the inputs. `index_lag` is how many seconds search stays behind. `answer_next` holds scripted answers
    for the next calls; None among them means "as usual". `reject` is a set of emails, or a predicate over the
    properties a record would have: a write of such a record is refused with `reject_status`, naming the property
    `reject_names`; a 5xx there takes its whole batch with it.
    """

    share_429: float = 0.0
    share_500: float = 0.0
    share_500_after: float = 0.0
    share_502: float = 0.0
    share_503: float = 0.0
    retry_after: float | None = None
    latency: float = 0.0
    jitter: float = 0.0
    down: str | None = None
    silent: bool = False
    shuffled: bool = False
    index_lag: float = 0.0
    answer_next: list[Scripted | None] = field(default_factory=list)
    reject: Predicate | Collection[str] = ()
    reject_status: int = 400
    reject_names: str = "email"
    seed: int = 0
    sleep: Callable[[float], Awaitable[object]] = field(default=asyncio.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - misfortune, not secrets

    def strikes(self) -> Mishap | None:
        """What goes wrong with the call at hand. One draw per call, so a seed repeats a whole run."""
        drawn = self.random.random()
        for mishap, share in self._shares():
            if drawn < share:
                return mishap
            drawn -= share
        return None

    def _shares(self) -> tuple[tuple[Mishap, float], ...]:
        return (
            (Mishap.TOO_MANY, self.share_429),
            (Mishap.ERROR, self.share_500),
            (Mishap.ERROR_AFTER, self.share_500_after),
            (Mishap.BAD_GATEWAY, self.share_502),
            (Mishap.UNAVAILABLE, self.share_503),
        )

    async def dawdle(self) -> None:
        """Let `latency` pass."""
        if self.latency or self.jitter:
            await self.sleep(self.latency + self.random.uniform(0.0, self.jitter))

    def refuses(self, properties: Mapping[str, str]) -> bool:
        """Whether a record with these properties is poison."""
        if callable(self.reject):
            return self.reject(properties)
        return properties.get("email", "") in {email.lower() for email in self.reject}

    def scripted(self) -> Scripted | None:
        """The next scripted answer, taken off the list."""
        return self.answer_next.pop(0) if self.answer_next else None

    def reset(self) -> None:
        """Behave again. What `sleep` is stays."""
        fresh = Faults(sleep=self.sleep)
        for name in _SETTABLE:
            setattr(self, name, getattr(fresh, name))
        self.random = random.Random(self.seed)  # noqa: S311

    def change(self, wanted: Mapping[str, Any]) -> None:
        """Set some of the fields from plain values. Raises ValueError with a sentence, and then nothing is changed."""
        checked = {name: _checked(name, value) for name, value in wanted.items()}
        for name, value in checked.items():
            setattr(self, name, value)
        if "seed" in checked:
            self.random = random.Random(self.seed)  # noqa: S311

    def described(self) -> dict[str, Any]:
        """Every field as plain values."""
        plain = {name: getattr(self, name) for name in _SETTABLE}
        answers = [answer and {"status": answer.status, "body": answer.body} for answer in self.answer_next]
        rejected = "a predicate" if callable(self.reject) else sorted(self.reject)
        return {**plain, "answer_next": answers, "reject": rejected}


_SETTABLE = tuple(entry.name for entry in fields(Faults) if entry.name != "sleep")


def _checked(name: str, value: Any) -> Any:
    checks = {"down": _down, "answer_next": _answers, "reject": _emails, "retry_after": _seconds_or_none}
    if name in checks:
        return checks[name](value)
    if name not in _SETTABLE:
        raise ValueError(f"there is no fault named {name}; there are {', '.join(_SETTABLE)}")
    kind = type(getattr(Faults(), name))
    if kind is float:
        return _number(name, value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} must be a {kind.__name__}")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise ValueError(f"{name} must be a number from 0 to 3600")
    if name.startswith("share_") and value > 1:
        raise ValueError(f"{name} is a share: 0 to 1")
    return float(value)


def _seconds_or_none(value: Any) -> float | None:
    return None if value is None else _number("retry_after", value)


def _down(value: Any) -> str | None:
    if value not in (None, "503", "close"):
        raise ValueError('down must be null, "503" or "close"')
    return str(value) if value else None


def _emails(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(email, str) for email in value):
        raise ValueError("reject must be a list of emails")
    return frozenset(email.strip().lower() for email in value)


def _answers(value: Any) -> list[Scripted | None]:
    if not isinstance(value, list):
        raise ValueError("answer_next must be a list")
    return [None if answer is None else _answer(answer) for answer in value]


def _answer(value: Any) -> Scripted:
    if not isinstance(value, dict) or not isinstance(value.get("status", 200), int):
        raise ValueError("each of answer_next is null or has a status, a body and headers")
    headers = value.get("headers") or {}
    if not isinstance(headers, dict):
        raise ValueError("the headers of a scripted answer are an object")
    return Scripted(value.get("status", 200), value.get("body"), {str(k): str(v) for k, v in headers.items()})
