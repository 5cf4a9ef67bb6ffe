"""What a lane does with a place it cannot have, and with what it holds when it is told to stop (promises P5, P6)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.dispatcher import GRACE, Lane
from sync.errors import LedgerUnavailable, Postponed
from sync.ledger import Ledger
from sync.outcomes import Retry
from sync.wiring import PATIENCE
from tests.databases import Server, select
from tests.fakes.lanes import Recorder
from tests.running import Running, running, start
from tests.test_mail import converse, mails, outbox

HOUR = 3600.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def service(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> AsyncIterator[Running]:
    database = None if request.param == "sqlite" else server.database()
    async with running(tmp_path, database=database, mailer="sandbox", secret_key="k" * 40) as made:
        yield made


def rows(service: Running, kind: str = "contact") -> list[Any]:
    return select(service.ledger, f"SELECT * FROM deliveries WHERE kind = '{kind}' ORDER BY id")


def paced(service: Running, monkeypatch: pytest.MonkeyPatch, interval: float) -> None:
    """Let the CRM have a limit of one call in so many seconds, with no burst."""
    ask = Ledger.take_pace

    def asked(ledger: Ledger, destination: str, _interval: float, _burst: float, within: float) -> float:
        return ask(ledger, destination, interval, 0.0, within)

    monkeypatch.setattr(Ledger, "take_pace", asked)


def test_who_waits_for_a_place_is_done_before_a_shutdown_gives_up() -> None:
    assert PATIENCE < GRACE / 1.5


async def test_a_ledger_that_cannot_be_asked_for_a_place_is_nobodys_failure(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> float:
        raise LedgerUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "take_pace", away)
        await service.post(start())
        await service.drain()
        (row,) = rows(service)
        assert (row["state"], row["attempts"], row["waited"]) == ("pending", 0, 0.0)
        assert row["error"] == "the ledger could not be asked for a place in the limit of calls"
        assert select(service.ledger, "SELECT * FROM failures") == []
    service.clock.sleep(10)
    await service.drain()
    assert [row["state"] for row in rows(service)] == ["delivered"]


async def test_a_mail_that_got_no_place_was_not_sent_and_is_not_unknown(service: Running) -> None:
    client = service.service.dispatcher.lanes[1].destination.client
    gate = client.gate

    async def closed() -> None:
        raise Postponed("no place", after=60.0)

    await converse(service)
    service.clock.now += HOUR
    client.gate = closed
    await service.drain()
    assert mails(service) == [("pending", "no place")]
    assert await outbox(service) == []
    client.gate = gate
    service.clock.now += HOUR
    await service.drain()
    assert [state for state, _ in mails(service)] == ["delivered"]
    assert len(await outbox(service)) == 1


async def test_a_place_that_is_far_away_is_left_and_costs_nothing(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    paced(service, monkeypatch, interval=60.0)
    for n in range(4):
        await service.post(start(n, f"p{n}@example.com"))
        await service.drain()
    waiting = [row for row in rows(service) if row["state"] == "pending"]
    assert waiting
    assert {(row["attempts"], row["waited"]) for row in waiting} == {(0, 0.0)}
    before = service.crm.state.calls.total
    for _ in range(20):
        service.clock.sleep(60)
        await service.drain()

    assert {row["state"] for row in rows(service)} == {"delivered"}
    assert service.crm.state.calls.total - before <= 20


async def test_a_lane_without_a_place_claims_nothing_until_there_is_one(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    paced(service, monkeypatch, interval=HOUR)
    (lane, _) = service.service.dispatcher.lanes
    for n in range(30):
        await service.post(start(n, f"p{n}@example.com"))
    task = asyncio.create_task(lane.run())
    async with asyncio.timeout(10):
        while not any(row["error"] for row in rows(service)):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    claims = sum(row["claim"] for row in rows(service))
    for n in range(30, 40):
        await service.post(start(n, f"p{n}@example.com"))
        lane.wake()
        await asyncio.sleep(0.05)
    assert sum(row["claim"] for row in rows(service)) == claims
    await lane.stop()
    await task


async def test_what_is_claimed_while_we_are_told_to_stop_is_given_back(service: Running) -> None:
    await converse(service)
    service.clock.now += HOUR
    (_, lane) = service.service.dispatcher.lanes
    claim, is_claiming, goes_on = service.service.pipeline.claim, asyncio.Event(), asyncio.Event()

    async def slow(*asked: Any) -> Any:
        claimed = await claim(*asked)
        is_claiming.set()
        await goes_on.wait()
        return claimed

    lane.pipeline.__dict__["claim"] = slow
    task = asyncio.create_task(lane.run())
    async with asyncio.timeout(5):
        await is_claiming.wait()
        assert mails(service)[0][0] == "unknown"
        stopping = asyncio.create_task(lane.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        goes_on.set()
        await asyncio.gather(stopping, task)

    assert mails(service) == [("pending", "this host is stopping")]
    assert await outbox(service) == []
    del lane.pipeline.__dict__["claim"]
    lane.stopping = False
    await service.drain()
    assert [state for state, _ in mails(service)] == ["delivered"]
    assert len(await outbox(service)) == 1


async def test_a_stop_does_not_wait_for_a_place(service: Running) -> None:
    destination = Recorder("quick")
    service.ledger.takers = {"quick": destination.takes}
    lane = Lane(service.service.pipeline, destination)
    lane.hold(HOUR)
    task = asyncio.create_task(lane.run())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        await lane.stop()
        await task


async def test_who_announces_what_another_has_claimed_since_makes_nothing(service: Running) -> None:
    """A host that stood still between its read and its announcement."""
    await service.post(start())
    (lane, _) = service.service.dispatcher.lanes
    claimed = await service.service.pipeline.claim(service.destination, lane.limits, lane.lease)
    ask, is_first = service.destination.client.call, True

    async def slow(method: str, path: str, **said: Any) -> Any:
        nonlocal is_first
        answer = await ask(method, path, **said)
        if is_first:
            is_first = False
            service.clock.now += lane.lease + 1
            await lane.pipeline.claim(service.destination, lane.limits, lane.lease)
            service.clock.now -= lane.lease + 1
        return answer

    service.destination.client.call = slow  # type: ignore[method-assign]
    (settlement,) = await service.service.pipeline.deliver(service.destination, claimed, lane.lease)

    assert settlement.outcome == Retry("it was claimed by another host meanwhile", is_postponed=True)
    assert service.crm.contacts == {}
    assert [row["intended_at"] for row in rows(service)] == [None]


async def test_a_host_whose_clock_is_ahead_waits_as_long_as_all_others(service: Running) -> None:
    def down(_: httpx.Request) -> None:
        raise httpx.ConnectError("refused")

    (lane, _) = service.service.dispatcher.lanes
    service.crm.before = down
    await service.post(start())
    await service.drain()
    lane.pipeline.__dict__["clock"] = lambda: service.clock() + HOUR
    claims = 0
    claim = lane.pipeline.claim

    async def counted(*asked: Any) -> Any:
        nonlocal claims
        claims += 1
        return await claim(*asked)

    lane.pipeline.__dict__["claim"] = counted
    task = asyncio.create_task(lane.run())
    await asyncio.sleep(1.2)
    await lane.stop()
    await task
    assert claims < 10
