"""A clock that is set back, while the service runs and while it does not."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sync.ledger import Ledger, setback
from sync.ledger.sqlite import SqliteEngine
from sync.models import Kind
from sync.outcomes import Paused, Retry
from tests.databases import select
from tests.ledger.test_ledger import BOTH, apply, claim, settle
from tests.people import CRM, Clock, Ids, event

HOUR = 3600.0


class Machine:
    """A clock on the wall that anybody sets, and one that nobody does; processes come and go."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.wall = Clock()
        self.elapsed = 1000.0

    def serve(self) -> Ledger:
        engine = SqliteEngine(self.file, clock=self.wall, elapsed=lambda: self.elapsed)
        engine.migrate()
        engine.own()
        ledger = Ledger(engine, CRM, new_id=Ids())
        with ledger.transaction():
            ledger.take_over()
        return ledger

    def go(self, seconds: float, jump: float = 0.0) -> None:
        self.elapsed += seconds
        self.wall.now += seconds + jump


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(setback, "boot_of_this_machine", lambda: "this one")
    return Machine(tmp_path / "ledger.sqlite3")


def again(machine: Machine, ledger: Ledger) -> Ledger:
    """The process ends, another one begins."""
    ledger.engine.close()
    return machine.serve()


def goes_on(_machine: Machine, ledger: Ledger) -> Ledger:
    return ledger


@pytest.mark.parametrize("meanwhile", [goes_on, again])
def test_what_a_clock_that_was_ahead_lets_wait_does_not_wait_for_it(
    machine: Machine, meanwhile: Callable[[Machine, Ledger], Ledger]
) -> None:
    ledger = machine.serve()
    apply(ledger, event("v1:1", "ada@example.com"))
    machine.go(1, jump=HOUR)
    settle(ledger, claim(ledger), Retry("500", 500), retry_in=30.0)
    machine.go(1, jump=-HOUR)

    ledger = meanwhile(machine, ledger)
    assert claim(ledger).owed == ()
    machine.go(30)
    assert len(claim(ledger).owed) == 1
    ledger.engine.close()


@pytest.mark.parametrize("meanwhile", [goes_on, again])
def test_a_pause_too_is_as_long_as_it_was_to_be(
    machine: Machine, meanwhile: Callable[[Machine, Ledger], Ledger]
) -> None:
    ledger = machine.serve()
    apply(ledger, *[event(f"v1:{n}", f"p{n}@example.com") for n in range(3)])
    machine.go(1, jump=HOUR)
    settle(ledger, claim(ledger, [(Kind.CONTACT, 1)]), Paused("down"), pause_for=30.0)
    machine.go(1, jump=-HOUR)

    ledger = meanwhile(machine, ledger)
    assert claim(ledger).owed == ()
    machine.go(30)
    assert claim(ledger).is_probe
    ledger.engine.close()


def test_a_clock_that_is_right_moves_nothing(machine: Machine) -> None:
    ledger = machine.serve()
    apply(ledger, event("v1:1", "ada@example.com"))
    settle(ledger, claim(ledger), Retry("500", 500), retry_in=300.0)
    before = select(ledger, "SELECT due_at, ready_at FROM deliveries")
    for _ in range(20):
        machine.go(10, jump=0.01)
        with ledger.transaction():
            ledger.claim("crm", BOTH, 60.0)
    ledger = again(machine, ledger)

    assert select(ledger, "SELECT due_at, ready_at FROM deliveries") == before
    ledger.engine.close()


def test_what_was_noted_before_the_machine_was_started_anew_says_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = machine.serve()
    apply(ledger, event("v1:1", "ada@example.com"))
    settle(ledger, claim(ledger), Retry("500", 500), retry_in=300.0)
    before = select(ledger, "SELECT due_at FROM deliveries")
    monkeypatch.setattr(setback, "boot_of_this_machine", lambda: "another one")
    machine.elapsed, machine.wall.now = 5.0, machine.wall.now - 100
    ledger = again(machine, ledger)

    assert select(ledger, "SELECT due_at FROM deliveries") == before
    ledger.engine.close()


def test_a_clock_set_back_in_a_transaction_that_fails_is_minded_by_the_next(machine: Machine) -> None:
    ledger = machine.serve()
    apply(ledger, event("v1:1", "ada@example.com"))
    machine.go(1, jump=HOUR)
    settle(ledger, claim(ledger), Retry("500", 500), retry_in=30.0)
    machine.go(1, jump=-HOUR)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        raise ZeroDivisionError
    machine.go(30)

    assert len(claim(ledger).owed) == 1
    ledger.engine.close()


def test_who_only_looks_moves_nothing(machine: Machine) -> None:
    ledger = machine.serve()
    apply(ledger, event("v1:1", "ada@example.com"))
    settle(ledger, claim(ledger), Retry("500", 500), retry_in=300.0)
    before = select(ledger, "SELECT due_at FROM deliveries")
    machine.go(1, jump=-HOUR)
    with closing(SqliteEngine(machine.file, clock=machine.wall, elapsed=lambda: machine.elapsed)) as beside:
        with beside.transaction():
            pass
        assert [dict(row) for row in beside.read("SELECT due_at FROM deliveries")] == [dict(row) for row in before]
    ledger.engine.close()
