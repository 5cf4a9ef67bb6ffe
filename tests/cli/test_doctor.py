"""`crm-sync doctor`: everything the service stands on, and what to do about it."""

import socket
import stat
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from sync.sandbox.app import build
from sync.sandbox.store import Store
from tests.cli.conftest import Desk, start

GUARD = "t" * 24


@pytest.fixture
def crm() -> Iterator[tuple[str, Store]]:
    """The sandbox on a loopback port, with the store behind it."""
    store = Store()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(store, token="right"), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", store
    server.should_exit = True
    thread.join()
    store.close()


def levels(desk: Desk, *words: str) -> dict[str, str]:
    return {finding["what"]: finding["level"] for finding in desk.json("doctor", *words)}


def found(desk: Desk, what: str, *words: str) -> str:
    return next(f"{f['found']} → {f['todo']}" for f in desk.json("doctor", *words) if f["what"] == what)


def test_before_the_first_start_everything_is_in_order_and_nothing_is_made(desk: Desk) -> None:
    desk.monkeypatch.delenv("SYNC_SECRET_KEY")

    result = desk.run("doctor")
    assert result.exit_code == 0
    assert result.stdout.startswith("Everything is in order.\n")
    assert "`crm-sync serve` will make it" in result.stdout
    assert list(desk.folder.iterdir()) == []


def test_a_setting_is_named_and_its_value_is_not(desk: Desk) -> None:
    desk.set(SYNC_SECRET_KEY="too-short-a-secret")

    result = desk.run("doctor")
    assert result.exit_code == 1
    assert "SYNC_SECRET_KEY: is shorter than 32 characters" in result.stdout
    assert "too-short" not in result.stdout


def test_a_server_open_to_the_world_without_a_check_fails(desk: Desk) -> None:
    desk.set(SYNC_HOST="0.0.0.0")
    assert levels(desk)["exposure"] == "fail"

    desk.set(ACQUIRE_URL_TOKEN=GUARD)
    assert levels(desk)["exposure"] == "ok"


def test_files_that_others_can_read_are_closed_by_fix(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    desk.ledger_file.chmod(0o644)
    assert levels(desk)["files"] == "warn"

    desk.run("doctor", "--fix")
    assert stat.S_IMODE(desk.ledger_file.stat().st_mode) == 0o600
    assert "files" not in levels(desk)


def test_a_full_disk_fails(desk: Desk) -> None:
    desk.set(SYNC_DISK_RESERVE=str(1 << 60))

    assert levels(desk)["disk"] == "fail"


def test_events_from_the_future_tell_of_a_clock_that_jumped(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    assert levels(desk)["clock"] == "ok"

    desk.clock.sleep(-3600)
    assert levels(desk)["clock"] == "fail"


def test_a_ledger_folder_that_is_not_there_fails(desk: Desk) -> None:
    desk.set(SYNC_LEDGER=f"sqlite:///{desk.folder}/nowhere/ledger.sqlite3")

    assert "there is no folder" in found(desk, "ledger")


def test_the_sandbox_is_known_to_run_inside_the_server(desk: Desk) -> None:
    assert "inside `crm-sync serve`" in found(desk, "sandbox")
    assert levels(desk)["sandbox"] == "ok"


def test_a_destination_that_does_not_answer_fails_with_the_variable_to_check(desk: Desk) -> None:
    desk.set(SYNC_DESTINATIONS="webhook", WEBHOOK_URL="http://127.0.0.1:1/")

    assert found(desk, "webhook").endswith("check the network and WEBHOOK_URL")


def test_a_wrong_token_fails(desk: Desk, crm: tuple[str, Store]) -> None:
    desk.set(SYNC_DESTINATIONS="hubspot", HUBSPOT_BASE_URL=crm[0], HUBSPOT_ACCESS_TOKEN="wrong")

    assert levels(desk)["hubspot"] == "fail"
    assert "HUBSPOT_" in found(desk, "hubspot")


def test_a_missing_property_is_made_by_fix(desk: Desk, crm: tuple[str, Store]) -> None:
    desk.set(SYNC_DESTINATIONS="hubspot", HUBSPOT_BASE_URL=crm[0], HUBSPOT_ACCESS_TOKEN="right")
    desk.set(HUBSPOT_UID_PROPERTY="chat_uid")
    assert "crm-sync doctor --fix" in found(desk, "hubspot")

    fixed = desk.run("doctor", "--fix")
    assert "made the contact property chat_uid" in fixed.stdout
    assert levels(desk)["hubspot"] == "ok"


def test_deliveries_to_nobody_are_mentioned(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    desk.set(SYNC_DESTINATIONS="webhook", WEBHOOK_URL="http://127.0.0.1:1/")

    assert "1 deliveries are left over for sandbox" in found(desk, "destinations")


def test_everything_wrong_is_told_at_once(desk: Desk) -> None:
    desk.set(SYNC_DESTINATIONS="hubspot", ACQUIRE_URL_TOKEN="short")

    findings = levels(desk)
    assert (findings["sources"], findings["hubspot"]) == ("fail", "fail")
