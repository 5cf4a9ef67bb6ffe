"""The benchmark runs and prints what it measured. The figures are nobody's business here: they belong to a machine."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent / "scripts" / "bench"


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH), *options], capture_output=True, text=True, timeout=120)


def test_a_section_can_be_measured_alone(tmp_path: Path) -> None:
    done = bench("--quick", "--only", "growth", "--json", str(tmp_path / "figures.json"))

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "Python" in lines[0]
    assert any(line.startswith("| growth ") and "claim 100, 500 visitors" in line for line in lines)
    said = json.loads((tmp_path / "figures.json").read_text())
    assert said["machine"]["cores"] >= 1
    assert {figure["section"] for figure in said["figures"]} == {"growth"}
    assert all(figure["least"] <= figure["median"] <= figure["most"] for figure in said["figures"])


def test_a_ledger_in_which_all_has_arrived_is_verified_and_pruned() -> None:
    done = bench("--quick", "--only", "large")

    assert done.returncode == 0, done.stderr
    measured = [line.split("|")[2].strip() for line in done.stdout.splitlines() if line.startswith("| 3,000 contacts")]
    assert {"verify all 3,000, as fast as it is answered", "prune the payloads of 3,000 webhooks"} < set(measured)


def test_a_section_that_is_none_is_refused() -> None:
    done = bench("--only", "growth,speed")

    assert done.returncode == 2
    assert "speed: none of accept, latency" in done.stderr
