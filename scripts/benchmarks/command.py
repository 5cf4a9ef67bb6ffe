"""The command: runs the chosen sections one after the other within their time."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import accept, delivery, due, growth, large, latency, servers
from benchmarks.figures import Figure, table
from benchmarks.machine import described, told
from benchmarks.plan import Plan

SECTIONS: dict[str, Callable[[Plan], list[Figure]]] = {
    "accept": accept.measure,
    "latency": latency.accepting,
    "first-byte": latency.first_byte,
    "delivery": delivery.measure,
    "growth": growth.measure,
    "due": due.measure,
    "postgres": servers.measure,
    "large": large.measure,
}
"""Every section by the name that `--only` takes."""

ONLY_WHEN_ASKED = ("large",)
"""Sections that take many minutes."""


def _chosen(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    names = (
        [name.strip() for name in value.split(",")]
        if value
        else [name for name in SECTIONS if name not in ONLY_WHEN_ASKED]
    )
    if unknown := [name for name in names if name not in SECTIONS]:
        raise click.BadParameter(f"{', '.join(unknown)}: none of {', '.join(SECTIONS)}")
    return names


@click.command()
@click.option("--only", callback=_chosen, help=f"Only these sections: {', '.join(SECTIONS)}.")
@click.option("--quick", is_flag=True, help="A smoke test: small numbers that mean little.")
@click.option(
    "--rows", type=click.IntRange(3000), multiple=True, help="Visitors in the ledger for `growth`, repeatable."
)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write everything as JSON, too.")
def bench(only: list[str], quick: bool, rows: tuple[int, ...], file: Path | None) -> None:
    """Measure the service on this machine."""
    machine = described()
    click.echo(told(machine))
    figures: list[Figure] = []
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crm-sync-bench-") as folder:
        for name in only:
            section_folder = Path(folder) / name
            section_folder.mkdir()
            begun = time.monotonic()
            figures += SECTIONS[name](Plan.of(section_folder, quick=quick, rows=rows))
            click.echo(f"{name}: {time.monotonic() - begun:.0f} s", err=True)
    took = time.monotonic() - began_at
    click.echo("")
    click.echo(table(figures))
    click.echo(f"{took:.0f} seconds in all")
    if file is not None:
        said = {"machine": machine, "quick": quick, "seconds": took, "figures": [f.as_json() for f in figures]}
        file.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n")
