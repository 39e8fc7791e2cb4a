"""Sessions of people who signed in, kept in the store: they end when they should, at once and at every replica.

The cookie holds a random secret, the store its digest. A session ends at sign-out, after `idle_seconds` without a page being asked for
(what the page's script refreshes by itself does not count), and `longest_seconds` after it began. `basis` is what it rests on, such
as a user's password: who reads a session checks that it still holds.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from guardrail.audit.database import Database
from guardrail.dashboard.people import Role
from guardrail.dashboard.tables import Tables, digest

Statement = tuple[str, list[tuple[Any, ...]]]

# To be seen is written down no oftener: reading a page should not cost a write.
_SEEN_SECONDS: Final = 60.0
_SIGN_IN_SECONDS: Final = 600.0
"""How long somebody may take at the provider of single sign-on."""


@dataclass(frozen=True, slots=True)
class Session:
    name: str
    role: Role
    basis: str
    age: float = 0.0
    """Seconds since it was opened."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that was sent to a provider: what must come back, and the page to go to then."""

    state: str
    nonce: str
    verifier: str
    page: str


class Sessions:
    """Every method raises StoreError while the store is away."""

    def __init__(self, tables: Tables, idle_seconds: float, longest_seconds: float, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._idle = idle_seconds
        self._longest = longest_seconds
        self._clock = clock

    def open(self, session: Session, instead_of: str = "") -> str:
        """Begin a session, which ends the one the browser had; the new secret."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        row = (digest(secret), session.name, int(session.role), session.basis, now, now)
        statements: list[Statement] = [
            ("DELETE FROM access_sessions WHERE digest = ?", [(digest(instead_of),)]),
            ("DELETE FROM access_sessions WHERE opened_at <= ? OR seen_at <= ?", [(now - self._longest, now - self._idle)]),
            ("INSERT INTO access_sessions (digest, name, role, basis, opened_at, seen_at) VALUES (?, ?, ?, ?, ?, ?)", [row]),
        ]
        self._tables.use(lambda database: database.write(statements))
        return secret

    def read(self, secret: str, *, seen: bool) -> Session | None:
        """The session of a secret, if it has not ended. `seen` says that a person asked for something."""
        now, key = self._clock(), digest(secret)

        def find(database: Database) -> Session | None:
            sql = "SELECT name, role, basis, opened_at, seen_at FROM access_sessions WHERE digest = ? AND opened_at > ? AND seen_at > ?"
            rows = database.execute(sql, [key, now - self._longest, now - self._idle])
            if not rows:
                return None
            name, role, basis, opened_at, seen_at = rows[0]
            if seen and now - seen_at >= min(_SEEN_SECONDS, self._idle / 10):
                database.execute("UPDATE access_sessions SET seen_at = ? WHERE digest = ?", [now, key])
            return Session(name, Role(role), basis, now - opened_at)

        return self._tables.use(find)

    def close(self, secret: str) -> None:
        self._tables.use(lambda database: database.execute("DELETE FROM access_sessions WHERE digest = ?", [digest(secret)]))

    def begin_sign_in(self, begun: Begun) -> str:
        """Keep what is needed when the browser comes back from the provider; a secret for its cookie."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        row = (digest(secret), begun.state, begun.nonce, begun.verifier, begun.page, now)
        statements: list[Statement] = [
            ("DELETE FROM access_sign_ins WHERE begun_at <= ?", [(now - _SIGN_IN_SECONDS,)]),
            ("INSERT INTO access_sign_ins (digest, state, nonce, verifier, page, begun_at) VALUES (?, ?, ?, ?, ?, ?)", [row]),
        ]
        self._tables.use(lambda database: database.write(statements))
        return secret

    def end_sign_in(self, secret: str) -> Begun | None:
        """What was kept for this browser, once."""
        sql = "DELETE FROM access_sign_ins WHERE digest = ? AND begun_at > ? RETURNING state, nonce, verifier, page"
        values = [digest(secret), self._clock() - _SIGN_IN_SECONDS]
        rows = self._tables.use(lambda database: database.execute(sql, values))
        return Begun(*rows[0]) if rows else None
