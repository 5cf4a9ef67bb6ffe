"""What only one process may do at a time on a ledger, on whatever host: a lock with an owner, an age and a lease."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from sync.errors import LedgerError, LedgerInUse
from sync.ledger import Ledger

LEASE = 120.0
"""Seconds after which the lock of a process that died is free."""


@asynccontextmanager
async def alone(ledger: Ledger, name: str, *, lease: float = LEASE) -> AsyncIterator[None]:
    """Hold a lock, renewed while held: long work has to await now and then. The ledger is used between awaits only.

    Raises LedgerInUse with who holds it and for how long; also from inside, at the next await, where it was lost.
    """
    owner = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
    take(ledger, name, owner, lease)
    holder = asyncio.current_task()
    assert holder is not None
    renewing = asyncio.create_task(_renew(ledger, name, owner, lease, holder))
    try:
        yield
        await _end_if_lost(renewing, holder, name, lease)
    except asyncio.CancelledError:
        await _end_if_lost(renewing, holder, name, lease)
        raise
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


async def _end_if_lost(renewing: "asyncio.Task[None]", holder: "asyncio.Task[Any]", name: str, lease: float) -> None:
    """Raises LedgerInUse where the renewing has ended, and what cancelled the holder goes no further."""
    if not renewing.done():
        return
    renewing.result()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # where it was not felt yet
    holder.uncancel()
    raise LedgerInUse(f"{name} stood still for longer than {lease:,.0f} seconds, and another one began: this one ends")


async def _renew(ledger: Ledger, name: str, owner: str, lease: float, holder: "asyncio.Task[Any]") -> None:
    """Renew a lock until it turns out to be somebody else's; then its holder must not go on."""
    is_ours = True
    while is_ours:
        await asyncio.sleep(lease / 4)
        with suppress(LedgerError), ledger.transaction():
            is_ours = ledger.engine.run("renew_lock", name=name, owner=owner, lease=lease) > 0
    holder.cancel()
