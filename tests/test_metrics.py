"""What Prometheus reads."""

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role
from guardrail.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(metrics: Metrics) -> Samples:
    return read(TestClient(Starlette(routes=[Route("/-/metrics", metrics.page)])).get("/-/metrics").text)


def exchange(guard: Guard, text: str, outcome: Outcome, **more: object) -> ExchangeRecord:
    decision = guard.review(Conversation((Message(Role.USER, text),)))
    return ExchangeRecord("id", 1.0, "chat_completions", outcome, decision, texts=(text,), guard_ms=0.4, **more)  # type: ignore[arg-type]  # fields of the record


def test_exchanges_escalations_and_times_are_counted(small_guard: Guard) -> None:
    metrics = Metrics(lambda: small_guard.knowledge, lambda: {"audit": False})
    metrics.record(exchange(small_guard, "I have chest pain", Outcome.ANSWERED))
    metrics.record(exchange(small_guard, "hello", Outcome.UPSTREAM_LOST, upstream_ms=30.0))
    metrics.record(ExchangeRecord("id", 1.0, "chat_completions", Outcome.REJECTED))

    found = scrape(metrics)

    assert found["guardrail_exchanges_total", (("action", "answer"), ("outcome", "answered"), ("urgency", "emergency"))] == 1
    assert found["guardrail_exchanges_total", (("action", "none"), ("outcome", "rejected"), ("urgency", "none"))] == 1
    assert found["guardrail_escalations_total", (("destination", "ambulance"),)] == 1
    assert found["guardrail_guard_seconds_count", ()] == 2
    assert found["guardrail_guard_seconds_bucket", (("le", "0.0005"),)] == 2
    assert found["guardrail_upstream_seconds_sum", ()] == 0.03
    assert found["guardrail_part_works", (("part", "audit"),)] == 0
    assert found["guardrail_workers", (("revision", small_guard.knowledge.revision),)] == 1
    assert found["guardrail_packs_not_reviewed", ()] == 1


def test_with_a_token_the_page_is_for_who_shows_it(small_guard: Guard) -> None:
    metrics = Metrics(lambda: small_guard.knowledge, dict, token="a token of ours")
    client = TestClient(Starlette(routes=[Route("/-/metrics", metrics.page)]))
    shown = ("", "Bearer another", "Bearer a token of ours", "Basic a token of ours", "Bearer ünlesbar")

    found = [client.get("/-/metrics", headers={b"authorization": value.encode()}).status_code for value in shown]

    assert found == [401, 401, 200, 401, 401]
    assert client.get("/-/metrics").headers["www-authenticate"] == 'Bearer realm="Guardrail"'


def test_issues_cannot_make_the_series_grow_without_end(small_guard: Guard) -> None:
    metrics = Metrics(lambda: small_guard.knowledge, dict)
    for number in range(200):
        metrics.record(exchange(small_guard, "hello", Outcome.CUT, reply=({"issues": [{"issue": f"made_up_{number}"}]},)))

    issues = {dict(labels)["issue"]: value for (name, labels), value in scrape(metrics).items() if name == "guardrail_reply_issues_total"}

    assert len(issues) == 65
    assert issues["other"] == 136


def test_no_words_of_a_patient_are_in_the_metrics(small_guard: Guard) -> None:
    metrics = Metrics(lambda: small_guard.knowledge, dict)
    metrics.record(exchange(small_guard, "canary chest pain", Outcome.ANSWERED, patient="canary-7", tenant="canary", error="canary"))

    assert "canary" not in str(scrape(metrics))


def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    """Two processes write, a third is asked."""
    script = """
import sys
from pathlib import Path
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient
from guardrail.app import load_guard
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.metrics import Metrics

guard = load_guard(Path(sys.argv[1]))
metrics = Metrics(lambda: guard.knowledge, lambda: {"audit": True})
metrics.record(ExchangeRecord("id", 1.0, "chat_completions", Outcome.REJECTED))
print(TestClient(Starlette(routes=[Route("/", metrics.page)])).get("/").text)
metrics.close()
"""
    rules = Path(__file__).parent / "small_rules"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, str(rules)], env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for _ in range(3)
    ]

    found = read(outputs[-1])
    assert found["guardrail_exchanges_total", (("action", "none"), ("outcome", "rejected"), ("urgency", "none"))] == 3
    assert found["guardrail_part_works", (("part", "audit"),)] == 1
