"""CPU per request of `guardrail serve` against a plain pass-through, both before the same stub model, in interleaved rounds.

The parent is the load generator; stub, pass-through and Guardrail are child processes on ports of their own. The proxies share
the first core, stub and load the second. CPU time of a proxy's process tree comes from /proc: it does not depend on which side
was saturated. While one proxy is measured the other is stopped.

    python benchmarks/proxy.py [--rounds N] [--seconds S] [--gate]

The pass-through is the yardstick, not a product: raw ASGI under the same server, a pool of HTTP/1.1 connections, nothing else.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httptools

CORPUS = Path(__file__).parent.parent / "corpus" / "train" / "quiet.jsonl"
CONNECTIONS = 16
EVENTS = 200
EVENT_SECONDS = 0.005
# Above these ratios to the pass-through --gate fails.
LIMITS = {"json-small": 2.2, "json-varied": 4.0, "sse-paced": 1.6}
PATH = b"/v1/chat/completions"
HEAD = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "stub",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Opening hours are online. " * 25}}],
    }
).encode()
_DELTA = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
EVENT = b"data: " + json.dumps({**_DELTA, "choices": [{"index": 0, "delta": {"content": " word"}}]}).encode() + b"\n\n"
_STOP = {**_DELTA, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
LAST = b"data: " + json.dumps(_STOP).encode() + b"\n\ndata: [DONE]\n\n"


# --- the stub model


class Stub(asyncio.Protocol):
    """Answers every request with the same JSON, or with a paced stream when the body asks for one."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        streamed, self.body = b'"stream": true' in self.body, b""
        if streamed:
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            self.event(EVENTS)
        else:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
            self.transport.write(head + ANSWER)

    def event(self, left: int) -> None:
        if self.transport.is_closing():
            return
        data = EVENT if left else LAST
        self.transport.write(b"%x\r\n%s\r\n" % (len(data), data) + (b"" if left else b"0\r\n\r\n"))
        if left:
            asyncio.get_running_loop().call_later(EVENT_SECONDS, self.event, left - 1)


async def serve_stub(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port)
    await server.serve_forever()


# --- the pass-through


class Exchange(asyncio.Protocol):
    """One upstream connection; a request at a time."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, request: bytes) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []
        self.done = False
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.write(request)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() != b"transfer-encoding":
            self.headers.append((name.lower(), value))

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.done = True

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if not self.news.done():
            self.news.set_result(None)

    async def more(self) -> bytes:
        """What has come since; nothing when the answer was complete."""
        while not self.parts and not self.done:
            await self.news
            self.news = asyncio.get_running_loop().create_future()
        parts, self.parts = self.parts, []
        return b"".join(parts)


def passthrough(port: int, upstream: int) -> None:
    import uvicorn

    idle: list[Exchange] = []

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if idle:
            exchange = idle.pop()
        else:
            _, exchange = await asyncio.get_running_loop().create_connection(Exchange, "127.0.0.1", upstream)
        exchange.send(HEAD % (PATH, len(body)) + body)
        first = await exchange.more()
        await send({"type": "http.response.start", "status": 200, "headers": exchange.headers})
        while not exchange.done:
            await send({"type": "http.response.body", "body": first, "more_body": True})
            first = await exchange.more()
        await send({"type": "http.response.body", "body": first})
        idle.append(exchange)

    options: dict[str, Any] = {"log_level": "warning", "access_log": False, "loop": "uvloop", "http": "httptools", "lifespan": "off"}
    uvicorn.run(app, host="127.0.0.1", port=port, **options)


# --- the load


class Client(asyncio.Protocol):
    """One connection of the load generator: sends the next body when an answer is complete."""

    def __init__(self, bodies: Iterator[bytes], until: float, result: "Result", finished: asyncio.Future[None]) -> None:
        self.bodies, self.until, self.result, self.finished = bodies, until, result, finished

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.next()

    def next(self) -> None:
        if monotonic() >= self.until:
            self.transport.close()
            return
        self.parser = httptools.HttpResponseParser(self)
        body = next(self.bodies)
        self.transport.write(HEAD % (PATH, len(body)) + body)

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() == 200:
            self.result.answers += 1
        else:
            self.result.errors += 1
        asyncio.get_running_loop().call_soon(self.next)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.result.errors += exc is not None
        if not self.finished.done():
            self.finished.set_result(None)


@dataclass
class Result:
    answers: int = 0
    errors: int = 0
    cpu_us: float = 0.0


async def load(port: int, bodies: Iterator[bytes], seconds: float) -> Result:
    loop = asyncio.get_running_loop()
    result, until = Result(), monotonic() + seconds
    finished = [loop.create_future() for _ in range(CONNECTIONS)]
    for future in finished:
        await loop.create_connection(lambda f=future: Client(bodies, until, result, f), "127.0.0.1", port)
    await asyncio.wait(finished, timeout=seconds + 10)
    return result


def bodies_of(scenario: str) -> Iterator[bytes]:
    texts = [json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines() if '"text"' in line][:1000]
    if scenario != "json-varied":
        texts = ["what are the opening hours of the library on a bank holiday, and does it have somewhere to sit and read? " * 3]
    stream = {"stream": True} if scenario == "sse-paced" else {}
    bodies = [json.dumps({"model": "stub", "messages": [{"role": "user", "content": text}], **stream}).encode() for text in texts]
    while True:
        yield from bodies


# --- processes


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and those below it."""
    total, below = 0.0, [pid]
    while below:
        one = below.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            below += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(port: int, seconds: float) -> None:
    until = monotonic() + seconds
    while monotonic() < until:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        sleep(0.1)
    raise SystemExit(f"nothing listens on port {port} after {seconds:.0f} s")


@contextmanager
def running(command: list[str], port: int, core: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to a core, killed at the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            os.sched_setaffinity(process.pid, {core})
            wait_for(port, 120)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def compare(rounds: int, seconds: float) -> dict[str, dict[str, list[Result]]]:
    cores = sorted(os.sched_getaffinity(0))
    proxy_core, load_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {load_core})
    stub, plain, guarded = free_port(), free_port(), free_port()
    this = [sys.executable, __file__]
    serve = ["serve", "--upstream", f"http://127.0.0.1:{stub}", "--host", "127.0.0.1", "--port", str(guarded)]
    guard = [sys.executable, "-m", "guardrail", *serve]
    results: dict[str, dict[str, list[Result]]] = {}
    with (
        running([*this, "--role", "stub", str(stub)], stub, load_core),
        running([*this, "--role", "passthrough", str(plain), str(stub)], plain, proxy_core) as one,
        running(guard, guarded, proxy_core) as two,
    ):
        targets = {"pass-through": (plain, one), "guardrail": (guarded, two)}
        for number in range(rounds + 1):  # the first round warms up and is not counted
            for scenario in LIMITS:
                for name, (port, process) in targets.items():
                    for other, (_, p) in targets.items():
                        p.send_signal(signal.SIGCONT if other == name else signal.SIGSTOP)
                    before = cpu_seconds(process.pid)
                    length = max(seconds, EVENTS * EVENT_SECONDS * 2) if scenario == "sse-paced" else seconds
                    result = asyncio.run(load(port, bodies_of(scenario), length if number else 0.5))
                    result.cpu_us = (cpu_seconds(process.pid) - before) * 1e6 / max(1, result.answers)
                    if number:
                        results.setdefault(scenario, {}).setdefault(name, []).append(result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--gate", action="store_true", help="exit with 1 when a ratio is above its limit")
    parser.add_argument("--role", nargs="+", metavar=("stub|passthrough", "PORT"), help="for the processes this script starts")
    arguments = parser.parse_args()
    if arguments.role:
        role, *ports = arguments.role
        asyncio.run(serve_stub(int(ports[0]))) if role == "stub" else passthrough(int(ports[0]), int(ports[1]))
        return
    print(f"| scenario, {CONNECTIONS} connections | pass-through, CPU us | guardrail, CPU us | ratio | limit | errors |")
    print("|---|---|---|---|---|---|")
    above = False
    for scenario, by in compare(arguments.rounds, arguments.seconds).items():
        plain, guarded = (statistics.median(r.cpu_us for r in by[name]) for name in ("pass-through", "guardrail"))
        errors = sum(r.errors for results in by.values() for r in results)
        above = above or guarded / plain > LIMITS[scenario] or errors > 0
        print(f"| {scenario} | {plain:,.0f} | {guarded:,.0f} | {guarded / plain:.2f} | {LIMITS[scenario]} | {errors} |", flush=True)
    if arguments.gate and above:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
