"""The journal: what was answered and is not in the spool yet."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from guardrail.audit.entry import noted_entry
from guardrail.audit.journal import SLOT_BYTES, SLOTS, Journal, journal_path, left_journals
from guardrail.audit.keys import SigningKey
from guardrail.audit.reader import AuditReader
from guardrail.audit.store import AuditStore
from guardrail.audit.verify import verify
from guardrail.engine.model import Urgency
from tests.audit.records import exchange


def bare(number: int) -> dict[str, Any]:
    return noted_entry(exchange(number), b"")


def leave(journal: Journal, kept: Path) -> None:
    """As a kill leaves it: the file stays, its lock is free."""
    path = journal._path
    content = path.read_bytes()
    journal.forget(list(journal._taken))
    journal.close()
    kept.write_bytes(content)


def left(spool: Path) -> list[str]:
    return [entry["id"] for journal in left_journals(spool) for entry in journal.entries()]


def test_what_was_noted_and_not_forgotten_is_found_when_the_process_is_gone(tmp_path: Path) -> None:
    path = journal_path(tmp_path / "spool", "w")
    journal = Journal(path)
    assert [journal.note(bare(number)) for number in range(4)] == [True] * 4
    journal.forget(["id000001", "id000002", "never noted"])
    assert left(tmp_path / "spool") == [], "its process lives"

    leave(journal, path)

    assert left(tmp_path / "spool") == ["id000000", "id000003"]


def test_a_journal_is_not_read_before_the_spool_of_its_process_was_brought_in(tmp_path: Path) -> None:
    path = journal_path(tmp_path / "spool", "w")
    journal = Journal(path)
    journal.note(bare(1))
    leave(journal, path)
    (tmp_path / "spool-w").touch()

    assert left(tmp_path / "spool") == []


def test_rules_are_noted_and_not_what_was_found(tmp_path: Path) -> None:
    path = journal_path(tmp_path / "spool", "w")
    journal = Journal(path)
    record = exchange(1)
    assert record.decision is not None
    long = replace(record, decision=replace(record.decision, findings=record.decision.findings * 1000))

    assert journal.note(noted_entry(long, b""))

    leave(journal, path)
    (found,) = (entry for journal in left_journals(tmp_path / "spool") for entry in journal.entries())
    assert (found["decision"]["urgency"], found["decision"]["rules"][0]["id"]) == ("emergency", "acs")
    assert found["decision"]["findings"] == []


def test_a_slot_torn_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = journal_path(tmp_path / "spool", "w")
    journal = Journal(path)
    journal.note(bare(1))
    journal.note(bare(2))
    leave(journal, path)
    content = bytearray(path.read_bytes())
    content[SLOT_BYTES + 100 : SLOT_BYTES + 103] = b"???"
    path.write_bytes(content)

    assert left(tmp_path / "spool") == ["id000001"]


def test_a_full_journal_says_so_once_and_works_again_when_there_is_room(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert all(journal.note(bare(number)) for number in range(SLOTS))

    with capture_logs() as logs:
        refused = [journal.note(bare(SLOTS)), journal.note(bare(SLOTS + 1))]
    journal.forget(["id000000"])

    assert refused == [False, False]
    assert [line["event"] for line in logs if line.get("alarm")] == ["audit_journal_not_writable"]
    assert journal.note(bare(SLOTS))
    assert journal.note(bare(SLOTS)), "the same exchange takes no second slot"
    journal.close()


def test_where_no_journal_can_be_written_exchanges_are_recorded_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = AuditStore(f"sqlite:///{tmp_path}/audit.db", spool=tmp_path / "file" / "spool")
    store.note(exchange(1))
    store.record(exchange(1))
    store.close()

    reader = AuditReader(f"sqlite:///{tmp_path}/audit.db")
    assert [entry["id"] for entry in reader.list_entries()] == ["id000001"]
    reader.close()


@pytest.mark.parametrize("names", [{"model": "half a pair \ud83d"}, {"patient": "half a pair \ud83d"}, {"tenant": "half a pair \ud83d"}])
def test_a_name_that_is_no_text_does_not_reach_into_the_exchange(tmp_path: Path, names: dict[str, Any]) -> None:
    store = AuditStore(f"sqlite:///{tmp_path}/audit.db")

    store.note(replace(exchange(1), **names))

    store.close()


def test_what_a_killed_process_had_answered_is_entered_once_without_words(url: str, tmp_path: Path) -> None:
    spool, path = tmp_path / "spool", journal_path(tmp_path / "spool", "killed")
    before = AuditStore(url, spool=spool)
    before.record(exchange(1))
    before.close()
    journal = Journal(path)
    for number in (1, 2):  # the first had reached the store
        journal.note(bare(number))
    leave(journal, path)

    key = SigningKey.new()
    AuditStore(url, spool=spool, signing=key).close()
    AuditStore(url, spool=spool, signing=key).close()

    reader = AuditReader(url)
    entries = {entry["id"]: entry for entry in reader.list_entries()}
    found = verify(reader.chains(), seals=reader.seals(), keys=[key.public])
    waiting = reader.unresolved_count()
    reader.close()
    assert sorted(entries) == ["id000001", "id000002"]
    assert (entries["id000001"].get("recovered"), entries["id000002"]["recovered"]) == (None, True)
    assert (entries["id000002"]["texts"], entries["id000002"]["decision"]["urgency"]) == (None, Urgency.EMERGENCY.word)
    assert (found.problems, found.seals, waiting) == ([], 1, 2)
    assert not path.exists()


@pytest.mark.parametrize("policy", ["absent", "redacted"])
def test_the_journal_holds_no_words(tmp_path: Path, policy: Any) -> None:
    store = AuditStore(f"sqlite:///{tmp_path}/audit.db", policy, spool=tmp_path / "spool")
    store.note(exchange(1, text="my chest is tight, says Canary"))

    (path,) = tmp_path.glob("spool.journal-*")
    content = path.read_bytes()

    store.close()
    assert b"id000001" in content
    assert b"chest is tight" not in content
    assert b"Canary" not in content
    assert b"patient-7" not in content
