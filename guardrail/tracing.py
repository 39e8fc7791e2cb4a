"""Traces of exchanges by OpenTelemetry: one span for each exchange, with spans for review, upstream and reply within.

The caller's W3C context is continued, and handed on to the upstream. Spans go out in batches by OTLP over HTTP, from a thread of their
own; what cannot be delivered is dropped, and no exchange waits. The variables OTEL_* apply (sampler, headers, resource, timeouts). What
may be told of a record is named here, as in `logs`: never a patient's words, nor anything else that the caller chose.

Imported only when the setting `traces` asks for it; needs the extra `tracing`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from guardrail import __version__
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.proxy.upstream import Headers

_CONTEXT_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})
_KINDS: Final = {"upstream": SpanKind.CLIENT}
_FAILED: Final = frozenset(
    {Outcome.GUARD_FAILED, Outcome.UPSTREAM_UNREACHABLE, Outcome.UPSTREAM_REFUSED, Outcome.UPSTREAM_LOST, Outcome.SHUTDOWN}
)
_propagator: Final = TraceContextTextMapPropagator()


class OpenTelemetryTracing:
    """Traces to `endpoint`, such as http://127.0.0.1:4318."""

    def __init__(self, endpoint: str) -> None:
        named = Resource.create({SERVICE_NAME: "guardrail", SERVICE_VERSION: __version__})
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before our own names.
        self._provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
        self._tracer = self._provider.get_tracer("guardrail", __version__)

    def begin(self, dialect: str, headers: Headers) -> "_ExchangeTrace":
        given = {name.decode("ascii"): value.decode("latin-1") for name, value in headers if name in _CONTEXT_HEADERS}
        parent = _propagator.extract(given, context.Context())
        return _ExchangeTrace(self._tracer, self._tracer.start_span(f"exchange {dialect}", parent, SpanKind.SERVER))

    def close(self) -> None:
        """Send what waits. Blocks for as long as that takes."""
        self._provider.shutdown()


class _ExchangeTrace:
    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = self._running = span

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        span = self._tracer.start_span(name, set_span_in_context(self._span, context.Context()), _KINDS.get(name, SpanKind.INTERNAL))
        self._running = span
        try:
            yield
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))  # its message may hold what somebody wrote
            raise
        finally:
            span.end()
            self._running = self._span

    def headers(self, headers: Headers) -> Headers:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(self._running, context.Context()))
        return [h for h in headers if h[0] not in _CONTEXT_HEADERS] + [(k.encode(), v.encode()) for k, v in carrier.items()]

    def end(self, record: ExchangeRecord) -> None:
        span, decision = self._span, record.decision
        span.set_attributes(
            {
                "http.request.method": "POST",
                "http.response.status_code": record.status,
                "guardrail.exchange": record.id,
                "guardrail.dialect": record.dialect,
                "guardrail.outcome": str(record.outcome),
                "guardrail.stream": record.stream,
            }
        )
        if decision is not None:
            span.set_attributes(
                {
                    "guardrail.urgency": decision.urgency.word,
                    "guardrail.destination": str(decision.destination),
                    "guardrail.action": str(decision.action),
                    "guardrail.rules": [hit.rule for hit in decision.hits],
                    "guardrail.packs": decision.revision,
                }
            )
        if record.outcome in _FAILED:
            span.set_status(Status(StatusCode.ERROR, str(record.outcome)))
        span.end()
