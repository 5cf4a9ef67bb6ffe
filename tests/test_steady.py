"""How far back a clock can be trusted."""

import pytest

from sync.steady import JUMP, Steadiness


class Hands:
    """A clock on the wall, and one that nobody can set."""

    def __init__(self) -> None:
        self.wall = 1000.0
        self.elapsed = 5.0

    def steadiness(self) -> Steadiness:
        return Steadiness(lambda: self.wall, lambda: self.elapsed)

    def go(self, seconds: float, jump: float = 0.0) -> None:
        self.wall += seconds + jump
        self.elapsed += seconds


def test_nothing_is_known_of_the_time_before_the_process_began() -> None:
    hands = Hands()
    steady_for = hands.steadiness()

    assert steady_for() == 0
    hands.go(7)
    assert steady_for() == 7


@pytest.mark.parametrize("jump", [3600, -3600, 86400, -86400, JUMP + 0.1])
def test_a_jump_begins_anew(jump: float) -> None:
    hands = Hands()
    steady_for = hands.steadiness()
    hands.go(100)
    steady_for()

    hands.go(1, jump)
    assert steady_for() == 0
    hands.go(3)
    assert steady_for() == 3


def test_a_clock_that_is_slewed_does_not_jump() -> None:
    hands = Hands()
    steady_for = hands.steadiness()
    for _ in range(1000):
        hands.go(1, 0.0005)
        steady_for()

    assert steady_for() == 1000
