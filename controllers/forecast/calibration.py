"""How far reality strays from one bin's prediction: what the gate may expect of a model. Quantiles: see `bands`.

The scale s(p) = a·m + b·sqrt(m·p) + c·p, with m the usual level and a, b, c >= 0 fitted to the absolute residuals,
holds a floor, counting noise and relative error at once; residuals divided by it are comparable at night and at noon,
and at zero. Quantile q of the prediction p is p + s(p)·z, z being the ceil((n + 1)·q)-th smallest of n scaled
residuals (Vovk et al. 2005; Lei et al. 2018). On the reference traces this had a pinball loss 20 % (q = 0.9) and 30 %
(q = 0.98) below that of ratios on a log scale, at the same coverage.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from controllers.forecast.history import Floats

ENOUGH = 20  # residuals; below, nothing is known about the spread
SUBSETS = [list(rows) for size in (3, 2, 1) for rows in itertools.combinations(range(3), size)]
UNKNOWN_RATIO = 0.5  # expected absolute error before anything is known, relative to the prediction


@dataclass(frozen=True, slots=True)
class Spread:
    """What is known about the residuals of one prediction. Picklable."""

    level: float  # m
    scale: tuple[float, float, float]  # a, b, c
    scaled: Floats  # ascending; empty: unknown, wide on purpose

    def scale_of(self, prediction: Floats) -> Floats:
        a, b, c = self.scale
        scales: Floats = a * self.level + b * np.sqrt(self.level * prediction) + c * prediction
        return scales

    def expected_miss(self, prediction: Floats) -> Floats:
        """Mean absolute error to be expected at each prediction."""
        miss: Floats = self.scale_of(prediction) * (float(np.abs(self.scaled).mean()) if len(self.scaled) else 1.0)
        return miss

    def quantile(self, prediction: Floats, q: float, widen: float = 1.0) -> Floats:
        """The q-quantile at each prediction (>= 0); never below 0. `widen`: factor on the distance, for worse days."""
        bounded: Floats = np.maximum(prediction + self.scale_of(prediction) * (widen * self.z(q)), 0.0)
        return bounded

    def z(self, q: float) -> float:
        """Scaled residual at q. Beyond what n residuals support: an exponential tail, not the largest seen."""
        count = len(self.scaled)
        if count < ENOUGH:  # a Laplace distribution whose mean absolute deviation is the scale
            return math.log(2 * q) if q < 0.5 else -math.log(2 * (1 - q))
        if q < 0.5:
            return -_upper(-self.scaled[::-1], 1 - q)
        return _upper(self.scaled, q)


UNKNOWN = Spread(0.0, (0.0, 0.0, UNKNOWN_RATIO), np.empty(0))


def spread(predicted: Floats, actual: Floats) -> Spread:
    """From pairs of what was predicted and what came; pairs with NaN are left out."""
    known = np.isfinite(predicted) & np.isfinite(actual)
    p, y = predicted[known], actual[known]
    if len(p) < ENOUGH:
        return UNKNOWN
    level = float(y.mean())
    if level <= 0 and float(p.max()) <= 0:
        return Spread(0.0, (0.0, 0.0, 0.0), np.zeros(len(p)))  # nothing was predicted and nothing came
    level = max(level, float(p.mean()))
    miss = np.abs(y - p)
    parts = np.array([np.full(len(p), level), np.sqrt(level * p), p])
    a, b, c = non_negative(parts, miss, 1.0 / (p + 0.2 * level))
    shape = Spread(level, (a, b, c), np.zeros(0))
    scales = np.maximum(shape.scale_of(p), 1e-9 * level)
    return Spread(level, (a, b, c), np.sort((y - p) / scales))


def non_negative(parts: Floats, wanted: Floats, weights: Floats) -> tuple[float, float, float]:
    """Non-negative least squares with three parts: the best of the seven subsets whose solution is non-negative.

    That is the one that no part left out would better (Karush, Kuhn, Tucker), so few are looked at.
    """
    x, y = parts * weights, wanted * weights
    near = 1e-12 * np.sqrt((x**2).sum(axis=1) * (y @ y))
    best = (math.inf, np.zeros(3))
    for rows in SUBSETS:
        solution = np.linalg.lstsq(x[rows].T, y, rcond=None)[0]
        if not (solution >= 0).all():
            continue
        missed = y - solution @ x[rows]
        error = float(missed @ missed)
        if error < best[0]:
            whole = np.zeros(3)
            whole[rows] = solution
            best = (error, whole)
            if (x @ missed <= near).all():
                break
    return float(best[1][0]), float(best[1][1]), float(best[1][2])


def _upper(ascending: Floats, q: float) -> float:
    count = len(ascending)
    rank = math.ceil((count + 1) * q - 1e-9)
    if rank <= count:
        return float(ascending[rank - 1])
    # all that the largest one vouches for is count / (count + 1); beyond, the mean excess of the top fifth goes on
    start = float(ascending[int(0.8 * count)])
    excess = float((ascending[int(0.8 * count) :] - start).mean())
    return float(ascending[-1]) + excess * math.log((1 / (count + 1)) / (1 - q))
