"""Small working imitations of vendors that send mail: they check who calls, keep what they took, know their keys."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parseaddr
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

NAMED = re.compile(r"(?:([^<>]*)<)?([^<>@\s,]+@[^<>@\s,]+?)>?")
"""`Name <address>` as a vendor reads it that knows no quotes."""


@dataclass(frozen=True)
class Arrived:
    """A mail as its recipient sees it. `sender`, `to` and `reply_to` are (name, address)."""

    to: tuple[str, str]
    sender: tuple[str, str]
    subject: str
    text: str
    html: str
    reply_to: tuple[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Vendor(ABC):
    """What the vendors have in common. Whatever they refuse, they quote."""

    hint: ClassVar[float | None] = None

    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        self.secret = secret
        self.clock = clock
        self.sent: list[Arrived] = []
        self.refused: set[str] = set()
        self.throttled = False
        self.app = Starlette(routes=self.routes())

    @abstractmethod
    def routes(self) -> list[Route]: ...

    def take(self, mail: Arrived) -> str:
        self.sent.append(mail)
        return f"{self.__class__.__name__.lower()}-{len(self.sent)}"


class FakeResend(Vendor):
    """POST /emails, with keys that are known for a day; GET /domains."""

    hint = 2.0

    def routes(self) -> list[Route]:
        self.keys: dict[str, tuple[float, str, str]] = {}
        self.domains = [{"id": "d1", "name": "engines.example", "status": "verified"}]
        self.may_only_send = False
        return [Route("/emails", self.emails, methods=["POST"]), Route("/domains", self.list, methods=["GET"])]

    def refusal(self, request: Request) -> Response | None:
        if "user-agent" not in request.headers:
            return self.error(403, "1010", "error code: 1010")
        if not (key := request.headers.get("authorization", "").removeprefix("Bearer ")):
            return self.error(401, "missing_api_key", "Missing API key in the authorization header.")
        if key != self.secret:
            return self.error(403, "invalid_api_key", f"API key {key} is invalid")
        return None

    def error(self, status: int, name: str, message: str, **headers: str) -> Response:
        return JSONResponse({"statusCode": status, "name": name, "message": message}, status, headers)

    async def list(self, request: Request) -> Response:
        if refusal := self.refusal(request):
            return refusal
        if self.may_only_send:
            return self.error(401, "restricted_api_key", "This API key is restricted to only send emails")
        return JSONResponse({"object": "list", "data": self.domains})

    async def emails(self, request: Request) -> Response:
        if refusal := self.refusal(request):
            return refusal
        if self.throttled:
            headers = {"retry-after": "2", "ratelimit-reset": "2", "ratelimit-remaining": "0"}
            return self.error(429, "rate_limit_exceeded", "Too many requests", **headers)
        raw = await request.body()
        digest = hashlib.sha256(raw).hexdigest()
        key = request.headers.get("idempotency-key")
        if key and (known := self.keys.get(key)) and self.clock() - known[0] < 86400:
            if known[1] != digest:
                return self.error(409, "invalid_idempotent_request", "Same key used with a different payload")
            return JSONResponse({"id": known[2]})
        body = json.loads(raw)
        if (sender := self.named(body["from"])) is None:
            return self.error(422, "validation_error", f"Invalid `from` field: {body['from']}")
        for text in body["to"]:
            if (to := self.named(text)) is None or to[1] in self.refused:
                return self.error(422, "validation_error", f"Invalid `to` field: {text}")
        reply_to = [self.named(text) for text in body.get("reply_to", [])]
        arrived = Arrived(
            to, sender, body["subject"], body["text"], body["html"], next(iter(reply_to), None), body["headers"]
        )
        id_ = self.take(arrived)
        if key:
            self.keys[key] = (self.clock(), digest, id_)
        return JSONResponse({"id": id_})

    def named(self, text: str) -> tuple[str, str] | None:
        """It refuses names in quotes, as integrators have found."""
        found = NAMED.fullmatch(text)
        if found is None or (found[1] and re.search(r"""["\\,;:@()\[\]]|=\?\S+\?[bqBQ]\?""", found[1])):
            return None
        return ((found[1] or "").strip(), found[2])


class FakeBrevo(Vendor):
    """POST /v3/smtp/email, with keys that are known for 15 minutes and refused; GET /v3/account."""

    hint = 7.0

    def routes(self) -> list[Route]:
        self.keys: dict[str, float] = {}
        self.company = "Analytical Engines"
        return [
            Route("/v3/smtp/email", self.emails, methods=["POST"]),
            Route("/v3/account", self.account, methods=["GET"]),
        ]

    def refusal(self, request: Request) -> Response | None:
        if request.headers.get("api-key") != self.secret:
            return self.error(401, "unauthorized", f"Key not found: {request.headers.get('api-key')}")
        return None

    def error(self, status: int, code: str, message: str, **headers: str) -> Response:
        return JSONResponse({"code": code, "message": message}, status, headers)

    async def account(self, request: Request) -> Response:
        whole = {"companyName": self.company, "email": "owner@engines.example", "plan": [{"type": "free"}]}
        return self.refusal(request) or JSONResponse(whole)

    async def emails(self, request: Request) -> Response:
        if refusal := self.refusal(request):
            return refusal
        if self.throttled:
            headers = {"x-sib-ratelimit-limit": "1", "x-sib-ratelimit-remaining": "0", "x-sib-ratelimit-reset": "7"}
            return self.error(429, "too_many_requests", "Too many requests", **headers)
        body = await request.json()
        headers = dict(body["headers"])
        key = headers.pop("idempotencyKey", None)
        if key in self.keys and self.clock() - self.keys[key] < 15 * 60:
            return self.error(400, "duplicate_parameter", "idempotencyKey was used before")
        (to,) = body["to"]
        if to["email"] in self.refused or not NAMED.fullmatch(to["email"]):
            return self.error(400, "invalid_parameter", f"{to['email']} is not valid in to")
        arrived = Arrived(
            self.named(to),
            self.named(body["sender"]),
            body["subject"],
            body["textContent"],
            body["htmlContent"],
            self.named(body["replyTo"]) if "replyTo" in body else None,
            headers,
        )
        self.keys[key] = self.clock()
        return JSONResponse({"messageId": f"<{self.take(arrived)}@smtp-relay.mailin.fr>"}, 201)

    def named(self, box: Mapping[str, str]) -> tuple[str, str]:
        assert len(box.get("name", "")) <= 70
        return (box.get("name", ""), box["email"])


class FakePostmark(Vendor):
    """POST /email, whose body says with a code what was wrong; GET /server and GET /message-streams/…"""

    def routes(self) -> list[Route]:
        self.code: int | None = None
        self.server: dict[str, Any] = {"ID": 1, "Name": "Engines", "DeliveryType": "Live", "ApiTokens": [self.secret]}
        self.streams: dict[str, dict[str, Any]] = {"outbound": {"MessageStreamType": "Transactional"}}
        return [
            Route("/email", self.emails, methods=["POST"]),
            Route("/server", self.show, methods=["GET"]),
            Route("/message-streams/{id}", self.stream, methods=["GET"]),
        ]

    def refusal(self, request: Request) -> Response | None:
        if request.headers.get("x-postmark-server-token") != self.secret:
            return self.error(401, 10, f"Bad token {request.headers.get('x-postmark-server-token')}")
        return None

    def error(self, status: int, code: int, message: str) -> Response:
        return JSONResponse({"ErrorCode": code, "Message": message}, status)

    async def show(self, request: Request) -> Response:
        return self.refusal(request) or JSONResponse(self.server)

    async def stream(self, request: Request) -> Response:
        if refusal := self.refusal(request):
            return refusal
        if (stream := self.streams.get(request.path_params["id"])) is None:
            return self.error(422, 1226, "The message stream for the provided 'ID' was not found.")
        return JSONResponse({"ArchivedAt": None, **stream})

    async def emails(self, request: Request) -> Response:
        if refusal := self.refusal(request):
            return refusal
        if self.throttled:
            return self.error(429, 429, "Rate limit exceeded")
        body = await request.json()
        to = parseaddr(body["To"])
        if self.code is not None:
            return self.error(422, self.code, f"no mail for {body['To']}")
        if to[1] in self.refused:
            return self.error(422, 406, f"You tried to send to a recipient that is inactive: {to[1]}")
        if not to[1] or not parseaddr(body["From"])[1]:
            return self.error(422, 300, f"Illegal email address in {body['To']}")
        headers = {one["Name"]: one["Value"] for one in body["Headers"]}
        if headers.pop("X-PM-KeepID", None) != "true":
            headers.pop("Message-ID", None)
        reply_to = parseaddr(body["ReplyTo"]) if "ReplyTo" in body else None
        arrived = Arrived(
            to, parseaddr(body["From"]), body["Subject"], body["TextBody"], body["HtmlBody"], reply_to, headers
        )
        return JSONResponse({"To": body["To"], "MessageID": self.take(arrived), "ErrorCode": 0, "Message": "OK"})
