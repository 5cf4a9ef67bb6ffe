"""Turns what a person typed into text that is safe to store, or into None where nothing was said."""

import base64
import re
import unicodedata

import phonenumbers
from email_validator import validate_email

NAME_LIMIT = 200
EMAIL_LIMIT = 320
PHONE_LIMIT = 64
ATTRIBUTE_LIMIT = 2_000
MESSAGE_LIMIT = 65_536

MOST_MARKS = 30
"""Marks on one letter that are kept, as in the Stream-Safe format of UAX 15: no language needs more, and the time that
a normal form takes grows with the square of their number."""

MOST_COMPOSED = 4
"""The most characters that NFC makes one of: a text of four times the limit may still fit once it is normal."""

NOT_SAID = frozenset({"", "null", "undefined"})
_LONGEST_NOT_SAID = max(map(len, NOT_SAID))

_NEVER = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # classes Cc and Cs, but for tab and newline
_BREAK = re.compile("[\t\n]")
_NO_LETTER = r"[^\w\x00-\u02ff]"  # every mark is among these: a first look that costs ordinary text next to nothing
_PERHAPS_MARKS = re.compile(f"{_NO_LETTER}(?<!{_NO_LETTER}{{2}}){_NO_LETTER}{{{MOST_MARKS},}}")
_MARKS_OF_CLASS_0 = frozenset("\u0f73\u0f75\u0f81")  # each is made of two marks, and no mark itself
_IN_BRACKETS = re.compile(r"[^<>]*<([^<>]*)>")
_BASE64 = "base64:"


def is_clean(text: str) -> bool:
    """Whether a text is free of characters that must never be stored."""
    return text.isprintable() or _NEVER.search(text.replace("\r\n", "\n")) is None


def clip(text: str, limit: int) -> str:
    """A text of at most `limit` characters that does not end in a space."""
    return text if len(text) <= limit else text[:limit].rstrip()


def said(value: object, *, limit: int = ATTRIBUTE_LIMIT, keep_lines: bool = False) -> str | None:
    """What a JSON scalar says, as clean text: NFC, trimmed, without control characters or lone surrogates.

    None stands for everything that says nothing: null, "", "null", "undefined", and lists or objects, which are not
    scalars. Tabs and newlines become spaces unless `keep_lines`.
    """
    text = value if isinstance(value, str) else _number_as_text(value)
    if text is None:
        return None
    if not (text.isascii() and text.isprintable()):
        text = _normal(_NEVER.sub("", text).strip()[: limit * MOST_COMPOSED], keep_lines=keep_lines)
    text = text.strip()
    if len(text) > limit:
        text = clip(text, limit)
    return None if _says_nothing(text) else text


def spelled(value: object) -> str | None:
    """What a JSON scalar says, to compare it: like `said`, but whole, and spelled as it was sent instead of NFC.

    A redelivery is spelled as the first delivery was. So a long text costs no more than reading it once.
    """
    text = value if isinstance(value, str) else _number_as_text(value)
    if text is None:
        return None
    text = (text if text.isprintable() else _NEVER.sub("", text)).strip()
    return None if _says_nothing(text) else text


def _says_nothing(text: str) -> bool:
    return len(text) <= _LONGEST_NOT_SAID and text.lower() in NOT_SAID


def _number_as_text(value: object) -> str | None:
    """A number or a boolean as JavaScript would print it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)
        case _:
            return None


def _normal(text: str, *, keep_lines: bool) -> str:
    """NFC in linear time. What it changed is looked at again, as some marks are two in their normal form."""
    text = _with_few_marks(text if keep_lines else _BREAK.sub(" ", text))
    normal = unicodedata.normalize("NFC", text)
    return normal if normal == text else _with_few_marks(normal)


def _with_few_marks(text: str) -> str:
    return text if len(text) <= MOST_MARKS else _PERHAPS_MARKS.sub(_thinned, text)


def _thinned(run: re.Match[str]) -> str:
    kept, marks = [], 0
    for character in run[0]:
        marks = marks + 1 if is_mark(character) else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def is_mark(character: str) -> bool:
    """Whether a character adds to the letter before it, such as an accent that is a character of its own."""
    return unicodedata.combining(character) != 0 or character in _MARKS_OF_CLASS_0


def email(text: str) -> str | None:
    """The address that a text holds, its domain lower-cased, or None where it is no address.

    `Name <a@example.com>` is unwrapped. No DNS is asked: that would make reading slow, and depend on the network.
    """
    wrapped = _IN_BRACKETS.fullmatch(text)
    address = wrapped[1].strip() if wrapped else text.strip()
    try:
        return validate_email(address, check_deliverability=False).normalized
    except ValueError:
        return None


def email_key(email: str) -> str:
    """What two spellings of one address have in common.

    The domain is only lower-cased: case folding turns ß into ss, and those can be two people's domains.
    """
    local, at, domain = unicodedata.normalize("NFC", email).rpartition("@")
    return unicodedata.normalize("NFC", local.casefold() + at + domain.lower())


def phone(text: str, region: str) -> str | None:
    """The number in E.164, or None where it cannot be one.

    A number without its area code is None: made international it would lead to a stranger. So is one that would read
    differently the next time (+31 00 0000000 loses a zero at each reading): it is no key to a person.
    """
    number = _international(text, region)
    return number if number is not None and _international(number, region) == number else None


def _international(text: str, region: str) -> str | None:
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def payload_of(body: bytes) -> str:
    """A webhook's body as text that every database takes: as it is if it can be, else `base64:…`."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return _BASE64 + base64.b64encode(body).decode("ascii")
    if "\x00" in text or text.startswith(_BASE64):
        return _BASE64 + base64.b64encode(body).decode("ascii")
    return text


def body_of(payload: str) -> bytes:
    """The body that a payload was made of, byte for byte: what a replay reads again."""
    if payload.startswith(_BASE64):
        return base64.b64decode(payload.removeprefix(_BASE64))
    return payload.encode("utf-8")
