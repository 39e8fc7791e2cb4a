"""Where entries are kept: SQLite by default, PostgreSQL by URL. One writer thread, batches, a spool for when the store is away.

`AuditStore.record` is called on the request path: it puts the record in a bounded queue and returns. The writer thread turns
records into entries, chains them and writes them in batches, each in one transaction. While the store refuses, entries go to
a spool file beside it, in order, and are replayed when it is back; `healthy` says so meanwhile. Nothing here ever raises
into an exchange.
"""

import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import orjson
import structlog

from guardrail.audit.entry import START, TextPolicy, canonical, entry_of, link
from guardrail.audit.record import ExchangeRecord
from guardrail.errors import ConfigError, StoreError

SCHEMA = 1
QUEUE_LENGTH = 20_000  # about 20 s of a busy worker; beyond it records go straight to the spool
BATCH = 500
RETRY_SECONDS = 1.0

log = structlog.get_logger("guardrail")

Row = tuple[str, int, str, float, str, int, str, str, str, str | None, bytes | None, str, str]
"""writer, seq, id, at, kind, urgency, destination, action, outcome, tenant, body, before, hash"""
_COLUMNS = "writer, seq, id, at, kind, urgency, destination, action, outcome, tenant, body, before_hash, hash"
_URGENCIES = ("none", "routine", "urgent", "emergency")
_TABLES = (
    """CREATE TABLE IF NOT EXISTS entries (
        writer TEXT NOT NULL, seq BIGINT NOT NULL, id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, kind TEXT NOT NULL,
        urgency INTEGER NOT NULL, destination TEXT NOT NULL, action TEXT NOT NULL, outcome TEXT NOT NULL, tenant TEXT,
        body {blob}, before_hash TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (writer, seq))""",
    "CREATE INDEX IF NOT EXISTS entries_at ON entries (at)",
    "CREATE INDEX IF NOT EXISTS entries_urgency ON entries (urgency, at)",
    "CREATE UNIQUE INDEX IF NOT EXISTS entries_id ON entries (id)",
    """CREATE TABLE IF NOT EXISTS reviews (
        id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, state TEXT NOT NULL, verdict TEXT, comment TEXT, reviewer TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS reviews_id ON reviews (id, at)",
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)


class Database(Protocol):
    """One connection to a store. SQL is written with `?`; errors come out as StoreError."""

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...
    def write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None: ...
    def close(self) -> None: ...


class SqliteDatabase:
    """SQLite in WAL mode, every batch durable."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            for statement in _TABLES:
                self._connection.execute(statement.format(blob="BLOB"))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}") from error

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for sql, rows in statements:
                    self._connection.executemany(sql, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def close(self) -> None:
        self._connection.close()


class PostgresDatabase:
    """PostgreSQL through psycopg (extra `postgres`)."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigError("postgresql:// needs the extra: pip install 'guardrail[postgres]'") from None
        self._errors = psycopg.Error
        try:
            self._connection = psycopg.connect(url, connect_timeout=5, autocommit=True)
            # Replicas start at once: only one may create the tables.
            with self._connection.transaction():
                self._connection.execute("SELECT pg_advisory_xact_lock(7410032)")
                for statement in _TABLES:
                    self._connection.execute(statement.format(blob="BYTEA"))
        except self._errors as error:
            raise StoreError(_without_password(url, str(error))) from error

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            cursor = self._connection.execute(sql.replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []
        except self._errors as error:
            raise StoreError(str(error)) from error

    def write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                for sql, rows in statements:
                    cursor.executemany(sql.replace("?", "%s"), rows)
        except self._errors as error:
            raise StoreError(str(error)) from error

    def close(self) -> None:
        self._connection.close()


def _without_password(url: str, message: str) -> str:
    password = urlsplit(url).password
    return message.replace(unquote(password), "***").replace(password, "***") if password else message


def open_database(url: str) -> Database:
    """The store of a URL: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user@host/name`."""
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return SqliteDatabase(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(url)
    raise ConfigError(f'audit: cannot use "{url.split("@")[-1]}"; write sqlite:///path or postgresql://user@host/name')


class AuditStore:
    """Keeps exchanges. Made once per process; its writer is a chain of its own.

    `spool` is the file that takes entries while the store is away; `key` makes pseudonyms of patients' ids.
    """

    def __init__(self, url: str, text: TextPolicy = "redacted", key: bytes = b"", spool: Path | None = None) -> None:
        self._url = url
        self._text = text
        self._key = key
        self._writer = uuid.uuid4().hex
        base = spool or _spool_beside(url)
        # One file a process, so that replicas on one machine do not write into each other's.
        self._spool = base.with_name(f"{base.name}-{self._writer}")
        self._spools = f"{base.name}-*"
        self._seq, self._before = 0, START
        self._queue: queue.Queue[ExchangeRecord | threading.Event | None] = queue.Queue(QUEUE_LENGTH)
        self._database: Database | None = None
        self.healthy = True
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._thread.start()

    def record(self, record: ExchangeRecord) -> None:
        """Queue one exchange. Never blocks, never raises."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.healthy = False
            log.error("audit_queue_full", exchange=record.id, alarm=True)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until what was recorded so far is kept or spooled."""
        done = threading.Event()
        self._queue.put(done, timeout=timeout)
        return done.wait(timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued and stop."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            batch, waiting, stop = self._take()
            rows = [self._row(r) for r in batch]
            if rows:
                self._keep(rows)
            for event in waiting:
                event.set()
            if stop:
                if self._database is not None:
                    self._database.close()
                return

    def _take(self) -> tuple[list[ExchangeRecord], list[threading.Event], bool]:
        """What is queued, up to a batch: records, those who wait for them, and whether to stop."""
        records: list[ExchangeRecord] = []
        waiting: list[threading.Event] = []
        item: ExchangeRecord | threading.Event | None
        try:
            item = self._queue.get(timeout=RETRY_SECONDS)
        except queue.Empty:
            self._replay()
            return [], [], False
        while True:
            if item is None:
                return records, waiting, True
            if isinstance(item, threading.Event):
                waiting.append(item)
            else:
                records.append(item)
            if len(records) >= BATCH:
                return records, waiting, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return records, waiting, False

    def _row(self, record: ExchangeRecord) -> Row:
        entry = entry_of(record, self._text, self._key)
        body = canonical(entry)
        before, self._before = self._before, link(self._before, body)
        self._seq += 1
        decision = entry["decision"] or {"urgency": "none", "destination": "none", "action": "none"}
        return (
            self._writer,
            self._seq,
            record.id,
            entry["at"],
            "exchange",
            _URGENCIES.index(decision["urgency"]),
            decision["destination"],
            decision["action"],
            entry["outcome"],
            record.tenant,
            body,
            before,
            self._before,
        )

    def _keep(self, rows: Sequence[Row]) -> None:
        """Into the store, or into the spool; never lost in between."""
        try:
            if self._spool.exists():
                raise StoreError("entries are waiting in the spool")  # order is kept: the new ones queue up behind them
            self._insert(rows)
            self._recovered()
        except (StoreError, ConfigError) as error:
            self._away(error)
            self._append(rows)
            self._replay()

    def _insert(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        if self._database is None:
            self._database = open_database(self._url)
        insert = f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * 13)}) ON CONFLICT DO NOTHING"  # noqa: S608  # our own names
        try:
            self._database.write([(insert, rows)])
        except StoreError:
            self._database.close()
            self._database = None
            raise

    def _append(self, rows: Sequence[Row]) -> None:
        try:
            self._spool.parent.mkdir(parents=True, exist_ok=True)
            with self._spool.open("ab") as spool:
                for row in rows:
                    spool.write(orjson.dumps([*row[:10], (row[10] or b"").decode(), *row[11:]]) + b"\n")
        except OSError as error:
            log.error("audit_lost", count=len(rows), error=str(error), alarm=True)

    def _replay(self) -> None:
        """Bring spooled entries into the store, those of processes that died included, then remove the spools."""
        try:
            if not self.healthy and self._database is None:
                # Where the spool cannot be written either, only the store itself can say that it is back.
                self._database = open_database(self._url)
            # What was taken before comes first: it is older, and its name must be free again.
            for spool in sorted(self._spool.parent.glob(self._spools), key=lambda s: (".taken-" not in s.name, s.name)):
                claimed = self._claim(spool)
                if claimed is not None:
                    self._insert(_read_spool(claimed))
                    claimed.unlink(missing_ok=True)
            self._recovered()
        except (StoreError, ConfigError, OSError) as error:
            self._away(error)

    def _claim(self, spool: Path) -> Path | None:
        """Take a spool out of its writer's way before reading it, so that nothing is added between reading and removing."""
        mark = f".taken-{self._writer[:12]}"
        if spool.name.endswith(mark):
            return spool
        taken = spool.with_name(spool.name.split(".taken-")[0] + mark)
        if taken.exists():
            return None
        try:
            return spool.rename(taken)
        except FileNotFoundError:  # another process was faster
            return None

    def _away(self, error: Exception) -> None:
        if self.healthy:
            log.error("audit_store_away", error=str(error), alarm=True)
        self.healthy = False

    def _recovered(self) -> None:
        if not self.healthy:
            log.info("audit_store_back")
        self.healthy = True


def _read_spool(spool: Path) -> list[Row]:
    rows: list[Row] = []
    for line in spool.read_bytes().splitlines():
        # A process killed in mid-write leaves a torn last line; what was whole is kept.
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        values[10] = values[10].encode()
        rows.append(tuple(values))
    return rows


def _spool_beside(url: str) -> Path:
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///") + ".spool")
    return Path("guardrail-audit.spool")


class AuditReader:
    """Reads a store, keeps verdicts, erases. For the dashboard and the `audit` commands."""

    def __init__(self, url: str) -> None:
        self._database = open_database(url)
        self._lock = threading.Lock()

    def close(self) -> None:
        self._database.close()

    def list_entries(
        self,
        *,
        urgency_at_least: int = 0,
        destination: str | None = None,
        outcome: str | None = None,
        rule: str | None = None,
        before: float | None = None,
        after: float | None = None,
        cursor: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Newest first. `before` and `after` are times (seconds since the epoch); `rule` is a rule's id.

        `cursor` is the (at, id) of the last entry of the page before.
        """
        where, values = ["kind = 'exchange'", "body IS NOT NULL"], list[Any]()
        for clause, value in (
            ("urgency >= ?", urgency_at_least or None),
            ("destination = ?", destination),
            ("outcome = ?", outcome),
            ("at < ?", before),
            ("at > ?", after),
        ):
            if value is not None:
                where.append(clause)
                values.append(value)
        if cursor is not None:
            where.append("(at < ? OR (at = ? AND id < ?))")
            values += [cursor[0], *cursor]
        found: list[dict[str, Any]] = []
        sql = f"SELECT body FROM entries WHERE {' AND '.join(where)} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608  # our own names
        for (body,) in self._query(sql, [*values, limit if rule is None else limit * 20]):
            entry = orjson.loads(bytes(body))
            if rule is None or any(h["id"] == rule for h in (entry["decision"] or {}).get("rules", ())):
                found.append(entry)
        return found[:limit]

    def entry(self, exchange: str) -> dict[str, Any] | None:
        """One exchange, or None."""
        rows = self._query("SELECT body FROM entries WHERE id = ? AND body IS NOT NULL", [exchange])
        found: dict[str, Any] | None = orjson.loads(bytes(rows[0][0])) if rows else None
        return found

    def counts(self, since: float) -> list[tuple[float, int, str, str]]:
        """(at, urgency, destination, outcome) of every exchange since a time, oldest first."""
        sql = "SELECT at, urgency, destination, outcome FROM entries WHERE kind = 'exchange' AND at >= ? ORDER BY at"
        return [(float(a), int(u), str(d), str(o)) for a, u, d, o in self._query(sql, [since])]

    def reviews(self, exchange: str) -> list[dict[str, Any]]:
        """What reviewers said of an exchange, oldest first."""
        sql = "SELECT at, state, verdict, comment, reviewer FROM reviews WHERE id = ? ORDER BY at"
        return [dict(zip(("at", "state", "verdict", "comment", "reviewer"), r, strict=True)) for r in self._query(sql, [exchange])]

    def review(self, exchange: str, state: str, verdict: str | None, comment: str | None, reviewer: str) -> None:
        """Keep one step of a review: acknowledged, or resolved with a verdict."""
        values = (exchange, time.time(), state, verdict, comment, reviewer)
        with self._lock:
            self._database.write([("INSERT INTO reviews (id, at, state, verdict, comment, reviewer) VALUES (?, ?, ?, ?, ?, ?)", [values])])

    def unresolved(self, limit: int = 50, urgency_at_least: int = 2) -> list[dict[str, Any]]:
        """Exchanges that wait for a verdict: escalations, replies that were cut, failures of the guard. Most urgent first, then newest."""
        sql = """SELECT body FROM entries WHERE kind = 'exchange' AND body IS NOT NULL
            AND (urgency >= ? OR outcome IN ('cut', 'guard_failed'))
            AND NOT EXISTS (SELECT 1 FROM reviews WHERE reviews.id = entries.id AND reviews.state = 'resolved')
            ORDER BY urgency DESC, at DESC, id DESC LIMIT ?"""
        return [orjson.loads(bytes(body)) for (body,) in self._query(sql, [urgency_at_least, limit])]

    def last_reviews(self, exchanges: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The newest review of each of these exchanges that has one."""
        found: dict[str, dict[str, Any]] = {}
        for first in range(0, len(exchanges), 500):
            ids = exchanges[first : first + 500]
            sql = f"SELECT id, at, state, verdict, comment, reviewer FROM reviews WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY at"  # noqa: S608  # only marks
            for exchange, *rest in self._query(sql, ids):
                found[exchange] = dict(zip(("at", "state", "verdict", "comment", "reviewer"), rest, strict=True))
        return found

    def chains(self) -> Iterator[Row]:
        """Every row, writer by writer, in order."""
        writers = [w for (w,) in self._query("SELECT DISTINCT writer FROM entries ORDER BY writer")]
        for writer in writers:
            last = 0
            while rows := self._query(
                f"SELECT {_COLUMNS} FROM entries WHERE writer = ? AND seq > ? ORDER BY seq LIMIT 1000",  # noqa: S608  # our own names
                [writer, last],
            ):
                yield from rows  # the columns are those of Row
                last = rows[-1][1]

    def purge(self, before: float) -> int:
        """Erase the content of exchanges older than a time. Their hashes stay, so that the chain still holds."""
        count = len(self._query("SELECT id FROM entries WHERE at < ? AND body IS NOT NULL", [before]))
        with self._lock:
            self._database.write(
                [
                    ("DELETE FROM reviews WHERE id IN (SELECT id FROM entries WHERE at < ?)", [(before,)]),
                    ("UPDATE entries SET body = NULL, tenant = NULL, kind = 'erased' WHERE at < ?", [(before,)]),
                ]
            )
        return count

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(sql, values)
