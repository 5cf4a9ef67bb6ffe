"""Where concrete classes meet settings; keys, logs, ids."""

import asyncio
import logging
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from sync.errors import LedgerError, SettingsError
from sync.ids import new_id
from sync.logs import configure, escaped
from sync.secret import digest, key_beside
from sync.service import serve
from sync.settings import Settings, check_address, load
from sync.wiring import Service, build, destinations, ledger_file, secret_key, sources, takers
from tests.people import NOON


def test_a_key_is_made_once_into_a_private_file(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"

    first, second = key_beside(ledger), key_beside(ledger)

    assert first == second
    assert len(first) == 64
    assert stat.S_IMODE((tmp_path / "ledger.sqlite3.key").stat().st_mode) == 0o600


def test_a_key_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SYNC_SECRET_KEY"):
        key_beside(tmp_path / "nowhere" / "ledger.sqlite3")


def test_an_empty_key_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3.key").touch()

    with pytest.raises(SettingsError, match="is empty"):
        key_beside(tmp_path / "ledger.sqlite3")


def test_a_key_from_the_environment_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SYNC_SECRET_KEY", "c" * 40)

    assert secret_key(load(Settings)) == b"c" * 40
    assert list(tmp_path.iterdir()) == []


def test_another_key_gives_other_hashes() -> None:
    assert digest(b"one")(b"x") != digest(b"two")(b"x")
    assert digest(b"one")(b"x") == digest(b"one")(b"x")


def test_ids_sort_by_time() -> None:
    assert sorted([new_id("ev", NOON + 1), new_id("ev", NOON)])[0] < new_id("ev", NOON + 0.5)
    assert len({new_id("ev", NOON) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("name", ["hubspott", "HubSpot", "webhook2"])
def test_a_destination_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="SYNC_DESTINATIONS"):
        takers(Settings(destinations=(name,)))


def test_a_source_that_nobody_knows_is_refused() -> None:
    with pytest.raises(SettingsError, match="SYNC_SOURCES"):
        sources(Settings(sources=("intercom",)))


@pytest.mark.parametrize("ledger", ["sqlite:///", "postgres://x", "ledger.sqlite3", "sqlite://relative"])
def test_a_ledger_that_is_no_file_is_refused(ledger: str) -> None:
    with pytest.raises(SettingsError, match="SYNC_LEDGER"):
        ledger_file(Settings(ledger=ledger))


def test_a_ledger_path_can_be_absolute() -> None:
    assert ledger_file(Settings(ledger="sqlite:////var/x.sqlite3")) == Path("/var/x.sqlite3")


def test_secrets_can_be_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "hubspot_access_token").write_text("canary-from-a-file\n")
    monkeypatch.setenv("SYNC_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("SYNC_DESTINATIONS", "hubspot")

    (hubspot,) = destinations(load(Settings))

    assert hubspot.headers(hubspot.settings) == {"Authorization": "Bearer canary-from-a-file"}


def test_a_secrets_folder_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_SECRETS_DIR", "/nowhere")

    with pytest.raises(SettingsError, match="SYNC_SECRETS_DIR"):
        load(Settings)


CLEAR = [
    "http://crm.example.com",
    "http://127.evil.example",
    "http://127.0.0.1.evil.example",
    "ftp://127.0.0.1",
    "crm.example.com",
    "http://",
]


@pytest.mark.parametrize("address", CLEAR)
def test_an_address_in_the_clear_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"http"):
        check_address(address)


@pytest.mark.parametrize(
    "address",
    ["https://crm.example.com", "http://127.0.0.1:9", "http://127.9.9.9", "http://localhost", "http://[::1]:9"],
)
def test_an_address_over_tls_or_on_this_machine_is_fine(address: str) -> None:
    check_address(address)


@contextmanager
def logging_as(log_format: str) -> Iterator[None]:
    """Logging as the service sets it up."""
    before = logging.getLogger().handlers
    configure(log_format, "info")  # type: ignore[arg-type]
    try:
        yield
    finally:
        logging.getLogger().handlers = before
        structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_exception_is_logged_without_its_text(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    said_by_a_visitor = "-".join(["canary", "example"])
    with logging_as(log_format):
        try:
            raise KeyError(said_by_a_visitor)
        except KeyError:
            structlog.get_logger("sync.test").exception("it failed")
            logging.getLogger("other").error("theirs failed too", exc_info=sys.exc_info())

    printed = capsys.readouterr().err
    assert "it failed" in printed
    assert "theirs failed too" in printed
    assert "KeyError" in printed
    assert "test_wiring" in printed
    assert said_by_a_visitor not in printed


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_an_error_that_nobody_waits_for_is_logged_without_what_it_says(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said_by_a_visitor = "-".join(["canary", "example"])
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(escaped)

    def fail(row: str) -> None:
        raise KeyError(row)

    with logging_as(log_format):
        loop.call_soon(fail, said_by_a_visitor)
        loop.call_exception_handler({"message": said_by_a_visitor, "future": said_by_a_visitor})
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    printed = capsys.readouterr().err
    assert "KeyError" in printed
    assert "test_wiring" in printed
    assert said_by_a_visitor not in printed


async def test_a_service_whose_ledger_cannot_be_written_any_more_ends_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[Service] = []

    def noted(*given: Any, **more: Any) -> Service:
        built.append(build(*given, **more))
        return built[0]

    monkeypatch.setattr("sync.service.build", noted)
    monkeypatch.setattr("sync.service._tune", lambda: None)
    monkeypatch.setattr("sync.service.HOUSEKEEPING", 0.01)
    settings = Settings(ledger=f"sqlite:///{tmp_path / 'ledger.sqlite3'}", destinations=())

    async with asyncio.timeout(10):
        with pytest.raises(LedgerError, match="has ended"):
            await serve(settings, host="127.0.0.1", port=0, announce=lambda *_: built[0].writer.close())
