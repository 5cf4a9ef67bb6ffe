"""What every test may rely on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Server, postgres

OURS = ("SYNC_", "ACQUIRE_", "FOLLOWUP_", "HUBSPOT_", "WEBHOOK_", "SANDBOX_", "SMTP_", "RESEND_", "BREVO_", "POSTMARK_")
"""What the names of our variables begin with."""


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A real PostgreSQL server, once for all tests."""
    with postgres() as started:
        yield started


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the settings of whoever runs it: neither variables nor a `.env` file."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=40, help="How many random days are played.")
    parser.addoption("--first-seed", type=int, default=1, help="The first of them.")
    parser.addoption("--fuzz", type=int, default=800, help="How many hostile webhooks are made.")
    parser.addoption("--contacts", type=int, default=1000, help="How many contacts are put into a CRM and verified.")
    parser.addoption("--fuzz-seed", type=int, default=1, help="What they are made from: the same again with the same.")
