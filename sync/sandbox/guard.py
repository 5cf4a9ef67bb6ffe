"""Keeps strangers out: only this machine's own names are answered, and no other web site may write through a browser.

The sandbox listens on loopback without a password. A page on the internet can make a browser call it, under a name that
resolves to 127.0.0.1 (DNS rebinding) or as a form of its own; both give themselves away in Host or Origin.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES = frozenset({"127.0.0.1", "localhost", "::1", "testserver", "sandbox"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware: refuses with 403 what is not from here, and puts the security headers on everything."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        if is_from_here(headers.get("host", ""), headers.get("origin")):
            await self.app(scope, receive, send_with_headers)
        else:
            refusal = PlainTextResponse("The sandbox answers only this machine, under its own name.\n", 403)
            await refusal(scope, receive, send_with_headers)


def is_from_here(host: str, origin: str | None) -> bool:
    """Whether the Host is a name of this machine and the Origin, where a browser sends one, is the same place."""
    try:
        name = urlsplit(f"//{host}").hostname
        same = origin is None or urlsplit(origin).netloc == host
    except ValueError:
        return False
    return name in OWN_NAMES and same
