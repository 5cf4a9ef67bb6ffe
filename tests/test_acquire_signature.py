"""Who may send Acquire's webhooks: whoever knows the token of the URL or signs with the secret."""

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.errors import NotAuthentic
from sync.sources.acquire import Acquire, AcquireSettings
from sync.sources.acquire.signature import stringify
from sync.sources.base import WebhookRequest

SAMPLES = Path(__file__).parent / "samples" / "acquire"
SECRET = "test-secret"
TOKEN = "a-token-of-24-characters"
COMPACT = (SAMPLES / "repaired-v2-case-status-closed-compact.body").read_bytes()
VECTOR = "cf6cf77c646dfdbc410efba33c43ea3d0796ec8bb4ffef67d2726d375c4b6a71"

quickly = settings(deadline=None, max_examples=150)


def acquire(*, secret: str | None = None, token: str | None = None) -> Acquire:
    chosen = AcquireSettings(_env_file=None, webhook_secret=secret, url_token=token)
    return Acquire(chosen, digest=lambda content: content.hex(), phone_region="US")


def request(body: bytes = COMPACT, *, signature: str | None = None, token: str | None = None) -> WebhookRequest:
    return WebhookRequest({} if signature is None else {"x-acquire-signature": signature}, body, token)


def sign(body: bytes) -> str:
    return hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("signature", [VECTOR, VECTOR.upper(), f" {VECTOR} "])
def test_the_known_signature_is_right_in_either_letter_case(signature):
    acquire(secret=SECRET).verify(request(signature=signature))


def test_a_body_that_was_spelled_differently_on_its_way_is_authentic():
    pretty = (SAMPLES / "documented-v2-case-status-closed.body").read_bytes()

    acquire(secret=SECRET).verify(request(pretty, signature=VECTOR))
    acquire(secret=SECRET).verify(request(b"\xef\xbb\xbf" + pretty, signature=VECTOR))


def test_a_body_that_is_no_json_can_be_signed_as_it_is():
    acquire(secret=SECRET).verify(request(b"<xml/>\xff", signature=sign(b"<xml/>\xff")))


@pytest.mark.parametrize(
    ("body", "spelled"),
    [
        ('{ "b" : 1 , "a" : [ ] }', '{"b":1,"a":[]}'),
        (r'{"a": "caf\u00e9 \/ \u2028 \ud83d\ude00"}', '{"a":"café / \u2028 \U0001f600"}'),
        (r'{"a": "\u0001\n\u001F\u007f\\\""}', '{"a":"\\u0001\\n\\u001f\x7f\\\\\\""}'),
        (r'{"a": "\uD800 alone"}', r'{"a":"\ud800 alone"}'),
        ("[1.0, 1.50, 1e3, -0.5, 1e21, true, null]", "[1,1.5,1000,-0.5,1e+21,true,null]"),
        ('{"a": 1, "b": 2, "a": 3}', '{"a":3,"b":2}'),
    ],
)
def test_json_is_spelled_as_javascript_spells_it(body, spelled):
    assert stringify(body.encode()) == spelled.encode()


@pytest.mark.parametrize("body", [b"NaN", b"[1e999]", b"{", b"\xff", b""])
def test_what_javascript_could_not_parse_has_no_spelling(body):
    assert stringify(body) is None


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=10) | st.integers(-(2**53), 2**53), max_size=4))
@quickly
def test_every_spelling_of_one_document_has_one_signature(document):
    compact = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    for spelling in (json.dumps(document), json.dumps(document, indent=2, ensure_ascii=False)):
        acquire(secret=SECRET).verify(request(spelling.encode(), signature=sign(compact)))


@pytest.mark.parametrize(
    "refused",
    [
        request(),
        request(signature=""),
        request(signature="0" * 64),
        request(signature=VECTOR[:-1]),
        request(signature=VECTOR + "0"),
        request(signature="é\ud800"),
        request(COMPACT.replace(b"Jhon", b"Jane"), signature=VECTOR),
        request(b"[" * 200_000, signature=VECTOR),
        request(b"NaN", signature=VECTOR),
        request(b"1" * 5000, signature=VECTOR),
        request(b"\xff", signature=VECTOR),
        request(token="another-token-of-some-length"),
        request(token=""),
        request(token="é\ud800"),
        request(token=TOKEN[:-1]),
    ],
    ids=lambda refused: repr(refused)[:40],
)
def test_whoever_has_neither_is_refused(refused):
    with pytest.raises(NotAuthentic):
        acquire(secret=SECRET, token=TOKEN).verify(refused)


def test_with_secret_and_token_either_suffices():
    both = acquire(secret=SECRET, token=TOKEN)

    both.verify(request(signature=VECTOR))
    both.verify(request(token=TOKEN))
    both.verify(request(signature="0" * 64, token=TOKEN))


def test_a_token_alone_is_checked():
    only_token = acquire(token=TOKEN)
    only_token.verify(request(token=TOKEN))

    with pytest.raises(NotAuthentic):
        only_token.verify(request(signature=VECTOR))


def test_a_signature_is_no_help_where_no_secret_is_set_up():
    with pytest.raises(NotAuthentic):
        acquire(token=TOKEN).verify(request(signature=hmac.new(b"", COMPACT, hashlib.sha256).hexdigest()))


def test_without_secret_and_token_nothing_is_guarded_and_nothing_refused():
    open_to_all = acquire()
    open_to_all.verify(request())

    assert not open_to_all.is_guarded
    assert acquire(secret=SECRET).is_guarded
    assert acquire(token=TOKEN).is_guarded


def test_a_refusal_says_nothing_about_what_was_expected():
    with pytest.raises(NotAuthentic) as refused:
        acquire(secret=SECRET, token=TOKEN).verify(request(signature="0" * 64, token="wrong"))

    assert SECRET not in str(refused.value)
    assert TOKEN not in str(refused.value)
