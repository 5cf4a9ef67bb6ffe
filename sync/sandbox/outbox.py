"""The imitation mail vendor: takes every mail, sends none, shows them all. It has no idempotency: twice is two."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sync.sandbox.answers import VALIDATION_ERROR, Answer, Refusal
from sync.sandbox.api import Call, Endpoint
from sync.sandbox.gate import Gate
from sync.sandbox.guard import HEADERS
from sync.sandbox.pages import PER_PAGE, page_number, pages_of
from sync.sandbox.store import Mail

POLICY = "Content-Security-Policy"
WITH_FRAME = {POLICY: f"{HEADERS[POLICY]}; frame-src 'self'"}
FOR_MAIL = {
    POLICY: (
        "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
}
"""A mail may be styled and have links that open elsewhere: no scripts, no forms, nothing from the network."""

TEXTS = ("to", "from", "subject", "text", "html")
MAYBE = ("to_name", "reply_to", "key")
LARGEST_ID = 2**63 - 1
"""Of a row in SQLite."""


def take(call: Call) -> Answer:
    """POST /_mail. The emails that the sandbox is told to refuse are refused here too."""
    said = call.body
    headers = said.get("headers", {})
    wrong = [name for name in TEXTS if not _is_text(said.get(name))]
    wrong += [name for name in MAYBE if said.get(name) is not None and not _is_text(said[name])]
    if not isinstance(headers, dict) or not all(map(_is_text, [*headers, *headers.values()])):
        wrong.append("headers")
    if wrong or "@" not in said["to"]:
        raise Refusal(400, VALIDATION_ERROR, f"Not as a mail must be: {', '.join(wrong) or 'to'}")
    if call.faults.refuses({"email": said["to"].lower()}):
        raise Refusal(call.faults.reject_status, VALIDATION_ERROR, "This address is refused")
    mail = {name: said.get(name) for name in (*TEXTS, *MAYBE)} | {"headers": headers}
    taken = call.store.take_mail(said["to"].lower(), said.get("key"), mail, now=call.now)
    return Answer(200, {"id": f"mail-{taken}"})


TAKE = Endpoint("POST", ["/_mail"], "POST mail", "mails", take)


def routes(gate: Gate) -> list[BaseRoute]:
    """GET /_mail, /outbox, /outbox/{id} and /outbox/{id}/html."""
    page = pages_of(gate)

    def one(request: Request) -> Mail | None:
        wanted = request.path_params["id"]
        return next(iter(gate.store.mails(only=wanted)), None) if wanted <= LARGEST_ID else None

    async def listing(_request: Request) -> Response:
        return JSONResponse({"mails": [described(mail) for mail in gate.store.mails()]})

    async def outbox(request: Request) -> Response:
        number, is_live = page_number(request), request.query_params.get("live") != "off"
        count = gate.store.mail_count()
        mails = gate.store.mails(limit=PER_PAGE, offset=(number - 1) * PER_PAGE)
        pages = max(-(-count // PER_PAGE), 1)
        return page("outbox.html", mails=mails, count=count, number=number, pages=pages, is_live=is_live)

    async def mail(request: Request) -> Response:
        found = one(request)
        if found is None:
            return page("outbox_missing.html", 404)
        answer = page("outbox_mail.html", mail=found, unsubscribe=unsubscribe_address(found.said["headers"]))
        answer.headers.update(WITH_FRAME)
        return answer

    async def html(request: Request) -> Response:
        found = one(request)
        return page("outbox_missing.html", 404) if found is None else _framed(found.said["html"])

    return [
        Route("/_mail", listing),
        Route("/outbox", outbox),
        Route("/outbox/{id:int}", mail),
        Route("/outbox/{id:int}/html", html),
    ]


def described(mail: Mail) -> dict[str, Any]:
    """A mail as plain values."""
    return {"id": f"mail-{mail.id}", "taken_at": mail.taken_at, **mail.said}


def unsubscribe_address(headers: Mapping[str, str]) -> str | None:
    """The web address in List-Unsubscribe."""
    said = next((value for name, value in headers.items() if name.lower() == "list-unsubscribe"), "")
    for address in re.findall(r"<\s*([^<>\s]+)\s*>", said):
        try:
            if urlsplit(address).scheme in ("http", "https"):
                return str(address)
        except ValueError:
            continue
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and re.search("[\ud800-\udfff]", value) is None


def _framed(html: str) -> Response:
    """The mail's own HTML, its links opening beside the frame."""
    doctype = re.match(r"\s*<!doctype[^>]*>", html, re.IGNORECASE)
    end = doctype.end() if doctype else 0
    return HTMLResponse(f'{html[:end]}<base target="_blank">{html[end:]}', headers=FOR_MAIL)
