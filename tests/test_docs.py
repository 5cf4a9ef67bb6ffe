"""The documents say what is so: every setting, every command, every link."""

import re
from pathlib import Path

import pytest

from sync.cli import COMMANDS, SUMMARIES
from sync.destinations.base import Destination
from sync.destinations.mail.base import Mailer
from sync.followup import FollowupSettings
from sync.letter import VARIABLES
from sync.retention import RetentionSettings
from sync.settings import FromEnvironment, Settings, variable_of
from sync.sources.acquire import AcquireSettings
from sync.wiring import MAILERS, VENDORS, SandboxSettings

ROOT = Path(__file__).parent.parent
GROUPS: list[type[FromEnvironment]] = [
    Settings,
    AcquireSettings,
    SandboxSettings,
    FollowupSettings,
    RetentionSettings,
    *(vendor.Settings for vendor in (*VENDORS, *MAILERS)),
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
            r"\b((?:SYNC|ACQUIRE|HUBSPOT|WEBHOOK|SANDBOX|FOLLOWUP|SMTP|RESEND|BREVO|POSTMARK)_[A-Z0-9_]*[A-Z0-9])\b",
            document.read_text(),
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


@pytest.mark.parametrize("mailer", MAILERS, ids=lambda mailer: mailer.vendor)
def test_every_mailer_stands_in_the_readme_and_in_the_example(mailer: type[Mailer]) -> None:
    assert f"| `{mailer.vendor}` |" in (ROOT / "README.md").read_text()
    assert mailer.vendor in (ROOT / ".env.example").read_text().split("SYNC_MAILER=")[0]


def test_every_variable_of_the_templates_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()

    assert [name for name, words in VARIABLES.items() if f"| `{name}` | {words} |" not in readme] == []


def test_each_mailer_says_for_how_long_it_may_be_asked_again() -> None:
    """What the README says of a lost answer is what the adapters promise."""
    rows = {m.vendor: re.search(rf"\| `{m.vendor}` \|.*\|(.*)\|", (ROOT / "README.md").read_text()) for m in MAILERS}
    said = {vendor: row[1] if row else "" for vendor, row in rows.items()}
    spans = {"hours": 3600.0, "minutes": 60.0}
    promised = {
        vendor: float(found[1]) * spans[found[2]] if (found := re.search(r"for (\d+) (hours|minutes)", text)) else 0.0
        for vendor, text in said.items()
    }

    assert promised == {m.vendor: m.repeatable_for for m in MAILERS}
