"""Really listening servers for tests: an ASGI app, or a scripted upstream that can misbehave on the wire."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn
from starlette.types import ASGIApp

STARTED_WITHIN = 10.0

Handler = Callable[["Call", asyncio.StreamWriter], Awaitable[None]]


@contextlib.contextmanager
def serving(app: ASGIApp, **options: Any) -> Iterator[str]:
    """The app on a free port of this machine; gives its URL."""
    options = {"http": "httptools", "loop": "uvloop", "ws": "none", "log_level": "critical", "timeout_graceful_shutdown": 2, **options}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **options))
    ready = threading.Event()
    startup = server.startup

    async def started(*args: Any, **kwargs: Any) -> None:
        await startup(*args, **kwargs)
        ready.set()

    server.startup = started  # type: ignore[method-assign]  # the one moment at which the port is known
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(STARTED_WITHIN), "the server did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(STARTED_WITHIN)
        assert not thread.is_alive(), "the server did not stop"


@dataclass(slots=True)
class Call:
    """One request as it reached the upstream."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(slots=True)
class ScriptedUpstream:
    """What the upstream saw. `closed` counts connections that the proxy closed or left while a reply was running."""

    url: str
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    left: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def upstream(handler: Handler, ssl: Any = None) -> Iterator[ScriptedUpstream]:
    """A raw HTTP/1.1 server: reads each request, then lets `handler` write whatever bytes it likes.

    The connection stays open for the next request unless the handler closes the writer.
    """
    seen = ScriptedUpstream("")
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop: asyncio.Event | None = None

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            while (call := await _read_call(reader)) is not None:
                seen.calls.append(call)
                gone = asyncio.ensure_future(reader.read(1))
                work = asyncio.ensure_future(handler(call, writer))
                await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    seen.left.set()
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                    break
                gone.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await gone
                work.result()
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            seen.left.set()
        except asyncio.CancelledError:
            return  # the server stops
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await writer.wait_closed()

    async def run() -> None:
        nonlocal stop
        stop = asyncio.Event()
        server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=ssl)
        scheme = "https" if ssl else "http"
        seen.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        server.close()
        others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(STARTED_WITHIN), "the upstream did not start"
    try:
        yield seen
    finally:
        assert stop is not None, "it was made before ready"
        loop.call_soon_threadsafe(stop.set)
        thread.join(STARTED_WITHIN)
        loop.close()


async def _read_call(reader: asyncio.StreamReader) -> Call | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *fields = head.decode("latin-1").split("\r\n")[:-2]
    headers = [(name, value.strip()) for name, _, value in (f.partition(":") for f in fields)]
    length = next((int(v) for n, v in headers if n.lower() == "content-length"), 0)
    return Call(line, headers, await reader.readexactly(length))


def response(body: bytes, status: str = "200 OK", *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chat_reply(text: str, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    return orjson.dumps({"id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


def chat_chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return (
        b"data: "
        + orjson.dumps({"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})
        + b"\n\n"
    )


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def saying(text: str) -> Handler:
    """An upstream that says this, as JSON or as a stream of single words, whichever was asked for."""

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        if not orjson.loads(call.body or b"{}").get("stream"):
            writer.write(response(chat_reply(text)))
        else:
            writer.write(STREAM_HEAD + chunked(chat_chunk({"role": "assistant", "content": ""})))
            for word in text.split(" "):
                writer.write(chunked(chat_chunk({"content": word + " "})))
            writer.write(chunked(chat_chunk({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    return handler
