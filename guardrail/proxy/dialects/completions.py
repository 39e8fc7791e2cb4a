"""OpenAI's legacy Completions: a prompt in, text out. The prompt is taken as the patient's words.

https://platform.openai.com/docs/api-reference/completions. Prompts given as token numbers cannot be read.
"""

from collections.abc import Collection
from typing import Any

import msgspec
import orjson

from guardrail.engine.model import Message, Role
from guardrail.errors import MalformedRequest
from guardrail.proxy.dialects.chat_completions import ChatStream, choices_of, index_of
from guardrail.proxy.dialects.dialect import ERROR_KINDS, Framing, Reading, Request, Stamp
from guardrail.proxy.dialects.requests import check_body, decode_error, error_kind, string_or_none
from guardrail.proxy.dialects.shape import SKIP, UNREADABLE, Each, Shape, Text, find_text
from guardrail.proxy.sse import write_event

_CHOICE: Shape = {
    "index": SKIP,
    "text": Text("content"),
    "reasoning": Text("reasoning"),
    "reasoning_content": Text("reasoning"),
    "finish_reason": SKIP,
    "stop_reason": SKIP,
    "logprobs": UNREADABLE,
    "prompt_logprobs": UNREADABLE,
    "content_filter_results": SKIP,
}
_HEAD = "id object created model provider system_fingerprint service_tier usage timings prompt_filter_results kv_transfer_params"
SHAPE: Shape = {**dict.fromkeys(_HEAD.split(), SKIP), "error": Text("other"), "choices": Each(_CHOICE, index="index", group=True)}


class _Body(msgspec.Struct):
    prompt: Any = None
    suffix: str | None = None
    model: Any = None
    stream: bool | None = False
    stream_options: Any = None
    response_format: Any = None
    n: int | None = 1
    user: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class Completions:
    name = "openai_completions"
    paths: tuple[str, ...] = ("/v1/completions", "/completions")
    framing: Framing = "events"
    stream_type = b"text/event-stream; charset=utf-8"

    def read_request(self, body: bytes, path: str) -> Request:
        try:
            found = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise decode_error(error) from None
        check_body(body, ((b'"prompt"', 1), (b'"suffix"', 1)))
        prompts = found.prompt if isinstance(found.prompt, list) and not all(isinstance(p, int) for p in found.prompt) else [found.prompt]
        if any(p is not None and not isinstance(p, str | list) for p in prompts):
            raise MalformedRequest('"prompt" must be a string or a list of strings')
        texts = [p for p in prompts if isinstance(p, str)]
        if found.suffix:
            texts.append(found.suffix)
        tokens = any(isinstance(p, list) for p in prompts)
        options = found.stream_options
        return Request(
            messages=(Message(Role.USER, "\n".join(texts), ("tokens",) if tokens else ()),),
            stream=bool(found.stream),
            model=found.model if isinstance(found.model, str) else "",
            structured=bool(found.response_format),
            choices=max(found.n or 1, 1) * max(len(prompts), 1),
            patient=string_or_none(found.user),
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        )

    def read_reply(self, document: Any) -> Reading:
        reading = Reading(ends=None, last=True)
        find_text(document, SHAPE, reading)
        return reading

    def read_stream(self, request: Request, stamp: Stamp) -> "CompletionsStream":
        return CompletionsStream(request, stamp)

    def groups(self, document: Any) -> Collection[int]:
        return [index_of(choice, position) for position, choice in enumerate(choices_of(document))]

    def add_content(self, document: Any, group: int, text: str) -> None:
        for position, choice in enumerate(choices_of(document)):
            if index_of(choice, position) == group:
                choice["text"] = text

    def cut_reply(self, document: Any, group: int) -> None:
        for position, choice in enumerate(choices_of(document)):
            if index_of(choice, position) == group:
                choice["finish_reason"] = "stop"

    def write_answer(self, request: Request, text: str, stamp: Stamp) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
        head = {"id": f"cmpl-{stamp.id}", "object": "text_completion", "created": stamp.created, "model": request.model}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        return orjson.dumps({**head, "choices": [choice], "usage": usage})

    def write_answer_stream(self, request: Request, text: str, stamp: Stamp) -> bytes:
        stream = CompletionsStream(request, stamp)
        return stream.insertion(0, text) + stream.chunk(0, {}, "stop") + stream.tail()

    def write_error(self, status: int, message: str) -> bytes:
        return orjson.dumps({"error": {"message": message, "type": ERROR_KINDS.get(status, "api_error"), "param": None, "code": None}})

    def write_error_frame(self, message: str) -> bytes:
        return write_event(b"", self.write_error(502, message))


class CompletionsStream(ChatStream):
    """Chunks of text rather than of messages; otherwise like a chat."""

    def __init__(self, request: Request, stamp: Stamp) -> None:
        super().__init__(request, stamp)
        self._head |= {"id": f"cmpl-{stamp.id}", "object": "text_completion"}

    def plain(self, data: bytes) -> tuple[str, str] | None:
        return None

    def read(self, event: bytes, document: Any) -> Reading:
        if isinstance(document, bytes):
            return super().read(event, document)
        reading = Reading()
        choices = choices_of(document)
        if not choices and isinstance(document, dict) and document.get("error"):
            reading.error = error_kind(document["error"])
            return reading
        find_text(document, SHAPE, reading)
        reading.ends = tuple(index_of(c, i) for i, c in enumerate(choices) if c.get("finish_reason"))
        if choices:
            self._remember(document)
        return reading

    def chunk(self, group: int, delta: dict[str, Any], finish: str | None) -> bytes:
        choice = {"index": group, "text": delta.get("content", ""), "logprobs": None, "finish_reason": finish}
        return write_event(b"", orjson.dumps({**self._head, "choices": [choice]}))
