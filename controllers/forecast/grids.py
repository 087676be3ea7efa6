"""What was read of many workloads, on one grid in memory: a window of bins that moves on with time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from controllers.forecast.history import ABSURD_PER_SECOND, Bools, Floats, History
from controllers.sources.prometheus import Reading, SourceError


class Grid:
    """Bins by number (their end divided by the step), newest last. `slack`: the window moves by half of it at a time.

    float32 keeps seven digits in half the room.
    """

    def __init__(self, names: Sequence[str], first: int, bins: int, slack: int, dtype: Any = np.float64) -> None:
        self.first = first
        self._slack = slack
        self._rows = {name: row for row, name in enumerate(names)}
        self.values = np.full((len(names), bins + slack), np.nan, dtype=dtype)
        self.censored: Bools = np.zeros(self.values.shape, dtype=np.bool_)

    def place(self, name: str, first: int, values: Floats, marks: Floats, keep: bool) -> None:
        """What the server says of the bins from `first` on. `keep`: where it has nothing, what was known stays."""
        row, begin = self._rows[name], first - self.first
        here = slice(begin, begin + len(values))
        self.values[row, here] = np.where(np.isnan(values), self.values[row, here], values) if keep else values
        self.censored[row, here] = np.nan_to_num(marks) > 0

    def make_room(self, last: int) -> None:
        """For the bin `last`, forgetting the oldest."""
        size = self.values.shape[1]
        beyond = last - (self.first + size - 1)
        if beyond <= 0:
            return
        shift = beyond + self._slack // 2
        kept = max(0, size - shift)  # none after a sleep longer than the window
        for values, censored in zip(self.values, self.censored, strict=True):
            values[:kept], values[kept:] = values[shift:].copy(), np.nan
            censored[:kept], censored[kept:] = censored[shift:].copy(), False
        self.first += shift

    def history(self, name: str, first: int, last: int, step_seconds: float, phase: float) -> History:
        """The bins first..last without the unknown ones at the beginning; a view where it can be one."""
        row, begin, end = self._rows[name], max(first - self.first, 0), last + 1 - self.first
        values, censored = self.values[row, begin:end], self.censored[row, begin:end]
        known = np.flatnonzero(np.isfinite(values))
        skip = int(known[0]) if len(known) else 0
        start = (self.first + begin + skip) * step_seconds + phase
        return History(start, step_seconds, values[skip:].astype(np.float64, copy=False), censored[skip:])


def by_bin(
    reading: Reading, workload: str, begin: float, size: int, step_seconds: float, errors: dict[str, SourceError]
) -> Floats:
    """The workload's samples by bin, the first ending at `begin`; NaN where none, negative or absurd.

    A failure of this workload alone goes into `errors`.
    """
    values: Floats = np.full(size, np.nan)
    try:
        samples = reading.samples(workload)
    except SourceError as error:
        errors[workload] = error
        return values
    if samples:
        found = np.array([(sample.at, sample.value) for sample in samples])
        places = np.rint((found[:, 0] - begin) / step_seconds).astype(np.int64)
        usable = (places >= 0) & (places < size) & (found[:, 1] >= 0) & (found[:, 1] <= ABSURD_PER_SECOND)
        values[places[usable]] = found[usable, 1]
    return values
