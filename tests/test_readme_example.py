"""The adapter that the README shows is a whole adapter."""

import re
import types
from pathlib import Path

import httpx
import pytest

from sync.destinations.base import Destination
from sync.http import Client
from sync.models import Contact, Owed, Receipt
from sync.outcomes import Dead, Ignored, Paused, outcome_of

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Destination:
    monkeypatch.setenv("ACME_API_KEY", "canary")
    (text,) = re.findall(r"<!-- example: \S+ -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    module = types.ModuleType("acme")
    exec(compile(text, "README.md", "exec"), module.__dict__)
    settings = module.AcmeSettings()
    people: dict[str, dict[str, str]] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        email = request.url.path.removeprefix("/people/")
        if email.startswith("refused"):
            return httpx.Response(422)
        if email.startswith("down"):
            return httpx.Response(503)
        people[email] = {"id": f"a-{email}"}
        return httpx.Response(200, json=people[email])

    client = Client(
        settings.base_url, headers=module.Acme.headers(settings), transport=httpx.MockTransport(answer), blip=0
    )
    made: Destination = module.Acme("acme", settings, client, clock=lambda: 0.0)
    return made


def owed(email: str | None) -> Owed[Contact]:
    return Owed("de_1", Contact("co_1", "co_1", name="Ada", email=email, version=1), 1)


async def _nothing(_: object) -> None:
    return None


async def test_the_example_delivers_and_tells_whose_fault_it_is(acme: Destination) -> None:
    emails = ["ada@example.com", None, "refused@example.com", "down@example.com"]

    results = await acme.upsert([owed(email) for email in emails], _nothing)

    assert results[0] == Receipt("a-ada@example.com", ours=True)
    assert [type(outcome_of(result)) for result in results[1:]] == [Ignored, Dead, Paused]
    await acme.client.aclose()


def test_the_example_is_as_short_as_the_readme_says() -> None:
    (text,) = re.findall(r"```python\n(\"\"\"Acme.*?)```", README.read_text(), re.DOTALL)
    code = [line for line in text.splitlines() if line.strip() and not line.startswith(("from ", "import ", '"""'))]

    assert len(code) <= 40
