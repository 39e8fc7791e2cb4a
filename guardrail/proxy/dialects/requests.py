"""What all dialects share in reading requests: bodies that two readers could read differently, and parts of messages.

The original bytes are sent on, so what the guard reads must be what the upstream reads: a repeated key, of which one
reader takes the first and another the last, is refused. What a message holds beside text is named in `unread`, never
dropped silently; of a part nobody knows, every string is taken as said.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from guardrail.engine.model import Message, Role
from guardrail.errors import MalformedRequest

TEXT_PARTS: Mapping[str, str] = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
UNREAD_PARTS: Mapping[str, str] = {
    "image_url": "image",
    "image": "image",
    "input_image": "image",
    "input_audio": "audio",
    "audio": "audio",
    "audio_url": "audio",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
    "container_upload": "file",
}


def decode_error(error: Exception) -> MalformedRequest:
    """The caller's mistake in the caller's terms; never quotes the body, which holds a patient's words."""
    if isinstance(error, RecursionError):
        return MalformedRequest("the body is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return MalformedRequest(f"the body is not UTF-8 (byte {error.start})")
    message = str(error)
    if "surrogate" in message or "truncated" in message:
        return MalformedRequest("the body is not JSON: it is cut off, or holds half of a surrogate pair")
    return MalformedRequest(f"the body cannot be read: {message[:1].lower()}{message[1:]}")


def check_body(body: bytes, expected: Sequence[tuple[bytes, int]]) -> None:
    """Refuse bodies that another reader may read differently, and null characters.

    `expected` says how often the keys that carry the conversation stand in a body without tricks. Only a body with more
    of them, or with escaped ASCII (a key in disguise), is parsed a second time.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise decode_error(error) from None
    suspicious = False
    for name, count in expected:
        if body.count(name) > count:
            suspicious = True
    if b"\\u00" in body:
        if b"\\u0000" in body and b"\\u0000" in body.replace(b"\\\\", b""):
            raise MalformedRequest("the body holds a null character (\\u0000); remove it")
        suspicious = True
    if suspicious:
        try:
            json.loads(body, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
        except RecursionError as error:
            raise decode_error(error) from None
        except ValueError as error:
            raise MalformedRequest(f"the body cannot be read: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedRequest("a key stands twice in one object of the body; send each key once")
    return found


def _no_constant(name: str) -> NoReturn:
    raise MalformedRequest(f"{name} is not JSON")


def string_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def read_parts(role: Role, content: Any, extra: Collection[str], message: Mapping[str, Any], where: str, unknown: list[str]) -> Message:
    """A message whose content is a list of parts, or that has fields beyond the usual (`extra`)."""
    texts: list[str] = []
    unread: list[str] = []
    if isinstance(content, str):
        texts.append(content)
    elif isinstance(content, list):
        for part in content:
            read_part(part, texts, unread, unknown)
    elif content is not None:
        raise MalformedRequest(f'{where}: "content" must be a string or a list of parts')
    for name in sorted(extra):
        found = strings_in(message[name])
        if found:
            texts.extend(found)
            unread.append("unknown")
            unknown.append(f"request:{name[:40]}")
    return Message(role, "\n".join(texts), tuple(dict.fromkeys(unread)))


def read_part(part: Any, texts: list[str], unread: list[str], unknown: list[str]) -> None:
    """One part of a message: its text, or the name of what it is."""
    if isinstance(part, str):
        texts.append(part)
        return
    if (text := _text_of(part)) is not None:
        texts.append(text)
        return
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in UNREAD_PARTS:
        unread.append(UNREAD_PARTS[kind])
        return
    texts.extend(strings_in(part))
    unread.append("unknown")
    unknown.append(f"request:part[{str(kind)[:40]}]")


def texts_in(content: Any) -> str:
    """The text of what the app or the model said: context only, so parts that hold none are left out."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "\n".join(text for part in parts if isinstance(text := part if isinstance(part, str) else _text_of(part), str))


def _text_of(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(TEXT_PARTS[kind]) if isinstance(kind, str) and kind in TEXT_PARTS else None
    return text if isinstance(text, str) else None


def strings_in(value: Any, depth: int = 0) -> list[str]:
    """Every string under a value nobody described, to a depth no real document reaches."""
    if isinstance(value, str):
        return [value] if value else []
    if depth > 64:
        return []
    if isinstance(value, dict):
        return [s for inner in value.values() for s in strings_in(inner, depth + 1)]
    if isinstance(value, list):
        return [s for inner in value for s in strings_in(inner, depth + 1)]
    return []


def error_kind(error: Any) -> str:
    """The kind of an error that an upstream reports in mid-stream; its message is not passed on, because nobody reviewed it."""
    kind = error.get("type") or error.get("code") if isinstance(error, dict) else None
    plain = re.sub(r"[^\w.-]", "", str(kind)) if kind else ""
    return plain[:60] or "error"
