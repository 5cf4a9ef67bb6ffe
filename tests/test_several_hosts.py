"""Several processes on one PostgreSQL ledger: what two receivers and two dispatchers share."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from itertools import cycle
from pathlib import Path

import psycopg
import pytest

from sync.simulation import conversations, expected, in_order
from sync.simulation.playing import Endpoint, play
from tests.databases import Server, pooled
from tests.processes import TOKEN, Stage, free_port, get
from tests.running import start
from tests.test_processes import crm_contacts


@pytest.fixture
def stage(tmp_path: Path, server: Server) -> Iterator[Stage]:
    database = server.database()
    made = Stage(tmp_path, {"SYNC_LEDGER": database, "SYNC_SECRET_KEY": "canary" * 6})
    yield made
    made.close()


def pending(stage: Stage) -> int:
    with psycopg.connect(stage.settings["SYNC_LEDGER"]) as connection:
        found = connection.execute("SELECT COUNT(*) FROM deliveries WHERE state = 'pending'").fetchone()
    return int(found[0]) if found else 0


def receivers(stage: Stage, n: int) -> list[str]:
    """Start n receivers; returns where they listen."""
    urls = []
    for _ in range(n):
        port = free_port()
        process = stage.start("serve", "--no-dispatch", "--port", str(port))
        urls.append(f"http://127.0.0.1:{port}")
        stage.until(lambda url=urls[-1]: get(f"{url}/healthz")[0] == 200, process)
    return urls


def test_the_same_webhook_at_the_same_instant_at_two_hosts_is_stored_once(stage: Stage) -> None:
    urls = receivers(stage, 2)

    async def both() -> list[tuple[int, dict[str, str]]]:
        asking = [
            asyncio.to_thread(get, f"{url}/webhooks/acquire/{TOKEN}", method="POST", body=start(n))
            for n in range(20)
            for url in urls
        ]
        return await asyncio.gather(*asking)

    answers = asyncio.run(both())

    assert {status for status, _ in answers} == {200}
    assert Counter(body["status"] for _, body in answers) == {"accepted": 20, "duplicate": 20}
    assert len({body["event"] for _, body in answers}) == 20


def test_two_receivers_and_two_dispatchers_one_of_them_killed_lose_nothing_and_double_nobody(stage: Stage) -> None:
    stage.settings["HUBSPOT_TIMEOUT"] = "1"  # and with it the leases of who is killed
    stage.crm(limit=190)
    urls = receivers(stage, 2)
    dispatchers = [stage.start("dispatch") for _ in range(2)]
    told = list(conversations(5, chats=120, now=time.time(), duplicates=0.1, repeat_visitors=0.3, zone=UTC))
    halves: list[list[object]] = [[], []]
    for half, webhook in zip(cycle(halves), in_order(told), strict=False):
        half.append(webhook)

    async def everything() -> list[int]:
        sending = [play(half, Endpoint(url, token=TOKEN), rate=150) for half, url in zip(halves, urls, strict=True)]  # type: ignore[arg-type]
        playing = asyncio.gather(*sending)
        await asyncio.sleep(1.0)
        dispatchers[0].send_signal(signal.SIGKILL)
        return [played.never for played in await playing]

    assert asyncio.run(everything()) == [0, 0]
    stage.until(lambda: pending(stage) == 0, dispatchers[1], seconds=120)

    people = expected(told)
    there = crm_contacts(stage)
    assert Counter(contact["email"] for contact in there) == Counter({email.lower(): 1 for email in people})
    phones = {contact["email"]: contact.get("phone") for contact in there}
    assert {email.lower(): person.phone for email, person in people.items()} == phones
    calls = get(f"{stage.crm_url}/_calls")[1]["calls"]
    assert sum(by_status.get("429", 0) for by_status in calls.values()) == 0
    status = stage.command("status")
    assert status.returncode == 0
    assert "Everything has arrived." in status.stdout


def test_a_dispatcher_that_starts_asks_at_once_where_a_person_had_to_act(stage: Stage) -> None:
    stage.crm()
    (url,) = receivers(stage, 1)
    assert get(f"{url}/webhooks/acquire/{TOKEN}", method="POST", body=start(1))[0] == 200
    withdrawn = {"status": 401, "body": {"category": "INVALID_AUTHENTICATION"}}
    get(f"{stage.crm_url}/_faults", method="PUT", body={"answer_next": [withdrawn]})
    first = stage.start("dispatch")
    stage.until(lambda: needs_person(stage), first)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=30)

    second = stage.start("dispatch")
    stage.until(lambda: pending(stage) == 0, second, seconds=25)  # a pause for a person is a minute at least


def needs_person(stage: Stage) -> bool:
    with psycopg.connect(stage.settings["SYNC_LEDGER"]) as connection:
        found = connection.execute("SELECT COUNT(*) FROM destinations WHERE needs_person = 1").fetchone()
    return bool(found and found[0])


def test_through_a_pooler_in_transaction_mode_nothing_is_lost_or_doubled(stage: Stage) -> None:
    direct = stage.settings["SYNC_LEDGER"]
    stage.crm()
    with pooled(direct, stage.folder, free_port()) as through:
        stage.settings["SYNC_LEDGER"] = through
        urls = receivers(stage, 2)
        for _ in range(2):
            stage.start("dispatch")
        told = list(conversations(6, chats=40, now=time.time(), duplicates=0.1, repeat_visitors=0.3, zone=UTC))
        halves = [list(in_order(told))[n::2] for n in range(2)]

        async def everything() -> list[int]:
            sending = [play(h, Endpoint(url, token=TOKEN), rate=150) for h, url in zip(halves, urls, strict=True)]
            return [played.never for played in await asyncio.gather(*sending)]

        assert asyncio.run(everything()) == [0, 0]
        stage.until(lambda: pending(stage) == 0, seconds=120)
        assert stage.command("ledger", "check").returncode == 0
        stage.close()

    people = expected(told)
    assert Counter(contact["email"] for contact in crm_contacts(stage)) == Counter({e.lower(): 1 for e in people})


def test_a_ledger_on_a_server_wants_the_key_to_be_the_same_everywhere(stage: Stage) -> None:
    stage.settings["SYNC_SECRET_KEY"] = ""

    refused = stage.command("serve")

    assert refused.returncode == 2
    assert "SYNC_SECRET_KEY" in refused.stderr


def test_a_server_that_is_not_there_is_said_without_its_password(stage: Stage) -> None:
    stage.settings["SYNC_LEDGER"] = f"postgresql://me:canary-password@127.0.0.1:{free_port()}/nowhere"

    refused = stage.command("serve")

    assert refused.returncode == 3
    assert "cannot be reached" in refused.stderr
    assert "canary" not in refused.stderr
