"""A history as days by slots of local time, which turns a season's recursion over months into a loop over days.

Shared by the classical models. Bins of less than five minutes are averaged to about that, ending at the origin that is
asked for, so that nothing is lost at the end; paths are interpolated back.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from controllers.forecast.features import Basis
from controllers.forecast.history import DAY_SECONDS, Bools, Floats, History, Ints, local_day_numbers, utc_offsets

SLOT_SECONDS = 300.0
BLOCK = 192  # bins of an exponential mean that are worked on at once; longer, and its weights overflow
VANISHING = 1e-12
SOFTER = 5.0


@dataclass(frozen=True, slots=True)
class Days:
    """`values` (days, slots): demand per second, NaN where unknown. The first and last day may be incomplete.

    Where the clock is set back, the hour that comes twice keeps its first run: what a slot holds is never younger than
    an origin in that slot. `weekdays` (days, coming ones too): 0 is Monday.
    """

    values: Floats
    weekdays: Ints
    first: int  # local day number of the first
    step_seconds: float
    places: Ints  # of each bin, coming ones included: day * slots + slot

    @property
    def slots(self) -> int:
        return int(self.values.shape[1])


def softened(fixed: Basis) -> Basis:
    """With more added before logarithms: bins that are mostly noise, and zeros, then weigh no more than they should."""
    return replace(fixed, level_offset=SOFTER * fixed.level_offset)


def by_days(history: History, time_zone: str, highest: float, coming: int) -> Days:
    """`coming`: how many bins after the last one will be asked for.

    Several models ask this of one history, one after the other, so the last answers are remembered. Read only.
    """
    return _by_days(history.start, history.step_seconds, history.values.tobytes(), time_zone, highest, coming)


@lru_cache(maxsize=4)
def _by_days(start: float, step: float, content: bytes, time_zone: str, highest: float, coming: int) -> Days:
    values = np.frombuffer(content)
    count, slots = len(values), max(1, round(DAY_SECONDS / step))
    offsets = utc_offsets(start, step, count + coming, time_zone)
    numbers = local_day_numbers(start, step, offsets)
    first = int(numbers.min())
    begins = start + (np.arange(count + coming) - 1 + offsets) * step
    within = np.floor((begins - numbers * DAY_SECONDS) / step + 1e-6).astype(np.int64)
    places = (numbers - first) * slots + np.minimum(within, slots - 1)
    days = int(places[:count].max()) // slots + 1
    flat = np.full(days * slots, np.nan)
    flat[places[:count][::-1]] = np.minimum(values[::-1], highest)
    every = np.arange(int(places.max()) // slots + 1)
    found = Days(flat.reshape(days, slots), (every + first + 3) % 7, first, step, places)
    for each in (found.values, found.weekdays, found.places):
        each.flags.writeable = False
    return found


def coarse(history: History, last: int) -> History:
    """Means of as many bins as make about five minutes, one of them ending with bin `last`."""
    size = coarseness(history)
    if size == 1:
        return history
    missing = -(last + 1) % size  # bins before the first, which is part of a coarse bin too
    count = (missing + len(history.values)) // size * size - missing
    values = np.concatenate((np.full(missing, np.nan), history.values[:count])).reshape(-1, size)
    known = np.isfinite(values)
    counts = known.sum(axis=1)
    means = np.full(len(values), np.nan)
    np.divide(np.where(known, values, 0.0).sum(axis=1), counts, out=means, where=counts > 0)
    marks: Bools = np.concatenate((np.zeros(missing, dtype=np.bool_), history.censored[:count])).reshape(-1, size)
    step = history.step_seconds
    return History(history.start + (size - 1 - missing) * step, step * size, means, np.any(marks, axis=1))


def coarseness(history: History) -> int:
    return max(1, round(SLOT_SECONDS / history.step_seconds))


def coarse_leads(history: History, steps: int) -> int:
    """Coarse bins that cover `steps` bins."""
    return -(-steps // coarseness(history))


def coarse_paths(history: History, origins: Ints, steps: int, paths: Callable[[History, Ints, int], Floats]) -> Floats:
    """`paths` of a model that works on coarse bins, for origins at any bin: one pass for each phase that occurs."""
    size = coarseness(history)
    if size == 1:
        return paths(history, origins, steps)
    out = np.empty((len(origins), steps))
    for phase in np.unique(origins % size).tolist():
        rows = np.flatnonzero(origins % size == phase)
        ahead = paths(
            coarse(history, phase), (origins[rows] + -(phase + 1) % size + 1) // size - 1, coarse_leads(history, steps)
        )
        # a coarse bin's mean stands at its middle; before the first one the path is level
        middles = ahead.shape[1]
        place = np.clip((np.arange(1, steps + 1) - 0.5) / size - 0.5, 0.0, middles - 1)
        low = np.minimum(place.astype(np.int64), max(0, middles - 2))
        share = place - low
        out[rows] = ahead[:, low] * (1 - share) + ahead[:, np.minimum(low + 1, middles - 1)] * share
    return out


def exponential_mean(values: Floats, known: Bools, share: float) -> Floats:
    """Mean of the known values up to each place, each counting (1 - share) as much as the one after it; 0 before the
    first. Gaps age what was known and add nothing. `share` is at most 0.9.
    """
    count = len(values)
    grow = (1.0 - share) ** -np.arange(1, BLOCK + 1)
    both = np.zeros((2, count + -count % BLOCK))
    both[0, :count], both[1, :count] = np.where(known, values, 0.0), known
    totals, mass = np.cumsum(both.reshape(2, -1, BLOCK) * grow, axis=2) / grow
    before_total, before_mass = np.zeros((2, len(mass), 1))
    total, weight, fade = 0.0, 0.0, (1.0 - share) ** BLOCK
    for block, (more, heavier) in enumerate(zip(totals[:, -1].tolist(), mass[:, -1].tolist(), strict=True)):
        before_total[block], before_mass[block] = total, weight
        total, weight = more + total * fade, heavier + weight * fade
        if 0 < weight < VANISHING:  # a long gap must not lose the last level
            total, weight = total / weight * VANISHING, VANISHING
    mass += before_mass / grow
    totals += before_total / grow
    means: Floats = np.divide(totals, mass, out=np.zeros_like(totals), where=mass > 0).ravel()[:count]
    return means
