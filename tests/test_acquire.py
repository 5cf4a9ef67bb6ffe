"""Acquire's webhooks: every recorded one becomes what its sample says, and no body whatsoever makes reading fail.

A sample is two files: `<name>.body`, the raw bytes, and `<name>.expect.json`, what they must become and why. An id that
is the event's own key stands there as "the event's key".
"""

import hashlib
import json
import unicodedata
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.cleaning import MOST_MARKS, body_of
from sync.errors import SettingsError
from sync.models import Event, EventType
from sync.settings import load
from sync.sources.acquire import Acquire, AcquireSettings
from sync.sources.acquire.dates import moment, zone

SAMPLES = Path(__file__).parent / "samples" / "acquire"
NAMES = sorted(path.name.removesuffix(".body") for path in SAMPLES.glob("*.body"))
RECEIVED_AT = datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp()
TIMES = ("started_at", "accepted_at", "closed_at")

quickly = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def acquire(timezone: str = "UTC") -> Acquire:
    return Acquire(AcquireSettings(_env_file=None, timezone=timezone), digest=digest, phone_region="US")


def read(body: bytes | dict, timezone: str = "UTC") -> Event:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return acquire(timezone).read(raw, event_id="event", received_at=RECEIVED_AT)


def body(name: str) -> bytes:
    return (SAMPLES / f"{name}.body").read_bytes()


def iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def told(event: Event) -> dict:
    """The event as its sample writes it: times as ISO, what was not said left out."""
    found = {"error": event.error} if event.error else {}
    found |= {"type": str(event.type), "name": event.name, "chat": event.chat, "occurred_at": iso(event.occurred_at)}
    if event.visitor:
        found["visitor"] = {field: value for field, value in asdict(event.visitor).items() if value}
    if event.news:
        news = asdict(event.news)
        news |= {field: iso(news[field]) for field in TIMES}
        news["messages"] = [line(message, event) for message in news["messages"]]
        found["news"] = {field: value for field, value in news.items() if value}
    found["flags"] = list(event.flags)
    return found | ({"payload": "base64"} if event.payload.startswith("base64:") else {})


def line(message: dict, event: Event) -> dict:
    own_id = {"id": "the event's key"} if message["id"] == event.key else {}
    return {**{field: value for field, value in message.items() if value}, "at": iso(message["at"]), **own_id}


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_webhook_becomes_what_its_sample_says(name):
    expected = json.loads((SAMPLES / f"{name}.expect.json").read_text(encoding="utf-8"))
    expected.pop("why")

    assert told(read(body(name), expected.pop("timezone", "UTC"))) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_payload_gives_back_every_byte(name):
    assert body_of(read(body(name)).payload) == body(name)


# No body makes reading fail, and nothing gets through that a database would refuse.


def texts(value):
    match value:
        case str():
            yield value
        case dict():
            yield from (text for pair in value.items() for part in pair for text in texts(part))
        case list() | tuple():
            yield from (text for part in value for text in texts(part))


def assert_sound(event: Event) -> None:
    content = {field: value for field, value in asdict(event).items() if field != "payload"}
    kept_out = {unicodedata.category(c) for text in texts(content) for c in text if c not in "\n\t"} & {"Cc", "Cs"}

    assert not kept_out
    assert "\x00" not in event.payload
    assert len(event.order.split("/")) == 4
    assert "could not be understood" not in (event.error or ""), "reading is total without its safety net"
    if event.error:
        assert (event.type, event.chat, event.visitor, event.news) == (EventType.OTHER, None, None, None)


@st.composite
def damaged(draw) -> bytes:
    """A recorded webhook with a piece of it replaced by anything."""
    original = body(draw(st.sampled_from(NAMES)))
    start = draw(st.integers(0, len(original)))
    end = min(len(original), start + draw(st.integers(0, 12)))
    return original[:start] + draw(st.binary(max_size=8)) + original[end:]


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(
    [
        "null",
        "-1",
        "1e400",
        "9" * 400,
        "2024-05-06 07:08:09",
        "9999-12-31T23:59:59+00:00",
        "0001-01-01",
        "{}",
        "[[",
        "\u0661",
    ]
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
READABLE = [name for name in NAMES if read(body(name)).error is None]


@st.composite
def misshapen(draw) -> dict:
    """A recorded webhook with one of its values, at any depth, replaced by any JSON."""
    document = json.loads(body(draw(st.sampled_from(READABLE))).decode("utf-8-sig"), strict=False)
    place = document
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], (dict, list)) and place[key] and draw(st.integers(0, 3))):
            break
        place = place[key]
    place[key] = draw(ANY_JSON)
    return document


@given(st.binary(max_size=80) | damaged() | ANY_JSON.map(lambda value: json.dumps(value).encode()))
@quickly
def test_no_bytes_make_reading_fail(anything):
    assert_sound(read(anything))


@given(misshapen())
@quickly
def test_no_json_makes_reading_fail(document):
    assert_sound(read(document))


@given(st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4), st.sampled_from(["details", "users", "message", "contact"]))
@quickly
def test_no_person_makes_reading_fail(person, field):
    names = {
        "details": "CHAT_ON_START",
        "users": "CHAT_ON_CLOSE",
        "message": "CHAT_ON_MESSAGE",
        "contact": "case:status",
    }
    part = {"users": {"visitor": person}, "contact": {"id": 5, "fields": person}}.get(field, person)
    document = {"event": names[field], "data": {"id": 1, "caseId": 1, field: part}}

    assert_sound(read(document))


@pytest.mark.parametrize("nested", [b"[" * 200_000, b'{"a":' * 100_000, b'{"event":"x","data":' + b"[" * 200_000])
def test_json_that_is_nested_too_deeply_is_unreadable(nested):
    event = read(nested)

    assert event.error == "the JSON is nested too deeply"
    assert event.key == digest(nested)


def test_json_inside_a_text_that_is_nested_too_deeply_is_left_out():
    event = read({"event": "CHAT_ON_CLOSE", "id": "7", "users": "[" * 200_000})

    assert event.error is None
    assert "users: looks like JSON inside a text, but cannot be parsed" in event.flags


def deep(levels: int, bracket: str = "[]") -> bytes:
    """A START with an email and one value that is nested."""
    nested = "[" * levels + "]" * levels if bracket == "[]" else '{"a":' * levels + "1" + "}" * levels
    details = f'{{"email": "ada@example.com", "x": {nested}, "fields": {{"y": {nested}}}}}'
    return f'{{"event": "CHAT_ON_START", "data": {{"id": 1, "details": {details}}}}}'.encode()


@pytest.mark.parametrize("bracket", ["[]", "{}"])
@pytest.mark.parametrize("levels", range(50, 750, 50))
def test_one_value_that_is_nested_too_deeply_costs_no_lead(levels, bracket):
    event = read(deep(levels, bracket))

    assert event.error is None
    assert event.visitor.email == "ada@example.com"
    assert len(event.visitor.attributes["x"]) >= levels


@pytest.mark.parametrize("levels", range(750, 1100))
def test_a_deeply_nested_value_is_kept_as_text_or_flagged_or_the_body_is_unreadable(levels):
    event = read(deep(levels))

    if event.error is None:
        assert "x" in event.visitor.attributes or "x: nested too deeply, left out" in event.flags
    else:
        assert event.error == "the JSON is nested too deeply"


def test_a_deeply_nested_value_still_tells_two_sayings_apart():
    assert read(deep(600)).key == read(deep(600)).key != read(deep(601)).key


def test_a_number_of_thousands_of_digits_is_unreadable():
    event = read(b'{"event": "CHAT_ON_START", "id": ' + b"1" * 5000 + b"}")

    assert event.error == "the JSON holds a number that is none (NaN, infinite or thousands of digits)"


def test_a_person_with_endless_attributes_is_cut_short():
    fields = {f"field {number}": "x" for number in range(500)}
    event = read({"event": "CHAT_ON_START", "data": {"id": 1, "details": fields}})

    assert len(event.visitor.attributes) == 100
    assert "more than 100 attributes, the rest was left out" in event.flags


ZALGO = "a" + "\u0327\u0301" * 5_000


@pytest.mark.parametrize(
    "document",
    [
        {"event": "CHAT_ON_MESSAGE", "id": 1, "message": {"msg": ZALGO, "user": {"name": ZALGO}}},
        {"event": "CHAT_ON_START", "data": {"id": 1, "details": {"name": ZALGO, ZALGO: ZALGO, "tags": [ZALGO]}}},
        {"event": "case:status", "data": {"caseId": ZALGO, "contact": {"id": 1}, "messages": [{"message": ZALGO}]}},
        {"event": "agent:login", "data": {"agent": ZALGO}},
        {"event": ZALGO, "data": {}},
    ],
)
def test_a_text_of_nothing_but_marks_is_never_normalized_at_its_full_length(document, monkeypatch):
    handed, normalize = [], unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", lambda form, text: handed.append(text) or normalize(form, text))
    event = read(document)

    assert event.error is None
    assert all(len(text) <= 1 + MOST_MARKS for text in handed)


def many(count: int, **changes) -> Event:
    """A case of many messages. `changes` are those of its last one."""
    rows = [{"id": number, "message": "x", "dateCreated": 1_700_000_000 + number} for number in range(count)]
    rows[-1] |= changes
    return read({"event": "case:status", "data": {"caseId": 1, "contact": {"id": 5}, "messages": rows}})


def test_a_case_of_endless_messages_is_cut_short_but_for_its_last():
    event = many(5_000)

    assert [message.id for message in event.news.messages] == [*map(str, range(1_999)), "4999"]
    assert event.occurred_at == 1_700_004_999
    assert event.flags == ("messages: more than 2000, the rest was left out",)


def test_messages_that_were_left_out_still_make_another_saying():
    last = {"id": "last", "dateCreated": 1_800_000_000}

    assert many(5_000, **last).key == many(5_000, **last).key != many(5_001, **last).key


def test_as_many_messages_as_are_read_are_all_read():
    assert len(many(2_000).news.messages) == 2_000
    assert many(2_000).flags == ()


def test_a_message_with_an_endless_id_gets_a_short_one():
    endless, other = many(1, id="9" * 1_000), many(1, id="9" * 999 + "8")

    assert len(endless.news.messages[0].id) <= 64
    assert endless.news.messages[0].id != other.news.messages[0].id


def test_flags_do_not_grow_without_limit():
    fields = {f"field {number}": "\x01x" for number in range(500)}
    event = read({"event": "CHAT_ON_START", "data": {"id": 1, "details": fields}})

    assert len(event.flags) <= 20


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, True, 10**400, 1e300, [], "", "soon", "0", "9" * 16),
        *("1970-01-01 00:00:00", "0001-01-01", "9999-12-31", "2024-02-30", "2024-05-06 25:00:00"),
        *("Mon Foo 06 2024 07:08:09 GMT+0000", "Mon May 06 2024 07:08:09 GMT+9900"),
    ],
)
@pytest.mark.parametrize("timezone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_what_is_no_date_of_this_age_is_none(value, timezone):
    assert moment(value, zone(timezone)) is None


@pytest.mark.parametrize("span", ["-1", "1e300", "nan", "inf", "two", "3,5"])
def test_a_span_that_cannot_be_is_not_said(span):
    event = read({"event": "CHAT_ON_CLOSE", "id": "7", "date_created": "2024-05-06 07:08:09", "chat_duration": span})

    assert event.news.duration is None
    assert iso(event.news.closed_at) == "2024-05-06T07:08:09Z"
    assert event.flags == ("chat_duration: not a number of seconds",)


# One key for one saying.


def close(**users) -> dict:
    document = json.loads(body("repaired-v1-chat-on-close-escaped"))
    parts = json.loads(document["users"])
    for part, changes in users.items():
        parts[part] |= changes
    return {**document, "users": json.dumps(parts)}


def start(**details) -> dict:
    document = json.loads(body("documented-v1-chat-on-start"))
    document["data"]["details"] |= details
    return document


def case(**data) -> dict:
    document = json.loads(body("documented-v2-case-status-closed"))
    return {**document, "data": document["data"] | data}


def message(text: str, **fields) -> dict:
    said = {"type": "message", "msg": text, "user": {"id": 9, "type": "visitor", "name": "Ada"}}
    return {"id": "173", "event": "CHAT_ON_MESSAGE", "message": said, **fields}


def reversed_keys(document: dict) -> dict:
    return {key: document[key] for key in reversed(document)}


def with_seen(document: dict, seen: str) -> dict:
    return case(messages=[{**row, "seen": seen} for row in document["data"]["messages"]])


def contact(**fields) -> dict:
    return case(contact={"id": "5", "fields": {"email": "ada@example.com"}, **fields})


SAME = {
    "the date of its last change": (close(), close() | {"date_updated": "2018-07-23 05:20:00"}),
    "an agent's connections": (close(), close(agent={"clients": {}, "online": False, "photo": "a.png"})),
    "the visitor's presence": (close(visitor={"state": "online"}), close(visitor={"state": "offline"})),
    "the order of the keys": (close(), reversed_keys(close())),
    "a number spelled as a text": (close(), close() | {"id": 104111, "chat_duration": 25}),
    "another spelling of nothing": (start(phone=None), start(phone="null")),
    "json inside a text": (close(), close() | {"users": json.loads(close()["users"])}),
    "what was seen": (with_seen(case(), "yes"), with_seen(case(), "no")),
    "the time of a message's chat": (message("Hi", date_updated="2024-05-06 07:08:09"), message("Hi")),
}


@pytest.mark.parametrize(("first", "again"), SAME.values(), ids=SAME)
def test_the_same_saying_has_the_same_key_whatever(first, again):
    assert read(first).key == read(again).key


DIFFERENT = {
    "an email": (start(), start(email="ada@example.com")),
    "a phone": (start(), start(phone="+12025550123")),
    "a new detail": (start(), start(city="Paris")),
    "a status": (start(), {**start(), "data": {**start()["data"], "status": "active"}}),
    "a chat": (message("Hi"), message("Hi", id="174")),
    "a message": (message("Hi"), message("Hi!")),
    "the visitor's email": (close(), close(visitor={"email": "ada@example.com"})),
    "a place called state": (close(visitor={"state": "Texas"}), close(visitor={"state": "Ohio"})),
    "a field called online": (close(visitor={"fields": {"online": 1}}), close(visitor={"fields": {"online": 0}})),
    "the duration": (close(), close() | {"chat_duration": "26"}),
    "the visitor's id": (close(), close() | {"visitor_id": "61112"}),
    "the case's status": (case(), case(status="active")),
    "the case's contact": (case(), case(contact={"id": "6", "fields": {}})),
    "the case's messages": (case(), case(messages=[])),
    "the case's date of last change": (case(dateUpdated="2021-03-03"), case(dateUpdated="2021-03-04")),
    "the contact's date of last change": (contact(dateUpdated="2021-03-03"), contact(dateUpdated="2021-03-04")),
    "the case's fields": (case(), case(fields={"topic": "Billing"})),
    "the event": (start(), {**start(), "event": "CHAT_ON_CLOSE"}),
}


@pytest.mark.parametrize(("first", "then"), DIFFERENT.values(), ids=DIFFERENT)
def test_another_saying_has_another_key(first, then):
    assert read(first).key != read(then).key


NORMAL = st.text(min_size=1, max_size=20).map(lambda text: unicodedata.normalize("NFC", text))


@given(NORMAL, NORMAL)
@quickly
def test_two_messages_have_one_key_exactly_if_they_read_the_same(one, other):
    first, second = read(message(one)), read(message(other))

    assert (first.key == second.key) == (
        [m.text for m in first.news.messages] == [m.text for m in second.news.messages]
    )


def test_a_word_that_is_taken_back_is_a_new_saying():
    """The first of the three emails is not told from the last by what is said, only by when the case was changed."""
    emails = {"2024-05-06": "a@example.com", "2024-05-07": "b@example.com", "2024-05-08": "a@example.com"}
    keys = {
        read(case(contact={"id": "5", "fields": {"email": email}}, dateUpdated=date)).key
        for date, email in emails.items()
    }

    assert len(keys) == 3


@pytest.mark.parametrize("name", READABLE)
def test_a_redelivery_has_the_same_key_at_any_time_under_any_id(name):
    again = acquire().read(body(name), event_id="another", received_at=RECEIVED_AT + 86400)

    assert again.key == read(body(name)).key


def test_an_unreadable_webhook_has_the_key_of_its_bytes():
    assert read(b"<xml/>").key == digest(b"<xml/>")


# The settings.


def test_the_settings_are_read_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACQUIRE_WEBHOOK_SECRET", "canary-secret")
    monkeypatch.setenv("ACQUIRE_URL_TOKEN", "canary-token-canary-token")
    monkeypatch.setenv("ACQUIRE_TIMEZONE", "Europe/London")
    read_settings = load(AcquireSettings)

    assert read_settings.webhook_secret.get_secret_value() == "canary-secret"
    assert read_settings.url_token.get_secret_value() == "canary-token-canary-token"
    assert read_settings.timezone == "Europe/London"


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("ACQUIRE_URL_TOKEN", "canary-short", "is shorter than 24 characters"),
        ("ACQUIRE_WEBHOOK_SECRET", "   ", "is blank"),
        ("ACQUIRE_TIMEZONE", "Canary/Nowhere", "is not a time zone such as UTC or Europe/London"),
        ("ACQUIRE_TIMEZONE", "../canary", "is not a time zone such as UTC or Europe/London"),
        ("ACQUIRE_TIMEZONE", "Europe", "is not a time zone such as UTC or Europe/London"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(monkeypatch, tmp_path, variable, value, complaint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load(AcquireSettings)

    assert str(refused.value) == f"{variable}: {complaint}"
