"""What Prometheus reads at `/-/metrics`: counts and durations of exchanges, and what works. Never a patient's words.

Labels are closed sets, so that no traffic can make the number of series grow. With several workers, set PROMETHEUS_MULTIPROC_DIR to
an empty folder before the start: each worker writes there and any of them answers for all.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from starlette.requests import Request
from starlette.responses import Response

from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.model import Urgency

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
# The promise is milliseconds; the deadline of a review is 2 s by default.
_GUARD_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0)
_UPSTREAM_BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_UPSTREAM_ERRORS: Final = frozenset({Outcome.UPSTREAM_UNREACHABLE, Outcome.UPSTREAM_REFUSED, Outcome.UPSTREAM_LOST})
# Issue names come from reply packs, which a site may add to.
_MOST_ISSUES: Final = 64


class Metrics:
    """A recorder of exchanges, and the page that shows what it counted."""

    def __init__(self, knowledge: Callable[[], Knowledge], parts: Callable[[], Mapping[str, bool]]) -> None:
        self._knowledge = knowledge
        self._parts = parts
        self._registry = CollectorRegistry()
        registry = self._registry
        self._exchanges = Counter(
            "guardrail_exchanges", "Exchanges by how they ended.", ["outcome", "action", "urgency"], registry=registry
        )
        self._escalations = Counter(
            "guardrail_escalations",
            "Exchanges of urgency urgent and above, by where the patient was sent.",
            ["destination"],
            registry=registry,
        )
        self._issues = Counter("guardrail_reply_issues", "What was wrong with replies.", ["issue", "shadow"], registry=registry)
        self._upstream_errors = Counter("guardrail_upstream_errors", "Replies that the model failed to give.", ["kind"], registry=registry)
        self._not_evaluated = Counter(
            "guardrail_not_evaluated_exchanges", "Exchanges with parts that could not be read.", registry=registry
        )
        self._guard_seconds = Histogram(
            "guardrail_guard_seconds", "Time to review a conversation.", buckets=_GUARD_BUCKETS, registry=registry
        )
        self._upstream_seconds = Histogram(
            "guardrail_upstream_seconds", "Time until the model began to answer.", buckets=_UPSTREAM_BUCKETS, registry=registry
        )
        self._works = Gauge("guardrail_part_works", "1 while the part works.", ["part"], registry=registry, multiprocess_mode="livemin")
        self._packs = Gauge("guardrail_packs_info", "Packs in force.", ["revision"], registry=registry, multiprocess_mode="livemax")
        self._rules = Gauge("guardrail_rules", "Rules in force.", registry=registry, multiprocess_mode="livemax")
        self._unreviewed = Gauge(
            "guardrail_packs_not_reviewed", "Packs that no clinician has reviewed.", registry=registry, multiprocess_mode="livemax"
        )
        self._alerts = Counter(
            "guardrail_alert_attempts",
            "Attempts to bring an alert to a receiver: sent, failed (tried again), given_up.",
            ["receiver", "result"],
            registry=registry,
        )
        self._alerts_pending = Gauge(
            "guardrail_alerts_pending", "Alerts on their way.", ["receiver"], registry=registry, multiprocess_mode="livemax"
        )
        self._seen_issues: set[str] = set()
        self._revision = ""

    def record(self, record: ExchangeRecord) -> None:
        decision = record.decision
        action, urgency = (str(decision.action), decision.urgency.word) if decision else ("none", "none")
        self._exchanges.labels(str(record.outcome), action, urgency).inc()
        if decision is not None:
            self._guard_seconds.observe(record.guard_ms / 1000)
            if decision.urgency >= Urgency.URGENT:
                self._escalations.labels(str(decision.destination)).inc()
        if record.upstream_ms:
            self._upstream_seconds.observe(record.upstream_ms / 1000)
        if record.outcome in _UPSTREAM_ERRORS:
            self._upstream_errors.labels(str(record.outcome)).inc()
        if record.not_evaluated:
            self._not_evaluated.inc()
        for channel in record.reply:
            for issue in channel.get("issues", ()):
                self._issues.labels(self._bounded(str(issue["issue"])), str(bool(issue.get("shadow"))).lower()).inc()

    def delivered(self, receiver: str, result: str) -> None:
        """One attempt at an alert. Receivers are those of the settings."""
        self._alerts.labels(receiver, result).inc()

    def pending(self, receiver: str, count: int) -> None:
        """How many alerts are on their way to a receiver, as last counted."""
        self._alerts_pending.labels(receiver).set(count)

    async def page(self, request: Request) -> Response:
        """What Prometheus reads."""
        self._look()
        registry = self._registry
        if os.environ.get(MULTIPROCESS):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def close(self) -> None:
        """A worker that ends no longer says what works."""
        if os.environ.get(MULTIPROCESS):
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]  # the library has no types here

    def _look(self) -> None:
        knowledge = self._knowledge()
        for part, works in self._parts().items():
            self._works.labels(part).set(works)
        if self._revision not in ("", knowledge.revision):
            self._packs.labels(self._revision).set(0)
        self._revision = knowledge.revision
        self._packs.labels(knowledge.revision).set(1)
        self._rules.set(len(knowledge.rules))
        self._unreviewed.set(sum(p.reviewed is None for p in knowledge.packs))

    def _bounded(self, issue: str) -> str:
        if issue not in self._seen_issues:
            if len(self._seen_issues) >= _MOST_ISSUES:
                return "other"
            self._seen_issues.add(issue)
        return issue
