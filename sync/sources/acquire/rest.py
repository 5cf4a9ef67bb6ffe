"""Asks Acquire's REST APIs: as fast as the settings allow, and again where they are busy, but not for ever.

Neither version documents limits or a shape of errors. So the pace is a modest setting, an answer is judged by its
status alone, and whatever is not the documented envelope counts as no answer.
"""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential

from sync.cleaning import said
from sync.errors import Broken, DeliveryError, Refused, SourceError, Unauthorized, Waiting
from sync.http import Answer, Client, error_of
from sync.sources.acquire.reading import ID_LIMIT, NO_ID
from sync.sources.base import Unread

MOST_ATTEMPTS = 6
BACKOFF = wait_exponential(multiplier=1, max=30)
"""1 s, 2 s, 4 s … between the attempts: half a minute of trouble is sat out."""

LONGEST_WAIT = 300.0
"""Seconds that the source may ask us to wait; beyond it the pull ends, to go on there the next time."""

T = TypeVar("T")

MOST_UNANSWERED = 5
"""Details in a row that stay unanswered before that is the whole source's fault."""

GONE = 404

Detail = tuple[str, str, str]
"""What is asked about one row: what of whom ("threads" of a "profile"), and the id of that."""

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Unanswered(SourceError):
    """There was an answer, and nobody understands it."""


class Rest:
    """One REST API. `secret` names the setting to look at when it refuses us."""

    def __init__(
        self,
        client: Client,
        *,
        secret: str,
        per_second: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.client = client
        self.secret = secret
        self.clock = clock
        self.sleep = sleep
        self._interval = 1 / per_second
        self._next = 0.0
        self._in_a_row: Counter[str] = Counter()
        self._gone: defaultdict[str, set[str]] = defaultdict(set)
        self._left_out: defaultdict[Unread, set[str]] = defaultdict(set)
        client.gate = self._gate

    async def _gate(self) -> None:
        wait = self._next - self.clock()
        if 0 < wait <= self._interval:  # more than that is left over from a clock that jumped
            await self.sleep(wait)
        self._next = self.clock() + self._interval

    async def get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        """What a GET gives. Raises SourceError; Refused where it refuses this one question."""
        return await self._ask("GET", path, params=params)

    async def post(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        """The envelope that a POSTed form gives. Raises SourceError; Refused where it refuses this one question."""
        answer = await self._ask("POST", path, content=urlencode(form).encode(), headers=FORM)
        if answer.get("success") is False:
            raise Refused(f"it says: {said(answer.get('error'), limit=100) or 'no success'}")
        return answer

    async def detail(self, detail: Detail, asked: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        """The answer about one row, which must not hold up the others: empty where it is refused or makes no sense.

        Raises SourceError where that is not about this row: no answer at all, or none of this kind to several in a row.
        """
        kind = detail[0]
        try:
            answer = await asked
        except Refused as error:
            if error.status not in (None, 400, 404):
                raise SourceError(f"Acquire refuses to say more about a row ({error.reason})") from error
            if error.status == GONE:
                self._miss(detail)
            else:
                self.leave_out(detail, "it is refused" if error.status is None else error.reason)
            return {}
        except Unanswered:
            self._in_a_row[kind] += 1
            self.leave_out(detail, "no usable answer")
            if self._in_a_row[kind] >= MOST_UNANSWERED:
                raise
            return {}
        self._in_a_row[kind] = 0
        self._gone[kind].clear()
        return answer

    def _miss(self, detail: Detail) -> None:
        """What is not there was deleted since it was listed; where nothing is there, the question is wrong."""
        kind, whose, which = detail
        gone = self._gone[kind]
        gone.add(which)
        if len(gone) >= MOST_UNANSWERED:
            for one in gone:
                self.leave_out((kind, whose, one), f"answered {GONE}, every time")

    def leave_out(self, detail: Detail, why: str) -> None:
        """Remember that this could not be read."""
        what, whose, which = detail
        self._left_out[Unread(what, whose, why)].add(which)

    @property
    def unread(self) -> Mapping[Unread, int]:
        """What could not be read so far, and of how many rows."""
        return {unread: len(rows) for unread, rows in self._left_out.items()}

    async def _ask(self, method: str, path: str, **call: Any) -> dict[str, Any]:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(Waiting),
                stop=stop_after_attempt(MOST_ATTEMPTS),
                wait=_asked,
                sleep=self.sleep,
                reraise=True,
            ):
                with attempt:
                    return self._understood(await self.client.call(method, path, **call))
        except Unauthorized as error:
            raise SourceError(f"Acquire refuses {self.secret} ({error.reason}) at {_place(path)}") from error
        except Broken as error:
            raise Unanswered(f"Acquire cannot be asked for {_place(path)}: {error.reason}") from error
        except Waiting as error:
            raise SourceError(f"Acquire cannot be asked for {_place(path)}: {error.reason}") from error
        raise AssertionError("unreachable")  # pragma: no cover

    def _understood(self, answer: Answer) -> dict[str, Any]:
        """The object that an answer holds. Raises DeliveryError, and SourceError where waiting would be no use."""
        if not answer.is_success:
            raise self._hopeless(error_of(answer, self.clock()))
        document = answer.json()
        if not isinstance(document, dict):
            raise Unanswered("Acquire answered something that is no JSON object")
        return document

    def _hopeless(self, error: DeliveryError) -> Exception:
        after = error.after if isinstance(error, Waiting) else None
        if isinstance(error, Unauthorized):
            return SourceError(f"Acquire refuses {self.secret} ({error.reason})")
        if after is not None and after > LONGEST_WAIT:
            return SourceError(f"Acquire {error.reason}, and asks to wait for {after:.0f} seconds")
        return error


def _asked(state: RetryCallState) -> float:
    """The backoff, or as long as the source asks for."""
    failed = state.outcome.exception() if state.outcome is not None else None
    after = failed.after if isinstance(failed, Waiting) else None
    return max(BACKOFF(state), after or 0.0)


async def surely(asked: Awaitable[T]) -> T:
    """The answer to a question without which nothing can be pulled. Raises SourceError also where it is refused."""
    try:
        return await asked
    except Refused as error:
        raise SourceError(f"Acquire refuses to list anything: {error.reason}") from error


def id_of(value: object) -> str | None:
    """An id as text, numbers and texts alike; None for what the vendor writes where there is none."""
    text = said(value)
    return None if text is None or text in NO_ID or len(text) > ID_LIMIT else text


def _place(path: str) -> str:
    """A path without ids."""
    return "/".join(part for part in path.split("/") if not part.isdigit())
