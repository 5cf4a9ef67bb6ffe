"""`crm-sync dismiss`: what a person has seen, and nothing is to be done about."""

import pytest

from tests.cli.conftest import Desk, close, says, start

ADA = {"name": "Ada", "email": "ada@example.com"}
BOB = {"name": "Bob", "email": "bob@example.com"}


async def test_what_was_dismissed_asks_for_nobody_and_keeps_its_reason(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    await desk.deliver(says(400))
    (dead,) = desk.json("status")["dead"]

    assert f"crm-sync dismiss {dead['example']}" in desk.run("status").stdout
    result = desk.run("dismiss", dead["example"])
    status = desk.run("status")
    assert (result.exit_code, result.stdout) == (0, f"Dismissed: {dead['reason']}\n")
    assert status.exit_code == 0
    assert "1 contact ignored at sandbox: dismissed: " in status.stdout
    shown = desk.json("show", dead["example"])
    assert (shown["state"], shown["reason"]) == ("ignored", f"dismissed: {dead['reason']}")


async def test_a_newer_word_is_sent_all_the_same(desk: Desk) -> None:
    desk.take(start(1, **ADA), close(1, **ADA))
    await desk.deliver(says(400))
    desk.run("dismiss", "--dead", "sandbox")

    desk.take(start(2, **ADA, phone="+1 202 555 0143"))
    await desk.deliver()
    assert desk.crm.contact("ada@example.com") is not None
    assert desk.json("status")["destinations"]["sandbox"]["deliveries"] == {
        "contact": {"delivered": 1},
        "chat": {"delivered": 1},
    }


async def test_what_was_dismissed_is_not_tried_again_with_the_dead_but_by_its_event(desk: Desk) -> None:
    (event,) = desk.take(start(1, **ADA))
    await desk.deliver(says(400))
    desk.run("dismiss", "--dead", "sandbox")

    assert desk.run("replay", "--dead", "sandbox").stdout == "Nothing is dead at sandbox.\n"
    desk.run("replay", "--event", event)
    await desk.deliver()
    assert desk.crm.contact("ada@example.com") is not None


async def test_alike_is_what_died_of_the_same(desk: Desk) -> None:
    desk.take(start(1, **ADA), start(2, **BOB))
    await desk.deliver(says(400))
    desk.take(start(3, name="Cyd", email="cyd@example.com"))
    await desk.deliver(says(422))
    same, other = sorted(desk.json("status")["dead"], key=lambda cause: -cause["n"])
    assert (same["n"], other["n"]) == (2, 1)

    assert f"crm-sync dismiss {same['example']} --alike" in desk.run("status").stdout
    assert desk.run("dismiss", same["example"], "--alike").stdout == "2 deliveries dismissed.\n"
    assert desk.json("status")["dead"] == [other]


def test_an_unreadable_webhook_is_kept_and_can_still_be_replayed(desk: Desk) -> None:
    one, another = desk.take(b"[]", b"nonsense")

    assert desk.run("dismiss", one).exit_code == 0
    status = desk.run("status")
    assert status.exit_code == 1
    assert f"crm-sync dismiss {another}" in status.stdout
    assert desk.run("dismiss", "--unreadable").stdout == "1 webhook dismissed.\n"
    assert desk.run("status").exit_code == 0
    assert desk.run("replay", "--unreadable").exit_code == 0
    shown = desk.json("show", one)
    assert (shown["state"], shown["payload"]) == ("kept", "[]")
    assert shown["error"] == "dismissed: the body is a list, not a JSON object"
    assert desk.run("replay", "--event", one).exit_code == 1


def test_the_same_webhook_again_stays_dismissed(desk: Desk) -> None:
    desk.take(b"[]")
    desk.run("dismiss", "--unreadable")

    desk.take(b"[]")
    assert desk.run("status").exit_code == 0


async def test_only_what_needs_a_person_can_be_dismissed(desk: Desk) -> None:
    (event,) = desk.take(start(1, **ADA))
    await desk.deliver()

    result = desk.run("dismiss", event)
    assert result.exit_code == 2
    assert result.stderr == f"crm-sync: {event} is applied: only what is dead or unreadable can be dismissed\n"
    assert desk.run("dismiss", "--dead", "sandbox").stdout == "Nothing is dead at sandbox.\n"
    assert desk.run("dismiss", "--unreadable").stdout.startswith("Every webhook could be read")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to dismiss"),
        (["de_1", "--unreadable"], "say what to dismiss"),
        (["--unreadable", "--alike"], "--alike goes with the ID of a delivery"),
        (["de_none"], "there is no delivery and no event de_none"),
        (["de_none", "--alike"], "there is no dead delivery de_none"),
        (["--dead", "nowhere"], "SYNC_DESTINATIONS does not name nowhere"),
    ],
)
def test_a_wrong_wish_is_a_sentence(desk: Desk, words: list[str], said: str) -> None:
    desk.take()

    result = desk.run("dismiss", *words)
    assert result.exit_code == 2
    assert said in result.stderr
