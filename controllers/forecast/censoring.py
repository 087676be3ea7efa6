"""Demand that was cut off while it was measured, raised to what it most likely was.

A censored bin says only that demand was at least so much. What it most likely was: the median of what lies above that
bound, in a distribution around what the weekday's profile and the last uncensored hour say, as wide as uncensored bins
were around it. Nothing is raised above what was seen uncensored about this time on an earlier day, and what is raised
depends on earlier bins only (but for the constants that tame logarithms and outliers), so that a backtest stays honest.
"""

import numpy as np

from controllers.forecast.features import OFFSET_RATIO, ceiling
from controllers.forecast.history import Floats, History
from controllers.forecast.models import deviation
from controllers.forecast.models.days import Days, by_days, coarse, coarseness
from controllers.forecast.models.weekdays import likeness, seasons

SHARE = 0.05  # of the past that a day's profile forgets
LIKENESS = ((False, False, False, False, False, True, True), 0.4, 0.2)  # weekends are of another kind
FURTHEST = 0.7  # logarithm: the last uncensored hour moves the profile by a factor of two at most
HOUR = 2  # place of the hour in deviation.WINDOWS_SECONDS
AROUND_SECONDS = 1800.0  # to either side: about the same time
NARROWEST, WIDEST = 0.02, 0.4  # scale of a logistic distribution of logarithms


def lifted(history: History, time_zone: str) -> History:
    """The same history with censored values raised, never lowered; the flags stay. Unknown values stay unknown."""
    cut = np.flatnonzero(history.censored & np.isfinite(history.values))
    known = np.isfinite(history.values) & ~history.censored
    if not len(cut) or not known.any() or not history.values[known].any():
        return history
    offset = OFFSET_RATIO * float(history.values[known].mean())
    # coarse bins that end at round times, the last one filled up
    size = coarseness(history)
    phase = -round(history.start / history.step_seconds) % size
    filled = (phase - (len(known) - 1)) % size
    part = coarse(
        History(
            history.start,
            history.step_seconds,
            np.concatenate((np.where(known, history.values, np.nan), np.full(filled, np.nan))),
            np.concatenate((history.censored, np.zeros(filled, dtype=np.bool_))),
        ),
        phase,
    )
    logs, scales, most = likely(part, time_zone, offset)
    at = (cut + (-(phase + 1)) % size) // size
    bound = history.values[cut]
    logs, scale = logs[at], scales[at]
    below = 1.0 / (1.0 + np.exp(-np.clip((np.log(bound + offset) - logs) / scale, -30.0, 30.0)))
    median = np.exp(logs + scale * np.log((1.0 + below) / np.maximum(1.0 - below, 1e-13))) - offset
    values = history.values.copy()
    values[cut] = np.maximum(bound, np.minimum(median, most[at]))
    return History(history.start, history.step_seconds, values, history.censored)


def likely(part: History, time_zone: str, offset: float) -> tuple[Floats, Floats, Floats]:
    """For each bin, from earlier ones: the log of the demand to be expected, the scale of a logistic distribution
    around it, and the most that was seen about this time (0: nothing).
    """
    highest = ceiling(part.values)
    values = np.minimum(part.values, highest)
    days = by_days(part, time_zone, highest, 0)
    season = seasons(days, days.values, likeness(*LIKENESS)[None], share=SHARE, logs=False)
    curve = (season.own(0, days) * season.levels[:, None]).ravel()[days.places]
    every = np.arange(len(values))
    recent = deviation.deviations(values, curve, offset, part.step_seconds, every - 1)[HOUR]
    logs = np.log(curve + offset) + np.clip(recent, -FURTHEST, FURTHEST)
    missed = np.abs(np.log(values + offset) - logs)
    known = np.isfinite(missed)
    # of the bins before; a logistic distribution's mean distance is 1.386 times its scale
    total = np.cumsum(np.where(known, missed, 0.0)) - np.where(known, missed, 0.0)
    count = np.cumsum(known) - known
    scales = np.clip(total / np.maximum(count, 1) / 1.386, NARROWEST, WIDEST)
    return logs, scales, most_seen(days).ravel()[days.places]


def most_seen(days: Days) -> Floats:
    """The largest demand about each slot's time on earlier days: (days, slots); 0 where none is known."""
    width = max(1, round(AROUND_SECONDS / days.step_seconds))
    known = np.nan_to_num(days.values)
    flat = np.pad(known.ravel(), width)
    around = np.max([flat[shift : shift + known.size] for shift in range(2 * width + 1)], axis=0).reshape(known.shape)
    # the other side of midnight may belong to the very day that is being looked at
    around[:-1, -width:] = np.maximum.accumulate(known[:-1, -2 * width :], axis=1)[:, -width:]
    most: Floats = np.zeros(known.shape)
    most[1:] = np.maximum.accumulate(around, axis=0)[:-1]
    return most
