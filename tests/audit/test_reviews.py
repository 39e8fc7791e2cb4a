"""Verdicts and acknowledgements are entries of the record: who changes what is shown of them, or the entries, is found out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from guardrail.audit.chain import Chain, insert_statements
from guardrail.audit.database import Database, open_database
from guardrail.audit.entry import canonical, review_entry
from guardrail.audit.export import read_lines, seals_among, write_line
from guardrail.audit.keys import SigningKey
from guardrail.audit.reader import AuditReader
from guardrail.audit.schema import migrate
from guardrail.audit.store import AuditStore
from guardrail.audit.verify import Verification, verify
from tests.audit.records import exchange

KEY = SigningKey.new()


@pytest.fixture
def reviewed(url: str) -> str:
    """Three exchanges; the first acknowledged and found to be a false alarm, the second right."""
    store = AuditStore(url, signing=KEY)
    for number in range(3):
        store.record(exchange(number))
    store.close()
    reader = AuditReader(url, signing=KEY)
    reader.review("id000000", "acknowledged", None, None, "nurse")
    reader.review("id000000", "resolved", "false_alarm", "a film", "nurse")
    reader.review("id000001", "resolved", "right", None, "doctor")
    reader.close()
    return url


def check(url: str) -> Verification:
    reader = AuditReader(url)
    try:
        return verify(reader.chains(), seals=reader.seals(), keys=[KEY.public], shown_reviews=reader.shown_reviews())
    finally:
        reader.close()


def check_export(url: str, path: Path) -> Verification:
    reader = AuditReader(url)
    path.write_bytes(b"".join(write_line(row) for row in reader.chains()))
    reader.close()
    return verify(read_lines(path), seals=seals_among(read_lines(path)), keys=[KEY.public])


def test_reviews_verify_in_the_store_and_in_an_export(reviewed: str, tmp_path: Path) -> None:
    for found in (check(reviewed), check_export(reviewed, tmp_path / "export.jsonl")):
        assert (found.problems, found.reviews, found.taken_over, found.open) == ([], 3, 0, set())


def test_what_is_resolved_waits_no_longer(reviewed: str) -> None:
    reader = AuditReader(reviewed)

    waiting = [entry["id"] for entry in reader.unresolved()]
    verdicts = reader.verdicts()

    reader.close()
    assert waiting == ["id000002"]
    assert verdicts == {"acs": {"false_alarm": 1, "right": 1}}


SHOWN: dict[str, tuple[str, str]] = {
    "a verdict": ("UPDATE reviews SET verdict = 'right' WHERE verdict = 'false_alarm'", "right by nurse is shown, and was not written so"),
    "a comment": (
        "UPDATE reviews SET comment = 'no film' WHERE comment = 'a film'",
        "false_alarm by nurse is shown, and was not written so",
    ),
    "who it was": ("UPDATE reviews SET reviewer = 'nurse' WHERE reviewer = 'doctor'", "right by nurse is shown, and was not written so"),
    "a review taken away": ("DELETE FROM reviews WHERE verdict = 'right'", "right by doctor was written, and is not shown"),
    "one made up": (
        "INSERT INTO reviews (id, at, state, verdict, reviewer) VALUES ('id000002', 9, 'resolved', 'right', 'nobody')",
        "exchange id000002: right by nobody is shown, and was not written so",
    ),
}


@pytest.mark.parametrize("what", SHOWN)
def test_a_change_of_what_is_shown_is_found(reviewed: str, what: str) -> None:
    sql, problem = SHOWN[what]
    database = open_database(reviewed)
    database.execute(sql)
    database.close()

    assert any(problem in line for line in check(reviewed).problems)


def edit(database: Database) -> None:
    ((writer, seq, body),) = database.execute("SELECT writer, seq, body FROM entries WHERE kind = 'review' AND exchange = 'id000001'")
    changed = bytes(body).replace(b'"right"', b'"missed"')
    database.write([("UPDATE entries SET body = ? WHERE writer = ? AND seq = ?", [(changed, writer, seq)])])


def forge(database: Database) -> None:
    entry = review_entry("id000002", "resolved", "right", None, "nobody", rule="acs", at=5_000_000_000.0)
    database.write(insert_statements([Chain().add(entry)]))


def cut(database: Database) -> None:
    ((writer,),) = database.execute("SELECT DISTINCT writer FROM entries WHERE kind = 'review'")
    database.execute("DELETE FROM entries WHERE writer = ? AND seq > 2", [writer])
    database.execute("DELETE FROM reviews WHERE verdict IS NOT NULL")


@pytest.mark.parametrize(
    ("attack", "problem"),
    [(edit, "was changed"), (forge, "has no seal, though others had begun to seal")],
)
def test_a_change_of_the_entries_is_found(reviewed: str, tmp_path: Path, attack: Callable[[Database], None], problem: str) -> None:
    database = open_database(reviewed)
    attack(database)
    database.close()

    for found in (check(reviewed), check_export(reviewed, tmp_path / "export.jsonl")):
        assert any(problem in line for line in found.problems)


def test_an_end_that_was_cut_off_with_what_is_shown_of_it_is_found_by_heads_kept_before(reviewed: str) -> None:
    heads = check(reviewed).heads
    database = open_database(reviewed)
    cut(database)
    database.execute("DELETE FROM reviews WHERE id = 'id000001'")
    database.close()

    reader = AuditReader(reviewed)
    found = verify(reader.chains(), seals=reader.seals(), keys=[KEY.public], kept_heads=heads)
    reader.close()

    assert any("but reached" in line for line in found.problems)


def test_a_seal_of_a_neighbour_misses_reviews_that_were_removed(reviewed: str) -> None:
    later = AuditReader(reviewed, signing=KEY)
    later.review("id000002", "acknowledged", None, None, "doctor")
    later.close()
    database = open_database(reviewed)
    ((writer,),) = database.execute("SELECT writer FROM entries WHERE kind = 'review' AND exchange = 'id000001'")
    database.execute("DELETE FROM entries WHERE writer = ?", [writer])
    database.execute("DELETE FROM reviews WHERE id <> 'id000002'")
    database.close()

    assert any(f"writer {writer}: ends at 0, but reached" in line for line in check(reviewed).problems)


def test_erasing_an_exchange_erases_what_was_said_of_it(reviewed: str, tmp_path: Path) -> None:
    reader = AuditReader(reviewed)

    erased = reader.purge(Chain(KEY), "admin", exchange="id000000")

    bodies = b"".join(row.body or b"" for row in reader.chains())
    shown = reader.reviews("id000000")
    reader.close()
    assert (erased, shown) == (1, [])
    assert b"a film" not in bodies
    for found in (check(reviewed), check_export(reviewed, tmp_path / "export.jsonl")):
        assert (found.problems, found.reviews) == ([], 1)


def test_a_review_that_the_store_refuses_leaves_no_trace_and_the_next_is_kept(url: str) -> None:
    reader = AuditReader(url, signing=KEY)
    reader.review("id1", "acknowledged", None, None, "nurse")
    with pytest.raises(TypeError):
        reader.review("id1", "resolved", "right", "half a pair \ud83d", "nurse")
    reader.review("id1", "resolved", "right", None, "nurse")
    reader.close()

    found = check(url)

    assert (found.problems, found.reviews) == ([], 2)


def store_of_version_2(url: str) -> None:
    """As it was when verdicts stood in a table only, in a record with seals."""
    store = AuditStore(url, signing=KEY)
    for number in range(3):
        store.record(exchange(number))
    store.close()
    database = open_database(url, migrate=False)
    migrate(database, 2)
    kept = "INSERT INTO reviews (id, at, state, verdict, comment, reviewer, rule) VALUES (?, ?, ?, ?, ?, ?, ?)"
    rows = [
        ("id000000", 2_000.0001234, "acknowledged", None, None, "nurse", "acs"),
        ("id000000", 2_001.5, "resolved", "false_alarm", "a film", "nurse", "acs"),
    ]
    database.write([(kept, rows), ("DELETE FROM waiting WHERE id = ?", [("id000000",)])])
    database.close()


def test_reviews_of_an_older_store_become_entries_and_are_counted_as_not_sealed(url: str, tmp_path: Path) -> None:
    store_of_version_2(url)

    reader = AuditReader(url)
    reviews = reader.reviews("id000000")
    waiting = [entry["id"] for entry in reader.unresolved()]
    reader.close()

    assert [(r["state"], r["verdict"], r["comment"]) for r in reviews] == [
        ("acknowledged", None, None),
        ("resolved", "false_alarm", "a film"),
    ]
    assert waiting == ["id000002", "id000001"]
    for found in (check(url), check_export(url, tmp_path / "export.jsonl")):
        assert (found.problems, found.reviews, found.taken_over) == ([], 2, 2)


def test_going_back_and_forth_loses_no_review_and_enters_none_twice(reviewed: str) -> None:
    database = open_database(reviewed)
    assert migrate(database, 2) == (3, 2)
    kept = "INSERT INTO reviews (id, at, state, reviewer, rule) VALUES ('id000002', 9000.5, 'acknowledged', 'old', 'acs')"
    database.execute(kept)
    shown_by_older = sorted(row[0] for row in database.execute("SELECT id FROM reviews"))
    assert migrate(database) == (2, 3)
    database.close()

    found = check(reviewed)

    assert shown_by_older == ["id000000", "id000000", "id000001", "id000002"]
    assert (found.problems, found.reviews, found.taken_over) == ([], 4, 1)


def test_entries_are_spelt_in_the_one_way(reviewed: str) -> None:
    database = open_database(reviewed)
    ((body,),) = database.execute("SELECT body FROM entries WHERE kind = 'review' AND exchange = 'id000001'")
    ((id, at),) = database.execute("SELECT id, at FROM entries WHERE kind = 'review' AND exchange = 'id000001'")
    database.close()

    entry = review_entry("id000001", "resolved", "right", None, "doctor", rule="acs", at=at)

    assert bytes(body) == canonical({**entry, "id": id})
