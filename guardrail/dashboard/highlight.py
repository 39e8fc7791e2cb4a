"""Marks evidence and cues in the texts of an exchange, as they were kept.

Spans are offsets into the text as the patient wrote it. What is kept may be redacted, which moves what comes after; so a span is
taken at its offsets where the words stand there, else at the nearest place where the same words stand, else not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text; `kind` is evidence, finding, cue or empty; `title` says what was understood."""

    text: str
    kind: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class _Mark:
    start: int
    end: int
    kind: str
    title: str


_SECOND_READER = "scored_"
_ORDER = {"evidence": 0, "cue": 1, "finding": 2}


def locate(text: str, words: str, start: int) -> int | None:
    """Where the words stand in the text: at `start`, or else nearest to it."""
    if not words:
        return None
    if text.startswith(words, start):
        return start
    places = []
    at = text.find(words)
    while at >= 0:
        places.append(at)
        at = text.find(words, at + 1)
    return min(places, key=lambda place: abs(place - start), default=None)


def highlight(
    texts: Sequence[str],
    evidence: Iterable[Mapping[str, Any]],
    findings: Iterable[Mapping[str, Any]],
    turns: Sequence[int] | None = None,
) -> list[list[Segment]]:
    """The texts in segments. `evidence` made a rule hold; `findings` are everything that was found.

    `turns` says which turn each text was; older entries do not have it, then it is guessed from where the findings' words stand.
    """
    places = {turn: index for index, turn in enumerate(turns)} if turns and len(turns) == len(texts) else None
    held = list(evidence)
    seen = {_key(f) for f in held}
    found = [("evidence", f) for f in held] + [("finding", f) for f in findings if _key(f) not in seen]
    # The second reader judges whole sentences; marking them would drown the words that a rule names.
    named = [(kind, f) for kind, f in found if not str(f["concept"]).startswith(_SECOND_READER)]
    found = named or found
    marks: list[list[_Mark]] = [[] for _ in texts]
    for turn in dict.fromkeys(f["turn"] for _, f in found):
        of_turn = [(kind, f) for kind, f in found if f["turn"] == turn]
        index = places.get(turn) if places is not None else _text_of_turn(texts, [f for _, f in of_turn], turn)
        if index is not None:
            for kind, finding in of_turn:
                marks[index] += _marks(texts[index], kind, finding)
    return [_segments(text, of_text) for text, of_text in zip(texts, marks, strict=True)]


def describe(finding: Mapping[str, Any]) -> str:
    """The concept and how it was understood: `chest pain, absent`."""
    unusual = [
        finding[name] for name, usual in (("polarity", "present"), ("time", "current"), ("subject", "patient")) if finding[name] != usual
    ]
    return ", ".join([str(finding["concept"]).replace("_", " "), *unusual])


def group(findings: Iterable[Mapping[str, Any]], concepts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Findings at one place that were understood alike as one row: one word belongs to many concepts."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for f in findings:
        understood = (f["polarity"], f["time"], f["subject"])
        row = rows.setdefault(
            (f["turn"], f["start"], f["end"], *understood),
            {"text": f["text"], "understood": ", ".join(understood), "counts": _counts(f), "concepts": [], "cues": []},
        )
        title = title_of(f["concept"], concepts)
        row["concepts"] += [] if title in row["concepts"] else [title]
        row["cues"] += [c for c in f["cues"] if c not in row["cues"]]
    return list(rows.values())


def title_of(concept: str, concepts: Mapping[str, str]) -> str:
    """A concept in words; what the second reader says of a whole message has no title of its own."""
    if concept.startswith(_SECOND_READER):
        return f"second reader: {concept.removeprefix(_SECOND_READER).replace('_', ' ')}"
    return concepts.get(concept, concept.replace("_", " "))


def _counts(finding: Mapping[str, Any]) -> bool:
    return (finding["polarity"] != "absent", finding["time"], finding["subject"]) == (True, "current", "patient")


def _key(finding: Mapping[str, Any]) -> tuple[Any, ...]:
    return finding["concept"], finding["turn"], finding["start"], finding["end"]


def _text_of_turn(texts: Sequence[str], findings: Sequence[Mapping[str, Any]], turn: int) -> int | None:
    """Which of the patient's texts a turn is: turns count the chatbot's messages too, texts do not.

    The last text at or before the turn in which most of its findings stand.
    """
    best, most = None, 0
    for index in range(min(turn + 1, len(texts)) - 1, -1, -1):
        fitting = 0
        for finding in findings:
            words = finding["text"] or ""
            exact = bool(words) and texts[index].startswith(words, finding["start"])
            fitting += 2 * exact + (locate(texts[index], words, finding["start"]) is not None)
        if fitting > most:
            best, most = index, fitting
    return best


def _marks(text: str, kind: str, finding: Mapping[str, Any]) -> Iterable[_Mark]:
    title = describe(finding)
    at = locate(text, finding["text"] or "", finding["start"])
    if at is not None:
        yield _Mark(at, at + len(finding["text"]), kind, title)
    moved = 0 if at is None else at - finding["start"]
    for cue in finding["cues"]:
        place = locate(text, cue["text"] or "", cue["start"] + moved)
        if place is not None:
            yield _Mark(place, place + len(cue["text"]), "cue", f"cue: {str(cue['kind']).replace('_', ' ')}")


def _segments(text: str, marks: Sequence[_Mark]) -> list[Segment]:
    """The text cut at the marks' borders; where marks overlap the more telling one is shown and all are named."""
    borders = sorted({0, len(text), *(m.start for m in marks), *(m.end for m in marks)})
    segments: list[Segment] = []
    for start, end in pairwise(borders):
        over = sorted((m for m in marks if m.start <= start and m.end >= end), key=lambda m: (_ORDER[m.kind], m.start))
        kind = over[0].kind if over else ""
        title = "; ".join(dict.fromkeys(m.title for m in over))
        if segments and (segments[-1].kind, segments[-1].title) == (kind, title):
            segments[-1] = Segment(segments[-1].text + text[start:end], kind, title)
        else:
            segments.append(Segment(text[start:end], kind, title))
    return segments
