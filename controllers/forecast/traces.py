"""Reads demand from a file: CSV or gzipped CSV, `timestamp,value`, a timestamp being where a bin begins.

Times are ISO 8601 (UTC where no zone is given) or Unix seconds, in any order; an empty value is unknown.
"""

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from controllers.forecast.history import ABSURD_PER_SECOND, Floats, History

HOUR_SECONDS = 3600
STEPS = tuple(step for step in range(60, HOUR_SECONDS + 1) if HOUR_SECONDS % step == 0)  # a forecast is by the minute
SLACK = 1.05  # a usual distance up to this much longer than a step counts as that step
MAX_BINS = 5_000_000
FEWEST_ROWS = 3
MILLISECONDS = 1e11  # no time in seconds is as late: the year 5138


class TraceError(Exception):
    """A file that cannot be used: where, what was found, what to do."""


def read_trace(path: Path) -> History:
    """The file as a regular grid with gaps. Raises TraceError."""
    times, values = read_samples(path)
    try:
        return gridded(times, values)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def read_samples(path: Path) -> tuple[Floats, Floats]:
    """Unix seconds and values (NaN: unknown) as they stand there. Raises TraceError."""
    times: list[float] = []
    values: list[float] = []
    first = True
    for line, cells in _lines(path):
        header, first = first, False
        if len(cells) < 2:
            raise TraceError(f"{path}:{line}: found {','.join(cells)!r}; write timestamp,value")
        try:
            times.append(_seconds(cells[0]))
        except (ValueError, OverflowError, OSError):
            if header:
                continue
            raise TraceError(
                f"{path}:{line}: found the time {cells[0]!r}; write 2026-01-31T12:00:00Z or Unix seconds"
            ) from None
        if times[-1] >= MILLISECONDS:
            raise TraceError(f"{path}:{line}: found the time {cells[0]!r}; write seconds instead of milliseconds")
        try:
            values.append(float(cells[1]) if cells[1].strip() else math.nan)
        except ValueError:
            raise TraceError(
                f"{path}:{line}: found the value {cells[1]!r}; write a number, or nothing where it is unknown"
            ) from None
    return np.array(times), np.array(values)


def gridded(times: Floats, values: Floats) -> History:
    """Samples in any order as bins of the usual distance, rounded up to a divisor of an hour, at least a minute.

    Several in one bin are averaged. Negative, infinite and absurd values count as missing. Raises TraceError.
    """
    usable = np.isfinite(values) & (values >= 0) & (values <= ABSURD_PER_SECOND)
    distances = np.diff(np.unique(times))
    if usable.sum() < FEWEST_ROWS or len(distances) < FEWEST_ROWS - 1:
        raise TraceError(f"found {int(usable.sum())} usable rows; a forecast needs hours of them")
    usual = float(np.median(distances))
    if usual > HOUR_SECONDS * SLACK:
        raise TraceError(f"found {usual:.0f} s between rows; the hour ahead needs a row at least every 3600 s")
    step = next(step for step in STEPS if step >= min(usual / SLACK, HOUR_SECONDS))
    numbers = np.floor(times[usable] / step + 1e-6).astype(np.int64)
    first, count = int(numbers.min()), int(numbers.max() - numbers.min()) + 1
    if count > MAX_BINS:
        raise TraceError(f"found {count} steps of {step} s from the first row to the last; is one of the times wrong?")
    sums = np.bincount(numbers - first, weights=values[usable], minlength=count)
    known = np.bincount(numbers - first, minlength=count)
    grid = np.divide(sums, known, out=np.full(count, np.nan), where=known > 0)
    return History((first + 1.0) * step, float(step), grid, np.zeros(count, dtype=np.bool_))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    line = 0
    try:
        zipped = path.read_bytes()[:2] == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rt", encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            for cells in reader:
                line = reader.line_num
                if cells:
                    yield line, cells
    except FileNotFoundError:
        raise TraceError(f"{path}: there is no such file; name a .csv or .csv.gz of timestamp,value") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        where = f"{path}:{line + 1}" if line else str(path)
        raise TraceError(f"{where}: cannot be read ({error or type(error).__name__})") from None


def _seconds(text: str) -> float:
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds
