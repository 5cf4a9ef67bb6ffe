"""Several hosts on one ledger: one was frozen, one has other timeouts, one read the clock early. On both engines."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.ledger import Ledger, setback
from sync.ledger.settling import Claimed
from sync.ledger.sqlite import SqliteEngine
from sync.models import Kind, Receipt
from sync.outcomes import Delivered, Outcome, Paused, Retry
from tests.databases import Server, open_on
from tests.ledger.test_ledger import ADA, BOTH, LEASE, apply, claim, close, deliver, deliveries, settle
from tests.people import CRM, Clock, Ids, event

HOUR = 3600.0
GONE = Retry("its contact is not there any more", 404, contact_is_gone=True)
THROTTLED = Paused("slow down", 429)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, clock, CRM)
    yield opened
    opened.engine.close()


def claim_for(ledger: Ledger, lease: float) -> Claimed:
    """A claim of a host with other timeouts."""
    with ledger.transaction():
        return ledger.claim("crm", BOTH, lease)


def lane(ledger: Ledger) -> dict[str, Any]:
    return dict(ledger.engine.rows("load_destination", name="crm")[0])


def paused(ledger: Ledger, clock: Clock, people: int = 3) -> None:
    """A lane whose pause is just over."""
    apply(ledger, *[event(f"v1:{n}", f"p{n}@example.com") for n in range(people)])
    settle(ledger, claim(ledger, [(Kind.CONTACT, 1)]), Paused("down"), pause_for=30.0)
    clock.sleep(31)


def only(claimed: Claimed, place: int) -> Claimed:
    """One of several that were claimed at once."""
    return replace(claimed, owed=claimed.owed[place : place + 1])


def contact(ledger: Ledger) -> dict[str, Any]:
    (row,) = [row for row in deliveries(ledger) if row["kind"] == "contact"]
    return row


def test_a_host_that_read_the_clock_before_another_probed_sends_no_second_probe(ledger: Ledger, clock: Clock) -> None:
    paused(ledger, clock)
    assert claim(ledger).is_probe

    clock.sleep(-0.1)

    assert claim(ledger).owed == ()


def test_a_host_with_shorter_leases_leaves_the_probe_of_another_alone(ledger: Ledger, clock: Clock) -> None:
    paused(ledger, clock)
    assert claim_for(ledger, 7200.0).is_probe

    assert claim_for(ledger, 10.0).owed == ()
    clock.sleep(7199)
    assert claim_for(ledger, 10.0).owed == ()
    clock.sleep(2)
    assert claim_for(ledger, 10.0).is_probe


def test_a_host_with_much_shorter_leases_takes_nothing_over_that_another_holds(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA))
    assert len(claim_for(ledger, 7200.0).owed) == 1

    assert claim_for(ledger, 10.0).owed == ()
    clock.sleep(7201)
    assert len(claim_for(ledger, 10.0).owed) == 1


def test_a_lease_by_a_clock_that_was_ahead_goes_back_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setback, "boot_of_this_machine", lambda: "this one")
    clock, elapsed = Clock(), [1000.0]
    with closing(SqliteEngine(tmp_path / "ledger.sqlite3", clock=clock, elapsed=lambda: elapsed[0])) as engine:
        engine.migrate()
        ledger = Ledger(engine, CRM, new_id=Ids())
        with ledger.transaction():
            ledger.take_over()
        apply(ledger, event("v1:1", ADA))
        clock.sleep(HOUR)
        assert len(claim(ledger).owed) == 1
        clock.sleep(-HOUR)

        assert claim(ledger).owed == ()
        clock.sleep(LEASE + 1)
        elapsed[0] += LEASE + 1
        assert len(claim(ledger).owed) == 1


@pytest.mark.parametrize("news", [Delivered(Receipt("r1", ours=True)), Retry("locked", 423)], ids=str)
def test_a_frozen_probe_ends_no_pause_that_began_since(ledger: Ledger, clock: Clock, news: Outcome) -> None:
    paused(ledger, clock)
    frozen = claim(ledger)
    clock.sleep(LEASE + 1)
    settle(ledger, claim(ledger), THROTTLED, is_probe=True, pause_for=HOUR)
    before = lane(ledger)

    settle(ledger, frozen, news, is_probe=True)

    assert lane(ledger) == before
    assert claim(ledger).owed == ()


@pytest.mark.parametrize("news", [Delivered(Receipt("r1", ours=True)), THROTTLED, Paused("no", 401)], ids=str)
def test_a_frozen_probe_lets_the_one_that_is_under_way_be_the_only_one(
    ledger: Ledger, clock: Clock, news: Outcome
) -> None:
    paused(ledger, clock)
    frozen = claim(ledger)
    clock.sleep(LEASE + 1)
    assert claim(ledger).is_probe
    before = lane(ledger)

    settle(ledger, frozen, news, is_probe=True, pause_for=HOUR)

    assert lane(ledger) == before
    assert claim(ledger).owed == ()


def test_a_frozen_probe_ends_no_pause_either_where_another_subject_was_probed_since(
    ledger: Ledger, clock: Clock
) -> None:
    paused(ledger, clock, people=1)
    frozen = claim(ledger)  # there is only the culprit
    apply(ledger, event("v1:7", "p7@example.com"))
    clock.sleep(LEASE + 1)
    another = claim(ledger)
    assert another.owed[0].delivery != frozen.owed[0].delivery
    settle(ledger, another, THROTTLED, is_probe=True, pause_for=HOUR)

    settle(ledger, frozen, Delivered(Receipt("r1", ours=True)), is_probe=True)

    assert lane(ledger)["paused_until"] == clock.now + HOUR


def test_a_probe_that_is_late_but_the_last_ends_the_pause(ledger: Ledger, clock: Clock) -> None:
    paused(ledger, clock)
    probe = claim(ledger)
    clock.sleep(LEASE + 1)

    settle(ledger, probe, Delivered(Receipt("r1", ours=True)), is_probe=True)

    assert lane(ledger)["paused_until"] is None


def test_a_failure_that_is_late_pauses_nobody(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA))
    frozen = claim(ledger)
    clock.sleep(LEASE + 1)
    deliver(ledger)

    settle(ledger, frozen, Paused("the token was withdrawn", 401, needs_person=True), pause_for=HOUR)

    assert lane(ledger)["paused_until"] is None


def two_chats(ledger: Ledger) -> Claimed:
    """Two chats of one contact, both under way to its record r1."""
    apply(ledger, event("v1:1", ADA), close("v1:1"), event("v1:2", ADA, at=6), close("v1:2", at=9))
    deliver(ledger, "r1")
    claimed = claim(ledger)
    assert (claimed.kind, len(claimed.owed)) == (Kind.CHAT, 2)
    return claimed


def test_the_second_chat_of_a_contact_that_was_deleted_keeps_the_record_made_for_the_first(
    ledger: Ledger, clock: Clock
) -> None:
    chats = two_chats(ledger)
    clock.sleep(1)
    settle(ledger, only(chats, 0), GONE)
    deliver(ledger, "r2")
    clock.sleep(1)

    settle(ledger, only(chats, 1), GONE)

    assert (contact(ledger)["remote_id"], contact(ledger)["state"]) == ("r2", "delivered")
    following = claim(ledger)
    assert [chat.contact_remote_id for chat in following.owed] == ["r2", "r2"]
    settle(ledger, following, Delivered(Receipt("note", ours=True)))
    assert {row["state"] for row in deliveries(ledger)} == {"delivered"}


def test_a_contact_that_is_gone_though_it_was_settled_meanwhile_is_made_anew_after_one_more_try(
    ledger: Ledger, clock: Clock
) -> None:
    chats = two_chats(ledger)
    clock.sleep(1)
    apply(ledger, event("v1:3", ADA, name="Ada", at=20))
    deliver(ledger, "r1")  # and then somebody deletes it
    clock.sleep(1)

    settle(ledger, chats, GONE)
    again = claim(ledger)
    assert [chat.contact_remote_id for chat in again.owed] == ["r1", "r1"]
    clock.sleep(1)
    settle(ledger, again, GONE)

    deliver(ledger, "r2")
    assert [chat.contact_remote_id for chat in claim(ledger).owed] == ["r2", "r2"]


def test_a_contact_that_was_settled_by_a_clock_that_was_ahead_is_made_anew_at_once(
    ledger: Ledger, clock: Clock
) -> None:
    clock.sleep(HOUR)
    apply(ledger, event("v1:1", ADA), close("v1:1"))
    deliver(ledger, "r1")
    clock.sleep(-HOUR)
    apply(ledger, event("v1:2", ADA, at=6), close("v1:2", at=9))

    settle(ledger, claim(ledger, [(Kind.CHAT, 1)]), GONE)

    assert contact(ledger)["remote_id"] is None


def test_what_a_frozen_host_heard_of_a_contact_that_was_gone_makes_nobody_anew(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA), close("v1:1"))
    deliver(ledger, "r1")
    clock.sleep(1)
    frozen = claim(ledger)
    clock.sleep(LEASE + 1)
    current = claim(ledger)

    settle(ledger, frozen, GONE)
    assert contact(ledger)["remote_id"] == "r1"

    settle(ledger, current, Delivered(Receipt("note", ours=True)))
    assert len(claim(ledger).owed) == 1  # once more, as the late call may have come last
