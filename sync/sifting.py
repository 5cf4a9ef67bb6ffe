"""What of a chat that was pulled from a source is news for the chat as the ledger knows it."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace

from sync.cleaning import email_key
from sync.models import Chat, ChatNews, EventType, Message, Visitor
from sync.sources.base import PulledChat

MOST_LINES = 2000
"""A transcript of so many lines is full: it takes none that is pulled."""

ATTRIBUTE = "attributes."

SaidBefore = Callable[[], Sequence[Visitor] | None]
"""What a chat said about its visitor, event by event; None where not all of it is known any more."""


def sifted(pulled: PulledChat, chat: Chat | None, types: Set[EventType], said_before: SaidBefore) -> PulledChat | None:
    """What of a pulled chat is news for the chat as it is known; None where nothing is. Pure, but for `said_before`.

    1. Where the webhooks that say all of it came, only lines of the transcript can be missing.
    2. Times, agent and lines fill gaps. They never change what a webhook said. A line that was pruned is no gap.
    3. So do words about the visitor. One that contradicts the chat counts as newer only if the chat has never said it:
       a word which it said and took back is an old one, whatever date the row carries. Where it is not known any more
       what the chat said (its payloads were pruned), nothing contradicts it.
    4. Where the visitor was changed after the chat, nothing contradicts it, and once a webhook told of the person, gaps
       are filled only under the same email.
    """
    if chat is None:
        return pulled
    is_told = pulled.told_by <= types
    visitor = None if is_told else _unsaid(pulled, chat, types, said_before)
    news = ChatNews(messages=_unheard(pulled, chat))
    if not is_told:
        news = replace(_missing(pulled.news, chat), messages=news.messages)
    return None if visitor is None and news == ChatNews() else replace(pulled, visitor=visitor, news=news)


def _missing(news: ChatNews, chat: Chat) -> ChatNews:
    """The times and the agent that the chat does not know."""
    return ChatNews(
        started_at=news.started_at if chat.started_at is None else None,
        accepted_at=news.accepted_at if chat.accepted_at is None else None,
        closed_at=news.closed_at if chat.closed_at is None else None,
        wait=news.wait if chat.wait is None else None,
        duration=news.duration if chat.duration is None else None,
        agent=news.agent if chat.agent is None else None,
    )


def _unheard(pulled: PulledChat, chat: Chat) -> tuple[Message, ...]:
    """The lines that the chat does not have. A webhook's line without a shared id is known by its words."""
    if len(chat.transcript) >= MOST_LINES:
        return ()
    theirs = {line.id for line in pulled.news.messages}
    ids = {line.id for line in chat.transcript}
    by_words = (
        set[tuple[str, str]]()
        if pulled.has_line_ids
        else {(m.sender, m.text) for m in chat.transcript if m.id not in theirs}
    )
    new = (m for m in pulled.news.messages if m.id not in ids and not chat.has_pruned(m.at))
    return tuple(m for m in new if (m.sender, m.text) not in by_words)


def _unsaid(pulled: PulledChat, chat: Chat, types: Set[EventType], said_before: SaidBefore) -> Visitor | None:
    """The words about the visitor that are news to the chat."""
    if pulled.visitor is None:
        return None
    words, known = _words(pulled.visitor), {name: said.value for name, said in chat.said.items()}
    new = {name: word for name, word in words.items() if _alike(name, word) != _alike(name, known.get(name))}
    if not pulled.is_current:
        is_same = _alike("email", words.get("email")) == _alike("email", known.get("email"))
        fills = is_same or not pulled.person_in & types
        new = {name: word for name, word in new.items() if name not in known and (fills or name == "visitor_id")}
    if any(name in known for name in new):
        visitors = said_before()
        if visitors is None:
            return _unsaid(replace(pulled, is_current=False), chat, types, said_before)
        before = {(name, _alike(name, word)) for visitor in visitors for name, word in _words(visitor).items()}
        new = {name: word for name, word in new.items() if (name, _alike(name, word)) not in before}
    return _visitor(new) if new else None


def _alike(name: str, word: str | None) -> str | None:
    return email_key(word) if name == "email" and word is not None else word


def _words(visitor: Visitor) -> dict[str, str]:
    """A visitor's words under the names that a chat has for them."""
    named = {name: getattr(visitor, name) for name in ("name", "email", "phone", "visitor_id")}
    return {k: v for k, v in named.items() if v is not None} | {ATTRIBUTE + k: v for k, v in visitor.attributes.items()}


def _visitor(words: Mapping[str, str]) -> Visitor:
    return Visitor(
        **{name: word for name, word in words.items() if not name.startswith(ATTRIBUTE)},
        attributes={k.removeprefix(ATTRIBUTE): v for k, v in words.items() if k.startswith(ATTRIBUTE)},
    )
