"""Random days: events in any order, calls in flight, outages, crashes; then everything heals and must be right.

`scripts/test tests/test_random_days.py --seeds 2000 --first-seed 1` is a long run; a seed that fails repeats exactly.
"""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sync.ledger import Claimed, Settlement
from sync.models import Kind
from tests.databases import Server, select
from tests.running import Running, running

EMAILS = [f"{letter}@example.com" for letter in "abc"]
PHONES = ["+12025550101", "+12025550102"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, count = metafunc.config.getoption("--first-seed"), metafunc.config.getoption("--seeds")
    metafunc.parametrize("seed", range(first, first + count))
    metafunc.parametrize("engine", ["sqlite", "postgresql"])


@dataclass
class Day:
    """One random day. Calls are carried out at once but may be settled late, or never (the process crashed)."""

    service: Running
    random: random.Random
    clock: int = 0
    unsettled: list[list[Settlement]] = field(default_factory=list)

    async def step(self) -> None:
        happening = self.random.choices(
            [self.event, self.call, self.settle, self.outage, self.service.drain, self.wait], [60, 10, 10, 5, 10, 5]
        )[0]
        await happening()

    async def event(self) -> None:
        self.clock += 1
        chat, said = 1000 + self.random.randint(1, 4), self._said()
        visitor_id = self.random.choice(["1", "2"]) if self.random.random() < 0.5 else None
        stamp = f"2026-09-21 14:{self.clock // 60:02d}:{self.clock % 60:02d}"
        about = {"visitor_id": visitor_id, "date_created": stamp, "date_updated": stamp}
        started = {"event": "CHAT_ON_START", "data": {"id": chat, "details": said, **about}}
        closed = {"event": "CHAT_ON_CLOSE", "id": chat, "chat_duration": 1, "users": {"visitor": said}, **about}
        answer = await self.service.post(self.random.choice([started, closed]))
        assert answer.status_code == 200

    def _said(self) -> dict[str, str | None]:
        return {
            "email": self.random.choice(EMAILS) if self.random.random() < 0.6 else None,
            "phone": self.random.choice(PHONES) if self.random.random() < 0.4 else None,
            "name": self.random.choice(["Ann", "Bob", "Cid"]) if self.random.random() < 0.6 else None,
        }

    async def call(self) -> None:
        (lane,) = self.service.service.dispatcher.lanes
        pipeline, destination = self.service.service.pipeline, self.service.destination
        claimed: Claimed = await pipeline.claim(destination, lane.limits, lane.lease)
        if claimed.owed:
            self.unsettled.append(await pipeline.deliver(destination, claimed, lane.lease))

    async def settle(self) -> None:
        if self.unsettled:
            late = self.unsettled.pop(self.random.randrange(len(self.unsettled)))
            await self.service.service.writer.settle(late)

    async def outage(self) -> None:
        self.service.crm.unreachable = not self.service.crm.unreachable

    async def wait(self) -> None:
        self.service.clock.sleep(self.random.choice([1, 30, 300]))

    async def heal(self) -> None:
        self.service.crm.unreachable = False
        while self.unsettled:
            settlements = self.unsettled.pop()
            if self.random.random() < 0.7:
                await self.service.service.writer.settle(settlements)
        for _ in range(60):
            self.service.clock.sleep(400)
            await self.service.drain()


class Facts:
    """What stands in the ledger and in the CRM in the end."""

    def __init__(self, service: Running) -> None:
        self.people = {row["id"]: row for row in select(service.ledger, "SELECT * FROM contacts")}
        self.chats = [row for row in select(service.ledger, "SELECT * FROM chats") if row["contact"] is not None]
        self.deliveries = {
            (row["kind"], row["subject"]): row for row in select(service.ledger, "SELECT * FROM deliveries")
        }
        self.records = {str(record.id): record.properties for record in service.crm.state.store.contacts}
        self.notes = {
            record.id: [
                note.properties["hs_note_body"].split("Ref ")[1] for note in service.crm.state.store.notes_of(record.id)
            ]
            for record in service.crm.state.store.contacts
        }

    def root(self, contact: str) -> dict[str, Any]:
        while self.people[contact]["joined"] is not None:
            contact = self.people[contact]["joined"]
        return self.people[contact]

    def standing(self, contact: dict[str, Any]) -> dict[str, Any]:
        return self.deliveries[(Kind.CONTACT, contact["id"])]


async def test_whatever_happens_nobody_is_lost_doubled_or_mixed_up(
    tmp_path: Path, server: Server, seed: int, engine: str
) -> None:
    async with running(tmp_path, database=None if engine == "sqlite" else server.database()) as service:
        day = Day(service, random.Random(seed))
        for _ in range(day.random.randint(4, 22)):
            await day.step()
        await day.heal()

        facts = Facts(service)

    nothing_waits_or_died(facts)
    everybody_is_there_once(facts)
    nobody_is_mixed_up(facts)
    every_closed_chat_is_on_its_contact(facts)


def nothing_waits_or_died(facts: Facts) -> None:
    assert [row for row in facts.deliveries.values() if row["state"] not in ("delivered", "ignored")] == []
    assert [row for row in facts.deliveries.values() if row["state"] == "ignored" and not row["error"]] == []


def everybody_is_there_once(facts: Facts) -> None:
    emails = Counter(properties["email"] for properties in facts.records.values() if "email" in properties)
    assert [email for email, times in emails.items() if times > 1] == []
    assert {chat["email"] for chat in facts.chats if chat["email"]} - set(emails) == set()
    assert [
        c
        for c in map(facts.root, (chat["contact"] for chat in facts.chats))
        if ("contact", c["id"]) not in facts.deliveries
    ] == []


def nobody_is_mixed_up(facts: Facts) -> None:
    emails = defaultdict(set)
    for chat in facts.chats:
        if chat["email"]:
            emails[facts.root(chat["contact"])["id"]].add(chat["email"])
    assert [said for said in emails.values() if len(said) > 1] == []
    living = [
        row
        for (kind, subject), row in facts.deliveries.items()
        if kind == "contact" and not facts.people[subject]["joined"]
    ]
    holders = Counter(row["remote_id"] for row in living if row["remote_id"])
    assert [record for record, times in holders.items() if times > 1] == []
    for row in living:
        email = facts.people[row["subject"]]["email"]
        if email and row["state"] == "delivered":
            assert facts.records[row["remote_id"]]["email"] == email


def every_closed_chat_is_on_its_contact(facts: Facts) -> None:
    for chat in facts.chats:
        if chat["closed_at"] and facts.standing(facts.root(chat["contact"]))["state"] == "delivered":
            assert facts.deliveries[("chat", chat["id"])]["state"] == "delivered"
    assert [notes for notes in facts.notes.values() if len(set(notes)) < len(notes)] == []
