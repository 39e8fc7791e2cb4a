"""`guardrail backtest`: records and transcripts decided anew under a candidate."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guardrail.audit.keys import TextKeys, add_text_key
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditStore
from guardrail.cli import main
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role
from tests.conftest import SMALL_RULES

SAID = ("I have chest pain", "a rash", "hello")


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """Does not know chest pain any more, and takes a rash for an emergency."""
    folder = tmp_path / "candidate"
    shutil.copytree(SMALL_RULES, folder)
    for name, old, new in (
        ("concepts/small", '["chest pain"]', '["pain in my chest"]'),
        ("tests/chest_pain", "chest pain", "pain in my chest"),
        ("rules/rash", "tier: U1", "tier: E2"),
    ):
        path = folder / "small" / f"{name}.yaml"
        path.write_text(path.read_text().replace(old, new))
    return folder


def exchange(guard: Guard, number: int, text: str) -> ExchangeRecord:
    decision = guard.review(Conversation((Message(Role.USER, text),)))
    return ExchangeRecord(f"id{number}", 1_700_000_000.0 + number, "chat", Outcome.ANSWERED, decision, texts=(text,), turns=(0,))


def export(folder: Path, store: AuditStore, url: str, guard: Guard, *further: str) -> Path:
    for number, text in enumerate(SAID):
        store.record(exchange(guard, number, text))
    store.close()
    path = folder / "export.jsonl"
    result = CliRunner().invoke(main, ["audit", "export", "--audit", url, "--output", str(path), *further])
    assert result.exit_code == 0, result.output
    return path


def run(records: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["backtest", str(records), "--in-force", str(SMALL_RULES), *map(str, arguments)])


def test_records_are_decided_under_both(tmp_path: Path, small_guard: Guard, candidate: Path) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    records = export(tmp_path, AuditStore(url), url, small_guard)

    result = run(records, "--rules", candidate, "--out", tmp_path / "changes.jsonl")

    assert result.exit_code == 1
    assert "; 3 conversations\n\ndecided otherwise: 2, in urgency 2\n" in result.output
    assert "    emergency to none: 1 LOST\n    urgent to emergency: 1\n" in result.output
    assert "    -1 chest_pain\n" in result.output
    assert "\nid0: emergency (ambulance) to none (none) LOST\n    I have [chest pain]\n    no longer: chest_pain\n" in result.output
    assert "3 were recorded under the packs in force; 3 are decided as recorded\n" in result.output
    lines = [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()]
    assert [(line["id"], line["lost"], line["now"]["urgency"], line["then"]["urgency"]) for line in lines] == [
        ("id0", True, "emergency", "none"),
        ("id1", False, "urgent", "emergency"),
    ]


def test_the_same_packs_change_nothing(tmp_path: Path, small_guard: Guard) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"

    result = run(export(tmp_path, AuditStore(url), url, small_guard), "--rules", SMALL_RULES)

    assert result.exit_code == 0
    assert "decided otherwise: 0, in urgency 0\n" in result.output


def test_an_override_can_be_tried_before_it_is_in_force(tmp_path: Path, small_guard: Guard) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    (tmp_path / "ours").mkdir()
    override = 'concept: rash, change: {add: [hello]}, reason: x, owner: y, expires: "2999-01-01"'
    (tmp_path / "ours" / "site.yaml").write_text(f"- {{{override}}}\n")

    result = run(export(tmp_path, AuditStore(url), url, small_guard), "--overrides", tmp_path / "ours")

    assert result.exit_code == 0
    assert "    none to urgent: 1\n" in result.output


def test_a_record_that_is_decided_otherwise_than_recorded_is_named(tmp_path: Path, small_guard: Guard) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    records = export(tmp_path, AuditStore(url), url, small_guard)
    records.write_text(records.read_text().replace("I have chest pain", "I have [redacted]"))

    result = run(records, "--rules", SMALL_RULES)

    assert "3 were recorded under the packs in force; 2 are decided as recorded\n" in result.output
    assert "or something is wrong:\n    id0\n" in result.output


def test_records_without_text_say_what_to_do(tmp_path: Path, small_guard: Guard) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"

    result = run(export(tmp_path, AuditStore(url, text="absent"), url, small_guard), "--rules", SMALL_RULES)

    assert result.exit_code == 2
    assert "no text is kept in these records, so nothing can be decided again; record with audit_text: redacted" in result.output


def test_encrypted_texts_are_opened_with_the_keys(tmp_path: Path, small_guard: Guard) -> None:
    url, keys = f"sqlite:///{tmp_path}/audit.db", tmp_path / "keys"
    add_text_key(keys)
    store = AuditStore(url, text="encrypted", keys=TextKeys.read(keys))
    records = export(tmp_path, store, url, small_guard)

    closed = run(records, "--rules", SMALL_RULES)
    opened = run(records, "--rules", SMALL_RULES, "--text-keys", keys)

    assert closed.exit_code == 2
    assert "3 were recorded under the packs in force; 3 are decided as recorded\n" in opened.output


def test_transcripts_are_decided_too(tmp_path: Path, candidate: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    path.write_text('{"id": "a", "text": "hello"}\n{"messages": [{"role": "user", "content": "chest pain"}]}\n')

    result = run(path, "--rules", candidate)

    assert result.exit_code == 1
    assert "\nline 2: emergency (ambulance) to none (none) LOST\n" in result.output
    assert "recorded" not in result.output


def test_a_line_that_is_neither_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "hello"}\n{"writer": 1}\n')

    result = run(path, "--rules", SMALL_RULES)

    assert result.exit_code == 2
    assert f"{path}:2: is neither a line of guardrail audit export nor a conversation" in result.output


def test_a_candidate_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "hello"}\n')

    result = run(path)

    assert result.exit_code == 2
    assert "name the candidate" in result.output
