"""File descriptors exhausted: the running service may open no more, and idle callers hold what there is."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from torturing.chance import chance
from torturing.members import Member
from torturing.stage import Stage
from torturing.witness import NO_ANSWER, REFUSED, STORED, Witness, told

SPARE = (0, 1, 4, 12)
"""File descriptors that are left free, turn by turn."""

IDLE = 60
"""Idle callers of each receiver."""

EXHAUSTED = 3.0


def play(stage: Stage, seed: int) -> None:
    """Take the file descriptors away from every process, call and say nothing; then give back one or the other."""
    random, witness = chance(seed), Witness(stage)
    stage.until_serving()
    for turn in range(stage.budget):
        stage.wait(random.uniform(0.5, 1.5))
        spare = SPARE[(seed + turn) % len(SPARE)]
        with ExitStack() as limits:
            for member in stage.members:
                limits.enter_context(_limited(member, spare))
            with _idle_callers(stage):
                if stage.server is not None:
                    stage.server.cut(stage.ledger.url)
                said = witness.watch(EXHAUSTED)
                stage.kills += 1
                stage.remarks.append(f"{spare} file descriptors left: {told(said)}")
                if turn % 2 == 0:
                    limits.close()
                    stage.remarks.append("the limit is raised")
                    witness.sees_recovery("files had run out")
            if turn % 2:
                stage.remarks.append("the callers are gone")
                witness.sees_recovery("files had run out")
    witness.finish(may_say=(STORED, REFUSED, NO_ANSWER))


@contextmanager
def _limited(member: Member, spare: int) -> Iterator[None]:
    """Let a running process have only so many file descriptors more than it has now."""
    held = max(int(entry.name) for entry in Path(f"/proc/{member.pid}/fd").iterdir()) + 1
    before = resource.prlimit(member.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(member.pid, resource.RLIMIT_NOFILE, (held + spare, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(member.pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def _idle_callers(stage: Stage) -> Iterator[None]:
    """Connect often, and say nothing."""
    with ExitStack() as callers:
        for _ in range(IDLE):
            for port in stage.ports:
                with suppress(OSError):
                    callers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
        yield
