"""How much is measured."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of one run. `folder` is a section's own; `repetitions` of `seconds` each give median and spread."""

    folder: Path
    repetitions: int = 5
    seconds: float = 2.0
    open_loop_seconds: float = 8.0
    delivery_seconds: float = 25.0
    due: int = 100_000
    rows: tuple[int, ...] = (10_000, 100_000)
    groups: int = 60
    server_seconds: float = 5.0
    contacts: int = 1_000_000

    @classmethod
    def of(cls, folder: Path, *, quick: bool, rows: tuple[int, ...]) -> "Plan":
        """The usual sizes, or those of a smoke test."""
        if quick:
            quick_rows = rows or (500, 2_000)
            return cls(
                folder, 2, 0.5, 2.0, 4.0, due=2_000, rows=quick_rows, groups=10, server_seconds=1.0, contacts=3_000
            )
        return cls(folder, rows=rows) if rows else cls(folder)
