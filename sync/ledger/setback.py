"""Notices that the clock on the wall was set back, also while nobody looked.

A wait is noted as the time at which it ends. If that was reckoned by a clock that was ahead, it lies too far in the
future once the clock is right. So what waits is moved back by as much as the clock was. A clock that is set forward
does no such harm: what waits is merely tried earlier.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

JUMP = 2.0
"""Seconds that two clocks may drift apart from one look to the next; more is a jump."""

BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot_of_this_machine() -> str | None:
    """Which start of the machine this is; None where nobody says."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return None


def since_boot() -> float:
    """Seconds since the machine began, asleep or not, where it says so: a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass
class Setback:
    """How far the clock on the wall is from one that nobody sets, by the last look that was committed.

    `noted` is what a process before noted: it says nothing after the machine was started anew.
    """

    elapsed: Callable[[], float] = since_boot
    boot: str | None = None
    apart: float | None = None

    def load(self, noted: str | None) -> None:
        """Go on from what a process before noted, where that is of this start of the machine."""
        self.boot = boot_of_this_machine()
        told = json.loads(noted) if noted is not None else {}
        self.apart = told.get("apart") if self.boot is not None and told.get("boot") == self.boot else None

    def look(self, now: float) -> float:
        """The seconds by which the clock was set since the last look that was kept: negative is back, 0 is not."""
        jump = now - self.elapsed() - self.apart if self.apart is not None else 0.0
        return jump if abs(jump) > JUMP else 0.0

    def keep(self, now: float) -> None:
        """What a look found was acted upon, and is committed."""
        self.apart = now - self.elapsed()

    def note(self, now: float) -> str:
        """What to note for the next process."""
        return json.dumps({"boot": self.boot, "apart": now - self.elapsed()})
