"""The places in a limit of calls, on both engines: one row, shared by all hosts (promise P6)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.ledger import Ledger
from tests.databases import Server, open_on
from tests.people import Clock

HOUR = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, clock, {})
    yield opened
    opened.engine.close()


def ask(ledger: Ledger, interval: float, within: float = HOUR, burst: float = 0.0) -> float:
    with ledger.transaction():
        return ledger.take_pace("crm", interval, burst, within)


def test_a_place_that_is_too_far_away_is_left_to_others(ledger: Ledger, clock: Clock) -> None:
    assert ask(ledger, 60.0) == 0.0
    assert [ask(ledger, 60.0, within=10.0) for _ in range(5)] == pytest.approx([60.0] * 5, abs=1e-4)

    clock.sleep(55)
    assert ask(ledger, 60.0, within=10.0) == pytest.approx(5.0, abs=1e-4)
    assert ask(ledger, 60.0, within=10.0) == pytest.approx(65.0, abs=1e-4)


def test_the_first_place_of_all_is_there_for_everybody(ledger: Ledger) -> None:
    assert ask(ledger, 60.0, within=0.0) == 0.0
    assert ask(ledger, 60.0, within=0.0) == pytest.approx(60.0, abs=1e-4)


def test_a_burst_is_near(ledger: Ledger) -> None:
    waits = [ask(ledger, 1.0, within=0.0, burst=3.0) for _ in range(5)]
    assert waits == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0], abs=1e-4)


@pytest.mark.parametrize("per_hour", [1, 6, 12, 20, 60])
def test_ten_who_wait_at_once_keep_a_slow_limit(ledger: Ledger, clock: Clock, per_hour: int) -> None:
    interval = HOUR / per_hour
    waits = [ask(ledger, interval, within=10 * HOUR) for _ in range(10)]
    assert waits == pytest.approx([n * interval for n in range(10)], abs=1e-2)
