"""One run's stage: a ledger, the service in processes of its own, an imitation CRM and source.

A run gets a stage on which everything is up and webhooks come in. It does its mischief through the methods here, and
returns; the stage then lets everything drain.
"""

import json
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from torturing.checks import Finding
from torturing.crm import Behaviour
from torturing.ledgers import LedgerTables
from torturing.members import SCRIPTS, Member, crm_sync, until
from torturing.people import Person, known_as
from torturing.proxy import Between
from torturing.records import UID
from torturing.server import PostgresServer
from torturing.source import PATIENCE, Source

TOKEN = "torture-token-0123456789abcdef"  # noqa: S105 - of our own processes on loopback
TIMEOUT = 0.25
LEASE = 4 * (6 * TIMEOUT + 1)
"""Seconds that a claim holds with that timeout, and a little more than that has passed by."""

STALLED = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' "
    "AND state_change < clock_timestamp() - interval '1 second'"
)
LISTENING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"
DRAINING = 150.0
STARTING = 30.0
CALLS_PER_10S = 600


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Stage:
    """`budget` is how many kills the run should make; `kills` counts those that were made, freezing and cutting too."""

    folder: Path
    ledger: LedgerTables
    seed: int
    budget: int
    server: PostgresServer | None = None
    behaviour: Behaviour = field(default_factory=lambda: Behaviour(broken=0.02, cut=0.004, slow=0.03))
    extra: Mapping[str, str] = field(default_factory=dict)
    dispatcher_count: int = 3
    calls_per_10s: int = CALLS_PER_10S
    draining: float = DRAINING
    source_options: dict[str, Any] = field(default_factory=dict)
    """What the source is told beyond the usual."""
    neighbours: list[Member] = field(default_factory=list)
    """Processes that a run brings along beside the service."""
    kills: int = 0
    receivers: list[Member] = field(default_factory=list)
    dispatchers: list[Member] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What a run found worth telling, below the table."""
    complaints: list[Finding] = field(default_factory=list)
    """What a run itself saw go wrong."""
    endings_are_fine: bool = False
    """Whether a process may end by itself: while there is no database, it says so and does."""
    proxies: dict[str, Between] = field(default_factory=dict)
    """What a run put between the service and others, by who is behind it. It stands to the end."""
    _crm: Member | None = None
    _source: Source | None = None

    def __post_init__(self) -> None:
        """Choose the ports; nothing runs yet."""
        self.crm_port = free_port()
        self.ports = [free_port() for _ in range(1 if self.is_sqlite else 2)]

    @property
    def is_sqlite(self) -> bool:
        """Whether one process does it all on one file."""
        return self.server is None

    @property
    def members(self) -> list[Member]:
        """Every process of the service."""
        return list({id(member): member for member in (*self.receivers, *self.dispatchers)}.values())

    @property
    def source(self) -> Source:
        """Who sends."""
        assert self._source is not None
        return self._source

    @property
    def settings(self) -> dict[str, str]:
        """The service's settings. An odd seed has a property for our uid in the CRM, an even one has none."""
        return {
            "SYNC_LEDGER": self.ledger.url,
            "SYNC_SECRET_KEY": "torture-key-" * 4,
            "SYNC_DESTINATIONS": "hubspot",
            "SYNC_LOG_LEVEL": "warning",
            "ACQUIRE_URL_TOKEN": TOKEN,
            "HUBSPOT_BASE_URL": f"http://127.0.0.1:{self.crm_port}",
            "HUBSPOT_ACCESS_TOKEN": "torture",
            "HUBSPOT_CALLS_PER_10S": str(self.calls_per_10s),
            "HUBSPOT_TIMEOUT": str(TIMEOUT),
            "HUBSPOT_SEARCH_LAG": "1",
            **({"HUBSPOT_UID_PROPERTY": UID} if self.seed % 2 else {}),
            **self.extra,
        }

    def open(self) -> None:
        """Bring everything up, and begin to send."""
        behaviour = json.dumps(asdict(self.behaviour) | {"seed": self.seed, "limit": self.calls_per_10s})
        command = [sys.executable, "-m", "torturing.crm", str(self.crm_port), str(self.folder / "crm.jsonl"), behaviour]
        self._crm = Member("crm", command, self.folder, {}, SCRIPTS)
        self._crm.start()
        until(lambda: self.asked("/_state") is not None, "the imitation CRM starts", STARTING)
        for neighbour in self.neighbours:
            neighbour.start()
        self._hire()
        for member in self.members:
            member.start()
        self.until_up()
        path = f"/webhooks/acquire/{TOKEN}"
        journal = self.folder / "taken.jsonl"
        self._source = Source(self.ports, path, self.seed, journal, self._introduce, **self.source_options)
        self._source.start()

    def _hire(self) -> None:
        if self.is_sqlite:
            serve = Member("serve", crm_sync("serve", "--port", str(self.ports[0])), self.folder, self.settings)
            self.receivers, self.dispatchers = [serve], [serve]
            return
        self.receivers = [
            Member(f"receiver-{n}", crm_sync("serve", "--no-dispatch", "--port", str(port)), self.folder, self.settings)
            for n, port in enumerate(self.ports)
        ]
        self.dispatchers = [
            Member(f"dispatcher-{n}", crm_sync("dispatch"), self.folder, self.settings)
            for n in range(self.dispatcher_count)
        ]

    # What a run does

    def kill(self, member: Member, **armed: str) -> None:
        """Kill one process without a word and start it again at once, perhaps with a crash point in it."""
        member.kill()
        self.kills += 1
        member.start(**armed)

    def replace(self, member: Member, **armed: str) -> None:
        """End one process in peace and start it again, perhaps with a crash point in it."""
        member.end()
        member.start(**armed)

    def refit(self, **changed: str) -> None:
        """End the service in peace and start it again with these settings changed. Raises TimeoutError."""
        self.extra = {**self.extra, **changed}
        for member in self.members:
            member.end()
            member.settings = self.settings
            member.start()
        self.until_up()

    def await_crash(self, member: Member, seconds: float = 40.0) -> bool:
        """Wait until an armed process has died at its point, and start it again. False where it never came there."""
        with suppress(TimeoutError):
            until(lambda: not member.is_alive, "the crash", seconds)
        if member.is_alive:
            return False
        self.kills += 1
        member.start()
        return True

    def tend(self) -> None:
        """Start again whoever has ended by itself."""
        for member in self.members:
            member.tend()

    def wait(self, seconds: float) -> None:
        """Let time pass; whoever ends by itself meanwhile is started again."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self.tend()

    def until_up(self) -> None:
        """Wait until every receiver answers. Raises TimeoutError."""
        for port in self.ports:
            url = f"http://127.0.0.1:{port}/healthz"
            until(lambda url=url: self._is_up(url), f"{url} answers", STARTING)  # type: ignore[misc]

    def until_serving(self) -> None:
        """Wait until every dispatcher serves its lanes, too: with PostgreSQL it listens then. Raises TimeoutError."""
        self.until_up()
        if not self.is_sqlite:
            wanted = len(self.dispatchers)
            until(lambda: len(self.ledger.select(LISTENING)) >= wanted, "the dispatchers listen", STARTING)

    def _is_up(self, url: str) -> bool:
        self.tend()
        try:
            with urlopen(url, timeout=3):  # noqa: S310 - our own process on loopback
                return True
        except (OSError, ValueError):
            return False

    def claims(self) -> dict[str, int]:
        """The deliveries that somebody holds at present, each with its fence."""
        rows = self.ledger.select(
            "SELECT id, claim FROM deliveries WHERE state = 'pending' AND lease_until IS NOT NULL"
        )
        return {row["id"]: row["claim"] for row in rows}

    def is_stalled(self) -> bool:
        """Whether somebody has held a transaction of the server open for a second."""
        return self.server is not None and bool(self.ledger.select(STALLED))

    def thaw(self) -> None:
        """Let every process that is frozen go on."""
        for member in self.members:
            if member.is_alive and member.is_frozen:
                member.thaw()

    # What comes after

    def drain(self) -> bool:
        """Send what was begun, then wait until nothing is pending. False where that takes too long."""
        self.thaw()
        self._finish_sending()
        end = time.monotonic() + self.draining
        while time.monotonic() < end:
            self.tend()
            with suppress(OSError):
                if not self.ledger.select("SELECT id FROM deliveries WHERE state = 'pending' LIMIT 1"):
                    return True
            time.sleep(0.2)
        return False

    def _finish_sending(self) -> None:
        self.source.finish()
        end = time.monotonic() + PATIENCE + 60
        while self.source.is_sending and time.monotonic() < end:
            self.tend()
            time.sleep(0.1)
        self.source.check()

    def close(self) -> None:
        """End every process that was started here, whatever state it is in."""
        if self._source is not None:
            self._source.abort()
        for member in (*self.members, *self.neighbours, *([self._crm] if self._crm is not None else [])):
            if member.process is not None and member.is_alive:
                member.kill()
        for proxy in self.proxies.values():
            proxy.close()

    def _introduce(self, person: Person) -> None:
        if person.is_known:
            known = known_as(person)
            properties = {"email": known.email, "firstname": known.first_name, "lastname": known.last_name}
            self.asked("/_contacts", {**properties, "phone": known.phone})

    def asked(self, path: str, body: Any = None) -> Any:
        """What the imitation CRM answers; None where it does not."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.crm_port}{path}"
        request = Request(url, data, method="GET" if body is None else "PUT")
        try:
            with urlopen(request, timeout=20) as answer:  # noqa: S310 - the same
                return json.load(answer)
        except URLError:
            return None
