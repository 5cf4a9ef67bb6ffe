"""`crm-sync contacts` and `crm-sync show`: find a person, and see everything about them."""

import pytest

from tests.cli.conftest import Desk, close, says, start

ADA = {"name": "Ada Lovelace", "email": "Ada@Example.com", "phone": "+1 202 555 0100"}


def test_contacts_are_found_by_part_of_name_email_or_phone(desk: Desk) -> None:
    desk.take(start(1, **ADA), start(2, name="Bob", email="bob@example.com"))

    for query in ("love", "ADA@", "(202) 555"):
        assert [one["name"] for one in desk.json("contacts", query)] == ["Ada Lovelace"]
    assert len(desk.json("contacts")) == 2
    assert len(desk.json("contacts", "--limit", "1")) == 1


async def test_contacts_say_where_they_stand(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    await desk.deliver()

    assert desk.json("contacts")[0]["destinations"] == {"sandbox": "delivered"}
    assert "sandbox ✓" in desk.run("contacts").stdout


def test_nobody_found_is_no_failure(desk: Desk) -> None:
    desk.take(start(1, **ADA))

    result = desk.run("contacts", "zoe")
    assert (result.exit_code, result.stdout) == (0, "Nobody's name, email or phone holds zoe.\n")


@pytest.mark.parametrize("name", ["ada@example.com", "ADA@EXAMPLE.COM", "+12025550100", "(202) 555-0100"])
def test_a_contact_is_shown_by_what_it_is_known_by(desk: Desk, name: str) -> None:
    desk.take(start(1, **ADA))

    assert desk.json("show", name)["email"] == "Ada@example.com"


async def test_a_contact_is_shown_with_its_chats_and_receipts(desk: Desk) -> None:
    desk.take(start(1, **ADA, company="Engines"), close(1, **ADA))
    await desk.deliver()

    found = desk.json("show", "ada@example.com")
    (record,) = desk.crm.contacts
    contact, chat = found["deliveries"][0], found["chats"][0]
    assert found["attributes"] == {"company": "Engines"}
    assert {"kind": "phone", "value": "+12025550100"} in found["identities"]
    assert (chat["chat"], chat["agent"]) == ("v1:1", "Grace")
    assert (contact["state"], contact["remote_id"], contact["ours"]) == ("delivered", str(record.id), True)
    assert f"as {record.id}, made by us" in desk.run("show", found["id"]).stdout


def test_a_chat_is_shown_by_the_sources_own_id(desk: Desk) -> None:
    desk.take(start(1, **ADA), start(1, **ADA))

    found = desk.json("show", "v1:1")
    assert found["contact"]["name"] == "Ada Lovelace"
    assert [(e["name"], e["copies"]) for e in found["events"]] == [("CHAT_ON_START", 2)]
    assert "came 2 times" in desk.run("show", found["id"]).stdout


def test_an_event_tells_what_it_said_and_what_of_it_still_stands(desk: Desk) -> None:
    first, _ = desk.take(start(1, name="Ada", email="ada@example.com"), close(1, name="Ada Lovelace"))

    found = desk.json("show", first)
    assert found["changed"]["contact"]["name"] == "Ada Lovelace"
    assert found["changed"]["stands"] == ["email"]
    assert found["state"] == "applied"
    assert '"email": "ada@example.com"' in desk.run("show", first).stdout


def test_an_unreadable_event_is_shown_with_its_reason_and_its_bytes(desk: Desk) -> None:
    (event,) = desk.take(b"\xff{\x1b[31mred")

    result = desk.run("show", event)
    assert "unreadable: " in result.stdout
    assert f"crm-sync replay --event {event}" in result.stdout
    assert "red" in result.stdout
    assert "\x1b" not in result.stdout


async def test_a_delivery_is_shown_with_its_failures(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    await desk.deliver(says(400))
    delivery = desk.json("show", "ada@example.com")["deliveries"][0]["id"]

    found = desk.json("show", delivery)
    assert found["state"] == "dead"
    assert [failure["outcome"] for failure in found["failures"]] == ["dead"]
    assert "crm-sync replay --dead sandbox" in desk.run("show", delivery).stdout


def test_a_phone_of_two_people_shows_both(desk: Desk) -> None:
    desk.take(start(1, **ADA), start(2, name="Bob", email="bob@example.com", phone="+1 202 555 0100"))

    found = desk.json("show", "+12025550100")
    assert sorted(one["name"] for one in found["contacts"]) == ["Ada Lovelace", "Bob"]


@pytest.mark.parametrize("name", ["co_nobody", "ev_nothing", "zoe@example.com", "v1:404", "de_", "%"])
def test_what_is_not_there_is_one_sentence(desk: Desk, name: str) -> None:
    desk.take(start(1, **ADA))

    result = desk.run("show", name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"crm-sync: nothing here is called {name};")


def test_a_name_cannot_steer_the_terminal(desk: Desk) -> None:
    desk.take(start(1, name="Ada\u202e\u200b", email="ada@example.com"))

    assert "\u202e" not in desk.run("contacts").stdout + desk.run("show", "ada@example.com").stdout
