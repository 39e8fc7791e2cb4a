"""Who may see the dashboard, as plain values: roles, users of the settings, visitors who were let in."""

from dataclasses import dataclass, field
from enum import IntEnum


class Role(IntEnum):
    """What somebody may do; each may do all that the one before may."""

    VIEWER = 1
    """Reads."""
    REVIEWER = 2
    """Reads words that are kept encrypted, acknowledges, resolves, exports cases."""
    ADMIN = 3
    """Reloads the packs."""

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class User:
    name: str
    role: Role
    password: str = field(default="", repr=False)
    """As `passwords.hash_password` writes it."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who was let in. `session` is the secret of their session, empty where a token was shown."""

    name: str
    role: Role
    session: str = field(default="", repr=False)
    signed_in: bool = False
