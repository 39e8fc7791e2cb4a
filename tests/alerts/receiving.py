"""Really listening receivers, alerts to send to them, and a running service."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from guardrail.alerts.alert import Alert, Escalation, HitRule
from guardrail.alerts.service import Alerts
from guardrail.alerts.settings import AlertSettings

WITHIN = 15.0
"""Seconds until something that must happen has happened."""
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@dataclass(frozen=True, slots=True)
class Got:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """An HTTP server. Bound from the beginning, it refuses connections until it is `up`.

    `answers` are statuses, with headers if any, taken one after the other; the last one stays. None: no answer ever.
    """

    def __init__(self, answers: Sequence[int | tuple[int, Mapping[str, str]] | None]) -> None:
        self.answers = list(answers)
        self._got: queue.Queue[Got] = queue.Queue()
        self.never = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver._got.put(Got(self.path, {n.lower(): v for n, v in self.headers.items()}, body))
                answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                if answer is None:
                    receiver.never.wait()
                    return
                status, headers = (answer, {}) if isinstance(answer, int) else answer
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.server_bind()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def up(self) -> None:
        self._server.server_activate()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def next(self) -> Got:
        """The next request, as soon as it is there."""
        return self._got.get(timeout=WITHIN)

    @property
    def waiting(self) -> int:
        """How many requests have arrived and were not looked at."""
        return self._got.qsize()

    def close(self) -> None:
        self.never.set()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join(WITHIN)
        self._server.server_close()


@contextlib.contextmanager
def receiving(*answers: int | tuple[int, Mapping[str, str]] | None, up: bool = True) -> Iterator[Receiver]:
    receiver = Receiver(answers or (200,))
    if up:
        receiver.up()
    try:
        yield receiver
    finally:
        receiver.close()


def alert(exchange: str = "id1", at: float = 1_700_000_000.0, **changes: Any) -> Alert:
    """An emergency."""
    told = Escalation(
        exchange=exchange,
        urgency="emergency",
        destination="ambulance",
        topics=("acute",),
        rules=(HitRule(id="acs", title="Chest pain <&> breathlessness"),),
        action="answer",
        outcome="answered",
        packs="rev",
        tenant="clinic",
        patient="f00dfeed",
        **changes,
    )
    return Alert(
        key=f"escalation:emergencies:{exchange}",
        rule="emergencies",
        kind="escalation",
        severity="critical",
        at=at,
        title="Emergency, ambulance: Chest pain <&> breathlessness",
        link=f"https://guard.example/-/dashboard/exchanges/{exchange}",
        escalation=told,
    )


def settings(receivers: Mapping[str, Any], rules: Mapping[str, Any] | None = None, **more: Any) -> AlertSettings:
    """Settings with short pauses; by default every emergency goes to every receiver."""
    values = {
        "timeout_seconds": 1.0,
        "retry_seconds": 0.05,
        "receivers": receivers,
        "rules": rules or {"emergencies": {"when": "escalation", "send": list(receivers)}},
        **more,
    }
    return AlertSettings.model_validate(values)


def hook(receiver: Receiver) -> dict[str, Any]:
    return {"kind": "webhook", "url": receiver.url, "secret": SECRET}


class Meter:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.results: list[tuple[str, str]] = []
        self.counts: dict[str, int] = {}
        self._changed = threading.Condition()

    def delivered(self, receiver: str, result: str) -> None:
        with self._changed:
            self.results.append((receiver, result))
            self._changed.notify_all()

    def pending(self, receiver: str, count: int) -> None:
        self.counts[receiver] = count

    def wait_for(self, receiver: str, result: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (receiver, result) in self.results, WITHIN), self.results


@contextlib.contextmanager
def running(service: Alerts) -> Iterator[None]:
    """The service at work, from start to close."""
    service.start()
    try:
        yield
    finally:
        service.close()
