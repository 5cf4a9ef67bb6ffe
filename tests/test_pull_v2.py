"""What the second version's documented answers become when they are pulled."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from sync.models import Visitor
from sync.sources.acquire.pull_v2 import PullV2
from sync.sources.base import PulledChat, Row
from tests.test_pull import acquire

SAMPLES = Path(__file__).parent / "samples" / "acquire-rest"
NOW = datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp()
CASES, CONTACT = "/crm/objects/case", "/crm/objects/contact/1"


def body(name: str) -> bytes:
    return (SAMPLES / f"{name}.body").read_bytes()


class Answers(httpx.AsyncBaseTransport):
    """Answers by path; keeps what was asked."""

    def __init__(self, answers: Mapping[str, bytes]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        self.asked.append((path, dict(request.url.params)))
        answer = self.answers.get(path)
        return httpx.Response(404) if answer is None else httpx.Response(200, content=answer)


def puller(answers: Answers) -> PullV2:
    async def sleep(seconds: float) -> None:
        return None

    (made,) = acquire(api_token=None).pullers(clock=lambda: NOW, sleep=sleep, transport=answers)
    assert isinstance(made, PullV2)
    return made


async def chat(row: Mapping[str, Any], answers: Answers | None = None) -> PulledChat:
    (found,) = await puller(answers or Answers({})).chats(Row("1", "mark", None, row), lambda asked: set())
    return found


def closed() -> dict[str, Any]:
    """The documented webhook's case as the REST API would show it: numbers for ids, ISO dates of the case."""
    sample = Path(__file__).parent / "samples" / "acquire" / "documented-v2-case-status-closed.body"
    data = json.loads(sample.read_bytes())["data"]
    return {**data, "id": int(data.pop("caseId")), "channel": "chat", "dateClosed": "2021-03-03T10:20:23.000Z"}


async def test_the_documented_call_is_made() -> None:
    answers = Answers({CASES: body("documented-v2-cases")})

    listed = await puller(answers).page(0, 2)

    assert answers.asked == [(CASES, {"page": "0", "limit": "2", "relations": "contact,messages"})]
    assert ([row.key for row in listed.rows], listed.total, listed.limit) == (["1", "2"], 72, 2)


async def test_a_documented_case_leads_to_its_contact_and_a_contact_without_fields_is_asked_for_once() -> None:
    answers = Answers(
        {CASES: body("documented-v2-cases"), CONTACT: b'{"data": {"fields": {"email": "a@example.com"}}}'}
    )
    made = puller(answers)
    rows = (await made.page(0, 2)).rows

    found = [chat for row in rows for chat in await made.chats(row, lambda asked: set())]

    assert [each.chat for each in found] == ["v2:1", "v2:2"]
    assert [each.visitor for each in found] == [Visitor(email="a@example.com", visitor_id="v2:1")] * 2
    assert [path for path, _ in answers.asked] == [CASES, CONTACT]


async def test_a_contact_that_cannot_be_read_as_the_documented_one_as_printed_is_only_an_id() -> None:
    answers = Answers({CONTACT: body("documented-v2-contact")})
    (row, _) = (await puller(Answers({CASES: body("documented-v2-cases")})).page(0, 2)).rows

    assert (await chat(row.content, answers)).visitor == Visitor(visitor_id="v2:1")


async def test_the_documented_contact_repaired_says_who_it_is() -> None:
    answers = Answers({CONTACT: body("repaired-v2-contact")})
    (row, _) = (await puller(Answers({CASES: body("documented-v2-cases")})).page(0, 2)).rows

    found = (await chat(row.content, answers)).visitor

    assert found is not None
    assert (found.visitor_id, found.email) == ("v2:1", "test@yahoo.com")


async def test_a_closed_case_says_what_its_webhook_says() -> None:
    sample = Path(__file__).parent / "samples" / "acquire" / "documented-v2-case-status-closed.body"
    told = acquire().read(sample.read_bytes(), event_id="ev", received_at=NOW)

    found = await chat(closed())

    assert (found.chat, found.visitor, found.news, found.at) == (told.chat, told.visitor, told.news, told.occurred_at)


async def test_a_case_without_a_date_says_nothing_about_time() -> None:
    found = await chat({"id": 30, "status": "active", "contact": {"id": 5, "fields": {"email": "a@example.com"}}})

    assert (found.news.started_at, found.news.accepted_at, found.news.closed_at) == (None, None, None)
    assert datetime.fromtimestamp(found.at, UTC).year == 2000


async def test_a_contact_that_was_changed_after_the_case_is_not_as_it_was() -> None:
    row = closed()
    row["contact"]["dateUpdated"] = "2021-03-03T10:21:00.000Z"
    assert (await chat(row)).is_current

    row["contact"]["dateUpdated"] = "2021-04-01T00:00:00.000Z"
    assert not (await chat(row)).is_current


async def test_only_chats_are_taken() -> None:
    row = Row("1", "mark", None, {**closed(), "channel": "email"})

    assert await puller(Answers({})).chats(row, lambda asked: set()) == ()


async def test_the_documented_dates_of_a_case_are_its_times() -> None:
    (row,) = json.loads(body("documented-v2-case-dates"))["data"]

    found = await chat({**row, "contact": {"id": 750940, "fields": {}}})

    assert found.news.started_at == datetime(2021, 4, 13, 5, 22, 19, tzinfo=UTC).timestamp()
    assert found.news.accepted_at == datetime(2021, 4, 13, 5, 22, 23, tzinfo=UTC).timestamp()
    assert found.news.closed_at is None
