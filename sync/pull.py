"""Asks a source what it knows, and tells the ledger what the webhooks have missed.

What is pulled goes the way of a webhook: a body that the source reads, an event, `Ledger.apply`. Before that it is
sifted (`sifting.py`): what a chat is known to have said, or has taken back since, is no news. So a pull after a
complete history of webhooks stores nothing at all, and a second pull stores nothing that the first one has.

A list is read whole, as nothing says how it is sorted, and again until a pass brings nothing new, because rows move
from page to page while it is read. What a page told, and that it was read, are committed together: a pull that is
killed goes on where it was.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sync.cleaning import body_of
from sync.errors import LedgerError, SettingsError
from sync.http import Transport
from sync.ids import NewId
from sync.ledger import Ledger
from sync.ledger import pulling as stored
from sync.models import Event, Visitor
from sync.sifting import sifted
from sync.sources.base import Listed, PulledChat, Puller, Row, Source, Unread, UnreadableRow

MOST_PASSES = 3
BATCH = 100
"""Chats in one transaction: the running service gets its turn in between."""

BATCH_LINES = 5000
"""Lines of transcripts that are held in memory at most, about."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull found, over all lists of one source.

    `missed` chats were unknown, `repaired` ones changed, the missed among them. `unreadable` rows are kept as events.
    Where `is_complete` is false, `notes` say what could not be read: there may be chats of which nobody knows.
    """

    source: str
    rows: int = 0
    chats: int = 0
    missed: int = 0
    repaired: int = 0
    contacts: int = 0
    unreadable: int = 0
    passes: int = 0
    resumed: bool = False
    notes: tuple[str, ...] = ()
    is_complete: bool = True


async def pull(
    ledger: Ledger,
    source: Source,
    *,
    clock: Callable[[], float],
    new_id: NewId,
    since: float | None = None,
    dry_run: bool = False,
    told: Callable[[Pulled], None] = lambda _: None,
    sleep: Sleep = asyncio.sleep,
    transport: Transport | None = None,
) -> Pulled:
    """Pull everything a source knows, or what changed since a time; a row without dates counts as changed.

    `told` hears of each page. With `dry_run` nothing is written: it may count a person twice whom two pages tell of.
    Raises SettingsError where the source cannot be asked, SourceError and LedgerError with the cursor kept.
    """
    pullers = source.pullers(clock=clock, sleep=sleep, transport=transport)
    if not pullers:
        raise SettingsError(f"{source.name} cannot be asked: no token for its REST API is set")
    run = _Run(ledger, source, clock, new_id, since, dry_run, told)
    run.resume(pullers)
    try:
        for puller in pullers:
            if puller.name not in run.done:
                await run.scan(puller)
    finally:
        for puller in pullers:
            await puller.aclose()
    return run.finish()


class _Rehearsed(Exception):
    """Ends the transaction of a rehearsal, so that nothing of it stays."""


@dataclass
class _Seen:
    """What pages brought: rows with their marks, rows that say nothing with the reason, chats and people by what became
    of them. A row without an id is known by its mark."""

    rows: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    chats: set[str] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    repaired: set[str] = field(default_factory=set)
    contacts: set[str] = field(default_factory=set)

    def add(self, other: "_Seen") -> None:
        self.rows |= other.rows
        self.bad |= other.bad
        self.chats |= other.chats
        self.missed |= other.missed
        self.repaired |= other.repaired
        self.contacts |= other.contacts

    def dump(self) -> dict[str, Any]:
        return {name: value if isinstance(value, dict) else sorted(value) for name, value in vars(self).items()}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "_Seen":
        told = {name: set(dumped[name]) for name in ("chats", "missed", "repaired", "contacts")}
        return cls(rows=dict(dumped["rows"]), bad=dict(dumped["bad"]), **told)


@dataclass
class _Place:
    """Where a scan is: in which pass of which list, at which page; what a pass has brought so far."""

    pass_: int = 1
    page: int = 0
    limit: int = 0
    fresh: int = 0
    before: list[str] = field(default_factory=list)


class _Run:
    """One pull: its place, which is committed page by page, and what it has seen so far."""

    def __init__(
        self,
        ledger: Ledger,
        source: Source,
        clock: Callable[[], float],
        new_id: NewId,
        since: float | None,
        dry_run: bool,
        told: Callable[[Pulled], None],
    ) -> None:
        self.ledger = ledger
        self.source = source
        self.clock = clock
        self.new_id = new_id
        self.since = since
        self.dry_run = dry_run
        self.told = told
        self.name = f"pull:{source.name}"
        self.done: list[str] = []
        self.notes: dict[str, None] = {}
        self.is_complete = True
        self.pullers: Sequence[Puller] = ()
        self.unread_before: dict[str, Counter[Unread]] = {}
        self.passes = 0
        self.resumed = False
        self.seen = _Seen()
        self.in_pass: set[str] = set()
        self.here: tuple[str, _Place] | None = None

    def resume(self, pullers: Sequence[Puller]) -> None:
        """Go on where the pull before was killed, if it looked at least as far back. A rehearsal starts anew."""
        self.pullers = pullers
        if self.dry_run:
            return
        found = stored.load_cursors(self.ledger, self.name)
        place = found.pop(self.name, None)
        if place is None:
            return
        goes_far_enough = place["since"] is None or (self.since is not None and place["since"] <= self.since)
        if not goes_far_enough or place["list"] not in (None, *(puller.name for puller in pullers)):
            with self.ledger.transaction():
                stored.drop_cursors(self.ledger, self.name)
            return
        self.resumed, self.since, self.done = True, place["since"], place["done"]
        self.passes, self.notes = place["passes"], dict.fromkeys(place["notes"])
        self.is_complete = place.get("is_complete", True)
        self.unread_before = {
            name: Counter({Unread(*words): n for *words, n in told}) for name, told in place.get("unread", {}).items()
        }
        if place["list"] is not None:
            self.here = place["list"], _Place(**place["place"])
        for name, dumped in found.items():
            page = _Seen.load(dumped)
            self.seen.add(page)
            if self.here is not None and name.startswith(f"{self.name}:{self.here[0]}:{self.here[1].pass_}:"):
                self.in_pass |= page.rows.keys()

    def finish(self) -> Pulled:
        """Forget the place: the next pull begins anew."""
        if not self.dry_run:
            with self.ledger.transaction():
                stored.drop_cursors(self.ledger, self.name)
        return self.pulled()

    def pulled(self) -> Pulled:
        """What was found so far."""
        seen = self.seen
        unread = self.unread()
        notes = [*self.notes, *(f"{name}: {what.of(n)}" for name, told in unread.items() for what, n in told.items())]
        for reason, n in Counter(seen.bad.values()).most_common():
            notes.append(f"{n} {'row is' if n == 1 else 'rows are'} kept as unreadable: {reason}")
        return Pulled(
            source=self.source.name,
            rows=len(seen.rows),
            chats=len(seen.chats),
            missed=len(seen.missed),
            repaired=len(seen.repaired),
            contacts=len(seen.contacts),
            unreadable=len(seen.bad),
            passes=self.passes,
            resumed=self.resumed,
            notes=tuple(notes),
            is_complete=self.is_complete and not any(unread.values()),
        )

    def unread(self) -> dict[str, Counter[Unread]]:
        """What of each list could not be read, also before this pull was killed and went on."""
        return {p.name: self.unread_before.get(p.name, Counter()) + Counter(p.unread) for p in self.pullers}

    async def scan(self, puller: Puller) -> None:
        """Read a list pass by pass, until one brings nothing new."""
        if self.here is None or self.here[0] != puller.name:
            self.here = puller.name, _Place(page=puller.first_page, limit=puller.page_size)
            self.in_pass = set()
        _, place = self.here
        while True:
            self.passes = max(self.passes, place.pass_)
            listed = await puller.page(place.page, place.limit)
            if (limit := _smaller_limit(listed, place, puller)) is not None:
                self.note(f"the source gives {limit} rows a page where {place.limit} were asked for")
                place.limit, place.page = limit, puller.first_page
                continue
            ended = await self._page(puller, place, listed)
            self.told(self.pulled())
            if ended:
                break
        self.here, self.done = None, [*self.done, puller.name]
        if not self.dry_run:
            with self.ledger.transaction():
                self._save(None, None)

    async def _page(self, puller: Puller, place: _Place, listed: Listed) -> bool:
        """Take one page and move on; returns whether the list is done."""
        page = _Seen()
        name = f"{self.name}:{puller.name}:{place.pass_}:{place.page}"
        keys = [_key(row) for row in listed.rows]
        new = [key for key in keys if key not in self.in_pass]
        fresh = [row for row in listed.rows if self._is_fresh(row)]
        waiting = await self._take_rows(puller, fresh, page, name)
        page.rows |= {_key(row): row.mark for row in listed.rows}
        place.fresh += len(fresh)
        self.in_pass.update(keys)
        ended = False
        if new:
            place.page, place.before = place.page + 1, keys
        else:
            ended = self._end_of_pass(puller, place, listed, keys)
        self._take(puller, waiting, page, name, place)
        self.seen.add(page)
        return ended

    def _end_of_pass(self, puller: Puller, place: _Place, listed: Listed, keys: Sequence[str]) -> bool:
        """Whether that was the last pass; says what of the source cannot be read."""
        total, read = listed.total, len(self.in_pass)
        has_more = total > read if total is not None else len(keys) >= place.limit
        is_stuck = bool(keys) and place.page == puller.first_page + 1 and keys == place.before and has_more
        if is_stuck:
            self.miss(f"{puller.name}: asking for another page brings the same rows: only {read} could be read")
        is_last = is_stuck or not place.fresh or place.pass_ == MOST_PASSES
        if is_last and not is_stuck:
            if place.fresh and place.pass_ == MOST_PASSES:
                self.miss(f"{puller.name}: the source kept changing while it was read: pull again")
            if total is not None and has_more:
                self.miss(f"{puller.name}: the source counts {total} rows, only {read} could be read")
        place.pass_, place.page, place.fresh, place.before = place.pass_ + 1, puller.first_page, 0, []
        self.in_pass = set()
        return is_last

    def _save(self, list_: str | None, place: _Place | None) -> None:
        stored.save_cursor(
            self.ledger,
            self.name,
            {
                "since": self.since,
                "list": list_,
                "place": None if place is None else vars(place),
                "done": self.done,
                "passes": self.passes,
                "notes": list(self.notes),
                "is_complete": self.is_complete,
                "unread": {name: [[*what, n] for what, n in told.items()] for name, told in self.unread().items()},
            },
        )

    def note(self, note: str) -> None:
        """Say something that a person should know; the same once."""
        self.notes[note] = None

    def miss(self, note: str) -> None:
        """Say what of the source could not be read."""
        self.note(note)
        self.is_complete = False

    def _is_fresh(self, row: Row) -> bool:
        """Whether a row says something that was not read in this pull, and recently enough."""
        if self.seen.rows.get(_key(row)) == row.mark:
            return False
        return self.since is None or row.at is None or row.at >= self.since

    async def _take_rows(self, puller: Puller, rows: Iterable[Row], page: _Seen, name: str) -> list[PulledChat]:
        """Take the chats of rows, but for the last ones: these are returned, to be taken together with the page."""
        waiting: list[PulledChat] = []
        for row in rows:
            if len(waiting) >= BATCH or sum(len(chat.news.messages) for chat in waiting) >= BATCH_LINES:
                self._take(puller, waiting, page, name)
                waiting = []
            try:
                if row.key is None:
                    raise UnreadableRow("the row has no id")
                waiting += await puller.chats(row, self._settled)
            except UnreadableRow as reason:
                page.bad[_key(row)] = str(reason)
                self._keep(puller.unreadable(row, str(reason)))
        return waiting

    def _keep(self, body: bytes) -> None:
        self._store(lambda: self.ledger.apply([self._read(body)]))

    def _settled(self, chats: Collection[str]) -> Set[str]:
        """Chats that were closed before the time from which on is asked for."""
        if self.since is None or not chats:
            return set()
        known = stored.load_chats(self.ledger, self.source.name, chats)
        return {c for c, chat in known.items() if chat.closed_at is not None and chat.closed_at < self.since}

    def _take(
        self, puller: Puller, chats: Sequence[PulledChat], page: _Seen, name: str, then: _Place | None = None
    ) -> None:
        """Tell the ledger what of these is news; with the last of it goes where to go on (`then`)."""
        groups = list(_apart(chats, BATCH)) or [[]]
        for group in groups[:-1]:
            self._take_surely(puller, group, page, name, None)
        self._take_surely(puller, groups[-1], page, name, then)

    def _take_surely(
        self, puller: Puller, group: Sequence[PulledChat], page: _Seen, name: str, then: _Place | None
    ) -> None:
        """One transaction for all; if it fails for anything but the ledger, one for each: a bad one sinks alone."""

        def work() -> None:
            if group:
                page.add(self._tell(puller, group))
            if not self.dry_run:
                stored.save_cursor(self.ledger, name, page.dump())
                if then is not None:
                    self._save(puller.name, then)

        try:
            self._store(work)
        except LedgerError:
            raise
        except Exception as error:  # whatever one chat raises must not sink the others
            if not group:
                raise
            if len(group) == 1:
                self._sink(puller, group[0], error)
                group = []
            for one in group:
                self._take_surely(puller, [one], page, name, None)
            self._take_surely(puller, [], page, name, then)

    def _sink(self, puller: Puller, chat: PulledChat, error: Exception) -> None:
        self._store(lambda: self.ledger.apply_poison(self._read(puller.body(chat)), error))
        self.note(f"a chat could not be applied ({type(error).__name__}): it is kept as an unreadable event")

    def _store(self, work: Callable[[], object]) -> None:
        """Do something in a transaction; in a rehearsal nothing of it stays."""
        try:
            with self.ledger.transaction():
                work()
                if self.dry_run:
                    raise _Rehearsed
        except _Rehearsed:
            pass

    def _tell(self, puller: Puller, group: Sequence[PulledChat]) -> _Seen:
        """Apply what is news of these chats, each of which comes once, and see what it changed."""
        source, places = self.source.name, [one.chat for one in group]
        before = stored.load_chats(self.ledger, source, places)
        types = stored.told_types(self.ledger, source, places)
        news = [
            sifted(one, before.get(one.chat), types.get(one.chat, set()), partial(self._said_before, one.chat))
            for one in group
        ]
        events = [self._read(puller.body(one)) for one in news if one is not None]
        people = stored.versions(self.ledger, events, by_email=self.dry_run)
        if events:
            self.ledger.apply(events)
        after = stored.load_chats(self.ledger, source, places) if events else before
        now = stored.versions(self.ledger, events, by_email=self.dry_run)
        changed = {i: who for i, who in now.items() if people.get(i) != who}
        return _Seen(
            chats=set(places),
            missed={chat for chat in after if chat not in before},
            repaired={chat for chat, row in after.items() if row != before.get(chat)},
            contacts={who for who, _ in changed.values()},
        )

    def _read(self, body: bytes) -> Event:
        now = self.clock()
        return self.source.read(body, event_id=self.new_id("ev", now), received_at=now)

    def _said_before(self, chat: str) -> list[Visitor] | None:
        """What the events of a chat said about its visitor, one by one; None where not all of it is known any more."""
        events = stored.said_in(self.ledger, self.source.name, chat)
        if events is None:
            return None
        found = []
        for was in events:
            event = self.source.read(body_of(was.payload), event_id=was.id, received_at=was.received_at)
            if event.visitor is not None:
                found.append(event.visitor)
        return found


def _key(row: Row) -> str:
    return row.mark if row.key is None else row.key


def _smaller_limit(listed: Listed, place: _Place, puller: Puller) -> int | None:
    """The rows that the source really gives a page, where it gives fewer than were asked for and has more.

    Where it counts its pages by what was asked for, the rows in between would never be seen.
    """
    if place.page != puller.first_page or not listed.rows:
        return None
    given = len(listed.rows) if listed.limit is None else min(listed.limit, place.limit) or len(listed.rows)
    return given if given < place.limit and listed.total is not None and listed.total > given else None


def _apart(chats: Sequence[PulledChat], most: int) -> Iterator[list[PulledChat]]:
    """Groups in which each chat comes once, in order."""
    group: dict[str, PulledChat] = {}
    for chat in chats:
        if chat.chat in group or len(group) == most:
            yield list(group.values())
            group = {}
        group[chat.chat] = chat
    if group:
        yield list(group.values())
