"""An HTTP server for callers that are killed in the middle of a sentence: what the imitations listen with."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answering(BaseHTTPRequestHandler):
    """HTTP, one thread for each connection. Who inherits it says what is answered."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def give(self, status: int, body: Any) -> None:
        """Answer with JSON, if whoever asked still lives."""
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Listener(ThreadingHTTPServer):
    """Many callers come and go."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A caller that was killed is no news."""
