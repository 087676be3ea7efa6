"""A workload's past as a regular grid: what every model reads. Gaps are NaN, censored samples are lower bounds."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DAY_SECONDS = 86_400.0
# No workload takes in a trillion items a second: such a number is a broken sensor, not demand.
ABSURD_PER_SECOND = 1e12
# Less than an item in thirty years is none: numbers near the smallest there are would make ratios overflow.
TRIFLE_PER_SECOND = 1e-9
# A sample stamped a little ahead of our clock is clock skew; further ahead it is wrong.
SKEW_SECONDS = 1.0


class Why(StrEnum):
    """Why nothing can be forecast: a closed vocabulary (log field, metric label)."""

    NO_SAMPLES = "no_samples"  # nothing usable at all
    FROM_THE_FUTURE = "from_the_future"  # every sample lies after now
    STALE = "stale"  # the newest sample is too old to say anything about the next hour
    FAILED = "failed"  # a fault of ours, or no model gave a number: the log says which


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A forecast that is not made, and why; the last one stays until its `valid_until`."""

    def __init__(self, why: Why, message: str) -> None:
        self.why = why
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class History:
    """Demand per second on a grid; `values[i]` is the mean of the bin that *ends* at `start + i * step_seconds`.

    NaN: unknown. `censored[i]`: the true demand was at least this (saturated, capped or denied while it was measured).
    """

    start: float
    step_seconds: float
    values: Floats
    censored: Bools

    @property
    def end(self) -> float:
        """Unix seconds at which the newest bin ends."""
        return self.start + (len(self.values) - 1) * self.step_seconds

    @property
    def steps_per_day(self) -> int:
        return max(1, round(DAY_SECONDS / self.step_seconds))

    @property
    def known_seconds(self) -> float:
        """From the oldest known bin to the newest, gaps included; 0 when nothing is known."""
        known = np.flatnonzero(np.isfinite(self.values))
        return float((known[-1] - known[0] + 1) * self.step_seconds) if len(known) else 0.0

    def first(self, count: int) -> "History":
        """As it was when its oldest `count` bins were all there was."""
        return History(self.start, self.step_seconds, self.values[:count], self.censored[:count])

    def last(self, count: int) -> "History":
        """Its newest `count` bins."""
        skip = max(0, len(self.values) - count)
        return History(
            self.start + skip * self.step_seconds, self.step_seconds, self.values[skip:], self.censored[skip:]
        )

    def until(self, now: float) -> "History":
        """Bins that had ended at `now`, the empty ones at the end left out, unusable values as unknown.

        Raises Refusal when nothing is known.
        """
        passed = np.floor((now + SKEW_SECONDS - self.start) / self.step_seconds) + 1
        count = int(np.clip(np.nan_to_num(passed), 0, len(self.values)))
        values = usable(self.values)
        known = np.flatnonzero(np.isfinite(values[:count]))
        if len(known):
            return History(self.start, self.step_seconds, values, self.censored).first(int(known[-1]) + 1)
        if np.isfinite(values).any():
            raise Refusal(Why.FROM_THE_FUTURE, f"every sample lies after now ({now:.0f}); compare the clocks")
        raise Refusal(Why.NO_SAMPLES, "no usable sample of the demand; does its series exist?")


def leads_in(seconds: float, step_seconds: float) -> int:
    """Bins until `seconds` are over; at least 1."""
    return max(1, int(np.ceil(seconds / step_seconds - 1e-9)))


def usable(values: Floats) -> Floats:
    """Negative, infinite and absurd values as NaN, trifles as 0; the same array where there is none of these."""
    fine = (values >= TRIFLE_PER_SECOND) & (values <= ABSURD_PER_SECOND) | (values == 0) | np.isnan(values)
    if fine.all():
        return values
    known = (values >= 0) & (values <= ABSURD_PER_SECOND)
    return np.where(known, np.where(values < TRIFLE_PER_SECOND, 0.0, values), np.nan)


def regular(
    samples: Iterable[tuple[float, float]],
    *,
    censored_at: Iterable[float] = (),
    step_seconds: float = 60.0,
    now: float,
    days: float = 30.0,
) -> History:
    """Samples (Unix seconds, demand per second) in any order as the grid of the last `days` before `now`.

    A sample belongs to the bin whose end it reaches; several in one bin are averaged, the same time twice included.
    Negative, non-finite and absurd values, and those from the future, count as missing. A bin is censored when one of
    `censored_at` falls into it. Raises Refusal when nothing is left.
    """
    pairs = np.array(list(samples), dtype=np.float64).reshape(-1, 2)
    times, values = pairs[:, 0], pairs[:, 1]
    values = usable(values)
    fine = np.isfinite(times) & np.isfinite(values)
    if not fine.any():
        raise Refusal(Why.NO_SAMPLES, "no usable sample of the demand; does its series exist?")
    past = fine & (times <= now + SKEW_SECONDS) & (times > now - days * DAY_SECONDS)
    if not past.any():
        if (times[fine] > now + SKEW_SECONDS).any():
            raise Refusal(Why.FROM_THE_FUTURE, f"every sample lies after now ({now:.0f}); compare the clocks")
        raise Refusal(Why.STALE, f"the newest sample is older than {days:g} days")
    bins = bin_ends(times[past], step_seconds)
    first, count = int(bins.min()), int(bins.max() - bins.min()) + 1
    sums = np.bincount(bins - first, weights=values[past], minlength=count)
    counts = np.bincount(bins - first, minlength=count)
    grid = np.full(count, np.nan)
    grid[counts > 0] = sums[counts > 0] / counts[counts > 0]
    marks = bin_ends(np.array(list(censored_at), dtype=np.float64), step_seconds) - first
    censored = np.zeros(count, dtype=np.bool_)
    censored[marks[(marks >= 0) & (marks < count)]] = True
    return History(first * step_seconds, step_seconds, grid, censored)


def bin_ends(times: Floats, step_seconds: float) -> Ints:
    """The number of the bin (its end divided by the step) that each time belongs to."""
    times = times[np.isfinite(times)]
    return np.ceil((times - 1e-3) / step_seconds).astype(np.int64)


@lru_cache(maxsize=16)  # the models of a workload ask for the same
def utc_offsets(start: float, step_seconds: float, count: int, time_zone: str) -> Ints:
    """How many bins local time is ahead of UTC at each of `count` bins: what keeps 9:00 at 9:00 over a clock change.

    Read only.
    """
    first, last = int(start // DAY_SECONDS), int((start + count * step_seconds) // DAY_SECONDS)
    midnights = [day * DAY_SECONDS for day in range(first, last + 2)]
    edges = np.clip(np.ceil((np.array(midnights) - start) / step_seconds - 1e-6), 0, count).astype(np.int64)
    ahead = [offset_seconds(time_zone, midnight) for midnight in midnights]
    offsets: Ints = np.repeat(np.rint(np.array(ahead[:-1]) / step_seconds).astype(np.int64), np.diff(edges))
    for day in range(len(ahead) - 1):
        if ahead[day] != ahead[day + 1]:  # the clock changes on this day, on a half hour
            for place in range(int(edges[day]), int(edges[day + 1])):
                at = (start + place * step_seconds) // 1800 * 1800
                offsets[place] = round(offset_seconds(time_zone, at) / step_seconds)
    offsets.flags.writeable = False
    return offsets


@lru_cache(maxsize=16_384)  # a year of midnights in some dozen time zones
def offset_seconds(time_zone: str, at: float) -> int:
    """How far local time is ahead of UTC at `at`, Unix seconds."""
    offset = datetime.fromtimestamp(at, tz=UTC).astimezone(ZoneInfo(time_zone)).utcoffset()
    return round(offset.total_seconds()) if offset else 0


def local_day_numbers(start: float, step_seconds: float, offsets: Ints) -> Ints:
    """Days since the epoch (a Thursday) in local time, for each bin; it belongs to the day in which it begins."""
    begins = start + (np.arange(len(offsets)) - 1 + offsets) * step_seconds
    numbers: Ints = np.floor(begins / DAY_SECONDS + 1e-9).astype(np.int64)
    return numbers
