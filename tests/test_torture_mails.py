"""The checks of mails in `scripts/torture` can fail, and its mail sinks do what they say. Nothing is killed here."""

import asyncio
import json
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from aiosmtplib import SMTP, SMTPResponseException, SMTPServerDisconnected

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from torturing import mailsink
from torturing.acquire import webhooks_of
from torturing.checks import Finding
from torturing.mailchecks import NOT_ASKED_AGAIN, SUBJECT, MailEvidence, mail_findings, tally
from torturing.mailsink import SECRET, Behaviour, Conversation, Handler, Hangup, Listener, Sink, postmark, resend
from torturing.people import Chat, person
from torturing.runs import mails
from torturing.runs.clocks import Change, as_read, change_of, last_word

NOW = 1_790_000_000.0
SEED = 3
GOOD = Behaviour(dropped=0, stalled=0, broken=0, cut=0, busy=0, refused=0)


def mail(chat: Chat, **changed: Any) -> dict[str, Any]:
    subject, message_id = f"{SUBJECT}{chat.number}", f"<v1-{chat.number}.followup@example.com>"
    return {"id": "m", "to": chat.email, "subject": subject, "key": "k", "message_id": message_id, **changed}


def row(chat: Chat, **changed: Any) -> dict[str, Any]:
    times = {"due_at": None, "lease_until": None}
    return {"chat": f"v1:{chat.number}", "subject": f"ch_{chat.number}", "state": "delivered", "error": None} | {
        **times,
        **changed,
    }


@pytest.fixture
def good() -> MailEvidence:
    """The evidence of a run in which all went well: who has no email is told so, everybody else has a mail."""
    people = [person(n, SEED, NOW) for n in range(40)]
    chats = [chat for someone in people for chat in someone.chats]
    rows = [row(c) if c.email else row(c, state="ignored", error="no email is known") for c in chats]
    return MailEvidence(people, [mail(c) for c in chats if c.email], rows, [], 0, False, NOW)


def alone(evidence: MailEvidence) -> int:
    """The place of a chat of somebody with an email who has no other chat."""
    numbers = [f"v1:{p.chats[0].number}" for p in evidence.people if len(p.chats) == 1 and p.chats[0].email]
    return next(place for place, one in enumerate(evidence.rows) if one["chat"] == numbers[0])


def standing(evidence: MailEvidence, *, went: bool = True, **columns: Any) -> MailEvidence:
    """One chat's mail stands otherwise, and perhaps it did not go out."""
    place = alone(evidence)
    one = {**evidence.rows[place], **columns}
    rows = [*evidence.rows[:place], one, *evidence.rows[place + 1 :]]
    subject = f"{SUBJECT}{one['chat'].removeprefix('v1:')}"
    return replace(evidence, rows=rows, mails=[m for m in evidence.mails if went or m["subject"] != subject])


def only(evidence: MailEvidence) -> Finding:
    (found,) = mail_findings(evidence)
    return found


def test_where_all_went_well_nothing_is_found(good: MailEvidence) -> None:
    assert mail_findings(good) == []


def test_two_mails_about_one_chat_are_doubled_also_under_different_names(good: MailEvidence) -> None:
    again = {**good.mails[0], "id": "other", "message_id": "<other@example.com>", "key": "other"}

    found = only(replace(good, mails=[*good.mails, again]))

    assert (found.sort, found.what, len(found.rows)) == ("doubled", "got 2 mails", 3)


def test_one_message_id_for_two_chats_is_doubled(good: MailEvidence) -> None:
    first, second, *rest = good.mails

    assert only(replace(good, mails=[first, {**second, "message_id": first["message_id"]}, *rest])).sort == "doubled"


def test_a_mail_about_no_chat_is_doubled(good: MailEvidence) -> None:
    stranger = {**good.mails[0], "subject": f"{SUBJECT}7", "message_id": "<7@example.com>"}

    assert only(replace(good, mails=[*good.mails, stranger])).what.startswith("is no chat")


def test_two_mail_deliveries_of_one_chat_are_doubled(good: MailEvidence) -> None:
    assert only(replace(good, rows=[*good.rows, good.rows[0]])).sort == "doubled"


def test_a_mail_that_counts_as_sent_and_never_went_out_is_lost(good: MailEvidence) -> None:
    assert only(standing(good, went=False)).sort == "lost"


def test_a_chat_without_any_mail_delivery_is_silent(good: MailEvidence) -> None:
    place = alone(good)

    found = only(replace(good, rows=[*good.rows[:place], *good.rows[place + 1 :]]))

    assert (found.sort, "no mail is owed or declined" in found.what) == ("silent", True)


@pytest.mark.parametrize("state", ["unknown", "ignored", "dead", "pending"])
def test_a_mail_that_does_not_say_why_it_was_not_sent_is_silent(good: MailEvidence, state: str) -> None:
    assert "silent" in Counter(f.sort for f in mail_findings(standing(good, went=False, state=state)))


@pytest.mark.parametrize("state", ["ignored", "dead", "pending"])
def test_a_mail_that_was_not_to_go_out_and_did_is_wrong(good: MailEvidence, state: str) -> None:
    stands = standing(good, state=state, error="refused", due_at=NOW + 9)

    found = mail_findings(replace(stands, code=int(state == "dead")))

    assert [finding.sort for finding in found] == ["wrong"]


def test_a_mail_that_is_due_and_waits_or_waits_without_need_is_lost(good: MailEvidence) -> None:
    for due in (NOW - 1, NOW + 60, None):
        found = only(standing(good, went=False, state="pending", error="BUSY", due_at=due))

        assert found.sort == "lost"


def test_a_mail_that_is_declined_without_ground_is_lost(good: MailEvidence) -> None:
    assert only(standing(good, went=False, state="ignored", error="a newer chat of the same person began")).sort == (
        "lost"
    )


@pytest.mark.parametrize("went", [True, False])
def test_an_unknown_mail_is_fine_where_it_is_listed_and_a_person_is_called(good: MailEvidence, went: bool) -> None:
    stands = standing(good, went=went, state="unknown", error="sending since 12:00", lease_until=NOW - 1)
    listed = [stands.rows[alone(good)]["subject"]]

    assert mail_findings(replace(stands, listed=listed, code=1)) == []
    assert only(replace(stands, listed=[], code=1)).sort == "silent"
    assert only(replace(stands, listed=listed, code=0)).sort == "silent"
    assert only(replace(good, listed=listed)).sort == "silent"


def test_an_unknown_mail_that_a_mailer_can_be_asked_for_again_is_lost(good: MailEvidence) -> None:
    stands = standing(good, went=False, state="unknown", error="sending since 12:00")
    evidence = replace(stands, listed=[stands.rows[alone(good)]["subject"]], code=1, is_repeatable=True)
    rows = [{**one, "error": NOT_ASKED_AGAIN[0] + "x"} if one["state"] == "unknown" else one for one in evidence.rows]

    assert only(evidence).sort == "lost"
    assert mail_findings(replace(evidence, rows=rows)) == []


def test_a_mail_to_somebody_else_is_wrong(good: MailEvidence) -> None:
    first, *rest = good.mails

    assert only(replace(good, mails=[{**first, "to": "eve@example.com"}, *rest])).sort == "wrong"


def test_the_line_of_the_table_counts_every_sort(good: MailEvidence) -> None:
    line = tally(standing(good, went=False, state="unknown", error="lost"))

    assert "doubled: 0, unknown: 1, dead: 0" in line
    assert "no email is known" in line


def test_the_people_of_a_mail_run_are_done_in_a_moment_and_their_chats_keep_their_order() -> None:
    for n in range(60):
        before, after = person(n, SEED, NOW), mails.here(person(n, SEED, NOW), NOW)
        starts = [chat.started_at for chat in after.chats]

        assert starts == sorted(starts)
        assert max(starts) == NOW - 26
        assert len(set(starts)) == len({chat.started_at for chat in before.chats})


# The sinks


def asked(key: str, **changed: Any) -> tuple[dict[str, str], dict[str, Any]]:
    body = {"to": ["Ada <ada@example.com>"], "subject": "s", "headers": {"Message-ID": "<1@example.com>"}, **changed}
    return {"authorization": f"Bearer {SECRET}", "idempotency-key": key}, body


def told(sink: Sink) -> list[str]:
    return [one["subject"] for one in mails.mails(sink.journal)]


def test_resend_sends_a_key_once_whatever_it_answered(tmp_path: Path) -> None:
    sink = Sink("resend", tmp_path / "mails.jsonl", replace(GOOD, broken=1.0))

    first = resend(sink, *asked("k"))
    sink.calm.touch()
    second, other = resend(sink, *asked("k")), resend(sink, *asked("k", subject="else"))

    assert (first[0], second[0], other[1]["name"]) == (500, 200, "invalid_idempotent_request")
    assert told(sink) == ["s"]


def test_resend_sends_what_has_another_key(tmp_path: Path) -> None:
    sink = Sink("resend", tmp_path / "mails.jsonl", GOOD)

    assert [resend(sink, *asked(key))[0] for key in ("k", "l")] == [200, 200]
    assert told(sink) == ["s", "s"]


def test_postmark_sends_again_what_comes_again_and_drops_the_connection_after_taking(tmp_path: Path) -> None:
    sink = Sink("postmark", tmp_path / "mails.jsonl", replace(GOOD, dropped=1.0))
    headers = [{"Name": "Message-ID", "Value": "<1@example.com>"}, {"Name": "X-PM-KeepID", "Value": "true"}]
    body = {"To": "ada@example.com", "Subject": "s", "Headers": headers}

    for _ in range(2):
        with pytest.raises(Hangup):
            postmark(sink, {"x-postmark-server-token": SECRET}, body)

    assert told(sink) == ["s", "s"]


@pytest.mark.parametrize(("mood", "status"), [("busy", 429), ("refused", 422)])
def test_what_is_refused_was_not_sent(tmp_path: Path, mood: str, status: int) -> None:
    sink = Sink("resend", tmp_path / "mails.jsonl", replace(GOOD, **{mood: 1.0}))

    assert resend(sink, *asked("k"))[0] == status
    assert told(sink) == []


def test_the_http_sink_answers_over_http(tmp_path: Path) -> None:
    Handler.sink = Sink("resend", tmp_path / "mails.jsonl", GOOD)
    listener = Listener(("127.0.0.1", 0), Handler)
    thread = Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    headers, body = asked("k")
    url = f"http://127.0.0.1:{listener.server_address[1]}"
    try:
        with urlopen(Request(f"{url}/emails", json.dumps(body).encode(), headers)) as answer:
            assert json.load(answer) == {"id": "mail-1"}
        with pytest.raises(HTTPError, match="404"):
            urlopen(Request(f"{url}/email", b"{}"))
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


MOODS = {
    "": (1, None),
    "dropped": (1, SMTPServerDisconnected),
    "broken": (1, SMTPServerDisconnected),
    "cut": (0, SMTPServerDisconnected),
    "busy": (0, SMTPResponseException),
    "refused": (0, SMTPResponseException),
}


@pytest.mark.parametrize("mood", MOODS)
def test_the_smtp_sink_has_taken_what_its_journal_says(tmp_path: Path, mood: str) -> None:
    sink = Sink("smtp", tmp_path / "mails.jsonl", replace(GOOD, **({mood: 1.0} if mood else {})))
    taken, failure = MOODS[mood]

    async def send() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Conversation(sink), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = SMTP(hostname="127.0.0.1", port=port, use_tls=False, start_tls=False, timeout=5)
        try:
            await client.connect()
            await client.ehlo()
            await client.mail("a@example.com")
            await client.rcpt("b@example.com")
            await client.data(b"Subject: s\r\nMessage-ID: <1@example.com>\r\n\r\nhello\r\n")
        finally:
            client.close()
            server.close()

    if failure is None:
        asyncio.run(send())
    else:
        with pytest.raises(failure):
            asyncio.run(send())
    assert told(sink) == ["s"] * taken


def test_moods_are_the_same_for_the_same_seed_and_end_when_it_is_calm(tmp_path: Path) -> None:
    first, second = (Sink("smtp", tmp_path / "mails.jsonl", Behaviour(seed=1, dropped=0.5)) for _ in range(2))
    moods = [first.mood() for _ in range(50)]

    assert moods == [second.mood() for _ in range(50)]
    assert {"", "dropped"} <= set(moods) <= {"", *mailsink.TAKEN, "cut", "busy", "refused"}
    first.calm.touch()
    assert {first.mood() for _ in range(50)} == {""}


# The days on which clocks change


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_clocks_change_back_for_an_odd_seed_and_forward_for_an_even_one() -> None:
    now = at("2026-11-22 12:00")

    assert change_of(1, now) == Change("Europe/Berlin", at("2026-10-25 01:00"))
    assert change_of(0, now) == Change("Europe/Berlin", at("2026-03-29 01:00"))
    assert change_of(2, now) == Change("America/New_York", at("2026-03-08 07:00"))


def test_of_two_meanings_of_a_local_date_the_first_counts() -> None:
    change = at("2026-10-25 01:00")

    assert as_read(change + 60, "Europe/Berlin") == change + 60 - 3600
    assert as_read(change - 60, "Europe/Berlin") == change - 60
    assert as_read(change + 3600, "Europe/Berlin") == change + 3600


def test_a_chat_over_the_change_is_as_new_as_its_length_says() -> None:
    (chat, *_) = person(1, SEED, NOW).chats
    over = replace(chat, zone="Europe/Berlin", started_at=at("2026-10-25 00:59:50"))

    assert last_word(over) == over.started_at + 27
    assert b"2026-10-25 02:59:50" in next(webhooks_of(over)).body
