"""Forgets a person everywhere, proves it with a signed receipt, and says what there is about somebody."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

from sync.errors import LedgerUnavailable, NotFound
from sync.ledger import Ledger, erasing, exporting, persons
from sync.ledger.mailing import Digest
from sync.ledger.persons import Plan
from sync.ledger.showing import iso

PATIENCE = 30.0
"""Seconds to wait for calls that are under way, and between tries."""
BETWEEN = 0.5

SERVICE = "chat-crm-sync"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was done: the receipt, signed. `is_scrubbed`: nothing is left in the ledger's files either."""

    receipt: Mapping[str, Any]
    is_new: bool
    is_scrubbed: bool


def plan(ledger: Ledger, wanted: str, *, also_adopted: bool = False) -> Plan:
    """What forgetting somebody would mean; changes nothing. Raises NotFound."""
    person = persons.find(ledger, wanted)
    if person.erased_at is not None:
        raise NotFound(f"{person.root.id} was forgotten {iso(person.erased_at)}")
    named = persons.mentions(ledger.engine, person.emails)
    return persons.plan(ledger, person, also_adopted=also_adopted, mentions=named)


def forget(
    ledger: Ledger,
    wanted: str,
    digest: Digest,
    *,
    also_adopted: bool = False,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> Forgotten:
    """Forget a person. Whoever was forgotten before is so still: the receipt is made anew.

    Waits a while for calls about the person that are under way. Raises NotFound, LedgerUnavailable.
    """
    try:
        planned = plan(ledger, wanted, also_adopted=also_adopted)
    except NotFound:
        before = erasing.done_before(ledger, wanted)
        if not before:
            raise
        return Forgotten(_receipt(ledger, before[-1], digest), is_new=False, is_scrubbed=_scrub(ledger))
    left = patience
    while True:
        try:
            with ledger.transaction():
                facts = erasing.erase(ledger, planned, also_adopted=also_adopted)
            break
        except LedgerUnavailable:
            if left <= 0:
                raise
            sleep(BETWEEN)
            left -= BETWEEN
    return Forgotten(_receipt(ledger, facts, digest), is_new=True, is_scrubbed=_scrub(ledger))


def _scrub(ledger: Ledger) -> bool:
    """What could not be scrubbed now is when this is asked for again."""
    try:
        return ledger.engine.scrub()
    except LedgerUnavailable:
        return False


def _receipt(ledger: Ledger, facts: Mapping[str, Any], digest: Digest) -> dict[str, Any]:
    receipt = {
        "service": SERVICE,
        "what": "erasure",
        **facts,
        "erased_at": iso(facts["erased_at"]),
        "issued_at": iso(ledger.engine.now),
        "records": erasing.states(ledger.engine, facts),
    }
    return {**receipt, "signature": _signature(receipt, digest)}


def _signature(receipt: Mapping[str, Any], digest: Digest) -> str:
    said = json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest(b"receipt:" + said.encode())


def is_genuine(receipt: Mapping[str, Any], digest: Digest) -> bool:
    """Whether a receipt was signed with this key and says still what it said then."""
    signature = str(receipt.get("signature", "")).encode()
    said = {name: value for name, value in receipt.items() if name != "signature"}
    return compare_digest(signature, _signature(said, digest).encode())


def export(ledger: Ledger, wanted: str, address: Callable[[str], str]) -> dict[str, Any]:
    """Everything there is about a person, as it stands here. `address` hashes an email. Raises NotFound."""
    person = persons.find(ledger, wanted)
    return exporting.export(ledger, person, address)
