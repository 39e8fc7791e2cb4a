"""The audit store on SQLite and, where one runs, PostgreSQL."""

from pathlib import Path

import pytest

from guardrail.audit.chain import Chain
from guardrail.audit.database import open_database
from guardrail.audit.entry import TextPolicy
from guardrail.audit.keys import TextKeys, add_text_key
from guardrail.audit.reader import AuditReader
from guardrail.audit.store import AuditStore
from guardrail.audit.verify import verify
from guardrail.engine.model import Urgency
from guardrail.errors import ConfigError
from tests.audit.records import exchange


def test_what_is_recorded_can_be_read_newest_first(url: str) -> None:
    store = AuditStore(url)
    for number in range(3):
        store.record(exchange(number))
    store.close()

    reader = AuditReader(url)
    entries = reader.list_entries()
    reader.close()

    assert [e["id"] for e in entries] == ["id000002", "id000001", "id000000"]
    assert entries[0]["decision"]["rules"][0]["evidence"][0]["concept"] == "chest_pain"
    assert entries[0]["texts"] == ["my chest is tight"]


def test_filters_by_urgency_rule_and_time(url: str) -> None:
    store = AuditStore(url)
    store.record(exchange(1))
    store.record(exchange(2, Urgency.ROUTINE))
    store.close()

    reader = AuditReader(url)
    assert [e["id"] for e in reader.list_entries(urgency_at_least=3)] == ["id000001"]
    assert [e["id"] for e in reader.list_entries(after=1_001.5)] == ["id000002"]
    assert reader.list_entries(rule="stroke") == []
    assert len(reader.list_entries(rule="acs")) == 2
    reader.close()


def test_two_writers_keep_two_whole_chains(url: str) -> None:
    first, second = AuditStore(url), AuditStore(url)
    for number in range(10):
        (first if number % 2 else second).record(exchange(number))
    first.close()
    second.close()

    reader = AuditReader(url)
    found = verify(reader.chains())
    reader.close()

    assert found.problems == []
    assert sorted(seq for seq, _ in found.heads.values()) == [5, 5]


def test_purge_erases_content_and_the_chain_still_holds(url: str) -> None:
    store = AuditStore(url)
    for number in range(4):
        store.record(exchange(number))
    store.close()
    reader = AuditReader(url)

    erased = reader.purge(Chain(), "admin", before=1_001.5)

    found = verify(reader.chains(), seals=reader.seals())
    assert erased == 2
    assert (found.problems, found.erased) == ([], 2)
    assert [e["id"] for e in reader.list_entries()] == ["id000003", "id000002"]
    reader.close()


def test_entries_wait_in_the_spool_while_the_store_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.write_text("in the way of the folder")
    spool = tmp_path / "spool"
    url = f"sqlite:///{folder}/audit.db"
    store = AuditStore(url, spool=spool)
    store.record(exchange(1))
    assert store.flush()
    healthy_while_away = store.healthy
    assert len(list(tmp_path.glob("spool-*"))) == 1

    folder.unlink()
    store.record(exchange(2))
    store.close()

    reader = AuditReader(url)
    assert [e["id"] for e in reader.list_entries()] == ["id000002", "id000001"]
    assert verify(reader.chains()).problems == []
    assert (healthy_while_away, store.healthy) == (False, True)
    assert list(tmp_path.glob("spool-*")) == []
    reader.close()


def test_where_no_spool_can_be_written_entries_wait_in_memory(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.write_text("in the way of the folder")
    url = f"sqlite:///{folder}/audit.db"
    store = AuditStore(url, spool=folder / "spool")
    store.record(exchange(1))
    assert store.flush()
    assert not store.healthy

    folder.unlink()
    folder.mkdir()
    (folder / "spool-in-the-way").mkdir()
    store.record(exchange(2))
    store.close()

    reader = AuditReader(url)
    assert [e["id"] for e in reader.list_entries()] == ["id000002", "id000001"]
    assert verify(reader.chains()).problems == []
    reader.close()


def test_a_store_that_is_away_shows_before_the_first_record(tmp_path: Path) -> None:
    (tmp_path / "away").write_text("in the way of the folder")
    store = AuditStore(f"sqlite:///{tmp_path}/away/audit.db", spool=tmp_path / "spool")

    assert store.flush()

    assert not store.healthy
    store.close()


def test_a_text_that_is_no_text_does_not_hold_up_the_others(url: str) -> None:
    store = AuditStore(url)
    store.record(exchange(1, text="half a pair \ud83d"))
    store.record(exchange(2))
    store.close()

    reader = AuditReader(url)
    assert [e["id"] for e in reader.list_entries()] == ["id000002"]
    assert verify(reader.chains()).problems == []
    reader.close()


@pytest.mark.parametrize(("policy", "kept"), [("absent", None), ("redacted", "I am Mr [name] on [phone]"), ("encrypted", None)])
def test_words_are_kept_only_as_configured(tmp_path: Path, policy: TextPolicy, kept: str | None) -> None:
    add_text_key(tmp_path / "keys")
    words = "I am Mr Canary Testname on 07700 900123"
    store = AuditStore(f"sqlite:///{tmp_path}/audit.db", policy, keys=TextKeys.read(tmp_path / "keys"))
    store.record(exchange(1, text=words))
    store.close()

    stored = b"".join(path.read_bytes() for path in tmp_path.glob("audit.db*"))

    assert b"Canary" not in stored
    assert b"patient-7" not in stored
    assert kept is None or kept.encode() in stored


def test_reviews_are_kept_in_order(url: str) -> None:
    reader = AuditReader(url)
    reader.review("id1", "acknowledged", None, None, "nurse")
    reader.review("id1", "resolved", "false_alarm", "a film", "nurse")

    assert [(r["state"], r["verdict"]) for r in reader.reviews("id1")] == [("acknowledged", None), ("resolved", "false_alarm")]
    reader.close()


def test_an_unknown_url_is_an_error_that_shows_what_to_write() -> None:
    with pytest.raises(ConfigError, match="sqlite:///path or postgresql://"):
        open_database("mysql://root@localhost/x")
