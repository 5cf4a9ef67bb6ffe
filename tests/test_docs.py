"""The documents say what is so: every setting, every command, every link."""

import re
from pathlib import Path

import pytest

from sync.cli import COMMANDS, SUMMARIES
from sync.destinations.base import Destination
from sync.settings import FromEnvironment, Settings, variable_of
from sync.sources.acquire import AcquireSettings
from sync.wiring import VENDORS, SandboxSettings

ROOT = Path(__file__).parent.parent
GROUPS: list[type[FromEnvironment]] = [
    Settings,
    AcquireSettings,
    SandboxSettings,
    *(vendor.Settings for vendor in VENDORS),
]


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]", line))


def variables() -> dict[str, tuple[type[FromEnvironment], str]]:
    return {variable_of(group, field): (group, field) for group in GROUPS for field in group.model_fields}


def test_every_setting_stands_in_the_example_and_no_other() -> None:
    assert sorted(example()) == sorted(variables())


def test_every_setting_is_explained() -> None:
    text = (ROOT / ".env.example").read_text()
    blocks = [block for block in re.split(r"\n(?=#)", text) if "\n#" not in block.split("=")[0] or "=" in block]

    assert all(block.lstrip().startswith("#") for block in blocks)


def test_the_example_shows_the_defaults() -> None:
    shown = {name: value for name, value in example().items() if value}
    for name, value in shown.items():
        group, field = variables()[name]
        default = group.model_fields[field].default
        default = default.get_secret_value() if hasattr(default, "get_secret_value") else default
        default = ",".join(default) if isinstance(default, tuple) else default
        assert _same(value, default), name


def _same(shown: str, default: object) -> bool:
    if isinstance(default, bool):
        return shown == str(default).lower()
    return float(shown) == float(default) if isinstance(default, int | float) else shown == str(default)


def test_the_example_itself_is_a_valid_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    monkeypatch.chdir(tmp_path)

    assert Settings().destinations == ("sandbox",)
    assert AcquireSettings().webhook_secret is None
    assert SandboxSettings().calls_per_10s == 190


def test_every_command_stands_in_the_readme_and_in_the_help() -> None:
    readme = (ROOT / "README.md").read_text()

    assert [command for command in COMMANDS if f"crm-sync {command}" not in readme] == []
    assert list(COMMANDS) == list(SUMMARIES)


def test_every_command_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text()

    assert set(re.findall(r"`crm-sync ([a-z]+)", readme)) <= set(COMMANDS)


def test_every_variable_that_a_document_names_exists() -> None:
    known = set(variables())
    named = {
        name
        for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        for name in re.findall(
            r"\b((?:SYNC|ACQUIRE|HUBSPOT|WEBHOOK|SANDBOX)_[A-Z0-9_]*[A-Z0-9])\b", document.read_text()
        )
    }

    assert named <= known


@pytest.mark.parametrize(
    "document", ["README.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_file_that_a_document_links_to_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]

    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.vendor)
def test_every_destination_stands_in_the_readme(vendor: type[Destination]) -> None:
    assert f"`{vendor.vendor}`" in (ROOT / "README.md").read_text()
