"""A working imitation of Acquire: one history of chats, the webhooks that tell of it, both versions of the REST API.

What the vendor documents it does as documented: methods, forms, envelopes, names, where pages begin, naive dates in the
account's zone here and ISO 8601 there. What is not documented can be set: whether `page` has any effect (`pages`), the
most rows it gives (`most_rows`), whether lists name their totals, whether contacts come with their fields, whether
threads have dates (the example has null there).
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs

import httpx

from sync.simulation.acquire import Webhook, webhooks_of
from sync.simulation.people import Chat, Person, as_typed, without_phone

TOKEN, KEY = "canary-v1-token", "canary-v2-key"


@dataclass
class Account:
    """What one account of Acquire knows. `now` is its clock: chats that are not over by then are running."""

    chats: list[Chat]
    now: Callable[[], float]
    pages: bool = True
    most_rows: int = 1000
    has_totals: bool = True
    bare_contacts: bool = False
    has_thread_dates: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    extra: list[Any] = field(default_factory=list)

    def webhooks(self) -> list[Webhook]:
        """All webhooks of all chats, in the order in which they are sent."""
        return sorted((each for chat in self.chats for each in webhooks_of(chat)), key=lambda webhook: webhook.at)

    def visitors(self) -> list[dict[str, Any]]:
        """The rows of v1's list: one for each visitor, with the newest of their chats."""
        found: dict[str, list[Chat]] = {}
        for chat in self._begun(is_case=False):
            found.setdefault(chat.person.id, []).append(chat)
        rows = [self._visitor(chats) for chats in found.values()]
        return [*({**row, **self.rows.get(str(row["chat_id"]), {})} for row in rows), *self.extra]

    def _visitor(self, chats: Sequence[Chat]) -> dict[str, Any]:
        last, person = chats[-1], self.profile(chats)
        return {
            "id": int(last.person.id),
            "session_id": int(last.person.id),
            "visitor_id": int(last.person.id),
            "source": None,
            "name": person.name,
            "email": person.email,
            "visitor_phone": as_typed(person.phone, last.number) or "",
            "ip": "",
            "date_updated": self.naive(last, self._updated(last)),
            "lead_id": 0,
            "chat_id": last.number,
            "chat_created": self.naive(last, last.started_at),
            "chat_updated": self.naive(last, self._updated(last)),
            "chat_date_created": None,
            "tags": "",
            "agent_name": "John Deo",
        }

    def _updated(self, chat: Chat) -> float:
        return min(chat.ended_at, float(int(self.now())))

    def profile(self, chats: Sequence[Chat]) -> Person:
        """A person as they are now: the newest of everything they said."""
        phones = [self.person(chat).phone for chat in chats]
        newest = self.person(chats[-1])
        return replace(newest, phone=next((phone for phone in reversed(phones) if phone is not None), None))

    def person(self, chat: Chat) -> Person:
        """What a chat has said of its visitor by now."""
        is_early = chat.is_phone_late and self.now() < chat.ended_at
        return without_phone(chat.person) if is_early else chat.person

    def threads(self, visitor: str) -> list[dict[str, Any]]:
        return [
            {
                "chat_id": chat.number,
                "thread_id": 40_000 + n,
                "visitor_id": int(visitor),
                "thread_status": "open",
                "chat_updated": None,
                "chat_created": self.naive(chat, chat.started_at) if self.has_thread_dates else None,
                "count_chat": 1,
                "chat_ids": str(chat.number),
                "agents": "John Deo",
                "chat_duration": int(min(chat.ended_at, self.now()) - chat.accepted_at),
                "chat_wait_time": chat.wait,
                "message": "",
            }
            for n, chat in enumerate(c for c in self._begun(is_case=False) if c.person.id == visitor)
        ]

    def lines(self, visitor: str, number: str) -> list[dict[str, Any]]:
        chats = [c for c in self._begun(is_case=False) if c.person.id == visitor and str(c.number) == number]
        return [row for chat in chats for row in self._lines(chat)]

    def _lines(self, chat: Chat) -> list[dict[str, Any]]:
        rows, at = [], chat.accepted_at
        for n, (is_visitor, text, pause) in enumerate(chat.lines):
            at += pause
            name = chat.person.name if is_visitor else "John Deo"
            if at <= self.now():
                kind = "visitor" if is_visitor else "agent"
                rows.append(
                    {
                        "id": chat.number * 100 + n,
                        "chat_id": chat.number,
                        "sender_type": kind,
                        "type": "message",
                        "message": text,
                        "date_created": self.naive(chat, at),
                        "user": {"id": None, "type": kind, "name": name, "photo": None},
                    }
                )
        return rows

    def cases(self) -> list[dict[str, Any]]:
        """The rows of v2's list: one for each case, with the contact as it is now."""
        return [*map(self._case, self._begun(is_case=True)), *self.extra]

    def _case(self, chat: Chat) -> dict[str, Any]:
        is_over = chat.ended_at <= self.now()
        status = json.loads(webhooks_of(chat)[-1].body)["data"]
        messages = [
            {**line, "id": int(line["id"]), "senderId": int(line["senderId"]), "dateCreated": iso(at)}
            for line in status["messages"]
            if (at := parsed(line["dateCreated"])) <= self.now()
        ]
        row = {
            "id": chat.number,
            "channel": "chat",
            "status": "closed" if is_over else "active",
            "dateCreated": iso(chat.started_at),
            "dateUpdated": iso(self._updated(chat)),
            "dateActive": iso(chat.accepted_at),
            "dateClosed": iso(chat.ended_at) if is_over else None,
            "contact": self.contact(chat.person.id),
            "messages": messages,
            "threadId": chat.number,
        }
        return {**row, **self.rows.get(str(chat.number), {})}

    def contact(self, visitor: str, *, with_fields: bool = False) -> dict[str, Any]:
        chats = [chat for chat in self._begun(is_case=True) if chat.person.id == visitor]
        person = self.profile(chats)
        changed = chats[0].started_at
        for before, chat in pairwise(chats):
            changed = chat.started_at if self.person(before) != self.person(chat) else changed
        if chats[-1].is_phone_late and chats[-1].ended_at <= self.now():
            changed = chats[-1].ended_at
        phone = as_typed(person.phone, chats[-1].number) or ""
        fields = {"name": person.name, "email": person.email, "phone": phone, "city": "", "countryId": "517"}
        fields |= {"ip": "203.0.113.7"}
        bare = {"dateCreated": iso(chats[0].started_at), "dateUpdated": iso(changed), "id": int(visitor)}
        return {**bare, **({} if self.bare_contacts and not with_fields else {"fields": fields}), "archive": "no"}

    def statistics(self, first: date, last: date) -> dict[str, Any]:
        days = [date.fromordinal(n) for n in range(first.toordinal(), last.toordinal() + 1)]
        began = Counter(datetime.fromtimestamp(c.started_at, c.zone).date() for c in self._begun(is_case=False))
        graph = {"chat_date": [d.strftime("%d %b") for d in days], "chat_total": [began[d] for d in days]}
        return {"chat_statistics": {"graph_row": graph, "total_chat": sum(graph["chat_total"])}}

    def _begun(self, *, is_case: bool) -> list[Chat]:
        found = [chat for chat in self.chats if chat.is_case == is_case and chat.started_at <= self.now()]
        return sorted(found, key=lambda chat: (chat.started_at, chat.number))

    def naive(self, chat: Chat, at: float) -> str:
        return datetime.fromtimestamp(at, chat.zone).strftime("%Y-%m-%d %H:%M:%S")


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def parsed(text: str) -> float:
    return datetime.strptime(text[:33], "%a %b %d %Y %H:%M:%S GMT%z").timestamp()


class AcquireApi(httpx.AsyncBaseTransport):
    """The REST APIs of an account as a transport. `before` may raise or answer instead, as a bad day would."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda request: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.account.calls[request.url.path] += 1
        if (answered := self.before(request)) is not None:
            return answered
        if request.headers.get("authorization") not in (f"Bearer {TOKEN}", f"Bearer {KEY}"):
            return httpx.Response(401)
        form = {k: v[0] for k, v in parse_qs(request.content.decode(), keep_blank_values=True).items()}
        path = request.url.path
        if request.url.host == "app.acquire.io":
            assert (request.method, request.headers["content-type"]) == ("POST", "application/x-www-form-urlencoded")
            found = self._v1(path.removeprefix("/api"), form)
            return httpx.Response(200, json={"success": True, "error": None, "data": found})
        assert (request.method, request.url.host) == ("GET", "demo.acquire.io")
        return self._v2(path.removeprefix("/api/v1"), dict(request.url.params))

    def _v1(self, path: str, form: dict[str, str]) -> Any:
        account = self.account
        match path:
            case "/profile/lead/list":
                assert form["filter[master]"] == "chathistory"
                rows = account.visitors()
                page, _ = self._page(rows, int(form["page"]) - 1, int(form["limit"]))
                return {**({"total": len(rows)} if account.has_totals else {}), "data": page, "overall_time": 0.022}
            case "/profile/message/thread":
                rows = account.threads(form["visitor_id"])
                first = (int(form["page"]) - 1) * int(form["limit"])
                return {"messages": rows[first : first + int(form["limit"])], "activity": []}
            case "/profile/lead/message":
                return {"messages": account.lines(form["visitor_id"], form["last_chat_id"]), "co_browse": []}
            case "/analytics/general/chat-statistics":
                days = (date.fromisoformat(form[name][:10]) for name in ("date_start", "date_end"))
                return account.statistics(*days)
        raise AssertionError(path)

    def _v2(self, path: str, params: dict[str, str]) -> httpx.Response:
        if path.startswith("/crm/objects/contact/"):
            return httpx.Response(200, json={"data": self.account.contact(path.rsplit("/", 1)[1], with_fields=True)})
        assert path == "/crm/objects/case"
        rows = self.account.cases()
        number = int(params.get("page", 0))
        page, limit = self._page(rows, number, int(params["limit"]))
        count = {"count": len(rows)} if self.account.has_totals else {}
        data = {"page": number, "offset": number * limit, "limit": limit, **count, "data": page}
        return httpx.Response(200, json={"data": data})

    def _page(self, rows: list[Any], number: int, limit: int) -> tuple[list[Any], int]:
        limit = min(limit, self.account.most_rows)
        first = number * limit if self.account.pages else 0
        return rows[first : first + limit], limit
