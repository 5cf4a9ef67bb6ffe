"""What only a server can do and suffer: claims beside other writers, hints, lost connections."""

import asyncio
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from sync.errors import LedgerError, LedgerTooNew, LedgerUnavailable, SettingsError
from sync.ledger import Ledger
from sync.ledger.postgres import LIMITS, LOCK, STALLED, PostgresEngine, hints
from sync.ledger.watchdog import Watchdog
from sync.ledger.writer import Writer
from sync.models import Kind
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


def test_a_claim_waits_for_no_other_host_that_writes(server: Server) -> None:
    url = server.database()
    one, two = (Ledger(PostgresEngine(url), CRM, new_id=Ids()) for _ in range(2))
    one.engine.migrate()
    with one.transaction():
        one.apply([event("v1:1", "ada@example.com")])

    with one.transaction():  # holds the lock of all that write
        with two.transaction(exclusive=False):
            claimed = two.claim("crm", [(Kind.CONTACT, 10)], 60)
        with pytest.raises(psycopg.errors.LockNotAvailable), psycopg.connect(url) as third:
            third.execute("SET lock_timeout = 50")
            third.execute(LOCK)

    assert len(claimed.owed) == 1
    for ledger in (one, two):
        ledger.engine.close()


async def test_a_commit_hints_to_other_hosts_that_listen(server: Server) -> None:
    url = server.database()
    ledger = Ledger(PostgresEngine(url), CRM, new_id=Ids())
    ledger.engine.migrate()
    writer = Writer(ledger)
    heard = hints(url)
    listening = asyncio.create_task(anext(heard))
    for n in range(100):
        await writer.apply(event(f"v1:{n}", f"p{n}@example.com"))
        done, _ = await asyncio.wait([listening], timeout=0.1)
        if done:
            break

    await asyncio.wait_for(listening, 10)
    await heard.aclose()
    writer.close()
    ledger.engine.close()


def test_a_host_that_stands_still_in_a_transaction_does_not_hold_up_the_others(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = LIMITS.replace(f"lock_timeout = '{STALLED}s'", "lock_timeout = '100ms'").replace(f"'{STALLED}s'", "'1500ms'")
    monkeypatch.setattr("sync.ledger.postgres.LIMITS", soon)
    url = server.database()
    frozen, other = (Ledger(PostgresEngine(url), CRM, new_id=Ids()) for _ in range(2))
    frozen.engine.migrate()
    with pytest.raises(LedgerUnavailable), frozen.transaction():
        frozen.apply([event("v1:1", "ada@example.com")])
        with pytest.raises(LedgerUnavailable), other.transaction():
            other.apply([event("v1:2", "bob@example.com")])  # told, not kept waiting
        time.sleep(2)
        with other.transaction():
            other.apply([event("v1:2", "bob@example.com")])

    assert other.engine.rows("count_contacts")[0]["n"] == 1
    for ledger in (frozen, other):
        ledger.engine.close()


def test_a_server_that_was_a_standby_is_written_to_as_soon_as_it_may_be(server: Server) -> None:
    url = server.database()
    first = PostgresEngine(url)
    first.migrate()
    first.close()

    def read_only(word: str) -> None:
        with psycopg.connect(server.url, autocommit=True) as connection:
            name = url.split("?")[0].rsplit("/", 1)[-1]
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {word}")

    read_only("on")
    ledger = Ledger(PostgresEngine(url), CRM, new_id=Ids())
    with pytest.raises(LedgerUnavailable), ledger.transaction():
        ledger.apply([event("v1:1", "ada@example.com")])
    read_only("off")
    with ledger.transaction():
        ledger.apply([event("v1:1", "ada@example.com")])

    assert ledger.engine.rows("count_contacts")[0]["n"] == 1
    ledger.engine.close()


async def test_a_server_that_stands_still_is_given_up_and_said(server: Server) -> None:
    engine = PostgresEngine(server.database())
    engine.migrate()
    engine.watchdog = Watchdog(0.3, look=0.05)
    pid = engine.read("SELECT pg_backend_pid() AS pid")[0]["pid"]
    thread = Writer(Ledger(engine, CRM, new_id=Ids()))

    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailable):
            await asyncio.wait_for(thread.apply(event("v1:1", "ada@example.com")), 10)
    finally:
        os.kill(pid, signal.SIGCONT)
    applied = await thread.apply(event("v1:1", "ada@example.com"))

    assert applied.status in ("accepted", "duplicate")
    assert engine.rows("count_contacts")[0]["n"] == 1
    thread.close()
    engine.close()


async def test_what_ends_in_time_is_left_alone(server: Server) -> None:
    engine = PostgresEngine(server.database())
    engine.migrate()
    engine.watchdog = Watchdog(0.3, look=0.01)
    thread = Writer(Ledger(engine, CRM, new_id=Ids()))
    pid = engine.read("SELECT pg_backend_pid() AS pid")[0]["pid"]

    for n in range(20):
        await thread.apply(event(f"v1:{n}", f"ada{n}@example.com"))
        await asyncio.sleep(0.03)

    assert engine.read("SELECT pg_backend_pid() AS pid")[0]["pid"] == pid
    thread.close()
    engine.close()


def name_of(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_name_is_refused(server: Server, encoding: str) -> None:
    url = server.database()
    name = name_of(url)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}")
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
    engine = PostgresEngine(url)

    with pytest.raises(LedgerError, match=f"the encoding {encoding}.*ENCODING 'UTF8'"):
        engine.migrate()
    engine.close()


def test_names_come_back_as_they_were_whatever_the_environment_says(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    engine = PostgresEngine(server.database())
    engine.migrate()
    ledger = Ledger(engine, CRM, new_id=Ids())
    with ledger.transaction():
        ledger.apply([event("v1:1", "zofia@example.com", name="Zoł 王")])

    assert [row["name"] for row in engine.rows("all_contacts", after="", limit=9)] == ["Zoł 王"]
    engine.close()


def as_role(server: Server, url: str, grants: str) -> str:
    """The address of a database for a role that does not own it."""
    name = f"role_{name_of(url)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        connection.execute(grants.format(role=name))
    return url.replace("postgres:@", f"{name}:@").replace("postgres@", f"{name}@")


def test_a_role_that_may_not_make_tables_is_told_so_and_needs_no_such_right_later(server: Server) -> None:
    url = server.database()
    theirs = as_role(server, url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    engine = PostgresEngine(theirs)
    with pytest.raises(LedgerError, match=r"may not make or change tables.*GRANT USAGE, CREATE"):
        engine.migrate()

    owner = PostgresEngine(url)
    owner.migrate()
    role = f"role_{name_of(url)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    engine.migrate()
    ledger = Ledger(engine, CRM, new_id=Ids())
    with ledger.transaction():
        ledger.apply([event("v1:1", "ada@example.com")])
    assert engine.rows("count_contacts")[0]["n"] == 1
    engine.close()
    owner.close()


def test_a_role_that_does_not_even_see_the_schema_is_told_so(server: Server) -> None:
    engine = PostgresEngine(as_role(server, server.database(), "REVOKE ALL ON SCHEMA public FROM PUBLIC"))

    with pytest.raises(LedgerError, match=r"may not make or change tables.*GRANT USAGE, CREATE"):
        engine.migrate()
    engine.close()


async def test_a_right_that_is_taken_away_is_said_and_costs_nobody_their_place(server: Server) -> None:
    url = server.database()
    owner = PostgresEngine(url)
    owner.migrate()
    grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    engine = PostgresEngine(as_role(server, url, f"{grants}; REVOKE INSERT ON contacts FROM {{role}}"))
    thread = Writer(Ledger(engine, CRM, new_id=Ids()))

    with pytest.raises(LedgerUnavailable, match="GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"):
        await thread.apply(event("v1:1", "ada@example.com"))  # not kept as unreadable, which the rights would allow
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(grants.format(role=f"role_{name_of(url)}"))
    assert (await thread.apply(event("v1:1", "ada@example.com"))).status == "accepted"

    thread.close()
    engine.close()
    owner.close()


def test_who_only_reads_needs_no_lock_and_who_is_locked_out_is_told_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.ledger.postgres.LIMITS", "SET LOCAL lock_timeout = '200ms'")
    url = server.database()
    engine, other = PostgresEngine(url), PostgresEngine(url)
    engine.migrate()
    with psycopg.connect(url) as holder:
        holder.execute(LOCK)

        assert other.migrate() == engine.schema
        assert other.rows("count_contacts")[0]["n"] == 0
        with pytest.raises(LedgerUnavailable, match="is locked for over 20 s"), other.transaction():
            pass
    engine.close()
    other.close()


def test_a_ledger_of_a_newer_release_is_refused_without_a_lock(server: Server) -> None:
    url = server.database()
    engine = PostgresEngine(url)
    newest = engine.migrate()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO migrations VALUES (%s, 0)", (newest + 1,))

    with pytest.raises(LedgerTooNew, match="install a newer release"):
        engine.migrate()
    engine.close()


@pytest.mark.parametrize("column", ["name", "number"])
def test_a_table_of_another_program_is_told(server: Server, column: str) -> None:
    url = server.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE migrations ({column} TEXT)")
    engine = PostgresEngine(url)

    with pytest.raises(LedgerError, match="of another program"):
        engine.migrate()
    engine.close()


@pytest.mark.parametrize(
    "url", ["postgresql://ada:canary%ss@127.0.0.1:1/x", "postgresql://ada:canary@127.0.0.1:1/x?nonsense=1"]
)
def test_an_address_that_is_none_is_a_setting_and_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="SYNC_LEDGER is no address") as found:
        PostgresEngine(url)
    assert "canary" not in str(found.value)


def said_of(url: str) -> str:
    with pytest.raises(LedgerUnavailable) as found:
        PostgresEngine(url)
    assert "canary" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://ada:canary@127.0.0.1:1/x", "nobody listens there"),
        ("postgresql://ada:canary@/x?host=/nowhere", "nobody listens there"),
        ("postgresql://ada:canary@nowhere.invalid/x", "there is no such host"),
        ("postgresql://ada:secret@canary@127.0.0.1:1/x", "special in the password is not escaped"),
        ("postgresql://ada:secret/canary@127.0.0.1:1/x", "special in the password is not escaped"),
    ],
)
def test_why_no_server_is_reached_is_said_in_our_words(url: str, said: str) -> None:
    assert said in said_of(url)


def test_why_a_server_lets_nobody_in_is_said_in_our_words(server: Server) -> None:
    url = server.database()
    missing = url.replace("/test_", "/canary_")
    stranger = url.replace("postgres:@", "canary@")
    assert "no such database or role" in said_of(missing)
    assert "no such database or role" in said_of(stranger)

    theirs = as_role(server, url, f"REVOKE CONNECT ON DATABASE {name_of(url)} FROM PUBLIC")
    assert "the role may not CONNECT" in said_of(theirs)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("reject", "its pg_hba.conf does not let us in"),
        ("scram-sha-256", "the password or the name of the role is wrong"),
    ],
)
def test_a_wrong_password_and_a_closed_door_are_said_in_our_words(server: Server, method: str, said: str) -> None:
    url = server.database()
    theirs = as_role(server, url, "SELECT 1")
    with psycopg.connect(url, autocommit=True) as connection:
        file = Path(connection.execute("SHOW hba_file").fetchone()[0])  # type: ignore[index]
        file.write_text(f"local {name_of(url)} all {method}\n{file.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
    for _ in range(100):  # until the server has read it
        with suppress(psycopg.OperationalError), psycopg.connect(theirs):
            time.sleep(0.05)
            continue
        break

    assert said in said_of(theirs.replace(":@", ":canary@"))
    if method != "reject":
        assert "it wants a password" in said_of(theirs)


def test_a_server_that_takes_the_call_and_says_nothing_is_said_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.ledger.postgres.CONNECT_TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "nobody answers there" in said_of(f"postgresql://ada@127.0.0.1:{silent.getsockname()[1]}/x")


def test_a_certificate_that_is_missing_is_not_called_a_missing_database(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def agree() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(8)
                caller.sendall(b"S")  # as a server does that can speak TLS
                caller.recv(1)

        thread = threading.Thread(target=agree)
        thread.start()
        port = listening.getsockname()[1]
        said = said_of(f"postgresql://ada@127.0.0.1:{port}/x?sslmode=verify-full&sslrootcert={tmp_path}/canary")
        thread.join(10)

    assert "its certificate" in said
