"""What the ledger can do, on a real file."""

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.errors import LedgerInUse, LedgerTooNew, LedgerUnavailable
from sync.ledger import Ledger, Settlement
from sync.ledger.owing import QUIET, delivery_of, write_deliveries
from sync.ledger.rows import chat_of, contact_of
from sync.ledger.settling import Claimed
from sync.ledger.sqlite import SqliteEngine
from sync.models import Event, EventType, Kind, Message, Receipt, State
from sync.outcomes import Dead, Delivered, Ignored, Outcome, Paused, Retry
from tests.databases import Open, Server, open_on, select
from tests.people import NOON, Clock, event, open_ledger
from tests.test_identity import picture, statements

ADA, BOB = "ada@example.com", "bob@example.com"
BOTH = [(Kind.CONTACT, 100), (Kind.CHAT, 100)]
LEASE = 60.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Server) -> Iterator[Open]:
    """Opens new ledgers, on each engine in turn."""
    made: list[Ledger] = []

    def open_one(takers: dict[str, frozenset[Kind]] | None = None) -> Ledger:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(open_on(request.param, folder, server, clock, takers))
        return made[-1]

    yield open_one
    for ledger in made:
        ledger.engine.close()


@pytest.fixture
def ledger(opened: Open) -> Ledger:
    return opened()


@pytest.fixture
def sqlite(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """For what only a file can do."""
    opened = open_ledger(tmp_path, clock)
    yield opened
    opened.engine.close()


def apply(ledger: Ledger, *events: Event) -> list[str]:
    with ledger.transaction():
        return [applied.status for applied in ledger.apply(events)]


def claim(ledger: Ledger, kinds: list[tuple[Kind, int]] = BOTH) -> Claimed:
    with ledger.transaction():
        return ledger.claim("crm", kinds, LEASE)


def settle(ledger: Ledger, claimed: Claimed, outcome: Outcome, **given: float | bool) -> None:
    with ledger.transaction():
        ledger.settle([Settlement(o.delivery, o.claim, o.version, outcome, **given) for o in claimed.owed])  # type: ignore[arg-type]


def deliver(ledger: Ledger, remote_id: str = "r1", *, ours: bool = True) -> Claimed:
    claimed = claim(ledger)
    settle(ledger, claimed, Delivered(Receipt(remote_id, ours)))
    return claimed


def deliveries(ledger: Ledger) -> list[dict[str, object]]:
    return select(ledger, "SELECT * FROM deliveries ORDER BY id")


def contacts(ledger: Ledger) -> list[dict[str, object]]:
    return [dict(row) for row in ledger.engine.rows("find_contacts", like="%", exact="", limit=100)]


def test_an_event_is_stored_once_however_often_it_comes(ledger: Ledger) -> None:
    first = event(email=ADA, key="k")

    assert apply(ledger, first, event(email=ADA, key="k")) == ["accepted", "duplicate"]
    assert apply(ledger, event(email=ADA, key="k")) == ["duplicate"]
    assert [(r["state"], r["n"], r["copies"]) for r in ledger.engine.rows("event_states")] == [("applied", 1, 2)]


def test_a_duplicate_is_answered_with_the_id_of_the_first(ledger: Ledger) -> None:
    first = event(email=ADA, key="k")
    apply(ledger, first)

    with ledger.transaction():
        (again,) = ledger.apply([event(email=ADA, key="k")])

    assert again.event == first.id


def test_a_contact_is_owed_to_every_destination_that_takes_contacts(opened: Open) -> None:
    takers = {"crm": frozenset({Kind.CONTACT}), "list": frozenset({Kind.CONTACT}), "log": frozenset({Kind.CHAT})}
    ledger = opened(takers)

    apply(ledger, event(email=ADA))

    assert sorted(str(d["destination"]) for d in deliveries(ledger)) == ["crm", "list"]


def test_ten_events_about_one_person_make_one_delivery_in_the_newest_version(ledger: Ledger) -> None:
    apply(ledger, *[event(f"v1:{i}", ADA, name=f"Ada {i}", at=i) for i in range(10)])

    (owed,) = claim(ledger).owed
    assert owed.subject.name == "Ada 9"  # type: ignore[union-attr]


def test_nothing_is_claimed_twice(ledger: Ledger) -> None:
    apply(ledger, event(email=ADA))

    assert len(claim(ledger).owed) == 1
    assert claim(ledger).owed == ()


def test_a_claim_that_never_settles_is_claimable_again_after_its_lease(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event(email=ADA))
    (first,) = claim(ledger).owed

    clock.sleep(LEASE + 1)
    (second,) = claim(ledger).owed

    assert (first.claim, second.claim) == (1, 2)


def test_a_lease_left_over_from_a_clock_that_jumped_holds_nothing(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event(email=ADA))
    clock.sleep(86400)
    claim(ledger)

    clock.sleep(-86400)

    assert len(claim(ledger).owed) == 1


def test_a_late_settle_is_fenced_and_the_subject_goes_once_more(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event(email=ADA))
    slow = claim(ledger)
    clock.sleep(LEASE + 1)
    quick = claim(ledger)
    settle(ledger, quick, Delivered(Receipt("r1", ours=True)))

    settle(ledger, slow, Dead("refused"))

    (row,) = deliveries(ledger)
    assert (row["state"], row["remote_id"], row["due_at"]) == ("pending", "r1", clock.now)


def test_a_change_while_the_call_is_under_way_is_owed_again(ledger: Ledger) -> None:
    apply(ledger, event(email=ADA, name="Ada"))
    under_way = claim(ledger)
    apply(ledger, event(email=ADA, name="Ada Lovelace", at=5))

    settle(ledger, under_way, Delivered(Receipt("r1", ours=True)))

    (owed,) = claim(ledger).owed
    assert (owed.subject.name, owed.remote_id) == ("Ada Lovelace", "r1")  # type: ignore[union-attr]


def test_owing_what_is_pending_touches_neither_due_time_nor_lease(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event(email=ADA, name="Ada"))
    settle(ledger, claim(ledger), Retry("locked"), retry_in=100.0)
    before = deliveries(ledger)[0]
    clock.sleep(10)

    apply(ledger, event(email=ADA, name="Ada L", at=5))

    after = deliveries(ledger)[0]
    assert (after["due_at"], after["attempts"], after["owed_at"]) == (before["due_at"], 1, before["owed_at"])
    assert after["wanted"] == 2


@pytest.mark.parametrize("outcome", [Delivered(Receipt("r1", ours=True)), Ignored("no"), Dead("no")], ids=str)
def test_a_new_version_revives_what_was_settled_and_an_old_one_does_not(ledger: Ledger, outcome: Outcome) -> None:
    apply(ledger, event(email=ADA, name="Ada"))
    settle(ledger, claim(ledger), outcome)

    apply(ledger, event("v1:2", ADA, name="Ada"))
    assert claim(ledger).owed == ()

    apply(ledger, event("v1:3", ADA, name="Ada L", at=9))
    (owed,) = claim(ledger).owed
    assert owed.attempts == 0


def test_a_person_whom_nobody_can_reach_is_ignored_until_more_is_said(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", name="Somebody"))
    (row,) = deliveries(ledger)
    assert (row["state"], row["error"]) == ("ignored", "no way to reach this person")

    apply(ledger, event("v1:1", phone="+12025550100", at=5))

    assert len(claim(ledger).owed) == 1


def test_a_chat_waits_for_its_contact_and_follows_at_once(ledger: Ledger) -> None:
    apply(ledger, event(email=ADA), event(type=EventType.CLOSE, closed=True, silent=True, at=5))
    claimed = claim(ledger)
    assert claimed.kind is Kind.CONTACT
    assert claim(ledger).owed == ()

    settle(ledger, claimed, Delivered(Receipt("r7", ours=True)))

    (chat,) = claim(ledger).owed
    assert chat.contact_remote_id == "r7"


def test_a_chat_is_ignored_where_its_contact_is_dead_and_revived_with_it(ledger: Ledger) -> None:
    apply(ledger, event(email=ADA), event(type=EventType.CLOSE, closed=True, silent=True, at=5))
    settle(ledger, claim(ledger), Dead("refused"))
    chat = next(d for d in deliveries(ledger) if d["kind"] == "chat")
    assert (chat["state"], chat["error"]) == ("ignored", "its contact is dead there")

    apply(ledger, event("v1:1", ADA, name="Ada", at=9))
    deliver(ledger)

    assert claim(ledger).kind is Kind.CHAT


def test_a_chat_that_nobody_closed_is_owed_when_it_has_been_quiet(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event(email=ADA))
    deliver(ledger)
    message = Message("m1", "visitor", "Hi", NOON)
    apply(ledger, event(type=EventType.MESSAGE, messages=(message,), silent=True))
    assert claim(ledger).owed == ()

    clock.sleep(QUIET - 60)
    later = Message("m2", "visitor", "Still there?", clock.now)
    apply(ledger, event(type=EventType.MESSAGE, messages=(later,), silent=True, at=QUIET - 60))
    clock.sleep(120)
    assert claim(ledger).owed == ()

    clock.sleep(QUIET)
    assert claim(ledger).kind is Kind.CHAT


def test_a_paused_destination_hands_out_nothing_then_one_probe(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, *[event(f"v1:{i}", f"p{i}@example.com") for i in range(5)])
    settle(ledger, claim(ledger, [(Kind.CONTACT, 1)]), Paused("down"), pause_for=30.0)
    waiting = claim(ledger)
    assert (waiting.owed, waiting.wake_in) == ((), 30)

    clock.sleep(31)
    probe = claim(ledger)
    assert (len(probe.owed), probe.is_probe) == (1, True)
    assert claim(ledger).owed == ()

    settle(ledger, probe, Delivered(Receipt("r1", ours=True)), is_probe=True)
    assert len(claim(ledger).owed) == 4


@pytest.mark.parametrize("is_probe", [True, False])
def test_a_pause_made_longer_by_a_clock_that_was_ahead_is_tried_at_once(
    ledger: Ledger, clock: Clock, is_probe: bool
) -> None:
    apply(ledger, *[event(f"v1:{i}", f"p{i}@example.com") for i in range(3)])
    first, second = (claim(ledger, [(Kind.CONTACT, 1)]) for _ in range(2))
    settle(ledger, first, Paused("down"), pause_for=30.0)
    if is_probe:
        clock.sleep(31)
        second = claim(ledger)
    clock.now += 86400
    settle(ledger, second, Paused("still down"), pause_for=30.0, is_probe=is_probe)
    assert claim(ledger).owed == ()

    clock.now -= 86400
    assert claim(ledger).is_probe


def test_the_probe_is_another_subject_than_the_one_that_closed_the_lane(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA), event("v1:2", BOB))
    culprit = claim(ledger, [(Kind.CONTACT, 1)])
    settle(ledger, culprit, Paused("down"), pause_for=30.0)
    clock.sleep(31)

    probe = claim(ledger)

    assert probe.owed[0].delivery != culprit.owed[0].delivery


def test_where_there_is_no_other_the_culprit_probes(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA))
    culprit = claim(ledger)
    settle(ledger, culprit, Paused("down"), pause_for=30.0)
    clock.sleep(31)

    assert claim(ledger).owed[0].delivery == culprit.owed[0].delivery


def test_a_corrected_email_updates_the_record_that_the_typo_made(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", "ada@exmaple.com", name="Ada"))
    deliver(ledger, "r1")

    apply(ledger, event("v1:1", ADA, at=9))

    (owed,) = claim(ledger).owed
    assert (owed.subject.email, owed.remote_id, owed.ours) == (ADA, "r1", True)  # type: ignore[union-attr]


def test_a_record_that_we_adopted_is_not_inherited(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", BOB, name="Ada"))
    deliver(ledger, "r1", ours=False)

    apply(ledger, event("v1:1", ADA, at=9))

    (owed,) = claim(ledger).owed
    assert (owed.subject.email, owed.remote_id) == (ADA, None)  # type: ignore[union-attr]
    assert [dict(r)["state"] for r in ledger.engine.rows("joins_of", limit=9)] == ["possible"]


def test_a_late_receipt_of_a_joined_contact_goes_to_the_winner_who_waited(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", "ada@exmaple.com", name="Ada"))
    under_way = claim(ledger)
    apply(ledger, event("v1:1", ADA, at=9))
    assert claim(ledger).owed == ()

    settle(ledger, under_way, Delivered(Receipt("r1", ours=True)))

    winner = next(d for d in deliveries(ledger) if d["state"] == "pending")
    assert winner["remote_id"] == "r1"


def test_two_records_of_one_person_are_strays_for_a_person_to_merge(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA), event("v1:2", phone="+12025550100"))
    first = claim(ledger)
    with ledger.transaction():
        ledger.settle(
            [
                Settlement(o.delivery, o.claim, o.version, Delivered(Receipt(f"r{i}", ours=True)))
                for i, o in enumerate(first.owed)
            ]
        )

    apply(ledger, event("v1:2", ADA, at=9))

    assert len(ledger.engine.rows("list_strays", limit=9)) == 1
    assert len(contacts(ledger)) == 1


def test_a_claimed_delivery_knows_that_its_record_may_have_been_created(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event(email=ADA))
    (owed,) = claim(ledger).owed
    with ledger.transaction():
        ledger.intend({owed.delivery: owed.claim})
    clock.sleep(LEASE + 1)

    assert claim(ledger).owed[0].intended is True


def test_failures_are_kept_for_the_operator_and_deliveries_are_not(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA))
    settle(ledger, claim(ledger), Retry("locked", 423))

    (failure,) = ledger.engine.rows("failures_at", destination="crm", limit=9)
    assert (failure["outcome"], failure["status"], failure["error"]) == ("retry", 423, "locked")


def test_an_event_that_cannot_be_applied_is_kept_as_unreadable(ledger: Ledger) -> None:
    with ledger.transaction():
        applied = ledger.apply_poison(event(email=ADA), ZeroDivisionError("boom"))

    assert applied.status == "unreadable"
    (row,) = ledger.engine.rows("newest_unreadable")
    assert row["error"] == "could not be applied (ZeroDivisionError)"


def test_the_pace_hands_out_one_place_after_the_other(ledger: Ledger) -> None:
    with ledger.transaction():
        waits = [ledger.take_pace("crm", interval=0.1, burst=0.2) for _ in range(5)]

    assert waits == pytest.approx([0, 0, 0, 0.1, 0.2], abs=1e-5)


def test_a_pace_left_over_from_a_clock_that_jumped_is_forgotten(ledger: Ledger, clock: Clock) -> None:
    clock.sleep(86400)
    with ledger.transaction():
        ledger.take_pace("crm", interval=0.1, burst=0.0)

    clock.sleep(-86400)
    with ledger.transaction():
        assert ledger.take_pace("crm", interval=0.1, burst=0.0) == 0.0


def test_a_failed_transaction_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        ledger.apply([event(email=ADA)])
        raise ZeroDivisionError

    assert contacts(ledger) == []


def test_the_files_are_private(sqlite: Ledger, tmp_path: Path) -> None:
    apply(sqlite, event(email=ADA))

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("ledger*")}
    assert set(modes.values()) == {0o600}


def test_a_second_server_of_one_file_is_refused(sqlite: Ledger, tmp_path: Path, clock: Clock) -> None:
    sqlite.engine.own()
    second = SqliteEngine(tmp_path / "ledger.sqlite3", clock=clock)

    with pytest.raises(LedgerInUse, match="already serves"):
        second.own()
    second.close()


def test_a_ledger_of_a_newer_release_is_refused(ledger: Ledger) -> None:
    select(ledger, "INSERT INTO migrations VALUES (9999, 0) RETURNING number")

    with pytest.raises(LedgerTooNew, match="newer release"):
        ledger.engine.migrate()


def test_migrating_twice_is_harmless(ledger: Ledger) -> None:
    assert ledger.engine.migrate() == ledger.engine.schema


def test_a_folder_that_is_not_there_is_said_in_a_sentence(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(LedgerUnavailable, match="cannot open the ledger"):
        SqliteEngine(tmp_path / "nowhere" / "ledger.sqlite3", clock=clock)


def test_commits_are_on_disk_when_they_return(sqlite: Ledger) -> None:
    (mode,) = sqlite.engine.connection.execute("PRAGMA synchronous").fetchone()  # type: ignore[attr-defined]
    (journal,) = sqlite.engine.connection.execute("PRAGMA journal_mode").fetchone()  # type: ignore[attr-defined]

    assert (mode, journal) == (2, "wal")


def test_the_views_show_plain_words_and_iso_times(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA, name="Ada"))

    (person,) = select(ledger, "SELECT name, email, created FROM people")
    assert person == {"name": "Ada", "email": ADA, "created": "2026-09-21T14:13:20Z"}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(statements, min_size=1, max_size=5), min_size=1, max_size=5))
def test_groups_of_any_size_give_what_one_by_one_gives(opened: Open, groups: list[list[Event]]) -> None:
    ledger = opened()
    for group in groups:
        apply(ledger, *group)

    assert picture_of(ledger) == picture([event for group in groups for event in group])
    ledger.engine.close()


def picture_of(ledger: Ledger) -> dict[str, object]:
    """The same picture as `picture` draws, from what stands in the tables."""
    chats = {c.chat: c for c in map(chat_of, select(ledger, "SELECT * FROM chats")) if c.email is not None}
    people = {p.id: p for p in map(contact_of, select(ledger, "SELECT * FROM contacts"))}
    roots = {chat: people[c.contact or ""] for chat, c in chats.items()}
    for chat, person in roots.items():
        while person.joined is not None:
            person = people[person.joined]
        roots[chat] = person
    return {
        chat: (sorted(o for o in chats if roots[o].id == person.id), person.email, person.name)
        for chat, person in roots.items()
    }


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_stored_and_no_other(ledger: Ledger, state: State) -> None:
    apply(ledger, event(email=ADA))

    select(ledger, f"UPDATE deliveries SET state = '{state}' RETURNING id")
    with pytest.raises(Exception, match=r"(?i)check"):
        select(ledger, "UPDATE deliveries SET state = 'nonsense' RETURNING id")


def test_a_record_left_behind_is_listed_as_a_stray(ledger: Ledger) -> None:
    apply(ledger, event(email=ADA))

    settle(ledger, claim(ledger), Delivered(Receipt("r2", ours=False, left_behind="r1")))

    assert [row["remote_id"] for row in ledger.engine.rows("list_strays", limit=9)] == ["r1"]


def close(chat: str = "v1:1", at: float = 5) -> Event:
    return event(chat, type=EventType.CLOSE, closed=True, silent=True, at=at)


def test_two_people_never_get_one_record(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA, name="Ada"))
    under_way = claim(ledger)
    apply(ledger, event("v1:1", "carol@example.com", at=9))
    settle(ledger, under_way, Delivered(Receipt("r1", ours=True)))
    apply(ledger, event("v1:2", ADA, name="Zoe", at=20))
    both = claim(ledger)
    carol, zoe = sorted(both.owed, key=lambda owed: owed.remote_id is None)

    settle(ledger, Claimed(Kind.CONTACT, (zoe,)), Delivered(Receipt("r1", ours=False)))

    row = next(d for d in deliveries(ledger) if d["id"] == zoe.delivery)
    assert (row["state"], row["remote_id"], row["error"]) == (
        "pending",
        None,
        "another contact of ours holds this record there",
    )
    assert carol.remote_id == "r1"


def test_somebody_elses_record_found_while_the_email_was_corrected_is_not_taken_over(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA, name="Ben"))
    under_way = claim(ledger)
    apply(ledger, event("v1:1", BOB, at=9))

    settle(ledger, under_way, Delivered(Receipt("theirs", ours=False)))

    winner = next(d for d in deliveries(ledger) if d["state"] == "pending")
    assert winner["remote_id"] is None
    assert [row["remote_id"] for row in ledger.engine.rows("list_strays", limit=9)] == ["theirs"]


def test_the_winner_goes_at_once_when_the_call_it_waited_for_has_ended(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", "ada@exmaple.com"))
    under_way = claim(ledger)
    apply(ledger, event("v1:1", ADA, at=9))
    clock.sleep(3)

    settle(ledger, under_way, Delivered(Receipt("r1", ours=True)))

    assert [owed.subject.email for owed in claim(ledger).owed] == [ADA]  # type: ignore[union-attr]


def test_a_chat_of_a_joined_contact_follows_to_the_record_that_is_there(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", BOB))
    deliver(ledger, "r1")
    apply(ledger, event("v1:2", phone="+12025550100"), close("v1:2"))
    assert next(d for d in deliveries(ledger) if d["kind"] == "chat")["due_at"] is None

    apply(ledger, event("v1:3", phone="+12025550100", at=6), event("v1:3", BOB, at=7))

    (row,) = [d for d in deliveries(ledger) if d["kind"] == "chat"]
    assert (row["state"], row["due_at"]) == ("pending", NOON)


def test_a_chat_of_somebody_who_said_nothing_is_ignored_with_a_reason(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", visitor_id="v1:7"), close("v1:1"))

    assert [(d["kind"], d["state"], d["error"]) for d in deliveries(ledger)] == [
        ("contact", "ignored", "no way to reach this person"),
        ("chat", "ignored", "its contact is ignored there"),
    ]


def test_somebody_known_who_chats_again_is_owed_to_a_destination_that_is_new(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA, name="Ada"))
    deliver(ledger)
    ledger.takers = {**ledger.takers, "new": frozenset({Kind.CONTACT, Kind.CHAT})}

    apply(ledger, event("v1:2", ADA, name="Ada"), close("v1:2"))

    owed = {(d["kind"], d["state"]) for d in deliveries(ledger) if d["destination"] == "new"}
    assert owed == {("contact", "pending"), ("chat", "pending")}


def test_a_chat_whose_new_contact_has_no_record_yet_is_not_handed_out(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA), event("v1:9", ADA, at=1), close("v1:1"))
    deliver(ledger)
    chat = claim(ledger)
    assert chat.kind is Kind.CHAT
    apply(ledger, event("v1:1", "carol@example.com", at=9))
    settle(ledger, chat, Delivered(Receipt("note", ours=True)))

    assert claim(ledger, [(Kind.CHAT, 10)]).owed == ()
    deliver(ledger, "r2")
    assert [owed.contact_remote_id for owed in claim(ledger).owed] == ["r2"]


def test_a_contact_that_was_deleted_there_is_made_anew_for_its_new_chat(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA), close("v1:1"))
    deliver(ledger, "r1")
    settle(
        ledger, claim(ledger), Retry("the record of the chat's contact was deleted there", 404, contact_is_gone=True)
    )

    (contact,) = claim(ledger).owed
    assert contact.remote_id is None
    settle(ledger, Claimed(Kind.CONTACT, (contact,)), Delivered(Receipt("r2", ours=True)))
    assert [owed.contact_remote_id for owed in claim(ledger).owed] == ["r2"]


def test_what_was_received_on_a_clock_that_jumped_is_not_stranded(ledger: Ledger, clock: Clock) -> None:
    clock.sleep(365 * 86400)
    apply(ledger, event("v1:1", ADA))
    clock.sleep(-365 * 86400)

    assert claim(ledger).owed == ()
    assert len(claim(ledger).owed) == 1


def test_a_probe_left_over_from_a_clock_that_jumped_holds_nothing(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA), event("v1:2", BOB))
    settle(ledger, claim(ledger, [(Kind.CONTACT, 1)]), Paused("down"), pause_for=30.0)
    clock.sleep(365 * 86400)
    claim(ledger)
    clock.sleep(-364.9 * 86400)

    assert claim(ledger).is_probe is True


def test_whoever_takes_a_file_over_ends_leases_and_probes(sqlite: Ledger, clock: Clock) -> None:
    apply(sqlite, event("v1:1", ADA), event("v1:2", BOB))
    settle(sqlite, claim(sqlite, [(Kind.CONTACT, 1)]), Paused("down"), pause_for=30.0)
    clock.sleep(31)
    claim(sqlite)

    with sqlite.transaction():
        sqlite.take_over()
    clock.sleep(6)

    assert claim(sqlite).is_probe is True


def test_a_row_that_was_claimed_since_it_was_read_is_left_alone(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.apply([event("v1:1", ADA)])
    (before,) = select(ledger, "SELECT * FROM deliveries")
    read = delivery_of({**before, "joined": None})
    with ledger.transaction():
        ledger.claim("crm", BOTH, LEASE)
        write_deliveries(ledger.engine, [replace(read, state=State.DEAD, error="from before the claim")])

    (after,) = select(ledger, "SELECT * FROM deliveries")
    assert (after["state"], after["claim"], after["error"]) == ("pending", 1, None)


def test_an_announcement_keeps_the_time_that_the_destination_has(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA))
    (owed,) = claim(ledger).owed
    with ledger.transaction():
        ledger.intend({owed.delivery: owed.claim}, at=clock.now + 86400)
    clock.sleep(LEASE + 1)

    (again,) = claim(ledger).owed
    assert again.intended_at == clock.now - LEASE - 1 + 86400


def test_who_opens_a_file_does_not_wait_for_who_writes(tmp_path: Path, clock: Clock) -> None:
    writer = SqliteEngine(tmp_path / "ledger.sqlite3", clock=clock)
    newest = writer.migrate()
    with writer.transaction():
        other = SqliteEngine(tmp_path / "ledger.sqlite3", clock=clock)
        assert other.migrate() == newest
        assert other.rows("count_contacts")[0]["n"] == 0
    other.close()
    writer.close()
