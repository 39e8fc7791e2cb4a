"""Whoever tampers with the record is found out: each way is done here, on both databases and on an export."""

from collections.abc import Callable
from pathlib import Path

import pytest

from guardrail.audit.chain import Chain, insert_statements
from guardrail.audit.database import Database, open_database
from guardrail.audit.entry import canonical, entry_of, link
from guardrail.audit.export import read_lines, seals_among, write_line
from guardrail.audit.keys import SigningKey
from guardrail.audit.reader import AuditReader
from guardrail.audit.row import COLUMNS, Row
from guardrail.audit.store import AuditStore
from guardrail.audit.verify import Verification, verify
from tests.audit.records import exchange

KEY = SigningKey.new()
COUNT = 5


def keep(url: str, first: int = 0, signing: SigningKey | None = KEY, seal_seconds: float = 0.0) -> str:
    """Five exchanges of one process, with a seal behind each batch, and at its end; the writer."""
    before = set(check(url, signed=False).heads)
    store = AuditStore(url, signing=signing, seal_seconds=seal_seconds)
    for number in range(first, first + COUNT):
        store.record(exchange(number))
        assert store.flush()
    store.close()
    (writer,) = set(check(url, signed=False).heads) - before
    return writer


def check(url: str, *, signed: bool = True) -> Verification:
    reader = AuditReader(url)
    try:
        return verify(reader.chains(), seals=reader.seals(), keys=[KEY.public] if signed else [])
    finally:
        reader.close()


def check_export(url: str, path: Path) -> Verification:
    """The same on an export, far from the store."""
    reader = AuditReader(url)
    path.write_bytes(b"".join(write_line(row) for row in reader.chains()))
    reader.close()
    return verify(read_lines(path), seals=seals_among(read_lines(path)), keys=[KEY.public])


def rows_of(database: Database, writer: str) -> list[Row]:
    sql = f"SELECT {COLUMNS} FROM entries WHERE writer = ? ORDER BY seq"
    return [Row(*values) for values in database.execute(sql, [writer])]


def replace_all(database: Database, writer: str, rows: list[Row]) -> None:
    database.write([("DELETE FROM entries WHERE writer = ?", [(writer,)])])
    marks = ", ".join("?" * len(Row._fields))
    database.write([(f"INSERT INTO entries ({COLUMNS}) VALUES ({marks})", rows)])


def made_over(rows: list[Row]) -> list[Row]:
    """The rows with all hashes computed anew, by somebody who knows how but has no key."""
    before = "0" * 64
    found = []
    for number, row in enumerate(rows, 1):
        digest = link(before, bytes(row.body or b""))
        found.append(row._replace(seq=number, before=before, hash=digest))
        before = digest
    return found


# What somebody with full access to the store may do to the chain of a writer.


def edit(database: Database, writer: str) -> None:
    database.write([("UPDATE entries SET body = ? WHERE writer = ? AND seq = 2", [(b'{"kind":"exchange"}', writer)])])


def edit_columns(database: Database, writer: str) -> None:
    database.write([("UPDATE entries SET urgency = 0 WHERE writer = ? AND kind = 'exchange'", [(writer,)])])


def hide_a_seal(database: Database, writer: str) -> None:
    database.write([("UPDATE entries SET kind = 'exchange' WHERE writer = ? AND kind = 'seal'", [(writer,)])])


def delete(database: Database, writer: str) -> None:
    database.write([("DELETE FROM entries WHERE writer = ? AND seq = 3", [(writer,)])])


def delete_the_first(database: Database, writer: str) -> None:
    database.write([("DELETE FROM entries WHERE writer = ? AND seq <= 2", [(writer,)])])


def erase_without_record(database: Database, writer: str) -> None:
    database.write([("UPDATE entries SET body = NULL, kind = 'erased' WHERE writer = ? AND seq = 1", [(writer,)])])


def insert(database: Database, writer: str) -> None:
    rows = rows_of(database, writer)
    forged = rows[0]._replace(id="forged")
    replace_all(database, writer, [row._replace(seq=n) for n, row in enumerate([*rows[:3], forged, *rows[3:]], 1)])


def insert_and_make_over(database: Database, writer: str) -> None:
    rows = rows_of(database, writer)
    body = canonical({**entry_of(exchange(77), b"")})
    replace_all(database, writer, made_over([*rows[:3], rows[0]._replace(id="id000077", at=1_077.0, body=body), *rows[3:]]))


def reorder(database: Database, writer: str) -> None:
    rows = rows_of(database, writer)
    rows[0], rows[2] = rows[2]._replace(seq=1), rows[0]._replace(seq=3)
    replace_all(database, writer, rows)


def reorder_and_make_over(database: Database, writer: str) -> None:
    rows = rows_of(database, writer)
    rows[0], rows[2] = rows[2], rows[0]
    replace_all(database, writer, made_over(rows))


def truncate_behind_a_seal(database: Database, writer: str) -> None:
    """The closing seal goes, and what stood before it."""
    database.write([("DELETE FROM entries WHERE writer = ? AND seq >= ?", [(writer, len(rows_of(database, writer)) - 1)])])


def remove_the_whole_chain(database: Database, writer: str) -> None:
    database.write([("DELETE FROM entries WHERE writer = ?", [(writer,)]), ("DELETE FROM chains WHERE writer = ?", [(writer,)])])


def make_over_without_seals(database: Database, writer: str) -> None:
    replace_all(database, writer, made_over([row for row in rows_of(database, writer) if row.kind != "seal"]))


def add_behind_the_end(database: Database, writer: str) -> None:
    rows = rows_of(database, writer)
    chain = Chain(writer=writer)
    for row in rows:
        chain._before, chain.seq = row.hash, row.seq
    database.write(insert_statements([chain.add(entry_of(exchange(99), b""))]))


def add_a_chain_of_ones_own(database: Database, writer: str) -> None:
    chain = Chain()
    entry = {**entry_of(exchange(98), b""), "at": 9_999_999_999.0}
    database.write(insert_statements([chain.add(entry)]))


def forge_an_erasure(database: Database, writer: str) -> None:
    chain = Chain()
    entry = {"kind": "erasure", "id": "x", "at": 9_999_999_999.0, "by": "admin", "ranges": {writer: [[1, 1]]}}
    erase_without_record(database, writer)
    database.write(insert_statements([chain.add(entry)]))


def seal_with_another_key(database: Database, writer: str) -> None:
    rows = [row for row in rows_of(database, writer) if row.kind != "seal"]
    chain = Chain(SigningKey.new(), writer)
    fresh = [row for old in rows for row in (chain.add(entry_of(exchange(int(old.id[2:])), b"")), *chain.seal({}))]
    replace_all(database, writer, fresh)


ATTACKS: list[tuple[Callable[[Database, str], None], str]] = [
    (edit, "entry 2 (.*): was changed"),
    (edit_columns, "is shown otherwise than it was written"),
    (hide_a_seal, "is shown otherwise than it was written"),
    (delete, "entries 3 to 3 are missing"),
    (delete_the_first, "entries 1 to 2 are missing"),
    (erase_without_record, "entry 1 (.*): was erased, and no record says so"),
    (insert, "does not follow the entry before it"),
    (insert_and_make_over, "this seal carries no good signature"),
    (reorder, "does not follow the entry before it"),
    (reorder_and_make_over, "this seal carries no good signature"),
    (truncate_behind_a_seal, "but reached .* before, say the seals of writer"),
    (remove_the_whole_chain, "ends at 0, but reached .* before, say the seals of writer"),
    (make_over_without_seals, "has no seal, though others had begun to seal|ends at .* but reached"),
    (add_behind_the_end, "behind its closing seal"),
    (add_a_chain_of_ones_own, "has no seal, though others had begun to seal"),
    (forge_an_erasure, "this record of an erasure is not sealed"),
    (seal_with_another_key, "was made with a key that was not given"),
]


@pytest.fixture
def attacked(url: str) -> tuple[str, str]:
    """A store with two writers, one after the other, and the first of them: the second's seals saw its end."""
    writer = keep(url)
    keep(url, COUNT)
    assert check(url).problems == []
    return url, writer


@pytest.mark.parametrize(("attack", "complaint"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_tampering_is_found_in_the_store_and_in_an_export(
    attacked: tuple[str, str], tmp_path: Path, attack: Callable[[Database, str], None], complaint: str
) -> None:
    url, writer = attacked
    database = open_database(url)
    attack(database, writer)
    database.close()

    found = check(url)
    offline = check_export(url, tmp_path / "export.jsonl")

    assert_matches(complaint, found)
    if attack not in (edit_columns, hide_a_seal):
        assert_matches(complaint, offline)


def assert_matches(complaint: str, found: Verification) -> None:
    with pytest.raises(AssertionError, match=complaint):
        raise AssertionError("\n".join(found.problems))


@pytest.mark.parametrize("lines", [1, 2, 5])
def test_an_export_that_was_cut_short_is_found_out(attacked: tuple[str, str], tmp_path: Path, lines: int) -> None:
    url, _ = attacked
    path = tmp_path / "export.jsonl"
    assert check_export(url, path).problems == []

    kept = path.read_bytes().splitlines(keepends=True)[lines:]
    path.write_bytes(b"".join(kept))

    assert verify(read_lines(path), seals=seals_among(read_lines(path)), keys=[KEY.public]).problems != []


def test_columns_that_an_export_does_not_hold_cannot_lie_there(attacked: tuple[str, str], tmp_path: Path) -> None:
    """An export takes urgency and the like from the entry itself."""
    url, writer = attacked
    database = open_database(url)
    edit_columns(database, writer)
    database.close()

    check_export(url, tmp_path / "export.jsonl")

    assert {row.urgency for row in read_lines(tmp_path / "export.jsonl") if row.kind == "exchange"} == {3}


def test_an_end_behind_the_last_seal_is_counted_and_found_with_heads(url: str) -> None:
    """A process that was killed leaves no closing seal: what its last entries were, only heads kept elsewhere can tell."""
    writer = keep(url, signing=KEY, seal_seconds=3600.0)
    database = open_database(url)
    database.write([("DELETE FROM entries WHERE writer = ? AND seq = ?", [(writer, COUNT + 2)])])  # as if it had been killed
    heads = check(url).heads
    database.write([("DELETE FROM entries WHERE writer = ? AND seq > ?", [(writer, 4)])])
    database.close()

    found = check(url)
    reader = AuditReader(url)
    with_heads = verify(reader.chains(), seals=reader.seals(), keys=[KEY.public], kept_heads=heads)
    reader.close()

    assert (found.problems, found.unsealed, found.open) == ([], 2, {writer})
    assert with_heads.problems == [f"writer {writer}: ends at 4, but reached {COUNT + 1} before, say the heads kept before"]


def test_without_a_key_only_the_hashes_are_checked(attacked: tuple[str, str]) -> None:
    url, writer = attacked
    database = open_database(url)
    seal_with_another_key(database, writer)
    database.close()

    assert all("ends at" in p or "is not the one" in p for p in check(url, signed=False).problems)


def test_what_was_kept_before_sealing_began_is_no_problem(url: str) -> None:
    keep(url, signing=None)
    keep(url, COUNT)

    found = check(url)

    assert found.problems == []
    assert found.unsealed == COUNT


def test_erasing_is_recorded_and_the_record_of_it_is_sealed(url: str) -> None:
    keep(url)
    reader = AuditReader(url)

    assert reader.purge(Chain(KEY), "admin", before=1_002.5) == 3
    assert reader.purge(Chain(KEY), "admin", exchange="id000004") == 1
    assert reader.purge(Chain(KEY), "admin", exchange="id000004") == 0

    found = check(url)
    left = [e["id"] for e in reader.list_entries()]
    reader.close()
    assert (found.problems, found.erased, found.open) == ([], 4, set())
    assert left == ["id000003"]
