"""`crm-sync replay`: what is stored, once more."""

import pytest

from sync.sources.acquire import Acquire
from tests.cli.conftest import Desk, close, says, start

ADA = {"name": "Ada", "email": "ada@example.com"}


async def test_what_was_dead_arrives_after_a_replay(desk: Desk) -> None:
    desk.take(start(1, **ADA))
    await desk.deliver(says(400))

    result = desk.run("replay", "--dead", "sandbox")
    await desk.deliver()
    assert result.exit_code == 0
    assert result.stdout.startswith("1 delivery to sandbox will be tried again.\n")
    assert desk.crm.contact("ada@example.com") is not None
    assert desk.run("status").exit_code == 0


async def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    desk.take(start(1, **ADA), b"[]")
    await desk.deliver(says(400))
    before = desk.json("status")

    assert (
        desk.run("replay", "--dead", "sandbox", "--dry-run").stdout == "1 delivery would be tried again at sandbox.\n"
    )
    assert desk.run("replay", "--unreadable", "--dry-run").exit_code == 1
    assert desk.json("status") == before


async def test_nothing_dead_is_no_failure(desk: Desk) -> None:
    desk.take(start(1, **ADA))

    result = desk.run("replay", "--dead", "sandbox")
    assert (result.exit_code, result.stdout) == (0, "Nothing is dead at sandbox.\n")


def test_what_still_cannot_be_read_stays_and_says_why(desk: Desk) -> None:
    desk.take(b"[]")

    result = desk.run("replay", "--unreadable")
    assert result.exit_code == 1
    assert result.stdout == "1 event stays as before: the body is a list, not a JSON object.\n"


async def test_what_a_newer_release_can_read_is_delivered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (event,) = desk.take(b"{" + b'"event": "CHAT_ON_START", "data": {"id": 1, "details": {"email": "ada@example.com"}')
    reading = Acquire.read
    monkeypatch.setattr(Acquire, "read", lambda self, body, **more: reading(self, body + b"}}", **more))

    result = desk.run("replay", "--unreadable")
    await desk.deliver()
    assert result.exit_code == 0
    assert result.stdout.startswith("1 event was read and applied.\n")
    assert desk.json("show", event)["state"] == "applied"
    assert desk.crm.contact("ada@example.com") is not None


async def test_one_event_can_be_replayed_and_undoes_nothing_newer(desk: Desk) -> None:
    first, _ = desk.take(start(1, name="Ada", email="ada@example.com"), close(1, name="Ada Lovelace"))
    await desk.deliver()

    result = desk.run("replay", "--event", first)
    await desk.deliver()
    assert result.exit_code == 0
    assert desk.json("show", "ada@example.com")["name"] == "Ada Lovelace"
    assert len(desk.crm.contacts) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to replay"),
        (["--unreadable", "--dead", "sandbox"], "say what to replay"),
        (["--event", "ev_none"], "crm-sync: there is no event ev_none"),
        (["--dead", "nowhere"], "crm-sync: SYNC_DESTINATIONS does not name nowhere"),
    ],
)
def test_wrong_usage_is_one_sentence(desk: Desk, words: list[str], said: str) -> None:
    desk.take()

    result = desk.run("replay", *words)
    assert result.exit_code == 2
    assert said in result.stderr
