"""HubSpot CRM: contacts by batches of a hundred, chats as notes, erasure for good.

developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/guide
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sync.destinations.base import Destination, Intend, Pace, Result, Standing
from sync.destinations.hubspot import schema
from sync.destinations.hubspot.answers import NotThere
from sync.destinations.hubspot.api import CONTACTS, MOST, Api
from sync.destinations.hubspot.contacts import Contacts
from sync.destinations.hubspot.notes import Notes
from sync.destinations.hubspot.settings import HubSpotSettings
from sync.destinations.hubspot.standings import RESTORABLE, Standings
from sync.errors import Unauthorized
from sync.http import Client
from sync.models import Chat, Contact, Kind, Owed, Receipt

__all__ = ["HubSpot", "HubSpotSettings"]


class HubSpot(Destination):
    """A HubSpot account, or anything that speaks like one."""

    vendor: ClassVar[str] = "hubspot"
    Settings: ClassVar[type[HubSpotSettings]] = HubSpotSettings
    takes: ClassVar[frozenset[Kind]] = frozenset({Kind.CONTACT, Kind.CHAT, Kind.ERASURE})
    batch: ClassVar[int] = MOST
    reads_back: ClassVar[bool] = True
    tells_deleted_for: ClassVar[float] = RESTORABLE

    def __init__(self, name: str, settings: HubSpotSettings, client: Client, *, clock: Callable[[], float]) -> None:
        super().__init__(name, settings, client, clock=clock)
        self._api = Api(client, clock, settings.calls_per_10s)
        self._contacts = Contacts(self._api, settings)
        self._standings = Standings(self._api, settings)
        self._notes = Notes(self._api, search_lag=settings.search_lag)

    @classmethod
    def headers(cls, settings: Any) -> dict[str, str]:
        """developers.hubspot.com/docs/apps/legacy-apps/private-apps/overview"""
        return {"Authorization": f"Bearer {settings.access_token.get_secret_value()}"}

    @classmethod
    def pace(cls, settings: Any) -> Pace:
        """100 calls per ten seconds and app, 190 from Professional on. A search counts, and has its own limit too.

        developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines
        """
        return Pace(settings.calls_per_10s, 10.0)

    async def check(self) -> str:
        """Prove token and property names; the account's number."""
        account = await schema.account(self._api)
        if faults := await schema.faults(self._api, self.settings):
            raise Unauthorized("; ".join(faults))
        return account

    async def repair(self) -> Sequence[str]:
        """Make the property that holds our uid."""
        made = await schema.create_uid_property(self._api, self.settings)
        return [made] if made else []

    async def upsert(self, owed: Sequence[Owed[Contact]], intend: Intend) -> Sequence[Result]:
        """A read and a create for a hundred new contacts; one update for a hundred that we made."""
        return await self._contacts.upsert(owed, intend)

    async def log(self, owed: Owed[Chat], intend: Intend) -> Receipt:
        """One note for one chat."""
        return await self._notes.log(owed, intend)

    async def forget(self, remote_id: str) -> None:
        """Delete for good, by id: an unknown email would be put on a blocklist.

        developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/gdpr/gdpr-delete-contact
        """
        try:
            await self._api.ask("POST", f"{CONTACTS}/gdpr-delete", {"objectId": remote_id})
        except NotThere:
            return

    async def read_back(self, known: Sequence[Owed[Contact]]) -> Sequence[Standing]:
        """One read for a hundred that stand as they should; more only for those that do not."""
        return await self._standings.of(known)
