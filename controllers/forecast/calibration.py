"""How far reality strays from one bin's prediction: what the gate may expect of a model. Quantiles: see `bands`.

The absolute error to be expected at a prediction p is a·m + b·sqrt(m·p) + c·p, with m the usual level and a, b, c >= 0
fitted to the residuals: a floor, counting noise and relative error at once, so that errors are comparable at night and
at noon, and at zero.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from controllers.forecast.history import Bools, Floats

ENOUGH = 20  # residuals; below, nothing is known about the spread
SUBSETS = [list(rows) for size in (3, 2, 1) for rows in itertools.combinations(range(3), size)]
LEVEL_SECONDS, MIN_LEVEL_BINS = 900.0, 3
UNKNOWN_RATIO = 0.5  # expected absolute error before anything is known, relative to the prediction
KNOTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60)  # leads (bins) at which the spread of single bins is learned


@dataclass(frozen=True, slots=True)
class Spread:
    """What is known about the residuals of one prediction. Picklable."""

    level: float  # m
    scale: tuple[float, float, float]  # a, b, c

    def expected_miss(self, prediction: Floats) -> Floats:
        """Mean absolute error to be expected at each prediction."""
        a, b, c = self.scale
        miss: Floats = a * self.level + b * np.sqrt(self.level * prediction) + c * prediction
        return miss


UNKNOWN = Spread(0.0, (0.0, 0.0, UNKNOWN_RATIO))


def spread(predicted: Floats, actual: Floats) -> Spread:
    """From pairs of what was predicted and what came; pairs with NaN are left out."""
    known = np.isfinite(predicted) & np.isfinite(actual)
    p, y = predicted[known], actual[known]
    if len(p) < ENOUGH:
        return UNKNOWN
    level = float(y.mean())
    if level <= 0 and float(p.max()) <= 0:
        return Spread(0.0, (0.0, 0.0, 0.0))  # nothing was predicted and nothing came
    level = max(level, float(p.mean()))
    miss = np.abs(y - p)
    parts = np.array([np.full(len(p), level), np.sqrt(level * p), p])
    found = np.array(non_negative(parts, miss, 1.0 / (p + 0.2 * level)))
    # least squares weigh an error by its size; what is asked about is its mean, in units of what was found
    usual = float((miss / np.maximum(found @ parts, 1e-9 * level)).mean())
    a, b, c = (usual * found).tolist()
    return Spread(level, (a, b, c))


def learn_spread(predicted: Floats, actual: Floats, censored: Bools) -> Spread:
    """A lower bound that the prediction already reaches says nothing about how far off it was."""
    return spread(predicted, np.where(censored & (actual < predicted), np.nan, actual))


def level_bins(step_seconds: float) -> int | None:
    """Bins whose mean is a level: a quarter of an hour of them, in which the noise of single bins evens out."""
    bins = int(LEVEL_SECONDS // step_seconds)
    return bins if bins >= MIN_LEVEL_BINS else None


def learn_level(paths: Floats, actual: Floats, censored: Bools, step_seconds: float) -> Spread | None:
    bins = level_bins(step_seconds)
    if bins is None or bins > paths.shape[1]:
        return None
    means = (paths[:, :bins].mean(axis=1), actual[:, :bins].mean(axis=1))
    return learn_spread(*means, censored[:, :bins].sum(axis=1) > 0)


def knots(steps: int) -> list[int]:
    """Leads at which the spread is learned: every one at first, then ever fewer; the last lead is one."""
    found = [knot for knot in KNOTS if knot < steps]
    while found and (following := max(found[-1] + 1, int(found[-1] * 1.5))) < steps:
        found.append(following)
    return [*found, steps]


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
