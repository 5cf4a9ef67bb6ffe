"""What a person typed becomes safe, comparable text."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.cleaning import (
    MOST_MARKS,
    body_of,
    clip,
    email,
    email_key,
    is_clean,
    is_mark,
    payload_of,
    phone,
    said,
    spelled,
)

MARKED = st.text(st.sampled_from("aé\u0301\u0327\u0344\u0f73\u1e69★ "), min_size=25, max_size=90)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60) | MARKED
quickly = settings(deadline=None, max_examples=150)


@pytest.mark.parametrize("value", [None, "", "  ", "\n", "null", " NULL ", "Undefined", "\x00", "\ud83d", [], {}, [1]])
def test_what_says_nothing_is_not_said(value):
    assert said(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  Ada  ", "Ada"),
        ("A\x00d\x07a", "Ada"),
        ("A\ud800da", "Ada"),
        ("Ada\tKing\nLovelace", "Ada King Lovelace"),
        ("Jose\u0301", "José"),
        ("nullable", "nullable"),
        (172, "172"),
        (172.0, "172"),
        (1.5, "1.5"),
        (True, "true"),
        (0, "0"),
    ],
)
def test_what_is_said_becomes_clean_text(value, text):
    assert said(value) == text


def test_lines_are_kept_where_they_matter():
    assert said("one\r\n\ttwo\n", keep_lines=True) == "one\n\ttwo"


def test_a_text_is_clipped_at_its_limit_without_a_space_at_the_end():
    assert said("Ada Lovelace", limit=4) == "Ada"
    assert clip("Ada", 4) == "Ada"


@pytest.fixture
def normalized(monkeypatch):
    """Every text that was handed to `unicodedata.normalize`, whose time grows with the square of a run of marks."""
    texts, normalize = [], unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", lambda form, text: texts.append(text) or normalize(form, text))
    return texts


@pytest.mark.parametrize(
    "marks", ["\u0327\u0301", "\u0301", "\u0f73", "\u0344", "\u0327\x00\u0301", "\U0001e130\u0301"]
)
def test_a_letter_keeps_no_more_marks_than_a_language_needs(marks, normalized):
    text = said("Zoe" + marks * 1000 + "!", limit=10_000)

    assert text[0] + text[-1] == "Z!"
    assert len(text) <= len("Zoe!") + MOST_MARKS
    assert all(len(handed) <= len("Zoe!") + MOST_MARKS for handed in normalized)


def test_a_text_is_clipped_before_the_slow_work(normalized):
    assert said("é" * 100_000, limit=100) == "é" * 100
    assert all(len(text) <= 400 for text in normalized)


def test_a_text_that_grows_shorter_in_its_normal_form_is_not_clipped():
    assert said("  " + "\u03c9\u0314\u0342\u0345" * 50, limit=50) == "\u1fa7" * 50


@pytest.mark.parametrize("text", ["★" * 100, "─" * 100, "🙂" * 100, "ท" + "ี่" * 15, "\u0301".join("a" * 100)])
def test_a_long_row_of_signs_that_are_no_marks_is_kept(text):
    assert said(text) == unicodedata.normalize("NFC", text)


def test_every_character_that_could_slow_down_the_normal_form_counts_as_a_mark():
    characters = map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1)))
    slow = [c for c in characters if unicodedata.combining(unicodedata.normalize("NFD", c)[0])]

    assert all(map(is_mark, slow))
    assert all(len(said("x" + c * 50)) <= 1 + MOST_MARKS for c in slow)


@pytest.mark.parametrize(
    ("value", "text"), [(" Ada\x00 ", "Ada"), ("Jose\u0301", "Jose\u0301"), ("null", None), (2, "2"), ([], None)]
)
def test_what_is_compared_is_spelled_as_it_was_said(value, text):
    assert spelled(value) == text


@given(ANY_TEXT, st.integers(1, 40))
@quickly
def test_nothing_that_must_not_be_stored_comes_through(text, limit):
    cleaned = said(text, limit=limit) or ""

    assert not {unicodedata.category(character) for character in cleaned} & {"Cc", "Cs"}
    assert len(cleaned) <= limit


@given(ANY_TEXT, st.integers(1, 40), st.booleans())
@quickly
def test_cleaning_twice_is_cleaning_once(text, limit, keep_lines):
    once = said(text, limit=limit, keep_lines=keep_lines)

    assert said(once, limit=limit, keep_lines=keep_lines) == once


@given(ANY_TEXT)
@quickly
def test_a_text_is_clean_exactly_if_cleaning_only_trims_it(text):
    lines_apart = text.replace("\r\n", "\n")
    is_left = [unicodedata.category(c) not in {"Cc", "Cs"} or c in "\t\n" for c in lines_apart]

    assert is_clean(text) == all(is_left)


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("Ada.L@Example.COM", "Ada.L@example.com"),
        ("Ada Lovelace <ada@example.com>", "ada@example.com"),
        ('"Lovelace, Ada" < ada@example.com >', "ada@example.com"),
        ("<ada@example.com>", "ada@example.com"),
        ("ada@mail.example", "ada@mail.example"),
        ("ada@test.com", "ada@test.com"),
        ("josé@EXÄMPLE.com", "josé@exämple.com"),
        ("ada@xn--exmple-cua.com", "ada@exämple.com"),
    ],
)
def test_an_address_is_read(typed, address):
    assert email(typed) == address


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ada",
        "ada@",
        "ada@localhost",
        "ada@example",
        "ada@example.test",
        "a@b@example.com",
        "ada@example.com, bob@example.com",
        "ada@@example.com",
        "ada@example..com",
        "<ada@example.com",
        "ada @example.com",
        "a\ud800@example.com",
    ],
)
def test_what_is_no_address_is_none(typed):
    assert email(typed) is None


@given(ANY_TEXT | st.emails() | ANY_TEXT.map(lambda text: f"{text}@example.com"))
@quickly
def test_an_address_reads_as_itself_and_is_clean(text):
    address = email(text)

    assert address is None or (email(address) == address == said(address))


def test_spellings_of_one_address_have_one_key():
    assert email_key("Ada@Example.com") == email_key("ada@example.com")
    assert email_key("jose\u0301@example.com") == email_key("JOSÉ@example.com")


def test_two_domains_have_two_keys():
    assert email_key("ada@straße.example") != email_key("ada@strasse.example")


@given(ANY_TEXT)
@quickly
def test_the_key_of_a_key_is_itself(text):
    assert email_key(email_key(text)) == email_key(text)


@pytest.mark.parametrize(
    ("typed", "region", "number"),
    [
        ("+1 202 555 0123", "US", "+12025550123"),
        ("(202) 555-0123", "US", "+12025550123"),
        ("202.555.0123 ext. 7", "US", "+12025550123"),
        ("1-202-555-0123", "US", "+12025550123"),
        ("+1 202 555 0123", "GB", "+12025550123"),
    ],
)
def test_a_number_becomes_international(typed, region, number):
    assert phone(typed, region) == number


@pytest.mark.parametrize(
    "typed", ["", "none", "555-0123", "12", "+", "+999 202 555 0123", "+310000000", "1" * 300, "\ud800"]
)
def test_what_cannot_be_a_number_is_none(typed):
    assert phone(typed, "US") is None


@given(ANY_TEXT | st.from_regex(r"\+?[0-9 ().-]{6,16}", fullmatch=True))
@quickly
def test_a_number_reads_as_itself(text):
    number = phone(text, "US")

    assert number is None or phone(number, "US") == number


@given(st.binary(max_size=60) | ANY_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")))
@quickly
def test_a_payload_gives_its_body_back_byte_for_byte(body):
    assert body_of(payload_of(body)) == body


@pytest.mark.parametrize("body", [b"\x00", b"\xff", b"base64:", "\ud800".encode("utf-8", "surrogatepass")])
def test_what_a_database_would_refuse_is_stored_as_base64(body):
    assert payload_of(body).startswith("base64:")
    assert body_of(payload_of(body)) == body


def test_a_clean_body_is_stored_as_it_is():
    assert payload_of('{"name": "José"}\r\n'.encode()) == '{"name": "José"}\r\n'
