"""Calibration that follows what comes: steady errors move a band, large ones widen it, misses move its level.

Three things per row (see `bands`), functions of outcomes that had come due and of nothing else:

drift: the mean of the last hours' residuals (half-life three hours), where it is surely not chance.
swing: the mean size of what that leaves of them, relative to the usual one.
shift: adaptive conformal inference (Gibbs, Candès 2021). After every outcome the level at which a quantile is looked up
moves by RATE × (missed - (1 - q)); here on the scale of log odds, where the tail beyond the largest residual goes on,
so that a level never runs out.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.bands import Residuals
from controllers.forecast.history import Floats, Ints
from controllers.forecast.sums import interpolating

TRACKED = np.array([0.1, 0.5, 0.9, 0.98])  # the quantiles whose misses are followed; between them, interpolated
HALF_LIFE_SECONDS = 3 * 3600.0
# A swing is believed to the half when the square of its logarithm is DOUBT times what chance makes of it, a drift when
# its square is SURE times that, and hardly before: steady errors are the model's to mend, unless it does not.
DOUBT, SURE = 3.0, 3.0
MAX_SWING = 4.0
RATE = 0.25
RATES = RATE * (TRACKED != 0.5)  # the median stays: whether it holds half of the time, a point forecast need not know
MOST = 4.0  # a shift is at most this: of the odds, a factor of 55
FEW = 2  # times that no table is made for
GRID = np.linspace(-MOST, MOST, 161)


@dataclass(frozen=True, slots=True)
class State:
    """Where the following has got to, `at` (Unix seconds)."""

    at: float
    weights: Floats  # (rows,): outcomes that came due, halved every HALF_LIFE_SECONDS
    sums: Floats  # (rows,): of their residuals, halved the same
    signs: Floats  # (rows,): of the residuals again, each cut at the usual size
    sizes: Floats  # (rows,): of the sizes of what the drift of their time had left of them
    shifts: Floats  # (rows, TRACKED)

    @property
    def drift(self) -> Floats:
        return drift(self.sums, self.signs, self.weights)

    @property
    def swing(self) -> Floats:
        return swing(self.sizes, self.weights)


def start(at: float, rows: int) -> State:
    nothing = np.zeros(rows)
    return State(at, nothing, nothing, nothing, nothing, np.zeros((rows, len(TRACKED))))


def drift(sums: Floats, signs: Floats, weights: Floats) -> Floats:
    """The mean residual of late (1: the usual size), as far as most lie on its side: one alone makes none."""
    evidence = (signs**2 / (1.0 + weights)) ** 2
    believed: Floats = sums / (1.0 + weights) * evidence / (evidence + SURE**2)
    return believed


def swing(sizes: Floats, weights: Floats) -> Floats:
    """The mean size of residuals of late (1: the usual one), as far as it differs by more than chance."""
    off = np.log((1.0 + sizes) / (1.0 + weights))
    evidence = off**2 * (1.0 + weights)
    believed: Floats = np.exp(np.clip(off * evidence / (evidence + DOUBT), -np.log(MAX_SWING), np.log(MAX_SWING)))
    return believed


def swings(
    state: State, made: Floats, reach: Floats, delays: Ints, sized: Floats, now: float
) -> tuple[Floats, Floats, State]:
    """Drift and swing at each of the evenly spaced times `made`, from outcomes known then: (times, rows) each.

    `sized` (times, rows): residuals (1: of the usual size; NaN: unknown), known `reach` (rows,) seconds after `made`,
    by the time that comes `delays` (rows,) later. Also the state at `now`, with all of them; its shifts stay.
    """
    known = np.isfinite(sized)
    grown = np.exp2((made[:, None] + reach - now) / HALF_LIFE_SECONDS) * known
    old = np.exp2((state.at - now) / HALF_LIFE_SECONDS)
    faded = np.exp2((now - made[:, None]) / HALF_LIFE_SECONDS)
    place = np.maximum(np.arange(1, len(made) + 1)[:, None] - delays, 0)

    def summed(each: Floats, before: Floats) -> tuple[Floats, Floats]:
        sums = np.concatenate((np.zeros((1, len(reach))), np.cumsum(grown * each, axis=0))) + before * old
        return np.take_along_axis(sums, place, axis=0) * faded, sums[-1]

    residuals = np.where(known, sized, 0.0)
    weights, all_weights = summed(np.ones(residuals.shape), state.weights)
    sums, all_sums = summed(residuals, state.sums)
    signs, all_signs = summed(np.clip(residuals, -1.0, 1.0), state.signs)
    drifts = drift(sums, signs, weights)
    sizes, all_sizes = summed(np.abs(residuals - drifts), state.sizes)
    return drifts, swing(sizes, weights), State(now, all_weights, all_sums, all_signs, all_sizes, state.shifts)


def follow(state: State, residuals: Residuals, sized: Floats, delays: Ints) -> tuple[Floats, Floats]:
    """The shifts after a sequence of outcomes, and which of them each quantile held: (times, rows, TRACKED).

    `sized` (times, rows): residuals, NaN where unknown or not counted; known `delays` (rows,) times later.
    """
    times, rows = sized.shape
    every = np.repeat(sized, len(TRACKED), axis=1)  # rows x TRACKED side by side
    counts = np.isfinite(every)
    if not counts.any():
        return state.shifts, np.full((times, rows, len(TRACKED)), np.nan)
    down = np.tile(RATES * (1.0 - TRACKED), rows) * counts
    up = np.tile(RATES, rows) - down
    thresholds, columns = table(residuals) if times > FEW else None, np.arange(every.shape[1])
    per_step = 1.0 / (GRID[1] - GRID[0])
    zero = columns * len(GRID) + (MOST * per_step + 0.5)  # where in the table no shift is, rounded to the nearest one
    due = np.arange(times)[:, None] - np.repeat(delays, len(TRACKED))
    taken = np.where(due >= 0, due, times) * every.shape[1] + columns
    missed = np.zeros(every.shape, dtype=np.bool_)
    moves = np.zeros((times + 1, every.shape[1]))  # the last one stays zero: nothing came due
    shifts, flat = state.shifts.ravel().copy(), moves.ravel()
    for came, due_now, rise, fall, beyond, move in zip(every, taken, up, down, missed, moves, strict=False):
        shifts += flat.take(due_now)
        np.minimum(np.maximum(shifts, -MOST, out=shifts), MOST, out=shifts)
        place = (shifts * per_step + zero).astype(np.int64)
        np.greater(came, told(residuals, place) if thresholds is None else thresholds.take(place), out=beyond)
        np.copyto(move, np.where(beyond, rise, -fall))
    late = np.arange(times)[:, None] >= times - np.repeat(delays, len(TRACKED))  # due after the last time
    shifts = np.clip(shifts + (moves[:times] * late).sum(axis=0), -MOST, MOST)
    held = np.where(counts, ~missed, np.nan).reshape(times, rows, len(TRACKED))
    return shifts.reshape(rows, len(TRACKED)), held


def table(residuals: Residuals) -> Floats:
    """The residual at each tracked quantile moved by each of GRID: (rows, TRACKED, GRID), flat."""
    return told(residuals, np.arange(len(residuals.counts) * len(TRACKED) * len(GRID)))


def told(residuals: Residuals, places: Ints) -> Floats:
    """What a `table` says at these places, as many in each row and in ascending order, without making it."""
    levels = expit(logit(TRACKED)[places // len(GRID) % len(TRACKED)] + GRID[places % len(GRID)])
    return residuals.at(levels.reshape(len(residuals.counts), -1)).ravel()


def looked_up(residuals: Residuals, shifts: Floats, quantiles: Floats) -> Floats:
    """The residual at each of `quantiles` (ascending), each moved by what was learned: (rows, quantiles), ascending."""
    odds = logit(quantiles)
    moved = odds + shifts @ interpolating(logit(TRACKED), odds)
    return np.maximum.accumulate(residuals.at(expit(moved)), axis=1)


def logit(share: Floats) -> Floats:
    odds: Floats = np.log(share / (1.0 - share))
    return odds


def expit(odds: Floats) -> Floats:
    share: Floats = 1.0 / (1.0 + np.exp(-odds))
    return share
