"""Makes up visitors and their chats: who they are, what they say, who must stand in the CRM afterwards. Pure.

All chats lie in the past, a minute apart, because the dates in webhooks have no more than seconds: so the newest word
about a person is never in doubt.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from torturing.chance import chance

FIRST = (
    "Ada",
    "Bela",
    "Cleo",
    "Dario",
    "Edda",
    "Finn",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kaya",
    "Lars",
    "Mira",
    "Nils",
)
LAST = ("Adler", "Berg", "Costa", "Dahl", "Engel", "Falk", "Grau", "Holm", "Iversen", "Jensen", "Kern", "Lund", "Moser")
AREAS = (202, 212, 303, 312, 404, 415, 503, 512, 602, 617, 702, 713, 808, 917)
CHATS_APART = 60.0
FIRST_CHAT = 10**6


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat: what its visitor says about himself, and the lines of its transcript. Times are epoch seconds.

    Without a line it only begins, and becomes no note.
    """

    number: int
    visitor_id: str
    name: str
    email: str | None
    phone: str | None
    started_at: float
    lines: tuple[str, ...]
    zone: str = "UTC"
    """By whose clock its dates are written."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody and all their chats. `key` is what they are known by: the email in lower case, else the phone."""

    key: str
    chats: tuple[Chat, ...]
    are_twins: bool = False
    """Whether the first two chats start in the same millisecond."""
    is_known: bool = False
    """Whether the CRM has had this person before, by somebody else's hand."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How a person must stand in the CRM."""

    first_name: str
    last_name: str
    email: str | None
    phone: str | None


def person(number: int, seed: int, now: float) -> Person:
    """The n-th visitor of a seed: always the same one, but for the dates."""
    random = chance(seed, number)
    has_email = random.random() > 0.12
    is_known = has_email and random.random() < 0.05
    are_twins = random.random() < 0.15
    count = max(random.choice((1, 1, 1, 2, 2, 3)), 2 if are_twins else 1)
    last = random.choice(LAST)
    said = (f"{random.choice(FIRST)} {last}", _phone(number, 0, random))
    address = f"visitor.{number}@example.com"
    chats = []
    for place in range(count):
        if place and not (are_twins and place == 1):
            said = _changed(said, number, place, random, keeps_phone=not has_email)
        is_silent = has_email and not are_twins and random.random() < 0.15
        chats.append(
            Chat(
                number=FIRST_CHAT + number * 10 + place,
                visitor_id=str(500_000 + number),
                name=said[0],
                email=_spelled(address, random) if has_email else None,
                phone=None if is_silent else said[1],
                started_at=now - 7200 + CHATS_APART * (0 if are_twins and place == 1 else place),
                lines=tuple(f"word-{number}-{place}-{line}" for line in range(random.randint(1, 3))),
            )
        )
    key = address if has_email else _plain(chats[0].phone)
    return Person(str(key), tuple(chats), are_twins, is_known)


def _changed(said: tuple[str, str], number: int, place: int, random: Random, *, keeps_phone: bool) -> tuple[str, str]:
    """A later visit: perhaps another number, perhaps another last name."""
    name = f"{said[0].split()[0]} {random.choice(LAST)}" if random.random() < 0.3 else said[0]
    return name, said[1] if keeps_phone or random.random() < 0.4 else _phone(number, place, random)


def _phone(number: int, place: int, random: Random) -> str:
    """A number that nobody else has, typed in one of the usual ways."""
    digits = f"{2_000_000 + number * 10 + place:07}"
    area, head, tail = AREAS[number % len(AREAS)], digits[:3], digits[3:]
    return random.choice((f"+1{area}{head}{tail}", f"({area}) {head}-{tail}", f"+1 {area} {head} {tail}"))


def _plain(phone: str | None) -> str | None:
    """A number as the CRM must have it."""
    if phone is None:
        return None
    return "+1" + "".join(c for c in phone if c.isdigit())[-10:]


def _spelled(address: str, random: Random) -> str:
    return random.choice((address, address, address.title(), address.upper()))


def known_as(someone: Person) -> Expected:
    """What the CRM had about a person before any of this."""
    return Expected("Known", "Before", someone.key, "+12025550100")


def expected_of(someone: Person) -> Expected:
    """The newest word about a person: what was not said erases nothing, and what a colleague entered stays."""
    if someone.is_known:
        return known_as(someone)
    newest = max(someone.chats, key=lambda chat: chat.started_at)
    phones = [chat.phone for chat in sorted(someone.chats, key=lambda chat: chat.started_at) if chat.phone]
    first, last = newest.name.split()
    email = someone.key if newest.email else None
    return Expected(first, last, email, _plain(phones[-1]) if phones else None)


def expected(people: Iterable[Person]) -> Mapping[str, Expected]:
    """Everybody by key, as they must stand in the CRM."""
    return {someone.key: expected_of(someone) for someone in people}
