"""Traces: OpenTelemetry's own SDK and exporter, a receiver on loopback that speaks OTLP, real servers at both ends."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from guardrail.app import create_app
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from guardrail.errors import ConfigError
from guardrail.proxy.tracing import UNTRACED
from tests.processes import guardrail_serve, needs_linux
from tests.serving import Call, ScriptedUpstream, saying, serving, upstream

pytest.importorskip("opentelemetry.sdk", reason="needs the extra tracing")
service_pb = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UPSTREAM = saying("Drink water and rest.")


class Collector:
    """Keeps the spans it was sent, by name."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.resource: dict[str, str] = {}
        self.raw = b""
        self.app = Starlette(routes=[Route("/v1/traces", self.take, methods=["POST"])])

    async def take(self, request: Request) -> Response:
        body = await request.body()
        message = service_pb.ExportTraceServiceRequest()
        message.ParseFromString(body)
        self.raw += str(message).encode()
        for group in message.resource_spans:
            self.resource = attributes(group.resource)
            self.spans |= {span.name: span for scope in group.scope_spans for span in scope.spans}
        return Response(b"", media_type="application/x-protobuf")


def attributes(holder: Any) -> dict[str, Any]:
    out = {}
    for pair in holder.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        out[pair.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return out


@contextlib.contextmanager
def traced(guard: Guard, collector: Collector) -> Iterator[tuple[str, ScriptedUpstream]]:
    """A proxy whose spans have all arrived when it has stopped."""
    with serving(collector.app) as url, upstream(UPSTREAM) as model:
        with serving(create_app(Settings(upstream=model.url, traces=url), guard=guard)) as proxy:
            yield proxy, model


def ask(url: str, text: str, **more: Any) -> httpx.Response:
    body = {"model": "canary-model", "messages": [{"role": "user", "content": text}], "user": "canary-7", **more}
    return httpx.post(url + "/v1/chat/completions?canary=1", json=body, headers={"traceparent": CALLER, "tracestate": "app=1"})


@pytest.mark.parametrize("stream", [False, True])
def test_one_trace_from_the_caller_through_to_the_upstream(small_guard: Guard, stream: bool) -> None:
    collector = Collector()
    with traced(small_guard, collector) as (url, model):
        answer = ask(url, "hello canary", stream=stream)

    spans = collector.spans
    assert set(spans) == {"exchange openai_chat", "review", "upstream", "reply"}
    exchange = spans["exchange openai_chat"]
    assert {span.trace_id.hex() for span in spans.values()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert exchange.parent_span_id.hex() == "00f067aa0ba902b7"
    assert {spans[name].parent_span_id for name in ("review", "upstream", "reply")} == {exchange.span_id}
    assert exchange.start_time_unix_nano <= spans["review"].end_time_unix_nano <= spans["upstream"].start_time_unix_nano
    assert spans["upstream"].end_time_unix_nano <= spans["reply"].start_time_unix_nano <= exchange.end_time_unix_nano
    sent_on = model.calls[0]
    assert sent_on.header("traceparent") == [f"00-4bf92f3577b34da6a3ce929d0e0e4736-{spans['upstream'].span_id.hex()}-01"]
    assert sent_on.header("tracestate") == ["app=1"]
    found = attributes(exchange)
    assert found["guardrail.exchange"] == answer.headers["guardrail-exchange"]
    assert (found["guardrail.outcome"], found["guardrail.action"], found["http.response.status_code"]) == ("forwarded", "forward", 200)
    assert collector.resource["service.name"] == "guardrail"


def test_a_redirect_has_no_upstream_and_no_words(small_guard: Guard) -> None:
    collector = Collector()
    with traced(small_guard, collector) as (url, model):
        ask(url, "I have chest pain canary")

    assert set(collector.spans) == {"exchange openai_chat", "review"}
    found = attributes(collector.spans["exchange openai_chat"])
    assert (found["guardrail.urgency"], found["guardrail.destination"]) == ("emergency", "ambulance")
    assert found["guardrail.rules"] == ["chest_pain"]
    assert model.calls == []
    assert collector.raw
    assert b"canary" not in collector.raw
    assert b"chest pain" not in collector.raw


def test_failures_are_marked_without_their_messages(small_guard: Guard) -> None:
    async def refuses(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 canary\r\n\r\n")
        writer.close()

    collector = Collector()
    with serving(collector.app) as receiver, upstream(refuses) as model:
        with serving(create_app(Settings(upstream=model.url, traces=receiver), guard=small_guard)) as url:
            assert ask(url, "hello canary").status_code == 502

    exchange, sent = collector.spans["exchange openai_chat"], collector.spans["upstream"]
    assert (exchange.status.code, exchange.status.message) == (2, "upstream_unreachable")
    assert (sent.status.code, sent.status.message) == (2, "UpstreamUnreachable")
    assert b"canary" not in collector.raw


def test_a_caller_without_a_trace_begins_one(small_guard: Guard) -> None:
    collector = Collector()
    with traced(small_guard, collector) as (url, model):
        httpx.post(url + "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "hello"}]})

    exchange = collector.spans["exchange openai_chat"]
    assert exchange.parent_span_id == b""
    assert model.calls[0].header("traceparent")[0].split("-")[1] == exchange.trace_id.hex()


def test_without_the_setting_the_callers_context_passes_as_it_is(small_guard: Guard) -> None:
    with upstream(UPSTREAM) as model:
        app = create_app(Settings(upstream=model.url), guard=small_guard)
        with serving(app) as url:
            ask(url, "hello")

    assert app.service.tracing is UNTRACED  # type: ignore[attr-defined]  # without CORS the app is our own class
    assert model.calls[0].header("traceparent") == [CALLER]


def test_a_collector_that_is_away_delays_nobody(small_guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with upstream(UPSTREAM) as model:
        with serving(create_app(Settings(upstream=model.url, traces="http://127.0.0.1:9"), guard=small_guard)) as url:
            answer = ask(url, "hello")

    assert answer.status_code == 200
    assert orjson.loads(model.calls[0].body)["model"] == "canary-model"


@needs_linux
def test_every_worker_sends_what_it_has_before_it_ends(tmp_path: Path) -> None:
    collector = Collector()
    with serving(collector.app) as receiver, guardrail_serve(tmp_path, workers=2, traces=receiver) as server:
        ask(server.url, "I have chest pain canary")
        assert server.stop() == 0

    assert set(collector.spans) == {"exchange openai_chat", "review"}


def test_the_extra_is_named_when_it_is_missing(small_guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "guardrail.tracing", None)

    with pytest.raises(ConfigError, match=r"pip install 'guardrail\[tracing\]'"):
        create_app(Settings(upstream="http://127.0.0.1:9", traces="http://127.0.0.1:4318"), guard=small_guard)
