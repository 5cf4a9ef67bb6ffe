"""What the first version's documented answers become when they are pulled."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest

from sync.errors import SourceError
from sync.models import ChatNews, EventType, Message, Visitor
from sync.sources.acquire.pull_v1 import PullV1
from sync.sources.base import PulledChat, Row
from tests.test_pull import acquire

SAMPLES = Path(__file__).parent / "samples" / "acquire-rest"
NOW = datetime(2020, 1, 1, tzinfo=UTC).timestamp()

LIST, THREAD, MESSAGE = "/profile/lead/list", "/profile/message/thread", "/profile/lead/message"
STATISTICS = "/analytics/general/chat-statistics"


def body(name: str) -> bytes:
    return (SAMPLES / f"{name}.body").read_bytes()


def iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Answers(httpx.AsyncBaseTransport):
    """Answers by path; keeps the forms that were sent."""

    def __init__(self, answers: Mapping[str, bytes | Callable[[dict[str, str]], bytes]]) -> None:
        self.answers = answers
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.headers: httpx.Headers = httpx.Headers()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        form = {k: v[0] for k, v in parse_qs(request.content.decode(), keep_blank_values=True).items()}
        path = request.url.path.removeprefix("/api")
        self.forms.append((path, form))
        self.headers = request.headers
        answer = self.answers.get(path)
        if answer is None:
            return httpx.Response(404)
        return httpx.Response(200, content=answer if isinstance(answer, bytes) else answer(form))


def puller(answers: Answers, **given: str) -> PullV1:
    async def sleep(seconds: float) -> None:
        return None

    source = acquire(v2_api_key=None, **given)
    (made,) = source.pullers(clock=lambda: NOW, sleep=sleep, transport=answers)
    assert isinstance(made, PullV1)
    return made


async def chats(answers: Answers, row: Row, settled: set[str] | None = None) -> dict[str, PulledChat]:
    found = await puller(answers).chats(row, lambda asked: settled or set())
    return {each.chat: each for each in found}


async def the_row(answers: Answers) -> Row:
    (row,) = (await puller(answers).page(1, 20)).rows
    return row


ALL = {LIST: body("repaired-v1-list"), THREAD: body("documented-v1-thread"), MESSAGE: body("documented-v1-message")}


async def test_the_documented_call_is_made() -> None:
    answers = Answers(ALL)

    await puller(answers, timezone="Europe/London").page(3, 50)

    assert answers.forms == [(LIST, {"limit": "50", "page": "3", "filter[master]": "chathistory"})]
    assert answers.headers["authorization"].startswith("Bearer ")
    assert answers.headers["content-type"] == "application/x-www-form-urlencoded"
    assert answers.headers["zone"] == '{"timezone": "Europe/London", "offset": "+00:00"}'


async def test_the_documented_list_as_printed_is_no_json_and_no_empty_list() -> None:
    with pytest.raises(SourceError, match="no JSON object"):
        await puller(Answers({LIST: body("documented-v1-list")})).page(1, 20)


async def test_the_documented_row_names_its_chat_and_its_visitor() -> None:
    row = await the_row(Answers(ALL))

    assert (row.key, iso(row.at)) == ("70574:70574:2146", "2018-08-02 07:31:02")


async def test_the_documented_threads_lead_to_all_their_chats() -> None:
    answers = Answers(ALL)

    found = await chats(answers, await the_row(answers))

    assert list(found) == ["v1:2146"] + [f"v1:{n}" for n in (1876, 2142, 1877, 2139, 2140, 2141, 2143, 2145)]


async def test_a_duration_of_several_chats_is_nobodys() -> None:
    answers = Answers(ALL)

    found = await chats(answers, await the_row(answers))

    assert found["v1:2146"].news == ChatNews(started_at=datetime(2018, 8, 2, 7, 30, 28, tzinfo=UTC).timestamp())
    assert found["v1:2146"].visitor == Visitor(visitor_id="v1:70574")


async def test_a_chat_without_any_date_is_older_than_everything() -> None:
    answers = Answers(ALL)

    assert iso((await chats(answers, await the_row(answers)))["v1:1876"].at) == "2000-01-01 00:00:00"


async def test_the_documented_lines_are_read_with_their_senders_and_times() -> None:
    answers = Answers({**ALL, THREAD: b'{"success": true, "data": {"messages": []}}'})
    row = await the_row(answers)
    row = Row(row.key, row.mark, row.at, {**row.content, "chat_id": 106241})

    found = await chats(answers, row)

    assert [(m.id, m.sender, m.text, m.name, iso(m.at)) for m in found["v1:106241"].news.messages] == [
        ("rest:944199", "agent", "Hello", "Devid Klok", "2018-07-23 13:45:50"),
        ("rest:944201", "visitor", "Hello", "John Deo", "2018-07-23 13:45:56"),
    ]
    assert answers.forms[-1] == (
        MESSAGE,
        {"thread_id": "-1", "visitor_id": "70574", "last_chat_id": "106241", "key": ""},
    )


async def test_settled_chats_are_not_asked_about() -> None:
    answers = Answers(ALL)
    row = await the_row(answers)
    everything = set(await chats(answers, row))
    answers.forms.clear()

    assert await chats(answers, row, everything) == {}
    assert [path for path, _ in answers.forms] == [THREAD]


async def test_a_visitor_who_was_deleted_meanwhile_leaves_what_the_row_says() -> None:
    answers = Answers({LIST: ALL[LIST]})

    assert list(await chats(answers, await the_row(answers))) == ["v1:2146"]


async def test_what_was_pulled_is_read_back_as_it_was() -> None:
    pulled = PulledChat(
        chat="v1:172",
        at=NOW - 60.5,
        visitor=Visitor("Ada", "ada@example.com", "+12025550100", "v1:7", {"email_as_typed": "ada@"}),
        news=ChatNews(NOW - 90, NOW - 80, NOW - 60, 10.0, 20.0, "John", (Message("rest:1", "agent", "Hi", NOW - 70),)),
    )

    event = acquire().read(puller(Answers({})).body(pulled), event_id="ev", received_at=NOW)

    assert (event.error, event.flags, event.type, event.chat) == (None, (), EventType.START, "v1:172")
    assert (event.occurred_at, event.visitor, event.news) == (pulled.at, pulled.visitor, pulled.news)


@pytest.mark.parametrize(
    "data", [b"3", b"{}", b'{"chat": [], "at": "x"}', b'{"chat": "v1:1", "news": {"messages": [3, {}], "wait": "x"}}']
)
async def test_nothing_in_the_place_of_what_was_pulled_makes_reading_fail(data: bytes) -> None:
    read = acquire().read(b'{"event": "PULLED", "data": ' + data + b"}", event_id="ev", received_at=NOW)

    assert read.error is not None or read.chat == "v1:1"


async def test_the_documented_statistics_are_read_by_day() -> None:
    answers = Answers({STATISTICS: body("documented-v1-statistics")})

    totals = await puller(answers, timezone="Europe/London").totals(date(2018, 8, 25), date(2018, 9, 3))

    assert totals is not None
    assert (totals[date(2018, 8, 25)], totals[date(2018, 9, 3)]) == (23, 12)
    assert answers.forms == [
        (
            STATISTICS,
            {
                "timezone": "Europe/London",
                "date_start": "2018-08-25 00:00:00",
                "date_end": "2018-09-03 23:59:59",
                "filter_type": "daily",
            },
        )
    ]


async def test_statistics_of_other_days_than_asked_for_say_nothing() -> None:
    answers = Answers({STATISTICS: body("documented-v1-statistics")})

    assert await puller(answers).totals(date(2018, 8, 26), date(2018, 9, 4)) is None
