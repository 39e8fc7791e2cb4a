"""Alerts on their way, kept in the audit store until they have arrived, so that nothing is lost when a process or a receiver dies.

One row per matter and receiver. Its primary key is what keeps replicas from telling the same thing twice. To claim a row is to put
its next attempt off by a lease: whoever claimed it and was killed is followed, when the lease ends, by whoever claims next. So an alert
arrives at least once, and twice when a process dies between sending and writing that down; receivers know repeats by the delivery's id.

The table is this module's own and lies beside those of `audit/schema.py`. An Outbox may be used from several threads.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from guardrail.alerts.alert import Alert, Due, digest
from guardrail.audit.database import Database, SharedDatabase

IN_MEMORY: Final = "sqlite:///:memory:"
"""For what must leave without the store."""
_TURN_SECONDS: Final = 60.0
KEEP_SECONDS: Final = 30 * 86_400
"""So long it can be seen what became of an alert. No longer than needed for that; far longer than a receiver may be away."""
_TABLES = (
    """CREATE TABLE IF NOT EXISTS alert_outbox (
        key TEXT NOT NULL, receiver TEXT NOT NULL, id TEXT NOT NULL, state TEXT NOT NULL, made_at DOUBLE PRECISION NOT NULL,
        due_at DOUBLE PRECISION NOT NULL, attempts INTEGER NOT NULL, error TEXT, body TEXT, PRIMARY KEY (key, receiver))""",
    "CREATE INDEX IF NOT EXISTS alert_outbox_due ON alert_outbox (receiver, due_at) WHERE state = 'pending'",
)
# A matter told before is told anew when its time has come; what is still on its way is replaced by the newer.
_ADD = """INSERT INTO alert_outbox (key, receiver, id, state, made_at, due_at, attempts, error, body)
    VALUES (?, ?, ?, 'pending', ?, ?, 0, NULL, ?)
    ON CONFLICT (key, receiver) DO UPDATE SET id = excluded.id, state = 'pending', made_at = excluded.made_at,
    due_at = excluded.due_at, attempts = 0, error = NULL, body = excluded.body
    WHERE alert_outbox.made_at <= ?"""
_END = "DELETE FROM alert_outbox WHERE key = ? AND receiver = ?"
# The rows are chosen once, in a table of their own: PostgreSQL may run a subquery in WHERE more than once, each time with other rows.
_CLAIM = """WITH due AS MATERIALIZED (
    SELECT key, receiver FROM alert_outbox WHERE state = 'pending' AND receiver = ? AND due_at <= ? ORDER BY due_at LIMIT ? {skip})
    UPDATE alert_outbox SET due_at = ?, attempts = attempts + 1 WHERE (key, receiver) IN (SELECT key, receiver FROM due)
    RETURNING receiver, id, made_at, attempts, body"""
_ANY_DUE = "SELECT 1 FROM alert_outbox WHERE state = 'pending' AND receiver = ? AND due_at <= ? LIMIT 1"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert for one receiver. `id` is the same in every attempt; `attempts` counts this one."""

    id: str
    receiver: str
    made_at: float
    attempts: int
    alert: Alert


class Outbox:
    """The outbox in the store of a URL. Every method raises StoreError while the store is away, and opens it again by itself."""

    def __init__(self, url: str = IN_MEMORY) -> None:
        self._store = SharedDatabase(url, _TABLES)
        # Two replicas that claim at once must not wait for each other. SQLite has one writer at a time anyway.
        self._claim = _CLAIM.format(skip="" if url.startswith("sqlite:") else "FOR UPDATE SKIP LOCKED")

    def add(self, due: Sequence[Due], now: float) -> None:
        """Put alerts in, each for its receivers, unless its matter is there from less than `repeat_seconds` ago (None: from ever)."""
        # In one order everywhere: replicas that add the same must not lock each other out.
        rows = sorted(row for one in due for row in _rows(one, now))
        # What is over can be told anew, and is not told any more after that.
        over = sorted({(one.alert.key, receiver) for one in due if one.alert.over for receiver in one.send})
        if rows:
            self._store.use(lambda database: database.write([(_END, over), (_ADD, rows)] if over else [(_ADD, rows)]))

    def claim(self, receiver: str, now: float, lease_seconds: float, limit: int) -> list[Delivery]:
        """Deliveries that are due, which nobody else gets until the lease ends. Each counts as an attempt."""

        def claimed(database: Database) -> list[tuple[Any, ...]]:
            # Most often nothing is due; to find that out needs no lock for writing.
            if not database.execute(_ANY_DUE, [receiver, now]):
                return []
            return database.execute(self._claim, [receiver, now, limit, now + lease_seconds])

        found = self._store.use(claimed)
        found.sort(key=lambda row: row[2])  # RETURNING keeps no order
        return [Delivery(i, r, made, attempts, alert) for r, i, made, attempts, body in found if (alert := _read(body)) is not None]

    def sent(self, delivery: Delivery, now: float) -> None:
        """It arrived; what it said is forgotten."""
        self._settle(delivery, "sent", now, None)

    def failed(self, delivery: Delivery, due_at: float, error: str) -> None:
        """Try again at a time."""
        self._settle(delivery, "pending", due_at, error)

    def given_up(self, delivery: Delivery, now: float, error: str) -> None:
        """It will not be tried again; what it said is forgotten, its key tells what it was about."""
        self._settle(delivery, "given_up", now, error)

    def pending(self) -> dict[str, int]:
        """How many are on their way, by receiver."""
        sql = "SELECT receiver, COUNT(*) FROM alert_outbox WHERE state = 'pending' GROUP BY receiver"
        return {str(receiver): int(count) for receiver, count in self._store.use(lambda database: database.execute(sql))}

    def newest_exchange(self) -> float | None:
        """When the newest exchange of any replica was recorded."""
        rows = self._store.use(lambda database: database.execute("SELECT MAX(at) FROM entries WHERE kind = 'exchange'"))
        return None if rows[0][0] is None else float(rows[0][0])

    def forget(self, before: float) -> None:
        """Remove what is done and older."""
        sql = "DELETE FROM alert_outbox WHERE state <> 'pending' AND made_at < ?"
        self._store.use(lambda database: database.execute(sql, [before]))

    def close(self) -> None:
        self._store.close()

    def _settle(self, delivery: Delivery, state: str, due_at: float, error: str | None) -> None:
        # Only the latest claim counts: after its lease somebody else may be at it, or the matter may be a newer one.
        body = "" if state == "pending" else ", body = NULL"
        sql = f"UPDATE alert_outbox SET state = ?, due_at = ?, error = ?{body} WHERE key = ? AND receiver = ? AND id = ? AND attempts = ?"  # noqa: S608  # our own names
        values = [state, due_at, error, delivery.alert.place, delivery.receiver, delivery.id, delivery.attempts]
        self._store.use(lambda database: database.execute(sql, values))


def _rows(due: Due, now: float) -> Iterator[tuple[Any, ...]]:
    alert, repeat_seconds = due.alert, due.repeat_seconds
    told_before = now - repeat_seconds if repeat_seconds is not None else float("-inf")
    # Replicas that see the same thing at about the same time give it the same id.
    # A condition that ends and comes back within a turn is another matter: then turns are short.
    turn = int(now // min(repeat_seconds, _TURN_SECONDS)) if repeat_seconds else 0
    body = alert.model_dump_json(exclude_defaults=True)
    for receiver in set(due.send):
        yield alert.place, receiver, digest(alert.place, receiver, turn), now, now, body, told_before


def _read(body: str) -> Alert | None:
    try:
        return Alert.model_validate_json(body)
    except ValidationError:
        return None  # of a newer version, while replicas are being replaced: one of those will take it when the lease ends


def rows_of(url: str) -> list[dict[str, Any]]:
    """Every row, newest first, without what it says."""
    names = ("key", "receiver", "state", "made_at", "attempts", "error")
    sql = f"SELECT {', '.join(names)} FROM alert_outbox ORDER BY made_at DESC, key, receiver"  # noqa: S608  # our own names
    with closing(SharedDatabase(url, _TABLES)) as store:
        return [dict(zip(names, row, strict=True)) for row in store.use(lambda database: database.execute(sql))]
