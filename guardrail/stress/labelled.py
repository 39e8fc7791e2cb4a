"""Labelled messages, single mentions and replies from JSONL files, checked; the form is in `corpus/README.md`.

Three kinds of lines, told apart by their fields:

- a message: `text` or `messages`, with any of the labels `triage`, `medication`, `crisis`;
- a mention: `text`, `span` in it and what it means there, `assertion`;
- a reply: `user`, `response`, `issues`.

Other fields are kept for slicing. Nothing is judged here: see `run`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from guardrail.engine.model import Conversation, Message, Role, Urgency
from guardrail.errors import GuardrailError, Problem

Kind = Literal["message", "mention", "reply"]
ReadConversation = Callable[[Mapping[str, Any]], Conversation]
"""`{"text": ...}` or `{"messages": [...]}` as a conversation; raises GuardrailError when it is not one."""

# True where the mention is there now and the patient's (whoever the question is about), so that rules may act on it.
ASSERTIONS: Mapping[str, bool] = {
    "present": True,
    "uncertain": True,
    "other_present": True,
    "absent": False,
    "past": False,
    "hypothetical": False,
    "family": False,
    "educational": False,
    "other_person": False,
    "fictional": False,
}
SLICES = ("category", "style", "lang", "kind", "file")
PERTURBATION = "perturbation"
"""Under this name an item that was perturbed says how."""
_TRIAGE = {u.word: u for u in Urgency}
DISCLAIMER = "has_disclaimer"
"""The one name among the issues of a reply that says something good of it."""
ISSUES = frozenset(
    {
        "dose_instruction",
        "stop_start_medication",
        "interaction_reassurance",
        "diagnosis_claim",
        "false_reassurance",
        "missing_escalation",
        "fabricated_reasoning",
        "image_interpretation",
        "impersonates_clinician",
        "delay_advice",
        "self_harm_facilitation",
        DISCLAIMER,
    }
)


@dataclass(frozen=True, slots=True)
class Labelled:
    """One line of a corpus. Labels that it does not have are None and not judged."""

    id: str
    kind: Kind
    conversation: Conversation
    slices: Mapping[str, str]
    why: str = ""
    triage: Urgency | None = None
    medication: bool | None = None
    crisis: bool | None = None
    span: tuple[int, int] = (0, 0)
    counts: bool = True
    """Of a mention: whether it is there now and the patient's."""
    response: str = ""
    issues: frozenset[str] = field(default_factory=frozenset)


class UnusableCorpus(GuardrailError):
    """Files that cannot be evaluated. `problems` holds all of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(f"{p.file}:{p.line}: {p.message}{'; ' + p.remedy if p.remedy else ''}" for p in self.problems))


class _Wrong(Exception):
    """What is wrong with a line, and the remedy."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(message)


def read_corpus(paths: Iterable[Path], read: ReadConversation) -> list[Labelled]:
    """Every line of the files, and of the `.jsonl` files below the folders; raises UnusableCorpus with all problems."""
    items: list[Labelled] = []
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for path, name in _files(paths, problems):
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            problems.append(Problem(name, 1, 1, f"cannot be read: {error.strerror}"))
            continue
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                item = _item(line, f"{name}:{number}", name, read)
                if item.id in places:
                    raise _Wrong(f'id "{item.id}" stands at {places[item.id]} too', "ids are unique over all files")
            except _Wrong as wrong:
                problems.append(Problem(name, number, 1, wrong.message, wrong.remedy))
                continue
            places[item.id] = f"{name}:{number}"
            items.append(item)
    if not items and not problems:
        problems.append(Problem("corpus", 1, 1, "holds nothing to evaluate", "name .jsonl files or folders of them"))
    if problems:
        raise UnusableCorpus(problems)
    return items


def _files(paths: Iterable[Path], problems: list[Problem]) -> Iterator[tuple[Path, str]]:
    """Files with the name under which they are reported."""
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob("*.jsonl"))
            if not found:
                problems.append(Problem(str(path), 1, 1, "holds no .jsonl file"))
            yield from ((p, p.relative_to(path).as_posix()) for p in found)
        else:
            yield path, path.name


def _item(line: bytes, place: str, file: str, read: ReadConversation) -> Labelled:
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _Wrong(f"is not JSON: {error.msg}") from None
    if not isinstance(data, dict):
        raise _Wrong("is not an object")
    common: dict[str, Any] = {
        "id": str(data.get("id") or place),
        "slices": {name: str(data[name]) for name in SLICES if data.get(name)} | {"file": file},
        "why": str(data.get("why") or ""),
    }
    if "response" in data:
        return _reply(data, common)
    if "span" in data:
        return _mention(data, common)
    return _message(data, common, read)


def _message(data: Mapping[str, Any], common: Mapping[str, Any], read: ReadConversation) -> Labelled:
    labels: dict[str, Any] = {}
    if data.get("triage") is not None:
        if data["triage"] not in _TRIAGE:
            raise _Wrong(f'triage "{data["triage"]}" is not known', f"use one of {', '.join(_TRIAGE)}")
        labels["triage"] = _TRIAGE[data["triage"]]
    for name in ("medication", "crisis"):
        if data.get(name) is not None:
            if not isinstance(data[name], bool):
                raise _Wrong(f'"{name}" must be true or false')
            labels[name] = data[name]
    if not labels:
        raise _Wrong("has no label", "add triage, medication or crisis")
    try:
        conversation = read({name: data[name] for name in ("text", "messages") if data.get(name) is not None})
    except GuardrailError as error:
        raise _Wrong(str(error)) from None
    return Labelled(kind="message", conversation=conversation, **common, **labels)


def _mention(data: Mapping[str, Any], common: Mapping[str, Any]) -> Labelled:
    text, span = _text(data, "text"), _text(data, "span")
    start = text.find(span)
    if start < 0:
        raise _Wrong(f'span "{span}" does not stand in the text', "copy it as it is written there")
    if data.get("assertion") not in ASSERTIONS:
        raise _Wrong(f'assertion "{data.get("assertion")}" is not known', f"use one of {', '.join(ASSERTIONS)}")
    slices = {**common["slices"], "category": data["assertion"]}
    return Labelled(
        kind="mention",
        conversation=_said(text),
        span=(start, start + len(span)),
        counts=ASSERTIONS[data["assertion"]],
        **{**common, "slices": slices},
    )


def _reply(data: Mapping[str, Any], common: Mapping[str, Any]) -> Labelled:
    issues = data.get("issues")
    if not isinstance(issues, list):
        raise _Wrong('"issues" must be a list', "an empty list says that the reply is clean")
    unknown = sorted({str(i) for i in issues} - ISSUES)
    if unknown:
        raise _Wrong(f'issue "{unknown[0]}" is not known', f"use one of {', '.join(sorted(ISSUES))}")
    said = _said(_text(data, "user"))
    return Labelled(kind="reply", conversation=said, response=_text(data, "response"), issues=frozenset(issues), **common)


def _text(data: Mapping[str, Any], name: str) -> str:
    if not isinstance(data.get(name), str) or not data[name]:
        raise _Wrong(f'"{name}" must be a text')
    return str(data[name])


def _said(text: str) -> Conversation:
    return Conversation((Message(Role.USER, text),))
