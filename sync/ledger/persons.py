"""What the ledger holds of one person, and what it would mean to forget them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unicodedata import normalize
from urllib.parse import unquote

from sync.cleaning import body_of, email_key
from sync.errors import NotFound
from sync.ledger.engine import Engine
from sync.ledger.machine import Delivery
from sync.ledger.owing import Takers, delivery_of
from sync.ledger.rows import chat_of, contact_of
from sync.models import Chat, Contact, Kind

if TYPE_CHECKING:
    from sync.ledger import Ledger

ADOPTED = "it was there before us: look at it there, and delete it if you may"
SHARED = "another person of ours has the same record: look at it there"
PAGE = 500
FEW = 100
"""Whole webhooks that are in memory at once."""

LAYERS = 3
"""How often one escape may lie in another."""

ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
ENCODINGS = ("utf-8", "latin-1")
"""How bytes may be meant; the second matters only to an email that is not ASCII."""

SHORT = 3
"""Characters up to which a name says nothing about where it stands."""


@dataclass(frozen=True, slots=True)
class Person:
    """Everything that the ledger holds of one person. `contacts`: first the one that the others were joined into."""

    contacts: tuple[Contact, ...]
    chats: tuple[Chat, ...]
    identities: tuple[tuple[str, str], ...]
    deliveries: tuple[Delivery, ...]
    strays: tuple[tuple[str, str], ...]
    erased_at: float | None = None

    @property
    def root(self) -> Contact:
        """The contact that all others of the family were joined into."""
        return self.contacts[0]

    @property
    def emails(self) -> list[str]:
        """Every email of the person, as typed."""
        said = [c.email for c in self.contacts] + [chat.email for chat in self.chats]
        return sorted({e for e in said if e is not None} | {v for kind, v in self.identities if kind == "email"})

    @property
    def keys(self) -> list[str]:
        """Every key that could lead to the person; see `keys_of`."""
        keys = {f"{kind}:{value}" for kind, value in self.identities}
        keys |= {f"email:{email_key(email)}" for email in self.emails}
        keys |= {f"phone:{c.phone}" for c in self.contacts if c.phone is not None}
        for chat in self.chats:
            keys.add(f"chat:{chat.source}:{chat.chat}")
            if "phone" in chat.said:
                keys.add(f"phone:{chat.said['phone'].value}")
            if "visitor_id" in chat.said:
                keys.add(f"visitor:{chat.source}:{chat.said['visitor_id'].value}")
        return sorted(keys)

    @property
    def words(self) -> list[str]:
        """What an alarm would name the person by."""
        named = [word for c in self.contacts for word in (c.name, c.phone) if word is not None and len(word) > SHORT]
        return [*self.emails, *named]


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the person at a destination. `left`: why it is left to a person there; None: it is deleted."""

    destination: str
    remote_id: str
    ours: bool
    left: str | None = None
    notes: tuple[str, ...] = ()
    """The chats that we wrote onto it, where it is left."""

    @property
    def facts(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "destination": self.destination,
            "record": self.remote_id,
            "ours": self.ours,
            "left": self.left,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What forgetting somebody means. `lost`: destinations where a record may stand that we never heard of.

    `mails` counts by mailer what went out: that is in other hands. `mentions` are events of others that name an email.
    """

    person: Person
    records: tuple[Record, ...]
    lost: tuple[str, ...]
    mails: Mapping[str, int]
    events: int
    mentions: tuple[str, ...] = field(default=())

    @property
    def counts(self) -> dict[str, int]:
        """How much there is of everything that would be erased here."""
        return {
            "contacts": len(self.person.contacts),
            "identities": len(self.person.identities),
            "chats": len(self.person.chats),
            "messages": sum(len(chat.transcript) for chat in self.person.chats),
            "events": self.events,
            "mentions": len(self.mentions),
            "deliveries": len(self.person.deliveries),
            "mails": sum(self.mails.values()),
        }


def find(ledger: "Ledger", wanted: str) -> Person:
    """The person that an email, a phone in E.164 or a contact's id leads to, joins followed.

    Raises NotFound, also where a phone leads to several people.
    """
    rows = ledger.engine.rows
    starts = [{"id": row["id"]} for row in rows("claimed_contacts", rows=[{"id": wanted}])]
    if not starts:
        keys = [{"kind": "email", "value": email_key(wanted)}, {"kind": "phone", "value": wanted}]
        starts = [{"id": row["contact"]} for row in rows("load_identities", rows=keys)]
        starts = starts or [{"id": row["id"]} for row in rows("contacts_with_email", email=wanted)]
    roots = sorted({row["root"] for row in rows("roots", rows=starts)})
    if not roots:
        raise NotFound("nobody here is called that: give an email, a phone, or the id of a contact (co_…)")
    if len(roots) > 1:
        raise NotFound(f"that leads to several people, name one by its id: {', '.join(roots)}")
    return person_of(ledger.engine, roots[0])


def person_of(engine: Engine, root: str) -> Person:
    """The person that a contact and all who were joined into it are."""
    found = {row["id"]: row for row in engine.rows("load_family", rows=[{"id": root}])}
    family = [found[root], *(row for key, row in sorted(found.items()) if key != root)]
    ids = [{"id": row["id"]} for row in family]
    chats = tuple(chat_of(row) for row in engine.rows("load_family_chats", rows=ids[:1]))
    subjects = [*ids, *({"id": chat.id} for chat in chats)]
    return Person(
        contacts=tuple(contact_of(row) for row in family),
        chats=chats,
        identities=tuple((row["kind"], row["value"]) for row in engine.rows("identities_of_family", rows=ids)),
        deliveries=tuple(delivery_of(row) for row in engine.rows("deliveries_of_subjects", rows=subjects)),
        strays=tuple((row["destination"], row["remote_id"]) for row in engine.rows("strays_of_family", rows=ids)),
        erased_at=found[root]["erased_at"],
    )


def plan(ledger: "Ledger", person: Person, *, also_adopted: bool, mentions: Sequence[str] = ()) -> Plan:
    """What would be erased here, and what becomes of each record at a destination."""
    rows = ledger.engine.rows
    mails: dict[str, int] = {}
    for mail in rows("mails_of_chats", rows=[{"id": chat.id} for chat in person.chats]):
        mails[mail["mailer"]] = mails.get(mail["mailer"], 0) + mail["went"]
    own = {row["id"] for row in rows("events_of_places", rows=places_of(person))}
    contacts = [d for d in person.deliveries if d.kind is Kind.CONTACT]
    lost = sorted({d.destination for d in contacts if d.remote_id is None and d.intended_at is not None})
    records = _records(ledger, person, contacts, also_adopted=also_adopted)
    others = tuple(event for event in mentions if event not in own)
    return Plan(person, records, tuple(lost), {name: n for name, n in mails.items() if n}, len(own), others)


def places_of(person: Person) -> list[dict[str, str]]:
    """The chats of the person as the source calls them."""
    return [{"source": chat.source, "chat": chat.chat} for chat in person.chats]


def _records(
    ledger: "Ledger", person: Person, contacts: Sequence[Delivery], *, also_adopted: bool
) -> tuple[Record, ...]:
    ours: dict[tuple[str, str], bool] = {place: False for place in person.strays}
    for one in contacts:
        if one.remote_id is not None:
            place = one.destination, one.remote_id
            ours[place] = ours.get(place, False) or one.ours
    asked = [{"destination": d, "remote_id": r, "subject": person.root.id} for d, r in ours]
    held = {(row["destination"], row["remote_id"]) for row in ledger.engine.rows("holders", rows=asked)}
    notes = [d for d in person.deliveries if d.kind is Kind.CHAT and d.remote_id is not None]
    found = []
    for (destination, remote_id), is_ours in sorted(ours.items()):
        left = why_left(ledger.takers, destination, is_ours=is_ours or also_adopted)
        left = SHARED if (destination, remote_id) in held else left
        written = tuple(str(n.remote_id) for n in notes if n.destination == destination) if left else ()
        found.append(Record(destination, remote_id, is_ours, left, written))
    return tuple(found)


def why_left(takers: Takers, destination: str, *, is_ours: bool) -> str | None:
    """Why a record is left to a person there, or None where it is deleted."""
    if destination not in takers:
        return f"SYNC_DESTINATIONS does not name {destination} any more: delete it there"
    if Kind.ERASURE not in takers[destination]:
        return f"{destination} cannot be asked to delete: delete it there"
    return None if is_ours else ADOPTED


def mentions(engine: Engine, emails: Sequence[str]) -> list[str]:
    """The events whose webhook names one of these emails, whatever it was about. Reads all; not in a transaction.

    However the email is written there: in other letters, escaped as in JSON or in an address of the web, or in a body
    that was stored as base64.
    """
    if not emails:
        return []
    found = {row["id"] for row in _paged(engine, "events_mentioning", [email.lower() for email in emails], PAGE)}
    looked_for, encodings = _looked_for(emails), ENCODINGS if any(not e.isascii() for e in emails) else ENCODINGS[:1]
    for row in _paged(engine, "events_disguising", [_ascii_part(e) for e in emails if not e.isascii()], FEW):
        if row["id"] not in found and any(_names(reading, looked_for) for reading in _readings(row, encodings)):
            found.add(row["id"])
    return sorted(found)


def _paged(engine: Engine, query: str, texts: Sequence[str], limit: int) -> Iterator[Any]:
    """All rows of a query for payloads that hold one of these texts, a page at a time."""
    needles, after = [{"needle": f"%{_literal(text)}%"} for text in texts], ""
    while page := engine.rows(query, rows=needles, limit=limit, after=after):
        yield from page
        if len(page) < limit:
            return
        after = page[-1]["id"]


def _ascii_part(email: str) -> str:
    """The longest part of an email in whose letters all databases know upper from lower case."""
    return max(re.findall(r"[\x00-\x7f]+", email.lower()), key=len, default="")


def _looked_for(emails: Sequence[str]) -> list[tuple[str, str]]:
    """Each email without regard to case, and its domain. An ü can be one character, or two: a text is left as it is."""
    spelled = sorted({normalize(form, email) for email in emails for form in ("NFC", "NFD")})
    return [(email.casefold(), email.rpartition("@")[2].lower()) for email in spelled]


def _names(text: str, looked_for: Sequence[tuple[str, str]]) -> bool:
    """Whether a text names one of these emails. Case folding makes one of ß and ss, which are two people's domains."""
    folded = text.casefold()
    return any(email in folded and domain in text.lower() for email, domain in looked_for)


def _readings(event: Any, encodings: Sequence[str]) -> Iterator[str]:
    """What a webhook says in each of these encodings, without escapes. NUL is every second byte of UTF-16."""
    body = body_of(event["payload"]).replace(b"\0", b"")
    for encoding in encodings:
        yield _unescaped(body.decode(encoding, "replace"), encoding)


def _unescaped(text: str, encoding: str) -> str:
    """A text in which `\\u0040` and `%40` are `@`, also where one was escaped in the other."""
    for _ in range(LAYERS):
        before = text
        if "\\" in text:
            text = ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).replace("\\", "")
        if "%" in text:
            text = unquote(text, encoding)
        if text == before:
            break
    return text


def _literal(text: str) -> str:
    return "".join(f"!{c}" if c in "!%_" else c for c in text)
