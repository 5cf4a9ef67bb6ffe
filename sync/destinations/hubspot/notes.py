"""How a chat gets into HubSpot: one note on the record of its contact, brought up to date when the chat goes on.

developers.hubspot.com/docs/api-reference/latest/crm/activities/notes/guide
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from sync.destinations.base import Intend
from sync.destinations.hubspot.answers import NotThere, Rejected, Unmentioned
from sync.destinations.hubspot.api import Api
from sync.destinations.hubspot.contacts import wait_for_index
from sync.errors import Busy, ContactGone, DeliveryError, Gone, NotForHere
from sync.models import Chat, Message, Owed, Receipt

NOTES = "/crm/v3/objects/notes"
ON_CONTACT = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 202}
LONGEST = 65_536
"""Characters of a note's body."""

CLIPPED = "<p>The rest of the transcript is left out: it is longer than a note may be.</p>"


class Notes:
    """The notes of one account."""

    def __init__(self, api: Api, *, search_lag: float) -> None:
        self._api = api
        self._search_lag = search_lag

    async def log(self, owed: Owed[Chat], intend: Intend) -> Receipt:
        """Write the chat's note. A note cannot be upserted, so one whose answer was lost is searched for first."""
        if owed.contact_remote_id is None:
            raise NotForHere("its contact is not there yet")
        properties = properties_of(owed.subject, owed.delivery)
        known = owed.remote_id or await self._lost(owed)
        if known:
            try:
                await self._api.ask("PATCH", f"{NOTES}/{known}", {"properties": properties})
                return Receipt(known, ours=True)
            except NotThere:
                if owed.is_replay:
                    raise Gone("deleted there", status=404) from None
        return await self._create(owed, owed.contact_remote_id, properties, intend)

    async def _create(self, owed: Owed[Chat], contact: str, properties: dict[str, str], intend: Intend) -> Receipt:
        await intend([owed.delivery], await self._api.now())
        to_contact = {"to": {"id": contact}, "types": [ON_CONTACT]}
        try:
            body = await self._api.ask("POST", NOTES, {"properties": properties, "associations": [to_contact]})
        except (NotThere, Rejected) as error:
            if await self._is_gone(contact):
                raise _contact_gone(owed, error.status) from None
            if isinstance(error, NotThere):
                raise Busy("HubSpot misses something, but not the contact (404)", status=404) from None
            raise
        if not isinstance(body.get("id"), str):
            raise Unmentioned("HubSpot did not say the id of the note")
        return Receipt(body["id"], ours=True)

    async def _is_gone(self, contact: str) -> bool:
        """Whether the contact is missing: a refused note does not say so in a way that could be relied upon."""
        match (await self._api.read([contact], ["email"]))[contact]:
            case NotThere():
                return True
            case Rejected():
                return False
            case DeliveryError() as error:
                raise error
            case records:
                return not records

    async def _lost(self, owed: Owed[Chat]) -> str | None:
        """The note that an earlier claim made without hearing of it: on the same contact, with our mark in it."""
        if not owed.intended:
            return None
        wait_for_index(owed.intended_at, await self._api.now(), self._search_lag)
        contact, body = str(owed.contact_remote_id), "hs_note_body"
        found = await self._api.search(NOTES, "associations.contact", contact, [body], "hs_createdate")
        mark = f"{marker(owed.delivery)}<"
        return next((note.id for note in found if mark in (note.properties or {}).get(body, "")), None)


def _contact_gone(owed: Owed[Chat], status: int | None) -> Gone:
    if owed.is_replay:
        return Gone("the record of the chat's contact was deleted there", status=status)
    return ContactGone("its contact is not there any more", status=status)


def marker(delivery: str) -> str:
    """What a note carries at its end, so that it can be known again."""
    return f"Ref chat-crm-sync/{escape(delivery)}"


def properties_of(chat: Chat, delivery: str) -> dict[str, str]:
    """The note: when it was, and what it says as HTML."""
    at = chat.started_at or chat.closed_at or chat.last_message_at or chat.updated_at
    return {"hs_timestamp": str(int(at * 1000)), "hs_note_body": body_of(chat, delivery)}


def body_of(chat: Chat, delivery: str) -> str:
    """The chat for a person to read. Everything that was typed is escaped; the transcript is clipped to what fits."""
    facts = "".join(f"<li>{escape(name)}: {escape(value)}</li>" for name, value in _facts(chat))
    head = f"<p><strong>Live chat</strong></p><ul>{facts}</ul>"
    tail = f"<p><small>{marker(delivery)}</small></p>"
    room = LONGEST - len(head) - len(tail)
    lines = [_line(message) for message in chat.transcript]
    if sum(map(len, lines)) > room:
        lines = [*_fitting(lines, room - len(CLIPPED)), CLIPPED]
    return head + "".join(lines) + tail


def _fitting(lines: list[str], room: int) -> Iterator[str]:
    for line in lines:
        room -= len(line)
        if room < 0:
            return
        yield line


def _facts(chat: Chat) -> Iterator[tuple[str, str]]:
    if chat.started_at is not None:
        yield "Started", _moment(chat.started_at)
    if chat.closed_at is not None:
        yield "Closed", _moment(chat.closed_at)
    if chat.wait is not None:
        yield "Waited", in_words(chat.wait)
    if chat.duration is not None:
        yield "Lasted", in_words(chat.duration)
    if chat.agent:
        yield "Agent", chat.agent[:1000]


def _line(message: Message) -> str:
    at = f" ({datetime.fromtimestamp(message.at, UTC):%H:%M})" if message.at is not None else ""
    who = escape((message.name or message.sender.capitalize())[:1000])
    text = escape(message.text).replace("\n", "<br>")
    return f"<p><strong>{who}</strong>{at}: {text}</p>"


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def in_words(seconds: float) -> str:
    """A span of time as a person says it: "1 hour 5 minutes", "12 seconds"."""
    whole = max(0, round(seconds))
    parts = ((whole // 3600, "hour"), (whole % 3600 // 60, "minute"), (whole % 60, "second"))
    said = [f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in parts if count]
    return " ".join(said[:2]) or "0 seconds"
