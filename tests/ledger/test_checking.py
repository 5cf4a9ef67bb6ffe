"""What `ledger check` finds, on both databases; what it never finds in a ledger that is sound."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.ledger import Ledger, Settlement
from sync.ledger.checking import CHECKS, Finding, check
from sync.ledger.sqlite import SqliteEngine
from sync.models import Event, Kind, Receipt
from sync.outcomes import Delivered
from tests.databases import Server, open_on
from tests.people import NOON, Clock, event

ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, Clock(), None)
    yield opened
    opened.engine.close()


def apply(ledger: Ledger, *events: Event) -> None:
    with ledger.transaction():
        ledger.apply(events)


def deliver(ledger: Ledger, remote_id: str) -> None:
    with ledger.transaction():
        owed = ledger.claim("crm", [(Kind.CONTACT, 1), (Kind.CHAT, 1)], 60.0).owed
        ledger.settle([Settlement(o.delivery, o.claim, o.version, Delivered(Receipt(remote_id, True))) for o in owed])


def spoil(ledger: Ledger, *statements: str) -> None:
    """Do what our own code never does, against every rule of the schema that could stop it."""
    engine: Any = ledger.engine
    is_file = isinstance(engine, SqliteEngine)
    connection = engine.connection if is_file else engine._connected()
    connection.execute("PRAGMA foreign_keys=OFF" if is_file else "SET session_replication_role = replica")
    for statement in statements:
        connection.execute(statement)


def found(ledger: Ledger) -> dict[str, int]:
    return {finding.check: finding.n for finding in check(ledger.engine)}


def test_an_empty_ledger_is_sound(ledger: Ledger) -> None:
    assert check(ledger.engine) == []


def test_a_ledger_in_the_middle_of_its_work_is_sound(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA, closed=True), event("v1:2", BOB, closed=True), event("v1:3"))
    deliver(ledger, "r1")
    apply(ledger, event("v1:2", "robert@example.com", at=9.0), event("v1:3", ADA, at=10.0, closed=True))
    deliver(ledger, "r2")

    assert check(ledger.engine) == []


def test_a_finding_names_its_check_how_many_and_one_to_look_at(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA))
    spoil(ledger, "UPDATE deliveries SET state = 'delivered', done = 0, due_at = NULL")

    (delivery,) = ledger.engine.read("SELECT id FROM deliveries")
    assert check(ledger.engine) == [Finding("delivered_behind", 1, CHECKS["delivered_behind"], delivery["id"])]


CIRCLE = "UPDATE contacts SET joined = (SELECT MAX(o.id) FROM contacts o WHERE o.id <> contacts.id)"

SPOILT = {
    "lost_chats": ["UPDATE chats SET contact = 'co_gone'"],
    "lost_identities": ["INSERT INTO identities VALUES ('phone', '+31612345678', 'co_gone')"],
    "lost_deliveries": ["UPDATE deliveries SET subject = 'gone_' || subject WHERE kind = 'chat'"],
    "lost_failures": ["INSERT INTO failures VALUES ('fa_1', 'de_gone', 0, 'retry', 500, 'x')"],
    "lost_joins": ["INSERT INTO joins SELECT id, 'co_gone', 'joined', 'x', 0 FROM contacts"],
    "lost_strays": ["INSERT INTO strays VALUES ('crm', 'co_gone', 'r9', 0)"],
    "joined_to_nobody": [CIRCLE, "DELETE FROM identities"],
    "waiting_in_vain": ["UPDATE deliveries SET state = 'pending', due_at = NULL WHERE kind = 'chat'"],
    "waiting_for_nobody": [
        "UPDATE deliveries SET state = 'pending' WHERE kind = 'chat'",
        "DELETE FROM deliveries WHERE kind = 'contact'",
    ],
    "contacts_without_time": ["UPDATE deliveries SET state = 'pending', due_at = NULL WHERE kind = 'contact'"],
    "delivered_behind": ["UPDATE deliveries SET done = done - 1"],
    "versions": ["UPDATE deliveries SET done = 99"],
    "leases": [f"UPDATE deliveries SET lease_until = {NOON + 1e6}"],
    "identities_of_joined": ["UPDATE contacts SET joined = 'co_gone'"],
    "emails_without_identity": ["DELETE FROM identities"],
    "mails_without_row": ["UPDATE deliveries SET kind = 'email' WHERE kind = 'chat'"],
    "erased_with_data": [f"UPDATE contacts SET erased_at = {NOON}"],
    "erased_still_owed": [f"UPDATE contacts SET erased_at = {NOON}"],
    "shared_records": ["UPDATE deliveries SET remote_id = 'r1' WHERE kind = 'contact'"],
}


def test_every_check_has_a_ledger_that_it_finds_fault_with() -> None:
    assert set(SPOILT) == set(CHECKS)


@pytest.mark.parametrize("fault", CHECKS)
def test_each_fault_is_found(ledger: Ledger, fault: str) -> None:
    apply(ledger, event("v1:1", ADA, closed=True), event("v1:2", BOB, closed=True))
    for n in range(4):
        deliver(ledger, f"r{n}")
    assert found(ledger) == {}

    spoil(ledger, *SPOILT[fault])

    assert fault in found(ledger)


def test_more_done_than_wanted_is_no_fault_where_a_destination_was_away(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA))
    takers, ledger.takers = ledger.takers, {}
    apply(ledger, event("v1:1", ADA, name="Ada", at=1.0))
    ledger.takers = takers
    deliver(ledger, "r1")

    (row,) = ledger.engine.read("SELECT wanted, done FROM deliveries")
    assert (row["wanted"], row["done"]) == (1, 2)
    assert check(ledger.engine) == []
