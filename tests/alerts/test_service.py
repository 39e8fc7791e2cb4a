"""The whole way of an alert, from an exchange to receivers that are down, slow or broken."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from guardrail.alerts.outbox import rows_of
from guardrail.alerts.service import Alerts
from guardrail.alerts.settings import AlertSettings
from guardrail.app import create_app
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditStore
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from tests.alerts.receiving import WITHIN, Meter, Receiver, hook, receiving, running, settings
from tests.audit.records import exchange
from tests.conftest import SMALL_RULES
from tests.serving import serving

AWAY = "postgresql://postgres@127.0.0.1:9/away"


def service(alerts: AlertSettings, url: str | None, meter: Meter | None = None, works: bool = True) -> Alerts:
    return Alerts(alerts, url, b"key", lambda: works, meter or Meter())


def record_all(one: Alerts, count: int) -> None:
    for number in range(count):
        one.record(exchange(number))


def exchanges_of(receiver: Receiver, count: int) -> list[str]:
    return sorted(receiver.next().json["data"]["escalation"]["exchange"] for _ in range(count))


def states(url: str) -> list[tuple[str, str, int]]:
    return [(row["receiver"], row["state"], row["attempts"]) for row in rows_of(url)]


def test_an_escalation_reaches_its_receiver_and_is_settled(url: str) -> None:
    meter = Meter()
    with receiving() as receiver:
        one = service(settings({"a": hook(receiver)}), url, meter)
        with running(one):
            one.record(exchange(1))
            got = receiver.next()
            meter.wait_for("a", "sent")

    assert got.json["type"] == "guardrail.escalation"
    assert got.json["data"]["title"] == "Emergency, ambulance: Chest pain"
    assert "tight" not in got.body.decode()
    assert states(url) == [("a", "sent", 1)]


def test_a_receiver_that_is_down_gets_it_when_it_is_up(url: str) -> None:
    meter = Meter()
    with receiving(up=False) as receiver:
        one = service(settings({"a": hook(receiver)}), url, meter)
        with running(one):
            one.record(exchange(1))
            meter.wait_for("a", "failed")
            receiver.up()
            assert exchanges_of(receiver, 1) == ["id000001"]
            meter.wait_for("a", "sent")


def test_an_error_of_the_receiver_is_tried_again_with_the_same_id(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    meter = Meter()
    with receiving(503, 500, 200) as receiver:
        one = service(settings({"a": hook(receiver)}), url, meter)
        with running(one):
            one.record(exchange(1))
            attempts = [receiver.next() for _ in range(3)]
            meter.wait_for("a", "sent")

    assert len({a.id for a in attempts}) == 1
    assert meter.results == [("a", "failed"), ("a", "failed"), ("a", "sent")]
    assert states(url) == [("a", "sent", 3)]


def test_a_receiver_that_never_answers_delays_no_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    meter = Meter()
    with receiving(None) as silent, receiving() as good:
        one = service(settings({"silent": hook(silent), "good": hook(good)}, timeout_seconds=0.5), url, meter)
        with running(one):
            begun = time.monotonic()
            record_all(one, 10)
            assert len(exchanges_of(good, 10)) == 10
            took = time.monotonic() - begun
            meter.wait_for("silent", "failed")
        silent.never.set()

    assert took < 5.0  # ten times ten attempts of half a second would be more
    assert {error for row in rows_of(url) if (error := row["error"])} == {"no answer within 0.5 s"}


def test_what_is_refused_is_given_up_at_once_and_what_never_works_in_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    meter = Meter()
    with receiving(400) as refusing, receiving(500) as broken:
        one = service(settings({"refusing": hook(refusing), "broken": hook(broken)}, give_up_seconds=0.2), url, meter)
        with running(one), capture_logs() as logs:
            one.record(exchange(1))
            meter.wait_for("refusing", "given_up")
            meter.wait_for("broken", "given_up")

    assert meter.results.count(("refusing", "failed")) == 0
    assert meter.results.count(("broken", "failed")) >= 1
    assert sorted((row["receiver"], row["state"], row["error"]) for row in rows_of(url)) == [
        ("broken", "given_up", "status 500"),
        ("refusing", "given_up", "status 400"),
    ]
    assert {entry["receiver"] for entry in logs if entry["event"] == "alert_given_up" and entry["alarm"]} == {"refusing", "broken"}


def test_two_replicas_tell_one_matter_once(postgres: str) -> None:
    """Both see the engine fail; both serve the receiver; twenty exchanges more show that both are done."""
    rules = {
        "engine": {"when": "engine_failure", "send": ["a"]},
        "emergencies": {"when": "escalation", "send": ["a"]},
    }
    with receiving() as receiver:
        one, two = (service(settings({"a": hook(receiver)}, rules), postgres) for _ in range(2))
        with running(one), running(two):
            for replica in (one, two):
                failed = ExchangeRecord("failed", time.time(), "chat_completions", Outcome.GUARD_FAILED)
                replica.record(failed)
                record_all(replica, 20)
            got = [receiver.next() for _ in range(21)]

    assert receiver.waiting == 0
    assert sorted(g.json["type"] for g in got) == ["guardrail.engine_failure"] + ["guardrail.escalation"] * 20
    assert len({g.id for g in got}) == 21


def test_that_the_store_is_down_is_told_without_it(tmp_path: Path) -> None:
    rules = {"store": {"when": "store_down", "after_seconds": 0, "send": ["a"]}}
    with receiving() as receiver:
        with running(service(settings({"a": hook(receiver)}, rules), AWAY, works=False)):
            got = receiver.next()

    assert got.json["type"] == "guardrail.store_down"
    assert got.json["data"]["title"].startswith("The audit store is away")


def test_escalations_leave_while_the_store_is_away() -> None:
    with receiving() as receiver:
        one = service(settings({"a": hook(receiver)}), AWAY)
        with running(one):
            one.record(exchange(1))
            assert exchanges_of(receiver, 1) == ["id000001"]


def test_without_an_audit_store_alerts_leave_from_memory_and_what_is_lost_is_said() -> None:
    with capture_logs() as logs, receiving() as receiver, receiving(500) as broken:
        one = service(settings({"a": hook(receiver), "broken": hook(broken)}), None)
        with running(one):
            one.record(exchange(1))
            assert exchanges_of(receiver, 1) == ["id000001"]

    assert [entry["event"] for entry in logs if entry["event"] == "alerts_in_memory_only"] == ["alerts_in_memory_only"]
    assert [entry["count"] for entry in logs if entry["event"] == "alerts_lost"] == [1]


def test_what_is_due_at_the_end_is_written_down(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    with receiving(up=False) as receiver:
        one = service(settings({"a": hook(receiver)}), url)
        with running(one):
            record_all(one, 5)

        assert {state for _, state, _ in states(url)} == {"pending"}
        assert len(states(url)) == 5
        receiver.up()
        with running(service(settings({"a": hook(receiver)}), url)):
            assert exchanges_of(receiver, 5) == [f"id00000{n}" for n in range(5)]


def test_the_id_of_the_patient_goes_to_the_clinical_system_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    with receiving() as receiver, receiving() as clinical:
        fhir = {"kind": "fhir", "url": clinical.url, "patient_system": "https://clinic.example/mrn"}
        one = service(settings({"a": hook(receiver), "ehr": fhir}), url)
        with running(one):
            one.record(exchange(1))
            plain, bundle = receiver.next(), clinical.next()

    assert b"patient-7" not in plain.body
    issue, communication = (entry["resource"] for entry in bundle.json["entry"])
    assert issue["patient"]["identifier"] == communication["subject"]["identifier"]
    assert issue["patient"]["identifier"] == {"system": "https://clinic.example/mrn", "value": "patient-7"}


def test_silence_is_not_told_while_another_replica_has_traffic(tmp_path: Path) -> None:
    """The store's newest exchange is of now; a second rule, without it, shows that the clock was looked at."""
    url = f"sqlite:///{tmp_path}/audit.db"
    store = AuditStore(url)
    store.record(ExchangeRecord("other", time.time() + 3600, "chat_completions", Outcome.FORWARDED))
    store.close()
    rules = {
        "silence": {"when": "silence", "after_seconds": 0.1, "send": ["a"]},
        "store": {"when": "store_down", "after_seconds": 0.3, "send": ["a"]},
    }
    with receiving() as receiver:
        with running(service(settings({"a": hook(receiver)}, rules), url, works=False)):
            assert receiver.next().json["type"] == "guardrail.store_down"
        assert receiver.waiting == 0

        store = AuditStore(empty := f"sqlite:///{tmp_path}/empty.db")
        store.close()
        with running(service(settings({"a": hook(receiver)}, {"silence": rules["silence"]}), empty)):
            assert receiver.next().json["type"] == "guardrail.silence"


def test_the_app_tells_and_counts(tmp_path: Path, small_guard: Guard) -> None:
    with receiving() as receiver:
        alerts, own = settings({"a": hook(receiver)}), "https://guard.example"
        given = Settings(upstream="http://127.0.0.1:9", audit=f"sqlite:///{tmp_path}/audit.db", alerts=alerts, dashboard_url=own)
        with serving(create_app(given, guard=small_guard)) as url, httpx.Client(base_url=url, trust_env=False) as client:
            id = ask(client)
            got = receiver.next()
            link = got.json["data"]["link"]
            # It is counted just after the receiver has answered.
            line = 'guardrail_alert_attempts_total{receiver="a",result="sent"} 1.0'
            wait_until(lambda: line in client.get("/-/metrics").text)
            metrics = client.get("/-/metrics").text

    assert link == f"https://guard.example/-/dashboard/exchanges/{id}"
    assert 'guardrail_alerts_pending{receiver="a"}' in metrics


def ask(client: httpx.Client) -> str:
    """An emergency; gives the exchange's id."""
    body = {"model": "m", "messages": [{"role": "user", "content": "I have chest pain"}]}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert "emergency" in answer.headers["guardrail-decision"]
    return answer.headers["guardrail-exchange"]


@contextlib.contextmanager
def process(config: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real `guardrail serve`, killed at the end."""
    command = [sys.executable, "-m", "guardrail", "serve", "--config", str(config), "--port", str(port), "--rules", str(SMALL_RULES)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        yield running
    finally:
        running.kill()
        running.wait(WITHIN)


@pytest.mark.parametrize(("when", "store"), [("before the receiver is up", "sqlite"), ("while it is sent", "postgres")])
def test_a_process_that_is_killed_between_writing_and_sending_loses_no_alert(
    tmp_path: Path, when: str, store: str, request: pytest.FixtureRequest
) -> None:
    """kill -9 of a real process after the patient was answered; the next one delivers, with the same id."""
    url = f"sqlite:///{tmp_path}/audit.db" if store == "sqlite" else request.getfixturevalue("postgres")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = when == "before the receiver is up"
    with receiving(*((200,) if before else (None, 200)), up=not before) as receiver:
        alerts = {
            "timeout_seconds": 1,
            "retry_seconds": 0.1,
            "receivers": {"a": hook(receiver)},
            "rules": {"emergencies": {"when": "escalation", "send": ["a"]}},
        }
        config = tmp_path / "guardrail.yaml"
        config.write_bytes(orjson.dumps({"upstream": "http://127.0.0.1:9", "audit": url, "alerts": alerts}))
        with process(config, port) as first, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            wait_until(lambda: listens(port))
            id = ask(client)
            begun = receiver.next() if not before else None
            wait_until(lambda: bool(states(url)))
            os.kill(first.pid, signal.SIGKILL)
            assert first.wait(WITHIN) == -signal.SIGKILL
        assert [(state, receiver_) for receiver_, state, _ in states(url)] == [("pending", "a")]

        if before:
            receiver.up()
        with process(config, port):
            got = receiver.next()

    assert got.json["data"]["escalation"]["exchange"] == id
    assert begun is None or begun.id == got.id


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN
    never = threading.Event()
    while not holds():
        assert time.monotonic() < until
        never.wait(0.05)  # leaves the processor to the process that is waited for


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
