"""One exchange, from arrival to record: read, review, answer or forward, review the reply, write, record.

A raw ASGI callable per dialect. `Service` is made once and shared by all; `_Exchange` is made per request. Every way an
exchange can fail is a branch of `Endpoint.__call__`, and each has its outcome. Nothing here decides what is safe.
"""

import asyncio
import os
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.engine.guard import Guard
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.model import Action, Conversation, Decision, Destination, Role, Urgency
from guardrail.engine.reply import ReplyGuard
from guardrail.errors import CallerError, GuardFailed, RequestTooLarge, UpstreamError, UpstreamLost
from guardrail.proxy.dialects.dialect import Dialect, Request, Stamp
from guardrail.proxy.encoding import decoder_for
from guardrail.proxy.limits import ExchangeLimits
from guardrail.proxy.relay import DocumentRelay, StreamRelay
from guardrail.proxy.tracing import UNTRACED, Tracing
from guardrail.proxy.trust import KEY_HEADERS, Caller, Trust
from guardrail.proxy.turns import in_turns
from guardrail.proxy.upstream import Headers, Upstream, UpstreamReply

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_SENT_ON = _HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding", b"expect"}
# The server writes its own date; digests would be wrong after an edit; the guardrail headers are ours alone.
_NOT_RETURNED = _HOP_BY_HOP | {
    b"content-length",
    b"content-encoding",
    b"content-digest",
    b"repr-digest",
    b"digest",
    b"content-md5",
    b"etag",
    b"date",
    b"guardrail-decision",
    b"guardrail-exchange",
    b"guardrail-packs",
}
_JSON = (b"content-type", b"application/json")
_IDENTITY = (b"accept-encoding", b"identity")
_DRAIN_SECONDS = 0.5
# A reply in one piece is mostly there sooner; until then nobody watches, which saves a task per request.
_WATCH_AFTER_SECONDS = 0.05
SAFE_ANSWER = "guard_failed"
LOST_NOTICE = "upstream_lost"
HISTORY_NOT_VISIBLE = "request:history_not_visible"
"""Recorded where the provider holds earlier turns (`previous_response_id` and its like), which the guard has not read."""

MakeReplyGuard = Callable[[Knowledge, Decision, str, bool, Conversation], ReplyGuard]

log = structlog.get_logger("guardrail")


_NOTHING_SAID = Conversation(())


class _ClientLeft(Exception):
    """The patient's connection closed."""


class Unavailable(CallerError):
    """Too much at once: try again. Emergencies are answered all the same."""

    status = 503


@dataclass(slots=True)
class Service:
    """What the endpoints of one app share. `guard` is replaced whole when packs are reloaded."""

    guard: Guard
    upstream: Upstream
    record: Callable[[ExchangeRecord], None]
    note: Callable[[ExchangeRecord], None] = lambda record: None
    """Told of the exchange before the last bytes of its answer, so that a kill after them does not lose it."""
    limits: ExchangeLimits = field(default_factory=ExchangeLimits)
    trust: Trust = field(default_factory=Trust)
    upstream_key: bytes | None = None
    """Sent to the upstream in place of the caller's credentials."""
    remove_unreadable: bool = True
    reply_guard: MakeReplyGuard = ReplyGuard
    tracing: Tracing = UNTRACED
    new_id: Callable[[], str] = field(default_factory=lambda: new_id)
    in_flight: int = 0


def new_id() -> str:
    """Sorts by time: milliseconds since the epoch, then 64 random bits."""
    return f"{time.time_ns() // 1_000_000:011x}{os.urandom(8).hex()}"


class Endpoint:
    """Answers one dialect's requests."""

    def __init__(self, dialect: Dialect, service: Service) -> None:
        self._dialect = dialect
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self._dialect, self._service, scope, receive, send)
        try:
            exchange.check_method()
            caller = exchange.admit()
            body = await exchange.read_body()
            request = exchange.read_request(body)
            decision = await exchange.review(request, caller)
            if decision.action is Action.ANSWER:
                await exchange.answer(decision.answer or exchange.safe_answer(), Outcome.ANSWERED)
            else:
                exchange.take_place(caller)
                await exchange.forward(body, request, decision)
        except CallerError as error:
            await exchange.refuse(error, Outcome.REJECTED)
        except GuardFailed as error:
            exchange.raise_alarm(error)
            await exchange.answer(exchange.safe_answer(), Outcome.GUARD_FAILED)
        except UpstreamError as error:
            await exchange.refuse(error, Outcome.UPSTREAM_LOST if exchange.has_reply else Outcome.UPSTREAM_UNREACHABLE)
        except _ClientLeft:
            exchange.outcome = Outcome.CLIENT_LEFT
        except asyncio.CancelledError:
            if not exchange.client_left:
                await exchange.refuse(UpstreamLost("the service is shutting down; ask again"), Outcome.SHUTDOWN)
                raise
            exchange.outcome = Outcome.CLIENT_LEFT
        except Exception as error:  # a fault of ours is a guard that failed: nothing unreviewed goes on, and the operator is told
            exchange.raise_alarm(GuardFailed(type(error).__name__), error)
            await exchange.give_up()
        finally:
            await exchange.close()


class _Exchange:
    """State of one exchange, and its steps."""

    def __init__(self, dialect: Dialect, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self._dialect = dialect
        self._service = service
        self._guard = service.guard  # one revision from beginning to end, whatever is reloaded meanwhile
        self._scope = scope
        self._receive = receive
        self._send = send
        self._began = time.perf_counter()
        self._trace = service.tracing.begin(dialect.name, scope["headers"])
        self._record = ExchangeRecord(service.new_id(), time.time(), dialect.name, Outcome.FORWARDED)
        self._request: Request | None = None
        self._conversation = _NOTHING_SAID
        self._country: str | None = service.trust.country
        self._language = service.trust.language or "en"
        self._reply: UpstreamReply | None = None
        self._relay: StreamRelay | DocumentRelay | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._started = False
        self._has_place = False
        self.client_left = False

    @property
    def outcome(self) -> Outcome:
        return self._record.outcome

    @outcome.setter
    def outcome(self, outcome: Outcome) -> None:
        self._record.outcome = outcome

    @property
    def has_reply(self) -> bool:
        """Whether the upstream has begun to answer."""
        return self._reply is not None

    # Read

    def check_method(self) -> None:
        if self._scope["method"] != "POST":
            raise _MethodNotAllowed("this path takes POST only")
        for name, value in self._scope["headers"]:
            if name == b"content-encoding" and value.strip().lower() != b"identity":
                raise _UnsupportedEncoding("compressed requests are not read; send the body without content-encoding")

    def admit(self) -> Caller:
        caller = self._service.trust.caller(self._scope)
        self._record.tenant = caller.tenant.name if caller.tenant else None
        self._record.patient = caller.patient
        self._country = caller.country
        self._language = caller.language or "en"
        return caller

    async def read_body(self) -> bytes:
        limit = self._service.limits.body_bytes
        event = await self._receive()
        body: bytes = event.get("body", b"")
        if event.get("more_body"):
            parts, size = [body], len(body)
            while event.get("more_body"):
                event = await self._receive()
                parts.append(event.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    break
            body = b"".join(parts)
        if event["type"] == "http.disconnect":
            raise _ClientLeft
        if len(body) > limit:
            raise RequestTooLarge(f"the body is larger than {limit} bytes")
        return body

    def read_request(self, body: bytes) -> Request:
        request = self._dialect.read_request(body, self._scope["path"])
        self._service.limits.check(request)
        record = self._record
        record.model, record.stream = request.model or None, request.stream
        record.patient = record.patient or request.patient
        record.texts = tuple(m.text for m in request.messages if m.role is Role.USER)
        record.turns = tuple(turn for turn, m in enumerate(request.messages) if m.role is Role.USER)
        unread = dict.fromkeys(f"request:{kind}" for m in request.messages if m.unread and m.role is Role.USER for kind in m.unread)
        unseen = (HISTORY_NOT_VISIBLE,) if request.history_not_visible else ()
        record.not_evaluated = (*unread, *request.unknown, *unseen)
        self._request = request
        return request

    # Review

    async def review(self, request: Request, caller: Caller) -> Decision:
        """The guard's decision, within its time, and without keeping the loop from others."""
        conversation = self._conversation = Conversation(request.messages, caller.country, caller.language, request.history_not_visible)
        began = time.perf_counter()
        try:
            with self._trace.part("review"):
                decision: Decision = await in_turns(self._guard.review_steps(conversation), self._service.limits.review_seconds)
        finally:
            self._record.guard_ms = (time.perf_counter() - began) * 1000
        self._record.decision = decision
        self._language = decision.language
        if decision.not_evaluated:
            self._add_not_evaluated(decision.not_evaluated)
        return decision

    def raise_alarm(self, error: GuardFailed, cause: BaseException | None = None) -> None:
        """For the operator: where it failed, without any value, because values hold a patient's words."""
        cause = cause or error.__cause__ or error
        places = [f"{os.path.basename(f.filename)}:{f.lineno}" for f in traceback.extract_tb(cause.__traceback__)[-6:]]
        self._record.error = f"{error} at {places[-1]}" if places else str(error)
        log.error("guard_failed", exchange=self._record.id, error=str(error), places=places, alarm=True)

    def safe_answer(self) -> str:
        return self._guard.knowledge.answers.render(SAFE_ANSWER, self._language, self._country)

    # Answer

    async def answer(self, text: str, outcome: Outcome) -> None:
        """A normal reply in the caller's form, written by us; where a stream has begun, the end of that stream."""
        self._record.outcome = outcome
        request = self._request
        if self._started:
            if isinstance(self._relay, StreamRelay):
                await self._finish_stream(self._relay.stop(text))
            return
        assert request is not None, "the guard is asked only after the request was read"
        stamp = Stamp(self._record.id, int(self._record.at))
        if request.stream:
            content = self._dialect.write_answer_stream(request, text, stamp)
            await self._respond(200, content, [(b"content-type", self._dialect.stream_type), (b"cache-control", b"no-cache")])
        else:
            await self._respond(200, self._dialect.write_answer(request, text, stamp), [_JSON])

    async def give_up(self) -> None:
        """The safe answer, where the request is known well enough to give one."""
        if self._request is not None:
            await self.answer(self.safe_answer(), Outcome.GUARD_FAILED)
        elif not self._started:
            self._record.outcome = Outcome.GUARD_FAILED
            await self._respond(500, self._dialect.write_error(500, self.safe_answer()), [_JSON])

    async def refuse(self, error: CallerError | UpstreamError, outcome: Outcome) -> None:
        """An error in the dialect's form; what an annotation had to say goes with it. In a stream, its honest ending."""
        self._record.outcome = outcome
        self._record.error = str(error)
        if self._started:
            if isinstance(self._relay, StreamRelay):
                await self._finish_stream(self._relay.lose(self._notice(LOST_NOTICE), str(error)))
            return
        self._record.status = error.status
        decision = self._record.decision
        message = str(error)
        if decision is not None and decision.answer:
            message = f"{decision.answer}\n\n({message})"
        headers: Headers = [_JSON]
        if error.status == 405:
            headers.append((b"allow", b"POST"))
        if error.status in (429, 503):
            headers.append((b"retry-after", b"1"))
        await self._respond(error.status, self._dialect.write_error(error.status, message), headers)

    def _notice(self, key: str) -> str:
        return self._guard.knowledge.answers.notice(key, self._language, self._country)

    # Forward

    def take_place(self, caller: Caller) -> None:
        """Only what goes to the model counts against limits: a redirect costs little and may be needed at once."""
        service = self._service
        if service.in_flight >= service.limits.concurrent:
            raise Unavailable("too many requests at once; try again")
        service.trust.spend(caller, time.monotonic())
        service.in_flight += 1
        self._has_place = True

    async def forward(self, body: bytes, request: Request, decision: Decision) -> None:
        task = self._watch()
        service = self._service
        began = time.perf_counter()
        target = self._scope.get("raw_path") or quote(self._scope["path"]).encode()
        if self._scope["query_string"]:
            target += b"?" + self._scope["query_string"]
        with self._trace.part("upstream"):
            headers = self._trace.headers(headers_on(self._scope["headers"], service))
            reply = self._reply = await service.upstream.open(b"POST", target, headers, body)
        self._record.upstream_ms = (time.perf_counter() - began) * 1000
        self._record.status = reply.status
        with self._trace.part("reply"):
            if not 200 <= reply.status < 300:
                await self._pass_on(reply)
            elif _is_stream(reply.headers):
                self._begin_watching(task)
                await self._relay_stream(reply, request, decision)
            else:
                await self._relay_document(reply, request, decision)

    async def _relay_stream(self, reply: UpstreamReply, request: Request, decision: Decision) -> None:
        limits = self._service.limits
        stamp = Stamp(self._record.id, int(self._record.at))
        relay = StreamRelay(self._dialect, request, stamp, self._make_guard(decision), limits.frame_bytes, self._service.remove_unreadable)
        self._relay = relay
        decoder = decoder_for([v for n, v in reply.headers if n == b"content-encoding"], limits.reply_bytes)
        await self._start(reply.status, self._headers_back(reply.headers))
        size = 0
        while True:
            data = await reply.chunk()
            size += len(data)
            if size > limits.reply_bytes:
                raise UpstreamLost(f"the reply is larger than {limits.reply_bytes} bytes")
            try:
                if data:
                    out = relay.feed(decoder.feed(data) if decoder else data)
                else:
                    if decoder:
                        decoder.finish()
                    out = relay.finish()
            except UpstreamLost:
                raise
            except Exception as error:  # the reply guard is the engine too: whatever it raises, nothing more is shown
                raise GuardFailed(type(error).__name__) from error
            if relay.done:
                if relay.cut:
                    self._record.outcome = Outcome.CUT
                await self._finish_stream(out)
                break
            if out:
                await self._send({"type": "http.response.body", "body": out, "more_body": True})
            if relay.failed:
                raise UpstreamLost(f"the upstream reported an error in mid-answer ({relay.failed})")
            if not data:
                raise UpstreamLost("the upstream's stream stopped before its end")
        if not relay.cut:
            await _drain(reply)

    async def _relay_document(self, reply: UpstreamReply, request: Request, decision: Decision) -> None:
        body = await self._read_reply(reply)
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise UpstreamLost("the upstream's answer is not JSON") from None
        relay = self._relay = DocumentRelay(self._dialect, request, self._make_guard(decision), self._service.remove_unreadable)
        changed = await in_turns(relay.review(document), self._service.limits.review_seconds)
        if relay.cut:
            self._record.outcome = Outcome.CUT
        await self._respond(reply.status, body if changed is None else orjson.dumps(changed), self._headers_back(reply.headers))

    async def _pass_on(self, reply: UpstreamReply) -> None:
        """What the upstream said instead of a reply: an error for the app, in the upstream's words."""
        self._record.outcome = Outcome.UPSTREAM_REFUSED
        await self._respond(reply.status, await self._read_reply(reply), self._headers_back(reply.headers))

    async def _read_reply(self, reply: UpstreamReply) -> bytes:
        limit = self._service.limits.reply_bytes
        decoder = decoder_for([v for n, v in reply.headers if n == b"content-encoding"], limit)
        parts: list[bytes] = []
        size = 0
        while data := await reply.chunk():
            parts.append(decoder.feed(data) if decoder else data)
            size += len(parts[-1])
            if size > limit:
                raise UpstreamLost(f"the reply is larger than {limit} bytes")
        if decoder and parts:
            decoder.finish()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _make_guard(self, decision: Decision) -> Callable[[str, bool], ReplyGuard]:
        knowledge, conversation, make = self._guard.knowledge, self._conversation, self._service.reply_guard
        return lambda channel, structured: make(knowledge, decision, channel, structured, conversation)

    # Send

    async def _start(self, status: int, headers: Headers) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _respond(self, status: int, content: bytes, headers: Headers) -> None:
        self._record.status = status
        headers.append((b"content-length", b"%d" % len(content)))
        if not self._reply:
            self._add_own_headers(headers)
        self._stop_watching()
        self._note()
        await self._start(status, headers)
        await self._send({"type": "http.response.body", "body": content})

    async def _finish_stream(self, content: bytes) -> None:
        self._stop_watching()
        self._note()
        await self._send({"type": "http.response.body", "body": content})

    def _note(self) -> None:
        """The answer is complete with the next bytes; whoever has them must be in the record."""
        self._sum_up()
        self._service.note(self._record)

    def _headers_back(self, headers: Headers) -> Headers:
        back = headers_back(headers)
        self._add_own_headers(back)
        return back

    def _add_own_headers(self, headers: Headers) -> None:
        record = self._record
        if (decision := record.decision) is not None:
            headers.append((b"guardrail-decision", _decision_header(decision.action, decision.urgency, decision.destination)))
        headers += (
            (b"guardrail-exchange", record.id.encode()),
            (b"guardrail-packs", self._guard.knowledge.revision.encode()),
            (b"server-timing", b"guard;dur=%.2f, upstream;dur=%.1f" % (record.guard_ms, record.upstream_ms)),
        )

    # Leave

    def _watch(self) -> asyncio.Task[Any]:
        """Without somebody waiting for the disconnect, an ASGI app never learns that the client left."""
        task = asyncio.current_task()
        assert task is not None, "an ASGI app runs in a task"
        self._watch_timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_SECONDS, self._begin_watching, task)
        return task

    def _begin_watching(self, task: asyncio.Task[Any]) -> None:
        if self._watch_timer is not None:
            self._watch_timer.cancel()
            self._watch_timer = None
        self._watcher = self._watcher or asyncio.create_task(self._leave_with_the_client(task))

    async def _leave_with_the_client(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_left = True
        task.cancel()

    def _stop_watching(self) -> None:
        if self._watch_timer is not None:
            self._watch_timer.cancel()
            self._watch_timer = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def close(self) -> None:
        """Whatever happened: the upstream is let go, the record is written."""
        self._stop_watching()
        if self._has_place:
            self._service.in_flight -= 1
        if self._reply is not None:
            await self._reply.aclose()
        self._sum_up()
        self._trace.end(self._record)
        self._service.record(self._record)

    def _sum_up(self) -> None:
        record = self._record
        if (relay := self._relay) is not None:
            record.reply = tuple(_describe(channel, report) for channel, report in relay.reports())
            self._add_not_evaluated(relay.not_evaluated)
        record.total_ms = (time.perf_counter() - self._began) * 1000

    def _add_not_evaluated(self, names: Iterable[str]) -> None:
        self._record.not_evaluated = tuple(dict.fromkeys((*self._record.not_evaluated, *names)))


class _MethodNotAllowed(CallerError):
    status = 405


class _UnsupportedEncoding(CallerError):
    status = 415


def _is_stream(headers: Headers) -> bool:
    for name, value in headers:
        if name == b"content-type":
            return value.split(b";", 1)[0].strip().lower() in (b"text/event-stream", b"application/x-ndjson")
    return False


@cache
def _decision_header(action: Action, urgency: Urgency, destination: Destination) -> bytes:
    return f"{action}; urgency={urgency.word}; destination={destination}".encode()


def _describe(channel: str, report: Any) -> dict[str, Any]:
    return {
        "channel": channel,
        "action": report.action,
        "issues": [{"issue": i.issue, "rule": i.rule, "text": i.text, "treatment": i.treatment, "shadow": i.shadow} for i in report.issues],
        "disclaimer_added": report.disclaimer_added,
        "disclaimer_present": report.disclaimer_present,
    }


def headers_on(headers: Sequence[tuple[bytes, bytes]], service: Service) -> Headers:
    """The caller's headers for the upstream: what was meant for this hop stays here, repeats and order are kept."""
    dropped = _named_by_connection(headers, _NOT_SENT_ON)
    key = service.upstream_key
    if key is not None or service.trust.tenants:
        dropped |= KEY_HEADERS
    kept = [h for h in headers if h[0] not in dropped]
    kept.append(_IDENTITY)
    if key is not None:
        # Anthropic's clients name their version, and its key goes by another header; given both, it takes the wrong one.
        anthropic = any(name == b"anthropic-version" for name, _ in headers)
        kept.append((b"x-api-key", key) if anthropic else (b"authorization", b"Bearer " + key))
    return kept


def headers_back(headers: Headers) -> Headers:
    """The upstream's headers for the caller."""
    dropped = _named_by_connection(headers, _NOT_RETURNED)
    return [h for h in headers if h[0] not in dropped]


def _named_by_connection(headers: Sequence[tuple[bytes, bytes]], always: frozenset[bytes]) -> frozenset[bytes]:
    """Hop-by-hop headers: the usual ones, and those that a Connection header names."""
    for name, value in headers:
        if name == b"connection" and value not in (b"keep-alive", b"close"):
            always |= {token.strip().lower() for token in value.split(b",")}
    return always


async def _drain(reply: UpstreamReply) -> None:
    """After the protocol's last frame: read the end of the body, so that the connection can be used again."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while await reply.chunk():
                pass
    except (TimeoutError, UpstreamError):
        return
