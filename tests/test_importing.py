"""An export of the CRM is taken in: its records are adopted, its words are the weakest, on both engines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.addresses import Addresses
from sync.cleaning import email_key
from sync.errors import SettingsError
from sync.followup import FollowupSettings
from sync.forget import forget
from sync.importing import BATCH, MANGLED, NO_ID, NOBODY, Columns, Imported, import_export, look
from sync.ledger import Ledger, Settlement
from sync.ledger.checking import check
from sync.ledger.erasing import Erasures
from sync.ledger.importing import Became
from sync.ledger.mailing import Mailing
from sync.ledger.replaying import owe_contacts_page
from sync.models import Kind, Receipt
from sync.outcomes import Delivered
from sync.secret import digest
from tests.databases import Server, open_on, select
from tests.people import CRM, Clock, event, open_ledger

ADA, BOB = "ada@example.com", "bob@example.com"
PHONE, OTHER = "+12025550123", "+12025550199"
HEADS = "Record ID,First Name,Last Name,Email,Phone Number"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Iterator[Ledger]:
    opened = open_on(request.param, tmp_path, server, Clock(), CRM)
    opened.erasures = Erasures(digest(b"k" * 32))
    yield opened
    assert check(opened.engine) == []
    opened.engine.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "contacts.csv"


def bring(ledger: Ledger, file: Path, *rows: str, heads: str = HEADS, **more: Any) -> Imported:
    file.write_text("\n".join([heads, *rows]) + "\n")
    return take(ledger, file, **more)


def take(ledger: Ledger, file: Path, destination: str = "crm", **more: Any) -> Imported:
    return import_export(ledger, look(file, Columns()), destination, region="US", told=lambda n: None, **more)


def chat(ledger: Ledger, place: str, email: str | None = None, **said: Any) -> None:
    with ledger.transaction():
        ledger.apply([event(place, email, **said)])


def people(ledger: Ledger) -> list[tuple[str | None, str | None, str | None]]:
    rows = select(ledger, "SELECT name, email, phone FROM contacts WHERE joined IS NULL ORDER BY id")
    return [(row["name"], row["email"], row["phone"]) for row in rows]


def records(ledger: Ledger) -> list[tuple[str, str | None, int]]:
    rows = select(ledger, "SELECT state, remote_id, ours FROM deliveries WHERE kind = 'contact' ORDER BY subject")
    return [(row["state"], row["remote_id"], row["ours"]) for row in rows]


def left(done: Imported) -> dict[str, list[int]]:
    return {reason: rows for reason, (_, rows) in done.left.items()}


def claim(ledger: Ledger) -> list[Any]:
    with ledger.transaction():
        return list(ledger.claim("crm", [(Kind.CONTACT, 100)], 60.0).owed)


def deliver(ledger: Ledger, remote_id: str) -> None:
    (owed,) = claim(ledger)
    outcome = Delivered(Receipt(remote_id, ours=True))
    with ledger.transaction():
        ledger.settle([Settlement(owed.delivery, owed.claim, owed.version, outcome)])


def test_who_is_new_has_their_record_and_is_owed_nothing(ledger: Ledger, file: Path) -> None:
    done = bring(ledger, file, "101,Ada,Lovelace,Ada@EXAMPLE.com,(202) 555-0123", f"102,,,,{OTHER}")

    assert done.taken == {Became.NEW: 2}
    assert people(ledger) == [("Ada Lovelace", "Ada@example.com", PHONE), (None, None, OTHER)]
    assert records(ledger) == [("delivered", "101", 0), ("delivered", "102", 0)]
    assert claim(ledger) == []


def test_the_first_chat_of_somebody_imported_goes_to_their_record(ledger: Ledger, file: Path) -> None:
    bring(ledger, file, f"101,Ada,,{ADA},")
    chat(ledger, "v1:1", ADA, phone=PHONE)

    (owed,) = claim(ledger)
    assert (owed.remote_id, owed.ours, owed.subject.phone) == ("101", False, PHONE)
    assert len(people(ledger)) == 1


def test_a_chat_that_says_nothing_new_owes_nothing(ledger: Ledger, file: Path) -> None:
    bring(ledger, file, f"101,Ada,,{ADA},{PHONE}")
    chat(ledger, "v1:1", ADA, name="Ada")

    assert claim(ledger) == []


def test_any_word_of_a_chat_before_or_after_wins(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", ADA, name="Ada by chat")
    bring(ledger, file, f"101,Ada by import,,{ADA},{PHONE}", f"102,Bob by import,,{BOB},{OTHER}")
    assert people(ledger) == [("Ada by chat", ADA, PHONE), ("Bob by import", BOB, OTHER)]

    chat(ledger, "v1:2", phone=OTHER, name="Bob by phone")
    chat(ledger, "v1:3", ADA, phone="+12025550111", at=-1000.0)
    assert people(ledger) == [("Ada by chat", ADA, "+12025550111"), ("Bob by phone", BOB, OTHER)]


def test_words_of_an_import_stay_the_weakest_after_a_join(ledger: Ledger, file: Path) -> None:
    bring(ledger, file, f"101,Imported,,,{PHONE}")
    chat(ledger, "v1:1", BOB)
    chat(ledger, "v1:2", phone=PHONE, at=1)
    chat(ledger, "v1:2", BOB, at=2)
    assert people(ledger) == [("Imported", BOB, PHONE)]

    chat(ledger, "v1:3", phone=PHONE, name="Bobby", at=3)
    assert people(ledger)[0][0] == "Bobby"


def test_a_phone_that_only_one_has_finds_whom_it_is_about(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", phone=PHONE)
    done = bring(ledger, file, f"101,Ada,,{ADA},{PHONE}")

    assert done.taken == {Became.KNOWN: 1}
    assert people(ledger) == [("Ada", ADA, PHONE)]
    assert records(ledger) == [("pending", "101", 0)]


def test_who_has_another_email_is_somebody_else_whatever_the_phone(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", ADA, phone=PHONE)
    bring(ledger, file, f"102,Bob,,{BOB},{PHONE}")

    assert [email for _, email, _ in people(ledger)] == [ADA, BOB]


def test_who_is_pending_stays_so_and_updates_the_record(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", ADA)
    done = bring(ledger, file, f"101,Ada,,{ADA},")

    assert done.taken == {Became.KNOWN: 1}
    assert records(ledger) == [("pending", "101", 0)]
    (owed,) = claim(ledger)
    assert (owed.remote_id, owed.ours) == ("101", False)


def test_chats_that_waited_for_their_contact_follow(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", ADA, closed=True)
    bring(ledger, file, f"101,Ada,,{ADA},")

    with ledger.transaction():
        claimed = ledger.claim("crm", [(Kind.CHAT, 10)], 60.0)
    assert [owed.contact_remote_id for owed in claimed.owed] == ["101"]


def test_who_is_being_delivered_just_now_is_left_alone(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", ADA)
    claim(ledger)

    assert left(bring(ledger, file, f"101,Ada,,{ADA},")) == {Became.BUSY: [2]}
    assert records(ledger) == [("pending", None, 0)]


def test_a_second_record_of_one_person_is_a_stray_and_a_record_has_one_person(ledger: Ledger, file: Path) -> None:
    rows = [f"101,Ada,,{ADA},{PHONE}", f"102,Ada,,{ADA.upper()},", f"101,Bob,,{BOB},", f"103,,,,{PHONE}"]
    done = bring(ledger, file, *rows)

    assert left(done) == {Became.SECOND: [3], Became.HELD: [4], Became.OTHER: [5]}
    assert len(people(ledger)) == 1
    assert [row["remote_id"] for row in select(ledger, "SELECT remote_id FROM strays")] == ["102"]


def test_a_record_that_we_made_stays_ours(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", ADA)
    deliver(ledger, "101")
    done = bring(ledger, file, f"101,Ada,,{ADA},", f"102,Bob,,{BOB},", "101,Eve,,eve@example.com,")

    assert done.taken == {Became.SAME: 1, Became.NEW: 1}
    assert left(done) == {Became.HELD: [4]}
    assert records(ledger) == [("delivered", "101", 1), ("delivered", "102", 0)]


def test_a_row_that_says_too_little_is_counted_with_its_reason(ledger: Ledger, file: Path) -> None:
    done = bring(ledger, file, f",Ada,,{ADA},", "102,Bob,,not an email,123", "", f"1.2E+10,,,{BOB},", ",,,,99")

    assert done.rows == 4
    assert left(done) == {NO_ID: [2, 6], NOBODY: [3], MANGLED: [5]}
    assert people(ledger) == []


def test_a_second_import_changes_nothing(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", BOB, phone=PHONE)
    rows = [f"101,Ada,,{ADA},{PHONE}", f"102,Bob,,{BOB},", f"103,,,,{PHONE}", f"104,Ada,,{ADA},", f"105,,,,{OTHER}"]
    bring(ledger, file, *rows)
    before = snapshot(ledger)

    done = take(ledger, file)
    assert done.taken == {Became.SAME: 4}
    assert left(done) == {Became.SECOND: [5]}
    assert snapshot(ledger) == before


def snapshot(ledger: Ledger) -> list[list[dict[str, Any]]]:
    tables = {"contacts": "id", "identities": "kind, value, contact", "deliveries": "id", "strays": "remote_id"}
    kept = [select(ledger, f"SELECT * FROM {table} ORDER BY {key}") for table, key in tables.items()]
    return [*kept, select(ledger, "SELECT * FROM cursors")]


def test_a_dry_run_says_the_same_and_changes_nothing(ledger: Ledger, file: Path) -> None:
    chat(ledger, "v1:1", BOB)
    before = snapshot(ledger)
    rows = [f"101,Ada,,{ADA},", f"102,Bob,,{BOB},", f"103,Ada,,{ADA},"]
    foreseen = bring(ledger, file, *rows, dry_run=True)
    assert snapshot(ledger) == before

    done = take(ledger, file)
    assert (foreseen.taken, foreseen.left) == (done.taken, done.left)


def test_what_broke_off_goes_on_where_it_was(ledger: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{n},P{n},,p{n}@example.com," for n in range(2 * BATCH + 10)]
    from sync.ledger import importing

    real, calls = importing.import_records, iter([1, 2])

    def killed(*given: Any, **more: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **more)

    monkeypatch.setattr(importing, "import_records", killed)
    with pytest.raises(KeyboardInterrupt):
        bring(ledger, file, *rows)
    assert len(people(ledger)) == BATCH
    monkeypatch.setattr(importing, "import_records", real)

    done = take(ledger, file)
    assert (done.resumed, done.rows, done.taken) == (BATCH + 1, len(rows), {Became.NEW: len(rows)})
    assert len(people(ledger)) == len(rows)
    assert take(ledger, file).resumed is None


def test_nobody_who_was_forgotten_comes_back(ledger: Ledger, file: Path) -> None:
    assert ledger.erasures is not None
    with ledger.transaction():
        hashes = [ledger.erasures.hash(key) for key in (f"email:{ADA}", f"phone:{PHONE}")]
        ledger.engine.run("insert_erasures", rows=[{"hash": hashed} for hashed in hashes])
    done = bring(ledger, file, f"101,Ada,,{ADA},", f"102,,,,{PHONE}", f"103,Bob,,{BOB},{PHONE}")

    assert left(done) == {Became.FORGOTTEN: [2, 3]}
    assert people(ledger) == [("Bob", BOB, None)]


@pytest.mark.parametrize("ours", [True, False])
def test_a_record_of_somebody_who_was_forgotten_tells_of_somebody_new(ledger: Ledger, file: Path, ours: bool) -> None:
    """Under another email than theirs: the row is not known as theirs, and must not be written into what is left."""
    ledger.takers = {"crm": CRM["crm"] | {Kind.ERASURE}}
    if not ours:
        bring(ledger, file, f"101,Ada,,{ADA},")
    chat(ledger, "v1:1", ADA)
    if ours:
        deliver(ledger, "101")
    forget(ledger, ADA, digest(b"k" * 32))
    (tombstone,) = select(ledger, "SELECT * FROM contacts")

    done = bring(ledger, file, f"101,Bob,,{BOB},{OTHER}")

    assert (done.taken, left(done)) == ({Became.NEW: 1}, {})
    assert select(ledger, f"SELECT * FROM contacts WHERE id = '{tombstone['id']}'") == [tombstone]
    (new,) = select(ledger, "SELECT * FROM contacts WHERE erased_at IS NULL")
    assert (new["name"], new["email"], new["phone"]) == ("Bob", BOB, OTHER)
    chat(ledger, "v1:2", BOB, name="Bob by chat")
    assert ("Bob by chat", BOB, OTHER) in people(ledger)
    assert forget(ledger, BOB, digest(b"k" * 32)).is_new
    assert people(ledger) == [(None, None, None)] * 2


def test_an_import_makes_no_follow_up(ledger: Ledger, file: Path) -> None:
    hashes = Addresses(digest(b"k" * 32))
    ledger.mailing = Mailing("smtp", 0.0, FollowupSettings(), hashes.hash, hashes.digest, lambda *given: None)  # type: ignore[arg-type,return-value]
    bring(ledger, file, f"101,Ada,,{ADA},")

    assert select(ledger, "SELECT 1 FROM deliveries WHERE kind = 'email'") == []


def test_what_chats_said_before_the_destination_is_sent_by_owe_and_an_import_alone_is_not(
    ledger: Ledger, file: Path
) -> None:
    takers = ledger.takers
    ledger.takers = {}
    chat(ledger, "v1:1", ADA, name="Ada by chat")
    ledger.takers = takers
    bring(ledger, file, f"101,Ada,,{ADA},", f"102,Bob,,{BOB},")
    assert claim(ledger) == []
    with ledger.transaction():
        owe_contacts_page(ledger, "crm", "", 100)

    assert [owed.remote_id for owed in claim(ledger)] == ["101"]


def test_a_destination_that_takes_no_contacts_is_refused(ledger: Ledger, file: Path) -> None:
    with pytest.raises(SettingsError, match="does not name elsewhere"):
        bring(ledger, file, f"101,Ada,,{ADA},", destination="elsewhere")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_every_usual_way_to_write_it_is_read(tmp_path: Path, file: Path, delimiter: str, encoding: str) -> None:
    ledger = open_ledger(tmp_path)
    rows = [["Id", "Full  name", "E-mail", "Phone", "Remark"], ["7", '"Zoë, the ""Z"""', ADA, "202 555 0123", '"a\nb"']]
    file.write_text("\r\n".join(delimiter.join(row) for row in rows), encoding=encoding, newline="")
    export = look(file, Columns())
    take(ledger, file)

    assert export.encoding == ("cp1252" if encoding == "cp1252" else "utf-8-sig")
    assert people(ledger) == [('Zoë, the "Z"', ADA, PHONE)]
    ledger.engine.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"Email,Name\na@example.com,Ada\n", "--id"),
        (b"Id,Name\n1,Ada\n", "--email"),
        ("Id,Email\n".encode("utf-16"), "UTF-16"),
        (b"Id,Email\n\x81,a@example.com\n", "neither UTF-8 nor Windows-1252"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(file: Path, content: bytes, says: str) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=says):
        look(file, Columns())


def test_columns_can_be_named(file: Path) -> None:
    file.write_text("Id,Vid,Mail,Vorname,Nachname\n1,2,a@example.com,Ada,Lovelace\n")
    export = look(file, Columns(id="vid", email="Mail", name=("Vorname", "Nachname")))
    assert export.columns == {"id": ["Vid"], "email": ["Mail"], "name": ["Vorname", "Nachname"]}

    with pytest.raises(SettingsError, match="no column Post"):
        look(file, Columns(email="Post"))


emails = st.sampled_from(["", "a@example.com", "A@example.com", "b@example.com", "c@example.com"])
phones = st.sampled_from(["", "+12025550100", "+12025550101"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("row"), st.sampled_from("1234"), emails, phones),
        st.tuples(st.just("chat"), st.sampled_from("1234"), emails, phones),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_never_two_persons_in_one_record_nor_one_email_at_two(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger = open_ledger(folder)
    file = folder / "x.csv"
    for what, number, email, phone in steps:
        if what == "chat":
            chat(ledger, f"v1:{number}", email or None, phone=phone or None)
        else:
            bring(ledger, file, f"{number},Imported,,{email},{phone}")
    assert check(ledger.engine) == []
    keys = [email_key(email) for _, email, _ in people(ledger) if email is not None]
    assert len(keys) == len(set(keys))
    rows = [f"{number},Imported,,{email},{phone}" for what, number, email, phone in steps if what == "row"]
    bring(ledger, file, *rows)
    before = snapshot(ledger)
    take(ledger, file)

    assert check(ledger.engine) == []
    assert snapshot(ledger) == before
    ledger.engine.close()
