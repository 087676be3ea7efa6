"""Arithmetic along bins of which some are unknown: means of any windows by two look-ups each, what was known last."""

from typing import TypeVar

import numpy as np

from controllers.forecast.history import Bools, Floats, Ints

AnyArray = TypeVar("AnyArray", Floats, Ints)


def cumulative(values: Floats) -> tuple[Floats, Ints]:
    """Running sums of the known values and their number, with a leading 0."""
    known = np.isfinite(values)
    return running(np.where(known, values, 0.0)), running(known.astype(np.int64))


def running(values: AnyArray) -> AnyArray:
    """Sums of the first 0, 1, 2 … along the last axis."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1), dtype=values.dtype)
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums


def interpolating(known: Floats | Ints, wanted: Floats | Ints) -> Floats:
    """Values at `known` (ascending), times this (known, wanted), are those at `wanted`; level beyond the ends."""
    return np.array([np.interp(wanted, known, unit) for unit in np.eye(len(known))])


def hold(values: Floats, at: Ints | None = None) -> Floats:
    """The last known value at each of `at`, or at every place; 0 before the first."""
    at = np.arange(len(values)) if at is None else at
    places = np.flatnonzero(np.isfinite(values))
    if not len(places):
        return np.zeros(len(at))
    row = np.searchsorted(places, at, side="right") - 1
    held: Floats = np.where(row >= 0, values[places[row]], 0.0)
    return held


def bins(seconds: float, step_seconds: float) -> int:
    return max(1, round(seconds / step_seconds))


def window(sums: Floats, seen: Ints, at: Ints, size: int | Ints, ahead: int | Ints) -> tuple[Floats, Bools]:
    """Mean of the known among `size` bins, the newest `ahead` after `at` (0: none known), and where there is one."""
    high = at + (ahead + 1)
    low = high - size
    count = seen.take(high, mode="clip") - seen.take(low, mode="clip")
    known = (count > 0) & (at >= 0)
    total = sums.take(high, mode="clip") - sums.take(low, mode="clip")
    return np.divide(total, count, out=np.zeros(count.shape), where=known), known


def level(sums: Floats, seen: Ints, known: Ints, at: Ints, size: int | Ints) -> Floats:
    """Mean of the `size` bins that end at each of `at`, or at the newest known bin before it; 0 before the first."""
    mean, there = window(sums, seen, at, size, 0)
    if there.all():
        return mean
    held, _ = window(sums, seen, newest(seen, known, at), size, 0)
    levels: Floats = np.where(there, mean, held)
    return levels


def newest(seen: Ints, known: Ints, at: Ints) -> Ints:
    """The newest known bin at each of `at`; -1 before the first."""
    found: Ints = np.concatenate(([-1], known))[seen[at + 1]]
    return found


def every_level(sums: Floats, seen: Ints, known: Ints, size: int) -> Floats:
    """`level` at every bin."""
    few = min(size, len(sums) - 1)
    total, count = sums[1:].copy(), seen[1:].copy()
    total[few:] -= sums[1 : len(total) - few + 1]
    count[few:] -= seen[1 : len(count) - few + 1]
    mean: Floats = np.divide(total, count, out=np.zeros(len(total)), where=count > 0)
    silent = np.flatnonzero(count == 0)
    if len(silent):
        held = newest(seen, known, silent)
        mean[silent] = np.where(held >= 0, mean[held], 0.0)
    return mean
