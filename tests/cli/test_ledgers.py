"""`crm-sync ledger`: check, backup, copy, upgrade."""

import resource
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest

from sync.ledger.checking import CHECKS, FILE
from sync.ledger.sqlite import SqliteEngine
from tests.cli.conftest import Desk, start
from tests.databases import Server

SQLITE_CHECKS = len(FILE) + len(CHECKS)


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


def break_index(file: Path) -> None:
    """Write to a table behind an index's back: every page is whole, and the two do not agree."""
    connection = sqlite3.connect(file)
    (hidden,) = connection.execute("SELECT * FROM sqlite_master WHERE name = 'events_chat'")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("DELETE FROM sqlite_master WHERE name = 'events_chat'")
    connection.commit()
    connection.close()
    change(file, "UPDATE events SET chat = 'another'")
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", hidden)
    connection.commit()
    connection.close()


def break_page(file: Path) -> None:
    """Write over the head of a page, as a torn write would."""
    connection = sqlite3.connect(file)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'identities_contact'").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with file.open("r+b") as pages:
        pages.seek((page - 1) * size)
        pages.write(b"\0" * 8)


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """No file may grow beyond a size: nearly the same to a process as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def until_alone(target: str) -> None:
    """Wait until the server has noticed that a command let go of its connection."""
    sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(target, autocommit=True) as connection:
        while connection.execute(sql).fetchone():
            time.sleep(0.01)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


async def test_a_sound_ledger_is_called_sound(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    await desk.deliver()

    result = desk.run("ledger", "check")
    assert (result.exit_code, result.stdout) == (0, f"The ledger is sound: {SQLITE_CHECKS} checks found nothing.\n")
    assert desk.json("ledger", "check") == []


async def test_a_fault_is_told_with_an_example_and_exit_code_1(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    await desk.deliver()
    change(desk.ledger_file, "DELETE FROM identities")

    result = desk.run("ledger", "check")
    (finding,) = desk.json("ledger", "check")
    assert result.exit_code == 1
    assert f"1 of {SQLITE_CHECKS} checks found something." in result.stdout
    assert f"1  contacts have an email that does not lead to them  for example {finding['example']}" in result.stdout
    assert (finding["check"], finding["n"]) == ("emails_without_identity", 1)
    assert "ada@" not in result.stdout


async def test_a_broken_index_is_found_by_the_check(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    await desk.deliver()
    break_index(desk.ledger_file)

    result = desk.run("ledger", "check")
    (finding,) = desk.json("ledger", "check")
    assert result.exit_code == 1
    assert "1  places in the file itself are damaged  for example " in result.stdout
    assert (finding["check"], finding["n"], "index events_chat" in finding["example"]) == ("damaged_file", 1, True)


def test_a_broken_page_is_found_by_the_check(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    break_page(desk.ledger_file)

    (finding,) = desk.json("ledger", "check")
    assert (finding["check"], "\n" in finding["example"]) == ("damaged_file", False)


def test_a_server_looks_after_its_files_itself(desk: Desk, server: Server) -> None:
    desk.set(SYNC_LEDGER=server.database())

    result = desk.run("ledger", "check")
    assert result.stdout == f"The ledger is sound: {len(CHECKS)} checks found nothing.\n"


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


def test_a_key_file_that_is_not_in_use_is_never_taken_for_the_key(desk: Desk, server: Server) -> None:
    desk.take(start(1))
    desk.ledger_file.with_name("ledger.sqlite3.key").write_text("o" * 32)

    backup = desk.run("ledger", "backup", "b.sqlite3")
    copies = [
        desk.run("ledger", "copy", "--from", url(desk.ledger_file), "--to", target)
        for target in (server.database(), "sqlite:///moved.sqlite3")
    ]

    assert backup.stdout == "The ledger is in b.sqlite3. SYNC_SECRET_KEY is not in it: keep that too.\n"
    assert [path.name for path in desk.folder.glob("b.sqlite3*")] == ["b.sqlite3"]
    for copy in copies:
        assert "  keep SYNC_SECRET_KEY as it is" in copy.stdout
        assert ".key" not in copy.stdout


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


def test_a_backup_onto_a_full_disk_says_which_and_leaves_nothing(desk: Desk) -> None:
    desk.take(start(1))
    change(desk.ledger_file, "UPDATE events SET payload = hex(zeroblob(2000000))")  # more than SQLite's cache holds

    with no_room_beyond(desk.ledger_file.stat().st_size // 2):
        result = desk.run("ledger", "backup", "b.sqlite3")

    assert result.exit_code == 3
    assert result.stderr.startswith("crm-sync: the backup b.sqlite3 cannot be written: ")
    assert list(desk.folder.glob("b.sqlite3*")) == []
    assert desk.run("ledger", "backup", "b.sqlite3").exit_code == 0


def test_a_backup_without_its_key_is_none_and_leaves_nothing(desk: Desk) -> None:
    desk.monkeypatch.delenv("SYNC_SECRET_KEY")
    desk.take(start(1))
    key = desk.ledger_file.with_name("ledger.sqlite3.key")
    key.rename(desk.folder / "away")
    key.mkdir()  # root can read every file, but no folder as one

    result = desk.run("ledger", "backup", "b.sqlite3")

    assert (result.exit_code, "cannot be copied to b.sqlite3.key" in result.stderr) == (3, True)
    assert list(desk.folder.glob("b.sqlite3*")) == []
    key.rmdir()
    (desk.folder / "away").rename(key)
    assert desk.run("ledger", "backup", "b.sqlite3").exit_code == 0


def test_half_a_key_is_not_left_behind(desk: Desk) -> None:
    desk.monkeypatch.delenv("SYNC_SECRET_KEY")
    desk.take(start(1))
    size = desk.ledger_file.stat().st_size + (1 << 20)
    desk.ledger_file.with_name("ledger.sqlite3.key").write_text("k" * 2 * size)

    with no_room_beyond(size):
        result = desk.run("ledger", "backup", "b.sqlite3")

    assert (result.exit_code, "cannot be copied to b.sqlite3.key" in result.stderr) == (3, True)
    assert list(desk.folder.glob("b.sqlite3*")) == []


def test_a_backup_of_a_damaged_ledger_says_where_to_look(desk: Desk) -> None:
    desk.take(start(1, email="ada@example.com"))
    break_page(desk.ledger_file)

    result = desk.run("ledger", "backup", "b.sqlite3")
    assert result.exit_code == 3
    assert "cannot be read back; the ledger itself may be damaged: `crm-sync ledger check` tells" in result.stderr


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


def test_one_database_under_two_spellings_is_one(desk: Desk, server: Server) -> None:
    target = server.database()
    desk.set(SYNC_LEDGER=target)
    desk.take(start(1))

    for spelling in (target.replace("postgresql://", "postgres://"), f"{target}&port=5432", f"{target}&keepalives=1"):
        result = desk.run("ledger", "copy", "--from", target, "--to", spelling)
        assert (result.exit_code, result.stderr) == (2, "crm-sync: --from and --to are the same ledger\n")


def test_two_databases_of_one_server_are_two(desk: Desk, server: Server) -> None:
    desk.take(start(1))
    one, other = server.database(), server.database()
    assert desk.run("ledger", "copy", "--from", url(desk.ledger_file), "--to", one).exit_code == 0
    until_alone(one)

    result = desk.run("ledger", "copy", "--from", one, "--to", other)
    assert result.exit_code == 0, result.output


def test_an_old_ledger_is_refused_with_a_sentence(desk: Desk) -> None:
    desk.take(start(1))
    change(desk.ledger_file, "DELETE FROM migrations WHERE number > 3")
    change(desk.ledger_file, "DROP TABLE strays")

    result = desk.run("ledger", "copy", "--from", url(desk.ledger_file), "--to", "sqlite:///moved.sqlite3")
    assert result.exit_code == 3
    assert result.stderr.startswith("crm-sync: the source has schema 3, the target ")
    assert result.stderr.endswith("`crm-sync ledger upgrade` the source\n")


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
