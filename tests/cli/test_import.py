"""`crm-sync import`: the people whom a CRM has already."""

import json
from pathlib import Path

import pytest

from sync.sandbox.store import CONTACTS, Change
from tests.cli.conftest import Desk, start

HEADS = "Record ID,First Name,Last Name,Email,Phone Number\n"


def export(desk: Desk, *rows: str, heads: str = HEADS) -> Path:
    file = desk.folder / "contacts.csv"
    file.write_text(heads + "".join(f"{row}\n" for row in rows))
    return file


def bring(desk: Desk, *words: str) -> str:
    desk.take()
    result = desk.run("import", str(desk.folder / "contacts.csv"), "--destination", "sandbox", *words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


async def test_the_record_that_is_there_is_adopted_and_not_made_again(desk: Desk) -> None:
    there = Change(None, {"email": "old@example.com", "firstname": "Ada", "lastname": "Lovelace"})
    (known,) = desk.crm.write(CONTACTS, [there], made_by="a colleague", now=desk.clock())
    export(desk, f"{known.id},Ada,Lovelace,ada@example.com,")
    said = bring(desk)
    assert said.splitlines()[1] == "          1  new here, with its record at sandbox"

    desk.take(start(1, name="Eve", email="ada@example.com", phone="2025550123"))
    await desk.deliver()

    (record,) = desk.crm.contacts
    assert record.properties["firstname"] == "Ada"
    assert record.properties["phone"] == "+12025550123"


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    export(desk, "101,Ada,,ada@example.com,")
    assert "1 row would be read." in bring(desk, "--dry-run")

    assert desk.json("status")["contacts"] == 0
    assert desk.run("ledger", "check").exit_code == 0


def test_what_is_left_alone_has_its_reason_and_row_and_no_name(desk: Desk) -> None:
    export(desk, "101,Ada,,ada@example.com,", "102,Ada,,ada@example.com,", ",Bob,,bob@example.com,", "104,Canary,,,")
    desk.take()
    result = desk.run("import", str(desk.folder / "contacts.csv"), "--destination", "sandbox")
    assert result.exit_code == 1
    assert "left alone: it is a second record of one person: merge the two over there  row 3" in result.stdout
    assert "Canary" not in result.output

    found = desk.run("import", str(desk.folder / "contacts.csv"), "--destination", "sandbox", "--json")
    said = json.loads(found.stdout)
    assert (said["rows"], said["new"], said["same"]) == (4, 0, 1)
    assert {name: left["rows"] for name, left in said["left"].items()} == {"second": [3], "no_id": [4], "nobody": [5]}
    assert desk.json("status")["strays"] == {"sandbox": 1}


def test_it_says_how_the_file_is_read(desk: Desk) -> None:
    file = desk.folder / "contacts.csv"
    file.write_bytes("id;Mail;Vorname\n7;zoe@example.com;Zoë\n".encode("cp1252"))
    desk.take()
    result = desk.run("import", str(file), "--destination", "sandbox", "--email", "Mail", "--name", "Vorname")

    assert "is read as Windows-1252, for it is not UTF-8; id: id; email: Mail; name: Vorname" in result.stderr
    assert desk.json("contacts")[0]["name"] == "Zoë"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--destination", "nowhere"], "does not name nowhere"),
        (["--destination", "sandbox", "--id", "Vid"], "has no column Vid"),
    ],
)
def test_wrong_usage_is_one_sentence(desk: Desk, words: list[str], says: str) -> None:
    file = export(desk, "101,Ada,,ada@example.com,")
    desk.take()

    result = desk.run("import", str(file), *words)
    assert result.exit_code == 2
    assert says in result.stderr
