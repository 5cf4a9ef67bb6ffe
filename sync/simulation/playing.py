"""Plays webhooks against a running server as Acquire does: each again until it is answered 200, five times at most."""

import asyncio
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from sync.simulation.acquire import Webhook
from sync.simulation.client import Connection

PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each try. Acquire tries five times again; with which pauses is not documented."""

GIVE_UP = 25
"""So many webhooks in a row without any acknowledgement: nobody is there, or our secret is wrong."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where webhooks go, and how they prove themselves: by a signature, by a token in the address, or by both."""

    url: str
    secret: str | None = None
    token: str | None = None

    @property
    def path(self) -> str:
        """The path of a webhook."""
        return "/webhooks/acquire" + (f"/{quote(self.token, safe='')}" if self.token else "")

    def headers(self, body: bytes) -> Mapping[str, str]:
        """The headers that a webhook carries."""
        if self.secret is None:
            return {}
        return {"X-Acquire-Signature": hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()}


@dataclass
class Played:
    """What became of it. `answers` counts the acknowledged by what was said, `refused` each other answer by its status
    (0: none came). `seconds` holds for each acknowledged webhook the time from when it was to be sent to its answer."""

    sent: int = 0
    never: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    began_at: float = 0.0
    ended_at: float = 0.0
    in_a_row: int = 0

    @property
    def took(self) -> float:
        """Seconds from the first request to the last answer."""
        return self.ended_at - self.began_at

    @property
    def per_second(self) -> float:
        """Acknowledged webhooks per second."""
        return self.answers.total() / self.took if self.took else 0.0


async def play(
    webhooks: Iterable[Webhook],
    endpoint: Endpoint,
    *,
    rate: float | None = None,
    connections: int = 64,
    pauses: tuple[float, ...] = PAUSES,
    on_taken: Callable[[Webhook], None] = lambda _webhook: None,
) -> Played:
    """Send every webhook, in order, until each is acknowledged or was refused as often as there are `pauses`.

    With a `rate` (per second) every webhook has its time; one that has to wait for a free connection is late, and the
    seconds count from the time that it should have been sent. Without one they are sent as fast as they are answered.
    `on_taken` is told of every webhook that is acknowledged.
    """
    played = Played()
    played.began_at = time.monotonic()
    waiting = enumerate(webhooks)
    senders = [_send(waiting, endpoint, played, rate, pauses, on_taken) for _ in range(connections)]
    await asyncio.gather(*senders)
    played.ended_at = time.monotonic()
    return played


async def _send(
    waiting: Iterator[tuple[int, Webhook]],
    endpoint: Endpoint,
    played: Played,
    rate: float | None,
    pauses: tuple[float, ...],
    on_taken: Callable[[Webhook], None],
) -> None:
    """One connection's part: always the next webhook that nobody has sent yet."""
    connection = Connection(endpoint.url)
    try:
        for number, webhook in waiting:
            meant_at = time.monotonic() if rate is None else played.began_at + number / rate
            if meant_at > time.monotonic():
                await asyncio.sleep(meant_at - time.monotonic())
            played.sent += 1
            status = await _until_taken(connection, endpoint, webhook, played, pauses)
            if status is not None:
                played.answers[status] += 1
                played.seconds.append(time.monotonic() - meant_at)
                played.in_a_row = 0
                on_taken(webhook)
            else:
                played.never += 1
                played.in_a_row += 1
            if played.in_a_row >= GIVE_UP:
                return
    finally:
        connection.close()


async def _until_taken(
    connection: Connection, endpoint: Endpoint, webhook: Webhook, played: Played, pauses: tuple[float, ...]
) -> str | None:
    """What the server says of the webhook once it answers exactly 200, or None where it never does."""
    for pause in pauses:
        if pause:
            await asyncio.sleep(pause)
        try:
            answer = await connection.post(endpoint.path, webhook.body, endpoint.headers(webhook.body))
        except OSError:
            played.refused[0] += 1
            continue
        if answer.status == 200:
            return _status(answer.body)
        played.refused[answer.status] += 1
    return None


def _status(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return "accepted"
    return str(said.get("status", "accepted")) if isinstance(said, dict) else "accepted"
