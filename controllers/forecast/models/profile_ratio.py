"""The profile of the day, times how far the last hours were from it; of that, less remains with the lead, as learned.

The profile is an exponentially weighted mean of earlier days (`weekdays`), the weekday's own counting most.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.features import Basis, basis
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models import deviation
from controllers.forecast.models.days import Days, by_days, coarse, coarse_leads
from controllers.forecast.models.deviation import Persistence
from controllers.forecast.models.weekday_paths import weekday_paths
from controllers.forecast.models.weekdays import Season, State, likeness, seasons
from controllers.forecast.seasons import Phases, phase_factors, without

NEEDS_SECONDS = 0.5 * 86_400.0  # the backtest tells from when on it is good
SHARE = 0.05  # of the past that a day's profile forgets
MIXES = ((0.5, 0.2), (0.05, 0.02))  # how much days of the same kind, and others, count in a weekday's profile
SCORED_DAYS = 14


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    mix: Floats  # (7, 7), as `likeness` gives it
    persistence: Persistence
    state: State
    phases: tuple[Phases, ...]  # of steady periods other than the calendar's


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = basis(coarse(history, len(history.values) - 1), time_zone)
    phases = phase_factors(history)
    part = coarse(without(history, phases, fixed.level_offset), len(history.values) - 1)
    count, offset = len(part.values), fixed.level_offset
    days = by_days(part, time_zone, fixed.ceiling, 0)
    mixes = np.array([likeness(fixed.quiet, alike, other) for alike, other in MIXES])
    season = seasons(days, days.values, mixes, share=SHARE, logs=False)
    best = min(range(len(mixes)), key=lambda row: misfit(season.own(row, days), days, offset))
    profile = Profile(season, best, days, offset)
    every = np.arange(count)
    persistence = deviation.learn_all(
        np.minimum(part.values, fixed.ceiling),
        profile.at(every, days.places),
        lambda rows, lead: profile.at(rows, days.places[rows + lead]),
        part.censored,
        offset,
        part.step_seconds,
        coarse_leads(history, steps),
    )
    return Learned(fixed, mixes[best], persistence, season.state, phases)


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    return weekday_paths(learned, history, origins, steps, _paths)


def _paths(learned: Learned, after: State | None, part: History, origins: Ints, steps: int) -> Floats:
    fixed = learned.basis
    days = by_days(part, fixed.time_zone, fixed.ceiling, steps)
    season = seasons(days, days.values, learned.mix[None], share=SHARE, logs=False, after=after)
    profile = Profile(season, 0, days, fixed.level_offset)
    values = np.minimum(part.values, fixed.ceiling)
    every = np.arange(len(values))
    curve = profile.at(every, days.places[: len(values)])
    recent = deviation.deviations(values, curve, fixed.level_offset, part.step_seconds, origins)
    wanted = profile.at(origins[:, None], days.places[origins[:, None] + np.arange(1, steps + 1)])
    ratio = np.exp(deviation.ahead(learned.persistence, recent, steps))
    demand: Floats = np.clip((wanted + fixed.level_offset) * ratio - fixed.level_offset, 0.0, fixed.ceiling)
    return demand


@dataclass(frozen=True, slots=True)
class Profile:
    """Demand per second that was to be expected. Before any day is known: a constant, the offset."""

    season: Season
    mixture: int
    days: Days
    offset: float

    def at(self, origins: Ints, places: Ints) -> Floats:
        """At `places` (day * slots + slot), when the origin's day began."""
        level = self.season.levels[self.days.places[origins] // self.days.slots]
        wanted: Floats = self.season.at(self.mixture, self.days, origins, places) * np.where(
            level > 0, level, self.offset
        )
        return wanted


def misfit(own: Floats, days: Days, offset: float) -> float:
    """How far the last days were from their shape, each day's level apart."""
    values, wanted = days.values[-SCORED_DAYS:], own[-SCORED_DAYS:]
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    scale = (total + offset) / (np.where(known, wanted, 0.0).sum(axis=1) + 1e-3)
    return float(np.nansum(np.abs(values - scale[:, None] * wanted)))
