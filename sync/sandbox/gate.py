"""What every call to the imitated API passes on its way: the counting, the token, the limit, the faults."""

import asyncio
import hmac
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sync.sandbox.answers import Answer, Refusal, bad_json, batch
from sync.sandbox.api import Call, Endpoint
from sync.sandbox.faults import Faults, Mishap
from sync.sandbox.limits import Limit
from sync.sandbox.store import Store

OUTERMOST_SEND = "sandbox.send"
NO_ANSWER = 0


@dataclass
class Calls:
    """How many calls came, by endpoint and by status; status 0 is a call that got no answer."""

    counts: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All calls."""
        return self.counts.total()

    def to(self, endpoint: str) -> int:
        """Calls to one endpoint, say `POST contacts/batch/upsert`."""
        return sum(count for (name, _), count in self.counts.items() if name == endpoint)

    def answered(self, status: int) -> int:
        """Calls that were answered with this status."""
        return sum(count for (_, answered), count in self.counts.items() if answered == status)

    def clear(self) -> None:
        """Count from zero."""
        self.counts.clear()

    def described(self) -> dict[str, dict[str, int]]:
        """Plain values: endpoint → status → count."""
        found: dict[str, dict[str, int]] = {}
        for (name, status), count in sorted(self.counts.items()):
            found.setdefault(name, {})[str(status)] = count
        return found


@dataclass
class Gate:
    """Lets calls through to their endpoints, or not."""

    store: Store
    faults: Faults
    limit: Limit
    search_limit: Limit
    calls: Calls
    clock: Callable[[], float]
    token: str | None = None

    async def pass_on(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer one call."""
        body = await request.body()
        try:
            answer = self._answer(request, endpoint, body)
        except Refusal as refusal:
            answer = refusal.answer()
        await self.faults.dawdle()
        if answer is None:
            self.calls.counts[endpoint.name, NO_ANSWER] += 1
            return await _hang_up(request)
        self.calls.counts[endpoint.name, answer.status] += 1
        headers = {} if endpoint.is_search else self.limit.headers()
        return _response(answer, headers)

    def _answer(self, request: Request, endpoint: Endpoint, body: bytes) -> Answer | None:
        if self.faults.down:
            return None if self.faults.down == "close" else _error(503, "Service Unavailable", self.faults)
        scripted = self.faults.scripted()
        if scripted is not None:
            return Answer(scripted.status, scripted.body, scripted.headers)
        self._authenticate(request)
        self._throttle(endpoint)
        return self._with_mishaps(endpoint, self._call(request, endpoint, body))

    def _authenticate(self, request: Request) -> None:
        if self.token is None:
            return
        said = request.headers.get("authorization", "")
        if not hmac.compare_digest(said.encode(), f"Bearer {self.token}".encode()):
            raise Refusal(
                401,
                "INVALID_AUTHENTICATION",
                "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find "
                "more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
            )

    def _throttle(self, endpoint: Endpoint) -> None:
        limit = self.search_limit if endpoint.is_search and self.search_limit.calls is not None else self.limit
        if not limit.take():
            raise Throttled(limit.policy)

    def _with_mishaps(self, endpoint: Endpoint, call: Callable[[], Answer]) -> Answer:
        match self.faults.strikes():
            case Mishap.TOO_MANY:
                return _throttled("TEN_SECONDLY_ROLLING", self.faults)
            case Mishap.ERROR:
                return _error(500, "internal error", self.faults)
            case Mishap.BAD_GATEWAY:
                return Answer(502, "<html><body><h1>502 Bad Gateway</h1></body></html>")
            case Mishap.UNAVAILABLE:
                return _error(503, "Service Unavailable", self.faults)
            case Mishap.ERROR_AFTER:
                call()
                return _error(500, "internal error", self.faults)
            case None if self.faults.silent and endpoint.is_batch_write:
                answer = batch([], [], now=self.clock())
                return Answer(200, {**answer.body, "errors": []})
            case None:
                return call()

    def _call(self, request: Request, endpoint: Endpoint, body: bytes) -> Callable[[], Answer]:
        def call() -> Answer:
            said = _read(request, body)
            made_by = request.headers.get("user-agent", "").split("/")[0].strip()[:80] or "somebody"
            path, query = request.path_params, dict(request.query_params)
            return endpoint.answer(
                Call(self.store, self.faults, self.clock(), endpoint.kind, path, query, said, made_by)
            )

        return call


class Throttled(Refusal):
    """Over the limit. Its body has a shape of its own."""

    def __init__(self, policy: str) -> None:
        super().__init__(429, "RATE_LIMITS", f"You have reached your {policy.lower()} limit.")
        self.policy = policy

    def answer(self) -> Answer:
        """The whole call is refused."""
        body = {"status": "error", "message": self.message, "errorType": "RATE_LIMIT"}
        return Answer(429, {**body, "correlationId": str(uuid4()), "policyName": self.policy})


def _throttled(policy: str, faults: Faults) -> Answer:
    answer = Throttled(policy).answer()
    return Answer(answer.status, answer.body, _retry_after(faults))


def _error(status: int, said: str, faults: Faults) -> Answer:
    body = {"status": "error", "message": said, "correlationId": str(uuid4())}
    return Answer(status, body, _retry_after(faults) if status == 503 else {})


def _retry_after(faults: Faults) -> dict[str, str]:
    return {} if faults.retry_after is None else {"Retry-After": f"{faults.retry_after:g}"}


def _read(request: Request, body: bytes) -> Any:
    if request.method not in ("POST", "PATCH"):
        return {}
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise Refusal(415, "VALIDATION_ERROR", "Unsupported Media Type: the body must be application/json")
    try:
        said = json.loads(body)
    except ValueError:
        raise bad_json("Unexpected character") from None
    if not isinstance(said, dict):
        raise bad_json("Cannot deserialize value out of START_ARRAY token")
    return said


def _response(answer: Answer, headers: dict[str, str]) -> Response:
    headers = {**headers, **answer.headers}
    if isinstance(answer.body, str):
        return Response(answer.body, answer.status, headers=headers, media_type="text/html")
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    return JSONResponse(answer.body, answer.status, headers=headers)


async def _hang_up(request: Request) -> Response:
    """Close the connection without an answer. In process there is none to close: ConnectionResetError stands for it."""
    send = request.scope.get(OUTERMOST_SEND)
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if not isinstance(transport, asyncio.Transport):
        raise ConnectionResetError("the sandbox was told to hang up")
    transport.abort()
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response(status_code=204)
