"""OpenAI Responses: items with parts, and a stream that says everything twice: in deltas, and as a whole when it is done.

https://platform.openai.com/docs/api-reference/responses. What repeats the deltas is rewritten to what the patient was shown. Frames
are numbered; those behind an insertion are renumbered. With `previous_response_id` or `conversation` the provider holds
turns that the guard has not seen.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import msgspec
import orjson

from guardrail.engine.model import Message, Role
from guardrail.errors import MalformedRequest
from guardrail.proxy.dialects.dialect import ERROR_KINDS, Framing, Kind, Path, Piece, Reading, Request, Shown, Stamp
from guardrail.proxy.dialects.requests import check_body, decode_error, error_kind, read_parts, string_or_none, strings_in, texts_in
from guardrail.proxy.dialects.shape import SKIP, UNREADABLE, Each, OneOf, Shape, Strings, Text, find_strings, find_text
from guardrail.proxy.sse import write_event

_CONTENT, _REASONING, _REFUSAL, _OTHER = Text("content"), Text("reasoning"), Text("refusal"), Text("other")
_ARGUMENTS, _OTHERS = Text("arguments"), Strings("other")

_ANNOTATION: Shape = {
    "type": SKIP,
    "url": SKIP,
    "title": _OTHER,
    "filename": _OTHER,
    "file_id": SKIP,
    "container_id": SKIP,
    "index": SKIP,
    "start_index": SKIP,
    "end_index": SKIP,
}
_PART: Shape = OneOf(
    "type",
    {
        "output_text": {"type": SKIP, "text": _CONTENT, "annotations": Each(_ANNOTATION), "logprobs": UNREADABLE},
        "refusal": {"type": SKIP, "refusal": _REFUSAL},
        "reasoning_text": {"type": SKIP, "text": _REASONING},
        "summary_text": {"type": SKIP, "text": _REASONING},
    },
)
_CALL: Mapping[str, Shape] = {"id": SKIP, "type": SKIP, "status": SKIP, "call_id": SKIP, "name": SKIP, "namespace": SKIP}
_ITEM: Shape = OneOf(
    "type",
    {
        "message": {"id": SKIP, "type": SKIP, "role": SKIP, "status": SKIP, "phase": SKIP, "content": Each(_PART)},
        "reasoning": {
            "id": SKIP,
            "type": SKIP,
            "status": SKIP,
            "encrypted_content": SKIP,
            "summary": Each(_PART, tag="s"),
            "content": Each(_PART),
        },
        "function_call": {**_CALL, "arguments": _ARGUMENTS},
        "custom_tool_call": {**_CALL, "input": _ARGUMENTS},
        "mcp_call": {
            **_CALL,
            "arguments": _ARGUMENTS,
            "output": _OTHER,
            "error": _OTHERS,
            "server_label": SKIP,
            "approval_request_id": SKIP,
        },
        "mcp_approval_request": {**_CALL, "arguments": _ARGUMENTS, "server_label": SKIP},
        "web_search_call": {**_CALL, "action": _OTHERS},
        "file_search_call": {**_CALL, "queries": _OTHERS, "results": _OTHERS},
        "code_interpreter_call": {**_CALL, "container_id": SKIP, "code": _ARGUMENTS, "outputs": _OTHERS},
        "image_generation_call": {
            **_CALL,
            "result": UNREADABLE,
            "revised_prompt": _OTHER,
            "action": SKIP,
            "background": SKIP,
            "output_format": SKIP,
            "quality": SKIP,
            "size": SKIP,
        },
        "compaction": {"id": SKIP, "type": SKIP, "encrypted_content": SKIP, "created_by": SKIP},
    },
)
# What the response repeats of the request is the app's own; `output` and `error` are the model's and the provider's.
_ECHOED = """
    id object created_at completed_at status model background billing conversation frequency_penalty incomplete_details instructions
    max_output_tokens max_tool_calls metadata moderation parallel_tool_calls presence_penalty previous_response_id prompt prompt_cache_key
    prompt_cache_retention reasoning safety_identifier service_tier store temperature text tool_choice tools top_logprobs top_p truncation
    usage user
"""
SHAPE: Shape = {**dict.fromkeys(_ECHOED.split(), SKIP), "output": Each(_ITEM), "output_text": _OTHER, "error": _OTHERS}

_PREFIX = "response."
# Deltas: the kind of their channel, and the field that numbers the block within the item.
_DELTAS: Mapping[str, tuple[Kind, str]] = {
    "output_text.delta": ("content", "content_index"),
    "refusal.delta": ("refusal", "content_index"),
    "reasoning_text.delta": ("reasoning", "content_index"),
    "reasoning_summary_text.delta": ("reasoning", "summary_index"),
    "function_call_arguments.delta": ("arguments", ""),
    "custom_tool_call_input.delta": ("arguments", ""),
    "mcp_call_arguments.delta": ("arguments", ""),
    "code_interpreter_call_code.delta": ("arguments", ""),
}
# The same text once more: the delta it repeats, and the field it stands in.
_WHOLES: Mapping[str, tuple[str, str]] = {
    "output_text.done": ("output_text.delta", "text"),
    "refusal.done": ("refusal.delta", "refusal"),
    "reasoning_text.done": ("reasoning_text.delta", "text"),
    "reasoning_summary_text.done": ("reasoning_summary_text.delta", "text"),
    "function_call_arguments.done": ("function_call_arguments.delta", "arguments"),
    "custom_tool_call_input.done": ("custom_tool_call_input.delta", "input"),
    "mcp_call_arguments.done": ("mcp_call_arguments.delta", "arguments"),
    "code_interpreter_call_code.done": ("code_interpreter_call_code.delta", "code"),
}
_WORDLESS = frozenset(
    (
        "queued",
        *(f"{tool}_call.{state}" for tool in ("web_search", "file_search") for state in ("in_progress", "searching", "completed")),
        *(f"code_interpreter_call.{state}" for state in ("in_progress", "interpreting", "completed")),
        *(f"image_generation_call.{state}" for state in ("in_progress", "generating", "completed")),
        *(f"mcp_{what}.{state}" for what in ("call", "list_tools") for state in ("in_progress", "completed", "failed")),
    )
)
_FIELDS = frozenset(
    {"type", "sequence_number", "item_id", "output_index", "content_index", "summary_index", "obfuscation", "name", "logprobs"}
)
_ENDS = frozenset({"completed", "incomplete"})
# A tuple: what is looked up in it comes from the upstream and may be a list.
_TOOL_ITEMS = (
    "function_call",
    "custom_tool_call",
    "mcp_approval_request",
    "computer_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
)
_ROLES: Mapping[str, Role] = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}
# Items of the conversation that nobody said: calls, their results, the model's thinking.
_UNSAID = frozenset(
    {"function_call", "custom_tool_call", "reasoning", "item_reference", "compaction", "web_search_call", "file_search_call"}
)


class _Body(msgspec.Struct):
    input: Any = None
    model: Any = None
    stream: bool | None = False
    instructions: Any = None
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    text: Any = None
    user: Any = None
    safety_identifier: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class _PlainDelta(msgspec.Struct, forbid_unknown_fields=True):
    """The frame that nearly all are: more text of an open part."""

    type: Literal["response.output_text.delta"]
    delta: str
    output_index: int
    content_index: int
    sequence_number: int = -1
    item_id: msgspec.Raw = msgspec.Raw()
    obfuscation: msgspec.Raw = msgspec.Raw()
    logprobs: Annotated[list[Any], msgspec.Meta(max_length=0)] | None = None


_decode_plain = msgspec.json.Decoder(_PlainDelta).decode


class Responses:
    name = "openai_responses"
    paths: tuple[str, ...] = ("/v1/responses", "/responses")
    framing: Framing = "events"
    stream_type = b"text/event-stream; charset=utf-8"

    def read_request(self, body: bytes, path: str) -> Request:
        try:
            found = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise decode_error(error) from None
        unknown: list[str] = []
        messages: list[Message] = []
        if found.instructions is not None:
            messages.append(Message(Role.SYSTEM, texts_in(found.instructions)))
        if isinstance(found.prompt, dict):
            # A stored prompt is the provider's; what is filled into it may be the patient's words.
            messages.extend(Message(Role.USER, text) for text in strings_in(found.prompt.get("variables")))
        items = 1
        if isinstance(found.input, str):
            messages.append(Message(Role.USER, found.input))
        elif isinstance(found.input, list):
            items = len(found.input)
            messages.extend(m for i, item in enumerate(found.input) if (m := _read_item(item, i, unknown)) is not None)
        elif found.input is not None:
            raise MalformedRequest('"input" must be a string or a list of items')
        elif not messages:
            raise MalformedRequest('"input" is missing; send what the user said')
        check_body(body, ((b'"input"', 1), (b'"content"', items), (b'"role"', items)))
        form = found.text.get("format") if isinstance(found.text, dict) else None
        return Request(
            messages=tuple(messages),
            stream=bool(found.stream),
            model=found.model if isinstance(found.model, str) else "",
            structured=isinstance(form, dict) and form.get("type") in ("json_schema", "json_object"),
            patient=string_or_none(found.safety_identifier) or string_or_none(found.user),
            history_not_visible=found.previous_response_id is not None or found.conversation is not None,
            unknown=tuple(unknown),
        )

    def read_reply(self, document: Any) -> Reading:
        reading = Reading(ends=None, last=True)
        find_text(document, SHAPE, reading)
        if any(item.get("type") in _TOOL_ITEMS for item in _items(document)):
            reading.tools.append(0)
        return reading

    def read_stream(self, request: Request, stamp: Stamp) -> "ResponsesStream":
        return ResponsesStream(request, stamp)

    def groups(self, document: Any) -> Collection[int]:
        # A response that is still queued or failed has no reply to add to.
        return (0,) if isinstance(document, dict) and document.get("status") in (None, "completed", "incomplete") else ()

    def add_content(self, document: Any, group: int, text: str) -> None:
        if isinstance(document, dict):
            document["output"] = [*_items(document), _message_item(f"msg_{document.get('id', '')}", text)]

    def cut_reply(self, document: Any, group: int) -> None:
        if not isinstance(document, dict):
            return
        kept = [item for item in _items(document) if item.get("type") == "message"]
        for item in kept:
            parts = item.get("content")
            for part in parts if isinstance(parts, list) else ():
                if isinstance(part, dict) and "annotations" in part:
                    part["annotations"] = []
        document |= {"output": kept, "status": "completed", "incomplete_details": None}

    def write_answer(self, request: Request, text: str, stamp: Stamp) -> bytes:
        done = {"status": "completed", "output": [_message_item(f"msg_{stamp.id}", text)], "usage": _USAGE}
        return orjson.dumps(_response(request, stamp) | done)

    def write_answer_stream(self, request: Request, text: str, stamp: Stamp) -> bytes:
        stream = ResponsesStream(request, stamp)
        return stream.insertion(0, text) + stream.end_stream(_nothing)

    def write_error(self, status: int, message: str) -> bytes:
        return orjson.dumps({"error": {"message": message, "type": ERROR_KINDS.get(status, "api_error"), "param": None, "code": None}})

    def write_error_frame(self, message: str) -> bytes:
        return write_event(b"error", orjson.dumps({"type": "error", "code": "server_error", "message": message, "param": None}))


class ResponsesStream:
    """Reads a Responses stream; keeps the response as the client has seen it, to be able to complete it."""

    plain_path: Path = ("delta",)

    def __init__(self, request: Request, stamp: Stamp) -> None:
        self._response = _response(request, stamp)
        self._stamp = stamp
        self._started = False
        self._number = 0
        self._shift = 0
        self._item: dict[str, Any] | None = None
        """The item that is open at the client, and where its open text part stands."""
        self._place: dict[str, Any] | None = None
        self._next_index = 0
        self._order: dict[Any, int] = {}
        """Items by id, in the order in which they came: their numbers, where the upstream gives none (llama.cpp)."""
        self._done: list[dict[str, Any]] = []
        self._inserted: list[dict[str, Any]] = []
        self._tools = False
        self._plain: _PlainDelta | None = None
        self._plain_data = b""

    # Read

    def plain(self, data: bytes) -> tuple[str, str] | None:
        try:
            found = self._plain = _decode_plain(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        self._plain_data = data
        return found.delta, f".{found.output_index}.{found.content_index}"

    def passed(self, data: bytes) -> bool:
        if self._shift:
            return True  # it has to be renumbered
        found = self._plain if data is self._plain_data else _decode_plain(data)
        if found is not None and found.sequence_number >= 0:
            self._number = found.sequence_number + 1
        return False

    def read(self, event: bytes, document: Any) -> Reading:
        reading = Reading()
        kind = document.get("type") if isinstance(document, dict) else None
        name = kind.removeprefix(_PREFIX) if isinstance(kind, str) else ""
        own = ""
        if name in _DELTAS:
            own = "delta"
            self._read_delta(document, *_DELTAS[name], reading)
        elif name in _WHOLES:
            delta, own = _WHOLES[name]
            self._read_whole(document, *_DELTAS[delta], own, reading)
            reading.closing = name in ("output_text.done", "refusal.done")
        elif name in ("output_item.added", "output_item.done"):
            own = "item"
            self._read_item(document, reading)
            reading.closing = name == "output_item.done" and _item_of(document).get("type") == "message"
        elif name in ("content_part.added", "content_part.done", "reasoning_summary_part.added", "reasoning_summary_part.done"):
            own = "part"
            self._read_part(document, reading)
            reading.closing = name == "content_part.done"
        elif name == "output_text.annotation.added":
            own = "annotation"
            find_text(document.get("annotation"), _ANNOTATION, reading, ("annotation",))
        elif name in ("created", "in_progress") or name in _ENDS:
            own = "response"
            find_text(document.get("response"), SHAPE, reading, ("response",), repeats=True)
            if name in _ENDS:
                reading.ends, reading.last = None, True
                if self._tools:
                    reading.tools.append(0)
        elif name in ("failed", "error"):
            response = document.get("response")
            reading.error = error_kind(response.get("error") if isinstance(response, dict) else document)
            return reading
        elif name == "image_generation_call.partial_image":
            own = "partial_image_b64"
            reading.remove.append((own,))
        elif name not in _WORDLESS:
            find_strings(document.decode("utf-8", "replace") if isinstance(document, bytes) else document, (), 0, reading, f"frame[{kind}]")
            return reading
        if document.get("logprobs"):
            reading.remove.append(("logprobs",))
        if document.keys() - _FIELDS - {own}:
            for field in sorted(document.keys() - _FIELDS - {own}):
                find_strings(document[field], (field,), 0, reading)
        return reading

    def _read_delta(self, document: dict[str, Any], kind: Kind, number: str, reading: Reading) -> None:
        text = document.get("delta")
        if not isinstance(text, str):
            find_strings(text, ("delta",), 0, reading)
        elif text or kind == "arguments":
            reading.pieces.append(self._piece(document, kind, number, ("delta",), text))

    def _index(self, document: dict[str, Any]) -> int:
        """Which item of the output a frame is about."""
        given = document.get("output_index")
        return given if isinstance(given, int) else self._order.setdefault(_item_id(document), len(self._order))

    def _piece(self, document: dict[str, Any], kind: Kind, number: str, path: tuple[str, ...], text: str) -> Piece:
        item = f".{self._index(document)}"
        if not number:
            return Piece(0, kind, item, path, text)
        tag = "s" if number == "summary_index" else ""
        return Piece(0, kind, "", path, text, f"{item}.{tag}{_number(document, number)}")

    def _read_whole(self, document: dict[str, Any], kind: Kind, number: str, field: str, reading: Reading) -> None:
        text = document.get(field)
        if not isinstance(text, str):
            find_strings(text, (field,), 0, reading)
        elif text or kind == "arguments":
            piece = self._piece(document, kind, number, (field,), text)
            piece.repeats = True
            reading.pieces.append(piece)

    def _read_item(self, document: dict[str, Any], reading: Reading) -> None:
        item = _item_of(document)
        if item.get("type") in _TOOL_ITEMS:
            self._tools = True
        find_text(document.get("item"), _ITEM, reading, ("item",), f".{self._index(document)}", repeats=True)

    def _read_part(self, document: dict[str, Any], reading: Reading) -> None:
        within = f"s{_number(document, 'summary_index')}" if "summary_index" in document else f"{_number(document, 'content_index')}"
        find_text(document.get("part"), _PART, reading, ("part",), f".{self._index(document)}.{within}", repeats=True)

    # Write

    def sent(self, document: Any) -> bool:
        if not isinstance(document, dict):
            return False
        name = str(document.get("type")).removeprefix(_PREFIX)
        if isinstance(document.get("sequence_number"), int):
            document["sequence_number"] += self._shift
            self._number = document["sequence_number"] + 1
        if name == "created" and isinstance(document.get("response"), dict):
            self._response = dict(document["response"])
            self._started = True
        elif name == "output_item.added":
            self._item = _item_of(document)
            self._next_index = self._index(document) + 1
        elif name == "content_part.added":
            number = _number(document, "content_index")
            self._place = {"item_id": document.get("item_id"), "output_index": self._index(document), "content_index": number}
        elif name in ("content_part.done", "output_text.done", "refusal.done"):
            self._place = None
        elif name == "output_item.done":
            self._done.append(_item_of(document))
            self._item = self._place = None
        elif name in _ENDS and self._inserted and isinstance(document.get("response"), dict):
            document["response"]["output"] = [*_items(document["response"]), *self._inserted]
            return True
        return self._shift > 0

    def insertion(self, group: int, text: str) -> bytes:
        if self._place is not None:
            self._shift += 1
            return self._frame("output_text.delta", **self._place, delta=text, logprobs=[])
        item = _message_item(f"msg_{self._stamp.id}_{self._next_index}", text)
        place = {"item_id": item["id"], "output_index": self._next_index, "content_index": 0}
        part = item["content"][0]
        begun = item | {"status": "in_progress", "content": []}
        self._next_index += 1
        self._inserted.append(item)
        self._done.append(item)
        out = self._start()
        before = self._number
        out += self._frame("output_item.added", output_index=place["output_index"], item=begun)
        out += self._frame("content_part.added", **place, part=part | {"text": ""})
        out += self._frame("output_text.delta", **place, delta=text, logprobs=[])
        out += self._close(place, item)
        self._shift += self._number - before
        return out

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return self._frame("created", response=self._response) + self._frame("in_progress", response=self._response)

    def _close(self, place: dict[str, Any], item: dict[str, Any]) -> bytes:
        part = item["content"][-1]
        out = self._frame("output_text.done", **place, text=part["text"], logprobs=[])
        out += self._frame("content_part.done", **place, part=part)
        return out + self._frame("output_item.done", output_index=place["output_index"], item=item)

    def end_group(self, group: int, shown: Shown) -> bytes:
        place, item = self._place, self._item
        if place is None or item is None:
            return b""
        segment = f".{place['output_index']}.{place['content_index']}"
        closed = _message_item(str(place["item_id"]), shown(group, segment))
        self._done.append(closed)
        self._place = self._item = None
        return self._close(place, closed)

    def end_stream(self, shown: Shown) -> bytes:
        done = {"status": "completed", "output": self._done, "usage": self._response.get("usage") or _USAGE}
        return self._start() + self._frame("completed", response=self._response | done)

    def _frame(self, name: str, **fields: Any) -> bytes:
        kind = _PREFIX + name
        number, self._number = self._number, self._number + 1
        return write_event(kind.encode(), orjson.dumps({"type": kind, "sequence_number": number, **fields}))

    def without(self, document: Any, groups: Collection[int]) -> Any:
        return None if groups else document


_USAGE: Mapping[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


def _response(request: Request, stamp: Stamp) -> dict[str, Any]:
    return {
        "id": f"resp_{stamp.id}",
        "object": "response",
        "created_at": stamp.created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": request.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }


def _message_item(identity: str, text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": identity, "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def _nothing(group: int, segment: str) -> str:
    return ""


def _items(document: Any) -> list[dict[str, Any]]:
    output = document.get("output") if isinstance(document, dict) else None
    return [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []


def _item_of(document: dict[str, Any]) -> dict[str, Any]:
    item = document.get("item")
    return item if isinstance(item, dict) else {}


def _number(document: dict[str, Any], name: str) -> int:
    number = document.get(name)
    return number if isinstance(number, int) else 0


def _item_id(document: dict[str, Any]) -> Any:
    identity = document.get("item_id", _item_of(document).get("id"))
    return identity if isinstance(identity, str) else None


def _read_item(item: Any, position: int, unknown: list[str]) -> Message | None:
    if not isinstance(item, dict):
        raise MalformedRequest(f"input[{position}] must be an item")
    kind = item.get("type", "message")
    if kind == "message":
        given = item.get("role")
        role = _ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            if not isinstance(given, str):
                raise MalformedRequest(f'input[{position}] has no "role"; use "user", "assistant" or "system"')
            role = Role.USER
            unknown.append(f"request:role[{given[:40]}]")
        extra = item.keys() - {"type", "role", "content", "status", "id", "phase"} if role is Role.USER else ()
        return read_parts(role, item.get("content"), extra, item, f"input[{position}]", unknown)
    if isinstance(kind, str) and (kind in _UNSAID or kind.startswith("mcp_") or kind.endswith("_call")):
        return None
    if isinstance(kind, str) and kind.endswith("_output"):
        return Message(Role.TOOL, "\n".join(strings_in(item.get("output"))))
    if kind in ("input_text", "input_image", "input_file", "input_audio"):
        return read_parts(Role.USER, [item], (), item, f"input[{position}]", unknown)
    # An item of an unknown kind may be what the patient says.
    unknown.append(f"request:item[{str(kind)[:40]}]")
    return Message(Role.USER, "\n".join(strings_in(item)), ("unknown",))
