"""An imitation HubSpot as a process of its own: only the calls that are made to it, its limit, its bad manners.

`python -m torturing.crm PORT JOURNAL BEHAVIOUR`. `GET /_state` shows all of it, `PUT /_contacts` puts somebody there.
"""

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from torturing.chance import chance
from torturing.listening import Answering, Listener
from torturing.records import Record, Records, Refused

CONTACTS = "/crm/v3/objects/contacts"
NOTES = "/crm/v3/objects/notes"
WINDOW = 10.0

Answer = tuple[int, Any]


@dataclass(frozen=True)
class Behaviour:
    """How it behaves. The shares are of all calls; whatever fails here has done its work before."""

    seed: int = 0
    limit: int = 600
    broken: float = 0.0
    """500 after writing."""
    cut: float = 0.0
    """502 with success behind it."""
    slow: float = 0.0
    """Waits up to `slowness` seconds, before the work or after it."""
    slowness: float = 0.15
    index_lag: float = 0.4
    """Seconds after which a search finds what was made."""


@dataclass
class Crm:
    """The account: its records, the calls of the last ten seconds, what it has counted."""

    records: Records
    behaviour: Behaviour
    counted: Counter[str] = field(default_factory=Counter)
    calls: deque[float] = field(default_factory=deque)
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        """Its moods are its own, the same for the same seed."""
        self.random = chance(self.behaviour.seed)

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """One call, limit and moods included."""
        with self.lock:
            if not self._is_within_limit():
                return 429, {"status": "error", "category": "RATE_LIMITS", "policyName": "TEN_SECONDLY_ROLLING"}
            mood = self.random.random()
            naps = [0.0, 0.0]
            if self.random.random() < self.behaviour.slow:
                naps[self.random.randrange(2)] = self.random.uniform(0, self.behaviour.slowness)
        time.sleep(naps[0])
        with self.lock:
            answer = self._served(method, path, body)
        time.sleep(naps[1])
        if mood < self.behaviour.broken:
            self.counted["500"] += 1
            return 500, {"status": "error", "message": "internal error"}
        if mood < self.behaviour.broken + self.behaviour.cut:
            self.counted["502"] += 1
            return 502, {"status": "error", "message": "bad gateway"}
        return answer

    def _is_within_limit(self) -> bool:
        now = time.monotonic()
        while self.calls and self.calls[0] < now - WINDOW:
            self.calls.popleft()
        if len(self.calls) >= self.behaviour.limit:
            self.counted["429"] += 1
            return False
        self.calls.append(now)
        self.counted["calls"] += 1
        self.counted["most in 10 s"] = max(self.counted["most in 10 s"], len(self.calls))
        return True

    def _served(self, method: str, path: str, body: Any) -> Answer:
        step = ROUTES.get((method, path))
        try:
            if step is not None:
                return step(self, body)
            if method == "PATCH" and path.startswith(f"{NOTES}/"):
                return 200, self.records.rewrite(path.rpartition("/")[2], body["properties"]).shown()
        except Refused as refused:
            return refused.status, {"status": "error", "category": refused.category, "message": refused.message}
        self.counted["strange calls"] += 1
        return 404, {"status": "error", "message": f"{method} {path} is nothing here"}

    def account(self, _body: Any) -> Answer:
        """Whose account it is."""
        return 200, {"portalId": 62515}

    def read(self, body: Any) -> Answer:
        """Batch read: those that are not there are named in a 207."""
        found = [(entry["id"], self.records.by(entry["id"], body.get("idProperty"))) for entry in body["inputs"]]
        missing = [wanted for wanted, record in found if record is None]
        error = {"status": "error", "category": "OBJECT_NOT_FOUND", "message": "not there", "context": {"ids": missing}}
        results = list({record.id: record.shown() for _, record in found if record is not None}.values())
        return (
            (207, {"results": results, "numErrors": 1, "errors": [error]}) if missing else (200, {"results": results})
        )

    def write(self, body: Any, step: Callable[[Any], Record]) -> Answer:
        """A batch of writes: each input is taken or refused by itself, named by its trace."""
        results, errors = [], []
        for entry in body["inputs"]:
            trace = entry["objectWriteTraceId"]
            try:
                results.append({**step(entry).shown(), "objectWriteTraceId": trace})
            except Refused as refused:
                told = {"status": "error", "category": refused.category, "message": refused.message}
                errors.append({**told, "context": {"objectWriteTraceId": [trace]}})
        return 207 if errors else 200, {"status": "COMPLETE", "results": results, "errors": errors}

    def create(self, body: Any) -> Answer:
        """Batch create."""
        return self.write(body, lambda entry: self.records.create(entry["properties"]))

    def update(self, body: Any) -> Answer:
        """Batch update."""
        return self.write(body, lambda entry: self.records.update(entry["id"], entry["properties"]))

    def upsert(self, body: Any) -> Answer:
        """Batch upsert by a unique property."""

        def step(entry: Any) -> Record:
            properties = {**entry["properties"], entry["idProperty"]: entry["id"]}
            found = self.records.by(entry["id"], entry["idProperty"])
            return self.records.update(found.id, properties) if found else self.records.create(properties)

        return self.write(body, step)

    def create_one(self, body: Any) -> Answer:
        """A single create."""
        return 201, self.records.create(body["properties"]).shown()

    def create_note(self, body: Any) -> Answer:
        """A note on contacts."""
        return 201, self.records.note(body).shown()

    def search(self, body: Any, among: Mapping[str, Record]) -> Answer:
        """The newest first, of what the index has by now."""
        asked = body["filterGroups"][0]["filters"][0]
        name, value = asked["propertyName"], asked["value"]
        indexed = [r for r in among.values() if r.created <= time.time() - self.behaviour.index_lag]
        found = [
            r
            for r in indexed
            if (value in r.contacts if name == "associations.contact" else r.properties.get(name) == value)
        ]
        return 200, {"results": [r.shown() for r in sorted(found, key=lambda r: -r.created)[: body["limit"]]]}

    def put_there(self, body: Any) -> Answer:
        """Somebody whom a colleague entered long ago."""
        with self.lock:
            return 201, self.records.create(body, created=time.time() - 86400).shown()

    def state(self) -> Any:
        """Everything, for whoever checks it."""
        with self.lock:
            contacts = [asdict(record) for record in self.records.contacts.values()]
            notes = [asdict(record) for record in self.records.notes.values()]
            return {"contacts": contacts, "notes": notes, "counted": dict(self.counted)}


ROUTES: Mapping[tuple[str, str], Callable[[Crm, Any], Answer]] = {
    ("GET", "/account-info/v3/details"): Crm.account,
    ("POST", f"{CONTACTS}/batch/read"): Crm.read,
    ("POST", f"{CONTACTS}/batch/create"): Crm.create,
    ("POST", f"{CONTACTS}/batch/update"): Crm.update,
    ("POST", f"{CONTACTS}/batch/upsert"): Crm.upsert,
    ("POST", CONTACTS): Crm.create_one,
    ("POST", f"{CONTACTS}/search"): lambda crm, body: crm.search(body, crm.records.contacts),
    ("POST", NOTES): Crm.create_note,
    ("POST", f"{NOTES}/search"): lambda crm, body: crm.search(body, crm.records.notes),
}


class Handler(Answering):
    """What is asked over HTTP."""

    crm: ClassVar[Crm]

    def _take(self) -> None:
        said = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(said) if said else None
        if self.path == "/_state":
            self.give(200, self.crm.state())
        elif self.path == "/_contacts":
            self.give(*self.crm.put_there(body))
        elif not self.headers.get("Authorization", "").startswith("Bearer "):
            self.give(401, {"status": "error", "category": "INVALID_AUTHENTICATION"})
        else:
            self.give(*self.crm.answer(self.command, self.path, body))

    do_GET = do_POST = do_PATCH = do_PUT = _take  # noqa: N815 - the names that http.server looks for


def main(arguments: Sequence[str]) -> None:
    """Serve until ended."""
    port, journal, behaviour = arguments
    Handler.crm = Crm(Records(Path(journal)), Behaviour(**json.loads(behaviour)))
    Listener(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
