"""How far outcomes stray from a path, as told by what was seen just before it was made.

A quiet night and a busy noon differ in more than their level. Residuals are taken between square roots, which makes
counts alike (Bartlett 1936), and the logarithm of their size is linear in the logarithms of what the path says and of
demand lately (its last bin, the mean of half an hour, the highest of one hour and of six), and in the time of day: a
ridge regression, as multiplicative heteroscedasticity is modelled since Harvey (1976). Quantiles come from all
residuals together, each in units of its own time; beyond what the many say, an exponential tail goes on (peaks over a
threshold, Pickands 1975), for a scaler lives on the rare ones.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.history import DAY_SECONDS, Bools, Floats, History, Ints

REACHES_SECONDS = (3600.0, 6 * 3600.0)  # of the highest bins
MEAN_SECONDS = 1800.0
UNIT, ROOT = 0.1, 0.05  # of the usual level: added before logarithms, and before roots
FLOOR = 0.15  # of a residual's size, as a share of the usual one
PENALTY = 0.01  # per outcome and standardised hint
MOST = 10.0  # a factor is at most this, at least its inverse
FEW = 60  # outcomes: below, nothing is told
SILENT = 0.05  # of the usual level
TAIL, LEAST_TAIL = 0.05, 15  # of the outcomes: share and number in the upper tail


def hints(history: History, origins: Ints) -> Floats:
    """What is known at each origin (place of the newest bin): (origins, hints), demand per second and harmonics.

    Of unknown bins nothing is taken; where all are, it is 0.
    """
    step, values = history.step_seconds, history.values
    told = []
    for seconds, is_mean in ((step, False), (MEAN_SECONDS, True), *((reach, False) for reach in REACHES_SECONDS)):
        places = origins[:, None] - np.arange(max(1, round(seconds / step)))
        seen = np.where(places >= 0, values[np.maximum(places, 0)], np.nan)
        known = np.isfinite(seen)
        filled = np.where(known, seen, 0.0)
        told.append(filled.sum(axis=1) / np.maximum(known.sum(axis=1), 1) if is_mean else filled.max(axis=1))
    angle = 2.0 * np.pi * ((history.start + origins * step) % DAY_SECONDS) / DAY_SECONDS
    return np.stack([*told, np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)], axis=1)


@dataclass(frozen=True, slots=True)
class Residuals:
    """Ascending, between roots, each over the size that its time has; above them an exponential tail."""

    ascending: Floats
    tail_count: int
    tail_mean: float  # excess over the smallest of the tail

    def at(self, wanted: Floats) -> Floats:
        count, tail = len(self.ascending), self.tail_count
        begin = self.ascending[count - tail]
        held = np.minimum(np.interp(wanted * (count + 1), np.arange(1, count + 1), self.ascending), begin)
        beyond = begin + self.tail_mean * np.log(np.maximum(tail / count / (1.0 - wanted), 1.0))
        found: Floats = np.where(wanted > 1.0 - tail / count, beyond, held)
        return found


@dataclass(frozen=True, slots=True)
class Strays:
    """The regression and the residuals. Picklable. `level`: the usual demand per second.

    `silent`: residuals of times at which next to nothing was there or foreseen, for those say nothing about others;
    None: there are too few such times.
    """

    level: float
    centre: Floats
    spread: Floats
    coefficients: Floats
    usual: Residuals
    silent: Residuals | None

    def quantiles(self, seen: Floats, tops: Floats, wanted: Floats) -> Floats:
        """Demand per second (times, wanted), ascending in `wanted`; of `seen` (times, hints) and `tops` (times,)."""
        x = (_features(seen, tops, UNIT * self.level) - self.centre) / self.spread
        off = _sizes(x, self.coefficients)[:, None] * self.usual.at(wanted)
        if self.silent is not None:
            off = np.where(_is_silent(seen, tops, self.level)[:, None], self.silent.at(wanted), off)
        roots = np.sqrt(np.maximum(tops, 0.0) + ROOT * self.level)[:, None] + off
        found: Floats = np.maximum(np.maximum(roots, 0.0) ** 2 - ROOT * self.level, 0.0)
        return found


def learn(seen: Floats, tops: Floats, came: Floats) -> Strays | None:
    """From what was seen (times, hints) and said (times,), and what came; NaN: unknown. None: too few."""
    known = np.isfinite(came) & np.isfinite(tops)
    if known.sum() < FEW:
        return None
    seen, tops, came = seen[known], np.maximum(tops[known], 0.0), came[known]
    level = float(max(came.mean(), tops.mean()))
    if level <= 0.0:
        return None
    off = np.sqrt(came + ROOT * level) - np.sqrt(tops + ROOT * level)
    silent = _is_silent(seen, tops, level)
    apart = silent.sum() >= FEW and (~silent).sum() >= FEW
    loud = ~silent if apart else np.ones(len(off), dtype=np.bool_)
    x = _features(seen[loud], tops[loud], UNIT * level)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    z, sizes = (x - centre) / spread, np.abs(off[loud])
    aimed = np.log(sizes + FLOOR * off[loud].std() + 1e-12)
    gram = z.T @ z + PENALTY * len(z) * np.eye(z.shape[1])
    coefficients = np.linalg.solve(gram, z.T @ (aimed - aimed.mean()))
    return Strays(
        level,
        centre,
        spread,
        coefficients,
        _pooled(off[loud] / _sizes(z, coefficients)),
        _pooled(off[silent]) if apart else None,
    )


def _pooled(residuals: Floats) -> Residuals:
    ascending = np.sort(residuals)
    tail = min(len(ascending), max(LEAST_TAIL, round(TAIL * len(ascending))))
    return Residuals(ascending, tail, float(ascending[-tail:].mean() - ascending[-tail]))


def _sizes(z: Floats, coefficients: Floats) -> Floats:
    found: Floats = np.exp(np.clip(z @ coefficients, -np.log(MOST), np.log(MOST)))
    return found


def _is_silent(seen: Floats, tops: Floats, level: float) -> Bools:
    """Next to nothing within the last hour, and nothing much foreseen."""
    found: Bools = (seen[:, 2] <= SILENT * level) & (tops <= SILENT * level)
    return found


def _features(seen: Floats, tops: Floats, unit: float) -> Floats:
    levels = np.log(np.column_stack((np.maximum(tops, 0.0), np.maximum(seen[:, :-4], 0.0))) + unit)
    return np.concatenate((levels, seen[:, -4:]), axis=1)
