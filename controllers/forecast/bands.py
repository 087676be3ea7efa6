"""Quantiles of many targets at once: quantile regression on what was predicted, then split conformal prediction.

A row is a target, for instance the largest minute of the next quarter of an hour. Its quantiles 0.1, 0.5 and 0.9 are
linear in four parts (Koenker, Bassett 1978): the usual level m (a floor), sqrt(m·p) (counting noise), p and the mean
of the path over the target's window, p being the path's own answer. Every other quantile, and what the regression left
over, comes from residuals in units of the distance to the 0.9 (above) or 0.1 (below) quantile: the ceil((n + 1)·q)-th
smallest of n (Vovk et al. 2005; Romano et al. 2019), with an exponential tail beyond what n residuals support.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.calibration import ENOUGH, UNKNOWN_RATIO
from controllers.forecast.history import Bools, Floats, Ints

LEVELS = np.array([0.1, 0.5, 0.9])
ROUNDS = 12  # of reweighting
PRIOR = 4.0  # outcomes that the belief in the path itself is worth
SMOOTH = 0.03  # errors below this share of the usual one count as that: bounds the weights
FLOOR = 0.1  # least distance between two levels, relative to the prediction and a fifth of the usual level
LOW = 0.2
FARTHEST = 50.0  # a residual counts as at most this many distances
# What is taken for granted before any outcome was seen: the prediction itself, and errors of half of it.
START = np.array([[0.0, 0.0, 1.0, 0.0]] * 3)
UNKNOWN = np.array([[0.0, 0.0, 1.0 + ratio, 0.0] for ratio in (-UNKNOWN_RATIO, 0.0, UNKNOWN_RATIO)])


@dataclass(frozen=True, slots=True)
class Seen:
    """What was predicted at each time, and what came: (times, rows). NaN: unknown."""

    tops: Floats  # the path's largest bin in the row's window, or its sum or bin
    means: Floats  # the path's mean over the window
    came: Floats
    hints: Floats | None = None  # (times, hints): what was seen before, see `strays`

    def part(self, times: "slice | Bools") -> "Seen":
        hints = None if self.hints is None else self.hints[times]
        return Seen(self.tops[times], self.means[times], self.came[times], hints)


@dataclass(frozen=True, slots=True)
class Residuals:
    """Of each row, ascending, what is unknown at the end: (rows, times). `tails`: mean excess of the outer fifths."""

    ascending: Floats
    counts: Ints
    tails: Floats  # (rows, 2): below, above

    def at(self, quantiles: Floats) -> Floats:
        """The residual at each of `quantiles`, (rows, any number)."""
        count = self.counts[:, None]
        above = quantiles >= 0.5
        share = np.where(above, quantiles, 1.0 - quantiles)
        rank = np.ceil((count + 1) * share - 1e-9).astype(np.int64)
        place = np.where(above, rank - 1, count - rank)
        held = np.take_along_axis(self.ascending, np.clip(place, 0, np.maximum(count - 1, 0)), axis=1)
        # all that the outermost one vouches for is count / (count + 1)
        excess = np.log(np.maximum(1.0 / ((count + 1) * (1.0 - share)), 1.0))
        beyond = np.where(rank > count, excess, 0.0) * np.where(above, self.tails[:, 1:], -self.tails[:, :1])
        laplace = np.where(above, -1.0, 1.0) * np.log(2.0 * (1.0 - share))
        found: Floats = np.where(count < ENOUGH, laplace, held + beyond)
        return found


@dataclass(frozen=True, slots=True)
class Bands:
    """What is known about every row. Picklable."""

    level: Floats  # (rows,): m
    coefficients: Floats  # (rows, LEVELS, parts)
    usual: Floats  # (rows,): mean size of a residual

    def around(self, tops: Floats, means: Floats) -> tuple[Floats, Floats, Floats]:
        """The middle, and the distances to the level below and to the one above: each shaped like `tops`."""
        whole = parts(tops, means, self.level)
        low, middle, high = (
            of[:, 0] * whole[0] + of[:, 1] * whole[1] + of[:, 2] * whole[2] + of[:, 3] * whole[3]
            for of in self.coefficients.transpose(1, 0, 2)
        )
        middle = np.maximum(middle, 0.0)
        least = FLOOR * (tops + LOW * self.level) + 1e-300
        return middle, np.maximum(middle - low, least), np.maximum(high - middle, least)

    def residuals(self, seen: Seen) -> Floats:
        """In units of the distance to the level that lies on the same side; (times, rows)."""
        middle, below, above = self.around(seen.tops, seen.means)
        off = seen.came - middle
        sized: Floats = off / np.maximum(np.where(off > 0, above, below), np.abs(off) / FARTHEST)
        return sized


def parts(tops: Floats, means: Floats, level: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Each shaped (times, rows), as `tops` and `means`; `level` (rows,)."""
    return level, np.sqrt(level * tops), tops, means


def learn(seen: Seen) -> Bands:
    """Rows with fewer than ENOUGH outcomes get bands that are wide on purpose."""
    known = np.isfinite(seen.tops) & np.isfinite(seen.came)
    number = known.sum(axis=0)
    came, tops, means = (np.where(known, each, 0.0) for each in (seen.came, seen.tops, seen.means))
    level = np.maximum(came.sum(axis=0), tops.sum(axis=0)) / np.maximum(number, 1)
    unit = np.where(level > 0, level, 1.0)
    whole = parts(tops / unit, means / unit, (level > 0).astype(np.float64))
    x = np.stack([np.where(known, part, 0.0).T for part in whole], axis=2)
    coefficients = regress(x, (came / unit).T, known.T)
    coefficients[number < ENOUGH] = UNKNOWN
    bands = Bands(level, coefficients, np.ones(len(level)))
    sizes = np.abs(bands.residuals(Seen(tops, means, came)))
    usual = np.where(known, sizes, 0.0).sum(axis=0) / np.maximum(number, 1)
    return Bands(level, coefficients, np.where((number >= ENOUGH) & (usual > 0), usual, 1.0))


def regress(x: Floats, y: Floats, known: Bools) -> Floats:
    """Coefficients (rows, LEVELS, parts) by iteratively reweighted least squares, drawn towards START.

    `x` (rows, times, parts) and `y` (rows, times), both 0 where not `known`.
    """
    rows, times, size = x.shape
    number = np.maximum(known.sum(axis=1), 1)[:, None, None]
    products = (x[:, :, :, None] * x[:, :, None, :]).reshape(rows, times, size * size)
    sums = np.concatenate((products, x * y[:, :, None]), axis=2)  # what is weighed: of the equations' both sides
    across, aimed = np.ascontiguousarray(x.transpose(0, 2, 1)), y[:, None, :]
    found = np.broadcast_to(START, (rows, len(LEVELS), size))
    usual = np.abs(y - x @ START[1]).sum(axis=1)[:, None, None] / number
    least = SMOOTH * usual + 1e-12
    for _ in range(ROUNDS):
        off = aimed - found @ across
        weights = np.where(off >= 0, LEVELS[:, None], 1.0 - LEVELS[:, None])
        weights /= np.maximum(np.abs(off, out=off), least, out=off)
        whole = weights @ sums
        gram = whole[:, :, : size * size]
        own = gram[:, :, :: size + 1]  # the diagonals
        held = PRIOR / number * own + 1e-9 * own.sum(axis=2, keepdims=True) + 1e-12
        own += held
        right = whole[:, :, size * size :] + held * START
        found = np.linalg.solve(gram.reshape(rows, len(LEVELS), size, size), right[..., None])[..., 0]
    return np.array(found)


def sorted_residuals(sized: Floats) -> Residuals:
    """From (times, rows); NaN: unknown."""
    ascending = np.sort(sized, axis=0).T
    counts = np.isfinite(ascending).sum(axis=1)
    if not ascending.shape[1]:
        ascending = np.full((len(counts), 1), np.nan)
    tails = np.zeros((len(counts), 2))
    for row, count in enumerate(counts.tolist()):
        if count >= ENOUGH:
            fifth, values = int(0.8 * count), ascending[row, :count]
            tails[row] = (
                values[count - 1 - fifth] - values[: count - fifth].mean(),
                values[fifth:].mean() - values[fifth],
            )
    return Residuals(np.where(np.isfinite(ascending), ascending, 0.0), counts, tails)
