"""Decides when an alert is due: from each exchange as it ends, and from the clock.

`Watch` keeps a few counters and touches no network, store or clock; whoever holds it says what time it is. What it returns is due
here and now: whether another replica has told it already is for the outbox to say.
"""

import socket
from collections import deque
from datetime import datetime
from typing import assert_never
from zoneinfo import ZoneInfo

from guardrail.alerts.alert import Alert, Due, Escalation, HitRule, Kind, digest
from guardrail.alerts.settings import (
    AlertSettings,
    EngineFailureRule,
    ErrorRateRule,
    EscalationRule,
    Rule,
    Severity,
    SilenceRule,
    StoreDownRule,
    read_hours,
)
from guardrail.audit.entry import pseudonym
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.redaction import redact
from guardrail.engine.model import Decision, Urgency

DASHBOARD = "/-/dashboard"
_MOST_RULES = 10
_MOST_WORDS = 20
_WORDS_CHARS = 200
_CALM_SECONDS = 60.0
"""A condition is over when it has not held for so long: else one that comes and goes would be told each time."""
_Condition = ErrorRateRule | StoreDownRule | SilenceRule
_SEVERITIES: dict[Kind, Severity] = {
    "error_rate": "error",
    "engine_failure": "critical",
    "store_down": "error",
    "silence": "warning",
    "test": "info",
}
_OVER = {
    "error_rate": "Over: exchanges end well again",
    "store_down": "Over: the audit store is back; what waited in the spool is brought in",
    "silence": "Over: exchanges arrive again",
}
_BY_URGENCY: dict[Urgency, Severity] = {Urgency.EMERGENCY: "critical", Urgency.URGENT: "warning"}


class Watch:
    """The rules of one process. `key` makes pseudonyms of patients; `now` is when it began; links begin with `address`."""

    def __init__(self, settings: AlertSettings, key: bytes, now: float, address: str | None = None) -> None:
        self._settings = settings
        self._key = key
        self._address = address
        self._here = socket.gethostname()
        rules = settings.rules.items()
        self._escalations = [(n, r) for n, r in rules if isinstance(r, EscalationRule)]
        self._failures = [(n, r) for n, r in rules if isinstance(r, EngineFailureRule)]
        self._timed = [(n, r) for n, r in rules if isinstance(r, ErrorRateRule | StoreDownRule | SilenceRule)]
        self._windows = {n: _Window(r) for n, r in self._timed if isinstance(r, ErrorRateRule)}
        self._silence_seconds = min((r.after_seconds for _, r in self._timed if isinstance(r, SilenceRule)), default=None)
        self._last_exchange = now
        self._away_since: float | None = None
        self._told: dict[str, float] = {}
        self._since: dict[str, float] = {}
        """When conditions were first told that are not over."""
        self._calm_since: dict[str, float] = {}

    def on_exchange(self, record: ExchangeRecord) -> list[Due]:
        """What one exchange makes due."""
        self._last_exchange = max(self._last_exchange, record.at)
        for window in self._windows.values():
            window.count(record)
        due = []
        if record.decision is not None and record.decision.urgency > Urgency.NONE:
            for name, rule in self._escalations:
                if _concerns(rule, record.decision, record.tenant):
                    due.append(self._escalation(name, rule, record, record.decision))
        if record.outcome is Outcome.GUARD_FAILED:
            for name, failure in self._failures:
                if self._is_new(name, failure.repeat_seconds, record.at):
                    title = "The guard failed on an exchange; the patient got the safe answer"
                    facts = {"Exchange": record.id, "Replica": self._here}
                    due.append(self._plain(name, failure, record.at, title, facts, self._link(record.id)))
        return due

    def wants_newest(self, now: float) -> bool:
        """Whether `on_time` needs to know of the other replicas' newest exchange."""
        return self._silence_seconds is not None and now - self._last_exchange >= self._silence_seconds

    def on_time(self, now: float, *, store_works: bool, newest: float | None = None) -> list[Due]:
        """What the clock makes due. `newest` is the time of the newest exchange of all replicas, where it is known."""
        self._last_exchange = max(self._last_exchange, newest or 0.0)
        self._away_since = None if store_works else self._away_since or now
        due = []
        for name, rule in self._timed:
            told = self._reason(name, rule, now)
            if told is None:
                due += self._end(name, rule, now)
                continue
            self._calm_since.pop(name, None)
            if self._is_new(name, rule.repeat_seconds, now):
                self._since.setdefault(name, now)
                title, facts = told
                due.append(self._plain(name, rule, now, title, {**facts, "Replica": self._here}, self._link()))
        return due

    def _end(self, name: str, rule: _Condition, now: float) -> list[Due]:
        """That a condition is over which was told, if it is. Should it come back, it is told at once."""
        if name not in self._since or not self._is_over(name, rule, now):
            self._calm_since.pop(name, None)
            return []
        if now - self._calm_since.setdefault(name, now) < _CALM_SECONDS:
            return []
        lasted = self._calm_since.pop(name) - self._since.pop(name)
        del self._told[name]
        if not rule.tell_end:
            return []
        facts = {"Lasted since it was told": f"{max(lasted, 0.0):.0f} s", "Replica": self._here}
        due = self._plain(name, rule, now, _OVER[rule.when], facts, self._link())
        return [Due(due.alert.model_copy(update={"over": True, "severity": "info"}), due.send, _CALM_SECONDS)]

    def _is_over(self, name: str, rule: _Condition, now: float) -> bool:
        """Whether it is known not to hold any more, and not only that there is too little to say so."""
        match rule:
            case ErrorRateRule():
                return self._windows[name].look(now)[1] >= rule.at_least
            case StoreDownRule():
                return self._away_since is None
            case SilenceRule():
                return self._last_exchange > self._since[name]
            case _:
                assert_never(rule)

    def _reason(self, name: str, rule: _Condition, now: float) -> tuple[str, dict[str, str]] | None:
        """Title and facts, where the rule holds."""
        match rule:
            case ErrorRateRule():
                bad, total = self._windows[name].look(now)
                if total < rule.at_least or bad <= rule.above * total:
                    return None
                return f"{bad / total:.0%} of exchanges ended badly", {"Exchanges": f"{bad} of {total} in {rule.window_seconds} s"}
            case StoreDownRule():
                if self._away_since is None or now - self._away_since < rule.after_seconds:
                    return None
                seconds = f"{now - self._away_since:.0f} s"
                return "The audit store is away; emergencies are still answered, records go to the spool", {"Away for": seconds}
            case SilenceRule():
                opened = _opened(rule, now)
                quiet = now - max(self._last_exchange, opened) if opened is not None else 0.0
                return ("No exchange has arrived", {"Silent for": f"{quiet:.0f} s"}) if quiet >= rule.after_seconds else None
            case _:
                assert_never(rule)

    def _escalation(self, name: str, rule: EscalationRule, record: ExchangeRecord, decision: Decision) -> Due:
        patient = pseudonym(self._key, record.patient)
        urgency, destination = decision.urgency.word, str(decision.destination)
        words: tuple[str, ...] = ()
        if self._settings.include_words:
            found = dict.fromkeys(redact(f.text)[:_WORDS_CHARS] for hit in decision.hits for f in hit.evidence if f.text)
            words = tuple(found)[:_MOST_WORDS]
        told = Escalation(
            exchange=record.id,
            urgency=urgency,
            destination=destination,
            topics=tuple(sorted(decision.topics)),
            rules=tuple(HitRule(id=h.rule, title=h.title) for h in decision.hits[:_MOST_RULES]),
            action=str(decision.action),
            outcome=str(record.outcome),
            packs=decision.revision,
            tenant=record.tenant,
            patient=patient,
            patient_id=record.patient,
            words=words,
        )
        by_patient = rule.repeat_seconds > 0 and patient is not None
        key = digest(patient, urgency, destination) if by_patient else record.id
        why = f": {decision.hits[0].title}" if decision.hits else ""
        alert = Alert(
            key=f"escalation:{name}:{key}",
            rule=name,
            kind="escalation",
            severity=rule.severity or _BY_URGENCY.get(decision.urgency, "info"),
            at=record.at,
            title=f"{urgency.capitalize()}, {destination.replace('_', ' ')}{why}",
            link=self._link(record.id),
            escalation=told,
        )
        return Due(alert, rule.send, rule.repeat_seconds if by_patient else None)

    def _plain(self, name: str, rule: Rule, at: float, title: str, facts: dict[str, str], link: str | None) -> Due:
        kind: Kind = rule.when
        alert = Alert(
            key=f"{kind}:{name}",
            rule=name,
            kind=kind,
            severity=rule.severity or _SEVERITIES[kind],
            at=at,
            title=title,
            facts=facts,
            link=link,
        )
        return Due(alert, rule.send, rule.repeat_seconds)

    def _is_new(self, name: str, repeat_seconds: float, now: float) -> bool:
        """Whether this process has not told it lately."""
        if now - self._told.get(name, float("-inf")) < repeat_seconds:
            return False
        self._told[name] = now
        return True

    def _link(self, exchange: str | None = None) -> str | None:
        if self._address is None:
            return None
        return self._address + DASHBOARD + (f"/exchanges/{exchange}" if exchange else "")


def _concerns(rule: EscalationRule, decision: Decision, tenant: str | None) -> bool:
    return (
        decision.urgency >= Urgency[rule.urgency.upper()]
        and (not rule.destinations or decision.destination in rule.destinations)
        and (not rule.topics or not decision.topics.isdisjoint(rule.topics))
        and (not rule.tenants or tenant in rule.tenants)
    )


def _opened(rule: SilenceRule, now: float) -> float | None:
    """When the hours of expected traffic began; None outside of them."""
    start, end = read_hours(rule.hours)
    here = datetime.fromtimestamp(now, ZoneInfo(rule.timezone))
    minutes = here.hour * 60 + here.minute
    if (start, end) == (0, 24 * 60):
        return 0.0
    return now - ((minutes - start) * 60 + here.second) if start <= minutes < end else None


class _Window:
    """How many exchanges of the last seconds ended badly, in steps of a second."""

    def __init__(self, rule: ErrorRateRule) -> None:
        self._bad_outcomes = frozenset(rule.outcomes)
        self._seconds = rule.window_seconds
        self._steps: deque[list[int]] = deque()  # second, bad, total

    def count(self, record: ExchangeRecord) -> None:
        second = int(record.at)
        # Exchanges end in another order than they began in: an older one is counted with the newest second.
        if not self._steps or self._steps[-1][0] < second:
            self._steps.append([second, 0, 0])
            self._forget(second)
        step = self._steps[-1]
        step[1] += record.outcome in self._bad_outcomes
        step[2] += 1

    def look(self, now: float) -> tuple[int, int]:
        """Bad ones, all."""
        self._forget(int(now))
        return sum(s[1] for s in self._steps), sum(s[2] for s in self._steps)

    def _forget(self, now: int) -> None:
        while self._steps and self._steps[0][0] <= now - self._seconds:
            self._steps.popleft()
