"""Ollama: `/api/chat` and `/api/generate`, streamed as JSON lines unless told otherwise.

https://github.com/ollama/ollama/blob/main/docs/api.md. The two differ in where the words stand: `message.content` or `response`.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import orjson

from guardrail.engine.model import Message, Role
from guardrail.errors import MalformedRequest
from guardrail.proxy.dialects.dialect import Framing, Path, Reading, Request, Shown, Stamp
from guardrail.proxy.dialects.requests import check_body, decode_error, error_kind, read_parts
from guardrail.proxy.dialects.shape import SKIP, UNREADABLE, Each, Shape, Strings, Text, find_strings, find_text

_CONTENT, _REASONING = Text("content"), Text("reasoning")
_COMMON = (
    "model created_at done done_reason remote_model remote_host total_duration load_duration prompt_eval_count prompt_eval_duration"
    " eval_count eval_duration context"
)
_HEAD: Mapping[str, Shape] = dict.fromkeys(_COMMON.split(), SKIP)
_FUNCTION: Shape = {"index": SKIP, "name": SKIP, "description": SKIP, "arguments": Strings("arguments")}
_CALL: Shape = {"id": SKIP, "type": SKIP, "function": _FUNCTION}
CHAT_SHAPE: Shape = {
    **_HEAD,
    "logprobs": UNREADABLE,
    "message": {
        "role": SKIP,
        "content": _CONTENT,
        "thinking": _REASONING,
        "images": UNREADABLE,
        "tool_name": SKIP,
        "tool_calls": Each(_CALL),
    },
}
GENERATE_SHAPE: Shape = {**_HEAD, "logprobs": UNREADABLE, "response": _CONTENT, "thinking": _REASONING, "image": UNREADABLE}
_USER_FIELDS = frozenset({"role", "content", "images"})
_ROLES: Mapping[str, Role] = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "tool": Role.TOOL}


class _ChatBody(msgspec.Struct):
    messages: list[dict[str, Any]] = []
    model: Any = None
    stream: bool | None = True
    format: Any = None


class _GenerateBody(msgspec.Struct):
    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    images: list[Any] | None = None
    context: Any = None
    model: Any = None
    stream: bool | None = True
    format: Any = None


_decode_chat = msgspec.json.Decoder(_ChatBody).decode
_decode_generate = msgspec.json.Decoder(_GenerateBody).decode


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True):
    content: str
    role: msgspec.Raw = msgspec.Raw()


class _PlainLine(msgspec.Struct, forbid_unknown_fields=True):
    """The line that nearly all are: more text of a chat."""

    message: _PlainMessage
    done: Literal[False]
    model: msgspec.Raw = msgspec.Raw()
    created_at: msgspec.Raw = msgspec.Raw()


_decode_plain = msgspec.json.Decoder(_PlainLine).decode


class _Ollama:
    """What the two have in common; `_path` leads to the words."""

    framing: Framing = "lines"
    stream_type = b"application/x-ndjson"
    shape: Shape
    path: tuple[str, ...]

    def read_reply(self, document: Any) -> Reading:
        reading = Reading(ends=None, last=True)
        find_text(document, self.shape, reading)
        if _calls_tool(document):
            reading.tools.append(0)
        return reading

    def read_stream(self, request: Request, stamp: Stamp) -> "OllamaStream":
        return OllamaStream(request, stamp, self.shape, self.path)

    def groups(self, document: Any) -> Collection[int]:
        return (0,)

    def add_content(self, document: Any, group: int, text: str) -> None:
        for step in self.path[:-1]:
            document = document.get(step)
        if isinstance(document, dict):
            document[self.path[-1]] = text

    def cut_reply(self, document: Any, group: int) -> None:
        if isinstance(document, dict):
            if isinstance(document.get("message"), dict):
                document["message"].pop("tool_calls", None)
                document["message"].pop("images", None)
            document["done_reason"] = "stop"

    def write_answer(self, request: Request, text: str, stamp: Stamp) -> bytes:
        return orjson.dumps(_line(request.model, stamp, self.path, text) | _END)

    def write_answer_stream(self, request: Request, text: str, stamp: Stamp) -> bytes:
        stream = self.read_stream(request, stamp)
        return stream.insertion(0, text) + stream.end_group(0, _nothing)

    def write_error(self, status: int, message: str) -> bytes:
        return orjson.dumps({"error": message})

    def write_error_frame(self, message: str) -> bytes:
        return self.write_error(502, message) + b"\n"


class OllamaChat(_Ollama):
    name = "ollama_chat"
    paths: tuple[str, ...] = ("/api/chat",)
    shape = CHAT_SHAPE
    path = ("message", "content")

    def read_request(self, body: bytes, path: str) -> Request:
        try:
            found = _decode_chat(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise decode_error(error) from None
        unknown: list[str] = []
        messages = tuple(_read_message(m, i, unknown) for i, m in enumerate(found.messages))
        check_body(body, ((b'"messages"', 1), (b'"content"', len(messages)), (b'"role"', len(messages))))
        return Request(
            messages=messages,
            stream=found.stream is not False,
            model=found.model if isinstance(found.model, str) else "",
            structured=bool(found.format),
            unknown=tuple(unknown),
        )


class OllamaGenerate(_Ollama):
    name = "ollama_generate"
    paths: tuple[str, ...] = ("/api/generate",)
    shape = GENERATE_SHAPE
    path = ("response",)

    def read_request(self, body: bytes, path: str) -> Request:
        try:
            found = _decode_generate(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise decode_error(error) from None
        check_body(body, ((b'"prompt"', 1), (b'"suffix"', 1)))
        messages = [Message(Role.SYSTEM, found.system)] if found.system else []
        said = "\n".join(text for text in (found.prompt, found.suffix) if text)
        messages.append(Message(Role.USER, said, ("image",) if found.images else ()))
        return Request(
            messages=tuple(messages),
            stream=found.stream is not False,
            model=found.model if isinstance(found.model, str) else "",
            structured=bool(found.format),
            history_not_visible=bool(found.context),
        )


class OllamaStream:
    """Reads the lines of a reply."""

    plain_path: Path = ("message", "content")

    def __init__(self, request: Request, stamp: Stamp, shape: Shape, path: tuple[str, ...]) -> None:
        self._model = request.model
        self._stamp = stamp
        self._shape = shape
        self._path = path
        self._tools = False

    def plain(self, data: bytes) -> tuple[str, str] | None:
        if len(self._path) == 1:
            return None
        try:
            found = _decode_plain(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return found.message.content, ""

    def passed(self, data: bytes) -> bool:
        return False

    def read(self, event: bytes, document: Any) -> Reading:
        reading = Reading()
        if not isinstance(document, dict):
            text = document.decode("utf-8", "replace") if isinstance(document, bytes) else document
            find_strings(text, (), 0, reading, "frame")
            return reading
        if document.get("error"):
            reading.error = error_kind(document)
            return reading
        find_text(document, self._shape, reading)
        self._tools = self._tools or _calls_tool(document)
        if isinstance(document.get("model"), str):
            self._model = document["model"]
        if document.get("done"):
            reading.ends, reading.last = None, True
            if self._tools:
                reading.tools.append(0)
        return reading

    def sent(self, document: Any) -> bool:
        return False

    def insertion(self, group: int, text: str) -> bytes:
        return orjson.dumps(_line(self._model, self._stamp, self._path, text) | {"done": False}) + b"\n"

    def end_group(self, group: int, shown: Shown) -> bytes:
        return orjson.dumps(_line(self._model, self._stamp, self._path, "") | _END) + b"\n"

    def end_stream(self, shown: Shown) -> bytes:
        return b""

    def without(self, document: Any, groups: Collection[int]) -> Any:
        return None if groups else document


_END: dict[str, Any] = {"done": True, "done_reason": "stop", "total_duration": 0, "eval_count": 0}


def _line(model: str, stamp: Stamp, path: tuple[str, ...], text: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(stamp.created, UTC).isoformat().replace("+00:00", "Z")
    words: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if len(path) > 1 else {"response": text}
    return {"model": model, "created_at": created, **words}


def _nothing(group: int, segment: str) -> str:
    return ""


def _calls_tool(document: Any) -> bool:
    message = document.get("message") if isinstance(document, dict) else None
    return isinstance(message, dict) and bool(message.get("tool_calls"))


def _read_message(message: dict[str, Any], position: int, unknown: list[str]) -> Message:
    given = message.get("role")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        if not isinstance(given, str):
            raise MalformedRequest(f'messages[{position}] has no "role"; use "user", "assistant", "system" or "tool"')
        role = Role.USER
        unknown.append(f"request:role[{given[:40]}]")
    extra = message.keys() - _USER_FIELDS if role is Role.USER else ()
    found = read_parts(role, message.get("content"), extra, message, f"messages[{position}]", unknown)
    if message.get("images"):
        return Message(role, found.text, (*found.unread, "image"))
    return found
