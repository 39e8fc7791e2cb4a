"""The failure table of the design, row by row and dialect by dialect, as transcripts.

Each file of `transcripts/` shows one way of failing: what was asked, what the upstream sent, what the patient saw frame by frame, the
record that was written. After a change that is meant, `WRITE_TRANSCRIPTS=1 pytest tests/proxy/test_failure_table.py` writes them anew;
read the difference like any other. Times are left out, ids are counted.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from guardrail.app import Application, create_app
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from tests.proxy import standins
from tests.proxy.test_failures import EMERGENCY, HELLO, RASH, REDIRECT, Proxy, Raising, Records, drain, wait_until
from tests.proxy.test_openai_client import word_guard
from tests.serving import Call, Handler, response, serving, upstream

TRANSCRIPTS = Path(__file__).parent / "transcripts"
WRITE = bool(os.environ.get("WRITE_TRANSCRIPTS"))

DIALECTS: dict[str, tuple[str, Callable[[str], Handler]]] = {
    "openai_chat": ("/v1/chat/completions", standins.chat),
    "openai_responses": ("/v1/responses", standins.responses),
    "openai_completions": ("/v1/completions", standins.completions),
    "anthropic_messages": ("/v1/messages", standins.messages),
    "ollama_chat": ("/api/chat", standins.ollama),
    "ollama_generate": ("/api/generate", standins.ollama),
}
"""Dialect -> its path, and a stand-in model that speaks it."""


def request(dialect: str, text: str, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "stream": stream}
    match dialect:
        case "openai_responses":
            return {**body, "input": text}
        case "openai_completions" | "ollama_generate":
            return {**body, "prompt": text}
        case _:
            return {**body, "messages": [{"role": "user", "content": text}]}


def speaking(wrap: Callable[[Handler], Handler] = lambda handler: handler, text: str = "Drink some water.") -> Handler:
    """An upstream that says this in whatever dialect it is asked."""
    by_path = {path: wrap(make(text)) for path, make in DIALECTS.values()}

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        await by_path[call.line.split(" ")[1]](call, writer)

    return handler


@contextlib.contextmanager
def proxy(handler: Handler, guard: Guard, **settings: Any) -> Iterator[Proxy]:
    """A listening proxy whose exchanges are numbered."""
    records, numbers = Records(), count(1)
    with upstream(handler) as up:
        values = {"upstream": up.url, "country": "GB", **settings}
        app = create_app(Settings(**values), guard=guard, recorders=[records], reply_guard=word_guard)
        assert isinstance(app, Application)
        app.service.new_id = lambda: f"exchange{next(numbers)}"
        with serving(app) as url:
            yield Proxy(url, up, records)


def transcript(one: Proxy, dialect: str, body: bytes) -> str:
    """One exchange, from the request to the record."""
    reply = httpx.post(one.url + DIALECTS[dialect][0], content=body, timeout=10)
    record = one.records.last()
    seen = f"HTTP {reply.status_code} {reply.headers['content-type']}\n{reply.text.strip()}"
    return f"### {dialect}\n\n> {body.decode()}\n\n{seen}\n\n{described(record)}\n"


def described(record: ExchangeRecord) -> str:
    decision = record.decision
    shown: dict[str, Any] = {
        "outcome": str(record.outcome),
        "status": record.status,
        "error": record.error,
        "action": str(decision.action) if decision else None,
        "rules": [hit.rule for hit in decision.hits] if decision else [],
        "reply": [f"{r['channel']}:{r['action']}" for r in record.reply],
        "not_evaluated": list(record.not_evaluated),
    }
    return "record: " + json.dumps({name: value for name, value in shown.items() if value not in (None, [])})


def check(name: str, parts: list[str]) -> None:
    """The transcript is the one that was read and kept."""
    text = "\n".join(parts)
    text = re.sub(r'"(created|created_at|completed_at)":\d+', r'"\1":0', text)
    text = re.sub(r'"created_at":"\d{4}-[^"]*"', '"created_at":"0"', text)
    path = TRANSCRIPTS / f"{name}.txt"
    if WRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path.name}: not as kept; see this file's first lines"


def asked(one: Proxy, text: str, stream: bool) -> list[str]:
    return [transcript(one, dialect, orjson.dumps(request(dialect, text, stream))) for dialect in DIALECTS]


def test_rejected(small_guard: Guard) -> None:
    with proxy(speaking(), small_guard, max_body_bytes=1000) as one:
        malformed = [transcript(one, dialect, b'{"model": "m", ') for dialect in DIALECTS]
        oversized = asked(one, "x" * 1000, stream=True)
        assert not one.up.calls

    check("rejected", [*malformed, *[part.replace("x" * 1000, "xxx") for part in oversized]])


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_guard_failed(small_guard: Guard, stream: bool) -> None:
    with proxy(speaking(), Raising(small_guard.knowledge)) as one:
        parts = asked(one, HELLO, stream)
        assert not one.up.calls

    check(f"guard_failed-{'stream' if stream else 'json'}", [re.sub(r" at \w+\.py:\d+", "", part) for part in parts])


def test_upstream_unreachable(small_guard: Guard) -> None:
    with proxy(speaking(), small_guard, upstream="http://127.0.0.1:9") as one:
        check("upstream_unreachable", asked(one, RASH, stream=True))


def test_upstream_refused(small_guard: Guard) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b'{"error":{"message":"slow down","type":"rate_limit_error"}}', "429 Too Many Requests"))

    with proxy(handler, small_guard) as one:
        check("upstream_refused", asked(one, RASH, stream=True))


def test_upstream_lost(small_guard: Guard) -> None:
    with proxy(speaking(lambda handler: standins.dying(handler, after=b" some")), small_guard) as one:
        check("upstream_lost", asked(one, RASH, stream=True))


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_cut(small_guard: Guard, stream: bool) -> None:
    with proxy(speaking(text="Fine so FORBIDDEN far"), small_guard) as one:
        check(f"cut-{'stream' if stream else 'json'}", asked(one, HELLO, stream))


def pausing(handler: Handler) -> Handler:
    """The stand-in, which falls silent after its first words."""

    async def handle(call: Call, writer: asyncio.StreamWriter) -> None:
        await handler(call, _Pausing(writer))  # type: ignore[arg-type]  # stand-ins write and drain, no more
        await asyncio.sleep(20)

    return handle


class _Pausing:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._silent = False

    def write(self, data: bytes) -> None:
        if not self._silent:
            self._writer.write(data)
            self._silent = b"Drink" in data

    async def drain(self) -> None:
        await self._writer.drain()


def streams(port: int, until: bytes) -> list[tuple[str, socket.socket, list[bytes]]]:
    """An open stream of each dialect, read up to these words."""
    opened = []
    for dialect, (path, _) in DIALECTS.items():
        sock = socket.create_connection(("127.0.0.1", port), 5)
        body = orjson.dumps(request(dialect, HELLO, stream=True))
        sock.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body))
        parts: list[bytes] = []
        while until not in b"".join(parts):
            parts.append(sock.recv(65536))
        opened.append((dialect, sock, parts))
    return opened


def test_client_left(small_guard: Guard) -> None:
    with proxy(speaking(pausing), small_guard) as one:
        for _, sock, _ in streams(one.port, until=b"Drink"):
            sock.close()
        wait_until(lambda: len(one.records.all) == len(DIALECTS))

        assert one.up.left.wait(5)
        assert {record.dialect for record in one.records.all} == set(DIALECTS)
        assert {described(record) for record in one.records.all} == {
            'record: {"outcome": "client_left", "status": 200, "action": "forward", "reply": ["content:pass"]}'
        }


def test_shutdown(small_guard: Guard) -> None:
    records = Records()
    with upstream(speaking(pausing)) as up:
        app = create_app(Settings(upstream=up.url, country="GB"), guard=small_guard, recorders=[records], reply_guard=word_guard)
        assert isinstance(app, Application)
        numbers = count(1)
        app.service.new_id = lambda: f"exchange{next(numbers)}"
        server = serving(app, timeout_graceful_shutdown=1)
        port = int(server.__enter__().rsplit(":", 1)[1])
        opened = streams(port, until=b"Drink")
        readers = [threading.Thread(target=drain, args=(sock, parts)) for _, sock, parts in opened]
        for reader in readers:
            reader.start()
        server.__exit__(None, None, None)
        for reader in readers:
            reader.join(5)
        for _, sock, _ in opened:
            sock.close()
    by_dialect = {record.dialect: record for record in records.all}

    assert {record.outcome for record in records.all} == {Outcome.SHUTDOWN}
    check("shutdown", [f"### {d}\n\n{unchunked(b''.join(parts))}\n\n{described(by_dialect[d])}\n" for d, _, parts in opened])


def unchunked(raw: bytes) -> str:
    """The body of a chunked response."""
    rest = raw.partition(b"\r\n\r\n")[2]
    body = b""
    while rest and (size := int(rest.partition(b"\r\n")[0], 16)):
        begin = rest.index(b"\r\n") + 2
        body += rest[begin : begin + size]
        rest = rest[begin + size + 2 :]
    return body.decode().strip()


def test_audit_store_down(small_guard: Guard, tmp_path: Path) -> None:
    """Emergencies are answered, readiness is red; what was spooled is in the store when it is back."""
    folder = tmp_path / "away"
    folder.write_text("a file where the folder should be")
    with proxy(speaking(), small_guard, audit=f"sqlite:///{folder}/audit.db", audit_spool=tmp_path / "spool") as one:
        assert one.ask(EMERGENCY).json()["choices"][0]["message"]["content"] == REDIRECT
        wait_until(lambda: httpx.get(one.url + "/-/ready").status_code == 503)
        assert httpx.get(one.url + "/-/ready").json()["parts"]["audit"] is False
        folder.unlink()
        wait_until(lambda: httpx.get(one.url + "/-/ready").status_code == 200, seconds=10)

    with contextlib.closing(sqlite3.connect(folder / "audit.db")) as store:
        assert "exchange1" in "\n".join(store.iterdump())


def test_every_row_has_its_test() -> None:
    """Outcomes that are failures, and the transcripts kept."""
    failures = {str(outcome) for outcome in Outcome} - {"answered", "forwarded"}

    assert failures == {name.removeprefix("test_") for name in globals() if name.startswith("test_")} & failures
    assert not [path for path in TRANSCRIPTS.iterdir() if path.stem.split("-")[0] not in failures]
