"""Pruning, on both engines: what was dealt with long ago goes in small steps, what is owed stays (promise P8)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.ledger import Ledger, Settlement
from sync.ledger.checking import check
from sync.ledger.pruning import DAY, PAGE, Limits, Walk, go_on, sizes, step
from sync.ledger.replaying import unreadable
from sync.ledger.showing import show
from sync.ledger.sqlite import SqliteEngine
from sync.models import Event, EventType, Kind, Message, Receipt
from sync.outcomes import Dead, Delivered, Retry
from sync.retention import prune
from tests.databases import Server, open_on, select
from tests.people import NOON, Clock, event

ADA, BOB = "ada@example.com", "bob@example.com"
MONTH = 30 * DAY


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, clock, None)
    yield opened
    assert check(opened.engine) == []
    opened.engine.close()


def apply(ledger: Ledger, *events: Event) -> None:
    with ledger.transaction():
        ledger.apply(events)


def heard(n: int, email: str | None = ADA, *, at: float = 0.0, payload: str = "x" * 100) -> Event:
    return replace(event(f"v1:{n}", email, at=at, received=at), payload=payload)


def over(n: int) -> Event:
    """A chat that is over, with something said."""
    said = (Message("m1", "visitor", "hello there", at=NOON + 1),)
    return event(f"v1:{n}", ADA, at=60, type=EventType.CLOSE, closed=True, messages=said)


def deliver(ledger: Ledger, outcome: Any = None) -> None:
    """Contacts, then chats."""
    for kind in (Kind.CONTACT, Kind.CHAT):
        with ledger.transaction():
            owed: Any = ledger.claim("crm", [(kind, 10)], 60.0).owed
            ends = [outcome or Delivered(Receipt(f"{kind}-{o.delivery}", True)) for o in owed]
            ledger.settle([Settlement(o.delivery, o.claim, o.version, e, 1e6) for o, e in zip(owed, ends, strict=True)])


def payloads(ledger: Ledger) -> list[str]:
    return [row["payload"] for row in select(ledger, "SELECT payload FROM events ORDER BY id")]


def transcripts(ledger: Ledger) -> list[str]:
    return [row["transcript"] for row in select(ledger, "SELECT transcript FROM chats ORDER BY id")]


def test_old_payloads_go_and_young_ones_stay(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, heard(1), heard(2, at=20 * DAY))
    clock.now = NOON + MONTH + DAY

    prune(ledger, Limits(payloads=MONTH))

    assert payloads(ledger) == ["", "x" * 100]


def test_nothing_goes_without_a_limit(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, heard(1), over(1))
    deliver(ledger)
    clock.now = NOON + 100 * MONTH

    prune(ledger, Limits())

    assert payloads(ledger) == ["x" * 100, "{}"]
    assert transcripts(ledger) != ["[]"]


def test_a_webhook_that_could_not_be_read_has_a_limit_of_its_own(ledger: Ledger, clock: Clock) -> None:
    broken = replace(heard(1), visitor=None, news=None, chat=None, error="no")
    apply(ledger, broken)
    clock.now = NOON + 2 * MONTH

    prune(ledger, Limits(payloads=MONTH, unreadable=3 * MONTH, most=0))
    assert [one.id for one in unreadable(ledger, "", 10)] == [broken.id]

    prune(ledger, Limits(unreadable=MONTH))
    assert unreadable(ledger, "", 10) == []
    assert select(ledger, "SELECT state, payload, error FROM events") == [
        {"state": "kept", "payload": "", "error": "no"}
    ]


def test_a_webhook_whose_payload_was_pruned_is_still_known_when_it_comes_again(ledger: Ledger, clock: Clock) -> None:
    first = heard(1)
    apply(ledger, first)
    clock.now = NOON + 2 * MONTH
    prune(ledger, Limits(payloads=MONTH))

    with ledger.transaction():
        (answer,) = ledger.apply([replace(first, id="ev_zzz")])

    assert answer.status == "duplicate"
    assert show(ledger, first.id)["is_pruned"]
    apply(ledger, event("v1:7", ADA, at=2 * MONTH, received=2 * MONTH))
    assert len(select(ledger, "SELECT id FROM contacts")) == 1


def test_the_oldest_payloads_go_where_there_are_too_many(ledger: Ledger) -> None:
    apply(ledger, *(heard(n, at=n) for n in range(10)))

    prune(ledger, Limits(most=400))

    assert [bool(text) for text in payloads(ledger)] == [False] * 6 + [True] * 4


def test_a_transcript_goes_once_the_chat_is_where_it_belongs(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, over(1))
    clock.now = NOON + 2 * MONTH
    prune(ledger, Limits(transcripts=MONTH))
    assert "hello there" in transcripts(ledger)[0]

    deliver(ledger)
    prune(ledger, Limits(transcripts=MONTH))
    assert transcripts(ledger) == ["[]"]
    assert select(ledger, "SELECT state FROM deliveries WHERE kind = 'chat'") == [{"state": "delivered"}]


@pytest.mark.parametrize("outcome", [Retry("busy"), Dead("no")], ids=["failing", "dead"])
def test_a_transcript_stays_while_it_may_still_be_wanted(ledger: Ledger, clock: Clock, outcome: Any) -> None:
    apply(ledger, heard(1))
    deliver(ledger)
    apply(ledger, over(1))
    deliver(ledger, outcome)
    clock.now = NOON + 2 * MONTH

    prune(ledger, Limits(transcripts=MONTH))

    assert "hello there" in transcripts(ledger)[0]


def test_what_is_owed_to_a_destination_that_is_no_more_holds_nothing_back(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, over(1))
    ledger.takers = {}
    clock.now = NOON + 2 * MONTH

    prune(ledger, Limits(transcripts=MONTH))

    assert transcripts(ledger) == ["[]"]


def test_a_chat_that_goes_on_after_its_transcript_went_becomes_a_note_of_its_own(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, over(1))
    deliver(ledger)
    clock.now = NOON + 2 * MONTH
    prune(ledger, Limits(transcripts=MONTH))
    first = Message("m1", "visitor", "hello there", at=NOON + 1)
    line = Message("m2", "visitor", "me again", at=clock.now)
    again = event(
        "v1:1", ADA, at=2 * MONTH, received=2 * MONTH, type=EventType.CLOSE, closed=True, messages=(first, line)
    )

    apply(ledger, again)

    with ledger.transaction():
        (owed,) = ledger.claim("crm", [(Kind.CHAT, 1)], 60.0).owed
    assert owed.remote_id is None
    assert [m.text for m in owed.subject.transcript] == ["me again"]  # type: ignore[union-attr]


def test_a_webhook_that_repeats_what_was_pruned_brings_nothing_back(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, over(1))
    deliver(ledger)
    clock.now = NOON + 2 * MONTH
    prune(ledger, Limits(transcripts=MONTH))
    before = select(ledger, "SELECT * FROM chats")

    apply(ledger, over(1))

    kept = ("transcript", "last_message_at", "version", "pruned_until")
    assert [[row[name] for name in kept] for row in select(ledger, "SELECT * FROM chats")] == [
        [row[name] for name in kept] for row in before
    ]
    assert {row["state"] for row in select(ledger, "SELECT state FROM deliveries")} == {"delivered"}


def test_it_is_kept_up_to_when_a_transcript_was_pruned(ledger: Ledger, clock: Clock) -> None:
    late = Message("m2", "visitor", "one thing more", at=NOON + MONTH + 2 * DAY)
    apply(ledger, over(1), over(2), event("v1:2", ADA, type=EventType.MESSAGE, messages=(late,)), heard(3))
    deliver(ledger)
    clock.now = NOON + 2 * MONTH

    prune(ledger, Limits(transcripts=MONTH))

    marks = [row["pruned_until"] for row in select(ledger, "SELECT pruned_until FROM chats ORDER BY id")]
    assert marks == [NOON + MONTH, late.at, None]


def test_failures_go_unless_somebody_has_to_look_at_them(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, heard(1), heard(2, BOB))
    with ledger.transaction():
        one, two = ledger.claim("crm", [(Kind.CONTACT, 2)], 60.0).owed
        ledger.settle([Settlement(o.delivery, o.claim, o.version, Retry("busy"), 1.0) for o in (one, two)])
    clock.now += 2
    with ledger.transaction():
        one, two = ledger.claim("crm", [(Kind.CONTACT, 2)], 60.0).owed
        taken = Delivered(Receipt("r1", True))
        ledger.settle([Settlement(one.delivery, one.claim, one.version, taken)])
        ledger.settle([Settlement(two.delivery, two.claim, two.version, Dead("no"))])
    clock.now = NOON + 2 * MONTH

    prune(ledger, Limits(failures=MONTH))

    assert {row["delivery"] for row in select(ledger, "SELECT delivery FROM failures")} == {two.delivery}


def test_the_text_of_a_mail_goes_and_that_it_went_stays(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, over(1), over(2))
    one, two = (row["id"] for row in select(ledger, "SELECT id FROM chats ORDER BY id"))
    with ledger.transaction():
        for chat in (one, two):
            mail = {"chat": chat, "template": "followup", "mailer": "smtp", "turn": 1, "key": "k"}
            ledger.engine.run("write_mail", rendered="Hello Ada", **mail)
    connection: Any = getattr(ledger.engine, "connection", None) or ledger.engine._connected()  # type: ignore[attr-defined]
    for n, state in enumerate(["delivered", "unknown"]):
        sql = "INSERT INTO deliveries (id, destination, kind, subject, state, wanted, done, owed_at, ready_at)"
        connection.execute(f"{sql} VALUES ('de_x{n}', 'mail', 'email', '{(one, two)[n]}', '{state}', 1, 1, 0, 0)")
    clock.now = NOON + 2 * MONTH

    prune(ledger, Limits(mails=MONTH))

    rows = select(ledger, "SELECT rendered, went FROM emails ORDER BY chat")
    assert rows == [{"rendered": None, "went": 1}, {"rendered": "Hello Ada", "went": 1}]


def test_a_dry_run_counts_and_changes_nothing(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, heard(1), over(1))
    deliver(ledger)
    clock.now = NOON + 2 * MONTH
    limits = Limits(payloads=MONTH, transcripts=MONTH)

    told = prune(ledger, limits, dry_run=True).walk
    assert (told.pruned["payloads"].rows, told.pruned["transcripts"].rows) == (2, 1)
    assert payloads(ledger) == ["x" * 100, "{}"]
    assert prune(ledger, limits).walk.pruned == told.pruned


def test_a_walk_in_small_steps_ends_where_a_whole_one_does(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, *(heard(n, f"n{n}@example.com", at=n) for n in range(2 * PAGE + 10)))
    clock.now = NOON + MONTH + PAGE + 0.5
    limits, steps = Limits(payloads=MONTH), 0
    while True:
        with ledger.transaction():
            if not go_on(ledger, limits, every=1000.0):
                break
        steps += 1

    assert steps >= 3 + 3 + 1 + 1
    assert payloads(ledger).count("") == PAGE + 1
    measured = sizes(ledger.engine)
    assert measured is not None
    assert measured["payloads"] == {"rows": PAGE + 9, "size": 100 * (PAGE + 9)}
    with ledger.transaction():
        assert not go_on(ledger, limits, every=1000.0)
    clock.now += 1001
    with ledger.transaction():
        assert go_on(ledger, limits, every=1000.0)


def test_a_walk_that_was_interrupted_goes_on(ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(ledger, *(heard(n, f"n{n}@example.com") for n in range(3 * PAGE)))
    clock.now = NOON + 2 * MONTH
    limits, run, calls = Limits(payloads=MONTH), ledger.engine.run, iter(range(10_000))

    def interrupted(query: str, **parameters: Any) -> int:
        if next(calls) % 3 == 1:
            raise KeyboardInterrupt
        return run(query, **parameters)

    monkeypatch.setattr(ledger.engine, "run", interrupted)
    goes_on, cut = True, 0
    while goes_on:
        try:
            with ledger.transaction():
                goes_on = go_on(ledger, limits, every=1000.0)
        except KeyboardInterrupt:
            cut += 1

    assert cut > 0
    assert set(payloads(ledger)) == {""}
    measured = sizes(ledger.engine)
    assert measured is not None
    assert measured["payloads"]["rows"] == 0


def test_a_step_is_bounded(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, *(heard(n, f"n{n}@example.com") for n in range(PAGE + 1)))
    clock.now = NOON + 2 * MONTH
    with ledger.transaction():
        walk = step(ledger, Walk(), Limits(payloads=MONTH))

    assert walk.pruned["payloads"].rows == PAGE
    assert payloads(ledger).count("") == PAGE


def test_the_file_gets_smaller(tmp_path: Path, clock: Clock) -> None:
    engine = SqliteEngine(tmp_path / "ledger.sqlite3", clock=clock)
    engine.migrate()
    ledger = Ledger(engine, {}, new_id=lambda prefix, _now: f"{prefix}_{next(numbers):09d}")
    numbers = iter(range(10**6))
    apply(ledger, *(heard(n, None, payload="x" * 20_000) for n in range(500)))
    engine.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = engine.bytes
    clock.now = NOON + 2 * MONTH

    prune(ledger, Limits(payloads=MONTH))
    engine.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    assert before > 10_000_000
    assert engine.bytes < before / 4
    engine.close()


def test_a_file_of_an_earlier_release_is_made_to_shrink_by_a_rewrite(tmp_path: Path, clock: Clock) -> None:
    from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]

    path = tmp_path / "ledger.sqlite3"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE something (x)")
    old.close()
    engine = SqliteEngine(path, clock=clock)
    engine.migrate()
    assert not engine.is_shrinkable

    assert engine.scrub(whatever_size=True)

    assert engine.is_shrinkable
    engine.close()
