"""The checks of `scripts/torture` can fail: each kind of loss and doubling is reported. Nothing is killed here."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from torturing.acquire import webhooks_of
from torturing.checks import Evidence, Finding, findings
from torturing.command import plan
from torturing.crm import Behaviour, Crm
from torturing.gathering import tracebacks
from torturing.people import Person, expected_of, person
from torturing.records import UID, Records
from torturing.runs import RUNS
from torturing.source import Taken, volleys

NOW = 1_790_000_000.0
SEED = 3


def delivery(name: str, kind: str, subject: str, **changed: Any) -> dict[str, Any]:
    settled = {"state": "delivered", "wanted": 1, "done": 1, "attempts": 0, "again": 0, "remote_id": "7", "error": None}
    times = {"due_at": None, "lease_until": None, "intended_at": None}
    return {"id": name, "destination": "hubspot", "kind": kind, "subject": subject, **settled, **times, **changed}


def everything(people: list[Person]) -> Evidence:
    """The evidence of a run in which all went well."""
    taken, events, contacts, chats, deliveries = [], [], [], [], []
    crm_contacts, notes = [], []
    for n, someone in enumerate(people):
        wanted = expected_of(someone)
        properties = {"firstname": wanted.first_name, "lastname": wanted.last_name, "phone": wanted.phone}
        crm_contacts.append({"id": str(n), "properties": {"email": wanted.email, **properties}, "contacts": []})
        contacts.append({"id": f"co_{n}", "email": wanted.email, "phone": wanted.phone, "joined": None})
        deliveries.append(delivery(f"de_{n}", "contact", f"co_{n}"))
        for chat in someone.chats:
            for place, webhook in enumerate(webhooks_of(chat)):
                event, body = f"ev_{chat.number}_{place}", webhook.body.decode()
                taken.append(Taken(body, event, "accepted"))
                events.append({"id": event, "payload": body, "state": "applied"})
            chats.append({"id": f"ch_{chat.number}", "chat": f"v1:{chat.number}", "contact": f"co_{n}"})
            deliveries.append(delivery(f"de_{chat.number}", "chat", f"ch_{chat.number}"))
            body = "".join(f"<p><strong>{chat.name}</strong>: {line}</p>" for line in chat.lines)
            note = {"id": f"no_{chat.number}", "properties": {"hs_note_body": body}, "contacts": (str(n),)}
            notes.append(note)
    return Evidence(people, taken, [], events, contacts, chats, deliveries, crm_contacts, notes)


@pytest.fixture
def good() -> Evidence:
    return everything([person(n, SEED, NOW) for n in range(12)])


def sorts(evidence: Evidence) -> Counter[str]:
    return Counter(finding.sort for finding in findings(evidence))


def only(evidence: Evidence) -> Finding:
    (found,) = findings(evidence)
    return found


def changed_contact(evidence: Evidence, **properties: str | None) -> Evidence:
    first, *rest = evidence.crm_contacts
    return replace(evidence, crm_contacts=[{**first, "properties": {**first["properties"], **properties}}, *rest])


def changed_delivery(evidence: Evidence, **columns: Any) -> Evidence:
    first, *rest = evidence.deliveries
    return replace(evidence, deliveries=[{**first, **columns}, *rest])


def test_where_all_went_well_nothing_is_found(good: Evidence) -> None:
    assert findings(good) == []


def test_an_acknowledged_event_that_is_not_stored_is_lost(good: Evidence) -> None:
    found = only(replace(good, events=good.events[1:]))

    assert (found.sort, found.who) == ("lost", good.events[0]["id"])


def test_an_event_that_is_stored_with_other_bytes_is_lost(good: Evidence) -> None:
    assert only(replace(good, events=[{**good.events[0], "payload": "{}"}, *good.events[1:]])).sort == "lost"


def test_a_webhook_that_was_never_taken_is_lost(good: Evidence) -> None:
    assert only(replace(good, never=["{}"])).sort == "lost"


def test_one_event_under_two_ids_is_doubled(good: Evidence) -> None:
    first = good.taken[0]
    twice = replace(
        good,
        taken=[*good.taken, Taken(first.body, "ev_other", "accepted")],
        events=[*good.events, {"id": "ev_other", "payload": first.body, "state": "applied"}],
    )

    assert only(twice).sort == "doubled"


def test_an_event_stored_twice_is_doubled_also_if_only_one_was_acknowledged(good: Evidence) -> None:
    again = {"id": "ev_other", "payload": good.events[0]["payload"], "state": "applied"}

    assert only(replace(good, events=[*good.events, again])).sort == "doubled"


def test_an_event_stored_without_an_acknowledgement_is_fine(good: Evidence) -> None:
    last = good.taken[-1]
    unheard = replace(good, events=[*good.events, {"id": "ev_x", "payload": "{}", "state": "applied"}])

    assert last.event and findings(unheard) == []


def test_a_webhook_answered_as_unreadable_is_wrong(good: Evidence) -> None:
    first = replace(good.taken[0], status="unreadable")

    assert only(replace(good, taken=[first, *good.taken[1:]])).sort == "wrong"


def test_a_person_who_is_not_in_the_crm_is_lost_with_the_delivery_rows(good: Evidence) -> None:
    found = findings(replace(good, crm_contacts=good.crm_contacts[1:]))

    lost = next(finding for finding in found if finding.sort == "lost")
    assert lost.who == good.people[0].key
    assert "'id': 'de_0'" in lost.rows[0]


def test_a_person_who_is_in_the_crm_twice_is_doubled(good: Evidence) -> None:
    again = {**good.crm_contacts[-1], "id": "999"}

    assert sorts(replace(good, crm_contacts=[again, *good.crm_contacts])) == {"doubled": 1}


def test_somebody_in_the_crm_who_is_nobody_is_doubled(good: Evidence) -> None:
    nobody = {"id": "999", "properties": {"firstname": "Ada"}, "contacts": []}

    assert sorts(replace(good, crm_contacts=[*good.crm_contacts, nobody])) == {"doubled": 1}


@pytest.mark.parametrize("field", ["phone", "firstname", "lastname"])
def test_an_old_value_in_the_crm_is_wrong(good: Evidence, field: str) -> None:
    found = only(changed_contact(good, **{field: "+12025550000"}))

    assert found.sort == "wrong"
    assert found.what.startswith(f"{field} is '+12025550000', and the newest word is")


def test_a_chat_without_its_note_is_lost(good: Evidence) -> None:
    assert only(replace(good, crm_notes=good.crm_notes[1:])).sort == "lost"


def test_a_chat_with_two_notes_is_doubled_with_the_delivery_rows(good: Evidence) -> None:
    found = only(replace(good, crm_notes=[*good.crm_notes, {**good.crm_notes[0], "id": "no_other"}]))

    assert (found.sort, len(found.rows)) == ("doubled", 3)


def test_a_note_on_somebody_elses_record_is_wrong(good: Evidence) -> None:
    moved = {**good.crm_notes[0], "contacts": ("11",)}

    assert only(replace(good, crm_notes=[moved, *good.crm_notes[1:]])).sort == "wrong"


def test_a_line_that_is_missing_in_a_note_is_lost(good: Evidence) -> None:
    place = next(n for n, note in enumerate(good.crm_notes) if note["properties"]["hs_note_body"].count("word-") > 1)
    notes = list(good.crm_notes)
    body = notes[place]["properties"]["hs_note_body"].partition("</p>")[2]
    notes[place] = {**notes[place], "properties": {"hs_note_body": body}}

    found = only(replace(good, crm_notes=notes))

    assert (found.sort, "misses word-" in found.what) == ("lost", True)


def test_a_note_that_belongs_to_no_chat_is_doubled(good: Evidence) -> None:
    nobodys = {"id": "no_other", "properties": {"hs_note_body": "<p>hello</p>"}, "contacts": ("1",)}

    assert sorts(replace(good, crm_notes=[*good.crm_notes, nobodys])) == {"doubled": 1}


@pytest.mark.parametrize("state", ["ignored", "dead", "unknown"])
def test_a_delivery_that_does_not_say_why_it_ended_is_silent(good: Evidence, state: str) -> None:
    assert only(changed_delivery(good, state=state)).sort == "silent"


def test_an_ignored_delivery_with_a_reason_is_fine_and_a_dead_one_is_lost(good: Evidence) -> None:
    assert findings(changed_delivery(good, state="ignored", error="joined")) == []
    assert only(changed_delivery(good, state="dead", error="refused")).sort == "lost"


def test_a_delivery_that_still_waits_is_lost(good: Evidence) -> None:
    assert only(changed_delivery(good, state="pending", error="locked")).sort == "lost"


LEFTOVERS = {"lease_until": 1.0, "due_at": 1.0, "error": "late", "intended_at": 1.0, "done": 0, "attempts": 1}


@pytest.mark.parametrize("column", LEFTOVERS)
def test_a_delivered_row_that_still_holds_something_is_reported(good: Evidence, column: str) -> None:
    assert only(changed_delivery(good, **{column: LEFTOVERS[column]})).sort == "silent"


def test_two_deliveries_of_one_subject_are_doubled(good: Evidence) -> None:
    again = {**good.deliveries[0], "id": "de_other"}

    assert sorts(replace(good, deliveries=[*good.deliveries, again])) == {"doubled": 1}


@pytest.mark.parametrize(
    "said",
    [
        {"ledger_check": (1, "2 chats belong to nobody")},
        {"status": (1, "One thing needs you.")},
        {"status": (0, "2 contacts wait.")},
        {"endings": {"serve": [1]}},
        {"tracebacks": ["KeyError: 'id'"]},
        {"strange_calls": 1},
    ],
)
def test_what_the_service_itself_says_counts(good: Evidence, said: dict[str, Any]) -> None:
    assert len(findings(replace(good, **said))) == 1


def test_the_last_line_of_a_traceback_is_found() -> None:
    said = 'x\nTraceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nKeyError: 1\nmore\n'

    assert tracebacks(said) == ["KeyError: 1"]


# What the harness is made of


def test_the_same_seed_makes_the_same_people_and_the_same_volleys() -> None:
    first, second = ([person(n, SEED, NOW) for n in range(50)] for _ in range(2))

    assert first == second
    assert [list(volleys(p, Random(1))) for p in first] == [list(volleys(p, Random(1))) for p in second]
    assert [person(n, SEED + 1, NOW) for n in range(50)] != first


def test_the_made_up_people_hold_every_case() -> None:
    people = [person(n, SEED, NOW) for n in range(400)]
    sent = [volley for someone in people for volley in volleys(someone, Random(someone.key))]
    bodies = [webhook.body for volley in sent for webhook in volley]

    assert any(someone.are_twins for someone in people)
    assert any(someone.is_known for someone in people)
    assert any(someone.chats[0].email is None for someone in people)
    assert any(len({chat.phone for chat in someone.chats}) > 1 for someone in people)
    assert {len(volley) for volley in sent} >= {1, 2, 50}
    assert len(set(bodies)) == sum(3 + len(chat.lines) for someone in people for chat in someone.chats)
    assert 0.05 < (len(sent) - len(set(bodies))) / len(set(bodies)) < 0.15


def test_the_imitation_crm_is_strict(tmp_path: Path) -> None:
    crm = Crm(Records(tmp_path / "crm.jsonl"), Behaviour(index_lag=0))
    contacts, notes = "/crm/v3/objects/contacts", "/crm/v3/objects/notes"
    inputs = [
        {"objectWriteTraceId": trace, "properties": {"email": email, UID: trace}}
        for trace, email in (("a", "A@example.com"), ("b", "a@example.com"))
    ]
    status, said = crm.answer("POST", f"{contacts}/batch/create", {"inputs": inputs})
    about = {"to": {"id": "nobody"}, "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 202}]}
    refused, _ = crm.answer("POST", notes, {"properties": {"hs_timestamp": "1"}, "associations": [about]})

    assert (status, refused) == (207, 400)
    assert said["results"][0]["properties"]["email"] == "a@example.com"
    assert said["errors"][0]["context"] == {"objectWriteTraceId": ["b"]}
    assert said["errors"][0]["message"] == f"Contact already exists. Existing ID: {said['results'][0]['id']}"
    assert [json.loads(line)["effect"] for line in (tmp_path / "crm.jsonl").read_text().splitlines()] == [
        "create contact"
    ]


def test_the_imitation_crm_counts_what_is_over_its_limit(tmp_path: Path) -> None:
    crm = Crm(Records(tmp_path / "crm.jsonl"), Behaviour(limit=3))

    statuses = [crm.answer("POST", "/crm/v3/objects/contacts/batch/read", {"inputs": []})[0] for _ in range(5)]

    assert statuses == [200, 200, 200, 429, 429]
    assert (crm.counted["429"], crm.counted["most in 10 s"]) == (2, 3)


def test_what_fails_in_the_imitation_crm_has_done_its_work_before(tmp_path: Path) -> None:
    crm = Crm(Records(tmp_path / "crm.jsonl"), Behaviour(broken=1.0))
    inputs = [{"objectWriteTraceId": "a", "properties": {"email": "a@example.com"}}]

    status, _ = crm.answer("POST", "/crm/v3/objects/contacts/batch/create", {"inputs": inputs})

    assert (status, len(crm.records.contacts)) == (500, 1)


def test_a_plan_shares_the_kills_out_and_repeats_one_part_exactly() -> None:
    whole = list(plan(1000, 1, None, None))
    part = next(each for each in whole if (each.run.name, each.engine, each.seed) == ("kills", "sqlite", 3))
    again = list(plan(part.kills, part.seed, "kills", "sqlite"))

    assert {(each.run.name, each.engine) for each in whole} == {
        (run.name, e) for run in RUNS for e in run.engines if run.share
    }
    assert 950 <= sum(each.kills for each in whole) <= 1050
    assert again == [part]
