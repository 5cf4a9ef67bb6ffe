"""What a mailer tells of bounces and complaints: no mail goes to such an address any more."""

from collections.abc import Sequence
from dataclasses import dataclass

from sync.addresses import Addresses
from sync.destinations.mail.base import Mailer
from sync.errors import NotAuthentic
from sync.ledger import Ledger
from sync.ledger.writer import Writer
from sync.models import Heard
from sync.sources.base import WebhookRequest


@dataclass(frozen=True)
class Feedback:
    """The endpoint `POST /webhooks/{mailer}[/{token}]`."""

    writer: Writer
    addresses: Addresses
    mailer: Mailer

    async def receive(self, request: WebhookRequest) -> int:
        """Take one webhook. Returns how many addresses it tells of, once they are safely stored.

        Raises NotAuthentic (nothing is stored) and LedgerUnavailable (the vendor has to try again).
        """
        try:
            self.mailer.verify(request.headers, request.body, request.token)
        except NotAuthentic:
            raise
        except Exception:  # noqa: BLE001 - a check that fails in whatever way lets nobody in
            raise NotAuthentic("the check failed") from None
        heard = self.mailer.heard(request.body)
        if heard:
            await self.writer.do(lambda ledger: self._suppress(ledger, heard))
        return len(heard)

    def _suppress(self, ledger: Ledger, heard: Sequence[Heard]) -> None:
        for one in heard:
            ledger.suppress(self.addresses.hash(one.email), f"{one.reason} ({self.mailer.vendor})")
