"""Stand-in models: raw upstreams that say one text in a provider's own form, as JSON or as a stream."""

import asyncio
from typing import Any

import orjson

from guardrail.proxy.sse import write_event
from tests.serving import STREAM_HEAD, Call, Handler, chat_reply, chunked, response

LINES_HEAD = STREAM_HEAD.replace(b"text/event-stream", b"application/x-ndjson")


def speaking(reply: Any, frames: list[tuple[str, Any]], lines: bool = False, always_streams: bool = False) -> Handler:
    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        if not orjson.loads(call.body).get("stream", always_streams):
            writer.write(response(orjson.dumps(reply)))
        else:
            writer.write(LINES_HEAD if lines else STREAM_HEAD)
            for event, document in frames:
                data = document if isinstance(document, bytes) else orjson.dumps(document)
                writer.write(chunked(data + b"\n" if lines else write_event(event.encode(), data)))
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    return handler


def chat(text: str) -> Handler:
    """OpenAI Chat Completions."""
    base: dict[str, Any] = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> tuple[str, Any]:
        return "", {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    said = [chunk({"content": word}) for word in words(text)]
    return speaking(
        orjson.loads(chat_reply(text)), [chunk({"role": "assistant", "content": ""}), *said, chunk({}, "stop"), ("", b"[DONE]")]
    )


def completions(text: str) -> Handler:
    """Legacy completions."""
    base = {"id": "cmpl-up", "object": "text_completion", "created": 1, "model": "m"}

    def chunk(said: str, finish: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "text": said, "logprobs": None, "finish_reason": finish}]}

    frames: list[tuple[str, Any]] = [*(("", chunk(word)) for word in words(text)), ("", chunk("", "stop")), ("", b"[DONE]")]
    return speaking(chunk(text, "stop"), frames)


def messages(text: str) -> Handler:
    """Anthropic Messages."""
    base: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    usage = {"input_tokens": 1, "output_tokens": 1}
    frames: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**base, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words(text)),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    reply = {**base, "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage}
    return speaking(reply, [(f["type"], f) for f in frames])


def responses(text: str) -> Handler:
    """OpenAI Responses."""
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    item: dict[str, Any] = {"id": "m1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    base = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }
    reply = {**base, "status": "completed", "output": [item]}
    begun = {**base, "status": "in_progress", "output": []}
    place = {"item_id": "m1", "output_index": 0, "content_index": 0}
    frames: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in words(text)),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": reply},
    ]
    return speaking(reply, [(f["type"], {**f, "sequence_number": i}) for i, f in enumerate(frames)])


def ollama(text: str) -> Handler:
    """Ollama's /api/chat and /api/generate."""
    head = {"model": "m", "created_at": "2026-01-01T00:00:00Z"}
    end = {"done": True, "done_reason": "stop", "total_duration": 1}

    def said(call: Call, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if "/api/chat" in call.line else {"response": text}

    async def handler(call: Call, writer: asyncio.StreamWriter) -> None:
        lines = [("", {**head, **said(call, word), "done": False}) for word in words(text)]
        inner = speaking(
            {**head, **said(call, text), **end}, [*lines, ("", {**head, **said(call, ""), **end})], lines=True, always_streams=True
        )
        await inner(call, writer)

    return handler


def dying(handler: Handler, after: bytes) -> Handler:
    """Writes what the stand-in writes up to these bytes; then its connection breaks."""

    async def handle(call: Call, writer: asyncio.StreamWriter) -> None:
        await handler(call, _Dying(writer, after))  # type: ignore[arg-type]  # stand-ins write and drain, no more

    return handle


class _Dying:
    def __init__(self, writer: asyncio.StreamWriter, after: bytes) -> None:
        self._writer = writer
        self._after = after

    def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)
            if self._after in data:
                self._writer.close()

    async def drain(self) -> None:
        assert self._writer.is_closing(), "it ended without having said what it should die after"


def words(text: str) -> list[str]:
    """The text in pieces that give it back when joined."""
    first, *rest = text.split(" ")
    return [first, *(" " + word for word in rest)]
