"""The vendors' own clients against a listening proxy: forwarded, annotated, redirected, cut, lost."""

import contextlib
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from guardrail.app import create_app
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from tests.proxy import standins
from tests.proxy.test_openai_client import word_guard
from tests.serving import Handler, serving, upstream

HELLO, EMERGENCY, RASH = "hello", "I have chest pain", "I have a rash"
NOTICE = "Please have this checked by a clinician today. "
REDIRECT = "This could be an emergency: call 999 now."
ADDED = "Ask a doctor."

FORWARDED = [(HELLO, "Drink some water." + ADDED), (RASH, NOTICE + "Drink some water." + ADDED), (EMERGENCY, REDIRECT)]
asking = pytest.mark.parametrize(("text", "wanted"), FORWARDED, ids=["forwarded", "annotated", "redirected"])


@contextlib.contextmanager
def proxied(handler: Handler, guard: Guard) -> Iterator[str]:
    with upstream(handler) as up, serving(create_app(Settings(upstream=up.url, country="GB"), guard=guard, reply_guard=word_guard)) as url:
        yield url


# Anthropic


@contextlib.contextmanager
def claude(guard: Guard, text: str = "Drink some water.") -> Iterator[anthropic.Anthropic]:
    with (
        proxied(standins.messages(text), guard) as url,
        anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, timeout=10) as client,
    ):
        yield client


def said_to_claude(text: str) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}


@asking
def test_anthropic(small_guard: Guard, text: str, wanted: str) -> None:
    with claude(small_guard) as client:
        reply = client.messages.create(**said_to_claude(text))

    assert "".join(block.text for block in reply.content if block.type == "text") == wanted
    assert len(reply.content) == 1
    assert reply.stop_reason == "end_turn"


@asking
def test_anthropic_stream(small_guard: Guard, text: str, wanted: str) -> None:
    with claude(small_guard) as client, client.messages.stream(**said_to_claude(text)) as stream:
        shown = "".join(stream.text_stream)
        message = stream.get_final_message()

    assert shown == wanted
    assert [block.text for block in message.content if block.type == "text"] == [wanted]
    assert message.stop_reason == "end_turn"


def test_anthropic_reply_cut(small_guard: Guard) -> None:
    with claude(small_guard, "Fine so FORBIDDEN far") as client:
        reply = client.messages.create(**said_to_claude(HELLO))
        with client.messages.stream(**said_to_claude(HELLO)) as stream:
            message = stream.get_final_message()

    assert [block.text for block in reply.content if block.type == "text"] == ["Fine so [replaced]"]
    assert [block.text for block in message.content if block.type == "text"] == ["Fine so [replaced]"]
    assert (reply.stop_reason, message.stop_reason) == ("end_turn", "end_turn")


def test_anthropic_upstream_lost(small_guard: Guard) -> None:
    frames: list[tuple[str, Any]] = [
        (
            "message_start",
            {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}},
        ),
        ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Take "}}),
    ]
    shown = ""
    with (
        proxied(standins.speaking({}, frames), small_guard) as url,
        anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client,
    ):
        stream = client.messages.create(**said_to_claude(HELLO), stream=True)
        with pytest.raises(anthropic.APIStatusError, match="stopped before its end"):
            for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    shown += event.delta.text

    assert shown == "Take (This reply was interrupted.)"


def test_anthropic_errors_come_in_its_own_form(small_guard: Guard) -> None:
    with claude(small_guard) as client:
        with pytest.raises(anthropic.BadRequestError) as caught:
            client.messages.create(model="m", max_tokens=1, messages=[])

    assert caught.value.body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": '"messages" is empty; send at least one message'},
    }


def test_anthropic_reports_an_upstream_that_fails_in_mid_answer(small_guard: Guard) -> None:
    frames: list[tuple[str, Any]] = [
        (
            "message_start",
            {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}},
        ),
        ("error", {"type": "error", "error": {"type": "overloaded_error", "message": "secret words"}}),
    ]
    with (
        proxied(standins.speaking({}, frames), small_guard) as url,
        anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client,
    ):
        with pytest.raises(anthropic.APIStatusError, match="overloaded_error") as caught:
            list(client.messages.create(**said_to_claude(HELLO), stream=True))

    assert "secret" not in str(caught.value)


# OpenAI Responses


@contextlib.contextmanager
def responses(guard: Guard, text: str = "Drink some water.") -> Iterator[openai.OpenAI]:
    with proxied(standins.responses(text), guard) as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=10) as client:
            yield client


@asking
def test_responses(small_guard: Guard, text: str, wanted: str) -> None:
    with responses(small_guard) as client:
        reply = client.responses.create(model="m", input=text)

    assert reply.output_text == wanted
    assert reply.status == "completed"


@asking
def test_responses_stream(small_guard: Guard, text: str, wanted: str) -> None:
    with responses(small_guard) as client:
        with client.responses.stream(model="m", input=text) as stream:
            events = list(stream)
            final = stream.get_final_response()

    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == wanted
    assert [e.text for e in events if e.type == "response.output_text.done"] == [wanted]
    assert final.output_text == wanted
    assert [e.sequence_number for e in events] == list(range(len(events)))


def test_responses_reply_cut(small_guard: Guard) -> None:
    with responses(small_guard, "Fine so FORBIDDEN far") as client:
        reply = client.responses.create(model="m", input=HELLO)
        with client.responses.stream(model="m", input=HELLO) as stream:
            events = list(stream)
            final = stream.get_final_response()

    assert reply.output_text == "Fine so [replaced]"
    assert final.output_text == "Fine so [replaced]"
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Fine so [replaced]"
    assert events[-1].type == "response.completed"
    assert [e.sequence_number for e in events] == list(range(len(events)))


# Ollama

ollama = pytest.importorskip("ollama", reason="the ollama client is not installed")


@asking
def test_ollama_chat(small_guard: Guard, text: str, wanted: str) -> None:
    message = [{"role": "user", "content": text}]
    with proxied(standins.ollama("Drink some water."), small_guard) as url:
        client = ollama.Client(host=url)
        whole = client.chat(model="m", messages=message)
        parts = list(client.chat(model="m", messages=message, stream=True))
        client._client.close()

    assert whole.message.content == wanted
    assert "".join(p.message.content for p in parts) == wanted
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]


@asking
def test_ollama_generate(small_guard: Guard, text: str, wanted: str) -> None:
    with proxied(standins.ollama("Drink some water."), small_guard) as url:
        client = ollama.Client(host=url)
        whole = client.generate(model="m", prompt=text)
        parts = list(client.generate(model="m", prompt=text, stream=True))
        client._client.close()

    assert whole.response == wanted
    assert "".join(p.response for p in parts) == wanted
    assert parts[-1].done


def test_ollama_reply_cut(small_guard: Guard) -> None:
    with proxied(standins.ollama("Fine so FORBIDDEN far"), small_guard) as url:
        client = ollama.Client(host=url)
        parts = list(client.chat(model="m", messages=[{"role": "user", "content": HELLO}], stream=True))
        client._client.close()

    assert "".join(p.message.content for p in parts) == "Fine so [replaced]"
    assert parts[-1].done


def test_ollama_errors_come_in_its_own_form(small_guard: Guard) -> None:
    with proxied(standins.ollama("x"), small_guard) as url:
        client = ollama.Client(host=url)
        with pytest.raises(ollama.ResponseError, match="role"):
            client._request_raw("POST", "/api/chat", json={"messages": [{"content": "x"}]})
        client._client.close()


# Legacy completions


@asking
def test_completions(small_guard: Guard, text: str, wanted: str) -> None:
    def chunk(said: str, finish: str | None = None) -> dict[str, Any]:
        return {
            "id": "c",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "text": said, "finish_reason": finish}],
        }

    frames: list[tuple[str, Any]] = [("", chunk(w)) for w in standins.words("Drink some water.")]
    handler = standins.speaking(chunk("Drink some water.", "stop"), [*frames, ("", chunk("", "stop")), ("", b"[DONE]")])
    with proxied(handler, small_guard) as url, openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=10) as client:
        whole = client.completions.create(model="m", prompt=text)
        parts = list(client.completions.create(model="m", prompt=text, stream=True))

    assert whole.choices[0].text == wanted
    assert "".join(p.choices[0].text for p in parts) == wanted
