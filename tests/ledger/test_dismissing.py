"""What a person dismissed in the ledger, on both engines."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sync.alarms import review
from sync.errors import NotFound
from sync.ledger import Ledger, Settlement
from sync.ledger.checking import check
from sync.ledger.dismissing import dismiss_alike, dismiss_dead, dismiss_one, dismiss_unreadable
from sync.models import Event, Kind
from sync.outcomes import Dead
from tests.databases import Server, open_on, select
from tests.people import Clock, event

TAKERS = {name: frozenset({Kind.CONTACT, Kind.CHAT}) for name in ("crm", "other")}


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, Clock(), TAKERS)
    yield opened
    assert check(opened.engine) == []
    opened.engine.close()


def take(ledger: Ledger, *events: Event) -> None:
    with ledger.transaction():
        ledger.apply(events)


def die(ledger: Ledger, destination: str, *reasons: str) -> list[str]:
    """Claim contacts one by one, and let each die of its reason; the ids of their deliveries."""
    found = []
    for reason in reasons:
        with ledger.transaction():
            (one,) = ledger.claim(destination, [(Kind.CONTACT, 1)], 60.0).owed
            ledger.settle([Settlement(one.delivery, one.claim, one.version, Dead(reason, 400))])
        found.append(one.delivery)
    return found


def state(ledger: Ledger, delivery: str) -> tuple[str, str | None, int, int]:
    (row,) = select(ledger, f"SELECT state, error, wanted, done FROM deliveries WHERE id = '{delivery}'")
    return row["state"], row["error"], row["wanted"], row["done"]


def somebody(*numbers: int) -> list[Event]:
    return [event(f"v1:{n}", f"n{n}@example.com") for n in numbers]


def test_one_is_dismissed_and_no_other(ledger: Ledger) -> None:
    take(ledger, *somebody(1, 2))
    one, another = die(ledger, "crm", "no such phone", "no such phone")

    with ledger.transaction():
        assert dismiss_one(ledger, one) == "no such phone"
    assert state(ledger, one) == ("ignored", "dismissed: no such phone", 1, 1)
    assert state(ledger, another) == ("dead", "no such phone", 1, 1)
    with ledger.transaction(), pytest.raises(NotFound, match="is ignored"):
        dismiss_one(ledger, one)


def test_alike_is_the_same_reason_at_the_same_destination(ledger: Ledger) -> None:
    take(ledger, *somebody(1, 2, 3))
    one, same, different = die(ledger, "crm", "no such phone", "no such phone", "no such name")
    (elsewhere,) = die(ledger, "other", "no such phone")

    with ledger.transaction():
        assert dismiss_alike(ledger, one) == 2
    assert [state(ledger, d)[0] for d in (one, same)] == ["ignored"] * 2
    assert [state(ledger, d)[0] for d in (different, elsewhere)] == ["dead"] * 2


def test_a_destination_is_dismissed_and_no_other(ledger: Ledger) -> None:
    take(ledger, *somebody(1, 2))
    here, (elsewhere,) = die(ledger, "crm", "no", "never"), die(ledger, "other", "no")

    with ledger.transaction():
        assert dismiss_dead(ledger, "crm") == 2
    assert [state(ledger, d)[0] for d in (*here, elsewhere)] == ["ignored", "ignored", "dead"]


def test_a_newer_version_is_owed_again(ledger: Ledger) -> None:
    take(ledger, *somebody(1))
    (one,) = die(ledger, "crm", "no")
    with ledger.transaction():
        dismiss_one(ledger, one)

    take(ledger, event("v1:1", "n1@example.com", phone="+12025550143", at=60))
    assert state(ledger, one) == ("pending", None, 2, 1)


def test_the_alarm_is_over_and_the_next_one_is_told(ledger: Ledger) -> None:
    take(ledger, replace(event(None, silent=True), error="not an object"))
    with ledger.transaction():
        assert [news.key for news in review(ledger, {})] == ["unreadable"]
        ledger.engine.run("alarm_told", key="unreadable")
        assert dismiss_unreadable(ledger) == 1
        assert [(news.key, news.is_over) for news in review(ledger, {})] == [("unreadable", True)]
        ledger.engine.run("alarm_told", key="unreadable")

    take(ledger, replace(event(None, silent=True), error="not one either"))
    with ledger.transaction():
        assert [(news.key, news.is_over) for news in review(ledger, {})] == [("unreadable", False)]
    assert [row["state"] for row in select(ledger, "SELECT state FROM events ORDER BY id")] == ["kept", "unreadable"]
