"""A stop by SIGTERM: nothing new is taken, open streams go on to their end or to the limit, and every exchange is recorded."""

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import httpx
import pytest

from tests.processes import Server, guardrail_serve, needs_linux, wait_for
from tests.serving import STREAM_HEAD, Call, Handler, chat_chunk, chunked, upstream

BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}

pytestmark = needs_linux


def speaking_until(released: threading.Event) -> Handler:
    """A model that says one sentence, waits, and says another."""

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunked(chat_chunk({"role": "assistant", "content": "Good morning to you. "})))
        await writer.drain()
        await asyncio.get_running_loop().run_in_executor(None, released.wait, 60)
        writer.write(chunked(chat_chunk({"content": "Good night."})))
        writer.write(chunked(chat_chunk({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    return handler


def is_closed(server: Server) -> bool:
    """Nobody listens any more."""
    try:
        httpx.get(server.url + "/-/health")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_an_open_stream_is_finished_and_nothing_new_is_taken(tmp_path: Path, workers: int) -> None:
    released = threading.Event()
    audit = tmp_path / "audit.db"
    with upstream(speaking_until(released)) as model:
        with guardrail_serve(tmp_path, workers=workers, upstream=model.url, audit=f"sqlite:///{audit}") as server:
            with httpx.stream("POST", server.url + "/v1/chat/completions", json=BODY, timeout=30) as reply:
                parts = reply.iter_text()
                text = next(parts)
                server.process.terminate()
                wait_for(lambda: is_closed(server))
                assert server.process.poll() is None
                released.set()
                text += "".join(parts)
            server.process.wait(30)

    assert "Good morning" in text
    assert "Good night" in text
    assert text.rstrip().endswith("data: [DONE]")
    assert [line["outcome"] for line in server.lines("exchange")] == ["forwarded"]
    with contextlib.closing(sqlite3.connect(audit)) as store:
        assert "forwarded" in "\n".join(store.iterdump())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_beyond_the_limit_ends_honestly(tmp_path: Path, workers: int) -> None:
    never = threading.Event()
    with upstream(speaking_until(never)) as model:
        with guardrail_serve(tmp_path, workers=workers, upstream=model.url, shutdown_seconds=1) as server:
            with httpx.stream("POST", server.url + "/v1/chat/completions", json=BODY, timeout=30) as reply:
                parts = reply.iter_text()
                text = next(parts)
                server.process.terminate()
                text += "".join(parts)
            server.process.wait(30)
        never.set()

    assert "Good morning" in text
    assert "shutting down" in text
    assert "Good night" not in text
    assert [line["outcome"] for line in server.lines("exchange")] == ["shutdown"]
