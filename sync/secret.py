"""The key that makes our hashes ours: from the environment, or made once into a private file beside the ledger."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from sync.errors import SettingsError


def key_beside(ledger: Path) -> bytes:
    """The key in the file beside a ledger file; made if it is not there. Safe when two processes start at once."""
    path = ledger.with_name(ledger.name + ".key")
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise SettingsError(f"SYNC_SECRET_KEY is not set, and {path} cannot be made: {error.strerror}") from None
    with os.fdopen(made, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    return _read(path)


def _read(path: Path) -> bytes:
    for _ in range(50):
        if key := path.read_bytes().strip():
            return key
    raise SettingsError(f"{path} is empty: delete it only if the ledger beside it is new")


def digest(key: bytes) -> Callable[[bytes], str]:
    """A keyed hash: some bytes to 32 characters of hex (HMAC-SHA-256, the first half)."""

    def digest_of(content: bytes) -> str:
        return hmac.new(key, content, hashlib.sha256).hexdigest()[:32]

    return digest_of
