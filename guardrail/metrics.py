"""What Prometheus reads at `/-/metrics`: counts and durations of exchanges, and what works. Never a patient's words.

Labels are closed sets, so that no traffic can make the number of series grow. Counters of the rare and serious start at zero, because
Prometheus sees no increase in a series that begins with one. With several workers each writes to files in PROMETHEUS_MULTIPROC_DIR,
which `guardrail serve` sets, and any of them answers for all; other servers set it to an empty folder before the start.
"""

import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from starlette.requests import Request
from starlette.responses import Response

from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.model import Action, Destination, Urgency

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
# The promise is milliseconds; the deadline of a review is 2 s by default.
_GUARD_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_UPSTREAM_BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
# Issue names come from reply packs, which a site may add to.
_MOST_ISSUES: Final = 64


class Metrics:
    """A recorder of exchanges, and the page that shows what it counted.

    `parts` is what works, by name, None for what has not been tried; `in_flight` how many exchanges are with the model. With a `token`
    the page is for who shows it.
    """

    def __init__(
        self,
        knowledge: Callable[[], Knowledge],
        parts: Callable[[], Mapping[str, bool | None]],
        in_flight: Callable[[], int] = lambda: 0,
        token: str | None = None,
    ) -> None:
        self._token = token
        self._knowledge = knowledge
        self._parts = parts
        self._count_in_flight = in_flight
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
        self._not_evaluated = Counter(
            "guardrail_not_evaluated_exchanges", "Exchanges with parts that could not be read.", registry=registry
        )
        self._guard_seconds = Histogram(
            "guardrail_guard_seconds", "Time to review a conversation.", buckets=_GUARD_BUCKETS, registry=registry
        )
        self._upstream_seconds = Histogram(
            "guardrail_upstream_seconds", "Time until the model began to answer.", buckets=_UPSTREAM_BUCKETS, registry=registry
        )
        self._in_flight = Gauge(
            "guardrail_exchanges_in_flight", "Exchanges that are with the model.", registry=registry, multiprocess_mode="livesum"
        )
        self._works = Gauge("guardrail_part_works", "1 while the part works.", ["part"], registry=registry, multiprocess_mode="livemin")
        self._workers = Gauge(
            "guardrail_workers",
            "Worker processes, by the revision of the packs they have in force.",
            ["revision"],
            registry=registry,
            multiprocess_mode="livesum",
        )
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
        self._begin()

    def record(self, record: ExchangeRecord) -> None:
        decision = record.decision
        action, urgency = (str(decision.action), decision.urgency.word) if decision else ("none", "none")
        self._exchanges.labels(str(record.outcome), action, urgency).inc()
        if decision is not None and decision.urgency >= Urgency.URGENT:
            self._escalations.labels(str(decision.destination)).inc()
        if record.guard_ms:
            self._guard_seconds.observe(record.guard_ms / 1000)
        if record.upstream_ms:
            self._upstream_seconds.observe(record.upstream_ms / 1000)
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
        if self._token is not None:
            shown = request.headers.get("authorization", "")
            if not hmac.compare_digest(shown.encode(), f"Bearer {self._token}".encode()):
                return Response("send the metrics token as Authorization: Bearer\n", 401, {"www-authenticate": 'Bearer realm="Guardrail"'})
        self.look()
        registry = self._registry
        if folder := os.environ.get(MULTIPROCESS):
            _forget_the_dead(Path(folder))
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def look(self) -> None:
        """Note how things are now. Each worker does now and then, as any other may be asked for the page."""
        knowledge = self._knowledge()
        for part, works in self._parts().items():
            if works is not None:
                self._works.labels(part).set(works)
        if self._revision not in ("", knowledge.revision):
            self._workers.labels(self._revision).set(0)
        self._revision = knowledge.revision
        self._workers.labels(knowledge.revision).set(1)
        self._rules.set(len(knowledge.rules))
        self._unreviewed.set(sum(p.reviewed is None for p in knowledge.packs))
        self._in_flight.set(self._count_in_flight())

    def close(self) -> None:
        """A worker that ends no longer says what works."""
        if os.environ.get(MULTIPROCESS):
            _mark_dead(os.getpid())

    def _begin(self) -> None:
        """The series whose first increase must be seen."""
        for outcome in Outcome:
            self._exchanges.labels(str(outcome), "none", "none")
            if outcome is not Outcome.REJECTED:  # it comes before the decision
                for action in Action:
                    for urgency in Urgency:
                        self._exchanges.labels(str(outcome), str(action), urgency.word)
        for destination in Destination:
            if destination is not Destination.NONE:
                self._escalations.labels(str(destination))

    def _bounded(self, issue: str) -> str:
        if issue not in self._seen_issues:
            if len(self._seen_issues) >= _MOST_ISSUES:
                return "other"
            self._seen_issues.add(issue)
        return issue


def _forget_the_dead(folder: Path) -> None:
    """Workers that were killed could not say that they end; what they counted stays, what they said of themselves goes."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            _mark_dead(int(pid))


def _mark_dead(pid: int) -> None:
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library has no types here
