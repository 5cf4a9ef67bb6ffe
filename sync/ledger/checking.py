"""Looks for what must never be in a ledger."""

from dataclasses import dataclass

from sync.ledger.engine import Engine

FAR = 86400.0
"""Seconds: no lease is nearly that long."""

CHECKS = {
    "lost_chats": "chats belong to a contact that is gone",
    "lost_identities": "identities lead to a contact that is gone",
    "lost_deliveries": "deliveries are about a contact or chat that is gone",
    "lost_failures": "failures are about a delivery that is gone",
    "lost_joins": "joins name a contact that is gone",
    "lost_strays": "second records belong to a contact that is gone",
    "joined_to_nobody": "contacts are joined in a circle, or into one that is gone",
    "waiting_in_vain": "chats wait for a contact that has its record there already",
    "waiting_for_nobody": "chats are pending, but their contact is not owed to that destination",
    "contacts_without_time": "contacts are pending without a time when they are due",
    "delivered_behind": "deliveries count as delivered in an older version than is wanted",
    "versions": "deliveries name a version that their contact or chat never had",
    "leases": "leases end more than a day from now: left over from a clock that jumped",
    "identities_of_joined": "emails lead to a contact that was joined into another one",
    "emails_without_identity": "contacts have an email that does not lead to them",
    "mails_without_row": "mails count as sent, but nothing was written down of them",
    "erased_with_data": "contacts were erased, but something of them is left",
    "erased_still_owed": "deliveries of people who were forgotten are still owed",
    "shared_records": "remote records are held by two contacts at once",
}
"""What is looked for: the named query is `check_` and the name, the sentence is for a person."""

FILE = {"damaged_file": "places in the file itself are damaged"}
"""What is looked for first where the ledger is a file: an index that misses rows hides them from the others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """So many rows (`n`) are not as they must be. `example` is the id of one to look at, or what SQLite says."""

    check: str
    n: int
    found: str
    example: str


def checks(engine: Engine) -> dict[str, str]:
    """What is looked for in this ledger: a server looks after its files itself."""
    return CHECKS if engine.is_shared else FILE | CHECKS


def check(engine: Engine) -> list[Finding]:
    """Everything that is wrong in a ledger; nothing is changed. Safe beside a running service.

    In a damaged file nothing else is looked for: what is found there could not be trusted.
    """
    if not engine.is_shared and (said := engine.read("PRAGMA integrity_check(1)")[0][0]) != "ok":
        return [Finding(name, 1, sentence, " ".join(said.split())) for name, sentence in FILE.items()]
    answers = [(name, engine.rows(f"check_{name}", far=FAR)[0]) for name in CHECKS]
    return [Finding(name, row["n"], CHECKS[name], row["example"]) for name, row in answers if row["n"]]
