"""Pulls what the first version knows: a list of visitors, the threads of each, the lines of each chat.

Documented are the calls with their parameters, and one example of each answer. What the examples leave open is settled
on the safe side, and said in the notes of a pull or here:

- Dates of a thread are documented as keys and null in the example: they are taken where they are said.
- A row names one chat of its visitor, with its dates. Its name, email and phone are taken as
  said by that chat; in older ones of the visitor they count only where these said nothing about a person.
- Nothing says that a chat is over. A duration says so, as in the webhooks, once that end lies a while back and nothing
  was written since; a thread of several chats has one duration, nobody knows whose, so it is nobody's.
- Remarks, custom fields, tags, lines by a bot and notes of the vendor's own are not taken: nothing says that they are
  what the webhooks say.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, ClassVar

from sync.cleaning import MESSAGE_LIMIT, NAME_LIMIT, said
from sync.errors import SourceError
from sync.models import ChatNews, EventType, Message
from sync.sources.acquire import pulled
from sync.sources.acquire.dates import MONTHS, OLDEST
from sync.sources.acquire.person import visitor_of
from sync.sources.acquire.reading import Reading
from sync.sources.acquire.rest import Detail, Rest, id_of, surely
from sync.sources.base import Listed, PulledChat, Puller, Row, Settled, Unread, UnreadableRow

QUIET = 900.0
"""Seconds after which a chat counts as quiet: before that its webhooks may still be under way."""

SAYS = ("id", "visitor_id", "chat_id", "name", "email", "visitor_phone", "chat_created", "chat_updated", "agent_name")
ROW_DATES = ("chat_created", "chat_updated", "chat_date_created", "chat_date_updated", "date_updated")
SENDERS = {"agent": "agent", "visitor": "visitor", "contact": "visitor"}
TOLD_BY = frozenset({EventType.START, EventType.CLOSE})
THREADS_A_PAGE = 20
MOST_THREADS = 50
"""Pages of one visitor's threads that are read."""


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread of a visitor: its chats, and its spans where they can only be about one chat."""

    id: str
    chats: tuple[str, ...]
    created: float | None
    wait: float | None
    duration: float | None
    agent: str | None


class PullV1(Puller):
    """The list of visitors who chatted."""

    name: ClassVar[str] = "v1"
    first_page: ClassVar[int] = 1

    def __init__(self, rest: Rest, page_size: int, reading: Callable[[], Reading], zone: str) -> None:
        self.rest = rest
        self.page_size = page_size
        self.reading = reading
        self.zone = zone

    @property
    def unread(self) -> Mapping[Unread, int]:
        """What could not be read so far."""
        return self.rest.unread

    async def aclose(self) -> None:
        """Close the connections."""
        await self.rest.client.aclose()

    async def page(self, number: int, limit: int) -> Listed:
        """One page of visitors."""
        form = {"limit": str(limit), "page": str(number), "filter[master]": "chathistory"}
        data = _data(await surely(self.rest.post("/profile/lead/list", form)))
        rows = data.get("data") if isinstance(data, dict) else None
        if not isinstance(rows, list):
            raise SourceError("Acquire's list of visitors has no rows where they are documented")
        total = data.get("total")
        read = tuple(self._row(row) for row in rows)
        return Listed(read, total if isinstance(total, int) and not isinstance(total, bool) else None)

    def _row(self, raw: Any) -> Row:
        row = raw if isinstance(raw, dict) else {"row": raw}
        ids = [id_of(row.get(field)) for field in ("id", "visitor_id", "chat_id")]
        reading = self.reading()
        dates = [at for field in ROW_DATES if (at := reading.time(field, row.get(field))) is not None]
        return Row(
            key=":".join(i or "" for i in ids) if any(ids) else None,
            mark=reading.keyed("v1", "row", None, [said(row.get(field)) for field in SAYS]),
            at=max(dates, default=None),
            content=row,
        )

    async def chats(self, row: Row, is_settled: Settled) -> Sequence[PulledChat]:
        """The row's own chat, then the visitor's others, as far as they are not settled."""
        visitor, own = id_of(row.content.get("visitor_id")), id_of(row.content.get("chat_id"))
        if visitor is None and own is None:
            raise UnreadableRow("the row names neither a visitor nor a chat")
        threads = [thread async for thread in self._threads(visitor, own)] if visitor is not None else []
        found = {chat: thread for thread in threads for chat in thread.chats}
        ordered = [*([own] if own is not None else []), *(chat for chat in found if chat != own)]
        settled = is_settled([f"v1:{chat}" for chat in ordered])
        wanted = [chat for chat in ordered if f"v1:{chat}" not in settled]
        lines = await self._lines(visitor, wanted, found) if visitor is not None else {}
        return [self._chat(chat, row, found.get(chat), lines.get(chat, ()), is_own=chat == own) for chat in wanted]

    async def _threads(self, visitor: str, own: str | None) -> AsyncIterator[Thread]:
        """Page by page until one brings nothing new: which chats there are."""
        known: set[str] = set()
        for number in range(1, MOST_THREADS + 1):
            form = {"lead_id": "0", "limit": str(THREADS_A_PAGE), "chatid": own or "", "visitor_id": visitor}
            rows = await self._rows(
                ("threads", "profile", visitor), "/profile/message/thread", {**form, "page": str(number)}
            )
            new = [thread for thread in map(self._thread, rows) if not known.issuperset(thread.chats)]
            for thread in new:
                known.update(thread.chats)
                yield thread
            if not new or len(rows) < THREADS_A_PAGE:
                return
        self.rest.leave_out(("threads", "profile", visitor), f"more than {MOST_THREADS} pages")

    def _thread(self, row: Mapping[str, Any]) -> Thread:
        reading = self.reading()
        listed = (said(row.get("chat_ids")) or "").split(",")
        chats = dict.fromkeys(chat for value in (row.get("chat_id"), *listed) if (chat := id_of(value)) is not None)
        is_one = len(chats) == 1
        return Thread(
            id=id_of(row.get("thread_id")) or "-1",
            chats=tuple(chats),
            created=reading.time("chat_created", row.get("chat_created")) if is_one else None,
            wait=reading.seconds("chat_wait_time", row.get("chat_wait_time")) if is_one else None,
            duration=reading.seconds("chat_duration", row.get("chat_duration")) if is_one else None,
            agent=reading.text("agents", row.get("agents"), limit=NAME_LIMIT) if is_one else None,
        )

    async def _lines(
        self, visitor: str, chats: Iterable[str], threads: Mapping[str, Thread]
    ) -> dict[str, dict[str, Message]]:
        """The lines of these chats by chat. An answer may hold those of other chats too: each line names its own."""
        found: dict[str, dict[str, Message]] = {}
        for chat in chats:
            if chat in found:
                continue
            thread = threads[chat].id if chat in threads else "-1"
            form = {"thread_id": thread, "visitor_id": visitor, "last_chat_id": chat, "key": ""}
            for row in await self._rows(("lines", "chat", chat), "/profile/lead/message", form):
                line, of = self._message(row), id_of(row.get("chat_id"))
                if line is not None and of is not None:
                    found.setdefault(of, {})[line.id] = line
        return found

    def _message(self, row: Mapping[str, Any]) -> Message | None:
        """A line by the visitor or an agent; what the system, a bot or a note says has no documented webhook."""
        reading = self.reading()
        sender = SENDERS.get((said(row.get("sender_type")) or "").lower())
        text = reading.text("message", row.get("message"), limit=MESSAGE_LIMIT, keep_lines=True)
        number = id_of(row.get("id"))
        if sender is None or text is None or number is None or said(row.get("type")) not in ("message", None):
            return None
        user = row.get("user")
        name = user.get("name") if isinstance(user, dict) else None
        at = reading.believed(reading.time("date_created", row.get("date_created")))
        return Message(f"rest:{number}", sender, text, at, reading.text("sender", name, limit=NAME_LIMIT))

    async def _rows(self, detail: Detail, path: str, form: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """The `messages` of an answer; none where there is none, as about a visitor who was deleted since."""
        data = _data(await self.rest.detail(detail, self.rest.post(path, form)))
        rows = data.get("messages") if isinstance(data, dict) else None
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def _chat(
        self, chat: str, row: Row, thread: Thread | None, lines: Mapping[str, Message] | tuple[()], *, is_own: bool
    ) -> PulledChat:
        reading = self.reading()
        raw = row.content if is_own else {}
        created, updated = (reading.believed(reading.time(f, raw.get(f))) for f in ("chat_created", "chat_updated"))
        created = created or (reading.believed(thread.created) if thread is not None else None)
        messages = tuple(lines.values()) if isinstance(lines, Mapping) else ()
        written = [line.at for line in messages if line.at is not None]
        active = _latest(created, updated, *written)
        is_quiet = active is None or active + QUIET <= reading.received_at
        ended = _ended(created, thread, max(written, default=None), reading.received_at)
        said_now = {"name": "name", "email": "email", "phone": "visitor_phone"}
        person = {ours: row.content.get(theirs) for ours, theirs in said_now.items()}
        return PulledChat(
            chat=f"v1:{chat}",
            at=_latest(created, ended, *written) or updated or OLDEST,
            visitor=visitor_of(person, reading.id("v1", "visitor_id", row.content.get("visitor_id")), reading),
            news=self._news(raw, created, ended, thread, messages if is_quiet else (), reading),
            told_by=TOLD_BY,
            person_in=TOLD_BY,
            is_current=is_own,
            has_line_ids=False,
        )

    def _news(
        self,
        raw: Mapping[str, Any],
        created: float | None,
        ended: float | None,
        thread: Thread | None,
        messages: tuple[Message, ...],
        reading: Reading,
    ) -> ChatNews:
        answered = [line for line in messages if line.sender == "agent"]
        is_accepted = ended is not None or bool(answered)
        wait = thread.wait if thread is not None and is_accepted else None
        agent = reading.text("agent_name", raw.get("agent_name"), limit=NAME_LIMIT) if is_accepted else None
        picked = None if created is None or wait is None else created + wait
        return ChatNews(
            started_at=created or min((line.at for line in messages if line.at is not None), default=None),
            accepted_at=picked or min((line.at for line in answered if line.at is not None), default=None),
            closed_at=ended,
            wait=wait,
            duration=thread.duration if thread is not None and ended is not None else None,
            agent=agent or (thread.agent if thread is not None and is_accepted else None),
            messages=messages,
        )

    def body(self, pulled_chat: PulledChat) -> bytes:
        """What was pulled as a body for `read`."""
        return pulled.body(pulled_chat)

    def unreadable(self, row: Row, reason: str) -> bytes:
        """A row that says nothing as a body for `read`."""
        return pulled.unreadable(row.content, reason)

    async def totals(self, first: date, last: date) -> Mapping[date, int] | None:
        """The statistics' `chat_total` by day; None where they are not as documented."""
        form = {"timezone": self.zone, "date_start": f"{first} 00:00:00", "date_end": f"{last} 23:59:59"}
        asked = await surely(self.rest.post("/analytics/general/chat-statistics", {**form, "filter_type": "daily"}))
        statistics = _data(asked).get("chat_statistics") if isinstance(_data(asked), dict) else None
        graph = statistics.get("graph_row") if isinstance(statistics, dict) else None
        if not isinstance(graph, dict):
            return None
        days = list(_days(first, last))
        labels, totals = graph.get("chat_date"), graph.get("chat_total")
        if labels != [_label(day) for day in days] or not isinstance(totals, list):
            return None
        if len(totals) != len(days) or not all(type(total) is int for total in totals):
            return None
        return dict(zip(days, totals, strict=True))


def _ended(created: float | None, thread: Thread | None, written: float | None, now: float) -> float | None:
    if created is None or thread is None or not thread.duration:
        return None
    ended = created + (thread.wait or 0.0) + thread.duration
    return ended if ended + QUIET <= now and (written is None or written <= ended) else None


def _latest(*dates: float | None) -> float | None:
    return max((date for date in dates if date is not None), default=None)


def _data(answer: dict[str, Any]) -> Any:
    return answer.get("data")


def _label(day: date) -> str:
    return f"{day.day:02} {next(name for name, number in MONTHS.items() if number == day.month)}"


def _days(first: date, last: date) -> Iterator[date]:
    for n in range((last - first).days + 1):
        yield first + timedelta(days=n)
