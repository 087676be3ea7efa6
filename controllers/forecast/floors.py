"""Floors of the calendar: demand that is taken for granted, whatever the models say. Nothing goes below them."""

import itertools
from dataclasses import replace

import numpy as np

from controllers.domain import DecisionWindow, Horizon
from controllers.forecast.almanac import Calendar
from controllers.forecast.history import Floats

Path = tuple[tuple[float, float, dict[float, float]], ...]  # Unix seconds, demand per second, its quantiles


def floored(values: Floats, times: Floats, step_seconds: float, calendar: Calendar) -> Floats:
    """`values` (…, bins), each at least the highest floor that reaches into its bin, ending at `times` (ascending)."""
    lowest = np.zeros(len(times))
    for floor in calendar.floors:
        first, last = np.searchsorted(times, floor.begin, "right"), np.searchsorted(times - step_seconds, floor.end)
        lowest[first:last] = np.maximum(lowest[first:last], floor.demand_per_second)
    raised: Floats = np.maximum(values, lowest)
    return raised


def floor_between(calendar: Calendar, begin: float, end: float) -> tuple[float, float]:
    """Within [begin, end): the highest floor in demand per second, and the items that floors alone would bring."""
    within = [f for f in calendar.floors if f.begin < end and f.end > begin]
    edges = sorted({begin, end, *(min(max(at, begin), end) for f in within for at in (f.begin, f.end))})
    items = 0.0
    for start, until in itertools.pairwise(edges):
        there = [f.demand_per_second for f in within if f.begin <= start and f.end >= until]
        items += max(there, default=0.0) * (until - start)
    return max((f.demand_per_second for f in within), default=0.0), items


def lifted_horizons(horizons: tuple[Horizon, ...], now: float, calendar: Calendar) -> tuple[Horizon, ...]:
    """A forecast made at `now`: values, quantiles, peaks and arrivals at least what the floors say."""
    if not calendar.floors:
        return horizons
    found = []
    for horizon in horizons:
        end = now + horizon.seconds
        at_end, _ = floor_between(calendar, end - 1.0, end)
        highest, items = floor_between(calendar, now, end)
        found.append(
            Horizon(
                horizon.seconds,
                max(horizon.value, at_end),
                quantiles=_lifted(horizon.quantiles, at_end),
                peak=_lifted(horizon.peak, highest),
                arrivals=_lifted(horizon.arrivals, items),
            )
        )
    return tuple(found)


def lifted_window(window: DecisionWindow | None, now: float, calendar: Calendar) -> DecisionWindow | None:
    if window is None or not calendar.floors:
        return window
    highest, _ = floor_between(calendar, now + window.begin_seconds, now + window.end_seconds)
    return replace(window, peak=_lifted(window.peak, highest))


def lifted_path(path: Path, step_seconds: float, calendar: Calendar) -> Path:
    if not calendar.floors:
        return path
    times = np.array([at for at, _, _ in path])
    lowest = floored(np.zeros(len(path)), times, step_seconds, calendar).tolist()
    return tuple((at, max(value, low), _lifted(band, low)) for (at, value, band), low in zip(path, lowest, strict=True))


def _lifted(quantiles: dict[float, float], lowest: float) -> dict[float, float]:
    return {q: max(value, lowest) for q, value in quantiles.items()}
