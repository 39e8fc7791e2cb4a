"""What is remembered of one exchange. Made by the proxy, kept by a store, read by the dashboard."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from guardrail.engine.model import Decision


class Outcome(StrEnum):
    """How an exchange ended (DESIGN section 6)."""

    ANSWERED = "answered"
    FORWARDED = "forwarded"
    REJECTED = "rejected"
    GUARD_FAILED = "guard_failed"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_REFUSED = "upstream_refused"
    UPSTREAM_LOST = "upstream_lost"
    CUT = "cut"
    CLIENT_LEFT = "client_left"
    SHUTDOWN = "shutdown"


@dataclass(slots=True)
class ExchangeRecord:
    """One exchange as the proxy saw it. `texts` are the patient's messages as written: a store redacts before it keeps.

    Times are in milliseconds, `at` in seconds since the epoch (UTC).
    """

    id: str
    at: float
    dialect: str
    outcome: Outcome
    decision: Decision | None = None
    tenant: str | None = None
    patient: str | None = None
    model: str | None = None
    stream: bool = False
    status: int = 200
    texts: tuple[str, ...] = ()
    turns: tuple[int, ...] = ()
    """Which message of the conversation each of the texts was; findings count turns so."""
    reply: tuple[dict[str, Any], ...] = ()
    """One per reviewed channel: channel, action, issues (name, rule, words), disclaimer_added."""
    not_evaluated: tuple[str, ...] = ()
    error: str | None = None
    guard_ms: float = 0.0
    upstream_ms: float = 0.0
    total_ms: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


class Recorder(Protocol):
    """Where finished exchanges go. Never blocks, never raises: a store that is away spools."""

    def record(self, record: ExchangeRecord) -> None: ...
