"""Reads the demand of all workloads from Prometheus, one query a series, and keeps it: a cycle reads what is new."""

import math
import statistics
from collections.abc import Callable, Mapping

import structlog

from controllers.config import Config
from controllers.forecast.grids import Grid, by_bin
from controllers.forecast.history import History
from controllers.forecast.rollups import TOO_MUCH, Rollups
from controllers.rules import expressions
from controllers.sources.prometheus import Source, SourceError

DEMAND = "workload:demand:rate1m"
CENSORED = "workload:demand_censored:bool"
MINUTE_SECONDS = 60.0
OVERLAP_SECONDS = 300.0  # read again: a rule or a remote store may have been late
MAX_SAMPLES = 250_000  # of one answer, over all workloads: bounds what an answer takes in memory
MAX_CHUNK_BINS = 7200  # five days of minutes
MIN_CHUNK_BINS = 60
PHASE_SECONDS = (86_400.0, 3600.0)  # how long ago it is looked up when samples were taken
SLACK_SECONDS = 86_400.0  # the window moves on twice a day, not once a minute


class Observer:
    """The last days of demand of every workload, and a year of its hourly means. Not for several threads.

    `longterm`: who is asked for the year; None: the server of `prometheus.longterm_url`, else `source`.
    """

    def __init__(self, source: Source, config: Config, longterm: Source | None = None) -> None:
        self._source = source
        self._names = [workload.identity for workload in config.signals()]
        self._step = float(config.forecast.step_seconds)
        self._demand, self._censored, self._fallbacks = questions(config)
        self._bins = max(1, round(config.forecast.history_days * 86_400 / self._step))
        self._slack = round(SLACK_SECONDS / self._step)
        self._overlap = max(2, math.ceil(OVERLAP_SECONDS / self._step))
        self._phase = 0.0  # seconds after the full minute at which bins end
        self._grid = Grid((), 0, 0, 0)
        self._newest = 0  # number (end divided by the step) of the last bin read; 0: none
        self._oldest = 1  # first bin read
        self._chunk = max(MIN_CHUNK_BINS, min(MAX_CHUNK_BINS, MAX_SAMPLES // max(1, len(self._names))))
        if longterm is None and config.prometheus.longterm_url is not None:
            longterm = Source(config.prometheus.model_copy(update={"url": config.prometheus.longterm_url}))
        self._rollups = Rollups(longterm or source, self._names, config.forecast.rollup_days)
        self.errors: dict[str, SourceError] = {}  # workloads whose own expression failed in the last reading

    @property
    def complete(self) -> bool:
        """Whether the whole history has been read, as far as there is any; the year may still be on its way."""
        return self._newest > 0 and self._oldest <= self._earliest

    @property
    def _earliest(self) -> int:
        """The first bin that is wanted. After a clock was set back there may be no room for all of them."""
        return max(self._newest - self._bins + 1, self._grid.first)

    @property
    def year_complete(self) -> bool:
        return self._rollups.complete

    def read(self, now: float, remaining: Callable[[], float]) -> None:
        """What is new, then as much of the past as the time allows (`remaining()`: seconds).

        Raises SourceError when even what is new could not be read; what was known stays.
        """
        end = int((now - self._phase) // self._step)
        if self._newest and (end < self._oldest or end - self._bins + 1 < self._grid.first - self._slack):
            self._newest = 0  # the clock was set back to before all that is known, or to where little of it is left
        if not self._newest:
            self._begin(now, remaining)
        else:
            self._go_on(end, remaining)
        while not self.complete and remaining() > 1.0:
            try:
                self._read_older(remaining)
            except SourceError as error:  # what is new has been read: the past can wait for the next cycle
                structlog.get_logger().warning("history_waits", kind=str(error.kind), error=error.message)
                return
        kept = remaining() / 2  # forecasts are made within the same cycle
        self._rollups.read_older(lambda: remaining() - kept)

    def history(self, workload: str) -> History:
        """What is known of the workload, all NaN where nothing is: a view, good until the next read()."""
        first = max(self._oldest, self._newest - self._bins + 1)
        return self._grid.history(workload, first, self._newest, self._step, self._phase)

    def hours(self, workload: str) -> History | None:
        """Hourly means (UTC hours) of up to `rollup_days`, the history's included; None while there are none."""
        return self._rollups.history(workload, int(self._newest * self._step // 3600))

    def _begin(self, now: float, remaining: Callable[[], float]) -> None:
        self._phase = self._sampled_at(now, remaining())
        end = int((now - self._phase) // self._step)
        self._grid = Grid(self._names, end - self._bins + 1, self._bins, self._slack)
        self._newest, self._oldest = end, end + 1
        try:
            self._read_older(remaining)
        except SourceError:
            self._newest = 0
            raise

    def _go_on(self, end: int, remaining: Callable[[], float]) -> None:
        if end < self._newest:  # the clock was set back: what was read ahead of it is read again when it comes
            self._newest = end
        while end > self._newest:
            first = max(self._newest + 1 - self._overlap, end - self._bins + 1)
            last = min(end, first + self._chunk + self._overlap - 1)
            self._make_room(last)
            self._fill(max(first, self._oldest), last, remaining())
            self._newest = last
            self._summarise(first, last)

    def _sampled_at(self, now: float, seconds: float) -> float:
        """Seconds after the full minute at which old samples lie; asked for at another time, they come late."""
        for back in PHASE_SECONDS:
            times = [
                s.samples[-1].value % MINUTE_SECONDS
                for s in self._source.instant(f"timestamp({DEMAND})", now - back, seconds)
            ]
            if times:
                return statistics.mode(round(time, 3) for time in times)
        return 0.0

    def _read_older(self, remaining: Callable[[], float]) -> None:
        """One chunk; half of it at a time where that is too much for a server or a proxy."""
        last = self._oldest - 1
        while True:
            first = max(last - self._chunk + 1, self._earliest)
            try:
                self._fill(first, last, remaining())
                break
            except SourceError as error:
                if error.kind not in TOO_MUCH or last - first + 1 <= MIN_CHUNK_BINS or remaining() <= 1.0:
                    raise
                self._chunk = max(MIN_CHUNK_BINS, (last - first + 1) // 2)
        self._oldest = first
        self._summarise(first, last)

    def _fill(self, first: int, last: int, seconds: float) -> None:
        """Replaces the bins first..last by what Prometheus says now."""
        begin, end = (number * self._step + self._phase for number in (first, last))
        readings = self._source.contract_range(
            [self._demand, self._censored], self._fallbacks, begin, end, self._step, seconds
        )
        for reading in readings.values():
            if reading.warnings:
                structlog.get_logger().warning("answer_in_part", series=reading.record, warnings=reading.warnings)
        demand, censored, size = readings[self._demand], readings[self._censored], last - first + 1
        self.errors = dict(demand.errors)
        for name in self._names:
            values = by_bin(demand, name, begin, size, self._step, self.errors)
            marks = by_bin(censored, name, begin, size, self._step, {})
            # where the server says that parts are missing, a gap is no news
            self._grid.place(name, first, values, marks, keep=bool(demand.warnings))

    def _make_room(self, last: int) -> None:
        self._grid.make_room(last)
        self._oldest = max(self._oldest, self._grid.first)

    def _summarise(self, first: int, last: int) -> None:
        self._rollups.take(self._grid, (self._oldest, self._newest), (first, last), round(3600 / self._step))


def questions(config: Config) -> tuple[str, str, Mapping[str, Mapping[str, str]]]:
    """What is asked for demand and for its marks, and by workload what stands in for either where no rule has it.

    A bin longer than a minute is the mean of its minutes, and censored if any of them was.
    """
    step, known = config.forecast.step_seconds, expressions(config)
    if step == MINUTE_SECONDS:
        return DEMAND, CENSORED, {name: known.get(name, {}) for name in (DEMAND, CENSORED)}
    window = f"{step * 1000 - 1}ms"  # a sample at its very beginning belongs to the bin before
    demand, censored = f"avg_over_time({DEMAND}[{window}])", f"max_over_time({CENSORED}[{window}])"

    def over(name: str, how: str) -> dict[str, str]:
        return {
            workload: f"{how}(({expression})[{window}:{MINUTE_SECONDS:.0f}s])"
            for workload, expression in known.get(name, {}).items()
        }

    return demand, censored, {demand: over(DEMAND, "avg_over_time"), censored: over(CENSORED, "max_over_time")}
