"""Where each contact's record is: by the id we know, by our uid, by email."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sync.destinations.base import Result
from sync.destinations.hubspot.answers import NotThere
from sync.destinations.hubspot.api import EVERYBODY, Api
from sync.destinations.hubspot.mapping import CREATED, MERGED_IDS, OTHER_EMAILS, Record
from sync.destinations.hubspot.settings import HubSpotSettings
from sync.errors import Busy, DeliveryError, Gone, Refused
from sync.models import Contact, Owed


@dataclass(frozen=True, slots=True)
class Again:
    """What we knew of this contact's record was wrong: look again, knowing this.

    `left_behind` is the record that we knew, where the person turned out to have another one as well.
    """

    owed: Owed[Contact]
    left_behind: str | None = None


Verdict = Result | Again
Place = Record | None
"""Where a contact's record is; None means that there is none yet."""


@dataclass(frozen=True, slots=True)
class Found:
    """What has been found so far, by delivery: places, and verdicts on those that could not be looked up."""

    places: dict[str, Place] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)


class Places:
    """Looks contacts up in one account, a call for each way of knowing them."""

    def __init__(self, api: Api, settings: HubSpotSettings) -> None:
        self._api = api
        self._uid = settings.uid_property
        self._reads_all = settings.overwrite == "never"
        self.properties = properties_read(settings)

    async def of(
        self, owed: Sequence[Owed[Contact]], *, reread: bool
    ) -> tuple[Mapping[str, Place], dict[str, Verdict]]:
        """The place of each contact, or a verdict on it. Our own records are not read: they may be overwritten."""
        found = Found({one.delivery: Record(one.remote_id) if one.remote_id else None for one in owed})
        known = [one for one in owed if one.remote_id is not None]
        await self._by_id([one for one in known if reread or not one.ours or self._reads_all], found)
        unknown = [one for one in owed if one.remote_id is None]
        by_uid = [one for one in unknown if self._uid and (one.intended or not one.subject.email)]
        await self._look_up(by_uid, self._uid, lambda one: one.subject.uid, found)
        left = [one for one in unknown if found.places[one.delivery] is None and one.delivery not in found.verdicts]
        by_email = [one for one in left if one.subject.email]
        await self._look_up(by_email, "email", lambda one: str(one.subject.email), found)
        return {key: place for key, place in found.places.items() if key not in found.verdicts}, found.verdicts

    async def _by_id(self, owed: Sequence[Owed[Contact]], found: Found) -> None:
        await self._look_up(owed, None, lambda one: str(one.remote_id), found)
        for one in owed:
            if found.places[one.delivery] is None:
                found.verdicts.setdefault(one.delivery, vanished(one))

    async def _look_up(
        self,
        owed: Sequence[Owed[Contact]],
        id_property: str | None,
        key: Callable[[Owed[Contact]], str],
        found: Found,
    ) -> None:
        """Note where each record is, or why we could not find out. An id that HubSpot refuses leads nowhere."""
        if blocked := held_up(owed, found.verdicts):
            found.verdicts.update(blocked)
            return
        answers = await self._api.read([key(one) for one in owed], self.properties, id_property)
        for one in owed:
            match answers[key(one)]:
                case Refused() | NotThere():
                    found.places[one.delivery] = None
                case DeliveryError() as error:
                    found.verdicts[one.delivery] = error
                case records:
                    found.places[one.delivery] = led_to(key(one), id_property, records, alone=len(owed) == 1)


def properties_read(settings: HubSpotSettings) -> list[str]:
    """What is read of a record: what we write to it, and what it is known by."""
    uid = [settings.uid_property] if settings.uid_property else []
    return sorted({*settings.names.values(), "email", CREATED, OTHER_EMAILS, MERGED_IDS, *uid})


def vanished(one: Owed[Contact]) -> Verdict:
    """The verdict on a contact whose known record is not there."""
    if one.remote_id is None:
        return Busy("the record went away between reading and writing it")
    if one.is_replay:
        return Gone("deleted there", status=404)
    return Again(replace(one, remote_id=None, ours=False, intended_at=None))


def held_up(owed: Sequence[Owed[Contact]], verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The same error for these, once something stands in everybody's way."""
    blocked = next((verdict for verdict in verdicts.values() if isinstance(verdict, EVERYBODY)), None)
    return {one.delivery: blocked for one in owed} if blocked else {}


def led_to(key: str, id_property: str | None, records: Sequence[Record], *, alone: bool) -> Place:
    """The one of these records that a key leads to. A single answer to a single question is believed."""
    for record in records:
        if key.lower() in record.keys(id_property):
            return record
    return records[0] if alone and len(records) == 1 else None
