"""The sandbox's own controls under /_…: for a person, a test or a benchmark. No fault ever touches them."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sync.sandbox.faults import Faults
from sync.sandbox.gate import Gate

LIMITS = ("limit", "search_limit")


def described(gate: Gate) -> dict[str, Any]:
    """How the sandbox is told to behave."""
    return {**gate.faults.described(), "limit": gate.limit.calls, "search_limit": gate.search_limit.calls}


def change(gate: Gate, wanted: Mapping[str, Any]) -> None:
    """Change some of it. Raises ValueError with a sentence."""
    limits = {name: _limit(name, wanted[name]) for name in LIMITS if name in wanted}
    gate.faults.change({name: value for name, value in wanted.items() if name not in LIMITS})
    gate.limit.calls = limits.get("limit", gate.limit.calls)
    gate.search_limit.calls = limits.get("search_limit", gate.search_limit.calls)


def reset(gate: Gate) -> None:
    """Behave, without any limit."""
    gate.faults.reset()
    gate.limit.calls = gate.search_limit.calls = None


def routes(gate: Gate) -> list[Route]:
    """GET, PUT, DELETE /_faults (JSON), POST /_faults (the form), GET and DELETE /_calls."""

    async def faults(request: Request) -> Response:
        try:
            if request.method == "PUT":
                change(gate, _object(await request.body()))
            elif request.method == "DELETE":
                reset(gate)
        except ValueError as error:
            return JSONResponse({"status": "error", "message": str(error)}, 400)
        return JSONResponse(described(gate))

    async def form(request: Request) -> Response:
        said = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))
        try:
            reset(gate) if "reset" in said else change(gate, from_form(said))
        except ValueError as error:
            return JSONResponse({"status": "error", "message": str(error)}, 400)
        return RedirectResponse("/_misbehave", 303)

    async def calls(request: Request) -> Response:
        if request.method == "DELETE":
            gate.calls.clear()
        return JSONResponse({"total": gate.calls.total, "calls": gate.calls.described()})

    return [
        Route("/_faults", form, methods=["POST"]),
        Route("/_faults", faults, methods=["GET", "PUT", "DELETE"]),
        Route("/_calls", calls, methods=["GET", "DELETE"]),
    ]


def from_form(said: Mapping[str, str]) -> dict[str, Any]:
    """What the form on the page means: shares in percent, an empty field is zero or none. Raises ValueError."""
    wanted: dict[str, Any] = {
        name: float(value or 0) / 100 for name, value in said.items() if name.startswith("share_")
    }
    wanted |= {name: float(said[name] or 0) for name in ("latency", "index_lag") if name in said}
    if "down" in said:
        wanted["down"] = said["down"] or None
    if "reject" in said:
        wanted["reject"] = said["reject"].split()
    if "limit" in said:
        wanted["limit"] = int(said["limit"]) if said["limit"] else None
    return wanted


def is_misbehaving(gate: Gate) -> bool:
    """Whether anything is other than usual."""
    usual = {**Faults().described(), "limit": None, "search_limit": None, "seed": gate.faults.seed}
    return described(gate) != usual


def _object(body: bytes) -> dict[str, Any]:
    said = json.loads(body)
    if not isinstance(said, dict):
        raise ValueError("the body must be a JSON object")
    return said


def _limit(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} must be null or a whole number of calls")
    return value
