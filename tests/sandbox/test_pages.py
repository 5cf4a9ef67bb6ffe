"""What a person sees."""

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from sync.sandbox.faults import Faults
from sync.sandbox.pages import ago, plain
from sync.sandbox.store import Store

CONTACTS = "/crm/v3/objects/contacts"
NASTY = "<script>alert(1)</script>"


async def add(crm: httpx.AsyncClient, **properties: str) -> str:
    answer = await crm.post(CONTACTS, json={"properties": properties})
    return str(answer.json()["id"])


async def add_note(crm: httpx.AsyncClient, contact: str, body: str) -> None:
    types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 202}]
    said = {"hs_timestamp": "2026-03-01T10:00:00Z", "hs_note_body": body}
    answer = await crm.post(
        "/crm/v3/objects/notes", json={"properties": said, "associations": [{"to": {"id": contact}, "types": types}]}
    )
    assert answer.status_code == 201


async def test_an_empty_sandbox_says_what_to_do(crm: httpx.AsyncClient) -> None:
    page = (await crm.get("/")).text

    assert "Nobody yet" in page
    assert "crm-sync simulate" in page
    assert "This is the sandbox: an imitation CRM for trying things out. Nothing here leaves this machine." in page


async def test_the_list_shows_who_is_there(crm: httpx.AsyncClient, clock: Any) -> None:
    contact = await add(crm, email="ada@example.com", firstname="Ada", lastname="Lovelace", phone="+44 1", company="AE")
    await add_note(crm, contact, "Hello")
    clock.now += 7200
    page = (await crm.get("/")).text

    for shown in ("Ada Lovelace", "ada@example.com", "+44 1", "AE", "2 hours ago", "by chat-crm-sync", "1 contact"):
        assert shown in page
    assert '<td data-label="Notes" class="number">1</td>' in page


async def test_the_list_renews_itself_also_without_javascript_and_can_be_paused(crm: httpx.AsyncClient) -> None:
    await add(crm, email="ada@example.com")
    live, paused = (await crm.get("/")).text, (await crm.get("/?live=off")).text

    assert '<noscript><meta http-equiv="refresh"' in live
    assert "pause updates" in live
    assert 'http-equiv="refresh"' not in paused
    assert "resume updates" in paused


@pytest.mark.parametrize(
    ("wanted", "found"), [("ADA", True), ("example", True), ("+44", True), ("%", False), ("_", False)]
)
async def test_search_looks_into_what_names_a_person(crm: httpx.AsyncClient, wanted: str, found: bool) -> None:
    await add(crm, email="ada@example.com", firstname="Ada", phone="+44 1")
    page = (await crm.get("/", params={"q": wanted})).text

    assert ('href="/contacts/101"' in page) is found


async def test_many_contacts_come_in_pages(crm: httpx.AsyncClient) -> None:
    inputs = [{"properties": {"email": f"p{place}@example.com"}} for place in range(60)]
    await crm.post(f"{CONTACTS}/batch/create", json={"inputs": inputs})
    first, second = (await crm.get("/")).text, (await crm.get("/?page=2")).text
    beyond = await crm.get("/?page=9")

    assert (first.count("<tr>"), second.count("<tr>")) == (51, 11)
    assert 'href="/?page=2"' in first
    assert "There is no page 9" in beyond.text


async def test_the_contact_shows_every_property_and_its_notes(crm: httpx.AsyncClient, clock: Any) -> None:
    contact = await add(crm, email="ada@example.com", firstname="Ada", jobtitle="Countess")
    await add_note(crm, contact, "<p>Do you ship to <b>London</b>?<br>Yes &amp; fast.</p>")
    clock.now += 60
    await crm.patch(f"{CONTACTS}/{contact}", json={"properties": {"phone": "+44 1"}})
    page = (await crm.get(f"/contacts/{contact}")).text

    for shown in ("Countess", "jobtitle", "+44 1", "just now", "1 minute ago"):
        assert shown in page
    assert "Do you ship to London?\nYes &amp; fast." in page


async def test_what_visitors_type_is_never_markup(crm: httpx.AsyncClient) -> None:
    contact = await add(crm, email="mallory@evil.example", firstname=NASTY, company=NASTY)
    await add_note(crm, contact, f"&lt;script&gt;alert(2)&lt;/script&gt; {NASTY}")
    pages = [
        (await crm.get(path, params={"q": q})).text
        for path, q in (("/", ""), ("/", NASTY), (f"/contacts/{contact}", ""))
    ]

    for page in pages:
        assert NASTY not in page
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page


async def test_nobody_is_404(crm: httpx.AsyncClient) -> None:
    answer = await crm.get("/contacts/999")

    assert answer.status_code == 404
    assert "No such contact" in answer.text


async def test_pages_bring_nothing_from_elsewhere(crm: httpx.AsyncClient) -> None:
    page = await crm.get("/")
    files = [await crm.get(f"/_static/sandbox.{kind}") for kind in ("css", "js", "svg")]

    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    assert [file.status_code for file in files] == [200, 200, 200]
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert 'style="' not in page.text
    assert "<style" not in page.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8901"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8901"}, 200),
        ({"Host": "LOCALHOST:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost:1", "Origin": "null"}, 403),
    ],
)
async def test_only_this_machine_is_answered(crm: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    assert (await crm.get("/", headers=headers)).status_code == status


async def test_the_form_tells_the_sandbox_to_misbehave_and_to_behave(
    app: Starlette, crm: httpx.AsyncClient, faults: Faults
) -> None:
    said = {"down": "503", "share_500": "2.5", "latency": "", "limit": "100", "reject": "a@example.com b@example.com"}
    told = await crm.post("/_faults", data=said)
    page = (await crm.get("/_misbehave")).text
    state = (
        faults.down,
        faults.share_500,
        faults.latency,
        app.state.limit.calls,
        faults.refuses({"email": "b@example.com"}),
    )
    await crm.post("/_faults", data={**said, "reset": "1"})

    assert (told.status_code, told.headers["Location"]) == (303, "/_misbehave")
    assert state == ("503", 0.025, 0.0, 100, True)
    assert '<span class="on">on</span>' in page
    assert 'value="2.5"' in page
    assert (faults.down, faults.share_500, app.state.limit.calls) == (None, 0.0, None)


async def test_a_form_that_makes_no_sense_changes_nothing(crm: httpx.AsyncClient, faults: Faults) -> None:
    answers = [
        await crm.post("/_faults", data=said) for said in ({"share_500": "x"}, {"share_500": "200"}, {"limit": "x"})
    ]

    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert faults.share_500 == 0.0


def test_times_are_told_in_words() -> None:
    assert [ago(0, seconds) for seconds in (0, 59, 60, 7200, 86400, 200000)] == [
        "just now",
        "just now",
        "1 minute ago",
        "2 hours ago",
        "1 day ago",
        "2 days ago",
    ]


def test_a_note_is_read_as_text() -> None:
    assert plain("<p>One</p><p>Two<br>Three &lt;b&gt;</p>") == "One\nTwo\nThree <b>"


async def test_a_contact_with_odd_values_is_shown(crm: httpx.AsyncClient, store: Store) -> None:
    nameless = await add(crm, lastname=" ", phone="+44 1")
    await crm.patch(f"{CONTACTS}/{nameless}", json={"properties": {"lastname": ""}})

    assert "+44 1" in (await crm.get(f"/contacts/{nameless}")).text
    assert (await crm.get("/")).status_code == 200
