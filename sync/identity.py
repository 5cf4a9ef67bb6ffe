"""Who is it, which word is newer: folds one event at a time into the part of the ledger that it can touch. Pure.

The rules, in short (each has its test in `tests/test_identity.py`):

1. Email decides. A chat belongs to the email it said last; chats with the same last email are one contact.
2. Without an email a chat keeps its own contact; a new one goes where its phone, else its visitor id, leads, if that is
   exactly one contact. There it fills gaps: a word of a chat that named the email always beats it.
3. Among equals the word with the newer order key wins. What was not said erases nothing.
4. A chat that changes its email moves. A contact left without chats joins the new one, unless a record that is not ours
   stands behind it: then both stay, and the pair is listed as possible duplicates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sync.cleaning import email_key
from sync.models import Chat, ChatNews, Contact, Event, Message, Said, Visitor

ATTRIBUTE = "attributes."
"""Prefix of a visitor's attribute among the things a chat said."""

WEAK = " "
"""Prefix of an order key that only fills gaps: it sorts before every other."""

IMPORTED = WEAK + "!"
"""The order key of what no chat has said but an import: it sorts before that of every word of a chat."""

TRANSCRIPT_LIMIT = 2000
"""Messages of one chat that are kept. Beyond it the oldest are kept: the start of a chat says what it is about."""

TRANSCRIPT_TEXT_LIMIT = 262_144
"""Characters of one chat that are kept, again the oldest: four times what a CRM's note holds (64 Ki)."""


class Identity(NamedTuple):
    """One key that leads to a contact: kind is "email", "phone" or "visitor"."""

    kind: str
    value: str


class Join(NamedTuple):
    """Two contacts found to be one person (`is_possible` false), or suspected to be (true)."""

    loser: str
    winner: str
    reason: str
    is_possible: bool


@dataclass
class World:
    """The part of the ledger that a group of events can touch, and what the events have made of it.

    `has_foreign_record` holds contacts behind which stands a remote record that we did not create. `new_id` makes ids.
    """

    now: float
    new_id: Callable[[str, float], str]
    chats: dict[tuple[str, str], Chat] = field(default_factory=dict)
    contacts: dict[str, Contact] = field(default_factory=dict)
    identities: dict[Identity, set[str]] = field(default_factory=dict)
    has_foreign_record: set[str] = field(default_factory=set)
    changed_chats: set[tuple[str, str]] = field(default_factory=set)
    changed_contacts: set[str] = field(default_factory=set)
    owed_contacts: set[str] = field(default_factory=set)
    owed_chats: set[tuple[str, str]] = field(default_factory=set)
    new_identities: set[tuple[Identity, str]] = field(default_factory=set)
    lost_identities: set[tuple[Identity, str]] = field(default_factory=set)
    joins: list[Join] = field(default_factory=list)

    def root(self, contact_id: str) -> Contact:
        """The contact itself, or the one it was joined into."""
        contact = self.contacts[contact_id]
        while contact.joined is not None:
            contact = self.contacts[contact.joined]
        return contact

    def leads_to(self, identity: Identity) -> list[Contact]:
        """The distinct persons that an identity leads to."""
        return list({c.id: c for c in map(self.root, sorted(self.identities.get(identity, ())))}.values())

    def chats_of(self, contact_id: str) -> list[Chat]:
        """The chats of one person that are in this world."""
        return [c for c in self.chats.values() if c.contact is not None and self.root(c.contact).id == contact_id]

    def keep(self, contact: Contact) -> None:
        """Put a contact back, noting whether it really changed."""
        before = self.contacts.get(contact.id)
        if before == contact:
            return
        if before is None or _visible(before) != _visible(contact):
            contact = replace(contact, version=contact.version + 1, updated_at=self.now)
            self.owed_contacts.add(contact.id)
        self.contacts[contact.id] = contact
        self.changed_contacts.add(contact.id)

    def keep_chat(self, chat: Chat, before: Chat | None) -> None:
        """Put a chat back, noting whether it really changed."""
        place = (chat.source, chat.chat)
        if before == chat:
            return
        if before is None or replace(before, said={}) != replace(chat, said={}):
            chat = replace(chat, version=chat.version + 1, updated_at=self.now)
            self.owed_chats.add(place)
        self.chats[place] = chat
        self.changed_chats.add(place)

    def add_identity(self, identity: Identity, contact_id: str) -> None:
        """Let an identity lead to a contact."""
        known = self.identities.setdefault(identity, set())
        if contact_id not in known:
            known.add(contact_id)
            self.new_identities.add((identity, contact_id))
        self.lost_identities.discard((identity, contact_id))

    def drop_identity(self, identity: Identity, contact_id: str) -> None:
        """Let an identity no longer lead to a contact."""
        self.identities.get(identity, set()).discard(contact_id)
        self.new_identities.discard((identity, contact_id))
        self.lost_identities.add((identity, contact_id))


def fold(world: World, event: Event) -> None:
    """Let one event change the world. An event about no chat changes nothing."""
    if event.chat is None or event.error is not None or (event.visitor is None and event.news is None):
        return
    place = (event.source, event.chat)
    before = world.chats.get(place)
    chat = before or Chat(id=world.new_id("ch", world.now), source=event.source, chat=event.chat)
    said = _said_by(event.visitor, event.order)
    chat = _with_news(chat, event.news, event)
    chat = replace(chat, said=_newer(chat.said, said))
    chat = _placed(world, chat, before, by=event.visitor)
    world.keep_chat(chat, before)
    if chat.contact is not None and event.visitor is not None:
        _tell(world, world.root(chat.contact), chat, said)


def find(world: World, visitor: Visitor) -> Contact | None:
    """Whom a record of a CRM is about: the person with its email, else the only one with its phone.

    Whoever has another email than the record is somebody else.
    """
    if visitor.email is not None:
        for owner in world.leads_to(Identity("email", email_key(visitor.email))):
            return owner
    found = world.leads_to(Identity("phone", visitor.phone)) if visitor.phone is not None else []
    is_it = len(found) == 1 and (visitor.email is None or found[0].email is None)
    return found[0] if is_it else None


def take_in(world: World, visitor: Visitor, contact: Contact | None) -> Contact:
    """Tell a contact (None: a new one) what a CRM knows of the person. It fills only what no chat has said."""
    key = None if visitor.email is None else email_key(visitor.email)
    contact = contact or _new_contact(world, key)
    if contact.email is not None:
        key = None  # its email says who it is
    elif key is not None:
        world.add_identity(Identity("email", key), contact.id)
    said = {field: word for field, word in _said_by(visitor, IMPORTED).items() if field != "email" or key is not None}
    _tell_all(world, contact, said)
    if visitor.phone is not None:
        world.add_identity(Identity("phone", visitor.phone), contact.id)
    return world.contacts[contact.id]


def _placed(world: World, chat: Chat, before: Chat | None, *, by: Visitor | None) -> Chat:
    """The chat with the contact that it belongs to, after everything that its move brings about."""
    if chat.email is None:
        if chat.contact is None and by is not None:
            return replace(chat, contact=_by_phone_or_visitor(world, chat).id)
        return chat
    key = email_key(chat.email)
    current = None if chat.contact is None else world.root(chat.contact)
    if before is not None and before.email is not None and email_key(before.email) == key:
        return chat
    owner = next(iter(world.leads_to(Identity("email", key))), None)
    if owner is not None and current is not None and owner.id == current.id:
        _promote(world, chat, current)
        return chat
    if current is None or before is None:
        return replace(chat, contact=(owner or _new_contact(world, key)).id)
    if current.email is None:
        return _named(world, chat, current, owner, key)
    return _moved(world, chat, before, current, owner or _new_contact(world, key))


def _by_phone_or_visitor(world: World, chat: Chat) -> Contact:
    """Where an anonymous chat goes: to the one contact its phone, else its visitor id, leads to; else to a new one."""
    for identity in _identities(chat):
        found = world.leads_to(identity)
        if len(found) == 1:
            return found[0]
    return _new_contact(world, None)


def _new_contact(world: World, key: str | None) -> Contact:
    contact_id = world.new_id("co", world.now)
    contact = Contact(id=contact_id, uid=contact_id, created_at=world.now, updated_at=world.now)
    world.contacts[contact_id] = contact
    world.changed_contacts.add(contact_id)
    world.owed_contacts.add(contact_id)
    if key is not None:
        world.add_identity(Identity("email", key), contact_id)
    return contact


def _named(world: World, chat: Chat, current: Contact, owner: Contact | None, key: str) -> Chat:
    """A contact without an email gets one: it keeps its record, or joins the contact that has this email already."""
    if owner is None:
        world.add_identity(Identity("email", key), current.id)
        _promote(world, chat, current)
        return chat
    moved = replace(chat, contact=owner.id)
    world.chats[(chat.source, chat.chat)] = moved
    _join(world, current, owner, "it named the email of a known contact")
    _tell_all(world, owner, {k: Said(v, WEAK + current.clocks[k].lstrip()) for k, v in _fields(current).items()})
    _tell(world, world.root(owner.id), moved, moved.said)
    return moved


def _promote(world: World, chat: Chat, contact: Contact) -> None:
    """A chat that only filled gaps now names the contact's email: from now on its words count in full."""
    world.chats[(chat.source, chat.chat)] = chat
    _rebuild(world, contact, email=chat.email)


def _moved(world: World, chat: Chat, before: Chat, current: Contact, owner: Contact) -> Chat:
    """A chat leaves one contact for another, taking along what it said."""
    moved = replace(chat, contact=owner.id)
    world.chats[(chat.source, chat.chat)] = moved
    _tell(world, owner, moved, moved.said)
    if world.chats_of(current.id):
        _rebuild(world, current, leaving=before)
    if before.email is None:
        return moved
    if not world.chats_of(current.id) and current.id not in world.has_foreign_record:
        world.drop_identity(Identity("email", email_key(current.email or "")), current.id)
        _join(world, world.contacts[current.id], world.contacts[owner.id], "the visitor corrected the email")
    else:
        world.joins.append(Join(current.id, owner.id, "a chat named the emails of both", is_possible=True))
    return moved


def _join(world: World, loser: Contact, winner: Contact, reason: str) -> None:
    """Point the loser to the winner. Nothing is moved, so that it can be undone."""
    world.contacts[loser.id] = replace(loser, joined=winner.id, updated_at=world.now)
    world.changed_contacts.add(loser.id)
    world.owed_contacts.discard(loser.id)
    world.owed_contacts.add(winner.id)
    if loser.id in world.has_foreign_record:
        world.has_foreign_record.add(winner.id)
    world.joins.append(Join(loser.id, winner.id, reason, is_possible=False))


def _tell(world: World, contact: Contact, chat: Chat, said: Mapping[str, Said]) -> None:
    """Tell a contact what one of its chats said; a chat that did not name the contact's email only fills gaps."""
    prefix = WEAK if contact.email is not None and chat.email is None else ""
    _tell_all(world, contact, {key: Said(s.value, prefix + s.order) for key, s in said.items()})
    for identity in _identities(replace(chat, said=said)):
        world.add_identity(identity, contact.id)


def _tell_all(world: World, contact: Contact, said: Mapping[str, Said]) -> None:
    fields, clocks = dict(_fields(contact)), dict(contact.clocks)
    for key, word in said.items():
        if _is_field(key) and word.order > clocks.get(key, ""):
            fields[key], clocks[key] = word.value, word.order
    world.keep(_with_fields(contact, fields, clocks))


def _rebuild(world: World, contact: Contact, *, leaving: Chat | None = None, email: str | None = None) -> None:
    """Merge a contact anew from the chats it still has. What no chat had told it (an import) stays."""
    chats = world.chats_of(contact.id)
    told = [*chats, leaving] if leaving is not None else chats
    orders = {word.order for chat in told for word in chat.said.values()}
    kept = {k: v for k, v in _fields(contact).items() if contact.clocks[k].lstrip() not in orders}
    if contact.email is not None and all(chat.email is None for chat in chats):
        kept["email"] = contact.email  # what the contact is known by stays, as its identity does
    clocks = {k: contact.clocks[k] for k in kept}
    has_email = contact.email is not None or email is not None
    for chat in chats:
        prefix = WEAK if has_email and chat.email is None else ""
        for key, word in chat.said.items():
            if _is_field(key) and prefix + word.order > clocks.get(key, ""):
                kept[key], clocks[key] = word.value, prefix + word.order
    world.keep(_with_fields(contact, kept, clocks))
    still = {identity for chat in chats for identity in _identities(chat)}
    for identity in set(_identities(leaving)) - still if leaving is not None else ():
        world.drop_identity(identity, contact.id)
    for identity in still:
        world.add_identity(identity, contact.id)


def _is_field(key: str) -> bool:
    """Whether a thing that a chat said is a value of its contact (and not of the chat, nor only an identity)."""
    return key in ("name", "email", "phone") or key.startswith(ATTRIBUTE)


def _fields(contact: Contact) -> dict[str, str]:
    """A contact's values as one flat mapping, attributes under their prefix."""
    named = {"name": contact.name, "email": contact.email, "phone": contact.phone}
    return {k: v for k, v in named.items() if v is not None} | {ATTRIBUTE + k: v for k, v in contact.attributes.items()}


def _with_fields(contact: Contact, fields: Mapping[str, str], clocks: Mapping[str, str]) -> Contact:
    return replace(
        contact,
        name=fields.get("name"),
        email=fields.get("email"),
        phone=fields.get("phone"),
        attributes={k.removeprefix(ATTRIBUTE): v for k, v in fields.items() if k.startswith(ATTRIBUTE)},
        clocks=dict(clocks),
    )


def _visible(contact: Contact) -> object:
    """What a destination would see of a contact. Two spellings of one email are the same email."""
    email = None if contact.email is None else email_key(contact.email)
    return contact.name, email, contact.phone, contact.attributes


def _identities(chat: Chat) -> list[Identity]:
    """The phone and visitor id of a chat, the stronger first."""
    said = chat.said
    found = [Identity("phone", said["phone"].value)] if "phone" in said else []
    if "visitor_id" in said:
        found.append(Identity("visitor", f"{chat.source}:{said['visitor_id'].value}"))
    return found


def _said_by(visitor: Visitor | None, order: str) -> dict[str, Said]:
    """What an event says about a person, each word with its order key."""
    if visitor is None:
        return {}
    named = {
        "name": visitor.name,
        "email": visitor.email,
        "phone": visitor.phone,
        "visitor_id": visitor.visitor_id,
    } | {ATTRIBUTE + k: v for k, v in visitor.attributes.items()}
    return {k: Said(v, order) for k, v in named.items() if v is not None}


def _newer(known: Mapping[str, Said], said: Mapping[str, Said]) -> Mapping[str, Said]:
    newer = {k: word for k, word in said.items() if k not in known or word.order > known[k].order}
    return {**known, **newer} if newer else known


def _with_news(chat: Chat, news: ChatNews | None, event: Event) -> Chat:
    """The chat with what an event says of its course: the same in every order of events."""
    if news is None:
        return chat
    said = _newer(chat.said, _said_of_course(news, event.order))
    transcript = _merged(chat, news.messages, event.received_at)
    course = {k.removeprefix("chat."): word.value for k, word in said.items() if k.startswith("chat.")}
    return replace(
        chat,
        said=said,
        started_at=_earliest(chat.started_at, news.started_at),
        accepted_at=_earliest(chat.accepted_at, news.accepted_at),
        closed_at=_latest(chat.closed_at, news.closed_at),
        wait=float(course["wait"]) if "wait" in course else None,
        duration=float(course["duration"]) if "duration" in course else None,
        agent=course.get("agent"),
        transcript=transcript,
        last_message_at=max((m.at for m in transcript if m.at is not None), default=chat.last_message_at),
    )


def _said_of_course(news: ChatNews, order: str) -> dict[str, Said]:
    named = {"chat.wait": news.wait, "chat.duration": news.duration, "chat.agent": news.agent}
    return {k: Said(str(v), order) for k, v in named.items() if v is not None}


def _earliest(known: float | None, said: float | None) -> float | None:
    return min((t for t in (known, said) if t is not None), default=None)


def _latest(known: float | None, said: float | None) -> float | None:
    return max((t for t in (known, said) if t is not None), default=None)


def _merged(chat: Chat, said: tuple[Message, ...], received_at: float) -> tuple[Message, ...]:
    """The transcript with new messages in their place; one without a time of its own came when it was received.

    What was pruned does not come back.
    """
    ids = {message.id for message in chat.transcript}
    told = [replace(m, at=received_at) if m.at is None else m for m in said if m.id not in ids]
    new = [m for m in told if not chat.has_pruned(m.at)]
    if not new:
        return chat.transcript
    merged = sorted([*chat.transcript, *{m.id: m for m in new}.values()], key=lambda m: (m.at or 0.0, m.id))
    kept: list[Message] = []
    room = TRANSCRIPT_TEXT_LIMIT
    for message in merged[:TRANSCRIPT_LIMIT]:
        if room <= 0:
            break
        kept.append(message if len(message.text) <= room else replace(message, text=message.text[:room]))
        room -= len(message.text)
    return tuple(kept)
