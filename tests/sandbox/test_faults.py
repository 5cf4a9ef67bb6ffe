"""The imitation on a bad day."""

import asyncio
import socket
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from sync.sandbox.faults import Faults, Scripted
from sync.sandbox.store import Store

UPSERT = "/crm/v3/objects/contacts/batch/upsert"


def inputs(*emails: str, **properties: str) -> dict[str, Any]:
    traced = ({"id": email, "idProperty": "email", "objectWriteTraceId": email} for email in emails)
    return {"inputs": [{**entry, "properties": properties} for entry in traced]}


async def upsert(crm: httpx.AsyncClient, *emails: str, **properties: str) -> httpx.Response:
    return await crm.post(UPSERT, json=inputs(*emails, **properties))


@pytest.mark.parametrize(
    ("fault", "status", "written"),
    [
        ({"share_429": 1.0}, 429, 0),
        ({"share_500": 1.0}, 500, 0),
        ({"share_500_after": 1.0}, 500, 1),
        ({"share_502": 1.0}, 502, 0),
        ({"share_503": 1.0}, 503, 0),
        ({"down": "503"}, 503, 0),
        ({"silent": True}, 200, 0),
    ],
)
async def test_a_fault_answers_and_writes_as_it_says(
    crm: httpx.AsyncClient, faults: Faults, store: Store, fault: dict[str, Any], status: int, written: int
) -> None:
    faults.change(fault)
    answer = await upsert(crm, "ada@example.com")

    assert (answer.status_code, len(store.contacts)) == (status, written)


async def test_silence_is_a_200_with_nothing_in_it(crm: httpx.AsyncClient, faults: Faults) -> None:
    faults.silent = True
    answer = (await upsert(crm, "ada@example.com")).json()

    assert (answer["status"], answer["results"], answer["errors"]) == ("COMPLETE", [], [])


async def test_a_seed_repeats_the_same_bad_luck(crm: httpx.AsyncClient, faults: Faults) -> None:
    runs = []
    for _ in range(2):
        faults.change({"share_500": 0.3, "share_429": 0.3, "seed": 7})
        runs.append([(await upsert(crm, "ada@example.com")).status_code for _ in range(20)])

    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 429, 500}


async def test_scripted_answers_come_first_and_in_order(crm: httpx.AsyncClient, faults: Faults) -> None:
    faults.answer_next = [Scripted(423, {"message": "locked"}), None, Scripted(502, "<html>", {"Retry-After": "7"})]
    answers = [await upsert(crm, "ada@example.com") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [423, 200, 502, 200]
    assert answers[0].json() == {"message": "locked"}
    assert (answers[2].text, answers[2].headers["Retry-After"]) == ("<html>", "7")


async def test_made_up_refusals_can_say_how_long_to_wait(crm: httpx.AsyncClient, faults: Faults) -> None:
    faults.change({"share_429": 1, "retry_after": 3})
    answer = await upsert(crm, "ada@example.com")

    assert answer.headers["Retry-After"] == "3"


async def test_a_poisonous_email_is_refused_alone(crm: httpx.AsyncClient, faults: Faults, store: Store) -> None:
    faults.reject = {"Ada@Example.com"}
    answer = await upsert(crm, "ada@example.com", "grace@example.com")

    assert answer.status_code == 207
    assert answer.json()["errors"][0]["context"]["objectWriteTraceId"] == ["ada@example.com"]
    assert [contact.properties["email"] for contact in store.contacts] == ["grace@example.com"]


async def test_a_poisonous_subject_can_take_its_batch_down(
    crm: httpx.AsyncClient, faults: Faults, store: Store
) -> None:
    faults.reject, faults.reject_status = {"ada@example.com"}, 500
    together = await upsert(crm, "ada@example.com", "grace@example.com")
    alone = await upsert(crm, "grace@example.com")

    assert (together.status_code, alone.status_code) == (500, 200)


async def test_a_predicate_refuses_by_any_property_and_names_it(crm: httpx.AsyncClient, faults: Faults) -> None:
    faults.reject, faults.reject_names = lambda properties: "phone" in properties, "phone"
    refused = await upsert(crm, "ada@example.com", phone="1")
    taken = await upsert(crm, "ada@example.com")

    assert '"name":"phone"' in refused.json()["errors"][0]["message"]
    assert taken.status_code == 200


async def test_results_can_come_in_another_order(crm: httpx.AsyncClient, faults: Faults) -> None:
    faults.shuffled = True
    emails = [f"p{place}@example.com" for place in range(20)]
    traces = [result["objectWriteTraceId"] for result in (await upsert(crm, *emails)).json()["results"]]

    assert traces != emails
    assert sorted(traces) == sorted(emails)


async def test_search_stays_behind(crm: httpx.AsyncClient, faults: Faults, clock: Any) -> None:
    faults.index_lag = 30
    by_phone = {"filterGroups": [{"filters": [{"propertyName": "phone", "operator": "EQ", "value": "2"}]}]}

    async def found() -> int:
        answer = await crm.post("/crm/v3/objects/contacts/search", json=by_phone)
        return int(answer.json()["total"])

    await upsert(crm, "ada@example.com", phone="2")
    at_once = await found()
    clock.now += 31
    later = await found()
    await upsert(crm, "ada@example.com", phone="3")
    await upsert(crm, "ada@example.com", phone="2")

    assert (at_once, later, await found()) == (0, 1, 0)


async def test_the_write_has_happened_when_the_answer_is_still_on_its_way(
    crm: httpx.AsyncClient, faults: Faults, store: Store
) -> None:
    seen = []

    async def sleep(seconds: float) -> None:
        seen.append((seconds, len(store.contacts)))

    faults.sleep, faults.latency = sleep, 20.0
    await upsert(crm, "ada@example.com")

    assert seen == [(20.0, 1)]


async def test_hanging_up_in_process_is_a_reset_connection(
    app: Starlette, crm: httpx.AsyncClient, faults: Faults
) -> None:
    faults.down = "close"

    with pytest.raises(ConnectionResetError):
        await upsert(crm, "ada@example.com")
    assert app.state.calls.answered(0) == 1


async def test_hanging_up_over_the_wire_closes_the_connection(app: Starlette, faults: Faults, store: Store) -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as crm:
                well = await upsert(crm, "ada@example.com")
                faults.down = "close"
                with pytest.raises(httpx.TransportError):
                    await upsert(crm, "grace@example.com")
                faults.down = None
                again = await upsert(crm, "ada@example.com")
        finally:
            server.should_exit = True
            await serving

    assert (well.status_code, again.status_code) == (200, 200)
    assert len(store.contacts) == 1


async def test_faults_are_told_read_and_reset_over_http_and_never_hit_the_controls(
    app: Starlette, crm: httpx.AsyncClient, faults: Faults
) -> None:
    told = {
        "down": "503",
        "share_500": 0.5,
        "reject": ["Ada@example.com"],
        "limit": 100,
        "answer_next": [{"status": 500}],
    }
    put = await crm.put("/_faults", json=told)
    down = await upsert(crm, "grace@example.com")
    read = (await crm.get("/_faults")).json()
    reset = (await crm.delete("/_faults")).json()

    assert (put.status_code, down.status_code) == (200, 503)
    assert (read["down"], read["reject"], read["limit"]) == ("503", ["ada@example.com"], 100)
    assert (reset["down"], reset["reject"], reset["limit"], reset["answer_next"]) == (None, [], None, [])
    assert app.state.calls.total == 1


@pytest.mark.parametrize(
    "told",
    [
        {"nonsense": 1},
        {"share_500": 2},
        {"share_500": "many"},
        {"latency": -1},
        {"down": "sideways"},
        {"silent": "yes"},
        {"reject": "ada@example.com"},
        {"answer_next": [{"status": "500"}]},
        {"limit": 0},
        {"seed": True},
        [],
    ],
)
async def test_a_fault_that_does_not_exist_is_refused_and_changes_nothing(
    crm: httpx.AsyncClient, faults: Faults, told: Any
) -> None:
    before = faults.described()
    answer = await crm.put("/_faults", json={"share_429": 0.5, **told} if isinstance(told, dict) else told)

    assert answer.status_code == 400
    assert answer.json()["message"]
    assert faults.described() == before


async def test_the_calls_can_be_read_and_counted_anew(crm: httpx.AsyncClient) -> None:
    await upsert(crm, "ada@example.com")
    counted = (await crm.get("/_calls")).json()
    cleared = (await crm.delete("/_calls")).json()

    assert counted == {"total": 1, "calls": {"POST contacts/batch/upsert": {"200": 1}}}
    assert cleared == {"total": 0, "calls": {}}
