"""Every way an exchange can fail, on real sockets: what the patient saw, and the record that was written."""

import asyncio
import contextlib
import gzip
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from guardrail.app import Application, create_app
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation
from guardrail.engine.reply import ReplyGuard, Review
from guardrail.proxy.trust import Trust
from tests.proxy.reply_guards import WordGuard
from tests.proxy.test_openai_client import word_guard
from tests.proxy.test_relay import DONE, documents, finishes, shown
from tests.serving import STREAM_HEAD, Call, Handler, ScriptedUpstream, chat_chunk, chat_reply, chunked, response, saying, serving, upstream

HELLO, EMERGENCY, RASH = "hello", "I have chest pain", "I have a rash"
REDIRECT = "This could be an emergency: call 999 now."
SAFE = "I cannot check this message. If it may be an emergency, call 999."
NOTICE = "Please have this checked by a clinician today."


class Records:
    """Keeps the records, and waits for the next one: it is written after the client has its answer."""

    def __init__(self) -> None:
        self.all: list[ExchangeRecord] = []
        self._arrived = threading.Event()

    def record(self, record: ExchangeRecord) -> None:
        self.all.append(record)
        self._arrived.set()

    def last(self) -> ExchangeRecord:
        assert self._arrived.wait(5), "no record was written"
        self._arrived.clear()
        return self.all[-1]


class Proxy:
    """A listening proxy with its upstream and its records."""

    def __init__(self, url: str, up: ScriptedUpstream, records: Records) -> None:
        self.url = url
        self.up = up
        self.records = records
        self.port = int(url.rsplit(":", 1)[1])

    def ask(self, text: str = HELLO, stream: bool = False, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream, **more}
        return httpx.post(self.url + "/v1/chat/completions", json=body, headers=headers, timeout=10)

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        return httpx.post(self.url + "/v1/chat/completions", content=body, headers=headers, timeout=10)


@contextlib.contextmanager
def proxy(
    handler: Handler, guard: Guard, *, reply_guard: Any = word_guard, server: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Proxy]:
    records = Records()
    with upstream(handler) as up:
        app = create_app(
            Settings(**{"upstream": up.url, "country": "GB", **settings}), guard=guard, recorders=[records], reply_guard=reply_guard
        )
        with serving(app, **(server or {})) as url:
            yield Proxy(url, up, records)


def answer_of(reply: httpx.Response) -> str:
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


# Rejected


def message(text: str) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": text}]})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "cut off"),
        (b"{", "cut off"),
        (b"[1]", "expected `object`"),
        (b'{"messages": "x"}', "expected `array`"),
        (b'{"messages": []}', "is empty"),
        (b'{"messages": [{"content": "x"}]}', 'no "role"'),
        (b'{"messages": [{"role": "user", "content": 4}]}', "must be a string"),
        (b'{"messages": [{"role": "user", "content": "x"}], "stream": "yes"}', "expected `bool"),
        (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', "not UTF-8"),
        (b'{"messages": [{"role": "user", "content": "x"}], "extra": "\xff"}', "not UTF-8"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        (b'{"messages": [{"role": "user", "content": "a\\u0000b"}]}', "null character"),
        (b'{"messages": [{"role": "user", "content": "a\x00b"}]}', "invalid character"),
        (b'{"messages": [{"role": "user", "content": "x"}], "messages": [{"role": "user", "content": "y"}]}', "stands twice"),
        (b'{"messages": [{"role": "user", "content": "x", "content": "y"}]}', "stands twice"),
        (b'{"messages": [{"role": "system", "role": "user", "content": "x"}]}', "stands twice"),
        (b'{"messages": [{"role": "user", "content": "x", "c\\u006fntent": "y"}]}', "stands twice"),
        (b'{"messages": [{"role": "user", "content": "x"}], "extra": NaN}', "invalid"),
        (b"\xef\xbb\xbf" + message("x"), "invalid character"),
        (b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply|expected `object`"),
        (b'{"messages": [{"role": "user", "content": "x"}], "extra": ' + b"[" * 100000 + b"]" * 100000 + b"}", "nested too deeply"),
    ],
)
def test_rejected_malformed(small_guard: Guard, body: bytes, why: str) -> None:
    with proxy(saying("x"), small_guard) as one:
        reply = one.post(body)

        assert reply.status_code == 400
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert re.search(why, reply.json()["error"]["message"])
        assert one.records.last().outcome is Outcome.REJECTED
        assert not one.up.calls


@pytest.mark.parametrize(
    "text", ["a \\u0000 written with a backslash", 'say "content" and "role" twice: "content"', "caf\u00e9 \U0001f642", "\u2028"]
)
def test_harmless_text_that_looks_odd_is_not_rejected(small_guard: Guard, text: str) -> None:
    with proxy(saying("x"), small_guard) as one:
        for ascii_only in (True, False):
            body = json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=ascii_only).encode()
            assert one.post(body).status_code == 200

        assert one.up.calls[0].body == json.dumps({"messages": [{"role": "user", "content": text}]}).encode()


@pytest.mark.parametrize(
    ("settings", "body", "why"),
    [
        ({"max_body_bytes": 100}, message("x" * 100), "larger than 100 bytes"),
        ({"max_message_chars": 10}, message("x" * 11), "has 11 characters; 10 are allowed"),
        ({"max_conversation_chars": 10}, orjson.dumps({"messages": [{"role": "user", "content": "x" * 6}] * 2}), "has 12 characters"),
        ({}, orjson.dumps({"messages": [{"role": "user", "content": "x"}] * 10_000}), "has 10000 messages; 2000 are allowed"),
    ],
)
def test_rejected_oversized(small_guard: Guard, settings: dict[str, Any], body: bytes, why: str) -> None:
    with proxy(saying("x"), small_guard, **settings) as one:
        reply = one.post(body)

        assert reply.status_code == 413
        assert why in reply.json()["error"]["message"]
        assert one.records.last().outcome is Outcome.REJECTED


def test_rejected_compressed_request(small_guard: Guard) -> None:
    with proxy(saying("x"), small_guard) as one:
        assert one.post(gzip.compress(message("x")), {"content-encoding": "gzip"}).status_code == 415


def test_rejected_method_and_unknown_path(small_guard: Guard) -> None:
    with proxy(saying("x"), small_guard) as one:
        reply = httpx.get(one.url + "/v1/chat/completions")
        assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
        for path in ("/v1/embeddings", "/v1/models/../embeddings", "/v1/responses/resp_1", "/"):
            assert httpx.get(one.url + path).status_code == 404

        assert not one.up.calls


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Content-Length: +5\r\n",
    ],
)
def test_rejected_smuggling_shapes(small_guard: Guard, head: bytes) -> None:
    with proxy(saying("x"), small_guard) as one, socket.create_connection(("127.0.0.1", one.port), 5) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        answer = sock.recv(65536)

        assert answer.startswith(b"HTTP/1.1 400")
        assert not one.up.calls


def test_rejected_without_a_key(small_guard: Guard) -> None:
    tenants = {"clinic": {"api_key": "sk-clinic", "country": "US"}}
    with proxy(saying("x"), small_guard, tenants=tenants, upstream_api_key="sk-real") as one:
        assert one.ask().status_code == 401
        assert one.ask(headers={"authorization": "Bearer wrong"}).status_code == 401
        reply = one.ask(EMERGENCY, headers={"x-api-key": "sk-clinic"})
        assert answer_of(reply) == "This could be an emergency: call 911 now."
        assert one.ask(headers={"authorization": "Bearer sk-clinic"}).status_code == 200

        assert one.up.calls[0].header("authorization") == ["Bearer sk-real"]
        assert "sk-clinic" not in str(one.up.calls[0].headers)
        assert one.records.last().tenant == "clinic"


def test_over_the_rate_is_refused_but_an_emergency_is_answered(small_guard: Guard) -> None:
    tenants = {"clinic": {"api_key": "k", "requests_per_minute": 2}}
    with proxy(saying("x"), small_guard, tenants=tenants) as one:
        statuses = [one.ask(headers={"x-api-key": "k"}).status_code for _ in range(3)]
        emergency = one.ask(EMERGENCY, headers={"x-api-key": "k"})

    assert statuses == [200, 200, 429]
    assert answer_of(emergency) == REDIRECT


def test_over_the_concurrency_is_refused_but_an_emergency_is_answered(small_guard: Guard) -> None:
    release = threading.Event()

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(release.wait, 5)
        writer.write(response(chat_reply("x")))

    with proxy(handler, small_guard, max_concurrent=1) as one:
        first = threading.Thread(target=one.ask)
        first.start()
        wait_until(lambda: bool(one.up.calls))
        refused, emergency = one.ask(), one.ask(EMERGENCY)
        release.set()
        first.join(5)
        after = one.ask()

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert answer_of(emergency) == REDIRECT
    assert after.status_code == 200


def wait_until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/responses", {"input": HELLO, "previous_response_id": "resp_1"}),
        ("/v1/responses", {"input": HELLO, "conversation": {"id": "conv_1"}}),
        ("/api/generate", {"prompt": HELLO, "context": [1, 2], "stream": False}),
    ],
)
def test_history_that_the_provider_keeps_is_recorded_as_not_seen(small_guard: Guard, path: str, more: dict[str, Any]) -> None:
    with proxy(saying("x"), small_guard) as one:
        httpx.post(one.url + path, json={"model": "m", **more})

        assert one.records.last().not_evaluated[0] == "request:history_not_visible"


# The guard fails


class Raising(Guard):
    def review_steps(self, conversation: Conversation) -> Any:
        yield
        raise RuntimeError(f"secret: {conversation.messages[-1].text}")


class Slow(Guard):
    def review_steps(self, conversation: Conversation) -> Any:
        while True:
            time.sleep(0.002)
            yield


@pytest.mark.parametrize("broken", [Raising, Slow])
@pytest.mark.parametrize("stream", [False, True])
def test_guard_failed_gives_the_safe_answer(small_guard: Guard, broken: type[Guard], stream: bool) -> None:
    with proxy(saying("x"), broken(small_guard.knowledge), review_seconds=0.05) as one:
        reply = one.ask("canary phrase", stream=stream)
        record = one.records.last()

        assert reply.status_code == 200
        assert (shown(reply.content) if stream else answer_of(reply)) == SAFE
        assert (record.outcome, record.decision) == (Outcome.GUARD_FAILED, None)
        assert record.error is not None
        assert "canary" not in record.error
        assert not one.up.calls


def test_a_hostile_message_does_not_stall_others(small_guard: Guard) -> None:
    """Its review takes turns with everything else on the loop."""
    with proxy(saying("x"), small_guard, review_seconds=3) as one:
        hostile = threading.Thread(target=one.ask, args=("chest pain no " * 20_000,))
        hostile.start()
        slowest = 0.0
        while hostile.is_alive():
            began = time.perf_counter()
            assert answer_of(one.ask(EMERGENCY)) == REDIRECT
            slowest = max(slowest, time.perf_counter() - began)
        hostile.join()

    assert slowest < 1


class FailingReply(WordGuard):
    def feed(self, text: str) -> Review:
        if "two" in text:
            raise RuntimeError(f"secret: {text}")
        return super().feed(text)


def failing_reply(knowledge: Any, decision: Any, channel: str, structured: bool, conversation: Any) -> ReplyGuard:
    return FailingReply(channel)


def test_guard_failed_on_a_reply(small_guard: Guard) -> None:
    with proxy(saying("one two three"), small_guard, reply_guard=failing_reply) as one:
        whole = one.ask()
        assert answer_of(whole) == SAFE
        assert one.records.last().outcome is Outcome.GUARD_FAILED
        stream = one.ask(stream=True).content

        assert shown(stream) == "one " + SAFE
        assert finishes(stream) == ["stop"]
        assert stream.endswith(DONE)
        assert one.records.last().outcome is Outcome.GUARD_FAILED


class BrokenTrust(Trust):
    def caller(self, scope: Any) -> Any:
        raise RuntimeError("secret")


def test_a_fault_of_ours_is_a_guard_that_failed(small_guard: Guard) -> None:
    records = Records()
    app = create_app(Settings(upstream="http://127.0.0.1:9", country="GB"), guard=small_guard, recorders=[records])
    assert isinstance(app, Application)
    app.service.trust = BrokenTrust(country="GB")
    with serving(app) as url:
        reply = httpx.post(url + "/v1/chat/completions", json={"messages": [{"role": "user", "content": HELLO}]})
        record = records.last()

    assert reply.status_code == 500
    assert reply.json()["error"]["message"] == SAFE
    assert (record.outcome, record.status) == (Outcome.GUARD_FAILED, 500)
    assert "secret" not in str(record.error)


# The upstream fails


@pytest.mark.parametrize("stream", [False, True])
def test_upstream_unreachable(small_guard: Guard, stream: bool) -> None:
    with proxy(saying("x"), small_guard, upstream="http://127.0.0.1:9") as one:
        reply = one.ask(RASH, stream=stream)
        record = one.records.last()

        assert reply.status_code == 502
        assert reply.json()["error"]["message"].startswith(NOTICE)
        assert record.outcome is Outcome.UPSTREAM_UNREACHABLE
        assert answer_of(one.ask(EMERGENCY)) == REDIRECT


def test_upstream_timeout(small_guard: Guard) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(20)

    with proxy(handler, small_guard, first_byte_seconds=0.05) as one:
        reply = one.ask()

        assert reply.status_code == 504
        assert "first byte" in reply.json()["error"]["message"]
        assert one.records.last().outcome is Outcome.UPSTREAM_UNREACHABLE


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "429 Too Many", "500 Oops", "302 Found"])
def test_upstream_refused(small_guard: Guard, status: str) -> None:
    body = b'{"error": {"message": "no", "type": "x"}}'

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(
            response(body, status, "retry-after: 7", "x-a: 1", "x-a: 2", "connection: keep-alive, x-hop", "x-hop: 1", "location: /x")
        )

    with proxy(handler, small_guard) as one:
        reply = one.ask(stream=True)

        assert (reply.status_code, reply.content) == (int(status[:3]), body)
        assert (reply.headers["retry-after"], reply.headers.get_list("x-a")) == ("7", ["1", "2"])
        assert "x-hop" not in reply.headers
        record = one.records.last()
        assert (record.outcome, record.status) == (Outcome.UPSTREAM_REFUSED, int(status[:3]))


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"], ids=["the connection breaks", "the body ends too early"])
def test_upstream_lost_in_a_stream(small_guard: Guard, end: bytes) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunked(chat_chunk({"content": "Take "}) + chat_chunk({"content": "FORB"})) + end)
        await writer.drain()
        writer.close()

    with proxy(handler, small_guard) as one:
        out = one.ask(stream=True).content

        assert shown(out) == "Take (This reply was interrupted.)"
        assert "error" in documents(out)[-1]
        assert DONE not in out
        assert not finishes(out)
        assert one.records.last().outcome is Outcome.UPSTREAM_LOST


@pytest.mark.parametrize("stream", [False, True])
def test_upstream_lost_when_it_falls_silent(small_guard: Guard, stream: bool) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunked(chat_chunk({"content": "Take "})) if stream else response(chat_reply("Take two"))[:-5])
        await asyncio.sleep(20)

    with proxy(handler, small_guard, read_seconds=0.05) as one:
        reply = one.ask(stream=stream)
        record = one.records.last()

    assert record.outcome is Outcome.UPSTREAM_LOST
    assert "more of the upstream's answer" in str(record.error)
    assert (shown(reply.content) == "Take (This reply was interrupted.)") if stream else reply.status_code == 504


def test_upstream_lost_in_a_document(small_guard: Guard) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(response(chat_reply("Take two"))[:-5])
        await writer.drain()
        writer.close()

    with proxy(handler, small_guard) as one:
        reply = one.ask()

        assert reply.status_code == 502
        assert "Take" not in reply.text
        assert one.records.last().outcome is Outcome.UPSTREAM_LOST


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b"\xff\xfe", b'{"choices": [{"message": {"content": "\\ud800"}}]}'])
def test_an_answer_that_cannot_be_read_is_not_shown(small_guard: Guard, body: bytes) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(response(body))

    with proxy(handler, small_guard) as one:
        reply = one.ask()

        assert reply.status_code == 502
        assert "not JSON" in reply.json()["error"]["message"]
        assert one.records.last().outcome is Outcome.UPSTREAM_LOST


def test_upstream_reports_an_error_in_mid_stream(small_guard: Guard) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        frames = chat_chunk({"content": "Take "}) + b'data: {"error": {"type": "server_error", "message": "secret"}}\n\n' + DONE
        writer.write(STREAM_HEAD + chunked(frames) + b"0\r\n\r\n")

    with proxy(handler, small_guard) as one:
        out = one.ask(stream=True).content

        assert shown(out) == "Take (This reply was interrupted.)"
        assert "server_error" in documents(out)[-1]["error"]["message"]
        assert b"secret" not in out
        assert one.records.last().outcome is Outcome.UPSTREAM_LOST


# Cut, left, shut down


@pytest.mark.parametrize("stream", [False, True])
def test_cut(small_guard: Guard, stream: bool) -> None:
    with proxy(saying("Fine so FORBIDDEN far"), small_guard) as one:
        reply = one.ask(stream=stream)
        record = one.records.last()

        assert (shown(reply.content) if stream else answer_of(reply)) == "Fine so [replaced]"
        assert (record.outcome, record.status) == (Outcome.CUT, 200)
        assert [(r["channel"], r["action"]) for r in record.reply] == [("content", "cut")]


def test_cut_stops_the_upstream(small_guard: Guard) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunked(chat_chunk({"content": "FORBIDDEN"})))
        await asyncio.sleep(20)

    with proxy(handler, small_guard) as one:
        assert shown(one.ask(stream=True).content) == "[replaced]"
        assert one.up.left.wait(5)


@pytest.mark.parametrize("stream", [False, True])
def test_client_left(small_guard: Guard, stream: bool) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        if stream:
            writer.write(STREAM_HEAD + chunked(chat_chunk({"content": "Take "})))
        await asyncio.sleep(20)

    with proxy(handler, small_guard) as one:
        body = orjson.dumps({"messages": [{"role": "user", "content": HELLO}], "stream": stream})
        with socket.create_connection(("127.0.0.1", one.port), 5) as sock:
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            if stream:
                assert sock.recv(65536)
            else:
                wait_until(lambda: bool(one.up.calls))
            began = time.perf_counter()
        assert one.up.left.wait(5)
        took = time.perf_counter() - began

        assert one.records.last().outcome is Outcome.CLIENT_LEFT
        assert took < 1


def test_client_left_while_sending(small_guard: Guard) -> None:
    with proxy(saying("x"), small_guard) as one:
        with socket.create_connection(("127.0.0.1", one.port), 5) as sock:
            sock.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{"messages"')
            time.sleep(0.05)

        assert one.records.last().outcome is Outcome.CLIENT_LEFT


def test_shutdown_ends_streams_honestly(small_guard: Guard) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunked(chat_chunk({"content": "Take "})))
        await asyncio.sleep(20)

    records = Records()
    with upstream(handler) as up:
        app = create_app(Settings(upstream=up.url), guard=small_guard, recorders=[records], reply_guard=word_guard)
        server = serving(app, timeout_graceful_shutdown=1)
        port = int(server.__enter__().rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            body = orjson.dumps({"messages": [{"role": "user", "content": HELLO}], "stream": True})
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            parts = [sock.recv(65536)]
            thread = threading.Thread(target=drain, args=(sock, parts))
            thread.start()
            server.__exit__(None, None, None)
            thread.join(5)

    assert records.last().outcome is Outcome.SHUTDOWN
    assert b"(This reply was interrupted.)" in b"".join(parts)
    assert b"shutting down" in b"".join(parts)


def drain(sock: socket.socket, parts: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while part := sock.recv(65536):
            parts.append(part)


# Back-pressure


def test_a_slow_client_holds_the_upstream_back(small_guard: Guard) -> None:
    sent = 0

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM_HEAD)
        frame = chunked(chat_chunk({"content": "word " * 2000}))
        for _ in range(10_000):
            writer.write(frame)
            await writer.drain()
            sent += len(frame)

    with proxy(handler, small_guard) as one:
        body = orjson.dumps({"messages": [{"role": "user", "content": HELLO}], "stream": True})
        with socket.create_connection(("127.0.0.1", one.port), 5) as sock:
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            sock.recv(1000)
            before = -1
            for _ in range(100):
                time.sleep(0.05)
                if before == sent:
                    break
                before = sent

    assert before == sent or sent < 50_000_000
    assert sent < 50_000_000


# Headers, compression


def test_headers_for_this_hop_stay_here(small_guard: Guard) -> None:
    headers = {
        "authorization": "Bearer sk-patient-app",
        "connection": "keep-alive, x-private",
        "x-private": "1",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "accept-encoding": "gzip, br",
        "x-custom": "kept",
        "guardrail-decision": "made up",
    }
    with proxy(saying("x"), small_guard) as one:
        reply = one.ask(headers=headers)
        names = [n.lower() for n, _ in one.up.calls[0].headers]
        record = one.records.last()

    assert one.up.calls[0].header("authorization") == ["Bearer sk-patient-app"]
    assert one.up.calls[0].header("x-custom") == ["kept"]
    assert one.up.calls[0].header("accept-encoding") == ["identity"]
    assert not {"connection", "keep-alive", "te", "x-private", "transfer-encoding"} & set(names)
    assert len([n for n in names if n in ("host", "content-length")]) == 2
    assert reply.headers["guardrail-decision"] == "forward; urgency=none; destination=none"
    assert reply.headers["guardrail-exchange"] == record.id
    assert reply.headers["guardrail-packs"] == small_guard.knowledge.revision
    assert "guard;dur=" in reply.headers["server-timing"]


def deflate_raw(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


@pytest.mark.parametrize(("name", "squeeze"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", deflate_raw)])
def test_a_compressed_reply_is_read(small_guard: Guard, name: str, squeeze: Callable[[bytes], bytes]) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        if orjson.loads(call.body)["stream"]:
            data = squeeze(chat_chunk({"content": "a FORBIDDEN"}))
            head = STREAM_HEAD.replace(b"\r\n\r\n", f"\r\ncontent-encoding: {name}\r\n\r\n".encode())
            writer.write(head + b"".join(chunked(data[i : i + 10]) for i in range(0, len(data), 10)) + b"0\r\n\r\n")
        else:
            writer.write(response(squeeze(chat_reply("a FORBIDDEN")), "200 OK", f"content-encoding: {name}"))

    with proxy(handler, small_guard) as one:
        reply = one.ask()
        assert answer_of(reply) == "a [replaced]"
        assert "content-encoding" not in reply.headers
        assert shown(one.ask(stream=True).content) == "a [replaced]"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"x" * 2_000_000)),
        ("br", b"xx"),
        ("gzip", b"broken"),
        ("gzip", gzip.compress(b"{}")[:-3]),
        ("gzip, gzip", b"x"),
    ],
    ids=["bomb", "unknown", "broken", "cut off", "twice"],
)
def test_a_compressed_reply_that_cannot_be_read_is_not_shown(small_guard: Guard, encoding: str, body: bytes) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(response(body, "200 OK", f"content-encoding: {encoding}"))

    with proxy(handler, small_guard, max_reply_bytes=1_000_000) as one:
        reply = one.ask()

        assert reply.status_code == 502
        assert one.records.last().outcome is Outcome.UPSTREAM_LOST


def test_paths_with_something_before_them_are_guarded_too(small_guard: Guard) -> None:
    with proxy(saying("Rest."), small_guard) as one:
        for path in ("/openai/deployments/d/chat/completions?api-version=1", "/api/v1/chat/completions", "/chat/completions"):
            body = {"messages": [{"role": "user", "content": EMERGENCY}]}
            assert answer_of(httpx.post(one.url + path, json=body)) == REDIRECT
            body = {"messages": [{"role": "user", "content": HELLO}]}
            assert httpx.post(one.url + path, json=body).status_code == 200
            assert one.up.calls[-1].line == f"POST {path} HTTP/1.1"


def test_the_key_of_the_upstream_goes_where_its_vendor_looks_for_it(small_guard: Guard) -> None:
    with proxy(saying("x"), small_guard, upstream_api_key="sk-real") as one:
        one.ask(headers={"authorization": "Bearer sk-caller"})
        one.ask(headers={"x-api-key": "sk-caller", "anthropic-version": "2023-06-01"})

    first, second = one.up.calls
    assert (first.header("authorization"), first.header("x-api-key")) == (["Bearer sk-real"], [])
    assert (second.header("authorization"), second.header("x-api-key")) == ([], ["sk-real"])


# Country


def test_the_country_header_is_heeded_from_trusted_proxies_only(small_guard: Guard) -> None:
    us = {"x-country": "us"}
    with proxy(saying("x"), small_guard, country_header="X-Country", trusted_proxies=["127.0.0.0/8"]) as one:
        assert "911" in answer_of(one.ask(EMERGENCY, headers=us))
        assert "999" in answer_of(one.ask(EMERGENCY, headers={"x-country": "not a country"}))
    with proxy(saying("x"), small_guard, country_header="X-Country", trusted_proxies=["10.0.0.0/8"]) as one:
        assert "999" in answer_of(one.ask(EMERGENCY, headers=us))
    with proxy(saying("x"), small_guard, country=None) as one:
        assert answer_of(one.ask(EMERGENCY)) == "This could be an emergency: call your local emergency number now."
