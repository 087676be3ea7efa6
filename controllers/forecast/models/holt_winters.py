"""Holt-Winters on a log scale: an exponentially smoothed level and season, their smoothing tuned on the recent past.

Each weekday has a season of its own, which leans on those of its kind (busy or quiet) and on all days, more or less as
the past says (`weekdays`); the level is what the seasons leave, smoothed bin by bin. There is no trend: one hour ahead
it costs more than it gives.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.features import Basis, basis
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models.days import by_days, coarse, exponential_mean, softened
from controllers.forecast.models.weekday_paths import weekday_paths
from controllers.forecast.models.weekdays import State, likeness, seasons
from controllers.forecast.seasons import Phases, phase_factors, without

NEEDS_SECONDS = 0.5 * 86_400.0  # the backtest tells from when on it is good
LEVEL_SHARES = (0.03, 0.08, 0.2, 0.5)  # alpha, per bin of five minutes
SEASON_SHARE = 0.06  # gamma, per day
MIXES = ((0.6, 0.3), (0.05, 0.02))  # how much days of the same kind, and others, count in a weekday's season
WIDTH_SECONDS = 300.0  # to either side, over which a day's season is smoothed
SCORED_DAYS = 14
RUN_IN_DAYS = 3
LEADS_SECONDS = (600.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    mix: Floats  # (7, 7), as `likeness` gives it
    leads: Ints  # in coarse bins
    level_shares: Floats  # the best at each of `leads`
    state: State
    phases: tuple[Phases, ...]  # of steady periods other than the calendar's


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = softened(basis(coarse(history, len(history.values) - 1), time_zone))
    phases = phase_factors(history)
    part = coarse(without(history, phases, fixed.level_offset), len(history.values) - 1)
    step, count = part.step_seconds, len(part.values)
    leads = np.unique([max(1, round(seconds / step)) for seconds in LEADS_SECONDS])
    days = by_days(part, time_zone, fixed.ceiling, 0)
    logs = np.log(days.values + fixed.level_offset)
    shares = np.array([equivalent(share, step) for share in LEVEL_SHARES])
    mixes = np.array([likeness(fixed.quiet, alike, other) for alike, other in MIXES])
    season = seasons(days, logs, mixes, share=SEASON_SHARE, logs=True, width=int(WIDTH_SECONDS / step))
    errors = np.zeros((len(mixes), len(shares), len(leads)))
    recent = np.arange(max(0, count - SCORED_DAYS * days.slots), count)
    # nothing older than some days before these counts in a level
    skip = max(0, int(days.places[recent[0]]) - RUN_IN_DAYS * days.slots)
    for row in range(len(mixes)):
        rest = (logs - season.own(row, days)).ravel()[skip:]
        known = np.isfinite(rest)
        coming = []
        for lead in leads.tolist():
            at = recent[: max(0, len(recent) - lead)]
            shape, came = season.at(row, days, at, days.places[at + lead]), part.values[at + lead]
            due = np.isfinite(came)
            coming.append((days.places[at[due]] - skip, shape[due], came[due] + fixed.level_offset))
        for column, share in enumerate(shares.tolist()):
            level = exponential_mean(rest, known, share)
            for place, (at, shape, came) in enumerate(coming):
                missed = np.abs(np.exp(level[at] + shape) - came)
                errors[row, column, place] = np.minimum(missed, fixed.ceiling).sum()
    best = int(errors.min(axis=1).sum(axis=1).argmin())
    return Learned(fixed, mixes[best], leads, shares[errors[best].argmin(axis=0)], season.state, phases)


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    return weekday_paths(learned, history, origins, steps, _paths)


def _paths(learned: Learned, after: State | None, part: History, origins: Ints, steps: int) -> Floats:
    fixed = learned.basis
    days = by_days(part, fixed.time_zone, fixed.ceiling, steps)
    logs = np.log(days.values + fixed.level_offset)
    width = int(WIDTH_SECONDS / part.step_seconds)
    season = seasons(days, logs, learned.mix[None], share=SEASON_SHARE, logs=True, width=width, after=after)
    rest = (logs - season.own(0, days)).ravel()
    known = np.isfinite(rest)
    tuned = np.array([exponential_mean(rest, known, share)[days.places[origins]] for share in learned.level_shares])
    # between the leads that were tuned, their levels are blended
    place = np.interp(np.arange(1, steps + 1), learned.leads, np.arange(len(tuned)))
    low = np.minimum(place.astype(np.int64), max(0, len(tuned) - 2))
    level = tuned[low].T * (1 - (place - low)) + tuned[np.minimum(low + 1, len(tuned) - 1)].T * (place - low)
    at = origins[:, None] + np.arange(1, steps + 1)
    ahead = level + season.at(0, days, origins[:, None], days.places[at])
    demand: Floats = np.clip(np.exp(ahead) - fixed.level_offset, 0.0, fixed.ceiling)
    return demand


def equivalent(share: float, step_seconds: float) -> float:
    """Longer bins are less noisy, so they count more: halfway to what forgets as fast as `share` in five minutes."""
    return float(1 - (1 - share) ** ((step_seconds / 300.0) ** 0.5))
