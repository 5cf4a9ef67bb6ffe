"""Forgetting a person in the ledger, on both engines: nothing is left, nothing old comes back (promise P8)."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.addresses import Addresses
from sync.cleaning import payload_of
from sync.errors import LedgerUnavailable, NotFound
from sync.followup import FollowupSettings
from sync.forget import export, forget, is_genuine, plan
from sync.ledger import Ledger, Settlement
from sync.ledger.checking import check
from sync.ledger.dismissing import dismiss_dead
from sync.ledger.erasing import FLAGS, Erasures
from sync.ledger.machine import FORGOTTEN
from sync.ledger.mailing import Mailing
from sync.ledger.persons import ADOPTED, SHARED
from sync.ledger.replaying import apply_again
from sync.models import MAIL, Chat, Contact, Email, Event, EventType, Kind, Message, Owed, Receipt, State
from sync.outcomes import Dead, Delivered, Outcome, Retry
from sync.secret import digest
from tests.databases import Server, open_on, select
from tests.people import NOON, Clock, event

ADA, BOB, PHONE = "ada.canary@example.com", "bob@example.com", "+31612345678"
KEY = digest(b"k" * 32)
TAKERS = {
    "crm": frozenset({Kind.CONTACT, Kind.CHAT, Kind.ERASURE}),
    "log": frozenset({Kind.CONTACT}),
    MAIL: frozenset({Kind.EMAIL}),
}
HOUR = 3600.0


def write(chat: Chat, contact: Contact, key: str, at: float) -> Email:
    return Email(str(contact.email), "us@example.com", "Thanks", f"Hello {contact.name}", "<p>", key, at)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, clock, TAKERS)
    hashes = Addresses(KEY)
    opened.mailing = Mailing("smtp", 0.0, FollowupSettings(), hashes.hash, hashes.digest, write)
    opened.erasures = Erasures(KEY)
    with opened.transaction():
        opened.set_up_mail()
    yield opened
    assert check(opened.engine) == []
    opened.engine.close()


def apply(ledger: Ledger, *events: Event) -> None:
    with ledger.transaction():
        ledger.apply(events)


def deliver(
    ledger: Ledger, remote_id: str = "r1", *, to: str = "crm", kind: Kind = Kind.CONTACT, ours: bool = True
) -> list[Owed[Any]]:
    """Deliver what is due of one kind, each under an id of its own."""
    with ledger.transaction():
        owed: list[Any] = list(ledger.claim(to, [(kind, 10)], 60.0).owed)
        outcomes = [Delivered(Receipt(f"{remote_id}{n or ''}", ours)) for n in range(len(owed))]
        ledger.settle([Settlement(o.delivery, o.claim, o.version, d) for o, d in zip(owed, outcomes, strict=True)])
    return owed


def settle(ledger: Ledger, one: Owed[Any], outcome: Outcome) -> None:
    with ledger.transaction():
        ledger.settle([Settlement(one.delivery, one.claim, one.version, outcome, 60.0, 60.0)])


def life(ledger: Ledger, clock: Clock) -> None:
    """Everything that can be known of somebody."""
    line = Message("m1", "visitor", "my canary secret", at=NOON + 5)
    whole = event("v1:1", ADA, name="Ada Canary", phone=PHONE, visitor_id="v1:77", attributes={"city": "Canaryville"})
    apply(
        ledger,
        replace(whole, payload=json.dumps({"email": ADA, "text": "my canary secret"}), flags=("canary flag",)),
        replace(event("v1:1", at=5, type=EventType.MESSAGE, messages=(line,), silent=True), payload="canary secret"),
        event("v1:1", at=60, type=EventType.CLOSE, closed=True, agent="Agent Canary", silent=True),
    )
    deliver(ledger)
    deliver(ledger, "n1", kind=Kind.CHAT)
    clock.now += HOUR
    with ledger.transaction():
        mails = ledger.claim(MAIL, [(Kind.EMAIL, 1)], 60.0).owed
    settle(ledger, mails[0], Delivered(Receipt("m-1", True)))
    with ledger.transaction():
        claimed = ledger.claim("log", [(Kind.CONTACT, 1)], 60.0).owed
    settle(ledger, claimed[0], Dead(f"canary {ADA} is refused", 400))
    with ledger.transaction():
        ledger.engine.run("raise_alarm", key="dead:log:1", text=f"log refuses: canary {ADA} is refused. Look.")


TABLES = ("events", "contacts", "identities", "chats", "deliveries", "failures", "joins", "strays", "emails", "alarms")


def everything(ledger: Ledger) -> str:
    tables = (*TABLES, "marks", "erasures", "destinations", "suppressions")
    return json.dumps([select(ledger, f"SELECT * FROM {table}") for table in tables]).lower()


def done(ledger: Ledger, who: str = ADA, **options: Any) -> dict[str, Any]:
    return dict(forget(ledger, who, KEY, sleep=lambda _: None, **options).receipt)


def people(ledger: Ledger) -> list[dict[str, Any]]:
    return select(ledger, "SELECT * FROM contacts WHERE joined IS NULL AND erased_at IS NULL ORDER BY id")


def states(ledger: Ledger, kind: Kind) -> dict[str, tuple[str, str | None]]:
    rows = select(ledger, f"SELECT * FROM deliveries WHERE kind = '{kind}' ORDER BY id")
    return {row["destination"]: (row["state"], row["error"]) for row in rows}


def test_an_alarm_about_what_was_dismissed_since_says_less_too(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    (dead,) = select(ledger, "SELECT * FROM deliveries WHERE state = 'dead'")
    with ledger.transaction():
        ledger.engine.run("raise_alarm", key="dead:log:2", text="log refuses: its number is 12345. Look.")
        ledger.engine.write("UPDATE deliveries SET error = ? WHERE id = ?", [("its number is 12345", dead["id"])])
        ledger.engine.write("DELETE FROM failures WHERE delivery <> ?", [("",)])
        dismiss_dead(ledger, "log")

    done(ledger)

    assert "12345" not in everything(ledger)


def test_nothing_of_a_whole_life_is_left(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    with ledger.transaction():
        ledger.engine.write(
            "INSERT INTO cursors (name, value, at) VALUES (?, ?, ?)", [("pull:acquire:x:1:1", ADA, 1.0)]
        )
    assert "canary" in everything(ledger)

    done(ledger)

    left = everything(ledger)
    assert [word for word in ("canary", PHONE, "v1:77", "ada") if word in left] == []
    (tombstone,) = select(ledger, "SELECT * FROM contacts")
    assert tombstone["erased_at"] == clock.now
    assert {row["flags"] for row in select(ledger, "SELECT flags FROM events")} == {FLAGS}
    assert [row["state"] for row in select(ledger, "SELECT state FROM events")] == ["kept"] * 3


def test_what_is_owed_about_the_person_ends_and_what_went_out_stays_counted(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)

    done(ledger)

    assert states(ledger, Kind.CONTACT) == {"crm": ("ignored", FORGOTTEN), "log": ("ignored", FORGOTTEN)}
    assert states(ledger, Kind.CHAT) == {"crm": ("ignored", FORGOTTEN)}
    assert states(ledger, Kind.EMAIL) == {MAIL: ("delivered", None)}
    assert select(ledger, "SELECT rendered, went FROM emails") == [{"rendered": None, "went": 1}]


def test_a_mail_that_was_not_sent_is_withdrawn(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA), event("v1:1", at=60, type=EventType.CLOSE, closed=True, agent="G", silent=True))
    assert states(ledger, Kind.EMAIL)[MAIL][0] == State.PENDING

    done(ledger)

    assert states(ledger, Kind.EMAIL) == {MAIL: ("ignored", FORGOTTEN)}
    clock.now += HOUR
    with ledger.transaction():
        assert ledger.claim(MAIL, [(Kind.EMAIL, 1)], 60.0).owed == ()


def test_a_mail_that_nobody_knows_of_stays_counted_without_a_word_of_it(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA), event("v1:1", at=60, type=EventType.CLOSE, closed=True, agent="G", silent=True))
    clock.now += HOUR
    with ledger.transaction():
        (mail,) = ledger.claim(MAIL, [(Kind.EMAIL, 1)], 60.0).owed
    clock.now += 120

    done(ledger)

    assert states(ledger, Kind.EMAIL)[MAIL] == ("unknown", f"its answer was lost, and {FORGOTTEN}")
    assert "canary" not in everything(ledger)
    settle(ledger, mail, Delivered(Receipt("m-1", True)))
    assert states(ledger, Kind.EMAIL)[MAIL][0] == State.DELIVERED


def test_our_record_is_owed_to_be_deleted_and_carried_by_the_lane(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    receipt = done(ledger)

    assert [(r["destination"], r["record"], r["state"]) for r in receipt["records"]] == [("crm", "r1", "pending")]
    (erasure,) = deliver(ledger, kind=Kind.ERASURE)
    assert erasure.subject.remote_id == "r1"
    assert done(ledger)["records"][0]["state"] == "delivered"


def test_a_deletion_that_fails_is_tried_again(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    done(ledger)
    with ledger.transaction():
        (erasure,) = ledger.claim("crm", [(Kind.ERASURE, 1)], 60.0).owed
    settle(ledger, erasure, Retry("busy", 409))
    clock.now += 60

    assert [one.subject.remote_id for one in deliver(ledger, kind=Kind.ERASURE)] == ["r1"]


def test_a_record_that_was_there_before_us_is_left_to_a_person(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA, closed=True))
    deliver(ledger, ours=False)
    deliver(ledger, "n1", kind=Kind.CHAT)

    (record,) = done(ledger)["records"]

    assert (record["left"], record["notes"], record["state"]) == (ADOPTED, ["n1"], "ignored")
    assert deliver(ledger, kind=Kind.ERASURE) == []


def test_it_is_deleted_all_the_same_where_that_is_said(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA))
    deliver(ledger, ours=False)

    done(ledger, also_adopted=True)

    assert [one.subject.remote_id for one in deliver(ledger, kind=Kind.ERASURE)] == ["r1"]


def test_a_record_of_somebody_else_is_never_deleted(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA), event("v1:2", BOB))
    for _ in range(8):  # two contacts of ours in one record there: after some tries that is taken as it is
        with ledger.transaction():
            owed: list[Any] = list(ledger.claim("crm", [(Kind.CONTACT, 10)], 60.0).owed)
            ledger.settle([Settlement(o.delivery, o.claim, o.version, Delivered(Receipt("r1", True))) for o in owed])
        clock.now += 10
    assert {
        row["remote_id"] for row in select(ledger, "SELECT remote_id FROM deliveries WHERE destination = 'crm'")
    } == {"r1"}

    (record,) = done(ledger)["records"]

    assert record["left"] == SHARED


def test_where_nothing_can_be_deleted_or_nobody_is_asked_any_more_it_says_so(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA))
    deliver(ledger)
    deliver(ledger, "l1", to="log")
    ledger.takers = {"log": TAKERS["log"], "crm": frozenset()}
    planned = {r.destination: r.left for r in plan(ledger, ADA).records}
    ledger.takers = {"log": TAKERS["log"]}
    gone = {r.destination: r.left for r in plan(ledger, ADA).records}

    assert "cannot be asked" in str(planned["log"])
    assert "SYNC_DESTINATIONS does not name crm" in str(gone["crm"])


def test_a_creation_whose_answer_was_lost_is_said(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA))
    with ledger.transaction():
        (one,) = ledger.claim("crm", [(Kind.CONTACT, 1)], 60.0).owed
        ledger.intend({one.delivery: one.claim})
    settle(ledger, one, Retry("the answer was lost", may_have_landed=True))

    assert done(ledger)["lost"] == ["crm"]


def test_while_a_call_is_under_way_nothing_is_erased(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA))
    with ledger.transaction():
        (one,) = ledger.claim("crm", [(Kind.CONTACT, 1)], 60.0).owed
    naps: list[float] = []
    with pytest.raises(LedgerUnavailable, match="under way"):
        forget(ledger, ADA, KEY, patience=1.0, sleep=naps.append)

    assert naps == [0.5, 0.5]
    assert people(ledger)[0]["email"] == ADA
    settle(ledger, one, Delivered(Receipt("r1", True)))
    assert done(ledger)["records"][0]["record"] == "r1"


def test_a_record_that_a_very_late_answer_tells_of_is_deleted_too(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA))
    with ledger.transaction():
        (one,) = ledger.claim("crm", [(Kind.CONTACT, 1)], 60.0).owed
    clock.now += 61

    done(ledger)
    settle(ledger, one, Delivered(Receipt("late-1", True)))

    assert states(ledger, Kind.CONTACT)["crm"] == ("ignored", FORGOTTEN)
    assert [gone.subject.remote_id for gone in deliver(ledger, kind=Kind.ERASURE)] == ["late-1"]


def test_the_same_webhook_again_is_a_duplicate(ledger: Ledger) -> None:
    first = event("v1:1", ADA)
    apply(ledger, first)
    done(ledger)
    with ledger.transaction():
        (answer,) = ledger.apply([replace(first, id="ev_again")])

    assert answer.status == "duplicate"
    assert people(ledger) == []


@pytest.mark.parametrize(
    "said",
    [
        {"chat": "v1:9", "email": ADA.upper()},
        {"chat": "v1:9", "phone": PHONE},
        {"chat": "v1:9", "visitor_id": "v1:77"},
        {"chat": "v1:1", "email": BOB},
        {"chat": "v1:1", "silent": True},
    ],
    ids=["email", "phone", "visitor", "chat", "chat alone"],
)
def test_what_was_said_before_does_not_come_back(ledger: Ledger, clock: Clock, said: dict[str, Any]) -> None:
    life(ledger, clock)
    done(ledger)
    clock.now += HOUR
    late = event(at=30, received=2 * HOUR, **said)

    apply(ledger, replace(late, payload="canary"))

    assert people(ledger) == []
    row = select(ledger, f"SELECT * FROM events WHERE id = '{late.id}'")[0]
    assert (row["payload"], row["chat"], row["state"], row["flags"]) == ("", None, "kept", FLAGS)


def test_what_is_said_later_is_somebody_new(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    before = select(ledger, "SELECT uid FROM contacts")[0]["uid"]
    done(ledger)
    clock.now += HOUR

    apply(ledger, event("v1:2", ADA, name="Ada", phone=PHONE, at=2 * HOUR, received=2 * HOUR))

    (new,) = people(ledger)
    assert (new["email"], new["name"]) == (ADA, "Ada")
    assert new["uid"] != before
    assert ledger.get("load_identities", rows=[{"kind": "email", "value": ADA}])["contact"] == new["id"]  # type: ignore[index]


def test_whoever_goes_on_in_the_erased_chat_is_somebody_new_without_the_old_lines(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    done(ledger)
    clock.now += HOUR
    lines = (Message("m1", "visitor", "canary", at=NOON + 5), Message("m2", "visitor", "hello", at=NOON + 2 * HOUR))

    apply(ledger, event("v1:1", BOB, at=2 * HOUR, received=2 * HOUR, type=EventType.CLOSE, closed=True, messages=lines))

    (new,) = people(ledger)
    assert new["email"] == BOB
    (chat,) = select(ledger, "SELECT transcript FROM chats WHERE chat = 'v1:1'")
    assert [line[2] for line in json.loads(chat["transcript"])] == ["hello"]


def test_a_replay_of_an_unreadable_webhook_does_not_bring_the_person_back(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA))
    broken = replace(event("v1:5", ADA), visitor=None, news=None, chat=None, error="no", payload="canary")
    apply(ledger, broken)
    done(ledger)

    readable = replace(event("v1:5", ADA), id=broken.id, key=broken.key, payload="canary")
    with ledger.transaction():
        apply_again(ledger, [readable], {}, {broken.id: broken.key})

    assert people(ledger) == []
    assert "canary" not in everything(ledger)


def test_everybody_who_was_joined_goes_too(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", "ada.canry@example.com", name="Ada Canary", phone=PHONE))
    deliver(ledger)
    apply(ledger, event("v1:1", ADA, at=5))

    receipt = done(ledger, "ada.canry@example.com")

    assert receipt["counts"]["contacts"] == 2
    assert "can" not in everything(ledger).replace("canceled", "")
    assert select(ledger, "SELECT * FROM joins") == []


def test_a_webhook_of_another_chat_that_names_the_email_loses_its_content(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA), event("v1:3", ADA))
    moved = replace(event("v1:3", BOB, at=5), payload=f"it was {ADA.upper()}")
    apply(ledger, moved, replace(event("v1:4", BOB, at=6), payload="ada_canary@example.com of another"))
    assert len(people(ledger)) == 2

    done(ledger)

    kept = {row["id"]: row["payload"] for row in select(ledger, "SELECT id, payload FROM events")}
    assert kept[moved.id] == ""
    assert "ada_canary@example.com of another" in kept.values()
    assert [one["email"] for one in people(ledger)] == [BOB]


JURGEN = "j\u00fcrgen.canary@b\u00fccher.example"


@pytest.mark.parametrize(
    ("email", "body"),
    [
        (ADA, b'{"data": "Ada.Canary@example.com \xff"}'),
        (ADA, b"\xff\xfe" + ADA.encode("utf-16-le")),
        (ADA, b'{"data": "ada.canary\\u0040EXAMPLE.com"}'),
        (ADA, b'{"data": "{\\"email\\": \\"\\\\u0061da.canary\\\\u0040example.com\\"}"}'),
        (ADA, b"event=CHAT_ON_START&email=ada.canary%40example.com"),
        (ADA, b"payload=%7B%22email%22%3A%22ada.canary%5Cu0040example.com%22%7D"),
        (ADA, b'{"url": "https://example.com/?next=%2Fhello%3Femail%3Dada.canary%2540example.com"}'),
        (JURGEN, '{"data": "JÜRGEN.Canary@BÜCHER.example"}'.encode()),
        (JURGEN, '{"data": "Ju\u0308rgen.canary@bu\u0308cher.example"}'.encode()),
        (JURGEN, b'{"data": "j\\u00fcrgen.canary@b\\u00FCcher.example"}'),
        (JURGEN, b"email=j%C3%BCrgen.canary%40b%c3%bccher.example"),
        (JURGEN, b"email=J%DCRGEN.canary@b%FCcher.example"),
        (JURGEN, "J\u00dcRGEN.canary@b\u00fccher.example".encode("latin-1")),
    ],
)
def test_a_webhook_that_names_the_email_in_other_characters_loses_its_content(
    ledger: Ledger, email: str, body: bytes
) -> None:
    broken = replace(event(), visitor=None, news=None, chat=None, error="it cannot be read", payload=payload_of(body))
    apply(ledger, event("v1:1", email), broken, replace(event("v1:2", BOB), payload=payload_of(body)))

    receipt = done(ledger, email)

    assert {row["payload"] for row in select(ledger, "SELECT payload FROM events")} == {""}
    assert receipt["counts"]["mentions"] == 2
    assert [one["email"] for one in people(ledger)] == [BOB]


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": "\\u0061da.canary\\u0040example.org"}',
        b"email=adaXcanary%40example.com",
        b"ada.canary \xff at example.com",
        "jürgen.canary@buecher.example".encode(),
        "jürgen.canary@bücher.example.org".encode("utf-16"),
    ],
)
def test_a_webhook_that_names_another_email_keeps_its_content(ledger: Ledger, body: bytes) -> None:
    other = replace(event("v1:2", BOB), payload=payload_of(body))
    apply(ledger, event("v1:1", ADA), event("v1:3", "jürgen@strasse.example"), other)

    assert (done(ledger)["counts"]["mentions"], done(ledger, "jürgen@strasse.example")["counts"]["mentions"]) == (0, 0)
    assert select(ledger, f"SELECT payload FROM events WHERE id = '{other.id}'") == [{"payload": other.payload}]


def test_sharp_s_and_ss_are_two_domains(ledger: Ledger) -> None:
    other = replace(event("v1:2", BOB), payload='{"data": "jürgen@straße.example"}')
    apply(ledger, event("v1:1", "jürgen@strasse.example"), other)

    assert done(ledger, "jürgen@strasse.example")["counts"]["mentions"] == 0
    assert plan(ledger, BOB).counts["events"] == 1


def test_all_webhooks_are_looked_at_a_page_at_a_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.ledger.persons.PAGE", 3)
    monkeypatch.setattr("sync.ledger.persons.FEW", 2)
    said = ["ada.canary%40example.com", ADA.upper(), "50 %", "plain", r"b\u006fb", "base64:"]
    others = [replace(event(f"v1:{n}", BOB), payload=payload_of(said[n % 6].encode())) for n in range(2, 32)]
    apply(ledger, event("v1:1", ADA), *others)

    assert done(ledger)["counts"]["mentions"] == 10
    left = [row["payload"] for row in select(ledger, "SELECT payload FROM events") if row["payload"]]
    assert len(left) == 20


def test_nobody_else_is_touched(ledger: Ledger) -> None:
    apply(ledger, event("v1:2", BOB, name="Bob", closed=True))
    untouched = {table: select(ledger, f"SELECT * FROM {table}") for table in TABLES}
    apply(ledger, event("v1:1", ADA, closed=True))

    done(ledger)

    for table in TABLES:
        now = select(ledger, f"SELECT * FROM {table}")
        assert [row for row in untouched[table] if row not in now] == []


def test_a_newcomer_does_not_take_the_record_that_is_to_go(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA))
    deliver(ledger)
    done(ledger)
    clock.now += HOUR
    apply(ledger, event("v1:2", ADA, at=HOUR, received=HOUR))

    deliver(ledger)
    assert states(ledger, Kind.CONTACT)["crm"][0] == State.PENDING
    deliver(ledger, kind=Kind.ERASURE)
    clock.now += 60
    deliver(ledger, "r2")
    assert states(ledger, Kind.CONTACT)["crm"][0] == State.DELIVERED


def test_whoever_took_it_before_it_went_gets_one_of_their_own(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, event("v1:1", ADA))
    deliver(ledger)
    done(ledger)
    with ledger.transaction():
        (erasure,) = ledger.claim("crm", [(Kind.ERASURE, 1)], 60.0).owed
    settle(ledger, erasure, Dead("not with this token", 403))
    clock.now += HOUR
    apply(ledger, event("v1:2", ADA, at=HOUR, received=HOUR))
    deliver(ledger)
    with ledger.transaction():
        assert ledger.engine.run("revive_dead", destination="crm") == 1

    deliver(ledger, kind=Kind.ERASURE)

    (again,) = deliver(ledger, "r2")
    assert again.remote_id is None


def test_an_unsubscribed_person_stays_unsubscribed(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", ADA))
    hashed = Addresses(KEY).hash(ADA)
    with ledger.transaction():
        ledger.suppress(hashed, "unsubscribed")

    done(ledger)

    assert ledger.get("suppressed", rows=[{"hash": hashed}])["reason"] == "unsubscribed"  # type: ignore[index]


def test_the_plan_changes_nothing_and_counts_everything(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    before = everything(ledger)

    planned = plan(ledger, PHONE)

    held = {"contacts": 1, "identities": 3, "chats": 1, "messages": 1, "events": 3, "deliveries": 4, "mails": 1}
    assert planned.counts == {**held, "mentions": 0}
    assert [(r.destination, r.remote_id, r.left) for r in planned.records] == [("crm", "r1", None)]
    assert planned.mails == {"smtp": 1}
    assert everything(ledger) == before


def test_the_receipt_is_signed_and_names_nobody(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)

    receipt = done(ledger)

    assert is_genuine(receipt, KEY)
    assert not is_genuine({**receipt, "erased_at": "2020-01-01T00:00:00Z"}, KEY)
    assert not is_genuine(receipt, digest(b"x" * 32))
    assert "canary" not in json.dumps(receipt).lower()
    assert receipt["counts"]["messages"] == 1


def test_to_forget_twice_changes_nothing_and_gives_the_receipt_again(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    first = done(ledger)
    before = everything(ledger)

    for who in (ADA, PHONE, first["contact"]):
        assert done(ledger, who) == first
    assert everything(ledger) == before


def test_nobody_is_not_forgotten(ledger: Ledger) -> None:
    apply(ledger, event("v1:1", phone=PHONE), event("v1:2", BOB, phone=PHONE))
    with pytest.raises(NotFound, match="several people"):
        done(ledger, PHONE)
    with pytest.raises(NotFound, match="nobody here"):
        done(ledger, "nobody@example.com")


def test_an_interruption_anywhere_leaves_all_or_nothing(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    life(ledger, clock)
    before = everything(ledger)
    run, made = ledger.engine.run, iter(range(1000))
    allowed = 0

    def interrupted(query: str, **parameters: Any) -> int:
        if next(made) == allowed:
            raise KeyboardInterrupt
        return run(query, **parameters)

    tries = 0
    monkeypatch.setattr(ledger.engine, "run", interrupted)
    while True:
        try:
            done(ledger)
            break
        except KeyboardInterrupt:
            tries += 1
            assert everything(ledger) == before
            allowed, made = allowed + 1, iter(range(1000))
    assert tries >= 12
    assert "canary" not in everything(ledger)


def test_an_export_holds_everything(ledger: Ledger, clock: Clock) -> None:
    life(ledger, clock)
    with ledger.transaction():
        ledger.suppress(Addresses(KEY).hash(ADA), "unsubscribed")

    found = export(ledger, ADA, Addresses(KEY).hash)

    assert found["contacts"][0]["attributes"] == {"city": "Canaryville"}
    assert found["chats"][0]["transcript"][0]["text"] == "my canary secret"
    assert len(found["events"]) == 3
    assert ADA in found["events"][0]["payload"]
    assert {(d["destination"], d["remote_id"]) for d in found["deliveries"] if d["what"] == "contact"} == {
        ("crm", "r1"),
        ("log", None),
    }
    assert found["mails"][0]["mail"]["to"] == ADA
    assert found["no_mail_to"] == [{"email": ADA, "reason": "unsubscribed"}]
    json.dumps(found)
