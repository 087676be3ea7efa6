"""A year of demand in hourly means: what is older than the history is asked for once, newer hours are made from it."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import structlog

from controllers.forecast.grids import Grid, by_bin
from controllers.forecast.history import History
from controllers.sources.prometheus import Kind, Reading, Source, SourceError

HOUR_SECONDS = 3600.0
RECORDED = "workload:demand:avg1h"  # prometheus/rules/memory.yml
# Without that rule. A window that leaves out its own beginning, so that no sample counts in two hours.
COMPUTED = "avg_over_time(workload:demand:rate1m[3599999ms])"
CENSORED = "max_over_time(workload:demand_censored:bool[3599999ms])"
MAX_SAMPLES = 250_000  # of one answer, over all workloads
MAX_CHUNK_HOURS = 2000
MIN_CHUNK_HOURS = 24
SLACK_HOURS = 480
RETRY_SECONDS = 300.0
# Errors that a smaller question may not meet: a server's or a proxy's limit on samples, points, time or size.
TOO_MUCH = (Kind.OVERLOADED, Kind.TIMEOUT, Kind.BAD_QUERY, Kind.MALFORMED)


class Rollups:
    """Bins that end at full hours (UTC). Not for several threads."""

    def __init__(self, source: Source, names: Sequence[str], days: int) -> None:
        self._source = source
        self._names = names
        self._hours = days * 24
        self._grid: Grid | None = None
        self._newest = 0  # number of the last hour known
        self._oldest = 0  # of the first one that needs no question any more
        self._chunk = max(MIN_CHUNK_HOURS, min(MAX_CHUNK_HOURS, MAX_SAMPLES // max(1, len(names))))
        self._retry_at = 0.0  # monotonic

    @property
    def complete(self) -> bool:
        return self._hours <= 0 or (self._grid is not None and self._oldest <= self._newest - self._hours + 1)

    def take(self, fine: Grid, known: tuple[int, int], changed: tuple[int, int], per_hour: int) -> None:
        """Makes hours from the bins of the history: first and last that are known, and that have changed."""
        begin = max(-(-(known[0] - 1) // per_hour), (changed[0] - 1) // per_hour) + 1
        end = min(known[1] // per_hour, -(-changed[1] // per_hour))
        if end < begin or self._hours <= 0:
            return
        if self._grid is None:
            self._grid = Grid(self._names, end - self._hours + 1, self._hours, SLACK_HOURS, np.float32)
            self._oldest = end + 1
        elif begin > self._newest + 1:  # slept past what lies between: it is asked for
            self._oldest = begin
        self._grid.make_room(end)
        self._newest = max(self._newest, end)
        self._oldest = max(min(self._oldest, begin), self._grid.first)
        begin = max(begin, self._grid.first)
        if end < begin:
            return
        low, high = (begin - 1) * per_hour + 1 - fine.first, end * per_hour + 1 - fine.first
        parts = fine.values[:, low:high].reshape(len(fine.values), end - begin + 1, per_hour)
        finite = np.isfinite(parts)
        counts = finite.sum(axis=2)
        sums = np.where(finite, parts, 0.0).sum(axis=2)
        means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        here = slice(begin - self._grid.first, end + 1 - self._grid.first)
        self._grid.values[:, here] = means
        self._grid.censored[:, here] = fine.censored[:, low:high].reshape(parts.shape).any(axis=2)

    def read_older(self, remaining: Callable[[], float]) -> None:
        """As much of the year before as the time allows (`remaining()`: seconds); a failure is tried again later."""
        while self._grid is not None and not self.complete and remaining() > 1.0 and time.monotonic() >= self._retry_at:
            last = self._oldest - 1
            first = max(last - self._chunk + 1, self._newest - self._hours + 1, self._grid.first)
            try:
                self._fill(self._grid, first, last, remaining())
            except SourceError as error:
                if error.kind in TOO_MUCH and last - first + 1 > MIN_CHUNK_HOURS:
                    self._chunk = max(MIN_CHUNK_HOURS, (last - first + 1) // 2)
                    continue
                self._retry_at = time.monotonic() + RETRY_SECONDS
                structlog.get_logger().warning("year_waits", kind=str(error.kind), error=error.message)
                return
            self._oldest = first

    def history(self, workload: str, last: int) -> History | None:
        """Until the hour `last` at most; None while nothing is known of it."""
        if self._grid is None or last < self._grid.first:  # the clock was set back to before all that is known
            return None
        first = max(self._oldest, self._newest - self._hours + 1)
        found = self._grid.history(workload, first, min(self._newest, last), HOUR_SECONDS, 0.0)
        return found if np.isfinite(found.values).any() else None

    def _fill(self, grid: Grid, first: int, last: int, seconds: float) -> None:
        until, size = time.monotonic() + seconds, last - first + 1
        begin, end = first * HOUR_SECONDS, last * HOUR_SECONDS

        def ask(expr: str) -> Reading:
            left = until - time.monotonic()
            reading = self._source.contract_range([expr], {}, begin, end, HOUR_SECONDS, left)[expr]
            if reading.warnings:
                structlog.get_logger().warning("answer_in_part", series=expr, warnings=reading.warnings)
            return reading

        recorded = ask(RECORDED)
        found = {name: by_bin(recorded, name, begin, size, HOUR_SECONDS, {}) for name in self._names}
        if any(np.isnan(values).any() for values in found.values()):  # the rule is younger than that, or not loaded
            computed = ask(COMPUTED)
            for name, values in found.items():
                other = by_bin(computed, name, begin, size, HOUR_SECONDS, {})
                found[name] = np.where(np.isnan(values), other, values)
        censored = ask(CENSORED)
        for name, values in found.items():
            grid.place(name, first, values, by_bin(censored, name, begin, size, HOUR_SECONDS, {}), keep=False)
