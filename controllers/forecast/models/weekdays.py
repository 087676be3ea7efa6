"""What each weekday is like at each slot of the day, as it was known when each day of a history began.

Every weekday has exponentially weighted sums of its own, each day in them being relative to its level; how much other
weekdays count beside them is a mixture. So a season changes once a day, and a month is a loop over thirty days. Where
the loop has got to some days before the end is kept (`State`), so that a forecast need not start anew.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.history import DAY_SECONDS, Floats, History, Ints
from controllers.forecast.models.days import Days

DAY_SHARE = 0.3  # of the newest day, in the level that the next day is relative to
KEPT_DAYS = 4  # before the end of a fit's history, at which the state is kept
RUN_IN_DAYS = 2  # after that, before an origin may build upon it: levels of a day forget what was before
FARTHEST_EAST_SECONDS = 14 * 3600.0


@dataclass(frozen=True, slots=True)
class State:
    """When local day `number` began: sums (weekdays, slots) and their weights, and the level."""

    number: int
    sums: Floats
    weights: Floats
    level: float
    heard: float  # weight of the days that the level has heard


@dataclass(frozen=True, slots=True)
class Season:
    """`shapes` (mixtures, days, weekdays, slots), as known when each day began; `levels` (days,).

    Logs: what is added to the level, 0 where unknown. Demand: factors on the level, 1 where unknown.
    """

    shapes: Floats
    levels: Floats
    state: State

    def own(self, mixture: int, days: Days) -> Floats:
        """Each day's shape of its own weekday: (days, slots)."""
        count = self.shapes.shape[1]
        mine: Floats = self.shapes[mixture][np.arange(count), days.weekdays[:count]]
        return mine

    def at(self, mixture: int, days: Days, origins: Ints, places: Ints) -> Floats:
        """The shape at `places` as it was known when the origin's day began."""
        day = days.places[origins] // days.slots
        found: Floats = self.shapes[mixture][day, days.weekdays[places // days.slots], places % days.slots]
        return found


def likeness(quiet: tuple[bool, ...], alike: float, other: float) -> Floats:
    """How much days of each weekday (columns) count for each weekday (rows): its own 1, those of its kind `alike`."""
    kind = np.array(quiet)
    weights: Floats = np.where(np.eye(7) > 0, 1.0, np.where(kind[:, None] == kind, alike, other))
    return weights


def seasons(
    days: Days,
    values: Floats,
    mixtures: Floats,
    *,
    share: float,
    logs: bool,
    width: int = 0,
    after: State | None = None,
) -> Season:
    """`values` (days, slots), NaN unknown, as `logs` or as demand; `mixtures` (n, 7, 7); `share` forgotten in a day.

    `width`: neighbours to either side that smooth a day. `after`: where to go on from; earlier days are left alone.
    """
    count, slots = values.shape
    known = np.isfinite(values)
    masses = known.astype(np.float64)
    plain = np.where(known, values, 0.0)
    heard_of = masses.sum(axis=1).tolist()
    means = (plain.sum(axis=1) / np.maximum(heard_of, 1.0)).tolist()
    filled, weighed = smoothed(plain, width), smoothed(masses, width)
    begin = 0 if after is None else min(max(0, after.number - days.first), count - 1)
    state = after or State(days.first, np.zeros((7, slots)), np.zeros((7, slots)), 0.0, 0.0)
    level, heard = state.level, state.heard
    both = np.concatenate((state.sums, state.weights), axis=1)
    sums, weights = both[:, :slots], both[:, slots:]
    kept = after or state
    mix = mixtures.reshape(-1, 7)
    shapes = np.full((len(mix), count, slots), 0.0 if logs else 1.0)
    levels = np.empty(count)
    for day in range(begin, count):
        if after is None and day == max(0, count - KEPT_DAYS):
            kept = State(days.first + day, sums.copy(), weights.copy(), level, heard)
        mixed = mix @ both
        mass, shape = mixed[:, slots:], shapes[:, day]
        np.divide(mixed[:, :slots], mass, out=shape, where=mass > 0)
        levels[day] = level
        both *= 1 - share
        if not heard_of[day]:
            continue
        weekday, now = int(days.weekdays[day]), means[day]
        heard = (1 - DAY_SHARE) * heard + DAY_SHARE
        usual = float(shape[weekday] @ masses[day]) / heard_of[day]
        level += DAY_SHARE / heard * ((now - usual if logs else now / (usual + 1e-3)) - level)
        sums[weekday] += filled[day] - level * weighed[day] if logs else filled[day] / max(level, 1e-300)
        weights[weekday] += weighed[day]
    shapes[:, :begin], levels[:begin] = shapes[:, begin : begin + 1], levels[begin]
    return Season(shapes.reshape(len(mixtures), 7, count, slots).transpose(0, 2, 1, 3), levels, kept)


def smoothed(values: Floats, width: int) -> Floats:
    """Sums over `width` neighbours to either side, within each row."""
    if not 0 < width < values.shape[1] // 2:
        return values
    sums = np.cumsum(np.pad(values, ((0, 0), (width + 1, width))), axis=1)
    found: Floats = sums[:, 2 * width + 1 :] - sums[:, : -2 * width - 1]
    return found


def since(state: State, history: History, origins: Ints) -> tuple[History, Ints, State | None]:
    """The part of a history that origins need who can build upon the state, the whole one and None for others."""
    begins = state.number * DAY_SECONDS - FARTHEST_EAST_SECONDS
    skip = int((begins - history.start) / history.step_seconds)
    first = history.start + int(origins.min()) * history.step_seconds
    if skip <= 0 or first < begins + 2 * FARTHEST_EAST_SECONDS + RUN_IN_DAYS * DAY_SECONDS:
        return history, origins, None
    return history.last(len(history.values) - skip), origins - skip, state
