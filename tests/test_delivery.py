"""From the ledger to the CRM and back: lanes, pauses, outages, pace (promises P3, P5, P6, P7, P9)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.destinations.base import Destination
from sync.dispatcher import Lane
from sync.ledger import Ledger
from sync.models import Receipt
from tests.databases import Server, select
from tests.running import Running, running, start

HOUR = 3600.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def service(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> AsyncIterator[Running]:
    async with running(tmp_path, database=None if request.param == "sqlite" else server.database()) as made:
        yield made


@pytest.fixture
async def on_file(tmp_path: Path) -> AsyncIterator[Running]:
    """For what only a file can suffer."""
    async with running(tmp_path) as made:
        yield made


def states(ledger: Ledger) -> dict[tuple[str, str], int]:
    return {(row["kind"], row["state"]): row["n"] for row in ledger.engine.rows("delivery_states")}


def deliveries(ledger: Ledger) -> list[Any]:
    return select(ledger, "SELECT * FROM deliveries ORDER BY id")


def close(chat: int, name: str | None = None) -> dict[str, Any]:
    """A chat close in the flat form of the vendor, JSON inside a string."""
    import json

    visitor = {"name": name, "email": "", "phone": "", "remarks": "", "meta": "_by:app"}
    return {
        "id": str(1000 + chat),
        "visitor_id": str(1000 + chat),
        "chat_wait_time": "2",
        "chat_duration": "25",
        "status": "active",
        "date_created": "2026-09-21 14:13:00",
        "date_updated": "2026-09-21 14:13:00",
        "date_picked": "2026-09-21 14:13:02",
        "users": json.dumps({"agent": {"name": "Grace Agent", "email": "grace@example.com"}, "visitor": visitor}),
        "by": "agent-1",
        "event": "CHAT_ON_CLOSE",
    }


async def until_done(service: Running, *, hours: float = 48, step: float = 60.0) -> None:
    """Let time pass until nothing is pending."""
    for _ in range(int(hours * HOUR / step)):
        await service.drain()
        if not any(state == "pending" for _, state in states(service.ledger)):
            return
        service.clock.sleep(step)
    raise AssertionError(f"still pending after {hours} hours: {states(service.ledger)}")


async def test_a_record_that_was_there_before_is_only_filled_where_it_is_empty(service: Running) -> None:
    bearer = {"Authorization": "Bearer sandbox"}
    here = httpx.AsyncClient(transport=service.crm, base_url="http://127.0.0.1:8901", headers=bearer)
    before = {"email": "ada@example.com", "phone": "+442071234567", "jobtitle": "Countess", "lastname": "King"}
    await here.post("/crm/v3/objects/contacts", json={"properties": before})

    await service.post(start(1, "Ada@Example.com", "Somebody Else", phone="+1 202 555 0199"))
    await service.drain()

    (ada,) = service.crm.contacts.values()
    assert {k: ada[k] for k in before} == before
    assert ada["firstname"] == "Somebody"


async def test_a_closed_chat_becomes_one_note_on_its_contact(service: Running) -> None:
    await service.post(close(7))
    await service.post(start(7))
    await service.drain()
    await service.post(close(7))
    await service.drain()

    (record,) = service.crm.state.store.contacts
    (note,) = service.crm.state.store.notes_of(record.id)
    assert "Grace Agent" in note.properties["hs_note_body"]


async def test_agents_are_never_contacts(service: Running) -> None:
    await service.post(start(7))
    await service.post(close(7))
    await service.drain()

    assert list(service.crm.contacts) == ["ada@example.com"]


async def test_a_poisonous_contact_is_dead_with_its_reason_and_holds_up_nobody(service: Running) -> None:
    service.crm.state.faults.reject = {"poison@example.com"}
    for n, email in enumerate(["a@example.com", "poison@example.com", "b@example.com"]):
        await service.post(start(n, email))
    await service.drain()

    assert sorted(service.crm.contacts) == ["a@example.com", "b@example.com"]
    (dead,) = [d for d in deliveries(service.ledger) if d["state"] == "dead"]
    assert dead["error"]
    assert "poison" not in dead["error"]


async def test_a_contact_that_breaks_the_crm_holds_up_nobody_either(service: Running) -> None:
    service.crm.state.faults.reject = {"poison@example.com"}
    service.crm.state.faults.reject_status = 500
    for n in range(20):
        await service.post(start(n, f"p{n}@example.com" if n else "poison@example.com"))
    for _ in range(30):
        await service.drain()
        service.clock.sleep(120)

    assert len(service.crm.contacts) == 19
    (waiting,) = [d for d in deliveries(service.ledger) if d["state"] == "pending"]
    assert waiting["attempts"] > 3


OUTAGES = {
    "refused connections": {"unreachable": True},
    "500 for everybody": {"share_500": 1.0},
    "503 for everybody": {"share_503": 1.0},
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_day_without_the_crm_costs_time_and_no_data(tmp_path: Path, outage: str) -> None:
    async with running(tmp_path, limit=190) as service:
        faults = OUTAGES[outage]
        for name, value in faults.items():
            setattr(service.crm if name == "unreachable" else service.crm.state.faults, name, value)

        for n in range(24 * 60):
            if n % 4 == 0:
                await service.post(start(n, f"p{n}@example.com", f"Person {n}"))
            await service.drain()
            service.clock.sleep(60)

        waiting = deliveries(service.ledger)
        assert {d["state"] for d in waiting} == {"pending"}
        assert len(waiting) == 360
        assert max(d["attempts"] for d in waiting) <= 12
        assert service.crm.contacts == {}

        for name in faults:
            setattr(service.crm if name == "unreachable" else service.crm.state.faults, name, type(faults[name])(0))
        service.crm.state.calls.clear()
        await until_done(service, hours=1)

        assert states(service.ledger) == {("contact", "delivered"): 360}
        assert len(service.crm.contacts) == 360
        assert service.crm.state.calls.answered(429) == 0


async def test_a_crm_that_asks_for_no_wait_at_all_is_asked_ever_more_seldom(on_file: Running) -> None:
    on_file.crm.state.faults.share_503, on_file.crm.state.faults.retry_after = 1.0, 0.0
    await on_file.post(start())
    on_file.crm.state.calls.clear()
    async with asyncio.timeout(30):
        for _ in range(3600):
            await on_file.drain()
            on_file.clock.sleep(1)

    assert 10 <= on_file.crm.state.calls.answered(503) <= 25
    on_file.crm.state.faults.share_503 = 0.0
    await until_done(on_file, hours=1)
    assert list(on_file.crm.contacts) == ["ada@example.com"]


async def test_a_credential_that_was_withdrawn_pauses_for_a_person_and_loses_nothing(service: Running) -> None:
    service.crm.before = _unauthorized
    for n in range(3):
        await service.post(start(n, f"p{n}@example.com"))
    for _ in range(10):
        await service.drain()
        service.clock.sleep(600)

    (row,) = service.ledger.engine.rows("load_destinations")
    assert (row["needs_person"], row["status"]) == (1, 401)
    assert {d["state"] for d in deliveries(service.ledger)} == {"pending"}

    service.crm.before = lambda request: None
    await until_done(service, hours=3)
    assert len(service.crm.contacts) == 3


def _unauthorized(request: httpx.Request) -> None:
    request.headers["Authorization"] = "Bearer withdrawn"


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.running.build_sandbox", _with_token)


def _with_token(*args: Any, **kwargs: Any) -> Any:
    from sync.sandbox.app import build

    return build(*args, **kwargs, token="sandbox")


async def test_many_faults_end_with_every_person_exactly_once_in_the_newest_version(tmp_path: Path) -> None:
    async with running(tmp_path, limit=190) as service:
        faults = service.crm.state.faults
        faults.share_429, faults.share_500, faults.share_500_after, faults.share_502 = 0.05, 0.05, 0.05, 0.05
        for n in range(300):
            person = n % 100
            await service.post(start(n, f"p{person}@example.com", f"Name {n}", phone=f"+1202555{1000 + n}"))
            if n % 10 == 0:
                await service.drain()
            service.clock.sleep(1)
        await until_done(service, hours=2, step=5)

        emails = Counter(r.properties["email"] for r in service.crm.state.store.contacts)
        assert len(emails) == 100
        assert set(emails.values()) == {1}
        assert all(service.crm.contacts[f"p{n}@example.com"]["lastname"] == str(200 + n) for n in range(100))


async def test_a_thousand_new_contacts_take_at_most_22_calls(service: Running) -> None:
    for n in range(1000):
        await service.post(start(n, f"p{n}@example.com"))
    service.crm.state.calls.clear()

    await service.drain()

    assert len(service.crm.contacts) == 1000
    assert service.crm.state.calls.total <= 22


async def test_a_bug_in_an_adapter_is_a_retry_and_is_logged(
    service: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("canary@example.com")

    monkeypatch.setattr(service.destination, "upsert", broken)
    await service.post(start())
    await service.drain()

    (row,) = deliveries(service.ledger)
    assert (row["state"], row["error"], row["attempts"]) == ("pending", "unexpected KeyError", 1)


async def test_an_adapter_that_forgets_a_subject_is_caught(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgetful(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(service.destination, "upsert", forgetful)
    await service.post(start())
    await service.drain()

    (row,) = deliveries(service.ledger)
    assert (row["state"], row["error"]) == ("pending", "unexpected RuntimeError")


async def test_an_answer_that_cannot_be_stored_is_a_retry_and_sinks_no_other(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def surrogate(owed: Any, intend: object) -> list[Receipt]:
        del intend
        return [Receipt("\ud800" if one.subject.email == "ada@example.com" else "7", ours=True) for one in owed]

    monkeypatch.setattr(service.destination, "upsert", surrogate)
    await service.post(start(1, "ada@example.com"))
    await service.post(start(2, "bob@example.com"))
    await service.drain()

    waiting, taken = sorted(deliveries(service.ledger), key=lambda row: str(row["remote_id"] or ""))
    assert (taken["state"], taken["remote_id"]) == ("delivered", "7")
    assert (waiting["state"], waiting["attempts"]) == ("pending", 1)
    assert waiting["error"] == "its answer could not be stored"
    assert waiting["due_at"] > service.clock.now


async def test_a_lane_outlives_a_ledger_that_is_damaged(on_file: Running) -> None:
    connection = on_file.ledger.engine.connection  # type: ignore[attr-defined]
    await on_file.post(start())
    connection.execute("ALTER TABLE destinations RENAME TO gone")
    assert await on_file.drain() == 0
    connection.execute("ALTER TABLE gone RENAME TO destinations")

    assert await on_file.drain() == 1


async def test_a_settlement_that_a_damaged_ledger_refuses_is_left_to_its_lease(on_file: Running) -> None:
    connection = on_file.ledger.engine.connection  # type: ignore[attr-defined]
    await on_file.post(start())
    (lane,) = on_file.service.dispatcher.lanes
    claimed = await on_file.service.pipeline.claim(on_file.destination, lane.limits, lane.lease)
    connection.execute("ALTER TABLE deliveries RENAME TO gone")
    on_file.clock.sleep(lane.lease)
    async with asyncio.timeout(5):
        await lane._carry(claimed)
    connection.execute("ALTER TABLE gone RENAME TO deliveries")

    await on_file.drain()
    assert [row["state"] for row in deliveries(on_file.ledger)] == ["delivered"]


async def test_an_attempt_late_in_its_lease_does_not_send(service: Running) -> None:
    await service.post(start())
    (lane,) = service.service.dispatcher.lanes
    claimed = await service.service.pipeline.claim(service.destination, lane.limits, lane.lease)
    calls = service.crm.state.calls.total

    service.clock.sleep(lane.lease * 0.6)
    await lane._carry(claimed)

    assert service.crm.state.calls.total == calls
    assert deliveries(service.ledger)[0]["error"] == "it was too late in the lease to send"


async def test_a_slow_destination_never_holds_up_another(service: Running) -> None:
    from tests.fakes.lanes import Recorder

    slow, quick = Recorder("slow", pause=asyncio.Event()), Recorder("quick")
    service.ledger.takers = {d.name: d.takes for d in (slow, quick)}
    lanes = [Lane(service.service.pipeline, destination) for destination in (slow, quick)]
    tasks = [asyncio.create_task(lane.run()) for lane in lanes]
    for n in range(5):
        await service.post(start(n, f"p{n}@example.com"))
        for lane in lanes:
            lane.wake()
        async with asyncio.timeout(5):
            await quick.has(n + 1)

    assert slow.finished == 0
    assert slow.pause is not None
    slow.pause.set()
    for lane in lanes:
        await lane.stop()
    await asyncio.gather(*tasks)
    assert slow.finished >= 1


async def test_stopping_lets_calls_in_flight_finish_and_claims_nothing_more(service: Running) -> None:
    from tests.fakes.lanes import Recorder

    pause = asyncio.Event()
    destination: Destination = Recorder("slow", pause=pause)
    service.ledger.takers = {"slow": destination.takes}
    lane = Lane(service.service.pipeline, destination)
    task = asyncio.create_task(lane.run())
    await service.post(start(1))
    lane.wake()
    async with asyncio.timeout(5):
        await destination.has_begun(1)  # type: ignore[attr-defined]
    await service.service.writer.do(lambda _: None)  # the lane's next claim, which found nothing, is over by now
    await service.service.writer.do(lambda _: None)

    stopping = asyncio.create_task(lane.stop())
    await service.post(start(2, "bob@example.com"))
    await asyncio.sleep(0.05)
    assert not stopping.done()
    pause.set()
    async with asyncio.timeout(5):
        await asyncio.gather(stopping, task)

    assert sorted(d["state"] for d in deliveries(service.ledger)) == ["delivered", "pending"]


async def test_a_start_asks_at_once_where_a_person_had_to_act(on_file: Running) -> None:
    on_file.crm.before = _unauthorized
    await on_file.post(start())
    await on_file.drain()
    on_file.crm.before = lambda request: None

    with on_file.ledger.transaction():
        on_file.ledger.take_over()
    on_file.clock.sleep(1)
    await on_file.drain()

    assert len(on_file.crm.contacts) == 1


async def test_what_outlived_its_lease_here_is_not_sent_a_second_time_beside_itself(service: Running) -> None:
    """A machine that stood still for longer than a lease: the request that was about to leave, leaves late."""
    await service.post(start())
    await service.drain()
    await service.post(close(172))
    (lane,) = service.service.dispatcher.lanes
    goes_on, began = asyncio.Event(), asyncio.Event()
    call = service.destination.client.call

    async def slow(method: str, path: str, **said: Any) -> Any:
        if path.endswith("/notes") and not began.is_set():
            began.set()
            service.clock.now += lane.lease + 1
            await goes_on.wait()
            service.clock.now -= lane.lease + 1
            answer = await call(method, path, **said)
            service.clock.now += lane.lease + 1
            return answer
        return await call(method, path, **said)

    service.destination.client.call = slow  # type: ignore[method-assign]
    first = asyncio.create_task(lane.drain())
    await began.wait()
    second = asyncio.create_task(lane.drain())
    for _ in range(1000):
        if any("still under way" in (row["error"] or "") for row in deliveries(service.ledger)):
            break
        await asyncio.sleep(0.01)
    goes_on.set()
    await asyncio.gather(first, second)
    service.clock.now += HOUR
    await service.drain()

    assert len(service.crm.state.store.notes) == 1
    assert states(service.ledger) == {("contact", "delivered"): 1, ("chat", "delivered"): 1}


async def test_a_host_whose_clock_is_wrong_delivers_all_the_same(service: Running) -> None:
    """Its leases are by the ledger's clock; how much of them is left it tells by its own."""
    service.service.pipeline.__dict__["clock"] = lambda: service.clock() + HOUR
    await service.post(start())
    await service.drain()

    assert states(service.ledger) == {("contact", "delivered"): 1}


async def test_what_was_owed_while_the_clock_was_ahead_goes_once_it_is_right(service: Running) -> None:
    service.clock.now += 24 * HOUR
    await service.post(start())
    service.clock.now -= 24 * HOUR
    await service.drain()
    await service.drain()

    assert states(service.ledger) == {("contact", "delivered"): 1}


async def test_a_pause_that_began_while_the_clock_was_ahead_is_tried_at_once(service: Running) -> None:
    service.clock.now += 24 * HOUR
    service.crm.unreachable = True
    await service.post(start())
    await service.drain()
    service.crm.unreachable = False
    service.clock.now -= 24 * HOUR
    for _ in range(3):
        await service.drain()
        service.clock.now += 5

    assert states(service.ledger) == {("contact", "delivered"): 1}
