"""The pages for a person: who is in the CRM, what is known of them, and how to make it misbehave."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from sync.sandbox import control
from sync.sandbox.gate import Gate
from sync.sandbox.properties import CONTACTS, STANDARD
from sync.sandbox.store import Record

HERE = Path(__file__).parent
PER_PAGE = 50
UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


@dataclass(frozen=True, slots=True)
class Row:
    """One contact in the list."""

    contact: Record
    notes: int


Page = Callable[..., Response]
"""Makes a page: the name of its template, the status, what it shows."""


def pages_of(gate: Gate) -> Page:
    """What makes the pages of one sandbox."""
    environment = _environment(gate.clock)

    def page(name: str, status: int = 200, **shown: Any) -> Response:
        shown |= {"misbehaves": control.is_misbehaving(gate), "now": gate.clock()}
        return HTMLResponse(environment.get_template(name).render(shown), status)

    return page


def routes(gate: Gate) -> list[BaseRoute]:
    """GET /, /contacts/{id}, /_misbehave and /_static/…"""
    page = pages_of(gate)

    async def contacts(request: Request) -> Response:
        wanted, is_live = request.query_params.get("q", "").strip(), request.query_params.get("live") != "off"
        number = page_number(request)
        count, found = gate.store.matching(wanted, limit=PER_PAGE, offset=(number - 1) * PER_PAGE)
        counts = gate.store.note_counts(contact.id for contact in found)
        rows = [Row(contact, counts.get(contact.id, 0)) for contact in found]
        pages = max(-(-count // PER_PAGE), 1)
        links = {
            "older": _link(q=wanted, page=number + 1) if number < pages else None,
            "newer": _link(q=wanted, page=number - 1) if number > 1 else None,
            "live": _link(q=wanted, page=number, live="off" if is_live else ""),
        }
        return page(
            "contacts.html",
            rows=rows,
            count=count,
            wanted=wanted,
            is_live=is_live,
            links=links,
            pages=pages,
            number=number,
        )

    async def contact(request: Request) -> Response:
        found = gate.store.one(CONTACTS, request.path_params["id"])
        if found is None:
            return page("missing.html", 404)
        return page("contact.html", contact=found, known=_known(gate, found), notes=gate.store.notes_of(found.id))

    async def misbehave(_request: Request) -> Response:
        return page("misbehave.html", told=control.described(gate))

    return [
        Route("/", contacts),
        Route("/contacts/{id:int}", contact),
        Route("/_misbehave", misbehave),
        Mount("/_static", StaticFiles(directory=HERE / "static")),
    ]


def name_of(contact: Record) -> str:
    """What to call a contact."""
    said = contact.properties
    full = " ".join(filter(None, (said.get("firstname"), said.get("lastname"))))
    return full or said.get("email") or said.get("phone") or f"Contact {contact.id}"


def ago(at: float, now: float) -> str:
    """How long ago, in one word or two."""
    passed = max(now - at, 0.0)
    for seconds, unit in UNITS:
        if passed >= seconds:
            count = int(passed // seconds)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def plain(html: str) -> str:
    """The text of a note's HTML. Only for reading: it is escaped again where it is shown."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.said).splitlines())
    return "\n".join(lines).strip()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the parser calls it so
        if tag == "br":
            self.said.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "div", "li", "tr", "h1", "h2", "h3", "ul", "ol"):
            self.said.append("\n")


def _environment(clock: Callable[[], float]) -> Environment:
    environment = Environment(
        loader=PackageLoader("sync.sandbox"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[[Any], str]] = {
        "ago": lambda at: ago(at, clock()),
        "iso": lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "utc": lambda at: datetime.fromtimestamp(at, UTC).strftime("%d %b %Y, %H:%M:%S UTC"),
        "name": name_of,
        "plain": plain,
    }
    environment.filters |= filters
    return environment


def _known(gate: Gate, contact: Record) -> list[tuple[str, str, str, float]]:
    """Every property that is set: its label, its name, its value, and since when; the usual ones first."""
    order = {name: place for place, name in enumerate(STANDARD[CONTACTS])}
    definitions = gate.store.definitions[CONTACTS]
    names = sorted(contact.properties, key=lambda name: (order.get(name, len(order)), name))
    return [(definitions[name].label, name, contact.properties[name], contact.changed[name]) for name in names]


def page_number(request: Request) -> int:
    """Which page of a list is asked for; the first where that makes no sense."""
    said = request.query_params.get("page", "1")
    return max(int(said), 1) if said.isascii() and said.isdigit() and len(said) < 7 else 1


def _link(**said: str | int) -> str:
    asked = {name: value for name, value in said.items() if value and (name, value) != ("page", 1)}
    return f"/?{urlencode(asked)}" if asked else "/"
