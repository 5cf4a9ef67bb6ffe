"""What every mailer must do: hand over one mail at most once, say honestly what became of it, hear of bounces."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from sync.destinations.base import Destination, Intend, Result
from sync.http import Transport
from sync.models import MAIL, Contact, Email, Heard, Kind, Owed, Receipt


class Mailer(Destination):
    """A vendor that sends mail.

    `repeatable_for` is the number of seconds in which a mail may be handed over again under the same key and goes out
    once only; 0 where the vendor has no idempotency key. Beyond it a mail whose answer was lost is never sent again by
    itself (promise P5).
    """

    takes: ClassVar[frozenset[Kind]] = frozenset({Kind.EMAIL})

    @classmethod
    def connect(
        cls,
        given: Any,
        *,
        clock: Callable[[], float],
        transport: Transport | None = None,
        blip: float = 1.0,
    ) -> "Mailer":
        """The mailer with its HTTP client."""
        client = cls.client_for(given, clock=clock, transport=transport, blip=blip)
        return cls(MAIL, given, client, clock=clock)

    @abstractmethod
    async def send(self, email: Email) -> Receipt:
        """Hand over one mail; the receipt holds the vendor's own id of it. Raises DeliveryError.

        What is raised must be true: anything whose `may_have_landed` is false promises that no mail went out.
        """

    @property
    def hears(self) -> bool:
        """Whether bounces and complaints can be taken: the vendor tells of them, and there is a secret to check it."""
        return False

    def verify(self, headers: Mapping[str, str], body: bytes, token: str | None) -> None:
        """Return if a webhook is the vendor's. Header names are lower-case. Raises NotAuthentic."""
        raise NotImplementedError(f"{self.vendor} sends no webhooks")

    def heard(self, body: bytes) -> Sequence[Heard]:
        """Whom a verified webhook says that no mail should go to any more. Never raises: unreadable is nobody."""
        raise NotImplementedError(f"{self.vendor} sends no webhooks")

    async def upsert(self, owed: Sequence[Owed[Contact]], intend: Intend) -> Sequence[Result]:
        """A mailer takes no contacts."""
        raise NotImplementedError(f"{self.vendor} takes no contacts")
