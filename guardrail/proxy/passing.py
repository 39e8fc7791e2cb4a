"""Other paths: what is on the allow-list goes to the upstream and back unreviewed; the rest is not found."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import quote

import orjson
from starlette.types import Receive, Scope, Send

from guardrail.errors import CallerError, ConfigError, RequestTooLarge, UpstreamError
from guardrail.proxy.dialects.dialect import ERROR_KINDS
from guardrail.proxy.endpoint import Service, headers_back, headers_on


class PassThrough:
    """`allowed` are lines like `GET /v1/models/*`."""

    def __init__(self, service: Service, allowed: Sequence[str]) -> None:
        self._service = service
        self._allowed: list[tuple[str, str]] = []
        for line in allowed:
            method, _, path = line.partition(" ")
            if not path.startswith("/") or not method.isupper():
                raise ConfigError(f'pass_paths: "{line}" is not a method and a path, like "GET /v1/models"')
            self._allowed.append((method, path))

    def allows(self, method: str, path: str) -> bool:
        # "." segments could leave the allowed folder once the upstream resolves them.
        plain = not any(part in (".", "..") for part in path.split("/"))
        return plain and any(method == m and fnmatchcase(path, p) for m, p in self._allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        if not self.allows(scope["method"], scope["path"]):
            await _respond(
                send, 404, _error(404, f"{scope['method']} {scope['path'][:200]} is not served here; see pass_paths in the settings")
            )
            return
        try:
            service.trust.caller(scope)
            body = await _read(receive, service.limits.body_bytes)
            target = scope.get("raw_path") or quote(scope["path"]).encode()
            if scope["query_string"]:
                target += b"?" + scope["query_string"]
            reply = await service.upstream.open(scope["method"].encode(), target, headers_on(scope["headers"], service), body)
        except (CallerError, UpstreamError) as error:
            await _respond(send, error.status, _error(error.status, str(error)))
            return
        try:
            encoding = [h for h in reply.headers if h[0] == b"content-encoding"]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers_back(reply.headers) + encoding})
            while data := await reply.chunk():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await reply.aclose()


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        event = await receive()
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise RequestTooLarge(f"the body is larger than {limit} bytes")
        more = event.get("more_body", False)
    return b"".join(parts)


async def _respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _error(status: int, message: str) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": ERROR_KINDS.get(status, "api_error"), "param": None, "code": None}})
