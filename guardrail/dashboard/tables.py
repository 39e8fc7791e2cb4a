"""Where sessions, API tokens and tries of passwords are kept: tables of the audit store's database, so that replicas share them.

Nothing in them lets anybody in: of every secret only a digest is kept. The tables are this module's own and lie beside those of
`audit/schema.py`.
"""

import hashlib
from typing import Final

from guardrail.audit.database import SharedDatabase

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


class Tables(SharedDatabase):
    """The tables in the store of a URL."""

    def __init__(self, url: str) -> None:
        super().__init__(url, _TABLES)


def digest(secret: str) -> str:
    """What is kept of a random secret. No salt and no slow hash: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()
