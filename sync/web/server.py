"""Runs ASGI apps on this machine until told to stop."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from sync.errors import SettingsError
from sync.web.connection import PATIENCE, Connection


class _Quiet(uvicorn.Server):
    """A server that leaves signals to us: several run in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One app on one port. The socket is bound at once, so that a port in use is found before anything starts.

    `patience`: seconds for which a client may neither say what it wants nor read what it is answered.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, *, patience: float = PATIENCE) -> None:
        self._socket = _bound(host, port)
        if sys.platform == "linux":  # inherited by all connections; elsewhere the system's own limit holds
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        protocol: Any = partial(Connection, patience=patience)
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",  # a connection that speaks another protocol would leave these limits behind
            access_log=False,
            log_config=None,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
            limit_concurrency=2000,
            backlog=2048,
        )
        self._server = _Quiet(config)

    @property
    def url(self) -> str:
        """Where it can be reached."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    async def started(self) -> None:
        """Return once requests are taken."""
        while not self._server.started:
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Take no more requests; those under way are answered."""
        self._server.should_exit = True


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then: without it an answer can wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. SYNC_PORT names another port "
            "(for the sandbox: SANDBOX_BASE_URL)"
        ) from None
    listener.set_inheritable(True)
    return listener
