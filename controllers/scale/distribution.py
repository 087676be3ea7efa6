"""A quantity of which a few quantiles are known, as a whole distribution. Pure arithmetic.

Between two known quantiles it is linear in the normal deviate. Beyond the outer ones it goes on as straight as between
the last two: a normal tail of their spread, so a larger one where the quantiles lean upwards. With one quantile known,
all of it is there. Below zero there is nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import Self

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Distribution:
    """`points`: (normal deviate, value), both ascending; at least one."""

    points: tuple[tuple[float, float], ...]

    @classmethod
    def from_quantiles(cls, table: Mapping[float, float]) -> Self | None:
        """Of {quantile: value}; None for an empty table. Values that cross are lifted: a higher quantile is no less."""
        points: list[tuple[float, float]] = []
        for q in sorted(table):
            value = max(table[q], points[-1][1]) if points else max(table[q], 0.0)
            points.append((deviate(q), value))
        return cls(tuple(points)) if points else None

    @classmethod
    def certain(cls, value: float) -> Self:
        return cls(((0.0, value),))

    def times(self, factor: float) -> "Distribution":
        if factor == 1.0:
            return self
        return Distribution(tuple((z, value * factor) for z, value in self.points))

    def at(self, q: float) -> float:
        """The value that it stays below with probability `q`, 0 < q < 1."""
        z = deviate(q)
        left, right = self._around(z)
        return max(0.0, _line(z, left, right))

    def above(self, x: float) -> float:
        """P(X > x)."""
        if x < 0.0:
            return 1.0
        total = 0.0
        for begin, end, at, slope in self._pieces():
            begin, end = _part_above(x, begin, end, at, slope)
            total += _cdf(end) - _cdf(begin)
        return total

    def excess(self, x: float) -> float:
        """E[max(X - x, 0)], of x >= 0."""
        total = 0.0
        for begin, end, at, slope in self._pieces():
            begin, end = _part_above(x, begin, end, at, slope)
            if begin < end:  # the integral of (at + slope z - x) phi(z)
                total += (at - x) * (_cdf(end) - _cdf(begin)) + slope * (_density(begin) - _density(end))
        return max(0.0, total)

    def _around(self, z: float) -> tuple[tuple[float, float], tuple[float, float]]:
        points = self.points
        if len(points) == 1:
            return points[0], points[0]
        index = 1
        while index < len(points) - 1 and z > points[index][0]:
            index += 1
        return points[index - 1], points[index]

    def _pieces(self) -> Sequence[tuple[float, float, float, float]]:
        """(begin, end, at, slope): X = at + slope z for deviates from begin to end."""
        points = self.points
        if len(points) == 1:
            return ((-math.inf, math.inf, points[0][1], 0.0),)
        pieces = []
        for index, (left, right) in enumerate(pairwise(points)):
            slope = (right[1] - left[1]) / (right[0] - left[0])
            begin = -math.inf if index == 0 else left[0]
            end = math.inf if index == len(points) - 2 else right[0]
            pieces.append((begin, end, left[1] - slope * left[0], slope))
        return pieces


def at_quantile(table: Mapping[float, float], q: float) -> float | None:
    """The table's value at quantile `q`. None for an empty table."""
    known = table.get(q)
    if known is not None:
        return known
    left, right = 0.0, 1.0
    for each in table:
        if left < each < q:
            left = each
        elif q < each < right:
            right = each
    if left > 0.0 and right < 1.0:
        return _line(deviate(q), (deviate(left), table[left]), (deviate(right), max(table[left], table[right])))
    found = Distribution.from_quantiles(table)
    return None if found is None else found.at(q)


@lru_cache(maxsize=1024)
def deviate(q: float) -> float:
    """Of the standard normal distribution: the z that it stays below with probability q."""
    return _NORMAL.inv_cdf(q)


def _line(z: float, left: tuple[float, float], right: tuple[float, float]) -> float:
    if left is right or left[0] == right[0]:
        return left[1]
    return left[1] + (z - left[0]) / (right[0] - left[0]) * (right[1] - left[1])


def _part_above(x: float, begin: float, end: float, at: float, slope: float) -> tuple[float, float]:
    """The deviates of a piece at which it is above x; none: (end, end)."""
    if slope <= 0.0:
        return (begin, end) if at > x else (end, end)
    return min(end, max(begin, (x - at) / slope)), end


def _cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _density(z: float) -> float:
    return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) if math.isfinite(z) else 0.0
