"""Where sessions, API tokens and tries of passwords are kept: tables of the audit store's database, so that replicas share them.

Nothing in them lets anybody in: of every secret only a digest is kept. The tables are this module's own and lie beside those of
`audit/schema.py`. One connection, shared by threads, opened when it is needed and again after the store was away.
"""

import hashlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from guardrail.audit.database import Database, open_database
from guardrail.errors import StoreError

T = TypeVar("T")
_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS access_sessions (
        digest TEXT PRIMARY KEY, name TEXT NOT NULL, role INTEGER NOT NULL, basis TEXT NOT NULL,
        opened_at DOUBLE PRECISION NOT NULL, seen_at DOUBLE PRECISION NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS access_sign_ins (
        digest TEXT PRIMARY KEY, state TEXT NOT NULL, nonce TEXT NOT NULL, verifier TEXT NOT NULL, page TEXT NOT NULL,
        begun_at DOUBLE PRECISION NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS access_tries (id TEXT PRIMARY KEY, who TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)",
    "CREATE INDEX IF NOT EXISTS access_tries_who ON access_tries (who, at)",
    """CREATE TABLE IF NOT EXISTS access_tokens (
        id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, role INTEGER NOT NULL, made_by TEXT NOT NULL,
        made_at DOUBLE PRECISION NOT NULL, expires_at DOUBLE PRECISION NOT NULL, used_at DOUBLE PRECISION, revoked_at DOUBLE PRECISION)""",
)


class Tables:
    """The tables in the store of a URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._database: Database | None = None

    def use(self, work: Callable[[Database], T]) -> T:
        """Call `work(database)`, alone; raises StoreError while the store is away."""
        with self._lock:
            try:
                if self._database is None:
                    self._database = _open(self._url)
                return work(self._database)
            except StoreError:
                self._drop()
                raise

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()


def digest(secret: str) -> str:
    """What is kept of a random secret. No salt and no slow hash: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _open(url: str) -> Database:
    database = open_database(url)
    try:
        with database.transaction():
            database.lock_schema()
            for statement in _TABLES:
                database.execute(statement)
    except BaseException:
        database.close()
        raise
    return database
