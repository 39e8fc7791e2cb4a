"""The real `openai` client, unmodified but for `base_url`, against a really listening proxy."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from guardrail.app import create_app
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from tests.proxy.reply_guards import WordGuard
from tests.serving import ScriptedUpstream, chat_reply, response, saying, serving, upstream

# Plain dictionaries, as apps write them.
EMERGENCY: Any = [{"role": "user", "content": "I have chest pain"}]
HELLO: Any = [{"role": "user", "content": "hello"}]
REDIRECT = "This could be an emergency: call 999 now."


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with upstream(saying("Drink some water.")) as seen:
        yield seen


def word_guard(knowledge: Any, decision: Any, channel: str, structured: bool, conversation: Any = None) -> WordGuard:
    plain = channel == "content" and not structured
    return WordGuard(channel, decision.answer + " " if plain and decision.answer else "", "Ask a doctor." if plain else "")


@pytest.fixture(scope="module")
def client(up: ScriptedUpstream, small_guard: Guard) -> Iterator[openai.OpenAI]:
    app = create_app(Settings(upstream=up.url, country="GB"), guard=small_guard, reply_guard=word_guard)
    with serving(app) as url, openai.OpenAI(base_url=url + "/v1", api_key="sk-test", max_retries=0, timeout=10) as client:
        yield client


def test_an_answer_comes_back_with_what_is_added(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="m", messages=HELLO)

    assert reply.choices[0].message.content == "Drink some water.Ask a doctor."
    assert reply.choices[0].finish_reason == "stop"


def test_a_stream_comes_back_with_what_is_added(client: openai.OpenAI) -> None:
    stream: Any = client.chat.completions.create(model="m", messages=HELLO, stream=True)
    chunks = list(stream)

    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Drink some water. Ask a doctor."
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]


def test_an_annotated_reply_begins_with_the_notice(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "I have a rash"}]
    reply = client.chat.completions.create(model="m", messages=messages)

    assert reply.choices[0].message.content == "Please have this checked by a clinician today. Drink some water.Ask a doctor."


def test_an_emergency_is_answered_without_the_model(client: openai.OpenAI, up: ScriptedUpstream) -> None:
    before = len(up.calls)
    raw: Any = client.chat.completions.with_raw_response.create(model="m", messages=EMERGENCY)
    reply = raw.parse()

    assert (reply.choices[0].message.content, reply.choices[0].finish_reason, reply.model) == (REDIRECT, "stop", "m")
    assert raw.headers["guardrail-decision"] == "answer; urgency=emergency; destination=ambulance"
    assert len(up.calls) == before


def test_an_emergency_is_answered_in_a_stream(client: openai.OpenAI, up: ScriptedUpstream) -> None:
    before = len(up.calls)
    with client.chat.completions.stream(model="m", messages=EMERGENCY, stream_options={"include_usage": True}) as stream:
        completion = stream.get_final_completion()

    assert completion.choices[0].message.content == REDIRECT
    assert completion.usage is not None
    assert len(up.calls) == before


def test_an_emergency_is_answered_where_a_schema_was_asked_for(client: openai.OpenAI) -> None:
    class Advice(BaseModel):
        text: str

    reply = client.chat.completions.parse(model="m", messages=EMERGENCY, response_format=Advice)

    assert reply.choices[0].message.parsed is None
    assert reply.choices[0].message.refusal == REDIRECT


def test_a_tool_call_comes_back_whole(small_guard: Guard) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "find_clinic", "arguments": '{"near": "here"}'}}

    async def handler(_: Any, writer: Any) -> None:
        writer.write(response(chat_reply("", tool_calls=[call])))

    tool: Any = {
        "type": "function",
        "function": {"name": "find_clinic", "parameters": {"type": "object", "properties": {"near": {"type": "string"}}}},
    }
    with upstream(handler) as up, serving(create_app(Settings(upstream=up.url), guard=small_guard, reply_guard=word_guard)) as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=10) as client:
            reply = client.chat.completions.create(model="m", messages=HELLO, tools=[tool])

    assert reply.choices[0].message.tool_calls is not None
    assert reply.choices[0].message.tool_calls[0].model_dump() == call
    assert not reply.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_an_emergency_is_answered_while_the_upstream_is_dead(small_guard: Guard, stream: bool) -> None:
    with serving(create_app(Settings(upstream="http://127.0.0.1:9", country="US"), guard=small_guard)) as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=10) as client:
            reply: Any = client.chat.completions.create(model="m", messages=EMERGENCY, stream=stream)
            text = "".join(c.choices[0].delta.content or "" for c in reply) if stream else reply.choices[0].message.content
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(model="m", messages=HELLO)

    assert text == "This could be an emergency: call 911 now."
    assert caught.value.status_code == 502


def test_a_cut_reply_ends_normally(small_guard: Guard) -> None:
    with upstream(saying("Fine so far FORBIDDEN dose")) as up:
        app = create_app(Settings(upstream=up.url), guard=small_guard, reply_guard=word_guard)
        with serving(app) as url, openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=10) as client:
            chunks: Any = list(client.chat.completions.create(model="m", messages=HELLO, stream=True))
            whole = client.chat.completions.create(model="m", messages=HELLO)

    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Fine so far [replaced]"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert whole.choices[0].message.content == "Fine so far [replaced]"


def test_models_pass(small_guard: Guard) -> None:
    async def handler(_: Any, writer: Any) -> None:
        writer.write(response(b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"x"}]}'))

    with upstream(handler) as up, serving(create_app(Settings(upstream=up.url + "/v1"), guard=small_guard)) as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=10) as client:
            assert [m.id for m in client.models.list()] == ["m"]
            with pytest.raises(openai.NotFoundError):
                client.embeddings.create(model="m", input="x")

    assert [c.line for c in up.calls] == ["GET /v1/models HTTP/1.1"]


def test_the_async_client(small_guard: Guard) -> None:
    async def ask(url: str) -> str | None:
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=10) as client:
            reply = await client.chat.completions.create(model="m", messages=HELLO)
            return reply.choices[0].message.content

    with upstream(saying("Rest.")) as up, serving(create_app(Settings(upstream=up.url), guard=small_guard, reply_guard=word_guard)) as url:
        assert asyncio.run(ask(url)) == "Rest.Ask a doctor."


def test_the_proxy_says_so_when_the_body_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="m", messages=[])


def test_health(client: openai.OpenAI) -> None:
    base = str(client.base_url).removesuffix("/v1/")

    assert httpx.get(base + "/-/health").json()["status"] == "ok"
