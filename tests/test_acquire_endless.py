"""A chat without end stays a chat that a CRM can take: its transcript is bounded in messages and in text."""

import itertools
import random

from sync.identity import TRANSCRIPT_LIMIT, TRANSCRIPT_TEXT_LIMIT
from sync.models import Event, EventType, Message
from tests.people import NOON, event, world_of

LONG = TRANSCRIPT_TEXT_LIMIT // 4


def says(*texts: str, start: int = 0) -> list[Event]:
    """One event for each text, a second apart."""
    lines = [Message(f"m{number:05}", "visitor", text, NOON + number) for number, text in enumerate(texts, start)]
    return [
        event("v1:1", at=line.at - NOON, type=EventType.MESSAGE, messages=(line,), silent=True)
        for line in lines
        if line.at is not None
    ]


def transcript(*events: Event) -> tuple[Message, ...]:
    (chat,) = world_of(*events).chats.values()
    return chat.transcript


def text_of(*events: Event) -> str:
    return "".join(line.text for line in transcript(*events))


def test_the_start_of_an_endless_chat_is_kept_and_no_more() -> None:
    said = says(*(letter * LONG for letter in "abcdef"))

    assert text_of(*said) == "".join(letter * LONG for letter in "abcd")


def test_the_message_that_crosses_the_bound_is_clipped() -> None:
    said = says("a" * LONG * 3, "b" * LONG * 2, "c")

    assert text_of(*said) == "a" * LONG * 3 + "b" * LONG
    assert [line.id for line in transcript(*said)] == ["m00000", "m00001"]


def test_an_endless_chat_is_the_same_in_every_order() -> None:
    said = says("a" * LONG * 2, "b" * 10, "c" * LONG * 3, "d", "e" * LONG)
    kept = {transcript(*order) for order in itertools.permutations(said)}

    assert len(kept) == 1


def test_a_chat_of_endless_messages_keeps_the_first_of_them() -> None:
    lines = [event_line for each in says(*["x"] * (TRANSCRIPT_LIMIT + 50)) for event_line in each.news.messages]
    random.Random(7).shuffle(lines)
    said = event("v1:1", type=EventType.MESSAGE, messages=tuple(lines), silent=True)

    assert [line.id for line in transcript(said)] == [f"m{number:05}" for number in range(TRANSCRIPT_LIMIT)]


def test_an_ordinary_chat_is_kept_whole() -> None:
    assert text_of(*says("Hi", "Hello", "Bye")) == "HiHelloBye"
