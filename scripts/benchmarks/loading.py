"""Offers a load to a server."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import part, said_by

PER_CHAT = 5.0
"""Webhooks that a chat has at the least on average."""

CONNECTIONS = 64
_seeds = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Offered:
    """What became of a load. `seconds` count from when each webhook was to be sent; `busy` is the share of a core that
    the generator itself took: near 1 it measured itself."""

    per_second: float
    seconds: Sequence[float]
    busy: float
    taken_at: dict[str, float]


def offer(
    url: str, folder: Path, *, count: int, rate: float | None = None, kind: str = "all", connections: int = CONNECTIONS
) -> Offered:
    """Send so many webhooks that nobody has sent before. Raises RuntimeError if any was refused."""
    spec: dict[str, Any] = {
        "url": url,
        "seed": next(_seeds),
        "chats": count if kind == "starts" else int(count / PER_CHAT) + 10,
        "kind": kind,
        "rate": rate,
        "connections": connections,
        "limit": count,
    }
    said = said_by(part("load"), folder, spec)
    if said["refused"] or said["taken"].get("accepted", 0) != said["sent"]:
        raise RuntimeError(f"the server did not take everything: {said['taken']}, refused {said['refused']}")
    return Offered(said["sent"] / said["took"], said["seconds"], said["busy"], said["taken_at"])
