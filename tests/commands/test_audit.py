"""`guardrail audit`: verify, export, purge, and what they exit with."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from guardrail.audit.database import open_database
from guardrail.audit.keys import SigningKey, TextKeys
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.schema import MIGRATIONS
from guardrail.audit.store import AuditStore
from guardrail.cli import main
from guardrail.dashboard.passwords import is_password
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role


@pytest.fixture
def url(tmp_path: Path, small_guard: Guard) -> str:
    url = f"sqlite:///{tmp_path}/audit.db"
    store = AuditStore(url)
    for number in range(4):
        decision = small_guard.review(Conversation((Message(Role.USER, "I have chest pain"),)))
        record = ExchangeRecord(f"id{number}", 1_700_000_000.0 + number, "chat_completions", Outcome.ANSWERED, decision, tenant="=clinic()")
        store.record(record)
    store.close()
    return url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["audit", *arguments])


def exported(url: str) -> list[dict[str, Any]]:
    """The exchanges of an export, without what commands noted of themselves."""
    lines = [json.loads(line) for line in run("export", "--audit", url).output.splitlines()]
    return [line for line in lines if line["kind"] in ("exchange", "erased")]


def damage(url: str, sql: str) -> None:
    database = open_database(url)
    database.write([(sql, [()])])
    database.close()


def test_a_whole_record_verifies(url: str) -> None:
    result = run("verify", "--audit", url)

    assert (result.exit_code, result.output) == (0, "4 entries of 1 writers, 0 erased, 0 problems\n")


def test_an_edit_is_found(url: str) -> None:
    damage(url, "UPDATE entries SET body = replace(CAST(body AS TEXT), 'answered', 'forwarded') WHERE seq = 2")

    result = run("verify", "--audit", url)

    assert result.exit_code == 1
    assert "entry 2 (id1): was changed" in result.output


def test_heads_that_were_kept_show_a_record_cut_short(url: str, tmp_path: Path) -> None:
    heads = str(tmp_path / "heads.json")
    assert run("verify", "--audit", url, "--heads", heads).exit_code == 0
    damage(url, "DELETE FROM entries WHERE seq > 2")
    before = Path(heads).read_bytes()

    assert run("verify", "--audit", url).exit_code == 0
    result = run("verify", "--audit", url, "--heads", heads)

    assert result.exit_code == 1
    assert "ends at 2, but reached 4 before" in result.output
    assert Path(heads).read_bytes() == before  # what accuses is not overwritten


def test_a_broken_file_of_heads_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "heads.json").write_text("[1]")

    result = run("verify", "--audit", url, "--heads", str(tmp_path / "heads.json"))

    assert result.exit_code == 2
    assert "heads.json is not a file of heads" in result.output


def test_export_writes_every_exchange_with_its_place_in_the_chain(url: str) -> None:
    lines = exported(url)

    assert [(line["seq"], line["id"]) for line in lines] == [(1, "id0"), (2, "id1"), (3, "id2"), (4, "id3")]
    assert lines[1]["before"] == lines[0]["hash"]
    assert lines[0]["entry"]["decision"]["urgency"] == "emergency"


def test_export_to_csv_holds_no_formula(url: str, tmp_path: Path) -> None:
    result = run("export", "--audit", url, "--format", "csv", "--output", str(tmp_path / "out.csv"))

    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert (result.exit_code, len(rows)) == (0, 4)
    assert rows[0]["time"] == "2023-11-14T22:13:20Z"
    assert (rows[0]["urgency"], rows[0]["rules"]) == ("emergency", "chest_pain")
    assert rows[0]["tenant"] == "'=clinic()"


def test_purge_erases_what_is_old_and_the_record_still_verifies(url: str) -> None:
    assert run("purge", "--audit", url, "--older-than", "30").output == "4 exchanges erased\n"

    assert run("verify", "--audit", url).output == "5 entries of 2 writers, 4 erased, 0 problems\n"
    assert [line["entry"] for line in exported(url)] == [None] * 4
    assert run("purge", "--audit", url, "--older-than", "30").output == "0 exchanges erased\n"


@pytest.mark.parametrize("command", [("verify",), ("export",), ("purge", "--older-than", "1")])
def test_a_record_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = run(*command, "--audit", f"sqlite:///{tmp_path}/none.db")

    assert result.exit_code == 2
    assert "there is no record at" in result.output
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    "arguments", [("verify",), ("export", "--audit", "sqlite:///x", "--format", "xml"), ("purge", "--audit", "sqlite:///x")]
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_store_of_an_unknown_kind_says_what_to_write() -> None:
    result = run("verify", "--audit", "mysql://root@x/y")

    assert result.exit_code == 2
    assert "sqlite:///path or postgresql://" in result.output


def test_a_file_that_is_no_store_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are notes, not a store\n" * 100)

    result = run("verify", "--audit", f"sqlite:///{tmp_path}/notes.db")

    assert result.exit_code == 2
    assert "not a database" in result.output


def test_a_password_becomes_what_the_settings_hold() -> None:
    result = CliRunner().invoke(main, ["password", "--password", "a long enough one"])

    assert is_password("a long enough one", result.output.strip())
    assert CliRunner().invoke(main, ["password", "--password", "short"]).exit_code == 2


# Keys, seals, offline


@pytest.fixture
def sealed(tmp_path: Path, small_guard: Guard) -> tuple[str, Path]:
    """A sealed record whose words are encrypted, and the folder of its keys: seal.pem, seal.pem.pub, texts."""
    assert run("signing-key", str(tmp_path / "seal.pem")).exit_code == 0
    assert run("text-key", str(tmp_path / "texts")).exit_code == 0
    url = f"sqlite:///{tmp_path}/sealed.db"
    store = AuditStore(url, "encrypted", signing=SigningKey.read(tmp_path / "seal.pem"), keys=TextKeys.read(tmp_path / "texts"))
    for number in range(3):
        decision = small_guard.review(Conversation((Message(Role.USER, "I have chest pain"),)))
        texts = ("I have chest pain",)
        store.record(
            ExchangeRecord(f"id{number}", 1_700_000_000.0, "chat_completions", Outcome.ANSWERED, decision, texts=texts, turns=(0,))
        )
    store.close()
    return url, tmp_path


def test_a_sealed_record_verifies_with_the_public_key(sealed: tuple[str, Path]) -> None:
    url, folder = sealed

    result = run("verify", "--audit", url, "--public-key", str(folder / "seal.pem.pub"))

    assert result.exit_code == 0
    assert "0 erased, 0 problems\n" in result.output
    assert "seals; 0 entries come after the last seal of their writer" in result.output
    assert "were not checked" not in result.output


def test_without_the_public_key_it_says_that_signatures_were_not_checked(sealed: tuple[str, Path]) -> None:
    assert "signatures were not checked: give --public-key" in run("verify", "--audit", sealed[0]).output


def test_an_export_verifies_far_from_the_store_and_shows_what_was_cut(sealed: tuple[str, Path]) -> None:
    url, folder = sealed
    export, public = folder / "export.jsonl", str(folder / "seal.pem.pub")
    assert run("export", "--audit", url, "--output", str(export), "--signing-key", str(folder / "seal.pem")).exit_code == 0
    for file in folder.glob("sealed.db*"):
        file.unlink()

    whole = run("verify", "--export", str(export), "--public-key", public)
    lines = export.read_bytes().splitlines(keepends=True)
    export.write_bytes(b"".join(line for line in lines if b'"id1"' not in line))
    cut = run("verify", "--export", str(export), "--public-key", public)

    assert (whole.exit_code, "0 problems" in whole.output) == (0, True)
    assert (cut.exit_code, "are missing" in cut.output) == (1, True)


def test_a_file_that_is_no_export_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text('{"text": "hello"}\n')

    result = run("verify", "--export", str(tmp_path / "notes.jsonl"))

    assert result.exit_code == 2
    assert "notes.jsonl:1: is not a line of guardrail audit export" in result.output


def test_an_export_holds_encrypted_words_and_opens_them_with_the_keys(sealed: tuple[str, Path]) -> None:
    url, folder = sealed

    closed = run("export", "--audit", url).output
    opened = exported_with(url, "--text-keys", str(folder / "texts"))

    assert "I have chest pain" not in closed
    assert [line["opened"]["texts"] for line in opened if line["kind"] == "exchange"] == [["I have chest pain"]] * 3


def exported_with(url: str, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("export", "--audit", url, *options).output.splitlines()]


def test_who_exported_is_in_the_record(url: str) -> None:
    lines = exported_with(url)

    (access,) = [line["entry"] for line in lines if line["kind"] == "access"]
    assert (access["action"], access["exchange"]) == ("exported", None)
    assert access["by"].endswith("(command line)")


def test_erasing_from_a_sealed_record_asks_for_the_key(sealed: tuple[str, Path]) -> None:
    url, folder = sealed
    key, public = str(folder / "seal.pem"), str(folder / "seal.pem.pub")

    refused = run("purge", "--audit", url, "--exchange", "id1")
    erased = run("purge", "--audit", url, "--exchange", "id1", "--signing-key", key)
    after = run("verify", "--audit", url, "--public-key", public)

    assert (refused.exit_code, "--signing-key: this record is sealed" in refused.output) == (2, True)
    assert erased.output == "1 exchanges erased\n"
    assert (after.exit_code, "1 erased, 0 problems" in after.output) == (0, True)


@pytest.mark.parametrize("what", [(), ("--older-than", "1", "--exchange", "id1")])
def test_purge_wants_to_know_one_thing_to_erase(url: str, what: tuple[str, ...]) -> None:
    result = run("purge", "--audit", url, *what)

    assert (result.exit_code, "say what to erase" in result.output) == (2, True)


def test_keys_rotate_and_the_old_key_may_go(sealed: tuple[str, Path]) -> None:
    url, folder = sealed
    keys = folder / "texts"
    run("text-key", str(keys))

    first = run("rotate", "--audit", url, "--text-keys", str(keys))
    keys.write_bytes(keys.read_bytes().splitlines(keepends=True)[0])

    assert first.output.startswith("3 texts encrypted anew under ")
    opened = exported_with(url, "--text-keys", str(keys))
    assert [line["opened"]["texts"] for line in opened if line["kind"] == "exchange"] == [["I have chest pain"]] * 3
    assert run("verify", "--audit", url, "--public-key", str(folder / "seal.pem.pub")).exit_code == 0


def test_the_tables_go_back_to_an_older_version_and_up_again(url: str) -> None:
    down, again = run("migrate", "--audit", url, "--to", "1"), run("migrate", "--audit", url)

    assert (down.exit_code, down.output) == (0, f"schema {len(MIGRATIONS)} to 1\n")
    assert again.output == f"schema 1 to {len(MIGRATIONS)}\n"
    assert run("migrate", "--audit", url, "--to", "99").exit_code == 2
    assert run("verify", "--audit", url).exit_code == 0


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    run("signing-key", str(tmp_path / "seal.pem"))

    assert run("signing-key", str(tmp_path / "seal.pem")).exit_code == 2
