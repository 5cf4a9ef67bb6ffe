"""Proves that a webhook was signed with the shared secret.

The vendor's sample hashes `JSON.stringify(parsed body)`, not the bytes that were sent, so both are tried.
"""

import hashlib
import hmac
import json
import re

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
JAVASCRIPT_PLAIN = 1e21
"""Below this, JavaScript writes a whole number without an exponent, and never with `.0`."""


def is_signed(body: bytes, signature: str, secret: str) -> bool:
    """Whether the signature, hex in either letter case, is the HMAC-SHA256 of this body in either of its spellings."""
    given = signature.strip().lower().encode("utf-8", "surrogatepass")
    if _matches(given, body, secret):
        return True
    spelled = stringify(body)
    return spelled is not None and _matches(given, spelled, secret)


def stringify(body: bytes) -> bytes | None:
    """The body as JavaScript's `JSON.stringify(JSON.parse(body))` spells it; None where it is not JSON."""
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_float=_number)
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode("utf-8")


def _number(literal: str) -> float:
    number = float(literal)
    return int(number) if number.is_integer() and abs(number) < JAVASCRIPT_PLAIN else number


def _matches(given: bytes, body: bytes, secret: str) -> bool:
    made = hmac.new(secret.encode("utf-8"), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(given, made.encode("ascii"))
