"""Where each dialect puts what the guard adds, when a reply has no text of its own, and what is left of one that was cut."""

import copy
from typing import Any

import orjson
import pytest

from guardrail.proxy.dialects import DIALECTS
from guardrail.proxy.dialects.dialect import Request, Stamp
from guardrail.proxy.relay import DocumentRelay, StreamRelay
from tests.proxy.dialects import samples
from tests.proxy.dialects.test_census import BY_NAME
from tests.proxy.reply_guards import FORBIDDEN, WordGuard


def adding(channel: str, structured: bool) -> WordGuard:
    plain = channel == "content" and not structured
    return WordGuard(channel, ending=" Ask a doctor." if plain else "")


def reviewed(name: str, document: Any) -> Any:
    relay = DocumentRelay(BY_NAME[name], Request((), False, "m"), adding)
    steps = relay.review(copy.deepcopy(document))
    try:
        while True:
            next(steps)
    except StopIteration as done:
        return done.value


def content(name: str, document: Any) -> str:
    return "".join(p.text for p in BY_NAME[name].read_reply(document).pieces if p.kind == "content")


EMPTY: dict[str, Any] = {
    "openai_chat": samples.chat(content=None),
    "openai_responses": samples.response(),
    "openai_completions": {**samples.DOCUMENTS["openai_completions"][0], "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
    "anthropic_messages": {**samples.MESSAGE, "content": [], "stop_reason": "end_turn"},
    "ollama_chat": {**samples.OLLAMA_HEAD, "message": {"role": "assistant", "content": ""}, **samples.OLLAMA_END},
    "ollama_generate": {**samples.OLLAMA_HEAD, "response": "", **samples.OLLAMA_END},
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_reply_without_text_gets_what_is_added(name: str) -> None:
    assert content(name, reviewed(name, EMPTY[name])) == " Ask a doctor."


@pytest.mark.parametrize("name", ["openai_responses"])
@pytest.mark.parametrize("status", ["queued", "failed", "in_progress"])
def test_a_response_that_is_not_there_yet_gets_nothing(name: str, status: str) -> None:
    assert reviewed(name, {**EMPTY[name], "status": status}) is None


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_a_stream_without_text_gets_what_is_added(dialect: Any) -> None:
    relay = StreamRelay(dialect, Request((), True, "m"), Stamp("x", 1), adding, 1_000_000)
    empty = {
        "openai_chat": samples.chat_chunks(),
        "openai_responses": [f for f in samples.response_frames() if f[0] in ("response.created", "response.completed")],
        "openai_completions": samples.STREAMS["openai_completions"][0][-1:],
        "anthropic_messages": [f for f in samples.message_frames() if not f[0].startswith("content_block")],
        "ollama_chat": [("", EMPTY["ollama_chat"])],
        "ollama_generate": [("", EMPTY["ollama_generate"])],
    }[dialect.name]
    frames = orjson.loads(orjson.dumps([[e, d.decode() if isinstance(d, bytes) else d] for e, d in empty]))
    for event, document in frames:
        if event == "message_delta":
            document["delta"]["stop_reason"] = "end_turn"
        if event == "response.completed":
            document["response"]["output"] = []
    out = relay.feed(samples.write(dialect, [(e, d.encode() if isinstance(d, str) else d) for e, d in frames]))

    assert relay.done
    assert b" Ask a doctor." in out
    if dialect.name == "openai_responses":
        last = orjson.loads(out.rsplit(b"data: ", 1)[1])
        assert content(dialect.name, last["response"]) == " Ask a doctor."


@pytest.mark.parametrize("name", samples.DOCUMENTS)
def test_what_is_left_of_a_cut_reply_is_text_with_an_ordinary_end(name: str) -> None:
    document = orjson.loads(orjson.dumps(samples.DOCUMENTS[name][0]).decode().replace(samples.WORDS, FORBIDDEN))
    cut = reviewed(name, document)
    reading = BY_NAME[name].read_reply(cut)

    assert "[replaced]" in content(name, cut)
    assert not reading.tools
    assert not [p for p in reading.pieces if p.kind == "arguments"]
    assert FORBIDDEN.encode() not in orjson.dumps(cut)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_response_stream_that_numbers_nothing(cut: bool) -> None:
    """As llama.cpp writes it: the items are told apart by their ids, and the end still says what the deltas said."""
    frames = orjson.loads(orjson.dumps(samples.response_frames()))
    for _, document in frames:
        for name in ("output_index", "content_index", "sequence_number"):
            document.pop(name, None)
    dialect = BY_NAME["openai_responses"]
    data = samples.write(dialect, frames)
    relay = StreamRelay(dialect, Request((), True, "m"), Stamp("x", 1), adding, 1_000_000)
    out = relay.feed(data.replace(samples.WORDS.encode(), FORBIDDEN.encode()) if cut else data)
    sent = [orjson.loads(line.removeprefix(b"data: ")) for line in out.split(b"\n") if line.startswith(b"data: ")]
    said = "".join(f["delta"] for f in sent if f["type"] == "response.output_text.delta")

    assert relay.done
    assert ("[replaced]" in said) == cut
    assert content(dialect.name, sent[-1]["response"]) == said
    assert not [name for name in relay.not_evaluated if "differs" in name]
