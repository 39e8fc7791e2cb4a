"""nginx and Envoy in front of the proxy, run with the files of deploy/ as they are but for addresses and certificates."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from guardrail.audit.record import Outcome
from guardrail.engine.guard import Guard
from tests.proxy.test_failures import EMERGENCY, HELLO, Proxy, proxy, wait_until
from tests.proxy.test_relay import DONE, shown
from tests.proxy.test_upstream import tls_pair
from tests.serving import STREAM_HEAD, Call, Handler, chat_chunk, chunked, saying

DEPLOY = Path(__file__).parents[2] / "deploy"
SETTINGS: dict[str, Any] = {"country": None, "country_header": "X-Country", "trusted_proxies": ["127.0.0.0/8"]}


@dataclass
class Gateway:
    """A listening gateway with the proxy behind it."""

    url: str
    tls: ssl.SSLContext
    proxy: Proxy

    def ask(self, text: str = HELLO, **more: Any) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
        return httpx.post(self.url + "/v1/chat/completions", json=body, headers={"x-country": "US"}, verify=self.tls, timeout=20)

    def stream(self) -> "contextlib.AbstractContextManager[httpx.Response]":
        body = {"model": "m", "messages": [{"role": "user", "content": HELLO}], "stream": True}
        return httpx.stream("POST", self.url + "/v1/chat/completions", json=body, verify=self.tls, timeout=20)

    def status(self, path: str) -> int:
        """Of a path sent as it is written."""
        with socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])), 5) as plain:
            with self.tls.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                return int(sock.recv(65536).split(b" ")[1])


@contextlib.contextmanager
def gateway(kind: str, handler: Handler, guard: Guard, folder: Path, **settings: Any) -> Iterator[Gateway]:
    cert, key = tls_pair(folder)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with proxy(handler, guard, **SETTINGS, **settings) as one, running(kind, folder, port, one.port, cert, key) as process:
        tls = ssl.create_default_context(cafile=str(cert))
        wait_until(lambda: process.poll() is not None or listens(port), seconds=20)
        assert process.poll() is None, (folder / "said").read_text()[-2000:]
        yield Gateway(f"https://127.0.0.1:{port}", tls, one)


@contextlib.contextmanager
def running(kind: str, folder: Path, port: int, behind: int, cert: Path, key: Path) -> Iterator["subprocess.Popen[bytes]"]:
    program = shutil.which(kind) or shutil.which(kind, path=Path(sys.executable).parent)
    if program is None:
        pytest.skip(f"{kind} is not installed")
    if kind == "nginx":
        text = (DEPLOY / "nginx" / "nginx.conf").read_text()
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;").replace("/etc/nginx/tls/chat", str(folder / "chat"))
        text = f"daemon off;\npid {folder}/pid;\nerror_log stderr;\n" + text.replace("worker_processes auto", "worker_processes 1")
        command = [program, "-p", str(folder), "-c", str(folder / "config.yaml"), "-e", "stderr"]
    else:
        text = (DEPLOY / "envoy" / "envoy.yaml").read_text()
        text = text.replace("{address: 0.0.0.0, port_value: 443}", f"{{address: 127.0.0.1, port_value: {port}}}")
        text = text.replace("/etc/envoy/tls/chat", str(folder / "chat"))
        command = [program, "-c", str(folder / "config.yaml"), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
    assert "8080" in text
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{behind}").replace("port_value: 8080", f"port_value: {behind}")
    (folder / "config.yaml").write_text(text)
    cert.rename(folder / "chat.pem")
    key.rename(folder / "chat.key")
    cert.write_bytes((folder / "chat.pem").read_bytes())
    with (folder / "said").open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield process
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


each_gateway = pytest.mark.parametrize("kind", ["nginx", "envoy"])


@each_gateway
def test_words_of_a_stream_go_on_at_once_and_leaving_reaches_the_model(small_guard: Guard, kind: str, tmp_path: Path) -> None:
    seen = threading.Event()

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunked(chat_chunk({"content": "first "})))
        await writer.drain()
        await asyncio.to_thread(seen.wait, 10)  # the second word comes only when the first was read
        writer.write(chunked(chat_chunk({"content": "second "})))
        await asyncio.sleep(20)

    with gateway(kind, handler, small_guard, tmp_path) as one:
        with one.stream() as reply:
            parts = reply.iter_raw()
            assert shown(next(parts)) == "first "
            seen.set()
            assert shown(next(parts)) == "second "
        assert one.proxy.up.left.wait(5)
        assert one.proxy.records.last().outcome is Outcome.CLIENT_LEFT


@each_gateway
def test_a_whole_stream_and_a_lost_one(small_guard: Guard, kind: str, tmp_path: Path) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        if len(one.proxy.up.calls) == 1:
            await saying("Drink water.")(call, writer)
            return
        writer.write(STREAM_HEAD + chunked(chat_chunk({"content": "Take "})))
        await writer.drain()
        writer.close()

    with gateway(kind, handler, small_guard, tmp_path) as one:
        whole, lost = one.ask(stream=True), one.ask(stream=True)

        assert shown(whole.content) == "Drink water. Ask a doctor."
        assert DONE in whole.content
        assert shown(lost.content) == "Take (This reply was interrupted.)"
        assert DONE not in lost.content
        assert len(one.proxy.up.calls) == 2


@each_gateway
def test_emergencies_and_countries(small_guard: Guard, kind: str, tmp_path: Path) -> None:
    """Answered while the model is gone, with the number of the country the gateway names and not of the one the client claims."""
    with gateway(kind, saying("x"), small_guard, tmp_path, upstream="http://127.0.0.1:9") as one:
        for stream in (False, True):
            reply = one.ask(EMERGENCY, stream=stream)
            said = shown(reply.content) if stream else reply.json()["choices"][0]["message"]["content"]
            assert said == "This could be an emergency: call 999 now."
        assert one.ask().status_code == 502


HIDDEN = [
    "/-/metrics",
    "/%2d/metrics",
    "//-/metrics",
    "/x/../-/metrics",
    "/x/%2e%2e/-/metrics",
    "/-%2fmetrics",
    "/-/health/../metrics",
]


@each_gateway
def test_what_is_for_the_inner_network_is_not_served(small_guard: Guard, kind: str, tmp_path: Path) -> None:
    with gateway(kind, saying("x"), small_guard, tmp_path) as one:
        assert one.status("/-/health") == 200
        assert one.status("/-/ready") == 200
        for path in HIDDEN:
            assert one.status(path) in (400, 403, 404), path
