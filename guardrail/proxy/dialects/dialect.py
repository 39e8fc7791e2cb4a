"""What the proxy asks of a provider's way of writing: read a request, read replies and frames, write answers and errors.

A reader says where the text of a reply stands (`Piece`); the relay decides what of it may be shown and writes it back to
the same place. So a dialect knows fields and order, and nothing of safety. What a dialect does not know it says
(`unknown`); it never guesses that something holds no text.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from guardrail.engine.model import Message

Kind = Literal["content", "reasoning", "refusal", "arguments", "other"]
Path = tuple[str | int, ...]
Framing = Literal["events", "lines"]


@dataclass(slots=True)
class Request:
    """What the guard needs to know of a request; the original bytes are what is sent on.

    `structured` says the reply must keep a schema; `choices` how many replies were asked for; `unknown` names parts of
    the request that could not be read as text.
    """

    messages: tuple[Message, ...]
    stream: bool
    model: str
    structured: bool = False
    choices: int = 1
    patient: str | None = None
    history_not_visible: bool = False
    include_usage: bool = False
    unknown: tuple[str, ...] = ()


@dataclass(slots=True)
class Piece:
    """Text at a place of a document.

    `group` is the reply it belongs to (a choice), `kind` and `key` the channel of that reply. `segment` names a block of
    the channel: text of another segment does not continue the words of this one. `repeats` marks text that was already
    given in deltas and stands here again as a whole.
    """

    group: int
    kind: Kind
    key: str
    path: Path
    text: str
    segment: str = ""
    repeats: bool = False


@dataclass(slots=True)
class Reading:
    """What one frame or one JSON reply holds.

    `ends` are the groups whose text is complete with this frame (None: all). `closing` marks a frame that only closes a
    block of text: what has to be added to the text goes before it. `last` ends the stream. `remove` are places that
    cannot be read (audio, images).
    """

    pieces: list[Piece] = field(default_factory=list)
    ends: tuple[int, ...] | None = ()
    last: bool = False
    closing: bool = False
    unknown: list[str] = field(default_factory=list)
    remove: list[Path] = field(default_factory=list)
    tools: list[int] = field(default_factory=list)
    """Groups that call a tool: their turn is not over, so nothing is added at its end."""
    plain: bool = False
    """A JSON reply that is one piece of content of group 0, with nothing else to be read."""
    error: str | None = None
    """The upstream says here that it failed: the kind of failure."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identity of a reply that we write: made once per exchange, so that writing stays pure."""

    id: str
    created: int


class Shown(Protocol):
    """What the patient has been shown of a segment of a group's content."""

    def __call__(self, group: int, segment: str) -> str: ...


class StreamReader(Protocol):
    """Reads one stream, and writes more frames of it that fit behind those already `sent`."""

    plain_path: Path
    """Where a plain frame's text stands in it."""

    def plain(self, data: bytes) -> tuple[str, str] | None:
        """Text and segment of a frame that holds a piece of the content of group 0 and nothing else that is new.

        Nearly every frame is like that, so this is quick: a strict typed decode, and None for whatever does not fit. It changes
        nothing: such a frame need not be `read`.
        """

    def passed(self, data: bytes) -> bool:
        """A plain frame goes to the client as it came; True when it has to be written anew to fit, and told as `sent`."""

    def read(self, event: bytes, document: Any) -> Reading:
        """Read a frame. `document` is its JSON, or the bare bytes where it is not JSON (`[DONE]`)."""

    def sent(self, document: Any) -> bool:
        """A frame goes to the client now: frames are held, so this is later than its reading.

        True when the document had to be changed to fit behind frames that were put in.
        """

    def insertion(self, group: int, text: str) -> bytes:
        """Frames that show more content."""

    def end_group(self, group: int, shown: Shown) -> bytes:
        """The normal ending of a group that was cut."""

    def end_stream(self, shown: Shown) -> bytes:
        """The normal ending of the stream, after every group was ended."""

    def without(self, document: Any, groups: Collection[int]) -> Any:
        """The document without what belongs to these groups; None when nothing is left."""


class Dialect(Protocol):
    """One provider's way. Instances have no state."""

    name: str
    paths: tuple[str, ...]
    framing: Framing
    stream_type: bytes
    """Content type of its streams."""

    def read_request(self, body: bytes, path: str) -> Request:
        """Raises MalformedRequest with what, where and the remedy."""

    def read_reply(self, document: Any) -> Reading: ...

    def read_stream(self, request: Request, stamp: Stamp) -> StreamReader: ...

    def groups(self, document: Any) -> Collection[int]:
        """The replies a JSON reply holds."""

    def add_content(self, document: Any, group: int, text: str) -> None:
        """Put text into a JSON reply that has none in this group."""

    def cut_reply(self, document: Any, group: int) -> None:
        """Give a JSON reply whose text was cut its normal ending: no tool calls, an ordinary reason to stop."""

    def write_answer(self, request: Request, text: str, stamp: Stamp) -> bytes: ...

    def write_answer_stream(self, request: Request, text: str, stamp: Stamp) -> bytes: ...

    def write_error(self, status: int, message: str) -> bytes: ...

    def write_error_frame(self, message: str) -> bytes:
        """The honest ending of a stream that was lost."""


ERROR_KINDS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
