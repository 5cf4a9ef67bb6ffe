"""What a newcomer sees of follow-ups: a conversation closes, a mail stands in the outbox, its link works."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Stage, get


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    made.settings |= {
        "SYNC_DESTINATIONS": "sandbox",
        "SYNC_MAILER": "sandbox",
        "SANDBOX_BASE_URL": f"http://127.0.0.1:{made.crm_port}",
        "ACQUIRE_URL_TOKEN": "",
        "FOLLOWUP_DELAY": "1",
    }
    yield made
    made.close()


def outbox(stage: Stage) -> list[dict[str, Any]]:
    found = get(f"{stage.crm_url}/_mail", headers={"Authorization": "Bearer sandbox"})[1]
    mails: list[dict[str, Any]] = found["mails"]
    return mails


def test_a_simulated_conversation_ends_in_one_mail_whose_link_works(stage: Stage) -> None:
    stage.serve()
    assert f"s after it a mail is at {stage.crm_url}/outbox" in stage.command("hello").stdout
    play = ("simulate", "--chats", "1", "--email", "ada@example.com")

    assert stage.command(*play).returncode == 0
    stage.until(lambda: outbox(stage))
    assert stage.command(*play).returncode == 0
    said = stage.command("status").stdout
    (mail,) = outbox(stage)
    (link,) = re.findall(r"<(.+)>", mail["headers"]["List-Unsubscribe"])

    assert "1 chat without a follow-up: the same person had a mail a short while ago (FOLLOWUP_COOLDOWN)" in said
    assert link.startswith(stage.url)
    with urllib.request.urlopen(urllib.request.Request(link, method="POST")) as answer:
        assert b"You are unsubscribed" in answer.read()
    assert "unsubscribed" in stage.command("suppressions", "ada@example.com").stdout
