"""`crm-sync duplicates`: who may be one person, who was joined, and how to take a join apart."""

from sync.ledger.replaying import FIRST
from tests.cli.conftest import Desk, close, start


def test_without_any_it_says_so(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))

    assert desk.run("duplicates").stdout == "Nobody seems to be here twice.\n"


async def test_a_corrected_email_is_listed_as_a_join_with_the_way_back(desk: Desk) -> None:
    desk.take(start(1, email="ada@exmaple.com"))
    await desk.deliver()
    desk.take(close(1, email="ada@example.com"))

    (pair,) = desk.json("duplicates")["joined"]
    assert (pair["loser"]["email"], pair["winner"]["email"]) == ("ada@exmaple.com", "ada@example.com")
    assert f"crm-sync duplicates --undo {pair['loser']['id']}" in desk.run("duplicates").stdout


async def test_an_undone_join_makes_two_people_and_two_records(desk: Desk) -> None:
    desk.take(start(1, email="ada@exmaple.com"))
    await desk.deliver()
    desk.take(close(1, email="ada@example.com"))
    await desk.deliver()
    loser = desk.json("duplicates")["joined"][0]["loser"]["id"]
    assert len(desk.crm.contacts) == 1

    result = desk.run("duplicates", "--undo", loser)
    await desk.deliver()
    desk.clock.sleep(FIRST)
    await desk.deliver()
    assert result.exit_code == 0
    assert sorted(record.value("email") or "" for record in desk.crm.contacts) == ["ada@example.com", "ada@exmaple.com"]
    assert desk.run("duplicates").stdout == "Nobody seems to be here twice.\n"
    assert desk.json("show", "ada@exmaple.com")["id"] == loser


def test_two_people_with_one_phone_are_listed_and_left_alone(desk: Desk) -> None:
    phone = "+1 202 555 0100"
    desk.take(start(1, name="Ada", email="ada@example.com", phone=phone))
    desk.take(start(2, name="Bob", email="bob@example.com", phone=phone))

    (shared,) = desk.json("duplicates")["shared"]
    assert (shared["kind"], shared["value"], shared["n"]) == ("phone", "+12025550100", 2)
    assert len(desk.json("contacts")) == 2
    assert "the same phone +12025550100" in desk.run("duplicates").stdout


def test_who_was_not_joined_cannot_be_taken_apart(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    contact = desk.json("contacts")[0]["id"]

    result = desk.run("duplicates", "--undo", contact)
    assert result.exit_code == 2
    assert result.stderr == f"crm-sync: {contact} was not joined into anybody\n"
