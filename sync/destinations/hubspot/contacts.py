"""How contacts get into HubSpot: read who is there, create those who are not, update the others.

A hundred new contacts are two calls. Four rules shape the rest:

- A record that somebody else made is only filled where it is empty (see `mapping.changes`).
- Who has an email is created and never upserted by it: had somebody made their record since our read, an upsert would
  overwrite it and put our uid on it. A create is refused then, and says whose record it is. An email is unique there,
  so a create may be sent again as well.
- Before anything is created the intent is committed, so that a lost answer does not make the record a stranger's. What
  is found later is ours only with proof: our uid on it, or, where none is written, that it was created just then.
- Every contact has its own result, whatever becomes of its batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sync.destinations.base import Intend, Result
from sync.destinations.hubspot.answers import Exists, NotThere, Rejected, Unmentioned
from sync.destinations.hubspot.api import CONTACTS, Api, Written
from sync.destinations.hubspot.mapping import CREATED, Record, Write, changes, properties_of
from sync.destinations.hubspot.places import Again, Places, Verdict, held_up, vanished
from sync.destinations.hubspot.settings import HubSpotSettings
from sync.errors import Busy, DeliveryError, NotForHere, Refused, Unauthorized
from sync.models import Contact, Owed, Receipt

CLOCK_SKEW = 300.0
LATEST = 900.0
"""Seconds after its announcement in which a creation of ours can have taken effect."""

SECOND = 1.0
"""HubSpot dates its answers in whole seconds."""

ROUNDS = 3


class Contacts:
    """The contacts of one account."""

    def __init__(self, api: Api, settings: HubSpotSettings) -> None:
        self._api = api
        self._settings = settings
        self._names = settings.names
        self._uid = settings.uid_property
        self._places = Places(api, settings)

    async def upsert(self, owed: Sequence[Owed[Contact]], intend: Intend) -> list[Result]:
        """Deliver up to a hundred contacts. One result each, in the same order."""
        verdicts: dict[str, Verdict] = self._screened(owed)
        waiting = [_without_stale_intent(one) for one in owed if one.delivery not in verdicts]
        left: dict[str, str | None] = {}
        for attempt in range(ROUNDS):
            verdicts |= held_up(waiting, verdicts) or await self._round(waiting, intend, reread=attempt > 0)
            agains = [again for again in verdicts.values() if isinstance(again, Again)]
            left |= {again.owed.delivery: again.left_behind for again in agains if again.left_behind}
            waiting = [again.owed for again in agains]
        return [_settled(verdicts[one.delivery], left.get(one.delivery)) for one in owed]

    def _screened(self, owed: Sequence[Owed[Contact]]) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        emails: set[str] = set()
        for one in owed:
            email = (one.subject.email or "").lower()
            if not email and not (one.subject.phone and "phone" in self._names):
                verdicts[one.delivery] = NotForHere("no way to reach this person")
            elif email and email in emails:
                verdicts[one.delivery] = Busy("another contact of this call has the same email")
            emails.add(email)
        return verdicts

    async def _round(self, owed: Sequence[Owed[Contact]], intend: Intend, *, reread: bool) -> dict[str, Verdict]:
        places, verdicts = await self._places.of(owed, reread=reread)
        found = [(one, place) for one in owed if (place := places.get(one.delivery)) is not None]
        new = [one for one in owed if one.delivery in places and places[one.delivery] is None]
        steps = (
            ([one for one in new if one.subject.email], self._created),
            ([one for one in new if not one.subject.email and self._uid], self._created_by_uid),
            ([one for one in new if not one.subject.email and not self._uid], self._created_once),
        )
        for group, step in steps:
            verdicts |= held_up(group, verdicts) or await step(group, intend)
        return verdicts | (held_up([one for one, _ in found], verdicts) or await self._updated(found))

    # Those who are not

    async def _created(self, owed: Sequence[Owed[Contact]], intend: Intend) -> dict[str, Verdict]:
        """Create those who have an email. Who is there after all is not touched: the refusal leads to their record."""
        return await self._sent("create", "email", owed, intend)

    async def _created_by_uid(self, owed: Sequence[Owed[Contact]], intend: Intend) -> dict[str, Verdict]:
        """Nobody but us writes our uid: by it an upsert meets no stranger."""
        return await self._sent("upsert", str(self._uid), owed, intend)

    async def _sent(self, action: str, key: str, owed: Sequence[Owed[Contact]], intend: Intend) -> dict[str, Verdict]:
        if not owed:
            return {}
        now = await self._api.now()
        await intend([one.delivery for one in owed], now)
        answers = await self._written(action, [self._creation(one, key) for one in owed])
        return {one.delivery: self._creation_verdict(one, answers[one.delivery], now) for one in owed}

    def _creation(self, one: Owed[Contact], key: str) -> Write:
        properties = self._first_properties(one.subject)
        return Write(one.delivery, properties.pop(key), properties, key)

    def _first_properties(self, contact: Contact) -> dict[str, str]:
        uid = {self._uid: contact.uid} if self._uid else {}
        email = {"email": contact.email} if contact.email else {}
        said = properties_of(contact, self._names)
        return {**self._settings.create_fields, **_called_by_phone(contact, self._names), **said, **email, **uid}

    def _creation_verdict(self, one: Owed[Contact], answer: Written | DeliveryError, announced_at: float) -> Verdict:
        match answer:
            case Written():
                return Receipt(answer.id, ours=True)
            case Exists(may_be_our_own=True) if not one.intended:
                return Again(replace(one, remote_id=answer.remote_id, intended_at=announced_at))
            case Exists():
                return Again(replace(one, remote_id=answer.remote_id))
            case NotThere():
                return Unauthorized("HubSpot does not know the address (404): check the base URL", status=answer.status)
        return answer

    async def _created_once(self, owed: Sequence[Owed[Contact]], intend: Intend) -> dict[str, Verdict]:
        """With a phone only and no property for our uid: a create that must not be sent twice."""
        verdicts: dict[str, Verdict] = {}
        for one in owed:
            if blocked := held_up([one], verdicts):
                verdicts |= blocked
                continue
            try:
                verdicts[one.delivery] = await self._found_or_created(one, intend)
            except DeliveryError as error:
                verdicts[one.delivery] = error
        return verdicts

    async def _found_or_created(self, one: Owed[Contact], intend: Intend) -> Verdict:
        # Nothing is created without a committed intent; so only after one can there be a record to look for.
        if one.intended and (record := await self._lost(one)):
            return Again(replace(one, remote_id=record.id, ours=True))
        await intend([one.delivery], await self._api.now())
        properties = self._first_properties(one.subject)
        try:
            return await self._create(properties)
        except Exists as error:
            return Again(replace(one, remote_id=error.remote_id))
        except Rejected as error:
            kept = {name: value for name, value in properties.items() if name not in error.properties}
            if len(kept) == len(properties) or self._names["phone"] not in kept:
                return self._told(error, properties)
            return await self._create(kept)

    async def _create(self, properties: Mapping[str, str]) -> Receipt:
        body = await self._api.ask("POST", CONTACTS, {"properties": properties})
        if not isinstance(body.get("id"), str):
            raise Unmentioned("HubSpot did not say the id of what it made")
        return Receipt(body["id"], ours=True)

    async def _lost(self, one: Owed[Contact]) -> Record | None:
        """The record that an earlier claim created without hearing of it: made just then, and without an email."""
        wait_for_index(one.intended_at, await self._api.now(), self._settings.search_lag)
        phone = self._names["phone"]
        found = await self._api.search(CONTACTS, phone, str(one.subject.phone), self._places.properties, CREATED)
        ours = [record for record in found if not record.emails and _was_announced(one, record)]
        return ours[-1] if ours else None

    # Those who are

    async def _updated(self, found: Sequence[tuple[Owed[Contact], Record]]) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        writes: dict[str, tuple[Owed[Contact], Write]] = {}
        taken: set[str] = set()
        # Whoever holds a record goes before whoever found it by an old email: it then no longer carries that email.
        for one, record in sorted(found, key=lambda pair: pair[0].remote_id is None):
            new = self._changes(one, record)
            if record.id in taken:
                verdicts[one.delivery] = Busy("another contact of this call has the same record")
            elif new:
                writes[one.delivery] = (one, Write(one.delivery, record.id, new))
            else:
                verdicts[one.delivery] = Receipt(record.id, self._is_ours(one, record))
            taken.add(record.id)
        answers = await self._written("update", [write for _, write in writes.values()])
        records = {one.delivery: record for one, record in found}
        return verdicts | {
            key: self._update_verdict(one, records[key], answers[key]) for key, (one, _) in writes.items()
        }

    def _changes(self, one: Owed[Contact], record: Record) -> dict[str, str]:
        is_ours = self._is_ours(one, record)
        may_overwrite = self._settings.may_overwrite(is_ours=is_ours)
        return changes(properties_of(one.subject, self._names), record, may_overwrite=may_overwrite, is_ours=is_ours)

    def _is_ours(self, one: Owed[Contact], record: Record) -> bool:
        """Whether we created it, by the ledger, else by our uid on the record; by when it was made only without one."""
        if one.ours:
            return True
        if self._uid:
            return record.is_marked(self._uid, one.subject.uid)
        return _was_announced(one, record)

    def _update_verdict(self, one: Owed[Contact], record: Record, answer: Written | DeliveryError) -> Verdict:
        match answer:
            case Written():
                return Receipt(answer.id, self._is_ours(one, record))
            case NotThere():
                return vanished(one)
            case Exists() if answer.remote_id != record.id:
                # The email decides who somebody is: this person has another record, and it is not ours.
                other = replace(one, remote_id=answer.remote_id, ours=False, intended_at=None)
                return Again(other, left_behind=record.id)
            case Unmentioned() if record.properties is None:
                return Again(one)
        return answer

    # Both

    async def _written(self, action: str, writes: Sequence[Write]) -> dict[str, Written | DeliveryError]:
        """Write; what HubSpot refuses for the sake of a property it names is written once more without it."""
        answers = await self._api.write(action, writes)
        again: list[Write] = []
        for write in writes:
            answer = answers[write.trace]
            if isinstance(answer, Rejected) and answer.properties & write.properties.keys():
                again.append(write.without(answer.properties))
        empty = [write for write in again if action == "update" and not write.properties]
        answers |= {write.trace: Written(write.id) for write in empty}
        answers |= await self._api.write(action, [write for write in again if write not in empty])
        sent = {write.trace: {*write.properties, str(write.id_property)} for write in writes}
        return {
            trace: self._told(answer, sent[trace]) if isinstance(answer, Rejected) else answer
            for trace, answer in answers.items()
        }

    def _told(self, error: Rejected, sent: Iterable[str]) -> Refused:
        named = sorted(error.properties & set(sent))
        reason = f"{error.reason} at {', '.join(named)}" if named else error.reason
        field = self._settings.fields_by_property.get(named[0]) if named else None
        return Refused(reason, status=error.status, field=field)


def _called_by_phone(contact: Contact, names: Mapping[str, str]) -> dict[str, str]:
    """A last name for somebody who said nothing but a phone: HubSpot wants an email or a name of every new contact."""
    if contact.email or contact.name or "last_name" not in names or contact.phone is None:
        return {}
    return {names["last_name"]: contact.phone}


def wait_for_index(intended_at: float | None, now: float, lag: float) -> None:
    """Raise Busy if it is too soon to search for what an earlier attempt may have created. Both times are HubSpot's.

    It never waits longer than the lag: an announcement in the future is by another clock.
    """
    if intended_at is not None and now < intended_at + lag + SECOND:
        reason = "an earlier answer was lost; waiting until a search can find what it made"
        raise Busy(reason, after=min(intended_at - now, 0.0) + lag + SECOND)


def _without_stale_intent(one: Owed[Contact]) -> Owed[Contact]:
    """An intent proves nothing about a record that the ledger knew before: that one is ours or not by the ledger."""
    return replace(one, intended_at=None) if one.remote_id is not None else one


def _was_announced(one: Owed[Contact], record: Record) -> bool:
    """Whether it was created when an earlier claim announced to create one."""
    if one.intended_at is None or record.created_at is None:
        return False
    return one.intended_at - CLOCK_SKEW <= record.created_at <= one.intended_at + LATEST


def _settled(verdict: Verdict, left_behind: str | None) -> Result:
    if isinstance(verdict, Again):
        return Busy("its record changed each time we looked")
    return replace(verdict, left_behind=left_behind) if isinstance(verdict, Receipt) and left_behind else verdict
