"""How contacts of ours stand in HubSpot: read back by id, compared, looked for elsewhere where something is wrong.

Whoever stands as they should costs a hundredth of a call. An email is unique there over all main and other emails of
everybody, so only a person whose record does not carry it can have another one that does.

developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/batch/get-contacts
"""

from collections.abc import Callable, Sequence

from sync.destinations.base import Difference, Standing
from sync.destinations.hubspot.answers import NotThere
from sync.destinations.hubspot.api import Api
from sync.destinations.hubspot.mapping import OTHER_EMAILS, Record, changes, differences, properties_of
from sync.destinations.hubspot.places import led_to, properties_read
from sync.destinations.hubspot.settings import HubSpotSettings
from sync.errors import DeliveryError, Refused
from sync.models import Contact, Owed

RESTORABLE = 90 * 86400.0
"""Seconds for which HubSpot keeps a deleted record; whoever deletes one for good leaves no trace."""


class Standings:
    """Reads contacts of one account back."""

    def __init__(self, api: Api, settings: HubSpotSettings) -> None:
        self._api = api
        self._settings = settings
        self._names = settings.names
        self._uid = settings.uid_property
        self._properties = properties_read(settings)

    async def of(self, known: Sequence[Owed[Contact]]) -> list[Standing]:
        """One standing each, in the same order. Raises DeliveryError."""
        own = await self._read(known, None, lambda one: one.remote_id)
        absent = [one for one in known if one.delivery not in own]
        deleted = await self._read(absent, None, lambda one: one.remote_id, archived=True)
        astray = [one for one in known if one.delivery not in own or not self._carries_key(one, own[one.delivery])]
        by_uid = await self._read(astray, self._uid, lambda one: one.subject.uid) if self._uid else {}
        by_email = await self._by_email(astray)
        return [
            self._standing(
                one,
                own.get(one.delivery),
                [found[one.delivery] for found in (by_email, by_uid) if one.delivery in found],
                is_deleted=one.delivery in deleted,
            )
            for one in known
        ]

    def _carries_key(self, one: Owed[Contact], record: Record) -> bool:
        """Whether the record carries what the person is known by."""
        if one.subject.email:
            return one.subject.email.lower() in record.emails
        return self._uid is None or (record.properties or {}).get(self._uid) == one.subject.uid

    async def _by_email(self, astray: Sequence[Owed[Contact]]) -> dict[str, Record]:
        """The records with these people's emails: those that an email leads to, then those that a search finds."""
        found = await self._read(astray, "email", lambda one: one.subject.email)
        left = {one.delivery: one.subject.email for one in astray if one.subject.email and one.delivery not in found}
        records = await self._api.find(["email", OTHER_EMAILS], sorted(set(left.values())), self._properties)
        for delivery, email in left.items():
            if (record := led_to(email, "email", records, alone=False)) is not None:
                found[delivery] = record
        return found

    async def _read(
        self,
        known: Sequence[Owed[Contact]],
        id_property: str | None,
        key: Callable[[Owed[Contact]], str | None],
        *,
        archived: bool = False,
    ) -> dict[str, Record]:
        keys = {one.delivery: said for one in known if (said := key(one))}
        asked = sorted(set(keys.values()))
        answers = await self._api.read(asked, self._properties, id_property, archived=archived)
        refused = [answer for answer in answers.values() if isinstance(answer, DeliveryError)]
        if id_property is None and refused and len(refused) == len(answers):
            # That nobody is there has to be said: a wrong address refuses everybody alike.
            raise refused[0]
        found: dict[str, Record] = {}
        for delivery, said in keys.items():
            match answers[said]:
                case Refused() | NotThere():
                    continue
                case DeliveryError() as error:
                    raise error
                case records:
                    if (record := led_to(said, id_property, records, alone=len(asked) == 1)) is not None:
                        found[delivery] = record
        return found

    def _standing(
        self, one: Owed[Contact], own: Record | None, elsewhere: Sequence[Record], *, is_deleted: bool
    ) -> Standing:
        record = own or next(iter(elsewhere), None)
        if record is None:
            return Standing(None, is_deleted=is_deleted)
        is_ours = self._is_ours(one, record)
        others = dict.fromkeys(other.id for other in elsewhere if other.id != record.id)
        return Standing(record.id, is_ours, is_deleted, self._differences(one, record, is_ours=is_ours), tuple(others))

    def _is_ours(self, one: Owed[Contact], record: Record) -> bool:
        """By the ledger; where the record is another one by now, only by our uid on it."""
        return one.ours if record.id == one.remote_id else record.is_marked(self._uid, one.subject.uid)

    def _differences(self, one: Owed[Contact], record: Record, *, is_ours: bool) -> tuple[Difference, ...]:
        wanted = properties_of(one.subject, self._names)
        may_overwrite = self._settings.may_overwrite(is_ours=is_ours)
        written = changes(wanted, record, may_overwrite=may_overwrite, is_ours=is_ours)
        there, fields = record.properties or {}, self._settings.fields_by_property
        return tuple(
            Difference(fields[name], ours, there.get(name) or None, name in written)
            for name, ours in differences(wanted, record).items()
        )
