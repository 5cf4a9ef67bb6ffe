"""What needs a person leaves the machine: once a cause, with an all-clear, without personal data (promise P2)."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from sync.alarms import LONG_PAUSE, News, disk_alarms, review, tell
from sync.http import Client
from sync.service import _housekeeping
from sync.settings import Settings
from tests.running import Running, running, start


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as made:
        yield made


async def news(service: Running, disk: dict[str, str] | None = None) -> list[News]:
    return await service.service.writer.do(lambda ledger: review(ledger, disk or {}))


async def told(service: Running, found: list[News], status: int = 200) -> list[dict[str, Any]]:
    """What the operator's URL hears."""
    heard: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        heard.append(json.loads(request.content))
        return httpx.Response(status)

    client = Client("https://alarm.example.com/x", transport=httpx.MockTransport(answer))
    await tell(client, service.service.writer, found)
    await client.aclose()
    return heard


async def test_where_all_is_well_there_is_nothing_to_tell(service: Running) -> None:
    await service.post(start())
    await service.drain()

    assert await news(service) == []


async def test_a_long_pause_is_told_once_and_then_its_end(service: Running) -> None:
    service.crm.unreachable = True
    await service.post(start())
    await service.drain()
    assert await news(service) == []

    service.clock.sleep(LONG_PAUSE + 1)
    first = await told(service, await news(service))
    assert [(a["alarm"], a["state"]) for a in first] == [("paused:sandbox", "raised")]
    assert await news(service) == []

    service.crm.unreachable = False
    for _ in range(5):
        await service.drain()
        service.clock.sleep(60)
    last = await told(service, await news(service))
    assert [(a["alarm"], a["state"]) for a in last] == [("paused:sandbox", "cleared")]
    assert await news(service) == []


async def test_an_alarm_that_could_not_be_told_is_told_in_the_next_round(service: Running) -> None:
    disk = {"disk": "nearly full"}

    assert len(await told(service, await news(service, disk), status=500)) == 1
    assert len(await told(service, await news(service, disk))) == 1
    assert await news(service, disk) == []


async def test_the_first_dead_letter_of_a_cause_is_told_and_the_second_is_not(service: Running) -> None:
    service.crm.state.faults.reject = {"p1@example.com", "p2@example.com"}
    await service.post(start(1, "p1@example.com"))
    await service.drain()
    first = await told(service, await news(service))

    await service.post(start(2, "p2@example.com"))
    await service.drain()

    assert len(first) == 1
    assert "crm-sync replay --dead sandbox" in first[0]["text"]
    assert await news(service) == []


async def test_the_first_unreadable_event_is_told(service: Running) -> None:
    await service.post(b"canary@example.com is not JSON")

    (heard,) = await told(service, await news(service))
    assert heard["alarm"] == "unreadable"
    assert "canary" not in json.dumps(heard)


async def test_the_same_trouble_is_told_again_after_it_was_over(service: Running) -> None:
    disk = {"disk": "nearly full"}
    await told(service, await news(service, disk))
    await told(service, await news(service))

    assert [item.is_over for item in await news(service, disk)] == [False]


def test_the_disk_alarm_knows_its_reserve(tmp_path: Path) -> None:
    assert disk_alarms(tmp_path, 0) == {}
    assert "nearly full" in disk_alarms(tmp_path, 1 << 60)["disk"]


async def test_an_alarm_url_that_does_not_answer_breaks_nothing(service: Running) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = Client("https://alarm.example.com", transport=httpx.MockTransport(refuse), blip=0)
    async with asyncio.timeout(5):
        await tell(client, service.service.writer, await news(service, {"disk": "nearly full"}))

    assert len(await news(service, {"disk": "nearly full"})) == 1
    await client.aclose()


async def test_an_alarm_url_that_redirects_to_nonsense_breaks_nothing(service: Running) -> None:
    def nowhere(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "http://xn--a/"})

    client = Client("https://alarm.example.com", transport=httpx.MockTransport(nowhere), blip=0)
    await tell(client, service.service.writer, await news(service, {"disk": "nearly full"}))

    assert len(await news(service, {"disk": "nearly full"})) == 1
    await client.aclose()


async def test_housekeeping_outlives_whatever_happens_in_a_round(
    service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.service.HOUSEKEEPING", 0.001)
    folder = tmp_path / "canary"
    keeping = asyncio.create_task(_housekeeping(service.service, Settings(), service.webhooks, folder))
    async with asyncio.timeout(5):
        with capture_logs() as logged:
            while not any("housekeeping" in line["event"] for line in logged):
                await asyncio.sleep(0.001)
        folder.mkdir()
        await service.post(b"not JSON")
        while not service.ledger.engine.rows("open_alarms"):
            await asyncio.sleep(0.001)

    assert not keeping.done()
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_what_was_over_before_anybody_heard_of_it_is_not_told(service: Running) -> None:
    await news(service, {"disk": "nearly full"})

    assert await news(service) == []
    assert await news(service) == []


async def test_without_an_alarm_url_the_status_still_shows_trouble_that_comes_back(service: Running) -> None:
    for disk in ({"disk": "nearly full"}, {}, {"disk": "nearly full"}):
        await news(service, disk)

    assert [row["key"] for row in service.ledger.engine.rows("open_alarms")] == ["disk"]
