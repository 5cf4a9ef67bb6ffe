"""The people who visit, and their chats."""

from dataclasses import dataclass, replace
from datetime import tzinfo
from random import Random

NAMES = (
    ("Ana Souza", "ana.souza"),
    ("Zoë Müller", "zoe.mueller"),
    ("Łukasz Wójcik", "lukasz.wojcik"),
    ("Nguyễn Thị Hoa", "hoa.nguyen"),
    ("田中 花子", "hanako.tanaka"),
    ("Олена Шевченко", "olena.shevchenko"),
    ("ليلى حداد", "layla.haddad"),
    ("Siobhán Ó Briain", "siobhan.obriain"),
    ("Þórdís Jónsdóttir", "thordis.jonsdottir"),
    ("Jean-Luc d'Aubigné", "jl.daubigne"),
    ("आरव शर्मा", "aarav.sharma"),
    ("김민준", "minjun.kim"),
    ("Ελένη Παπαδοπούλου", "eleni.papadopoulou"),
    ("Chinwe Okafor", "chinwe.okafor"),
    ("María José García López", "mj.garcia"),
    ("Björn Åkesson", "bjorn.akesson"),
    ("Çağla Şimşek", "cagla.simsek"),
    ("ณัฐพล ศรีสุข", "natthaphon.srisuk"),
    ("David Klok", "david.klok"),
    ("נועה כהן", "noa.cohen"),
)
"""Names from everywhere, each with what its owner would put into an email address."""

ADDITIONS = ("Rossi", "Okafor", "Lindgren", "Chen")
"""Family names that somebody may have taken on since the last visit."""

WAYS_TO_WRITE = ("+1202555{0:04}", "+1 202 555 {0:04}", "+1 (202) 555-{0:04}", "+1-202-555-{0:04}")


@dataclass(frozen=True, slots=True)
class Person:
    """A visitor. `email` is as typed this time, `phone` is E.164, `number` tells the people of a seed apart."""

    number: int
    seed: int
    email: str
    name: str
    phone: str | None = None

    @property
    def id(self) -> str:
        """The vendor's id of this visitor."""
        return f"{self.seed}{self.number + 1:07}"


@dataclass(frozen=True, slots=True)
class Chat:
    """What happens in one chat. `lines` are (is by the visitor, text, seconds since the line before).

    `is_phone_late` means that the phone is said only in the chat, so that its first webhook lacks it. `zone` is the
    account's, in which the first family of webhooks writes its dates.
    """

    number: int
    person: Person
    started_at: float
    zone: tzinfo
    wait: int
    is_case: bool
    is_phone_late: bool
    lines: tuple[tuple[bool, str, int], ...]

    @property
    def id(self) -> str:
        """The chat as the ledger names it."""
        return f"{'v2' if self.is_case else 'v1'}:{self.number}"

    @property
    def accepted_at(self) -> float:
        """When the agent came."""
        return self.started_at + self.wait

    @property
    def ended_at(self) -> float:
        """When the agent closed it."""
        return self.accepted_at + sum(pause for _, _, pause in self.lines) + 1


def new_person(seed: int, number: int, random: Random) -> Person:
    """Somebody whom nobody has seen yet."""
    name, address = random.choice(NAMES)
    email = f"{address}.{number + 1}.s{seed}@example.com"
    return Person(number, seed, email, name, _phone(random) if random.random() < 0.7 else None)


def changed(person: Person, random: Random) -> Person:
    """The same person some time later: perhaps with another phone or name, or the same email in other letters."""
    email = person.email.lower()
    name, phone = person.name, person.phone
    if random.random() < 0.3:
        email = random.choice((email.upper(), email.title()))
    if random.random() < 0.2:
        name = f"{' '.join(name.split()[:3])} {random.choice(ADDITIONS)}"
    if random.random() < 0.4:
        phone = random.choice((None, _phone(random)))
    return Person(person.number, person.seed, email, name, phone)


def without_phone(person: Person) -> Person:
    """The person before they have said their phone."""
    return replace(person, phone=None)


def as_typed(phone: str | None, way: int) -> str | None:
    """A phone as people write it, always with its country code."""
    return None if phone is None else WAYS_TO_WRITE[way % len(WAYS_TO_WRITE)].format(int(phone[-4:]))


def _phone(random: Random) -> str:
    return f"+120255501{random.randrange(100):02}"
