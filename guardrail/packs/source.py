"""YAML files as data that remembers where everything stood.

`read` parses one file. A problem found later, by pydantic or by us, is reported as `file:line:col: message; remedy`; where
each key and value stands is worked out when it is first asked for, as most files never have a problem. Duplicate keys are
problems, not silently the last one. Dates, yes/no words and the like stay strings: what a clinician typed is what is meant.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from guardrail.errors import Problem

Place = tuple[int, int]
Path_ = tuple[str | int, ...]
T = TypeVar("T")


class _Loader(yaml.CSafeLoader):
    """Core schema only: booleans are true and false, dates stay text (the "Norway problem": `no` is a word patients use)."""


_Loader.yaml_implicit_resolvers = {
    key: [(tag, regexp) for tag, regexp in found if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")]
    for key, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))


@dataclass(frozen=True)
class Source:
    """One parsed file: its data, and the text it was read from."""

    name: str
    data: Any
    text: str = field(repr=False)

    @cached_property
    def places(self) -> Mapping[Path_, Place]:
        """The place of each key path."""
        loader = _Loader(self.text)
        try:
            return dict(_places(loader, loader.get_single_node(), ()))
        finally:
            loader.dispose()

    def place(self, path: Sequence[str | int]) -> Place:
        """Where a path stands; of a path that does not exist, where its nearest parent stands."""
        key = tuple(path)
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, (1, 1))

    def problem(self, path: Sequence[str | int], message: str, remedy: str = "") -> Problem:
        line, column = self.place(path)
        return Problem(self.name, line, column, message, remedy)


def read(path: Path, name: str, problems: list[Problem]) -> Source | None:
    """Parse one file; what is wrong goes to `problems` and None comes back."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        problems.append(Problem(name, 1, 1, f"is not UTF-8 at byte {error.start}", "save it as UTF-8"))
        return None
    return parse(text, name, problems)


def parse(text: str, name: str, problems: list[Problem]) -> Source | None:
    """Parse YAML text; what is wrong goes to `problems` and None comes back."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            problems.append(Problem(name, 1, 1, "is empty", "remove the file or fill it"))
            return None
        data = _build(loader, node, name, problems, 0)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        problems.append(Problem(name, line, column, f"is not YAML: {what}", "quote text that contains : # { } [ ] or &"))
        return None
    except RecursionError:
        problems.append(Problem(name, 1, 1, "is nested too deeply"))
        return None
    finally:
        loader.dispose()
    return Source(name, data, text)


def _build(loader: Any, node: Any, name: str, problems: list[Problem], depth: int) -> Any:
    if depth > 40:  # far beyond any real rule; stops alias bombs and stack overflow
        raise yaml.YAMLError("nested too deeply")
    if isinstance(node, yaml.MappingNode):
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _key(loader, key_node)
            if key in out:
                problems.append(Problem(name, *_place(key_node), f'key "{key}" stands twice', "merge the two"))
            out[key] = _build(loader, value_node, name, problems, depth + 1)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, name, problems, depth + 1) for item in node.value]
    return loader.construct_object(node)


def _places(loader: Any, node: Any, path: Path_) -> Iterator[tuple[Path_, Place]]:
    """Every path with its place: that of the key, or of the item in a list."""
    yield path, _place(node)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            inner = (*path, _key(loader, key_node))
            yield from _places(loader, value_node, inner)
            yield inner, _place(key_node)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _places(loader, item, (*path, i))


def _key(loader: Any, node: Any) -> Any:
    return loader.construct_object(node) if isinstance(node, yaml.ScalarNode) else str(node)


def _place(node: Any) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def validate(source: Source, path: Path_, shape: type[T] | TypeAdapter[T], problems: list[Problem]) -> T | None:
    """The data at `path` as a model; every error becomes a problem with its place."""
    data = source.data
    for step in path:
        data = data[step]
    adapter = shape if isinstance(shape, TypeAdapter) else TypeAdapter(shape)
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        keys = _keys(shape)
        for item in error.errors(include_url=False):
            at = (*path, *_real_path(data, item["loc"]))
            message, remedy = _explain(item, keys)
            problems.append(source.problem(at, message, remedy))
        return None


def _real_path(data: Any, loc: Sequence[str | int]) -> Path_:
    """Pydantic's location without the tags of unions, which are not in the file."""
    out: list[str | int] = []
    for step in loc:
        if (isinstance(data, Mapping) and step in data) or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            data = data[step]  # type: ignore[index]  # which of the two it is was just asked
        else:
            continue
        out.append(step)
    return tuple(out)


def _keys(shape: Any) -> list[str]:
    return list(shape.model_fields) if isinstance(shape, type) and issubclass(shape, BaseModel) else []


def _explain(item: Any, keys: Iterable[str]) -> tuple[str, str]:
    last = item["loc"][-1] if item["loc"] else ""
    match item["type"]:
        case "missing":
            return f'lacks "{last}"', f'add "{last}:"'
        case "extra_forbidden":
            near = nearest(str(last), keys)
            return f'unknown key "{last}"', f'did you mean "{near}"?' if near else "remove it"
        case "literal_error" | "enum":
            return f'"{item["input"]}" is not allowed here', f"use {item['ctx'].get('expected', '')}"
        case _:
            message = str(item["msg"]).removeprefix("Value error, ")
            return message[:1].lower() + message[1:], ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like this one, for "did you mean"."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else None
