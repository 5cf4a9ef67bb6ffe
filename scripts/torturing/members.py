"""One process of the service: started, killed, frozen, started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
CRASHING = Path(__file__).resolve().parent / "crashing"
OURS = (
    *("SYNC_", "ACQUIRE_", "HUBSPOT_", "WEBHOOK_", "SANDBOX_", "TORTURE_"),
    *("FOLLOWUP_", "SMTP_", "RESEND_", "POSTMARK_"),
)


def environment(settings: Mapping[str, str], path: Path) -> dict[str, str]:
    """The environment without anybody's settings but these; a folder of ours comes first on Python's path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    inherited = os.environ.get("PYTHONPATH")
    return {**kept, "PYTHONPATH": os.pathsep.join([str(path), *filter(None, [inherited])]), **settings}


@dataclass
class Member:
    """A command that is to run all the time, under a name. What it says on stderr is kept in the folder."""

    name: str
    command: Sequence[str]
    folder: Path
    settings: Mapping[str, str]
    path: Path = CRASHING
    process: subprocess.Popen[bytes] | None = None
    endings: list[int] = field(default_factory=list)
    """How it ended by itself, each time: killing is not counted here."""
    is_armed: bool = False

    @property
    def errors(self) -> Path:
        """What it said."""
        return self.folder / f"{self.name}.stderr"

    @property
    def pid(self) -> int:
        """The process at present."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs; a frozen one does."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_frozen(self) -> bool:
        """Whether it was stopped and not continued."""
        stat = Path(f"/proc/{self.pid}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] in "Tt"

    def start(self, **armed: str) -> None:
        """Start it; with variables for the crash points where it is to die."""
        self.is_armed = bool(armed)
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=environment({**self.settings, **armed}, self.path),
                stderr=errors,
                stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        """Kill it without a word, and take its body away."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=20)

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def tend(self) -> None:
        """Start it again if it has ended by itself, as systemd would, and remember that it did."""
        if self.process is not None and (ended := self.process.poll()) is not None:
            if not self.is_armed:
                self.endings.append(ended)
            self.start()

    def end(self) -> int:
        """Ask it to end, kill it if it does not; returns how it ended."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            if self.is_frozen:
                self.thaw()
            self.process.terminate()
            try:
                return self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait(timeout=20)

    def said(self) -> str:
        """All that it said on stderr so far."""
        return self.errors.read_text(errors="replace") if self.errors.exists() else ""


def crm_sync(*arguments: str) -> list[str]:
    """A command of the service, by this Python."""
    return [sys.executable, "-m", "sync", *arguments]


def until(holds: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until something holds. Raises TimeoutError after so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
