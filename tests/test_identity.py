"""Who is it, which word is newer (promises P3 and P4)."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.cleaning import email_key
from sync.identity import World, fold
from sync.models import Contact, Event, EventType, Message
from tests.people import NOON, Ids, event, world_of

ADA, BOB = "ada@example.com", "bob@example.com"


def contact_of(world: World, chat: str) -> Contact:
    found = world.chats[("acquire", chat)].contact
    assert found is not None
    return world.root(found)


def test_one_email_in_any_letter_case_is_one_contact() -> None:
    world = world_of(event("v1:1", "John@acquire.io", at=0), event("v1:2", "john@ACQUIRE.io", at=1))

    assert contact_of(world, "v1:1") == contact_of(world, "v1:2")


def test_two_emails_are_two_contacts_even_with_one_phone() -> None:
    world = world_of(event("v1:1", ADA, phone="+12025550100"), event("v1:2", BOB, phone="+12025550100"))

    assert contact_of(world, "v1:1").id != contact_of(world, "v1:2").id


def test_another_spelling_of_the_same_email_is_no_new_version() -> None:
    world = world_of(event("v1:1", "Ada@example.com", at=0), event("v1:2", "ada@example.com", at=1))

    assert contact_of(world, "v1:1").version == 1


def test_the_newer_word_wins_whatever_comes_first() -> None:
    old, new = event("v1:1", ADA, name="Ada", at=0), event("v1:1", ADA, name="Ada Lovelace", at=60)

    assert contact_of(world_of(old, new), "v1:1").name == "Ada Lovelace"
    assert contact_of(world_of(new, old), "v1:1").name == "Ada Lovelace"


def test_what_was_not_said_is_not_erased() -> None:
    world = world_of(event("v1:1", ADA, name="Ada", phone="+12025550100", at=0), event("v1:1", ADA, at=60))

    assert (contact_of(world, "v1:1").name, contact_of(world, "v1:1").phone) == ("Ada", "+12025550100")


def test_a_contact_that_did_not_change_owes_nothing() -> None:
    first = event("v1:1", ADA, name="Ada", at=0)
    world = world_of(first)
    world.owed_contacts.clear()

    fold(world, event("v1:2", ADA, name="Ada", at=5))

    assert world.owed_contacts == set()


def test_at_the_same_moment_the_later_part_of_a_chat_counts_as_newer() -> None:
    start = event("v1:1", ADA, name="From start", at=0)
    close = event("v1:1", ADA, name="From close", at=0, type=EventType.CLOSE)

    assert contact_of(world_of(close, start), "v1:1").name == "From close"


def test_a_corrected_email_joins_the_typo_into_the_right_contact() -> None:
    world = world_of(event("v1:1", "ada@exmaple.com", name="Ada", at=0), event("v1:1", ADA, at=60))

    (typo,) = [c for c in world.contacts.values() if c.email == "ada@exmaple.com"]
    assert world.root(typo.id).email == ADA
    assert contact_of(world, "v1:1").name == "Ada"
    assert [(j.loser, j.is_possible) for j in world.joins] == [(typo.id, False)]


def test_a_joined_typo_leaves_its_email_free_for_somebody_else() -> None:
    world = world_of(
        event("v1:1", "bob@example.com", at=0), event("v1:1", ADA, at=60), event("v1:2", "bob@example.com", at=70)
    )

    assert contact_of(world, "v1:2").email == BOB
    assert contact_of(world, "v1:2").id != contact_of(world, "v1:1").id


def test_a_record_that_is_not_ours_is_never_joined_only_suspected() -> None:
    world = world_of(event("v1:1", BOB, name="Ada", at=0))
    bob = contact_of(world, "v1:1")
    world.has_foreign_record.add(bob.id)

    fold(world, event("v1:1", ADA, at=60))

    assert world.contacts[bob.id].joined is None
    assert [(j.loser, j.winner, j.is_possible) for j in world.joins] == [(bob.id, contact_of(world, "v1:1").id, True)]


def test_a_contact_with_other_chats_stays_and_loses_only_what_the_leaving_chat_said() -> None:
    world = world_of(
        event("v1:1", ADA, name="Ada", at=0),
        event("v1:2", ADA, name="Bob", phone="+12025550111", at=10),
        event("v1:2", BOB, at=20),
    )

    ada, bob = contact_of(world, "v1:1"), contact_of(world, "v1:2")
    assert (ada.email, ada.name, ada.phone) == (ADA, "Ada", None)
    assert (bob.email, bob.name, bob.phone) == (BOB, "Bob", "+12025550111")


def test_without_an_email_the_chat_keeps_its_own_contact() -> None:
    world = world_of(event("v1:1", name="Somebody", at=0), event("v1:1", phone="+12025550100", at=5))

    assert len(world.contacts) == 1
    assert contact_of(world, "v1:1").phone == "+12025550100"


def test_a_phone_leads_to_the_one_contact_that_has_it() -> None:
    world = world_of(event("v1:1", ADA, phone="+12025550100"), event("v1:2", phone="+12025550100", at=5))

    assert contact_of(world, "v1:2").id == contact_of(world, "v1:1").id


def test_a_phone_that_two_people_share_leads_to_neither() -> None:
    phone = "+12025550100"
    world = world_of(event("v1:1", ADA, phone=phone), event("v1:2", BOB, phone=phone), event("v1:3", phone=phone))

    assert contact_of(world, "v1:3").id not in {contact_of(world, "v1:1").id, contact_of(world, "v1:2").id}


def test_the_phone_is_asked_before_the_visitor_id() -> None:
    world = world_of(
        event("v1:1", ADA, phone="+12025550100"),
        event("v1:2", BOB, visitor_id="v1:7"),
        event("v1:3", phone="+12025550100", visitor_id="v1:7"),
    )

    assert contact_of(world, "v1:3").email == ADA


def test_a_match_by_phone_fills_gaps_and_changes_nothing() -> None:
    world = world_of(
        event("v1:1", ADA, name="Ada", phone="+12025550100", at=0),
        event("v1:2", name="Impostor", phone="+12025550100", attributes={"city": "London"}, at=60),
    )

    ada = contact_of(world, "v1:1")
    assert (ada.name, ada.attributes) == ("Ada", {"city": "London"})


def test_a_filled_gap_gives_way_to_a_word_of_the_email_itself_even_an_older_one() -> None:
    world = world_of(
        event("v1:1", ADA, phone="+12025550100", at=0),
        event("v1:2", name="Guess", phone="+12025550100", at=60),
        event("v1:3", ADA, name="Ada", at=30),
    )

    assert contact_of(world, "v1:1").name == "Ada"


def test_a_contact_that_gets_an_email_later_keeps_its_record() -> None:
    world = world_of(event("v1:1", phone="+12025550100", name="Ada", at=0))
    anonymous = contact_of(world, "v1:1").id

    fold(world, event("v1:1", ADA, at=60))

    assert contact_of(world, "v1:1").id == anonymous
    assert contact_of(world, "v1:1").email == ADA


def test_an_anonymous_contact_joins_the_contact_whose_email_it_names() -> None:
    world = world_of(
        event("v1:1", ADA, name="Ada", at=0),
        event("v1:2", phone="+12025550123", name="Later", at=10),
        event("v1:2", ADA, at=20),
    )

    assert contact_of(world, "v1:2").id == contact_of(world, "v1:1").id
    assert contact_of(world, "v1:1").phone == "+12025550123"
    assert contact_of(world, "v1:1").name == "Later"


def test_a_chat_found_by_phone_that_names_another_email_leaves_again() -> None:
    world = world_of(
        event("v1:1", ADA, phone="+12025550100", at=0),
        event("v1:2", phone="+12025550100", name="Bob", at=10),
        event("v1:2", BOB, at=20),
    )

    assert contact_of(world, "v1:2").email == BOB
    assert (contact_of(world, "v1:1").email, contact_of(world, "v1:1").name) == (ADA, None)


def test_events_of_one_chat_make_one_chat() -> None:
    lines = (Message("m2", "agent", "Hello", NOON + 2), Message("m1", "visitor", "Hi", NOON + 1))
    world = world_of(
        event("v1:1", at=9, type=EventType.CLOSE, closed=True, agent="Grace", silent=True),
        event("v1:1", ADA, at=0),
        event("v1:1", at=3, type=EventType.MESSAGE, messages=lines, silent=True),
        event("v1:1", at=3, type=EventType.MESSAGE, messages=lines[:1], silent=True),
    )

    (chat,) = world.chats.values()
    assert (chat.started_at, chat.closed_at, chat.agent) == (NOON, NOON + 9, "Grace")
    assert [m.id for m in chat.transcript] == ["m1", "m2"]
    assert contact_of(world, "v1:1").email == ADA


@pytest.mark.parametrize("visitor_says_nothing", [True, False])
def test_an_event_about_no_chat_changes_nothing(visitor_says_nothing: bool) -> None:
    world = world_of(event(None, ADA, silent=visitor_says_nothing))

    assert (world.contacts, world.chats) == ({}, {})


words = st.sampled_from([None, "one", "two", "three"])
statements = st.builds(
    lambda chat, email, name, at, kind: event(f"v1:{chat}", email, name=name, at=float(at), type=kind),
    st.integers(1, 4),
    st.sampled_from([None, "a@example.com", "A@EXAMPLE.com", "b@example.com", "c@example.com"]),
    words,
    st.integers(0, 5),
    st.sampled_from([EventType.START, EventType.MESSAGE, EventType.CLOSE]),
)


def picture(events: Sequence[Event]) -> dict[str, object]:
    """For each chat that named an email: with which other chats it shares a contact, and what that contact says."""
    world = World(now=NOON, new_id=Ids())
    for each in events:
        fold(world, each)
    named = {c.chat: c for c in world.chats.values() if c.email is not None}
    roots = {chat: contact_of(world, chat) for chat in named}
    return {
        chat: (
            sorted(other for other in named if roots[other].id == roots[chat].id),
            roots[chat].email,
            roots[chat].name,
        )
        for chat in named
    }


@settings(deadline=None, max_examples=400)
@given(st.lists(statements, min_size=1, max_size=8), st.data())
def test_every_order_and_repetition_gives_the_same_people_with_the_same_values(
    events: list[Event], data: st.DataObject
) -> None:
    again = data.draw(st.permutations(events + events[: len(events) // 2]))

    assert picture(again) == picture(events)


@settings(deadline=None, max_examples=300)
@given(st.lists(statements, min_size=1, max_size=10))
def test_two_different_last_emails_never_share_a_contact(events: list[Event]) -> None:
    world = world_of(*events)

    emails: dict[str, set[str]] = {}
    for chat in world.chats.values():
        if chat.email is not None:
            emails.setdefault(contact_of(world, chat.chat).id, set()).add(email_key(chat.email))
    assert all(len(said) == 1 for said in emails.values())


@settings(deadline=None, max_examples=300)
@given(st.lists(statements, min_size=1, max_size=10))
def test_nothing_said_is_ever_erased_by_something_not_said(events: list[Event]) -> None:
    world = World(now=NOON, new_id=Ids())
    for each in events:
        before = {c.chat: (c.email, contact_of(world, c.chat)) for c in world.chats.values() if c.contact}
        fold(world, each)
        if each.visitor is None or each.visitor.email is not None:
            continue
        for chat, (_, contact) in before.items():
            now = contact_of(world, chat)
            assert all(v is None or w is not None for v, w in zip(_values(contact), _values(now), strict=True))


def _values(contact: Contact) -> tuple[str | None, ...]:
    return contact.name, contact.email, contact.phone


def test_an_email_keeps_its_contact_while_only_anonymous_chats_are_left_there() -> None:
    phone = "+12025550100"
    world = world_of(
        event("v1:1", ADA, phone=phone, at=0),
        event("v1:2", phone=phone, at=1),
        event("v1:1", BOB, at=2),
        event("v1:2", "carol@example.com", at=3),
        event("v1:3", ADA, name="Zoe", at=4),
    )

    people = {chat: contact_of(world, chat) for chat in ("v1:1", "v1:2", "v1:3")}
    assert [person.email for person in people.values()] == [BOB, "carol@example.com", ADA]
    assert len({person.id for person in people.values()}) == 3
