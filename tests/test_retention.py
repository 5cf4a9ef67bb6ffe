"""Retention in the running service and on the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from sync.cli import main
from sync.errors import SettingsError
from sync.ledger.pruning import DAY, PAGE, Limits, sizes
from sync.ledger.sqlite import SqliteEngine
from sync.retention import RetentionSettings, tend
from sync.settings import load
from tests.databases import Server, select
from tests.processes import TOKEN, Stage, get
from tests.running import running, start


def test_the_settings_are_in_days_and_empty_means_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(RetentionSettings).limits.payloads == 90 * DAY
    monkeypatch.setenv("SYNC_KEEP_PAYLOADS", "")
    monkeypatch.setenv("SYNC_KEEP_TRANSCRIPTS", "0.5")
    monkeypatch.setenv("SYNC_KEEP_BYTES", "")

    assert load(RetentionSettings).limits == Limits(None, 365 * DAY, DAY / 2, 90 * DAY, 90 * DAY, None)
    monkeypatch.setenv("SYNC_KEEP_MAILS", "-1")
    with pytest.raises(SettingsError, match="SYNC_KEEP_MAILS"):
        load(RetentionSettings)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_the_service_prunes_by_itself_and_status_says_what_is_kept(
    engine: str, tmp_path: Path, server: Server
) -> None:
    database = server.database() if engine == "postgresql" else None
    async with running(tmp_path, database=database) as service:
        await service.post(start(1))
        await service.drain()
        await tend(service.service.writer, Limits(payloads=DAY))
        assert select(service.ledger, "SELECT payload FROM events") != [{"payload": ""}]
        service.clock.now += 2 * DAY
        await tend(service.service.writer, Limits(payloads=DAY))

        assert select(service.ledger, "SELECT payload FROM events") == [{"payload": ""}]
        measured = sizes(service.ledger.engine)
        assert measured is not None
        assert measured["payloads"] == {"rows": 0, "size": 0}
        again = await service.post(start(1))
        assert again.json()["status"] == "duplicate"


def test_prune_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_LEDGER", f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    SqliteEngine(tmp_path / "ledger.sqlite3", clock=time.time).migrate()
    run = CliRunner().invoke
    stage = Stage(tmp_path)
    stage.settings["SYNC_KEEP_PAYLOADS"] = "0"
    _fill(tmp_path, 5)
    monkeypatch.setenv("SYNC_KEEP_PAYLOADS", "0")

    dry = run(main, ["prune", "--dry-run"])
    assert "Would be pruned: 5 payloads" in dry.stdout
    done = json.loads(run(main, ["prune", "--json", "--rewrite"]).stdout)
    assert done["pruned"]["payloads"]["rows"] == 5
    assert "Nothing is old enough" in run(main, ["prune"]).stdout
    status = json.loads(run(main, ["status", "--json"]).stdout)
    assert status["ledger"]["sizes"]["payloads"]["rows"] == 0


FILL = """
import sys, time
from dataclasses import replace
from pathlib import Path
from sync.ids import new_id
from sync.ledger import Ledger
from sync.ledger.sqlite import SqliteEngine
from tests.people import event
engine = SqliteEngine(Path(sys.argv[1]) / "ledger.sqlite3", clock=time.time)
engine.migrate()
ledger = Ledger(engine, {}, new_id=new_id)
with ledger.transaction():
    ledger.apply([
        replace(event(f"v1:{n}", f"n{n}@example.com"), id=new_id("ev", n), received_at=float(n), payload="x" * 2000)
        for n in range(int(sys.argv[2]))
    ])
engine.close()
"""


def _fill(folder: Path, n: int) -> None:
    """Old webhooks, by a process of its own: it leaves no connection open here."""
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", FILL, str(folder), str(n)], check=True, env=environment, cwd=root)


def test_a_prune_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.settings |= {"SYNC_KEEP_PAYLOADS": "0", "SYNC_KEEP_BYTES": ""}
    _fill(tmp_path, 20_000)
    engine = SqliteEngine(tmp_path / "ledger.sqlite3", clock=time.time)

    def left() -> int:
        return int(engine.read("SELECT COUNT(*) AS n FROM events WHERE payload <> ''")[0]["n"])

    process = stage.start("prune")
    stage.until(lambda: left() < 20_000, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    seen = left()
    assert 0 < seen < 20_000
    assert seen % PAGE == 0

    assert stage.command("prune").returncode == 0
    assert left() == 0
    assert stage.command("ledger", "check").returncode == 0
    engine.close()


def test_pruning_does_not_hold_up_webhooks(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.settings |= {"SYNC_KEEP_PAYLOADS": "0", "SYNC_DESTINATIONS": "hubspot"}
    _fill(tmp_path, 10_000)
    stage.serve()
    try:
        slowest, end = 0.0, time.monotonic() + 8
        for n in range(10_000):
            begun = time.monotonic()
            assert get(f"{stage.url}/webhooks/acquire/{TOKEN}", method="POST", body=start(n))[0] == 200
            slowest = max(slowest, time.monotonic() - begun)
            if time.monotonic() > end:
                break
            time.sleep(0.01)
        engine = SqliteEngine(tmp_path / "ledger.sqlite3", clock=time.time)
        pruned = engine.read("SELECT COUNT(*) AS n FROM events WHERE payload = ''")[0]["n"]
        engine.close()
    finally:
        stage.close()

    assert pruned >= 2_000
    assert slowest < 5.0  # a step takes some ms: this is for a machine that does much else
