"""Lets a reply through as it is reviewed: the frames of a stream, or one JSON document.

Every frame is held until all of its text was released by the reply guard of its channel, and frames leave in the order
they came. A frame whose text was released unchanged goes out as the bytes that came in; an edited one is written anew.
When a group (a choice) ends, what the reply guard adds goes before the frames that end it. When a channel is cut, the
rest of its group is dropped, and the replacement and the protocol's normal ending take its place.

Pure: no clock, no network. What comes out does not depend on how the bytes were cut up. Knows no provider: the dialect's
reader says where text stands. Tool arguments go through whole or not at all, because half a call is a broken call.
"""

from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from guardrail.engine.reply import Edit, ReplyGuard, ReplyReport, Review
from guardrail.proxy.dialects.dialect import Dialect, Kind, Piece, Reading, Request, Stamp
from guardrail.proxy.dialects.shape import put
from guardrail.proxy.sse import LineSplitter, Splitter, SseSplitter, write_event

MakeGuard = Callable[[str, bool], ReplyGuard]
"""(channel, structured) -> the reply guard of that channel."""

SLICE_CHARS = 4000
"""Text given to a reply guard at once: like the engine's pieces, a few milliseconds of work."""
MOST_NAMES = 50
"""Names of what was not evaluated that are kept of one reply."""
# What is read of a plain frame beside its text.
_NOTHING_READ = Reading()
# Text of unknown fields is reviewed like tool arguments: in full, with nothing added to it.
_GUARD_CHANNEL: dict[Kind, str] = {
    "content": "content",
    "reasoning": "reasoning",
    "refusal": "refusal",
    "arguments": "arguments",
    "other": "arguments",
}


class _Channel:
    """One channel of one group, with its reply guard and what is known of its text."""

    __slots__ = (
        "added",
        "cut_at",
        "edited_to",
        "edits",
        "finished",
        "group",
        "guard",
        "key",
        "kind",
        "length",
        "plain",
        "preface",
        "released",
        "segments",
        "text",
    )

    def __init__(self, group: int, kind: Kind, key: str, guard: ReplyGuard) -> None:
        self.group = group
        self.kind: Kind = kind
        self.key = key
        self.guard = guard
        self.text: list[str] = []
        self.length = 0
        self.released = 0
        self.edits: list[Edit] = []
        self.edited_to = 1
        """Text from here on has no edits, and no preface before it."""
        self.cut_at: int | None = None
        self.finished = False
        self.preface = guard.preface()
        self.plain = not self.preface
        """Nothing was edited, cut or put before: what is shown is what came."""
        self.added = ""
        self.segments: dict[str, list[int]] = {}

    def feed(self, text: str) -> None:
        self.text.append(text)
        self.length += len(text)
        if text and self.cut_at is None:
            review = self.guard.feed(text)
            if review.edits or review.cut:
                self._change(review)
            else:
                self.released = review.released

    def finish(self) -> None:
        """No more text. What the guard does not release now is never shown."""
        if self.finished:
            return
        self.finished = True
        if self.cut_at is None:
            self._change(self.guard.finish())
            if self.released < self.length:
                self.cut()

    def cut(self) -> None:
        """Nothing after what is released."""
        if self.cut_at is None:
            self.cut_at = self.released
            self.plain = False

    def _change(self, review: Review) -> None:
        self.released = review.released
        if review.edits:
            self.edits = sorted((*self.edits, *review.edits), key=lambda e: e.start)
            self.edited_to = max(e.end for e in self.edits) + 1
            self.plain = False
        if review.cut:
            self.cut()

    def shown(self, start: int, end: int) -> str:
        """What is shown in the place of the characters `start` to `end`; an edit stands where it begins."""
        limit = end if self.cut_at is None else min(end, self.cut_at)
        text = "".join(self.text)
        out: list[str] = [self.preface] if start == 0 else []
        at = start
        for edit in self.edits:
            if edit.start < start:
                at = max(at, edit.end)
                continue
            if edit.start >= limit and not edit.start == limit == self.length:
                break
            out.append(text[at : max(at, edit.start)])
            out.append(edit.text)
            at = max(at, edit.end)
        out.append(text[at : max(at, limit)])
        return "".join(out)

    def last_segment(self) -> str:
        return next(reversed(self.segments), "")


@dataclass(slots=True)
class _Part:
    """A piece in its channel: it is the characters `start` to `end` of the channel's text."""

    piece: Piece
    channel: _Channel
    start: int
    end: int
    after: str = ""
    """Put in behind the piece: what the guard adds, where the frame that ends the reply holds text itself."""
    blank: bool = False
    """Text behind a cut: never shown, and not reviewed any more."""

    def is_ready(self) -> bool:
        channel = self.channel
        if self.blank:
            return True
        if channel.kind == "arguments":
            return channel.finished
        return channel.released >= self.end or channel.cut_at is not None

    def is_cut(self) -> bool:
        """Whether it is not shown as a whole. Tool arguments are not shown at all then."""
        cut_at = self.channel.cut_at
        return self.blank or (cut_at is not None and (self.end > cut_at or self.channel.kind == "arguments"))

    def shown(self) -> str:
        channel = self.channel
        if self.blank or (channel.kind == "arguments" and channel.cut_at is not None):
            return self.after
        if channel.plain or (channel.cut_at is None and self.start >= channel.edited_to):
            text = self.piece.text
        else:
            text = channel.shown(self.start, self.end)
        if self.piece.repeats and self.piece.segment == channel.last_segment():
            text += channel.added
        return text + self.after


@dataclass(slots=True)
class _Held:
    """A frame with its parts, and the texts to be shown as content ahead of it, each with its group."""

    raw: bytes
    event: bytes
    document: Any
    reading: Reading
    parts: list[_Part] = field(default_factory=list)
    before: list[tuple[int, str]] = field(default_factory=list)
    plain: bytes = b""
    """The data of a plain frame, of which no document was made yet."""

    def open(self) -> Any:
        """The document, made now where there was none."""
        if self.plain:
            self.document = orjson.loads(self.plain)
            self.plain = b""
        return self.document


class _Relay:
    """What streams and documents have in common: channels, groups, cuts."""

    def __init__(self, request: Request, make_guard: MakeGuard, remove_unreadable: bool) -> None:
        self._request = request
        self._make_guard = make_guard
        self._remove_unreadable = remove_unreadable
        self._channels: dict[tuple[int, Kind, str], _Channel] = {}
        self._past: list[_Channel] = []
        self._cut: dict[int, _Channel] = {}
        """Groups that were cut, with the channel that caused it."""
        self.not_evaluated: dict[str, None] = {}

    @property
    def cut(self) -> bool:
        return bool(self._cut)

    def reports(self) -> list[tuple[str, ReplyReport]]:
        """Channel and report of everything that was reviewed."""
        return [(c.kind, c.guard.report) for c in (*self._past, *self._channels.values())]

    def shown(self, group: int, segment: str) -> str:
        channel = self._channels.get((group, "content", ""))
        if channel is None:
            return ""
        start, end = channel.segments.get(segment, (0, 0))
        return channel.shown(start, end) + (channel.added if segment == channel.last_segment() else "")

    def _channel(self, group: int, kind: Kind, key: str) -> _Channel:
        known = self._channels.get((group, kind, key))
        if known is None:
            structured = kind in ("arguments", "other") or (kind == "content" and self._request.structured)
            known = _Channel(group, kind, key, self._make_guard(_GUARD_CHANNEL[kind], structured))
            self._channels[group, kind, key] = known
        return known

    def _of_group(self, group: int) -> list[_Channel]:
        return [c for c in self._channels.values() if c.group == group]

    def _close_others(self, piece: Piece) -> None:
        """When other text of the group begins, reasoning and tool arguments before it are complete.

        Otherwise what their guards still hold would hold back everything behind it. More of the same is a new channel.
        """
        channels = self._channels
        if not channels or (len(channels) == 1 and (piece.group, piece.kind, piece.key) in channels):
            return
        for at, channel in list(channels.items()):
            if at[0] == piece.group and at[1] in ("reasoning", "arguments") and at != (piece.group, piece.kind, piece.key):
                channel.finish()
                self._past.append(channels.pop(at))
                self._heed(channel)

    def _blank(self, piece: Piece) -> _Part:
        """The part of a piece behind a cut."""
        return _Part(piece, self._channel(piece.group, piece.kind, piece.key), 0, 0, blank=True)

    def _locate(self, piece: Piece) -> tuple[_Part, str]:
        """The part a piece is, and the text of it that is new to its channel."""
        if piece.repeats and (earlier := self._repeated(piece)) is not None:
            return earlier, ""
        channel = self._channel(piece.group, piece.kind, piece.key)
        known = channel.segments.get(piece.segment)
        if piece.repeats and known is not None and known[0] < known[1]:
            # Not what its deltas said: reviewed anew, and never taken for the text that was reviewed.
            self.not_evaluated["reply:text differs from its deltas"] = None
            channel = self._channel(piece.group, "other", f"{piece.kind}{piece.segment}{piece.path}")
            known = None
        if known is None:
            if channel.segments and channel.kind != "other":
                channel.feed("\n")  # words of two blocks do not run together
            known = channel.segments[piece.segment] = [channel.length, channel.length]
        start = known[1] = channel.length
        known[1] += len(piece.text)
        return _Part(piece, channel, start, known[1]), piece.text

    def _repeated(self, piece: Piece) -> _Part | None:
        """The earlier text that a piece repeats word for word."""
        known = self._channels.get((piece.group, piece.kind, piece.key))
        for channel in (known, *reversed(self._past)):
            if channel is None or (channel.group, channel.kind, channel.key) != (piece.group, piece.kind, piece.key):
                continue
            span = channel.segments.get(piece.segment)
            if span is not None and "".join(channel.text)[span[0] : span[1]] == piece.text:
                return _Part(piece, channel, span[0], span[1])
        return None

    def _heed(self, channel: _Channel) -> None:
        """A cut of what the patient reads, or an app acts on, cuts the whole reply; cut reasoning is only left out."""
        if channel.cut_at is not None and channel.kind != "reasoning" and channel.group not in self._cut:
            self._cut[channel.group] = channel
            for other in self._of_group(channel.group):
                other.cut()

    def _note(self, reading: Reading) -> None:
        names = (*reading.unknown, *(".".join(s for s in path if isinstance(s, str)) for path in reading.remove))
        for name in names[: MOST_NAMES - len(self.not_evaluated)]:
            self.not_evaluated[f"reply:{name[:100]}"] = None

    def _finish_group(self, group: int) -> None:
        for channel in self._of_group(group):
            channel.finish()
            self._heed(channel)

    def _ending(self, group: int) -> tuple[_Channel, str] | None:
        """What the guard adds to a complete reply, and the channel it belongs to."""
        channel = self._channels.get((group, "content", "")) or next((c for c in self._of_group(group) if c.kind == "refusal"), None)
        if channel is None:
            channel = self._channel(group, "content", "")
            channel.finish()
        channel.added = channel.guard.ending()
        if channel.length == 0:
            channel.added = channel.preface + channel.added
        return (channel, channel.added) if channel.added else None

    def _replacement(self, group: int) -> str:
        """What follows a cut; kept with the content, so that a repetition of the content says the same."""
        text = self._cut[group].guard.ending()
        content = self._channels.get((group, "content", ""))
        if content is not None:
            content.added = text
        return text

    def _write_parts(self, held: _Held) -> bool:
        """Put what is shown into the document; False when it was all so already."""
        changed = False
        for part in held.parts:
            if part.channel.plain and not part.after and not part.piece.repeats and not part.blank:
                continue
            text = part.shown()
            if text != part.piece.text:
                held.document = _put(held.open(), part.piece, text)
                changed = True
        if held.reading.remove and self._remove_unreadable:
            for path in held.reading.remove:
                held.document = _put_at(held.document, path, None)
            changed = True
        return changed


class StreamRelay(_Relay):
    """One stream. `feed` and `finish` return what may be sent now; `done` says that the client has its ending."""

    def __init__(
        self, dialect: Dialect, request: Request, stamp: Stamp, make_guard: MakeGuard, max_frame_bytes: int, remove_unreadable: bool = True
    ) -> None:
        super().__init__(request, make_guard, remove_unreadable)
        self._dialect = dialect
        self._reader = dialect.read_stream(request, stamp)
        self._splitter: Splitter = SseSplitter(max_frame_bytes) if dialect.framing == "events" else LineSplitter(max_frame_bytes)
        self._held: deque[_Held] = deque()
        self._out: list[bytes] = []
        """Written and not yet handed out; it survives a failure in mid-feed, because the reader counts it as sent."""
        self._ended: set[int] = set()
        self._seen: set[int] = set()
        self._carried_out: set[int] = set()
        self._flowing: _Channel | None = None
        """The content of group 0, once it has begun."""
        self.done = False
        self.failed: str | None = None
        """The kind of failure the upstream reported in the stream; nothing after it is read."""

    def feed(self, data: bytes) -> bytes:
        for frame in self._splitter.feed(data):
            self._take(frame.raw, frame.event, frame.data, self._out)
        return self._written()

    def finish(self) -> bytes:
        """The upstream's bytes are complete. If its protocol's ending was not among them it was lost: not `done`."""
        for frame in self._splitter.finish():
            self._take(frame.raw, frame.event, frame.data, self._out)
        return self._written()

    def lose(self, notice: str, message: str) -> bytes:
        """The upstream died: what was held is not shown; a closing notice and an error end the stream honestly."""
        for group in self._abandon():
            if notice:
                self._out.append(self._reader.insertion(group, self._apart(group) + notice))
        self._out.append(self._dialect.write_error_frame(message))
        return self._written()

    def stop(self, text: str) -> bytes:
        """The guard failed: nothing more of the reply; the safe answer and the normal ending instead."""
        for group in self._abandon():
            said = self._apart(group) + text
            if (content := self._channels.get((group, "content", ""))) is not None:
                content.added = said
            self._out.append(self._reader.insertion(group, said))
            self._out.append(self._reader.end_group(group, self.shown))
        self._out.append(self._reader.end_stream(self.shown))
        return self._written()

    def _abandon(self) -> list[int]:
        """Show nothing more of the reply; the groups that have no ending yet."""
        self._held.clear()
        self.done = True
        for channel in self._channels.values():
            channel.cut()
        return sorted((self._seen or {0}) - self._ended - self._cut.keys())

    def _apart(self, group: int) -> str:
        """What keeps words of ours from running into those that were shown."""
        content = self._channels.get((group, "content", ""))
        shown = content.shown(0, content.length) if content is not None else ""
        return "\n\n" if shown and not shown[-1].isspace() else ""

    def _written(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _take(self, raw: bytes, event: bytes, data: bytes, out: list[bytes]) -> None:
        """One frame: read it, review its text, send what has become free."""
        if self.done or self.failed:
            return
        if not data:
            if not self._held:
                out.append(raw)
            return
        if self._take_plain(raw, event, data, out):
            return
        document: Any
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            document = data
        reading = self._reader.read(event, document)
        if reading.error:
            self.failed = reading.error
            return
        if isinstance(document, bytes) and not reading.last and self._remove_unreadable:
            self._note(reading)
            return  # not JSON: what a client would make of it cannot be known
        if reading.unknown or reading.remove:
            self._note(reading)
        held = _Held(raw, event, document, reading)
        for piece in reading.pieces:
            if piece.group in self._cut:
                held.parts.append(self._blank(piece))
                continue
            self._seen.add(piece.group)
            self._close_others(piece)
            part, text = self._locate(piece)
            held.parts.append(part)
            if text:
                part.channel.feed(text)
                self._heed(part.channel)
        if self._flowing is None:
            self._flowing = self._channels.get((0, "content", ""))
        self._held.append(held)
        if reading.ends != ():
            self._end_groups(reading)
        if self._cut:
            self._carry_out_cuts(out)
        self._release(out)
        if reading.last and not self._held:
            self.done = True

    def _take_plain(self, raw: bytes, event: bytes, data: bytes, out: list[bytes]) -> bool:
        """The short way of a frame that holds more of an open text: nothing of it is read but the text."""
        channel = self._flowing
        if channel is None or len(self._channels) != 1 or channel.finished or channel.cut_at is not None:
            return False
        found = self._reader.plain(data)
        if found is None:
            return False
        text, name = found
        segment = channel.segments.get(name)
        start = channel.length
        if segment is None or segment[1] != start:
            return False
        channel.feed(text)
        segment[1] = channel.length
        held = self._held
        shown = channel.released == channel.length and channel.cut_at is None and (channel.plain or start >= channel.edited_to)
        if shown and not held and not self._reader.passed(data):
            out.append(raw)
            return True
        piece = Piece(0, "content", "", self._reader.plain_path, text, name)
        held.append(_Held(raw, event, None, _NOTHING_READ, [_Part(piece, channel, start, channel.length)], plain=data))
        self._heed(channel)
        if self._cut:
            self._carry_out_cuts(out)
        self._release(out)
        return True

    def _end_groups(self, reading: Reading) -> None:
        """Groups end with the newest frame: review them to the end, and put what is added where it belongs."""
        for group in sorted(self._seen or {0}) if reading.ends is None else reading.ends:
            if group in self._ended or group in self._cut:
                continue
            self._ended.add(group)
            self._finish_group(group)
            if group in self._cut or group in reading.tools:
                continue
            if (ending := self._ending(group)) is not None:
                self._place(*ending)

    def _place(self, channel: _Channel, text: str) -> None:
        """Into the last frame where that holds text of the channel itself, else before the frames that close the text."""
        last = self._held[-1]
        for part in reversed(last.parts):
            if part.channel is channel and not part.piece.repeats:
                part.after = text
                return
        at = len(self._held) - 1
        while at > 0 and self._held[at - 1].reading.closing:
            at -= 1
        self._held[at].before.append((channel.group, text))

    def _release(self, out: list[bytes]) -> None:
        held = self._held
        while held:
            first = held[0]
            if first.reading.closing and all(h.reading.closing for h in held):
                return  # what is added to the text would have to go before it
            for part in first.parts:
                if not part.is_ready():
                    return
            held.popleft()
            self._send(first, out, self._cut)

    def _send(self, held: _Held, out: list[bytes], without: Mapping[int, object]) -> None:
        for group, text in held.before:
            self._insert(group, text, out)
        changed = self._write_parts(held)
        if held.plain and not without and not self._reader.passed(held.plain):
            out.append(held.raw)
            return
        document = held.open()
        if without:
            document = self._reader.without(document, without.keys())
            if document is None:
                return
            changed = changed or document is not held.document
        if self._reader.sent(document):
            changed = True
        out.append(self._write(held.event, document) if changed else held.raw)

    def _write(self, event: bytes, document: Any) -> bytes:
        data = document if isinstance(document, bytes) else orjson.dumps(document)
        return write_event(event, data) if self._dialect.framing == "events" else data + b"\n"

    def _insert(self, group: int, text: str, out: list[bytes]) -> None:
        out.append(self._reader.insertion(group, text))

    def _carry_out_cuts(self, out: list[bytes]) -> None:
        """Show what was released of a cut group, then its replacement and its normal ending."""
        for group in sorted(self._cut.keys() - self._carried_out):
            self._carried_out.add(group)
            text = self._show_released(group, out) + self._replacement(group)
            if text:
                self._insert(group, text, out)
            out.append(self._reader.end_group(group, self.shown))
        if len(self._cut) >= self._request.choices:
            self._held.clear()
            self.done = True
            out.append(self._reader.end_stream(self.shown))

    def _show_released(self, group: int, out: list[bytes]) -> str:
        """Send the frames of a cut group up to the one in which the cut falls; return what may be shown of that one."""
        rest: deque[_Held] = deque()
        kept: list[_Held] = []
        partial = ""
        last = -1
        for position, held in enumerate(self._held):
            mine = [p for p in held.parts if p.piece.group == group]
            ends = held.reading.last or held.reading.ends is None or group in held.reading.ends
            if ends or any(p.is_cut() for p in mine):
                partial = "".join(p.shown() for p in mine if p.piece.kind in ("content", "refusal") and not p.piece.repeats)
                break
            if mine:
                last = position
        for position, held in enumerate(self._held):
            theirs = any(p.piece.group != group for p in held.parts)
            (kept if position <= last and not theirs else rest).append(held)
        for held in kept:
            self._send(held, out, {})
        self._held = rest
        return partial


class DocumentRelay(_Relay):
    """One JSON reply. `review` works in steps, so that a server can serve others in between."""

    def __init__(self, dialect: Dialect, request: Request, make_guard: MakeGuard, remove_unreadable: bool = True) -> None:
        super().__init__(request, make_guard, remove_unreadable)
        self._dialect = dialect

    def review(self, document: Any) -> Generator[None, None, Any]:
        """Yields between pieces of work; returns the document to be sent instead, or None when nothing changes."""
        reading = self._dialect.read_reply(document)
        if reading.plain:
            return (yield from self._review_plain(document, reading.pieces[0]))
        self._note(reading)
        held = _Held(b"", b"", document, reading)
        for piece in reading.pieces:
            if piece.group in self._cut:
                held.parts.append(self._blank(piece))
                continue
            self._close_others(piece)
            part, text = self._locate(piece)
            held.parts.append(part)
            for start in range(0, len(text), SLICE_CHARS):
                if start:
                    yield
                part.channel.feed(text[start : start + SLICE_CHARS])
            self._heed(part.channel)
        missing = self._finish(document, reading, held.parts)
        changed = self._write_parts(held)
        for group, text in missing:
            self._dialect.add_content(document, group, text)
        for group in self._cut:
            self._dialect.cut_reply(document, group)
        return held.document if changed or missing or self._cut else None

    def _review_plain(self, document: Any, piece: Piece) -> Generator[None, None, Any]:
        """The short way of a reply that is one text: the same steps without the bookkeeping of many, and once for the same text."""
        channel = self._channel(0, "content", "")
        known = channel.guard.recall(piece.text)
        if known is not None:
            shown = known.shown
            if known.cut:
                channel.cut()
                self._heed(channel)
        else:
            for start in range(0, len(piece.text), SLICE_CHARS):
                if start:
                    yield
                channel.feed(piece.text[start : start + SLICE_CHARS])
            channel.finish()
            self._heed(channel)
            after = self._replacement(0) if self._cut else channel.guard.ending()
            shown = piece.text if channel.plain and not after else channel.shown(0, channel.length) + after
            channel.guard.remember(piece.text, shown, self.cut)
        if shown == piece.text and not self._cut:
            return None
        put(document, piece.path, shown)
        if self._cut:
            self._dialect.cut_reply(document, 0)
        return document

    def _finish(self, document: Any, reading: Reading, parts: list[_Part]) -> list[tuple[int, str]]:
        """Every group is complete: what is added goes behind its last text. Gives the additions of groups that have none."""
        missing: list[tuple[int, str]] = []
        for group in sorted({p.piece.group for p in parts} | set(self._dialect.groups(document))):
            self._finish_group(group)
            if group in self._cut:
                text = self._replacement(group)
            elif group in reading.tools or (ending := self._ending(group)) is None:
                continue
            else:
                text = ending[1]
            place = next((p for p in reversed(parts) if p.piece.group == group and p.piece.kind == "content" and not p.piece.repeats), None)
            if place is not None:
                place.after = text
            elif text:
                missing.append((group, text))
        return missing


def review_text(guard: ReplyGuard, text: str) -> str:
    """What the patient is shown of a plain reply under this guard."""
    channel = _Channel(0, "content", "", guard)
    channel.feed(text)
    channel.finish()
    return channel.shown(0, channel.length) + guard.ending()


def _put(document: Any, piece: Piece, text: str) -> Any:
    return _put_at(document, piece.path, text.encode() if isinstance(document, bytes) else text)


def _put_at(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """The document with a value put at a path; a document that is bare text is the value itself."""
    if not path:
        return value
    put(document, path, value)
    return document
