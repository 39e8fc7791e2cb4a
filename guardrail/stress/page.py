"""Single outcomes for their readers: as a line of JSON, and as part of a page with the evidence marked in the text.

A page is one file, is readable without its script, and escapes everything a patient wrote.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader, select_autoescape

from guardrail.engine.model import Finding, Role
from guardrail.stress.labelled import PERTURBATION
from guardrail.stress.run import Outcome, found_issues


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a text; `note` says what was found there, and `acted` whether a rule used it."""

    text: str
    note: str = ""
    acted: bool = False


def render(template: str, **values: Any) -> str:
    loader = PackageLoader("guardrail.stress")
    environment = Environment(loader=loader, autoescape=select_autoescape(["html"]), trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(values)


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("wb") as file:
        file.writelines(orjson.dumps(line) + b"\n" for line in lines)


def kinds(mistaken: Sequence[Outcome]) -> list[tuple[str, int]]:
    """By what the outcomes on a page can be chosen, with how many there are."""
    return sorted(Counter(kind for o in mistaken for kind in kinds_of(o)).items())


def kinds_of(outcome: Outcome) -> tuple[str, ...]:
    """The mistakes, and the perturbation under which they were made."""
    perturbation = outcome.item.slices.get(PERTURBATION)
    return (*((perturbation,) if perturbation else ()), *outcome.mistakes)


def explain(outcome: Outcome, mistakes: Sequence[str]) -> dict[str, Any]:
    """One mistaken item: what was written, what the label says, what was decided, and on which words."""
    item, decision = outcome.item, outcome.decision
    out: dict[str, Any] = {
        "id": item.id,
        "mistakes": list(mistakes),
        "messages": [{"role": str(m.role), "content": m.text} for m in item.conversation.messages],
        "label": label_of(outcome),
        "why": item.why,
        **{k: v for k, v in item.slices.items() if k != "file"},
        "file": item.slices.get("file", ""),
        "urgency": decision.urgency.word,
        "destination": str(decision.destination),
        "topics": sorted(map(str, decision.topics)),
        "rules": [{"id": h.rule, "title": h.title, "evidence": [_finding(f) for f in h.evidence]} for h in decision.hits],
        "findings": [_finding(f) for f in decision.findings],
    }
    if outcome.report is not None:
        issues = [{"issue": str(i.issue), "rule": i.rule, "text": i.text, "start": i.start, "end": i.end} for i in outcome.report.issues]
        out |= {"response": item.response, "shown": outcome.shown, "action": outcome.report.action, "issues": issues}
    return out


def label_of(outcome: Outcome) -> dict[str, Any]:
    """The labels of an item, those it has."""
    item = outcome.item
    match item.kind:
        case "message":
            labels = {"triage": item.triage.word if item.triage is not None else None, "medication": item.medication, "crisis": item.crisis}
            return {name: value for name, value in labels.items() if value is not None}
        case "mention":
            text = item.conversation.messages[0].text
            return {"span": text[item.span[0] : item.span[1]], "assertion": item.slices.get("category", ""), "counts": item.counts}
        case "reply":
            return {"issues": sorted(item.issues)}


def _finding(finding: Finding) -> dict[str, Any]:
    assertion = finding.assertion
    return {
        "concept": finding.concept,
        "turn": finding.turn,
        "start": finding.start,
        "end": finding.end,
        "text": finding.text,
        "polarity": str(assertion.polarity),
        "time": str(assertion.time),
        "subject": str(assertion.subject),
        "cues": [{"kind": c.kind, "text": c.text} for c in assertion.cues],
    }


def row(outcome: Outcome) -> dict[str, Any]:
    item, decision = outcome.item, outcome.decision
    evidence = {f for h in decision.hits for f in h.evidence}
    turns = []
    for turn, message in enumerate(item.conversation.messages):
        spans = [(f.start, f.end, describe(f), f in evidence) for f in decision.findings if f.turn == turn]
        if item.kind == "mention":
            spans.append((*item.span, "the labelled words", False))
        turns.append((str(message.role), marked(message.text, spans) if message.role is Role.USER else [Piece(message.text)]))
    issues = outcome.report.issues if outcome.report is not None else []
    return {
        "id": item.id,
        "file": item.slices.get("file", ""),
        "kinds": kinds_of(outcome),
        "label": ", ".join(f"{k} {_word(v)}" for k, v in label_of(outcome).items()),
        "why": item.why,
        "decided": f"{decision.urgency.word}, {decision.destination}, topics {', '.join(sorted(decision.topics)) or 'none'}",
        "hits": decision.hits,
        "turns": turns,
        "others": [describe(f) for f in decision.findings if f not in evidence],
        "response": marked(item.response, [(i.start, i.end, f"{i.issue} ({i.rule})", True) for i in issues]) if item.response else [],
        "shown": outcome.shown if item.response and outcome.shown != item.response else "",
        "found": ", ".join(sorted(found_issues(outcome.report))) if outcome.report is not None else "",
    }


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def describe(finding: Finding) -> str:
    """A finding in a line: what, whether it is there, now and the patient's, and the cues that said so."""
    assertion = finding.assertion
    notes = [
        str(v) for v, usual in ((assertion.polarity, "present"), (assertion.time, "current"), (assertion.subject, "patient")) if v != usual
    ]
    cues = ", ".join(f'"{c.text}"' for c in assertion.cues)
    return f"{finding.concept}" + (f" ({', '.join(notes)})" if notes else "") + (f" by {cues}" if cues else "")


def marked(text: str, spans: Iterable[tuple[int, int, str, bool]]) -> list[Piece]:
    """A text cut where spans begin and end; each part with the notes of the spans over it."""
    listed = [s for s in spans if s[0] < s[1]]
    cuts = sorted({0, len(text), *(min(max(p, 0), len(text)) for s in listed for p in s[:2])})
    pieces: list[Piece] = []
    for start, end in pairwise(cuts):
        over = [s for s in listed if s[0] < end and start < s[1]]
        pieces.append(Piece(text[start:end], "; ".join(dict.fromkeys(s[2] for s in over)), any(s[3] for s in over)))
    return pieces
