"""Sends webhooks as Acquire would, and tries again until each is answered 200; what was answered it never forgets.

It knows nothing of the service but its addresses. Whatever is not a 200 (a 503, a reset, a timeout) means: try again.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random
from threading import Event, Lock, Thread

from torturing.acquire import Webhook, webhooks_of
from torturing.chance import chance
from torturing.people import Person, person

WORKERS = 12
ANSWER_WITHIN = 6.0
PATIENCE = 180.0
"""Seconds of trying again before one webhook counts as never taken: far more than any outage of a run."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A 200: for which bytes, and which event id and status it named."""

    body: str
    event: str
    status: str


@dataclass
class Source:
    """Plays the visitors of a seed against the receivers until it is told to stop.

    `introduce` is called with each person before anything is sent about them; `pause` slows each worker down.
    """

    ports: Sequence[int]
    path: str
    seed: int
    journal: Path
    introduce: Callable[[Person], None] = lambda _person: None
    pause: float = 0.1
    now: float = field(default_factory=time.time)
    visitor: Callable[[int], Person] | None = None
    """Makes up the n-th person, where it is not to be one of `people`."""
    plan: Callable[[Person, Random], Iterator[list[Webhook]]] | None = None
    """Says what comes when, where it is not as in `volleys`."""
    taken: list[Taken] = field(default_factory=list)
    never: list[Webhook] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    tries: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    """How often each status came."""
    _next: int = 0
    _lock: Lock = field(default_factory=Lock)
    _stop: Event = field(default_factory=Event)
    _abort: Event = field(default_factory=Event)
    _threads: list[Thread] = field(default_factory=list)
    _failures: list[BaseException] = field(default_factory=list)

    def start(self) -> None:
        """Begin to send."""
        self.reinforce(WORKERS)

    def reinforce(self, workers: int) -> None:
        """Send with so many more at a time."""
        threads = [Thread(target=self._work, name=f"source-{n}", daemon=True) for n in range(workers)]
        self._threads += threads
        for thread in threads:
            thread.start()

    def finish(self) -> None:
        """Begin nothing new. `is_sending` tells when everything that was begun is taken, or patience is over."""
        self._stop.set()

    def check(self) -> None:
        """Raise what went wrong in a thread: a mistake of the harness, not of the service."""
        if self._failures:
            raise self._failures[0]

    def abort(self) -> None:
        """Give up at once."""
        self._stop.set()
        self._abort.set()

    @property
    def is_sending(self) -> bool:
        """Whether anything is still under way."""
        return any(thread.is_alive() for thread in self._threads)

    def newcomer(self) -> Person:
        """The next visitor, and remember them."""
        with self._lock:
            someone = self.visitor(self._next) if self.visitor else person(self._next, self.seed, self.now)
            self._next += 1
            self.people.append(someone)
        self.introduce(someone)
        return someone

    def _work(self) -> None:
        try:
            with ThreadPoolExecutor(max_workers=50) as crowd:
                while not self._stop.is_set():
                    someone = self.newcomer()
                    for volley in (self.plan or volleys)(someone, chance(self.seed, someone.key)):
                        self._fire(volley, crowd)
                        self._abort.wait(self.pause)
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the run's failure
            self._failures.append(error)

    def _fire(self, volley: Sequence[Webhook], crowd: ThreadPoolExecutor) -> None:
        """Send these at the same time, turn by turn to each receiver. Returns when all are taken."""
        if len(volley) == 1:
            self._send(volley[0], chance(self._next))
            return
        wait([crowd.submit(self._send, webhook, chance(place), place) for place, webhook in enumerate(volley)])

    def _send(self, webhook: Webhook, random: Random, first: int = 0) -> None:
        end, attempt = time.monotonic() + PATIENCE, first
        while time.monotonic() < end and not self._abort.is_set():
            answer = self._ask(self.ports[attempt % len(self.ports)], webhook.body)
            attempt += 1
            if answer is not None:
                self._note(Taken(webhook.body.decode(), answer["event"], answer["status"]))
                return
            self._abort.wait(random.uniform(0.05, 0.25))
        with self._lock:
            self.never.append(webhook)

    def _ask(self, port: int, body: bytes) -> dict[str, str] | None:
        """The answer to a 200, or None for everything else."""
        self.tries += 1
        connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN)
        try:
            connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            self.answers[answer.status] += 1
            return dict(json.loads(said)) if answer.status == 200 else None
        except (OSError, HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def _note(self, taken: Taken) -> None:
        line = json.dumps({"event": taken.event, "status": taken.status, "body": taken.body})
        with self._lock:
            self.taken.append(taken)
            with self.journal.open("a") as journal:
                journal.write(line + "\n")


def volleys(someone: Person, random: Random) -> Iterator[list[Webhook]]:
    """All that a person's chats send: what comes at the same time stands together.

    Some come in the wrong order, one in ten comes again later, now and then up to fifty copies come at once. Whoever
    has no email is told in order, because matching by phone is first come, first served, and says so.
    """
    chats = [list(webhooks_of(chat)) for chat in someone.chats]
    is_by_email = someone.chats[0].email is not None
    if is_by_email and not someone.are_twins and random.random() < 0.15:
        chats.reverse()
    if someone.are_twins:
        yield [chats[0].pop(0), chats[1].pop(0)]
    for webhooks in chats:
        if is_by_email and random.random() < 0.2:
            random.shuffle(webhooks)
        for webhook in webhooks:
            yield [webhook] * _copies(random)
            if random.random() < 0.1:
                yield [webhook]


def _copies(random: Random) -> int:
    """How many copies of one event come at once: nearly always one."""
    return random.choice((2, 2, 3, 5, 8, 50)) if random.random() < 0.02 else 1
