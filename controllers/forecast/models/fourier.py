"""Waves of the day and the week on a log scale, and what of the last hours' deviations from them goes on.

The waves are fitted by ridge regression on means of half an hour, quicker waves and those that tell weekdays apart
being held down more. The curve they draw is a table of the week; `deviation` learns for each lead how fast reality
returns to it. What steady periods other than the calendar's add (`seasons`) is divided out first and put back last.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from controllers.forecast.features import Basis, basis
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models import deviation
from controllers.forecast.models.days import Days, by_days, coarse, coarse_leads, coarse_paths, softened
from controllers.forecast.models.deviation import Persistence
from controllers.forecast.seasons import Phases, phase_factors, with_phases, without

NEEDS_SECONDS = 0.5 * 86_400.0  # the backtest tells from when on it is good
FITTED_SECONDS = 1800.0
DAY_WAVES = 12
WEEK_WAVES = 6  # of the week, and to either side of each of the first day waves
MODULATED = 6  # day waves that differ between weekdays
WEEK_AFTER_DAYS = 13.0  # before, weekdays cannot be told from chance
PENALTY = 20.0
HALF_LIFE_DAYS = 14.0
SEEN_DAYS = 3  # before an origin: its level, and where nothing is known, what was known last


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    curve: Floats  # (7, slots): demand per second at each slot of the week
    persistence: Persistence
    phases: tuple[Phases, ...]  # of steady periods other than the calendar's


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = softened(basis(coarse(history, len(history.values) - 1), time_zone))
    phases = phase_factors(history)
    history = without(history, phases, fixed.level_offset)
    part = coarse(history, len(history.values) - 1)
    offset = fixed.level_offset
    days = by_days(part, time_zone, fixed.ceiling, 0)
    table = week_curve(days, offset)
    values = np.minimum(part.values, fixed.ceiling)
    curve = at_places(table, days, days.places)
    persistence = deviation.learn_all(
        values,
        curve,
        lambda rows, lead: curve[rows + lead],
        part.censored,
        offset,
        part.step_seconds,
        coarse_leads(history, steps),
    )
    return Learned(fixed, table, persistence, phases)


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    fixed = learned.basis
    # only the last day's deviations count
    skip = max(0, int(origins.min()) - SEEN_DAYS * history.steps_per_day)
    history, origins = history.last(len(history.values) - skip), origins - skip
    level = without(history, learned.phases, fixed.level_offset)
    demand = coarse_paths(level, origins, steps, lambda part, at, count: _paths(learned, part, at, count))
    return with_phases(demand, history, origins, learned.phases, fixed.level_offset)


def _paths(learned: Learned, part: History, origins: Ints, steps: int) -> Floats:
    fixed, offset = learned.basis, learned.basis.level_offset
    days = by_days(part, fixed.time_zone, fixed.ceiling, steps)
    curve = at_places(learned.curve, days, days.places)
    values = np.minimum(part.values, fixed.ceiling)
    recent = deviation.deviations(values, curve[: len(values)], offset, part.step_seconds, origins)
    at = origins[:, None] + np.arange(1, steps + 1)
    ratio = np.exp(deviation.ahead(learned.persistence, recent, steps))
    demand: Floats = np.clip((curve[at] + offset) * ratio - offset, 0.0, fixed.ceiling)
    return demand


def week_curve(days: Days, offset: float) -> Floats:
    """Demand per second that the waves say at each slot of the week: (7, slots)."""
    count, slots = days.values.shape
    size = next(size for size in range(max(1, round(FITTED_SECONDS / days.step_seconds)), 0, -1) if slots % size == 0)
    parts = days.values.reshape(count, -1, size)
    known = np.isfinite(parts)
    counts = known.sum(axis=2)
    means = np.where(known, parts, 0.0).sum(axis=2) / np.maximum(counts, 1)
    seen = (counts > 0).ravel()
    y = np.log(means.ravel() + offset)[seen]
    weekly = seen.sum() * size / slots >= WEEK_AFTER_DAYS
    x, penalty = waves(parts.shape[1], weekly)
    place = (days.weekdays[:count, None] * parts.shape[1] + np.arange(parts.shape[1])).ravel()[seen]
    age = (count - np.arange(count).repeat(parts.shape[1]))[seen]
    weights = 0.5 ** (age / HALF_LIFE_DAYS)
    # rows of one place in the week share their regressors: sum them up first
    mass = np.bincount(place, weights, minlength=x.shape[1])
    total = np.bincount(place, weights * y, minlength=x.shape[1])
    gram = (x * mass) @ x.T
    gram[np.diag_indices(len(x))] += penalty * PENALTY * parts.shape[1] / 24 + 1e-9
    weights_of_waves = np.linalg.solve(gram, x @ total)
    fine, _ = waves(slots, weekly)
    curve: Floats = np.maximum(np.exp(np.clip(weights_of_waves @ fine, -690.0, 690.0)) - offset, 0.0)
    return curve.reshape(7, slots)


@cache
def waves(slots: int, weekly: bool) -> tuple[Floats, Floats]:
    """Cosines and sines at all slots of the week (waves, slots), and how firmly each is held down. Read only."""
    of_week = (np.arange(7 * slots) + 0.5) / slots
    turns = [(float(wave), (wave / DAY_WAVES) ** 2) for wave in range(1, DAY_WAVES + 1)]
    if weekly:
        turns += [(wave / 7, 0.3) for wave in range(1, WEEK_WAVES + 1)]
        for day_wave in range(1, MODULATED + 1):
            turns += [(day_wave + side / 7, 1.0) for side in (-3, -2, -1, 1, 2, 3)]
    angles = 2 * np.pi * np.array([turn for turn, _ in turns])[:, None] * of_week
    firm = np.array([firmness for _, firmness in turns])
    return np.concatenate((np.ones((1, len(of_week))), np.cos(angles), np.sin(angles))), np.concatenate(
        ([0.0], firm, firm)
    )


def at_places(table: Floats, days: Days, places: Ints) -> Floats:
    found: Floats = table[days.weekdays[places // days.slots], places % days.slots]
    return found
