"""Wrong passwords are counted, per address and per name, for all replicas and across restarts.

A try is written down before the password is looked at and taken back when it was right, so that many guesses at once count too.
Names and addresses are kept as digests: people type passwords where the name belongs.
"""

import uuid
from collections.abc import Callable
from typing import Final

from guardrail.audit.database import Database
from guardrail.dashboard.tables import Tables, digest

PER_ADDRESS: Final = 10
# More, since others than its owner can use up a name's tries; few enough that a long password is never guessed.
PER_NAME: Final = 30
WINDOW_SECONDS: Final = 300.0


class TooManyTries(Exception):
    """Too many wrong passwords; `seconds` until the next try."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many wrong passwords; try again in {seconds} s")
        self.seconds = seconds


class Throttle:
    """Every method raises StoreError while the store is away: then nobody signs in."""

    def __init__(self, tables: Tables, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._clock = clock

    def begin(self, address: str, name: str) -> str:
        """Count a try and give its id; raises TooManyTries, and then it does not count."""
        now, id = self._clock(), uuid.uuid4().hex
        limits = {digest(f"address {address}"): PER_ADDRESS, digest(f"name {name}"): PER_NAME}

        def count(database: Database) -> list[tuple[int, float, int]]:
            rows = [(f"{id}-{place}", who, now) for place, who in enumerate(limits)]
            database.write(
                [
                    ("DELETE FROM access_tries WHERE at <= ?", [(now - WINDOW_SECONDS,)]),
                    ("INSERT INTO access_tries (id, who, at) VALUES (?, ?, ?)", rows),
                ]
            )
            sql = "SELECT COUNT(*), MIN(at) FROM access_tries WHERE who = ? AND at > ?"
            return [(*database.execute(sql, [who, now - WINDOW_SECONDS])[0], most) for who, most in limits.items()]

        waits = [oldest + WINDOW_SECONDS - now for tries, oldest, most in self._tables.use(count) if tries > most]
        if waits:
            self.forgive(id)
            raise TooManyTries(int(max(waits)) + 1)
        return id

    def forgive(self, id: str) -> None:
        """The try does not count."""
        ids = [(f"{id}-{place}",) for place in (0, 1)]
        self._tables.use(lambda database: database.write([("DELETE FROM access_tries WHERE id = ?", ids)]))
