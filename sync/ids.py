"""Ids that sort by the time they were made."""

import secrets
from base64 import b32hexencode
from collections.abc import Callable

NewId = Callable[[str, float], str]


def new_id(prefix: str, now: float) -> str:
    """An id such as `ev_01k9…`: a prefix, 50 bits of time in milliseconds, 70 random bits. `now` is epoch seconds."""
    return _spelled(prefix, (int(now * 1000) << 70) | secrets.randbits(70))


def first_id(prefix: str, at: float) -> str:
    """The id that sorts before every other that is made from this time on."""
    return _spelled(prefix, int(at * 1000) << 70)


def _spelled(prefix: str, number: int) -> str:
    return f"{prefix}_{b32hexencode(number.to_bytes(15, 'big')).decode().lower()}"
