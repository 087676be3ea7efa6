"""Calibration that follows what comes: of late larger errors widen a band, misses move the level it is asked for.

Two things per row (see `bands`), both functions of outcomes that had come due and of nothing else:

swing: the mean size of the last hours' residuals (half-life three hours) relative to the usual one, drawn towards 1.
shift: adaptive conformal inference (Gibbs, Candès 2021). After every outcome the level at which a quantile is looked up
moves by RATE × (missed - (1 - q)); here on the scale of log odds, where the tail beyond the largest residual goes on,
so that a level never runs out.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.bands import Residuals
from controllers.forecast.history import Floats, Ints

TRACKED = np.array([0.1, 0.5, 0.9, 0.98])  # the quantiles whose misses are followed; between them, interpolated
HALF_LIFE_SECONDS = 3 * 3600.0
DOUBT = 6.0  # outcomes that the usual size is worth
MAX_SWING = 4.0
RATE = 0.1
RATES = RATE * (
    TRACKED != 0.5
)  # the median stays: it is a point forecast, and errors that go on are the models' matter
MOST = 4.0  # a shift is at most this: of the odds, a factor of 55
GRID = np.linspace(-MOST, MOST, 161)


@dataclass(frozen=True, slots=True)
class State:
    """Where the following has got to, `at` (Unix seconds). All but `at`: (rows,), and shifts (rows, TRACKED)."""

    at: float
    sizes: Floats  # sum of the sizes of residuals (1: usual), halved every HALF_LIFE_SECONDS
    weights: Floats  # the same sum of ones
    shifts: Floats

    @property
    def swing(self) -> Floats:
        return swing(self.sizes, self.weights)


def start(at: float, rows: int) -> State:
    return State(at, np.zeros(rows), np.zeros(rows), np.zeros((rows, len(TRACKED))))


def swing(sizes: Floats, weights: Floats) -> Floats:
    held: Floats = np.clip((DOUBT + sizes) / (DOUBT + weights), 1 / MAX_SWING, MAX_SWING)
    return held


def swings(state: State, made: Floats, reach: Floats, sizes: Floats, now: float) -> tuple[Floats, State]:
    """The swing at each of the times `made` (ascending), from outcomes that were known then: (times, rows).

    `sizes` (times, rows): of the residuals (1: usual; NaN: unknown), known `reach` (rows,) seconds after `made`.
    Also the state at `now`, its shifts as they were.
    """
    rows = sizes.shape[1]
    found = np.empty((len(made), rows))
    last_sizes, last_weights = np.empty(rows), np.empty(rows)
    at = np.append(made, now)
    for row in range(rows):
        due = np.flatnonzero(np.isfinite(sizes[:, row]) & (made + reach[row] <= now + 1e-3))
        ends = np.append(state.at, made[due] + reach[row])
        grown = np.exp2((ends - now) / HALF_LIFE_SECONDS)
        sums = np.cumsum(grown * np.append(state.sizes[row], sizes[due, row]))
        ones = np.cumsum(grown * np.append(state.weights[row], np.ones(len(due))))
        place = np.maximum(np.searchsorted(ends, at + 1e-3, side="right") - 1, 0)
        faded = np.exp2(np.minimum((now - at) / HALF_LIFE_SECONDS, 500.0))
        found[:, row] = swing((sums[place] * faded)[:-1], (ones[place] * faded)[:-1])
        last_sizes[row], last_weights[row] = sums[place[-1]], ones[place[-1]]
    return found, State(now, last_sizes, last_weights, state.shifts)


def follow(state: State, residuals: Residuals, sized: Floats, delays: Ints) -> tuple[Floats, Floats]:
    """The shifts after a sequence of outcomes, and which of them each quantile held: (times, rows, TRACKED).

    `sized` (times, rows): residuals, NaN where unknown or not counted; known `delays` (rows,) times later.
    """
    times, rows = sized.shape
    thresholds = table(residuals)
    shifts = state.shifts.copy()
    moves = np.zeros((times, rows, len(TRACKED)))
    held = np.full(moves.shape, np.nan)
    known = np.isfinite(sized)
    which, levels = np.ix_(np.arange(rows), np.arange(len(TRACKED)))
    every = np.arange(rows)
    step = GRID[1] - GRID[0]
    for time in range(times):
        came = time - delays
        due = came >= 0
        shifts += moves[came * due, every] * due[:, None]
        np.clip(shifts, -MOST, MOST, out=shifts)
        missed = sized[time][:, None] > thresholds[which, levels, ((shifts + MOST) / step + 0.5).astype(np.int64)]
        moves[time] = RATES * (missed - (1.0 - TRACKED)) * known[time][:, None]
        held[time] = np.where(known[time][:, None], ~missed, np.nan)
    for row, delay in enumerate(delays.tolist()):  # what came due after the last time
        shifts[row] += moves[max(0, times - delay) :, row].sum(axis=0)
    return np.clip(shifts, -MOST, MOST), held


def table(residuals: Residuals) -> Floats:
    """The residual at each tracked quantile moved by each of GRID: (rows, TRACKED, GRID)."""
    levels = expit(logit(TRACKED)[:, None] + GRID)
    rows = len(residuals.counts)
    return residuals.at(np.broadcast_to(levels.ravel(), (rows, levels.size))).reshape(rows, *levels.shape)


def looked_up(residuals: Residuals, shifts: Floats, quantiles: Floats) -> Floats:
    """The residual at each of `quantiles` (ascending), each moved by what was learned: (rows, quantiles), ascending."""
    odds = logit(quantiles)
    moved = odds + np.array([np.interp(odds, logit(TRACKED), row) for row in shifts]).reshape(len(shifts), len(odds))
    return np.maximum.accumulate(residuals.at(expit(moved)), axis=1)


def logit(share: Floats) -> Floats:
    odds: Floats = np.log(share / (1.0 - share))
    return odds


def expit(odds: Floats) -> Floats:
    share: Floats = 1.0 / (1.0 + np.exp(-odds))
    return share
