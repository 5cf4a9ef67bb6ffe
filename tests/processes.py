"""Real processes of the service, on loopback, for tests that kill them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

TOKEN = "canary-token-0123456789abcdef"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, *, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """One request; the status (0 where nobody answers) and the JSON of the answer."""
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=data, method=method, headers=given)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")
    except OSError:
        return 0, None


@dataclass
class Stage:
    """A folder with a service and an imitation HubSpot in processes of their own."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    crm_port: int = field(default_factory=free_port)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SYNC_", "ACQUIRE_", "HUBSPOT_", "SANDBOX_"))},
            "SYNC_LEDGER": f"sqlite:///{self.folder / 'ledger.sqlite3'}",
            "SYNC_PORT": str(self.port),
            "SYNC_DESTINATIONS": "hubspot",
            "SYNC_LOG_LEVEL": "warning",
            "ACQUIRE_URL_TOKEN": TOKEN,
            "HUBSPOT_BASE_URL": f"http://127.0.0.1:{self.crm_port}",
            "HUBSPOT_ACCESS_TOKEN": "canary-access-token",
            "HUBSPOT_CALLS_PER_10S": "190",
            "HUBSPOT_SEARCH_LAG": "1",
            **self.settings,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def crm_url(self) -> str:
        return f"http://127.0.0.1:{self.crm_port}"

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one command in the background."""
        with (self.folder / "stderr.txt").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "sync", *arguments],
                cwd=self.folder,
                env=self.environment,
                stderr=errors,
                stdout=subprocess.DEVNULL,
            )
        self.running.append(process)
        return process

    def command(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "sync", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the service; returns once it takes webhooks."""
        process = self.start("serve")
        self.until(lambda: get(f"{self.url}/healthz")[0] == 200, process)
        return process

    def crm(self, *, limit: int | None = 190) -> subprocess.Popen[bytes]:
        """Start the imitation HubSpot; returns once it answers."""
        limited = () if limit is None else ("--limit", str(limit))
        process = self.start(
            "sandbox", "--port", str(self.crm_port), "--file", str(self.folder / "crm.sqlite3"), *limited
        )
        furnished = f"{self.crm_url}/crm/v3/properties/contacts/chat_crm_sync_uid"
        self.until(lambda: get(furnished)[0] == 200, process)
        return process

    def until(self, holds: Any, process: subprocess.Popen[bytes] | None = None, *, seconds: float = 60) -> None:
        """Wait until something holds; bounded."""
        end = time.monotonic() + seconds
        while not holds():
            assert process is None or process.poll() is None, (self.folder / "stderr.txt").read_text()
            assert time.monotonic() < end, (
                f"waited {seconds} s in vain\n{(self.folder / 'stderr.txt').read_text()[-2000:]}"
            )
            time.sleep(0.05)

    def close(self) -> None:
        """End every process that was started here."""
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)


class Listener:
    """Somebody's URL: hears JSON or a mere call, answers 200."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.calls = 0
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                listener.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.do_GET()

            def do_GET(self) -> None:
                listener.calls += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alarm"

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
