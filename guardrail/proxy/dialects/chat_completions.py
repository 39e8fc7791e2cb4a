"""OpenAI Chat Completions, as OpenAI and the many servers that imitate it write it.

https://platform.openai.com/docs/api-reference/chat; `reasoning_content` and `reasoning` are what DeepSeek, vLLM, Qwen and
OpenRouter call the model's thinking.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import orjson

from guardrail.engine.model import Message, Role
from guardrail.errors import MalformedRequest
from guardrail.proxy.dialects.dialect import ERROR_KINDS, Framing, Path, Piece, Reading, Request, Shown, Stamp
from guardrail.proxy.dialects.requests import check_body, decode_error, error_kind, read_parts, string_or_none
from guardrail.proxy.dialects.shape import SKIP, UNREADABLE, Each, Either, OneOf, Shape, Text, find_strings, find_text
from guardrail.proxy.sse import write_event

_CONTENT, _REASONING, _REFUSAL, _ARGUMENTS, _OTHER = Text("content"), Text("reasoning"), Text("refusal"), Text("arguments"), Text("other")

_PART: Shape = OneOf(
    "type",
    {
        "text": {"type": SKIP, "text": _CONTENT},
        "output_text": {"type": SKIP, "text": _CONTENT},
        "refusal": {"type": SKIP, "refusal": _REFUSAL},
        "thinking": {"type": SKIP, "thinking": Either(_REASONING, Each({"type": SKIP, "text": _REASONING})), "closed": SKIP},
        "reference": {"type": SKIP, "reference_ids": SKIP},
    },
)
_TOOL_CALL: Shape = {
    "index": SKIP,
    "id": SKIP,
    "type": SKIP,
    "function": {"name": SKIP, "arguments": _ARGUMENTS},
    "custom": {"name": SKIP, "input": _ARGUMENTS},
}
_MESSAGE: Shape = {
    "role": SKIP,
    "content": Either(_CONTENT, Each(_PART)),
    "refusal": _REFUSAL,
    "reasoning_content": _REASONING,
    "reasoning": _REASONING,
    "reasoning_details": Each(
        {"type": SKIP, "id": SKIP, "format": SKIP, "index": SKIP, "signature": SKIP, "data": SKIP, "text": _OTHER, "summary": _OTHER}
    ),
    "tool_calls": Each(_TOOL_CALL, index="index"),
    "function_call": {"name": SKIP, "arguments": _ARGUMENTS},
    "audio": {"id": SKIP, "expires_at": SKIP, "data": UNREADABLE, "transcript": _CONTENT},
    "images": UNREADABLE,
    "annotations": Each(
        {"type": SKIP, "url_citation": {"url": SKIP, "title": _OTHER, "content": _OTHER, "start_index": SKIP, "end_index": SKIP}}
    ),
}
_CHOICE: Shape = {
    "index": SKIP,
    "finish_reason": SKIP,
    "native_finish_reason": SKIP,
    "stop_reason": SKIP,
    "logprobs": UNREADABLE,
    "content_filter_results": SKIP,
    "token_ids": SKIP,
    "message": _MESSAGE,
    "delta": _MESSAGE,
}
SHAPE: Shape = {
    "id": SKIP,
    "object": SKIP,
    "created": SKIP,
    "model": SKIP,
    "provider": SKIP,
    "system_fingerprint": SKIP,
    "service_tier": SKIP,
    "usage": SKIP,
    "timings": SKIP,
    "x_groq": SKIP,
    "obfuscation": SKIP,
    "prompt_filter_results": SKIP,
    "prompt_logprobs": UNREADABLE,
    "prompt_token_ids": SKIP,
    "kv_transfer_params": SKIP,
    "error": _OTHER,
    "choices": Each(_CHOICE, index="index", group=True),
}

_PLAIN_TOP = frozenset({"id", "object", "created", "model", "choices", "system_fingerprint", "service_tier", "usage", "timings"})
_PLAIN_CHOICE = frozenset({"index", "message", "finish_reason", "logprobs", "stop_reason"})

_USER_FIELDS = frozenset({"role", "content", "name", "id", "cache_control"})
_ROLES: Mapping[str, Role] = {
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}


class _Body(msgspec.Struct):
    messages: list[dict[str, Any]]
    model: Any = None
    stream: bool | None = False
    response_format: Any = None
    stream_options: Any = None
    n: int | None = 1
    user: Any = None
    safety_identifier: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class _PlainDelta(msgspec.Struct, forbid_unknown_fields=True):
    content: str
    role: msgspec.Raw = msgspec.Raw()


class _PlainChoice(msgspec.Struct, forbid_unknown_fields=True):
    delta: _PlainDelta
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _PlainChunk(msgspec.Struct, forbid_unknown_fields=True):
    """A chunk that holds content and nothing else; what is `Raw` here is `SKIP` in the shape."""

    choices: Annotated[list[_PlainChoice], msgspec.Meta(min_length=1, max_length=1)]
    id: msgspec.Raw = msgspec.Raw()
    object: msgspec.Raw = msgspec.Raw()
    created: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    provider: msgspec.Raw = msgspec.Raw()
    system_fingerprint: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    obfuscation: msgspec.Raw = msgspec.Raw()


_decode_plain = msgspec.json.Decoder(_PlainChunk).decode


class ChatCompletions:
    name = "openai_chat"
    paths: tuple[str, ...] = ("/v1/chat/completions", "/chat/completions")
    framing: Framing = "events"
    stream_type = b"text/event-stream; charset=utf-8"

    def read_request(self, body: bytes, path: str) -> Request:
        try:
            found = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise decode_error(error) from None
        if not found.messages:
            raise MalformedRequest('"messages" is empty; send at least one message')
        unknown: list[str] = []
        messages = tuple([_read_message(m, i, unknown) for i, m in enumerate(found.messages)])
        check_body(body, ((b'"messages"', 1), (b'"content"', len(messages)), (b'"role"', len(messages))))
        options = found.stream_options
        return Request(
            messages=messages,
            stream=bool(found.stream),
            model=found.model if isinstance(found.model, str) else "",
            structured=_is_structured(found.response_format),
            choices=max(found.n or 1, 1),
            patient=string_or_none(found.safety_identifier) or string_or_none(found.user),
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            unknown=tuple(unknown),
        )

    def read_reply(self, document: Any) -> Reading:
        reading = Reading(ends=None, last=True)
        if (plain := _plain_reply(document)) is not None:
            reading.pieces.append(Piece(0, "content", "", _REPLY_PATH, plain))
            reading.plain = True
            return reading
        find_text(document, SHAPE, reading)
        for position, choice in enumerate(choices_of(document)):
            if _calls_tool(choice.get("message")):
                reading.tools.append(index_of(choice, position))
        return reading

    def read_stream(self, request: Request, stamp: Stamp) -> "ChatStream":
        return ChatStream(request, stamp)

    def groups(self, document: Any) -> Collection[int]:
        return [index_of(choice, position) for position, choice in enumerate(choices_of(document))]

    def add_content(self, document: Any, group: int, text: str) -> None:
        for position, choice in enumerate(choices_of(document)):
            if index_of(choice, position) == group and isinstance(choice.get("message"), dict):
                choice["message"]["content"] = text

    def cut_reply(self, document: Any, group: int) -> None:
        for position, choice in enumerate(choices_of(document)):
            message = choice.get("message")
            if index_of(choice, position) == group and isinstance(message, dict):
                for name in ("tool_calls", "function_call", "annotations", "images"):
                    message.pop(name, None)
                if isinstance(message.get("audio"), dict):
                    message["audio"]["data"] = None  # the words are in its transcript
                choice["finish_reason"] = "stop"

    def write_answer(self, request: Request, text: str, stamp: Stamp) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": text if request.structured else None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        return orjson.dumps({**_head(request, stamp, "chat.completion"), "choices": [choice], "usage": usage})

    def write_answer_stream(self, request: Request, text: str, stamp: Stamp) -> bytes:
        stream = ChatStream(request, stamp)
        first: dict[str, Any] = {"role": "assistant", "content": ""}
        body: dict[str, Any] = {"content": text, "refusal": text} if request.structured else {"content": text}
        return b"".join((stream.chunk(0, first, None), stream.chunk(0, body, None), stream.chunk(0, {}, "stop"), stream.tail()))

    def write_error(self, status: int, message: str) -> bytes:
        kind = ERROR_KINDS.get(status, "api_error")
        return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}})

    def write_error_frame(self, message: str) -> bytes:
        return write_event(b"", self.write_error(502, message))


class ChatStream:
    """Reads `chat.completion.chunk` frames; writes more of them in the likeness of the last one read."""

    plain_path: Path = ("choices", 0, "delta", "content")

    def __init__(self, request: Request, stamp: Stamp) -> None:
        self._request = request
        self._head = _head(request, stamp, "chat.completion.chunk")
        self._tools: set[int] = set()
        self._last_plain = b""

    def plain(self, data: bytes) -> tuple[str, str] | None:
        try:
            found = _decode_plain(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return found.choices[0].delta.content, ""

    def passed(self, data: bytes) -> bool:
        self._last_plain = data
        return False

    def read(self, event: bytes, document: Any) -> Reading:
        if isinstance(document, bytes):
            return _read_bare(document)
        reading = Reading()
        choices = choices_of(document)
        if not choices and isinstance(document, dict) and document.get("error"):
            reading.error = error_kind(document["error"])
            return reading
        find_text(document, SHAPE, reading)
        ends = []
        for position, choice in enumerate(choices):
            index = index_of(choice, position)
            if _calls_tool(choice.get("delta")):
                self._tools.add(index)
            if choice.get("finish_reason"):
                ends.append(index)
                if index in self._tools:
                    reading.tools.append(index)
        reading.ends = tuple(ends)
        if isinstance(document, dict) and choices:
            self._remember(document)
        return reading

    def _remember(self, document: dict[str, Any]) -> None:
        head = self._head
        if head.get("id") != document.get("id"):
            for name in ("id", "object", "created", "model", "system_fingerprint"):
                if document.get(name) is not None:
                    head[name] = document[name]

    def chunk(self, group: int, delta: dict[str, Any], finish: str | None) -> bytes:
        self._catch_up()
        choice = {"index": group, "delta": delta, "logprobs": None, "finish_reason": finish}
        return write_event(b"", orjson.dumps({**self._head, "choices": [choice]}))

    def sent(self, document: Any) -> bool:
        return False

    def _catch_up(self) -> None:
        """Frames that were read the quick way tell their head only when it is needed."""
        if self._last_plain:
            self._remember(orjson.loads(self._last_plain))
            self._last_plain = b""

    def insertion(self, group: int, text: str) -> bytes:
        return self.chunk(group, {"content": text}, None)

    def end_group(self, group: int, shown: Shown) -> bytes:
        return self.chunk(group, {}, "stop")

    def end_stream(self, shown: Shown) -> bytes:
        return self.tail()

    def tail(self) -> bytes:
        self._catch_up()
        usage = b""
        if self._request.include_usage:
            counts = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            usage = write_event(b"", orjson.dumps({**self._head, "choices": [], "usage": counts}))
        return usage + b"data: [DONE]\n\n"

    def without(self, document: Any, groups: Collection[int]) -> Any:
        choices = choices_of(document)
        if not choices:
            return document
        kept = [c for i, c in enumerate(choices) if index_of(c, i) not in groups]
        return {**document, "choices": kept} if kept else None


_REPLY_PATH: Path = ("choices", 0, "message", "content")


def _plain_reply(document: Any) -> str | None:
    """The content of a reply that holds nothing else to be read: what is not usual in it must be empty."""
    choices = choices_of(document)
    if len(choices) != 1 or not document.keys() <= _PLAIN_TOP:
        return None
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict) or not choice.keys() <= _PLAIN_CHOICE or choice.get("logprobs") or choice.get("index"):
        return None
    for name, value in message.items():
        if value and name not in ("role", "content"):
            return None
    content = message.get("content")
    return content if isinstance(content, str) and content else None


def _read_bare(data: bytes) -> Reading:
    """A frame that is not JSON: the end mark, or something unknown whose text is reviewed as it stands."""
    if data.strip() == b"[DONE]":
        return Reading(ends=None, last=True)
    reading = Reading()
    find_strings(data.decode("utf-8", "replace"), (), 0, reading, "frame")
    return reading


def _head(request: Request, stamp: Stamp, what: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{stamp.id}", "object": what, "created": stamp.created, "model": request.model}


def choices_of(document: Any) -> list[dict[str, Any]]:
    found = document.get("choices") if isinstance(document, dict) else None
    return found if isinstance(found, list) and all(isinstance(c, dict) for c in found) else []


def index_of(choice: Mapping[str, Any], position: int) -> int:
    index = choice.get("index", position)
    return index if isinstance(index, int) else position


def _calls_tool(message: Any) -> bool:
    return isinstance(message, dict) and bool(message.get("tool_calls") or message.get("function_call"))


def _is_structured(response_format: Any) -> bool:
    return isinstance(response_format, dict) and response_format.get("type") in ("json_schema", "json_object")


def read_messages(messages: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    """Messages as OpenAI writes them, outside a request."""
    return tuple(_read_message(m, i, []) for i, m in enumerate(messages))


def _read_message(message: dict[str, Any], position: int, unknown: list[str]) -> Message:
    given = message.get("role")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        if not isinstance(given, str):
            raise MalformedRequest(f'messages[{position}] has no "role"; use "user", "assistant", "system" or "tool"')
        # An unknown speaker may be the patient: what they say must count.
        role = Role.USER
        unknown.append(f"request:role[{given[:40]}]")
    content = message.get("content")
    if isinstance(content, str) and (role is not Role.USER or message.keys() <= _USER_FIELDS):
        return Message(role, content)
    return read_parts(role, content, message.keys() - _USER_FIELDS if role is Role.USER else (), message, f"messages[{position}]", unknown)
