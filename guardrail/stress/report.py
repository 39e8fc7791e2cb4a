"""A run for its readers: text for the terminal, JSON for the next run, JSONL of mistakes, a page to look at.

Figures come from `measures`; nothing is computed here. The page is one file, is readable without its script, and escapes
everything a patient wrote.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader, select_autoescape

from guardrail.engine.model import Finding, Role
from guardrail.stress.compare import RESULTS as RESULTS
from guardrail.stress.compare import Comparison
from guardrail.stress.measures import Figures, Measure
from guardrail.stress.run import Outcome, found_issues

MISSES = "misses.jsonl"
ALARMS = "alarms.jsonl"
PAGE = "report.html"
_SHOWN = 15  # values of a slice, and changes of a kind, in the terminal; the files hold all


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a text; `note` says what was found there, and `acted` whether a rule used it."""

    text: str
    note: str = ""
    acted: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What is reported: outcomes under one pack revision, their figures, and perhaps what changed."""

    revision: str
    rules_only: bool
    outcomes: Sequence[Outcome]
    figures: Figures
    comparison: Comparison | None = None


def write(folder: Path, run: Run) -> None:
    """All files of a run into a folder, which is made if need be."""
    outcomes = run.outcomes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_bytes(orjson.dumps(as_data(run), option=orjson.OPT_INDENT_2) + b"\n")
    _write_lines(folder / MISSES, (explain(o, o.misses) for o in outcomes if o.misses))
    _write_lines(folder / ALARMS, (explain(o, o.alarms) for o in outcomes if o.alarms))
    (folder / PAGE).write_text(page(run), encoding="utf-8")


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("wb") as file:
        file.writelines(orjson.dumps(line) + b"\n" for line in lines)


def as_data(run: Run) -> dict[str, Any]:
    """The run as plain data. `items` holds the mistakes of every item, for `--against`."""
    figures = run.figures
    return {
        "revision": run.revision,
        "rules_only": run.rules_only,
        "measures": [_measure(m) for m in figures.measures],
        "slices": {name: {value: [_measure(m) for m in ms] for value, ms in by.items()} for name, by in figures.slices.items()},
        "confusion": figures.confusion,
        "timing": asdict(figures.timing),
        "against": None if run.comparison is None else asdict(run.comparison),
        "items": {o.item.id: list(o.mistakes) for o in run.outcomes},
    }


def _measure(measure: Measure) -> dict[str, Any]:
    share = measure.share
    low, high = share.interval
    counted = {"count": share.count, "total": share.total, "share": share.value, "low": low, "high": high}
    return {"name": measure.name, **counted, "better": measure.better}


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


# --- the terminal


def as_text(run: Run) -> str:
    """The figures for a terminal."""
    return "\n".join(_lines(run))


def _lines(run: Run) -> Iterator[str]:
    figures = run.figures
    yield f"packs {run.revision}" + (", rules only" if run.rules_only else "")
    yield ""
    width = max((len(m.name) for m in figures.measures), default=0)
    for measure in figures.measures:
        yield f"{measure.name:{width}}  {measure.share}"
    if figures.confusion:
        yield ""
        decided = list(next(iter(figures.confusion.values())))
        yield f"{'label, decided':16}" + "".join(f"{d:>11}" for d in decided)
        for label, row in figures.confusion.items():
            yield f"{label:16}" + "".join(f"{row[d]:>11}" for d in decided)
    for name, by in figures.slices.items():
        if len(by) > 1:
            yield from _slice_lines(name, by)
    timing = figures.timing
    yield ""
    yield f"time per message: median {timing.median_us:,.0f} us, 95 % within {timing.p95_us:,.0f} us ({timing.messages} messages)"
    if run.comparison is not None:
        yield from _change_lines(run.comparison)


_SHORT = (
    ("emergency recognised as emergency", "emergency"),
    ("urgent recognised as urgent or above", "urgent"),
    ("emergency raised on routine or none", "raised em."),
    ("urgent or above raised on routine or none", "raised urg."),
    ("medication recognised", "medication"),
    ("medication raised on other messages", "raised med."),
    ("crisis recognised", "crisis"),
    ("crisis raised on other messages", "raised cris."),
    ("mention present and current: counts", "mention"),
    ("mention absent or not current: counts", "raised men."),
)


def columns(by: Mapping[str, Sequence[Measure]]) -> list[tuple[str, str]]:
    """The measures that some value of a slice has, by name and heading."""
    there = {m.name for measures in by.values() for m in measures}
    return [(name, heading) for name, heading in _SHORT if name in there]


def wrong(measures: Iterable[Measure]) -> int:
    """How many mistakes stand behind some measures."""
    return sum(m.share.count if m.better == "lower" else m.share.total - m.share.count for m in measures)


def ranked(by: Mapping[str, Sequence[Measure]]) -> list[tuple[str, Sequence[Measure]]]:
    """Values of a slice, those with the most mistakes first."""
    return sorted(by.items(), key=lambda x: (-wrong(x[1]), x[0]))


def _slice_lines(name: str, by: Mapping[str, Sequence[Measure]]) -> Iterator[str]:
    shown, headings = ranked(by)[:_SHOWN], columns(by)
    width = max(len(value) for value, _ in shown)
    yield ""
    rest = len(by) - len(shown)
    yield f"by {name}" + (f" (the {len(shown)} with most mistakes; {rest} more in {RESULTS})" if rest else "")
    yield " " * width + "".join(f"{heading:>13}" for _, heading in headings)
    for value, measures in shown:
        counts = {m.name: f"{m.share.count}/{m.share.total}" for m in measures}
        yield f"{value:{width}}" + "".join(f"{counts.get(full, '-'):>13}" for full, _ in headings)


_CHANGES = (
    ("newly missed", True, True),
    ("newly caught", True, False),
    ("newly raised", False, True),
    ("no longer raised", False, False),
)


def _change_lines(comparison: Comparison) -> Iterator[str]:
    yield ""
    yield f"against packs {comparison.revision}" + _uncompared(comparison)
    for title, miss, fresh in _CHANGES:
        changes = comparison.of(miss=miss, fresh=fresh)
        yield f"{title}: {len(changes)}"
        yield from (f"    {c.id}  {c.mistake.removesuffix('_missed').removesuffix('_raised').replace('_', ' ')}" for c in changes[:_SHOWN])
        if len(changes) > _SHOWN:
            yield f"    and {len(changes) - _SHOWN} more in {RESULTS}"


def _uncompared(comparison: Comparison) -> str:
    notes = [f"{n} items only in {which} run" for n, which in ((comparison.only_now, "this"), (comparison.only_then, "that")) if n]
    return f" ({', '.join(notes)})" if notes else ""


# --- the page


def page(run: Run) -> str:
    """The run as one HTML page: figures, then every mistake with its evidence marked."""
    loader = PackageLoader("guardrail.stress")
    environment = Environment(loader=loader, autoescape=select_autoescape(["html"]), trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(wrong=wrong, ranked=ranked, columns=columns)
    mistaken = [o for o in run.outcomes if o.mistakes]
    kinds = sorted({m for o in mistaken for m in o.mistakes})
    comparison = run.comparison
    return environment.get_template("report.html").render(
        revision=run.revision,
        rules_only=run.rules_only,
        figures=run.figures,
        total=len(run.outcomes),
        kinds=[(kind, sum(kind in o.mistakes for o in mistaken)) for kind in kinds],
        rows=[_row(o) for o in mistaken],
        changes=[(title, comparison.of(miss=miss, fresh=fresh)) for title, miss, fresh in _CHANGES] if comparison else [],
        against=comparison,
    )


def _row(outcome: Outcome) -> dict[str, Any]:
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
        "mistakes": outcome.mistakes,
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
