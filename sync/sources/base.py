"""What every source must do: prove that a webhook is authentic, then read it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from sync.models import Event
from sync.settings import FromEnvironment

Digest = Callable[[bytes], str]
"""A keyed hash of some bytes as hex text. The key is the ledger's; event keys are made with it."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """The parts of an HTTP request that a source looks at. Header names are lower-case; `token` is from the URL."""

    headers: Mapping[str, str]
    body: bytes
    token: str | None = None


class Source(ABC):
    """A vendor that sends webhooks. A vendor's own words stay in its file."""

    name: ClassVar[str]
    Settings: ClassVar[type[FromEnvironment]]

    @property
    @abstractmethod
    def is_guarded(self) -> bool:
        """Whether there is a secret or a token to check. Without one the server stays on loopback."""

    @abstractmethod
    def verify(self, request: WebhookRequest) -> None:
        """Return if the request is authentic. Raises NotAuthentic; the caller takes any other exception as one too."""

    def is_hopeless(self, request: WebhookRequest) -> bool:  # noqa: ARG002 - sources use it
        """Whether no body could make this request authentic, so that reading one would be a waste. It comes without."""
        return False

    @abstractmethod
    def read(self, body: bytes, *, event_id: str, received_at: float) -> Event:
        """Say what happened. NEVER raises: what cannot be read becomes an Event with `error` and the raw payload."""
