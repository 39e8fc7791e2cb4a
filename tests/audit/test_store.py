"""The audit store on SQLite and, where one runs, PostgreSQL."""

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditReader, AuditStore, open_database
from guardrail.audit.verify import verify
from guardrail.engine.model import Action, Assertion, Decision, Destination, Disposition, Finding, RuleHit, Topic, Urgency
from guardrail.errors import ConfigError, StoreError

POSTGRES = "postgresql://postgres@127.0.0.1:5432/test"


def postgres_runs() -> bool:
    try:
        open_database(POSTGRES).close()
    except (StoreError, ConfigError):
        return False
    return True


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/audit.db"
        return
    if not postgres_runs():
        pytest.skip("no PostgreSQL with a database named test on 127.0.0.1:5432")
    schema = f"guardrail_{uuid.uuid4().hex[:12]}"
    admin = open_database(POSTGRES)
    admin.execute(f"CREATE SCHEMA {schema}")
    yield f"{POSTGRES}?options=-csearch_path%3D{schema}"
    admin.execute(f"DROP SCHEMA {schema} CASCADE")
    admin.close()


def exchange(number: int, urgency: Urgency = Urgency.EMERGENCY, text: str = "my chest is tight") -> ExchangeRecord:
    finding = Finding("chest_pain", 0, 3, 17, "chest is tight", Assertion())
    destination = Destination.AMBULANCE if urgency is Urgency.EMERGENCY else Destination.NONE
    hit = RuleHit("acs", "Chest pain", "cardiac", Disposition(urgency, destination), frozenset({Topic.ACUTE}), (finding,))
    decision = Decision(
        hit.disposition, frozenset({Topic.ACUTE}), Action.ANSWER, (hit,), (finding,), "Call.", "rev", "en", "GB"
    )
    return ExchangeRecord(
        f"id{number:06}", 1_000.0 + number, "chat_completions", Outcome.ANSWERED, decision, patient="patient-7", texts=(text,)
    )


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


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("UPDATE entries SET body = ? WHERE seq = 2", "entry 2 (id000001): was changed"),
        ("DELETE FROM entries WHERE seq = 2", "entries 2 to 2 are missing"),
        ("UPDATE entries SET hash = before_hash WHERE seq = 2", "was changed"),
    ],
)
def test_verify_finds_an_edit_and_a_deletion(url: str, damage: str, complaint: str) -> None:
    store = AuditStore(url)
    for number in range(4):
        store.record(exchange(number))
    store.close()

    database = open_database(url)
    database.write([(damage, [(b"{}",)] if "?" in damage else [()])])
    database.close()
    reader = AuditReader(url)
    found = verify(reader.chains())
    reader.close()

    assert complaint in "\n".join(found.problems)


def test_verify_finds_truncation_with_heads_kept_elsewhere(url: str) -> None:
    store = AuditStore(url)
    for number in range(4):
        store.record(exchange(number))
    store.close()
    reader = AuditReader(url)
    heads = verify(reader.chains()).heads

    database = open_database(url)
    database.write([("DELETE FROM entries WHERE seq > ?", [(2,)])])
    database.close()
    found = verify(reader.chains(), heads)
    reader.close()

    assert "ends at 2, but reached 4 before" in found.problems[0]


def test_purge_erases_content_and_the_chain_still_holds(url: str) -> None:
    store = AuditStore(url)
    for number in range(4):
        store.record(exchange(number))
    store.close()
    reader = AuditReader(url)

    erased = reader.purge(before=1_001.5)

    found = verify(reader.chains())
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


@pytest.mark.parametrize(("policy", "kept"), [("absent", None), ("redacted", ["I am [name] on [phone]"]), ("plain", None)])
def test_words_are_kept_only_as_configured(tmp_path: Path, policy: str, kept: list[str] | None) -> None:
    words = "I am Mr Canary Testname on 07700 900123"
    store = AuditStore(f"sqlite:///{tmp_path}/audit.db", text=policy)  # type: ignore[arg-type]  # parametrised
    store.record(exchange(1, text=words))
    store.close()

    stored = sqlite3.connect(tmp_path / "audit.db").execute("SELECT body FROM entries").fetchone()[0].decode()

    assert ("Canary" in stored) is (policy == "plain")
    assert "patient-7" not in stored
    if kept:
        assert kept[0] in stored


def test_reviews_are_kept_in_order(url: str) -> None:
    reader = AuditReader(url)
    reader.review("id1", "acknowledged", None, None, "nurse")
    reader.review("id1", "resolved", "false_alarm", "a film", "nurse")

    assert [(r["state"], r["verdict"]) for r in reader.reviews("id1")] == [("acknowledged", None), ("resolved", "false_alarm")]
    reader.close()


def test_an_unknown_url_is_an_error_that_shows_what_to_write() -> None:
    with pytest.raises(ConfigError, match="sqlite:///path or postgresql://"):
        open_database("mysql://root@localhost/x")
