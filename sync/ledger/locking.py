"""What only one process may do at a time on a ledger, on whatever host: a lock with an owner, an age and a lease."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sync.errors import LedgerError, LedgerInUse
from sync.ledger import Ledger

LEASE = 120.0
"""Seconds after which the lock of a process that died is free."""


@asynccontextmanager
async def alone(ledger: Ledger, name: str, *, lease: float = LEASE) -> AsyncIterator[None]:
    """Hold a lock, renewed while held. The ledger is used between awaits only.

    Raises LedgerInUse with who holds it and for how long.
    """
    owner = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
    take(ledger, name, owner, lease)
    renewing = asyncio.create_task(_renew(ledger, name, owner, lease))
    try:
        yield
    finally:
        renewing.cancel()
        with suppress(LedgerError), ledger.transaction():
            ledger.engine.run("drop_lock", name=name, owner=owner)


def take(ledger: Ledger, name: str, owner: str, lease: float) -> None:
    """Take a lock for so many seconds. Raises LedgerInUse."""
    with ledger.transaction():
        if ledger.engine.run("take_lock", name=name, owner=owner, lease=lease):
            return
        held = ledger.engine.rows("get_lock", name=name)[0]
        age = max(ledger.engine.now - held["since"], 0.0)
    who = held["owner"].rpartition(",")[0] or held["owner"]
    raise LedgerInUse(f"{name} is done already by {who}, since {age:,.0f} seconds; one is enough")


async def _renew(ledger: Ledger, name: str, owner: str, lease: float) -> None:
    while True:
        await asyncio.sleep(lease / 4)
        with suppress(LedgerError), ledger.transaction():
            ledger.engine.run("renew_lock", name=name, owner=owner, lease=lease)
