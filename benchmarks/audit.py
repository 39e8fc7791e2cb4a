"""The audit store: records a second, what it adds to an exchange, the dashboard on a million records, and what a kill loses.

    python benchmarks/audit.py speed   [--postgres URL] [--seconds S]
    python benchmarks/audit.py latency [--postgres URL] [--rounds N]
    python benchmarks/audit.py added   [--postgres URL] [--rounds N]
    python benchmarks/audit.py pages   [--postgres URL] [--records N]
    python benchmarks/audit.py kill    [--postgres URL] [--rounds N]

SQLite is measured in a temporary folder, PostgreSQL in a schema of its own which is dropped at the end. Records are those of real
decisions on texts of the corpus, nine quiet ones to one with a finding of consequence. Run it on an otherwise idle machine.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from proxy import cpu_seconds, free_port, running, serve_stub
from starlette.testclient import TestClient

from guardrail.app import create_app, load_guard
from guardrail.audit.chain import Chain, insert_statements
from guardrail.audit.database import open_database
from guardrail.audit.entry import kept_entry
from guardrail.audit.reader import AuditReader
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditStore
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role

CORPUS = Path(__file__).parent.parent / "corpus" / "train"
PACE_SECONDS = 0.005
BLOCK = 25  # requests to one server before its neighbour's turn
DAYS = 90


# --- stores and records


@contextlib.contextmanager
def stores(postgres: str | None) -> Iterator[dict[str, tuple[str, Path]]]:
    """By name, URL and spool of an empty store of each kind."""
    with tempfile.TemporaryDirectory(prefix="guardrail-audit-") as folder:
        found = {"SQLite": (f"sqlite:///{folder}/audit.db", Path(folder) / "sqlite.spool")}
        if postgres is None:
            yield found
            return
        schema = f"benchmark_{uuid.uuid4().hex[:8]}"
        admin = open_database(postgres, migrate=False)
        admin.execute(f"CREATE SCHEMA {schema}")
        try:
            yield {**found, "PostgreSQL": (f"{postgres}?options=-csearch_path%3D{schema}", Path(folder) / "postgres.spool")}
        finally:
            admin.execute(f"DROP SCHEMA {schema} CASCADE")
            admin.close()


def texts(name: str, count: int) -> list[str]:
    lines = (CORPUS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines if '"text"' in line][:count]


def records(guard: Guard) -> list[ExchangeRecord]:
    """A hundred exchanges, ninety of them quiet."""
    loud = texts("heart_breathing", 5) + texts("medication", 5)
    found = []
    for number, text in enumerate(texts("quiet", 90) + loud):
        decision = guard.review(Conversation((Message(Role.USER, text),)))
        record = ExchangeRecord(f"id{number}", 0.0, "chat_completions", Outcome.FORWARDED, decision, texts=(text,), turns=(0,))
        found.append(replace(record, outcome=Outcome.ANSWERED) if str(decision.action) == "answer" else record)
    return found


# --- records a second


def speed(postgres: str | None, seconds: float) -> None:
    samples = records(load_guard())
    print("| store | records a second | bytes a record |\n|---|---|---|")
    with stores(postgres) as found:
        for name, (url, spool) in found.items():
            store = AuditStore(url, spool=spool)
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                for sample in samples:
                    store.record(replace(sample, id=f"id{count:09}", at=time.time()))
                    count += 1
                if count % 2000 == 0:
                    store.flush(60)  # sustained: nothing piles up
            store.close(60)
            taken = time.perf_counter() - began
            with contextlib.closing(AuditReader(url)) as reader:
                rows = sum(1 for row in reader.chains() if row.kind == "exchange")
                size = statistics.mean(len(row.body or b"") for row in reader.chains())
            assert rows == count, f"{count - rows} records are missing"
            print(f"| {name} | {count / taken:,.0f} | {size:,.0f} |", flush=True)


# --- what it adds to an exchange


class Caller:
    """One kept connection that asks and waits for the answer."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def connect(self) -> None:
        """Anew: the server may have closed what was idle."""
        self._connection.close()
        self._connection.connect()

    def ask(self, text: str) -> tuple[float, str]:
        """Milliseconds, and the exchange's id."""
        body = json.dumps({"model": "stub", "messages": [{"role": "user", "content": text}]}).encode()
        began = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        response.read()
        return (time.perf_counter() - began) * 1000, response.headers["guardrail-exchange"]


def serving(port: int, stub: int, url: str | None, spool: Path) -> list[str]:
    command = [sys.executable, "-m", "guardrail", "serve", "--upstream", f"http://127.0.0.1:{stub}", "--port", str(port)]
    os.environ["GUARDRAIL_AUDIT_SPOOL"] = str(spool)
    return command + (["--audit", url] if url else [])


def latency(postgres: str | None, rounds: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    said = texts("quiet", 450) + texts("heart_breathing", 25) + texts("medication", 25)
    stub = free_port()
    print("| pace | audit | quarter, ms | median, ms | p95, ms | median to off | CPU, ms |\n|---|---|---|---|---|---|---|")
    with stores(postgres) as found, contextlib.ExitStack() as processes:
        processes.enter_context(running([sys.executable, __file__, "stub", "--port", str(stub)], stub, cores[-1]))
        callers: dict[str, Caller] = {}
        served: dict[str, subprocess.Popen[bytes]] = {}
        # Twice off: what the two differ by is chance.
        for name, (url, spool) in {"off": (None, Path("none")), **found, "off, again": (None, Path("none"))}.items():
            port = free_port()
            served[name] = processes.enter_context(running(serving(port, stub, url, spool), port, cores[0]))
            callers[name] = Caller(port)
        chance = random.Random(7)  # the same order in each run
        for pace in (0.0, PACE_SECONDS):
            taken: dict[str, list[float]] = {name: [] for name in callers}
            for number in range(rounds + 1):  # the first round warms up and is not counted
                if number == 1:
                    used = {name: cpu_seconds(process.pid) for name, process in served.items()}
                for first in range(0, len(said), BLOCK):
                    for name in chance.sample(list(callers), len(callers)):
                        # Alone on its core: what a server does after its answers falls on its own next ones, not on its neighbour's.
                        for other, process in served.items():
                            process.send_signal(signal.SIGCONT if other == name else signal.SIGSTOP)
                        callers[name].connect()
                        for text in said[first : first + BLOCK]:
                            # Never the same twice, so that no review comes from the guard's memory.
                            ms, _ = callers[name].ask(f"{text} ({uuid.uuid4().hex[:6]})")
                            taken[name] += [ms] if number else []
                            time.sleep(pace)
            shown = "back to back" if not pace else f"{pace * 1000:.0f} ms between"
            for process in served.values():
                process.send_signal(signal.SIGCONT)
            time.sleep(1)  # what still waits for the store is part of the cost
            cpu = {name: (cpu_seconds(served[name].pid) - used[name]) * 1000 / len(values) for name, values in taken.items()}
            marks = {name: _marks(values) for name, values in taken.items()}
            for name, (quarter, median, p95) in marks.items():
                ratio = median / marks["off"][1]
                print(f"| {shown} | {name} | {quarter:.2f} | {median:.2f} | {p95:.2f} | {ratio:.3f} | {cpu[name]:.2f} |", flush=True)


def _marks(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median and 95th percentile."""
    cuts = statistics.quantiles(values, n=20)
    return cuts[4], cuts[9], cuts[18]


# --- the same in one process


class Reply:
    """A model's whole reply, there at once."""

    def __init__(self) -> None:
        self.status, self.headers = 200, [(b"content-type", b"application/json")]
        message = {"role": "assistant", "content": "Drink enough, rest, and ask again if it goes on."}
        self._parts = [json.dumps({"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}).encode()]

    async def chunk(self) -> bytes:
        return self._parts.pop() if self._parts else b""

    async def aclose(self) -> None:
        pass


class Model:
    async def open(self, method: bytes, target: bytes, headers: Any, body: bytes) -> Reply:
        return Reply()

    async def aclose(self) -> None:
        pass


async def asked(app: Any, text: str) -> float:
    """Milliseconds from the request to the last byte of the answer; what the app does after that is not counted."""
    body = json.dumps({"model": "stub", "messages": [{"role": "user", "content": text}]}).encode()
    request = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
    scope: dict[str, Any] = {**request, "headers": [], "query_string": b"", "client": None}
    answered = 0.0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        nonlocal answered
        answered = time.perf_counter()

    began = time.perf_counter()
    await app(scope, receive, send)
    return (answered - began) * 1000


def added(postgres: str | None, rounds: int) -> None:
    """The apps of `latency` in one process, request by request in random order: whatever else the machine does falls on all alike.

    No sockets and a model that takes no time, so that the share of the store is the largest it can be. After each request there is a pause
    in which the store does its work (paced), or none, so that the next request meets it (back to back).
    """
    guard = load_guard()
    said = texts("quiet", 450) + texts("heart_breathing", 25) + texts("medication", 25)
    chance = random.Random(7)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(open(os.devnull, "w")))  # noqa: SIM115  # to the end of the process
    print("| pace | audit | tenth, ms | median, ms | tenth to off | median to off |\n|---|---|---|---|---|---|")
    with stores(postgres) as found:
        urls = {"off": (None, None), **found, "off, again": (None, None)}
        for pace in (0.0, PACE_SECONDS):
            apps = {
                name: create_app(Settings(upstream="http://127.0.0.1:9", audit=url, audit_spool=spool), guard=guard, upstream=Model())
                for name, (url, spool) in urls.items()
            }
            taken: dict[str, list[float]] = {name: [] for name in apps}

            async def run(apps: dict[str, Any] = apps, taken: dict[str, list[float]] = taken, pace: float = pace) -> None:
                for number in range(rounds + 1):  # the first round warms up and is not counted
                    for text in said:
                        for name in chance.sample(list(apps), len(apps)):
                            for last in (False, True):  # the second meets what the first left to do
                                ms = await asked(apps[name], f"{text} ({uuid.uuid4().hex[:6]})")
                                if number and (last or pace):
                                    taken[name].append(ms)
                                await asyncio.sleep(pace)
                            await asyncio.sleep(PACE_SECONDS)

            asyncio.run(run())
            shown = "back to back" if not pace else f"{pace * 1000:.0f} ms between"
            # The tenth that was quickest is the work itself; on a busy machine the median is mostly waiting for a core.
            marks = {name: (statistics.quantiles(values, n=10)[0], statistics.median(values)) for name, values in taken.items()}
            for name, (tenth, median) in marks.items():
                ratios = f"{tenth / marks['off'][0]:.3f} | {median / marks['off'][1]:.3f}"
                print(f"| {shown} | {name} | {tenth:.3f} | {median:.3f} | {ratios} |", flush=True)


# --- the dashboard on many records


def fill(url: str, samples: list[ExchangeRecord], count: int) -> None:
    """So many records over some months, the newest now; one in twenty thousand failed."""
    with contextlib.closing(open_database(url)) as database:
        chain, now = Chain(), time.time()
        rows = []
        for number in range(count):
            record = samples[number * 7919 % len(samples)]
            outcome = Outcome.GUARD_FAILED if number % 20_000 == 0 else record.outcome
            at = now - (count - number) * DAYS * 86_400 / count
            entry, _ = kept_entry(replace(record, id=f"id{number:09}", at=at, outcome=outcome), "absent", b"", None)
            rows.append(chain.add(entry))
            if len(rows) == 5000:
                database.write(insert_statements(rows))
                rows = []
        database.write(insert_statements(rows) if rows else [])
        if url.startswith("postgresql"):
            database.execute("ANALYZE")


def pages(postgres: str | None, count: int) -> None:
    guard = load_guard()
    samples = records(guard)
    rule = next(s.decision.hits[0].rule for s in samples if s.decision and s.decision.hits)
    paths = {
        "overview, 24 h": "",
        "overview, 7 days": "?span=7d",
        "list": "/exchanges",
        "list of emergencies": "/exchanges?urgency=emergency",
        "list of a rare outcome": "/exchanges?outcome=guard_failed",
        "list of a destination and a time": "/exchanges?destination=ambulance&before=2100-01-01",
        "list of a rule": f"/exchanges?rule={rule}",
        "list, page in the middle": f"/exchanges?cursor={time.time() - DAYS * 43_200}~id",
        "list by id": f"/exchanges?id=id{count // 2:09}",
        "one exchange": f"/exchanges/id{count // 2:09}",
        "review queue": "/review",
        "rules": "/rules",
        "packs": "/packs",
    }
    with stores(postgres) as found:
        shown: dict[str, list[str]] = {name: [] for name in paths}
        for url, _ in found.values():
            fill(url, samples, count)
            settings = Settings(upstream="http://127.0.0.1:9", audit=url)
            app = create_app(settings, guard=guard, open_dashboard=True)
            with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
                for name, path in paths.items():
                    times = []
                    for _ in range(11):
                        began = time.perf_counter()
                        response = client.get(f"/-/dashboard{path}")
                        times.append((time.perf_counter() - began) * 1000)
                        assert response.status_code == 200, (path, response.status_code)
                    shown[name].append(f"{statistics.median(times):.0f} (worst {max(times):.0f})")
        print(f"| page, {count:,} records | {' | '.join(f'{name}, ms' for name in found)} |\n|---|{'---|' * len(found)}")
        for name, cells in shown.items():
            print(f"| {name} | {' | '.join(cells)} |")


# --- what a kill loses


def kill(postgres: str | None, rounds: int) -> None:
    """Kill a serving process in the middle of load; every answer that a client had read whole should be in the record."""
    stub = free_port()
    print("| store | kills | answers read | recorded | lost | problems in chains | to catch up, s |\n|---|---|---|---|---|---|---|")
    said = texts("quiet", 90) + texts("heart_breathing", 10)
    with stores(postgres) as found, running([sys.executable, __file__, "stub", "--port", str(stub)], stub, 0):
        for name, (url, spool) in found.items():
            answered: set[str] = set()
            recovery = []
            for number in range(rounds):
                port = free_port()
                with running(serving(port, stub, url, spool), port, 0) as process:
                    caller = Caller(port)
                    until = time.monotonic() + 1.0 + number * 0.137
                    while time.monotonic() < until:
                        answered.add(caller.ask(said[len(answered) % len(said)])[1])
                    process.send_signal(signal.SIGKILL)
                began = time.perf_counter()
                AuditStore(url, spool=spool).close()  # adopts what was left
                recovery.append(time.perf_counter() - began)
            with contextlib.closing(AuditReader(url)) as reader:
                ids = {row.id for row in reader.chains() if row.kind == "exchange"}
            command = [sys.executable, "-m", "guardrail", "audit", "verify", "--audit", url]
            whole = subprocess.run(command, capture_output=True, text=True, check=False)
            problems = 0 if whole.returncode == 0 else len(whole.stdout.splitlines()) - 1
            lost = len(answered - ids)
            print(f"| {name} | {rounds} | {len(answered):,} | {len(ids):,} | {lost} | {problems} | {max(recovery):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "latency", "added", "pages", "kill", "stub"])
    parser.add_argument("--postgres", metavar="URL", help="measure PostgreSQL too")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--port", type=int, help="for the stub this script starts")
    arguments = parser.parse_args()
    calls: dict[str, Any] = {
        "speed": lambda: speed(arguments.postgres, arguments.seconds),
        "latency": lambda: latency(arguments.postgres, arguments.rounds),
        "added": lambda: added(arguments.postgres, arguments.rounds),
        "pages": lambda: pages(arguments.postgres, arguments.records),
        "kill": lambda: kill(arguments.postgres, arguments.rounds),
        "stub": lambda: asyncio.run(serve_stub(arguments.port)),
    }
    calls[arguments.what]()


if __name__ == "__main__":
    main()
