"""The simulation: made-up chats that tests, `crm-sync simulate` and the benchmark play, and what must come of them."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sync.cli import main
from sync.destinations.hubspot.mapping import split_name
from sync.errors import NotAuthentic
from sync.models import EventType
from sync.sandbox.app import build as build_sandbox
from sync.sandbox.store import Store
from sync.settings import Settings
from sync.simulation import Conversation, Webhook, conversations, expected, in_order
from sync.simulation.people import NAMES
from sync.simulation.playing import Endpoint, Played, play
from sync.sources.acquire import Acquire, AcquireSettings
from sync.sources.base import WebhookRequest
from sync.web.app import Health
from sync.web.app import build as build_app
from sync.web.server import Server
from sync.web.webhooks import Webhooks
from sync.wiring import SandboxSettings, Service, build, connect, open_ledger

NOW = 1_790_000_000.0
EMAIL = re.compile(rb"[\w.+-]+@[\w.-]+", re.ASCII)
PHONE = re.compile(r"\+1[ (-]*202[) -]*555[ -]*01\d\d")
SECRET = "a secret of the account"


def a_simulation(seed: int = 7, chats: int = 60, **more: float) -> list[Conversation]:
    return list(conversations(seed, chats=chats, now=NOW, **more))


def read(webhook: Webhook) -> object:
    source = Acquire(AcquireSettings(), digest=lambda body: body.hex()[:32], phone_region="US")
    return source.read(webhook.body, event_id="ev_1", received_at=NOW)


def test_the_same_seed_tells_the_same_bytes() -> None:
    assert a_simulation() == a_simulation()


def test_another_seed_tells_something_else() -> None:
    assert a_simulation(seed=7) != a_simulation(seed=8)


def test_no_two_seeds_share_a_chat_or_a_person() -> None:
    told = [a_simulation(seed=seed) for seed in (0, 1, 11, 110, 1101)]

    chats = Counter(c.chat.partition(":")[2] for each in told for c in each)
    emails = Counter(email for each in told for email in expected(each))
    visitors = Counter(visitor for each in told for visitor in {c.person.id for c in each})
    assert {*chats.values(), *emails.values(), *visitors.values()} == {1}


def test_everybody_lives_at_example_com() -> None:
    found = {email for c in a_simulation() for w in c.webhooks for email in EMAIL.findall(w.body)}

    assert found
    assert {email.lower().rpartition(b"@")[2] for email in found} == {b"example.com"}


def test_every_phone_is_kept_free_for_fiction() -> None:
    phones = {c.person.phone for c in a_simulation() if c.person.phone}
    typed = {
        json.loads(w.body)["data"]["details"]["phone"]
        for c in a_simulation()
        for w in c.webhooks
        if b"CHAT_ON_START" in w.body
    }

    assert all(PHONE.fullmatch(phone) for phone in (phones | typed) - {None})
    assert len(typed) > len({phone and re.sub(r"\D", "", phone) for phone in typed})


def test_every_webhook_can_be_read_without_a_flag() -> None:
    events = [read(webhook) for c in a_simulation() for webhook in c.webhooks]

    assert {(e.error, e.flags) for e in events} == {(None, ())}
    assert {e.type for e in events} == set(EventType) - {EventType.OTHER}


def test_the_last_chat_is_over_just_now() -> None:
    for chats in (1, 2, 60):
        told = a_simulation(chats=chats)

        assert told[-1].ended_at == NOW
        assert all(w.at <= NOW for w in told[-1].webhooks if not w.is_copy)
        assert [c.webhooks[0].at for c in told] == sorted(c.webhooks[0].at for c in told)


def test_all_chats_can_be_of_one_person() -> None:
    told = list(conversations(7, chats=9, now=NOW, email="ada@example.com"))

    assert {(c.person.email, c.person.id) for c in told} == {("ada@example.com", told[0].person.id)}
    assert len({c.chat for c in told}) == 9


def test_both_families_are_told() -> None:
    assert {c.chat.partition(":")[0] for c in a_simulation()} == {"v1", "v2"}


def test_the_last_event_of_a_chat_says_all_that_is_expected_of_it() -> None:
    for c in a_simulation():
        last = read([w for w in c.webhooks if not w.is_copy][-1])

        assert (last.visitor.name, last.visitor.phone) == (c.person.name, c.person.phone)
        assert last.chat == c.chat
        assert last.occurred_at == c.ended_at <= NOW


def test_names_come_from_everywhere_and_stay_as_they_are_said() -> None:
    assert sum(not name.isascii() for name, _ in NAMES) > len(NAMES) / 2
    assert all(address.isascii() for _, address in NAMES)


def test_shares_are_kept() -> None:
    told = a_simulation(chats=2000, duplicates=0.25, repeat_visitors=0.5)

    copies = Counter(webhook.is_copy for c in told for webhook in c.webhooks)
    assert copies[True] / copies[False] == pytest.approx(0.25, abs=0.03)
    assert len(expected(told)) / len(told) == pytest.approx(0.5, abs=0.1)


def test_repeat_visitors_change_what_they_say() -> None:
    told = a_simulation(chats=400)

    spellings = Counter(email.lower() for email in {c.person.email for c in told})
    names = Counter(email for email, _ in {(c.person.email.lower(), c.person.name) for c in told})
    phones = Counter(email for email, _ in {(c.person.email.lower(), c.person.phone) for c in told})
    assert min(max(found.values()) for found in (spellings, names, phones)) > 1


def test_nobody_has_two_chats_at_once() -> None:
    ended: dict[str, float] = {}
    for c in a_simulation(chats=400):
        assert min(w.at for w in c.webhooks) > ended.get(c.person.id, 0.0)
        ended[c.person.id] = c.ended_at


def test_what_was_not_said_last_is_expected_to_stay() -> None:
    told = a_simulation(chats=400)
    silent = [c for c in told if c.person.phone is None]
    phones = {c.person.email.lower() for c in told if c.person.phone is not None}

    known = expected(told)
    assert any(known[c.person.email.lower()].phone for c in silent if c.person.email.lower() in phones)


def test_webhooks_of_several_chats_are_sent_between_each_other() -> None:
    webhooks = list(in_order(a_simulation()))

    assert [w.at for w in webhooks] == sorted(w.at for w in webhooks)
    assert Counter(webhooks) == Counter(w for c in a_simulation() for w in c.webhooks)
    switches = sum(a.chat != b.chat for a, b in pairwise(webhooks))
    assert switches > 120


def test_a_copy_is_never_sent_before_its_original() -> None:
    sent: set[bytes] = set()
    for webhook in in_order(a_simulation(duplicates=1.0)):
        assert webhook.is_copy == (webhook.body in sent)
        sent.add(webhook.body)


def test_too_many_chats_of_one_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="1000000"):
        next(conversations(1, chats=1_000_001, now=NOW))


@dataclass
class Running:
    """A service with its server, its ledger and its CRM."""

    service: Service
    url: str
    crm: Store


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    """The real path: a server on a port of its own, a ledger on disk, the sandbox behind its own API."""
    settings = Settings(ledger=f"sqlite:///{folder / 'ledger.sqlite3'}")
    crm = Store()
    sandbox = connect(
        "sandbox",
        SandboxSettings(calls_per_10s=1e6),
        transport=httpx.ASGITransport(app=build_sandbox(crm)),
    )
    ledger = open_ledger(settings)
    service = build(settings, ledger, [sandbox])
    await sandbox.repair()
    webhooks = Webhooks(service.pipeline, service.sources, settings.body_limit, settings.body_timeout)
    server = Server(build_app(webhooks, Health(service.writer, None, 0)), "127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started()
        try:
            yield Running(service, server.url, crm)
        finally:
            server.stop()
    await sandbox.client.aclose()
    service.writer.close()
    ledger.engine.close()
    crm.close()


async def test_after_a_simulation_the_ledger_and_the_crm_hold_exactly_what_is_expected(tmp_path: Path) -> None:
    told = list(conversations(7, chats=60, now=time.time(), duplicates=0.2, repeat_visitors=0.4))
    webhooks = list(in_order(told))
    async with running(tmp_path) as run:
        played = await play(webhooks, Endpoint(run.url), connections=8)
        await run.service.dispatcher.drain()

        copies = sum(webhook.is_copy for webhook in webhooks)
        assert played.answers == {"accepted": len(webhooks) - copies, "duplicate": copies}
        assert (played.sent, played.never, played.refused) == (len(webhooks), 0, {})
        rows = await run.service.writer.do(lambda ledger: ledger.engine.rows("all_contacts", after="", limit=1000))
        assert _people(told) == {r["email"].lower(): (r["name"], r["phone"]) for r in rows}
        assert _in_the_crm(told) == {r.properties["email"]: _there(r.properties) for r in run.crm.contacts}
        assert len(run.crm.contacts) == len(rows)
        assert len(run.crm.notes) == len(told)


def _people(told: list[Conversation]) -> dict[str, tuple[str, str | None]]:
    return {email: (person.name, person.phone) for email, person in expected(told).items()}


def _in_the_crm(told: list[Conversation]) -> dict[str, tuple[str | None, str | None, str | None]]:
    return {email: (*split_name(name), phone) for email, (name, phone) in _people(told).items()}


def _there(properties: Mapping[str, str]) -> tuple[str | None, str | None, str | None]:
    return properties.get("firstname"), properties.get("lastname"), properties.get("phone")


async def test_webhooks_are_signed_when_there_is_a_secret() -> None:
    source = Acquire(AcquireSettings(webhook_secret=SECRET), digest=lambda body: body.hex(), phone_region="US")
    webhook = a_simulation()[0].webhooks[0]

    headers = {name.lower(): said for name, said in Endpoint("http://h", secret=SECRET).headers(webhook.body).items()}
    source.verify(WebhookRequest(headers, webhook.body))
    with pytest.raises(NotAuthentic):
        source.verify(WebhookRequest(headers, webhook.body + b" "))


def test_a_token_stands_in_the_address() -> None:
    assert Endpoint("http://h", token="t/ken").path == "/webhooks/acquire/t%2Fken"


@asynccontextmanager
async def answering(*statuses: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives these answers in turn, the last one from then on, and notes what it was sent."""
    taken: list[bytes] = []

    async def take(request: Request) -> Response:
        taken.append(await request.body())
        return JSONResponse({"status": "accepted"}, statuses[min(len(taken), len(statuses)) - 1])

    server = Server(Starlette(routes=[Route("/webhooks/acquire", take, methods=["POST"])]), "127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started()
        yield server.url, taken
        server.stop()


async def test_what_is_refused_is_sent_again_until_it_is_taken() -> None:
    webhook = a_simulation()[0].webhooks[0]
    async with answering(503, 500, 200) as (url, taken):
        played = await play([webhook], Endpoint(url), pauses=(0.0, 0.0, 0.0))

    assert taken == [webhook.body] * 3
    assert (played.answers, played.refused, played.never) == ({"accepted": 1}, {503: 1, 500: 1}, 0)


async def test_what_is_never_taken_is_told() -> None:
    webhooks = a_simulation()[0].webhooks[:2]
    async with answering(401) as (url, taken):
        played = await play(webhooks, Endpoint(url), pauses=(0.0, 0.0))

    assert len(taken) == 4
    assert (played.answers, played.refused, played.never) == ({}, {401: 4}, 2)


async def test_it_ends_when_nobody_is_there() -> None:
    webhooks = list(in_order(a_simulation()))
    async with answering(200) as (url, _):
        pass
    played = await play(webhooks, Endpoint(url), connections=2, pauses=(0.0,))

    assert played.never < len(webhooks) / 2
    assert played.refused[0] == played.never


async def test_a_rate_is_kept_and_seconds_count_from_when_a_webhook_was_due() -> None:
    webhooks = list(in_order(a_simulation()))[:20]
    async with answering(200) as (url, _):
        played = await play(webhooks, Endpoint(url), rate=100, connections=2)

    assert played.took >= 0.19
    assert len(played.seconds) == 20


def simulate(*options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["simulate", *options])
    return result.exit_code, result.stdout, result.stderr


def test_made_up_people_do_not_get_into_a_real_crm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_DESTINATIONS", "sandbox,hubspot")
    monkeypatch.setenv("HUBSPOT_ACCESS_TOKEN", "t0ken")

    code, _, said = simulate("--chats", "1")
    assert code == 2
    assert said.count("\n") == 1
    assert "hubspot is at api.hubapi.com" in said


def test_a_server_elsewhere_counts_as_a_real_crm() -> None:
    code, _, said = simulate("--chats", "1", "--url", "https://sync.example.com")

    assert code == 2
    assert "--into-real-crm" in said


def test_an_address_that_is_none_is_refused() -> None:
    assert simulate("--url", "localhost")[0] == 2


def test_the_command_says_what_became_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def all_taken(webhooks: object, endpoint: Endpoint, *, rate: float | None) -> Played:
        count = len(list(webhooks))  # type: ignore[call-overload]
        return Played(sent=count, answers=Counter(accepted=count - 1, duplicate=1), began_at=1.0, ended_at=2.0)

    monkeypatch.setattr("sync.cli.simulate.play", all_taken)

    code, out, said = simulate("--chats", "20", "--seed", "5")
    assert code == 0
    assert re.search(r"sent \d+ webhooks about \d+ people: \d+ accepted, 1 duplicates, 0 refused\n1.0 seconds, ", out)
    assert said.splitlines()[0].startswith("seed 5: 20 chats against http://127.0.0.1:8900")
    assert said.splitlines()[-1] == "20 of 20 chats"


def test_the_command_fails_if_a_webhook_was_never_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_taken(webhooks: object, endpoint: Endpoint, *, rate: float | None) -> Played:
        return Played(sent=1, never=1, refused=Counter({401: 6}))

    monkeypatch.setattr("sync.cli.simulate.play", none_taken)

    code, out, said = simulate("--chats", "1")
    assert code == 3
    assert "6 refused (6 times 401), 1 never acknowledged" in out
    assert "ACQUIRE_WEBHOOK_SECRET" in said
