"""Level-relative features: what a coming bin looks like from an origin, on a log scale and free of the level.

A column is A[target] - B[origin]. Neither side looks at a bin after its origin, so one pass over the history serves
every origin and every lead, and a backtest sees exactly what a live forecast would have seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from controllers.forecast.history import DAY_SECONDS, Bools, Floats, History, Ints, local_day_numbers, utc_offsets
from controllers.forecast.sums import bins, cumulative, every_level, level, running, window

LEVEL_SECONDS = (0.0, 600.0, 3600.0, 3 * 3600.0, 86_400.0)  # trailing means; 0 is the newest bin alone
TEN, HOUR, DAY = 1, 2, 4  # places in LEVEL_SECONDS; targets are relative to the hour's level
WIDTH_SECONDS = (0.0, 300.0, 900.0, 3600.0)  # neighbouring bins that smooth a profile; 0 keeps every bin's own edge
QUARTER = 2  # place in WIDTH_SECONDS
SHAPES = 2 * len(WIDTH_SECONDS)  # of all days, and of days of the same kind
LAG_DAYS = (1, 2, 7, 14)
LAG_WIDTH_SECONDS = 300.0
PROFILE_DECAY = 0.9  # weight of a day relative to the day after it
CELLS = 10_000  # of profiles, worked on at once
LIMIT = 6.0  # of a logarithm of ratios
PROFILE_HOURS = 12
HOUR_DECAY = 0.75
WINSOR = 5.0  # a value above this many times the usual largest one counts as that
OFFSET_RATIO = 0.05  # added before logarithms, in means of the history: tames zeros
CALENDAR = (False, False, False, False, False, True, True)  # Saturday and Sunday


@dataclass(frozen=True, slots=True)
class Basis:
    """What is fixed when a model is fitted, so that later samples cannot reach back into earlier origins."""

    time_zone: str
    level_offset: float  # demand per second added before logarithms
    ceiling: float  # the largest demand per second that is believed
    quiet: tuple[bool, ...]  # which weekdays, Monday first, are of the quieter kind


@dataclass(frozen=True, slots=True)
class Past:
    """A history prepared once: bounded, and summed up so that the mean of any window costs two look-ups."""

    basis: Basis
    start: float  # Unix seconds at which bin 0 ends
    count: int  # bins known
    day: int  # bins a day
    step_seconds: float
    values: Floats  # NaN where unknown
    sums: Floats
    seen: Ints
    shape_sums: Floats  # of values relative to the day that ended there; as many are known
    known: Ints  # the bins that are
    offsets: Ints  # local time ahead of UTC in bins, coming bins included


@dataclass(frozen=True, slots=True)
class Grid:
    """Earlier days, one below the other, at the local times of day of some bins. See `grid`."""

    low: int  # the first local time
    back: int  # days before that
    then: Ints  # (days, times): the bins
    weights: Floats  # (2, days, times): of busy and of quiet days


@dataclass(frozen=True, slots=True)
class Targets:
    """The A side: what coming bins should be like. `logs` (profiles and lags, bins), `plain` (2, bins) per second."""

    logs: Floats
    hours: Floats  # (bins,)
    plain: Floats


@dataclass(frozen=True, slots=True)
class Views:
    """Targets from bin `first` on, by how near a day and an hour before them the origin lets one look."""

    first: int
    by: Mapping[tuple[int, int], Targets]


@dataclass(frozen=True, slots=True)
class Origins:
    """The B side: what origins look like. `logs` (columns, origins), `plain` and `base` (origins,)."""

    logs: Floats
    plain: Floats
    base: Floats  # log of the last hour's level


def basis(history: History, time_zone: str) -> Basis:
    """Several models ask this of one history, one after the other, so the last answers are remembered."""
    return _basis(history.start, history.step_seconds, history.values.tobytes(), time_zone)


@lru_cache(maxsize=4)
def _basis(start: float, step_seconds: float, content: bytes, time_zone: str) -> Basis:
    values = np.frombuffer(content)
    history = History(start, step_seconds, values, np.zeros(len(values), dtype=np.bool_))
    recent = history.values[-14 * history.steps_per_day :]
    highest = ceiling(history.values)
    known = np.minimum(recent[np.isfinite(recent)], highest)
    mean = float(known.mean()) if len(known) else 0.0
    return Basis(time_zone, OFFSET_RATIO * mean or 1e-9, highest, quiet_weekdays(history, time_zone, highest))


def ceiling(values: Floats) -> float:
    """The largest demand that is believed: some samples a million times the rest must not shape a forecast.

    Infinite while nothing but zeros has been seen: that is no ground to doubt the first real demand.
    """
    known = values[np.isfinite(values)]
    highest = float(known.max()) if len(known) else 0.0
    if highest <= 0:
        return float("inf")
    # the usual largest: a few, or one in a thousand, may be glitches
    place = len(known) - 1 - max(min(3, len(known) // 4), len(known) // 1000)
    usual = float(np.partition(known, place)[place])
    return WINSOR * (usual if usual > 0 else highest)


def quiet_weekdays(history: History, time_zone: str, highest: float) -> tuple[bool, ...]:
    """Two kinds of days, split at the widest gap between the weekdays' levels. Before a fortnight: the weekend."""
    day = history.steps_per_day
    if len(history.values) < 14 * day:
        return CALENDAR
    offsets = utc_offsets(history.start, history.step_seconds, len(history.values), time_zone)
    numbers = local_day_numbers(history.start, history.step_seconds, offsets)
    known = np.isfinite(history.values)
    place = numbers - numbers[0]
    totals = np.bincount(place[known], weights=np.minimum(history.values[known], highest), minlength=place[-1] + 1)
    seen = np.bincount(place[known], minlength=place[-1] + 1)
    weekday = (np.arange(len(seen)) + numbers[0] + 3) % 7  # day 0 of the epoch was a Thursday
    whole = seen > day // 2
    if len(set(weekday[whole].tolist())) < 7:
        return CALENDAR
    levels = np.array([np.median(totals[d] / seen[d]) for d in (whole & (weekday == day) for day in range(7))])
    order = np.argsort(levels)
    cut = int(np.argmax(np.diff(levels[order])))
    return tuple(bool(weekday in order[: cut + 1]) for weekday in range(7))


def prepare(history: History, fixed: Basis, coming: int) -> Past:
    """`coming`: how many bins after the last one will be asked for."""
    step, count = history.step_seconds, len(history.values)
    values = np.minimum(history.values, fixed.ceiling)
    sums, seen = cumulative(values)
    known = np.flatnonzero(np.isfinite(values))
    of_day = every_level(sums, seen, known, bins(LEVEL_SECONDS[DAY], step)) + fixed.level_offset
    shape_sums = running(np.where(np.isfinite(values), (values + fixed.level_offset) / of_day, 0.0))
    return Past(
        fixed,
        history.start,
        count,
        history.steps_per_day,
        step,
        values,
        sums,
        seen,
        shape_sums,
        known,
        utc_offsets(history.start, step, count + coming, fixed.time_zone),
    )


def local(past: Past, at: Ints) -> Ints:
    """Bins counted by the local clock: 9:00 is a whole number of days after any other 9:00."""
    by_clock: Ints = at + past.offsets[at]
    return by_clock


def weekday(past: Past, by_clock: Ints) -> Ints:
    """Of local bins, Monday is 0. A bin belongs to the day in which it begins."""
    begins = past.start + (by_clock - 1) * past.step_seconds
    days: Ints = (np.floor(begins / DAY_SECONDS + 1e-9).astype(np.int64) + 3) % 7  # the epoch was a Thursday
    return days


def clock(past: Past, by_clock: Ints) -> Floats:
    """Time of day at which local bins begin, as a share of the day."""
    begins: Floats = (past.start + (by_clock - 1) * past.step_seconds).astype(np.float64)
    return begins % DAY_SECONDS / DAY_SECONDS


def quiet(past: Past, by_clock: Ints) -> Bools:
    kinds: Bools = np.array(past.basis.quiet)[weekday(past, by_clock)]
    return kinds


def first_day(past: Past, lead: int) -> int:
    """The nearest day before a target whose smoothed bins its origin, `lead` bins earlier, has seen for certain."""
    return 1 if lead <= past.day - bins(5400.0, past.step_seconds) else 2


def first_hour(past: Past, lead: int) -> int:
    return -(-lead // bins(3600.0, past.step_seconds))


def targets(past: Past, first: int, end: int, leads: Sequence[int], days: Grid | None = None) -> Views:
    """What the bins first..end - 1 should be like, seen from each of `leads` (bins) before them.

    `days`: a grid that covers them, if there is one.
    """
    days = days or grid(past, first, end)
    at = np.arange(first, end)
    centred = [(size, size // 2) for size in (bins(seconds, past.step_seconds) for seconds in WIDTH_SECONDS)]
    by_day: dict[int, tuple[Floats, Floats]] = {}
    by_hour: dict[int, Floats] = {}
    views: dict[tuple[int, int], Targets] = {}
    for lead in leads:
        day, hour = view = (first_day(past, lead), first_hour(past, lead))
        if view in views:
            continue
        if day not in by_day:
            logs = np.empty((SHAPES + len(LAG_DAYS), len(at)))
            shapes, of_all_days = profiles(past, days, at, day, centred, [centred[0], centred[QUARTER]])
            np.log(shapes, out=logs[:SHAPES])
            logs[SHAPES:] = lags(past, at, day)
            by_day[day] = logs, of_all_days
        if hour not in by_hour:
            by_hour[hour] = hours(past, first, end, hour)
        views[view] = Targets(by_day[day][0], by_hour[hour], by_day[day][1])
    return Views(first, views)


def lags(past: Past, at: Ints, nearest_day: int) -> Floats:
    size = bins(LAG_WIDTH_SECONDS, past.step_seconds)
    before = same_time(past.offsets, past.day, at, np.maximum(LAG_DAYS, nearest_day)[:, None])
    mean, known = window(past.sums, past.seen, before, size, size // 2)
    logs: Floats = np.log(np.where(known, mean + past.basis.level_offset, np.nan))
    return logs


def origins(past: Past, at: Ints, days: Grid | None = None) -> Origins:
    """`days`: a grid that covers them, if there is one."""
    days = days or grid(past, int(at.min()), int(at.max()) + 1)
    hour, ten = (bins(LEVEL_SECONDS[place], past.step_seconds) for place in (HOUR, TEN))
    levels = list(log_levels(past, at, LEVEL_SECONDS))
    base, day = levels[HOUR], levels[DAY]
    shapes, plain = profiles(past, days, at, 1, [(hour, 0), (ten, 0)], [(hour, 0)])
    here, here_ten, here_kind, _ = np.log(shapes)
    before = same_time(past.offsets, past.day, at, np.array(LAG_DAYS)[:, None])
    growth = np.where(before >= 0, log_level(past, np.maximum(before, 0), LEVEL_SECONDS[HOUR]), np.nan)
    logs = [
        *[here] * len(WIDTH_SECONDS),
        *[here_kind] * len(WIDTH_SECONDS),
        *growth,
        *[base] * len(LAG_DAYS),
        base - day,
        np.zeros(len(at)),
        # the rest has no A side: the origin's own momentum, deviation from its profile, and growth over days
        *[base - level for place, level in enumerate(levels) if place != HOUR],
        (base - here) - (levels[TEN] - here_ten),
        here + day - base,
        growth[0] - base,
        growth[2] - base,
    ]
    return Origins(np.array(logs), plain[0], base)


def level_shifts() -> Floats:
    """How the columns move when demand's level rises by one (log) an hour ago, and a few hours ago: (2, columns).

    The target, being relative to the last hour, does not move: a forecast that follows the level ignores these.
    """
    rows = []
    for three_hours, day in ((0.35, 0.05), (1.0, 0.2)):
        rows.append(
            [
                *[0.0] * (2 * len(WIDTH_SECONDS) + len(LAG_DAYS)),
                *[-1.0] * len(LAG_DAYS),
                day - 1.0,
                0.0,
                *[0.0, 0.0, three_hours - 1.0, day - 1.0],
                0.0,
                1.0 - day,
                1.0,
                1.0,
                *[0.0] * 3,
            ]
        )
    return np.array(rows)


def columns(target: Targets, origin: Origins, place: Ints, least_known: float = 0.0) -> Floats:
    """The design matrix (columns, origins, leads) for `place` (origins, leads): the index of each pair's target.

    Unknown: what the smoothed profile says, and where that is unknown too, no growth. A column known for less than the
    share `least_known` of the pairs is all zeros.
    """
    whole = np.ones((len(origin.logs) + 3, *place.shape))
    raw = whole[: len(origin.logs)]
    logs = target.logs.take(place, axis=1)
    aside = (logs, logs[SHAPES:], logs[QUARTER : QUARTER + 1], target.hours.take(place)[None])
    near = 0
    for part in aside:
        np.subtract(part, origin.logs[near : near + len(part), :, None], out=raw[near : near + len(part)])
        near += len(part)
    np.negative(origin.logs[near:, :, None], out=raw[near:])
    known = np.isfinite(raw)
    if not known.all():
        seldom = known[:near].mean(axis=(1, 2)) < least_known
        np.copyto(raw, np.nan_to_num(raw[QUARTER]), where=~known)
        raw[:near][seldom] = 0.0
    np.clip(raw, -LIMIT, LIMIT, out=raw)
    level = np.exp(origin.base)[:, None]
    growth = np.nan_to_num(target.plain.take(place, axis=1) - origin.plain[:, None])
    whole[-3:-1] = np.log(np.clip(level + growth, 0.2 * level, 5 * level)) - origin.base[:, None]
    return whole


def grid(past: Past, first: int, end: int) -> Grid:
    """For profiles of the bins first..end - 1."""
    by_clock, day = local(past, np.arange(first, end)), past.day
    low, high = int(by_clock.min()), int(by_clock.max())
    width = min(day, high - low + 1)
    back = max(0, -(-(low - int(past.offsets[0])) // day))
    row = np.arange(back + (high - low) // day)[:, None]
    cells = (low - back * day) + row * day + np.arange(width)
    # days gain weight instead of losing it: a mean is the same, and one weight does for every later day
    weight: Floats = PROFILE_DECAY ** -row.astype(np.float64)
    kind = quiet(past, cells)
    return Grid(low, back, bins_at(past, cells), np.stack([weight * ~kind, weight * kind]))


def profiles(
    past: Past,
    days: Grid,
    at: Ints,
    nearest_day: int,
    of_shape: Sequence[tuple[int, int]],
    plain: Sequence[tuple[int, int]],
) -> tuple[Floats, Floats]:
    """Weighted means of the same local time on earlier days; NaN where no day is known.

    Windows are (bins, how many of them lie after the time itself). `of_shape` (2 * windows, bins): relative to the day,
    of all days, then of days of the same kind. `plain` (windows, bins): of demand, of all days.
    """
    by_clock = local(past, at)
    width = days.then.shape[1]
    row = days.back + (by_clock - days.low) // past.day - (nearest_day - 1)
    reached, place = np.unique(np.maximum(row, 0), return_inverse=True)
    earlier = (np.arange(len(days.then)) < reached[:, None]).astype(np.float64)
    cell = place * width + (by_clock - days.low) % past.day
    dense = bool((np.diff(cell) == 1).all())
    mine, later = quiet(past, by_clock), row >= 0
    shapes = np.full((2 * len(of_shape), len(at)), np.nan)
    demand = np.full((len(plain), len(at)), np.nan)
    together = max(1, CELLS // (days.then.size + 1))  # small pieces stay in the processor's cache

    def weighed(sums: Floats, seen: Ints, windows: Sequence[tuple[int, int]], weights: Floats) -> Floats:
        """Sum and weight (2, kinds, windows, bins)."""
        size, ahead = np.array(windows).T[:, :, None, None]
        parts = window(sums, seen, days.then, size, ahead)
        found = np.empty((2, len(weights), len(windows), len(reached), width))
        for part, out in zip(parts, found, strict=True):
            np.matmul(earlier, np.multiply(part, weights[:, None]), out=out)
        flat = found.reshape(2, len(weights), len(windows), -1)
        return flat[..., cell[0] : cell[-1] + 1] if dense else flat.take(cell, axis=3)

    def divided(part: Floats, out: Floats) -> None:
        np.divide(part[0], part[1], out=out, where=(part[1] > 0) & later)

    for first in range(0, len(of_shape), together):
        some = of_shape[first : first + together]
        found = weighed(past.shape_sums, past.seen, some, days.weights)
        divided(found.sum(axis=1), shapes[first : first + len(some)])
        divided(np.where(mine, found[:, 1], found[:, 0]), shapes[len(of_shape) + first :][: len(some)])
    for first in range(0, len(plain), together):
        some = plain[first : first + together]
        found = weighed(past.sums, past.seen, some, days.weights.sum(axis=0)[None])
        divided(found[:, 0], demand[first : first + len(some)])
    return shapes, demand


def bins_at(past: Past, by_clock: Ints) -> Ints:
    """The bins at local times; -1 where the clock was put forward over one, the later one where it was put back."""
    if past.offsets[0] == past.offsets[-1] and (past.offsets == past.offsets[0]).all():
        there: Ints = by_clock - past.offsets[0]
        return there
    every = np.arange(len(past.offsets)) + past.offsets
    first = int(every.min())
    found = np.full(int(every.max()) - first + 1, -1)
    found[every - first] = np.arange(len(every))
    inside = (by_clock >= first) & (by_clock <= first + len(found) - 1)
    return np.where(inside, found[np.clip(by_clock - first, 0, len(found) - 1)], -1)


def hours(past: Past, first: int, end: int, nearest_hour: int) -> Floats:
    """Log of the same minute in earlier hours, relative to the hour that ended there; 0 where bins are too long."""
    hour = bins(3600.0, past.step_seconds)
    if hour < 2:
        return np.zeros(end - first)
    furthest = nearest_hour + PROFILE_HOURS - 1
    earlier = np.arange(first - furthest * hour, end - nearest_hour * hour)
    here, known = window(past.sums, past.seen, earlier, 1, 0)
    around, _ = window(past.sums, past.seen, earlier, hour, 0)
    relative = np.where(known, (here + past.basis.level_offset) / (around + past.basis.level_offset), 0.0)
    both = np.array([relative, known])
    total, weights = sums = np.zeros((2, end - first))
    for back in range(nearest_hour, furthest + 1):
        begin = (furthest - back) * hour
        sums += HOUR_DECAY**back * both[:, begin : begin + end - first]
    logs: Floats = np.log(np.divide(total, weights, out=np.full(end - first, np.nan), where=weights > 0))
    return logs


def same_time(offsets: Ints, day: int, at: Ints, days: int | Ints) -> Ints:
    """The bins at the same local time `days` earlier; negative where that lies before the history."""
    plain = at - days * day
    earlier: Ints = plain + offsets[at] - offsets[np.maximum(plain, 0)]
    return earlier


def log_level(past: Past, at: Ints, seconds: float) -> Floats:
    mean = level(past.sums, past.seen, past.known, at, bins(seconds, past.step_seconds))
    logs: Floats = np.log(mean + past.basis.level_offset)
    return logs


def log_levels(past: Past, at: Ints, seconds: Sequence[float]) -> Floats:
    """`log_level` of several trailing means: (seconds, at)."""
    sizes = np.array([bins(each, past.step_seconds) for each in seconds])[:, None]
    logs: Floats = np.log(level(past.sums, past.seen, past.known, at, sizes) + past.basis.level_offset)
    return logs
