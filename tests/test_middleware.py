"""The guard inside another application: chat is guarded, the rest passes, and failures are as with the proxy."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp

import guardrail
from guardrail import Action, Conversation, GuardrailMiddleware, Message, Role, Settings, load_guard
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.engine.guard import Guard
from guardrail.errors import ConfigError
from tests.conftest import SMALL_RULES
from tests.proxy.test_failures import wait_until
from tests.proxy.test_relay import DONE, shown
from tests.serving import chat_chunk, chat_reply, serving


class Kept:
    def __init__(self) -> None:
        self.all: list[ExchangeRecord] = []

    def record(self, record: ExchangeRecord) -> None:
        self.all.append(record)


async def chat(request: Request) -> Response:
    body = await request.json()
    if body.get("stream"):

        async def frames() -> AsyncIterator[bytes]:
            for word in ("Drink ", "water."):
                yield chat_chunk({"content": word})
            if not body.get("broken"):
                yield chat_chunk({}, "stop") + DONE

        return StreamingResponse(frames(), media_type="text/event-stream")
    if body.get("broken"):
        raise RuntimeError("secret words of a patient")
    return Response(chat_reply("Drink water."), media_type="application/json", headers={"x-own": request.headers["x-asked"]})


async def other(request: Request) -> Response:
    return JSONResponse({"path": request.url.path})


def guarded(guard: Guard, **more: Any) -> tuple[ASGIApp, Kept]:
    kept = Kept()
    app = Starlette(
        routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/ask", chat, methods=["POST"]), Route("/other", other)]
    )
    app.add_middleware(GuardrailMiddleware, settings=Settings(country="GB"), guard=guard, recorders=[kept], **more)
    return app, kept


def ask(client: TestClient, text: str, path: str = "/v1/chat/completions", **more: Any) -> Any:
    body = {"messages": [{"role": "user", "content": text}], **more}
    return client.post(path, json=body, headers={"x-asked": "yes"})


def content(reply: Any) -> str:
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def test_the_application_answers_and_the_guard_reviews(small_guard: Guard) -> None:
    app, kept = guarded(small_guard)
    client = TestClient(app)
    reply = ask(client, "hello")

    assert content(reply).startswith("Drink water.")
    assert reply.headers["x-own"] == "yes"
    assert reply.headers["guardrail-decision"].startswith("forward")
    assert shown(ask(client, "hello", stream=True).content).startswith("Drink water.")
    assert [r.outcome for r in kept.all] == [Outcome.FORWARDED, Outcome.FORWARDED]


def test_an_emergency_never_reaches_the_application(small_guard: Guard) -> None:
    app, kept = guarded(small_guard)
    reply = ask(TestClient(app), "I have chest pain", broken=True)

    assert content(reply) == "This could be an emergency: call 999 now."
    assert kept.all[0].outcome is Outcome.ANSWERED


def test_other_paths_pass_untouched(small_guard: Guard) -> None:
    app, kept = guarded(small_guard)
    client = TestClient(app)

    assert client.get("/other").json() == {"path": "/other"}
    assert client.get("/v1/chat/completions").status_code == 405
    assert kept.all == []


def test_own_paths_can_be_named(small_guard: Guard) -> None:
    app, _ = guarded(small_guard, paths={"/ask": "openai_chat"})

    assert content(ask(TestClient(app), "I have chest pain", path="/ask")) == "This could be an emergency: call 999 now."
    with pytest.raises(ConfigError, match='no dialect "openai_chut"; did you mean "openai_chat"'):
        GuardrailMiddleware(app, guard=small_guard, paths={"/x": "openai_chut"})


def test_an_application_that_fails(small_guard: Guard) -> None:
    app, kept = guarded(small_guard)
    client = TestClient(app, raise_server_exceptions=False)
    whole = ask(client, "hello", broken=True)
    stream = ask(client, "hello", stream=True, broken=True).content

    assert whole.status_code in (500, 502)
    assert "secret" not in whole.text
    assert shown(stream).endswith("(This reply was interrupted.)")
    assert kept.all[1].outcome is Outcome.UPSTREAM_LOST


def test_the_application_learns_that_the_client_left(small_guard: Guard) -> None:
    left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        try:
            while True:
                await send({"type": "http.response.body", "body": chat_chunk({"content": "word "}), "more_body": True})
                await asyncio.sleep(0.01)
        finally:
            left.set()

    kept = Kept()
    with serving(GuardrailMiddleware(app, guard=small_guard, recorders=[kept]), lifespan="off") as url:
        body = orjson.dumps({"messages": [{"role": "user", "content": "hello"}], "stream": True})
        with httpx.stream("POST", url + "/v1/chat/completions", content=body) as reply:
            next(reply.iter_raw())
        wait_until(lambda: left.is_set() and bool(kept.all))

    assert left.is_set()
    assert kept.all[0].outcome is Outcome.CLIENT_LEFT


def test_exchanges_are_kept_in_the_audit_store(small_guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    app.add_middleware(GuardrailMiddleware, settings=Settings(audit=f"sqlite:///{path}"), guard=small_guard)
    with TestClient(app) as client:
        exchange = ask(client, "I have chest pain").headers["guardrail-exchange"]

    with contextlib.closing(sqlite3.connect(path)) as store:
        assert exchange in str(list(store.iterdump()))


@pytest.mark.filterwarnings("ignore")  # theirs, not ours
@pytest.mark.parametrize("framework", ["fastapi", "litestar"])
def test_other_frameworks(small_guard: Guard, framework: str) -> None:
    module = pytest.importorskip(framework, reason=f"{framework} is not installed")
    if framework == "fastapi":
        app = module.FastAPI()
        app.add_api_route("/v1/chat/completions", chat, methods=["POST"])
        app.add_middleware(GuardrailMiddleware, guard=small_guard)
    else:

        @module.post("/v1/chat/completions", status_code=200)  # type: ignore[untyped-decorator]  # imported by name
        async def answer(data: dict[str, Any]) -> dict[str, Any]:
            found: dict[str, Any] = orjson.loads(chat_reply("Drink water."))
            return found

        app = module.Litestar([answer], middleware=[module.middleware.DefineMiddleware(GuardrailMiddleware, guard=small_guard)])
    client = TestClient(app)

    assert content(ask(client, "hello")).startswith("Drink water.")
    assert content(ask(client, "I have chest pain")).startswith("This could be an emergency")


def test_the_guard_as_a_library() -> None:
    guard = load_guard(SMALL_RULES)
    decision = guard.review(Conversation((Message(Role.USER, "I have chest pain"),), country="US"))

    assert decision.action is Action.ANSWER
    assert decision.answer == "This could be an emergency: call 911 now."


def test_everything_exported_is_there() -> None:
    for name in guardrail.__all__:
        assert getattr(guardrail, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        guardrail.nonsense  # noqa: B018  # the look-up is the test
