"""The nouns of the service: frozen values without I/O.

All times are epoch seconds (UTC, float). `None` means "not said" everywhere; it is never sent to a destination.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Kind(StrEnum):
    """What a delivery carries to a destination."""

    CONTACT = "contact"
    CHAT = "chat"
    EMAIL = "email"
    ERASURE = "erasure"


MAIL = "mail"
"""The destination of every mail, whichever vendor sends it: so a chat has one follow-up over all mailers."""


class State(StrEnum):
    """Where a delivery stands. Exactly one at any time (promise P2)."""

    PENDING = "pending"
    DELIVERED = "delivered"
    IGNORED = "ignored"
    UNKNOWN = "unknown"
    DEAD = "dead"


class EventType(StrEnum):
    """What happened, in our words. The order of the members is the order in which a chat lives."""

    START = "start"
    ACCEPT = "accept"
    MESSAGE = "message"
    CLOSE = "close"
    OTHER = "other"


RANK = {type: place for place, type in enumerate(EventType)}
"""The place of each type in the life of a chat: START 0 … OTHER 4."""


class EventState(StrEnum):
    """What became of an event."""

    APPLIED = "applied"
    KEPT = "kept"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Visitor:
    """What ONE event says about a person.

    `email` is as typed (its domain lower-cased), `phone` is E.164, `visitor_id` carries its family (`v1:61111`).
    `attributes` holds everything else that was said, as text, under the source's own names.
    """

    name: str | None = None
    email: str | None = None
    phone: str | None = None
    visitor_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One line of a transcript. `id` is unique in its chat; `sender` is "visitor", "agent" or "system"."""

    id: str
    sender: str
    text: str
    at: float | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ChatNews:
    """What ONE event says about its chat. `wait` and `duration` are seconds."""

    started_at: float | None = None
    accepted_at: float | None = None
    closed_at: float | None = None
    wait: float | None = None
    duration: float | None = None
    agent: str | None = None
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """What a webhook says happened. Immutable; `(source, key)` is unique.

    `name` is the vendor's own word for it (`CHAT_ON_START`); `chat` carries its family (`v1:172`); `payload` is the
    body as text, or `base64:…` where it was not clean UTF-8. `flags` are short sentences about what had to be cleaned
    or left out. An event with `error` is unreadable: kept raw, with the reason, and says nothing else.
    """

    id: str
    source: str
    key: str
    type: EventType
    name: str
    occurred_at: float
    received_at: float
    payload: str
    chat: str | None = None
    visitor: Visitor | None = None
    news: ChatNews | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None

    @property
    def order(self) -> str:
        """The order key: event time, place in the chat's life, time of receipt, id. Compares as text."""
        return f"{self.occurred_at:017.6f}/{RANK[self.type]}/{self.received_at:017.6f}/{self.id}"


@dataclass(frozen=True, slots=True)
class Said:
    """One value together with the order key of the event that said it."""

    value: str
    order: str


@dataclass(frozen=True, slots=True)
class Contact:
    """The person, merged over all events.

    `uid` is ours and stable: it is what CRMs with an external id get. `clocks` says for each field which order key set
    it. `version` grows with each real change. `joined` names the contact this one was found to be the same person as.
    """

    id: str
    uid: str
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    clocks: Mapping[str, str] = field(default_factory=dict)
    version: int = 0
    joined: str | None = None
    created_at: float = 0.0
    updated_at: float = 0.0

    @property
    def is_reachable(self) -> bool:
        """Whether there is any way to reach this person; without one a CRM has no use for the record."""
        return self.email is not None or self.phone is not None


@dataclass(frozen=True, slots=True)
class Chat:
    """One conversation. `said` holds what this chat alone said about its visitor: field → value and order key.

    `pruned_until`: what was said by then is not kept any more; None where nothing of the transcript was pruned.
    """

    id: str
    source: str
    chat: str
    contact: str | None = None
    said: Mapping[str, Said] = field(default_factory=dict)
    started_at: float | None = None
    accepted_at: float | None = None
    closed_at: float | None = None
    wait: float | None = None
    duration: float | None = None
    agent: str | None = None
    transcript: tuple[Message, ...] = ()
    last_message_at: float | None = None
    version: int = 0
    updated_at: float = 0.0
    pruned_until: float | None = None

    @property
    def email(self) -> str | None:
        """The email that this chat said last."""
        said = self.said.get("email")
        return said.value if said else None

    def has_pruned(self, at: float | None) -> bool:
        """Whether a line of that time was, or would have been, pruned; one of no time counts as old."""
        return self.pruned_until is not None and (at is None or at <= self.pruned_until)


@dataclass(frozen=True, slots=True)
class Email:
    """One mail, ready to go: the same bytes whenever it is handed over again.

    `sender` and `reply_to` are as in a header (`Ada <ada@example.com>`); `to` is a bare address. `headers` are those
    beyond From, To, Subject, Reply-To and Date: Message-ID, List-Unsubscribe, List-Unsubscribe-Post, Auto-Submitted.
    `key` is a UUID, the same for the same mail: the idempotency key. `written_at` is for the Date header.
    """

    to: str
    sender: str
    subject: str
    text: str
    html: str
    key: str
    written_at: float
    to_name: str | None = None
    reply_to: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Erasure:
    """A record at a destination that is to go, because its person was forgotten."""

    remote_id: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What a mailer tells about an address that no mail should go to any more, in a word: "bounced", "complained",
    "unsubscribed"."""

    email: str
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the destination answered when it took a subject: its own id, and whether WE created that record.

    `left_behind` is the record that we knew before, where the person turned out to have another one as well: two
    records of one person, for somebody to merge over there.
    """

    remote_id: str
    ours: bool
    left_behind: str | None = None


@dataclass(frozen=True, slots=True)
class Owed(Generic[T]):
    """A claimed delivery with everything an adapter needs to carry it out.

    `delivery` is stable over all attempts: use it as idempotency key and trace id. `claim` is the fence, 1 on the very
    first claim. `intended_at` is when an earlier attempt, whose answer may have been lost, announced that it would
    create the record, by the destination's clock where its adapter goes by that; a record that is found and was created
    just then is ours. `is_replay` is true when no new event is behind it: a record that a person deleted in the CRM is
    then left deleted. `contact_remote_id` is for chats: the record of the chat's contact at this destination.
    """

    delivery: str
    subject: T
    version: int
    claim: int = 1
    attempts: int = 0
    lease_until: float = 0.0
    remote_id: str | None = None
    ours: bool = False
    intended_at: float | None = None
    is_replay: bool = False
    contact_remote_id: str | None = None

    @property
    def intended(self) -> bool:
        """Whether an attempt before this one may have created the record without hearing of it."""
        return self.intended_at is not None
