"""What the follow-up says, and what nobody can make it say."""

import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync.errors import LetterError, SyncError
from sync.letter import (
    LEFT_OUT,
    LINE_LIMIT,
    MOST_LINES,
    SUBJECT_LIMIT,
    VARIABLES,
    AgentShown,
    ChatShown,
    Letter,
    VisitorShown,
    first_name_of,
    name_of,
    words_for,
)
from sync.models import Chat, Contact, Email, Message

NOW = 1_750_000_000.0
ADA = Contact("cnt_1", "uid-1", name="Ada Lovelace", email="ada@example.com")
URL = "https://chat.example.com/unsubscribe/AbC-1_2"
CANARY = "Canarina"


def chat(*said: Message, **more: Any) -> Chat:
    given = {"started_at": NOW, "closed_at": NOW + 250, "agent": "Grace", "transcript": said} | more
    return Chat("cht_1", "acquire", given.pop("chat", "v1:172"), **given)


def letter(**more: Any) -> Letter:
    given = {"sender": "Example Books <hello@books.example>", "subject": "Thank you", "timezone": "Europe/London"}
    return Letter(**{**given, **more})


def written(by: Letter | None = None, *, about: Chat | None = None, to: Contact = ADA, url: str | None = URL) -> Email:
    by, about = by or letter(), about or chat()
    return by.write(about, to, to="ada@example.com", key="k-1", at=NOW + 900, unsubscribe_url=url)


def own(folder: Path, text: str = "Hi", html: str = "<p>Hi</p>", **more: Any) -> Letter:
    (folder / "followup.txt").write_text(text)
    (folder / "followup.html").write_text(html)
    return letter(templates=folder, **more)


class Tags(HTMLParser):
    """The structure of some HTML, and the text in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "br":
            self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_mail_thanks_says_who_and_when_and_how_to_go_on() -> None:
    email = written()

    for part in (email.text, " ".join(Tags(email.html).text.split())):
        for said in ("Hi Ada,", "Grace", "15 June 2025", "16:06 BST", "4 minutes", "ust reply to this mail"):
            assert said in part
    assert f"Unsubscribe: {URL}" in email.text
    assert f'<a href="{URL}"' in email.html
    assert (email.to, email.to_name, email.key, email.written_at) == (
        "ada@example.com",
        "Ada Lovelace",
        "k-1",
        NOW + 900,
    )


def test_the_headers_are_those_of_an_automatic_mail_that_can_be_ended_with_one_click() -> None:
    assert written().headers == {
        "Message-ID": "<acquire-v1-172.followup@books.example>",
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "List-Unsubscribe": f"<{URL}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def test_without_an_address_to_unsubscribe_at_none_is_spoken_of() -> None:
    email = written(url=None)

    assert "nsubscribe" not in email.text + email.html + str(email.headers)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://a.example/>, <x", "https://a\r\nBcc: x", "ftp://a", "", "https://a b"]
)
def test_an_odd_address_to_unsubscribe_at_gets_into_no_header(url: str) -> None:
    with pytest.raises(LetterError):
        written(url=url)


def test_who_is_not_known_is_greeted_without_a_name() -> None:
    nobody = Chat("cht_1", "acquire", "v1:172")
    email = written(about=nobody, to=replace(ADA, name=None))

    assert email.text.startswith("Hi,\n\nThank you for chatting with us.\n\nIs anything")
    assert ">Hi,<" in email.html
    assert "None" not in email.text + email.html
    assert email.to_name is None


def test_the_same_input_is_the_same_mail() -> None:
    assert written(letter()) == written(letter())


def test_the_company_is_what_is_set_or_else_the_sender() -> None:
    senders = ("Books <a@books.example>", "a@books.example")

    assert [letter(sender=sender).company for sender in senders] == ["Books", "books.example"]
    assert letter(company="B & Co").company == "B & Co"
    assert "B &amp; Co" in written(letter(company="B & Co")).html


@pytest.mark.parametrize("sender", ["nobody", "", "a@", "Ada", "a@" + "x" * 70])
def test_a_sender_without_a_domain_is_refused(sender: str) -> None:
    with pytest.raises(LetterError):
        letter(sender=sender)


def test_an_international_domain_is_told_in_ascii() -> None:
    assert written(letter(sender="a@bücher.example")).headers["Message-ID"].endswith("@xn--bcher-kva.example>")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=120), st.text(max_size=120))
def test_no_two_chats_share_a_message_id_and_none_breaks_it(one: str, other: str) -> None:
    ids = [written(about=chat(chat=said)).headers["Message-ID"] for said in (one, other)]

    assert all(re.fullmatch(r"<[\w.-]{1,110}@books\.example>", said, re.ASCII) for said in ids)
    assert (ids[0] == ids[1]) is (one == other)


NO_NAMES = [
    "Claim your prize at https://evil.example",
    "evil.example",
    "WWW.evil",
    "evil.com/win",
    "evil\uff0ecom",
    "evil\u3002com",
    "ev\u200bil.c\u200bom",
    "evil\ufe0f.com",
    "evil\u0301.com",
    "a@b",
    "a\uff20b",
    "//evil",
    "Ada\nBcc: everybody",
    "Ada\u2028Lovelace",
    "Ada\rLovelace",
    "call +1 555 010 0199",
    "x" * 61,
    "12345",
    "!!!",
    "",
    " ",
    "\u200b",
    "\u3164",
]


@pytest.mark.parametrize("said", NO_NAMES)
def test_what_is_no_name_is_left_out(said: str) -> None:
    email = written(about=chat(agent=said), to=replace(ADA, name=said))

    assert name_of(said) is None
    assert email == written(about=chat(agent=None), to=replace(ADA, name=None))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Ada", "Ada"),
        ("  Ada   Lovelace ", "Ada Lovelace"),
        ("J. R. R. Tolkien", "J. R. R. Tolkien"),
        ("山田 太郎", "山田 太郎"),
        ("O'Brien-Smith", "O'Brien-Smith"),
        ("Ada\u202e\u200b\u2066 Lovelace", "Ada Lovelace"),
        ("Louis XIV 2", "Louis XIV 2"),
        ("x" * 60, "x" * 60),
    ],
)
def test_names_are_kept_without_what_is_not_seen(said: str, name: str) -> None:
    assert name_of(said) == name


@settings(deadline=None)
@given(st.text(max_size=80))
@example("A\u200b\u0301")
def test_a_name_is_a_short_line_that_leads_nowhere(said: str) -> None:
    name = name_of(said)

    if name is not None:
        assert len(name) <= 60
        assert name == " ".join(name.split())
        assert not re.search("[@\u200b-\u200f\u202a-\u202e\u2066-\u2069]|//|www\\.", name, re.IGNORECASE)
        assert first_name_of(name)
        assert name_of(name) == name


@pytest.mark.parametrize(
    ("name", "first"),
    [("Ada Lovelace", "Ada"), ("Lovelace, Ada", "Ada"), ("Dr. Smith", "Dr. Smith"), ("J. Tolkien", "J. Tolkien")],
)
def test_people_are_greeted_by_what_sounds_right(name: str, first: str) -> None:
    assert first_name_of(name) == first


def test_lengths_of_time_are_words() -> None:
    told = {0: "less than a minute", 60: "1 minute", 250: "4 minutes", 3660: "1 hour 1 minute", 90_000: "1 day 1 hour"}

    assert {seconds: words_for(seconds) for seconds in told} == told
    assert [words_for(odd) for odd in (None, -1, 1e12, float("nan"), float("inf"))] == [None] * 5


@pytest.mark.parametrize("at", [1e300, -1e300, float("nan"), 1e15])
def test_times_that_never_were_are_not_told(at: float) -> None:
    email = written(about=chat(started_at=at, closed_at=at))

    assert "Grace" in email.text
    assert "June" not in email.text


def line(text: str, sender: str = "visitor", **more: Any) -> Message:
    return Message("m1", sender, text, **more)


def test_the_transcript_is_told_only_where_it_is_switched_on() -> None:
    about = chat(
        line("Do you ship\nto London?", name="Ada", at=NOW), line("We do", "agent"), line("Ada left", "system")
    )
    off, on = written(about=about), written(letter(transcript=True), about=about)

    assert "London" not in off.text + off.html
    assert "Ada, 16:06:\nDo you ship\nto London?\n\nExample Books:\nWe do\n" in on.text
    assert "Do you ship<br>to London?" in on.html
    assert "left" not in on.text + on.html


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("see https://evil.example/x now", f"see {LEFT_OUT} now"),
        ("see evil.com!", f"see {LEFT_OUT}"),
        ("see ev\u200bil\uff0ecom", f"see {LEFT_OUT}"),
        ("a@evil.example", LEFT_OUT),
        ("Well... yes. No.\nOk?", "Well... yes. No.\nOk?"),
        ("3.50 or 4.20", "3.50 or 4.20"),
        ("\u202egnp.exe", LEFT_OUT),
        ("👩\u200d💻 hi", "👩\u200d💻 hi"),
    ],
)
def test_links_that_a_visitor_wrote_are_left_out(said: str, told: str) -> None:
    email = written(letter(transcript=True), about=chat(line(said)))

    assert f"You:\n{told}\n" in email.text


def test_links_that_an_agent_wrote_are_kept() -> None:
    email = written(letter(transcript=True), about=chat(line("https://books.example/shipping", "agent")))

    assert "https://books.example/shipping" in email.text


def test_an_endless_transcript_still_makes_a_mail_that_can_be_read() -> None:
    said = [line(f"{place} " + "a.1" * 30_000) for place in range(MOST_LINES + 100)]
    email = written(letter(transcript=True), about=chat(*said))

    assert len(email.text) < MOST_LINES * (LINE_LIMIT + 20) + 2_000
    assert f"{MOST_LINES + 99} " in email.text
    assert "You:\n99 " not in email.text


HOSTILE = st.one_of(
    st.text(max_size=70),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "</title></style><b>",
            "{{ 7 * 7 }}{% for a in b %}",
            "&lt;b&gt; & co",
            "' onmouseover='x",
            "]]><!--",
            "\r\nBcc: everybody@example.com\r\n\r\n",
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(HOSTILE, HOSTILE, st.lists(st.tuples(st.sampled_from(["visitor", "agent"]), HOSTILE, HOSTILE), max_size=3))
def test_nothing_that_is_said_becomes_markup_or_a_header(
    name: str, agent: str, said: list[tuple[str, str, str]]
) -> None:
    by = letter(transcript=True, subject="{{ visitor.name }}, thank you from {{ agent.name or company }}")
    calm = [Message(str(place), sender, "Hello", None, None) for place, (sender, _, _) in enumerate(said)]
    wild = [Message(str(place), sender, text, None, who) for place, (sender, text, who) in enumerate(said)]
    contact = replace(ADA, name=name)
    email = written(by, about=chat(*wild, agent=agent), to=contact)
    plain = written(by, about=chat(*calm, agent="Grace"), to=contact)

    assert Tags(email.html).tags == Tags(plain.html).tags
    for value in (email.subject, email.to_name or "", *email.headers.values()):
        assert len(value.splitlines()) <= 1
        assert value.isprintable()
    assert len(email.subject) <= SUBJECT_LIMIT


def test_markup_in_a_name_is_shown_and_not_run() -> None:
    assert "Hi &lt;b&gt;Ada," in written(to=replace(ADA, name="<b>Ada")).html


def test_a_name_is_never_taken_for_a_template() -> None:
    email = written(about=chat(agent="{{ company }}"))

    assert "{{ company }}" in email.text
    assert "with {{ company }}<" in email.html


def test_the_subject_is_one_line_of_bounded_length() -> None:
    subjects = ["Hi {{ visitor.first_name }}", "a\r\nBcc: b", "x" * 500, "\u202eabc"]

    assert [written(letter(subject=subject)).subject for subject in subjects] == [
        "Hi Ada",
        "a Bcc: b",
        "x" * 150,
        "abc",
    ]


def test_a_subject_of_nothing_is_an_error() -> None:
    with pytest.raises(LetterError, match="the subject: nothing is left of it"):
        written(letter(subject="{{ visitor.name }}"), to=replace(ADA, name=None))


def test_every_variable_is_in_the_table_and_can_be_printed(tmp_path: Path) -> None:
    parts = {"visitor": VisitorShown, "chat": ChatShown, "agent": AgentShown}
    there = {f"{name}.{field.name}" for name, part in parts.items() for field in fields(part)}
    every = "\n".join(f"{name}={{{{ {name} }}}}" for name in VARIABLES)
    email = written(own(tmp_path, every, every))

    assert there | {"company", "unsubscribe_url", "transcript"} == set(VARIABLES)
    assert "chat.id=172\nchat.started=2025-06-15 16:06:40+01:00\n" in email.text
    assert "chat.duration=4 minutes\nchat.wait=\nagent.name=Grace\n" in email.text


def test_own_templates_may_include_others_and_what_the_html_includes_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "end.txt").write_text("Yours, {{ agent.name }}")
    include = '{% include "parts/end.txt" %}'
    email = written(own(tmp_path, include, f"<p>{include}</p>"), about=chat(agent="<Grace>"))

    assert (email.text, email.html) == ("Yours, <Grace>\n", "<p>Yours, &lt;Grace&gt;</p>\n")


def test_what_is_not_known_prints_as_nothing_and_a_time_as_people_write_it(tmp_path: Path) -> None:
    began, ended = ("{{{{ {0}|date }}}}|{{{{ {0}|time }}}}".format(f"chat.{name}") for name in ("started", "closed"))
    text = f"[{{{{ visitor.name }}}}|{began}|{ended}]"
    by = own(tmp_path, text, timezone="Asia/Dubai")

    assert written(by, about=chat(closed_at=None), to=Contact("c", "u")).text == "[|15 June 2025|19:06 UTC+04||]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "\n\nHi {{ visitor.nmae }},",
            "followup.txt, line 3: it names something that does not exist, in: Hi {{ visitor",
        ),
        ("\n{{ nobody }}", "followup.txt, line 2: it names something that does not exist"),
        ("{{ visitor[visitor.name] }}", "followup.txt, line 1: it names something that does not exist"),
        ("{{ visitor.name + 1 }}", "followup.txt, line 1: it fails (TypeError)"),
        ("a\n{% include visitor.name %}", "followup.txt, line 2: what it includes is not in the folder"),
        ("{{ visitor.name|int('x')|float + chat.id }}", "followup.txt, line 1: it fails (TypeError)"),
        ("{{ 1 / 0 }}", "followup.txt, line 1: it fails (ZeroDivisionError)"),
    ],
)
def test_a_template_that_fails_is_named_with_its_line_and_without_the_visitor(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(LetterError) as raised:
        written(own(tmp_path, text), to=replace(ADA, name=CANARY))

    assert str(raised.value).startswith(said)
    assert CANARY not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert isinstance(raised.value, SyncError)


def test_a_fault_in_an_included_file_is_named_there(tmp_path: Path) -> None:
    (tmp_path / "end.html").write_text("a\nb\n{{ visitor.nobody }}")
    with pytest.raises(LetterError, match=r"^end\.html, line 3: .*, in: \{\{ visitor\.nobody \}\}$"):
        written(own(tmp_path, html='{% include "end.html" %}'))


def test_what_is_no_template_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(LetterError, match=r"^followup\.html, line 2: this is no template \(.*\), in: \{% if"):
        own(tmp_path, html="<p>\n{% if visitor.name }")


def test_a_subject_that_is_no_template_stops_the_start_and_one_that_fails_is_named() -> None:
    with pytest.raises(LetterError, match=r"^the subject: this is no template"):
        letter(subject="Hi {{ visitor.name")
    with pytest.raises(LetterError, match=r"^the subject: it names something that does not exist"):
        written(letter(subject="Hi {{ visitor.nmae }}"))
    with pytest.raises(LetterError, match=r"^the subject: what it includes"):
        written(letter(subject="{% include 'followup.txt' %}"))


@pytest.mark.parametrize("missing", ["followup.txt", "followup.html"])
def test_both_templates_are_needed(tmp_path: Path, missing: str) -> None:
    own(tmp_path)
    (tmp_path / missing).unlink()

    with pytest.raises(LetterError, match=f"^{missing} is not in the folder FOLLOWUP_TEMPLATES: it must hold both"):
        letter(templates=tmp_path)


def test_a_folder_that_is_not_there_is_said() -> None:
    with pytest.raises(LetterError, match="is not in the folder FOLLOWUP_TEMPLATES"):
        letter(templates="/nowhere/at/all")


def test_a_template_that_is_not_utf_8_is_said(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / "followup.html").write_bytes(b"\xff\xfe")

    with pytest.raises(LetterError, match=r"^followup\.html is not UTF-8 text$"):
        letter(templates=tmp_path)
    (tmp_path / "part.html").write_bytes(b"\xff\xfe")
    with pytest.raises(LetterError, match=r"^part\.html is not UTF-8 text$"):
        written(own(tmp_path, html='{% include "part.html" %}'))


@pytest.mark.parametrize("include", ["../secret.txt", "/etc/hostname", "link.txt", "a/../../secret.txt", "a\x00b", "."])
def test_nothing_leads_out_of_the_folder(tmp_path: Path, include: str) -> None:
    (tmp_path / "secret.txt").write_text("geheim")
    folder = tmp_path / "letters"
    (folder / "a").mkdir(parents=True)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")

    with pytest.raises(LetterError, match="what it includes is not in the folder"):
        written(own(folder, f"{{% include {include!r} %}}"))


@pytest.mark.parametrize(
    "attempt",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ visitor.__class__.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ joiner.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(visitor) }}",
        "{{ ('{0.__cl' ~ 'ass__}').format(visitor) }}",
        "{{ visitor|attr('__class__') }}",
        "{{ chat.started.__reduce__() }}",
        "{{ [visitor]|map(attribute='__class__')|first }}",
        "{{ self._TemplateReference__context }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ lipsum() }}",
        "{{ range(99999999)|list }}",
        "{% set x = [] %}{{ x.append(1) }}",
    ],
)
def test_a_template_cannot_reach_what_is_behind_it(tmp_path: Path, attempt: str) -> None:
    with pytest.raises(LetterError):
        written(own(tmp_path, attempt))


def test_a_template_cannot_ask_for_chance(tmp_path: Path) -> None:
    with pytest.raises(LetterError, match="No filter named 'random'"):
        own(tmp_path, "{{ [1, 2]|random }}")


def test_a_rehearsal_finds_what_only_shows_without_a_name(tmp_path: Path) -> None:
    fine, email = own(tmp_path, "Hi {{ visitor.name or 'you' }}"), letter().rehearse()

    assert email.to == "ada@example.com"
    assert "Grace" in email.text
    assert fine.rehearse().text == "Hi Ada Lovelace\n"
    with pytest.raises(LetterError, match="line 1: it fails"):
        own(tmp_path, "Hi {{ visitor.name + '!' }}").rehearse()


def test_our_own_html_brings_nothing_from_elsewhere_and_suits_dark_and_small_screens() -> None:
    html = written(letter(transcript=True), about=chat(line("Hello"))).html

    assert '<html lang="en">' in html
    assert '<meta name="color-scheme" content="light dark">' in html
    assert "@media (prefers-color-scheme: dark)" in html
    assert "max-width:600px" in html
    assert re.findall(r"https?://[^\"' ]+", html) == [URL]
    assert not re.search(r"<img|<script|<link|url\(|@import", html)
