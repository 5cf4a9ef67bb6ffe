"""Puts right what has gone apart: stored events once more, a new destination, a join that was none."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from sync.cleaning import body_of
from sync.errors import LedgerError, SettingsError
from sync.ledger import Ledger, replaying
from sync.ledger.replaying import Page, Stored
from sync.models import Event, Kind
from sync.sources.base import Source

BATCH = 200
"""Rows in one transaction: the running service gets its turn in between."""


@dataclass
class Replayed:
    """What a replay did: how many events were `read` and folded in, and how many only say the `same` as another.

    `left` counts by reason those that stay as they were.
    """

    read: int = 0
    same: int = 0
    left: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Owed:
    """What a destination was promised: people and chats that it was not promised before, of how many in all."""

    contacts: int
    chats: int
    seen: int


def replay_dead(ledger: Ledger, destination: str, *, dry_run: bool = False) -> int:
    """Try again what a destination refused for good; returns how many. Raises SettingsError if it is not configured."""
    check_configured(ledger, destination)
    if dry_run:
        return replaying.count_dead(ledger, destination)
    with ledger.transaction():
        return replaying.revive_dead(ledger, destination)


def replay_events(
    ledger: Ledger, sources: Mapping[str, Source], *, event: str | None = None, dry_run: bool = False
) -> Replayed:
    """Read stored events once more and fold them in: all unreadable ones, or the one that is named.

    It can only repair: a newer word is never undone, because every word keeps the time at which it was said.
    Raises NotFound.
    """
    result = Replayed()
    if event is not None:
        _replay(ledger, sources, [replaying.stored(ledger, event)], result, dry_run=dry_run)
    else:
        for _ in replay_unreadable(ledger, sources, result, dry_run=dry_run):
            pass
    return result


def replay_unreadable(
    ledger: Ledger, sources: Mapping[str, Source], result: Replayed, *, dry_run: bool = False
) -> Iterator[None]:
    """Read all unreadable events once more, a page a step, and add up in `result` what came of it."""
    for page in _unreadable(ledger):
        _replay(ledger, sources, page, result, dry_run=dry_run)
        yield


def _unreadable(ledger: Ledger) -> Iterator[list[Stored]]:
    after = ""
    while page := replaying.unreadable(ledger, after, BATCH):
        yield page
        after = page[-1].id


def _replay(
    ledger: Ledger, sources: Mapping[str, Source], page: Sequence[Stored], result: Replayed, *, dry_run: bool
) -> None:
    read, left = _read(sources, page)
    result.left.update(left)
    if read and not dry_run:
        _apply(ledger, read, {event.id: event.key for event in page}, result)
    elif read:
        copies = replaying.twins(ledger, read)
        result.same += len(copies)
        result.read += len(read) - len(copies)


def _read(sources: Mapping[str, Source], page: Sequence[Stored]) -> tuple[list[Event], list[str]]:
    """What the events say now, and the reasons for which others have to stay as they were."""
    read, left = [], []
    for was in page:
        source = sources.get(was.source)
        if was.is_gone:
            left.append("what it said is not kept any more")
            continue
        if source is None:
            left.append(f"SYNC_SOURCES does not name {was.source}")
            continue
        event = source.read(body_of(was.payload), event_id=was.id, received_at=was.received_at)
        if event.error is None:
            read.append(event)
        else:
            left.append(event.error)
    return read, left


def _apply(ledger: Ledger, events: Sequence[Event], keys: Mapping[str, str], result: Replayed) -> None:
    """One transaction for all; if it fails for anything but the disk, one for each: a bad event sinks alone."""
    try:
        with ledger.transaction():
            copies = replaying.twins(ledger, events)
            replaying.apply_again(ledger, events, copies, keys)
    except LedgerError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever one event raises must not sink the others
        if len(events) == 1:
            result.left[f"could not be applied ({type(error).__name__})"] += 1
            return
        for event in events:
            _apply(ledger, [event], keys, result)
    else:
        result.same += len(copies)
        result.read += len(events) - len(copies)


def owe_everybody(ledger: Ledger, destination: str) -> Owed:
    """Promise everybody there is to one destination. Idempotent: what it has already is left alone.

    Raises SettingsError if it is not configured.
    """
    owed = Owed(0, 0, 0)
    for page in owe_pages(ledger, destination):
        owed = Owed(owed.contacts + page.contacts, owed.chats + page.chats, owed.seen + page.seen)
    return owed


def owe_pages(ledger: Ledger, destination: str, *, imported: bool = True) -> Iterator[Owed]:
    """The same page by page. Without `imported` nobody is promised anew of whom only an import has told.

    Raises SettingsError if it is not configured.
    """
    check_configured(ledger, destination)
    takes = ledger.takers[destination]
    if Kind.CONTACT in takes:
        owe_page = partial(replaying.owe_contacts_page, imported=imported)
        yield from (Owed(page.new, 0, page.seen) for page in _pages(ledger, destination, owe_page))
    if Kind.CHAT in takes:
        yield from (Owed(0, page.new, page.seen) for page in _pages(ledger, destination, replaying.owe_chats_page))


def _pages(ledger: Ledger, destination: str, owe_page: Callable[[Ledger, str, str, int], Page]) -> Iterator[Page]:
    after: str | None = ""
    while after is not None:
        with ledger.transaction():
            page = owe_page(ledger, destination, after, BATCH)
        after = page.after
        yield page


def undo_join(ledger: Ledger, contact: str) -> str:
    """Make two people again of a contact and whom it was joined into; returns the other's id.

    Raises NotFound, LedgerError.
    """
    with ledger.transaction():
        return replaying.undo_join(ledger, contact)


def check_configured(ledger: Ledger, destination: str) -> None:
    """Raises SettingsError for a destination that nobody serves."""
    if destination not in ledger.takers:
        names = ", ".join(ledger.takers) or "nothing"
        raise SettingsError(f"SYNC_DESTINATIONS does not name {destination} (it names {names})")
