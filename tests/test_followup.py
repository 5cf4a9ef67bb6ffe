"""When a follow-up is owed (promise P5): the one function that decides it, with time held still."""

from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sync.followup import BUSY, Due, FollowupSettings, History, NotDue, decide, opening
from sync.models import Chat, Contact

NOW = 1_790_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

CHAT = Chat("ch_1", "acquire", "v1:1", "co_1", started_at=NOW - 600, accepted_at=NOW - 590, closed_at=NOW - 60)
CONTACT = Contact("co_1", "co_1", name="Ada", email="ada@example.com")
HISTORY = History(mailer_since=NOW - 365 * DAY)


def rules(**given: Any) -> FollowupSettings:
    return FollowupSettings(**given)


def decided(chat: Chat = CHAT, contact: Contact = CONTACT, history: History = HISTORY, now: float = NOW, **given: Any):
    return decide(rules(**given), chat, contact, history, now)


def reason(*args: Any, **given: Any) -> str:
    decision = decided(*args, **given)
    assert isinstance(decision, NotDue)
    return decision.reason


def test_it_is_owed_a_quarter_of_an_hour_after_the_close() -> None:
    assert decided() == Due(NOW - 60 + 900)
    assert decided(delay=0) == Due(NOW)


def test_an_open_chat_is_not_followed_up() -> None:
    assert decided(replace(CHAT, closed_at=None)) is None


def test_where_no_close_is_told_of_it_can_follow_the_start() -> None:
    assert decided(replace(CHAT, closed_at=None), after_start=HOUR) == Due(NOW - 600 + HOUR)
    assert decided(CHAT, after_start=HOUR) == Due(NOW - 60 + 900)


def test_each_reason_not_to_send_is_told() -> None:
    assert "no agent" in reason(replace(CHAT, accepted_at=None))
    assert "no email" in reason(contact=replace(CONTACT, email=None))
    assert "unsubscribed" in reason(history=replace(HISTORY, suppressed="unsubscribed"))
    assert "newer chat" in reason(history=replace(HISTORY, newer_chat=True))
    assert "FOLLOWUP_COOLDOWN" in reason(history=replace(HISTORY, last_mail_at=NOW - 6 * DAY))
    assert "FOLLOWUP_MAX_AGE" in reason(replace(CHAT, closed_at=NOW - DAY - 1))
    assert "before a mailer" in reason(history=History(mailer_since=NOW - 30))


def test_a_close_that_names_the_agent_is_enough() -> None:
    assert isinstance(decided(replace(CHAT, accepted_at=None, agent="Grace")), Due)


def test_the_cooldown_ends() -> None:
    assert isinstance(decided(history=replace(HISTORY, last_mail_at=NOW - 7 * DAY)), Due)


def test_many_in_an_hour_wait_for_their_turn() -> None:
    sent = tuple(NOW - HOUR + 100 + n for n in range(60))
    decision = decided(history=replace(HISTORY, sent_at=sent), delay=0)
    assert decision == Due(NOW + 100, BUSY)
    assert decided(history=replace(HISTORY, sent_at=sent[1:]), delay=0) == Due(NOW)


def test_a_close_in_the_future_counts_as_now() -> None:
    assert decided(replace(CHAT, closed_at=NOW + DAY)) == Due(NOW + 900)


BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


@pytest.mark.parametrize(
    ("zone", "at", "opens"),
    [
        # Any other day.
        (BERLIN, "2026-06-10T08:59", "2026-06-10T09:00+02:00"),
        (BERLIN, "2026-06-10T12:00", "2026-06-10T12:00+02:00"),
        (BERLIN, "2026-06-10T18:00", "2026-06-11T09:00+02:00"),
        # The night before the clock is put forward, and back.
        (BERLIN, "2026-03-28T20:00", "2026-03-29T09:00+02:00"),
        (BERLIN, "2026-10-24T20:00", "2026-10-25T09:00+01:00"),
        (NEW_YORK, "2026-03-07T20:00", "2026-03-08T09:00-04:00"),
        (NEW_YORK, "2026-10-31T20:00", "2026-11-01T09:00-05:00"),
    ],
)
def test_quiet_hours_follow_the_clock_on_the_wall_over_both_changes(zone: str, at: str, opens: str) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = opening(rules(hours="9:00-18:00", timezone=zone), moment)
    assert datetime.fromtimestamp(found, ZoneInfo(zone)) == datetime.fromisoformat(opens)


def test_an_opening_that_the_change_leaves_out_is_the_change_itself() -> None:
    zone = ZoneInfo(BERLIN)
    moment = datetime(2026, 3, 29, 1, 30, tzinfo=zone).timestamp()
    found = opening(rules(hours="2:30-18:00", timezone=BERLIN), moment)
    assert datetime.fromtimestamp(found, zone).isoformat() == "2026-03-29T03:00:00+02:00"


def test_an_opening_that_comes_twice_is_the_next_of_them() -> None:
    zone = ZoneInfo(BERLIN)
    first = datetime(2026, 10, 25, 2, 10, tzinfo=zone).timestamp()
    settings = rules(hours="2:30-18:00", timezone=BERLIN)
    assert opening(settings, first) - first == 20 * MINUTE
    again = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=zone).timestamp()
    assert opening(settings, again) - again == 20 * MINUTE


def test_hours_over_midnight_are_open_at_night() -> None:
    settings = rules(hours="22:00-6:00", timezone=BERLIN)
    night = datetime(2026, 6, 10, 23, 0, tzinfo=ZoneInfo(BERLIN)).timestamp()
    noon = datetime(2026, 6, 10, 12, 0, tzinfo=ZoneInfo(BERLIN)).timestamp()
    assert opening(settings, night) == night
    assert opening(settings, noon) - noon == 10 * HOUR


def test_a_mail_that_waits_for_the_morning_says_so_and_one_that_would_wait_too_long_is_dropped() -> None:
    evening = datetime(2026, 6, 10, 20, 0, tzinfo=ZoneInfo(BERLIN)).timestamp()
    chat = replace(CHAT, closed_at=evening)
    morning = datetime(2026, 6, 11, 9, 0, tzinfo=ZoneInfo(BERLIN)).timestamp()
    given = {"hours": "9:00-18:00", "timezone": BERLIN}
    assert decided(chat, now=evening, **given) == Due(morning, "it waits for FOLLOWUP_HOURS")
    assert "in time" in reason(chat, now=evening, max_age=6 * HOUR, **given)


@given(
    at=st.floats(1_750_000_000, 1_850_000_000),
    opens=st.times(),
    closes=st.times(),
    zone=st.sampled_from([BERLIN, NEW_YORK, "Asia/Kathmandu", "Australia/Lord_Howe"]),
)
def test_the_opening_is_open_and_never_early_nor_a_day_and_a_half_late(
    at: float, opens: time, closes: time, zone: str
) -> None:
    opens, closes = opens.replace(second=0, microsecond=0), closes.replace(second=0, microsecond=0)
    if opens == closes:
        return
    settings = FollowupSettings(timezone=zone).model_copy(update={"hours": (opens, closes)})
    found = opening(settings, at)
    assert at <= found <= at + 36 * HOUR
    assert opening(settings, found) == found
    clock = datetime.fromtimestamp(found, ZoneInfo(zone)).time()
    assert opens <= clock < closes if opens < closes else clock >= opens or clock < closes


@given(minutes=st.integers(0, 3 * 24 * 60), delay=st.integers(0, 90_000))
def test_what_is_due_is_never_older_than_the_limit(minutes: int, delay: int) -> None:
    now = NOW + minutes * MINUTE
    decision = decided(now=now, delay=delay, hours="9:00-18:00", timezone=BERLIN)
    if isinstance(decision, Due):
        assert now <= decision.at <= NOW - 60 + timedelta(days=1).total_seconds()


@pytest.mark.parametrize("hours", ["9-18", "25:00-26:00", "9:00", "9:00-9:00", "9:61-10:00"])
def test_hours_that_are_none_are_refused(hours: str) -> None:
    with pytest.raises(ValidationError):
        rules(hours=hours)


def test_a_zone_or_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError):
        rules(timezone="Mars/Olympus")
    with pytest.raises(ValidationError):
        rules(sender="nobody")
    assert rules(sender="Ada <ada@example.com>").sender == "Ada <ada@example.com>"
