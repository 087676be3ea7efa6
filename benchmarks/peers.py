"""What others would have said, at the same origins and from the same past.

A peer gets the coarse bins known at an origin and answers with the bins of the next hour; one that has to be fitted is
fitted anew every `refit_days`, on what lay before. Gaps are filled with what was last known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.scores import QUANTILES
from benchmarks.traces import HOUR, Trace
from controllers.forecast.features import hold
from controllers.forecast.history import Floats, Ints

# (bins known at the last origin, place of the first bin after each origin, bins an hour, bins a day) -> (origins, hour)
Walk = Callable[[Floats, Ints, int, int], Floats]


@dataclass(frozen=True, slots=True)
class Peer:
    """`paths` may look at no bin at or after an origin's place."""

    paths: Walk
    refit_days: float | None = None  # None: nothing is fitted


def last_value(values: Floats, origins: Ints, hour: int, day: int) -> Floats:
    """The last complete bin goes on."""
    return np.repeat(hold(values)[origins - 1][:, None], hour, axis=1)


def same_time(values: Floats, origins: Ints, hour: int, back: int) -> Floats:
    """As `back` bins before; the last value where that is unknown."""
    at = origins[:, None] + np.arange(hour) - back
    there = values[np.maximum(at, 0)]
    return np.where((at >= 0) & np.isfinite(there), there, last_value(values, origins, hour, 0))


def day_naive(values: Floats, origins: Ints, hour: int, day: int) -> Floats:
    return same_time(values, origins, hour, day)


def week_naive(values: Floats, origins: Ints, hour: int, day: int) -> Floats:
    return same_time(values, origins, hour, 7 * day)


NAIVE: dict[str, Peer] = {
    "last_value": Peer(last_value),
    "day_naive": Peer(day_naive),
    "week_naive": Peer(week_naive),
}

FITTED: dict[str, Peer] = {}


def walked(peer: Peer, values: Floats, places: Ints, hour: int, day: int) -> Floats:
    """A peer's paths at all places, (places, hour), fitted anew every so often; it never sees a bin after a place."""
    paths = np.empty((len(places), hour))
    every = round((peer.refit_days or math.inf) * day) if peer.refit_days else len(values)
    fold = (places - places[0]) // max(1, every)
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        known = values[: places[rows[-1]]]
        paths[rows] = np.maximum(peer.paths(known, places[rows], hour, day), 0.0)
    return paths


def last_hour(values: Floats, origin: int, hour: int) -> float:
    """Mean of the hour before, for the mean of the hour ahead; the last value where it is unknown."""
    part = values[max(0, origin - hour) : origin]
    known = part[np.isfinite(part)]
    return float(known.mean()) if len(known) else float(hold(values[:origin])[-1])


def peak_quantiles(trace: Trace, origins: Floats, horizon: int, days: float = 28.0) -> dict[float, Floats]:
    """The last window's peak plus the quantile of what this was off by over the trailing days, at hourly origins."""
    width, hour = trace.bins(horizon), HOUR // trace.step_seconds
    first = round((float(origins[0]) - trace.begin) / trace.step_seconds)
    places = first + hour * np.round((origins - origins[0]) / HOUR).astype(np.int64)
    every = np.arange(first % hour, int(places[-1]) + 1, hour)
    every = every[every >= width]
    before, after = _peaks(trace.values, every - width, width), _peaks(trace.values, every, width)
    off = after - before
    found: dict[float, list[float]] = {q: [] for q in QUANTILES}
    for place in places:
        due = (every + width <= place) & (every > place - days * 24 * hour)
        known = np.sort(off[due & np.isfinite(off)])
        here = before[every == place]
        last = float(here[0]) if len(here) and np.isfinite(here[0]) else np.nan
        for q in QUANTILES:
            rank = min(int(np.ceil((len(known) + 1) * q - 1e-9)), len(known))
            found[q].append(max(0.0, last + float(known[rank - 1])) if len(known) else last)
    return {q: np.array(each) for q, each in found.items()}


def _peaks(values: Floats, begins: Ints, width: int) -> Floats:
    at = begins[:, None] + np.arange(width)
    part = np.where(at < len(values), values[np.minimum(at, len(values) - 1)], np.nan)
    known = np.isfinite(part)
    return np.where(known.any(axis=1), np.where(known, part, -np.inf).max(axis=1), np.nan)
