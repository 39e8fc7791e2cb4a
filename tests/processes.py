"""`guardrail serve` as a process of its own, for what only processes show: workers, signals, the end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import SMALL_RULES

WITHIN_SECONDS = 60.0

needs_linux = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")


@dataclass(slots=True)
class Server:
    """A running `guardrail serve`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        # multiprocessing has a helper of its own among the children.
        return [pid for pid in map(int, text.split()) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What was logged under this name."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def health(self) -> Any:
        return httpx.get(self.url + "/-/health").json()

    def stop(self) -> int:
        """As an operator stops it; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WITHIN_SECONDS)


@contextlib.contextmanager
def guardrail_serve(folder: Path, **settings: Any) -> Iterator[Server]:
    """Started with these settings, in a folder for its files; stopped at the end. All its workers serve."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"upstream": "http://127.0.0.1:9", "rules": str(SMALL_RULES), "port": port, **settings}
    (folder / "settings.yaml").write_text(json.dumps(settings))
    environment = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "guardrail", "serve", "--config", str(folder / "settings.yaml")],
            stdout=file,
            stderr=file,
            env={**environment, "TMPDIR": str(folder)},
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_for(lambda: sum(_workers(server).values()) == settings.get("workers", 1), server)
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def _workers(server: Server) -> dict[str, int]:
    try:
        return dict(server.health()["workers"])
    except httpx.TransportError:
        return {}  # it is starting


def wait_for(holds: Callable[[], bool], server: Server | None = None) -> None:
    """Until it does; fails with the server's log when it never does."""
    end = time.monotonic() + WITHIN_SECONDS
    while not holds():
        if time.monotonic() > end or (server is not None and server.process.poll() is not None):
            pytest.fail(server.log.read_text()[-2000:] if server is not None else "it never came to hold")
        time.sleep(0.02)
