"""The imitation mail vendor, and the mailer that uses it."""

import json
from collections.abc import AsyncIterator, Callable
from html import unescape
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from sync.destinations.mail.sandbox import SandboxMail, SandboxMailSettings
from sync.errors import AnswerLost, Broken, DeliveryError, NotSent, Refused, Throttled, Unauthorized, Unreachable
from sync.models import Email, Receipt
from sync.sandbox.app import build
from sync.sandbox.faults import Faults, Scripted
from sync.sandbox.outbox import unsubscribe_address
from sync.sandbox.store import Store

NASTY = "<script>alert(1)</script>"
URL = "https://chat.example.com/unsubscribe/x"
MAIL = {
    "to": "ada@example.com",
    "to_name": "Ada Lovelace",
    "from": "Books <hello@books.example>",
    "reply_to": "team@books.example",
    "subject": "Thank you",
    "text": "Hi Ada",
    "html": "<!doctype html>\n<html><body><p>Hi Ada</p></body></html>",
    "headers": {"Message-ID": "<1@books.example>", "List-Unsubscribe": f"<{URL}>"},
    "key": "k-1",
}


def email(**more: Any) -> Email:
    said: dict[str, Any] = {
        "to": "ada@example.com",
        "to_name": "Ada Lovelace",
        "sender": "Books <hello@books.example>",
        "reply_to": "team@books.example",
        "subject": "Thank you",
        "text": "Hi Ada",
        "html": MAIL["html"],
        "key": "k-1",
        "written_at": 1_772_000_000.0,
        "headers": MAIL["headers"],
    }
    return Email(**{**said, **more})


async def put(crm: httpx.AsyncClient, **more: Any) -> str:
    answer = await crm.post("/_mail", json={**MAIL, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def test_an_empty_outbox_says_what_it_is_for(crm: httpx.AsyncClient) -> None:
    page = (await crm.get("/outbox")).text

    assert "No mail yet" in page
    assert "nobody gets one" in page
    assert 'href="/outbox" aria-current="page"' in page


async def test_a_mail_is_taken_and_told_again(crm: httpx.AsyncClient, clock: Any) -> None:
    taken = await put(crm)
    told = (await crm.get("/_mail")).json()

    assert told == {"mails": [{"id": taken, "taken_at": clock.now, **MAIL}]}


async def test_a_mail_that_comes_twice_is_there_twice_and_shown_so(crm: httpx.AsyncClient) -> None:
    ids = [await put(crm), await put(crm), await put(crm, key="k-2"), await put(crm, to="b@example.com", key=None)]
    told = (await crm.get("/_mail")).json()["mails"]
    page, detail = (await crm.get("/outbox")).text, (await crm.get("/outbox/1")).text

    assert [mail["id"] for mail in told] == ids[::-1]
    assert page.count("same key 2 times") == 2
    assert page.count('class="number">3</td>') == 3
    assert "4 mails" in page
    assert "one of 3 to ada@example.com" in detail
    assert "same key 2 times" in detail


async def test_people_are_counted_in_any_letter_case(crm: httpx.AsyncClient, store: Store) -> None:
    await put(crm)
    await put(crm, to="Ada@Example.com")

    assert [mail.to_person for mail in store.mails()] == [2, 2]


@pytest.mark.parametrize(
    "odd",
    [
        {"to": None},
        {"to": "nobody"},
        {"subject": 7},
        {"html": ["x"]},
        {"html": "\ud800"},
        {"to_name": 7},
        {"key": {}},
        {"headers": []},
        {"headers": {"X": 1}},
    ],
)
async def test_what_is_no_mail_is_refused(crm: httpx.AsyncClient, store: Store, odd: dict[str, Any]) -> None:
    said = json.dumps({**MAIL, **odd})
    answer = await crm.post("/_mail", content=said, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert store.mails() == []


async def test_only_who_has_the_token_may_put_mails_there(store: Store, connect: Callable[..., Any]) -> None:
    async with connect(build(store, token="secret")) as crm:
        answers = [
            await crm.post("/_mail", json=MAIL, headers=headers)
            for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Bearer secret"})
        ]

    assert [answer.status_code for answer in answers] == [401, 401, 200]
    assert len(store.mails()) == 1


async def test_a_form_on_another_site_cannot_put_mails_there(crm: httpx.AsyncClient, store: Store) -> None:
    answer = await crm.post("/_mail", json=MAIL, headers={"Origin": "https://evil.example"})

    assert answer.status_code == 403
    assert store.mails() == []


async def test_mails_outlive_the_process(tmp_path: Any) -> None:
    first = Store(tmp_path / "sandbox.sqlite3")
    first.take_mail("a@example.com", None, MAIL, now=1.0)
    first.close()
    second = Store(tmp_path / "sandbox.sqlite3")
    kept = [mail.said for mail in second.mails()]
    second.close()

    assert kept == [MAIL]


async def test_the_detail_shows_text_headers_and_the_way_out(crm: httpx.AsyncClient) -> None:
    await put(crm)
    page = (await crm.get("/outbox/1")).text

    for shown in (
        "Hi Ada",
        "Books <hello@books.example>",
        "Ada Lovelace <ada@example.com>",
        "<1@books.example>",
        "k-1",
    ):
        assert shown in unescape(page)
    assert f'<a href="{URL}" target="_blank" rel="noopener noreferrer">' in page


async def test_the_html_is_shown_in_a_frame_that_can_do_nothing_but_open_links(crm: httpx.AsyncClient) -> None:
    await put(crm, html=f"<!DOCTYPE html><title>{NASTY}</title>{NASTY}")
    page, frame = await crm.get("/outbox/1"), await crm.get("/outbox/1/html")
    policy = frame.headers["Content-Security-Policy"]

    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page.text
    assert page.headers["Content-Security-Policy"].endswith("frame-ancestors 'none'; frame-src 'self'")
    assert NASTY not in page.text
    assert policy.startswith(
        "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe"
    )
    assert "frame-ancestors 'self'" in policy
    assert "script" not in policy
    assert frame.text.startswith('<!DOCTYPE html><base target="_blank"><title>')


async def test_what_a_mail_says_is_never_markup_on_the_pages(crm: httpx.AsyncClient) -> None:
    odd = {"Message-ID": NASTY, NASTY: NASTY, "List-Unsubscribe": "<javascript:alert(1)>"}
    await put(crm, to=f"{NASTY}@example.com", to_name=NASTY, subject=NASTY, text=NASTY, headers=odd, key=NASTY)
    pages = [(await crm.get(path)).text for path in ("/outbox", "/outbox/1")]

    for page in pages:
        assert NASTY not in page
        assert "&lt;script&gt;" in page
        assert 'href="javascript:' not in page
        assert 'style="' not in page


@pytest.mark.parametrize("path", ["/outbox/7", "/outbox/7/html", f"/outbox/{10**30}"])
async def test_a_mail_that_is_not_there_is_404(crm: httpx.AsyncClient, path: str) -> None:
    answer = await crm.get(path)

    assert answer.status_code == 404
    assert "No such mail" in answer.text


async def test_many_mails_come_in_pages_newest_first(crm: httpx.AsyncClient) -> None:
    for place in range(60):
        await put(crm, subject=f"Mail number {place}", key=f"k-{place}")
    first, second, beyond = [(await crm.get(f"/outbox?page={page}")).text for page in (1, 2, 9)]

    assert (first.count("<tr>"), second.count("<tr>")) == (51, 11)
    assert first.index("Mail number 59") < first.index("Mail number 58")
    assert 'href="/outbox?page=2" rel="next"' in first
    assert "There is no page 9" in beyond


async def test_the_list_renews_itself_and_can_be_paused(crm: httpx.AsyncClient) -> None:
    await put(crm)
    live, paused = (await crm.get("/outbox")).text, (await crm.get("/outbox?live=off")).text

    assert '<noscript><meta http-equiv="refresh"' in live
    assert "/outbox?page=1&amp;live=off" in live
    assert "refresh" not in paused


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (f"<{URL}>", URL),
        (f"<mailto:a@b.example>, <{URL}>", URL),
        ("<javascript:alert(1)>", None),
        ("<http://[>", None),
        ("", None),
    ],
)
def test_the_way_out_is_a_web_address_or_nothing(said: str, found: str | None) -> None:
    assert unsubscribe_address({"list-unsubscribe": said}) == found


# The mailer


@pytest.fixture
def guarded(store: Store, faults: Faults, clock: Any) -> Starlette:
    return build(store, faults=faults, clock=clock, token="sandbox")


def mailer_on(transport: httpx.AsyncBaseTransport, clock: Any, **settings: Any) -> SandboxMail:
    given = SandboxMailSettings(_env_file=None, **settings)
    mailer = SandboxMail.connect(given, clock=clock, transport=transport, blip=0.0)
    assert isinstance(mailer, SandboxMail)
    return mailer


@pytest.fixture
async def mailer(guarded: Starlette, clock: Any) -> AsyncIterator[SandboxMail]:
    mailer = mailer_on(httpx.ASGITransport(app=guarded, raise_app_exceptions=False), clock)
    yield mailer
    await mailer.client.aclose()


async def test_the_mailer_puts_the_whole_mail_there(mailer: SandboxMail, store: Store) -> None:
    receipt = await mailer.send(email())

    assert receipt == Receipt("mail-1", ours=True)
    assert [mail.said for mail in store.mails()] == [MAIL]


async def test_the_mailer_does_not_pretend_to_be_idempotent(mailer: SandboxMail, store: Store) -> None:
    receipts = [await mailer.send(email()) for _ in range(2)]

    assert [receipt.remote_id for receipt in receipts] == ["mail-1", "mail-2"]
    assert mailer.repeatable_for == 0.0
    assert not mailer.hears


async def test_check_proves_the_token_and_puts_nothing_there(
    mailer: SandboxMail, guarded: Starlette, store: Store, clock: Any
) -> None:
    stranger = mailer_on(httpx.ASGITransport(app=guarded), clock, access_token="other")

    assert await mailer.check() == "the outbox of the sandbox at 127.0.0.1:8901"
    with pytest.raises(Unauthorized):
        await stranger.check()
    assert store.mails() == []
    await stranger.client.aclose()


@pytest.mark.parametrize(
    ("fault", "error", "arrived"),
    [
        ({"share_429": 1.0}, Throttled, 0),
        ({"share_500": 1.0}, Broken, 0),
        ({"share_500_after": 1.0}, Broken, 1),
        ({"share_503": 1.0}, Unreachable, 0),
        ({"down": "503"}, Unreachable, 0),
        ({"reject": ["ada@example.com"]}, Refused, 0),
        ({"answer_next": [Scripted(401)]}, Unauthorized, 0),
    ],
)
async def test_what_goes_wrong_is_said_truly(
    mailer: SandboxMail, store: Store, faults: Faults, fault: dict[str, Any], error: type[DeliveryError], arrived: int
) -> None:
    for name, value in fault.items():
        setattr(faults, name, value)
    with pytest.raises(DeliveryError) as raised:
        await mailer.send(email())

    assert type(raised.value) is error
    assert len(store.mails()) == arrived
    assert "ada@example.com" not in str(raised.value)
    assert arrived == 0 or getattr(raised.value, "may_have_landed", False)


@pytest.mark.parametrize("body", [None, {}, [], {"id": None}, {"id": ""}, {"id": 7}, "<html>"])
async def test_an_answer_without_an_id_may_mean_that_it_was_taken(
    mailer: SandboxMail, faults: Faults, body: Any
) -> None:
    faults.answer_next = [Scripted(200, body)]
    with pytest.raises(AnswerLost):
        await mailer.send(email())


async def test_a_sandbox_that_is_not_there_has_taken_nothing(clock: Any) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    mailer = mailer_on(httpx.MockTransport(refuse), clock)
    with pytest.raises(NotSent):
        await mailer.send(email())
    await mailer.client.aclose()


def test_its_settings_are_those_of_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_BASE_URL", "http://127.0.0.1:9000/")
    monkeypatch.setenv("SANDBOX_FILE", "sandbox.sqlite3")

    assert SandboxMailSettings().base_url == "http://127.0.0.1:9000"
    assert SandboxMailSettings().access_token.get_secret_value() == "sandbox"
