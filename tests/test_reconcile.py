"""Replay and owe can only repair; a join can be taken apart."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sync.errors import LedgerError, LedgerUnavailable, NotFound, SettingsError
from sync.ledger import Ledger, Settlement
from sync.ledger.importing import Record, import_records
from sync.ledger.replaying import FIRST
from sync.ledger.reporting import show, status
from sync.models import ChatNews, Event, EventType, Kind, Receipt, Visitor
from sync.outcomes import Dead, Delivered, Ignored, Outcome, Paused
from sync.reconcile import BATCH, owe_everybody, owe_pages, replay_dead, replay_events, undo_join
from sync.settings import FromEnvironment
from sync.sources.base import Source, WebhookRequest
from tests.people import CRM, NOON, Clock, event, open_ledger

BOTH = [(Kind.CONTACT, 1000), (Kind.CHAT, 1000)]
numbers = itertools.count()


class Later(Source):
    """A newer release of a source: it reads `email@chat=time` where the one before read nothing."""

    name: ClassVar[str] = "acquire"
    Settings: ClassVar[type[FromEnvironment]] = FromEnvironment
    is_guarded = True

    def verify(self, request: WebhookRequest) -> None:
        return

    def read(self, body: bytes, *, event_id: str, received_at: float) -> Event:
        text = body.decode()
        error = None if "=" in text else "still not understood"
        address, _, rest = text.partition(" ")
        chat, _, at = rest.partition("=")
        return Event(
            id=event_id,
            source="acquire",
            key=f"now:{text}",
            type=EventType.START,
            name="START",
            occurred_at=NOON + float(at or 0),
            received_at=received_at,
            payload=text,
            chat=chat or None,
            visitor=None if error else Visitor(email=address, name=f"said at {at}"),
            news=None if error else ChatNews(started_at=NOON),
            error=error,
        )


SOURCES = {"acquire": Later()}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path, clock)
    yield opened
    opened.engine.close()


def unreadable(payload: str) -> Event:
    number = next(numbers)
    return Event(
        id=f"ev_u{number:07d}",
        source="acquire",
        key=f"raw-{number}",
        type=EventType.OTHER,
        name="",
        occurred_at=NOON,
        received_at=NOON,
        payload=payload,
        error="not understood",
    )


def take(ledger: Ledger, *events: Event) -> None:
    with ledger.transaction():
        ledger.apply(events)


def settle(ledger: Ledger, outcome: Any = None) -> int:
    """Let every delivery that is due end like this; by default each contact gets a record of its own."""
    n = 0
    while True:
        with ledger.transaction():
            claimed = ledger.claim("crm", BOTH, 60.0)
            ledger.settle(
                [
                    Settlement(o.delivery, o.claim, o.version, outcome or _taken(o.remote_id or f"r-{o.subject.id}"))
                    for o in claimed.owed
                ]
            )
        if not claimed.owed:
            return n
        n += len(claimed.owed)


def settle_once(ledger: Ledger, outcome: Outcome) -> None:
    with ledger.transaction():
        claimed = ledger.claim("crm", BOTH, 60.0)
        ledger.settle([Settlement(o.delivery, o.claim, o.version, outcome, pause_for=900.0) for o in claimed.owed])


def _taken(remote_id: str) -> Outcome:
    return Delivered(Receipt(remote_id, ours=True))


def contact(ledger: Ledger, email: str) -> dict[str, Any]:
    return show(ledger, email)


def joined(ledger: Ledger) -> tuple[str, str]:
    """Two contacts joined by a corrected email; the first had a record. Loser and winner."""
    take(ledger, event("v1:1", "ada@exmaple.com", name="Ada"))
    settle(ledger)
    loser = contact(ledger, "ada@exmaple.com")["id"]
    take(ledger, event("v1:1", "ada@example.com", at=9))
    settle(ledger)
    return loser, contact(ledger, "ada@example.com")["id"]


def test_a_replay_reads_what_a_newer_release_understands(ledger: Ledger) -> None:
    take(ledger, unreadable("ada@example.com v1:1=5"))

    done = replay_events(ledger, SOURCES)
    assert (done.read, done.same, done.left) == (1, 0, {})
    assert contact(ledger, "ada@example.com")["name"] == "said at 5"
    assert status(ledger)["events"] == {"applied": 1, "kept": 0, "unreadable": 0}
    assert settle(ledger) == 1


def test_a_replayed_word_never_undoes_a_newer_one(ledger: Ledger) -> None:
    take(ledger, unreadable("ada@example.com v1:1=5"), event("v1:1", "ada@example.com", name="newer", at=60))

    replay_events(ledger, SOURCES)
    assert contact(ledger, "ada@example.com")["name"] == "newer"


def test_a_replay_of_everything_twice_changes_nothing(ledger: Ledger) -> None:
    events = [unreadable(f"n{n % 7}@example.com v1:{n}={n}") for n in range(2 * BATCH + 5)]
    take(ledger, *events)

    assert replay_events(ledger, SOURCES).read == len(events)
    settle(ledger)
    before = contact(ledger, "n1@example.com")
    assert replay_events(ledger, SOURCES).read == 0
    replay_events(ledger, SOURCES, event=events[1].id)
    assert {**contact(ledger, "n1@example.com"), "deliveries": 0} == {**before, "deliveries": 0}
    assert status(ledger)["contacts"] == 7


def test_two_events_that_prove_to_say_the_same_are_one(ledger: Ledger) -> None:
    first, second = unreadable("ada@example.com v1:1=5"), unreadable("ada@example.com v1:1=5")
    take(ledger, first, second)

    done = replay_events(ledger, SOURCES)
    assert (done.read, done.same) == (1, 1)
    assert show(ledger, second.id)["state"] == "kept"
    assert show(ledger, second.id)["error"] == f"says the same as {first.id}"
    assert replay_events(ledger, SOURCES, event=second.id).same == 1


def test_a_dry_run_counts_and_writes_nothing(ledger: Ledger) -> None:
    take(ledger, unreadable("ada@example.com v1:1=5"), unreadable("gibberish"))

    done = replay_events(ledger, SOURCES, dry_run=True)
    assert (done.read, done.left) == (1, {"still not understood": 1})
    assert status(ledger)["events"]["unreadable"] == 2


def test_one_event_that_cannot_be_applied_does_not_sink_the_others(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(ledger, *(unreadable(f"n{n}@example.com v1:{n}={n}") for n in range(3)))
    reading = Later.read

    def poisoned(self: Later, body: bytes, **more: Any) -> Event:
        read = reading(self, body, **more)
        if body.startswith(b"n1"):
            object.__setattr__(read, "visitor", Visitor(email=7))  # type: ignore[arg-type]
        return read

    monkeypatch.setattr(Later, "read", poisoned)
    done = replay_events(ledger, SOURCES)
    assert done.read == 2
    assert [reason.startswith("could not be applied (") for reason in done.left] == [True]
    assert status(ledger)["events"]["unreadable"] == 1


def test_an_event_that_was_read_once_is_not_made_unreadable(ledger: Ledger) -> None:
    said = event("v1:1", "ada@example.com")
    take(ledger, said)

    done = replay_events(ledger, SOURCES, event=said.id)
    assert done.left == {"still not understood": 1}
    assert show(ledger, said.id)["state"] == "applied"


def test_a_source_that_is_not_configured_leaves_its_events_as_they_are(ledger: Ledger) -> None:
    take(ledger, unreadable("ada@example.com v1:1=5"))

    assert replay_events(ledger, {}).left == {"SYNC_SOURCES does not name acquire": 1}


def test_an_event_that_is_not_there_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        replay_events(ledger, SOURCES, event="ev_none")


def test_replay_of_an_event_delivers_its_contact_once_more(ledger: Ledger) -> None:
    late = unreadable("ada@example.com v1:1=5")
    take(ledger, late)
    replay_events(ledger, SOURCES)
    settle(ledger)

    replay_events(ledger, SOURCES, event=late.id)
    (delivery,) = contact(ledger, "ada@example.com")["deliveries"]
    assert (delivery["state"], delivery["replayed"]) == ("pending", True)


def test_the_dead_are_tried_again(ledger: Ledger) -> None:
    take(ledger, event("v1:1", "ada@example.com"), event("v1:2", "bob@example.com"))
    settle(ledger, Dead("no"))

    assert replay_dead(ledger, "crm", dry_run=True) == 2
    assert replay_dead(ledger, "crm") == 2
    assert settle(ledger) == 2
    assert replay_dead(ledger, "crm") == 0


def test_a_new_destination_is_owed_everybody_with_chats_after_contacts(tmp_path: Path) -> None:
    before = open_ledger(tmp_path, takers={})
    people = BATCH + 3
    take(before, *(event(f"v1:{n}", f"n{n}@example.com", closed=True, at=n) for n in range(people)))
    before.engine.close()
    ledger = open_ledger(tmp_path, takers=CRM)

    owed = owe_everybody(ledger, "crm")
    assert (owed.contacts, owed.chats) == (people, people)
    assert settle(ledger) == 2 * people
    again = owe_everybody(ledger, "crm")
    assert (again.contacts, again.chats, again.seen) == (0, 0, 2 * people)
    assert settle(ledger) == 0
    ledger.engine.close()


def test_owe_leaves_other_destinations_alone(tmp_path: Path) -> None:
    both = {**CRM, "other": frozenset({Kind.CONTACT})}
    before = open_ledger(tmp_path, takers={})
    take(before, event("v1:1", "ada@example.com"))
    before.engine.close()
    ledger = open_ledger(tmp_path, takers=both)

    owe_everybody(ledger, "other")
    assert [d["destination"] for d in contact(ledger, "ada@example.com")["deliveries"]] == ["other"]
    ledger.engine.close()


@pytest.mark.parametrize("act", [owe_everybody, replay_dead])
def test_a_destination_that_nobody_serves_is_refused(ledger: Ledger, act: Any) -> None:
    with pytest.raises(SettingsError, match="does not name nowhere"):
        act(ledger, "nowhere")


def test_an_undone_join_gives_each_their_email_and_their_record(ledger: Ledger, clock: Clock) -> None:
    loser, winner = joined(ledger)
    assert contact(ledger, "ada@example.com")["deliveries"][0]["remote_id"] == f"r-{loser}"

    assert undo_join(ledger, loser) == winner
    settle(ledger)
    clock.sleep(FIRST)
    settle(ledger)
    assert contact(ledger, "ada@exmaple.com")["id"] == loser
    assert show(ledger, loser)["joined"] is None
    assert show(ledger, loser)["deliveries"][0]["remote_id"] == f"r-{loser}"
    assert show(ledger, winner)["deliveries"][0]["remote_id"] == f"r-{winner}"
    assert [join["state"] for join in show(ledger, loser)["joins"]] == ["undone"]


def test_the_loser_of_an_undone_join_takes_its_record_before_the_winner_looks_for_one(ledger: Ledger) -> None:
    loser, winner = joined(ledger)
    undo_join(ledger, loser)

    with ledger.transaction():
        first = ledger.claim("crm", BOTH, 60.0)
        second = ledger.claim("crm", BOTH, 60.0)
    assert [owed.subject.id for owed in first.owed] == [loser]
    assert second.owed == ()
    assert show(ledger, winner)["deliveries"][0]["remote_id"] is None


def test_a_record_that_took_on_the_winners_email_stays_with_the_winner(ledger: Ledger) -> None:
    take(ledger, event("v1:1", phone="+12025550100"))
    settle(ledger)
    loser = contact(ledger, "+12025550100")["id"]
    take(ledger, event("v1:2", "ada@example.com", at=5), event("v1:1", "ada@example.com", at=9))
    settle(ledger)
    winner = contact(ledger, "ada@example.com")["id"]
    undo_join(ledger, loser)
    settle(ledger)

    (gone,), (kept,) = show(ledger, loser)["deliveries"], show(ledger, winner)["deliveries"]
    assert (kept["state"], kept["remote_id"]) == ("delivered", f"r-{loser}")
    assert (gone["state"], gone["remote_id"]) == ("ignored", None)
    assert gone["reason"] == f"its record there has become that of {winner}"


def test_a_join_is_not_undone_while_the_destination_of_a_shared_record_is_paused(ledger: Ledger) -> None:
    loser, _ = joined(ledger)
    take(ledger, event("v1:9", "bob@example.com"))
    settle_once(ledger, Paused("down"))

    with pytest.raises(LedgerUnavailable, match="paused"):
        undo_join(ledger, loser)


def test_an_undone_join_stays_undone(ledger: Ledger) -> None:
    loser, _ = joined(ledger)
    undo_join(ledger, loser)
    take(ledger, event("v1:1", "ada@example.com", name="Ada L", at=30))

    assert show(ledger, loser)["joined"] is None
    with pytest.raises(NotFound):
        undo_join(ledger, loser)


def test_a_join_is_not_undone_while_a_call_is_under_way(ledger: Ledger, clock: Clock) -> None:
    loser, _ = joined(ledger)
    take(ledger, event("v1:1", "ada@example.com", name="Ada L", at=30))
    with ledger.transaction():
        ledger.claim("crm", BOTH, 60.0)

    with pytest.raises(LedgerUnavailable, match="try again"):
        undo_join(ledger, loser)
    clock.sleep(61)
    undo_join(ledger, loser)


def test_a_join_is_not_undone_when_somebody_else_has_the_email_by_now(ledger: Ledger) -> None:
    loser, _ = joined(ledger)
    take(ledger, event("v1:2", "ada@exmaple.com", at=40))

    with pytest.raises(LedgerError, match="leads to"):
        undo_join(ledger, loser)
    assert show(ledger, loser)["joined"] is not None


def test_a_chat_ignored_for_its_contact_waits_for_it_after_a_replay(ledger: Ledger) -> None:
    said = unreadable("ada@example.com v1:1=5")
    take(ledger, said, event("v1:1", "ada@example.com", closed=True))
    settle(ledger, Ignored("not here"))
    replay_events(ledger, SOURCES)

    with ledger.transaction():
        first = ledger.claim("crm", BOTH, 60.0)
        second = ledger.claim("crm", BOTH, 60.0)
    assert (first.kind, len(first.owed), len(second.owed)) == (Kind.CONTACT, 1, 0)


def test_whom_only_an_import_told_of_is_owed_by_an_operator_and_by_no_repair(tmp_path: Path) -> None:
    before = open_ledger(tmp_path, takers={})
    take(before, *(event(f"v1:{n}", f"n{n}@example.com", at=n) for n in range(3)))
    there = [Record(str(n), Visitor(email=f"i{n}@example.com", name="Im Ported")) for n in range(BATCH + 3)]
    with before.transaction():
        import_records(before, "elsewhere", there)
    take(before, event("v1:9", "i7@example.com", at=9))  # of whom a chat tells as well
    before.engine.close()
    ledger = open_ledger(tmp_path, takers=CRM)
    ledger.new_id = before.new_id  # it counts

    pages = list(owe_pages(ledger, "crm", imported=False))
    assert (sum(page.contacts for page in pages), sum(page.seen for page in pages)) == (4, len(there) + 3)
    assert owe_everybody(ledger, "crm").contacts == len(there) - 1
    ledger.engine.close()
