"""Makes up live chats: who visits, what is said, which webhooks tell of it, and who must be known at the end.

Pure: the same seed and time give the same bytes. Everybody lives at example.com and has a telephone in +1 202 555 01xx,
the numbers that are kept free for fiction. The ids of two seeds never clash.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from random import Random

from sync.simulation.acquire import Webhook, webhooks_of
from sync.simulation.people import Chat, Person, changed, new_person
from sync.simulation.talk import talk

__all__ = ["MOST_CHATS", "Conversation", "Person", "Webhook", "conversations", "expected", "in_order"]

MOST_CHATS = 1_000_000
"""The most chats of one seed: ids leave room for so many."""

PERIOD = 900.0
"""The chats of one simulation began in so many seconds before `now`."""

LONGEST = 60.0
"""No chat takes more seconds than this."""

SHARE_OF_CASES = 0.2
"""The share of chats that are told as cases, the second family of webhooks."""

LATEST_COPY = 30.0
"""A webhook is delivered again within so many seconds."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One chat with its webhooks. `person` is its visitor in the words of this chat: `phone` None was not said."""

    chat: str
    person: Person
    ended_at: float
    webhooks: tuple[Webhook, ...]


def conversations(
    seed: int,
    *,
    chats: int,
    now: float,
    duplicates: float = 0.1,
    repeat_visitors: float = 0.3,
    zone: tzinfo = UTC,
    email: str | None = None,
) -> Iterator[Conversation]:
    """So many chats in the order in which they began, all of them over by `now`, the last one just now.

    `duplicates` is the share of webhooks that are delivered twice. `repeat_visitors` is the share of chats with
    somebody seen before, as soon as anybody's chat is over; nobody has two chats at once. `zone` is the account's.
    With an `email` they are all chats of one person.
    """
    if seed < 0 or not 0 <= chats <= MOST_CHATS:
        raise ValueError(f"a seed is not negative, and has at most {MOST_CHATS} chats")
    random = Random(seed)  # noqa: S311 - a script, no secret
    first = int(now - PERIOD)
    talking: deque[tuple[float, Person]] = deque()
    seen: list[Person] = []
    people = 0
    for number in range(chats):
        started_at = float(int(first + number * (PERIOD - LONGEST) / chats))
        while talking and talking[0][0] < started_at - LONGEST:
            seen.append(talking.popleft()[1])
        if email is not None:
            person = replace(new_person(seed, 0, Random(seed)), email=email)  # noqa: S311 - a script, no secret
        elif seen and random.random() < repeat_visitors:
            person = changed(_taken(seen, random), random)
        else:
            person = new_person(seed, people, random)
            people += 1
        chat = _chat(seed, number, person, started_at, zone, random)
        if number == chats - 1:
            chat = replace(chat, started_at=float(int(now)) - (chat.ended_at - started_at))
        talking.append((started_at, person))
        yield Conversation(chat.id, person, chat.ended_at, _delivered(webhooks_of(chat), duplicates, random))


def in_order(told: Iterable[Conversation]) -> Iterator[Webhook]:
    """All webhooks in the order in which they are sent: those of chats at the same time between each other."""
    waiting: list[tuple[float, int, Webhook]] = []
    count = 0
    for conversation in told:
        while waiting and waiting[0][0] < conversation.webhooks[0].at:
            yield heapq.heappop(waiting)[2]
        for webhook in conversation.webhooks:
            heapq.heappush(waiting, (webhook.at, count, webhook))
            count += 1
    while waiting:
        yield heapq.heappop(waiting)[2]


def expected(told: Iterable[Conversation]) -> dict[str, Person]:
    """Whom the ledger and every CRM must know at the end, by email in lower case, with what each said last."""
    known: dict[str, Person] = {}
    for conversation in told:
        person = conversation.person
        before = known.get(person.email.lower())
        if before is not None and person.phone is None:
            person = replace(person, phone=before.phone)
        known[person.email.lower()] = person
    return known


def _taken(seen: list[Person], random: Random) -> Person:
    """Anybody of these, who then is no longer among them."""
    place = random.randrange(len(seen))
    seen[place], seen[-1] = seen[-1], seen[place]
    return seen.pop()


def _chat(seed: int, number: int, person: Person, started_at: float, zone: tzinfo, random: Random) -> Chat:
    return Chat(
        number=seed * 10 * MOST_CHATS + number + 1,
        person=person,
        started_at=started_at,
        zone=zone,
        wait=random.randint(1, 5),
        is_case=random.random() < SHARE_OF_CASES,
        is_phone_late=random.random() < 0.2,
        lines=talk(random),
    )


def _delivered(webhooks: tuple[Webhook, ...], duplicates: float, random: Random) -> tuple[Webhook, ...]:
    """The webhooks with some of them a second time, at once or later."""
    copies = [
        replace(webhook, at=webhook.at + random.choice((0.0, random.random() * LATEST_COPY)), is_copy=True)
        for webhook in webhooks
        if random.random() < duplicates
    ]
    return (*webhooks, *copies)
