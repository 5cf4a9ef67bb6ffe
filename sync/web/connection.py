"""A connection of the HTTP server, with limits for all that comes before a body.

uvicorn waits for ever for a first request, and for a next one where a byte comes now and then, and it keeps headers
without end. So two thousand who say nothing would leave no place for a webhook. Bodies are limited where they are read.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PATIENCE = 20.0
"""Seconds from the beginning of a connection, or from the first byte after an answer, to the end of a head."""

HEAD_BYTES = 64 << 10
"""How large a head may be, and likewise whatever comes after the last piece of a body."""


class Connection(HttpToolsProtocol):
    """uvicorn's own, but whoever does not come to the point is cut off."""

    def __init__(self, *, patience: float, **given: Any) -> None:
        super().__init__(**given)
        self._patience = patience
        self._deadline: asyncio.TimerHandle | None = None
        self._size = 0  # of all reads since the one that brought the last head or piece of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected, and has to say what they want."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """They are gone: nothing is waited for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came. Whatever it is, uvicorn's own wait for the next request ends with it."""
        self._size += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._size > HEAD_BYTES:
            self.send_400_response("The request's head is too large.")
        elif self._deadline is None and self.cycle.response_complete:
            self._wait_for_head()

    def on_headers_complete(self) -> None:
        """A head is complete. One that came in a single read was not measured yet; uvicorn answers an error by 400."""
        if self._size > HEAD_BYTES and len(self.url) + sum(len(n) + len(v) for n, v in self.headers) > HEAD_BYTES:
            raise ValueError("the request's head is too large")
        super().on_headers_complete()
        self._size = 0
        self._stop_waiting()

    def on_body(self, body: bytes) -> None:
        """A piece of a body: whoever reads it knows its limits."""
        self._size = 0
        super().on_body(body)

    def _wait_for_head(self) -> None:
        # Not closed: that would wait until they have read what was answered.
        self._deadline = self.loop.call_later(self._patience, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
