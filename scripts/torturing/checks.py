"""Compares what was promised with what stands there: nothing lost, nobody doubled, nothing silent. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torturing.people import Expected, Person, expected
from torturing.source import Taken

Row = Mapping[str, Any]
LOST, DOUBLED, WRONG, SILENT = "lost", "doubled", "wrong", "silent"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be. `sort` is lost, doubled, wrong (an older word won) or silent (nobody is told)."""

    sort: str
    who: str
    what: str
    rows: tuple[str, ...] = ()
    """The delivery rows that it is about, and the CRM's records, for a person to read."""


@dataclass(frozen=True)
class Evidence:
    """Everything that is known after a run: what was sent, what the ledger holds, what the CRM holds, what was said."""

    people: Sequence[Person]
    taken: Sequence[Taken]
    never: Sequence[str]
    events: Sequence[Row]
    contacts: Sequence[Row]
    chats: Sequence[Row]
    deliveries: Sequence[Row]
    crm_contacts: Sequence[Row]
    crm_notes: Sequence[Row]
    strange_calls: int = 0
    ledger_check: tuple[int, str] = (0, "")
    status: tuple[int, str] = (0, "Everything has arrived.")
    endings: Mapping[str, Sequence[int]] = field(default_factory=dict)
    tracebacks: Sequence[str] = ()


def findings(evidence: Evidence) -> list[Finding]:
    """All that is wrong. Empty: the promises were kept."""
    checks = (_events, _people, _notes, _deliveries, _words)
    return [finding for check in checks for finding in check(evidence)]


def _events(evidence: Evidence) -> Iterator[Finding]:
    """What was answered 200 is stored, byte for byte, and each thing that happened is stored once."""
    stored = {row["id"]: row for row in evidence.events}
    for body in evidence.never:
        yield Finding(LOST, _short(body), "was never taken, however often it was sent")
    ids: dict[str, set[str]] = {}
    for taken in evidence.taken:
        ids.setdefault(taken.body, set()).add(taken.event)
        if taken.status not in ("accepted", "duplicate"):
            yield Finding(WRONG, taken.event, f"was answered {taken.status!r}: {_short(taken.body)}")
    for body, named in ids.items():
        if not (there := named & stored.keys()):
            yield Finding(LOST, min(named), f"was answered 200 and is not in the ledger: {_short(body)}")
        elif len(named) > 1:
            yield Finding(DOUBLED, ", ".join(sorted(named)), f"are all one event: {_short(body)}")
        elif stored[min(there)]["payload"] != body:
            yield Finding(LOST, min(there), f"is stored with other bytes than were sent: {_short(body)}")
    unknown = stored.keys() - {event for named in ids.values() for event in named}
    sent = set(ids)
    for event in sorted(unknown):
        if stored[event]["payload"] in sent:
            yield Finding(
                DOUBLED, event, f"is stored beside another one that says the same: {_short(stored[event]['payload'])}"
            )


def _people(evidence: Evidence) -> Iterator[Finding]:
    """Everybody is in the CRM exactly once, with the newest values; and nobody else is."""
    records: dict[str, list[Row]] = {}
    for record in evidence.crm_contacts:
        properties = record["properties"]
        records.setdefault(properties.get("email") or properties.get("phone") or record["id"], []).append(record)
    wanted = expected(evidence.people)
    for key, person in wanted.items():
        there = records.pop(key, [])
        if not there:
            sort, what = LOST, "is not in the CRM"
        elif len(there) > 1:
            sort, what = DOUBLED, f"is in the CRM {len(there)} times"
        elif wrong := list(_differences(person, there[0]["properties"])):
            sort, what = WRONG, "; ".join(wrong)
        else:
            continue
        yield Finding(sort, key, what, (*_contact_rows(evidence, key), *map(str, there)))
    for key, strangers in records.items():
        yield Finding(
            DOUBLED, key, "is in the CRM and is nobody", (*_contact_rows(evidence, key), *map(str, strangers))
        )


def _differences(person: Expected, there: Mapping[str, str]) -> Iterator[str]:
    properties = {"firstname": person.first_name, "lastname": person.last_name, "phone": person.phone}
    for name, value in properties.items():
        if there.get(name) != value:
            yield f"{name} is {there.get(name)!r}, and the newest word is {value!r}"


def _notes(evidence: Evidence) -> Iterator[Finding]:
    """Each closed chat is one note, on its person's record, with every line that was said."""
    records = {
        record["properties"].get("email") or record["properties"].get("phone"): record["id"]
        for record in evidence.crm_contacts
    }
    bodies = [(note, note["properties"].get("hs_note_body", "")) for note in evidence.crm_notes]
    by_word: dict[str, list[Row]] = {}
    for note, body in bodies:
        for word in {piece.split("<")[0] for piece in body.split(": ") if piece.startswith("word-")}:
            by_word.setdefault(word, []).append(note)
    noted = 0
    for person in evidence.people:
        for chat in filter(lambda chat: chat.lines, person.chats):
            found = {note["id"]: note for line in chat.lines for note in by_word.get(line, [])}
            noted += len(found)
            if not found:
                sort, what = LOST, f"of {person.key} has no note"
            elif len(found) > 1:
                sort, what = DOUBLED, f"of {person.key} has {len(found)} notes"
            elif list(next(iter(found.values()))["contacts"]) != [records.get(person.key)]:
                sort, what = WRONG, f"has its note on another record than {person.key}'s"
            elif missing := [line for line in chat.lines if line not in by_word]:
                sort, what = LOST, f"misses {', '.join(missing)} in its note"
            else:
                continue
            rows = (*_chat_rows(evidence, chat.number), *map(str, found.values()))
            yield Finding(sort, f"chat {chat.number}", what, rows)
    if len(evidence.crm_notes) > noted:
        yield Finding(DOUBLED, "the CRM", f"holds {len(evidence.crm_notes) - noted} notes that belong to no chat")


def _deliveries(evidence: Evidence) -> Iterator[Finding]:
    """Whatever is not delivered says why; what is delivered holds nothing back; nothing waits any more."""
    twice = Counter((row["destination"], row["kind"], row["subject"]) for row in evidence.deliveries)
    for subject, n in twice.items():
        if n > 1:
            yield Finding(DOUBLED, str(subject), f"has {n} deliveries")
    for row in evidence.deliveries:
        match row["state"]:
            case "delivered":
                leftovers = [
                    name for name in ("error", "due_at", "lease_until", "intended_at") if row[name] is not None
                ]
                if row["done"] != row["wanted"] or row["attempts"] or row["again"] or not row["remote_id"]:
                    leftovers.append("a version or an attempt")
                if leftovers:
                    said = f"counts as delivered and still holds {', '.join(leftovers)}"
                    yield Finding(SILENT, row["id"], said, (str(row),))
            case "ignored" | "dead" | "unknown" if row["error"]:
                if row["state"] != "ignored":
                    yield Finding(LOST, row["id"], f"is {row['state']}: {row['error']}", (str(row),))
            case "pending":
                yield Finding(LOST, row["id"], f"still waits ({row['error']})", (str(row),))
            case state:
                yield Finding(SILENT, row["id"], f"is {state!r} and does not say why", (str(row),))


def _words(evidence: Evidence) -> Iterator[Finding]:
    """What the service itself says: its checks find nothing, it ended only when it was told, it met nothing strange."""
    if evidence.ledger_check[0]:
        yield Finding(WRONG, "crm-sync ledger check", evidence.ledger_check[1])
    code, said = evidence.status
    if code or "Everything has arrived." not in said:
        yield Finding(SILENT, "crm-sync status", f"exit code {code}: {said}")
    for name, codes in evidence.endings.items():
        if codes:
            yield Finding(WRONG, name, f"ended by itself with {', '.join(map(str, codes))}")
    for said in evidence.tracebacks:
        yield Finding(WRONG, "a process", f"met what it did not expect: {said}")
    if evidence.strange_calls:
        yield Finding(WRONG, "the CRM", f"got {evidence.strange_calls} calls that it does not know")


def _contact_rows(evidence: Evidence, key: str) -> tuple[str, ...]:
    ids = {row["id"] for row in evidence.contacts if key in ((row["email"] or "").lower(), row["phone"])}
    return tuple(str(row) for row in evidence.deliveries if row["subject"] in ids)


def _chat_rows(evidence: Evidence, number: int) -> tuple[str, ...]:
    ids = {row["id"] for row in evidence.chats if row["chat"] == f"v1:{number}"}
    return tuple(str(row) for row in evidence.deliveries if row["subject"] in ids)


def _short(body: str) -> str:
    return body if len(body) < 200 else f"{body[:200]}…"
