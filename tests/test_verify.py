"""A CRM is compared with the ledger: what went apart is named, repaired where it may be, respected elsewhere."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.destinations.webhook import Webhook, WebhookSettings
from sync.http import Client
from sync.ids import new_id
from sync.ledger import Ledger, Settlement
from sync.ledger.checking import check
from sync.ledger.engine import Engine
from sync.ledger.reporting import duplicates
from sync.ledger.sqlite import SqliteEngine
from sync.models import Kind
from sync.outcomes import Paused
from sync.resync import UNREPAIRED
from sync.sandbox.store import Change, Record, Store
from sync.verify import Drift, DriftKind, Verified, verify
from tests.databases import OnTestClock, Server, select
from tests.people import event
from tests.running import Running, running

DAY = 86400.0


@dataclass
class Beside:
    """A running service, and the ledger as a command beside it has it."""

    running: Running
    ledger: Ledger
    count: int = 0

    @property
    def store(self) -> Store:
        found: Store = self.running.crm.state.store
        return found

    async def take(self, *events: Any) -> None:
        """Let the service take news."""
        await self.running.service.writer.do(lambda ledger: ledger.apply(events))

    async def people(self, n: int) -> None:
        """Put people into the CRM, each by a chat of their own."""
        for start in range(0, n, 500):
            numbers = range(self.count + start, self.count + min(start + 500, n))
            await self.take(*(person(i) for i in numbers))
        self.count += n
        await self.running.drain()

    async def verify(self, **asked: Any) -> Verified:
        return await verify(self.ledger, self.running.destination, **asked)

    def record(self, number: int) -> Record:
        found = self.store.contact(f"p{number}@example.com")
        assert found is not None
        return found

    def write(self, record: Record | None, **properties: str) -> Record:
        """Somebody writes into the CRM."""
        (made,) = self.store.write("contacts", [Change(record, properties)], made_by="sales", now=self.running.clock())
        return made

    def archive(self, number: int) -> Record:
        """Somebody deletes a record in the CRM."""
        record = self.record(number)
        self.store.archive(record.id, now=self.running.clock())
        return record

    def contact(self, number: int) -> str:
        (row,) = self.ledger.engine.rows("contacts_with_email", email=f"p{number}@example.com")
        return str(row["id"])

    def deliveries(self) -> list[dict[str, Any]]:
        return select(self.ledger, "SELECT * FROM deliveries ORDER BY id")

    def contacts(self) -> list[dict[str, Any]]:
        return select(self.ledger, "SELECT * FROM contacts ORDER BY id")

    def pending(self) -> int:
        return sum(row["state"] == "pending" for row in self.deliveries())


def person(number: int, **said: Any) -> Any:
    usual = {"name": f"Ada N{number}", "phone": "+442071234567"}
    return event(f"v1:{number}", f"p{number}@example.com", **{**usual, **said})


Open = Callable[..., Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Open:
    """Opens a service with a ledger beside it, on each engine in turn."""
    database = server.database() if request.param == "postgresql" else None

    @asynccontextmanager
    async def open_one(n: int = 0) -> AsyncIterator[Beside]:
        async with running(tmp_path, database=database) as served:
            engine: Engine = (
                SqliteEngine(tmp_path / "ledger.sqlite3", clock=served.clock)
                if database is None
                else OnTestClock(database, served.clock)
            )
            try:
                beside = Beside(served, Ledger(engine, served.ledger.takers, new_id=new_id))
                await beside.people(n)
                yield beside
            finally:
                engine.close()

    return open_one


def told(found: Verified) -> set[tuple[str, str]]:
    return {(drift.contact, str(drift.kind)) for drift in found.listed}


async def test_what_went_apart_behind_our_back_is_named_and_repaired_where_it_may_be(
    opened: Open, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    n = request.config.getoption("--contacts")
    async with opened(n) as beside:
        changed = range(0, n, n // 100)
        deleted = range(1, n, n // 20)
        doubled = range(2, n, n // 5)
        for number in changed:
            beside.write(beside.record(number), firstname="Somebody", phone="")
        for number in deleted:
            beside.archive(number)
        for number in doubled:
            beside.write(beside.record(number), email=f"old{number}@example.com")
            beside.write(None, email=f"p{number}@example.com", firstname="Second")
        expected = {(beside.contact(number), "changed") for number in (*changed, *doubled)}
        expected |= {(beside.contact(number), "deleted") for number in deleted}
        expected |= {(beside.contact(number), "duplicate") for number in doubled}
        calls = beside.running.crm.state.calls.total
        begun = time.perf_counter()

        found = await beside.verify()

        took = time.perf_counter() - begun
        calls = beside.running.crm.state.calls.total - calls
        assert told(found) == expected
        assert found.counts == {"changed": len(changed) + 5, "deleted": 20, "duplicate": 5}
        assert (found.seen, found.owed, found.passed_over, found.stopped) == (n, 0, 0, None)
        assert beside.pending() == 0
        assert len(duplicates(beside.ledger)["strays"]) == 5

        repaired = await beside.verify(fix=True)
        assert repaired.owed == len(changed) + 5
        assert await beside.running.drain() == repaired.owed

        assert beside.record(changed[1]).properties["firstname"] == "Ada"
        assert beside.record(changed[1]).properties["phone"] == "+442071234567"
        assert all(beside.store.contact(f"p{number}@example.com") is None for number in deleted)
        again = await beside.verify()
        assert {kind for _, kind in told(again)} == {"deleted", "theirs"}
        assert again.counts["deleted"] == 20
        left = {stray["remote_id"] for stray in duplicates(beside.ledger)["strays"]}
        assert left == {str(beside.store.contact(f"old{number}@example.com").id) for number in doubled}  # type: ignore[union-attr]
        assert check(beside.ledger.engine) == []
        with capsys.disabled():
            print(f"\n{n:,} contacts verified in {took:.2f} s with {calls} calls")


async def test_nobody_went_apart_and_nothing_is_written(opened: Open) -> None:
    async with opened(250) as beside:
        before = beside.deliveries(), beside.contacts()
        ran: list[str] = []
        run = beside.ledger.engine.run

        def counted(query: str, **parameters: Any) -> int:
            ran.append(query)
            return run(query, **parameters)

        beside.ledger.engine.run = counted
        found = await beside.verify(fix=True)

        assert found.is_clean
        assert found.seen == 250
        assert (beside.deliveries(), beside.contacts()) == before
        assert set(ran) == {"write_note", "drop_notes_of"}
        assert select(beside.ledger, "SELECT * FROM cursors") == []


async def test_a_hundred_that_stand_as_they_should_cost_one_call(opened: Open) -> None:
    async with opened(250) as beside:
        beside.running.crm.state.calls.clear()

        await beside.verify()

        assert beside.running.crm.state.calls.total == 3


async def test_a_dry_run_says_what_would_be_owed_and_writes_nothing(opened: Open) -> None:
    async with opened(3) as beside:
        beside.write(beside.record(1), firstname="Somebody")
        before = beside.deliveries()

        found = await beside.verify(fix=True, dry_run=True)

        assert [(d.kind, d.is_owed) for d in found.listed] == [(DriftKind.CHANGED, True)]
        assert found.owed == 1
        assert beside.deliveries() == before
        assert select(beside.ledger, "SELECT * FROM cursors") == []


async def test_the_report_holds_both_values_and_the_log_none(opened: Open, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(2) as beside:
        beside.write(beside.record(1), firstname="Canary Theirs")

        found = await beside.verify()

        ((drift),) = found.listed
        assert drift.fields == ("first_name",)
        assert [(d.ours, d.theirs, d.may_write) for d in drift.differences] == [("Ada", "Canary Theirs", True)]
        assert "Canary Theirs" in json.dumps(found.plain())
        assert "Canary" not in "".join(capsys.readouterr())
        assert "Canary" not in str(select(beside.ledger, "SELECT * FROM cursors"))


async def test_what_a_person_deleted_stays_deleted_until_it_is_asked_for(opened: Open) -> None:
    async with opened(2) as beside:
        beside.archive(1)

        assert (await beside.verify(fix=True)).owed == 0
        assert await beside.running.drain() == 0
        assert (await beside.verify(fix_deleted=True)).owed == 1
        await beside.running.drain()

        assert beside.record(1).properties["firstname"] == "Ada"
        assert (await beside.verify()).is_clean


async def test_a_record_that_is_gone_without_a_trace_is_made_anew_only_where_that_is_asked_for(opened: Open) -> None:
    """So stands there who was deleted for good, as GDPR demands: no archived record tells of it."""
    async with opened(2) as beside:
        gone = beside.record(1)
        beside.store.remove(gone.id, with_notes=True)

        found = await beside.verify(fix=True)
        assert [(drift.kind, drift.is_owed) for drift in found.listed] == [(DriftKind.MISSING, False)]
        assert (found.owed, await beside.running.drain()) == (0, 0)
        assert beside.store.contact("p1@example.com") is None
        assert DriftKind.MISSING in UNREPAIRED

        assert (await beside.verify(fix_deleted=True)).owed == 0
        assert (await beside.verify(fix_missing=True)).owed == 1
        await beside.running.drain()
        assert beside.record(1).properties["firstname"] == "Ada"
        assert beside.record(1).id != gone.id
        assert (await beside.verify()).is_clean


async def test_whoever_was_deleted_for_good_and_says_something_new_is_there_again(opened: Open) -> None:
    async with opened(2) as beside:
        beside.store.remove(beside.record(1).id, with_notes=True)
        await beside.verify(fix=True)
        await beside.take(person(1, name="Augusta N1", at=9.0))
        await beside.running.drain()

        assert beside.record(1).properties["firstname"] == "Augusta"
        assert (await beside.verify()).is_clean


async def test_who_was_never_acknowledged_is_delivered_and_not_missing(opened: Open) -> None:
    async with opened(1) as beside:
        await beside.take(person(1))
        beside.count += 1

        found = await beside.verify(fix=True)
        assert (found.seen, found.listed) == (1, [])
        await beside.running.drain()
        assert beside.record(1).properties["firstname"] == "Ada"


async def test_a_record_that_may_have_been_deleted_long_ago_counts_as_deleted(opened: Open) -> None:
    async with opened(2) as beside:
        beside.archive(1)
        beside.running.clock.sleep(91 * DAY)

        found = await beside.verify(fix=True)

        assert [drift.kind for drift in found.listed] == [DriftKind.DELETED]
        assert beside.pending() == 0


async def test_a_merged_record_is_followed_and_what_others_wrote_is_kept(opened: Open) -> None:
    async with opened(1) as beside:
        theirs = beside.write(None, email="sales@example.com", firstname="Augusta", city="London")
        merged = beside.store.merge(theirs, beside.record(0), made_by="sales", now=beside.running.clock())

        found = await beside.verify(fix=True)
        await beside.running.drain()

        ((drift),) = found.listed
        assert (drift.kind, drift.records) == (DriftKind.MOVED, (str(merged.id),))
        (row,) = beside.deliveries()
        assert (row["state"], row["remote_id"]) == ("delivered", str(merged.id))
        assert beside.store.one("contacts", merged.id).properties["firstname"] == "Augusta"  # type: ignore[union-attr]
        assert len(beside.store.contacts) == 1
        assert (await beside.verify(fix=True)).owed == 0


async def test_two_of_ours_who_were_merged_over_there_stay_two_persons(opened: Open) -> None:
    async with opened(2) as beside:
        merged = beside.store.merge(beside.record(0), beside.record(1), made_by="sales", now=beside.running.clock())

        first = await beside.verify(fix=True)
        await beside.running.drain()
        found = await beside.verify(fix=True)

        assert (first.counts, first.owed) == ({"moved": 2}, 1)
        assert (found.counts["moved"], found.owed) == (1, 0)
        assert [row["remote_id"] for row in beside.deliveries()].count(str(merged.id)) == 1
        assert beside.pending() == 0
        assert check(beside.ledger.engine) == []


async def test_whoever_has_another_record_by_now_is_found_there(opened: Open) -> None:
    async with opened(1) as beside:
        beside.archive(0)
        other = beside.write(None, email="p0@example.com", firstname="Augusta")

        found = await beside.verify(fix=True)
        await beside.running.drain()

        assert [(drift.kind, drift.records) for drift in found.listed] == [(DriftKind.MOVED, (str(other.id),))]
        (row,) = beside.deliveries()
        assert (row["remote_id"], bool(row["ours"])) == (str(other.id), False)
        assert beside.record(0).properties["firstname"] == "Augusta"


async def test_somebody_with_a_phone_only_is_known_by_our_uid(opened: Open) -> None:
    async with opened(1) as beside:
        await beside.take(event("v1:77", name="Grace", phone="+12025550177"))
        await beside.running.drain()
        (record,) = [record for record in beside.store.contacts if "email" not in record.properties]
        uid = record.properties["chat_crm_sync_uid"]
        beside.write(record, chat_crm_sync_uid="")
        other = beside.write(None, lastname="Second", chat_crm_sync_uid=uid)

        found = await beside.verify()

        assert [(drift.kind, drift.records) for drift in found.listed] == [(DriftKind.DUPLICATE, (str(other.id),))]


async def test_an_email_that_is_another_records_second_one_is_a_duplicate(opened: Open) -> None:
    async with opened(1) as beside:
        beside.write(beside.record(0), email="changed@example.com")
        other = beside.write(None, email="x@example.com", hs_additional_emails="y@example.com;p0@example.com")

        found = await beside.verify()

        assert [(str(d.kind), d.records) for d in found.listed] == [("changed", ()), ("duplicate", (str(other.id),))]


@pytest.mark.parametrize(
    ("overwrite", "ours", "kind", "after"),
    [
        ("ours", True, "changed", "Ada"),
        ("ours", False, "theirs", "Augusta"),
        ("never", True, "theirs", "Augusta"),
        ("always", False, "changed", "Ada"),
    ],
)
async def test_the_modes_decide_whose_word_stands(
    opened: Open, monkeypatch: pytest.MonkeyPatch, overwrite: str, ours: bool, kind: str, after: str
) -> None:
    monkeypatch.setenv("SANDBOX_OVERWRITE", overwrite)
    async with opened() as beside:
        if not ours:
            beside.write(None, email="p0@example.com")
        await beside.people(1)
        beside.write(beside.record(0), firstname="Augusta")

        found = await beside.verify(fix=True)
        await beside.running.drain()

        assert told(found) == {(beside.contact(0), kind)}
        assert beside.record(0).properties["firstname"] == after


async def test_what_is_empty_on_a_strangers_record_is_filled(opened: Open) -> None:
    async with opened() as beside:
        beside.write(None, email="p0@example.com", firstname="Augusta")
        await beside.people(1)
        beside.write(beside.record(0), lastname="", firstname="Augusta")

        found = await beside.verify(fix=True)
        await beside.running.drain()

        ((drift),) = found.listed
        assert {d.field: d.may_write for d in drift.differences} == {"first_name": False, "last_name": True}
        assert beside.record(0).properties["firstname"] == "Augusta"
        assert beside.record(0).properties["lastname"] == "N0"


@contextmanager
def while_read(beside: Beside, happens: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Something happens each time after the CRM was read."""
    destination: Any = beside.running.destination
    real = destination.read_back

    async def read_back(known: Any) -> Any:
        standings = await real(known)
        await happens()
        return standings

    destination.read_back = read_back
    yield
    del destination.read_back


async def test_news_that_come_while_it_is_read_are_no_drift(opened: Open) -> None:
    async with opened(3) as beside:
        beside.write(beside.record(1), firstname="Somebody")

        async def news() -> None:
            await beside.take(person(1, name="Augusta N1", at=9.0))

        with while_read(beside, news):
            found = await beside.verify(fix=True)

        assert (found.listed, found.passed_over, found.owed) == ([], 1, 0)
        (row,) = [row for row in beside.deliveries() if row["state"] == "pending"]
        assert not row["replayed"]
        await beside.running.drain()
        assert beside.record(1).properties["firstname"] == "Augusta"


async def test_a_lane_that_delivers_while_it_is_read_is_not_undone(opened: Open) -> None:
    async with opened(3) as beside:
        beside.write(beside.record(1), firstname="Somebody")

        async def delivery() -> None:
            await beside.take(person(1, name="Augusta N1", at=9.0))
            await beside.running.drain()

        with while_read(beside, delivery):
            found = await beside.verify(fix=True)

        assert (found.listed, found.passed_over) == ([], 1)
        assert beside.pending() == 0
        assert beside.record(1).properties["firstname"] == "Augusta"


async def test_what_is_under_way_is_not_looked_at(opened: Open) -> None:
    async with opened(3) as beside:
        beside.write(beside.record(1), firstname="Somebody")
        await beside.take(person(1, name="Augusta N1", at=9.0))
        pipeline, destination = beside.running.service.pipeline, beside.running.destination
        claimed = await pipeline.claim(destination, [(Kind.CONTACT, 100)], 60.0)
        assert len(claimed.owed) == 1

        found = await beside.verify(fix=True)

        assert (found.seen, found.listed) == (2, [])


class Interrupted(Exception):
    """The process ends here."""


def dies_after(pages: int) -> Callable[[], Awaitable[None]]:
    left = iter(range(pages))

    async def dies() -> None:
        if next(left, None) is None:
            raise Interrupted

    return dies


async def test_a_run_that_is_killed_after_any_page_goes_on_and_finds_the_same(opened: Open) -> None:
    async with opened(450) as beside:
        for number in (5, 120, 121, 250, 380, 449):
            beside.write(beside.record(number), firstname="Somebody")
        whole = await beside.verify()

        for after in range(1, 6):
            found = None
            while found is None:  # each process gets so many pages further
                with while_read(beside, dies_after(after)), suppress(Interrupted):
                    found = await beside.verify()

            assert found.resumed == (after < 5)
            assert (found.seen, found.counts) == (whole.seen, whole.counts)
            assert [(d.contact, d.kind, d.fields) for d in found.listed] == [
                (d.contact, d.kind, d.fields) for d in whole.listed
            ]
            assert select(beside.ledger, "SELECT * FROM cursors") == []


async def test_a_run_that_is_killed_amid_its_repairs_repairs_each_once(opened: Open) -> None:
    async with opened(250) as beside:
        for number in (5, 120, 240):
            beside.write(beside.record(number), firstname="Somebody")
        with while_read(beside, dies_after(1)), pytest.raises(Interrupted):
            await beside.verify(fix=True)
        before = await beside.running.drain()
        found = await beside.verify(fix=True)

        assert (found.resumed, found.owed, found.counts) == (True, 3, {"changed": 3})
        assert before + await beside.running.drain() == 3
        assert (await beside.verify()).is_clean


async def test_the_night_after_goes_on_though_its_seed_and_its_days_are_of_that_night(opened: Open) -> None:
    async with opened(450) as beside:
        week = 7 * 86400
        with while_read(beside, dies_after(2)), pytest.raises(Interrupted):
            await beside.verify(sample=400, seed=None, since=beside.running.clock.now - week)
        beside.running.clock.sleep(3600)
        found = await beside.verify(sample=400, seed=None, since=beside.running.clock.now - week)

        assert (found.resumed, found.seen) == (True, 400)


async def test_another_question_begins_anew(opened: Open) -> None:
    async with opened(150) as beside:
        beside.running.crm.before = _down_after(1)
        assert (await beside.verify()).stopped is not None
        beside.running.crm.before = lambda request: None

        found = await beside.verify(fix=True)

        assert (found.resumed, found.seen) == (False, 150)


async def test_what_was_broken_off_long_ago_begins_anew(opened: Open) -> None:
    async with opened(150) as beside:
        beside.running.crm.before = _down_after(1)
        assert (await beside.verify()).seen == 100
        beside.running.crm.before = lambda request: None
        beside.running.clock.sleep(2 * DAY)

        assert (await beside.verify()).resumed is False


def _down_after(calls: int) -> Callable[[Any], None]:
    left = iter(range(calls))

    def before(request: Any) -> None:
        if next(left, None) is None:
            raise httpx.ConnectError("refused", request=request)

    return before


async def test_a_crm_that_is_down_stops_it_with_the_reason_and_it_goes_on_later(opened: Open) -> None:
    async with opened(250) as beside:
        beside.write(beside.record(1), firstname="Somebody")
        beside.running.crm.before = _down_after(2)

        stopped = await beside.verify()
        beside.running.crm.before = lambda request: None
        found = await beside.verify()

        assert stopped.stopped == "no connection (ConnectError)"
        assert (found.resumed, found.seen, found.counts) == (True, 250, {"changed": 1})


async def test_a_destination_that_is_paused_is_left_alone(opened: Open) -> None:
    async with opened(2) as beside:
        await beside.take(person(1, name="Augusta N1", at=9.0))
        pipeline, destination = beside.running.service.pipeline, beside.running.destination
        claimed = await pipeline.claim(destination, [(Kind.CONTACT, 100)], 60.0)
        (owed,) = claimed.owed
        told_to_wait = Settlement(owed.delivery, owed.claim, owed.version, Paused("too many calls (429)"), pause_for=60)
        await pipeline.writer.settle([told_to_wait])
        beside.running.crm.state.calls.clear()

        found = await beside.verify()

        assert found.stopped == "sandbox is paused: too many calls (429)"
        assert beside.running.crm.state.calls.total == 0


async def test_a_sample_is_the_same_with_the_same_seed(opened: Open) -> None:
    async with opened(300) as beside:
        for number in range(300):
            beside.write(beside.record(number), firstname="Somebody")

        one, same, other = [await beside.verify(sample=120, seed=seed) for seed in (1, 1, 2)]

        assert [found.seen for found in (one, same, other)] == [120, 120, 120]
        assert told(one) == told(same) != told(other)


async def test_only_what_was_delivered_since_is_looked_at(opened: Open) -> None:
    async with opened(5) as beside:
        beside.running.clock.sleep(DAY)
        since = beside.running.clock()
        await beside.people(3)

        assert (await beside.verify(since=since)).seen == 3
        assert (await beside.verify(since=since, sample=2)).seen == 2


async def test_all_are_counted_and_the_first_are_listed(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.verify.LISTED", 150)
    async with opened(220) as beside:
        for number in range(220):
            beside.write(beside.record(number), firstname="Somebody")
        heard: list[Drift] = []

        found = await beside.verify(told=heard.append)

        assert (found.counts["changed"], len(found.listed), len(heard)) == (220, 150, 220)


async def test_a_destination_that_cannot_be_read_back_says_so(opened: Open) -> None:
    async with opened(1) as beside:
        settings = WebhookSettings(base_url="https://hooks.example.com/in", _env_file=None)
        client = Client("", transport=beside.running.crm)
        webhook = Webhook("webhook", settings, client, clock=beside.running.clock)

        found = await verify(beside.ledger, webhook)
        await client.aclose()

        assert found.cannot == "webhook cannot be read back"
        assert not found.is_clean
