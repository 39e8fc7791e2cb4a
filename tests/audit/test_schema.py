"""Stores of every version come up to date in place, and go back, on both databases."""

import threading

import pytest

from guardrail.audit.chain import Chain, columns
from guardrail.audit.database import Database, open_database
from guardrail.audit.entry import canonical, entry_of
from guardrail.audit.reader import AuditReader
from guardrail.audit.schema import MIGRATIONS, migrate, version
from guardrail.audit.store import AuditStore
from guardrail.audit.verify import verify
from guardrail.engine.model import Urgency
from guardrail.errors import StoreError
from tests.audit.records import exchange

NEWEST = len(MIGRATIONS)
# As version 1 wrote it.
_INSERT = """INSERT INTO entries (writer, seq, id, at, kind, urgency, destination, action, outcome, tenant, body, before_hash, hash)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_REVIEW = "INSERT INTO reviews (id, at, state, verdict, comment, reviewer) VALUES (?, ?, ?, ?, ?, ?)"


def store_of_version_1(url: str, *, marked: bool) -> None:
    """Six exchanges: two erased, one resolved. The first release did not write the version down (`marked`)."""
    database = open_database(url, migrate=False)
    migrate(database, 1)
    chain = Chain()
    rows = []
    for number in range(6):
        record = exchange(number, Urgency.ROUTINE if number == 5 else Urgency.EMERGENCY)
        entry = {name: value for name, value in entry_of(record, b"key").items() if name != "turns"}
        row = chain.add(entry)
        assert row[:2] == (chain.writer, number + 1)
        assert row[2:10] == columns(entry)
        rows.append(row[:13])
    database.write([(_INSERT, rows), (_REVIEW, [("id000003", 2_000.0, "resolved", "right", None, "nurse")])])
    database.write([("UPDATE entries SET body = NULL, tenant = NULL, kind = 'erased' WHERE seq <= ?", [(2,)])])
    if not marked:
        database.execute("DROP TABLE about")
    database.close()


def tables(database: Database) -> dict[str, list[tuple[str, ...]]]:
    """What each table of the first version holds."""
    return {
        "entries": database.execute("SELECT writer, seq, id, at, kind, urgency, destination, hash FROM entries ORDER BY writer, seq"),
        "reviews": database.execute("SELECT id, state, verdict, reviewer FROM reviews ORDER BY at"),
    }


@pytest.mark.parametrize("marked", [True, False])
def test_an_old_store_is_brought_up_to_date_when_it_is_opened(url: str, marked: bool) -> None:
    store_of_version_1(url, marked=marked)

    reader = AuditReader(url)
    found = verify(reader.chains(), seals=reader.seals())

    assert [e["id"] for e in reader.list_entries()] == ["id000005", "id000004", "id000003", "id000002"]
    assert [e["id"] for e in reader.list_entries(rule="acs")] == ["id000005", "id000004", "id000003", "id000002"]
    assert [e["id"] for e in reader.list_entries(urgency_at_least=3)] == ["id000004", "id000003", "id000002"]
    assert [e["id"] for e in reader.unresolved()] == ["id000004", "id000002"]
    assert sum(count for *_, count in reader.counts(0.0, 300)) == 4
    assert reader.verdicts() == {"acs": {"right": 1}}
    assert (found.problems, found.erased) == ([], 2)
    reader.close()


def test_an_upgraded_store_takes_new_records(url: str) -> None:
    store_of_version_1(url, marked=False)

    store = AuditStore(url)
    store.record(exchange(9))
    store.close()

    reader = AuditReader(url)
    assert [e["id"] for e in reader.list_entries(limit=2)] == ["id000009", "id000005"]
    assert verify(reader.chains(), seals=reader.seals()).problems == []
    reader.close()


def test_a_store_goes_down_and_up_again_and_keeps_what_both_versions_hold(url: str) -> None:
    store_of_version_1(url, marked=True)
    database = open_database(url)
    before = tables(database)

    assert migrate(database, 1) == (NEWEST, 1)
    at_the_bottom, bottom = tables(database), version(database)
    assert migrate(database) == (1, NEWEST)

    assert bottom == 1
    assert at_the_bottom == before
    assert tables(database) == before
    database.close()


def test_every_step_can_be_undone(url: str) -> None:
    database = open_database(url)

    for reached in range(NEWEST - 1, -1, -1):
        migrate(database, reached)
        assert version(database) == reached
    assert migrate(database) == (0, NEWEST)

    database.close()


def test_replicas_that_start_at_once_upgrade_once(url: str) -> None:
    store_of_version_1(url, marked=False)
    problems: list[BaseException] = []

    def start() -> None:
        try:
            open_database(url).close()
        except StoreError as error:
            problems.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    reader = AuditReader(url)
    assert sum(count for *_, count in reader.counts(0.0, 300)) == 4
    reader.close()


def test_a_store_that_is_newer_than_the_program_is_refused(url: str) -> None:
    open_database(url).close()
    database = open_database(url, migrate=False)
    database.execute("UPDATE about SET value = ? WHERE name = 'schema'", [str(NEWEST + 1)])
    database.close()

    with pytest.raises(StoreError, match=f"has schema {NEWEST + 1}, this program knows {NEWEST}"):
        open_database(url)


def test_a_step_that_fails_leaves_the_store_as_it_was(url: str) -> None:
    store_of_version_1(url, marked=True)
    database = open_database(url, migrate=False)
    database.execute("CREATE TABLE waiting (something TEXT)")  # in the way of version 2
    before = tables(database)

    with pytest.raises(StoreError, match="waiting"):
        migrate(database)

    assert (version(database), tables(database)) == (1, before)
    database.execute("DROP TABLE waiting")
    assert migrate(database) == (1, NEWEST)
    database.close()


def test_a_body_is_spelt_as_it_was(url: str) -> None:
    """The hash covers the spelling: an entry that is read and written again must be the same bytes."""
    store_of_version_1(url, marked=True)
    reader = AuditReader(url)

    entry = reader.entry("id000004")

    assert entry is not None
    assert [bytes(row.body or b"") for row in reader.chains() if row.id == "id000004"] == [canonical(entry)]
    reader.close()
