"""The only module that builds HTTP clients and knows the HTTP library's exceptions."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any

import httpcore
import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random

from sync.errors import Broken, Busy, DeliveryError, NotSent, Postponed, Refused, Throttled, Unauthorized, Unreachable

SAME_CLOCK = 2.0
"""Seconds that two dates of one clock may seem apart; what is further apart is another clock, or it was set."""

LONGEST_HINT = 86400.0
"""No wait hint is believed beyond a day: the probe asks again."""

KEEP_ALIVE = 5.0
"""Seconds after which an idle connection is not used any more: the other side may be about to close it."""

ANSWER_LIMIT = 16 << 20
"""Bytes of an answer that are read before it is given up."""

A_TIME = 1e9
"""From here on, the seconds of a `…-reset` header are a unix time and no wait."""

USER_AGENT = f"chat-crm-sync/{version('chat-crm-sync')}"

send_by: ContextVar[float] = ContextVar("send_by", default=float("inf"))
"""No request leaves after this time (epoch seconds): an attempt late in its lease must not send."""

over_by: ContextVar[float] = ContextVar("over_by", default=float("inf"))
"""When the part of a call that is under way has to be over, on the clock that nobody sets."""

Transport = httpx.AsyncBaseTransport
"""What carries requests: tests put an application in the place of the network."""

PARTS = frozenset(
    f"http11.{part}.started" for part in ("send_request_headers", "receive_response_headers", "receive_response_body")
)
"""What httpcore calls the moments in which a part of a call begins: the request, the headers, the body."""

Gate = Callable[[], Awaitable[None]]
"""Waits until the pace allows one more call."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx. Not yet a promise that anything was written: adapters read the body."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON, or None where it is something else."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def text(self) -> str:
        """The body as text, for looking for words in it."""
        return self.body.decode("utf-8", "replace")


async def _no_gate() -> None:
    return None


class Network(httpcore.AnyIOBackend):
    """Opens connections that keep the deadlines of the calls on them."""

    async def connect_tcp(self, *args: Any, **named: Any) -> httpcore.AsyncNetworkStream:
        """Connect."""
        return Connection(await super().connect_tcp(*args, **named))


class Connection(httpcore.AsyncNetworkStream):
    """A connection on which no part of a call outlasts its deadline, by however many reads and writes it goes on.

    The timeouts of httpx are for each of those alone: a header that drips, or one 1xx answer after the other, would
    hold its slot for ever. It ends here as one read that took too long, for a cancelled request would lose its slot.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> Coroutine[Any, Any, bytes]:
        """What has come, once something has. Raises ReadTimeout."""
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Send. Raises WriteTimeout."""
        return self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    async def start_tls(self, *args: Any, **named: Any) -> httpcore.AsyncNetworkStream:
        """The same connection, encrypted."""
        return Connection(await self._stream.start_tls(*args, **named))

    async def aclose(self) -> None:
        """Hang up."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """What httpcore wants to know about the socket."""
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, late: type[httpcore.TimeoutException]) -> float:
    left = over_by.get() - time.monotonic()
    if left <= 0:
        raise late("too slow as a whole")
    return left if timeout is None else min(timeout, left)


class Client:
    """The HTTP client of one destination.

    The pool of httpx 0.28 loses slots for good when a request is cancelled from outside or times out while waiting for
    a slot. So: one client per destination, never more requests than connections, only httpx's own timeouts, and a new
    client after a PoolTimeout. Those timeouts are per read, so each part of a call (the request, the headers, the body)
    also has a deadline, which its `Connection` keeps. The body is streamed under a size limit and never inflated: a few
    hundred bytes can become a gigabyte. Redirects are not followed: credentials would go with them. Cookies are not
    kept. `blip` is how many seconds a refused connection is tried again at once; anything longer is for the ledger to
    remember. What time it is over there can be told from its answers: see `now`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connections: int = 8,
        timeout: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
        blip: float = 1.0,
    ) -> None:
        self.base_url = base_url
        self.timeout = timeout
        self.gate: Gate = _no_gate
        self._headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
        self._connections = connections
        self._transport = transport
        self._clock = clock
        self._elapsed = elapsed
        self._blip = blip
        self._slots = asyncio.Semaphore(connections)
        self._client = self._build()
        self._their_clock: float | None = None
        self.has_heard = False

    @property
    def longest_call(self) -> float:
        """Seconds after which a call has certainly ended, whatever the other side does."""
        # For a slot, to connect, to encrypt, to write, for the headers, and for the body.
        return self.timeout * 6 + self._blip

    def now(self) -> float:
        """The other side's time, epoch seconds, early by up to a second: what its last answer was dated, and what has
        gone by since on a clock that nobody sets. Our own time until there was an answer (`has_heard`) that said it."""
        return self._clock() if self._their_clock is None else self._their_clock + self._elapsed()

    def _hear(self, date: str | None) -> None:
        self.has_heard = True
        if date is None or (told := _until(date, 0.0)) is None:
            return
        clock = told - self._elapsed()
        is_same = self._their_clock is not None and abs(clock - self._their_clock) < SAME_CLOCK
        # A date is cut to whole seconds and some way old: of those that agree, the latest is the closest.
        self._their_clock = max(clock, self._their_clock or clock) if is_same else clock

    def _build(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers=self._headers,
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=self._wire() if self._transport is None else self._transport,
            trust_env=False,
        )

    def _wire(self) -> httpx.AsyncHTTPTransport:
        """What httpx would build, but with connections that keep deadlines: it does not let one name the network."""
        context = httpx.create_ssl_context(trust_env=False)
        wire = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        wire._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=self._connections,
            max_keepalive_connections=self._connections,
            keepalive_expiry=KEEP_ALIVE,
            network_backend=Network(),
        )
        return wire

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one call, as soon as the pace allows. Any status is an Answer.

        Raises Unreachable when no whole answer came, Postponed when it is too late in the lease to send.
        """
        async with self._slots:
            await self.gate()
            self._check_time()
            request = self._client.build_request(
                method, path, json=json, params=params, content=content, headers=headers
            )
            last = "body" if request.content else "headers"
            request.extensions["trace"] = partial(self._watch, f"http11.send_request_{last}.started")
            used = self._client
            try:
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception_type((httpx.ConnectError, httpx.RemoteProtocolError))
                    if method in ("GET", "PUT")
                    else retry_if_exception_type(httpx.ConnectError),
                    stop=stop_after_delay(self._blip),
                    wait=wait_random(0.05, 0.2),
                    reraise=True,
                ):
                    with attempt:
                        return await self._answer(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                raise NotSent(f"no connection ({type(error).__name__})") from error
            except httpx.PoolTimeout as error:
                if self._client is used:
                    self._client = self._build()
                    await used.aclose()
                raise NotSent("no free connection") from error
            except httpx.TimeoutException as error:
                raise Unreachable(f"timed out ({type(error).__name__})") from error
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # the latter for where a redirect leads
                raise Unreachable(f"no answer ({type(error).__name__})") from error
        raise AssertionError("unreachable")  # pragma: no cover

    def _check_time(self) -> None:
        if self._clock() > send_by.get():
            raise Postponed("it was too late in the lease to send")

    async def _watch(self, last: str, event: str, _info: object) -> None:
        """Look at the time once more when the last part of a request is about to leave, without which it has no effect.

        To connect may have taken long, and a machine may have stood still meanwhile. And each part gets its deadline.
        """
        if event == last:
            self._check_time()
        if event in PARTS:
            over_by.set(time.monotonic() + self.timeout)

    async def _answer(self, request: httpx.Request) -> Answer:
        response = await self._client.send(request, stream=True)
        try:
            if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
                raise Unreachable("the answer was compressed although we asked for none")
            body = b"".join([chunk async for chunk in self._limited(response)])
        finally:
            await response.aclose()
        self._hear(response.headers.get("date"))
        return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body)

    async def _limited(self, response: httpx.Response) -> AsyncIterator[bytes]:
        deadline = time.monotonic() + self.timeout
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > ANSWER_LIMIT:
                raise Unreachable("the answer was too large")
            if time.monotonic() > deadline:
                raise Unreachable("the answer came too slowly")
            yield chunk


def wait_hint(answer: Answer, now: float) -> float | None:
    """Seconds that the destination asks us to wait, in whichever of the known forms it says so. Never negative.

    Forms: `Retry-After` as seconds or as a date (RFC 9110 section 10.2.3), and a date in the text (Mailgun: "try again
    after …"). With a 429 also `x-sib-ratelimit-reset` (Brevo), `X-RateLimit-Reset` (Intercom, SendGrid) and
    `RateLimit-Reset`, each as seconds or as a unix time, and `X-HubSpot-RateLimit-Interval-Milliseconds`: they say
    when the window of a limit ends, with any answer, and a 503 is not over then.
    """
    hint = _hint(answer, now)
    return None if hint is None else min(max(hint, 0.0), LONGEST_HINT)


def _hint(answer: Answer, now: float) -> float | None:
    headers = answer.headers
    if (after := headers.get("retry-after")) is not None:
        seconds = _number(after)
        seconds = _until(after, now) if seconds is None else seconds
        if seconds is not None:
            return seconds
    if answer.status == 429:
        for name in ("x-sib-ratelimit-reset", "ratelimit-reset", "x-ratelimit-reset"):
            if (reset := _number(headers.get(name))) is not None:
                return reset - now if reset > A_TIME else reset
        if (ms := _number(headers.get("x-hubspot-ratelimit-interval-milliseconds"))) is not None:
            return ms / 1000
    if found := re.search(r"try again after (\w{3}, \d{1,2} \w{3} \d{4} [\d:]{8} \w{3})", answer.text[:4096]):
        return _until(found[1], now)
    return None


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*\d{1,300}(\.\d+)?\s*", text):
        return None
    return float(text)


def _until(text: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(text.replace(" UTC", " GMT"))
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime.fromtimestamp(now, UTC)).total_seconds()


def error_of(answer: Answer, now: float, *, reason: str | None = None) -> DeliveryError:
    """The error that a status means where the vendor has no better word: whose fault is it?"""
    said = reason or f"answered {answer.status}"
    after = wait_hint(answer, now)
    match answer.status:
        case 401 | 402 | 403:
            return Unauthorized(said, status=answer.status, after=after)
        case 429:
            return Throttled(said, status=answer.status, after=after)
        case 408 | 409 | 423 | 425:
            return Busy(said, status=answer.status, after=after)
        case 502 | 503 | 504 | 520 | 521 | 522 | 523 | 524 | 525 | 526 | 527 | 530:
            return Unreachable(said, status=answer.status, after=after)
        case status if status >= 500:
            return Broken(said, status=status, after=after)
        case status if 400 <= status < 500:
            return Refused(said, status=status)
        case status:
            return Broken(f"answered {status}, which means nothing here", status=status)
