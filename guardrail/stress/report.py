"""A run for its readers: text for the terminal, JSON for the next run, JSONL of mistakes, a page to look at.

Figures come from `measures`, single mistakes from `page`; nothing is computed here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from guardrail.stress.compare import RESULTS as RESULTS
from guardrail.stress.compare import Comparison
from guardrail.stress.measures import Figures, Measure
from guardrail.stress.page import explain, kinds, render, row, write_lines
from guardrail.stress.run import Outcome

MISSES = "misses.jsonl"
ALARMS = "alarms.jsonl"
PAGE = "report.html"
_SHOWN = 15  # values of a slice, and changes of a kind, in the terminal; the files hold all


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
    write_lines(folder / MISSES, (explain(o, o.misses) for o in outcomes if o.misses))
    write_lines(folder / ALARMS, (explain(o, o.alarms) for o in outcomes if o.alarms))
    (folder / PAGE).write_text(page(run), encoding="utf-8")


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
    mistaken = [o for o in run.outcomes if o.mistakes]
    comparison = run.comparison
    return render(
        "report.html",
        wrong=wrong,
        ranked=ranked,
        columns=columns,
        revision=run.revision,
        rules_only=run.rules_only,
        figures=run.figures,
        total=len(run.outcomes),
        kinds=kinds(mistaken),
        rows=[row(o) for o in mistaken],
        changes=[(title, comparison.of(miss=miss, fresh=fresh)) for title, miss, fresh in _CHANGES] if comparison else [],
        against=comparison,
    )
