"""One alert: what is told, before it takes the form of a mail, a card or a resource.

It holds ids, urgency, destination, topics and titles of rules; a patient's words and own id only where a setting says so.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict

from guardrail.alerts.settings import Severity

Kind = Literal["escalation", "error_rate", "engine_failure", "store_down", "silence", "test"]


class HitRule(BaseModel):
    """A rule that held: its id and title."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str


class Escalation(BaseModel):
    """An exchange in which a patient was sent to somebody. `patient` is a pseudonym, `patient_id` the app's own id."""

    model_config = ConfigDict(frozen=True)

    exchange: str
    urgency: str
    destination: str
    topics: tuple[str, ...] = ()
    rules: tuple[HitRule, ...] = ()
    action: str = ""
    outcome: str = ""
    packs: str = ""
    tenant: str | None = None
    patient: str | None = None
    patient_id: str | None = None
    words: tuple[str, ...] = ()


class Alert(BaseModel):
    """`key` names the matter: what has the same key is told once. `at` is in seconds since the epoch.

    `over`: the condition that was told under this key holds no longer.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    rule: str
    kind: Kind
    severity: Severity
    at: float
    title: str
    facts: dict[str, str] = {}
    link: str | None = None
    escalation: Escalation | None = None
    over: bool = False

    @property
    def place(self) -> str:
        """Its key in an outbox, where that a condition is over does not take the place of that it holds."""
        return f"{self.key}:over" if self.over else self.key

    @property
    def time(self) -> str:
        """When, as `2026-01-31T12:00:00Z`."""
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def lines(self) -> dict[str, str]:
        """Label -> value, for whatever shows it to people. A patient's words are not among them."""
        found = {"Rule": self.rule, "Time": self.time}
        if self.escalation is not None:
            told = self.escalation
            found |= {
                "Exchange": told.exchange,
                "Urgency": told.urgency,
                "Destination": told.destination.replace("_", " "),
                "Topics": ", ".join(told.topics),
                "Held": ", ".join(r.title for r in told.rules),
                "Caller": told.tenant or "",
                "Patient (pseudonym)": told.patient or "",
            }
        return {label: value for label, value in (found | self.facts).items() if value}


@dataclass(frozen=True, slots=True)
class Due:
    """An alert, who gets it, and how long the same matter is not told again; None: never again."""

    alert: Alert
    send: tuple[str, ...]
    repeat_seconds: float | None = None


def digest(*parts: object) -> str:
    """A short name for a matter that itself tells nothing."""
    return sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:32]
