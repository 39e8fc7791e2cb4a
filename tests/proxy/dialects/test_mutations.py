"""Real replies and streams, damaged: whatever an upstream gets wrong, nothing breaks and nothing unreviewed is shown.

Random JSON hardly ever looks like a reply; these begin as one. Fields are lost, doubled, emptied, given other types and other
names, frames are lost, doubled and out of order, and the forbidden word stands wherever text stood.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import CallerError, UpstreamLost
from guardrail.proxy.dialects.dialect import Request
from guardrail.proxy.relay import StreamRelay
from tests.proxy.dialects import samples
from tests.proxy.dialects.test_census import BY_NAME, STAMP, make_guard, review_document, with_forbidden
from tests.proxy.reply_guards import FORBIDDEN

ODD: list[Any] = [None, True, -1, 1.5, 10**18, "", [], {}, [None], {"type": None}, {"type": "text"}, [[]], "assistant", "\x00", "\u2028"]
Random = Any


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def damage(document: Any, random: Random) -> Any:
    """The document with up to four things wrong."""
    document = copy.deepcopy(document)
    for _ in range(random.randint(0, 4)):
        inside = [c for c in containers(document) if c]
        if not inside:
            break
        where = random.choice(inside)
        key = random.choice(list(where) if isinstance(where, dict) else range(len(where)))
        match random.randint(0, 4):
            case 0:
                del where[key]
            case 1:
                where[key] = copy.deepcopy(random.choice(ODD))
            case 2:
                where[key] = [where[key]]
            case 3 if isinstance(where, dict):
                where[f"x_{key}"] = copy.deepcopy(where[key])
            case _ if isinstance(where, list):
                where.append(copy.deepcopy(where[key]))
            case _:
                where[key] = {"type": "other", "words": where[key]}
    return document


def forbidding(value: Any, random: Random) -> Any:
    """Some of its texts say the forbidden word."""
    for path in [p for p in paths(value) if random.random() < 0.3]:
        value = with_forbidden(value, path)
    return value


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, str) and samples.WORDS in value and path:
        yield path
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, (*path, key))


@pytest.mark.parametrize("name", samples.DOCUMENTS)
@given(random=st.randoms(use_true_random=False))
def test_damaged_replies(name: str, random: Random) -> None:
    document = damage(forbidding(random.choice(samples.DOCUMENTS[name]), random), random)
    out, _ = review_document(BY_NAME[name], document)

    assert FORBIDDEN.encode() not in out


@pytest.mark.parametrize("name", samples.STREAMS)
@given(random=st.randoms(use_true_random=False))
def test_damaged_streams(name: str, random: Random) -> None:
    """However it is cut up; and then lost, or stopped by us."""
    dialect = BY_NAME[name]
    frames = forbidding([list(f) for f in random.choice(samples.STREAMS[name])], random)
    frames = [(event, document if isinstance(document, bytes) else damage(document, random)) for event, document in frames]
    for _ in range(random.randint(0, 3)):
        at, to = random.randrange(len(frames)), random.randrange(len(frames))
        frame = frames[at] if random.random() < 0.5 else frames.pop(at)
        frames.insert(to, frame)
    data = samples.write(dialect, frames)
    size = random.choice([1, 7, 100, len(data)]) or 1
    relay = StreamRelay(dialect, Request((), True, "m", choices=random.choice([1, 2])), STAMP, make_guard, 1_000_000)
    out = b""
    with contextlib.suppress(UpstreamLost):
        for at in range(0, len(data), size):
            out += relay.feed(data[at : at + size])
        out += relay.finish()
    if not relay.done:
        out += relay.lose("Lost.", "lost") if random.random() < 0.5 else relay.stop("Stopped.")

    assert FORBIDDEN.encode() not in out
    assert relay.done


REQUESTS: dict[str, list[Any]] = {
    "openai_chat": [
        {
            "model": "m",
            "stream": True,
            "n": 2,
            "stream_options": {"include_usage": True},
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
            "messages": [
                {"role": "system", "content": "You help."},
                {
                    "role": "user",
                    "name": "p",
                    "content": [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "x"}}],
                },
                {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}]},
                {"role": "tool", "tool_call_id": "a", "content": "3"},
                {"role": "user", "content": "and now"},
            ],
        }
    ],
    "openai_responses": [
        {
            "model": "m",
            "instructions": "You help.",
            "previous_response_id": "resp_1",
            "text": {"format": {"type": "json_object"}},
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hello"}, {"type": "input_image", "image_url": "x"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "3"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
            ],
        },
        {"model": "m", "prompt": {"id": "p", "variables": {"what": "hello", "more": {"type": "input_text", "text": "x"}}}},
    ],
    "openai_completions": [{"model": "m", "prompt": ["hello", "there"], "suffix": "x", "n": 2}, {"prompt": [[1, 2], [3]]}],
    "anthropic_messages": [
        {
            "model": "m",
            "max_tokens": 1,
            "system": [{"type": "text", "text": "You help."}],
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "hello"}, {"type": "document", "source": {"type": "text", "data": "x"}}],
                },
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "3"}]}]},
            ],
        }
    ],
    "ollama_chat": [{"model": "m", "format": "json", "messages": [{"role": "user", "content": "hello", "images": ["eA=="]}]}],
    "ollama_generate": [{"model": "m", "prompt": "hello", "system": "You help.", "suffix": "x", "context": [1], "raw": True}],
}


@pytest.mark.parametrize("name", REQUESTS)
@given(random=st.randoms(use_true_random=False))
def test_damaged_requests(name: str, random: Random) -> None:
    """Read, or refused as the caller's mistake; and every message that is read has its text."""
    body = orjson.dumps(damage(random.choice(REQUESTS[name]), random))
    if random.random() < 0.2:
        at = random.randrange(len(body))
        body = body[:at] + bytes([random.randrange(256)]) + body[at + random.randint(0, 1) :]
    with contextlib.suppress(CallerError):
        request = BY_NAME[name].read_request(body, BY_NAME[name].paths[0])

        assert all(isinstance(message.text, str) for message in request.messages)
        assert request.choices >= 1
