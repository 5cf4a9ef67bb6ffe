"""The ledger's disk full, and full again; with PostgreSQL, a database that became read-only. Nobody restarts anything.

A small disk of its own is mounted where that is allowed (`unshare -rm`); elsewhere the process may write no file beyond
a size, which is nearly the same to it. A run says which.
"""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from torturing.chance import chance
from torturing.members import Member
from torturing.stage import Stage
from torturing.witness import Witness

SIZE = 32 << 20
"""Bytes of the small disk."""

ROOM = 16 << 10
"""Bytes at the beginning of each file that may still be written where there is no disk to fill."""

FOLD = "import sys; from sqlite_utils.utils import sqlite3; sqlite3.connect(sys.argv[1]).execute(sys.argv[2])"
"""Makes the WAL as small as it can be: while there is room left in it, a full disk stops nobody."""

FILLED = 2.5

Full = Callable[[], AbstractContextManager[None]]
"""How the disk is made full, and has room again afterwards."""


def play(stage: Stage, seed: int) -> None:
    """Take the room away, watch what is answered, give it back, watch again."""
    random, witness = chance(seed), Witness(stage)
    stage.until_serving()
    if stage.is_sqlite:
        with _small_disk(stage) as full:
            _play(stage, witness, full, random.uniform(0.5, 1.5))
    else:
        stage.remarks.append("the database read-only")
        _play(stage, witness, lambda: _read_only(stage), random.uniform(0.5, 1.5))


def _play(stage: Stage, witness: Witness, full: Full, pause: float) -> None:
    for _ in range(stage.budget):
        stage.wait(pause)
        with full():
            witness.sees_refusals("while it is full", FILLED)
            stage.kills += 1
        witness.sees_recovery("it had been full")
    witness.finish()


@contextmanager
def _small_disk(stage: Stage) -> Iterator[Full]:
    """Let the service live on a small disk for a while; the ledger comes home at the end."""
    (serve,) = stage.receivers
    home, command = stage.folder / "ledger.sqlite3", serve.command
    small = stage.folder / "disk"
    small.mkdir()
    keeper = _mounted(small)
    if keeper is None:
        stage.remarks.append("no disk to fill: files may not grow (RLIMIT_FSIZE)")
        stage.refit(SYNC_DISK_RESERVE="0")
        yield lambda: _no_growth(serve)
        return
    stage.remarks.append(f"a tmpfs of {SIZE >> 20} MiB is full")
    seen = Path(f"/proc/{keeper.pid}/root{small}")
    inside = ("nsenter", "--target", str(keeper.pid), "--user", "--mount", "--preserve-credentials", "--wdns=/")
    try:
        serve.end()
        _carry(home, seen)
        serve.command = [*inside, *command]
        stage.refit(SYNC_LEDGER=f"sqlite:///{small / home.name}", SYNC_DISK_RESERVE="0")
        fold = [*inside, sys.executable, "-c", FOLD, str(small / home.name), "PRAGMA wal_checkpoint(TRUNCATE)"]
        yield lambda: _ballast(seen / "ballast", fold)
    finally:
        serve.end()
        _carry(seen / home.name, home.parent)
        keeper.kill()
        keeper.communicate()
        serve.command = command
        stage.refit(SYNC_LEDGER=stage.ledger.url)


def _mounted(folder: Path) -> subprocess.Popen[bytes] | None:
    """Who keeps a small disk mounted there, for itself and whoever enters its namespace. None where nobody may."""
    script = 'mount -t tmpfs -o size="$1" none "$2" && echo mounted && exec cat'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(SIZE), str(folder)]
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return None
    keeper = subprocess.Popen(  # it ends with its stdin, so with us
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert keeper.stdout is not None
    if keeper.stdout.readline() == b"mounted\n":
        return keeper
    keeper.kill()
    keeper.communicate()
    return None


def _carry(ledger: Path, folder: Path) -> None:
    """Copy a ledger that nobody has open, with what its WAL may still hold."""
    for suffix in ("", "-wal"):
        (folder / f"{ledger.name}{suffix}").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.copyfile(ledger.with_name(f"{ledger.name}{suffix}"), folder / f"{ledger.name}{suffix}")


@contextmanager
def _ballast(path: Path, fold: Sequence[str]) -> Iterator[None]:
    """Fill the disk to its last byte."""
    subprocess.run(fold, check=True, timeout=20)
    with path.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def _no_growth(serve: Member) -> Iterator[None]:
    """Let the process write nowhere in a file but at its beginning."""
    before = resource.prlimit(serve.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(serve.pid, resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        yield
    finally:
        resource.prlimit(serve.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def _read_only(stage: Stage) -> Iterator[None]:
    """Make the database read-only, as after a failover to a standby, and cut who is connected."""
    assert stage.server is not None
    _alter(stage, "SET default_transaction_read_only = on")
    try:
        stage.server.cut(stage.ledger.url)
        yield
    finally:
        _alter(stage, "RESET default_transaction_read_only")


def _alter(stage: Stage, how: str) -> None:
    import psycopg

    assert stage.server is not None
    with psycopg.connect(stage.server.url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{stage.folder.name}" {how}'.encode())
