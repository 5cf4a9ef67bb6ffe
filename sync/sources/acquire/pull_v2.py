"""Pulls what the second version knows: its cases, each with its contact and its messages.

Documented are `limit`, `where` and `relations`, and one page without messages. What that leaves open is settled on the
safe side, and said in the notes of a pull or here:

- Which parameter pages is not documented: `page` is sent, counted from 0 as the answer does.
- A case shows its contact as it is now. Where the contact was changed after the case, its words cannot be told to be
  that case's, and count only where the case said nothing about a person.
- A contact that comes without its fields is asked for by itself.
- Only chats are taken: a list of cases holds mails and calls too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from sync.cleaning import said
from sync.errors import SourceError
from sync.models import ChatNews, EventType
from sync.sources.acquire import pulled, v2
from sync.sources.acquire.dates import OLDEST
from sync.sources.acquire.person import lasting
from sync.sources.acquire.reading import Reading
from sync.sources.acquire.rest import Rest, id_of, surely
from sync.sources.base import Listed, PulledChat, Puller, Row, Settled, Unread, UnreadableRow

CASE_DATES = ("dateCreated", "dateQueue", "datePending", "dateActive", "dateClosed", "dateUpdated")
CHANGED = "dateUpdated"
TOLD_BY = frozenset({EventType.CLOSE})
PERSON_IN = frozenset({EventType.START, EventType.ACCEPT, EventType.MESSAGE, EventType.CLOSE})
AFTER = 60.0
"""Seconds after the last word of a case within which a change of its contact still counts as made in it."""

MOST_CONTACTS = 1000
"""Contacts that were asked for by themselves and are remembered: one is not asked for with each of its cases."""


class PullV2(Puller):
    """The list of cases."""

    name: ClassVar[str] = "v2"
    first_page: ClassVar[int] = 0

    def __init__(self, rest: Rest, page_size: int, reading: Callable[[], Reading]) -> None:
        self.rest = rest
        self.page_size = page_size
        self.reading = reading
        self._contacts: dict[str, Mapping[str, Any]] = {}

    @property
    def unread(self) -> Mapping[Unread, int]:
        """What could not be read so far."""
        return self.rest.unread

    async def aclose(self) -> None:
        """Close the connections."""
        await self.rest.client.aclose()

    async def page(self, number: int, limit: int) -> Listed:
        """One page of cases."""
        params = {"page": str(number), "limit": str(limit), "relations": "contact,messages"}
        answer = await surely(self.rest.get("/crm/objects/case", params))
        data = answer.get("data")
        rows = data.get("data") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(rows, list):
            raise SourceError("Acquire's list of cases has no rows where they are documented")
        return Listed(tuple(map(self._row, rows)), _whole(data.get("count")), _whole(data.get("limit")))

    def _row(self, raw: Any) -> Row:
        row = raw if isinstance(raw, dict) else {"row": raw}
        reading = self.reading()
        contact = _contact(row)
        values = [*(row.get(field) for field in CASE_DATES), contact.get(CHANGED), *_written(row)]
        dates = [at for value in values if (at := reading.time("date", value)) is not None]
        return Row(
            key=id_of(row.get("id")),
            mark=reading.keyed("v2", "row", None, [lasting(row), [said(value) for value in values]]),
            at=max(dates, default=None),
            content=row,
        )

    async def chats(self, row: Row, is_settled: Settled) -> Sequence[PulledChat]:
        """The one chat that a case is; none where it is none."""
        case = id_of(row.content.get("id"))
        if case is None:
            raise UnreadableRow("the row has no id")
        if said(row.content.get("channel")) not in ("chat", None) or is_settled([f"v2:{case}"]):
            return ()
        contact = _contact(row.content)
        number = id_of(contact.get("id")) or id_of(row.content.get("contactId"))
        if not isinstance(contact.get("fields"), dict | list) and number is not None:
            contact = {**await self._asked(number), **contact, "id": number}
        return [self._chat(case, {**row.content, "contact": contact})]

    async def _asked(self, number: str) -> Mapping[str, Any]:
        """The fields of a contact that came without."""
        if number not in self._contacts:
            asked = self.rest.get(f"/crm/objects/contact/{number}", {"relations": "fields"})
            answer = await self.rest.detail(("fields", "contact", number), asked)
            data = answer.get("data")
            fields = data.get("fields") if isinstance(data, dict) else None
            if len(self._contacts) >= MOST_CONTACTS:
                self._contacts.clear()
            self._contacts[number] = {"fields": fields} if isinstance(fields, dict | list) else {}
        return self._contacts[number]

    def _chat(self, case: str, row: Mapping[str, Any]) -> PulledChat:
        """Read like a webhook that tells of this case, but for times that a webhook takes from its own arrival."""
        reading = self.reading()
        told = v2.tell(row, "case:status", reading)
        dates = {field: reading.believed(reading.time(field, row.get(field))) for field in CASE_DATES}
        messages = told.news.messages if told.news is not None else ()
        written = [line.at for line in messages if line.at is not None]
        last = max(written, default=None)
        at = last or dates["dateClosed"] or dates["dateActive"] or dates["dateCreated"]
        changed = reading.time(CHANGED, _contact(row).get(CHANGED))
        is_closed = told.type is EventType.CLOSE
        joined = told.news.accepted_at if told.news is not None and (dates["dateActive"] or _has_agent(row)) else None
        return PulledChat(
            chat=f"v2:{case}",
            at=at or OLDEST,
            visitor=told.visitor,
            news=ChatNews(
                started_at=min(written, default=None) or dates["dateCreated"],
                accepted_at=joined,
                closed_at=last or dates["dateClosed"] if is_closed else None,
                agent=told.news.agent if told.news is not None else None,
                messages=messages,
            ),
            told_by=TOLD_BY,
            person_in=PERSON_IN,
            is_current=changed is None or (at is not None and changed <= at + AFTER),
        )

    def body(self, pulled_chat: PulledChat) -> bytes:
        """What was pulled as a body for `read`."""
        return pulled.body(pulled_chat)

    def unreadable(self, row: Row, reason: str) -> bytes:
        """A row that says nothing as a body for `read`."""
        return pulled.unreadable(row.content, reason)


def _contact(row: Mapping[str, Any]) -> Mapping[str, Any]:
    contact = row.get("contact")
    return contact if isinstance(contact, dict) else {}


def _messages(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = row.get("messages")
    return [line for line in messages if isinstance(line, dict)] if isinstance(messages, list) else []


def _written(row: Mapping[str, Any]) -> list[Any]:
    return [line.get("dateCreated") for line in _messages(row)]


def _has_agent(row: Mapping[str, Any]) -> bool:
    return any(said(line.get("senderType")) == "user" for line in _messages(row))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
