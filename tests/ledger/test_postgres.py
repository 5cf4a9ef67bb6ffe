"""What only a server can suffer: lost connections."""

import psycopg
import pytest

from sync.errors import LedgerUnavailable
from sync.ledger import Ledger
from sync.ledger.postgres import PostgresEngine
from tests.databases import Server
from tests.people import CRM, Ids, event


def cut(url: str) -> None:
    """End every other connection to a database, as a failover does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_lost_connection_fails_one_transaction_and_the_next_connects_anew(server: Server) -> None:
    url = server.database()
    engine = PostgresEngine(url)
    engine.migrate()
    ledger = Ledger(engine, CRM, new_id=Ids())
    cut(url)

    with pytest.raises(LedgerUnavailable), ledger.transaction():
        ledger.apply([event("v1:1", "ada@example.com")])
    with ledger.transaction():
        (applied,) = ledger.apply([event("v1:1", "ada@example.com")])

    assert applied.status == "accepted"
    engine.close()


def test_a_connection_lost_in_the_middle_leaves_nothing(server: Server) -> None:
    url = server.database()
    engine = PostgresEngine(url)
    engine.migrate()
    ledger = Ledger(engine, CRM, new_id=Ids())

    with pytest.raises(LedgerUnavailable), ledger.transaction():
        ledger.apply([event("v1:1", "ada@example.com")])
        cut(url)
        ledger.apply([event("v1:2", "bob@example.com")])

    assert engine.rows("count_contacts")[0]["n"] == 0
    engine.close()


def test_the_clock_is_the_servers_own_and_stands_still_within_a_transaction(server: Server) -> None:
    engine = PostgresEngine(server.database())
    engine.migrate()

    with engine.transaction():
        first = engine.now
        engine.rows("count_contacts")
        second = engine.now
    with engine.transaction():
        third = engine.now

    assert first == second < third
    engine.close()


def test_two_hosts_may_bring_the_schema_up_to_date_at_once(server: Server) -> None:
    url = server.database()
    one, two = PostgresEngine(url), PostgresEngine(url)

    assert one.migrate() == two.migrate() == one.schema
    assert one.bytes > 0
    one.own()
    two.own()
    for engine in (one, two):
        engine.close()
