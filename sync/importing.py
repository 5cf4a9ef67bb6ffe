"""Imports the people of a CRM from its CSV export, so that the first sync adopts their records."""

import codecs
import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sync.cleaning import EMAIL_LIMIT, NAME_LIMIT, PHONE_LIMIT, email, phone, said
from sync.errors import LedgerUnavailable, SettingsError
from sync.ledger import Ledger, importing
from sync.ledger.importing import TAKEN, Became, Record
from sync.models import Kind, Visitor

BATCH = 500
"""Rows in one transaction: the running service gets its turn in between."""

EXAMPLES = 5
"""Rows that are named for each reason to leave one alone."""

CHUNK = 1 << 20
HEAD = 1 << 16
"""Characters in which the names of the columns are looked for."""

ID_LIMIT = 200
DELIMITERS = ",;\t"

USUAL = {
    "id": ("record id", "contact id", "id"),
    "email": ("email", "email address", "e-mail", "e-mail address"),
    "phone": ("phone number", "phone", "mobile phone number", "mobile phone", "mobile", "telephone"),
}
USUAL_NAMES = (("first name", "last name"), ("firstname", "lastname"), ("full name",), ("contact name",), ("name",))
"""What columns are usually called, the likeliest first; compared without case, with single spaces."""

NO_ID = "it has no id"
MANGLED = "its id was rounded by a spreadsheet (1.2E+10)"
NOBODY = "it has neither an email nor a phone that can be used"

_ROUNDED = re.compile(r"\d+[.,]?\d*E\+?\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what, by name. None: guess. A name may be made of several."""

    id: str | None = None
    email: str | None = None
    phone: str | None = None
    name: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """A file that was looked at. `lines` is about the number of its rows, `digest` says which file it is."""

    path: Path
    encoding: str
    delimiter: str
    lines: int
    digest: str
    header: tuple[str, ...]
    places: Mapping[str, tuple[int, ...]]

    @property
    def columns(self) -> dict[str, list[str]]:
        """The names of the columns that are read."""
        return {what: [self.header[place] for place in places] for what, places in self.places.items() if places}


@dataclass
class Imported:
    """What an import did. `left` tells for each reason how many rows were left alone, and the first of them.

    `resumed` is the row behind which it went on, where it had broken off. The row with the names is row 1.
    """

    rows: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    left: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    resumed: int | None = None

    def count(self, row: int, became: str) -> None:
        """Count one row."""
        self.rows += 1
        if became in TAKEN:
            self.taken[became] += 1
            return
        n, rows = self.left.get(became, (0, []))
        self.left[became] = (n + 1, [*rows, row] if len(rows) < EXAMPLES else rows)


Told = Callable[[int], None]
"""Is told with how many more rows it is done."""


def look(path: Path, columns: Columns) -> Export:
    """See how a file is written, and where its columns are. Raises SettingsError for what cannot be imported."""
    try:
        digest, encoding, lines = _read_through(path)
        with path.open(encoding=encoding, newline="") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is neither UTF-8 nor Windows-1252: save it as CSV UTF-8") from None
    delimiter, header = max(((d, _header(path, head, d)) for d in DELIMITERS), key=lambda found: len(found[1]))
    places = _places(path, header, columns)
    digest.update(repr((places, encoding)).encode())
    return Export(path, encoding, delimiter, lines, digest.hexdigest()[:32], header, places)


def _read_through(path: Path) -> "tuple[Any, str, int]":
    """The hash of a file, its encoding, and how many lines it has."""
    digest, lines, is_utf8, first = hashlib.sha256(), 0, True, True
    utf8 = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if first and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise SettingsError(f"{path} is UTF-16: save it as CSV UTF-8")
            first = False
            digest.update(chunk)
            lines += chunk.count(b"\n")
            try:
                utf8.decode(chunk) if is_utf8 else None
            except UnicodeDecodeError:
                is_utf8 = False
        try:
            utf8.decode(b"", final=True)
        except UnicodeDecodeError:
            is_utf8 = False
    return digest, "utf-8-sig" if is_utf8 else "cp1252", lines


def _header(path: Path, head: str, delimiter: str) -> tuple[str, ...]:
    try:
        return tuple(next(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)))
    except StopIteration:
        raise SettingsError(f"{path} is empty") from None
    except csv.Error:
        return ()


def _places(path: Path, header: Sequence[str], columns: Columns) -> dict[str, tuple[int, ...]]:
    """Where what is wanted stands in a row. Raises SettingsError."""
    known: dict[str, int] = {}
    for place, name in enumerate(header):
        known.setdefault(_plain(name), place)
    asked = {"id": columns.id, "email": columns.email, "phone": columns.phone}
    found = {what: _named(path, header, known, (name,)) if name else () for what, name in asked.items()}
    found["name"] = _named(path, header, known, columns.name)
    for what, usual in USUAL.items():
        if not found[what]:
            found[what] = next(((known[name],) for name in usual if name in known), ())
    if not found["name"]:
        usual_names = next((names for names in USUAL_NAMES if names[0] in known), ())
        found["name"] = tuple(known[name] for name in usual_names if name in known)
    has = f"it has {', '.join(header)[:300]}" if any(header) else "it has none"
    if not found["id"]:
        raise SettingsError(f"{path}: no column is known to hold the ids of records; name it with --id ({has})")
    if not found["email"] and not found["phone"]:
        raise SettingsError(f"{path}: no column is known to hold emails or phones; --email or --phone ({has})")
    return found


def _named(path: Path, header: Sequence[str], known: Mapping[str, int], names: Sequence[str]) -> tuple[int, ...]:
    for name in names:
        if _plain(name) not in known:
            raise SettingsError(f"{path} has no column {name} (it has {', '.join(header)[:300]})")
    return tuple(known[_plain(name)] for name in names)


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def import_export(
    ledger: Ledger, export: Export, destination: str, *, region: str, told: Told, dry_run: bool = False
) -> Imported:
    """Take in everybody in a file, some hundred rows at a time, beside a running service.

    What broke off goes on where it was; what was imported once changes nothing. A dry run changes nothing either; it
    sees repetitions within one batch only. Raises SettingsError, LedgerError.
    """
    check_destination(ledger, destination)
    name = f"import:{destination}:{export.digest}"
    done = Imported() if dry_run else _noted(importing.place(ledger, name))
    last = done.resumed or 1
    rows = (row for row in _rows(export) if row[0] > last)
    told(last - 1)
    while batch := list(islice(rows, BATCH)):
        read = [(number, _record(export, cells, region)) for number, cells in batch if any(map(str.strip, cells))]
        records = [record for _, record in read if isinstance(record, Record)]
        last = batch[-1][0]
        try:
            with ledger.transaction():
                became = iter(importing.import_records(ledger, destination, records, dry_run=dry_run))
                for number, record in read:
                    done.count(number, next(became) if isinstance(record, Record) else record)
                if not dry_run:
                    importing.note_place(ledger, name, _as_noted(last, done))
        except LedgerUnavailable as error:
            raise LedgerUnavailable(f"{error}. The same command goes on where this one broke off") from error
        told(len(batch))
    if not dry_run:
        with ledger.transaction():
            importing.drop_place(ledger, name)
    return done


def check_destination(ledger: Ledger, destination: str) -> None:
    """Raises SettingsError for a destination that nobody serves, or that takes no contacts."""
    if Kind.CONTACT not in ledger.takers.get(destination, ()):
        names = ", ".join(name for name, kinds in ledger.takers.items() if Kind.CONTACT in kinds) or "nothing"
        raise SettingsError(f"SYNC_DESTINATIONS does not name {destination} (contacts go to {names})")


def _rows(export: Export) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file behind the names, each with its number. Raises SettingsError."""
    number = 1
    try:
        with export.path.open(encoding=export.encoding, newline="") as file:
            reader = csv.reader(file, delimiter=export.delimiter)
            next(reader)
            for number, cells in enumerate(reader, start=2):
                yield number, cells
    except csv.Error as error:
        raise SettingsError(f"{export.path}: row {number + 1} cannot be read: {error}") from None


def _record(export: Export, cells: Sequence[str], region: str) -> Record | str:
    """What a row says, or why it says nothing."""
    places = export.places
    remote_id = said(_cell(cells, places["id"]), limit=ID_LIMIT)
    if remote_id is None:
        return NO_ID
    if _ROUNDED.fullmatch(remote_id):
        return MANGLED
    address = said(_cell(cells, places["email"]), limit=EMAIL_LIMIT)
    number = said(_cell(cells, places["phone"]), limit=PHONE_LIMIT)
    visitor = Visitor(
        name=said(" ".join(_cell(cells, (place,)).strip() for place in places["name"]), limit=NAME_LIMIT),
        email=None if address is None else email(address),
        phone=None if number is None else phone(number, region),
    )
    return NOBODY if visitor.email is None and visitor.phone is None else Record(remote_id, visitor)


def _cell(cells: Sequence[str], places: Sequence[int]) -> str:
    return cells[places[0]] if places and places[0] < len(cells) else ""


def _as_noted(row: int, done: Imported) -> dict[str, Any]:
    return {"row": row, "rows": done.rows, "taken": dict(done.taken), "left": done.left}


def _noted(value: Mapping[str, Any] | None) -> Imported:
    if value is None:
        return Imported()
    left = {reason: (n, list(rows)) for reason, (n, rows) in value["left"].items()}
    return Imported(value["rows"], Counter(value["taken"]), left, resumed=value["row"])


def names(taken: Mapping[str, int]) -> dict[str, int]:
    """The counts of rows that were taken, under short names for other programs."""
    return {became.name.lower(): taken.get(became, 0) for became in TAKEN}


def reasons() -> dict[str, str]:
    """The short name of every reason to leave a row alone."""
    ours = {NO_ID: "no_id", MANGLED: "rounded_id", NOBODY: "nobody"}
    return ours | {str(became): became.name.lower() for became in Became if became not in TAKEN}
