"""What announced events and public holidays do to demand: learned from past ones, taken out of the past, put ahead.

An occasion is an event of the calendar or a whole holiday. Its effect is a log ratio to what would have come at that
time without it, by phase: an hour before it, the occasion itself (stretched to its length), two hours after it. What
would have come is the day's profile of the same weekdays, occasions left out, times the level around the occasion.

How `select` and `outlook` use it (times are those of bins' ends):

    effects = learn(history, calendar, hours); history = without(history, calendar, effects)  # before anything else
    path = (path + effects.offset) * factor(effects, calendar, times, step_seconds) - effects.offset  # ahead
    value = floored(value, times, step_seconds, calendar)  # so each quantile; peaks, arrivals by `floor_between`
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from controllers.forecast.almanac import Calendar
from controllers.forecast.history import Bools, Floats, History, Ints, local_day_numbers, utc_offsets

LEAD_SECONDS, TAIL_SECONDS = 3600.0, 7200.0  # how far around an event its effect is looked for
LEAD_PARTS, BODY_PARTS, TAIL_PARTS = 6, 24, 12
PARTS = LEAD_PARTS + BODY_PARTS + TAIL_PARTS
PIECES = (slice(0, LEAD_PARTS), slice(LEAD_PARTS, LEAD_PARTS + BODY_PARTS), slice(LEAD_PARTS + BODY_PARTS, PARTS))
GRAIN_SECONDS = 600.0  # effects are learned from means of this length, or of a bin where that is longer
EVENT_LEVEL_SECONDS = 12 * 3600.0  # around an event: from there its level is taken
HOLIDAY_LEVEL_SECONDS = 60 * 3600.0  # around its middle: the nearest days
OTHER_DAYS = 0.02  # weight of other weekdays in what would have come: they count where the same one is not known
MEMORY_DAYS = 28.0  # after these a day counts 1/e in it
ALIKE = 3.0  # neighbouring parts whose noise is alike count as one
OFFSET_RATIO = 0.05  # of the mean, added before logarithms: tames zeros
MAX_LOG = 8.0  # a factor of 3000: demand that is there on occasions only
LEAST_DAYS = 3  # of history, before there is anything to compare with
QUIET_SHARE = 0.5  # before a holiday was seen: half the way to the quietest weekday


@dataclass(frozen=True, slots=True)
class Effects:
    """Learned log ratios by part. Picklable. A kind that was never seen has none, and changes nothing."""

    offset: float = 0.0  # demand per second added before logarithms
    events: Mapping[str, Floats] = field(default_factory=dict)  # by kind: PARTS
    holidays: Mapping[str, Floats] = field(default_factory=dict)  # by name: BODY_PARTS, weekday apart
    any_holiday: Floats = field(default_factory=lambda: np.zeros(BODY_PARTS))  # of one not seen yet
    by_weekday: Floats = field(default_factory=lambda: np.zeros((7, BODY_PARTS)))  # Monday first; to all holidays
    seen: Mapping[str, int] = field(default_factory=dict)  # occasions learned from, by kind or name


NO_EFFECTS = Effects()


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


def learn(history: History, calendar: Calendar, hours: History | None = None) -> Effects:
    """From what past occasions did: events from the history, older ones and holidays from the hourly year."""
    if not (calendar.events or calendar.holidays):
        return NO_EFFECTS
    fine = _expected(history, calendar, GRAIN_SECONDS)
    coarse = _expected(hours if hours is not None else history, calendar, 3600.0)
    grids = [grid for grid in (fine, coarse) if grid is not None]
    if not grids:
        return NO_EFFECTS
    samples: dict[str, list[Floats]] = {}
    days: dict[str, list[Floats]] = {}
    weekdays: dict[str, list[int]] = {}
    noise: dict[str, list[float]] = {}
    for occasion in occasions(calendar, min(grid.start for grid in grids), max(grid.end for grid in grids)):
        holiday = occasion.weekday is not None
        grid = coarse if holiday or fine is None or occasion.reach[0] < fine.start else fine
        if grid is None or (grid is coarse and occasion.end - occasion.begin < grid.step_seconds and not holiday):
            continue
        sample = grid.effect(occasion, HOLIDAY_LEVEL_SECONDS if holiday else EVENT_LEVEL_SECONDS)
        if sample is None:
            continue
        if holiday:
            days.setdefault(occasion.kind, []).append(sample[PIECES[1]])
            weekdays.setdefault(occasion.kind, []).append(occasion.weekday or 0)
        else:
            samples.setdefault(occasion.kind, []).append(sample)
            noise.setdefault(occasion.kind, []).append(grid.noise)
    events = {kind: _shrunk(np.array(rows), float(np.mean(noise[kind])), PIECES) for kind, rows in samples.items()}
    by_weekday, holidays, any_holiday = _holidays(days, weekdays, coarse or fine, calendar)
    seen = {kind: len(rows) for kind, rows in {**samples, **days}.items()}
    return Effects(grids[0].offset, events, holidays, any_holiday, by_weekday, seen)


def without(history: History, calendar: Calendar, effects: Effects) -> History:
    """As the history would have been without its past occasions, so that lags and profiles are not misled by them."""
    times = history.start + np.arange(len(history.values), dtype=np.float64) * history.step_seconds
    logs = _logs(effects, calendar, times, history.step_seconds)
    if not logs.any():
        return history
    return History(history.start, history.step_seconds, _moved(history.values, -logs, effects.offset), history.censored)


def factor(effects: Effects, calendar: Calendar, times: Floats, step_seconds: float = 60.0) -> Floats:
    """By what occasions multiply demand + offset in bins that end at `times` (Unix seconds, ascending); 1: nothing."""
    ratios: Floats = np.exp(_logs(effects, calendar, times, step_seconds))
    return ratios


def floored(values: Floats, times: Floats, step_seconds: float, calendar: Calendar) -> Floats:
    """`values` (…, bins), each at least the highest floor that reaches into its bin, ending at `times` (ascending)."""
    lowest = np.zeros(len(times))
    for floor in calendar.floors:
        first, last = np.searchsorted(times, floor.begin, "right"), np.searchsorted(times - step_seconds, floor.end)
        lowest[first:last] = np.maximum(lowest[first:last], floor.demand_per_second)
    raised: Floats = np.maximum(values, lowest)
    return raised


def floor_between(calendar: Calendar, begin: float, end: float) -> tuple[float, float]:
    """Within [begin, end): the highest floor in demand per second, and the items that floors alone would bring."""
    within = [f for f in calendar.floors if f.begin < end and f.end > begin]
    edges = sorted({begin, end, *(min(max(at, begin), end) for f in within for at in (f.begin, f.end))})
    items = 0.0
    for start, until in itertools.pairwise(edges):
        there = [f.demand_per_second for f in within if f.begin <= start and f.end >= until]
        items += max(there, default=0.0) * (until - start)
    return max((f.demand_per_second for f in within), default=0.0), items


@dataclass(frozen=True, slots=True)
class _Expected:
    """A history in local days, with what would have come without occasions. `index` (day, slot) of each bin."""

    start: float
    step_seconds: float
    values: Floats
    profile: Floats  # what its weekday is like, by bin; NaN unknown
    residual_sums: Floats  # of log(value / profile) outside occasions, with a leading 0
    residual_seen: Ints
    offset: float
    noise: float  # variance of one bin's log ratio to what is expected of it
    weekly: Floats  # (7, slots) of the profile, Monday first

    @property
    def end(self) -> float:
        return self.start + len(self.values) * self.step_seconds

    def effect(self, occasion: Occasion, around_seconds: float) -> Floats | None:
        """Log ratios (PARTS); None when the occasion was not seen from begin to end."""
        begin, end = occasion.reach
        middle = (occasion.begin + occasion.end) / 2
        half = max(around_seconds, (end - begin) / 2 + around_seconds / 2)
        level = self._level(middle - half, middle + half)
        first, last = (round((at - self.start) / self.step_seconds) for at in (begin, end))
        first, last = max(first, 0), min(last, len(self.values))
        if level is None or last <= first or self.start > occasion.begin or self.end < occasion.end:
            return None
        came = self.values[first:last]
        expected = self.profile[first:last] * np.exp(level)
        centres = self.start + (np.arange(first, last, dtype=np.float64) + 0.5) * self.step_seconds
        known = np.isfinite(came) & np.isfinite(expected)
        logs = np.log((came + self.offset) / (expected + self.offset))
        parts = np.full(PARTS, np.nan)
        for piece in PIECES:
            here = known & (_part(occasion, centres) >= piece.start) & (_part(occasion, centres) < piece.stop)
            if here.any():
                # parts shorter than a bin lie between its neighbours' middles
                at = _part(occasion, centres[here])
                parts[piece] = np.interp(np.arange(piece.start, piece.stop) + 0.5, at, logs[here])
        if np.isnan(parts[PIECES[1]]).any():
            return None
        bounded: Floats = np.clip(np.nan_to_num(parts), -MAX_LOG, MAX_LOG)
        return bounded

    def _level(self, begin: float, end: float) -> float | None:
        low, high = (min(max(round((at - self.start) / self.step_seconds), 0), len(self.values)) for at in (begin, end))
        seen = self.residual_seen[high] - self.residual_seen[low]
        return float((self.residual_sums[high] - self.residual_sums[low]) / seen) if seen else None


def _expected(history: History, calendar: Calendar, grain_seconds: float) -> _Expected | None:
    """None while there is too little to compare with."""
    step = max(history.step_seconds, grain_seconds)
    start, values = _means(history, step)
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
    residual = np.where(usual, np.log((values + offset) / (of_bins + offset)), np.nan)
    fine = np.isfinite(residual)
    sums = np.concatenate(([0.0], np.cumsum(np.where(fine, residual, 0.0))))
    seen = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(fine)))
    smooth = max(1, round(EVENT_LEVEL_SECONDS / step))
    at = np.arange(len(values))
    low, high = np.maximum(at - smooth, 0), np.minimum(at + smooth + 1, len(values))
    around = (sums[high] - sums[low]) / np.maximum(seen[high] - seen[low], 1)
    noise = float(np.mean((residual[fine] - around[fine]) ** 2)) if fine.any() else 1.0
    return _Expected(start, step, values, of_bins, sums, seen, offset, noise, weekly)


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


def _part(occasion: Occasion, at: Floats) -> Floats:
    """Where in 0..PARTS instants lie; below 0 or from PARTS on: outside."""
    lead = (at - occasion.begin + LEAD_SECONDS) / LEAD_SECONDS * LEAD_PARTS
    body = LEAD_PARTS + (at - occasion.begin) / (occasion.end - occasion.begin) * BODY_PARTS
    tail = LEAD_PARTS + BODY_PARTS + (at - occasion.end) / TAIL_SECONDS * TAIL_PARTS
    return np.where(at < occasion.begin, lead, np.where(at < occasion.end, body, tail))


def _shrunk(samples: Floats, noise: float, pieces: Sequence[slice]) -> Floats:
    """What several occasions (rows) have in common, drawn to nothing as far as it may be chance: (parts,).

    A mean m of n with the variance v is multiplied by m² / (m² + v / n): the whole piece first, then what its parts
    differ from it. One occasion may be a chance of its own: its v is at least m², so that at most half of it counts.
    """
    count = len(samples)
    found = np.zeros(samples.shape[1])
    for piece in pieces:
        rows = samples[:, piece]
        apart = min(float(rows.shape[1]), ALIKE)
        whole = _drawn(rows.mean(axis=1)[:, None], noise * apart / rows.shape[1], count)
        found[piece] = whole + _drawn(rows - rows.mean(axis=1)[:, None], noise, count)
    return found


def _drawn(rows: Floats, noise: float, count: int) -> Floats:
    mean = rows.mean(axis=0)
    square = mean**2
    variance = (((rows - mean) ** 2).sum(axis=0) + square) / count + noise
    drawn: Floats = mean * np.divide(square, square + variance / count, out=np.zeros(len(mean)), where=square > 0)
    return drawn


def _holidays(
    days: Mapping[str, list[Floats]], weekdays: Mapping[str, list[int]], grid: _Expected | None, calendar: Calendar
) -> tuple[Floats, dict[str, Floats], Floats]:
    """How far holidays are like the quietest weekday, what each does beyond that, and what one not seen yet does."""
    to_quiet = np.zeros((7, BODY_PARTS))
    if grid is None or not calendar.holidays:
        return to_quiet, {}, np.zeros(BODY_PARTS)
    if np.isfinite(grid.weekly).all():
        quiet = grid.weekly[int(np.argmin(grid.weekly.mean(axis=1)))]
        to_quiet = _by_hour(np.log((quiet + grid.offset) / (grid.weekly + grid.offset)))
    pairs = [(row, to_quiet[day]) for name, rows in days.items() for row, day in zip(rows, weekdays[name], strict=True)]
    # least squares with a prior: half the way, believed like one holiday of the usual distance
    prior = float((to_quiet**2).mean()) * BODY_PARTS
    like = sum(float(row @ base) for row, base in pairs) + QUIET_SHARE * prior
    share = like / total if (total := sum(float(base @ base) for _, base in pairs) + prior) > 0 else 0.0
    by_weekday = min(max(share, 0.0), 1.5) * to_quiet
    beyond = {
        n: [row - by_weekday[day] for row, day in zip(rows, weekdays[n], strict=True)] for n, rows in days.items()
    }
    one_day = [slice(0, BODY_PARTS)]
    every = [row for rows in beyond.values() for row in rows]
    any_holiday = _shrunk(np.array(every), grid.noise, one_day) if every else np.zeros(BODY_PARTS)
    own = {
        name: any_holiday + _shrunk(np.array(rows) - any_holiday, grid.noise, one_day) for name, rows in beyond.items()
    }
    return by_weekday, own, any_holiday


def _by_hour(of_slots: Floats) -> Floats:
    """(7, slots) as (7, BODY_PARTS)."""
    slots = of_slots.shape[1]
    centres = (np.arange(BODY_PARTS) + 0.5) / BODY_PARTS * slots - 0.5
    return np.array([np.interp(centres, np.arange(slots), row) for row in of_slots])


def _logs(effects: Effects, calendar: Calendar, times: Floats, step_seconds: float) -> Floats:
    """What all occasions together do in the bins that end at `times`, ascending."""
    logs = np.zeros(len(times))
    if effects.offset <= 0 or not len(times):
        return logs
    inner = max(1, min(6, round(step_seconds / GRAIN_SECONDS)))  # a long bin may be only partly within
    for occasion in occasions(calendar, float(times[0]) - step_seconds, float(times[-1])):
        parts = _effect_of(effects, occasion)
        begin, end = occasion.reach
        first, last = np.searchsorted(times, begin, "right"), np.searchsorted(times - step_seconds, end)
        if parts is None or last <= first:
            continue
        ratios = np.zeros(last - first)
        for piece in range(inner):
            at = _part(occasion, times[first:last] - step_seconds * (piece + 0.5) / inner)
            inside = (at >= 0) & (at < PARTS)
            ratios += np.where(inside, np.exp(parts[np.clip(at, 0, PARTS - 1).astype(np.int64)]), 1.0)
        logs[first:last] += np.log(ratios / inner)
    return np.clip(logs, -MAX_LOG, MAX_LOG)


def _effect_of(effects: Effects, occasion: Occasion) -> Floats | None:
    if occasion.weekday is None:
        return effects.events.get(occasion.kind)
    parts = np.zeros(PARTS)
    own = effects.holidays.get(occasion.kind, effects.any_holiday)
    parts[PIECES[1]] = effects.by_weekday[occasion.weekday] + own
    return parts


def _moved(values: Floats, logs: Floats, offset: float) -> Floats:
    moved: Floats = np.maximum((values + offset) * np.exp(logs) - offset, 0.0)
    return np.where(logs != 0, moved, values)


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
