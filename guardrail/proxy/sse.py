"""Cuts the bytes of a stream into frames: event streams (SSE) and JSON lines.

Pure, `feed` and `finish`; the frames do not depend on how the bytes were cut up. Lines end on CR, LF and CRLF and are
looked for in bytes: `str.splitlines` also splits on characters that stand inside JSON text. What a frame carries beside
event and data (comments, retry, unknown fields) is text nobody reviews, so such a frame is written anew without it.
Does not look into the data.
"""

from dataclasses import dataclass
from typing import Protocol

from guardrail.errors import UpstreamLost

_BOM = b"\xef\xbb\xbf"
KEEP_ALIVE = b":\n\n"


@dataclass(slots=True)
class Frame:
    """One event or line. `raw` is what may be sent on as it is, its blank line included."""

    raw: bytes
    event: bytes
    data: bytes


class Splitter(Protocol):
    def feed(self, data: bytes) -> list[Frame]: ...

    def finish(self) -> list[Frame]: ...


def write_event(event: bytes, data: bytes) -> bytes:
    """One SSE frame; `data` holds no line break (JSON does not)."""
    return b"event: %b\ndata: %b\n\n" % (event, data) if event else b"data: %b\n\n" % data


class SseSplitter:
    """An event stream. A frame without data (a comment, a ping) comes back with empty `data`."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._buffer = b""
        self._searched = 0
        self._after_cr = False
        self._begun = False
        self._max = max_frame_bytes

    def feed(self, data: bytes) -> list[Frame]:
        if self._begun and not self._buffer and not self._after_cr and _is_one_line(data):
            return [Frame(data, b"", data[6:-2])]
        if self._after_cr or b"\r" in data:
            data = self._unify(data)
        buffer = self._buffer + data if self._buffer else data
        if not self._begun:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._buffer = buffer
                return []
            self._begun = True
            buffer = buffer.removeprefix(_BOM)
        if buffer.find(b"\n\n", self._searched) < 0:
            if len(buffer) > self._max:
                raise UpstreamLost(f"an event of the stream is larger than {self._max} bytes")
            self._buffer = buffer
            self._searched = max(len(buffer) - 1, 0)
            return []
        *blocks, self._buffer = buffer.split(b"\n\n")
        self._searched = 0
        return [frame for block in blocks if (frame := _read_event(block)) is not None]

    def finish(self) -> list[Frame]:
        """What stood at the end without its blank line: by the letter it is void, in the wild it is the last event."""
        frame = _read_event(self._buffer)
        self._buffer = b""
        return [] if frame is None or not frame.data else [frame]

    def _unify(self, data: bytes) -> bytes:
        """CR and CRLF become LF. A CR ends its line at once; an LF that follows in the next chunk belongs to it."""
        if self._after_cr and data:
            self._after_cr = False
            if data[:1] == b"\n":
                data = data[1:]
        if data[-1:] == b"\r":
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _is_one_line(data: bytes) -> bool:
    """One whole frame of one line of data, as models send them."""
    return data[:6] == b"data: " and data[-2:] == b"\n\n" and data.find(b"\n") == len(data) - 2 and b"\r" not in data


def _read_event(block: bytes) -> Frame | None:
    if block[:6] == b"data: " and b"\n" not in block:
        return Frame(block + b"\n\n", b"", block[6:])
    block = block.strip(b"\n")
    if not block:
        return None
    event, data, verbatim = b"", [], True
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value
        else:
            verbatim = False
    if not data:
        return Frame(KEEP_ALIVE, event, b"")
    joined = b"\n".join(data)
    if verbatim:
        return Frame(block + b"\n\n", event, joined)
    lines = b"".join(b"data: %b\n" % line for line in data)
    return Frame((b"event: %b\n" % event if event else b"") + lines + b"\n", event, joined)


class LineSplitter:
    """JSON lines (Ollama). Empty lines are dropped."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._buffer = b""
        self._searched = 0
        self._max = max_frame_bytes

    def feed(self, data: bytes) -> list[Frame]:
        buffer = self._buffer + data if self._buffer else data
        if buffer.find(b"\n", self._searched) < 0:
            if len(buffer) > self._max:
                raise UpstreamLost(f"a line of the stream is larger than {self._max} bytes")
            self._buffer = buffer
            self._searched = len(buffer)
            return []
        *lines, self._buffer = buffer.split(b"\n")
        self._searched = 0
        return [Frame(line + b"\n", b"", line) for line in map(bytes.strip, lines) if line]

    def finish(self) -> list[Frame]:
        line = self._buffer.strip()
        self._buffer = b""
        return [Frame(line + b"\n", b"", line)] if line else []
