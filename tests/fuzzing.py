"""Hostile webhooks as hypothesis makes them: recorded ones, damaged with knowledge of their grammar.

A document is taken apart into `Members` (an object whose keys may repeat), lists and scalars, and JSON inside a text
into `Folded`; it is changed at any place, spelled in one of several ways, encoded, and sent under headers that may lie.
"""

import gzip
import hashlib
import hmac
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hypothesis import strategies as st

SAMPLES = Path(__file__).parent / "samples" / "acquire"
BODIES = [
    path.read_bytes() for path in sorted(SAMPLES.glob("*.body"), key=lambda path: ("-start" not in path.name, path))
]

SECRET = "fuzz-secret-0123456789"
TOKEN = "fuzz-token-0123456789abcdef"
SIGNATURE = b"x-acquire-signature"


class Members(list[tuple[str, Any]]):
    """A JSON object as its pairs."""


class Literal(str):
    """A piece of JSON that is spelled as it stands, valid or not."""


@dataclass
class Folded:
    """A value that is spelled as JSON inside a text."""

    inner: Any


class Proof(Enum):
    """How a webhook tries to prove itself."""

    TOKEN = "the right token"
    SIGNED = "the right signature"
    BOTH = "a wrong token, but the right signature"
    WRONG_TOKEN = "a wrong token"
    WRONG_SIGNATURE = "a wrong signature"
    NOTHING = "nothing"


AUTHENTIC = frozenset({Proof.TOKEN, Proof.SIGNED, Proof.BOTH})


@dataclass(frozen=True)
class Hostile:
    """One webhook as it is sent. `chunk` is how many bytes go at once; 0 sends all of it under an honest length."""

    body: bytes
    proof: Proof
    token: str
    headers: tuple[tuple[bytes, bytes], ...]
    chunk: int

    @property
    def path(self) -> str:
        """The address that it is sent to."""
        place = {Proof.TOKEN: f"/{TOKEN}", Proof.BOTH: f"/{self.token}", Proof.WRONG_TOKEN: f"/{self.token}"}
        return "/webhooks/acquire" + place.get(self.proof, "")

    @property
    def is_authentic(self) -> bool:
        """Whether it has to be taken."""
        return self.proof in AUTHENTIC

    @property
    def declared(self) -> bytes | None:
        """The length that it claims to have, where it claims one."""
        return next((value for name, value in self.headers if name == b"content-length"), None)

    def pieces(self) -> Iterator[bytes]:
        """The body in chunks."""
        for start in range(0, len(self.body), self.chunk):
            yield self.body[start : start + self.chunk]


def sign(body: bytes) -> bytes:
    """The signature of a body."""
    return hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest().encode()


# Values


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
TEXTS = [
    *("", " ", "\x00", "a\x00b", "\x1b[31m", "\x7f\x85\x9f", "\r\n\t", "\ufeffx", "\ud800", "\udfff\ud800", "\ufffe"),
    *(
        "\u202eevil\u2066",
        "\u0301",
        "\u0301" * 40,
        "a" + "\u0327\u0301" * 40,
        "\u0f73" * 35,
        "\U0001f468\u200d\U0001f469",
    ),
    *("\u0661\u0662", "\uff21\uff22", "\u1e9e\u0130\u0131", "\ufdfa" * 20, "\u1112\u1161\u11ab" * 80, "\u0958" * 300),
    *("null", "undefined", "NULL", "0", "-1", "true", "NaN", "1e400", "-0.0", "1_0", "9" * 17, "9" * 400, "\u00b2"),
    *(
        "base64:",
        "base64:AAA",
        "{}",
        "[[",
        '{"name":"x"}',
        '{"a":NaN}',
        "[" * 3_000,
        "<x>",
        "{{7*7}}",
        "'; DROP TABLE x",
    ),
    *(
        "online",
        "note",
        "event",
        "contact",
        "closed",
        "CHAT_ON_START",
        "chat_on_close",
        "case:status",
        "v1:172",
        "\\u0000",
    ),
]
EMAILS = [
    *("ada@example.com", "ADA@EXAMPLE.COM", "Ada <ada@example.com>", "a@b", "@", "a@@b.example", "a b@example.com"),
    *(
        "stra\u00dfe@example.com",
        "\u0430da@example.com",
        "a@b\u00fccher.example",
        "a@xn--bcher-kva.example",
        "a\u0301@x.com",
    ),
    *(
        "a@example.com\x00",
        '"a b"@example.com',
        "a+b@example.com",
        "x" * 64 + "@example.com",
        "x" * 65 + "@example.com",
    ),
    *(
        "a@" + "b." * 130 + "com",
        "a@[127.0.0.1]",
        "a@example.com,b@example.com",
        "\u202ea@example.com",
        "a;b@example.com",
    ),
]
PHONES = [
    *("+12025550101", "(202) 555-0101", "202-555-0101 ext. 9", "+31 00 0000000", "+", "++1", "+999999999999999", "911"),
    *(
        "\u0662\u0660\u0662\u0665\u0665\u0665\u0660\u0661\u0660\u0661",
        "+1 202 555 0101;ext=1",
        "tel:+12025550101",
        "0" * 70,
    ),
]
DATES = [
    *("2026-09-21 14:13:00", "0000-00-00 00:00:00", "0001-01-01", "9999-12-31T23:59:59.999999-23:59", "2026-W39-1"),
    *(
        "1999-12-31 23:59:59",
        "2000-01-01",
        "2199-12-31 23:59:59",
        "2200-01-01",
        "20260921T141300Z",
        "2026-09-21T24:00:00",
    ),
    *("Mon Sep 21 2026 14:13:00 GMT+0000 (UTC)", "Mon Sep 31 2026 14:13:00 GMT+9999", "1790000000", "1790000000000"),
    *("1790000000.999999999", "2026-09-21T14:13:00+24:00", "2026-02-30", "2026-09-21 14:13:60", "99999999999999999999"),
]
LONG = [
    "a",
    "\u00e9",
    "e\u0301",
    "\u0301",
    "\x00",
    " ",
    "\n",
    "\U0001f600",
    "<",
    "&",
    "\u202e",
    "\ud800",
    "[",
    "0",
    "\u1e9b\u0323",
]
LENGTHS = [64, 65, 101, 200, 201, 320, 321, 801, 2_000, 2_001, 9_000, 65_536, 65_537, 140_000]
NUMBERS: list[Any] = [
    *(0, -1, -0.0, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**18, 10**400, 1e15, 1e22, 1e300, 5e-324, 0.1),
    *(946_684_800, 7_258_118_400, 1_790_000_000, 1_790_000_000_000, 253_402_300_800, -62_135_596_801, 366 * 86400 + 1),
]
DEPTHS = [10, 49, 50, 51, 100, 300, 600, 900, 5_000, 60_000]
DEEP = [
    Literal(opening * depth + closing * depth)
    for depth in DEPTHS
    for opening, closing in (("[", "]"), ('{"a":[', "]}"))
]
LONG_IDS = ["9" * 64, "9" * 65, "9" * 400, "a" * 201]
LITERALS = [
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1E-999", "-0", "0123", "+1", ".5", "0x10", "'x'", "nul", ""),
    *(
        "9" * 4_301,
        "-" + "9" * 5_000,
        "0." + "9" * 5_000,
        '"\\ud800"',
        '"\\u0000"',
        '"\\x"',
        '"\\u12"',
        '"a\nb"',
        '"a\x00b"',
    ),
    *DEEP,
]

texts = st.one_of(
    ANY_TEXT,
    st.sampled_from(TEXTS),
    st.sampled_from(EMAILS),
    st.sampled_from(PHONES),
    st.sampled_from(DATES),
    st.builds(lambda piece, n: (piece * n)[:n], st.sampled_from(LONG), st.sampled_from(LENGTHS)),
)
scalars = st.one_of(
    texts,
    st.sampled_from(NUMBERS),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.booleans(),
    st.sampled_from(LITERALS).map(Literal),
)


def _taken_apart(body: bytes) -> Any:
    """A recorded body as a value that can be changed; None where it is no JSON."""
    try:
        return _unfolded(json.loads(body.decode("utf-8-sig"), object_pairs_hook=Members, strict=False))
    except (ValueError, RecursionError):
        return None


def _unfolded(value: Any) -> Any:
    match value:
        case Members():
            return Members((key, _unfolded(inner)) for key, inner in value)
        case list():
            return [_unfolded(inner) for inner in value]
        case str() if value.startswith(("{", "[")):
            inner = _taken_apart(value.encode("utf-8", "surrogatepass"))
            return value if inner is None else Folded(inner)
        case _:
            return value


def _keys(value: Any) -> Iterator[str]:
    match value:
        case Members():
            for key, inner in value:
                yield key
                yield from _keys(inner)
        case list():
            for inner in value:
                yield from _keys(inner)
        case Folded():
            yield from _keys(value.inner)


DOCUMENTS = [document for body in BODIES if (document := _taken_apart(body)) is not None]
EVENTS = [document for document in DOCUMENTS if isinstance(document, Members) and "event" in dict(document)]
KEYS = sorted({key for document in DOCUMENTS for key in _keys(document)})

keys = st.sampled_from(KEYS) | st.sampled_from(KEYS).map(lambda key: f" {key}\t") | texts
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=3).map(Members) | inner.map(Folded)
    ),
    max_leaves=5,
)


# Changes


def rarely(rare: Any, usual: Any) -> st.SearchStrategy[Any]:
    """The rare one once in thirty times."""
    return st.sampled_from([usual] * 29 + [rare])


VITAL = {"event", "data", "id", "caseId"}
"""Without these a webhook is unreadable and nothing behind the parser is tried: they are changed more rarely."""


@dataclass(frozen=True)
class Place:
    """Where a value stands: the `index` of a list or of the pairs of an object, or the inside of a folded text."""

    container: Any
    index: int

    @property
    def key(self) -> str | None:
        return self.container[self.index][0].strip() if isinstance(self.container, Members) else None

    def get(self) -> Any:
        match self.container:
            case Members():
                return self.container[self.index][1]
            case Folded():
                return self.container.inner
            case _:
                return self.container[self.index]

    def put(self, value: Any) -> None:
        match self.container:
            case Members():
                self.container[self.index] = (self.container[self.index][0], value)
            case Folded():
                self.container.inner = value
            case _:
                self.container[self.index] = value


def _copied(value: Any) -> Any:
    match value:
        case Members():
            return Members((key, _copied(inner)) for key, inner in value)
        case list():
            return [_copied(inner) for inner in value]
        case Folded():
            return Folded(_copied(value.inner))
        case _:
            return value


def _places(container: Any) -> Iterator[Place]:
    match container:
        case list():
            found = [Place(container, index) for index in range(len(container))]
        case Folded():
            found = [Place(container, 0)]
        case _:
            return
    for place in found:
        yield place
        yield from _places(place.get())


CHANGES = [
    *("put", "put", "aim", "aim", "aim", "aim", "taint", "taint"),
    *("drop", "rename", "repeat", "nest", "fold", "graft", "widen", "widen"),
]
TAINTS = ["\x00", "\x1b", "\x85", "\ud800", "\udfff", "\u202e", "\ufeff", "\u0301" * 40, "a" * 2_001, "\n"]


def _aimed_at(key: str | None) -> st.SearchStrategy[Any]:
    """Hostile values of the kind that belongs under a key."""
    lowered = (key or "").lower()
    if "email" in lowered:
        return st.sampled_from(EMAILS)
    if "phone" in lowered:
        return st.sampled_from(PHONES)
    if "date" in lowered or "time" in lowered or "duration" in lowered:
        return (
            st.sampled_from(DATES)
            | st.sampled_from([10**400, 1e300, -1, 2**63, 7_258_118_400])
            | st.sampled_from(NUMBERS)
        )
    if lowered.endswith("id"):
        return st.sampled_from(LONG_IDS) | st.sampled_from([*NUMBERS, None, "-1", "0"])
    return st.sampled_from([*DEEP, *LONG_IDS])


def _place_in(draw: st.DrawFn, document: list[Any]) -> Place:
    """Any place of a document. `document` is a list of one, so that the whole of it is a place as well."""
    inside = list(_places(document[0]))
    top = (document[0], dict(document[0]).get("data") if isinstance(document[0], Members) else None)
    telling = [place for place in inside if place.key not in VITAL or not any(place.container is one for one in top)]
    found = draw(st.sampled_from([telling] * 9 + [inside])) or inside
    return draw(st.sampled_from(found)) if found and draw(rarely(False, True)) else Place(document, 0)


def _change(draw: st.DrawFn, document: list[Any]) -> None:
    """Change one place of a document."""
    place = _place_in(draw, document)
    value = place.get()
    match draw(st.sampled_from(CHANGES)):
        case "put":
            place.put(draw(values))
        case "aim":
            place.put(draw(_aimed_at(place.key)))
        case "taint" if isinstance(value, str):
            at = draw(st.integers(0, len(value)))
            place.put(value[:at] + draw(st.sampled_from(TAINTS)) + value[at:])
        case "drop" if place.container is not document and isinstance(place.container, list):
            del place.container[place.index]
        case "rename" if isinstance(place.container, Members):
            place.container[place.index] = (draw(keys), value)
        case "repeat" if isinstance(place.container, Members):
            again = (place.container[place.index][0], draw(values))
            place.container.insert(place.index + draw(st.integers(0, 1)), again)
        case change:
            place.put(_reshaped(draw, change, value))


def _reshaped(draw: st.DrawFn, change: str, value: Any) -> Any:
    """A value in another shape: in a list or an object, as JSON inside a text, among many, or from elsewhere."""
    match change:
        case "nest":
            return draw(st.sampled_from([[value], [[value], value], Members([("value", value), ("name", value)])]))
        case "fold":
            return Folded(value)
        case "widen":
            return _widened(draw, value)
        case _:
            other = [_copied(draw(st.sampled_from(DOCUMENTS)))]
            return draw(st.sampled_from(list(_places(other)))).get()


def _widened(draw: st.DrawFn, value: Any) -> Any:
    """Many members or items instead of a few. Thousands are short: what is long is tried elsewhere."""
    many = draw(st.sampled_from([3, 99, 101, 2_001]))
    filling = draw(st.sampled_from(["x", 7, None]) if many > 101 else scalars)
    match value:
        case Members():
            return Members([*value, *((f"field {n}", filling) for n in range(many))])
        case [Members() as row, *_]:
            return [*value, *(Members([*row, ("id", str(n))]) for n in range(many))]
        case _:
            return [value, *[filling] * many]


# Spelling and sending


def spell(value: Any, spelling: str) -> str:
    """A value as JSON. Spellings: "escaped" (ASCII), "plain" (UTF-8), "raw" (not even control characters escaped)."""
    match value:
        case Literal():
            return str(value)
        case Members():
            return "{" + ",".join(f"{spell(key, spelling)}:{spell(inner, spelling)}" for key, inner in value) + "}"
        case list():
            return "[" + ",".join(spell(inner, spelling) for inner in value) + "]"
        case Folded():
            return spell(spell(value.inner, spelling), spelling)
        case str() if spelling == "raw":
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case _:
            return json.dumps(value, ensure_ascii=spelling == "escaped")


def encode(text: str, encoding: str) -> bytes:
    """A text in an encoding, with what does not fit into it replaced; a lone surrogate stays one where it can."""
    if encoding == "form":
        return urlencode({"payload": text, "event": "CHAT_ON_START"}, errors="replace").encode()
    is_unicode = encoding.startswith("utf")
    return text.encode(encoding, "surrogatepass" if is_unicode and encoding != "utf-7" else "replace")


ENCODINGS = ["utf-8"] * 40 + [
    *("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1", "cp1252", "shift_jis", "koi8-r", "form")
]


@st.composite
def misshapen(draw: st.DrawFn) -> bytes:
    """A recorded document that was changed at a few places, spelled and encoded somehow."""
    document = [_copied(draw(st.sampled_from(EVENTS)))]
    for _ in range(draw(st.integers(1, 4))):
        _change(draw, document)
    text = spell(document[0], draw(st.sampled_from(["escaped", "escaped", "plain", "raw"])))
    return encode(text, draw(st.sampled_from(ENCODINGS)))


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """A body with a piece of its bytes replaced, cut off, sent twice or compressed."""
    body = draw(whole)
    at = draw(st.integers(0, len(body)))
    match draw(st.sampled_from(["replace", "replace", "cut", "twice", "pad", "gzip", "deflate", "bom"])):
        case "replace":
            return body[:at] + draw(st.binary(max_size=8)) + body[at + draw(st.integers(0, 12)) :]
        case "cut":
            return body[:at]
        case "twice":
            return body + body
        case "pad":
            return (
                draw(st.sampled_from([b" ", b"\x00", b"\n", b"\xef\xbb\xbf", b"base64:"])) * draw(st.integers(1, 9))
                + body
            )
        case "gzip":
            return gzip.compress(body, mtime=0)
        case "deflate":
            return zlib.compress(body)
        case _:
            return b"\xef\xbb\xbf" + body


def _weighted(*choices: tuple[int, st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    """One of these, each as often as its number says."""
    return st.sampled_from([choice for times, choice in choices for _ in range(times)]).flatmap(lambda chosen: chosen)


bodies = _weighted(
    (14, misshapen()),
    (2, damaged(misshapen())),
    (2, damaged(st.sampled_from(BODIES))),
    (2, st.sampled_from(BODIES)),
    (1, values.map(lambda value: encode(spell(value, "escaped"), "utf-8"))),
    (1, st.binary(max_size=200)),
)

HEADERS: list[tuple[bytes, bytes]] = [
    *(
        (b"content-type", value)
        for value in (b"application/JSON", b"application/x-www-form-urlencoded", b"\xff\x00", b"")
    ),
    *((b"content-type", value) for value in (b"application/json; charset=utf-16", b"multipart/form-data", b"text/xml")),
    *((b"content-encoding", value) for value in (b"gzip", b"deflate", b"br", b"identity, gzip", b"\xe9")),
    *(
        (b"content-length", value)
        for value in (b"0", b"1", b"-1", b"abc", b"\xb2", b"+5", b" 7", b"9" * 12, b"9" * 5_000)
    ),
    *((b"transfer-encoding", b"chunked"), (b"expect", b"100-continue"), (b"x-forwarded-for", b"203.0.113.9")),
    *((b"origin", b"null"), (b"cookie", b"\x01=\x02"), (b"accept", b"text/html"), (b"host", b"")),
]
TOKENS = [
    "wrong",
    "%00",
    "%ff",
    "%F0%9F%98%80",
    "%2e%2e",
    "%ED%A0%80",
    TOKEN[:-1],
    TOKEN + "x",
    TOKEN.upper(),
    "x" * 5_000,
]
SIGNATURES = [b"", b"0" * 64, b"\xe9", b"\xff" * 64, b" ", b"sha256=" + b"a" * 64, sign(b"something else")]


@st.composite
def webhooks(draw: st.DrawFn) -> Hostile:
    """A hostile webhook, most often an authentic one."""
    body = draw(bodies)
    proof = draw(st.sampled_from([Proof.TOKEN] * 6 + [Proof.SIGNED] * 3 + list(Proof)))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=3)) if draw(st.booleans()) else []
    if proof in (Proof.SIGNED, Proof.BOTH):
        headers.append((SIGNATURE, draw(st.sampled_from([sign(body), sign(body).upper(), b" " + sign(body)]))))
    elif proof is Proof.WRONG_SIGNATURE:
        headers.append((SIGNATURE, draw(st.sampled_from(SIGNATURES))))
    chunk = draw(st.sampled_from([0, 0, 0, 1_000, 65_536, 70_000]))
    return Hostile(body, proof, draw(st.sampled_from(TOKENS)), tuple(headers), chunk)
