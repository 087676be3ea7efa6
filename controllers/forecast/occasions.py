"""Occasions of the calendar (events and whole holidays), and what would have come at their time without them.

What would have come is the day's profile of the same weekdays, occasions left out, times the level around the occasion.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from controllers.forecast.almanac import Calendar
from controllers.forecast.features import ceiling
from controllers.forecast.history import Bools, Floats, History, Ints, local_day_numbers, utc_offsets

LEAD_SECONDS, TAIL_SECONDS = 3600.0, 7200.0  # how far around an event its effect is looked for
LEAD_PARTS, BODY_PARTS, TAIL_PARTS = 6, 24, 12
PARTS = LEAD_PARTS + BODY_PARTS + TAIL_PARTS
PIECES = (slice(0, LEAD_PARTS), slice(LEAD_PARTS, LEAD_PARTS + BODY_PARTS), slice(LEAD_PARTS + BODY_PARTS, PARTS))
EVENT_LEVEL_SECONDS = 12 * 3600.0  # around an event: from there its level is taken
HOLIDAY_LEVEL_SECONDS = 60 * 3600.0  # around its middle: the nearest days
OTHER_DAYS = 0.02  # weight of other weekdays in what would have come: they count where the same one is not known
MEMORY_DAYS = 28.0  # after these a day counts 1/e in it
OFFSET_RATIO = 0.05  # of the mean, added before logarithms: tames zeros
MAX_LOG = 8.0  # a factor of 3000: demand that is there on occasions only
LEAST_DAYS = 3  # of history, before there is anything to compare with


@dataclass(frozen=True, slots=True)
class Occasion:
    """`weekday`: of a holiday, 0 is Monday; None: an event."""

    kind: str
    begin: float
    end: float
    weekday: int | None = None

    @property
    def reach(self) -> tuple[float, float]:
        """Lead-in and tail included, which whole days do not have."""
        if self.weekday is not None:
            return self.begin, self.end
        return self.begin - LEAD_SECONDS, self.end + TAIL_SECONDS


def occasions(calendar: Calendar, begin: float, end: float) -> list[Occasion]:
    """Events and holidays that reach into (begin, end), Unix seconds."""
    found = [Occasion(event.kind, event.begin, event.end) for event in calendar.events if event.end > event.begin]
    found += [
        Occasion(name, *_local_day(day, calendar.time_zone), (day + 3) % 7) for day, name in _near(calendar, begin, end)
    ]
    return [one for one in found if one.reach[1] > begin and one.reach[0] < end]


def part_of(occasion: Occasion, at: Floats) -> Floats:
    """Where in 0..PARTS instants lie; below 0 or from PARTS on: outside."""
    lead = (at - occasion.begin + LEAD_SECONDS) / LEAD_SECONDS * LEAD_PARTS
    body = LEAD_PARTS + (at - occasion.begin) / (occasion.end - occasion.begin) * BODY_PARTS
    tail = LEAD_PARTS + BODY_PARTS + (at - occasion.end) / TAIL_SECONDS * TAIL_PARTS
    return np.where(at < occasion.begin, lead, np.where(at < occasion.end, body, tail))


@dataclass(frozen=True, slots=True)
class Expected:
    """A history with what would have come without occasions, by bin of `step_seconds`; the first begins at `start`."""

    start: float
    step_seconds: float
    values: Floats
    profile: Floats  # what its weekday is like, by bin; NaN unknown
    came_sums: Floats  # of the values outside occasions, with a leading 0
    due_sums: Floats  # of the profile at the same bins
    offset: float
    noise: float  # variance of one bin's log ratio to what is expected of it
    weekly: Floats  # (7, slots) of the profile, Monday first

    @property
    def end(self) -> float:
        return self.start + len(self.values) * self.step_seconds

    def pairs(self, occasion: Occasion) -> tuple[Floats, Floats, Floats] | None:
        """Middles of the known bins that it reaches into, what came and what would have; None: nothing is known."""
        begin, end = occasion.reach
        half = EVENT_LEVEL_SECONDS if occasion.weekday is None else HOLIDAY_LEVEL_SECONDS
        half, middle = max(half, (end - begin + half) / 2), (occasion.begin + occasion.end) / 2
        level = self._level(middle - half, middle + half)
        first, last = max(self._place(begin), 0), self._place(end)
        if last <= first or self.start > occasion.begin:
            return None
        came, due = self.values[first:last], level * self.profile[first:last]
        middles = self.start + (np.arange(first, last, dtype=np.float64) + 0.5) * self.step_seconds
        known = np.isfinite(came) & np.isfinite(due)
        return middles[known], came[known] + self.offset, due[known] + self.offset

    def effect(self, occasion: Occasion) -> Floats | None:
        """Log ratios (PARTS) of what came to what would have; None when it was not seen from begin to end."""
        seen = self.pairs(occasion)
        if seen is None or self.end < occasion.end:
            return None
        at, came, due = seen
        place = part_of(occasion, at)
        logs = np.zeros(PARTS)
        for piece in PIECES:
            here = (place >= piece.start) & (place < piece.stop)
            if here.any():  # parts shorter than a bin lie between its neighbours' middles
                parts = np.arange(piece.start, piece.stop) + 0.5
                shape = np.interp(parts, place[here], np.log(came[here] / due[here]))
                # the whole by its sums: the mean of noisy logarithms is too small
                logs[piece] = shape - shape.mean() + np.log(came[here].sum() / due[here].sum())
            elif piece is PIECES[1]:
                return None
        bounded: Floats = np.clip(logs, -MAX_LOG, MAX_LOG)
        return bounded

    def _level(self, begin: float, end: float) -> float:
        """Demand outside occasions relative to the profile; 1 where nothing is known."""
        low, high = max(self._place(begin), 0), max(self._place(end), 0)
        due = self.due_sums[high] - self.due_sums[low]
        return float((self.came_sums[high] - self.came_sums[low]) / due) if due > 0 else 1.0

    def _place(self, at: float) -> int:
        return min(round((at - self.start) / self.step_seconds), len(self.values))


def expected(history: History, calendar: Calendar, grain_seconds: float) -> Expected | None:
    """In bins of at least `grain_seconds`; None while there is too little to compare with."""
    step = max(history.step_seconds, grain_seconds)
    start, values = _means(history, step)
    values = np.minimum(values, ceiling(values))
    known = np.isfinite(values)
    if known.sum() * step < LEAST_DAYS * 86_400 or not (values[known] > 0).any():
        return None
    offset = OFFSET_RATIO * float(values[known].mean())
    begins = start + np.arange(len(values), dtype=np.float64) * step
    usual = known & ~_occupied(calendar, begins, step)
    offsets = utc_offsets(start + step, step, len(values), calendar.time_zone)
    numbers = local_day_numbers(start + step, step, offsets)
    per_day = max(1, round(86_400 / step))
    slots = np.floor((begins + offsets * step) % 86_400 / step).astype(np.int64) % per_day
    rows = numbers - numbers[0]
    weekday = (np.arange(rows[-1] + 1) + numbers[0] + 3) % 7
    matrix = _matrix(rows, slots, np.where(usual, values, np.nan), (len(weekday), per_day))
    profile, weekly = _profiles(matrix, weekday)
    of_bins = profile[rows, slots]
    both = usual & np.isfinite(of_bins)
    came, due = np.where(both, values, 0.0), np.where(both, of_bins, 0.0)
    came_sums, due_sums = (np.concatenate(([0.0], np.cumsum(part))) for part in (came, due))
    around, at = max(1, round(EVENT_LEVEL_SECONDS / step)), np.arange(len(values))
    low, high = np.maximum(at - around, 0), np.minimum(at + around + 1, len(values))
    nearby = due_sums[high] - due_sums[low]
    level = np.divide(came_sums[high] - came_sums[low], nearby, out=np.ones(len(values)), where=nearby > 0)
    missed = np.log((came[both] + offset) / (level[both] * due[both] + offset))
    noise = float(np.mean(missed**2)) if both.any() else 1.0
    return Expected(start, step, values, of_bins, came_sums, due_sums, offset, noise, weekly)


def _means(history: History, step: float) -> tuple[float, Floats]:
    """The means of bins `step` long, and where the first one begins: on a multiple of it."""
    begins = history.start - history.step_seconds + np.arange(len(history.values)) * history.step_seconds
    bins = np.floor(begins / step + 1e-9).astype(np.int64)
    bins -= (first := int(bins[0]) if len(bins) else 0)
    known = np.isfinite(history.values)
    size = int(bins[-1]) + 1 if len(bins) else 0
    sums = np.bincount(bins[known], weights=history.values[known], minlength=size)
    counts = np.bincount(bins[known], minlength=size)
    means: Floats = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)
    return first * step, means


def _matrix(rows: Ints, slots: Ints, values: Floats, shape: tuple[int, int]) -> Floats:
    """By local day and time of day; the hour that a clock change repeats is averaged."""
    known = np.isfinite(values)
    flat = (rows * shape[1] + slots)[known]
    sums = np.bincount(flat, weights=values[known], minlength=shape[0] * shape[1])
    counts = np.bincount(flat, minlength=shape[0] * shape[1])
    found: Floats = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0).reshape(shape)
    return found


def _profiles(matrix: Floats, weekday: Ints) -> tuple[Floats, Floats]:
    """What each day would be like, told by the other days of its weekday, and by others a little: (days, slots).

    And the same by weekday: (7, slots). NaN where nothing is known. Days count relative to their level; the level of
    the whole is put back on, so that a weekday's own level stays in.
    """
    known = np.isfinite(matrix)
    filled = np.where(known, matrix, 0.0)
    usual = filled.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    days = np.arange(len(matrix))
    apart = np.abs(days[:, None] - days)
    weights = np.where(weekday[:, None] == weekday, 1.0, OTHER_DAYS) * np.exp(-apart / MEMORY_DAYS) * (apart > 0)
    # the level of the weeks around each day: shapes of weeks ago are not distorted by growth since
    weeks = np.exp(-apart / 7.0)
    due = weeks @ (known * usual)
    level = np.divide(
        (weeks @ filled).sum(axis=1), due.sum(axis=1), out=np.ones(len(matrix)), where=due.sum(axis=1) > 0
    )
    level = np.where(level > 0, level, 1.0)
    shapes = filled / level[:, None]

    def mean(weights: Floats) -> Floats:
        total = weights @ known
        found: Floats = np.divide(weights @ shapes, total, out=np.full(total.shape, np.nan), where=total > 1e-9)
        return found

    week = np.where(np.arange(7)[:, None] == weekday, 1.0, 0.0)
    return mean(weights) * level[:, None], mean(week)


def _occupied(calendar: Calendar, begins: Floats, step: float) -> Bools:
    """Bins that an occasion reaches into."""
    taken = np.zeros(len(begins), dtype=np.bool_)
    if len(begins):
        for occasion in occasions(calendar, float(begins[0]), float(begins[-1]) + step):
            begin, end = occasion.reach
            taken[np.searchsorted(begins + step, begin, "right") : np.searchsorted(begins, end)] = True
    return taken


def _near(calendar: Calendar, begin: float, end: float) -> Iterable[tuple[int, str]]:
    first, last = int(begin // 86_400) - 1, int(end // 86_400) + 1
    return ((day, name) for day, name in calendar.holidays.items() if first <= day <= last)


def _local_day(number: int, time_zone: str) -> tuple[float, float]:
    """Begin and end of a local day (days since the epoch) in Unix seconds."""
    day, zone = date(1970, 1, 1) + timedelta(days=number), ZoneInfo(time_zone)
    begin, end = (datetime.combine(day + timedelta(days=n), time(), zone).timestamp() for n in (0, 1))
    return begin, end
