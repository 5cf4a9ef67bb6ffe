"""HubSpot's calls: batches whose every input gets its own answer, searches, single requests.

developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/batch/upsert-contacts, and for inputs that fail
alone …/latest/error-handling#multi-status-errors
"""

import json
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

from sync.destinations.hubspot.answers import (
    Exists,
    NotThere,
    Unmentioned,
    entries,
    error_from,
    ids_in,
    refusal,
    traces_in,
)
from sync.destinations.hubspot.mapping import Record, Write
from sync.errors import Broken, DeliveryError, Refused, Throttled, Unauthorized, Unreachable
from sync.http import Client

CONTACTS = "/crm/v3/objects/contacts"
ACCOUNT = "/account-info/v3/details"
MOST = 100
"""Inputs of one batch."""

EVERYBODY = (Throttled, Unreachable, Unauthorized)
"""After one of these the next call would fare no better."""

SEARCHES = 5.0
"""Searches in a second, for a whole account."""
MOST_CHARACTERS = 2900
"""The body of a search may have 3,000 characters."""
MOST_RESULTS = 200

I = TypeVar("I")  # noqa: E741 - an input
A = TypeVar("A")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Written:
    """HubSpot's word that an input was taken."""

    id: str


class Api:
    """The calls of one account. Raises nothing but DeliveryErrors."""

    def __init__(self, client: Client, clock: Callable[[], float], calls_per_10s: float) -> None:
        self._client = client
        self._clock = clock
        self._search_cost = max(ceil(calls_per_10s / 10 / SEARCHES), 1)

    async def now(self) -> float:
        """HubSpot's time: what it dates its records with. Asks for it where HubSpot has not said anything yet."""
        if not self._client.has_heard:
            await self._client.call("GET", ACCOUNT)
        return self._client.now()

    async def ask(self, method: str, path: str, json: Any = None) -> dict[str, Any]:
        """One call, answered with its JSON object. Raises what the answer means otherwise."""
        answer = await self._client.call(method, path, json=json)
        if not answer.is_success:
            raise error_from(answer, self._clock())
        if answer.status == 204:
            return {}
        body = answer.json()
        if not isinstance(body, dict):
            raise Broken(f"HubSpot answered {answer.status} with something that is not JSON", status=answer.status)
        return body

    async def read(
        self,
        ids: Sequence[str],
        properties: Sequence[str],
        id_property: str | None = None,
        *,
        archived: bool = False,
    ) -> dict[str, Sequence[Record] | DeliveryError]:
        """The records that these ids lead to; HubSpot leaves out those that are not there.

        With `archived` only those that were deleted, and can still be restored.
        """
        path = f"{CONTACTS}/batch/read" + ("?archived=true" if archived else "")

        async def send(some: Sequence[str]) -> dict[str, Sequence[Record] | DeliveryError]:
            body: dict[str, Any] = {"inputs": [{"id": id_} for id_ in some], "properties": list(properties)}
            if id_property:
                body["idProperty"] = id_property
            found = _records(await self.ask("POST", path, body))
            return dict.fromkeys(some, found)

        answers: dict[str, Sequence[Record] | DeliveryError] = {}
        ids = list(dict.fromkeys(ids))
        for start in range(0, len(ids), MOST):
            answers |= await each(send, ids[start : start + MOST], key=str)
        return answers

    async def search(self, path: str, name: str, value: str, properties: Sequence[str], created: str) -> list[Record]:
        """The newest records with this value, by `created`. The index lags behind: seconds, sometimes a minute.

        developers.hubspot.com/docs/api-reference/latest/crm/search-the-crm
        """
        wanted = {"propertyName": name, "operator": "EQ", "value": value}
        body = {
            "filterGroups": [{"filters": [wanted]}],
            "properties": list(properties),
            "sorts": [{"propertyName": created, "direction": "DESCENDING"}],
            "limit": MOST,
        }
        return _records(await self.ask("POST", f"{path}/search", body))

    async def find(self, names: Sequence[str], values: Sequence[str], properties: Sequence[str]) -> list[Record]:
        """The contacts that have one of these values in one of these properties. The index lags behind.

        A search takes as many places of the pace as make it five a second at most, whoever else calls meanwhile.
        """
        found: list[Record] = []
        for some in _searchable([value.lower() for value in values], len(names), len("".join(properties))):
            body = {
                "filterGroups": [
                    {"filters": [{"propertyName": name, "operator": "IN", "values": some}]} for name in names
                ],
                "properties": list(properties),
                "limit": MOST_RESULTS,
            }
            for _ in range(self._search_cost - 1):
                await self._client.gate()
            found += _records(await self.ask("POST", f"{CONTACTS}/search", body))
        return found

    async def write(self, action: str, writes: Sequence[Write]) -> dict[str, Written | DeliveryError]:
        """Create, upsert or update up to a hundred contacts. Every one of them has its own answer, by trace."""

        failed_inside: set[str] = set()

        async def send(some: Sequence[Write]) -> dict[str, Written | DeliveryError]:
            try:
                return await send_once(some)
            except Broken:
                failed_inside.update(map(_trace, some))
                raise

        async def send_once(some: Sequence[Write]) -> dict[str, Written | DeliveryError]:
            inputs = [_input(action, write) for write in some]
            body = await self.ask("POST", f"{CONTACTS}/batch/{action}", {"inputs": inputs})
            answers, unnamed = accounted(some, body)
            left = [write for write in some if write.trace not in answers]
            if not answers and (unnamed or action != "update" or "results" not in body):
                raise unnamed or Broken("HubSpot took the call and wrote nothing", status=200)
            if unnamed and left:
                return answers | await each(send, left, key=_trace)
            silent = Unmentioned("HubSpot's answer did not mention it", status=200)
            return answers | {write.trace: silent for write in left}

        if not writes:
            return {}
        answers = await each(send, writes, key=_trace)
        for trace in failed_inside:
            if isinstance(answer := answers[trace], Exists):
                answer.may_be_our_own = True
        return answers


async def each(
    send: Callable[[Sequence[I]], Awaitable[dict[K, A | DeliveryError]]], inputs: Sequence[I], *, key: Callable[[I], K]
) -> dict[K, A | DeliveryError]:
    """Send the inputs together; where one of them may have sunk the call, send the halves."""
    try:
        return await send(inputs)
    except DeliveryError as error:
        if len(inputs) == 1 or not _may_be_one_of_them(error):
            return dict.fromkeys(map(key, inputs), error)
    middle = len(inputs) // 2
    first = await each(send, inputs[:middle], key=key)
    if blocked := _blocked(list(first.values())):
        return first | dict.fromkeys(map(key, inputs[middle:]), blocked)
    return first | await each(send, inputs[middle:], key=key)


def _may_be_one_of_them(error: DeliveryError) -> bool:
    return isinstance(error, Refused | NotThere | Exists | Broken) or error.status == 409


def _blocked(answers: Sequence[object]) -> DeliveryError | None:
    """The error that stands in everybody's way. Two out of two failing inside means HubSpot, not the contacts."""
    for answer in answers:
        if isinstance(answer, EVERYBODY):
            return answer
    if len(answers) > 1 and all(isinstance(answer, Broken) for answer in answers):
        return answers[0] if isinstance(answers[0], Broken) else None
    return None


def accounted(
    writes: Sequence[Write], body: Mapping[str, Any]
) -> tuple[dict[str, Written | DeliveryError], DeliveryError | None]:
    """Which input got which answer; and an error that names no input, if there is one.

    A 200 can hold errors, and a 2xx can hold nothing at all. Errors name their inputs by trace; results carry the
    trace only in newer versions, so they are known by id, else by the key that they were sent under.
    """
    answers: dict[str, Written | DeliveryError] = {}
    unnamed: DeliveryError | None = None
    for entry in entries(body, "errors"):
        traces, ids = traces_in(entry), ids_in(entry)
        about = [write for write in writes if write.trace in traces or (not traces and write.id.lower() in ids)]
        if not about:
            unnamed = refusal(entry)
        answers |= {write.trace: refusal(entry) for write in about}
    for result in entries(body, "results"):
        if (write := _addressed(writes, answers, result)) and isinstance(result.get("id"), str):
            answers[write.trace] = Written(result["id"])
    return answers, unnamed


def _addressed(writes: Sequence[Write], answered: Mapping[str, object], result: Mapping[str, Any]) -> Write | None:
    left = [write for write in writes if write.trace not in answered]
    keys = {name: _record(result).keys(name) for name in {write.id_property for write in left}}
    for write in left:
        if result.get("objectWriteTraceId") == write.trace or write.id.lower() in keys[write.id_property]:
            return write
    return left[0] if len(writes) == 1 and left else None


def _searchable(values: Sequence[str], times: int, used: int) -> Iterator[list[str]]:
    """The values in parts of which each makes a body that is short enough, where each value stands so many times."""
    room = MOST_CHARACTERS - used - 300
    part: list[str] = []
    size = 0
    for value in values:
        takes = times * (len(json.dumps(value)) + 1)
        if part and (size + takes > room or len(part) == MOST):
            yield part
            part, size = [], 0
        part.append(value)
        size += takes
    if part:
        yield part


def _input(action: str, write: Write) -> dict[str, Any]:
    sent = {"properties": dict(write.properties), "objectWriteTraceId": write.trace}
    if action == "create":
        return {**sent, "properties": {**write.properties, str(write.id_property): write.id}}
    return {**sent, "id": write.id, **({"idProperty": write.id_property} if write.id_property else {})}


def _trace(write: Write) -> str:
    return write.trace


def _records(body: Mapping[str, Any]) -> list[Record]:
    if not isinstance(body.get("results"), list):
        raise Broken("HubSpot answered a question without results", status=200)
    return [_record(result) for result in entries(body, "results")]


def _record(result: Mapping[str, Any]) -> Record:
    said = result.get("properties")
    known = said if isinstance(said, dict) else {}
    return Record(str(result.get("id", "")), {name: str(value) for name, value in known.items() if value is not None})
