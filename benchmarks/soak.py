"""Many streams for a long time, with patients who leave and a model that fails: memory flat, no record lost, no answer wrong.

    python benchmarks/soak.py [--minutes N] [--streams N]

Three processes: this one is the patients, `guardrail serve` with an audit store is what is tested, and a model that does what the name
in the request says: `whole`, `lost` (its connection breaks), `silent`, `broken` (not JSON), `refused`. Every answer is compared with the
only one that is right for it; every exchange whose id a patient saw must be in the store with its outcome, and the store's chain must
verify. Memory is the proportional share (PSS) of the server's processes. Exits with 1 if anything is wrong.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

EVENTS = 40
EVENT_SECONDS = 0.1
SAMPLE_SECONDS = 5.0
# Caches fill in the first part of a run (4,096 readings of messages); growth is looked for after it.
WARM_SHARE = 0.4
# Of what remains; a leak of one kilobyte per exchange shows as ten times that in three minutes.
GROWTH_MB = 4.0
ANSWER_WITHIN = 30.0
SILENT_SECONDS = 3
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
REFUSED = b'{"error":{"message":"slow down","type":"rate_limit_error"}}'
EMERGENCY = "I have crushing chest pain and my left arm is numb"
INTERRUPTED = "This reply was interrupted"


# --- the model


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            request = json.loads(await reader.readexactly(length))
            if not await speak(writer, request["model"], request["messages"][-1]["content"]):
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def speak(writer: asyncio.StreamWriter, how: str, question: str) -> bool:
    """One reply; whether the connection may be used again."""
    if how == "refused":
        writer.write(b"HTTP/1.1 429 Too Many\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(REFUSED), REFUSED))
        return True
    writer.write(HEAD)
    for word in reply_words(question):
        writer.write(chunk(event(word)))
        await writer.drain()
        await asyncio.sleep(EVENT_SECONDS)
        if how != "whole" and random.random() < 2 / EVENTS:
            if how == "silent":
                await asyncio.sleep(SILENT_SECONDS * 3)
            elif how == "broken":
                writer.write(chunk(b'data: {"choices": [{"delta": {"content": "unread\n\n'))
            return False
    if how != "whole":
        return False
    writer.write(chunk(event(None)) + b"0\r\n\r\n")
    return True


def reply_words(question: str) -> list[str]:
    """What the model says to a question: words that tell the answers apart."""
    return [*question.split(), *(f"w{n}" for n in range(EVENTS))][:EVENTS]


def event(word: str | None) -> bytes:
    choice = {"index": 0, "delta": {"content": word + " "} if word else {}, "finish_reason": None if word else "stop"}
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(base).encode() + b"\n\n" + (b"" if word else b"data: [DONE]\n\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve_model(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


# --- the patients


@dataclass
class Soak:
    port: int
    until: float
    seen: dict[str, str] = field(default_factory=dict)
    """Exchange -> the outcome its record must have."""
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def patient(self, number: int) -> None:
        rng = random.Random(number)
        asked = 0
        await asyncio.sleep(rng.random() * EVENTS * EVENT_SECONDS)
        while monotonic() < self.until:
            kind = rng.choices(list(KINDS), [weight for weight, _, _ in KINDS.values()])[0]
            asked += 1
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    problem = await self.ask(kind, f"When does the library open on day {asked} of year {number}?", rng)
            except TimeoutError:
                problem = "no answer in time"
            except OSError as error:
                problem = f"connection: {error}"
            self.counts[kind] += 1
            if problem:
                self.wrong.append(f"{kind}: {problem}")
            await asyncio.sleep(rng.random() * 0.2)

    async def ask(self, kind: str, question: str, rng: random.Random) -> str | None:
        """One exchange; what is wrong with its answer."""
        if kind == "emergency":
            question = f"{EMERGENCY}, {question}"
        model = kind if kind in ("lost", "silent", "broken", "refused") else "whole"
        body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": question}]}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            start = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in start.split(b"\r\n")[1:] if b": " in line)
            outcome = KINDS[kind][1]
            self.seen[fields[b"guardrail-exchange"].decode()] = outcome
            if kind == "left":
                for _ in range(rng.randrange(EVENTS // 2)):
                    await reader.readuntil(b"\n\n")
                return None
            return KINDS[kind][2](await reader.read(), question)
        finally:
            writer.close()


def text_of(raw: bytes) -> str:
    """What a patient reads of a chunked event stream."""
    said = []
    for line in raw.split(b"\n"):
        if line.startswith(b"data: {") and (choices := json.loads(line[6:]).get("choices")):
            said.append(choices[0]["delta"].get("content") or "")
    return "".join(said)


def is_whole(raw: bytes, question: str) -> str | None:
    if not text_of(raw).startswith(" ".join(reply_words(question))) or b"data: [DONE]" not in raw or not raw.endswith(b"0\r\n\r\n"):
        return f"not the whole answer: {text_of(raw)[-80:]!r}"
    return None


def is_redirect(raw: bytes, question: str) -> str | None:
    return None if "999" in text_of(raw) and b"w1" not in raw and b"data: [DONE]" in raw else f"no redirect: {text_of(raw)[:80]!r}"


def is_interrupted(raw: bytes, question: str) -> str | None:
    said, _, notice = text_of(raw).partition("(" + INTERRUPTED)
    if not notice or b"data: [DONE]" in raw or b'"error"' not in raw or "unread" in said:
        return f"looks complete: {text_of(raw)[-80:]!r}"
    return None if " ".join(reply_words(question)).startswith(said.strip()) else f"other words: {said[-80:]!r}"


def is_refused(raw: bytes, question: str) -> str | None:
    return None if raw == REFUSED else f"not the upstream's error: {raw[:80]!r}"


def is_anything(raw: bytes, question: str) -> str | None:
    return None


KINDS: dict[str, tuple[int, str, Callable[[bytes, str], str | None]]] = {
    "whole": (50, "forwarded", is_whole),
    "left": (20, "client_left", is_anything),
    "lost": (8, "upstream_lost", is_interrupted),
    "silent": (3, "upstream_lost", is_interrupted),
    "broken": (4, "upstream_lost", is_interrupted),
    "refused": (5, "upstream_refused", is_refused),
    "emergency": (10, "answered", is_redirect),
}
"""Kind of exchange -> how often, the outcome its record must have, what its answer must be."""


# --- the server


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def sample(pid: int, until: float, series: list[tuple[float, float, int]]) -> None:
    began = monotonic()
    while monotonic() < until:
        series.append((monotonic() - began, memory_mb(pid), open_files(pid)))
        await asyncio.sleep(SAMPLE_SECONDS)


async def soak(port: int, pid: int, streams: int, seconds: float) -> tuple[Soak, list[tuple[float, float, int]]]:
    run = Soak(port, monotonic() + seconds)
    series: list[tuple[float, float, int]] = []
    work: list[Awaitable[None]] = [run.patient(number) for number in range(streams)]
    await asyncio.gather(sample(pid, run.until, series), *work)
    await asyncio.sleep(SAMPLE_SECONDS)
    series.append((seconds, memory_mb(pid), open_files(pid)))
    return run, series


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(port: int) -> None:
    until = monotonic() + 120
    while monotonic() < until:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def recorded(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as store:
        return dict(store.execute("SELECT id, outcome FROM entries WHERE kind = 'exchange'"))


def report(run: Soak, series: list[tuple[float, float, int]], records: dict[str, str], verified: bool) -> bool:
    """Print the table; whether all is well."""
    warm = [s for s in series if s[0] >= series[-1][0] * WARM_SHARE]
    third = max(1, len(warm) // 3)
    first, last = (statistics.mean(mb for _, mb, _ in part) for part in (warm[:third], warm[-third:]))
    missing = [identity for identity in run.seen if identity not in records]
    other = [f"{records[i]} instead of {o}" for i, o in run.seen.items() if i in records and records[i] != o]
    # A patient who leaves behind the last word is one who stayed.
    other = [o for o in other if o != "forwarded instead of client_left"]
    rows = [
        ("exchanges", sum(run.counts.values())),
        *((f"  {kind}", run.counts[kind]) for kind in KINDS),
        ("wrong answers", len(run.wrong)),
        ("records", len(records)),
        ("records lost", len(missing)),
        ("records with another outcome", len(other)),
        ("audit chain", "verified" if verified else "BROKEN"),
        ("memory at the start, warm, at the end (MB, PSS)", f"{series[0][1]:.0f}, {first:.1f}, {last:.1f}"),
        ("growth after warming up (MB)", f"{last - first:+.1f}"),
        ("open files at the start, most, afterwards", f"{series[0][2]}, {max(s[2] for s in series)}, {series[-1][2]}"),
    ]
    for name, value in rows:
        print(f"| {name} | {value} |")
    print("\nmemory, MB: " + " ".join(f"{mb:.0f}" for _, mb, _ in series))
    for line, times in Counter([*run.wrong, *(f"record: {o}" for o in other)]).most_common(10):
        print(f"{times} x {line}")
    return not run.wrong and not missing and not other and verified and last - first < GROWTH_MB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--model", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.model:
        asyncio.run(serve_model(given.model))
        return 0
    model, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        store = Path(folder) / "audit.db"
        serve = ["serve", "--upstream", f"http://127.0.0.1:{model}", "--port", str(port), "--audit", f"sqlite:///{store}"]
        settings = {"GUARDRAIL_COUNTRY": "GB", "GUARDRAIL_READ_SECONDS": str(SILENT_SECONDS)}
        upstream = subprocess.Popen([sys.executable, __file__, "--model", str(model)])
        server = subprocess.Popen([sys.executable, "-m", "guardrail", *serve], stdout=log, stderr=log, env={**os.environ, **settings})
        try:
            wait_for(model)
            wait_for(port)
            run, series = asyncio.run(soak(port, server.pid, given.streams, given.minutes * 60))
        finally:
            upstream.kill()
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        verify = [sys.executable, "-m", "guardrail", "audit", "verify", "--audit", f"sqlite:///{store}"]
        verified = subprocess.run(verify, stdout=log, stderr=log).returncode == 0
        well = report(run, series, recorded(store), verified)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
