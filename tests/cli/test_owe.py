"""`crm-sync owe`: a new destination gets everybody."""

from tests.cli.conftest import Desk, close, start


async def test_a_new_destination_gets_everybody_who_came_before_it(desk: Desk) -> None:
    desk.set(SYNC_DESTINATIONS="webhook", WEBHOOK_URL="http://127.0.0.1:1/")
    for n in range(3):
        desk.take(start(n + 1, email=f"n{n}@example.com"), close(n + 1))
    desk.set(SYNC_DESTINATIONS="webhook,sandbox")

    result = desk.run("owe", "sandbox")
    await desk.deliver(names=["sandbox"])
    assert result.exit_code == 0
    assert result.stdout.startswith("3 contacts and 3 chats are now owed to sandbox.\n")
    assert len(desk.crm.contacts) == len(desk.crm.notes) == 3


async def test_to_owe_twice_changes_nothing(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    await desk.deliver()

    result = desk.run("owe", "sandbox")
    assert result.stdout == "sandbox is owed everybody already: nothing changed.\n"
    assert desk.json("status")["destinations"]["sandbox"]["deliveries"] == {"contact": {"delivered": 1}}


def test_a_destination_that_is_not_configured_is_refused(desk: Desk) -> None:
    desk.take()

    result = desk.run("owe", "hubspot")
    assert result.exit_code == 2
    assert result.stderr == "crm-sync: SYNC_DESTINATIONS does not name hubspot (it names sandbox)\n"


def test_without_a_ledger_none_is_made(desk: Desk) -> None:
    assert desk.run("owe", "sandbox").exit_code == 2
    assert not desk.ledger_file.exists()
