"""Shares and their intervals, against values worked out elsewhere."""

import pytest

from guardrail.stress.statistics import Share, median, quantile


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (95, 100, 0.8882, 0.9785), (0, 0, 0.0, 1.0)],
)
def test_wilsons_interval(count: int, total: int, low: float, high: float) -> None:
    assert Share(count, total).interval == pytest.approx((low, high), abs=1e-4)


def test_a_share_in_words() -> None:
    assert str(Share(95, 100)) == " 95.0 %  (95/100, 88.8 to 97.8)"
    assert str(Share(0, 0)) == "none to judge"
    assert Share(0, 0).value is None


def test_middle_and_high_values() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert quantile([float(i) for i in range(100)], 0.95) == 95.0
    assert median([]) == 0.0
