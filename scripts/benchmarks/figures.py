"""A measured figure, and the table of them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: the median of what was measured, with the least and the most of it.

    `goal` is what we want it to be, in words; `is_met` says whether it is, None where there is no goal.
    """

    section: str
    name: str
    unit: str
    values: tuple[float, ...]
    goal: str = ""
    is_met: bool | None = None

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        """Everything, with the single measurements."""
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "least": min(self.values),
            "most": max(self.values),
            "values": list(self.values),
            "goal": self.goal or None,
            "is_met": self.is_met,
        }


def at_least(section: str, name: str, unit: str, values: Sequence[float], goal: float) -> Figure:
    """A figure that should be large."""
    return Figure(section, name, unit, tuple(values), f"≥ {goal:g}", statistics.median(values) >= goal)


def at_most(section: str, name: str, unit: str, values: Sequence[float], goal: float) -> Figure:
    """A figure that should be small."""
    return Figure(section, name, unit, tuple(values), f"≤ {goal:g}", statistics.median(values) <= goal)


def table(figures: Sequence[Figure]) -> str:
    """All figures as text that is Markdown, too."""
    rows = [
        (
            figure.section,
            figure.name,
            _short(figure.median),
            f"{_short(min(figure.values))} … {_short(max(figure.values))}" if len(figure.values) > 1 else "",
            figure.unit,
            figure.goal,
            {True: "yes", False: "NO", None: ""}[figure.is_met],
        )
        for figure in figures
    ]
    headers = ("section", "what", "median", "least … most", "unit", "goal", "met")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", "left", "right"))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
