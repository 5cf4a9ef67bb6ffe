"""The mail server's quirks, on a real one: what may have gone out, what may be told to whom, what stands in a mail."""

import asyncio
import email as parser
import email.policy
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.header import decode_header, make_header
from email.message import EmailMessage
from typing import Any

import pytest

from sync.destinations.base import Pace
from sync.destinations.mail.message import written
from sync.destinations.mail.smtp import Smtp, SmtpSettings, Step, own_name, refusal
from sync.errors import (
    AnswerLost,
    Busy,
    DeliveryError,
    NotSent,
    Refused,
    SettingsError,
    Throttled,
    Unauthorized,
    Waiting,
)
from sync.http import send_by
from sync.models import Email, Receipt
from sync.settings import load
from tests.fakes.smtp import ELSEWHERE, PASSWORD, USERNAME, MailServer

NOW = 1_750_000_000.0
MESSAGE_ID = "<chat-4711.followup@engines.example>"


def mail(**more: Any) -> Email:
    said: dict[str, Any] = {
        "to": "ada@example.com",
        "to_name": "Ada Lovelace",
        "sender": "Analytical Engines <hello@engines.example>",
        "reply_to": "Support <support@engines.example>",
        "subject": "Your chat with us",
        "text": "Thank you.\n",
        "html": "<p>Thank you.</p>\n",
        "key": "0d8f1a5e-6b1d-4c58-9d2e-3f1f6c0a7b11",
        "written_at": NOW,
        "headers": {
            "Message-ID": MESSAGE_ID,
            "List-Unsubscribe": "<https://engines.example/u/abc>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "Auto-Submitted": "auto-generated",
        },
    }
    return Email(**{**said, **more})


def smtp(server: MailServer, **settings: Any) -> Smtp:
    chosen: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "security": server.security,
        "username": USERNAME,
        "password": PASSWORD,
        "ca_file": None if server.security == "none" else server.ca_file,
        "timeout": 5.0,
    }
    return Smtp.connect(SmtpSettings(_env_file=None, **{**chosen, **settings}), clock=lambda: NOW)


def parsed(data: bytes) -> EmailMessage:
    message = parser.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def content(part: Any) -> str:
    return str(part.get_content()).replace("\r\n", "\n")


async def failure(mailer: Smtp, sent: Email | None = None) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        await mailer.send(sent or mail())
    return raised.value


Starting = Callable[..., MailServer]


@pytest.fixture
def starting() -> Iterator[Starting]:
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(MailServer(**how))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer to a mail, and no goodbye, is waited for long."""
    monkeypatch.setattr("sync.destinations.mail.smtp.PATIENCE", 0.06)
    monkeypatch.setattr("sync.destinations.mail.smtp.GOODBYE", 0.3)


@pytest.fixture
def server(starting: Starting) -> MailServer:
    return starting()


# What was taken


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
async def test_a_mail_is_taken_once_with_its_bytes_unchanged(starting: Starting, security: str) -> None:
    server = starting(security=security)
    sent = mail(text=".\n.hidden\nFrom here\n..\n\nend")

    receipt = await smtp(server).send(sent)

    assert receipt == Receipt("OK: queued as 4F2A1", ours=True)
    [taken] = server.mails
    assert (taken.mail_from, taken.rcpt_tos) == ("hello@engines.example", ["ada@example.com"])
    assert taken.content == written(sent).data
    assert server.logged_in == ["PLAIN"]


@pytest.mark.parametrize("methods", [("LOGIN",), ("LOGIN", "PLAIN"), ("XOAUTH2", "LOGIN")])
async def test_we_log_in_with_a_way_that_the_server_knows(starting: Starting, methods: tuple[str, ...]) -> None:
    server = starting(security="starttls", methods=methods)

    await smtp(server).send(mail())

    assert len(server.mails) == len(server.logged_in) == 1


async def test_without_a_user_name_nobody_logs_in(server: MailServer) -> None:
    await smtp(server, username=None, password=None).send(mail())

    assert len(server.mails) == 1
    assert b"AUTH" not in server.heard


@pytest.mark.parametrize(
    ("answer", "remote_id"),
    [
        ("250 2.0.0 Ok: queued as 4F2A1", "Ok: queued as 4F2A1"),
        ("250 OK id=1tabcd-0001AB-3x", "OK id=1tabcd-0001AB-3x"),
        ("250-2.0.0 first\r\n250 2.0.0 OK  1750000000 x-9 - gsmtp", "OK  1750000000 x-9 - gsmtp"),
        ("250 OK", MESSAGE_ID),
        ("250", MESSAGE_ID),
        ("250 queued 9 for ada@example.com", MESSAGE_ID),
        ("250 queued 9 \x1b[31m", MESSAGE_ID),
        ("250 9" + "x" * 200, MESSAGE_ID),
    ],
)
async def test_the_receipt_says_what_can_be_found_again(server: MailServer, answer: str, remote_id: str) -> None:
    server.answers["TEXT"] = answer

    assert await smtp(server).send(mail()) == Receipt(remote_id, ours=True)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("trouble", ["hangs_up", "stalls", "drips"])
async def test_a_goodbye_that_fails_changes_nothing(server: MailServer, trouble: str) -> None:
    getattr(server, trouble).add("QUIT")

    await smtp(server).send(mail())

    assert len(server.mails) == 1


async def test_each_mail_waits_for_its_place_in_the_pace(server: MailServer) -> None:
    mailer = smtp(server)
    waited: list[int] = []

    async def gate() -> None:
        waited.append(len(server.mails))

    mailer.client.gate = gate
    await mailer.send(mail())
    await mailer.send(mail())

    assert waited == [0, 1]


# What may have gone out


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
@pytest.mark.parametrize("trouble", ["hangs_up", "stalls", "drips"])
async def test_without_an_answer_to_the_mail_nobody_knows(starting: Starting, security: str, trouble: str) -> None:
    server = starting(security=security)
    getattr(server, trouble).add("TEXT")

    error = await failure(smtp(server))

    assert isinstance(error, AnswerLost)
    assert len(server.mails) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answer", ["354 again", "199 hm", "garbage", "999 what"])
async def test_an_answer_to_the_mail_that_means_nothing_is_no_answer(server: MailServer, answer: str) -> None:
    server.answers["TEXT"] = answer

    assert isinstance(await failure(smtp(server)), AnswerLost)


@pytest.mark.parametrize("step", ["EHLO", "AUTH", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("trouble", ["hangs_up", "stalls", "drips"])
async def test_until_the_mail_is_sent_nothing_went_out(server: MailServer, step: str, trouble: str) -> None:
    getattr(server, trouble).add(step)
    began = time.monotonic()
    mailer = smtp(server, timeout=0.2)

    error = await failure(mailer)

    assert type(error) is NotSent
    assert not error.may_have_landed
    assert server.mails == []
    assert b"Thank you" not in server.heard
    assert time.monotonic() - began < mailer.client.longest_call


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_reads_a_mail_and_never_the_end_of_it_leaves_it_unknown() -> None:
    """It says nothing and reads nothing: a long mail is stuck on its way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def deaf() -> None:
            loop = asyncio.get_running_loop()
            listener.setblocking(False)
            connection, _ = await loop.sock_accept(listener)
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await loop.sock_sendall(connection, b"220 hello\r\n")
                for answer in (b"250 deaf", b"250 ok", b"250 ok", b"354 go"):
                    await loop.sock_recv(connection, 1000)
                    await loop.sock_sendall(connection, answer + b"\r\n")
                await asyncio.sleep(30)

        hearing = asyncio.create_task(deaf())
        given = SmtpSettings(
            host="127.0.0.1", port=listener.getsockname()[1], security="none", timeout=5.0, _env_file=None
        )

        error = await failure(Smtp.connect(given, clock=lambda: NOW), mail(text="x" * 20_000_000))
        hearing.cancel()

    assert isinstance(error, AnswerLost)


async def test_a_whole_conversation_ends_even_if_every_step_is_just_in_time() -> None:
    """Each answer alone comes within the timeout; all together they do not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        async def slow() -> None:
            loop = asyncio.get_running_loop()
            listener.setblocking(False)
            connection, _ = await loop.sock_accept(listener)
            with connection:
                for answer in (b"220 hello", b"250-slow\r\n250 AUTH LOGIN", b"334 VXNlcg==", b"235 ok", b"250 ok"):
                    await asyncio.sleep(0.28)
                    await loop.sock_sendall(connection, answer + b"\r\n")
                    await loop.sock_recv(connection, 1000)
                await asyncio.sleep(30)

        hearing = asyncio.create_task(slow())
        given = SmtpSettings(
            host="127.0.0.1",
            port=port,
            security="none",
            username=USERNAME,
            password=PASSWORD,
            timeout=0.3,
            _env_file=None,
        )
        mailer = Smtp.connect(given, clock=lambda: NOW)
        began = time.monotonic()
        error = await failure(mailer)
        took = time.monotonic() - began
        hearing.cancel()

    assert isinstance(error, NotSent)
    assert took < 0.3 * 5 + 0.5


async def test_nobody_listens(server: MailServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert type(await failure(smtp(server, port=port))) is NotSent


async def test_a_host_without_a_name_in_dns_is_not_reached(server: MailServer) -> None:
    error = await failure(smtp(server, host="no..such.host", security="starttls"))

    assert type(error) is NotSent


async def test_a_mail_that_is_late_in_its_lease_stays_here(server: MailServer) -> None:
    mailer = smtp(server)
    token = send_by.set(NOW - 1)
    try:
        error = await failure(mailer)
    finally:
        send_by.reset(token)

    assert isinstance(error, Busy)
    assert server.heard == b""


@pytest.mark.parametrize("step", [b"RCPT", b"DATA"])
async def test_a_mail_that_becomes_late_on_the_way_stays_here(server: MailServer, step: bytes) -> None:
    """Right before DATA, and again right before the mail itself."""
    mailer = smtp(server)
    mailer.clock = lambda: NOW + 1 if step in server.heard else NOW
    token = send_by.set(NOW)
    try:
        error = await failure(mailer)
    finally:
        send_by.reset(token)

    assert isinstance(error, Busy)
    assert server.mails == []
    assert b"Thank you" not in server.heard


# What a refusal means


@pytest.mark.parametrize(
    ("step", "answer", "kind"),
    [
        ("EHLO", "421 busy", NotSent),
        ("EHLO", "451 later", NotSent),
        ("EHLO", "550 who is that", Unauthorized),
        ("AUTH", "535 5.7.8 wrong", Unauthorized),
        ("AUTH", "534 5.7.9 application password needed", Unauthorized),
        ("AUTH", "504 no such way", Unauthorized),
        ("AUTH", "454 4.7.0 not now", NotSent),
        ("AUTH", "454 4.7.0 Too many login attempts", Throttled),
        ("AUTH", "421 closing", NotSent),
        ("MAIL", "530 5.7.0 log in first", Unauthorized),
        ("MAIL", "550 5.7.1 <hello@engines.example> may not", Unauthorized),
        ("MAIL", "553 5.1.8 who", Unauthorized),
        ("MAIL", "552 5.3.4 too big", Refused),
        ("MAIL", "451 4.3.0 no disk", NotSent),
        ("MAIL", "452 4.3.1 no disk", Throttled),
        ("MAIL", "421 4.7.0 bye", NotSent),
        ("RCPT", "450 4.2.0 greylisted", Busy),
        ("RCPT", "451 4.7.1 greylisted", Busy),
        ("RCPT", "452 4.5.3 Too many recipients", Throttled),
        ("RCPT", "452 storage", Throttled),
        ("RCPT", "452 4.2.2 the mailbox is full", Busy),
        ("RCPT", "450 4.7.1 too many messages from you", Throttled),
        ("RCPT", "421 4.7.0 bye", NotSent),
        ("RCPT", "550 5.1.1 no such user", Refused),
        ("RCPT", "551 moved", Refused),
        ("RCPT", "553 5.1.3 bad address", Refused),
        ("RCPT", "554 5.7.1 no", Refused),
        ("RCPT", "252 perhaps", NotSent),
        ("RCPT", "nonsense", NotSent),
        ("RCPT", "553 5.7.1 <hello@engines.example>: Sender address rejected: not owned by user engines", Unauthorized),
        ("RCPT", "450 4.1.8 <hello@engines.example>: Sender address rejected: Domain not found", Unauthorized),
        ("RCPT", "554 5.7.1 <ada@example.com>: Relay access denied", Unauthorized),
        ("RCPT", "550 relay not permitted", Unauthorized),
        ("RCPT", "550 5.7.1 Unable to relay for ada@example.com", Unauthorized),
        ("RCPT", "550 5.4.5 Daily user sending limit exceeded", Throttled),
        ("RCPT", "550 5.1.1 <relay-access-denied.too-many@example.com>: unknown", Refused),
        ("DATA", "451 4.3.0 later", Busy),
        ("DATA", "421 4.3.0 bye", NotSent),
        ("DATA", "554 5.5.1 no valid recipients", Refused),
        ("DATA", "250 what", NotSent),
        ("TEXT", "451 4.7.1 later", Busy),
        ("TEXT", "450 later", Busy),
        ("TEXT", "452 4.3.1 no disk", Throttled),
        ("TEXT", "421 4.7.0 bye", NotSent),
        ("TEXT", "552 5.3.4 too big", Refused),
        ("TEXT", "554 5.7.1 spam", Refused),
        ("TEXT", "554 5.4.6 Too many hops", Refused),
        ("TEXT", "552 5.2.2 over quota", Refused),
        ("TEXT", "554 5.2.252 SendAsDenied; hello@engines.example", Unauthorized),
        ("TEXT", "550 5.7.60 Client does not have permissions to send as this sender", Unauthorized),
        ("TEXT", "550 5.4.5 Daily SMTP relay limit exceeded", Throttled),
    ],
)
async def test_a_refusal_means_what_it_says_and_nothing_went_out(
    server: MailServer, step: str, answer: str, kind: type[DeliveryError]
) -> None:
    server.answers[step] = answer

    error = await failure(smtp(server))

    assert type(error) is kind
    assert not isinstance(error, Waiting) or not error.may_have_landed
    assert server.mails == []
    assert not re.search(r"@|engines|ada|queue", error.reason)


async def test_a_recipient_can_be_refused_without_a_word_about_who(server: MailServer) -> None:
    server.refused["ada@example.com"] = "550 5.1.1 <ada@example.com>: no such user Ada"

    error = await failure(smtp(server))
    await smtp(server).send(mail(to="grace@example.com"))

    assert isinstance(error, Refused)
    assert (error.reason, error.status) == ("the mail server answered 550 to RCPT TO", 550)
    assert [one.rcpt_tos for one in server.mails] == [["grace@example.com"]]


async def test_a_wrong_password_is_tried_once(starting: Starting) -> None:
    server = starting(security="starttls")
    server.password = "another"

    error = await failure(smtp(server))

    assert isinstance(error, Unauthorized)
    assert (error.status, "SMTP_PASSWORD" in error.reason) == (535, True)
    assert server.heard.count(b"AUTH") == 1
    assert PASSWORD not in error.reason


def test_what_a_visitor_typed_does_not_hold_up_everybody() -> None:
    quoted = "550 <too many.relay access denied@example.com>... unknown"

    assert isinstance(refusal(Step.RCPT, 550, quoted), Refused)


# What may be told to whom


@pytest.mark.parametrize("methods", [("PLAIN",), ()])
async def test_a_server_without_starttls_hears_no_password_and_no_mail(
    starting: Starting, methods: tuple[str, ...]
) -> None:
    server = starting(security="none", methods=methods)

    error = await failure(smtp(server, security="starttls"))

    assert isinstance(error, Unauthorized)
    assert "STARTTLS" in error.reason
    assert not re.search(rb"AUTH|MAIL|RCPT|DATA", server.heard)


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("wrong", ["another host's", "nobody's"])
async def test_a_server_that_proves_nothing_hears_nothing(starting: Starting, security: str, wrong: str) -> None:
    server = starting(security=security, **({"names": ELSEWHERE} if wrong == "another host's" else {}))
    trusted = {} if wrong == "another host's" else {"ca_file": None}

    error = await failure(smtp(server, **trusted))

    assert isinstance(error, Unauthorized)
    assert "certificate" in error.reason
    assert not re.search(rb"AUTH|MAIL|RCPT|DATA", server.heard)


async def test_tls_to_a_port_that_begins_without_it_says_which_settings_to_check(starting: Starting) -> None:
    server = starting(security="starttls")

    error = await failure(smtp(server, security="tls"))

    assert type(error) is NotSent
    assert "SMTP_PORT" in error.reason


async def test_a_server_that_knows_no_way_to_log_in_waits_for_a_person(starting: Starting) -> None:
    server = starting(security="starttls", methods=("XOAUTH2",))

    error = await failure(smtp(server))

    assert isinstance(error, Unauthorized)
    assert b"AUTH" not in server.heard


async def test_a_check_logs_in_and_sends_nothing(starting: Starting) -> None:
    server = starting(security="starttls")

    assert await smtp(server).check() == f"{USERNAME} at 127.0.0.1"
    assert server.logged_in == ["PLAIN"]
    assert not re.search(rb"MAIL|RCPT|DATA", server.heard)
    assert server.heard.rstrip().endswith(b"QUIT")


async def test_a_check_says_what_is_wrong(starting: Starting) -> None:
    server = starting(security="starttls")
    server.password = "another"

    with pytest.raises(Unauthorized, match="SMTP_PASSWORD"):
        await smtp(server).check()


# What stands in a mail


def test_a_mail_reads_back_as_it_was_meant() -> None:
    sent = mail(
        to_name="Žofie „Žo“ Nováková, Dr.",
        subject="Děkujeme za chat — " + "velmi " * 30 + "✓",
        text="Dobrý den,\n\n" + "ř" * 300 + "\n.\nKonec\n",
        html="<p>Dobrý den</p>\n" + "<b>x</b>" * 500,
    )

    read = parsed(written(sent).data)

    assert read["To"].addresses[0].display_name == sent.to_name
    assert read["To"].addresses[0].addr_spec == "ada@example.com"
    assert read["From"] == "Analytical Engines <hello@engines.example>"
    assert read["Reply-To"] == "Support <support@engines.example>"
    assert read["Subject"] == sent.subject
    assert read["Date"].datetime.timestamp() == NOW
    assert read["MIME-Version"] == "1.0"
    assert {name: read[name] for name in sent.headers} == sent.headers
    assert read.get_content_type() == "multipart/alternative"
    text, html = read.iter_parts()
    assert (text.get_content_type(), content(text)) == ("text/plain", sent.text)
    assert (html.get_content_type(), content(html)) == ("text/html", sent.html + "\n")
    assert text.get_content_charset() == html.get_content_charset() == "utf-8"
    assert read.defects == text.defects == html.defects == []


def test_the_same_mail_is_the_same_bytes() -> None:
    assert written(mail()).data == written(mail()).data
    assert written(mail()).data != written(mail(key="another")).data


def test_lines_are_short_and_end_as_they_must() -> None:
    data = written(mail(text="a\rb\nc\r\n" + "x" * 5000, subject="é" * 500, to_name="word " * 30)).data

    lines = data.split(b"\r\n")
    assert max(map(len, lines)) <= 78
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert data.isascii()


def test_a_line_that_cannot_be_broken_stays_in_the_limit() -> None:
    data = written(mail(subject="x" * 3000, headers={"List-Unsubscribe": f"<https://a.example/{'t' * 700}>"})).data

    assert max(map(len, data.split(b"\r\n"))) <= 998
    assert parsed(data)["Subject"] == "x" * 3000


EVIL = "\r\nBcc: victim@example.com"


@pytest.mark.parametrize("break_", ["\r\n", "\n", "\r", "\r\n ", "\u2028", "\x0b", "\x0c", "\x85", "\x00", "\x1e"])
@pytest.mark.parametrize("field", ["to_name", "subject", "sender", "reply_to", "header", "key"])
def test_no_value_can_make_a_header(field: str, break_: str) -> None:
    evil = f"x{break_}Bcc: victim@example.com{break_}{break_}body"
    said: dict[str, Any] = {
        "sender": {"sender": f"{evil.replace('@', ' ')} <hello@engines.example>"},
        "reply_to": {"reply_to": f"{evil.replace('@', ' ')} <support@engines.example>"},
        "header": {"headers": {"List-Unsubscribe": evil}},
    }.get(field, {field: evil})

    try:
        read = parsed(written(mail(**said)).data)
    except (Refused, Unauthorized):
        return

    assert read["Bcc"] is None
    assert len(list(read.iter_parts())) == 2
    assert read["To"].addresses[0].addr_spec == "ada@example.com"


@pytest.mark.parametrize("field", ["to_name", "subject"])
def test_an_encoded_word_that_was_typed_says_only_itself(field: str) -> None:
    typed = "=?utf-8?q?a=0D=0ABcc:_victim=40example.com?="

    data = written(mail(**{field: typed})).data

    assert parsed(data)["Bcc"] is None
    raw = parser.message_from_bytes(data)[{"to_name": "To", "subject": "Subject"}[field]]
    assert str(make_header(decode_header(raw))).removesuffix(" <ada@example.com>") == typed


@pytest.mark.parametrize(
    "to",
    [
        "ada@example.com" + EVIL,
        "ada@example.com\n",
        "ada@example.com, eve@example.com",
        "ada@example.com> SIZE=1",
        "<ada@example.com>",
        "Ada <ada@example.com>",
        '"a b"@example.com',
        "ada@eve@example.com",
        "ada @example.com",
        "ada\x00@example.com",
        "ada",
        "@example.com",
        "",
        "a" * 400 + "@example.com",
        "žofie@@příklad.cz",
    ],
)
def test_what_is_no_address_gets_no_mail(to: str) -> None:
    with pytest.raises(Refused) as raised:
        written(mail(to=to))

    assert raised.value.field == "email"
    assert "ada" not in raised.value.reason


@pytest.mark.parametrize(
    "name", ["Bcc", "bcc", "From", "Content-Type", "MIME-Version", "X: y\r\nBcc", "X\nBcc", "X Y", "", "Ž"]
)
def test_a_header_that_contradicts_the_mail_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        written(mail(headers={name: "eve@example.com"}))


@pytest.mark.parametrize("field", ["sender", "reply_to"])
@pytest.mark.parametrize(
    "said", ["Analytical Engines", "", "a@b.example, c@d.example", "A <a@b.example> <c@d.example>"]
)
def test_a_sender_that_is_not_one_address_waits_for_a_person(field: str, said: str) -> None:
    with pytest.raises(Unauthorized):
        written(mail(**{field: said}))


def test_a_mail_without_an_id_gets_one_of_its_key() -> None:
    first, again, other = (written(mail(headers={}, key=key)) for key in ("a", "a", "b"))

    assert first.message_id == again.message_id != other.message_id
    assert parsed(first.data)["Message-ID"] == first.message_id
    assert re.fullmatch(r"<[0-9a-f]{32}@engines\.example>", first.message_id)


@pytest.mark.parametrize("half", ["\ud800", "a\udfffb"])
def test_half_a_character_breaks_no_mail(half: str) -> None:
    assert written(mail(text=half, html=half, subject=half, to_name=half, key=half)).data.isascii()


async def test_a_domain_with_other_letters_goes_to_every_server(starting: Starting) -> None:
    server = starting(utf8=False)

    await smtp(server).send(mail(to="ada@příklad.cz"))

    assert server.mails[0].rcpt_tos == ["ada@xn--pklad-zsa96e.cz"]
    assert b"SMTPUTF8" not in server.heard


async def test_a_name_with_other_letters_before_its_at_needs_a_server_that_takes_them(starting: Starting) -> None:
    server, old = starting(), starting(utf8=False)
    sent = mail(to="žofie@příklad.cz", to_name="Žofie")

    await smtp(server).send(sent)
    error = await failure(smtp(old), sent)

    assert server.mails[0].rcpt_tos == ["žofie@příklad.cz"]
    assert b"SMTPUTF8" in server.heard
    assert server.mails[0].content == written(sent).data
    assert isinstance(error, Refused)
    assert "SMTPUTF8" in error.reason
    assert b"MAIL" not in old.heard


async def test_a_sender_with_other_letters_is_for_a_person_to_change(starting: Starting) -> None:
    old = starting(utf8=False)

    assert isinstance(await failure(smtp(old), mail(sender="žofie@engines.example")), Unauthorized)


# Settings


def environment(monkeypatch: pytest.MonkeyPatch, **said: str) -> None:
    for name, value in {"SMTP_HOST": "mail.example.com", **said}.items():
        monkeypatch.setenv(name, value)


def test_the_host_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch)

    given = load(SmtpSettings)

    assert (given.port, given.security, given.username, given.connections) == (587, "starttls", None, 1)


@pytest.mark.parametrize(
    ("said", "variable"),
    [
        ({"SMTP_HOST": ""}, "SMTP_HOST"),
        ({"SMTP_HOST": "smtp://mail.example.com"}, "SMTP_HOST"),
        ({"SMTP_HOST": "mail.example.com\r\nx"}, "SMTP_HOST"),
        ({"SMTP_SECURITY": "none"}, "SMTP_SECURITY"),
        ({"SMTP_SECURITY": "none", "SMTP_HOST": "localhost.example.com"}, "SMTP_SECURITY"),
        ({"SMTP_SECURITY": "ssl"}, "SMTP_SECURITY"),
        ({"SMTP_USERNAME": "ada"}, "SMTP_PASSWORD"),
        ({"SMTP_PASSWORD": "s3cret-canary"}, "SMTP_USERNAME"),
        ({"SMTP_CA_FILE": "no-such-file.pem"}, "SMTP_CA_FILE"),
        ({"SMTP_CA_FILE": "/"}, "SMTP_CA_FILE"),
        ({"SMTP_CA_FILE": __file__}, "SMTP_CA_FILE"),
        ({"SMTP_HELO_NAME": "chat"}, "SMTP_HELO_NAME"),
        ({"SMTP_HELO_NAME": "chat.example.com\r\nMAIL"}, "SMTP_HELO_NAME"),
        ({"SMTP_MAILS_PER_HOUR": "0"}, "SMTP_MAILS_PER_HOUR"),
        ({"SMTP_PORT": "0"}, "SMTP_PORT"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], variable: str
) -> None:
    environment(monkeypatch, **said)

    with pytest.raises(SettingsError, match=variable) as raised:
        load(SmtpSettings)

    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "[::1]"])
def test_only_on_this_machine_nothing_has_to_be_encrypted(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    environment(monkeypatch, SMTP_HOST=host, SMTP_SECURITY="none")

    assert load(SmtpSettings).host == host.strip("[]")


def test_the_pace_is_as_the_provider_wishes() -> None:
    assert Smtp.pace(SmtpSettings(host="mail.example.com", _env_file=None)) is None
    assert Smtp.pace(SmtpSettings(host="mail.example.com", mails_per_hour=90, _env_file=None)) == Pace(90.0, 3600.0)


@pytest.mark.parametrize(
    ("machine", "name"), [("chat.example.com", "chat.example.com"), ("f00ba4", "[127.0.0.1]"), ("a b.c", "[127.0.0.1]")]
)
def test_we_give_the_name_of_the_machine_where_it_is_one(
    monkeypatch: pytest.MonkeyPatch, machine: str, name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: machine)

    assert own_name() == name


async def test_a_name_that_was_set_is_the_one_we_give(server: MailServer) -> None:
    await smtp(server, helo_name="chat.example.com").check()

    assert server.heard.startswith(b"EHLO chat.example.com\r\n")


async def test_nothing_shows_the_password(server: MailServer) -> None:
    mailer = smtp(server)

    assert PASSWORD not in repr(mailer.settings)
    await mailer.client.aclose()
