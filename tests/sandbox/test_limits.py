"""The published limit, as a rolling window."""

from typing import Any

import httpx
from starlette.applications import Starlette

from sync.sandbox.limits import Limit

CONTACT = "/crm/v3/objects/contacts/1"


def test_the_window_rolls(clock: Any) -> None:
    limit = Limit(clock, calls=2)
    first = limit.take()
    clock.now += 6
    second, third = limit.take(), limit.take()
    clock.now += 4
    fourth, fifth = limit.take(), limit.take()

    assert [first, second, third, fourth, fifth] == [True, True, False, True, False]


def test_without_a_limit_everything_passes_and_nothing_is_told(clock: Any) -> None:
    limit = Limit(clock)

    assert all(limit.take() for _ in range(1000))
    assert limit.headers() == {}


async def test_over_the_limit_is_429_and_every_answer_says_what_is_left(
    app: Starlette, crm: httpx.AsyncClient, clock: Any
) -> None:
    app.state.limit.calls = 2
    answers = [await crm.get(CONTACT) for _ in range(3)]
    clock.now += 10
    later = await crm.get(CONTACT)

    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert [answer.headers["X-HubSpot-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].headers["X-HubSpot-RateLimit-Max"] == "2"
    assert answers[2].headers["X-HubSpot-RateLimit-Interval-Milliseconds"] == "10000"
    body = answers[2].json()
    assert (body["errorType"], body["policyName"]) == ("RATE_LIMIT", "TEN_SECONDLY_ROLLING")
    assert later.status_code == 404


async def test_search_has_a_limit_of_its_own_and_tells_nothing(
    app: Starlette, crm: httpx.AsyncClient, clock: Any
) -> None:
    app.state.limit.calls, app.state.search_limit.calls = 1, 2
    answers = [await crm.post("/crm/v3/objects/contacts/search", json={}) for _ in range(3)]
    other = await crm.get(CONTACT)

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["policyName"] == "SECONDLY"
    assert "X-HubSpot-RateLimit-Max" not in answers[2].headers
    assert other.status_code == 404
