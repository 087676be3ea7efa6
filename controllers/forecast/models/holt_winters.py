"""Holt-Winters on a log scale: an exponentially smoothed level and season, their smoothing tuned on the recent past.

Each weekday has a season of its own, which leans on those of its kind (busy or quiet) and on all days, more or less as
the past says. Seasons change once a day, so a month is a loop over thirty days; the level is what they leave, smoothed
bin by bin. There is no trend: one hour ahead it costs more than it gives.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.features import Basis, basis
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models.days import Days, by_days, coarse, coarse_paths, exponential_mean, likeness

NEEDS_SECONDS = 86_400.0
LEVEL_SHARES = (0.03, 0.07, 0.15, 0.3, 0.6)  # alpha, per bin of five minutes
SEASON_SHARE = 0.06  # gamma, per day
MIXES = ((0.6, 0.3), (0.05, 0.02))  # how much days of the same kind, and others, count in a weekday's season
DAY_SHARE = 0.3  # of the newest day, in the level that a day's season is relative to
WIDTH_SECONDS = 300.0  # to either side, over which a day's season is smoothed
SCORED_DAYS = 14
LEADS_SECONDS = (600.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    mix: Floats  # (7, 7), as `likeness` gives it
    leads: Ints  # in coarse bins
    level_shares: Floats  # the best at each of `leads`


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = basis(history, time_zone)
    part = coarse(history, len(history.values) - 1)
    step, count = part.step_seconds, len(part.values)
    leads = np.unique([max(1, round(seconds / step)) for seconds in LEADS_SECONDS])
    days = by_days(part, time_zone, fixed.ceiling, 0)
    logs = np.log(days.values + fixed.level_offset)
    shares = np.array([equivalent(share, step) for share in LEVEL_SHARES])
    mixes = [likeness(fixed.quiet, alike, other) for alike, other in MIXES]
    errors = np.zeros((len(mixes), len(shares), len(leads)))
    recent = np.arange(max(0, count - SCORED_DAYS * days.slots), count)
    for row, mix in enumerate(mixes):
        seasons = seasons_by_day(logs, days, mix)
        rest = (logs - own(seasons, days)).ravel()
        known = np.isfinite(rest)
        coming = []
        for lead in leads.tolist():
            at = recent[: max(0, len(recent) - lead)]
            coming.append((at, ahead(seasons, days, at, days.places[at + lead]), part.values[at + lead]))
        for column, share in enumerate(shares.tolist()):
            level = exponential_mean(rest, known, share)
            for place, (at, season, came) in enumerate(coming):
                missed = np.exp(level[days.places[at]] + season) - fixed.level_offset - came
                errors[row, column, place] = np.nansum(np.minimum(np.abs(missed), fixed.ceiling))
    best = int(errors.min(axis=1).sum(axis=1).argmin())
    return Learned(fixed, mixes[best], leads, shares[errors[best].argmin(axis=0)])


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    return coarse_paths(history, origins, steps, lambda part, at, count: _paths(learned, part, at, count))


def _paths(learned: Learned, part: History, origins: Ints, steps: int) -> Floats:
    fixed = learned.basis
    days = by_days(part, fixed.time_zone, fixed.ceiling, steps)
    logs = np.log(days.values + fixed.level_offset)
    seasons = seasons_by_day(logs, days, learned.mix)
    rest = (logs - own(seasons, days)).ravel()
    known = np.isfinite(rest)
    tuned = np.array([exponential_mean(rest, known, share)[days.places[origins]] for share in learned.level_shares])
    # between the leads that were tuned, their levels are blended
    place = np.interp(np.arange(1, steps + 1), learned.leads, np.arange(len(tuned)))
    low = np.minimum(place.astype(np.int64), max(0, len(tuned) - 2))
    level = tuned[low].T * (1 - (place - low)) + tuned[np.minimum(low + 1, len(tuned) - 1)].T * (place - low)
    at = origins[:, None] + np.arange(1, steps + 1)
    logs_ahead = level + ahead(seasons, days, origins[:, None], days.places[at])
    demand: Floats = np.clip(np.exp(logs_ahead) - fixed.level_offset, 0.0, fixed.ceiling)
    return demand


def equivalent(share: float, step_seconds: float) -> float:
    """Longer bins are less noisy, so they count more: halfway to what forgets as fast as `share` in five minutes."""
    return float(1 - (1 - share) ** ((step_seconds / 300.0) ** 0.5))


def seasons_by_day(logs: Floats, days: Days, mix: Floats) -> Floats:
    """The seasons as they were known when each day began: (days, weekdays, slots), in logs relative to the level.

    0 where nothing is known.
    """
    count, slots = logs.shape
    known = np.isfinite(logs)
    width = int(WIDTH_SECONDS / days.step_seconds)
    sums, weights, found = np.zeros((7, slots)), np.zeros((7, slots)), np.zeros((count, 7, slots))
    level, heard = 0.0, 0.0
    for day in range(count):
        mass = mix @ weights
        np.divide(mix @ sums, mass, out=found[day], where=mass > 0)
        sums *= 1 - SEASON_SHARE
        weights *= 1 - SEASON_SHARE
        here, weekday = known[day], days.weekdays[day]
        if not here.any():
            continue
        heard = (1 - DAY_SHARE) * heard + DAY_SHARE
        level += DAY_SHARE / heard * (float((logs[day] - found[day, weekday])[here].mean()) - level)
        sums[weekday] += smoothed(np.where(here, logs[day] - level, 0.0), width)
        weights[weekday] += smoothed(here.astype(np.float64), width)
    return found


def smoothed(values: Floats, width: int) -> Floats:
    """Sums over `width` neighbours to either side."""
    return np.convolve(values, np.ones(2 * width + 1), "same") if 0 < width < len(values) // 2 else values


def own(seasons: Floats, days: Days) -> Floats:
    """Each day's season of its own weekday: (days, slots)."""
    mine: Floats = seasons[np.arange(len(seasons)), days.weekdays[: len(seasons)]]
    return mine


def ahead(seasons: Floats, days: Days, origins: Ints, places: Ints) -> Floats:
    """The seasons at `places` as they were known when the origin's day began."""
    day = days.places[origins] // days.slots
    found: Floats = seasons[day, days.weekdays[places // days.slots], places % days.slots]
    return found
