"""Opens what the commands work on; a ledger that is not there is never made."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sync.errors import NotFound

if TYPE_CHECKING:
    from sync.ledger import Ledger
    from sync.settings import Settings


@contextmanager
def opened() -> "Iterator[tuple[Settings, Ledger]]":
    """The settings and the ledger, beside a running `serve`. Raises NotFound where there is no ledger yet."""
    from sync.logs import configure
    from sync.settings import Settings, load
    from sync.wiring import open_ledger

    settings = load(Settings)
    configure(settings.log_format, settings.log_level)
    check_there(settings)
    ledger = open_ledger(settings)
    try:
        yield settings, ledger
    finally:
        ledger.engine.close()


def check_there(settings: "Settings") -> None:
    """Raises NotFound where the ledger would be a file that does not exist."""
    from sync.wiring import ledger_file

    if settings.ledger.startswith("sqlite:") and not (file := ledger_file(settings)).exists():
        raise NotFound(f"there is no ledger at {file} yet: run `crm-sync serve`")
