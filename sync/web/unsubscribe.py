"""The page behind the link in every follow-up: one button. Only pressing it unsubscribes (RFC 8058).

Link scanners follow every GET of a mail, so a GET changes nothing. Mail programs that offer "unsubscribe" by themselves
POST to the same address.
"""

from dataclasses import dataclass
from html import escape

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from sync.addresses import Addresses
from sync.errors import LedgerError
from sync.ledger.writer import Writer

log = structlog.get_logger("sync.web")

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 1.0625rem/1.5 system-ui, sans-serif; margin: 0; padding: 12vh 1.25rem; }}
  main {{ max-width: 30rem; margin: 0 auto; }}
  h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; }}
  p {{ margin: 0 0 1.5rem; }}
  button {{ font: inherit; font-weight: 600; padding: .7rem 1.4rem; border: 0; border-radius: .4rem;
    background: #1f5fbf; color: #fff; cursor: pointer; }}
  button:focus-visible {{ outline: 3px solid #f0a020; outline-offset: 2px; }}
</style>
</head>
<body><main>
<h1>{title}</h1>
{body}
</main></body>
</html>
"""

BUTTON = '<form method="post"><button type="submit">Unsubscribe</button></form>'

RETRY_AFTER = 5


@dataclass(frozen=True)
class Unsubscribe:
    """`GET` and `POST /unsubscribe/{token}`. `company` is who the mails are from, if that was told."""

    writer: Writer
    addresses: Addresses
    company: str | None = None

    @property
    def routes(self) -> list[Route]:
        """Where the page is."""
        path = "/unsubscribe/{token}"
        return [Route(path, self.page, methods=["GET"]), Route(path, self.stop, methods=["POST"])]

    async def page(self, request: Request) -> Response:
        """One button. Changes nothing."""
        if self.addresses.opened(request.path_params["token"]) is None:
            return self._unknown()
        whose = f" from {escape(self.company)}" if self.company else ""
        said = f"<p>You will get no more follow-up emails{whose} after a chat.</p>"
        return _page("Stop these emails?", said + BUTTON)

    async def stop(self, request: Request) -> Response:
        """Whoever has the link unsubscribes its address. The body is not read."""
        hashed = self.addresses.opened(request.path_params["token"])
        if hashed is None:
            return self._unknown()
        try:
            await self.writer.do(lambda ledger: ledger.suppress(hashed, "unsubscribed"))
        except LedgerError as error:
            log.error("somebody could not be unsubscribed", reason=str(error))
            answer = _page(
                "Please try again", "<p>It could not be stored just now. Please try again.</p>" + BUTTON, 503
            )
            answer.headers["Retry-After"] = str(RETRY_AFTER)
            return answer
        return _page(
            "You are unsubscribed", "<p>No more follow-up emails will be sent to you. You can close this page.</p>"
        )

    def _unknown(self) -> Response:
        return _page(
            "This link does not work", "<p>Perhaps it was cut off. Please use the whole link of the email.</p>", 404
        )


def _page(title: str, body: str, status: int = 200) -> Response:
    return HTMLResponse(PAGE.format(title=title, body=body), status, headers=HEADERS)
