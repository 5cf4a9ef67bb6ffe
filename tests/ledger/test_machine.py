"""The state machine of a delivery: the table of the design, row by row."""

from dataclasses import replace
from typing import Any

import pytest

from sync.ledger.machine import JOINED, Delivery, Lane, Settlement, credit, join, lane_after, settle
from sync.models import Kind, Receipt, State
from sync.outcomes import Dead, Delivered, Ignored, Outcome, Paused, Retry, Unknown

NOW = 1000.0
OPEN = Lane("crm")
PAUSED = Lane("crm", paused_at=NOW, paused_until=NOW + 60, pauses=1, culprit="de_0", reason="down")

CLAIMED = Delivery(
    id="de_1",
    destination="crm",
    kind=Kind.CONTACT,
    subject="co_1",
    wanted=2,
    claim=3,
    attempts=4,
    waited=30.0,
    due_at=NOW - 5,
    lease_until=NOW + 60,
)

TAKEN = Delivered(Receipt("r1", ours=True))


def after(row: Delivery, outcome: Outcome, lane: Lane = OPEN, **settlement: Any) -> Delivery:
    given = {"delivery": row.id, "claim": row.claim, "version": 2} | settlement
    return settle(row, Settlement(outcome=outcome, **given), lane, NOW)


TABLE = [
    ("delivered at the wanted version", TAKEN, 2, {"state": State.DELIVERED, "done": 2, "due_at": None}),
    ("delivered at an older version", TAKEN, 1, {"state": State.PENDING, "done": 1, "due_at": NOW}),
    ("ignored at the wanted version", Ignored("no email"), 2, {"state": State.IGNORED, "done": 2, "due_at": None}),
    ("ignored at an older version", Ignored("no email"), 1, {"state": State.PENDING, "done": 1, "due_at": NOW}),
    ("dead at the wanted version", Dead("refused"), 2, {"state": State.DEAD, "done": 2, "due_at": None}),
    ("dead at an older version", Dead("refused"), 1, {"state": State.PENDING, "done": 1, "due_at": NOW}),
]


@pytest.mark.parametrize(("case", "outcome", "version", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_a_settled_delivery_is_closed_only_at_the_wanted_version(
    case: str, outcome: Outcome, version: int, expected: dict[str, Any]
) -> None:
    row = after(CLAIMED, outcome, version=version)

    assert {name: getattr(row, name) for name in expected} == expected
    assert (row.attempts, row.waited, row.lease_until) == (0, 0.0, None)


def test_a_receipt_is_kept() -> None:
    row = after(replace(CLAIMED, intended_at=NOW, error="was down"), TAKEN)

    assert (row.remote_id, row.ours, row.intended_at, row.error) == ("r1", True, None, None)


def test_a_retry_counts_the_attempt_and_waits() -> None:
    row = after(CLAIMED, Retry("locked"), retry_in=16.0)

    assert (row.state, row.attempts, row.waited, row.due_at) == (State.PENDING, 5, 46.0, NOW + 16)


def test_a_pause_keeps_the_attempts_and_waits_until_it_ends() -> None:
    row = after(CLAIMED, Paused("down"), PAUSED)

    assert (row.state, row.attempts, row.waited, row.due_at) == (State.PENDING, 4, 30.0, NOW + 60)


def test_a_500_while_everything_is_paused_is_no_attempt_of_the_subject() -> None:
    row = after(CLAIMED, Retry("500", 500, blames_destination=True), PAUSED)

    assert (row.attempts, row.due_at) == (4, NOW + 60)


def test_an_unknown_outcome_is_never_due_again() -> None:
    row = after(CLAIMED, Unknown("no answer"))

    assert (row.state, row.due_at) == (State.UNKNOWN, None)


@pytest.mark.parametrize("outcome", [TAKEN, Dead("x"), Ignored("x"), Retry("x"), Paused("x")], ids=str)
def test_a_late_settle_writes_no_outcome_but_owes_the_subject_again(outcome: Outcome) -> None:
    newer = replace(CLAIMED, state=State.DELIVERED, done=2, claim=4, lease_until=None, due_at=None, remote_id="r9")

    row = after(newer, outcome, claim=3)

    assert (row.state, row.due_at, row.done, row.remote_id, row.claim) == (State.PENDING, NOW, 2, "r9", 4)


def test_a_late_receipt_says_which_record_to_change_where_none_is_known() -> None:
    newer = replace(CLAIMED, claim=4, lease_until=None, remote_id=None, due_at=NOW + 60)

    row = after(newer, TAKEN, claim=3)

    assert (row.state, row.due_at, row.remote_id, row.ours) == (State.PENDING, NOW, "r1", True)


def test_a_late_settle_during_a_newer_claim_makes_that_one_go_once_more() -> None:
    newer = replace(CLAIMED, claim=4)

    row = after(newer, TAKEN, claim=3)
    assert (row.again, row.lease_until, row.claim) == (True, newer.lease_until, 4)

    row = after(row, TAKEN, claim=4)
    assert (row.state, row.due_at, row.again) == (State.PENDING, NOW, False)
    assert after(row, TAKEN).state is State.DELIVERED


def test_a_joined_contact_keeps_only_the_receipt() -> None:
    row = after(replace(CLAIMED, joined="co_2", state=State.IGNORED, error=JOINED, due_at=None), TAKEN)

    assert (row.state, row.error, row.remote_id, row.due_at) == (State.IGNORED, JOINED, "r1", None)


def lane_of(lane: Lane, *outcomes: Outcome, subject: str = "co_1", probe: bool = False, pause_for: float = 60) -> Lane:
    for i, outcome in enumerate(outcomes):
        settlement = Settlement(f"de_{i}", 1, 1, outcome, pause_for=pause_for, is_probe=probe)
        lane = lane_after(lane, f"de_{i}", subject if len(outcomes) == 1 else f"co_{i}", settlement, NOW)
    return lane


BROKEN = Retry("500", 500, blames_destination=True)


def test_an_outage_pauses_its_destination() -> None:
    lane = lane_of(OPEN, Paused("timed out"))

    assert (lane.paused_until, lane.paused_at, lane.pauses, lane.reason) == (NOW + 60, NOW, 1, "timed out")


def test_five_different_subjects_with_a_500_in_a_row_pause() -> None:
    assert lane_of(OPEN, *[BROKEN] * 4).is_paused is False
    assert lane_of(OPEN, *[BROKEN] * 5).is_paused is True


def test_one_poisonous_subject_never_pauses_its_lane() -> None:
    lane = OPEN
    for _ in range(20):
        lane = lane_of(lane, BROKEN, subject="co_poison")

    assert lane.is_paused is False


def test_a_delivery_in_between_clears_the_suspicion() -> None:
    assert lane_of(OPEN, BROKEN, BROKEN, BROKEN, BROKEN, TAKEN, BROKEN).is_paused is False


def test_only_the_probe_ends_a_pause() -> None:
    assert lane_of(PAUSED, TAKEN).is_paused is True
    assert lane_of(PAUSED, TAKEN, probe=True) == OPEN
    assert lane_of(PAUSED, Dead("refused", 400), probe=True) == OPEN


def test_a_probe_that_fails_makes_the_pause_longer() -> None:
    lane = lane_of(replace(PAUSED, probe_until=NOW + 9), Paused("still down"), probe=True, pause_for=120)

    assert (lane.paused_until, lane.paused_at, lane.pauses, lane.probe_until) == (NOW + 120, NOW, 2, None)


def test_a_probe_that_gets_a_500_makes_the_pause_longer() -> None:
    lane = lane_of(replace(PAUSED, suspects=("a", "b", "c", "d", "e")), BROKEN, probe=True, pause_for=120)

    assert (lane.paused_until, lane.pauses) == (NOW + 120, 2)


def test_calls_that_were_under_way_do_not_count_as_more_pauses() -> None:
    assert lane_of(PAUSED, Paused("timed out"), Paused("timed out")).pauses == 1


def test_a_person_is_asked_for_where_only_a_person_helps() -> None:
    assert lane_of(OPEN, Paused("401", 401, needs_person=True)).needs_person is True


def test_the_winner_of_a_join_inherits_a_remote_record() -> None:
    loser = replace(CLAIMED, remote_id="r1", ours=True, lease_until=None)
    winner = replace(CLAIMED, id="de_2", subject="co_2", remote_id=None, lease_until=None)

    gone, kept, stray = join(loser, winner, NOW)

    assert (gone.state, gone.error, gone.due_at) == (State.IGNORED, JOINED, None)
    assert kept is not None
    assert (kept.remote_id, kept.ours, stray) == ("r1", True, None)


def test_a_second_remote_record_is_a_stray() -> None:
    loser = replace(CLAIMED, remote_id="r1")
    winner = replace(CLAIMED, id="de_2", subject="co_2", remote_id="r2")

    _, kept, stray = join(loser, winner, NOW)

    assert kept is not None
    assert (kept.remote_id, stray) == ("r2", "r1")
    assert credit(winner, "r2", ours=True) == (winner, None)


def test_the_winner_waits_for_the_lease_of_the_loser() -> None:
    winner = replace(CLAIMED, id="de_2", subject="co_2", due_at=NOW, lease_until=None)

    _, kept, _ = join(CLAIMED, winner, NOW)

    assert kept is not None
    assert kept.due_at == CLAIMED.lease_until


UNREACHABLE = Paused("timed out", may_have_landed=True)
THROTTLED = Paused("429", 429)


def test_an_announced_creation_is_remembered_only_where_it_can_have_happened() -> None:
    announced = replace(CLAIMED, intended_at=NOW)

    assert after(announced, UNREACHABLE, PAUSED).intended_at == NOW
    assert after(announced, THROTTLED, PAUSED).intended_at is None
    assert after(announced, Dead("refused", 400)).intended_at is None


def test_an_announcement_of_an_earlier_attempt_outlives_one_that_could_not_land() -> None:
    announced = replace(CLAIMED, intended_at=NOW)

    assert after(announced, THROTTLED, PAUSED, intended_at=NOW - 50).intended_at == NOW - 50


def test_a_record_that_is_not_ours_is_never_inherited() -> None:
    loser = replace(CLAIMED, remote_id="r1", ours=False, lease_until=None)
    winner = replace(CLAIMED, id="de_2", subject="co_2", remote_id=None, lease_until=None)

    _, kept, stray = join(loser, winner, NOW)

    assert kept is not None
    assert (kept.remote_id, stray) == (None, "r1")


def test_a_probe_that_made_no_call_ends_no_pause() -> None:
    assert lane_of(PAUSED, Retry("waiting for the index"), probe=True).is_paused is True
    assert lane_of(PAUSED, Retry("locked", 423), probe=True).is_paused is False


def test_a_chat_whose_contact_is_gone_waits_for_it() -> None:
    row = after(replace(CLAIMED, kind=Kind.CHAT), Retry("deleted there", 404, contact_is_gone=True))

    assert (row.state, row.due_at, row.attempts) == (State.PENDING, None, 4)
