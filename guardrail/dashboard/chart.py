"""Where the bars of the chart stand. Numbers only; the template draws them as SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, BASE = 960, 180, 156


def draw(bars: Sequence[Mapping[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """Stacked bars, most serious at the bottom, with a scale of whole numbers."""
    tallest = max((sum(bar["counts"].values()) for bar in bars), default=0)
    top = _round_up(tallest)
    slot = (WIDTH - 36) / max(len(bars), 1)
    columns = []
    for i, bar in enumerate(bars):
        y = float(BASE)
        parts = []
        for destination in order:
            count = bar["counts"].get(destination, 0)
            if count:
                height = count / top * (BASE - 12)
                y -= height
                parts.append({"destination": destination, "count": count, "y": round(y, 1), "height": round(height, 1)})
        columns.append({"x": round(36 + i * slot + slot * 0.12, 1), "width": round(slot * 0.76, 1), "at": bar["at"], "parts": parts})
    every = max(1, len(bars) // 6)
    labels = [
        {"x": round(36 + i * slot + slot / 2, 1), "text": _label(bar["at"], len(bars))} for i, bar in enumerate(bars) if i % every == 0
    ]
    lines = [{"y": round(BASE - share * (BASE - 12), 1), "text": f"{top * share:g}"} for share in (0.0, 0.5, 1.0)]
    return {"width": WIDTH, "height": HEIGHT, "base": BASE, "columns": columns, "labels": labels, "lines": lines}


def _label(at: str, bars: int) -> str:
    return at[5:10] if bars > 24 else at[11:16]


def _round_up(count: int) -> int:
    """The even round number at or above, so that half of it is whole: 2, 4, 10, 20, 40, 100 ..."""
    top = 2
    while top < count:
        top = top * 5 // 2 if str(top)[0] == "4" else top * 2
    return top
