"""Whatever is sent, nothing breaks, nothing authentic is lost, and nobody else's webhook sinks with it.

`scripts/test tests/test_fuzz.py --fuzz 20000 --fuzz-seed 7` is a long run: so many bodies are read, an eighth as many
groups of up to nine webhooks go through the whole service, and a tenth of those through one on PostgreSQL. The same
count and seed make the same webhooks again.
"""

import asyncio
import logging
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from sync.cleaning import ATTRIBUTE_LIMIT, EMAIL_LIMIT, MESSAGE_LIMIT, NAME_LIMIT, PHONE_LIMIT, body_of
from sync.destinations.hubspot.mapping import properties_of
from sync.destinations.hubspot.settings import NAMES
from sync.destinations.webhook import WebhookSettings
from sync.errors import NotForHere
from sync.identity import World, fold
from sync.ledger import applying
from sync.ledger.checking import check
from sync.ledger.rows import chat_of, contact_of
from sync.models import Chat, Contact, Event, EventState, EventType, Owed, Receipt
from sync.settings import load
from sync.sources.acquire import NAME_LIMIT as EVENT_NAME_LIMIT
from sync.sources.acquire import Acquire, AcquireSettings
from sync.sources.acquire.dates import NEWEST, OLDEST
from sync.sources.acquire.person import KEY_LIMIT, MOST_ATTRIBUTES
from sync.sources.acquire.reading import ID_LIMIT, LONGEST, MOST_FLAGS
from sync.sources.acquire.signature import is_signed
from sync.wiring import connect
from tests.databases import Server, select
from tests.fakes.webhook import Receiver
from tests.fuzzing import SECRET, SIGNATURES, TOKEN, Hostile, Proof, bodies, sign, webhooks
from tests.people import NOON, Clock
from tests.running import Running, running, start

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # a failure shows what was sent

PER_GROUP = 8
BODY_LIMIT = 200_000
PREFIXED_ID_LIMIT = len("v1:") + ID_LIMIT
FLAG_LIMIT = 200
AS_TYPED = {"email_as_typed", "phone_as_typed"}
POISONS = (ZeroDivisionError, UnicodeEncodeError, RecursionError, KeyError, MemoryError)
GOOD = 3
NEVER = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""The classes Cc and Cs."""


@dataclass(frozen=True)
class Fuzz:
    """How often to try, from which seed on; what fails says how to repeat it."""

    count: int
    seed: int
    test: str

    def try_all(self, strategy: st.SearchStrategy[Any], property: Callable[[Any], None], *, one_in: int = 1) -> None:
        """Let a property hold for everything that a strategy makes."""
        tries = settings(
            max_examples=max(1, self.count // one_in),
            database=None,
            deadline=None,
            derandomize=False,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        )
        try:
            seed(self.seed)(tries(given(strategy)(property)))()
        except BaseException as error:
            error.add_note(f"To repeat: scripts/test '{self.test}' --fuzz {self.count} --fuzz-seed {self.seed}")
            raise


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Iterator[Fuzz]:
    quiet = structlog.get_config()["logger_factory"]
    logging.disable(logging.CRITICAL)  # pytest would hold every record of a long run
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield Fuzz(request.config.getoption("--fuzz"), request.config.getoption("--fuzz-seed"), request.node.nodeid)
    structlog.configure(logger_factory=quiet)
    logging.disable(logging.NOTSET)


# The parser


@cache
def source() -> Acquire:
    return Acquire(AcquireSettings(), digest=lambda content: sign(content).decode(), phone_region="US")


def read(body: bytes, event_id: str = "ev_1", received_at: float = NOON) -> Event:
    return source().read(body, event_id=event_id, received_at=received_at)


def test_whatever_is_read_is_clean_bounded_and_read_the_same_again(fuzz: Fuzz) -> None:
    seen: Counter[str] = Counter()

    def property(body: bytes) -> None:
        event = read(body)
        seen["unreadable" if event.error else event.type] += 1
        it_gives_back_its_bytes(event, body)
        it_is_read_the_same_again(event, body)
        it_is_clean(event)
        it_is_bounded(event)
        it_is_understood_or_says_why(event)

    fuzz.try_all(bodies, property)

    print(f"bodies: {dict(seen)}")
    assert fuzz.count < 800 or set(seen) >= {"unreadable", EventType.START, EventType.MESSAGE, EventType.CLOSE}


def test_a_signature_proves_its_own_body_and_no_other(fuzz: Fuzz) -> None:
    def property(body: bytes) -> None:
        assert is_signed(body, sign(body).decode(), SECRET)
        assert not any(is_signed(body, wrong.decode("latin-1"), SECRET) for wrong in SIGNATURES)

    fuzz.try_all(bodies, property, one_in=4)


def it_gives_back_its_bytes(event: Event, body: bytes) -> None:
    assert body_of(event.payload) == body
    assert "\x00" not in event.payload


def it_is_read_the_same_again(event: Event, body: bytes) -> None:
    assert read(body) == event
    assert read(body, "ev_2", NOON + 86400).key == event.key


def it_is_clean(event: Event) -> None:
    lines = [message.text for message in event.news.messages] if event.news else []
    others = replace(event, payload="", news=event.news and replace(event.news, messages=()))
    senders = [(message.id, message.name) for message in event.news.messages] if event.news else []

    assert not any(map(NEVER.search, _texts([asdict(others), senders])))
    assert not any(NEVER.search(text.replace("\n", "").replace("\t", "")) for text in lines)


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            yield from _texts(list(value.items()))
        case list() | tuple():
            for part in value:
                yield from _texts(part)


def it_is_bounded(event: Event) -> None:
    fits(event.name, EVENT_NAME_LIMIT)
    fits(event.chat, PREFIXED_ID_LIMIT)
    fits(event.error, FLAG_LIMIT)
    assert len(event.flags) <= MOST_FLAGS
    for flag in event.flags:
        fits(flag, FLAG_LIMIT)
    assert event.occurred_at == event.received_at or OLDEST <= event.occurred_at < NEWEST
    visitor, news = event.visitor, event.news
    if visitor is not None:
        fits(visitor.name, NAME_LIMIT)
        fits(visitor.email, EMAIL_LIMIT)
        fits(visitor.phone, PHONE_LIMIT)
        fits(visitor.visitor_id, PREFIXED_ID_LIMIT)
        assert len(visitor.attributes.keys() - AS_TYPED) <= MOST_ATTRIBUTES
        for key, value in visitor.attributes.items():
            fits(key, KEY_LIMIT)
            fits(value, ATTRIBUTE_LIMIT)
    if news is not None:
        fits(news.agent, NAME_LIMIT)
        assert all(span is None or 0 <= span <= LONGEST for span in (news.wait, news.duration))
        times = [news.started_at, news.accepted_at, news.closed_at, *(message.at for message in news.messages)]
        assert all(at is None or (math.isfinite(at) and OLDEST <= at < NEWEST) for at in times)
        for message in news.messages:
            fits(message.id, ID_LIMIT)
            fits(message.name, NAME_LIMIT)
            fits(message.text, MESSAGE_LIMIT)


def fits(text: str | None, limit: int) -> None:
    assert text is None or len(text) <= limit
    assert text is None or text == text.strip()


def it_is_understood_or_says_why(event: Event) -> None:
    assert "could not be understood" not in (event.error or ""), "reading is total without its safety net"
    if event.error is not None:
        assert event.error
        assert (event.type, event.chat, event.visitor, event.news) == (EventType.OTHER, None, None, None)


# The service


@dataclass(frozen=True)
class Group:
    """Webhooks that come at once. The good ones stand between the hostile ones; some of these cannot be folded."""

    hostile: Sequence[Hostile]
    poisons: Sequence[type[Exception] | None]

    @property
    def poisonous(self) -> dict[bytes, type[Exception]]:
        """What folding a body raises."""
        pairs = zip(self.hostile, self.poisons, strict=True)
        return {one.body: poison for one, poison in pairs if poison is not None}


@st.composite
def groups(draw: st.DrawFn) -> Group:
    hostile = draw(st.lists(webhooks(), min_size=1, max_size=PER_GROUP))
    if draw(st.sampled_from([False, False, True])):
        hostile.append(replace(draw(st.sampled_from(hostile)), proof=Proof.TOKEN, headers=()))
    poison = st.sampled_from([None] * 40 + [*POISONS])
    return Group(hostile, [draw(poison) for _ in hostile])


@dataclass
class Sent:
    """A hostile webhook and its answers: of the first time, and of the second, later and alone."""

    hostile: Hostile
    first: httpx.Response
    again: httpx.Response

    @property
    def is_stored(self) -> bool:
        return self.first.status_code == 200


@pytest.fixture
def makes_databases(engine: str, request: pytest.FixtureRequest) -> Callable[[], Any]:
    @contextmanager
    def of_file() -> Iterator[None]:
        yield None

    @contextmanager
    def of_server() -> Iterator[str]:
        server: Server = request.getfixturevalue("server")
        url = server.database()
        yield url
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {url.split('?')[0].rsplit('/', 1)[1]}")

    return of_file if engine == "sqlite" else of_server


@pytest.mark.parametrize(("engine", "one_in"), [("sqlite", PER_GROUP), ("postgresql", 10 * PER_GROUP)])
def test_whatever_is_sent_nothing_breaks_and_nothing_is_lost(
    fuzz: Fuzz, makes_databases: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, one_in: int
) -> None:
    monkeypatch.setenv("ACQUIRE_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("ACQUIRE_URL_TOKEN", TOKEN)
    monkeypatch.setenv("WEBHOOK_URL", "http://127.0.0.1:8902/in")
    monkeypatch.setenv("SANDBOX_FIELDS", '{"remarks": "message", "city": "city"}')
    seen: Counter[str] = Counter()

    async def story(group: Group) -> None:
        with makes_databases() as database, TemporaryDirectory() as folder:
            async with running(Path(folder), database=database, body_limit=BODY_LIMIT) as service:
                seen.update(await happens(service, group))

    fuzz.try_all(groups(), lambda group: asyncio.run(story(group)), one_in=one_in)

    print(f"webhooks: {dict(seen)}")
    expected = {"accepted", "unreadable", "401", "413", "applied", "delivered"}
    assert fuzz.count < 800 or one_in > PER_GROUP or set(seen) >= expected


async def happens(service: Running, group: Group) -> Counter[str]:
    """Everything that a group goes through, and every promise that has to hold."""
    with poisoned(group.poisonous):
        good, firsts = await together(service, group.hostile)
        service.clock.sleep(1)
        sent = [Sent(one, first, await post(service, one)) for one, first in zip(group.hostile, firsts, strict=True)]
    events = {row["id"]: row for row in select(service.ledger, "SELECT * FROM events")}

    no_good_one_sank(good, events)
    every_answer_is_the_documented_one(sent)
    nothing_authentic_is_lost(sent, events, group.poisonous)
    nothing_else_is_stored(sent, good, events)
    a_redelivery_is_a_duplicate(sent, events)
    the_ledger_is_sound(service)
    deliveries = await delivered(service)
    every_good_one_is_right(service)
    every_delivery_ended_with_a_reason(deliveries)
    the_ledger_is_sound(service)
    await every_destination_can_say_it(service)
    return Counter(
        [one.first.json().get("status", str(one.first.status_code)) for one in sent]
        + [row["state"] for row in events.values()]
        + [row["state"] for row in deliveries]
    )


@contextmanager
def poisoned(poisonous: dict[bytes, type[Exception]]) -> Iterator[None]:
    """Folding some bodies raises, as a mistake of ours would."""

    def fold_or_raise(world: World, event: Event) -> None:
        if poison := poisonous.get(body_of(event.payload)):
            raise poison("utf-8", "x", 0, 1, "boom") if poison is UnicodeEncodeError else poison("boom")
        fold(world, event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "fold", fold_or_raise)
        yield


async def together(service: Running, hostile: Sequence[Hostile]) -> tuple[list[httpx.Response], list[httpx.Response]]:
    """Send all at once, the good ones first, last and between; all of them share one commit."""
    writer = service.service.writer
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        begun.set()
        go_on.wait()

    holding = asyncio.ensure_future(writer.do(hold))
    while not begun.is_set():
        await asyncio.sleep(0)
    places = [0, len(hostile) // 2, len(hostile)]
    posts: list[asyncio.Task[httpx.Response]] = []
    good = []
    for place in range(len(hostile) + 1):
        for n in (n for n, at in enumerate(places) if at == place):
            good.append(asyncio.create_task(service.post(a_good_one(n), f"/webhooks/acquire/{TOKEN}")))
        if place < len(hostile):
            posts.append(asyncio.create_task(post(service, hostile[place])))
    try:
        while writer._jobs.qsize() < sum(not task.done() for task in (*good, *posts)):
            await asyncio.sleep(0)
    finally:
        go_on.set()
    await holding
    return list(await asyncio.gather(*good)), list(await asyncio.gather(*posts))


def a_good_one(n: int) -> dict[str, Any]:
    return start(7_000_000 + n, address(n), f"Good{n}")


def address(n: int) -> str:
    return f"good{n}@fuzz.example.com"


async def post(service: Running, one: Hostile) -> httpx.Response:
    async def pieces() -> Any:
        for piece in one.pieces():
            yield piece

    content = pieces() if one.chunk else one.body
    return await service.client.post(one.path, content=content, headers=list(one.headers))


def expected_status(one: Hostile) -> int:
    """What the README and the decisions promise to answer."""
    is_hopeless = one.proof in (Proof.NOTHING, Proof.WRONG_TOKEN)
    declared = one.declared or b"0"
    is_length = re.fullmatch(rb"[0-9]{1,18}", declared) is not None
    is_too_large = len(one.body) > BODY_LIMIT or not is_length or int(declared) > BODY_LIMIT
    if is_hopeless or (not is_too_large and not one.is_authentic):
        return 401
    return 413 if is_too_large else 200


def every_answer_is_the_documented_one(sent: Sequence[Sent]) -> None:
    for one in sent:
        for answer in (one.first, one.again):
            assert answer.status_code == expected_status(one.hostile)
            assert answer.headers["content-type"] == "application/json"
            said = answer.json()
            if answer.status_code == 200:
                assert set(said) == {"status", "event"}
                assert said["status"] in ("accepted", "duplicate", "unreadable")
            else:
                assert set(said) == {"error"}


def nothing_authentic_is_lost(
    sent: Sequence[Sent], events: dict[str, Any], poisonous: dict[bytes, type[Exception]]
) -> None:
    for one in filter(lambda one: one.is_stored, sent):
        said = one.first.json()
        row = events[said["event"]]
        assert row["state"] in set(EventState)
        assert (row["state"] == EventState.UNREADABLE) == bool(row["error"])
        if said["status"] == "duplicate":
            continue
        assert body_of(row["payload"]) == one.hostile.body
        assert (said["status"] == "unreadable") == (row["state"] == EventState.UNREADABLE)
        if "could not be applied" in (row["error"] or ""):
            assert one.hostile.body in poisonous
            assert row["error"] == f"could not be applied ({poisonous[one.hostile.body].__name__})"


def nothing_else_is_stored(sent: Sequence[Sent], good: Sequence[httpx.Response], events: dict[str, Any]) -> None:
    answered = [answer.json()["event"] for answer in good if answer.status_code == 200]
    answered += [answer.json()["event"] for one in sent if one.is_stored for answer in (one.first, one.again)]

    assert {row["id"]: row["copies"] for row in events.values()} == Counter(answered)


def a_redelivery_is_a_duplicate(sent: Sequence[Sent], events: dict[str, Any]) -> None:
    for one in filter(lambda one: one.is_stored, sent):
        assert one.again.json() == {"status": "duplicate", "event": one.first.json()["event"]}


def the_ledger_is_sound(service: Running) -> None:
    assert check(service.ledger.engine) == []


def no_good_one_sank(good: Sequence[httpx.Response], events: dict[str, Any]) -> None:
    assert [answer.status_code for answer in good] == [200] * GOOD
    assert [answer.json()["status"] for answer in good] == ["accepted"] * GOOD
    assert {events[answer.json()["event"]]["state"] for answer in good} == {EventState.APPLIED}


def every_good_one_is_right(service: Running) -> None:
    found = select(service.ledger, "SELECT name, email FROM contacts WHERE email LIKE '%@fuzz.example.com'")
    assert {row["email"]: row["name"] for row in found} == {address(n): f"Good{n}" for n in range(GOOD)}
    assert len(found) == GOOD
    assert [service.crm.contacts[address(n)]["firstname"] for n in range(GOOD)] == [f"Good{n}" for n in range(GOOD)]


async def delivered(service: Running) -> list[dict[str, Any]]:
    """Deliver until nothing is pending."""
    for _ in range(20):
        await service.drain()
        found = select(service.ledger, "SELECT * FROM deliveries")
        if all(row["state"] != "pending" for row in found):
            break
        service.clock.sleep(400)
    return found


def every_delivery_ended_with_a_reason(deliveries: Sequence[dict[str, Any]]) -> None:
    assert [row for row in deliveries if "unexpected" in (row["error"] or "")] == []
    assert [row for row in deliveries if row["state"] not in ("delivered", "ignored", "dead")] == []
    assert [row for row in deliveries if row["state"] == "ignored" and not row["error"]] == []
    # What is an address by the standard may be none to a CRM. It says so; for anything else nobody may be refused.
    assert [row for row in deliveries if row["state"] == "dead" and "INVALID_EMAIL" not in row["error"]] == []


async def every_destination_can_say_it(service: Running) -> None:
    contacts = [contact_of(row) for row in select(service.ledger, "SELECT * FROM contacts")]
    chats = [chat_of(row) for row in select(service.ledger, "SELECT * FROM chats")]
    for contact in contacts:
        names = {**NAMES, **{field: f"property_{n}" for n, field in enumerate(contact.attributes)}}
        said = properties_of(contact, names)
        assert all(said.values())
        assert said.get("email") == contact.email
        assert said.get("phone") == contact.phone
    receiver = Receiver()
    webhook = connect("webhook", load(WebhookSettings), clock=Clock(), transport=httpx.ASGITransport(receiver))
    results = await webhook.upsert([_owed(contact, contact.id) for contact in contacts], _no_intent)
    logged = [await webhook.log(_owed_chat(chat), _no_intent) for chat in chats]
    await webhook.client.aclose()

    assert [type(result) for result in results] == [
        Receipt if contact.is_reachable else NotForHere for contact in contacts
    ]
    assert {uid: data["attributes"] for uid, data in receiver.contacts.items()} == {
        contact.uid: dict(contact.attributes) for contact in contacts if contact.is_reachable
    }
    assert len(logged) == len(receiver.chats) == len({chat.chat for chat in chats})


def _owed(contact: Contact, delivery: str) -> Owed[Contact]:
    return Owed(delivery=delivery, subject=contact, version=contact.version)


def _owed_chat(chat: Chat) -> Owed[Chat]:
    return Owed(delivery=chat.id, subject=chat, version=chat.version, contact_remote_id=str(chat.contact))


async def _no_intent(deliveries: Sequence[str]) -> None:
    raise AssertionError("a webhook announces nothing")
