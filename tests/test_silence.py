"""A source that has gone silent is noticed: counted in the hours in which webhooks are expected, by the wall clock."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.alarms import News, review
from sync.hours import Hours, hours_of_week
from sync.ids import new_id
from sync.ledger import Ledger
from sync.ledger.hearing import heard, heard_at, history
from sync.silence import DAY, HOUR, MINUTE, Expectation, busy_hours, longest, rounded_up, silent_for, span, spelled
from tests.databases import Server, open_on
from tests.people import Clock, event

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
ZONES = st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "Asia/Kathmandu", "UTC"])


def week(text: str) -> Hours:
    found = hours_of_week(text)
    assert isinstance(found, Hours)
    return found


def at(text: str, zone: str = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def silent(since: str, until: str, hours: str | None, zone: str = BERLIN) -> float:
    return silent_for(at(since, zone), at(until, zone), None if hours is None else week(hours), ZoneInfo(zone)) / HOUR


@pytest.mark.parametrize(
    ("since", "until", "hours", "expected"),
    [
        ("2026-06-10T10:00", "2026-06-10T14:00", None, 4),
        ("2026-06-10T10:00", "2026-06-10T14:00", "9:00-18:00", 4),
        ("2026-06-10T17:00", "2026-06-11T10:00", "9:00-18:00", 2),
        ("2026-06-10T19:00", "2026-06-11T08:00", "9:00-18:00", 0),
        ("2026-06-12T17:00", "2026-06-15T10:00", "Mon-Fri 9:00-18:00", 2),  # over a weekend
        ("2026-06-12T17:00", "2026-06-15T10:00", "9:00-18:00", 20),
        ("2026-06-10T20:00", "2026-06-11T08:00", "22:00-6:00", 8),
        ("2026-06-13T20:00", "2026-06-15T08:00", "Sat 22:00-6:00", 8),  # counts to the day on which it opened
        ("2026-06-10T00:00", "2026-06-17T00:00", "Mon-Fri 0:00-24:00", 5 * 24),
        # The clock is put forward from 2:00 to 3:00, and back from 3:00 to 2:00.
        ("2026-03-29T00:00", "2026-03-29T12:00", None, 11),
        ("2026-03-29T00:00", "2026-03-29T12:00", "1:00-4:00", 2),
        ("2026-03-29T00:00", "2026-03-29T12:00", "2:30-4:00", 1),
        ("2026-10-25T00:00", "2026-10-25T12:00", None, 13),
        ("2026-10-25T00:00", "2026-10-25T12:00", "1:00-4:00", 4),
        ("2026-10-25T00:00", "2026-10-25T12:00", "2:30-4:00", 2),
    ],
)
def test_only_the_hours_in_which_something_is_expected_count(
    since: str, until: str, hours: str | None, expected: float
) -> None:
    assert silent(since, until, hours) == expected


@settings(max_examples=150, deadline=None)
@given(
    begin=st.integers(1_750_000_000 // 60, 1_850_000_000 // 60),
    minutes=st.integers(0, 4 * 24 * 60),
    opens=st.times(),
    closes=st.times(),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    zone=ZONES,
    change=st.sampled_from([None, 1_774_746_000, 1_792_890_000, 1_772_953_200, 1_793_512_800, 1_775_314_800]),
)
def test_it_is_what_somebody_who_looks_at_the_clock_every_minute_counts(
    begin: int, minutes: int, opens: time, closes: time, days: frozenset[int], zone: str, change: int | None
) -> None:
    since = float(begin * 60 if change is None else change - minutes * 30)  # some of them around a change of the clock
    since -= since % 60
    hours = Hours(opens.replace(second=0, microsecond=0), closes.replace(second=0, microsecond=0), days)
    there = ZoneInfo(zone)
    counted = sum(60.0 for n in range(minutes) if hours.are_open(since + n * 60, there))

    assert silent_for(since, since + minutes * 60, hours, there) == counted


@given(
    since=st.floats(1_750_000_000, 1_850_000_000),
    parts=st.lists(st.floats(0, 3 * DAY), min_size=1, max_size=4),
    zone=ZONES,
)
@settings(max_examples=60, deadline=None)
def test_it_adds_up_and_is_never_longer_than_the_time_itself(since: float, parts: list[float], zone: str) -> None:
    hours, there = week("Mon-Fri 9:00-18:00"), ZoneInfo(zone)
    times = [since]
    for part in parts:
        times.append(times[-1] + part)
    pieces = [silent_for(a, b, hours, there) for a, b in pairwise(times)]
    whole = silent_for(times[0], times[-1], hours, there)

    assert whole == pytest.approx(sum(pieces), abs=1e-3)
    assert -1e-6 <= whole <= times[-1] - times[0] + 1e-3


def test_what_was_heard_in_the_future_is_no_silence() -> None:
    assert silent_for(100.0, 50.0, None, ZoneInfo("UTC")) == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h", 3 * HOUR), ("45m", 45 * MINUTE), (" 90 min", 90 * MINUTE), ("600", 600.0), ("1.5h", 5400)],
)
def test_a_span_can_be_written_as_one_likes(text: str, seconds: float) -> None:
    assert span(text) == seconds
    assert span(spelled(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "soon", "3 weeks", "10s", "90d", "-3h"])
def test_a_span_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        span(text)


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("9:00-18:00", "9:00-18:00"),
        ("mon-fri 9:00 - 18:00", "Mon-Fri 9:00-18:00"),
        ("Monday, Wed,Sat-Sun 09:30-24:00", "Mon,Wed,Sat-Sun 9:30-0:00"),
        ("Sat-Mon 8:00-12:00", "Mon,Sat-Sun 8:00-12:00"),
    ],
)
def test_hours_of_the_week_are_read_as_people_write_them(text: str, spelt: str) -> None:
    assert str(week(text)) == spelt
    assert week(str(week(text))) == week(text)


@pytest.mark.parametrize("text", ["9-18", "Mon-Fri", "Foo 9:00-18:00", "9:00-9:00", "25:00-26:00", "Mon- 9:00-10:00"])
def test_hours_of_the_week_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        hours_of_week(text)


def office(days: int, zone: str = BERLIN) -> list[float]:
    """Webhooks every 20 minutes from 9 to 18 on working days, but for a lunch of two hours once."""
    first = datetime(2026, 6, 1, tzinfo=ZoneInfo(zone))
    found = []
    for day in (first + timedelta(days=n) for n in range(days)):
        if day.weekday() < 5:
            found += [(day + timedelta(hours=9, minutes=20 * n)).timestamp() for n in range(27)]
    lunch = (first + timedelta(days=2, hours=12)).timestamp()
    return [moment for moment in found if not lunch < moment < lunch + 2 * HOUR]


def gaps(moments: list[float]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in pairwise(moments) if b - a > 900]


def test_a_proposal_has_the_busy_hours_and_would_not_have_alarmed() -> None:
    moments, zone = office(28), ZoneInfo(BERLIN)
    busy = busy_hours(gaps(moments), moments[0], moments[-1], zone)

    assert str(busy) == "Mon-Fri 9:00-18:00"
    silence = longest(gaps(moments), busy, zone)
    assert silence == 2 * HOUR
    assert spelled(rounded_up(silence)) == "3h"


def test_nothing_is_proposed_for_hours_where_there_is_little_to_go_by_or_no_night() -> None:
    zone = ZoneInfo("UTC")
    assert busy_hours([], 0.0, 30 * DAY, zone) is None
    assert busy_hours([(HOUR, 29 * DAY)], 0.0, 30 * DAY, zone) is None


@given(st.floats(1, 20 * DAY))
def test_a_proposal_is_longer_than_what_was(seconds: float) -> None:
    assert seconds < rounded_up(seconds) <= seconds * 1.5 + 6 * HOUR


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, server: Server, clock: Clock) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, clock, {})
    yield opened
    opened.engine.close()


def come(ledger: Ledger, moment: float, name: str = "CHAT_ON_START") -> None:
    from dataclasses import replace

    one = replace(event(f"v1:{moment}"), id=new_id("ev", moment), received_at=moment, occurred_at=moment, name=name)
    with ledger.transaction():
        ledger.apply([one])


EVERY = {"acquire": Expectation(3 * HOUR, None, ZoneInfo("UTC"))}


def look(ledger: Ledger) -> list[News]:
    with ledger.transaction():
        return review(ledger, {}, EVERY)


def test_the_alarm_is_raised_once_and_cleared_when_one_comes(ledger: Ledger, clock: Clock) -> None:
    come(ledger, clock.now)
    clock.sleep(3 * HOUR)
    assert look(ledger) == []

    clock.sleep(1)
    (news,) = look(ledger)
    assert (news.key, news.is_over) == ("silence:acquire", False)
    assert "every 3h" in news.text
    ledger.engine.run("alarm_told", key=news.key)
    clock.sleep(DAY)
    assert look(ledger) == []

    with ledger.transaction():
        ledger.count({heard("acquire"): 1})
    assert [item.is_over for item in look(ledger)] == [True]


def test_a_webhook_that_came_before_counts_also_as_one_that_comes_again(ledger: Ledger, clock: Clock) -> None:
    come(ledger, clock.now)
    clock.sleep(HOUR)
    with ledger.transaction():
        ledger.count({heard("acquire"): 1})

    assert heard_at(ledger, "acquire") == clock.now


def test_where_nothing_ever_came_it_counts_from_when_something_was_expected(ledger: Ledger, clock: Clock) -> None:
    assert look(ledger) == []
    clock.sleep(3 * HOUR + 1)

    assert [item.key for item in look(ledger)] == ["silence:acquire"]


def test_what_was_pulled_is_no_sign_of_life(ledger: Ledger, clock: Clock) -> None:
    come(ledger, clock.now)
    clock.sleep(4 * HOUR)
    come(ledger, clock.now, name="PULLED")

    assert [item.key for item in look(ledger)] == ["silence:acquire"]


def test_the_history_is_told_by_its_silences(ledger: Ledger, clock: Clock) -> None:
    assert history(ledger, "acquire", 0.0) is None
    began = clock.now
    for minutes in (0, 1, 2, 14, 40, 41, 100, 101, 130):
        come(ledger, began + minutes * MINUTE)
    clock.sleep(DAY)
    found = history(ledger, "acquire", began - DAY)

    assert found is not None
    assert (found.begins, found.ends) == (began, began + 130 * MINUTE)
    assert [((a - began) / MINUTE, (b - began) / MINUTE) for a, b in found.silences] == [
        (14, 40),
        (41, 100),
        (101, 130),
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3 * 24 * 60 * 60), min_size=1, max_size=40))
def test_no_silence_is_overlooked(tmp_path_factory: pytest.TempPathFactory, seconds: list[int]) -> None:
    from tests.people import open_ledger

    ledger = open_ledger(tmp_path_factory.mktemp("ledger"), takers={})
    moments = sorted({1_790_000_000.0 + n for n in seconds})
    for moment in moments:
        come(ledger, moment)
    found = history(ledger, "acquire", moments[0])

    assert found is not None
    assert list(found.silences) == gaps(moments)
    ledger.engine.close()
