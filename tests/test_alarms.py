"""What needs a person leaves the machine: once a cause, with an all-clear, without personal data (promise P2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from structlog.testing import capture_logs

from sync.alarms import (
    LONG_PAUSE,
    MAIL_RETRY,
    QUIET,
    UNHELD,
    Mailed,
    News,
    Postbox,
    disk_alarms,
    raise_repaired,
    review,
    tell,
    tell_by_mail,
)
from sync.errors import SettingsError
from sync.http import Client
from sync.ledger import Ledger
from sync.ledger.hearing import heard
from sync.retention import RetentionSettings
from sync.service import _count_rejected, _housekeeping
from sync.settings import Settings, load
from sync.silence import Expectation
from sync.wiring import postbox
from tests.databases import Server, open_on
from tests.people import Clock
from tests.running import Running, running, start


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as made:
        yield made


async def news(service: Running, disk: dict[str, str] | None = None) -> list[News]:
    return await service.service.writer.do(lambda ledger: review(ledger, disk or {}))


async def told(service: Running, found: list[News], status: int = 200) -> list[dict[str, Any]]:
    """What the operator's URL hears."""
    heard: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        heard.append(json.loads(request.content))
        return httpx.Response(status)

    client = Client("https://alarm.example.com/x", transport=httpx.MockTransport(answer))
    await tell(client, service.service.writer, found)
    await client.aclose()
    return heard


async def test_where_all_is_well_there_is_nothing_to_tell(service: Running) -> None:
    await service.post(start())
    await service.drain()

    assert await news(service) == []


async def test_a_long_pause_is_told_once_and_then_its_end(service: Running) -> None:
    service.crm.unreachable = True
    await service.post(start())
    await service.drain()
    assert await news(service) == []

    service.clock.sleep(LONG_PAUSE + 1)
    first = await told(service, await news(service))
    assert [(a["alarm"], a["state"]) for a in first] == [("paused:sandbox", "raised")]
    assert await news(service) == []

    service.crm.unreachable = False
    for _ in range(5):
        await service.drain()
        service.clock.sleep(60)
    last = await told(service, await news(service))
    assert [(a["alarm"], a["state"]) for a in last] == [("paused:sandbox", "cleared")]
    assert await news(service) == []


async def test_an_alarm_that_could_not_be_told_is_told_in_the_next_round(service: Running) -> None:
    disk = {"disk": "nearly full"}

    assert len(await told(service, await news(service, disk), status=500)) == 1
    assert len(await told(service, await news(service, disk))) == 1
    assert await news(service, disk) == []


async def test_the_first_dead_letter_of_a_cause_is_told_and_the_second_is_not(service: Running) -> None:
    service.crm.state.faults.reject = {"p1@example.com", "p2@example.com"}
    await service.post(start(1, "p1@example.com"))
    await service.drain()
    first = await told(service, await news(service))

    await service.post(start(2, "p2@example.com"))
    await service.drain()

    assert len(first) == 1
    assert "crm-sync replay --dead sandbox" in first[0]["text"]
    assert await news(service) == []


async def test_the_first_unreadable_event_is_told(service: Running) -> None:
    await service.post(b"canary@example.com is not JSON")

    (heard,) = await told(service, await news(service))
    assert heard["alarm"] == "unreadable"
    assert "canary" not in json.dumps(heard)


async def test_the_same_trouble_is_told_again_after_it_was_over(service: Running) -> None:
    disk = {"disk": "nearly full"}
    await told(service, await news(service, disk))
    await told(service, await news(service))

    assert [item.is_over for item in await news(service, disk)] == [False]


def test_the_disk_alarm_knows_its_reserve(tmp_path: Path) -> None:
    assert disk_alarms(tmp_path, 0) == {}
    assert "nearly full" in disk_alarms(tmp_path, 1 << 60)["disk"]


async def test_an_alarm_url_that_does_not_answer_breaks_nothing(service: Running) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = Client("https://alarm.example.com", transport=httpx.MockTransport(refuse), blip=0)
    async with asyncio.timeout(5):
        await tell(client, service.service.writer, await news(service, {"disk": "nearly full"}))

    assert len(await news(service, {"disk": "nearly full"})) == 1
    await client.aclose()


async def test_an_alarm_url_that_redirects_to_nonsense_breaks_nothing(service: Running) -> None:
    def nowhere(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "http://xn--a/"})

    client = Client("https://alarm.example.com", transport=httpx.MockTransport(nowhere), blip=0)
    await tell(client, service.service.writer, await news(service, {"disk": "nearly full"}))

    assert len(await news(service, {"disk": "nearly full"})) == 1
    await client.aclose()


async def test_housekeeping_outlives_whatever_happens_in_a_round(
    service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.service.HOUSEKEEPING", 0.001)
    folder = tmp_path / "canary"
    limits = RetentionSettings().limits
    keeping = asyncio.create_task(_housekeeping(service.service, Settings(), service.webhooks, folder, limits))
    async with asyncio.timeout(5):
        with capture_logs() as logged:
            while not any("housekeeping" in line["event"] for line in logged):
                await asyncio.sleep(0.001)
        folder.mkdir()
        await service.post(b"not JSON")
        while not service.ledger.engine.rows("open_alarms"):
            await asyncio.sleep(0.001)

    assert not keeping.done()
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_what_was_over_before_anybody_heard_of_it_is_not_told(service: Running) -> None:
    await news(service, {"disk": "nearly full"})

    assert await news(service) == []
    assert await news(service) == []


async def test_without_an_alarm_url_the_status_still_shows_trouble_that_comes_back(service: Running) -> None:
    for disk in ({"disk": "nearly full"}, {}, {"disk": "nearly full"}):
        await news(service, disk)

    assert [row["key"] for row in service.ledger.engine.rows("open_alarms")] == ["disk"]


OPERATOR = "operator@example.com"
EVERY = {"acquire": Expectation(3600.0, None, ZoneInfo("UTC"))}


@pytest.fixture
async def posted(tmp_path: Path) -> AsyncIterator[tuple[Running, Postbox]]:
    """A service whose alarms go by mail into the sandbox's outbox."""
    given: dict[str, Any] = {"mailer": "sandbox", "secret_key": "k" * 40}
    async with running(tmp_path, **given) as made:
        box = postbox(Settings(**given, alarm_email=OPERATOR), clock=made.clock, transport=made.crm)
        assert box is not None
        yield made, box
        await box.mailer.client.aclose()


async def mailed(posted: tuple[Running, Postbox], alarms: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """The mails of one round of housekeeping in which these alarms hold."""
    service, box = posted
    before = len(outbox(service))
    await news(service, alarms or {})
    await tell_by_mail(box, service.service.writer)
    return outbox(service)[before:]


def outbox(service: Running) -> list[dict[str, Any]]:
    """Every mail that went out, the oldest first."""
    return [dict(mail.said) for mail in reversed(service.crm.state.store.mails())]


DISK, PAUSE = {"disk": "The disk is nearly full."}, {"paused:hubspot": "hubspot is <paused>."}


async def test_an_alarm_goes_by_mail_once_and_so_does_its_end(posted: tuple[Running, Postbox]) -> None:
    (raised,) = await mailed(posted, DISK)
    assert (raised["to"], raised["subject"]) == (OPERATOR, "[chat-crm-sync] disk")
    assert raised["from"] == "Our support <support@example.com>"
    assert "The disk is nearly full." in raised["text"]
    assert await mailed(posted, DISK) == []

    (cleared,) = await mailed(posted)
    assert cleared["subject"] == "[chat-crm-sync] over: disk"
    assert await mailed(posted) == []
    assert [mail["subject"] for mail in await mailed(posted, DISK)] == ["[chat-crm-sync] disk"]


async def test_several_alarms_of_a_round_are_one_mail(posted: tuple[Running, Postbox]) -> None:
    (mail,) = await mailed(posted, DISK | PAUSE)

    assert mail["subject"] == "[chat-crm-sync] 2 alarms: disk, paused:hubspot"
    assert "hubspot is <paused>." in mail["text"]
    assert "hubspot is &lt;paused&gt;." in mail["html"]


async def test_a_mail_that_certainly_did_not_go_is_tried_again_ever_later(posted: tuple[Running, Postbox]) -> None:
    service, _ = posted
    service.crm.unreachable = True
    assert await mailed(posted, DISK) == []
    service.crm.unreachable = False
    assert await mailed(posted, DISK) == []

    service.clock.sleep(MAIL_RETRY[0])
    assert len(await mailed(posted, DISK)) == 1


async def test_a_mail_that_may_have_gone_is_not_repeated_for_an_hour(posted: tuple[Running, Postbox]) -> None:
    service, _ = posted
    service.crm.loses_answers_of = "/_mail"
    assert len(await mailed(posted, DISK)) == 1
    service.crm.loses_answers_of = None
    service.clock.sleep(QUIET - 1)
    assert [mail["subject"] for mail in await mailed(posted, DISK | PAUSE)] == ["[chat-crm-sync] paused:hubspot"]

    service.clock.sleep(1)
    (again,) = await mailed(posted, DISK | PAUSE)
    assert again["key"] == outbox(service)[0]["key"]
    assert await mailed(posted, DISK | PAUSE) == []


async def test_the_end_of_what_may_have_been_told_is_told(posted: tuple[Running, Postbox]) -> None:
    service, _ = posted
    service.crm.loses_answers_of = "/_mail"
    await mailed(posted, DISK)
    service.crm.loses_answers_of = None
    service.clock.sleep(MAIL_RETRY[0])

    assert [mail["subject"] for mail in await mailed(posted)] == ["[chat-crm-sync] over: disk"]
    assert await mailed(posted) == []


async def test_a_process_that_ends_while_it_mails_does_not_mail_twice(posted: tuple[Running, Postbox]) -> None:
    service, _ = posted
    service.crm.breaks_at = "/_mail"
    with pytest.raises(RuntimeError):
        await mailed(posted, DISK)
    service.crm.breaks_at = None
    assert await mailed(posted, DISK) == []

    service.clock.sleep(QUIET)
    assert len(await mailed(posted, DISK)) == 1


def test_the_wait_after_failures_is_bounded() -> None:
    mailed = Mailed()
    waits = []
    for _ in range(12):
        mailed.wait(0.0)
        waits.append(mailed.next_at)

    assert waits[:3] == [60.0, 120.0, 240.0]
    assert waits[-1] == MAIL_RETRY[1]


async def test_no_personal_data_goes_by_mail(posted: tuple[Running, Postbox]) -> None:
    service, _ = posted
    service.crm.state.faults.reject = {"canary@example.com"}
    await service.post(start(1, "canary@example.com", name="Canary"))
    await service.drain()
    (mail,) = await mailed(posted)

    assert mail["subject"].startswith("[chat-crm-sync] dead:sandbox:")
    assert "anary" not in json.dumps(mail)


def test_an_address_without_a_mailer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_ALARM_EMAIL", OPERATOR)
    with pytest.raises(SettingsError, match="SYNC_ALARM_EMAIL: needs SYNC_MAILER"):
        load(Settings)
    monkeypatch.setenv("SYNC_MAILER", "sandbox")
    assert load(Settings).alarm_email == OPERATOR

    monkeypatch.setenv("SYNC_ALARM_EMAIL", "nobody")
    with pytest.raises(SettingsError, match="SYNC_ALARM_EMAIL: is not an email"):
        load(Settings)


async def test_what_a_pull_repaired_is_an_alarm_until_one_repairs_nothing(service: Running) -> None:
    def repaired(n: int) -> Any:
        return service.service.writer.do(lambda ledger: raise_repaired(ledger, n))

    await repaired(12)
    (raised,) = await told(service, await news(service))
    assert raised["text"] == "12 chats had been missed by webhooks and were pulled: check the webhook at the source."
    await repaired(1)
    assert await news(service) == []

    await repaired(0)
    assert [(a["alarm"], a["state"]) for a in await told(service, await news(service))] == [("repaired", "cleared")]


async def test_a_mail_of_which_nobody_knows_is_an_alarm(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Ledger(service.ledger.engine, {}, new_id=service.ledger.new_id).engine.rows
    monkeypatch.setattr(
        service.ledger.engine, "rows", lambda query, **given: [1] if query == "unknown_mails" else real(query, **given)
    )

    assert [item.key for item in await news(service)] == ["unknown"]


async def test_silence_is_a_warning_and_the_service_is_ready(service: Running) -> None:
    async def looked() -> list[News]:
        await _count_rejected(service.service, service.webhooks)
        return await service.service.writer.do(lambda ledger: review(ledger, {}, EVERY))

    await service.post(start())
    assert await looked() == []
    service.clock.sleep(3601)
    assert [item.key for item in await looked()] == ["silence:acquire"]
    answer = await service.client.get("/readyz")
    assert (answer.status_code, answer.json()["status"], answer.json()["findings"]) == (200, "ready", [])
    assert "No webhook has come from acquire" in answer.json()["warnings"][0]

    assert (await service.post(start())).json()["status"] == "duplicate"
    await looked()
    assert service.ledger.engine.rows("open_alarms") == []


LONGER = {"acquire": Expectation(7200.0, None, ZoneInfo("UTC"))}
NOTHING: dict[str, Expectation] = {}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared(tmp_path: Path, server: Server, clock: Clock) -> Iterator[Ledger]:
    """A ledger that several hosts have in common. The source has just been silent for too long."""
    opened = open_on("postgresql", tmp_path, server, clock, {})
    with opened.transaction():
        opened.count({heard("acquire"): 1})
    clock.sleep(3601)
    yield opened
    opened.engine.close()


def look(ledger: Ledger, expected: dict[str, Expectation]) -> list[tuple[str, bool]]:
    """A round of a host that expects this: which alarms it tells of, and whether they are over."""
    with ledger.transaction():
        found = review(ledger, {}, expected)
        for item in found:
            ledger.engine.run("alarm_told", key=item.key)
    return [(item.key, item.is_over) for item in found]


def test_hosts_that_expect_different_things_tell_of_a_silence_once_and_of_its_end_once(
    shared: Ledger, clock: Clock
) -> None:
    told = []
    for _ in range(60):
        for expected in (NOTHING, LONGER, EVERY, NOTHING, LONGER):
            told += look(shared, expected)
        clock.sleep(60)
    assert told == [("silence:acquire", False)]

    with shared.transaction():
        shared.count({heard("acquire"): 1})
    for expected in (NOTHING, EVERY, LONGER, NOTHING):
        told += look(shared, expected)
    assert told == [("silence:acquire", False), ("silence:acquire", True)]


@pytest.mark.parametrize("expected", [NOTHING, LONGER], ids=["nothing", "less"])
def test_a_silence_that_no_host_minds_any_more_is_over_after_a_while(
    shared: Ledger, clock: Clock, expected: dict[str, Expectation]
) -> None:
    look(shared, EVERY)
    clock.sleep(UNHELD)
    assert look(shared, expected) == []

    clock.sleep(1)
    assert look(shared, expected) == [("silence:acquire", True)]


def test_a_silence_that_came_with_a_ledger_from_one_host_is_over_where_nobody_minds_it(shared: Ledger) -> None:
    shared.engine.run("raise_alarm", key="silence:acquire", text="")
    shared.engine.run("alarm_told", key="silence:acquire")

    assert look(shared, NOTHING) == [("silence:acquire", True)]


def test_a_silence_that_the_only_host_minds_no_more_is_over_at_once(
    tmp_path: Path, server: Server, clock: Clock
) -> None:
    ledger = open_on("sqlite", tmp_path, server, clock, {})
    look(ledger, EVERY)
    clock.sleep(3601)

    assert look(ledger, EVERY) == [("silence:acquire", False)]
    assert look(ledger, NOTHING) == [("silence:acquire", True)]
    ledger.engine.close()
