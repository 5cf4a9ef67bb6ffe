"""`crm-sync status`: one screen, the verdict first."""

import sqlite3
from pathlib import Path

import httpx
import pytest

from sync.cli.words import clock as on_the_wall
from tests.cli.conftest import Desk, close, says, start

ADA = {"name": "Ada", "email": "ada@example.com"}


def test_without_a_ledger_it_says_so_and_makes_none(desk: Desk) -> None:
    result = desk.run("status")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"crm-sync: there is no ledger at {desk.ledger_file} yet: run `crm-sync serve`\n"
    assert not desk.ledger_file.exists()


def test_an_empty_ledger_has_nothing_to_tell(desk: Desk) -> None:
    desk.take()

    assert desk.run("status").stdout.startswith("Nothing has come yet.\n")


async def test_when_everything_arrived_it_says_so_first(desk: Desk) -> None:
    desk.take(start(1, **ADA), close(1, **ADA))
    await desk.deliver()

    result = desk.run("status")
    assert result.exit_code == 0
    assert result.stdout.startswith("Everything has arrived.\n")


async def test_the_json_has_the_shape_that_other_programs_rely_on(desk: Desk) -> None:
    desk.take(start(1, **ADA), start(1, **ADA), close(1, **ADA), b"not json")
    await desk.deliver()

    found = desk.json("status")
    sandbox = found["destinations"]["sandbox"]
    assert found["ledger"]["engine"] == "sqlite"
    assert found["ledger"]["schema"] >= 1
    assert found["ledger"]["bytes"] > 0
    assert found["events"] == {"applied": 2, "kept": 0, "unreadable": 1}
    assert found["contacts"] == 1
    assert found["alarms"] == []
    assert found["redelivered"] == 1
    assert sandbox["deliveries"] == {"contact": {"delivered": 1}, "chat": {"delivered": 1}}
    assert (sandbox["in_flight"], sandbox["oldest_waiting_s"], sandbox["failures"]) == (0, None, [])
    assert (sandbox["paused_until"], sandbox["reason"]) == (None, None)


async def test_an_outage_names_the_destination_and_the_time_and_needs_nobody(desk: Desk) -> None:
    desk.take(*(start(n, name=f"N{n}", email=f"n{n}@example.com") for n in (1, 2, 3)))
    await desk.deliver(lambda request: httpx.Response(503, headers={"Retry-After": "1200"}))

    result, found = desk.run("status"), desk.json("status")["destinations"]["sandbox"]
    until = on_the_wall(found["paused_until"], desk.clock())
    assert result.exit_code == 0
    assert result.stdout.startswith(f"3 contacts wait for sandbox, paused until {until} (")
    assert "Nothing is lost." in " ".join(result.stdout.split())
    assert found["deliveries"] == {"contact": {"pending": 3}}
    assert found["failures"][0]["status"] == 503
    assert found["failures"][0]["outcome"] == "paused"


async def test_refused_credentials_need_a_person(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    await desk.deliver(says(401))

    result = desk.run("status")
    assert result.exit_code == 1
    assert result.stdout.startswith("sandbox takes nothing until you act (")
    assert "crm-sync doctor" in result.stdout


async def test_what_is_dead_comes_with_the_commands_to_type(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    await desk.deliver(says(400))

    result, (cause,) = desk.run("status"), desk.json("status")["dead"]
    assert result.exit_code == 1
    assert result.stdout.startswith("1 contact was refused by sandbox: ")
    assert f"crm-sync show {cause['example']}" in result.stdout
    assert "crm-sync replay --dead sandbox" in result.stdout


def test_unreadable_webhooks_need_a_person(desk: Desk) -> None:
    (event,) = desk.take(b"[]")

    result = desk.run("status")
    assert result.exit_code == 1
    assert result.stdout.startswith("1 webhook could not be read: ")
    assert f"crm-sync show {event}" in result.stdout


async def test_several_things_are_counted_first(desk: Desk) -> None:
    desk.take(start(1, **ADA), b"[]")
    await desk.deliver(says(400))

    assert desk.run("status").stdout.startswith("2 things need you. Nothing is lost.\n")


def test_a_destination_that_is_no_longer_configured_waits_for_nothing(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    desk.set(SYNC_DESTINATIONS="webhook", WEBHOOK_URL="http://127.0.0.1:1/")

    sandbox = desk.json("status")["destinations"]["sandbox"]
    assert sandbox["configured"] is False
    assert sandbox["deliveries"] == {"contact": {"not configured": 1}}
    assert desk.run("status").stdout.startswith("Everything has arrived.\n")


def test_what_nobody_delivers_makes_it_ask_for_the_server(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    assert desk.run("status").stdout.startswith("1 contact is on the way to sandbox.")

    desk.clock.sleep(300)
    assert "the oldest for 5 min. Does `crm-sync serve` run?" in " ".join(desk.run("status").stdout.split())


def test_a_conversation_that_goes_on_is_no_backlog(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    with sqlite3.connect(desk.ledger_file) as ledger:
        ledger.execute(
            "UPDATE deliveries SET state = 'delivered', done = wanted, remote_id = '7', ours = 1, due_at = NULL"
        )
    desk.take({"event": "CHAT_ON_MESSAGE", "id": 1, "message": {"msg": "Hi", "user": {"type": "visitor"}}})

    result = desk.run("status")
    assert result.stdout.startswith("Everything has arrived. 1 chat will follow when the conversation is over.")
    assert result.exit_code == 0


def test_refused_requests_are_told_by_their_reason(desk: Desk) -> None:
    ledger = desk.open()
    with ledger.transaction():
        ledger.count({"rejected_401": 3})
    ledger.engine.close()

    assert "3 requests refused with 401 (wrong or missing signature or token)" in desk.run("status").stdout
    assert desk.json("status")["rejected"]["401"]["n"] == 3


async def test_the_screen_fits_a_hundred_columns(desk: Desk) -> None:
    desk.take(*(start(n, name="N" * 50, email=f"{'n' * 50}{n}@example.com") for n in range(3)), b"[]", b"\xff")
    await desk.deliver(says(401, "a long reason " * 20))

    lines = desk.run("status").stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 30


def test_a_wrong_setting_is_one_sentence(desk: Desk) -> None:
    desk.set(SYNC_PORT="eighty")

    result = desk.run("status")
    assert result.exit_code == 2
    assert result.stderr.startswith("crm-sync: SYNC_PORT: ")


@pytest.mark.parametrize("content", [b"this is not a database, by far, " * 100])
def test_a_damaged_ledger_is_one_sentence(desk: Desk, content: bytes) -> None:
    Path(desk.ledger_file).write_bytes(content)

    result = desk.run("status")
    assert result.exit_code == 3
    assert result.stderr.startswith("crm-sync: the ledger file is damaged")


@pytest.mark.parametrize("key", ["silence:acquire", "repaired"])
def test_a_source_that_is_silent_or_loses_webhooks_needs_a_person(desk: Desk, key: str) -> None:
    desk.take(start(1, name="Ada", email="ada@example.com"))
    ledger = desk.open()
    with ledger.transaction():
        ledger.engine.run("raise_alarm", key=key, text="Look at the webhook at the source.")
    ledger.engine.close()

    result = desk.run("status")
    assert result.exit_code == 1
    assert "Look at the webhook at the source." in result.stdout
