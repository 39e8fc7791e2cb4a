"""What goes over the wire to a receiver, and what may become of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Post:
    """One HTTP POST."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def json_post(url: str, content: Any, headers: Mapping[str, str] | None = None, kind: str = "application/json") -> Post:
    """A POST of JSON; further headers do not replace its own."""
    return Post(url, orjson.dumps(content), {**(headers or {}), "content-type": kind})


def cut(text: str, length: int) -> str:
    """The text, shortened where a receiver would refuse it."""
    return text if len(text) <= length else text[: length - 1] + "…"
