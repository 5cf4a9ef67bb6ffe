"""Gathers the evidence after a run: from the tables, from the CRM itself, from what the processes said."""

import subprocess
from collections.abc import Sequence

from torturing.checks import Evidence
from torturing.members import crm_sync, environment
from torturing.stage import Stage

TOLD = ("429", "most in 10 s")
"""What the CRM counted that is worth telling."""


def evidence_of(stage: Stage) -> Evidence:
    """Everything that is known after a run. Remarks on the CRM's counts go to the stage."""
    state = stage.asked("/_state")
    select = stage.ledger.select
    stage.remarks += [f"CRM: {name}: {n}" for name, n in sorted(state["counted"].items()) if name in TOLD]
    return Evidence(
        people=stage.source.people,
        taken=stage.source.taken,
        never=[webhook.body.decode() for webhook in stage.source.never],
        events=select("SELECT id, payload, state FROM events"),
        contacts=select("SELECT id, email, phone, joined FROM contacts"),
        chats=select("SELECT id, chat, contact FROM chats"),
        deliveries=select("SELECT * FROM deliveries"),
        crm_contacts=state["contacts"],
        crm_notes=state["notes"],
        strange_calls=state["counted"].get("strange calls", 0),
        ledger_check=said_by(stage, "ledger", "check"),
        status=said_by(stage, "status"),
        endings={} if stage.endings_are_fine else {member.name: member.endings for member in stage.members},
        tracebacks=[said for member in stage.members for said in tracebacks(member.said())],
    )


def said_by(stage: Stage, *arguments: str) -> tuple[int, str]:
    """Run one command of the service to its end: exit code, and all that it said."""
    done = subprocess.run(
        crm_sync(*arguments),
        cwd=stage.folder,
        env=environment(stage.settings, stage.folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def tracebacks(said: str) -> Sequence[str]:
    """The last line of every traceback in what a process said on stderr."""
    found = []
    for part in said.split("Traceback (most recent call last)")[1:]:
        lines = [line for line in part.splitlines()[1:] if line and not line.startswith((" ", "│", "╭", "╰", "|", "+"))]
        found.append(lines[0] if lines else "a traceback without an end")
    return found
