"""The pool on real sockets: reuse, framing, limits, timeouts, and upstreams that misbehave."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import ConfigError, UpstreamError, UpstreamLost, UpstreamTimeout, UpstreamUnreachable
from guardrail.proxy.upstream import HttpPool, Limits, Timeouts, Tls, read_url
from tests.serving import Call, Handler, response, upstream


def writes(*parts: bytes, close: bool = False) -> Handler:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if close:
            writer.close()

    return handler


async def silent(call: Call, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(20)


Ask = Callable[[HttpPool], Coroutine[Any, Any, Any]]


def using(handler: Handler, ask: Ask, ssl_context: Any = None, **options: Any) -> tuple[Any, Any]:
    """Run `ask` with a pool to this upstream; give its result and what the upstream saw."""

    async def run(url: str) -> Any:
        pool = HttpPool(url, **options)
        try:
            async with asyncio.timeout(10):
                return await ask(pool)
        finally:
            await pool.aclose()

    with upstream(handler, ssl_context) as seen:
        return asyncio.run(run(seen.url)), seen


async def get(pool: HttpPool, body: bytes = b"{}") -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    reply = await pool.open(b"POST", b"/v1/x", [(b"a", b"1"), (b"a", b"2")], body)
    try:
        parts = []
        while part := await reply.chunk():
            parts.append(part)
        return reply.status, reply.headers, b"".join(parts)
    finally:
        await reply.aclose()


def test_a_request_keeps_its_headers_and_body() -> None:
    (status, headers, body), seen = using(writes(response(b"hi", "200 OK", "X-A: 1", "X-A: 2")), get)

    assert (status, body) == (200, b"hi")
    assert [v for n, v in headers if n == b"x-a"] == [b"1", b"2"]
    assert seen.calls[0].line == "POST /v1/x HTTP/1.1"
    assert seen.calls[0].header("a") == ["1", "2"]
    assert seen.calls[0].header("content-length") == ["2"]
    assert seen.calls[0].body == b"{}"


def test_a_connection_is_used_again() -> None:
    async def ask(pool: HttpPool) -> list[bytes]:
        return [(await get(pool))[2] for _ in range(5)]

    bodies, seen = using(writes(response(b"hi")), ask)

    assert bodies == [b"hi"] * 5
    assert seen.connections == 1


@pytest.mark.parametrize(
    ("parts", "close"),
    [
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\n"], False),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe", b"llo"], False),
        ([b"HTTP/1.1 200 OK\r\n\r\nhe", b"llo"], True),
        ([b"HTTP/1.0 200 OK\r\n\r\nhello"], True),
        ([b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello"], False),
        (
            [
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            ],
            False,
        ),
    ],
    ids=["chunked", "length", "until close", "HTTP/1.0", "HTTP/1.0 kept", "after 100 and 103"],
)
def test_bodies_of_every_framing(parts: list[bytes], close: bool) -> None:
    (status, headers, body), _ = using(writes(*parts, close=close), get)

    assert (status, body) == (200, b"hello")
    assert (b"link", b"x") not in headers


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n50\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
    ],
    ids=["length", "no last chunk", "within a chunk", "broken chunk"],
)
def test_a_truncated_body_is_lost_and_never_looks_complete(part: bytes) -> None:
    async def ask(pool: HttpPool) -> bytes:
        reply = await pool.open(b"POST", b"/", [], b"")
        body = b""
        with contextlib.suppress(UpstreamError):
            while part := await reply.chunk():
                body += part
            pytest.fail("the body looked complete")
        await reply.aclose()
        return body

    body, _ = using(writes(part, close=True), ask)

    assert body in (b"hello", b"")


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\n", "without an answer"),
        (b"nonsense\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 70000 + b"\r\n\r\n", "head is too large"),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: y\r\n" % i for i in range(300)) + b"\r\n", "head is too large"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "switched protocols"),
    ],
    ids=["closed", "half a head", "not HTTP", "length and chunked", "two lengths", "long field", "many fields", "upgrade"],
)
def test_without_a_proper_head_it_is_unreachable(part: bytes, why: str) -> None:
    with pytest.raises(UpstreamUnreachable, match=why):
        using(writes(part, close=True), get)


def test_an_endless_head_is_cut_short() -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        for _ in range(100):
            writer.write(b"y" * 10000)
            await writer.drain()

    with pytest.raises(UpstreamUnreachable, match="too large"):
        using(handler, get)


def test_nobody_listening() -> None:
    with pytest.raises(UpstreamUnreachable, match="cannot connect"):
        asyncio.run(get(HttpPool("http://127.0.0.1:9")))


def test_no_first_byte_in_time() -> None:
    with pytest.raises(UpstreamTimeout, match="first byte"):
        using(silent, get, timeouts=Timeouts(first_byte=0.05))


def test_no_more_of_the_body_in_time() -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
        await asyncio.sleep(20)

    with pytest.raises(UpstreamTimeout, match="more of the upstream's answer"):
        using(handler, get, timeouts=Timeouts(read=0.05))


def test_a_slow_but_steady_body_does_not_time_out() -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
        for _ in range(8):
            writer.write(b"x")
            await asyncio.sleep(0.02)

    (_, _, body), _ = using(handler, get, timeouts=Timeouts(first_byte=0.1, read=0.1))

    assert body == b"x" * 8


def test_no_free_connection_in_time() -> None:
    async def ask(pool: HttpPool) -> None:
        first = asyncio.create_task(get(pool))
        await asyncio.sleep(0.02)
        try:
            with pytest.raises(UpstreamTimeout, match="free connection"):
                await get(pool)
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    using(silent, ask, timeouts=Timeouts(pool=0.05), limits=Limits(connections=1))


def test_who_waits_gets_the_connection_that_becomes_free() -> None:
    async def ask(pool: HttpPool) -> list[bytes]:
        return [r[2] for r in await asyncio.gather(*(get(pool) for _ in range(10)))]

    bodies, seen = using(writes(response(b"hi")), ask, limits=Limits(connections=2))

    assert bodies == [b"hi"] * 10
    assert seen.connections <= 2


def test_a_kept_connection_that_was_closed_is_not_used_and_nothing_is_sent_twice() -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"hi"))
        await writer.drain()
        writer.close()  # without saying so in the head

    async def ask(pool: HttpPool) -> list[bytes]:
        out = []
        for _ in range(3):
            out.append((await get(pool))[2])
            await asyncio.sleep(0.05)
        return out

    bodies, seen = using(handler, ask)

    assert bodies == [b"hi"] * 3
    assert len(seen.calls) == 3


def test_a_connection_kept_too_long_is_not_used() -> None:
    async def ask(pool: HttpPool) -> None:
        for _ in range(2):
            await get(pool)
            await asyncio.sleep(0.03)

    _, seen = using(writes(response(b"hi")), ask, limits=Limits(keep_alive_seconds=0.01))

    assert seen.connections == 2


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad", b"junk"])
def test_more_than_one_answer_is_never_given_to_the_next_request(extra: bytes) -> None:
    answers = iter([response(b"one") + extra, response(b"two")])

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers))
        await writer.drain()

    async def ask(pool: HttpPool) -> list[bytes]:
        first = await pool.open(b"POST", b"/", [], b"")
        got = b""
        with contextlib.suppress(UpstreamLost):
            while part := await first.chunk():
                got += part
        await first.aclose()
        return [got, (await get(pool))[2]]

    bodies, _ = using(handler, ask)

    assert bodies == [b"one", b"two"]


def test_leaving_closes_the_connection() -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhe")
        await asyncio.sleep(20)

    async def ask(pool: HttpPool) -> None:
        reply = await pool.open(b"POST", b"/", [], b"")
        assert await reply.chunk() == b"he"
        await reply.aclose()

    with upstream(handler) as seen:

        async def run() -> None:
            pool = HttpPool(seen.url)
            await ask(pool)
            await asyncio.sleep(0.01)

        asyncio.run(run())
        assert seen.left.wait(5)


def test_cancelling_closes_the_connection() -> None:
    with upstream(silent) as seen:

        async def run() -> None:
            task = asyncio.create_task(get(HttpPool(seen.url)))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.01)

        asyncio.run(run())
        assert seen.left.wait(5)


def test_reading_waits_for_the_one_who_reads() -> None:
    """What is taken in ahead of the reader is bounded, however much the upstream has to say."""
    sent = 0

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async def ask(pool: HttpPool) -> int:
        reply = await pool.open(b"POST", b"/", [], b"")
        await asyncio.sleep(0.3)
        held = len(await reply.chunk())
        await reply.aclose()
        return held

    held, _ = using(handler, ask)

    assert held < 1_000_000
    assert sent < 50_000_000


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000, False, b"", b"127.0.0.1:8000", False)),
        ("http://localhost/v1", ("localhost", 80, False, b"", b"localhost", True)),
        ("https://api.example.com/v1/", ("api.example.com", 443, True, b"", b"api.example.com", True)),
        ("https://example.com/llm/v1", ("example.com", 443, True, b"/llm", b"example.com", True)),
        ("http://[::1]:8000", ("::1", 8000, False, b"", b"[::1]:8000", False)),
    ],
)
def test_reading_a_url(url: str, wanted: object) -> None:
    origin = read_url(url)

    assert (origin.host, origin.port, origin.secure, origin.prefix, origin.authority, origin.versioned) == wanted


@pytest.mark.parametrize(
    ("path", "target", "wanted"),
    [
        ("", "/v1/models", "/v1/models"),
        ("/v1", "/v1/models", "/v1/models"),
        ("/v1", "/models", "/v1/models"),
        ("/llm/v1", "/models", "/llm/v1/models"),
    ],
)
def test_the_path_of_the_upstream_and_that_of_the_request(path: str, target: str, wanted: str) -> None:
    async def run(url: str) -> None:
        pool = HttpPool(url + path)
        await (await pool.open(b"GET", target.encode(), [], b"")).aclose()
        await pool.aclose()

    with upstream(writes(response(b"hi"))) as seen:
        asyncio.run(run(seen.url))

    assert seen.calls[0].line == f"GET {wanted} HTTP/1.1"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:99999", "http://u:p@x", "http://x?q=1"])
def test_what_is_not_a_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL like"):
        read_url(url)


# TLS

pytest.importorskip("cryptography", reason="certificates are made with cryptography (extra: dev)")


def tls_pair(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 signed by itself, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return cert_file, key_file


def server_context(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def test_tls_with_an_own_authority(tmp_path: Path) -> None:
    cert, key = tls_pair(tmp_path)
    (status, _, body), _ = using(writes(response(b"hi")), get, server_context(cert, key), tls=Tls(ca_file=cert))

    assert (status, body) == (200, b"hi")


def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UpstreamUnreachable, match="cannot connect"):
        using(writes(response(b"hi")), get, server_context(*tls_pair(tmp_path)))


def test_our_own_certificate_is_shown(tmp_path: Path) -> None:
    cert, key = tls_pair(tmp_path)
    context = server_context(cert, key, client_ca=cert)
    (status, _, _), _ = using(writes(response(b"hi")), get, context, tls=Tls(cert, cert, key))

    assert status == 200


def test_tls_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="upstream TLS"):
        HttpPool("https://127.0.0.1:1", tls=Tls(ca_file=tmp_path / "missing.pem"))


# Forward proxies


def test_a_forward_proxy_is_asked_for_the_whole_url() -> None:
    async def run(proxy: str) -> bytes:
        pool = HttpPool("http://model.example/llm/v1", proxy=proxy.replace("//", "//user:p%40ss@"))
        body = (await get(pool))[2]
        await pool.aclose()
        return body

    with upstream(writes(response(b"hi"))) as seen:
        assert asyncio.run(run(seen.url)) == b"hi"

    assert seen.calls[0].line == "POST http://model.example/llm/v1/x HTTP/1.1"
    assert seen.calls[0].header("host") == ["model.example"]
    assert seen.calls[0].header("proxy-authorization") == ["Basic dXNlcjpwQHNz"]


def test_a_forward_proxy_opens_a_tunnel_for_tls(tmp_path: Path) -> None:
    """The proxy sees where to, and nothing else: certificates are verified end to end."""
    cert, key = tls_pair(tmp_path)
    asked: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        host, port = head.split(b" ")[1].decode().split(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer), return_exceptions=True)

    async def run(url: str) -> bytes:
        server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        pool = HttpPool(url, tls=Tls(ca_file=cert), proxy=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.timeout(10):
            bodies = [(await get(pool))[2] for _ in range(2)]
        await pool.aclose()
        server.close()
        await asyncio.sleep(0.05)
        return b"".join(bodies)

    with upstream(writes(response(b"hi")), server_context(cert, key)) as seen:
        assert asyncio.run(run(seen.url)) == b"hihi"

    assert len(asked) == 1
    assert asked[0].startswith(b"CONNECT 127.0.0.1:")


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def test_a_proxy_that_refuses_the_tunnel() -> None:
    async def run(url: str) -> None:
        await get(HttpPool("https://127.0.0.1:1", proxy=url))

    with upstream(writes(response(b"no", "403 Forbidden"))) as seen, pytest.raises(UpstreamUnreachable, match="refuses the tunnel"):
        asyncio.run(run(seen.url))


@pytest.mark.parametrize("url", ["proxy:3128", "https://proxy:3128", "http://proxy"])
def test_what_is_not_a_proxy_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="upstream_proxy is not a URL like"):
        HttpPool("https://127.0.0.1:1", proxy=url)
