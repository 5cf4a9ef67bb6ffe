"""One at a time on a ledger, on both engines."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sync.errors import LedgerInUse
from sync.ledger import Ledger
from sync.ledger.locking import alone, take
from tests.databases import Server, open_on
from tests.people import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, clock, None)
    yield opened
    opened.engine.close()


async def test_a_second_one_is_told_who_and_for_how_long(ledger: Ledger, clock: Clock) -> None:
    async with alone(ledger, "resync"):
        clock.now += 50
        with pytest.raises(LedgerInUse, match=r"process \d+, since 50 seconds"):
            async with alone(ledger, "resync"):
                pass
        async with alone(ledger, "something else"):
            pass
    async with alone(ledger, "resync"):
        pass


async def test_who_died_lets_go_by_itself_and_so_does_a_clock_that_jumped(ledger: Ledger, clock: Clock) -> None:
    take(ledger, "resync", "died, process 1, x", 120)
    clock.now += 119
    with pytest.raises(LedgerInUse):
        take(ledger, "resync", "next", 120)
    clock.now += 1
    take(ledger, "resync", "next", 120)
    clock.now -= 86400
    take(ledger, "resync", "after the jump", 120)


async def test_a_lock_is_renewed_while_it_is_held_and_only_its_owner_drops_it(ledger: Ledger, clock: Clock) -> None:
    async with alone(ledger, "resync", lease=0.2):
        clock.now += 0.19
        await asyncio.sleep(0.12)
        clock.now += 0.1
        with pytest.raises(LedgerInUse):
            take(ledger, "resync", "another", 0.2)
        clock.now += 10
        take(ledger, "resync", "another", 60)
    assert ledger.engine.rows("get_lock", name="resync")[0]["owner"] == "another"


async def test_who_stood_still_until_another_one_began_ends_at_the_next_await(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(LedgerInUse, match="another one began"):
        async with alone(ledger, "resync", lease=0.1):
            clock.now += 10
            take(ledger, "resync", "another", 60)
            await asyncio.sleep(5)

    await asyncio.sleep(0.1)  # whoever catches it can go on
    assert ledger.engine.rows("get_lock", name="resync")[0]["owner"] == "another"


async def test_to_lose_the_lock_during_the_last_step_is_told_as_well(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(LedgerInUse, match="another one began"):
        async with alone(ledger, "resync", lease=0.1):
            clock.now += 10
            take(ledger, "resync", "another", 60)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(5)

    await asyncio.sleep(0.1)


async def test_who_is_cancelled_is_cancelled(ledger: Ledger) -> None:
    async def work() -> None:
        async with alone(ledger, "resync"):
            await asyncio.sleep(5)

    running = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ledger.engine.rows("get_lock", name="resync") == []
