"""An ASGI application as the upstream: for the guard as a middleware, in one process with the chatbot.

Behind the same interface as the HTTP pool: `open` runs the application in a task until its response starts, `chunk` hands over
what it sends, `aclose` tells it that the client left. Knows nothing of dialects.
"""

import asyncio
import contextlib
from collections.abc import MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Scope

from guardrail.errors import UpstreamError, UpstreamLost, UpstreamUnreachable
from guardrail.proxy.upstream import Headers, UpstreamReply

_AHEAD = 4
"""Messages the application may be ahead of the client."""
current_scope: ContextVar[Scope] = ContextVar("current_scope")
"""The request that is being served: what the server put into its scope is handed on."""


class InnerApp:
    """`Upstream` around an application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def open(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> UpstreamReply:
        path, _, query = target.partition(b"?")
        scope = {
            **current_scope.get(),
            "method": method.decode("ascii"),
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
        reply = _InnerReply(self._app, scope, body)
        try:
            await reply.start()
        except BaseException:
            await reply.aclose()
            raise
        return reply

    async def aclose(self) -> None:
        """Its life is the host's business."""


class _InnerReply:
    def __init__(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        self.status = 0
        self.headers: Headers = []
        self._messages: asyncio.Queue[MutableMapping[str, Any] | None] = asyncio.Queue(_AHEAD)
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self._done = False
        self._task = asyncio.create_task(self._run(app, scope))

    async def start(self) -> None:
        message = await self._next()
        if message["type"] != "http.response.start":
            raise UpstreamUnreachable("the application answered without a head")
        self.status = message["status"]
        self.headers = [(name.lower(), value) for name, value in message.get("headers", ())]

    async def chunk(self) -> bytes:
        while not self._done:
            message = await self._next()
            if message["type"] != "http.response.body":
                continue
            self._done = not message.get("more_body", False)
            if message.get("body"):
                return bytes(message["body"])
        return b""

    async def aclose(self) -> None:
        self._left.set()
        if not self._done:
            self._task.cancel()
        while not self._messages.empty():
            self._messages.get_nowait()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        error: UpstreamError | None = None
        try:
            await app(scope, self._receive, self._messages.put)
        except Exception as failure:
            # Its message may hold a patient's words; whoever runs the application logs it there.
            error = UpstreamLost(f"the application failed: {type(failure).__name__}")
        finally:
            self._failure = error
            if not self._left.is_set():
                await self._messages.put(None)

    async def _next(self) -> MutableMapping[str, Any]:
        message = await self._messages.get()
        if message is None:
            failure = self._failure or UpstreamLost("the application's answer stopped before its end")
            raise failure if self.status else UpstreamUnreachable(str(failure))
        return message

    async def _receive(self) -> MutableMapping[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}
