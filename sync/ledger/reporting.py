"""What a person wants to know of the ledger, as plain values: times are ISO 8601, spans are seconds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sync.ledger import Ledger
from sync.ledger.pruning import sizes
from sync.ledger.settling import lane_of
from sync.ledger.showing import NOT_CONFIGURED, chat_called, followup_of, iso, show
from sync.models import MAIL, EventState, Kind, State

__all__ = [
    "NOT_CONFIGURED",
    "chat_called",
    "contacts",
    "duplicates",
    "followup_of",
    "iso",
    "show",
    "status",
    "suppressions",
    "unknown_mails",
]

FAILURES = 5
UNREADABLE = 5
SUPPRESSIONS = 5
PAIRS = 100


def status(ledger: Ledger) -> dict[str, Any]:
    """How everything stands. Other programs rely on the first five keys; the others are for people."""
    rows = ledger.engine.rows
    events = {row["state"]: row for row in rows("event_states")}
    return {
        "ledger": {"engine": ledger.engine.name, "schema": ledger.engine.schema, "bytes": ledger.engine.bytes}
        | {"sizes": _sizes(ledger)},
        "events": {str(state): events[state]["n"] if state in events else 0 for state in EventState},
        "contacts": rows("count_contacts")[0]["n"],
        "destinations": _destinations(ledger),
        "alarms": [{"key": r["key"], "text": r["text"], "since": iso(r["raised_at"])} for r in rows("open_alarms")],
        "redelivered": sum(row["copies"] for row in events.values()),
        "rejected": {
            row["name"].removeprefix("rejected_"): {"n": row["n"], "last": iso(row["at"])}
            for row in rows("counters")
            if row["name"].startswith("rejected_")
        },
        "unreadable": [
            {"id": row["id"], "source": row["source"], "received_at": iso(row["received_at"]), "error": row["error"]}
            for row in rows("newest_unreadable")[:UNREADABLE]
        ],
        "dead": [
            {**_cause(row), "first_at": iso(row["first_at"]), "example": row["example"]}
            for row in _configured(ledger, rows("dead_causes"))
        ],
        "ignored": [_cause(row) for row in _configured(ledger, rows("ignored_causes"))],
        "unknown": unknown_mails(ledger),
        "strays": {row["destination"]: row["n"] for row in rows("count_strays")},
        "joins": {row["state"]: row["n"] for row in rows("join_states")},
    }


def unknown_mails(ledger: Ledger) -> list[dict[str, Any]]:
    """The mails of which nobody knows whether they went out, the oldest first. None that is being sent right now."""
    return [
        {name: row[name] for name in ("source", "chat", "mailer")}
        | {"id": row["subject"], "begun_at": iso(row["begun_at"]), "reason": row["error"]}
        for row in ledger.engine.rows("unknown_mails")
    ]


def suppressions(ledger: Ledger) -> dict[str, Any]:
    """How many addresses get no mail, by reason, and the newest. Whose they are is not known: they are keyed hashes."""
    rows = ledger.engine.rows
    return {
        "reasons": {row["reason"]: row["n"] for row in rows("count_suppressions")},
        "newest": [{"reason": r["reason"], "at": iso(r["at"])} for r in rows("suppressions", limit=SUPPRESSIONS)],
    }


def _sizes(ledger: Ledger) -> dict[str, Any] | None:
    """What the last walk of pruning has measured, so that nothing has to be added up now."""
    found = sizes(ledger.engine)
    return None if found is None else {**found, "at": iso(found["at"])}


def _configured(ledger: Ledger, rows: Iterable[Any]) -> list[Any]:
    return [row for row in rows if row["destination"] in ledger.takers]


def _cause(row: Any) -> dict[str, Any]:
    return {"destination": row["destination"], "kind": row["kind"], "reason": row["error"], "n": row["n"]}


def _destinations(ledger: Ledger) -> dict[str, Any]:
    rows = ledger.engine.rows
    lanes = {row["name"]: lane_of(row) for row in rows("load_destinations")}
    waiting = {row["destination"]: row for row in rows("waiting")}
    now = ledger.engine.now
    states: dict[str, dict[str, dict[str, int]]] = {}
    for row in rows("delivery_states"):
        states.setdefault(row["destination"], {}).setdefault(row["kind"], {})[row["state"]] = row["n"]
    sending = rows("sending_mails", destination=MAIL)[0]["n"]
    if sending:
        states[MAIL][Kind.EMAIL] = _as_waiting(states[MAIL][Kind.EMAIL], sending)
    later: dict[str, dict[str, int]] = {}
    for row in rows("waiting_kinds"):
        later.setdefault(row["destination"], {})[row["kind"]] = row["later"]
    found = {}
    for name in [*ledger.takers, *sorted({*lanes, *states} - set(ledger.takers))]:
        if name not in ledger.takers:
            found[name] = _former(ledger, name, states.get(name, {}))
            continue
        lane, owed = lanes.get(name), waiting.get(name)
        is_paused = lane is not None and lane.is_paused
        found[name] = {
            "configured": True,
            "deliveries": states.get(name, {}),
            "in_flight": (owed["in_flight"] if owed else 0) + (sending if name == MAIL else 0),
            "oldest_waiting_s": max(round(now - owed["oldest"], 1), 0.0) if owed and owed["oldest"] else None,
            "paused_until": iso(lane.paused_until) if lane else None,
            "reason": lane.reason if lane and is_paused else None,
            "failures": _failures(ledger, name),
            "status": lane.status if lane and is_paused else None,
            "paused_since": iso(lane.paused_at) if lane and is_paused else None,
            "needs_person": bool(lane and is_paused and lane.needs_person),
            "later": {kind: n for kind, n in later.get(name, {}).items() if n},
        }
    return found


def _as_waiting(states: dict[str, int], sending: int) -> dict[str, int]:
    """Mails that are being sent stand as unknown, lest we end meanwhile. For a person they are on their way."""
    counts = Counter(states)
    counts[State.UNKNOWN] -= sending
    counts[State.PENDING] += sending
    return {str(state): n for state, n in counts.items() if n}


def _former(ledger: Ledger, name: str, states: dict[str, dict[str, int]]) -> dict[str, Any]:
    """A destination that was served once: what it was still owed is owed to nobody."""
    renamed = {
        kind: {NOT_CONFIGURED if state == State.PENDING else state: n for state, n in counts.items()}
        for kind, counts in states.items()
    }
    return {
        "configured": False,
        "deliveries": renamed,
        "in_flight": 0,
        "oldest_waiting_s": None,
        "paused_until": None,
        "reason": NOT_CONFIGURED,
        "failures": _failures(ledger, name),
        "status": None,
        "paused_since": None,
        "needs_person": False,
        "later": {},
    }


def _failures(ledger: Ledger, destination: str) -> list[dict[str, Any]]:
    rows = ledger.engine.rows("failures_at", destination=destination, limit=FAILURES)
    kept = ("kind", "subject", "outcome", "status", "error", "delivery")
    return [{"at": iso(row["at"]), **{name: row[name] for name in kept}} for row in rows]


def contacts(ledger: Ledger, query: str, limit: int) -> list[dict[str, Any]]:
    """The people whose name, email or phone holds the query, the newest first; without a query everybody."""
    wanted = query.strip()
    digits = "".join(c for c in wanted if c.isdigit())
    is_number = len(digits) >= 3 and not set(wanted) - set("0123456789 +-/().")
    like = f"%{digits if is_number else wanted}%" if wanted else "%"
    rows = ledger.engine.rows("find_contacts", like=like, exact=wanted, limit=limit)
    stand: dict[str, dict[str, str]] = {}
    for row in ledger.engine.rows("standings", rows=[{"id": row["id"]} for row in rows]):
        is_former = row["state"] == State.PENDING and row["destination"] not in ledger.takers
        stand.setdefault(row["subject"], {})[row["destination"]] = NOT_CONFIGURED if is_former else row["state"]
    return [
        {
            "id": row["id"],
            "name": row["name"],
            "email": row["email"],
            "phone": row["phone"],
            "version": row["version"],
            "created_at": iso(row["created_at"]),
            "updated_at": iso(row["updated_at"]),
            "destinations": stand.get(row["id"], {}),
        }
        for row in rows
    ]


def duplicates(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """What was joined, what may be one person, and what is one person twice in a destination.

    `possible`: pairs that nothing was done about. `joined`: pairs that count as one person, `loser` into `winner`.
    `shared`: a phone or visitor id that leads to several people. `strays`: second records, for a person to merge there.
    """
    rows = ledger.engine.rows
    joins = rows("joins_of", limit=PAIRS)
    apart = {frozenset((row["loser"], row["winner"])) for row in [*rows("undone_joins"), *joins]}
    shared = [
        row
        for row in rows("shared_identities", limit=PAIRS)
        if row["n"] > 2 or frozenset((row["one"], row["another"])) not in apart
    ]
    strays = rows("list_strays", limit=PAIRS)
    people = _people(
        ledger,
        [
            *(r[end] for r in joins for end in ("loser", "winner")),
            *(r[end] for r in shared for end in ("one", "another")),
            *(r["contact"] for r in strays),
        ],
    )
    pairs = [
        {"state": r["state"], "reason": r["reason"], "at": iso(r["at"])}
        | {"loser": people[r["loser"]], "winner": people[r["winner"]]}
        for r in joins
    ]
    return {
        "possible": [pair for pair in pairs if pair["state"] == "possible"],
        "joined": [pair for pair in pairs if pair["state"] == "joined"],
        "shared": [
            {"kind": r["kind"], "value": r["value"], "n": r["n"], "contacts": [people[r["one"]], people[r["another"]]]}
            for r in shared
        ],
        "strays": [
            {
                "destination": r["destination"],
                "remote_id": r["remote_id"],
                "at": iso(r["at"]),
                "contact": people[r["contact"]],
            }
            for r in strays
        ],
    }


def _people(ledger: Ledger, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = ledger.engine.rows("claimed_contacts", rows=[{"id": contact} for contact in sorted(set(ids))])
    return {row["id"]: {name: row[name] for name in ("id", "name", "email", "phone")} for row in rows}
