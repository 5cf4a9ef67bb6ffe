"""`crm-sync ledger`: check, backup, copy, upgrade."""

import sqlite3
import stat
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest

from sync.ledger.checking import CHECKS
from sync.ledger.sqlite import SqliteEngine
from tests.cli.conftest import Desk, start
from tests.databases import Server


def url(file: Path) -> str:
    return f"sqlite:///{file}"


def change(file: Path, statement: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(statement)
    connection.close()


def count(file: Path, table: str) -> int:
    connection = sqlite3.connect(file)
    (n,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
    connection.close()
    return int(n)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


async def test_a_sound_ledger_is_called_sound(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    await desk.deliver()

    result = desk.run("ledger", "check")
    assert (result.exit_code, result.stdout) == (0, f"The ledger is sound: {len(CHECKS)} checks found nothing.\n")
    assert desk.json("ledger", "check") == []


async def test_a_fault_is_told_with_an_example_and_exit_code_1(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    await desk.deliver()
    change(desk.ledger_file, "DELETE FROM identities")

    result = desk.run("ledger", "check")
    (finding,) = desk.json("ledger", "check")
    assert result.exit_code == 1
    assert f"1 of {len(CHECKS)} checks found something." in result.stdout
    assert f"1  contacts have an email that does not lead to them  for example {finding['example']}" in result.stdout
    assert (finding["check"], finding["n"]) == ("emails_without_identity", 1)
    assert "ada@" not in result.stdout


def test_a_backup_is_private_whole_and_brings_its_key(desk: Desk) -> None:
    desk.monkeypatch.delenv("SYNC_SECRET_KEY")
    desk.take(start(1, email="ada@example.com"))
    file, key = desk.folder / "backup.sqlite3", desk.folder / "backup.sqlite3.key"

    result = desk.run("ledger", "backup", str(file))

    assert result.exit_code == 0, result.output
    assert (mode(file), mode(key)) == (0o600, 0o600)
    assert key.read_bytes() == desk.ledger_file.with_name("ledger.sqlite3.key").read_bytes()
    assert count(file, "events") == 1
    assert sorted(p.name for p in desk.folder.glob("backup*")) == ["backup.sqlite3", "backup.sqlite3.key"]


def test_a_backup_serves_as_a_ledger(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    desk.run("ledger", "backup", "backup.sqlite3")
    desk.set(SYNC_LEDGER=url(desk.folder / "backup.sqlite3"))

    assert desk.json("status")["events"]["applied"] == 1


def test_without_a_key_file_the_backup_says_what_else_to_keep(desk: Desk) -> None:
    desk.take(start(1))

    result = desk.run("ledger", "backup", "b.sqlite3")
    assert result.stdout == "The ledger is in b.sqlite3. SYNC_SECRET_KEY is not in it: keep that too.\n"


@pytest.mark.parametrize("name", ["b.sqlite3", "b.sqlite3.key"])
def test_a_backup_never_overwrites(desk: Desk, name: str) -> None:
    desk.take(start(1))
    (desk.folder / name).write_text("precious")

    result = desk.run("ledger", "backup", "b.sqlite3")
    assert result.exit_code == 2
    assert result.stderr == f"crm-sync: {name} is there already: a backup never overwrites\n"
    assert [p.read_text() for p in desk.folder.glob("b.sqlite3*")] == ["precious"]


def test_a_backup_under_load_is_one_moment_of_the_ledger(desk: Desk) -> None:
    desk.take(start(1))
    stop = Event()

    def write() -> None:
        engine = SqliteEngine(desk.ledger_file, clock=desk.clock)
        while not stop.is_set():
            with engine.transaction():
                engine.run("count", name="one", n=1)
                engine.run("count", name="two", n=1)
        engine.close()

    writer = Thread(target=write)
    writer.start()
    results = [desk.run("ledger", "backup", f"b{n}.sqlite3") for n in range(10)]
    stop.set()
    writer.join()

    assert [result.exit_code for result in results] == [0] * 10
    for n in range(10):
        connection = sqlite3.connect(desk.folder / f"b{n}.sqlite3")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT COUNT(DISTINCT n) FROM counters").fetchone()[0] <= 1
        connection.close()


def test_a_backup_into_a_folder_that_is_not_there_is_one_sentence(desk: Desk) -> None:
    desk.take(start(1))

    result = desk.run("ledger", "backup", "nowhere/b.sqlite3")
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)


def test_on_postgresql_a_backup_is_left_to_pg_dump(desk: Desk, server: Server) -> None:
    desk.set(SYNC_LEDGER=server.database())

    result = desk.run("ledger", "backup", "b.sqlite3")
    assert (result.exit_code, "pg_dump" in result.stderr) == (2, True)


async def test_a_grown_ledger_moves_to_postgresql(desk: Desk, server: Server) -> None:
    desk.monkeypatch.delenv("SYNC_SECRET_KEY")
    desk.take(start(1, email="ada@example.com"), start(2, email="bob@example.com"))
    await desk.deliver()
    before, target = desk.json("status"), server.database()

    result = desk.run("ledger", "copy", "--from", url(desk.ledger_file), "--to", target)

    key = desk.ledger_file.with_name("ledger.sqlite3.key")
    assert result.exit_code == 0, result.output
    assert "are the same in both" in result.stdout
    assert f"set SYNC_SECRET_KEY to the content of {key}" in result.stdout
    assert "copied 2 rows of contacts\n" in result.stderr
    desk.set(SYNC_LEDGER=target, SYNC_SECRET_KEY=key.read_text())
    after = desk.json("status")
    assert (after["contacts"], after["events"]) == (before["contacts"], before["events"])
    assert after["destinations"] == before["destinations"]


async def test_after_the_move_nobody_is_sent_twice(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    await desk.deliver()
    desk.run("ledger", "copy", "--from", url(desk.ledger_file), "--to", "sqlite:///moved.sqlite3")
    desk.set(SYNC_LEDGER="sqlite:///moved.sqlite3")

    desk.take(start(1, email="ada@example.com"), start(2, email="bob@example.com"))
    await desk.deliver()
    assert desk.json("status")["redelivered"] == 1
    assert len(desk.crm.contacts) == 2


def test_a_ledger_is_not_copied_onto_itself(desk: Desk) -> None:
    desk.take(start(1))

    result = desk.run("ledger", "copy", "--from", url(desk.ledger_file), "--to", "sqlite:///ledger.sqlite3")
    assert (result.exit_code, result.stderr) == (2, "crm-sync: --from and --to are the same ledger\n")


def test_a_ledger_that_is_not_there_is_not_made_by_copying_it(desk: Desk, server: Server) -> None:
    result = desk.run("ledger", "copy", "--from", url(desk.ledger_file), "--to", url(desk.folder / "new.sqlite3"))
    assert result.exit_code == 2
    assert list(desk.folder.glob("*.sqlite3")) == []
    empty = desk.run("ledger", "copy", "--from", server.database(), "--to", url(desk.folder / "new.sqlite3"))
    assert (empty.exit_code, empty.stderr) == (2, "crm-sync: there is no ledger at --from\n")


def test_an_upgrade_says_from_which_schema_to_which(desk: Desk, server: Server) -> None:
    target = server.database()
    desk.set(SYNC_LEDGER=target)

    first, second = desk.run("ledger", "upgrade"), desk.run("ledger", "upgrade")

    with psycopg.connect(target) as connection:
        (newest,) = connection.execute("SELECT MAX(number) FROM migrations").fetchone() or (None,)
    assert first.stdout == f"Upgraded from schema 0 to {newest}.\n"
    assert second.stdout == f"The ledger has schema {newest} already.\n"
