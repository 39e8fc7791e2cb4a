"""Describes documents field by field, and finds the text in them.

A shape says of every known field what it is: `SKIP` (no words: ids, numbers, kinds), `Text` and `Strings` (words),
`UNREADABLE` (sound and images), a mapping, a list.
A field that is not described is unknown: its name is reported, and every string in it is reviewed all the same.
Empty values hold nothing and are passed over. Numbers, booleans and null cannot carry words and are never unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from guardrail.proxy.dialects.dialect import Kind, Path, Piece, Reading

_MAX_UNKNOWN = 64
"""Names reported of one document; more would only swell the record."""

_MAX_DEPTH = 64
"""What lies deeper is taken out unread; the deepest field of a real reply lies at 10."""


class Skip:
    """No words for a patient."""


class Unreadable:
    """Cannot be read as text: base64 of sound or images."""


SKIP: Final = Skip()
UNREADABLE: Final = Unreadable()


@dataclass(frozen=True, slots=True)
class Text:
    """Words of a channel."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Strings:
    """A structure of any form, every string of which is words of a channel: the arguments of a tool call as an object."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Each:
    """A list. `index` names the field that numbers its items (otherwise their position does).

    With `group` each item is a reply of its own (a choice). Otherwise each is a block of its own: a segment of the
    channel, or for tool arguments a channel. `tag` keeps the blocks of two lists of one item apart.
    """

    item: "Shape"
    index: str | None = None
    group: bool = False
    tag: str = ""


@dataclass(frozen=True, slots=True)
class OneOf:
    """A mapping whose shape depends on the value of one of its fields."""

    field: str
    shapes: Mapping[str, "Shape"]
    otherwise: "Shape | None" = None


@dataclass(frozen=True, slots=True)
class Either:
    """A string, or a list or mapping of the given shape."""

    text: "Shape"
    structure: "Shape"


Shape: TypeAlias = "Skip | Unreadable | Text | Strings | Each | OneOf | Either | Mapping[str, Shape]"


def find_text(document: Any, shape: Shape, reading: Reading, path: Path = (), block: str = "", repeats: bool = False) -> None:
    """Add to the reading every piece of text of the document, and what is unknown in it.

    `path` is where the document stands in a larger one, `block` which block of the reply it is. `repeats` says that its text
    was or will be given in deltas.
    """
    before = len(reading.pieces)
    _walk(document, shape, path, 0, block, reading)
    if repeats:
        for piece in reading.pieces[before:]:
            piece.repeats = piece.kind != "other"


def find_strings(value: Any, path: Path, group: int, reading: Reading, name: str | None = None) -> None:
    """Everything under a place nobody described: reported once, and each of its strings reviewed."""
    before = len(reading.pieces)
    _strings(value, path, group, reading)
    if len(reading.pieces) > before and len(reading.unknown) < _MAX_UNKNOWN:
        reading.unknown.append(name or _name(path))


def _walk(value: Any, shape: Shape, path: Path, group: int, block: str, reading: Reading) -> None:
    if value is None or shape is SKIP:
        return
    if isinstance(shape, Text):
        if isinstance(value, str):
            # An empty start of tool arguments counts: the call is held from its first frame on.
            if value or shape.kind == "arguments":
                key, segment = (block, "") if shape.kind == "arguments" else ("", block)
                reading.pieces.append(Piece(group, shape.kind, key, path, value, segment))
            return
    elif shape is UNREADABLE:
        if value:
            reading.remove.append(path)
        return
    elif isinstance(shape, Strings):
        unknown = len(reading.pieces)
        _strings(value, path, group, reading)
        for piece in reading.pieces[unknown:]:
            piece.kind, piece.key, piece.segment = shape.kind, block, piece.key
        return
    elif isinstance(shape, Either):
        _walk(value, shape.text if isinstance(value, str) else shape.structure, path, group, block, reading)
        return
    elif isinstance(shape, Each):
        if isinstance(value, list):
            for position, item in enumerate(value):
                number = item.get(shape.index, position) if shape.index and isinstance(item, dict) else position
                if not isinstance(number, int):
                    number = position
                if shape.group:
                    _walk(item, shape.item, (*path, position), number, block, reading)
                else:
                    _walk(item, shape.item, (*path, position), group, f"{block}.{shape.tag}{number}", reading)
            return
    elif isinstance(shape, OneOf):
        if isinstance(value, dict):
            which = value.get(shape.field)
            found = shape.shapes.get(which) if isinstance(which, str) else None
            found = found or shape.otherwise
            if found is None:
                find_strings(value, path, group, reading, f"{_name(path)}[{which}]")
            else:
                _walk(value, found, path, group, block, reading)
            return
    elif isinstance(shape, Mapping) and isinstance(value, dict):
        for name, inner in value.items():
            known = shape.get(name)
            if known is None:
                find_strings(inner, (*path, name), group, reading)
            elif known is not SKIP:
                _walk(inner, known, (*path, name), group, block, reading)
        return
    find_strings(value, path, group, reading)


def _strings(value: Any, path: Path, group: int, reading: Reading) -> None:
    if len(path) > _MAX_DEPTH:
        reading.remove.append(path)
    elif isinstance(value, str):
        if value:
            reading.pieces.append(Piece(group, "other", _name(path), path, value))
    elif isinstance(value, dict):
        for name, inner in value.items():
            _strings(inner, (*path, name), group, reading)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _strings(inner, (*path, position), group, reading)


def _name(path: Path) -> str:
    return ".".join(step for step in path if isinstance(step, str)) or "document"


def put(document: Any, path: Path, value: Any) -> None:
    """Set what stands at a path."""
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value
