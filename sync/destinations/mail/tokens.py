"""The token with which a vendor proves that a webhook is its own, where the vendor does not sign."""

import base64
import hmac
from collections.abc import Iterator, Mapping

from pydantic import SecretStr

from sync.errors import NotAuthentic

SHORTEST = 16
"""Characters of a token that nobody guesses."""


def check_token(expected: SecretStr | None, headers: Mapping[str, str], token: str | None) -> None:
    """Return if the token came in the address, as a bearer token, or as the password of basic authentication.

    Header names are lower-case. Raises NotAuthentic.
    """
    if expected is None:
        raise NotAuthentic("no token is set for these webhooks")
    known = expected.get_secret_value().encode()
    if not any([hmac.compare_digest(shown, known) for shown in _shown(headers, token)]):
        raise NotAuthentic("the token is wrong or missing")


def _shown(headers: Mapping[str, str], token: str | None) -> Iterator[bytes]:
    if token is not None:
        yield _bytes(token)
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            yield _bytes(credentials.strip())
        case "basic":
            yield _password(credentials.strip())


def _password(credentials: str) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def long_enough(token: SecretStr | None) -> SecretStr | None:
    """For a setting: a token that can be guessed is none. Raises ValueError."""
    if token is not None and len(token.get_secret_value()) < SHORTEST:
        raise ValueError(f"is shorter than {SHORTEST} characters")
    return token
