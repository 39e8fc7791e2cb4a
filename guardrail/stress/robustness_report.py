"""A stress run for its readers: a table for the terminal, JSON, JSONL of what was lost and raised, a page to look at."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from guardrail.stress.page import explain, kinds, render, row, write_lines
from guardrail.stress.robustness import Pair, Row, never_lost, whole
from guardrail.stress.statistics import Share

RESULTS = "results.json"
LOST = "lost.jsonl"
RAISED = "raised.jsonl"
PAGE = "report.html"
_SHOWN = 40  # examples of one perturbation on the page; the files hold all


@dataclass(frozen=True, slots=True)
class StressRun:
    """What is reported: pairs under one pack revision and one seed, and what each perturbation did."""

    revision: str
    rules_only: bool
    seed: int
    messages: int
    pairs: Sequence[Pair]
    rows: Sequence[Row]


def write(folder: Path, run: StressRun) -> None:
    """All files of a run into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_bytes(orjson.dumps(as_data(run), option=orjson.OPT_INDENT_2) + b"\n")
    for name, of in ((LOST, "misses"), (RAISED, "alarms")):
        write_lines(folder / name, (_line(p, getattr(p.after, of)) for p in run.pairs if getattr(p.after, of)))
    (folder / PAGE).write_text(page(run), encoding="utf-8")


def as_data(run: StressRun) -> dict[str, Any]:
    """The run as plain data."""
    return {
        "revision": run.revision,
        "rules_only": run.rules_only,
        "seed": run.seed,
        "messages": run.messages,
        "perturbations": [_row_data(r) for r in (*run.rows, whole(run.pairs))],
        "never_lost": _share(never_lost(run.pairs)),
    }


def _row_data(of: Row) -> dict[str, Any]:
    return {name: _share(value) if isinstance(value, Share) else value for name, value in ((n, getattr(of, n)) for n in Row.__slots__)}


def _share(share: Share) -> dict[str, Any]:
    low, high = share.interval
    return {**asdict(share), "share": share.value, "low": low, "high": high}


def _line(pair: Pair, mistakes: Sequence[str]) -> dict[str, Any]:
    """A perturbed message with its evidence, and the same as it was written."""
    before = explain(pair.before, ())
    return {**explain(pair.after, mistakes), "written": {n: before[n] for n in ("messages", "urgency", "destination", "rules", "findings")}}


# --- the terminal

# Heading, width and what stands there.
_COLUMNS: Sequence[tuple[str, int, Callable[[Row], str]]] = (
    ("as written", 13, lambda row: _of(row.before)),
    ("perturbed", 13, lambda row: _of(row.after)),
    ("emergencies lost", 31, lambda row: _long(row.lost)),
    ("urgent lost", 13, lambda row: _of(row.urgent_lost)),
    ("raised to emergency", 31, lambda row: _long(row.raised)),
    ("to urgent", 13, lambda row: _of(row.urgent_raised)),
)


def as_text(run: StressRun) -> str:
    """The table for a terminal."""
    return "\n".join(_lines(run))


def _lines(run: StressRun) -> Iterator[str]:
    yield f"packs {run.revision}{', rules only' if run.rules_only else ''}; {run.messages} messages, seed {run.seed}; intervals are 95 %"
    yield ""
    width = max((len(r.name) for r in run.rows), default=0)
    yield " " * width + "".join(f"{heading:>{columns}}" for heading, columns, _ in _COLUMNS)
    for one in (*run.rows, whole(run.pairs)):
        yield f"{one.name:{width}}" + "".join(f"{cell(one):>{columns}}" for _, columns, cell in _COLUMNS)
    yield ""
    yield f"emergencies that no perturbation loses: {never_lost(run.pairs)}"


def _of(share: Share) -> str:
    return f"{share.count}/{share.total}" if share.total else "-"


def _long(share: Share) -> str:
    if not share.total:
        return "-"
    low, high = share.interval
    return f"{share.count}/{share.total} {100 * share.count / share.total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


# --- the page


def page(run: StressRun) -> str:
    """The run as one HTML page: the table, then what was lost and raised, with its evidence marked."""
    shown: list[Pair] = []
    counts: dict[tuple[str, bool], int] = {}
    for pair in run.pairs:
        if pair.after.mistakes:
            key = pair.perturbation.name, bool(pair.after.misses)
            counts[key] = counts.get(key, 0) + 1
            if counts[key] <= _SHOWN:
                shown.append(pair)
    return render(
        "stress.html",
        run=run,
        total=whole(run.pairs),
        never_lost=never_lost(run.pairs),
        found=sum(counts.values()),
        kinds=kinds([p.after for p in shown]),
        examples=[(row(p.after), row(p.before)) for p in shown],
    )
