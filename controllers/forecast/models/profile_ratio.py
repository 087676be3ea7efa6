"""The profile of the day, times how far the last hours were from it; of that, less remains with the lead, as learned.

The profile is an exponentially weighted mean of earlier days, each relative to its level; the weekday's own days count
most, then those of its kind (busy, quiet).
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.features import Basis, basis
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models import deviation
from controllers.forecast.models.days import Days, by_days, coarse, coarse_leads, coarse_paths, likeness
from controllers.forecast.models.deviation import Persistence

NEEDS_SECONDS = 1.25 * 86_400.0
DECAY = 0.95  # of a day, relative to the day after it
MIXES = ((0.5, 0.2), (0.05, 0.02))  # how much days of the same kind, and others, count in a weekday's profile
SCORED_DAYS = 14
DAY_SHARE = 0.3  # of the newest day, in the level


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    mix: Floats  # (7, 7), as `likeness` gives it
    persistence: Persistence


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = basis(history, time_zone)
    part = coarse(history, len(history.values) - 1)
    step, count = part.step_seconds, len(part.values)
    days = by_days(part, time_zone, fixed.ceiling, 0)
    tried = [likeness(fixed.quiet, alike, other) for alike, other in MIXES]
    mix, profiles = min(
        ((mix, profiles_by_day(days, mix, fixed.level_offset)) for mix in tried),
        key=lambda pair: misfit(pair[1], days, fixed.level_offset),
    )
    values, offset = np.minimum(part.values, fixed.ceiling), fixed.level_offset
    every = np.arange(count)
    curve = at_places(profiles, days, every, days.places)
    rows = np.arange(min(days.slots, count // 3), count, max(1, count // deviation.ROWS))
    recent = deviation.deviations(values, curve, offset, step, rows)
    leads = deviation.regressed_leads(coarse_leads(history, steps), step)
    weights = []
    for lead in leads.tolist():
        inside = rows + lead < count
        at = rows[inside] + lead
        wanted = at_places(profiles, days, rows[inside], days.places[at])
        came = np.log((values[at] + offset) / (wanted + offset))
        age = (count - at) / days.slots
        weights.append(deviation.learn(recent[:, inside], came, wanted + offset, age, part.censored[at]))
    return Learned(fixed, mix, Persistence(leads, np.array(weights)))


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    return coarse_paths(history, origins, steps, lambda part, at, count: _paths(learned, part, at, count))


def _paths(learned: Learned, part: History, origins: Ints, steps: int) -> Floats:
    fixed = learned.basis
    days = by_days(part, fixed.time_zone, fixed.ceiling, steps)
    profiles = profiles_by_day(days, learned.mix, fixed.level_offset)
    values = np.minimum(part.values, fixed.ceiling)
    every = np.arange(len(values))
    curve = at_places(profiles, days, every, days.places[: len(values)])
    recent = deviation.deviations(values, curve, fixed.level_offset, part.step_seconds, origins)
    at = origins[:, None] + np.arange(1, steps + 1)
    wanted = at_places(profiles, days, origins[:, None], days.places[at])
    ratio = np.exp(deviation.ahead(learned.persistence, recent, steps))
    demand: Floats = np.clip((wanted + fixed.level_offset) * ratio - fixed.level_offset, 0.0, fixed.ceiling)
    return demand


def profiles_by_day(days: Days, mix: Floats, offset: float) -> Floats:
    """What was expected of a day of each weekday when each day began: (days, weekdays, slots), demand per second.

    Before any day is known: the offset, so that everything is a deviation from a constant.
    """
    count, slots = days.values.shape
    known = np.isfinite(days.values)
    values = np.where(known, days.values, 0.0)
    sums, weights, found = np.zeros((7, slots)), np.zeros((7, slots)), np.zeros((count, 7, slots))
    level, heard = 0.0, 0.0
    for day in range(count):
        mass = mix @ weights
        shape = np.divide(mix @ sums, mass, out=np.ones((7, slots)), where=mass > 0)
        found[day] = shape * (level if heard else offset)
        sums *= DECAY
        weights *= DECAY
        here, weekday = known[day], days.weekdays[day]
        if not here.any():
            continue
        heard = (1 - DAY_SHARE) * heard + DAY_SHARE
        now = (float(values[day, here].mean()) + offset) / (float(shape[weekday, here].mean()) + 1e-3)
        level += DAY_SHARE / heard * (now - level)
        sums[weekday] += values[day] / level
        weights[weekday] += here
    return found


def misfit(profiles: Floats, days: Days, offset: float) -> float:
    """Mean distance of the last days from their profile, each day's level apart."""
    recent = np.arange(max(0, len(profiles) - SCORED_DAYS), len(profiles))
    values, wanted = days.values[recent], profiles[recent, days.weekdays[recent]]
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    scale = (total + offset) / (np.where(known, wanted, 0.0).sum(axis=1) + offset)
    return float(np.nansum(np.abs(values - scale[:, None] * wanted)))


def at_places(profiles: Floats, days: Days, origins: Ints, places: Ints) -> Floats:
    """The profile at `places` as it was when the origin's day began."""
    day = days.places[origins] // days.slots
    found: Floats = profiles[day, days.weekdays[places // days.slots], places % days.slots]
    return found
