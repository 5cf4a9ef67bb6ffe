"""The follow-up in the ledger, on both engines: owed once, written down before it leaves, at most once (promise P5)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.addresses import Addresses
from sync.errors import LetterError, NotFound
from sync.followup import FollowupSettings
from sync.ledger import Ledger, Settlement
from sync.ledger.checking import check
from sync.ledger.mailing import Mailing, resolve, set_up
from sync.models import MAIL, Chat, Contact, Email, EventType, Kind, Owed, Receipt, State
from sync.outcomes import Dead, Delivered, Ignored, Outcome, Paused, Retry, Unknown
from sync.secret import digest
from tests.databases import Server, open_on, select
from tests.people import CRM, NOON, Clock, event

ADA, BOB = "ada@example.com", "bob@example.com"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
LEASE = 60.0
TAKERS = {**CRM, MAIL: frozenset({Kind.EMAIL})}


def write(chat: Chat, contact: Contact, key: str, at: float) -> Email:
    if contact.name == "broken":
        raise LetterError("followup.txt, line 3: nothing of that name")
    return Email(str(contact.email), "us@example.com", "Thanks", f"about {chat.chat}", "<p>", key, at)


def mailing(repeatable_for: float = 0.0, mailer: str = "smtp", **rules: Any) -> Mailing:
    hashes = Addresses(digest(b"k" * 32))
    return Mailing(mailer, repeatable_for, FollowupSettings(**rules), hashes.hash, hashes.digest, write)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, clock, TAKERS)
    opened.mailing = mailing()
    with opened.transaction():
        opened.set_up_mail()
    yield opened
    assert check(opened.engine) == []
    opened.engine.close()


def chat(ledger: Ledger, number: int = 1, email: str | None = ADA, *, at: float = 0.0, name: str | None = None) -> None:
    """One whole chat: begun, accepted, closed a minute later."""
    place = f"v1:{number}"
    with ledger.transaction():
        ledger.apply(
            [
                event(place, email, at=at, name=name),
                event(place, at=at + 5, type=EventType.ACCEPT, agent="Grace", silent=True),
                event(place, at=at + 60, type=EventType.CLOSE, closed=True, agent="Grace", silent=True),
            ]
        )


def mails(ledger: Ledger) -> list[dict[str, Any]]:
    return select(
        ledger,
        "SELECT d.*, chats.chat FROM deliveries d JOIN chats ON chats.id = d.subject"
        " WHERE d.kind = 'email' ORDER BY d.id",
    )


def only(ledger: Ledger) -> dict[str, Any]:
    (row,) = mails(ledger)
    return row


def claim(ledger: Ledger) -> list[Owed[Email]]:
    """Everything that may leave now, one by one as a lane does."""
    found: list[Any] = []
    while True:
        with ledger.transaction():
            claimed = ledger.claim(MAIL, [(Kind.EMAIL, 1)], LEASE)
        if claimed.owed:
            found += claimed.owed
        elif claimed.wake_in is None or claimed.wake_in > 0:
            return found


def settle(ledger: Ledger, mail: Owed[Email], outcome: Outcome, retry_in: float = 60.0) -> None:
    with ledger.transaction():
        ledger.settle([Settlement(mail.delivery, mail.claim, mail.version, outcome, retry_in, retry_in)])


SENT = Delivered(Receipt("queue-1", ours=True))


def test_a_closed_chat_owes_one_mail_a_quarter_of_an_hour_later(ledger: Ledger, clock: Clock) -> None:
    chat(ledger)
    clock.now = NOON + 60 + 899
    assert claim(ledger) == []
    clock.now = NOON + 60 + 900
    (mail,) = claim(ledger)

    assert (mail.subject.to, mail.subject.text) == (ADA, "about v1:1")
    row = only(ledger)
    assert row["state"] == State.UNKNOWN
    assert row["error"].startswith("sending since")
    (written,) = select(ledger, "SELECT * FROM emails")
    assert json.loads(written["rendered"])["key"] == mail.subject.key
    settle(ledger, mail, SENT)
    assert only(ledger)["state"] == State.DELIVERED
    assert claim(ledger) == []


def test_more_about_the_chat_decides_anew_and_never_sends_anew(ledger: Ledger, clock: Clock) -> None:
    chat(ledger)
    clock.now += 10 * MINUTE
    with ledger.transaction():
        ledger.apply([event("v1:1", at=600, type=EventType.CLOSE, closed=True, silent=True)])
    first = only(ledger)["due_at"]
    clock.now = first
    (mail,) = claim(ledger)
    settle(ledger, mail, SENT)
    with ledger.transaction():
        ledger.apply([event("v1:1", BOB, at=1, name="late start"), event("v1:1", at=1900, closed=True, silent=True)])

    assert only(ledger)["state"] == State.DELIVERED
    clock.now += DAY
    assert claim(ledger) == []


def test_two_chats_that_close_at_once_owe_one_mail(ledger: Ledger, clock: Clock) -> None:
    with ledger.transaction():
        ledger.apply(
            [
                e
                for n in (1, 2)
                for e in (
                    event(f"v1:{n}", ADA),
                    event(f"v1:{n}", at=60, type=EventType.CLOSE, closed=True, agent="Grace", silent=True),
                )
            ]
        )
    clock.now += HOUR
    sent = claim(ledger)

    assert len(sent) == 1
    withdrawn = [row for row in mails(ledger) if row["state"] == State.IGNORED]
    assert ["FOLLOWUP_COOLDOWN" in row["error"] for row in withdrawn] == [True]


def test_a_new_chat_of_the_person_withdraws_the_mail_of_the_old_one(ledger: Ledger, clock: Clock) -> None:
    chat(ledger, 1)
    with ledger.transaction():
        ledger.apply([event("v1:2", ADA, at=300)])
    clock.now += HOUR

    assert claim(ledger) == []
    assert "newer chat" in only(ledger)["error"]


def test_who_joined_another_person_counts_as_that_one(ledger: Ledger, clock: Clock) -> None:
    with ledger.transaction():
        ledger.apply([event("v1:1", "typo@example.com"), event("v1:1", ADA, at=10)])
    chat(ledger, 1, None, at=20)
    clock.now += HOUR
    (mail,) = claim(ledger)
    assert mail.subject.to == ADA
    settle(ledger, mail, SENT)
    chat(ledger, 2, ADA, at=7200)
    clock.now = NOON + 4 * HOUR

    assert claim(ledger) == []


def test_whoever_unsubscribed_gets_none_and_may_come_back(ledger: Ledger, clock: Clock) -> None:
    chat(ledger)
    address = ledger.mailing.address("ADA@example.com") if ledger.mailing else ""
    with ledger.transaction():
        assert ledger.suppress(address, "unsubscribed")
        assert not ledger.suppress(address, "bounced")
    clock.now += HOUR
    assert claim(ledger) == []
    assert only(ledger)["error"] == "no mail goes to this address: unsubscribed"
    with ledger.transaction():
        assert ledger.unsuppress(address)
        assert not ledger.unsuppress(address)
    chat(ledger, 2, ADA, at=7200)
    clock.now = NOON + 4 * HOUR
    assert len(claim(ledger)) == 1


def test_an_answer_that_is_lost_is_unknown_and_never_sent_again(ledger: Ledger, clock: Clock) -> None:
    chat(ledger)
    clock.now += HOUR
    (mail,) = claim(ledger)
    settle(ledger, mail, Unknown("the connection was lost"))

    clock.now += HOUR
    assert claim(ledger) == []
    assert only(ledger)["state"] == State.UNKNOWN
    assert [row["chat"] for row in ledger.engine.rows("unknown_mails")] == ["v1:1"]


def test_a_sender_that_dies_leaves_unknown_behind(ledger: Ledger, clock: Clock) -> None:
    chat(ledger)
    clock.now += HOUR
    assert len(claim(ledger)) == 1
    clock.now += DAY / 2

    assert claim(ledger) == []
    assert only(ledger)["state"] == State.UNKNOWN


def test_what_certainly_did_not_go_out_is_tried_again(ledger: Ledger, clock: Clock) -> None:
    chat(ledger)
    clock.now += HOUR
    (mail,) = claim(ledger)
    settle(ledger, mail, Retry("greylisted", 451))
    assert only(ledger)["state"] == State.PENDING
    clock.now += 61
    (again,) = claim(ledger)
    assert again.subject.key != mail.subject.key
    settle(ledger, again, Paused("no connection"))
    assert only(ledger)["state"] == State.PENDING
    clock.now += DAY
    assert claim(ledger) == []
    assert "FOLLOWUP_MAX_AGE" in only(ledger)["error"]


def test_a_refused_recipient_is_dead(ledger: Ledger, clock: Clock) -> None:
    chat(ledger)
    clock.now += HOUR
    (mail,) = claim(ledger)
    settle(ledger, mail, Dead("no such mailbox", 550))

    assert only(ledger)["state"] == State.DEAD


def test_a_template_that_fails_is_dead_with_its_line(ledger: Ledger, clock: Clock) -> None:
    chat(ledger, name="broken")
    clock.now += HOUR

    assert claim(ledger) == []
    assert (only(ledger)["state"], only(ledger)["error"]) == ("dead", "followup.txt, line 3: nothing of that name")
    assert select(ledger, "SELECT * FROM emails") == []


def test_with_a_key_the_same_mail_is_handed_over_again_within_its_time(ledger: Ledger, clock: Clock) -> None:
    ledger.mailing = mailing(repeatable_for=2 * HOUR, mailer="resend")
    chat(ledger)
    clock.now += HOUR
    (mail,) = claim(ledger)  # and the process dies
    clock.now += LEASE + 1
    (again,) = claim(ledger)
    assert again.subject == mail.subject
    settle(ledger, again, Retry("the connection was lost", may_have_landed=True))
    clock.now += 61
    (third,) = claim(ledger)
    assert third.subject == mail.subject
    settle(ledger, third, Retry("the connection was lost", may_have_landed=True))
    clock.now += 2 * HOUR

    assert claim(ledger) == []
    assert (only(ledger)["state"], "cannot be asked again" in only(ledger)["error"]) == ("unknown", True)


def test_a_host_with_much_shorter_leases_does_not_hand_over_what_another_is_handing_over(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.mailing = mailing(repeatable_for=23 * HOUR, mailer="resend")
    chat(ledger)
    clock.now += HOUR
    with ledger.transaction():
        assert len(ledger.claim(MAIL, [(Kind.EMAIL, 1)], 2 * HOUR).owed) == 1

    assert claim(ledger) == []
    clock.now += 2 * HOUR + 1
    assert len(claim(ledger)) == 1


def test_another_mailer_never_repeats_what_the_one_before_may_have_sent(ledger: Ledger, clock: Clock) -> None:
    ledger.mailing = mailing(repeatable_for=2 * HOUR, mailer="resend")
    chat(ledger)
    clock.now += HOUR
    (mail,) = claim(ledger)
    settle(ledger, mail, Retry("the connection was lost", may_have_landed=True))
    ledger.mailing = mailing(repeatable_for=2 * HOUR, mailer="brevo")
    clock.now += 61

    assert claim(ledger) == []
    assert only(ledger)["state"] == State.UNKNOWN


def test_a_late_answer_that_it_went_out_counts_and_any_other_does_not(ledger: Ledger, clock: Clock) -> None:
    ledger.mailing = mailing(repeatable_for=2 * HOUR, mailer="resend")
    chat(ledger)
    clock.now += HOUR
    (slow,) = claim(ledger)
    clock.now += LEASE + 1
    (again,) = claim(ledger)
    settle(ledger, slow, Retry("no"))
    assert only(ledger)["state"] == State.UNKNOWN
    settle(ledger, slow, SENT)
    assert only(ledger)["state"] == State.DELIVERED
    settle(ledger, again, Retry("busy", 409))
    assert only(ledger)["state"] == State.DELIVERED


def test_a_person_decides_what_nobody_knows(ledger: Ledger, clock: Clock) -> None:
    chat(ledger, 1)
    chat(ledger, 2, BOB)
    clock.now += HOUR
    sending = claim(ledger)
    one, two = (row["subject"] for row in mails(ledger))
    with pytest.raises(NotFound, match="right now"), ledger.transaction():
        resolve(ledger.engine, one, was_sent=True)
    for mail in sending:
        settle(ledger, mail, Unknown("lost"))
    with ledger.transaction():
        resolve(ledger.engine, one, was_sent=True)
        resolve(ledger.engine, two, was_sent=False)
    (again,) = claim(ledger)

    assert again.subject.to == BOB
    assert again.subject.key not in {mail.subject.key for mail in sending}
    assert mails(ledger)[0]["state"] == State.DELIVERED
    with pytest.raises(NotFound), ledger.transaction():
        resolve(ledger.engine, one, was_sent=False)


def test_no_mail_for_what_was_over_before_there_was_a_mailer(ledger: Ledger, clock: Clock) -> None:
    ledger.mailing = None
    chat(ledger)
    assert mails(ledger) == []
    ledger.mailing = mailing()
    clock.now += HOUR
    with ledger.transaction():
        ledger.engine.run("set_mark", name="mailer_since", value=repr(clock.now))
        ledger.apply([event("v1:1", at=61, name="Ada", type=EventType.OTHER)])
    assert only(ledger)["error"] == "the chat was over before a mailer was set up"


def test_another_mailer_starts_without_the_pause_of_the_one_before(ledger: Ledger, clock: Clock) -> None:
    chat(ledger)
    clock.now += HOUR
    (mail,) = claim(ledger)
    settle(ledger, mail, Paused("wrong password", 535, needs_person=True), retry_in=HOUR)
    assert claim(ledger) == []
    with ledger.transaction():
        set_up(ledger.engine, "smtp")
    assert ledger.engine.rows("load_destination", name=MAIL)[0]["paused_until"] is not None
    with ledger.transaction():
        set_up(ledger.engine, "resend")
    assert ledger.engine.rows("load_destination", name=MAIL)[0]["paused_until"] is None


def test_more_than_the_limit_of_an_hour_waits(ledger: Ledger, clock: Clock) -> None:
    ledger.mailing = mailing(max_per_hour=2)
    for n in range(3):
        chat(ledger, n, f"p{n}@example.com")
    clock.now += 20 * MINUTE
    for mail in claim(ledger):
        settle(ledger, mail, SENT)
    waiting = [row for row in mails(ledger) if row["state"] == State.PENDING]

    assert ["FOLLOWUP_MAX_PER_HOUR" in row["error"] for row in waiting] == [True]
    clock.now += HOUR
    assert len(claim(ledger)) == 1


def test_a_refusal_after_a_lost_answer_leaves_the_key_as_it_was(ledger: Ledger, clock: Clock) -> None:
    """Found by the torture: a timeout and then no connection sent a second mail under a second key."""
    ledger.mailing = mailing(repeatable_for=2 * HOUR, mailer="resend")
    chat(ledger)
    clock.now += HOUR
    (mail,) = claim(ledger)
    settle(ledger, mail, Retry("timed out", may_have_landed=True))
    for outcome in (Paused("no connection"), Retry("too late in the lease"), Paused("too many", 429)):
        clock.now += 61
        (again,) = claim(ledger)
        assert again.subject == mail.subject
        settle(ledger, again, outcome)
    clock.now += 61
    (last,) = claim(ledger)
    assert last.subject == mail.subject


@pytest.mark.parametrize("outcome", [Dead("refused", 422), Ignored("not for here")], ids=str)
def test_a_refusal_for_good_after_a_lost_answer_is_unknown(ledger: Ledger, clock: Clock, outcome: Outcome) -> None:
    ledger.mailing = mailing(repeatable_for=2 * HOUR, mailer="resend")
    chat(ledger)
    clock.now += HOUR
    (mail,) = claim(ledger)
    settle(ledger, mail, Retry("timed out", may_have_landed=True))
    clock.now += 61
    (again,) = claim(ledger)
    settle(ledger, again, outcome)

    assert (only(ledger)["state"], "an earlier attempt may have sent it" in only(ledger)["error"]) == ("unknown", True)


def test_a_mail_begun_by_a_clock_that_was_ahead_is_not_repeated(ledger: Ledger, clock: Clock) -> None:
    ledger.mailing = mailing(repeatable_for=23 * HOUR, mailer="resend")
    clock.now += DAY
    chat(ledger, at=DAY)
    clock.now += HOUR
    (mail,) = claim(ledger)
    settle(ledger, mail, Retry("timed out", may_have_landed=True))
    clock.now -= DAY
    with ledger.transaction():
        ledger.engine.run("free_stranded", destination=MAIL, kind="email", absurd=0.0)

    assert claim(ledger) == []
    assert only(ledger)["state"] == State.UNKNOWN
