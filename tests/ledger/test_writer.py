"""The writer thread: group commit, and what happens when the disk says no (promise P1)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3  # one process must not mix two SQLite libraries: they share its file locks

from sync.errors import LedgerUnavailable
from sync.ledger import Ledger, writer
from sync.ledger.writer import Writer
from tests.people import event, open_ledger


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    made = open_ledger(tmp_path)
    yield made
    made.engine.close()


@pytest.fixture
async def thread(ledger: Ledger) -> AsyncIterator[Writer]:
    made = Writer(ledger)
    yield made
    made.close()


def connection(ledger: Ledger) -> Any:
    return ledger.engine.connection  # type: ignore[attr-defined]


async def test_a_full_disk_is_said_and_recovers_by_itself(ledger: Ledger, thread: Writer) -> None:
    (pages,) = connection(ledger).execute("PRAGMA page_count").fetchone()
    connection(ledger).execute(f"PRAGMA max_page_count = {pages}")
    big = event("v1:1", "ada@example.com", attributes={"remarks": "x" * 200_000})

    with pytest.raises(LedgerUnavailable, match="full"):
        await thread.apply(big)

    connection(ledger).execute("PRAGMA max_page_count = 1000000")
    assert (await thread.apply(big)).status == "accepted"


async def test_a_read_only_disk_is_said_and_recovers_by_itself(ledger: Ledger, thread: Writer) -> None:
    connection(ledger).execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnavailable, match="readonly"):
        await thread.apply(event("v1:1", "ada@example.com"))

    connection(ledger).execute("PRAGMA query_only = OFF")
    assert (await thread.apply(event("v1:1", "ada@example.com"))).status == "accepted"


async def test_a_ledger_that_is_locked_too_long_is_said_and_recovers(
    ledger: Ledger, thread: Writer, tmp_path: Path
) -> None:
    connection(ledger).execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable, match="locked"):
        await thread.apply(event("v1:1", "ada@example.com"))

    other.execute("ROLLBACK")
    other.close()
    assert (await thread.apply(event("v1:1", "ada@example.com"))).status == "accepted"


async def test_a_job_that_fails_sinks_alone(ledger: Ledger, thread: Writer) -> None:
    def broken(_: Ledger) -> None:
        raise ZeroDivisionError("boom")

    results = await asyncio.gather(
        thread.apply(event("v1:1", "ada@example.com")),
        thread.do(broken),
        thread.apply(event("v1:2", "bob@example.com")),
        return_exceptions=True,
    )

    assert [type(result).__name__ for result in results] == ["Applied", "ZeroDivisionError", "Applied"]


async def test_more_than_can_wait_is_refused(thread: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAITING", -1)

    with pytest.raises(LedgerUnavailable, match="too many"):
        await thread.apply(event("v1:1", "ada@example.com"))


async def test_what_waits_is_finished_before_it_stops(ledger: Ledger) -> None:
    thread = Writer(ledger)
    waiting = [asyncio.ensure_future(thread.apply(event(f"v1:{n}", f"p{n}@example.com"))) for n in range(1, 50)]
    await asyncio.sleep(0)

    thread.close()

    assert {applied.status for applied in await asyncio.gather(*waiting)} == {"accepted"}
    with pytest.raises(LedgerUnavailable):
        await thread.apply(event("v1:99", "late@example.com"))


async def test_the_lanes_are_woken_after_a_commit_that_owes_something(ledger: Ledger) -> None:
    woken: list[int] = []
    thread = Writer(ledger, on_commit=lambda: woken.append(1))

    await thread.do(lambda _: None)
    assert woken == []
    await thread.apply(event("v1:1", "ada@example.com"))
    assert woken == [1]
    thread.close()
