"""The way to the model: one narrow interface, and the HTTP/1.1 pool behind it.

`Upstream.open` sends a request and returns once the response head is there; `chunk` gives the body as it arrives, b"" at
its end. The pool is asyncio.Protocol and httptools, because a general client costs more than the whole guard
(docs/decisions.md). It keeps named timeouts, limits, back-pressure, and verified TLS. A request is sent again only when
nothing of it was sent: a kept connection that turns out to be closed before use. RFC 9110 9.2.2 forbids a proxy more.

Does not follow redirects, keep cookies, decode bodies or speak HTTP/2.
"""

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httptools

from guardrail.errors import ConfigError, UpstreamError, UpstreamLost, UpstreamTimeout, UpstreamUnreachable

Headers = list[tuple[bytes, bytes]]

# Reading stops when this much waits for the client; 64 KiB is asyncio's own high-water mark.
_HIGH_WATER = 65536
_SWITCHING_PROTOCOLS = 101


class UpstreamReply(Protocol):
    """A response whose head has arrived."""

    status: int
    headers: Headers
    """Names in lower case, repeats kept."""

    async def chunk(self) -> bytes:
        """What has arrived since the last call, waiting for something; b"" at the end. Raises UpstreamLost, UpstreamTimeout."""

    async def aclose(self) -> None:
        """Done with it; an unfinished body is abandoned and the upstream sees the connection close."""


class Upstream(Protocol):
    async def open(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> UpstreamReply:
        """Raises UpstreamUnreachable or UpstreamTimeout."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect (TLS included), to the response head, between two reads of the body, for a free connection."""

    connect: float = 5.0
    first_byte: float = 120.0
    read: float = 60.0
    pool: float = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`keep_alive_seconds` is below the five seconds after which common servers close, so that few requests meet a closed one."""

    connections: int = 1000
    idle_connections: int = 100
    keep_alive_seconds: float = 4.0
    head_bytes: int = 65536
    head_fields: int = 256


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates are always verified. `ca_file` replaces the system's authorities; `cert_file` and `key_file` are ours."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"upstream TLS: {error}; name readable PEM files") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        return context


class _Connection(asyncio.Protocol):
    """One connection, which is also the reply it is carrying."""

    def __init__(self, pool: "HttpPool", loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._waits_for = ""
        self._transport: asyncio.Transport
        self._error: UpstreamError | None = None
        self._busy = False
        self._closed = False
        self._paused = False
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        """State of one reply."""
        self.status = 0
        self.headers: Headers = []
        self._fields_bytes = self._head_bytes = self._size = 0
        self._parts: deque[bytes] = deque()
        self._head = self._done = self._keep = self._until_close = False

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream protocol gets a Transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy and not self._done:
            if self._head and self._until_close and exc is None:
                self._done = True
            elif self._error is None:
                self._error = (
                    UpstreamLost("the upstream closed the connection in mid-answer")
                    if self._head
                    else UpstreamUnreachable("the upstream closed the connection without an answer")
                )
        self._pool.forget(self)
        self._wake()

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self._transport.abort()  # nobody asked: whatever it is, it must not become the answer to the next request
            return
        if not self._head:
            self._head_bytes += len(data)
            if self._head_bytes > self._pool.limits.head_bytes + _HIGH_WATER:
                self._fail("the response head is too large")
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(str(error.__context__ or error) or "not HTTP")
            return
        if self._size > _HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        if self._head:
            self._wake()

    def _fail(self, what: str) -> None:
        if self._error is None:
            kind = UpstreamLost if self._head else UpstreamUnreachable
            self._error = kind(f"the upstream's response cannot be read: {what}")
        self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # httptools

    def on_message_begin(self) -> None:
        if self._head:
            raise UpstreamLost("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head:
            return  # trailers: nobody may rely on them
        self._fields_bytes += len(name) + len(value)
        limits = self._pool.limits
        if len(self.headers) >= limits.head_fields or self._fields_bytes > limits.head_bytes:
            raise UpstreamUnreachable("its head is too large")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 and status != _SWITCHING_PROTOCOLS:
            self.headers = []  # 100 Continue, 103 Early Hints: the answer is still to come
            return
        self.status = status
        self._head = True
        names = {name for name, _ in self.headers}
        chunked = any(name == b"transfer-encoding" and b"chunked" in value.lower() for name, value in self.headers)
        self._until_close = not chunked and b"content-length" not in names and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if self._head:
            self._keep = self._parser.should_keep_alive()
            self._done = True

    # the pool

    @property
    def is_open(self) -> bool:
        return not self._closed and not self._transport.is_closing()

    def begin(self, request: bytes) -> None:
        """Send a request; from here on this object is the reply to it."""
        self._begin()
        self._busy = True
        self._transport.write(request)

    def stop(self) -> None:
        self._transport.abort()

    async def head(self) -> None:
        await self._wait_for_head(self._pool.timeouts.first_byte)

    async def _wait_for_head(self, seconds: float) -> None:
        while not self._head:
            if self._error is not None:
                raise self._error
            await self._wait(seconds, "the upstream's first byte")
        if self.status == _SWITCHING_PROTOCOLS:
            raise UpstreamUnreachable("the upstream switched protocols unasked")

    # UpstreamReply

    async def chunk(self) -> bytes:
        while not self._parts:
            if self._done:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait(self._pool.timeouts.read, "more of the upstream's answer")
        data = self._parts.popleft() if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def aclose(self) -> None:
        if not self._busy:
            return
        self._busy = False
        reusable = self._done and self._keep and self._error is None and self.is_open
        if reusable and self._transport.get_write_buffer_size() == 0:
            self._parts.clear()
            self._pool.give_back(self)
        else:
            self._transport.abort()

    # One timer per connection that is moved rarely, not one per read: a stream reads hundreds of times.

    async def _wait(self, seconds: float, what: str) -> None:
        deadline = self._deadline = self._loop.time() + seconds
        self._waits_for = what
        if self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._tick)
        self._waiter = self._loop.create_future()
        await self._waiter

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() + 0.001 < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
            return
        self._error = UpstreamTimeout(f"timed out waiting for {self._waits_for}")
        self._transport.abort()
        self._wake()


class HttpPool:
    """Connections to one origin. Make one for the life of the app."""

    def __init__(
        self,
        url: str,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        tls: Tls | None = None,
        proxy: str | None = None,
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        self.limits = limits or Limits()
        origin = self._origin = read_url(url)
        self._proxy = read_proxy(proxy) if proxy else None
        self._ssl = (tls or Tls()).context() if origin.secure else None
        self._prefix = origin.prefix
        self._host_line = b" HTTP/1.1\r\nhost: " + origin.authority + b"\r\n"
        if self._proxy and not origin.secure:
            # Without TLS there is no tunnel: the proxy is asked for the whole URL.
            self._prefix = b"http://" + origin.authority + origin.prefix
            self._host_line += self._proxy.credentials
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    async def open(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> UpstreamReply:
        version = b"/v1" if self._origin.versioned and not target.startswith((b"/v1", b"/api/")) else b""
        lines = [method, b" ", self._prefix, version, target, self._host_line]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (b"content-length: %d\r\n\r\n" % len(body), body)
        connection = self._kept()
        if connection is None:
            connection = await self._connect()
        connection.begin(b"".join(lines))
        try:
            await connection.head()
        except BaseException:
            await connection.aclose()
            raise
        return connection

    async def aclose(self) -> None:
        for connection in list(self._open):
            connection.stop()
        self._idle.clear()

    def _kept(self) -> _Connection | None:
        """The connection used last, if the other side still keeps it; those idle too long are closed."""
        if not self._idle:
            return None
        oldest = asyncio.get_running_loop().time() - self.limits.keep_alive_seconds
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest and connection.is_open:
                return connection
            connection.stop()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeouts.pool):
                while len(self._open) + self._connecting >= self.limits.connections:
                    turn = loop.create_future()
                    self._queue.append(turn)
                    try:
                        await turn
                    except asyncio.CancelledError:
                        if turn.done() and not turn.cancelled():
                            self._next()
                        raise
                    if (kept := self._kept()) is not None:
                        return kept
        except TimeoutError:
            raise UpstreamTimeout("timed out waiting for a free connection to the upstream") from None
        self._connecting += 1
        try:
            async with asyncio.timeout(self.timeouts.connect):
                connection = await self._dial(loop)
        except TimeoutError:
            raise UpstreamTimeout("timed out connecting to the upstream") from None
        except (OSError, ssl.SSLError) as error:
            raise UpstreamUnreachable(f"cannot connect to the upstream: {error.strerror or type(error).__name__}") from error
        finally:
            self._connecting -= 1
        self._open.add(connection)
        return connection

    async def _dial(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        """A connection to the origin: straight, or through the proxy; with TLS through a tunnel."""
        origin, proxy = self._origin, self._proxy
        if proxy is None or self._ssl is None:
            host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
            _, connection = await loop.create_connection(lambda: _Connection(self, loop), host, port, ssl=self._ssl)
            return connection
        plain, tunnel = await loop.create_connection(lambda: _Tunnel(loop), proxy.host, proxy.port)
        try:
            target = b"%b:%d" % (origin.authority.rsplit(b":", 1)[0] if origin.has_port else origin.authority, origin.port)
            plain.write(b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (target, target, proxy.credentials))
            await tunnel.opened
            connection = _Connection(self, loop)
            secured = await loop.start_tls(plain, connection, self._ssl, server_hostname=origin.host)
        except BaseException:
            plain.abort()
            raise
        if secured is None:
            raise UpstreamUnreachable("the proxy closed the tunnel")
        connection.connection_made(secured)
        return connection

    def give_back(self, connection: _Connection) -> None:
        if len(self._idle) >= self.limits.idle_connections:
            connection.stop()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        self._next()

    def forget(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._next()

    def _next(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class _Tunnel(asyncio.Protocol):
    """The proxy's answer to CONNECT; `opened` is done when it says yes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.opened: asyncio.Future[None] = loop.create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.opened.done() or (b"\r\n\r\n" not in self._head and len(self._head) < _HIGH_WATER):
            return
        status = self._head.split(b"\r\n", 1)[0].split(b" ")
        if len(status) > 1 and status[1] == b"200":
            self.opened.set_result(None)
        else:
            self.opened.set_exception(UpstreamUnreachable("the proxy refuses the tunnel to the upstream"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(UpstreamUnreachable("the proxy closed the connection"))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream URL leads. `versioned`: its path ended in /v1, which `prefix` lacks."""

    host: str
    port: int
    secure: bool
    prefix: bytes
    authority: bytes
    versioned: bool
    has_port: bool


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    host: str
    port: int
    credentials: bytes
    """A header line, or nothing."""


def read_url(url: str) -> Origin:
    """An upstream URL, with or without /v1 at its end: the paths of requests bring their own, and people write both."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment or parts.username:
        raise ConfigError(f'upstream "{url}" is not a URL like http://127.0.0.1:8000 or https://api.example.com')
    secure = parts.scheme == "https"
    host = parts.hostname
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port is None else f"{shown}:{port}"
    path = parts.path.rstrip("/")
    return Origin(
        host=host,
        port=port or (443 if secure else 80),
        secure=secure,
        prefix=path.removesuffix("/v1").encode("ascii"),
        authority=authority.encode("ascii" if host.isascii() else "idna"),
        versioned=path.endswith("/v1"),
        has_port=port is not None,
    )


def read_proxy(url: str) -> ForwardProxy:
    """A forward proxy, like http://user:password@proxy.example:3128."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or port is None:
        raise ConfigError("upstream_proxy is not a URL like http://proxy.example:3128")
    credentials = b""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = b"proxy-authorization: Basic " + base64.b64encode(pair.encode()) + b"\r\n"
    return ForwardProxy(parts.hostname, port, credentials)
