"""A census of every dialect: each text-bearing field of a reply is reviewed, in JSON and in frames, and none is called clean unread."""

import copy
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from guardrail.engine.reply import Review
from guardrail.proxy.dialects import DIALECTS
from guardrail.proxy.dialects.dialect import Dialect, Request, Stamp
from guardrail.proxy.relay import DocumentRelay, StreamRelay
from guardrail.proxy.sse import LineSplitter, SseSplitter
from tests.proxy.dialects import samples
from tests.proxy.reply_guards import FORBIDDEN, WordGuard

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
STAMP = Stamp("test", 1)


def make_guard(channel: str, structured: bool) -> WordGuard:
    return WordGuard(channel)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the sample says WORDS."""
    if isinstance(value, str):
        if samples.WORDS in value:
            yield path
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from places(inner, (*path, position))


def with_forbidden(value: Any, path: tuple[str | int, ...]) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = inner[path[-1]].replace(samples.WORDS, FORBIDDEN)
    return changed


def show(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


DOCUMENTS = [
    pytest.param(name, document, path, id=f"{name}-{position}-{show(path)}")
    for name, documents in samples.DOCUMENTS.items()
    for position, document in enumerate(documents)
    for path in places(document)
]
FRAMES = [
    pytest.param(name, frames, (position, *path), id=f"{name}-{position}-{show(path)}")
    for name, streams in samples.STREAMS.items()
    for frames in streams
    for position, (_, document) in enumerate(frames)
    for path in places(document, (1,))
]


def review_document(dialect: Dialect, document: Any) -> tuple[bytes, DocumentRelay]:
    relay = DocumentRelay(dialect, Request((), False, "m"), make_guard)
    steps = relay.review(copy.deepcopy(document))
    try:
        while True:
            next(steps)
    except StopIteration as done:
        return orjson.dumps(document if done.value is None else done.value), relay


def review_stream(dialect: Dialect, frames: list[tuple[str, Any]], chunk: int = 1_000_000) -> tuple[bytes, StreamRelay]:
    relay = StreamRelay(dialect, Request((), True, "m"), STAMP, make_guard, 1_000_000)
    stream = samples.write(dialect, frames)
    out = b"".join(relay.feed(stream[at : at + chunk]) for at in range(0, len(stream), chunk)) + relay.finish()
    return out, relay


@pytest.mark.parametrize(("name", "document", "path"), DOCUMENTS)
def test_every_text_bearing_field_of_a_reply_is_reviewed(name: str, document: Any, path: tuple[str | int, ...]) -> None:
    out, _ = review_document(BY_NAME[name], with_forbidden(document, path))

    assert FORBIDDEN.encode() not in out


@pytest.mark.parametrize(("name", "frames", "path"), FRAMES)
def test_every_text_bearing_field_of_a_frame_is_reviewed(name: str, frames: Any, path: tuple[str | int, ...]) -> None:
    out, relay = review_stream(BY_NAME[name], with_forbidden([list(f) for f in frames], path))

    assert FORBIDDEN.encode() not in out
    assert relay.done


@pytest.mark.parametrize("name", samples.DOCUMENTS)
def test_a_clean_reply_is_known_in_full_and_goes_out_unchanged(name: str) -> None:
    for document in samples.DOCUMENTS[name]:
        out, relay = review_document(BY_NAME[name], document)

        assert not relay.not_evaluated
        assert out == orjson.dumps(document)


@pytest.mark.parametrize("name", samples.STREAMS)
@pytest.mark.parametrize("chunk", [1, 7, 1_000_000])
def test_a_clean_stream_is_known_in_full_and_goes_out_unchanged(name: str, chunk: int) -> None:
    for frames in samples.STREAMS[name]:
        out, relay = review_stream(BY_NAME[name], frames, chunk)

        assert not relay.not_evaluated
        assert out == samples.write(BY_NAME[name], frames)
        assert relay.done


@pytest.mark.parametrize("name", samples.DOCUMENTS)
def test_an_unknown_field_anywhere_is_reviewed_and_recorded(name: str) -> None:
    for document in samples.DOCUMENTS[name]:
        for path in objects(document):
            changed = copy.deepcopy(document)
            inner = changed
            for step in path:
                inner = inner[step]
            if samples.is_free_form(path):
                continue
            inner["novel_field"] = {"text": f"so {FORBIDDEN}"}
            out, relay = review_document(BY_NAME[name], changed)

            assert FORBIDDEN.encode() not in out, show(path)
            assert any("novel_field" in n for n in relay.not_evaluated), show(path)


def objects(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        yield path
        for name, inner in value.items():
            yield from objects(inner, (*path, name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from objects(inner, (*path, position))


@pytest.mark.parametrize("name", samples.STREAMS)
def test_an_unknown_frame_is_reviewed_and_recorded(name: str) -> None:
    for frames in samples.STREAMS[name]:
        novel = [*frames[:1], ("novel", {"type": "novel", "words": "harmless"}), *frames[1:]]
        _, fine = review_stream(BY_NAME[name], novel)
        bad = [*frames[:1], ("novel", {"type": "novel", "words": FORBIDDEN}), *frames[1:]]
        out, _ = review_stream(BY_NAME[name], bad)

        assert fine.not_evaluated
        assert FORBIDDEN.encode() not in out


ENDINGS = {
    "openai_chat": b"data: [DONE]\n\n",
    "openai_completions": b"data: [DONE]\n\n",
    "openai_responses": b'"type":"response.completed"',
    "anthropic_messages": b'{"type":"message_stop"}',
    "ollama_chat": b'"done":true',
    "ollama_generate": b'"done":true',
}
ERRORS = {
    "openai_chat": b'data: {"error":',
    "openai_completions": b'data: {"error":',
    "openai_responses": b'event: error\ndata: {"type":"error"',
    "anthropic_messages": b'event: error\ndata: {"type":"error"',
    "ollama_chat": b'{"error":',
    "ollama_generate": b'{"error":',
}


def broken_off(name: str) -> Iterator[tuple[Dialect, bytes, StreamRelay]]:
    """Every sample stream broken off after each of its frames: what was sent so far, and the relay."""
    dialect = BY_NAME[name]
    for frames in samples.STREAMS[name]:
        for end in range(len(frames)):
            relay = StreamRelay(dialect, Request((), True, "m"), STAMP, make_guard, 1_000_000)
            out = relay.feed(samples.write(dialect, frames[:end]))
            if not relay.done:
                yield dialect, out, relay


def is_well_formed(dialect: Dialect, out: bytes) -> bool:
    splitter = LineSplitter(1_000_000) if dialect.framing == "lines" else SseSplitter(1_000_000)
    for frame in splitter.feed(out):
        if frame.data and frame.data != b"[DONE]":
            orjson.loads(frame.data)
    return splitter.finish() == []


@pytest.mark.parametrize("name", samples.STREAMS)
def test_a_stream_lost_anywhere_ends_with_a_notice_and_an_error(name: str) -> None:
    for dialect, sent, relay in broken_off(name):
        out = sent + relay.lose("(interrupted)", "why")

        assert is_well_formed(dialect, out)
        assert ERRORS[name] in out[-200:]
        assert ENDINGS[name] not in out
        assert (b"(interrupted)" in out) != (b'finish_reason":"' in sent or b'stop_reason":"' in sent)


@pytest.mark.parametrize("name", samples.STREAMS)
def test_a_stream_stopped_anywhere_says_the_safe_answer_and_ends_normally(name: str) -> None:
    for dialect, sent, relay in broken_off(name):
        out = sent + relay.stop("(safe answer)")

        assert is_well_formed(dialect, out)
        assert out.count(ENDINGS[name]) == 1
        assert (b"(safe answer)" in out) != (b'finish_reason":"' in sent or b'stop_reason":"' in sent)


@pytest.mark.parametrize("name", samples.STREAMS)
def test_what_is_held_is_never_shown_when_a_stream_breaks(name: str) -> None:
    """The guard holds every word back: nothing of the reply may be seen, in no frame, whatever happens."""
    for frames in samples.STREAMS[name]:
        for end in range(len(frames)):
            relay = StreamRelay(BY_NAME[name], Request((), True, "m"), STAMP, lambda channel, structured: _Holding(channel), 1_000_000)
            out = relay.feed(samples.write(BY_NAME[name], frames[:end]))
            if not relay.done:
                assert samples.WORDS.encode() not in out + (relay.stop("safe") if end % 2 else relay.lose("lost", "why"))


class _Holding(WordGuard):
    def feed(self, text: str) -> Review:
        return Review(0)
