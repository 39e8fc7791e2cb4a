"""API tokens: what programs show in place of a password, as `Authorization: Bearer`.

A token is shown once, when it is made; the store keeps its digest. It has a role, an end, and says when it was last used.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guardrail.audit.database import Database
from guardrail.dashboard.people import Role
from guardrail.dashboard.tables import Tables, digest

PREFIX: Final = "guardrail_"
"""So that scanners of code and logs can know a token that got there."""
_USED_SECONDS: Final = 60.0  # "last used" is written down no oftener
_NAMES: Final = "id, name, role, made_by, made_at, expires_at, used_at, revoked_at"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Times are seconds since the epoch."""

    id: str
    name: str
    role: Role
    made_by: str
    made_at: float
    expires_at: float
    used_at: float | None
    revoked_at: float | None

    def state(self, now: float) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now < self.expires_at else "expired"


class Tokens:
    """Every method raises StoreError while the store is away."""

    def __init__(self, tables: Tables, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._clock = clock

    def create(self, name: str, role: Role, made_by: str, seconds: float) -> tuple[str, Token]:
        """A new token: what its holder shows, which nobody can read again, and what is kept of it."""
        id, now = secrets.token_hex(4), self._clock()
        shown = f"{PREFIX}{id}_{secrets.token_urlsafe(32)}"
        row = (id, digest(shown), name, int(role), made_by, now, now + seconds)
        sql = "INSERT INTO access_tokens (id, digest, name, role, made_by, made_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._tables.use(lambda database: database.write([(sql, [row])]))
        return shown, Token(id, name, role, made_by, now, now + seconds, None, None)

    def all(self) -> list[Token]:
        """Every token there was, newest first."""
        sql = f"SELECT {_NAMES} FROM access_tokens ORDER BY made_at DESC, id"  # noqa: S608  # our own names
        return [_token(row) for row in self._tables.use(lambda database: database.execute(sql))]

    def revoke(self, id: str) -> bool:
        """End a token; False where there is none with this id that still lives."""
        sql = "UPDATE access_tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING id"
        return bool(self._tables.use(lambda database: database.execute(sql, [self._clock(), id])))

    def find(self, shown: str) -> Token | None:
        """The token somebody shows, if it is valid. That it was used is kept."""
        if not shown.startswith(PREFIX):
            return None
        now = self._clock()

        def look(database: Database) -> Token | None:
            sql = f"SELECT {_NAMES} FROM access_tokens WHERE digest = ?"  # noqa: S608  # our own names
            rows = database.execute(sql, [digest(shown)])
            token = _token(rows[0]) if rows else None
            if token is None or token.state(now) != "valid":
                return None
            if token.used_at is None or now - token.used_at >= _USED_SECONDS:
                database.execute("UPDATE access_tokens SET used_at = ? WHERE id = ?", [now, token.id])
            return token

        return self._tables.use(look)


def _token(row: tuple[object, ...]) -> Token:
    id, name, role, *rest = row
    return Token(id, name, Role(role), *rest)  # type: ignore[arg-type]  # as the table has them
