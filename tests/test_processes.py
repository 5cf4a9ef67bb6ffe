"""The service as real processes: started, stopped, killed (promises P1, P2, P3)."""

import asyncio
import json
import random
import signal
import sqlite3
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from sync.simulation import conversations, expected, in_order
from sync.simulation.playing import Endpoint, Played, play
from tests.processes import TOKEN, Listener, Stage, get
from tests.running import start


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def rows(path: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def crm_contacts(stage: Stage) -> list[dict[str, str]]:
    return [
        json.loads(p)
        for (p,) in rows(stage.folder / "crm.sqlite3", "SELECT properties FROM objects WHERE kind = 'contacts'")
    ]


def pending(stage: Stage) -> int:
    found = rows(stage.folder / "ledger.sqlite3", "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'")
    return int(found[0][0])


def test_sigterm_ends_it_cleanly_and_soon(stage: Stage) -> None:
    stage.crm()
    service = stage.serve()
    assert get(f"{stage.url}/webhooks/acquire/{TOKEN}", method="POST", body=start())[0] == 200

    began = time.monotonic()
    service.send_signal(signal.SIGTERM)

    assert service.wait(timeout=30) == 0
    assert time.monotonic() - began < 30


def test_a_second_server_of_the_same_ledger_is_refused_in_a_sentence(stage: Stage) -> None:
    stage.serve()

    for arguments in (("serve", "--port", "0"), ("dispatch",), ("dispatch", "--once")):
        second = stage.command(*arguments)
        assert second.returncode == 3
        assert "already serves" in second.stderr
        assert "Traceback" not in second.stderr


def test_a_port_in_use_is_said_in_a_sentence(stage: Stage) -> None:
    stage.serve()
    second = Stage(stage.folder / "second", port=stage.port)
    second.folder.mkdir()

    refused = second.command("serve")

    assert refused.returncode == 2
    assert f"cannot listen on 127.0.0.1:{stage.port}" in refused.stderr


WRONG_SETTINGS = {
    "HUBSPOT_ACCESS_TOKEN": "",
    "HUBSPOT_FIELDS": "canary-not-json",
    "HUBSPOT_BASE_URL": "http://canary.example.com",
    "SYNC_PORT": "canary",
    "SYNC_DESTINATIONS": "hubspott",
    "SYNC_LEDGER": "mysql://canary",
    "SYNC_PHONE_REGION": "canary",
    "SYNC_SECRET_KEY": "canary-short",
    "ACQUIRE_URL_TOKEN": "canary-short",
    "ACQUIRE_TIMEZONE": "canary/Nowhere",
}


@pytest.mark.parametrize("variable", WRONG_SETTINGS)
def test_a_wrong_setting_is_named_and_its_value_is_not_printed(stage: Stage, variable: str) -> None:
    stage.settings[variable] = WRONG_SETTINGS[variable]

    refused = stage.command("serve")

    assert refused.returncode == 2
    assert variable in refused.stderr
    assert "canary" not in refused.stderr
    assert "Traceback" not in refused.stderr


def test_without_a_secret_it_listens_to_this_machine_only(stage: Stage) -> None:
    stage.settings["ACQUIRE_URL_TOKEN"] = ""

    refused = stage.command("serve", "--host", "0.0.0.0")

    assert refused.returncode == 2
    assert "ACQUIRE_WEBHOOK_SECRET" in refused.stderr


def test_dispatch_once_delivers_what_is_due_and_ends(stage: Stage) -> None:
    stage.crm()
    receiver = stage.start("serve", "--no-dispatch")
    stage.until(lambda: get(f"{stage.url}/healthz")[0] == 200, receiver)
    for n in range(5):
        assert get(f"{stage.url}/webhooks/acquire/{TOKEN}", method="POST", body=start(n, f"p{n}@example.com"))[0] == 200
    receiver.send_signal(signal.SIGTERM)
    assert receiver.wait(timeout=30) == 0
    assert crm_contacts(stage) == []

    once = stage.command("dispatch", "--once")

    assert (once.returncode, len(crm_contacts(stage))) == (0, 5)


def test_the_log_holds_no_personal_data_and_no_secrets(stage: Stage) -> None:
    stage.settings["SYNC_LOG_LEVEL"] = "debug"
    stage.crm()
    service = stage.serve()
    body = start(1, "canary@example.com", "Canary Name", phone="+1 202 555 0123")
    get(f"{stage.url}/webhooks/acquire/{TOKEN}", method="POST", body=body)
    get(f"{stage.url}/webhooks/acquire/wrong-{TOKEN}", method="POST", body=body)
    stage.until(lambda: pending(stage) == 0, service)
    service.send_signal(signal.SIGTERM)
    service.wait(timeout=30)

    log = (stage.folder / "stderr.txt").read_text().lower()
    assert "delivered" in log
    assert [word for word in ("canary", "5550123", "555 0123") if word in log] == []


async def _play(stage: Stage, seed: int, chats: int, crash: Any) -> tuple[Played, list[Any]]:
    told = list(conversations(seed, chats=chats, now=time.time(), duplicates=0.1, repeat_visitors=0.3, zone=UTC))
    crashing = asyncio.create_task(asyncio.to_thread(crash))
    played = await play(in_order(told), Endpoint(stage.url, token=TOKEN), rate=400)
    await crashing
    return played, told


@pytest.mark.parametrize("seed", [1])
def test_killed_again_and_again_it_loses_nothing_and_doubles_nobody(stage: Stage, seed: int) -> None:
    stage.crm()
    get(f"{stage.crm_url}/_faults", method="PUT", body={"share_429": 0.02, "share_500": 0.02, "share_502": 0.01})
    service = [stage.serve()]
    moments = random.Random(seed)

    def crash() -> None:
        for _ in range(4):
            time.sleep(moments.uniform(0.3, 0.9))
            service[-1].send_signal(signal.SIGKILL)
            service[-1].wait(timeout=10)
            service.append(stage.serve())

    played, told = asyncio.run(_play(stage, seed, 150, crash))
    stage.until(lambda: pending(stage) == 0, service[-1], seconds=120)

    people = expected(told)
    assert played.never == 0
    there = Counter(contact["email"] for contact in crm_contacts(stage))
    assert there == Counter({email.lower(): 1 for email in people})
    by_email = {contact["email"]: contact for contact in crm_contacts(stage)}
    wrong = {email for email, person in people.items() if by_email[email.lower()].get("phone") != person.phone}
    assert wrong == set()
    notes = rows(stage.folder / "crm.sqlite3", "SELECT properties FROM objects WHERE kind = 'notes'")
    closed = rows(stage.folder / "ledger.sqlite3", "SELECT id FROM chats WHERE closed_at IS NOT NULL")
    assert len(notes) == len(closed)


@pytest.fixture
def first_run(stage: Stage) -> Stage:
    """As a newcomer has it: the sandbox inside the service, nothing set."""
    stage.settings |= {
        "SYNC_DESTINATIONS": "sandbox",
        "SANDBOX_BASE_URL": f"http://127.0.0.1:{stage.crm_port}",
        "ACQUIRE_URL_TOKEN": "",
        "SYNC_LOG_LEVEL": "info",
    }
    return stage


def test_hello_shows_the_documented_chat_start_arrive(first_run: Stage) -> None:
    service = first_run.serve()

    hello = first_run.command("hello")
    again = first_run.command("hello")
    service.send_signal(signal.SIGTERM)

    assert (hello.returncode, again.returncode, service.wait(timeout=30)) == (0, 0, 0)
    assert "accepted, ev_" in hello.stdout
    assert "name   John" in hello.stdout
    assert "john@acquire.io" in hello.stdout
    assert "duplicate, ev_" in again.stdout


def test_hello_keeps_its_visitor_out_of_a_real_crm(stage: Stage) -> None:
    refused = stage.command("hello")

    assert refused.returncode == 2
    assert "SYNC_DESTINATIONS=sandbox" in refused.stderr


def test_what_a_receiver_stored_is_delivered_by_dispatch_also_to_the_sandbox(first_run: Stage) -> None:
    receiver = first_run.start("serve", "--no-dispatch")
    first_run.until(lambda: get(f"{first_run.url}/healthz")[0] == 200, receiver)
    assert get(f"{first_run.url}/webhooks/acquire", method="POST", body=start())[1]["status"] == "accepted"
    receiver.send_signal(signal.SIGTERM)
    assert receiver.wait(timeout=30) == 0

    once = first_run.command("dispatch", "--once")

    assert (once.returncode, once.stdout) == (0, "1 attempts made; nothing more is due now\n")


def test_dispatch_alone_delivers_until_it_is_told_to_stop(stage: Stage) -> None:
    stage.crm()
    receiver = stage.start("serve", "--no-dispatch")
    stage.until(lambda: get(f"{stage.url}/healthz")[0] == 200, receiver)
    get(f"{stage.url}/webhooks/acquire/{TOKEN}", method="POST", body=start())
    receiver.send_signal(signal.SIGTERM)
    receiver.wait(timeout=30)

    dispatcher = stage.start("dispatch")
    stage.until(lambda: len(crm_contacts(stage)) == 1, dispatcher)
    dispatcher.send_signal(signal.SIGTERM)

    assert dispatcher.wait(timeout=30) == 0


def test_the_sandbox_alone_has_our_property_and_ends_when_told(stage: Stage) -> None:
    crm = stage.crm()
    status, found = get(f"{stage.crm_url}/crm/v3/properties/contacts/chat_crm_sync_uid")
    crm.send_signal(signal.SIGTERM)

    assert (status, found["hasUniqueValue"]) == (200, True)
    assert crm.wait(timeout=30) == 0


def test_refused_requests_are_counted_where_status_shows_them(first_run: Stage) -> None:
    service = first_run.serve()
    for _ in range(3):
        assert get(f"{first_run.url}/webhooks/acquire", method="POST", headers={"Via": "proxy"}, body={})[0] == 403
    service.send_signal(signal.SIGTERM)
    service.wait(timeout=30)

    assert json.loads(first_run.command("status", "--json").stdout)["rejected"]
    assert "3 requests refused with 403" in first_run.command("status").stdout


def test_an_alarm_reaches_the_operator(first_run: Stage) -> None:
    with Listener() as heard:
        first_run.settings["SYNC_ALARM_URL"] = heard.url
        service = first_run.serve()
        get(f"{first_run.url}/webhooks/acquire", method="POST", body=["canary@example.com"])
        first_run.until(lambda: heard.bodies, service, seconds=30)
        service.send_signal(signal.SIGTERM)
        service.wait(timeout=30)

    assert heard.bodies[0]["alarm"] == "unreadable"
    assert "canary" not in json.dumps(heard.bodies)


def test_a_typo_in_the_env_file_is_found_at_the_start(stage: Stage) -> None:
    (stage.folder / ".env").write_text("ACQUIRE_URL_TOKN=canary\nOTHER_THING=1\n")

    refused = stage.command("serve")

    assert refused.returncode == 2
    assert ".env names ACQUIRE_URL_TOKN, which is no setting; did you mean ACQUIRE_URL_TOKEN?" in refused.stderr
    assert "canary" not in refused.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SYNC_PORT", "x", "SYNC_PORT: is not a whole number"),
        ("SYNC_RETRY_FOR", "3d", "SYNC_RETRY_FOR: is not a number"),
        ("SYNC_PUBLIC_URL", "foo", "SYNC_PUBLIC_URL: is not an http(s) address"),
        ("ACQUIRE_URL_TOKEN", "change/me " * 4, "ACQUIRE_URL_TOKEN: may hold only letters"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(stage: Stage, variable: str, value: str, said: str) -> None:
    stage.settings[variable] = value

    assert said in stage.command("serve").stderr


def test_the_address_that_is_printed_is_the_one_to_call(stage: Stage) -> None:
    service = stage.serve()
    greeting = urllib.request.urlopen(f"{stage.url}/", timeout=10).read().decode()
    answer = get(f"{stage.url}/webhooks/acquire/{TOKEN}/", method="POST", body=start())
    service.send_signal(signal.SIGTERM)
    service.wait(timeout=30)

    assert "/webhooks/acquire/YOUR-ACQUIRE_URL_TOKEN" in (stage.folder / "stderr.txt").read_text()
    assert "webhooks are taken at" in greeting
    assert answer[0] == 200
