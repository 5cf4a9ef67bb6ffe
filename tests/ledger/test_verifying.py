"""What a comparison reads of the ledger, and writes into it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sync.destinations.base import Difference, Standing
from sync.ledger import Ledger, Settlement, verifying
from sync.ledger.verifying import RESUMABLE, Known, Repair, Stray
from sync.models import Contact, Kind, Owed, Receipt
from sync.outcomes import Delivered
from sync.verify import DriftKind, drifts_of
from tests.databases import Server, open_on, select
from tests.people import NOON, Clock, event

BOTH = [(Kind.CONTACT, 100), (Kind.CHAT, 100)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, clock, None)
    yield opened
    opened.engine.close()


def take(ledger: Ledger, *numbers: int, name: str = "Ada", at: float = 0.0) -> None:
    with ledger.transaction():
        ledger.apply([event(f"v1:{n}", f"p{n}@example.com", name=name, at=at) for n in numbers])


def deliver(ledger: Ledger) -> None:
    with ledger.transaction():
        claimed = ledger.claim("crm", BOTH, 60.0)
        ledger.settle(
            [
                Settlement(o.delivery, o.claim, o.version, Delivered(Receipt(f"r-{o.subject.email}", ours=True)))  # type: ignore[union-attr]
                for o in claimed.owed
            ]
        )


def known(ledger: Ledger, since: float = 0.0) -> list[Known]:
    return verifying.delivered(ledger, "crm", "", 100, since)


def test_only_who_has_a_record_and_is_owed_nothing_is_read(ledger: Ledger) -> None:
    take(ledger, 1, 2)
    deliver(ledger)
    take(ledger, 3)
    take(ledger, 2, name="Augusta", at=1)

    assert [k.owed.subject.email for k in known(ledger)] == ["p1@example.com"]
    assert verifying.delivered_ids(ledger, "crm", "", 100, 0.0) == [k.owed.subject.id for k in known(ledger)]
    assert verifying.delivered_ids(ledger, "crm", "", 100, NOON + 1) == []


def test_pages_follow_each_other(ledger: Ledger) -> None:
    take(ledger, *range(5))
    deliver(ledger)

    first = verifying.delivered(ledger, "crm", "", 3, 0.0)
    second = verifying.delivered(ledger, "crm", first[-1].owed.subject.id, 3, 0.0)

    assert [k.owed.subject.email for k in (*first, *second)] == [f"p{n}@example.com" for n in range(5)]
    some = verifying.delivered_among(ledger, "crm", [second[0].owed.subject.id, "nobody"])
    assert some == second[:1]


def test_who_was_touched_since_is_told(ledger: Ledger) -> None:
    take(ledger, 1, 2, 3)
    deliver(ledger)
    one, two, three = known(ledger)
    take(ledger, 2, name="Augusta", at=1)
    take(ledger, 3, name="Augusta", at=1)
    with ledger.transaction():
        ledger.claim("crm", BOTH, 60.0)

    assert verifying.untouched(ledger, [one, two, three]) == {one.owed.delivery}


def test_a_repair_owes_a_replay_to_the_record_it_names(ledger: Ledger, clock: Clock) -> None:
    take(ledger, 1, 2)
    deliver(ledger)
    one, two = known(ledger)
    clock.sleep(100)

    with ledger.transaction():
        verifying.owe_repairs(ledger, [Repair(one, None, ours=False), Repair(two, "r-other", ours=False)])
    with ledger.transaction():
        first, second = ledger.claim("crm", BOTH, 60.0).owed

    assert [(o.remote_id, o.ours, o.is_replay) for o in (first, second)] == [
        (None, False, True),
        ("r-other", False, True),
    ]
    assert {row["owed_at"] for row in select(ledger, "SELECT owed_at FROM deliveries")} == {NOON + 100}


def test_a_repair_never_touches_what_was_claimed_since(ledger: Ledger) -> None:
    take(ledger, 1)
    deliver(ledger)
    (one,) = known(ledger)
    take(ledger, 1, name="Augusta", at=1)
    deliver(ledger)

    with ledger.transaction():
        verifying.owe_repairs(ledger, [Repair(one, None, ours=False)])

    assert [(row["state"], row["remote_id"]) for row in select(ledger, "SELECT * FROM deliveries")] == [
        ("delivered", "r-p1@example.com")
    ]


def test_a_record_that_another_person_of_ours_has_is_known_as_theirs(ledger: Ledger) -> None:
    take(ledger, 1, 2)
    deliver(ledger)
    one, two = known(ledger)
    asked = [Stray(one.owed.subject.id, str(two.owed.remote_id)), Stray(one.owed.subject.id, "r-free")]

    assert verifying.held(ledger, "crm", asked) == {asked[0]}


def test_notes_are_kept_for_a_day_and_dropped_with_their_pages(ledger: Ledger, clock: Clock) -> None:
    with ledger.transaction():
        verifying.write_notes(ledger, "verify:crm", {"after": "c1"}, 1, [])
        verifying.write_notes(ledger, "verify:crm", {"after": "c2"}, 2, [["a"]])
        verifying.write_notes(ledger, "verify:crm2", {"after": "c9"}, 1, [["z"]])
        verifying.write_notes(ledger, "verify:crm", {"after": "c3"}, 3, [["b"]])

    notes = verifying.load_notes(ledger, "verify:crm")
    assert (notes.said, notes.pages) == ({"after": "c3"}, [[["a"]], [["b"]]])
    clock.sleep(RESUMABLE + 1)
    assert verifying.load_notes(ledger, "verify:crm").said == {}
    with ledger.transaction():
        verifying.drop_notes(ledger, "verify:crm")
    left = {row["name"] for row in select(ledger, "SELECT name FROM cursors")}
    assert left == {"verify:crm2", "verify:crm2/000000001"}


ADA = Known(
    Owed("de_1", Contact("co_1", "uid-1", email="ada@example.com", version=1), 1, remote_id="101", ours=True), NOON
)
NAME = Difference("name", "Ada", "Augusta", may_write=True)


@pytest.mark.parametrize(
    ("standing", "kinds"),
    [
        (Standing("101", ours=True), []),
        (Standing("101", ours=True, differences=(NAME,)), [DriftKind.CHANGED]),
        (Standing("101", differences=(replace(NAME, may_write=False),)), [DriftKind.THEIRS]),
        (Standing("101", differences=(NAME, replace(NAME, may_write=False))), [DriftKind.CHANGED]),
        (Standing("101", others=("7",)), [DriftKind.DUPLICATE]),
        (Standing("101", differences=(NAME,), others=("7",)), [DriftKind.CHANGED, DriftKind.DUPLICATE]),
        (Standing("7", differences=(NAME,)), [DriftKind.MOVED]),
        (Standing("7", is_deleted=True), [DriftKind.MOVED]),
        (Standing(None), [DriftKind.MISSING]),
        (Standing(None, is_deleted=True), [DriftKind.DELETED]),
    ],
)
def test_a_standing_decides_in_which_way_a_contact_has_gone_apart(standing: Standing, kinds: list[DriftKind]) -> None:
    assert [d.kind for d in drifts_of(ADA, standing, now=NOON + 5, tells_deleted_for=100)] == kinds


def test_what_cannot_be_known_any_more_counts_as_deleted() -> None:
    (drift,) = drifts_of(ADA, Standing(None), now=NOON + 101, tells_deleted_for=100)

    assert drift.kind is DriftKind.DELETED
