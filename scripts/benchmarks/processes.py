"""Starts what is measured, each in a process of its own, and ends it again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

SCRIPTS = Path(__file__).resolve().parent.parent
OURS = ("SYNC_", "ACQUIRE_", "HUBSPOT_", "WEBHOOK_", "SANDBOX_")

UID_PROPERTY = {
    "name": "chat_crm_sync_uid",
    "label": "Chat contact id",
    "groupName": "contactinformation",
    "type": "string",
    "fieldType": "text",
    "hasUniqueValue": True,
}


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment without anybody's settings but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, "PYTHONPATH": str(SCRIPTS), "SYNC_LOG_LEVEL": "error", **settings}


def crm_sync(*arguments: str) -> list[str]:
    """A command of ours, by this Python."""
    return [sys.executable, "-m", "sync", *arguments]


def part(name: str, *arguments: str) -> list[str]:
    """A module of the benchmark as a program."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


@contextmanager
def running(command: Sequence[str], folder: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in its own folder; gives the process and the first line that it says: its address is in it."""
    with subprocess.Popen(
        command, cwd=folder, env=environment(settings), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process, _address(process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        for word in line.split():
            if word.startswith("http://"):
                return "/".join(word.split("/")[:3])
    raise RuntimeError("a process that was to be measured did not start")


def said_by(command: Sequence[str], folder: Path, spec: Mapping[str, Any]) -> Any:
    """Run something to its end that reads JSON and answers JSON."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment({}),
        input=json.dumps(spec),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    return json.loads(done.stdout)


def asked(url: str) -> Any:
    """The JSON at an address of ours."""
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server on loopback
        return json.load(answer)


def furnish(crm: str) -> None:
    """Give a sandbox the custom property that holds our uid, as a real CRM would get it once."""
    address = f"{crm}/crm/v3/properties/contacts"
    request = Request(address, json.dumps(UID_PROPERTY).encode(), {"Content-Type": "application/json"})  # noqa: S310
    urlopen(request, timeout=10).close()  # noqa: S310 - the sandbox on loopback


def memory_mb(process: subprocess.Popen[str], field: str = "VmRSS") -> float:
    """MiB that a process holds now (`VmRSS`) or held at most (`VmHWM`)."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
