"""The follow-up emails as a person sees them: before they go, after they went, and where nobody knows."""

import sqlite3
import stat
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Desk, close, loses, says, start
from tests.cli.test_doctor import crm as crm  # the sandbox behind a port
from tests.databases import Server
from tests.people import NOON

ADA = {"name": "Ada Lovelace", "email": "ada@example.com"}
BOB = {"name": "Bob", "email": "bob@example.com"}


def ledger_bytes(desk: Desk) -> list[tuple[Any, ...]]:
    """Everything in the ledger that a preview could change."""
    with sqlite3.connect(desk.ledger_file) as ledger:
        tables = ("deliveries", "emails", "suppressions", "chats", "contacts")
        rows = [row for table in tables for row in ledger.execute(f"SELECT * FROM {table} ORDER BY 1")]
    ledger.close()
    return rows


@pytest.fixture
async def unknown(desk: Desk) -> Desk:
    """A mail whose answer was lost."""
    desk.mail()
    desk.take(start(172, **ADA), close(172, **ADA))
    await desk.deliver(mail=loses)
    return desk


def test_a_mail_is_shown_before_it_goes_and_nothing_changes(desk: Desk) -> None:
    desk.mail(FOLLOWUP_FROM="Example Books <hello@books.example.com>")
    desk.take(start(172, **ADA), close(172, NOON - 60, **ADA))
    before = ledger_bytes(desk)

    for name in ("v1:172", "172", desk.json("show", "v1:172")["id"]):
        result = desk.run("followup", "preview", name)
        assert result.exit_code == 0
        assert result.stdout.startswith("It is due in 14 min, at ")
        assert "To                        Ada Lovelace <ada@example.com>" in result.stdout
        assert "From                      Example Books <hello@books.example.com>" in result.stdout
        assert "List-Unsubscribe-Post     List-Unsubscribe=One-Click" in result.stdout
        assert "  Hi Ada,\n" in result.stdout
    assert ledger_bytes(desk) == before


def test_the_html_part_is_written_for_its_owner_alone(desk: Desk) -> None:
    desk.mail()
    desk.take(start(172, **ADA), close(172, **ADA))
    file = desk.folder / "mail.html"

    assert f"The HTML part is in {file}." in desk.run("followup", "preview", "172", "--html", str(file)).stdout
    assert "Hi Ada" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert desk.run("followup", "preview", "172", "--html", "/nowhere/mail.html").exit_code == 3


def test_a_preview_says_why_there_is_no_mail(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, **ADA), start(2, name="Nobody"), close(2, name="Nobody"))

    assert desk.run("followup", "preview", "1").stdout.startswith("No mail is sent: the chat is not over.")
    assert desk.run("followup", "preview", "2").stdout.startswith("No mail is sent: no email is known.")
    assert desk.json("followup", "preview", "2")["decided"] == {"due": False, "reason": "no email is known"}


def test_a_mail_is_looked_at_without_any_mailer(desk: Desk) -> None:
    desk.take(start(172, **ADA), close(172, **ADA))

    result = desk.run("followup", "preview", "172")
    assert result.stdout.startswith("No mail is sent: SYNC_MAILER is not set. It would look like this.\n")
    assert "Hi Ada," in result.stdout


def test_what_was_not_owed_at_the_last_word_is_not_promised(desk: Desk) -> None:
    desk.mail()
    desk.run("suppress", "ada@example.com")
    desk.take(start(172, **ADA), close(172, **ADA))
    desk.run("unsuppress", "ada@example.com")

    said = desk.run("followup", "preview", "172").stdout
    assert said.startswith("No mail is sent: no mail goes to this address: suppressed by hand. Only another word")


async def test_a_mail_that_went_out_is_shown_as_it_went(desk: Desk) -> None:
    desk.mail()
    desk.take(start(172, **ADA), close(172, **ADA))
    await desk.deliver()
    desk.set(FOLLOWUP_SUBJECT="Something else")

    found = desk.json("followup", "preview", "172")
    assert desk.run("followup", "preview", "172").stdout.startswith("It went out just now by sandbox.")
    assert (found["is_past"], found["mail"]["subject"]) == (True, "Thank you for chatting with us")
    assert found["mail"]["text"] == desk.outbox[0].said["text"]


def test_a_chat_that_is_not_there_is_a_sentence(desk: Desk) -> None:
    desk.take(start(172, **ADA), start(1172, **BOB))

    result = desk.run("followup", "preview", "72")
    assert (result.exit_code, result.stderr.startswith("crm-sync: no chat is called 72;")) == (2, True)


def test_a_broken_template_is_a_sentence_that_names_its_line(desk: Desk) -> None:
    desk.take(start(172, **ADA))
    (desk.folder / "followup.txt").write_text("Hi\n{{ visitor.name")
    (desk.folder / "followup.html").write_text("<p>Hi</p>")
    desk.set(SYNC_MAILER="sandbox", FOLLOWUP_TEMPLATES=str(desk.folder))

    result = desk.run("followup", "preview", "172")
    assert result.exit_code == 2
    assert result.stderr.startswith("crm-sync: followup.txt, line 2: ")


def test_a_test_mail_really_goes_out_and_leaves_nothing_behind(desk: Desk, crm: tuple[str, Any]) -> None:
    url, store = crm
    desk.set(SYNC_MAILER="sandbox", SANDBOX_BASE_URL=url, SANDBOX_ACCESS_TOKEN="right")

    first = desk.run("followup", "send-test", "--to", "Me@Example.com")
    desk.run("followup", "send-test", "--to", "me@example.com")
    assert first.exit_code == 0
    assert first.stdout == "sandbox took the mail to Me@example.com (as mail-1): look at its outbox page.\n"
    another, one = store.mails()
    assert one.said["headers"]["Message-ID"] != another.said["headers"]["Message-ID"]
    assert not desk.ledger_file.exists()


def test_a_test_mail_that_fails_is_a_sentence(desk: Desk, crm: tuple[str, Any]) -> None:
    assert "SYNC_MAILER is not set" in desk.run("followup", "send-test", "--to", "me@example.com").stderr
    desk.set(SYNC_MAILER="sandbox")
    assert desk.run("followup", "send-test", "--to", "me").stderr == "crm-sync: me is no email address\n"

    result = desk.run("followup", "send-test", "--to", "me@example.com")
    assert result.exit_code == 3
    assert result.stderr.startswith("crm-sync: sandbox did not take the mail: ")
    desk.set(SANDBOX_BASE_URL=crm[0], SANDBOX_ACCESS_TOKEN="wrong")
    assert "answered 401; `crm-sync doctor`" in desk.run("followup", "send-test", "--to", "me@example.com").stderr


def test_a_test_mail_whose_answer_is_lost_is_said_to_be_in_doubt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, crm: tuple[str, Any]
) -> None:
    from sync import wiring

    making = wiring.mailer
    monkeypatch.setattr(wiring, "mailer", lambda settings: making(settings, transport=httpx.MockTransport(loses)))
    desk.set(SYNC_MAILER="sandbox")

    result = desk.run("followup", "send-test", "--to", "me@example.com")
    assert result.exit_code == 3
    assert result.stderr.startswith("crm-sync: nobody knows whether the mail went out through sandbox: ")


async def test_an_unknown_mail_needs_a_person_and_says_what_to_type(unknown: Desk) -> None:
    result, found = unknown.run("status"), unknown.json("status")

    assert result.exit_code == 1
    assert result.stdout.startswith("Nobody knows whether 1 email went out, so it is not sent again. ")
    assert "v1:172, just now by sandbox  crm-sync followup resolve v1:172 --sent" in result.stdout
    assert [(mail["chat"], mail["mailer"]) for mail in found["unknown"]] == [("v1:172", "sandbox")]
    assert found["destinations"]["mail"]["deliveries"] == {"email": {"unknown": 1}}


async def test_many_unknown_mails_do_not_fill_the_screen(desk: Desk) -> None:
    desk.mail()
    for n in range(1, 7):
        desk.take(start(n, email=f"n{n}@example.com"), close(n, email=f"n{n}@example.com"))
    await desk.deliver(mail=loses)

    status, listed = desk.run("status"), desk.run("followup", "list")
    assert status.stdout.startswith("Nobody knows whether 6 emails went out, so they are not sent again. ")
    assert "and 3 more" in status.stdout
    assert [f"v1:{n} " in listed.stdout for n in range(1, 7)] == [True] * 6
    assert max(map(len, [*status.stdout.splitlines(), *listed.stdout.splitlines()])) <= 100
    assert len(desk.json("followup", "list")) == 6


def test_nothing_unknown_is_no_news(desk: Desk) -> None:
    desk.take(start(172, **ADA))

    assert desk.run("followup", "list").stdout == "Of every mail it is known whether it went out.\n"


async def test_a_mail_that_is_being_sent_needs_nobody(unknown: Desk) -> None:
    with sqlite3.connect(unknown.ledger_file) as ledger:
        ledger.execute("UPDATE deliveries SET lease_until = ? WHERE kind = 'email'", (unknown.clock() + 30,))
    ledger.close()

    result, mail = unknown.run("status"), unknown.json("status")["destinations"]["mail"]
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        0,
        "1 email is on the way to the mailer. Nothing is lost.",
    )
    assert (mail["deliveries"], mail["in_flight"]) == ({"email": {"pending": 1}}, 1)
    assert unknown.json("show", "v1:172")["followup"]["in_flight"] is True
    assert "mail     is being sent, begun just now by sandbox" in unknown.run("show", "v1:172").stdout
    assert "It is being sent right now." in unknown.run("followup", "preview", "172").stdout
    assert "being sent right now" in unknown.run("followup", "resolve", "172", "--sent").stderr


async def test_what_was_found_to_have_gone_out_counts_as_sent(unknown: Desk) -> None:
    result = unknown.run("followup", "resolve", "172", "--sent")

    assert (result.exit_code, result.stdout) == (0, "It counts as sent: this chat gets no other mail.\n")
    assert unknown.run("status").exit_code == 0
    assert unknown.json("show", "v1:172")["followup"]["state"] == "delivered"
    again = unknown.run("followup", "resolve", "172", "--send-again")
    assert (again.exit_code, "is not unknown: it is delivered" in again.stderr) == (2, True)


async def test_what_was_found_not_to_have_gone_out_is_sent_again(unknown: Desk) -> None:
    result = unknown.run("followup", "resolve", "172", "--send-again")
    await unknown.deliver()

    assert result.stdout == "It will be sent again: a running `crm-sync serve` does it now.\n"
    assert [mail.said["to"] for mail in unknown.outbox] == ["ada@example.com"]


async def test_sending_again_waits_for_the_hours_and_heeds_every_reason(unknown: Desk) -> None:
    unknown.set(FOLLOWUP_HOURS="8:00-9:00")
    assert "in 18 h: it waits for FOLLOWUP_HOURS." in unknown.run("followup", "resolve", "172", "--send-again").stdout


async def test_sending_again_is_no_way_around_a_reason(unknown: Desk) -> None:
    unknown.run("suppress", "ada@example.com")

    said = unknown.run("followup", "resolve", "172", "--send-again").stdout
    assert said == ("It may be sent again, but will not be: no mail goes to this address: suppressed by hand.\n")


async def test_resolving_wants_one_answer_and_a_mailer(unknown: Desk) -> None:
    assert unknown.run("followup", "resolve", "172").exit_code == 2
    assert unknown.run("followup", "resolve", "172", "--sent", "--send-again").exit_code == 2
    unknown.monkeypatch.delenv("SYNC_MAILER")

    assert "SYNC_MAILER is not set" in unknown.run("followup", "resolve", "172", "--send-again").stderr
    assert unknown.run("followup", "resolve", "172", "--sent").exit_code == 0


async def test_an_unknown_mail_is_shown_with_what_to_type(unknown: Desk) -> None:
    delivery = unknown.json("show", "v1:172")["followup"]["delivery"]

    assert "if it did not   crm-sync followup resolve v1:172 --send-again" in unknown.run("show", "v1:172").stdout
    assert "crm-sync followup resolve ch_" in unknown.run("show", delivery).stdout
    assert "mail unknown" in unknown.run("show", "ada@example.com").stdout
    assert unknown.run("followup", "preview", "172").stdout.startswith("Unknown: ")


async def test_a_chat_shows_what_became_of_its_mail(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, **ADA), close(1, NOON - 60, **ADA))
    assert "mail     due in 14 min" in desk.run("show", "v1:1").stdout
    assert "mail in 14 min" in desk.run("show", "ada@example.com").stdout
    desk.clock.sleep(900)
    await desk.deliver()
    desk.clock.sleep(120)
    desk.take(start(2, **ADA), close(2, **ADA), start(3, **BOB))

    found = desk.json("show", "v1:1")["followup"]
    assert (found["state"], found["mailer"]) == ("delivered", "sandbox")
    assert "mail     sent 2 min ago by sandbox" in desk.run("show", "v1:1").stdout
    assert "begun    2 min ago by sandbox" in desk.run("show", found["delivery"]).stdout
    assert "mail     no follow-up: the same person had a mail" in desk.run("show", "v1:2").stdout
    assert "mail     no follow-up: the chat is not over" in desk.run("show", "v1:3").stdout
    assert "no mail" in desk.run("show", "ada@example.com").stdout


async def test_without_a_mailer_a_chat_says_so(desk: Desk) -> None:
    desk.take(start(1, **ADA), close(1, **ADA))
    assert "mail     no follow-up: no mailer is set" in desk.run("show", "v1:1").stdout

    desk.mail()
    assert "no follow-up: nothing was heard of the chat since" in desk.run("show", "v1:1").stdout
    desk.take(start(2, **BOB), close(2, NOON, **BOB))
    desk.monkeypatch.delenv("SYNC_MAILER")
    assert desk.json("show", "v1:2")["followup"]["reason"] == "no mailer is set"


async def test_a_mail_that_could_not_be_sent_is_shown_with_the_reason(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, **ADA), close(1, **ADA))
    await desk.deliver(mail=says(400, "no such mailbox"))

    result = desk.run("status")
    assert (result.exit_code, result.stdout.startswith("1 email could not be sent: ")) == (1, True)
    assert "crm-sync replay --dead mail" in result.stdout
    assert "mail     dead: " in desk.run("show", "v1:1").stdout
    assert desk.run("followup", "preview", "1").stdout.startswith("It could not be sent: ")
    desk.run("replay", "--dead", "mail")
    await desk.deliver()
    assert len(desk.outbox) == 1


async def test_a_mail_whose_time_has_not_come_is_later_and_not_late(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, **ADA), close(1, NOON, **ADA))
    await desk.deliver()
    desk.clock.sleep(600)

    result = desk.run("status")
    assert result.exit_code == 0
    assert result.stdout.startswith("Everything has arrived. 1 email will go out when its time has come.\n")


async def test_a_mail_that_waits_for_its_turn_is_later_too(desk: Desk) -> None:
    desk.mail(FOLLOWUP_MAX_PER_HOUR="1")
    desk.take(start(1, **ADA), close(1, **ADA), start(2, **BOB), close(2, **BOB))
    await desk.deliver()
    desk.clock.sleep(600)

    assert desk.run("status").stdout.startswith("Everything has arrived. 1 email will go out when its time has come.\n")
    assert len(desk.outbox) == 1


async def test_a_mail_that_nobody_sends_makes_it_ask_for_the_server(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, **ADA), close(1, NOON, **ADA))
    await desk.deliver()
    desk.clock.sleep(1200)

    assert "1 email waits for the mailer, the oldest for 5 min. Does `crm-sync serve` run?" in " ".join(
        desk.run("status").stdout.split()
    )


async def test_a_mailer_that_refuses_us_needs_a_person(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, **ADA), close(1, **ADA))
    await desk.deliver(mail=says(401))

    result = desk.run("status")
    assert result.exit_code == 1
    assert result.stdout.startswith("The mailer takes nothing until you act (")
    assert "1 email waits; for FOLLOWUP_MAX_AGE at most." in " ".join(result.stdout.split())


async def test_a_mailer_that_is_down_is_paused(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, **ADA), close(1, **ADA))
    await desk.deliver(mail=lambda request: httpx.Response(429, headers={"Retry-After": "1200"}))

    result = desk.run("status")
    assert (result.exit_code, result.stdout.startswith("1 email waits for the mailer, paused until ")) == (0, True)


async def test_chats_without_a_mail_are_counted_by_reason(desk: Desk) -> None:
    desk.mail()
    desk.take(*(start(n, name="Nobody") for n in (1, 2)), *(close(n, name="Nobody") for n in (1, 2)))

    assert "  2 chats without a follow-up: no email is known\n" in desk.run("status").stdout


def test_an_address_is_suppressed_looked_up_and_freed_by_hand(desk: Desk) -> None:
    desk.take()
    assert desk.run("suppressions").stdout == "No address is suppressed.\n"
    assert desk.run("suppress", "Ada@Example.com").stdout == "No follow-up goes to Ada@example.com any more.\n"
    assert "before: suppressed by hand" in desk.run("suppress", "ada@example.com").stdout

    assert desk.run("suppressions", "ADA@example.com").stdout == (
        "No follow-up goes to ADA@example.com: suppressed by hand, just now.\n"
    )
    assert desk.json("suppressions", "ada@example.com")["reason"] == "suppressed by hand"
    assert desk.run("unsuppress", "ada@EXAMPLE.com").stdout.startswith("Follow-ups may go to ada@example.com again.")
    assert desk.run("unsuppress", "ada@example.com").stdout == "Nothing held back follow-ups to ada@example.com.\n"
    assert desk.run("suppressions", "ada@example.com").stdout == "Nothing holds back follow-ups to ada@example.com.\n"
    assert desk.json("suppressions", "ada@example.com") is None
    assert desk.run("suppress", "ada").stderr == "crm-sync: ada is no email address\n"


def test_suppressions_are_counted_and_hold_no_address(desk: Desk) -> None:
    ledger = desk.open()
    with ledger.transaction():
        for n in range(3):
            ledger.suppress(f"{n:032}", "bounced (resend)")
    ledger.engine.close()
    desk.run("suppress", "ada@example.com")

    result = desk.run("suppressions")
    assert result.stdout.startswith("4 addresses get no follow-up.\n  3   bounced (resend)\n  1   suppressed by hand\n")
    assert "Only keyed hashes" in result.stdout
    assert desk.json("suppressions")["reasons"] == {"bounced (resend)": 3, "suppressed by hand": 1}
    assert b"ada@example.com" not in desk.ledger_file.read_bytes()


async def test_whoever_is_suppressed_by_hand_gets_no_mail(desk: Desk) -> None:
    desk.mail()
    desk.take(start(1, **ADA), close(1, NOON, **ADA))
    desk.run("suppress", "ADA@example.com")
    desk.clock.sleep(1000)
    await desk.deliver()

    assert desk.outbox == []
    assert "1 chat without a follow-up: no mail goes to this address: suppressed by hand" in desk.run("status").stdout


def test_the_commands_work_on_postgresql_too(desk: Desk, server: Server) -> None:
    desk.set(SYNC_LEDGER=server.database(), SYNC_SECRET_KEY="k" * 32)
    desk.mail()
    desk.take(start(172, **ADA), close(172, **ADA))

    assert "Hi Ada," in desk.run("followup", "preview", "172").stdout
    assert "FOLLOWUP_MAX_AGE" in desk.json("show", "v1:172")["followup"]["reason"]  # its clock is the server's own
    assert desk.run("followup", "list").exit_code == 0
    assert desk.run("suppress", "ada@example.com").exit_code == 0
    assert desk.json("suppressions", "ada@example.com")["reason"] == "suppressed by hand"
    assert desk.run("status").exit_code == 0


@pytest.mark.parametrize("words", [("simulate", "--chats", "1"), ("hello",)])
def test_made_up_people_get_no_real_mail(desk: Desk, words: tuple[str, ...]) -> None:
    desk.set(SYNC_MAILER="smtp", SMTP_HOST="mail.example.com")

    result = desk.run(*words)
    assert result.exit_code == 2
    assert "SYNC_MAILER" in result.stderr
