"""From a closed chat to one follow-up in the outbox, the whole way (promise P5), and the ways out of it."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.importing import Columns, import_export, look
from sync.models import State
from sync.reconcile import owe_everybody, replay_events
from sync.web.feedback import Feedback
from sync.wiring import addresses
from tests.databases import Server, select
from tests.fakes.mail_feedback import Tattler
from tests.running import Running, running, start
from tests.test_delivery import close

MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def service(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> AsyncIterator[Running]:
    database = None if request.param == "sqlite" else server.database()
    async with running(tmp_path, database=database, mailer="sandbox", secret_key="k" * 40) as made:
        yield made


async def converse(service: Running, chat: int = 172, email: str = "ada@example.com") -> None:
    """A chat that begins and is over now. (The dates of the documents are long past: they are those of the clock.)"""
    for body in (start(chat, email), close(chat)):
        answer = await service.post(dated(body, service.clock.now))
        assert answer.status_code == 200


def dated(body: dict[str, Any], now: float) -> dict[str, Any]:
    from datetime import UTC, datetime

    text = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S")
    inner = body.get("data", body)
    inner |= {name: text for name in ("date_created", "date_updated", "date_picked") if name in inner}
    return body


async def outbox(service: Running) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(transport=service.crm, base_url="http://127.0.0.1:8901") as client:
        answer = await client.get("/_mail", headers={"Authorization": "Bearer sandbox"})
        found: list[dict[str, Any]] = answer.json()["mails"]
        return found


def mails(service: Running) -> list[tuple[str, str | None]]:
    rows = select(service.ledger, "SELECT state, error FROM deliveries WHERE kind = 'email' ORDER BY id")
    return [(row["state"], row["error"]) for row in rows]


def link(mail: dict[str, Any]) -> str:
    (found,) = re.findall(r"<(.+)>", mail["headers"]["List-Unsubscribe"])
    return str(found)


async def test_a_closed_chat_leaves_one_good_mail_and_no_more(service: Running) -> None:
    await converse(service)
    await service.drain()
    assert await outbox(service) == []
    service.clock.now += 20 * MINUTE
    await service.drain()
    await service.post(dated(close(172), service.clock.now))
    service.clock.now += HOUR
    await service.drain()

    (mail,) = await outbox(service)
    assert (mail["to"], mail["headers"]["List-Unsubscribe-Post"]) == ("ada@example.com", "List-Unsubscribe=One-Click")
    assert link(mail) in mail["text"]
    assert "ada" not in link(mail)
    assert mails(service) == [(State.DELIVERED, None)]


async def test_the_link_shows_a_button_and_only_the_button_unsubscribes(service: Running) -> None:
    await converse(service)
    service.clock.now += 20 * MINUTE
    await service.drain()
    (mail,) = await outbox(service)
    page = await service.client.get(link(mail))
    assert (page.status_code, page.text.count("<button"), page.text.count("<script")) == (200, 1, 0)
    assert service.ledger.engine.rows("suppressions", limit=9) == []
    done = await service.client.post(link(mail), data={"List-Unsubscribe": "One-Click"})
    assert (done.status_code, "You are unsubscribed" in done.text) == (200, True)
    service.clock.now += 8 * 24 * HOUR
    await converse(service, 173)
    service.clock.now += HOUR
    await service.drain()

    assert len(await outbox(service)) == 1
    assert mails(service)[1] == (State.IGNORED, "no mail goes to this address: unsubscribed")


async def test_a_link_that_is_not_ours_is_told_so(service: Running) -> None:
    await converse(service)
    service.clock.now += 20 * MINUTE
    await service.drain()
    (mail,) = await outbox(service)
    forged = link(mail)[:-1] + ("0" if link(mail)[-1] != "0" else "1")
    for url in (forged, "/unsubscribe/x", "/unsubscribe/%C3%BC"):
        assert (await service.client.get(url)).status_code == 404
        assert (await service.client.post(url)).status_code == 404
    assert service.ledger.engine.rows("suppressions", limit=9) == []


async def test_a_second_conversation_soon_after_gets_none_and_says_why(service: Running) -> None:
    await converse(service, 172)
    service.clock.now += 20 * MINUTE
    await service.drain()
    await converse(service, 173)
    service.clock.now += 20 * MINUTE
    await service.drain()

    assert len(await outbox(service)) == 1
    assert "FOLLOWUP_COOLDOWN" in str(mails(service)[1][1])


async def test_where_the_answer_is_lost_the_mail_is_unknown_and_there_is_one_at_most(service: Running) -> None:
    await converse(service)
    service.clock.now += 20 * MINUTE
    service.crm.loses_answers_of = "/_mail"
    await service.drain()
    service.crm.loses_answers_of = None
    service.clock.now += HOUR
    await service.drain()

    assert len(await outbox(service)) == 1
    ((state, reason),) = mails(service)
    assert (state, "nobody knows" in str(reason)) == (State.UNKNOWN, True)


async def test_where_nobody_answered_the_door_it_is_sent_later(service: Running) -> None:
    await converse(service)
    await service.drain()
    service.clock.now += 20 * MINUTE
    service.crm.unreachable = True
    await service.drain()
    service.crm.unreachable = False
    service.clock.now += HOUR
    await service.drain()

    assert len(await outbox(service)) == 1
    assert mails(service) == [(State.DELIVERED, None)]


async def test_a_mailer_that_raises_what_it_must_not_is_unknown_too(service: Running) -> None:
    await converse(service)
    service.clock.now += 20 * MINUTE
    service.crm.breaks_at = "/_mail"
    await service.drain()
    service.crm.breaks_at = None
    service.clock.now += HOUR
    await service.drain()

    assert mails(service)[0][0] == State.UNKNOWN


async def test_a_mail_that_is_withdrawn_does_not_end_a_drain(service: Running) -> None:
    for n in range(3):
        await converse(service, 172 + n, f"p{n}@example.com")
    hashed = addresses(service.service.settings).hash("p0@example.com")
    with service.ledger.transaction():
        service.ledger.suppress(hashed, "unsubscribed")
    service.clock.now += 20 * MINUTE
    await service.drain()

    assert sorted(mail["to"] for mail in await outbox(service)) == ["p1@example.com", "p2@example.com"]


async def test_a_bounce_that_is_proved_suppresses_and_a_forged_one_does_not(service: Running) -> None:
    known = addresses(service.service.settings)
    service.webhooks.feedback = {"tattler": Feedback(service.service.writer, known, Tattler())}
    body = b'["ADA@example.com", "bob@example.com"]'

    forged = await service.post(body, "/webhooks/tattler", **{"x-proof": "guess"})
    broken = await service.post(body, "/webhooks/tattler", **{"x-proof": "break"})
    assert (forged.status_code, broken.status_code) == (401, 401)
    assert service.ledger.engine.rows("suppressions", limit=9) == []
    proved = await service.post(body, "/webhooks/tattler", **{"x-proof": "right"})
    again = await service.post(body, "/webhooks/tattler", **{"x-proof": "right"})

    assert proved.json() == again.json() == {"status": "accepted", "suppressed": 2}
    found = {row["hash"]: row["reason"] for row in service.ledger.engine.rows("suppressions", limit=9)}
    assert found == {known.hash(email): "bounced (tattler)" for email in ("ada@example.com", "bob@example.com")}


async def test_neither_a_replay_of_everything_nor_another_mailer_nor_an_import_sends_a_mail(
    service: Running, tmp_path: Path
) -> None:
    await converse(service, 172)
    service.clock.now += 20 * MINUTE
    await service.drain()
    assert len(await outbox(service)) == 1
    ledger, known = service.ledger, service.service.sources
    for row in select(ledger, "SELECT id FROM events"):
        replay_events(ledger, known, event=row["id"])
    assert ledger.mailing is not None
    ledger.mailing = replace(ledger.mailing, mailer="another")
    with ledger.transaction():
        ledger.set_up_mail()
    owe_everybody(ledger, "sandbox")
    (export := tmp_path / "contacts.csv").write_text("id,email,name\n7,ada@example.com,Ada\n8,bob@example.com,Bob\n")
    import_export(ledger, look(export, Columns()), "sandbox", region="US", told=lambda _: None)
    for _ in range(3):
        service.clock.now += 8 * 24 * HOUR
        await service.drain()

    assert len(await outbox(service)) == 1
    assert mails(service) == [(State.DELIVERED, None)]


async def test_what_a_first_pull_brings_of_the_past_is_not_followed_up(service: Running) -> None:
    service.clock.now += 40 * 24 * HOUR
    await converse_at(service, service.clock.now - 30 * 24 * HOUR)
    service.clock.now += HOUR
    await service.drain()

    assert await outbox(service) == []
    assert "FOLLOWUP_MAX_AGE" in str(mails(service)[0][1])


async def converse_at(service: Running, at: float) -> None:
    for body in (start(), close(172)):
        await service.post(dated(body, at))
