"""Reads the demand of all workloads from Prometheus, one query a series, and keeps it: a cycle reads what is new."""

import statistics
from collections.abc import Callable, Mapping

import numpy as np
import structlog

from controllers.config import Config
from controllers.forecast.history import ABSURD_PER_SECOND, Bools, Floats, History
from controllers.rules import expressions
from controllers.sources.prometheus import Reading, Source, SourceError

DEMAND = "workload:demand:rate1m"
CENSORED = "workload:demand_censored:bool"
STEP_SECONDS = 60.0
OVERLAP_BINS = 5  # read again: a rule or a remote store may have been late
MAX_SAMPLES = 2_000_000  # of one answer, over all workloads
MAX_CHUNK_BINS = 7200  # five days
PHASE_SECONDS = (86_400.0, 3600.0)  # how long ago it is looked up when samples were taken
SLACK_BINS = 1440  # the window moves on once a day, not once a minute


class Observer:
    """The last days of demand of every workload, in minutes. Not for several threads."""

    def __init__(self, source: Source, config: Config) -> None:
        self._source = source
        self._names = [workload.identity for workload in config.workloads]
        known = expressions(config)
        self._fallbacks: Mapping[str, Mapping[str, str]] = {name: known.get(name, {}) for name in (DEMAND, CENSORED)}
        self._days = config.forecast.history_days
        self._bins = max(1, round(self._days * 86_400 / STEP_SECONDS))
        self._phase = 0.0  # seconds after the full minute at which bins end
        self._first = 0  # number (Unix minutes) of the bin in place 0
        self._values: dict[str, Floats] = {}
        self._censored: dict[str, Bools] = {}
        self._newest = 0  # last bin read; 0: none
        self._oldest = 1  # first bin read
        self._chunk = max(60, min(MAX_CHUNK_BINS, MAX_SAMPLES // max(1, len(self._names))))
        self.errors: dict[str, SourceError] = {}  # workloads whose own expression failed in the last reading

    @property
    def complete(self) -> bool:
        """Whether the whole past has been read, as far as there is any."""
        return self._newest > 0 and self._oldest <= self._newest - self._bins + 1

    def read(self, now: float, remaining: Callable[[], float]) -> None:
        """What is new, then as much of the past as the time allows (`remaining()`: seconds).

        Raises SourceError when even what is new could not be read; what was known stays.
        """
        if not self._newest:
            self._phase = self._sampled_at(now, remaining())
        end = int((now - self._phase) // STEP_SECONDS)
        if not self._newest:
            self._first = end - self._bins + 1
            size = self._bins + SLACK_BINS
            self._values = {name: np.full(size, np.nan) for name in self._names}
            self._censored = {name: np.zeros(size, dtype=np.bool_) for name in self._names}
            self._newest, self._oldest = end, end + 1
            try:
                self._read_older(remaining)
            except SourceError:
                self._newest = 0
                raise
        elif end > self._newest:
            self._move_on(end)
            self._fill(max(self._newest + 1 - OVERLAP_BINS, self._first, end - self._bins + 1), end, remaining())
            self._newest = end
        while not self.complete and remaining() > 1.0:
            try:
                self._read_older(remaining)
            except SourceError as error:  # what is new has been read: the past can wait for the next cycle
                self._chunk = max(60, self._chunk // 2)
                structlog.get_logger().warning("history_waits", kind=str(error.kind), error=error.message)
                return

    def history(self, workload: str) -> History:
        """What is known of the workload, all NaN where nothing is: a view, good until the next read()."""
        begin, end = max(self._oldest, self._newest - self._bins + 1) - self._first, self._newest + 1 - self._first
        values, censored = self._values[workload][begin:end], self._censored[workload][begin:end]
        known = np.flatnonzero(np.isfinite(values))
        skip = int(known[0]) if len(known) else 0
        return History(
            (self._first + begin + skip) * STEP_SECONDS + self._phase, STEP_SECONDS, values[skip:], censored[skip:]
        )

    def _sampled_at(self, now: float, seconds: float) -> float:
        """Seconds after the full minute at which old samples lie; asked for at another time, they come late."""
        for back in PHASE_SECONDS:
            times = [
                s.samples[-1].value % STEP_SECONDS
                for s in self._source.instant(f"timestamp({DEMAND})", now - back, seconds)
            ]
            if times:
                return statistics.mode(round(time, 3) for time in times)
        return 0.0

    def _read_older(self, remaining: Callable[[], float]) -> None:
        last = self._oldest - 1
        first = max(last - self._chunk + 1, self._newest - self._bins + 1)
        self._fill(first, last, remaining())
        self._oldest = first

    def _fill(self, first: int, last: int, seconds: float) -> None:
        """Replaces the bins first..last by what Prometheus says now."""
        begin, end = (bin_number * STEP_SECONDS + self._phase for bin_number in (first, last))
        readings = self._source.contract_range([DEMAND, CENSORED], self._fallbacks, begin, end, STEP_SECONDS, seconds)
        for reading in readings.values():
            if reading.warnings:
                structlog.get_logger().warning("answer_in_part", series=reading.record, warnings=reading.warnings)
        self.errors = dict(readings[DEMAND].errors)
        place, size = first - self._first, last - first + 1
        for name in self._names:
            values = _grid(readings[DEMAND], name, begin, size, self.errors)
            marks = _grid(readings[CENSORED], name, begin, size, {})
            kept = self._values[name][place : place + size]
            # where the server says that parts are missing, a gap is no news
            news = np.where(np.isnan(values), kept, values) if readings[DEMAND].warnings else values
            self._values[name][place : place + size] = news
            self._censored[name][place : place + size] = np.nan_to_num(marks) > 0

    def _move_on(self, end: int) -> None:
        """Makes room for `end`, forgetting what is older than the configured days."""
        beyond = end - (self._first + self._bins + SLACK_BINS - 1)
        if beyond <= 0:
            return
        shift = beyond + SLACK_BINS // 2
        kept = max(0, self._bins + SLACK_BINS - shift)  # none after a sleep longer than the window
        for name in self._names:
            values, censored = self._values[name], self._censored[name]
            values[:kept], values[kept:] = values[shift:].copy(), np.nan
            censored[:kept], censored[kept:] = censored[shift:].copy(), False
        self._first += shift
        self._oldest = max(self._oldest, self._first)


def _grid(reading: Reading, workload: str, begin: float, size: int, errors: dict[str, SourceError]) -> Floats:
    """The workload's samples by bin; NaN where none, negative or absurd. A failure of this one goes into `errors`."""
    values: Floats = np.full(size, np.nan)
    try:
        samples = reading.samples(workload)
    except SourceError as error:
        errors[workload] = error
        return values
    if samples:
        found = np.array([(sample.at, sample.value) for sample in samples])
        places = np.rint((found[:, 0] - begin) / STEP_SECONDS).astype(np.int64)
        usable = (places >= 0) & (places < size) & (found[:, 1] >= 0) & (found[:, 1] <= ABSURD_PER_SECOND)
        values[places[usable]] = found[usable, 1]
    return values
