"""`crm-sync doctor`: everything the service stands on, and what to do about it."""

import socket
import stat
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from sync.sandbox.app import build
from sync.sandbox.store import Store
from tests.cli.conftest import Desk, close, start

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


def mail(desk: Desk) -> list[tuple[str, str, str | None]]:
    return [(f["level"], f["found"], f["todo"]) for f in desk.json("doctor") if f["what"] == "mail"]


def test_without_a_mailer_the_doctor_says_that_no_mail_is_sent(desk: Desk) -> None:
    assert mail(desk) == [("ok", "no follow-up emails: SYNC_MAILER is not set", None)]


def test_the_sandbox_as_mailer_is_in_order(desk: Desk) -> None:
    desk.set(SYNC_MAILER="sandbox", FOLLOWUP_HOURS="9:00-18:00", FOLLOWUP_TIMEZONE="Europe/Berlin", FOLLOWUP_DELAY="20")

    rules, links, ready = mail(desk)
    assert {rules[0], links[0], ready[0]} == {"ok"}
    assert "20 seconds after the close, between 09:00 and 18:00 (Europe/Berlin), from Our support" in rules[1]
    assert "inside `crm-sync serve`" in ready[1]


def test_a_sandbox_that_nobody_starts_is_mentioned(desk: Desk) -> None:
    desk.set(SYNC_MAILER="sandbox", SYNC_DESTINATIONS="webhook", WEBHOOK_URL="http://127.0.0.1:1/")
    assert "inside `crm-sync serve`" in mail(desk)[-1][1]

    desk.set(SANDBOX_EMBEDDED="false")
    assert [level for level, _, _ in mail(desk)][-2:] == ["fail", "warn"]
    assert "crm-sync sandbox" in str(mail(desk)[-1][2])


def test_what_a_mailer_needs_is_named_all_at_once(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    desk.set(SYNC_MAILER="resend")
    assert mail(desk) == [("fail", "RESEND_API_KEY: is missing", "correct the variables that are named")]

    desk.set(RESEND_API_KEY="k")
    sender, links = mail(desk)
    assert ("FOLLOWUP_FROM" in sender[1], "SYNC_PUBLIC_URL" in links[1]) == (True, True)
    assert {sender[0], links[0]} == {"fail"}
    assert levels(desk)["ledger"] == "ok"
    desk.set(FOLLOWUP_DELAY="soon")
    assert "FOLLOWUP_DELAY" in mail(desk)[0][1]
    desk.set(SYNC_MAILER="pigeon")
    assert "SYNC_MAILER names 'pigeon'" in mail(desk)[0][1]


def test_a_template_that_cannot_be_rendered_fails_with_its_line(desk: Desk) -> None:
    (desk.folder / "followup.txt").write_text("Hi {{ visitor.frist_name }}")
    (desk.folder / "followup.html").write_text("<p>Hi</p>")
    desk.set(SYNC_MAILER="sandbox", FOLLOWUP_TEMPLATES=str(desk.folder))

    assert mail(desk)[0][:2] == (
        "fail",
        "followup.txt, line 1: it names something that does not exist, in: Hi {{ visitor.frist_name }}",
    )


def test_bounces_that_are_not_heard_of_come_with_the_address_to_enter(desk: Desk, crm: tuple[str, Store]) -> None:
    desk.set(SYNC_MAILER="postmark", POSTMARK_SERVER_TOKEN="t", POSTMARK_BASE_URL=crm[0])
    desk.set(FOLLOWUP_FROM="us@example.com", SYNC_PUBLIC_URL="https://chat.example.com/")
    links, bounces = mail(desk)[1], mail(desk)[-1]
    assert links[:2] == ("ok", "the unsubscribe links lead to https://chat.example.com")
    assert bounces[0] == "warn"
    assert "https://chat.example.com/webhooks/postmark" in str(bounces[2])
    assert "POSTMARK_WEBHOOK_TOKEN" in bounces[1]

    desk.set(POSTMARK_WEBHOOK_TOKEN="w" * 24)
    assert mail(desk)[-1][0] == "ok"


def test_links_that_nobody_else_can_open_are_warned_of(desk: Desk) -> None:
    desk.set(SYNC_MAILER="smtp", SMTP_HOST="127.0.0.1", SMTP_PORT="1", SMTP_SECURITY="none")
    desk.set(FOLLOWUP_FROM="us@example.com", SYNC_PUBLIC_URL="http://localhost:8900")

    _, links, ready, bounces = mail(desk)
    assert (links[0], "nobody but this machine" in links[1]) == ("warn", True)
    assert (ready[0], str(ready[2]).endswith("SMTP_HOST")) == ("fail", True)
    assert "sender's mailbox" in bounces[1]


def test_mails_left_over_from_a_former_mailer_are_mentioned(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, email="ada@example.com"), close(1, email="ada@example.com"))
    desk.monkeypatch.delenv("SYNC_MAILER")

    assert ("warn", "1 emails are left over from when there was a mailer", "set SYNC_MAILER to send them") in mail(desk)


def busy(desk: Desk, days: int) -> None:
    """A chat every half an hour from 9 to 17 o'clock, for so many days until now."""
    now = desk.clock.now
    begin = now - now % 86400 - days * 86400
    for day in range(days):
        for half in range(17):
            desk.clock.now = begin + day * 86400 + 9 * 3600 + half * 1800
            desk.take(start(100 * day + half, email="ada@example.com"))
    desk.clock.now = now


def test_how_long_a_source_may_be_silent_is_proposed_and_then_checked(desk: Desk) -> None:
    busy(desk, 8)
    said = found(desk, "silence")
    assert said.startswith("nobody is told when acquire sends nothing any more → set ACQUIRE_EXPECT_EVERY=45m")
    assert "ACQUIRE_EXPECT_HOURS=9:00-17:00 (UTC)" in said

    desk.set(ACQUIRE_EXPECT_EVERY="2h", ACQUIRE_EXPECT_HOURS="9:00-17:00")
    assert levels(desk)["silence"] == "ok"
    desk.set(ACQUIRE_EXPECT_EVERY="20m")
    assert "longer than ACQUIRE_EXPECT_EVERY (20m)" in found(desk, "silence")


def test_a_young_ledger_is_no_ground_for_a_proposal(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    assert "silence" not in levels(desk)

    desk.set(ACQUIRE_EXPECT_EVERY="2h")
    assert levels(desk)["silence"] == "ok"
