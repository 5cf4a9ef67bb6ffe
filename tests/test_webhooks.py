"""The endpoint: 200 only for what is stored (promise P1), and an answer for every kind of bad input (P2)."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.errors import LedgerUnavailable
from sync.service import _count_rejected
from sync.web.webhooks import LARGE
from tests.running import Running, running, start

SECRET = "canary-secret-0123456789"
TOKEN = "canary-token-0123456789abcdef"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as made:
        yield made


def stored(service: Running) -> list[Any]:
    return list(service.ledger.engine.connection.execute("SELECT * FROM events ORDER BY id"))  # type: ignore[attr-defined]


async def test_a_chat_start_becomes_one_contact_in_the_crm(service: Running) -> None:
    answer = await service.post(start(email="John@acquire.io", name="John"))
    await service.drain()

    assert (answer.status_code, answer.json()["status"]) == (200, "accepted")
    (john,) = service.crm.contacts.values()
    assert (john["email"], john["firstname"]) == ("john@acquire.io", "John")


async def test_the_same_body_again_is_a_duplicate_and_changes_nothing(service: Running) -> None:
    first = await service.post(start())
    await service.drain()
    calls = service.crm.state.calls.total

    again = await service.post(start())
    await service.drain()

    assert (again.status_code, again.json()) == (200, {"status": "duplicate", "event": first.json()["event"]})
    assert service.crm.state.calls.total == calls


async def test_another_letter_case_in_a_new_chat_makes_no_second_contact(service: Running) -> None:
    await service.post(start(1, "John@acquire.io"))
    await service.post(start(2, "john@ACQUIRE.io"))
    await service.drain()

    assert len(service.crm.contacts) == 1


async def test_a_200_means_that_it_is_in_the_ledger(service: Running, tmp_path: Path) -> None:
    answer = await service.post(start())

    assert [row["id"] for row in stored(service)] == [answer.json()["event"]]


@pytest.mark.parametrize("path", ["/webhooks/nobody", "/webhooks/nobody/token"])
async def test_an_unknown_source_is_404(service: Running, path: str) -> None:
    assert (await service.post(start(), path)).status_code == 404


async def test_another_method_is_405(service: Running) -> None:
    assert (await service.client.get("/webhooks/acquire")).status_code == 405


async def test_a_body_over_the_limit_is_413_and_not_stored(tmp_path: Path) -> None:
    async with running(tmp_path, body_limit=2048) as service:
        declared = await service.post(b"x" * 4096)
        streamed = await service.client.post("/webhooks/acquire", content=_slowly(b"x" * 1024, 4))

        assert (declared.status_code, streamed.status_code) == (413, 413)
        assert stored(service) == []


@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5_000, b"-1", b"abc", b""], ids=lambda length: repr(length[:9]))
async def test_a_length_that_is_no_number_is_413(service: Running, length: bytes) -> None:
    answer = await service.client.post("/webhooks/acquire", content=b"{}", headers=[(b"content-length", length)])

    assert answer.status_code == 413
    assert stored(service) == []


async def _slowly(chunk: bytes, times: int, pause: float = 0) -> AsyncIterator[bytes]:
    for _ in range(times):
        await asyncio.sleep(pause)
        yield chunk


async def test_a_body_that_comes_too_slowly_is_given_up(tmp_path: Path) -> None:
    async with running(tmp_path, body_timeout=0.05) as service:
        answer = await service.client.post("/webhooks/acquire", content=_slowly(b"{", 20, 0.02))

        assert (answer.status_code, answer.headers["connection"]) == (408, "close")
        assert stored(service) == []


async def test_large_bodies_wait_for_each_other_and_hold_up_no_small_one(service: Running) -> None:
    service.webhooks.large = asyncio.Semaphore(1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"{" + b" " * LARGE
        begun.set()
        await go_on.wait()
        yield b"}"

    async with asyncio.timeout(5):
        first = asyncio.create_task(service.client.post("/webhooks/acquire", content=stalling()))
        await begun.wait()
        second = asyncio.create_task(service.post(b" " * (LARGE + 1)))
        small = [(await service.post(start(n, f"p{n}@example.com"))).status_code for n in range(10)]
        assert (small, first.done(), second.done()) == ([200] * 10, False, False)

        go_on.set()
        assert [answer.status_code for answer in await asyncio.gather(first, second)] == [200, 200]


UNREADABLE = {
    "not JSON": b"hello",
    "truncated": b'{"event": "CHAT_ON_START", "data": {',
    "XML": b"<?xml version='1.0'?><event>CHAT_ON_START</event>",
    "a form": b"event=CHAT_ON_START&id=172",
    "a list": b"[1, 2, 3]",
    "a number": b"42",
    "nested too deep": b'{"event":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "an absurd number": b'{"event": "CHAT_ON_START", "data": {"id": ' + b"9" * 10_000 + b"}}",
    "not UTF-8": b"\xff\xfe\x00\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_cannot_be_read_is_kept_and_answered_200(service: Running, case: str) -> None:
    answer = await service.post(UNREADABLE[case])

    assert (answer.status_code, answer.json()["status"]) == (200, "unreadable")
    (row,) = stored(service)
    assert row["state"] == "unreadable"
    assert row["error"]
    assert row["payload"] or case == "nothing"


HEAD = b'{"event":"CHAT_ON_START","data":{"id":1,"details":{"email":"ada@example.com",'

DIRTY = {
    "NUL": HEAD + b'"name":"A\\u0000da"}}}',
    "a control character": HEAD + b'"name":"A\x01da"}}}',
    "a lone surrogate": HEAD + b'"name":"A\\ud800da"}}}',
    "a duplicate key": HEAD + b'"name":"X","name":"Ada"}}}',
    "a BOM": b"\xef\xbb\xbf" + HEAD + b'"name":"Ada"}}}',
}


@pytest.mark.parametrize("case", DIRTY)
async def test_dirt_inside_a_readable_webhook_does_not_lose_the_lead(service: Running, case: str) -> None:
    answer = await service.post(DIRTY[case])
    await service.drain()

    assert answer.json()["status"] == "accepted"
    assert service.crm.contacts["ada@example.com"]["firstname"] == "Ada"
    assert json.loads(stored(service)[0]["flags"])


@pytest.mark.parametrize("name", ["CHAT_ON_SOMETHING_NEW", "AGENT_ON_LOGIN"])
async def test_an_event_about_nobody_is_kept(service: Running, name: str) -> None:
    answer = await service.post({"event": name, "data": {"agent": "x"}})

    assert answer.json()["status"] == "accepted"
    assert stored(service)[0]["state"] == "kept"


async def test_a_bad_email_and_phone_beside_a_good_name_count(service: Running) -> None:
    await service.post(start(1, "not an email", "Ada", phone="+1 202 555 0100"))
    await service.post(start(2, "bob@example.com", "Bob", phone="call me"))
    await service.drain()

    assert sorted(service.crm.contacts) == ["+12025550100", "bob@example.com"]
    assert len([flags for row in stored(service) if (flags := json.loads(row["flags"]))]) == 2


async def test_a_poisonous_event_does_not_sink_its_group(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from sync.ledger import applying

    real = applying.fold

    def fold(world: Any, event: Any) -> None:
        if event.chat == "v1:1013":
            raise ZeroDivisionError("boom")
        real(world, event)

    monkeypatch.setattr(applying, "fold", fold)
    answers = await asyncio.gather(*(service.post(start(n, f"p{n}@example.com")) for n in range(10, 20)))

    assert [a.status_code for a in answers] == [200] * 10
    assert [a.json()["status"] for a in answers].count("unreadable") == 1
    (poison,) = [row for row in stored(service) if row["state"] == "unreadable"]
    assert (poison["chat"], poison["error"]) == ("v1:1013", "could not be applied (ZeroDivisionError)")


async def test_a_ledger_that_cannot_be_written_is_503_and_recovers(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sync.ledger import Ledger

    def full(*_: Any) -> None:
        raise LedgerUnavailable("the ledger cannot be written: database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "apply", full)
        refused = await service.post(start())
    accepted = await service.post(start())

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (accepted.status_code, accepted.json()["status"]) == (200, "accepted")


async def test_a_ledger_that_is_damaged_is_503_and_recovers(service: Running) -> None:
    connection = service.ledger.engine.connection  # type: ignore[attr-defined]
    connection.execute("ALTER TABLE events RENAME TO gone")
    async with asyncio.timeout(5):
        refused = await service.post(start())
    connection.execute("ALTER TABLE gone RENAME TO events")
    accepted = await service.post(start())

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (accepted.status_code, accepted.json()["status"]) == (200, "accepted")


async def test_without_the_thread_that_writes_nothing_is_well(service: Running) -> None:
    service.service.writer.close()

    paths = ("/healthz", "/readyz", "/metrics")
    answers = [await service.client.get(path) for path in paths] + [await service.post(start())]

    assert [answer.status_code for answer in answers] == [503] * 4
    assert "has ended" in answers[0].text
    assert "has ended" in answers[1].json()["findings"][0]


async def test_events_that_arrive_together_share_a_commit(service: Running) -> None:
    engine: Any = service.ledger.engine
    commits: list[str] = []
    engine.connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    await asyncio.gather(*(service.post(start(n, f"p{n}@example.com")) for n in range(200)))

    engine.connection.set_trace_callback(None)
    assert len(stored(service)) == 200
    assert len(commits) < 100


def signed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def test_with_a_secret_only_signed_webhooks_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACQUIRE_WEBHOOK_SECRET", SECRET)
    body = json.dumps(start()).encode()
    async with running(tmp_path) as service:
        good = await service.post(body, **{"x-acquire-signature": signed(body)})
        wrong = await service.post(body + b" ", **{"x-acquire-signature": signed(b"something else")})
        missing = await service.post(body)
        odd = [(b"x-acquire-signature", b"\xe9")]
        nonsense = await service.client.post("/webhooks/acquire", content=body, headers=odd)

        assert [a.status_code for a in (good, wrong, missing, nonsense)] == [200, 401, 401, 401]
        assert len(stored(service)) == 1
        assert service.webhooks.rejected == {"rejected_401": 3}


async def test_with_a_token_only_the_right_address_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACQUIRE_URL_TOKEN", TOKEN)
    async with running(tmp_path) as service:
        good = await service.post(start(), f"/webhooks/acquire/{TOKEN}")
        wrong = await service.post(start(), "/webhooks/acquire/wrong")
        missing = await service.post(start())

        assert [a.status_code for a in (good, wrong, missing)] == [200, 401, 401]


async def test_a_check_that_fails_inside_is_a_401(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    source = service.webhooks.sources["acquire"]

    def broken(request: object) -> None:
        raise ValueError("canary")

    monkeypatch.setattr(source, "verify", broken)

    assert (await service.post(start())).status_code == 401
    assert stored(service) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-Host": "crm.example.com"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"Host": "crm.example.com"},
        {"Host": "localhost.example.com:8900"},
        {"Host": "127.evil.example"},
        {"Host": "127.0.0.1.evil.example:8900"},
        {"Host": "evil@127.0.0.1"},
        {"Host": ""},
        {"X_Forwarded_For": "203.0.113.9"},
        {"X-Real-IP": "203.0.113.9"},
        {"X_Real_IP": "203.0.113.9"},
        {"CF-Connecting-IP": "203.0.113.9"},
        {"True-Client-IP": "203.0.113.9"},
        {"X-Client-IP": "203.0.113.9"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8900"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
    ids=str,
)
async def test_without_secret_or_token_nobody_gets_in_through_a_proxy_or_a_browser(
    service: Running, headers: dict[str, str]
) -> None:
    assert (await service.post(start(), **headers)).status_code == 403
    assert (await service.client.get("/metrics", headers=headers)).status_code == 403
    assert stored(service) == []


@pytest.mark.parametrize("hosts", [("127.0.0.1", "evil.example"), ("evil.example", "127.0.0.1")], ids=str)
async def test_two_names_for_one_place_are_one_too_many(service: Running, hosts: tuple[str, str]) -> None:
    headers = [("Host", host) for host in hosts]

    assert (await service.client.post("/webhooks/acquire", json=start(), headers=headers)).status_code == 403


async def test_a_person_who_types_the_address_may_look_at_the_metrics(service: Running) -> None:
    assert (await service.client.get("/metrics", headers={"Sec-Fetch-Site": "none"})).status_code == 200


async def test_with_a_secret_a_proxy_is_welcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACQUIRE_WEBHOOK_SECRET", SECRET)
    body = json.dumps(start()).encode()
    async with running(tmp_path) as service:
        headers = {"x-acquire-signature": signed(body), "X-Forwarded-For": "203.0.113.9", "Host": "crm.example.com"}

        assert (await service.post(body, **headers)).status_code == 200


@pytest.mark.parametrize("host", ["localhost:8900", "127.0.0.1", "[::1]:8900", "127.0.0.2:1"])
async def test_every_name_of_this_machine_is_direct(service: Running, host: str) -> None:
    assert (await service.post(start(), Host=host)).status_code == 200


async def test_health_and_readiness(service: Running) -> None:
    healthy, ready = await service.client.get("/healthz"), await service.client.get("/readyz")

    assert (healthy.status_code, ready.status_code) == (200, 200)
    assert ready.json() == {"status": "ready", "findings": [], "warnings": []}


async def test_a_disk_that_is_nearly_full_is_not_ready(tmp_path: Path) -> None:
    async with running(tmp_path, disk_reserve=1 << 60) as service:
        answer = await service.client.get("/readyz")

        assert answer.status_code == 503
        assert "nearly full" in answer.json()["findings"][0]


async def test_a_ledger_that_cannot_be_written_is_not_ready(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from sync.ledger import Ledger

    def full(_: Any) -> None:
        raise LedgerUnavailable("the ledger cannot be written: disk is full")

    monkeypatch.setattr(Ledger, "prove_writable", full)

    answer = await service.client.get("/readyz")

    assert (answer.status_code, answer.json()["findings"]) == (503, ["the ledger cannot be written: disk is full"])


async def test_metrics_tell_what_the_ledger_holds_to_this_machine_only(service: Running) -> None:
    await service.post(start())
    await service.post(start(), "/webhooks/nobody")

    here = await service.client.get("/metrics")
    elsewhere = await service.client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})

    assert 'crm_sync_events_total{state="applied"} 1.0' in here.text
    assert 'crm_sync_deliveries{destination="sandbox",kind="contact",state="pending"} 1.0' in here.text
    assert 'crm_sync_rejected_total{status="404"} 1.0' in here.text
    assert elsewhere.status_code == 403


async def counters(service: Running) -> dict[str, int]:
    return await service.service.writer.do(lambda ledger: {r["name"]: r["n"] for r in ledger.engine.rows("counters")})


async def test_what_was_refused_is_counted_once_though_the_counting_was_cut_off(service: Running) -> None:
    for _ in range(3):
        await service.post(start(), "/webhooks/nobody")
    counting = asyncio.create_task(_count_rejected(service.service, service.webhooks))
    await asyncio.sleep(0)
    counting.cancel()
    await asyncio.wait([counting])

    await _count_rejected(service.service, service.webhooks)

    assert await counters(service) == {"rejected_404": 3}


async def test_what_could_not_be_counted_is_counted_later(service: Running) -> None:
    connection = service.ledger.engine.connection  # type: ignore[attr-defined]
    await service.post(start(), "/webhooks/nobody")
    connection.execute("PRAGMA query_only = ON")
    await _count_rejected(service.service, service.webhooks)
    connection.execute("PRAGMA query_only = OFF")

    await _count_rejected(service.service, service.webhooks)

    assert await counters(service) == {"rejected_404": 1}


async def test_a_client_that_hangs_up_while_it_waits_breaks_nothing(service: Running) -> None:
    posting = asyncio.create_task(service.post(start(1)))
    await asyncio.sleep(0)
    posting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await posting

    answer: httpx.Response = await service.post(start(2, "bob@example.com"))
    assert answer.status_code == 200


async def test_without_the_token_the_body_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACQUIRE_URL_TOKEN", TOKEN)
    asked_for: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        asked_for.append(b"x")
        yield b"x"

    async with running(tmp_path) as service:
        answer = await service.client.post("/webhooks/acquire/wrong", content=body())

        assert answer.status_code == 401
        assert service.webhooks.rejected == {"rejected_401": 1}
