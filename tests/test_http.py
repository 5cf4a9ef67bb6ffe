"""The one place that makes HTTP calls: limits, deadlines, wait hints, and what a status means."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync import http
from sync.errors import (
    Broken,
    Busy,
    NotSent,
    Refused,
    Throttled,
    Unauthorized,
    Unreachable,
)
from sync.http import LONGEST_HINT, Answer, Client, error_of, send_by, wait_hint
from tests.fakes.smtp import HERE, certificate

NOW = 1_750_000_000.25


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def answer(status: int = 429, body: bytes = b"", **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def dated(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)


SEVEN_FORMS = {
    "seconds": (answer(retry_after="30"), 30),
    "date": (answer(retry_after=dated(29.75)), 29.75),
    "brevo": (answer(x_sib_ratelimit_reset="12"), 12),
    "unix": (answer(x_ratelimit_reset=str(int(NOW) + 9)), 8.75),
    "delta": (answer(ratelimit_reset="4.5"), 4.5),
    "unix, under the name for a delta": (answer(ratelimit_reset=str(int(NOW) + 9)), 8.75),
    "hubspot": (answer(x_hubspot_ratelimit_interval_milliseconds="10000"), 10),
    "mailgun": (answer(body=b"limit exceeded, try again after Sun, 15 Jun 2025 15:08:00 UTC"), 79.75),
    "none": (answer(), None),
}


@pytest.mark.parametrize(("given", "seconds"), SEVEN_FORMS.values(), ids=SEVEN_FORMS)
def test_a_wait_hint_is_read_in_each_of_its_forms(given: Answer, seconds: float | None) -> None:
    assert wait_hint(given, NOW) == seconds


@pytest.mark.parametrize(
    "given",
    [
        answer(retry_after="9" * 30),
        answer(retry_after=dated(10 * 86400)),
        answer(x_sib_ratelimit_reset="999999"),
        answer(x_ratelimit_reset="9999999999999"),
    ],
)
def test_no_wait_hint_is_believed_beyond_a_day(given: Answer) -> None:
    assert wait_hint(given, NOW) == LONGEST_HINT


@pytest.mark.parametrize("given", [answer(retry_after=dated(-60)), answer(x_ratelimit_reset=str(int(NOW) - 60))])
def test_a_moment_that_is_past_means_now(given: Answer) -> None:
    assert wait_hint(given, NOW) == 0


NONSENSE = [
    "",
    "soon",
    "-5",
    "1e9",
    "NaN",
    "inf",
    "-" + "9" * 400,
    "9" * 400,
    "Mon, 99 Foo 2025 99:99:99 GMT",
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Mon, 01 Jan 2026 00:00:00 +9999999999999",
    "Mon, 01 Jan 2026 99999999999999999999:00:00 GMT",
    "99999999999999999999 Jan 2026 00:00:00 GMT",
]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_is_no_hint_and_hides_no_other(nonsense: str) -> None:
    assert wait_hint(answer(retry_after=nonsense), NOW) is None
    assert wait_hint(answer(retry_after=nonsense, ratelimit_reset="7"), NOW) == 7


WINDOWS = {
    "x_sib_ratelimit_reset": "3000",
    "ratelimit_reset": "3000",
    "x_ratelimit_reset": str(int(NOW) + 3000),
    "x_hubspot_ratelimit_interval_milliseconds": "10000",
}


@pytest.mark.parametrize("status", [402, 408, 500, 503])
@pytest.mark.parametrize("window", WINDOWS)
def test_the_end_of_a_window_is_a_hint_only_when_it_throttles(status: int, window: str) -> None:
    windows = {window: WINDOWS[window]}

    assert wait_hint(answer(status, **windows), NOW) is None
    assert wait_hint(answer(status, retry_after="5", **windows), NOW) == 5
    assert wait_hint(answer(429, **windows), NOW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Refused) for status in (400, 404, 405, 410, 413, 415, 422, 451)),
        *((status, Unauthorized) for status in (401, 402, 403)),
        (429, Throttled),
        *((status, Busy) for status in (408, 409, 423, 425)),
        *((status, Broken) for status in (500, 501, 505, 507, 511)),
        *((status, Unreachable) for status in (502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 530)),
        *((status, Broken) for status in (200, 204, 301, 302, 307)),
    ],
)
def test_a_status_says_whose_fault_it_is(status: int, kind: type) -> None:
    error = error_of(answer(status), NOW)

    assert type(error) is kind
    assert error.status == status


@pytest.mark.parametrize("status", [401, 409, 429, 500, 503])
def test_a_wait_hint_goes_with_the_error(status: int) -> None:
    error = error_of(answer(status, retry_after="5"), NOW, reason="said so")

    assert getattr(error, "after", None) == 5
    assert error.reason == "said so"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_is_not_json_is_none(body: bytes) -> None:
    assert Answer(200, {}, body).json() is None


class Chunks(httpx.AsyncByteStream):
    def __init__(self, *chunks: bytes, pause: float = 0.0) -> None:
        self.chunks, self.pause, self.read = chunks, pause, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            await asyncio.sleep(self.pause)
            self.read += 1
            yield chunk


def client(handler: Any, **settings: Any) -> Client:
    return Client("https://api.example.com", transport=httpx.MockTransport(handler), clock=lambda: NOW, **settings)


async def test_an_answer_that_is_too_large_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_LIMIT", 10)
    stream = Chunks(*[b"123456"] * 5)

    with pytest.raises(Unreachable, match="too large"):
        await client(lambda request: httpx.Response(200, stream=stream)).call("GET", "/")

    assert stream.read == 2


async def test_an_answer_that_comes_drop_by_drop_is_given_up() -> None:
    stream = Chunks(*[b"."] * 50, pause=0.01)

    with pytest.raises(Unreachable, match="too slowly"):
        await client(lambda request: httpx.Response(200, stream=stream), timeout=0.05).call("GET", "/")

    assert stream.read < 50


async def test_an_answer_is_given_whole_with_lower_case_headers() -> None:
    there = client(lambda request: httpx.Response(418, headers={"X-Tea": "Pot"}, text="short"))

    found = await there.call("POST", "/brew", json={"a": 1})

    assert (found.status, found.headers["x-tea"], found.text, found.is_success) == (418, "Pot", "short", False)


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"Location": "https://evil.example.com/"})

    found = await client(handler, headers={"Authorization": "Bearer secret"}).call("POST", "/")

    assert found.status == 307
    assert seen == ["api.example.com"]


@pytest.mark.parametrize(
    "location",
    ["http://xn--a/", "http://[::1", "http://" + "a" * 70_000, "\0"],
    ids=lambda location: location[:20],
)
async def test_a_redirect_to_nonsense_is_no_answer(location: str) -> None:
    there = client(lambda request: httpx.Response(302, headers={"Location": location}), blip=0)

    with pytest.raises(Unreachable, match="no answer"):
        await there.call("POST", "/")


async def test_an_answer_that_was_compressed_is_refused_before_it_is_inflated() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream)

    stream = Chunks(gzip.compress(b"0" * 100_000))
    with pytest.raises(Unreachable, match="compressed although we asked for none"):
        await client(handler).call("GET", "/")

    assert asked == ["identity"]
    assert stream.read == 0


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_an_answer_that_says_it_is_not_compressed_is_read(encoding: str) -> None:
    there = client(lambda request: httpx.Response(200, headers={"Content-Encoding": encoding}, text="plain"))

    assert (await there.call("GET", "/")).text == "plain"


async def test_no_cookie_is_kept() -> None:
    seen: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("cookie"))
        return httpx.Response(200, headers={"Set-Cookie": "session=1; Path=/"})

    there = client(handler)
    await there.call("GET", "/")
    await there.call("GET", "/")

    assert seen == [None, None]


async def test_nothing_leaves_after_the_time_to_send_by() -> None:
    sent: list[httpx.Request] = []
    token = send_by.set(NOW - 0.01)
    try:
        with pytest.raises(Busy, match="too late"):
            await client(sent.append).call("GET", "/")
    finally:
        send_by.reset(token)

    assert sent == []


async def test_a_call_waits_at_the_gate() -> None:
    order: list[str] = []

    async def gate() -> None:
        order.append("gate")

    def handler(request: httpx.Request) -> httpx.Response:
        order.append("call")
        return httpx.Response(200)

    there = client(handler)
    there.gate = gate
    await there.call("GET", "/")

    assert order == ["gate", "call"]


async def test_the_time_to_send_by_is_looked_at_after_the_gate() -> None:
    token = send_by.set(NOW + 1)
    now = [NOW]

    async def gate() -> None:
        now[0] += 2

    def answering(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    there = Client("https://api.example.com", transport=httpx.MockTransport(answering), clock=lambda: now[0])
    there.gate = gate
    try:
        with pytest.raises(Busy):
            await there.call("GET", "/")
    finally:
        send_by.reset(token)


@pytest.mark.parametrize("body", [None, {"a": 1}])
async def test_what_took_too_long_to_connect_does_not_leave(body: Any) -> None:
    times, heard = iter([NOW]), bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    here = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", clock=lambda: next(times, NOW + 2))
    token = send_by.set(NOW + 1)
    try:
        with pytest.raises(Busy, match="too late"):
            await here.call("POST" if body else "GET", "/notes", json=body)
    finally:
        send_by.reset(token)
    await here.aclose()
    server.close()
    await server.wait_closed()

    assert b'{"a"' not in heard
    assert heard == b"" or body


class Failing(httpx.AsyncBaseTransport):
    """Fails as often as told, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return httpx.Response(200)

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_full_pool_gets_the_client_replaced() -> None:
    wire = Failing(httpx.PoolTimeout("full"))
    there = Client("https://api.example.com", transport=wire)
    before = there._client

    with pytest.raises(Unreachable, match="no free connection"):
        await there.call("GET", "/")

    assert there._client is not before
    assert before.is_closed
    assert (await there.call("GET", "/")).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_blips_is_tried_again(method: str) -> None:
    wire = Failing(httpx.ConnectError("blip"))

    assert (await Client("https://api.example.com", transport=wire).call(method, "/")).status == 200
    assert wire.calls == 2


async def test_what_may_have_been_taken_is_not_sent_again() -> None:
    wire = Failing(httpx.RemoteProtocolError("cut off"))

    with pytest.raises(Unreachable, match="RemoteProtocolError"):
        await Client("https://api.example.com", transport=wire).call("POST", "/")

    assert wire.calls == 1


@pytest.mark.parametrize("error", [httpx.ReadTimeout("x"), httpx.ConnectTimeout("x"), httpx.ReadError("x")])
async def test_no_answer_is_unreachable(error: httpx.HTTPError) -> None:
    with pytest.raises(Unreachable) as raised:
        await Client("https://api.example.com", transport=Failing(error)).call("GET", "/")

    assert raised.value.__cause__ is error


async def test_never_more_calls_at_once_than_connections() -> None:
    running, most = 0, 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        return httpx.Response(200)

    there = client(handler, connections=2)
    await asyncio.gather(*(there.call("GET", "/") for _ in range(7)))

    assert most == 2


# The other side, over a real wire


class Endless:
    """A server on loopback whose answers never end, until it is told to be kind. `open`: what nobody has closed yet."""

    def __init__(self, first: bytes, more: bytes, pause: float) -> None:
        self.first, self.more, self.pause = first, more, pause
        self.is_kind = False
        self.calls = self.open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.calls += 1
                if self.is_kind:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nkind")
                    continue
                writer.write(self.first)
                while not reader.at_eof():
                    writer.write(self.more)
                    await writer.drain()
                    await asyncio.sleep(self.pause)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


ENDLESS = {
    "a status line that drips": (b"HTTP/1.1 200 ", b"O", 0.01),
    "headers that drip": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"o", 0.01),
    "one header after the other": (b"HTTP/1.1 200 OK\r\n", b"X-Again: 1\r\n", 0.01),
    "1xx answers that drip": (b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.01),
    "1xx answers in a flood": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, 0.0),
    "the head of a chunk that drips": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"o", 0.01),
    "trailers that drip": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ", b"o", 0.01),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "pair.pem"
    path.write_text(certificate(*HERE))
    return path


ENCRYPTED = ("headers that drip", "1xx answers in a flood")


@pytest.mark.parametrize(
    ("scheme", "kind"), [*(("http", kind) for kind in ENDLESS), *(("https", kind) for kind in ENCRYPTED)]
)
async def test_an_answer_without_end_ends_and_gives_its_connection_back(
    scheme: str, kind: str, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, tls = Endless(*ENDLESS[kind]), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair)
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: ssl.create_default_context(cafile=pair))
    server = await asyncio.start_server(there, "127.0.0.1", 0, ssl=tls if scheme == "https" else None)
    port = server.sockets[0].getsockname()[1]
    here = Client(f"{scheme}://127.0.0.1:{port}", connections=2, timeout=0.3, clock=lambda: NOW)
    before = here._client

    async def ask() -> None:
        with pytest.raises(Unreachable, match=r"timed out \(ReadTimeout\)") as raised:
            await here.call("POST", "/", json={"a": 1})
        assert raised.value.may_have_landed

    async with asyncio.timeout(4 * here.longest_call):
        await asyncio.gather(*(ask() for _ in range(4 * 2)))
        there.is_kind = True
        answers = await asyncio.gather(*(here.call("POST", "/") for _ in range(6)))
        while there.open > 2:
            await asyncio.sleep(0.01)

    assert {answer.text for answer in answers} == {"kind"}
    assert (there.calls, here._client is before) == (14, True)
    await here.aclose()
    server.close()
    await server.wait_closed()


async def test_each_part_of_a_call_may_take_its_time() -> None:
    sent = b"x" * (16 << 20)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(sent))
        for part in (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 4\r\n\r\n", b"sl", b"ow"):
            await asyncio.sleep(0.3)
            writer.write(part)
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    here = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.9)

    assert (await here.call("POST", "/", content=sent)).text == "slow"
    await here.aclose()
    server.close()
    await server.wait_closed()


async def test_a_pool_without_a_free_connection_is_replaced_by_one_that_works() -> None:
    there = Endless(*ENDLESS["headers that drip"])
    server = await asyncio.start_server(there, "127.0.0.1", 0)
    here = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections=1, timeout=0.3)
    here._slots = asyncio.Semaphore(2)
    first = asyncio.create_task(here.call("POST", "/"))
    await asyncio.sleep(0.1)
    here.timeout = here._client.timeout = 0.1
    async with asyncio.timeout(5):
        with pytest.raises(NotSent, match="no free connection"):
            await here.call("POST", "/")
        with pytest.raises(Unreachable):
            await first
        there.is_kind = True
        assert (await here.call("POST", "/")).text == "kind"
        there.is_kind = False
        with pytest.raises(Unreachable, match="ReadTimeout"):
            await here.call("POST", "/")
    await here.aclose()
    server.close()
    await server.wait_closed()


# What time it is over there


class Hands:
    """Their clock, which dates answers in whole seconds, and one here that nobody sets."""

    def __init__(self) -> None:
        self.theirs: float | None = NOW + 500
        self.elapsed = 1000.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={} if self.theirs is None else {"Date": dated(int(self.theirs) - NOW)})

    def go(self, seconds: float, theirs: float | None = None) -> None:
        self.elapsed += seconds
        self.theirs = None if self.theirs is None else self.theirs + (seconds if theirs is None else theirs)


def told(hands: Hands) -> Client:
    return client(hands, elapsed=lambda: hands.elapsed)


async def test_their_time_is_ours_until_they_have_dated_an_answer() -> None:
    hands = Hands()
    hands.theirs = None
    here = told(hands)

    assert (here.now(), here.has_heard) == (NOW, False)
    await here.call("GET", "/")
    assert (here.now(), here.has_heard) == (NOW, True)


async def test_their_time_goes_on_between_their_answers_and_comes_close_to_it() -> None:
    hands = Hands()
    here = told(hands)
    for _ in range(40):
        await here.call("GET", "/")
        assert hands.theirs is not None
        assert hands.theirs - 1 <= here.now() <= hands.theirs
        hands.go(0.13)

    assert hands.theirs - here.now() < 0.13


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
async def test_their_clock_may_be_set_too(jump: float) -> None:
    hands = Hands()
    here = told(hands)
    await here.call("GET", "/")
    hands.go(1, theirs=1 + jump)
    await here.call("GET", "/")

    assert hands.theirs is not None
    assert hands.theirs - 1 <= here.now() <= hands.theirs


async def test_a_date_that_is_none_says_nothing() -> None:
    here = client(lambda request: httpx.Response(200, headers={"Date": "yesterday"}))
    await here.call("GET", "/")

    assert here.now() == NOW
