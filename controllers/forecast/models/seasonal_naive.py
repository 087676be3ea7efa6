"""What was at this time yesterday, or at this time last week, will be again; or whichever was nearer of late."""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.features import same_time
from controllers.forecast.history import Floats, History, Ints, utc_offsets
from controllers.forecast.sums import hold

NEEDS_SECONDS = 86_400.0
NEEDS_WEEK_SECONDS = 8 * 86_400.0
SCORED_DAYS = 14


@dataclass(frozen=True, slots=True)
class Season:
    time_zone: str
    days: int  # 1: yesterday, 7: last week


def fit(history: History, time_zone: str, steps: int) -> Season:
    count, day = len(history.values), history.steps_per_day
    offsets = utc_offsets(history.start, history.step_seconds, count, time_zone)
    recent = np.arange(max(0, count - SCORED_DAYS * day), count)
    errors = {}
    for days in (1, 7):
        before = same_time(offsets, day, recent, days)
        error = np.abs(history.values[recent] - history.values[np.maximum(before, 0)])
        error = error[(before >= 0) & np.isfinite(error)]
        # a week counts once it has been seen over a few days, not on a lucky hour
        if len(error) > 2 * day or days == 1:
            errors[days] = float(error.mean()) if len(error) else float("inf")
    return Season(time_zone, min(errors, key=errors.__getitem__))


def fit_day(history: History, time_zone: str, steps: int) -> Season:
    return Season(time_zone, 1)


def fit_week(history: History, time_zone: str, steps: int) -> Season:
    return Season(time_zone, 7)


def paths(learned: Season, history: History, origins: Ints, steps: int) -> Floats:
    count, day = len(history.values), history.steps_per_day
    offsets = utc_offsets(history.start, history.step_seconds, count + steps, learned.time_zone)
    at = origins[:, None] + np.arange(1, steps + 1)
    found = np.repeat(hold(history.values, origins)[:, None], steps, axis=1)
    for days in (2, 1, 7) if learned.days == 7 else (7, 2, 1):  # the best known last; the others fill its gaps
        before = same_time(offsets, day, at, days)
        value = history.values[np.minimum(np.maximum(before, 0), count - 1)]
        found = np.where((before >= 0) & (before <= origins[:, None]) & np.isfinite(value), value, found)
    return found
