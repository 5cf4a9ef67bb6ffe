"""A pull repairs what the webhooks missed, and nothing else (promises P3 and P4)."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sync.cleaning import email_key
from sync.completeness import compare_days
from sync.errors import SettingsError, SourceError
from sync.forget import forget
from sync.ledger import Applied, Ledger, Settlement
from sync.ledger.erasing import Erasures
from sync.ledger.pruning import DAY, Limits
from sync.ledger.sqlite import SqliteEngine
from sync.models import Event, Kind, Receipt
from sync.outcomes import Delivered
from sync.pull import Pulled, pull
from sync.retention import prune
from sync.settings import load
from sync.simulation.people import Chat, Person, changed, new_person
from sync.simulation.talk import talk
from sync.sources.acquire import Acquire, AcquireSettings
from sync.sources.base import Source
from tests.databases import OnTestClock, Server, open_on, select
from tests.fakes.acquire import KEY, TOKEN, Account, AcquireApi, iso
from tests.people import NOON, Clock, Ids
from tests.running import Running, running

LATER = 7200.0
"""Seconds after the last chat at which a pull looks at what is over."""

quickly = settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example is a handful of chats: nothing to shrink
)


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def acquire(**given: Any) -> Acquire:
    tokens = {"api_token": TOKEN, "v2_api_key": KEY, "v2_account": "demo"}
    return Acquire(AcquireSettings(_env_file=None, **{**tokens, **given}), digest=digest, phone_region="US")


def chats_of(seed: int, n: int, *, zone: tzinfo = UTC, cases: float = 0.5, apart: float = 600.0) -> list[Chat]:
    """So many chats one after the other, half of them with somebody who was here before."""
    random = Random(seed)
    people: list[Person] = []
    chats = []
    for number in range(n):
        if people and random.random() < 0.5:
            place = random.randrange(len(people))
            people[place] = changed(people[place], random)
        else:
            place = len(people)
            people.append(new_person(seed, place, random))
        began = NOON - n * apart + number * apart
        is_case = random.random() < cases
        late = random.random() < 0.3
        said = talk(random)
        chats.append(Chat(1000 + number, people[place], float(int(began)), zone, 3, is_case, late, said))
    return chats


@dataclass
class Stage:
    """A ledger, an account, and both ways between them."""

    account: Account
    api: AcquireApi
    ledger: Ledger
    source: Source
    clock: Clock
    ids: Ids

    def hear(self, lost: Callable[[int], bool] = lambda n: False, order: Sequence[int] | None = None) -> int:
        """The webhooks arrive, all but the lost ones; returns how many were lost."""
        told = self.account.webhooks()
        places = range(len(told)) if order is None else [n for n in order if n < len(told)]
        for n in places:
            if not lost(n):
                at = told[n].at if order is None else NOON
                event = self.source.read(told[n].body, event_id=self.ids("ev", at), received_at=at)
                with self.ledger.transaction():
                    self.ledger.apply([event])
        return sum(map(lost, range(len(told))))

    async def pull(self, **given: Any) -> Pulled:
        self.clock.now = max(self.clock.now, NOON + LATER)

        async def sleep(seconds: float) -> None:
            self.clock.sleep(seconds)

        return await pull(
            self.ledger,
            given.pop("source", self.source),
            clock=self.clock,
            new_id=self.ids,
            sleep=sleep,
            transport=self.api,
            **given,
        )

    def deliver(self) -> None:
        """Everything that is due arrives."""
        owed: Any = True
        while owed:
            with self.ledger.transaction():
                owed = self.ledger.claim("crm", [(Kind.CONTACT, 10), (Kind.CHAT, 10)], 60.0).owed
                ends = [Settlement(o.delivery, o.claim, o.version, Delivered(Receipt(o.delivery, True))) for o in owed]
                self.ledger.settle(ends)

    def prune(self, limits: Limits) -> None:
        """Time goes by until everything is over, then what is older than the limits goes."""
        self.clock.now = max(self.clock.now, NOON + LATER)
        prune(self.ledger, limits)

    def events(self) -> int:
        return int(select(self.ledger, "SELECT COUNT(*) AS n FROM events")[0]["n"])

    def versions(self) -> Any:
        contacts = select(self.ledger, "SELECT id, version FROM contacts ORDER BY id")
        chats = select(self.ledger, "SELECT id, version FROM chats ORDER BY id")
        owed = select(self.ledger, "SELECT id, wanted, state, owed_at FROM deliveries ORDER BY id")
        return contacts, chats, owed, select(self.ledger, "SELECT id, said, contact FROM chats ORDER BY id")

    def people(self) -> Any:
        """Who there is, as a CRM sees them."""
        rows = select(self.ledger, "SELECT name, email, phone FROM contacts WHERE joined IS NULL")
        return sorted((email_key(row["email"] or ""), row["name"], row["phone"]) for row in rows)

    def conversations(self, *, with_times: bool = True) -> Any:
        """The chats, as a note on a contact shows them."""
        rows = select(self.ledger, "SELECT * FROM chats ORDER BY chat")
        shown = ("started_at", "accepted_at", "closed_at", "wait", "duration") if with_times else ()
        shown = ("chat", "agent", *shown)
        return [
            ([row[name] for name in shown], email_key(row["email"] or ""), sorted(lines(row["transcript"])))
            for row in rows
        ]


def lines(transcript: str) -> list[tuple[str, str]]:
    return [(sender, text) for _, sender, text, _, _ in json.loads(transcript)]


def stage_on(ledger: Ledger, clock: Clock, chats: Sequence[Chat], **given: Any) -> Stage:
    account = Account(list(chats), clock)
    return Stage(account, AcquireApi(account), ledger, acquire(**given), clock, Ids())


def a_stage(folder: Path, chats: Sequence[Chat], **given: Any) -> Stage:
    clock = Clock()
    return stage_on(open_on("sqlite", folder, None, clock, None), clock, chats, **given)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = a_stage(tmp_path, chats_of(1, 40))
    yield made
    made.ledger.engine.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def on_both(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Iterator[Stage]:
    clock = Clock()
    made = stage_on(open_on(request.param, tmp_path, server, clock, None), clock, chats_of(1, 40))
    yield made
    made.ledger.engine.close()


async def test_a_pull_after_all_webhooks_changes_nothing_and_stores_nothing(on_both: Stage) -> None:
    on_both.hear()
    before, events = on_both.versions(), on_both.events()

    found = await on_both.pull()

    assert (found.chats, found.missed, found.repaired, found.contacts) == (40, 0, 0, 0)
    assert (on_both.versions(), on_both.events()) == (before, events)


async def test_a_pull_without_any_webhook_finds_everybody(on_both: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "told"
    folder.mkdir()
    told = a_stage(folder, on_both.account.chats)
    told.hear()
    on_both.account.has_thread_dates = True

    found = await on_both.pull()

    assert (found.chats, found.missed, found.repaired, found.notes) == (40, 40, 40, ())
    assert on_both.people() == told.people()
    assert on_both.conversations() == told.conversations()


async def test_a_second_pull_stores_nothing(on_both: Stage) -> None:
    on_both.hear(lambda n: n % 3 == 0)
    await on_both.pull()
    before, events = on_both.versions(), on_both.events()

    found = await on_both.pull()

    assert (found.missed, found.repaired, found.contacts) == (0, 0, 0)
    assert (on_both.versions(), on_both.events()) == (before, events)


@pytest.mark.parametrize("limits", [Limits(transcripts=0), Limits(payloads=0), Limits(transcripts=0, payloads=0)])
async def test_a_pull_after_pruning_brings_nothing_back(on_both: Stage, limits: Limits) -> None:
    on_both.hear()
    on_both.deliver()
    on_both.prune(limits)
    before, events = on_both.versions(), on_both.events()

    found = await on_both.pull()

    assert (found.chats, found.missed, found.repaired, found.contacts) == (40, 0, 0, 0)
    assert (on_both.versions(), on_both.events()) == (before, events)
    assert {row["state"] for row in select(on_both.ledger, "SELECT state FROM deliveries")} == {"delivered"}


async def test_what_only_a_pull_has_told_and_was_pruned_since_is_not_told_again(on_both: Stage) -> None:
    await on_both.pull()
    on_both.deliver()
    on_both.prune(Limits(transcripts=0, payloads=0))
    before, events = on_both.versions(), on_both.events()

    found = await on_both.pull()

    assert (found.missed, found.repaired, found.contacts) == (0, 0, 0)
    assert (on_both.versions(), on_both.events()) == (before, events)


@pytest.mark.parametrize("cases", [0, 1])
async def test_what_was_said_after_a_transcript_was_pruned_is_news(cases: int, tmp_path: Path) -> None:
    (chat,) = chats_of(4, 1, cases=cases)
    stage = a_stage(tmp_path, [chat])
    stage.hear()
    stage.deliver()
    stage.prune(Limits(transcripts=0))
    (again, later) = (True, "Me again", 2 * DAY), (False, "Welcome back", 60)
    stage.account.chats[:] = [replace(chat, lines=(*chat.lines, again, later))]
    stage.clock.now += 3 * DAY

    found = await stage.pull()

    (row,) = select(stage.ledger, "SELECT transcript FROM chats")
    assert found.repaired == 1
    assert [text for _, text in lines(row["transcript"])][:2] == ["Me again", "Welcome back"]


@quickly
@given(
    seed=st.integers(1, 10_000),
    random=st.randoms(use_true_random=False),
    share=st.sampled_from((0.05, 0.3, 0.7, 1)),
    has_dates=st.booleans(),
    cases=st.sampled_from((0.0, 1.0)),
)
def test_whatever_was_lost_and_in_whatever_order_the_rest_came_a_pull_makes_the_same_people(
    seed: int, random: Any, share: float, has_dates: bool, cases: float
) -> None:
    """Without the dates of threads, an older chat of a v1 visitor has no start but its first line, and no known end.

    An account is of one version: each version keeps a record of its own of somebody who uses both, and a record that is
    older than what was said under the other one looks as new as the newest chat under it.
    """

    async def play() -> None:
        with TemporaryDirectory() as one, TemporaryDirectory() as other:
            chats = chats_of(seed, 6, cases=cases)
            whole, torn = a_stage(Path(one), chats), a_stage(Path(other), chats)
            whole.hear()
            count = len(whole.account.webhooks())
            lost = {n for n in range(count) if random.random() < share}
            order = list(range(count))
            random.shuffle(order)
            torn.hear(lost.__contains__, order)
            torn.account.has_thread_dates = has_dates

            await torn.pull()

            assert torn.people() == whole.people()
            assert torn.conversations(with_times=has_dates) == whole.conversations(with_times=has_dates)
            before, events = torn.versions(), torn.events()
            again = await torn.pull()
            assert (again.missed, again.repaired, again.contacts) == (0, 0, 0)
            assert (torn.versions(), torn.events()) == (before, events)
            for each in (whole, torn):
                each.ledger.engine.close()

    asyncio.run(play())


async def test_an_interrupted_pull_goes_on_where_it_was(tmp_path: Path) -> None:
    chats = chats_of(3, 6)
    folder = tmp_path / "whole"
    folder.mkdir()
    whole = a_stage(folder, chats, pull_page_size=2)
    whole.hear(lambda n: n % 4 == 0)
    at_once = await whole.pull()

    for calls in range(1, sum(whole.account.calls.values())):
        place = tmp_path / f"torn-{calls}"
        place.mkdir()
        torn = a_stage(place, chats, pull_page_size=2)
        torn.hear(lambda n: n % 4 == 0)
        left = calls

        def refuse(request: httpx.Request) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise RuntimeError("killed")

        torn.api.before = refuse
        with suppress(RuntimeError):
            await torn.pull()
        torn.api.before = lambda request: None
        found = await torn.pull()

        assert (torn.people(), torn.conversations()) == (whole.people(), whole.conversations())
        assert replace(found, resumed=False) == at_once
        assert select(torn.ledger, "SELECT name FROM cursors") == []
        torn.ledger.engine.close()


async def test_what_was_read_before_it_was_killed_is_not_asked_for_again(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(3, 30, cases=0), pull_page_size=2)
    pages = 0

    def refuse(request: httpx.Request) -> None:
        nonlocal pages
        pages += request.url.path.endswith("/list")
        if pages > 5:
            raise RuntimeError("killed")

    stage.api.before = refuse
    with suppress(RuntimeError):
        await stage.pull()
    asked = stage.account.calls["/api/profile/message/thread"]
    stage.api.before = lambda request: None
    found = await stage.pull()

    assert found.resumed
    assert (asked, stage.account.calls["/api/profile/message/thread"]) == (10, found.rows)


async def test_a_pull_that_looks_further_back_begins_anew(stage: Stage) -> None:
    stage.api.before = broken_after(3)
    with suppress(RuntimeError):
        await stage.pull(since=NOON - 60)
    stage.api.before = lambda request: None

    found = await stage.pull()

    assert (found.resumed, found.missed) == (False, 40)


def broken_after(calls: int) -> Callable[[httpx.Request], None]:
    left = calls

    def refuse(request: httpx.Request) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("killed")

    return refuse


async def test_a_rehearsal_says_what_would_change_and_changes_nothing(on_both: Stage) -> None:
    on_both.hear(lambda n: n % 3 == 0)
    before, events = on_both.versions(), on_both.events()

    said = await on_both.pull(dry_run=True)

    assert (on_both.versions(), on_both.events()) == (before, events)
    assert select(on_both.ledger, "SELECT name FROM cursors") == []
    done = await on_both.pull()
    assert said.repaired > 0
    assert (said.missed, said.repaired, said.chats, said.rows) == (done.missed, done.repaired, done.chats, done.rows)


async def test_since_leaves_out_what_is_older_and_keeps_what_has_no_date(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(5, 20, cases=1))
    stage.account.rows["1000"] = dict.fromkeys(("dateCreated", "dateUpdated", "dateActive", "dateClosed"), None) | {
        "messages": [],
        "contact": {"id": 77, "fields": {"email": "nobody-knows-when@example.com"}},
    }
    edge = stage.account.chats[15].started_at

    found = await stage.pull(since=edge)

    kept = {row["chat"] for row in select(stage.ledger, "SELECT chat FROM chats")}
    newer = {chat.id for chat in stage.account.chats if chat.ended_at >= edge}
    later = {f"v2:{row['id']}" for row in stage.account.cases() if row["contact"].get("dateUpdated", "") >= iso(edge)}
    assert kept == {"v2:1000"} | newer | later
    assert found.rows == 20


async def test_since_asks_nothing_about_chats_that_were_closed_before(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(5, 30, cases=0))
    stage.hear()
    edge = stage.account.chats[25].started_at

    found = await stage.pull(since=edge)

    assert found.repaired == 0
    assert stage.account.calls["/api/profile/message/thread"] <= 5
    assert stage.account.calls["/api/profile/lead/message"] == 5


async def test_a_page_of_many_chats_is_told_in_several_transactions(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(9, 250, cases=1), pull_page_size=500)

    assert (await stage.pull()).missed == 250


async def test_a_stale_row_with_a_new_date_undoes_nothing(tmp_path: Path) -> None:
    """The visitor said one name, then another; the row has a later date and still the first one."""
    (chat,) = chats_of(2, 1, cases=0)
    stage = a_stage(tmp_path, [chat])
    told = stage.account.webhooks()
    stage.hear(lambda n: n == len(told) - 1)  # its close is lost
    corrected = acquire_says(chat, name="Corrected", at=chat.ended_at - 1)
    with stage.ledger.transaction():
        stage.ledger.apply([stage.source.read(corrected, event_id="ev_corrected", received_at=NOON)])
    stage.account.rows[str(chat.number)] = {"chat_updated": date(NOON + 600)}

    await stage.pull()

    assert [name for _, name, _ in stage.people()] == ["Corrected"]


@pytest.mark.parametrize("is_pruned", [False, True])
async def test_a_word_that_was_taken_back_does_not_come_back_once_payloads_are_pruned(
    is_pruned: bool, tmp_path: Path
) -> None:
    (chat,) = chats_of(4, 1, cases=0)
    stage = a_stage(tmp_path, [chat])
    for n, name in enumerate((chat.person.name, "Corrected")):
        at = chat.started_at + n
        event = stage.source.read(acquire_says(chat, name=name, at=at), event_id=stage.ids("ev", at), received_at=at)
        with stage.ledger.transaction():
            stage.ledger.apply([event])
    if is_pruned:
        stage.prune(Limits(payloads=0))

    await stage.pull()

    assert [name for _, name, _ in stage.people()] == ["Corrected"]


async def test_gaps_are_filled_although_payloads_are_pruned(tmp_path: Path) -> None:
    (chat,) = chats_of(4, 1, cases=0)
    chat = replace(chat, person=replace(chat.person, phone="+12025550123"), is_phone_late=False)
    stage = a_stage(tmp_path, [chat])
    with stage.ledger.transaction():
        body = acquire_says(chat, name="Somebody", at=chat.started_at)
        stage.ledger.apply([stage.source.read(body, event_id="ev_1", received_at=NOON)])
    stage.prune(Limits(payloads=0))

    await stage.pull()

    assert [(name, phone) for _, name, phone in stage.people()] == [("Somebody", "+12025550123")]


def date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def acquire_says(chat: Chat, *, name: str, at: float) -> bytes:
    user = {"id": chat.person.id, "type": "visitor", "name": name}
    message = {"type": "message", "msg": "It is me", "user": user}
    said = {"id": str(chat.number), "visitor_id": chat.person.id, "message": message, "date_updated": date(at)}
    return json.dumps({**said, "event": "CHAT_ON_MESSAGE"}).encode()


async def test_an_old_chat_that_was_touched_later_does_not_win_over_a_newer_one(tmp_path: Path) -> None:
    chats = chats_of(2, 2, cases=0)
    ada = replace(chats[0].person, name="Ada", phone=None)
    newer = replace(ada, number=7, name="Ada Lovelace")
    stage = a_stage(tmp_path, [replace(chats[0], person=ada), replace(chats[1], person=newer)])
    told = stage.account.webhooks()
    stage.hear(lambda n: told[n].chat == chats[0].id)
    stage.account.rows[str(chats[0].number)] = {"chat_updated": date(NOON + 600)}

    assert (await stage.pull()).missed == 1

    assert [name for _, name, _ in stage.people()] == ["Ada Lovelace"]


async def test_what_a_visitor_said_in_a_later_chat_is_not_put_into_an_older_one(tmp_path: Path) -> None:
    chats = [replace(chat, is_phone_late=False) for chat in chats_of(2, 2, cases=1)]
    later = replace(chats[0].person, email="later@example.com")
    stage = a_stage(tmp_path, [chats[0], replace(chats[1], person=later)])
    told = stage.account.webhooks()
    close = max(n for n, webhook in enumerate(told) if webhook.chat == chats[0].id)
    stage.hear(lambda n: n == close)

    found = await stage.pull()

    assert found.repaired == 1
    assert {email for email, _, _ in stage.people()} == {chats[0].person.email, "later@example.com"}
    assert {c[1] for c in stage.conversations()} == {chats[0].person.email, "later@example.com"}


async def test_a_corrected_email_whose_webhook_was_lost_is_found(tmp_path: Path) -> None:
    (chat,) = chats_of(4, 1, cases=0)
    stage = a_stage(tmp_path, [chat])
    stage.hear(lambda n: n == len(stage.account.webhooks()) - 1)
    stage.account.rows[str(chat.number)] = {"email": "right@example.com"}

    found = await stage.pull()

    assert [email for email, _, _ in stage.people()] == ["right@example.com"]
    assert (found.missed, found.repaired) == (0, 1)


async def test_a_chat_that_is_still_going_on_gets_its_person_but_no_end_and_no_lines(tmp_path: Path) -> None:
    (chat,) = chats_of(4, 1, cases=0)
    stage = a_stage(
        tmp_path, [replace(chat, started_at=NOON + LATER - 60, lines=((True, "Hello", 5), (True, "?", 600)))]
    )

    await stage.pull()

    (row,) = select(stage.ledger, "SELECT * FROM chats")
    assert (row["email"], row["closed_at"], lines(row["transcript"])) == (chat.person.email, None, [])


async def test_paging_that_has_no_effect_is_said(stage: Stage) -> None:
    stage.account.pages, stage.account.most_rows = False, 3

    found = await stage.pull()

    assert any("v1: asking for another page brings the same rows: only 3" in note for note in found.notes)
    assert any("v2: asking for another page brings the same rows: only 3" in note for note in found.notes)
    assert not found.is_complete


async def test_fewer_rows_a_page_than_asked_for_lose_nothing(stage: Stage) -> None:
    stage.account.most_rows = 3

    found = await stage.pull()

    assert (found.missed, found.is_complete) == (40, True)
    assert found.notes == ("the source gives 3 rows a page where 100 were asked for",)


async def test_a_list_that_does_not_say_how_long_it_is_is_read_to_its_end(stage: Stage) -> None:
    stage.account.has_totals = False

    assert (await stage.pull()).missed == 40


async def test_a_source_that_keeps_changing_is_said(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(6, 6, cases=1))

    def change(request: httpx.Request) -> None:
        stage.account.rows["1003"] = {"dateUpdated": iso(NOON + sum(stage.account.calls.values()))}

    stage.api.before = change
    found = await stage.pull()

    assert (found.passes, found.chats) == (3, 6)
    assert found.notes == ("v2: the source kept changing while it was read: pull again",)
    assert not found.is_complete


async def test_a_source_that_counts_more_rows_than_it_shows_is_said(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(6, 6, cases=1))
    answer = stage.api.handle_async_request

    async def count_more(request: httpx.Request) -> httpx.Response:
        answered = await answer(request)
        data = json.loads(answered.content)
        data["data"]["count"] += 1
        return httpx.Response(200, json=data)

    stage.api.handle_async_request = count_more  # type: ignore[method-assign]
    found = await stage.pull(source=acquire(api_token=None))

    assert found.notes == ("v2: the source counts 7 rows, only 6 could be read",)
    assert not found.is_complete


async def test_rows_that_say_nothing_are_kept_as_unreadable_once(stage: Stage) -> None:
    stage.account.extra = [{"name": "Nobody"}, "no row at all"]

    found = await stage.pull()
    await stage.pull()

    stored = select(stage.ledger, "SELECT state, error FROM events WHERE state = 'unreadable'")
    assert found.unreadable == 4  # two lists
    assert {row["error"] for row in stored} == {"the row has no id"}
    assert (len(stored), found.missed) == (2, 40)
    assert "4 rows are kept as unreadable: the row has no id" in found.notes


class Fragile(Ledger):
    """A ledger that cannot fold one chat."""

    def apply(self, events: Sequence[Event]) -> list[Applied]:
        if any(event.chat == "v2:1002" and event.error is None for event in events):
            raise ArithmeticError("nobody foresaw that")
        return super().apply(events)


async def test_one_chat_that_cannot_be_applied_sinks_alone(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(3, 10, cases=1))
    stage.ledger = Fragile(stage.ledger.engine, stage.ledger.takers, new_id=stage.ids)

    found = await stage.pull()

    (stored,) = select(stage.ledger, "SELECT error FROM events WHERE state = 'unreadable'")
    assert stored["error"] == "could not be applied (ArithmeticError)"
    assert found.missed == 9
    assert found.notes == ("a chat could not be applied (ArithmeticError): it is kept as an unreadable event",)


async def test_a_row_of_nobody_is_unreadable_even_if_it_has_an_id(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, [])
    stage.account.extra = [{"id": 5, "name": "Nobody"}]

    found = await stage.pull(source=acquire(v2_api_key=None))

    assert found.notes == ("1 row is kept as unreadable: the row names neither a visitor nor a chat",)


@pytest.mark.parametrize("calls", [10, 20, 30])
async def test_the_place_of_a_pull_names_nobody(calls: int, tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(3, 20), pull_page_size=3)
    stage.api.before = broken_after(calls)
    with suppress(RuntimeError):
        await stage.pull()

    kept = " ".join(row["value"] for row in select(stage.ledger, "SELECT value FROM cursors")).lower()

    people = {chat.person for chat in stage.account.chats}
    words = {word.lower() for one in people for word in (one.name, one.email, one.phone) if word}
    assert '"chats":["v' in kept
    assert "@" not in kept
    assert [word for word in words if word in kept or word.lstrip("+") in kept] == []


async def test_a_contact_that_comes_without_its_fields_is_asked_for(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(7, 10, cases=1))
    stage.account.bare_contacts = True

    await stage.pull()

    assert [email for email, _, _ in stage.people() if not email] == []


async def test_a_busy_source_is_asked_again_and_then_given_up_with_the_place_kept(stage: Stage) -> None:
    answers = [httpx.Response(429, headers={"retry-after": "7"}), httpx.Response(503), httpx.Response(500)]
    stage.api.before = lambda request: answers.pop() if answers else None

    assert (await stage.pull()).missed == 40

    stage.api.before = lambda request: httpx.Response(503)
    with pytest.raises(SourceError, match="cannot be asked"):
        await stage.pull()


async def test_a_source_that_refuses_the_token_ends_the_pull_at_once(stage: Stage) -> None:
    with pytest.raises(SourceError, match="ACQUIRE_API_TOKEN") as error:
        await stage.pull(source=acquire(api_token="canary-wrong"))

    assert "canary" not in str(error.value)
    assert stage.account.calls.total() == 1


async def test_one_visitor_whom_the_source_stumbles_over_holds_up_nobody(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(3, 10, cases=0))
    stumbled = str(stage.account.visitors()[0]["visitor_id"]).encode()

    def stumble(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(500) if b"visitor_id=" + stumbled in request.content else None

    stage.api.before = stumble
    found = await stage.pull()

    assert found.chats > 5
    assert found.notes == (
        "v1: threads of 1 profile could not be read: no usable answer",
        "v1: lines of 1 chat could not be read: no usable answer",
    )
    assert not found.is_complete


REFUSED = httpx.Response(200, json={"success": False, "error": "no permission for ada@example.com", "data": None})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (REFUSED, "it is refused"),
        (httpx.Response(400), "answered 400"),
        (httpx.Response(404), "answered 404, every time"),
    ],
    ids=["no success", "400", "404"],
)
async def test_details_that_the_source_refuses_are_counted_also_over_a_resume(
    answer: httpx.Response, why: str, tmp_path: Path
) -> None:
    stage = a_stage(tmp_path, chats_of(3, 30, cases=0), pull_page_size=5)
    profiles = len(stage.account.visitors())
    left = 30

    def refuse(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        left -= 1
        if left == 0:
            raise RuntimeError("killed")
        return httpx.Response(answer.status_code, content=answer.content) if "/message" in request.url.path else None

    stage.api.before = refuse
    with suppress(RuntimeError):
        await stage.pull()
    assert "ada@" not in str(select(stage.ledger, "SELECT value FROM cursors"))

    found = await stage.pull()

    assert (found.resumed, found.is_complete) == (True, False)
    assert found.notes == (
        f"v1: threads of {profiles} profiles could not be read: {why}",
        f"v1: lines of {profiles} chats could not be read: {why}",
    )


async def test_a_list_that_could_not_be_read_whole_is_remembered_over_a_resume(stage: Stage) -> None:
    stage.account.pages, stage.account.most_rows = False, 3

    def refuse(request: httpx.Request) -> None:
        if request.url.path.endswith("/case"):
            raise RuntimeError("killed")

    stage.api.before = refuse
    with suppress(RuntimeError):
        await stage.pull()
    stage.account.pages, stage.account.most_rows, stage.api.before = True, 1000, lambda request: None

    found = await stage.pull()

    assert (found.resumed, found.is_complete) == (True, False)
    assert [note for note in found.notes if "v1: asking for another page brings the same rows" in note]


async def test_somebody_who_was_deleted_while_the_list_was_read_is_not_missing(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(3, 10, cases=0))
    deleted = str(stage.account.visitors()[0]["visitor_id"]).encode()
    stage.api.before = lambda r: httpx.Response(404) if b"visitor_id=" + deleted in r.content else None

    found = await stage.pull()

    assert (found.notes, found.is_complete) == ((), True)


async def test_a_source_that_stumbles_over_everybody_ends_the_pull(stage: Stage) -> None:
    stage.api.before = lambda request: httpx.Response(500) if "/message/thread" in request.url.path else None

    with pytest.raises(SourceError, match="answered 500"):
        await stage.pull()


async def test_a_wait_of_hours_ends_the_pull(stage: Stage) -> None:
    stage.api.before = lambda request: httpx.Response(429, headers={"retry-after": "9000"})

    with pytest.raises(SourceError, match="asks to wait for 9000 seconds"):
        await stage.pull()


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"success": true, "data": {"data": 3}}', b'{"success": false}'])
async def test_an_answer_that_is_not_as_documented_is_no_empty_list(stage: Stage, answer: bytes) -> None:
    stage.api.before = lambda request: httpx.Response(200, content=answer)

    with pytest.raises(SourceError):
        await stage.pull()


async def test_calls_keep_to_the_pace(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(3, 10), pull_per_second=4)
    stage.clock.now = NOON + LATER
    before = stage.clock.now

    await stage.pull()

    assert stage.clock.now - before == pytest.approx((stage.account.calls.total() - 2) / 4, abs=0.5)


async def test_without_a_token_there_is_nothing_to_ask(stage: Stage) -> None:
    source = acquire(api_token=None, v2_api_key=None)

    assert not source.can_pull
    with pytest.raises(SettingsError, match="no token"):
        await stage.pull(source=source)


async def test_days_that_differ_are_listed(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(8, 30, cases=0, apart=9000))
    await stage.pull()
    lost = stage.account.chats[-20]
    with stage.ledger.transaction():
        stage.ledger.engine.write("UPDATE chats SET started_at = NULL WHERE chat = ?", [[lost.id]])

    differing = await compare_days(stage.ledger, stage.source, clock=stage.clock, transport=stage.api)

    assert differing is not None
    assert [(day.source - day.ledger) for day in differing] == [1]


async def test_days_that_are_short_of_who_was_forgotten_since_are_not_listed(tmp_path: Path) -> None:
    stage = a_stage(tmp_path, chats_of(8, 30, cases=0, apart=9000))
    stage.ledger.erasures = Erasures(lambda content: digest(content))
    await stage.pull()
    person = stage.account.chats[-20].person
    forget(stage.ledger, person.email, digest, sleep=lambda _: None)

    async def days(clock: Clock) -> Any:
        return await compare_days(stage.ledger, stage.source, clock=clock, transport=stage.api)

    tomorrow = Clock(stage.clock.now + DAY)
    assert await days(tomorrow) == []
    with stage.ledger.transaction():
        everything = [[chat.id] for chat in stage.account.chats if chat.person.id != person.id]
        stage.ledger.engine.write("UPDATE chats SET started_at = NULL WHERE chat = ?", everything)
    assert len(await days(tomorrow)) > 1


async def test_totals_that_are_not_as_documented_say_nothing(stage: Stage) -> None:
    stage.api.before = lambda request: httpx.Response(200, json={"success": True, "data": {"chat_statistics": {}}})

    assert await compare_days(stage.ledger, stage.source, clock=stage.clock, transport=stage.api) is None


@asynccontextmanager
async def service(tmp_path: Path, database: str | None) -> AsyncIterator[tuple[Running, Ledger]]:
    """A running service, and its ledger once more as a command beside it opens it."""
    async with running(tmp_path, database=database, secret_key="canary" * 6) as run:
        engine: Any = (
            OnTestClock(database, run.clock)
            if database is not None
            else SqliteEngine(tmp_path / "ledger.sqlite3", clock=run.clock)
        )
        try:
            yield run, Ledger(engine, run.ledger.takers, new_id=run.ledger.new_id, mailing=run.ledger.mailing)
        finally:
            engine.close()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_after_a_night_with_lost_webhooks_the_crm_is_as_if_none_had_been_lost(
    engine: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"API_TOKEN": TOKEN, "V2_API_KEY": KEY, "V2_ACCOUNT": "demo"}.items():
        monkeypatch.setenv(f"ACQUIRE_{name}", value)
    chats = chats_of(11, 100)
    random = Random(5)
    crms: list[Any] = []
    for is_torn in (False, True):
        folder = tmp_path / str(is_torn)
        folder.mkdir()
        async with service(folder, server.database() if engine == "postgresql" else None) as (run, beside):
            account = Account(list(chats), run.clock)
            told = account.webhooks()
            lost = {n for n in range(len(told)) if is_torn and random.random() < 0.05}
            for n, webhook in enumerate(told):
                if n not in lost:
                    assert (await run.post(webhook.body)).status_code == 200
            run.clock.sleep(LATER)
            await run.drain()
            if is_torn:
                source = run.service.sources["acquire"]
                given = {"clock": run.clock, "new_id": beside.new_id, "transport": AcquireApi(account)}
                first = await pull(beside, source, sleep=sleeper(run.clock), **given)
                run.clock.sleep(1)
                await run.drain()
                second = await pull(beside, source, sleep=sleeper(run.clock), **given)
                missed = {told[n].chat for n in lost} - {t.chat for n, t in enumerate(told) if n not in lost}
                assert first.missed == len(missed)
                assert 0 < first.repaired <= len({told[n].chat for n in lost})
                assert (second.missed, second.repaired, second.contacts) == (0, 0, 0)
            crms.append(seen(run))
    assert crms[0] == crms[1]
    assert len(crms[0]) == len({chat.person.email.lower() for chat in chats})


def sleeper(clock: Clock) -> Callable[[float], Any]:
    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)

    return sleep


def seen(run: Running) -> dict[str, Any]:
    """What the CRM has of everybody."""
    names = ("email", "firstname", "lastname", "phone")
    return {
        email.lower(): [(there.get(name) or "").lower() if name == "email" else there.get(name) for name in names]
        for email, there in run.crm.contacts.items()
    }


def test_the_settings_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, reason in (
        ("API_BASE_URL", "http://app.acquire.io/api", "must be https"),
        ("V2_BASE_URL", "ftp://x", "is not an http"),
        ("V2_ACCOUNT", "demo.acquire.io", "first part of an address"),
        ("API_TOKEN", "two words", "holds a space"),
        ("V2_API_KEY", "key-alone", "ACQUIRE_V2_ACCOUNT has to be set"),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(f"ACQUIRE_{name}", value)
            with pytest.raises(SettingsError, match=reason) as error:
                load(AcquireSettings)
            assert value not in str(error.value)
