"""A published limit: so many calls in any stretch of so many seconds.

developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Limit:
    """At most `calls` in any `seconds`; None means no limit. A refused call does not count towards it."""

    clock: Callable[[], float]
    calls: int | None = None
    seconds: float = 10.0
    policy: str = "TEN_SECONDLY_ROLLING"
    _taken: deque[float] = field(default_factory=deque, repr=False)

    def take(self) -> bool:
        """Whether one more call is allowed now. If so, it is counted."""
        if self.calls is None:
            return True
        self._forget()
        if len(self._taken) >= self.calls:
            return False
        self._taken.append(self.clock())
        return True

    @property
    def remaining(self) -> int:
        """How many more calls are allowed now; 0 where there is no limit to speak of."""
        self._forget()
        return max((self.calls or 0) - len(self._taken), 0)

    def headers(self) -> dict[str, str]:
        """What HubSpot tells with every answer; nothing where there is no limit."""
        if self.calls is None:
            return {}
        return {
            "X-HubSpot-RateLimit-Max": str(self.calls),
            "X-HubSpot-RateLimit-Remaining": str(self.remaining),
            "X-HubSpot-RateLimit-Interval-Milliseconds": str(round(self.seconds * 1000)),
        }

    def _forget(self) -> None:
        past = self.clock() - self.seconds
        while self._taken and self._taken[0] <= past:
            self._taken.popleft()
