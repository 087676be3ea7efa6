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
DOUBT = 12.0  # outcomes that the usual size is worth
MAX_SWING = 4.0
RATE = 0.2
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


def swings(state: State, made: Floats, reach: Floats, delays: Ints, sizes: Floats, now: float) -> tuple[Floats, State]:
    """The swing at each of the evenly spaced times `made`, from outcomes that were known then: (times, rows).

    `sizes` (times, rows): of the residuals (1: usual; NaN: unknown), known `reach` (rows,) seconds after `made`, by the
    time that comes `delays` (rows,) later. Also the state at `now`, with all of them; its shifts stay.
    """
    known = np.isfinite(sizes)
    grown = np.exp2((made[:, None] + reach - now) / HALF_LIFE_SECONDS) * known
    fresh = np.array([grown * np.where(known, sizes, 0.0), grown])
    old = np.array([state.sizes, state.weights]) * np.exp2((state.at - now) / HALF_LIFE_SECONDS)
    sums = np.concatenate((np.zeros((2, 1, len(reach))), np.cumsum(fresh, axis=1)), axis=1) + old[:, None, :]
    place = np.maximum(np.arange(1, len(made) + 1)[:, None] - delays, 0)
    then = np.take_along_axis(sums, place[None], axis=1) * np.exp2((now - made[:, None]) / HALF_LIFE_SECONDS)
    return swing(then[0], then[1]), State(now, sums[0, -1], sums[1, -1], state.shifts)


def follow(state: State, residuals: Residuals, sized: Floats, delays: Ints) -> tuple[Floats, Floats]:
    """The shifts after a sequence of outcomes, and which of them each quantile held: (times, rows, TRACKED).

    `sized` (times, rows): residuals, NaN where unknown or not counted; known `delays` (rows,) times later.
    """
    times, rows = sized.shape
    every = np.repeat(sized, len(TRACKED), axis=1)  # rows x TRACKED side by side
    counts = np.isfinite(every)
    if not counts.any():
        return state.shifts, np.full((times, rows, len(TRACKED)), np.nan)
    up, down = np.tile(RATES, rows), np.tile(RATES * (1.0 - TRACKED), rows) * counts
    thresholds, columns = table(residuals), np.arange(every.shape[1])
    begins, per_step = columns * len(GRID), 1.0 / (GRID[1] - GRID[0])
    due = np.arange(times)[:, None] - np.repeat(delays, len(TRACKED))
    taken = np.where(due >= 0, due, times) * every.shape[1] + columns
    missed = np.zeros(every.shape, dtype=np.bool_)
    moves = np.zeros((times + 1, every.shape[1]))  # the last one stays zero: nothing came due
    shifts, flat = state.shifts.ravel().copy(), moves.ravel()
    for time in range(times):
        shifts += flat[taken[time]]
        np.minimum(np.maximum(shifts, -MOST, out=shifts), MOST, out=shifts)
        level = ((shifts + MOST) * per_step + 0.5).astype(np.int64)
        missed[time] = every[time] > thresholds[begins + level]
        moves[time] = up * missed[time] - down[time]
    late = np.arange(times)[:, None] >= times - np.repeat(delays, len(TRACKED))  # due after the last time
    shifts = np.clip(shifts + (moves[:times] * late).sum(axis=0), -MOST, MOST)
    held = np.where(counts, ~missed, np.nan).reshape(times, rows, len(TRACKED))
    return shifts.reshape(rows, len(TRACKED)), held


def table(residuals: Residuals) -> Floats:
    """The residual at each tracked quantile moved by each of GRID: (rows, TRACKED, GRID), flat."""
    levels = expit(logit(TRACKED)[:, None] + GRID)
    rows = len(residuals.counts)
    return residuals.at(np.broadcast_to(levels.ravel(), (rows, levels.size))).ravel()


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
