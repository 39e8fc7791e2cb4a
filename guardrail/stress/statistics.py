"""A share with its uncertainty: so many of so many, and the 95 % interval after Wilson (J Am Stat Assoc 1927).

Wilson's interval stays within 0 and 1 and is honest for few cases and for none of many, where the usual one is not.
"""

from dataclasses import dataclass
from math import sqrt

_Z = 1.959964  # 95 %, two-sided


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval after Wilson; of nothing it is everything."""
        if not self.total:
            return (0.0, 1.0)
        n, p, z2 = self.total, self.count / self.total, _Z * _Z
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        # At the ends the interval touches them exactly; rounding must not put it beside.
        return (0.0 if not self.count else max(0.0, centre - half), 1.0 if self.count == n else min(1.0, centre + half))

    def __str__(self) -> str:
        if not self.total:
            return "none to judge"
        low, high = self.interval
        return f"{100 * self.count / self.total:5.1f} %  ({self.count}/{self.total}, {100 * low:.1f} to {100 * high:.1f})"


def median(values: list[float]) -> float:
    """The middle value; 0 of none."""
    return quantile(values, 0.5)


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie, without interpolation; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
