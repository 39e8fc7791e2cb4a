"""Paths beside the dialects: what is allowed passes both ways unchanged, the rest is not found."""

import asyncio
import gzip

import httpx
import pytest

from guardrail.engine.guard import Guard
from guardrail.proxy.passing import PassThrough
from tests.proxy.test_failures import proxy
from tests.serving import Call, response


async def echo(call: Call, writer: asyncio.StreamWriter) -> None:
    writer.write(response(call.line.encode() + call.body, "200 OK", "x-own: 1", "connection: keep-alive, x-hop", "x-hop: 1"))


def test_an_allowed_path_passes_with_query_and_body(small_guard: Guard) -> None:
    with proxy(echo, small_guard, pass_paths=["POST /v1/files", "GET /v1/models/*"]) as one:
        reply = httpx.post(one.url + "/v1/files?purpose=x", content=b"hello", headers={"authorization": "Bearer k"})
        model = httpx.get(one.url + "/v1/models/org%2Fname")

    assert reply.text == "POST /v1/files?purpose=x HTTP/1.1hello"
    assert (reply.headers["x-own"], "x-hop" in reply.headers) == ("1", False)
    assert model.text == "GET /v1/models/org%2Fname HTTP/1.1"
    assert one.up.calls[0].header("authorization") == ["Bearer k"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/models", True),
        ("GET", "/v1/models/a", True),
        ("POST", "/v1/models", False),
        ("GET", "/v1/model", False),
        ("GET", "/v1/models/../responses/1", False),
        ("GET", "/v1/models/./a", False),
    ],
)
def test_what_is_allowed(method: str, path: str, allowed: bool) -> None:
    passing = PassThrough(None, ["GET /v1/models", "GET /v1/models/*"])  # type: ignore[arg-type]  # the service is not asked

    assert passing.allows(method, path) is allowed


def test_what_cannot_pass_is_said_in_json(small_guard: Guard) -> None:
    with proxy(echo, small_guard, pass_paths=["POST /v1/files"], max_body_bytes=10, tenants={"a": {"api_key": "k"}}) as one:
        key = {"x-api-key": "k"}
        statuses = [
            httpx.get(one.url + "/v1/secrets", headers=key).status_code,
            httpx.post(one.url + "/v1/files", content=b"x").status_code,
            httpx.post(one.url + "/v1/files", content=b"x" * 11, headers=key).status_code,
            httpx.post(one.url + "/v1/files", content=b"x", headers=key).status_code,
        ]
    with proxy(echo, small_guard, upstream="http://127.0.0.1:9", pass_paths=["GET /v1/models"]) as one:
        gone = httpx.get(one.url + "/v1/models")

    assert statuses == [404, 401, 413, 200]
    assert (gone.status_code, gone.json()["error"]["type"]) == (502, "api_error")


def test_a_compressed_answer_passes_as_it_is(small_guard: Guard) -> None:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(response(gzip.compress(b"models"), "200 OK", "content-encoding: gzip"))

    with proxy(handler, small_guard) as one:
        assert httpx.get(one.url + "/v1/models").text == "models"
