"""Anthropic Messages: content blocks, thinking, tool use, and streams of paired `event:` and `data:`.

https://docs.anthropic.com/en/api/messages. A stream opens and closes each block by number; what is added to a reply goes into its
last text block while that is open, or else into a block of its own before `message_delta`.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec
import orjson

from guardrail.engine.model import Message, Role
from guardrail.errors import MalformedRequest
from guardrail.proxy.dialects.dialect import ERROR_KINDS, Framing, Path, Piece, Reading, Request, Shown, Stamp
from guardrail.proxy.dialects.requests import check_body, decode_error, error_kind, read_part, read_parts, string_or_none, texts_in
from guardrail.proxy.dialects.shape import SKIP, Each, Either, OneOf, Shape, Strings, Text, find_strings, find_text
from guardrail.proxy.sse import write_event

_CONTENT, _REASONING, _OTHER, _ARGUMENTS = Text("content"), Text("reasoning"), Text("other"), Strings("arguments")

_CITATION: Shape = {
    "type": SKIP,
    "cited_text": _OTHER,
    "document_title": _OTHER,
    "title": _OTHER,
    "url": SKIP,
    "source": SKIP,
    "file_id": SKIP,
    "encrypted_index": SKIP,
    "document_index": SKIP,
    "search_result_index": SKIP,
    "start_char_index": SKIP,
    "end_char_index": SKIP,
    "start_page_number": SKIP,
    "end_page_number": SKIP,
    "start_block_index": SKIP,
    "end_block_index": SKIP,
}
_TOOL_USE: Shape = {"type": SKIP, "id": SKIP, "name": SKIP, "input": _ARGUMENTS, "caller": SKIP, "server_name": SKIP}
_FOUND: Shape = {"type": SKIP, "url": SKIP, "title": _OTHER, "encrypted_content": SKIP, "page_age": SKIP, "error_code": SKIP}
_BLOCK: Shape = OneOf(
    "type",
    {
        "text": {"type": SKIP, "text": _CONTENT, "citations": Each(_CITATION)},
        "thinking": {"type": SKIP, "thinking": _REASONING, "signature": SKIP},
        "redacted_thinking": {"type": SKIP, "data": SKIP},  # encrypted: no patient can read it
        "tool_use": _TOOL_USE,
        "server_tool_use": _TOOL_USE,
        "mcp_tool_use": _TOOL_USE,
        "web_search_tool_result": {"type": SKIP, "tool_use_id": SKIP, "caller": SKIP, "content": Either(_OTHER, Each(_FOUND))},
        "container_upload": {"type": SKIP, "file_id": SKIP},
    },
)
_DELTA: Shape = OneOf(
    "type",
    {
        "text_delta": {"type": SKIP, "text": _CONTENT},
        "thinking_delta": {"type": SKIP, "thinking": _REASONING, "estimated_tokens": SKIP},
        "signature_delta": {"type": SKIP, "signature": SKIP},
        "input_json_delta": {"type": SKIP, "partial_json": Text("arguments")},
        "citations_delta": {"type": SKIP, "citation": _CITATION},
    },
)
SHAPE: Shape = {
    "id": SKIP,
    "type": SKIP,
    "role": SKIP,
    "model": SKIP,
    "content": Each(_BLOCK),
    "stop_reason": SKIP,
    "stop_sequence": SKIP,
    "stop_details": SKIP,
    "usage": SKIP,
    "container": SKIP,
    "context_management": SKIP,
    "error": _OTHER,
}
# Tuples: what is looked up in them comes from the upstream and may be a list.
_TOOL_BLOCKS = ("tool_use", "server_tool_use", "mcp_tool_use")
# A turn that stops for one of these goes on: the app, or the provider's own tool, acts next.
_TURN_GOES_ON = ("tool_use", "pause_turn")
_FRAME: Shape = {
    "type": SKIP,
    "usage": SKIP,
    "context_management": SKIP,
    "delta": {"stop_reason": SKIP, "stop_sequence": SKIP, "container": SKIP, "stop_details": SKIP},
}

# What frames hold besides numbers. Anything else in them is unknown, and reviewed as that.
_FRAME_FIELDS: Mapping[str, frozenset[str]] = {
    "content_block_delta": frozenset({"type", "index", "delta"}),
    "content_block_start": frozenset({"type", "index", "content_block"}),
    "content_block_stop": frozenset({"type", "index"}),
    "message_start": frozenset({"type", "message"}),
    "message_stop": frozenset({"type"}),
    "ping": frozenset({"type"}),
}


class _Body(msgspec.Struct):
    messages: list[dict[str, Any]]
    model: Any = None
    system: Any = None
    stream: bool | None = False
    metadata: Any = None
    output_format: Any = None
    output_config: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class _PlainText(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text_delta"]
    text: str


class _PlainDelta(msgspec.Struct, forbid_unknown_fields=True):
    """The frame that nearly all are: more text of an open block."""

    type: Literal["content_block_delta"]
    index: int
    delta: _PlainText


_decode_plain = msgspec.json.Decoder(_PlainDelta).decode


class Messages:
    name = "anthropic_messages"
    paths: tuple[str, ...] = ("/v1/messages",)
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
        messages: list[Message] = []
        if found.system is not None:
            messages.append(Message(Role.SYSTEM, texts_in(found.system)))
        for position, message in enumerate(found.messages):
            messages.extend(_read_message(message, position, unknown))
        check_body(body, ((b'"messages"', 1), (b'"content"', len(found.messages)), (b'"role"', len(found.messages))))
        metadata = found.metadata
        return Request(
            messages=tuple(messages),
            stream=bool(found.stream),
            model=found.model if isinstance(found.model, str) else "",
            structured=_is_structured(found.output_format)
            or (isinstance(found.output_config, dict) and _is_structured(found.output_config.get("format"))),
            patient=string_or_none(metadata.get("user_id")) if isinstance(metadata, dict) else None,
            unknown=tuple(unknown),
        )

    def read_reply(self, document: Any) -> Reading:
        reading = Reading(ends=None, last=True)
        find_text(document, SHAPE, reading)
        if isinstance(document, dict) and document.get("stop_reason") in _TURN_GOES_ON:
            reading.tools.append(0)
        return reading

    def read_stream(self, request: Request, stamp: Stamp) -> "MessagesStream":
        return MessagesStream(request, stamp)

    def groups(self, document: Any) -> Collection[int]:
        return (0,)

    def add_content(self, document: Any, group: int, text: str) -> None:
        if isinstance(document, dict):
            content = document.get("content")
            document["content"] = [*(content if isinstance(content, list) else ()), {"type": "text", "text": text}]

    def cut_reply(self, document: Any, group: int) -> None:
        if not isinstance(document, dict):
            return
        content = document.get("content")
        # An empty text block is an error when the app sends the conversation back.
        kept = (
            [b for b in content if isinstance(b, dict) and b.get("type") == "text" and b.get("text")] if isinstance(content, list) else []
        )
        for block in kept:
            block.pop("citations", None)
        document |= {"content": kept, "stop_reason": "end_turn", "stop_sequence": None}

    def write_answer(self, request: Request, text: str, stamp: Stamp) -> bytes:
        message = _message(request, stamp)
        return orjson.dumps(message | {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"})

    def write_answer_stream(self, request: Request, text: str, stamp: Stamp) -> bytes:
        stream = MessagesStream(request, stamp)
        return stream.insertion(0, text) + stream.end_group(0, _nothing) + stream.end_stream(_nothing)

    def write_error(self, status: int, message: str) -> bytes:
        return orjson.dumps({"type": "error", "error": {"type": ERROR_KINDS.get(status, "api_error"), "message": message}})

    def write_error_frame(self, message: str) -> bytes:
        return write_event(b"error", self.write_error(502, message))


class MessagesStream:
    """Reads a Messages stream; writes blocks behind what the client has seen."""

    plain_path: Path = ("delta", "text")

    def __init__(self, request: Request, stamp: Stamp) -> None:
        self._message = _message(request, stamp)
        self._kinds: dict[int, str] = {}
        """Block number -> its type, as read."""
        self._started = False
        self._open: int | None = None
        """The block that is open at the client."""
        self._next = 0

    def plain(self, data: bytes) -> tuple[str, str] | None:
        try:
            found = _decode_plain(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return found.delta.text, f".{found.index}"

    def passed(self, data: bytes) -> bool:
        return False

    def read(self, event: bytes, document: Any) -> Reading:
        reading = Reading()
        kind = document.get("type") if isinstance(document, dict) else None
        match kind:
            case "content_block_delta":
                find_text(document.get("delta"), _DELTA, reading, ("delta",), f".{_index(document)}")
            case "content_block_start":
                self._read_start(document, reading)
            case "content_block_stop":
                reading.closing = self._kinds.get(_index(document)) == "text"
            case "message_start":
                find_text(document.get("message"), SHAPE, reading, ("message",))
            case "message_delta":
                find_text(document, _FRAME, reading)
                reason = document["delta"].get("stop_reason") if isinstance(document.get("delta"), dict) else None
                if reason:
                    reading.ends = (0,)
                if reason in _TURN_GOES_ON:
                    reading.tools.append(0)
            case "message_stop":
                reading.ends, reading.last = None, True
            case "ping":
                reading.closing = True  # between the end of a block and what follows it, it changes nothing
            case "error":
                reading.error = error_kind(document.get("error"))
            case _:
                find_strings(
                    document.decode("utf-8", "replace") if isinstance(document, bytes) else document, (), 0, reading, f"frame[{kind}]"
                )
        if isinstance(kind, str) and (known := _FRAME_FIELDS.get(kind)) and document.keys() - known:
            for name in sorted(document.keys() - known):
                find_strings(document[name], (name,), 0, reading)
        return reading

    def _read_start(self, document: dict[str, Any], reading: Reading) -> None:
        index, block = _index(document), document.get("content_block")
        kind = block.get("type") if isinstance(block, dict) else None
        self._kinds[index] = str(kind)
        find_text(block, _BLOCK, reading, ("content_block",), f".{index}")
        if kind in _TOOL_BLOCKS and not reading.pieces:
            reading.pieces.append(Piece(0, "arguments", f".{index}", ("content_block", "input"), ""))

    def sent(self, document: Any) -> bool:
        match document.get("type") if isinstance(document, dict) else None:
            case "message_start":
                self._started = True
            case "content_block_start":
                self._open = _index(document)
                self._next = self._open + 1
            case "content_block_stop":
                self._open = None
        return False

    def insertion(self, group: int, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        if self._open is not None and self._kinds.get(self._open) == "text":
            return _frame("content_block_delta", index=self._open, delta=delta)
        index, self._next = self._next, self._next + 1
        return b"".join(
            (
                self._start(),
                self._stop(),
                _frame("content_block_start", index=index, content_block={"type": "text", "text": ""}),
                _frame("content_block_delta", index=index, delta=delta),
                _frame("content_block_stop", index=index),
            )
        )

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return _frame("message_start", message=self._message)

    def _stop(self) -> bytes:
        index, self._open = self._open, None
        return b"" if index is None else _frame("content_block_stop", index=index)

    def end_group(self, group: int, shown: Shown) -> bytes:
        end = _frame("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 0})
        return self._start() + self._stop() + end

    def end_stream(self, shown: Shown) -> bytes:
        return _frame("message_stop")

    def without(self, document: Any, groups: Collection[int]) -> Any:
        return None if groups else document


def _frame(kind: str, **fields: Any) -> bytes:
    return write_event(kind.encode(), orjson.dumps({"type": kind, **fields}))


def _message(request: Request, stamp: Stamp) -> dict[str, Any]:
    return {
        "id": f"msg_{stamp.id}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def _nothing(group: int, segment: str) -> str:
    return ""


def _index(document: dict[str, Any]) -> int:
    index = document.get("index")
    return index if isinstance(index, int) else 0


def _is_structured(form: Any) -> bool:
    return isinstance(form, dict) and form.get("type") == "json_schema"


def _read_message(message: dict[str, Any], position: int, unknown: list[str]) -> list[Message]:
    """A turn; results of tools stand inside the user's, but are not what the patient says."""
    role, content = message.get("role"), message.get("content")
    if role == "assistant":
        return [Message(Role.ASSISTANT, texts_in(content))]
    if role == "system":
        return [Message(Role.SYSTEM, texts_in(content))]
    if role != "user":
        if not isinstance(role, str):
            raise MalformedRequest(f'messages[{position}] has no "role"; use "user" or "assistant"')
        unknown.append(f"request:role[{role[:40]}]")
    extra = message.keys() - {"role", "content"}
    if isinstance(content, str) and not extra:
        return [Message(Role.USER, content)]
    tools: list[str] = []
    said: Any = content
    if isinstance(content, list):
        tools = [s for part in content if _is_tool_result(part) for s in _tool_texts(part)]
        said = [part for part in content if not _is_tool_result(part)]
    out = [Message(Role.TOOL, "\n".join(tools))] if tools or said == [] else []
    if said or said is None or extra:
        out.append(read_parts(Role.USER, said, extra, message, f"messages[{position}]", unknown))
    return out


def _is_tool_result(part: Any) -> bool:
    return isinstance(part, dict) and str(part.get("type", "")).endswith("tool_result")


def _tool_texts(part: dict[str, Any]) -> list[str]:
    content = part.get("content")
    if isinstance(content, str):
        return [content]
    texts: list[str] = []
    for inner in content if isinstance(content, list) else ():
        read_part(inner, texts, [], [])
    return texts
