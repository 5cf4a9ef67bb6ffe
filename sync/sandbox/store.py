"""What the imitation CRM has: records, their unique values, notes on contacts, custom properties, mails. One file."""

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync.sandbox.properties import CONTACTS, KINDS, MERGED_IDS, NOTES, OTHER_EMAILS, STANDARD, Definition, iso

if TYPE_CHECKING:
    import sqlite3
else:
    from sqlite_utils.utils import sqlite3

SCHEMA = """
create table if not exists objects (
    id integer primary key, kind text not null, properties text not null, changed text not null,
    created real not null, updated real not null, made_by text not null);
create index if not exists objects_newest on objects (kind, updated desc, id desc);
create table if not exists uniques (
    kind text not null, name text not null, value text not null,
    id integer not null references objects on delete cascade, primary key (kind, name, value)) without rowid;
create index if not exists uniques_of on uniques (id);
create table if not exists associations (
    contact integer not null references objects on delete cascade,
    note integer not null references objects on delete cascade, primary key (contact, note)) without rowid;
create index if not exists associations_of on associations (note);
create table if not exists archived (
    id integer primary key, kind text not null, properties text not null, changed text not null,
    created real not null, updated real not null, made_by text not null, archived_at real not null);
create table if not exists merged (id integer primary key, winner integer not null) without rowid;
create table if not exists definitions (
    kind text not null, name text not null, definition text not null, primary key (kind, name)) without rowid;
create table if not exists blocklist (email text primary key) without rowid;
create table if not exists mails (id integer primary key autoincrement, person text not null, key text,
    mail text not null, taken_at real not null);
create index if not exists mails_of on mails (person);
create index if not exists mails_with on mails (key);
create table if not exists sequence (only_row integer primary key check (only_row = 1), next integer not null);
insert or ignore into sequence values (1, 101);
"""
LOAD = """
    select objects.* from json_each(:ids) wanted cross join objects on objects.id = wanted.value
    where objects.kind = :kind
"""
LOAD_ARCHIVED = """
    select archived.id, kind, properties, changed, created, updated, made_by from json_each(:ids) wanted
    cross join archived on archived.id = wanted.value where archived.kind = :kind and archived_at > :since
"""
ARCHIVE = """
    insert into archived (id, kind, properties, changed, created, updated, made_by, archived_at)
    select id, kind, properties, changed, created, updated, made_by, ? from objects where id = ?
"""
WINNERS = "select merged.id, merged.winner from json_each(?) wanted cross join merged on merged.id = wanted.value"
ALL = "select * from objects where kind = ? order by id"
MATCHING = """
    select * from objects where kind = 'contacts' and (:wanted = '' or exists (
        select 1 from json_each(objects.properties) said
        where said.key in ('email', 'firstname', 'lastname', 'phone', 'mobilephone', 'company')
          and instr(lower(said.value), :wanted)))
    order by updated desc, id desc limit :limit offset :offset
"""
COUNT_MATCHING = """
    select count(*) from objects where kind = 'contacts' and (:wanted = '' or exists (
        select 1 from json_each(objects.properties) said
        where said.key in ('email', 'firstname', 'lastname', 'phone', 'mobilephone', 'company')
          and instr(lower(said.value), :wanted)))
"""
FIND = """
    select uniques.value, uniques.id from json_each(:wanted) wanted
    cross join uniques on uniques.kind = :kind and uniques.name = :name and uniques.value = wanted.value
"""
NOTES_OF = """
    select * from objects where kind = 'notes' and id in (select note from associations where contact = ?)
    order by id
"""
NOTE_COUNTS = """
    select contact, count(*) from associations where contact in (select value from json_each(?)) group by contact
"""
NOTES_ONLY_OF = """
    select note from associations where contact = :contact
    and not exists (select 1 from associations other where other.note = associations.note and other.contact <> :contact)
"""
MAILS = """
    select id, mail, taken_at,
        (select count(*) from mails other where other.person = mails.person) as to_person,
        (select count(*) from mails other where other.key = mails.key) as with_key
    from mails where :id is null or id = :id order by id desc limit :limit offset :offset
"""


@dataclass(frozen=True, slots=True)
class Record:
    """A contact or a note. `changed` says when each property last became what it is; `made_by` who created it."""

    id: int
    kind: str
    properties: Mapping[str, str]
    changed: Mapping[str, float]
    created: float
    updated: float
    made_by: str

    def value(self, name: str) -> str | None:
        """A property as the API shows it, HubSpot's own bookkeeping included; None where it is not set."""
        return self.properties.get(name) or self.bookkeeping().get(name)

    def bookkeeping(self) -> dict[str, str]:
        """The read-only properties that HubSpot keeps by itself."""
        prefix = "" if self.kind == CONTACTS else "hs_"
        return {
            f"{prefix}createdate": iso(self.created),
            f"{prefix}lastmodifieddate": iso(self.updated),
            "hs_object_id": str(self.id),
            "hs_object_source": "INTEGRATION",
            "hs_object_source_label": "INTEGRATION",
            "hs_object_source_detail_1": self.made_by,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """What is about to be written: a new record where `record` is None, else these values of that one."""

    record: Record | None
    properties: Mapping[str, str]
    contacts: Sequence[int] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was taken, as it was said. `to_person` is how many went to its address, `with_key` how many under its
    key, this one included: a mail that went out twice is there twice."""

    id: int
    said: Mapping[str, Any]
    taken_at: float
    to_person: int
    with_key: int


class Store:
    """All that the CRM remembers. `path` is a file (made for its owner only) or ":memory:".

    There is one connection, behind one lock; no call ever waits on anything but this disk, so it is used straight from
    the event loop.
    """

    def __init__(self, path: str | Path = ":memory:") -> None:
        self.path = str(path)
        if self.path != ":memory:":
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            Path(self.path).chmod(0o600)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.execute("pragma foreign_keys = on")
        self._connection.executescript(SCHEMA)
        self.definitions = {kind: {**STANDARD[kind], **self._custom(kind)} for kind in KINDS}

    def close(self) -> None:
        """Close the file. The store cannot be used afterwards."""
        self._connection.close()

    def _custom(self, kind: str) -> dict[str, Definition]:
        rows = self._connection.execute("select name, definition from definitions where kind = ?", (kind,))
        return {name: Definition.from_stored(json.loads(stored)) for name, stored in rows}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written, or nothing."""
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")

    @property
    def contacts(self) -> list[Record]:
        """Every contact, oldest first."""
        return self.all(CONTACTS)

    @property
    def notes(self) -> list[Record]:
        """Every note, oldest first."""
        return self.all(NOTES)

    def all(self, kind: str) -> list[Record]:
        """Every record of a kind, oldest first."""
        return self._records(ALL, (kind,))

    def contact(self, email: str) -> Record | None:
        """The contact with this email."""
        found = self.find(CONTACTS, "email", [email.strip().lower()])
        return self.one(CONTACTS, next(iter(found.values()))) if found else None

    def one(self, kind: str, record: int) -> Record | None:
        """One record by its id."""
        return self.load(kind, [record]).get(record)

    def load(self, kind: str, ids: Iterable[int]) -> dict[int, Record]:
        """Those of these records that exist, by id."""
        return {record.id: record for record in self._records(LOAD, {"kind": kind, "ids": json.dumps(list(ids))})}

    def load_archived(self, kind: str, ids: Iterable[int], since: float) -> dict[int, Record]:
        """Those of these records that were archived after a time, by id."""
        named = {"kind": kind, "ids": json.dumps(list(ids)), "since": since}
        return {record.id: record for record in self._records(LOAD_ARCHIVED, named)}

    def winners(self, ids: Iterable[int]) -> dict[int, int]:
        """Into which records those of these were merged that are no more."""
        with self._lock:
            return dict(self._connection.execute(WINNERS, (json.dumps(list(ids)),)).fetchall())

    def find(self, kind: str, name: str, values: Iterable[str]) -> dict[str, int]:
        """Who holds these values of a unique property: value → id. A contact holds its other emails as well."""
        named = {"kind": kind, "name": name, "wanted": json.dumps(list(values))}
        with self._lock:
            return dict(self._connection.execute(FIND, named).fetchall())

    def matching(self, wanted: str, *, limit: int, offset: int = 0) -> tuple[int, list[Record]]:
        """How many contacts contain a text in what names them, and one page of those, last changed first."""
        named = {"wanted": wanted.strip().lower(), "limit": limit, "offset": offset}
        with self._lock:
            (count,) = self._connection.execute(COUNT_MATCHING, named).fetchone()
            return count, self._records(MATCHING, named)

    def notes_of(self, contact: int) -> list[Record]:
        """The notes on one contact, oldest first."""
        return self._records(NOTES_OF, (contact,))

    def note_counts(self, contacts: Iterable[int]) -> dict[int, int]:
        """How many notes are on each of these contacts; those without any are left out."""
        with self._lock:
            return dict(self._connection.execute(NOTE_COUNTS, (json.dumps(list(contacts)),)).fetchall())

    def write(self, kind: str, changes: Sequence[Change], *, made_by: str, now: float) -> list[Record]:
        """Write all changes in one transaction. Returns the records as they now are, in the same order."""
        with self.transaction():
            fresh = iter(self._next_ids(sum(change.record is None for change in changes)))
            written = [_after(kind, change, fresh, made_by, now) for change in changes]
            self._connection.executemany(
                "insert into objects values (?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set "
                "properties = excluded.properties, changed = excluded.changed, updated = excluded.updated",
                [_row(record) for record in written],
            )
            self._write_uniques(kind, changes, written)
            self._connection.executemany(
                "insert or ignore into associations (contact, note) values (?, ?)",
                [(to, record.id) for change, record in zip(changes, written, strict=True) for to in change.contacts],
            )
        return written

    def _next_ids(self, count: int) -> range:
        sql = "update sequence set next = next + ? returning next"
        (following,) = self._connection.execute(sql, (count,)).fetchall()[0]
        return range(following - count, following)

    def _write_uniques(self, kind: str, changes: Sequence[Change], written: Sequence[Record]) -> None:
        names = {name for name, definition in self.definitions[kind].items() if definition.is_unique}
        gone, come = [], []
        for change, record in zip(changes, written, strict=True):
            for name in names:
                before = _held(change.record.properties, name) if change.record else set()
                after = _held(record.properties, name)
                gone += [(kind, name, value) for value in before - after]
                come += [(kind, name, value, record.id) for value in after - before]
        self._connection.executemany("delete from uniques where kind = ? and name = ? and value = ?", gone)
        self._connection.executemany("insert into uniques values (?, ?, ?, ?)", come)

    def associate(self, note: int, contact: int) -> None:
        """Put a note on a contact. Twice is once."""
        with self.transaction():
            sql = "insert or ignore into associations (contact, note) values (?, ?)"
            self._connection.execute(sql, (contact, note))

    def archive(self, record: int, *, now: float) -> None:
        """Take a record away so that it can still be read for a while."""
        with self.transaction():
            self._connection.execute(ARCHIVE, (now, record))
            self._connection.execute("delete from objects where id = ?", (record,))

    def merge(self, primary: Record, other: Record, *, made_by: str, now: float) -> Record:
        """Make one new record of two contacts. Both of their ids lead to it from now on.

        knowledge.hubspot.com/records/merge-records
        """
        emails = [_listed(record.properties, name) for name in ("email", OTHER_EMAILS) for record in (primary, other)]
        main = primary.properties.get("email") or other.properties.get("email")
        others = dict.fromkeys(email for listed in emails for email in listed if email != main)
        ids = [*_listed(primary.properties, MERGED_IDS), *_listed(other.properties, MERGED_IDS)]
        ids += [str(primary.id), str(other.id)]
        kept = {**other.properties, **primary.properties, OTHER_EMAILS: ";".join(others), MERGED_IDS: ";".join(ids)}
        with self.transaction():
            notes = [(note.id,) for who in (primary, other) for note in self.notes_of(who.id)]
            self._connection.executemany("delete from objects where id = ?", [(primary.id,), (other.id,)])
        (made,) = self.write(CONTACTS, [Change(None, kept)], made_by=made_by, now=now)
        with self.transaction():
            self._connection.executemany("insert or replace into merged values (?, ?)", [(id_, made.id) for id_ in ids])
            sql = "insert or ignore into associations (contact, note) values (?, ?)"
            self._connection.executemany(sql, [(made.id, note) for (note,) in notes])
        return made

    def remove(self, record: int, *, with_notes: bool = False) -> None:
        """Take a record away; `with_notes` also takes the notes that are on nobody else."""
        with self.transaction():
            doomed = [(record,)]
            if with_notes:
                doomed += self._connection.execute(NOTES_ONLY_OF, {"contact": record}).fetchall()
            self._connection.executemany("delete from objects where id = ?", doomed)
            self._connection.executemany("delete from archived where id = ?", doomed)

    def block(self, email: str) -> None:
        """Never again take this email."""
        with self.transaction():
            self._connection.execute("insert or ignore into blocklist values (?)", (email.strip().lower(),))

    def blocked(self, emails: Iterable[str]) -> set[str]:
        """Those of these emails that are never taken."""
        sql = "select email from blocklist where email in (select value from json_each(?))"
        with self._lock:
            return {email for (email,) in self._connection.execute(sql, (json.dumps(list(emails)),))}

    def define(self, kind: str, definition: Definition) -> None:
        """Add a custom property."""
        with self.transaction():
            stored = json.dumps(definition.as_stored())
            self._connection.execute("insert into definitions values (?, ?, ?)", (kind, definition.name, stored))
        self.definitions[kind][definition.name] = definition

    def take_mail(self, person: str, key: str | None, said: Mapping[str, Any], *, now: float) -> int:
        """Put a mail into the outbox, whether it is there already or not. Returns its id."""
        with self.transaction():
            sql = "insert into mails (person, key, mail, taken_at) values (?, ?, ?, ?) returning id"
            ((taken,),) = self._connection.execute(sql, (person, key, json.dumps(said), now)).fetchall()
        return int(taken)

    def mails(self, *, limit: int = -1, offset: int = 0, only: int | None = None) -> list[Mail]:
        """Mails, newest first; `only` is the id of the one that is wanted."""
        with self._lock:
            found = self._connection.execute(MAILS, {"id": only, "limit": limit, "offset": offset})
            return [Mail(id_, json.loads(said), *rest) for id_, said, *rest in found]

    def mail_count(self) -> int:
        """How many mails were taken."""
        with self._lock:
            return int(self._connection.execute("select count(*) from mails").fetchone()[0])

    def clear(self) -> None:
        """Forget every record and mail; custom properties stay."""
        with self.transaction():
            self._connection.execute("delete from objects")
            self._connection.execute("delete from archived")
            self._connection.execute("delete from merged")
            self._connection.execute("delete from mails")
            self._connection.execute("delete from blocklist")

    def _records(self, sql: str, parameters: Mapping[str, object] | Sequence[object]) -> list[Record]:
        with self._lock:
            return [
                Record(id_, kind, json.loads(properties), json.loads(changed), *rest)
                for id_, kind, properties, changed, *rest in self._connection.execute(sql, parameters)
            ]


def _held(properties: Mapping[str, str], name: str) -> set[str]:
    """What a record holds of a unique property. An email is unique over the main and the other emails of everybody."""
    held = set(_listed(properties, OTHER_EMAILS)) if name == "email" else set()
    return held | ({properties[name]} if properties.get(name) else set())


def _listed(properties: Mapping[str, str], name: str) -> list[str]:
    return [value for value in properties.get(name, "").lower().split(";") if value]


def _row(record: Record) -> tuple[object, ...]:
    said, changed = json.dumps(record.properties), json.dumps(record.changed)
    return (record.id, record.kind, said, changed, record.created, record.updated, record.made_by)


def _after(kind: str, change: Change, fresh: Iterator[int], made_by: str, now: float) -> Record:
    """The record as it will be; "" clears a property."""
    before = change.record or Record(next(fresh), kind, {}, {}, now, now, made_by)
    news = {name: said for name, said in change.properties.items() if said != before.properties.get(name, "")}
    properties = {name: said for name, said in {**before.properties, **news}.items() if said}
    changed = {**before.changed, **dict.fromkeys(news, now)}
    updated = now if news else before.updated
    return Record(before.id, kind, properties, changed, before.created, updated, before.made_by)
