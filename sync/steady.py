"""How far back a clock can be trusted: clocks are set, by hand and by NTP, also while something is being sent."""

import time
from collections.abc import Callable

JUMP = 2.0
"""Seconds by which a clock may drift from one look to the next; more is a jump. A false alarm costs a short wait."""


class Steadiness:
    """Calling it tells for how many seconds this clock has gone steadily, as far as this process has seen.

    That is since the process began, or since a look found that the clock had jumped: `elapsed` never does.
    """

    def __init__(self, clock: Callable[[], float], elapsed: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._elapsed = elapsed
        self._since = elapsed()
        self._apart = clock() - self._since

    def __call__(self) -> float:
        elapsed = self._elapsed()
        apart = self._clock() - elapsed
        if abs(apart - self._apart) > JUMP:
            self._since = elapsed
        self._apart = apart
        return elapsed - self._since
