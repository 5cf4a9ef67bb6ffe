"""What the follow-up says: two templates, the chat and its visitor become one mail, the same for the same input.

A template is Jinja's, in its sandbox, and sees what `VARIABLES` lists. A value that is not known is None and prints as
nothing; a name that does not exist is an error. Times are datetimes in the configured zone; the filters `date` and
`time` print them ("15 June 2025", "15:06 UTC"). In followup.html, and in whatever it includes, values are escaped.

Anybody can type anything into a chat, with somebody else's address: our domain must not carry a stranger's words into
that inbox. So a name that is no name is left out (`name_of`), and so are links in what a visitor said.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parseaddr
from hashlib import sha256
from pathlib import Path
from traceback import extract_tb
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound, TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from nameparser import HumanName

from sync.cleaning import clip
from sync.errors import LetterError
from sync.models import Chat, Contact, Email, Message

VARIABLES: Mapping[str, str] = {
    "visitor.name": "the visitor's name, where one is known that looks like a name",
    "visitor.first_name": "the first of it, for a greeting",
    "visitor.email": "the address that the mail goes to",
    "chat.id": "the chat's id in the source, such as 172",
    "chat.started": "when it began, a datetime",
    "chat.closed": "when it was over, a datetime",
    "chat.duration": "how long it took, in words: 4 minutes",
    "chat.wait": "how long the visitor waited for an agent, in words",
    "agent.name": "who talked with the visitor",
    "company": "FOLLOWUP_COMPANY, or else the name or domain in FOLLOWUP_FROM",
    "unsubscribe_url": "the address where the visitor ends these mails",
    "transcript": "what was said, as lines with sender (visitor or agent), name, text, at; empty unless switched on",
}
"""What a template can print, for the documents. None where it is not known; `company` is always there."""

TEMPLATE = "followup"
TEXT, HTML = f"{TEMPLATE}.txt", f"{TEMPLATE}.html"
DEFAULT = Path(__file__).parent / "letters"

NAME_LIMIT = 60
SUBJECT_LIMIT = 150
MOST_LINES = 200
LINE_LIMIT = 1_000
"""Of a transcript: the last lines, and characters of each. Mail programs cut off what is beyond 100 kB."""

LEFT_OUT = "[link left out]"

_NO_NAME = re.compile(r"//|\\\\|@|www\.|\w\.\w{2,}|\d\W{0,3}\d\W{0,3}\d\W{0,3}\d\W{0,3}\d", re.IGNORECASE)
_LINK = re.compile(r"://|@\w|www\.|mailto:|\w\.[a-z]{2,}|\w\.xn--", re.IGNORECASE)
_LINE_BREAK = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")  # browsers read these as dots of a domain
_INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs"})
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and symbols that print as nothing
_JOINERS = "\u200c\u200d"  # hold emoji together, and words in Persian
_PLAIN_ID = re.compile(r"[A-Za-z0-9_]+:[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class VisitorShown:
    """What a template sees of the visitor."""

    name: str | None
    first_name: str | None
    email: str


@dataclass(frozen=True, slots=True)
class ChatShown:
    """What a template sees of the chat."""

    id: str
    started: datetime | None
    closed: datetime | None
    duration: str | None
    wait: str | None


@dataclass(frozen=True, slots=True)
class AgentShown:
    """What a template sees of the agent."""

    name: str | None


@dataclass(frozen=True, slots=True)
class LineShown:
    """What a template sees of one line of the transcript."""

    sender: str
    name: str | None
    text: str
    at: datetime | None


class Letter:
    """The follow-up of one company. Templates are read once: another text needs another Letter.

    `templates` is a folder with followup.txt and followup.html, or None for ours. `sender` and `reply_to` are as in a
    header. `subject` is a template too. Raises LetterError.
    """

    def __init__(
        self,
        *,
        sender: str,
        subject: str,
        templates: str | Path | None = None,
        reply_to: str | None = None,
        company: str | None = None,
        transcript: bool = False,
        timezone: str = "UTC",
    ) -> None:
        display, address = parseaddr(sender)
        self.sender = sender
        self.reply_to = reply_to
        self.domain = _ascii(address.partition("@")[2])
        self.company = company or display or self.domain
        self.with_transcript = transcript
        self.zone = ZoneInfo(timezone)
        folder = _Folder(DEFAULT if templates is None else Path(templates))
        self._text = _Template(_environment(folder, escapes=False), folder, TEXT)
        self._html = _Template(_environment(folder, escapes=True), folder, HTML)
        line = _OneLine(subject)
        self._subject = _Template(_environment(line, escapes=False), line, _OneLine.NAME)

    def write(
        self,
        chat: Chat,
        contact: Contact,
        *,
        to: str,
        key: str,
        at: float,
        unsubscribe_url: str | None = None,
    ) -> Email:
        """The mail about a chat to a bare address, with its idempotency key and time of writing. Raises LetterError."""
        shown = self._shown(chat, contact, to, unsubscribe_url)
        return Email(
            to=to,
            to_name=shown["visitor"].name,
            sender=self.sender,
            reply_to=self.reply_to,
            subject=self._subject_of(shown),
            text=self._text.render(shown).strip() + "\n",
            html=self._html.render(shown).strip() + "\n",
            key=key,
            written_at=at,
            headers=self._headers(chat, unsubscribe_url),
        )

    def rehearse(self) -> Email:
        """A made-up mail, to look at. Where nothing but the address is known is tried as well. Raises LetterError."""
        self.write(Chat("", "", "v1:1"), Contact("", ""), to="ada@example.com", key="", at=0.0)
        said = (
            Message("1", "visitor", "Do you ship to London?", 1_750_000_000.0, "Ada"),
            Message("2", "agent", "We do: two days, and free from 40.", 1_750_000_060.0, "Grace"),
        )
        chat = Chat(
            id="cht_rehearsal",
            source="rehearsal",
            chat="v1:172",
            started_at=1_750_000_000.0,
            closed_at=1_750_000_240.0,
            wait=12.0,
            duration=240.0,
            agent="Grace",
            transcript=said,
        )
        contact = Contact("cnt_rehearsal", "rehearsal", name="Ada Lovelace", email="ada@example.com")
        url = f"https://{self.domain}/unsubscribe/example"
        return self.write(chat, contact, to="ada@example.com", key="", at=1_750_000_900.0, unsubscribe_url=url)

    def _shown(self, chat: Chat, contact: Contact, to: str, unsubscribe_url: str | None) -> dict[str, Any]:
        name = name_of(contact.name)
        duration = chat.duration
        if duration is None and chat.started_at is not None and chat.closed_at is not None:
            duration = chat.closed_at - chat.started_at
        return {
            "visitor": VisitorShown(name, name and first_name_of(name), to),
            "chat": ChatShown(
                id=chat.chat.partition(":")[2] or chat.chat,
                started=self._moment(chat.started_at),
                closed=self._moment(chat.closed_at),
                duration=words_for(duration),
                wait=words_for(chat.wait),
            ),
            "agent": AgentShown(name_of(chat.agent)),
            "company": self.company,
            "unsubscribe_url": unsubscribe_url,
            "transcript": self._transcript(chat) if self.with_transcript else (),
        }

    def _transcript(self, chat: Chat) -> tuple[LineShown, ...]:
        said = [line for line in chat.transcript if line.sender in ("visitor", "agent")]
        return tuple(
            LineShown(line.sender, name_of(line.name), _spoken(line), self._moment(line.at))
            for line in said[-MOST_LINES:]
        )

    def _moment(self, at: float | None) -> datetime | None:
        try:
            return None if at is None else datetime.fromtimestamp(at, self.zone)
        except (ValueError, OverflowError, OSError):
            return None

    def _subject_of(self, shown: Mapping[str, Any]) -> str:
        subject = clip(" ".join(_visible(self._subject.render(shown), keep=_JOINERS).split()), SUBJECT_LIMIT)
        if not subject:
            raise LetterError(f"{_OneLine.NAME}: nothing is left of it")
        return subject

    def _headers(self, chat: Chat, unsubscribe_url: str | None) -> dict[str, str]:
        headers = {
            "Message-ID": f"<{_part(chat)}.{TEMPLATE}@{self.domain}>",
            "Auto-Submitted": "auto-generated",
            "X-Auto-Response-Suppress": "All",
        }
        if unsubscribe_url is not None:
            if not re.fullmatch(r"https?://[\x21-\x3b\x3d\x3f-\x7e]+", unsubscribe_url):
                raise LetterError("the address to unsubscribe at is no web address")
            headers["List-Unsubscribe"] = f"<{unsubscribe_url}>"
            headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        return headers


def name_of(said: str | None) -> str | None:
    """A person's name without characters that are not seen; None where it is no name, but may carry a message.

    That is: a line break, more than 60 characters, an "@", anything like a web address or a phone number.
    """
    if said is None or _LINE_BREAK.search(said.strip()):
        return None
    name = unicodedata.normalize("NFC", " ".join(_visible(said).split()))
    is_a_name = any(map(str.isalpha, name)) and len(name) <= NAME_LIMIT and _NO_NAME.search(_bare(name)) is None
    return name if is_a_name else None


def first_name_of(name: str) -> str:
    """What to greet a person by. The whole name where its first word alone would be odd: Dr. Smith, J. Tolkien."""
    first = str(HumanName(name).first)
    return first if len(first.rstrip(".")) > 1 else name


def words_for(seconds: float | None) -> str | None:
    """A length of time in words, as exact as people talk about it; None where it is none."""
    if seconds is None or not 0 <= seconds < 365 * 86400:
        return None
    if seconds < 60:
        return "less than a minute"
    hours, minutes = divmod(int(seconds // 60), 60)
    days, hours = divmod(hours, 24)
    counts = [(days, "day"), (hours, "hour"), (0 if days else minutes, "minute")]
    return " ".join(f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in counts if count)


def _spoken(line: Message) -> str:
    text = clip(_visible(line.text.replace("\r\n", "\n"), keep=f"\n{_JOINERS}").strip(), LINE_LIMIT)
    return text if line.sender == "agent" else re.sub(r"\S+", _without_link, text)


def _without_link(word: re.Match[str]) -> str:
    return LEFT_OUT if _LINK.search(_bare(word[0])) else word[0]


def _bare(text: str) -> str:
    """The text as a mail program may read it that looks for links: plain letters, plain dots, nothing between them."""
    if text.isascii():
        return text
    letters = unicodedata.normalize("NFKD", _visible(text))
    return "".join(letter for letter in letters if unicodedata.category(letter)[0] != "M").translate(_DOTS)


def _visible(text: str, *, keep: str = "") -> str:
    """The text without what does not print or turns the direction of what follows; a line break becomes a space."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_seen(character, keep) for character in text)


def _seen(character: str, keep: str) -> str:
    if character in keep:
        return character
    if character.isspace():
        return " "
    return "" if unicodedata.category(character) in _INVISIBLE or character in _BLANK else character


def _part(chat: Chat) -> str:
    """The chat as the left part of a Message-ID: readable, and never that of another chat."""
    said = f"{chat.source}-{chat.chat}"
    if re.fullmatch(r"[a-z0-9_]+", chat.source) and _PLAIN_ID.fullmatch(chat.chat) and len(said) <= 100:
        return said.replace(":", "-")
    return f"chat-{sha256(said.encode('utf-8', 'backslashreplace')).hexdigest()[:32]}"


def _ascii(domain: str) -> str:
    try:
        plain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        plain = ""
    if not re.fullmatch(r"[a-z0-9.-]+", plain):
        raise LetterError("the sender of the follow-up is no email address")
    return plain


def _date(at: datetime | None) -> str | None:
    return None if at is None else f"{at.day} {at:%B %Y}"


def _time(at: datetime | None) -> str | None:
    if at is None:
        return None
    zone = at.tzname() or ""
    return f"{at:%H:%M} {'UTC' if zone[:1] in '+-' else ''}{zone}"


class _Folder(BaseLoader):
    """Templates out of one folder; nothing leads out of it, links neither. Keeps what it read, to show lines of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.sources: dict[str, str] = {}

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:  # noqa: ARG002
        self.sources[template] = source = self._read(template)
        return source, template, lambda: True

    def _read(self, name: str) -> str:
        try:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder):
                raise TemplateNotFound(name)
            return path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise LetterError(f"{Path(name).name} is not UTF-8 text") from None
        except (OSError, ValueError):
            raise TemplateNotFound(name) from None


class _OneLine(BaseLoader):
    """The subject, as if it were a file."""

    NAME = "the subject"

    def __init__(self, line: str) -> None:
        self.sources = {self.NAME: line}

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:  # noqa: ARG002
        if template != self.NAME:
            raise TemplateNotFound(template)
        return self.sources[template], template, lambda: True


class _Template:
    """One template. Whatever goes wrong with it becomes a LetterError that quotes its line, never a value."""

    def __init__(self, environment: Environment, loader: _Folder | _OneLine, name: str) -> None:
        self._loader = loader
        self._name = name
        try:
            self._template = environment.get_template(name)
        except TemplateNotFound:
            raise LetterError(
                f"{name} is not in the folder FOLLOWUP_TEMPLATES: it must hold both {TEXT} and {HTML}"
            ) from None
        except TemplateSyntaxError as error:
            raise self._error(error) from None

    def render(self, shown: Mapping[str, Any]) -> str:
        try:
            return self._template.render(shown)
        except LetterError:
            raise
        except Exception as error:  # noqa: BLE001 - a template can fail in any way, and the cause may quote a visitor
            raise self._error(error) from None

    def _error(self, error: Exception) -> LetterError:
        name, number = self._place(error)
        lines = self._loader.sources.get(name, "").splitlines()
        line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
        where = name if isinstance(self._loader, _OneLine) else f"{name}, line {number}"
        return LetterError(f"{where}: {_wrong(error)}" + (f", in: {clip(line, 120)}" if line else ""))

    def _place(self, error: Exception) -> tuple[str, int]:
        if isinstance(error, TemplateSyntaxError):
            return error.name or self._name, error.lineno
        frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename in self._loader.sources]
        return (frames[-1].filename, frames[-1].lineno or 0) if frames else (self._name, 0)


def _wrong(error: Exception) -> str:
    match error:
        case TemplateSyntaxError():
            return f"this is no template ({str(error.message).rstrip('.')})"
        case TemplateNotFound():
            return "what it includes is not in the folder"
        case UndefinedError():
            return "it names something that does not exist"
        case SecurityError():
            return "it does what a template may not"
        case _:
            return f"it fails ({type(error).__name__})"


def _environment(loader: BaseLoader, *, escapes: bool) -> Environment:
    """Escaping goes by the mail's part and not by a file's name: what the HTML includes is HTML."""
    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        autoescape=escapes,
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"date": _date, "time": _time}
    del environment.filters["random"], environment.globals["lipsum"]  # the same input says the same
    return environment
