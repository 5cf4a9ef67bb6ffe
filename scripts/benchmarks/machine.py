"""What the figures were measured on."""

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]


def described() -> dict[str, Any]:
    """The machine, as far as it shows; `load` is what else was running before anything was measured."""
    return {
        "cpu": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "fsync_ms": round(_fsync_ms(), 3),
        "load": round(os.getloadavg()[0], 2),
    }


def told(machine: dict[str, Any]) -> str:
    """The machine in two lines."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}, {machine['system']}; "
        f"Python {machine['python']}, SQLite {machine['sqlite']}\n"
        f"a write with fsync takes {machine['fsync_ms']} ms; load before the run {machine['load']}\n"
    )


def _line(file: str, name: str) -> str | None:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _fsync_ms() -> float:
    """Milliseconds that 4 KiB take to be safe where temporary files are, which is where the ledgers will be."""
    taken = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(50):
            begun = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000
