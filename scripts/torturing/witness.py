"""Sends some visitors' webhooks one by one while something is broken, and counts how each try was answered."""

import json
import time
from collections import Counter
from collections.abc import Collection
from http.client import HTTPConnection, HTTPException
from typing import Any

from torturing.acquire import Webhook, webhooks_of
from torturing.checks import WRONG, Finding
from torturing.source import Taken
from torturing.stage import TOKEN, Stage

ANSWER_WITHIN = 8.0
PAUSE = 0.05
STORED, REFUSED, NO_ANSWER = "200", "503", "no answer"
GOES_ON = 30.0
"""Seconds after which webhooks must be taken again once nothing is broken any more."""

READY = 15.0
"""Seconds until `/readyz` says what is so."""


class Witness:
    """One more source on a stage: what it begins it finishes, and it is checked with all the rest."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.said: Counter[str] = Counter()
        self._left: list[Webhook] = []

    def send(self) -> str:
        """Send what is next, or again what was not taken; returns the status that was said."""
        if not self._left:
            self._left = [webhook for chat in self.stage.source.newcomer().chats for webhook in webhooks_of(chat)]
        ports, body = self.stage.ports, self._left[0].body
        port = ports[self.said.total() % len(ports)]
        status, answer = ask(port, "POST", f"/webhooks/acquire/{TOKEN}", body)
        self.said[status] += 1
        if status == STORED:
            self.stage.source.taken.append(Taken(body.decode(), answer["event"], answer["status"]))
            self._left.pop(0)
        return status

    def watch(self, seconds: float) -> Counter[str]:
        """Send for so long; returns how often which status was said meanwhile."""
        end, before = time.monotonic() + seconds, Counter(self.said)
        while time.monotonic() < end:
            self.send()
            time.sleep(PAUSE)
        return self.said - before

    def hears(self, status: str, seconds: float) -> bool:
        """Send until this is said. False where it is not said in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.send() == status:
                return True
            time.sleep(PAUSE)
        return False

    def sees_refusals(self, what: str, seconds: float) -> None:
        """See that webhooks are refused and `/readyz` says so, on every receiver; then watch for so long."""
        if not self.hears(REFUSED, READY):
            self.complain(f"{what}: no webhook was answered 503")
        self.sees_ready("503", what)
        self.stage.remarks.append(f"{what}: {told(self.watch(seconds))}")

    def sees_ready(self, status: str, what: str) -> None:
        """See that `/readyz` of every receiver says this before long."""
        for port in self.stage.ports:
            end = time.monotonic() + READY
            while (said := ask(port, "GET", "/readyz")[0]) != status:
                if time.monotonic() > end:
                    return self.complain(f"{what}: /readyz says {said} and not {status}")
                time.sleep(0.2)
        return None

    def sees_recovery(self, what: str) -> None:
        """See that webhooks are taken again and `/readyz` says so. Nobody is started again for it."""
        began = time.monotonic()
        if not self.hears(STORED, GOES_ON):
            self.complain(f"{what}: no webhook is taken {GOES_ON:.0f} s after it was over")
        self.stage.remarks.append(f"taken again after {time.monotonic() - began:.1f} s")
        self.sees_ready("200", f"after {what}")

    def finish(self, may_say: Collection[str] = (STORED, REFUSED)) -> None:
        """Send the rest of what was begun. Complains where anything was answered but what may have been."""
        end = time.monotonic() + GOES_ON
        while self._left and time.monotonic() < end:
            self.send()
        if self._left:
            self.complain("what was begun could not be finished")
        if strange := self.said.keys() - set(may_say):
            self.complain(f"webhooks were answered {', '.join(sorted(strange))}")

    def complain(self, what: str) -> None:
        """Say that something is wrong."""
        self.stage.complaints.append(Finding(WRONG, "the service", what))


def told(said: Counter[str]) -> str:
    """How often which status was said, in words."""
    return ", ".join(f"{n} x {status}" for status, n in sorted(said.items()))


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[str, Any]:
    """The status of an answer, as text, with what its JSON says; or that there was none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return str(answer.status), json.loads(answer.read())
    except (OSError, HTTPException, ValueError):
        return NO_ANSWER, None
    finally:
        connection.close()
