"""The writer thread: group commit, and what happens when the disk says no (promise P1)."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3  # one process must not mix two SQLite libraries: they share its file locks

from sync.errors import LedgerError, LedgerUnavailable
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

    assert [type(result).__name__ for result in results] == ["Applied", "LedgerError", "Applied"]
    assert "ZeroDivisionError" in str(results[1])
    assert "boom" not in str(results[1])


async def test_a_ledger_in_which_not_even_a_poisonous_event_can_be_stored_is_said_and_recovers(
    ledger: Ledger, thread: Writer
) -> None:
    connection(ledger).execute("ALTER TABLE events RENAME TO gone")
    async with asyncio.timeout(5):
        failed = await asyncio.gather(
            *(thread.apply(event(f"v1:{n}", f"p{n}@example.com")) for n in range(1, 4)), return_exceptions=True
        )

    connection(ledger).execute("ALTER TABLE gone RENAME TO events")
    assert {type(error) for error in failed} == {LedgerError}
    assert thread.is_alive
    assert (await thread.apply(event("v1:1", "ada@example.com"))).status == "accepted"


async def test_whatever_a_job_raises_the_writer_answers_and_goes_on(ledger: Ledger, thread: Writer) -> None:
    def ends(_: Ledger) -> None:
        raise SystemExit

    def runs_out(_: Ledger) -> None:
        next(iter(()))

    async with asyncio.timeout(5):
        both = asyncio.gather(thread.do(ends), thread.apply(event("v1:1", "a@example.com")), return_exceptions=True)
        interrupted = await both
        out = await asyncio.gather(thread.do(runs_out), return_exceptions=True)

    assert [type(error) for error in (*interrupted, *out)] == [LedgerUnavailable, LedgerUnavailable, LedgerError]
    assert thread.is_alive
    assert (await thread.apply(event("v1:1", "a@example.com"))).status == "accepted"


async def test_a_query_that_is_wrong_is_no_reason_to_refuse_the_rest_of_the_group(
    ledger: Ledger, thread: Writer
) -> None:
    wrong = thread.do(lambda _: connection(ledger).execute("SELECT json('{')"))

    answers = await asyncio.gather(wrong, thread.apply(event("v1:1", "a@example.com")), return_exceptions=True)

    assert [type(answer).__name__ for answer in answers] == ["LedgerError", "Applied"]
    assert "damaged" not in str(answers[0])


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


async def test_while_it_closes_it_takes_nothing_more(ledger: Ledger) -> None:
    thread, released = Writer(ledger), threading.Event()
    working = asyncio.ensure_future(thread.do(lambda _: released.wait(5)))
    closing = asyncio.create_task(asyncio.to_thread(thread.close))
    async with asyncio.timeout(5):
        while not thread._is_closing:
            await asyncio.sleep(0.001)

        with pytest.raises(LedgerUnavailable, match="stopping"):
            await thread.apply(event("v1:1", "late@example.com"))
        released.set()
        await asyncio.gather(working, closing)


async def test_the_lanes_are_woken_after_a_commit_that_owes_something(ledger: Ledger) -> None:
    woken: list[int] = []
    thread = Writer(ledger, on_commit=lambda: woken.append(1))

    await thread.do(lambda _: None)
    assert woken == []
    await thread.apply(event("v1:1", "ada@example.com"))
    assert woken == [1]
    thread.close()
