"""The tables of a store, and how a store gets from one version of them to another, up and down.

A version is a place in `MIGRATIONS`, counted from 1, and stands in the table `about` under the name `schema`. To change the tables,
append a `Migration` with the statements up and down, for both databases (`{blob}` is the type of bytes); never edit one that was
released. Where the new tables must be filled from the old, add `fill`. Each step is one transaction: a process that is killed in
the middle leaves the step before. Every store is brought up to date when it is opened; `guardrail audit migrate --to N` goes down.

A store that is newer than this program is refused, not used: its tables may mean something else.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from guardrail.audit.entry import review_entry
from guardrail.audit.rollups import REVIEW_COLUMNS, Review, review_of, rollups, show_reviews
from guardrail.audit.row import Row
from guardrail.errors import StoreError

if TYPE_CHECKING:
    from guardrail.audit.database import Database


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. `down` undoes `up`; what the older tables cannot hold is lost on the way."""

    about: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    fill: "Callable[[Database], None] | None" = None


def _fill_rollups(database: "Database") -> None:
    """What the dashboard counts and searches by, from the entries that are there; and the rule that each verdict was on."""
    database.write(
        [
            (
                """INSERT INTO chains (writer, seq, hash, at)
                SELECT e.writer, e.seq, e.hash, e.at FROM entries e
                JOIN (SELECT writer, MAX(seq) AS seq FROM entries GROUP BY writer) AS last
                ON e.writer = last.writer AND e.seq = last.seq""",
                [()],
            )
        ]
    )
    resolved = {id for (id,) in database.execute("SELECT DISTINCT id FROM reviews WHERE state = 'resolved'")}
    first_rules: list[tuple[str, str]] = []
    for rows in _pages(database):
        database.write(rollups(rows, resolved))
        for row in rows:
            rules = (orjson.loads(bytes(row.body or b"{}")).get("decision") or {}).get("rules")
            if rules and row.id in resolved:
                first_rules.append((rules[0]["id"], row.id))
    database.write([("UPDATE reviews SET rule = ? WHERE id = ?", first_rules)])
    _account_for_erased(database)


def _pages(database: "Database") -> Iterator[list[Row]]:
    names = "writer, seq, id, at, kind, urgency, destination, action, outcome, tenant, body, before_hash, hash"
    sql = f"SELECT {names} FROM entries WHERE kind = 'exchange' AND (writer, seq) > (?, ?) ORDER BY writer, seq LIMIT 1000"  # noqa: S608  # our own names
    writer, seq = "", 0
    while found := database.execute(sql, [writer, seq]):
        rows = [Row(*values) for values in found]
        yield rows
        writer, seq = rows[-1].writer, rows[-1].seq


def _account_for_erased(database: "Database") -> None:
    """Version 1 erased without a record of it, and `audit verify` asks for one."""
    from guardrail.audit.chain import Chain, insert_statements, ranges

    known = [orjson.loads(bytes(body)) for (body,) in database.execute("SELECT body FROM entries WHERE kind = 'erasure'")]
    runs = {writer: runs for entry in known for writer, runs in entry["ranges"].items()}
    erased = [
        (writer, seq)
        for writer, seq in database.execute("SELECT writer, seq FROM entries WHERE kind = 'erased' ORDER BY writer, seq")
        if not any(first <= seq <= last for first, last in runs.get(writer, ()))
    ]
    if not erased:
        return
    last = database.execute("SELECT MAX(at) FROM entries")[0][0]
    chain = Chain()
    entry = {"kind": "erasure", "id": f"erasure-{chain.writer}-1", "at": last, "by": "an older version", "ranges": ranges(erased)}
    database.write(insert_statements([chain.add(entry)]))


def _chain_reviews(database: "Database") -> None:
    """Reviews that no entry holds: those from before reviews were entries, or from an older Guardrail to which the store went back."""
    from guardrail.audit.chain import Chain, insert_statements

    bodies = database.execute("SELECT body FROM entries WHERE kind = 'review' AND body IS NOT NULL")
    held = Counter(review_of(orjson.loads(bytes(body))) for (body,) in bodies)
    chain, rows, kept = Chain(), list[Row](), list[Review]()
    for id, at, state, verdict, comment, reviewer, rule in database.execute(f"SELECT {REVIEW_COLUMNS} FROM reviews ORDER BY at"):  # noqa: S608  # our own names
        entry = review_entry(id, state, verdict, comment, reviewer, rule=rule, at=at)
        shown = review_of(entry)
        if held[shown]:
            held[shown] -= 1
            kept.append(shown)
        else:
            # Marked, since nobody signed for it: `audit verify` counts these.
            rows.append(chain.add({**entry, "taken_over": True}))
    # Made anew from the entries, where times are rounded.
    database.write([("DELETE FROM reviews", [()]), *show_reviews(kept), *insert_statements(rows)])


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "entries and reviews",
        up=(
            """CREATE TABLE IF NOT EXISTS entries (
                writer TEXT NOT NULL, seq BIGINT NOT NULL, id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, kind TEXT NOT NULL,
                urgency INTEGER NOT NULL, destination TEXT NOT NULL, action TEXT NOT NULL, outcome TEXT NOT NULL, tenant TEXT,
                body {blob}, before_hash TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (writer, seq))""",
            "CREATE INDEX IF NOT EXISTS entries_at ON entries (at)",
            "CREATE INDEX IF NOT EXISTS entries_urgency ON entries (urgency, at)",
            "CREATE UNIQUE INDEX IF NOT EXISTS entries_id ON entries (id)",
            """CREATE TABLE IF NOT EXISTS reviews (
                id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, state TEXT NOT NULL, verdict TEXT, comment TEXT,
                reviewer TEXT NOT NULL)""",
            "CREATE INDEX IF NOT EXISTS reviews_id ON reviews (id, at)",
        ),
        down=("DROP TABLE reviews", "DROP TABLE entries"),
    ),
    Migration(
        "encrypted words, access, heads of chains, and what the dashboard counts",
        up=(
            "ALTER TABLE entries ADD COLUMN exchange TEXT",
            "ALTER TABLE entries ADD COLUMN words {blob}",
            "ALTER TABLE entries ADD COLUMN words_key TEXT",
            "ALTER TABLE reviews ADD COLUMN rule TEXT",
            "DROP INDEX entries_at",
            "DROP INDEX entries_urgency",
            # Not unique any more: one row that the store refuses would hold up all behind it.
            "DROP INDEX entries_id",
            "CREATE INDEX entries_id ON entries (id)",
            "CREATE INDEX entries_at ON entries (at, id) WHERE kind = 'exchange'",
            "CREATE INDEX entries_urgency ON entries (urgency, at, id) WHERE kind = 'exchange'",
            "CREATE INDEX entries_destination ON entries (destination, urgency, at, id) WHERE kind = 'exchange'",
            "CREATE INDEX entries_outcome ON entries (outcome, urgency, at, id) WHERE kind = 'exchange'",
            "CREATE INDEX entries_exchange ON entries (exchange, at) WHERE exchange IS NOT NULL",
            "CREATE INDEX entries_words_key ON entries (words_key) WHERE words_key IS NOT NULL",
            """CREATE TABLE chains (
                writer TEXT PRIMARY KEY, seq BIGINT NOT NULL, hash TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX chains_at ON chains (at)",
            """CREATE TABLE tallies (
                bucket BIGINT NOT NULL, writer TEXT NOT NULL, urgency INTEGER NOT NULL, destination TEXT NOT NULL, outcome TEXT NOT NULL,
                count BIGINT NOT NULL, PRIMARY KEY (bucket, writer, urgency, destination, outcome))""",
            """CREATE TABLE rule_tallies (
                day BIGINT NOT NULL, writer TEXT NOT NULL, rule TEXT NOT NULL, shadow INTEGER NOT NULL,
                count BIGINT NOT NULL, PRIMARY KEY (day, writer, rule, shadow))""",
            """CREATE TABLE hits (
                rule TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, id TEXT NOT NULL, urgency INTEGER NOT NULL,
                destination TEXT NOT NULL, outcome TEXT NOT NULL)""",
            "CREATE INDEX hits_rule ON hits (rule, at, id)",
            "CREATE INDEX hits_id ON hits (id)",
            "CREATE TABLE waiting (id TEXT PRIMARY KEY, urgency INTEGER NOT NULL, at DOUBLE PRECISION NOT NULL)",
            "CREATE INDEX waiting_order ON waiting (urgency, at, id)",
        ),
        down=(
            "DROP TABLE waiting",
            "DROP TABLE hits",
            "DROP TABLE rule_tallies",
            "DROP TABLE tallies",
            "DROP TABLE chains",
            "DROP INDEX entries_words_key",
            "DROP INDEX entries_exchange",
            "DROP INDEX entries_outcome",
            "DROP INDEX entries_destination",
            "DROP INDEX entries_urgency",
            "DROP INDEX entries_at",
            "DROP INDEX entries_id",
            "CREATE UNIQUE INDEX entries_id ON entries (id)",
            "CREATE INDEX entries_urgency ON entries (urgency, at)",
            "CREATE INDEX entries_at ON entries (at)",
            "ALTER TABLE reviews DROP COLUMN rule",
            "ALTER TABLE entries DROP COLUMN words_key",
            "ALTER TABLE entries DROP COLUMN words",
            "ALTER TABLE entries DROP COLUMN exchange",
        ),
        fill=_fill_rollups,
    ),
    # An older Guardrail finds the tables as they were; the entries stay, since chains cannot be cut.
    Migration("reviews are entries", up=(), down=(), fill=_chain_reviews),
)


def version(database: "Database") -> int:
    """The version of a store's tables; 0 where there are none. Raises StoreError where the database is not a store."""
    tables = {name for name in ("about", "entries") if _has_table(database, name)}
    if "about" in tables:
        rows = database.execute("SELECT value FROM about WHERE name = 'schema'")
        if rows:
            return int(rows[0][0])
    return 1 if "entries" in tables else 0  # the first version did not write itself down


def migrate(database: "Database", to: int | None = None) -> tuple[int, int]:
    """Bring the tables to a version, by default the newest; the versions before and after. Raises StoreError."""
    newest = len(MIGRATIONS)
    to = newest if to is None else to
    before = current = version(database)
    if current > newest:
        raise StoreError(f"the store has schema {current}, this program knows {newest}: use a newer Guardrail, or its audit migrate --to")
    if not 0 <= to <= newest:
        raise StoreError(f"there is no schema {to}; this program knows 1 to {newest}")
    while current != to:
        with database.transaction():
            database.lock_schema()
            current = version(database)  # another process may have been faster
            if current < to:
                current = _step(database, MIGRATIONS[current].up, current + 1, MIGRATIONS[current].fill)
            elif current > to:
                current = _step(database, MIGRATIONS[current - 1].down, current - 1)
    return before, current


def _step(database: "Database", statements: tuple[str, ...], reached: int, fill: "Callable[[Database], None] | None" = None) -> int:
    for statement in statements:
        database.execute(statement.format(blob=database.blob))
    if fill is not None:
        fill(database)
    database.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    database.execute("DELETE FROM about WHERE name = 'schema'")
    database.execute("INSERT INTO about (name, value) VALUES ('schema', ?)", [str(reached)])
    return reached


def _has_table(database: "Database", name: str) -> bool:
    if database.blob == "BLOB":
        return bool(database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [name]))
    # Not to_regclass: within a transaction it may remember that a table was not there.
    sql = "SELECT 1 FROM pg_catalog.pg_tables WHERE tablename = ? AND schemaname = ANY (current_schemas(false))"
    return bool(database.execute(sql, [name]))
