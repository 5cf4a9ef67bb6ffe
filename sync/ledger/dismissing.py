"""Dismisses what a person has seen and nothing is to be done about: it stays on file, and asks for nobody any more."""

from sync.errors import NotFound
from sync.ledger import Ledger
from sync.ledger.machine import DISMISSED
from sync.models import State


def dismiss_dead(ledger: Ledger, destination: str) -> int:
    """Dismiss what is dead at a destination. Inside a transaction; returns how many."""
    return ledger.engine.run("dismiss_dead", id="", destination=destination, words=DISMISSED)


def dismiss_unreadable(ledger: Ledger) -> int:
    """Dismiss all webhooks that could not be read. Inside a transaction; returns how many."""
    return ledger.engine.run("dismiss_unreadable", id="", words=DISMISSED)


def dismiss_alike(ledger: Ledger, wanted: str) -> int:
    """Dismiss a dead delivery, and whatever died of the same at its destination; returns how many.

    Inside a transaction. Raises NotFound where it is not dead.
    """
    row = ledger.get("get_delivery", id=wanted)
    if row is None or row["state"] != State.DEAD:
        raise NotFound(f"there is no dead delivery {wanted}")
    cause = {"destination": row["destination"], "kind": row["kind"], "error": row["error"] or ""}
    return ledger.engine.run("dismiss_alike", words=DISMISSED, **cause)


def dismiss_one(ledger: Ledger, wanted: str) -> str:
    """Dismiss one dead delivery or unreadable event; returns what was wrong with it. Inside a transaction.

    Raises NotFound where there is no such thing, or where it needs nobody.
    """
    row = ledger.get("get_delivery", id=wanted) or ledger.get("get_event", id=wanted)
    if row is None:
        raise NotFound(f"there is no delivery and no event {wanted}")
    changed = ledger.engine.run("dismiss_dead", id=wanted, destination="", words=DISMISSED)
    changed += ledger.engine.run("dismiss_unreadable", id=wanted, words=DISMISSED)
    if not changed:
        raise NotFound(f"{wanted} is {row['state']}: only what is dead or unreadable can be dismissed")
    return str(row["error"])
