"""Cuts the connection of a transaction that never ends: a server that stands still acknowledges and never answers."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Watchdog:
    """Looks after one transaction at a time, from a thread of its own. `limit` and `look` are seconds."""

    def __init__(self, limit: float, *, look: float = 1.0) -> None:
        self.limit = limit
        self._look = look
        self._lock = threading.Lock()
        self._watched: tuple[float, Callable[[], int | None]] | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, descriptor: Callable[[], int | None]) -> Iterator[None]:
        """Cut this connection, which may only be made meanwhile, if what is inside takes longer than the limit."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ledger-watchdog", daemon=True)
            self._thread.start()
        self._watch((time.monotonic() + self.limit, descriptor))
        try:
            yield
        finally:
            self._watch(None)

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _watch(self, watched: tuple[float, Callable[[], int | None]] | None) -> None:
        with self._lock:
            self._watched = watched

    def _run(self) -> None:
        while not self._ended.wait(self._look):
            with self._lock:
                if self._watched is not None and time.monotonic() > self._watched[0]:
                    _cut(self._watched[1]())
                    self._watched = None


def _cut(descriptor: int | None) -> None:
    """End a connection under whoever waits for it; to close it is theirs."""
    if descriptor is None:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
