"""Lets a script go on in the project's own environment, which is made first where there is none."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = HERE.parent / ".venv" / "bin" / "python"


def enter() -> None:
    """Start the same script again with `.venv`'s Python, unless this is it already."""
    if not OURS.exists():
        if find_spec("tabulate") is not None:  # another environment that has what is needed
            return
        subprocess.run(["bash", "-c", '. "$0" && ready "[dev]"', str(HERE / "common.sh")], check=True)
    if Path(sys.prefix).resolve() != OURS.parent.parent.resolve():
        os.execv(OURS, [str(OURS), *sys.argv])  # noqa: S606 - the same script
