"""One connection to a store: SQLite by default, PostgreSQL by URL, the same few calls for both.

SQL is written with `?`, in the words that both understand; errors come out as StoreError. Opening a store creates its tables or
brings them up to date (`schema.py`). A connection belongs to one thread at a time: `SharedDatabase` is one for several threads, which
outlives the times when the store is away.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from guardrail.audit import schema
from guardrail.errors import ConfigError, StoreError

T = TypeVar("T")


class Database(Protocol):
    """`blob` is the type of bytes in a table's definition."""

    blob: str

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...
    def write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        """Each statement for each of its rows, all in one transaction (that of the caller, if there is one)."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, and nobody else writes meanwhile what is written here."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Reads within see the store as it was at the first of them."""

    def lock_schema(self) -> None:
        """Within a transaction: nobody else changes the tables."""

    def close(self) -> None: ...


class SqliteDatabase:
    """SQLite in WAL mode, every batch durable."""

    blob = "BLOB"

    def __init__(self, path: Path, *, migrate: bool = True) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}") from error
        _bring_up_to_date(self, migrate)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        try:
            with self.transaction():
                for sql, rows in statements:
                    self._connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def transaction(self) -> AbstractContextManager[None]:
        return self._within("BEGIN IMMEDIATE")

    def snapshot(self) -> AbstractContextManager[None]:
        return self._within("BEGIN")

    @contextmanager
    def _within(self, begin: str) -> Iterator[None]:
        if self._connection.in_transaction:
            yield
            return
        try:
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.OperationalError):  # some errors have rolled back already
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def lock_schema(self) -> None:
        """BEGIN IMMEDIATE has done it."""

    def close(self) -> None:
        self._connection.close()


class PostgresDatabase:
    """PostgreSQL through psycopg (extra `postgres`)."""

    blob = "BYTEA"

    def __init__(self, url: str, *, migrate: bool = True) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigError("postgresql:// needs the extra: pip install 'guardrail[postgres]'") from None
        self._psycopg = psycopg
        try:
            self._connection = psycopg.connect(url, connect_timeout=5, autocommit=True)
        except psycopg.Error as error:
            raise StoreError(_without_password(url, str(error))) from error
        _bring_up_to_date(self, migrate)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            cursor = self._connection.execute(sql.replace("?", "%s"), values or None)
            return cursor.fetchall() if cursor.description else []
        except self._psycopg.Error as error:
            raise StoreError(str(error)) from error

    def write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        try:
            with self.transaction(), self._connection.cursor() as cursor:
                for sql, rows in statements:
                    cursor.executemany(sql.replace("?", "%s"), rows)
        except self._psycopg.Error as error:
            raise StoreError(str(error)) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            with self._connection.transaction():
                yield
        except self._psycopg.Error as error:
            raise StoreError(str(error)) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self.transaction():
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield

    def lock_schema(self) -> None:
        # Replicas start at once: only one may create the tables.
        self.execute("SELECT pg_advisory_xact_lock(7410032)")

    def close(self) -> None:
        self._connection.close()


def _bring_up_to_date(database: Database, migrate: bool) -> None:
    if not migrate:
        return
    try:
        schema.migrate(database)
    except BaseException:
        database.close()
        raise


def _without_password(url: str, message: str) -> str:
    password = urlsplit(url).password
    return message.replace(unquote(password), "***").replace(password, "***") if password else message


def open_database(url: str, *, migrate: bool = True) -> Database:
    """The store of a URL: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user@host/name`.

    Its tables are made or brought up to date, except without `migrate`.
    """
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return SqliteDatabase(Path(url.removeprefix("sqlite:///")), migrate=migrate)
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(url, migrate=migrate)
    raise ConfigError(f'audit: cannot use "{url.split("@")[-1]}"; write sqlite:///path or postgresql://user@host/name')


class SharedDatabase:
    """One connection for threads, opened when it is needed and again after the store was away.

    `tables` are statements that make tables of the owner's own, beside those of `schema.py`; they change nothing where these are there.
    """

    def __init__(self, url: str, tables: Sequence[str] = ()) -> None:
        self._url = url
        self._tables = tables
        self._lock = threading.Lock()
        self._database: Database | None = None

    def use(self, work: Callable[[Database], T]) -> T:
        """Call `work(database)`, alone; raises StoreError while the store is away."""
        with self._lock:
            try:
                if self._database is None:
                    self._database = self._open()
                return work(self._database)
            except StoreError:
                self._drop()
                raise

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _open(self) -> Database:
        database = open_database(self._url)
        try:
            with database.transaction():
                database.lock_schema()
                for statement in self._tables:
                    database.execute(statement)
        except BaseException:
            database.close()
            raise
        return database

    def _drop(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()
