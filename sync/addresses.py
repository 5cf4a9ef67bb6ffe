"""Addresses without the address: what remains of an email where mail to it was refused, and in an unsubscribe link."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from sync.cleaning import email_key

HASH = 32
SIGNATURE = 16


@dataclass(frozen=True, slots=True)
class Addresses:
    """Keyed hashes of addresses: they say nothing without the key, and outlive a person's erasure."""

    digest: Callable[[bytes], str]

    def hash(self, email: str) -> str:
        """The same for every spelling of one address."""
        return self.digest(b"address:" + email_key(email).encode())

    def token(self, email: str) -> str:
        """What an unsubscribe link holds: the hash, signed, so that nobody can make one for somebody else's."""
        hashed = self.hash(email)
        return hashed + self._signature(hashed)

    def opened(self, token: str) -> str | None:
        """The hash in a token, or None where it is not ours."""
        hashed, signature = token[:HASH], token[HASH:]
        is_ours = hmac.compare_digest(signature.encode(), self._signature(hashed).encode())
        return hashed if is_ours else None

    def _signature(self, hashed: str) -> str:
        return self.digest(b"unsubscribe:" + hashed.encode())[:SIGNATURE]
