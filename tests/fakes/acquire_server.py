"""The imitation of Acquire's REST APIs behind real HTTP on loopback, for commands in processes of their own."""

import asyncio
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

from tests.fakes.acquire import KEY, TOKEN, Account, AcquireApi

HOSTS = {"v1": "https://app.acquire.io/api", "v2": "https://demo.acquire.io/api/v1"}


class AcquireServer:
    """`/v1/…` is one API, `/v2/…` the other. `heard` is told of each call before it is answered."""

    def __init__(self, account: Account) -> None:
        self.api = AcquireApi(account)
        self.heard: Callable[[], None] = lambda: None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                server.heard()
                _, version, rest = self.path.split("/", 2)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = httpx.Request(
                    self.command, f"{HOSTS[version]}/{rest}", headers=dict(self.headers), content=body
                )
                asked.headers["host"] = asked.url.host
                answer = asyncio.run(server.api.handle_async_request(asked))
                self.send_response(answer.status_code)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def settings(self) -> dict[str, str]:
        """The variables that lead there."""
        return {
            "ACQUIRE_API_TOKEN": TOKEN,
            "ACQUIRE_API_BASE_URL": f"{self.url}/v1",
            "ACQUIRE_V2_API_KEY": KEY,
            "ACQUIRE_V2_ACCOUNT": "demo",
            "ACQUIRE_V2_BASE_URL": f"{self.url}/v2",
            "ACQUIRE_PULL_PER_SECOND": "100",
        }

    def __enter__(self) -> "AcquireServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
