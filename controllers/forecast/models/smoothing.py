"""Exponential smoothing in plain numbers: the day's profile, times how demand has lately stood to it.

For demand of few pieces: there the logarithms of the other models make much of zeros, and the last hour alone is mostly
chance. Level and profile are plain means; what makes the absolute error of a skewed demand small is a factor below one,
learned with the half-life and with how far the profile is flattened.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.features import Basis, basis
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models.days import (
    Days,
    by_days,
    coarse,
    coarse_leads,
    exponential_mean,
)
from controllers.forecast.models.weekday_paths import weekday_paths
from controllers.forecast.models.weekdays import KEPT_DAYS, State, likeness, smoothed
from controllers.forecast.seasons import Phases, phase_factors, without
from controllers.forecast.sums import bins

NEEDS_SECONDS = 1.25 * 86_400.0
SHARE = 0.07  # of the past that a day's profile forgets
MIX = (0.5, 0.2)  # how much days of the same kind, and others, count in a weekday's profile
WIDTH_SECONDS = 1800.0  # to either side: smooths the profile over an hour
HALF_LIVES_SECONDS = (3600.0, 3 * 3600.0, 12 * 3600.0)
FLATTENED = (0.0, 0.3, 1.0)  # parts of the day's mean that are added to its profile
LEADS_SECONDS = (600.0, 3600.0)  # at which all that is chosen; between them what both say is mixed
SCORED_DAYS = 14
MOST_SHARE = 0.9  # of the newest bin, in a mean
FACTORS = (0.5, 1.2)  # bounds of what absolute errors ask for


@dataclass(frozen=True, slots=True)
class Chosen:
    """At one lead (bins). `share`: of the newest bin in the means; `flat`, `factor`: see FLATTENED and FACTORS."""

    lead: int
    share: float
    flat: float
    factor: float


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    chosen: tuple[Chosen, ...]
    state: State
    phases: tuple[Phases, ...]  # of steady periods other than the calendar's


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = basis(coarse(history, len(history.values) - 1), time_zone)
    phases = phase_factors(history)
    part = coarse(without(history, phases, fixed.level_offset), len(history.values) - 1)
    days = by_days(part, time_zone, fixed.ceiling, 0)
    curves = shaped(days, fixed, None)
    count, step = len(part.values), part.step_seconds
    values = np.minimum(part.values, fixed.ceiling)
    every = np.arange(count)
    own = curves.at(every, days.places[:count])
    level = curves.level(every)
    standing = {}
    for share in sorted({share_of(seconds, step) for seconds in HALF_LIVES_SECONDS}):
        means = [smoothed_up_to(values, each, level, share) for each in (values, own, level)]
        standing.update({(share, flat): ratio(means[0], means[1] + flat * means[2]) for flat in FLATTENED})
    chosen = []
    for lead in sorted({min(bins(seconds, step), coarse_leads(history, steps)) for seconds in LEADS_SECONDS}):
        rows = np.arange(max(part.steps_per_day, count - SCORED_DAYS * part.steps_per_day), count - lead)
        came, bound = values[rows + lead], part.censored[rows + lead]
        wanted = curves.at(rows, days.places[rows + lead])
        known = np.isfinite(came) & ~bound
        best, least = Chosen(lead, share_of(HALF_LIVES_SECONDS[0], step), 0.0, 1.0), np.inf
        for (share, flat), each in standing.items():
            said = ((wanted + flat * level[rows]) * each[rows])[known]
            factor = scale(said, came[known])
            error = float(np.abs(factor * said - came[known]).sum())
            if error < least:
                best, least = Chosen(lead, share, flat, factor), error
        chosen.append(best)
    return Learned(fixed, tuple(chosen), curves.state, phases)


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    return weekday_paths(learned, history, origins, steps, _paths)


def _paths(learned: Learned, after: State | None, part: History, origins: Ints, steps: int) -> Floats:
    fixed = learned.basis
    days = by_days(part, fixed.time_zone, fixed.ceiling, steps)
    curves = shaped(days, fixed, after)
    values = np.minimum(part.values, fixed.ceiling)
    every = np.arange(len(values))
    own, level = curves.at(every, days.places[: len(values)]), curves.level(every)
    leads = np.arange(1, steps + 1)
    wanted = curves.at(origins[:, None], days.places[origins[:, None] + leads])
    said = []
    for each in learned.chosen:
        came, curve = (smoothed_up_to(values, of, level, each.share) for of in (values, own + each.flat * level))
        standing = ratio(came[origins], curve[origins])
        said.append(each.factor * (wanted + each.flat * level[origins][:, None]) * standing[:, None])
    near, far = said[0], said[-1]
    first, last = learned.chosen[0].lead, learned.chosen[-1].lead
    share = np.clip(np.log(leads / first) / np.log(last / first), 0.0, 1.0) if last > first else np.ones(steps)
    demand: Floats = np.clip((1.0 - share) * near + share * far, 0.0, fixed.ceiling)
    return demand


@dataclass(frozen=True, slots=True)
class Curves:
    """Demand per second that was to be expected when each origin's day began.

    `profiles` (days, weekdays, slots); `levels` (days,), their mean over a week.
    """

    profiles: Floats
    levels: Floats
    days: Days
    state: State

    def level(self, origins: Ints) -> Floats:
        found: Floats = self.levels[self.days.places[origins] // self.days.slots]
        return found

    def at(self, origins: Ints, places: Ints) -> Floats:
        slots = self.days.slots
        day = self.days.places[origins] // slots
        wanted: Floats = self.profiles[day, self.days.weekdays[places // slots], places % slots]
        return wanted


def shaped(days: Days, fixed: Basis, after: State | None) -> Curves:
    """Plain means of earlier days: a quiet day's few pieces may not weigh as much as a busy day's many."""
    values = days.values
    count, slots = values.shape
    width = round(WIDTH_SECONDS / days.step_seconds)
    known = np.isfinite(values)
    filled = smoothed(np.where(known, values, 0.0), width)
    weighed = smoothed(known.astype(np.float64), width)
    begin = 0 if after is None else min(max(0, after.number - days.first), count - 1)
    state = after or State(days.first, np.zeros((7, slots)), np.zeros((7, slots)), 0.0, 0.0)
    sums, weights, kept = state.sums.copy(), state.weights.copy(), state
    mix = likeness(fixed.quiet, *MIX)
    profiles, levels = np.zeros((count, 7, slots)), np.zeros(count)
    for day in range(begin, count):
        if after is None and day == max(0, count - KEPT_DAYS):
            kept = State(days.first + day, sums.copy(), weights.copy(), 0.0, 0.0)
        mass = mix @ weights
        np.divide(mix @ sums, mass, out=profiles[day], where=mass > 0)
        if not mass.any():  # before any day is known: a constant
            profiles[day] = 1.0
        levels[day] = profiles[day].mean()
        sums *= 1 - SHARE
        weights *= 1 - SHARE
        sums[days.weekdays[day]] += filled[day]
        weights[days.weekdays[day]] += weighed[day]
    profiles[:begin], levels[:begin] = profiles[begin], levels[begin]
    return Curves(profiles, levels, days, kept)


def smoothed_up_to(values: Floats, of: Floats, level: Floats, share: float) -> Floats:
    """Exponential means of `of` over the bins in which demand and its level are known."""
    return exponential_mean(of, np.isfinite(values) & (level > 0), share)


def ratio(came: Floats, wanted: Floats) -> Floats:
    """1 where nothing is known."""
    stands: Floats = np.divide(came, wanted, out=np.ones_like(came), where=wanted > 0)
    return stands


def share_of(half_life_seconds: float, step_seconds: float) -> float:
    share: float = 1.0 - 0.5 ** (step_seconds / half_life_seconds)
    return min(MOST_SHARE, share)


def scale(said: Floats, came: Floats) -> float:
    """The factor that makes sum |factor · said - came| least: the median of came ÷ said, each weighing `said`."""
    rows = np.flatnonzero(said > 0)
    if not len(rows):
        return 1.0
    quotient, weight = came[rows] / said[rows], said[rows]
    order = np.argsort(quotient)
    half = np.cumsum(weight[order])
    found = float(quotient[order][np.searchsorted(half, 0.5 * half[-1])])
    return float(np.clip(found, *FACTORS))
