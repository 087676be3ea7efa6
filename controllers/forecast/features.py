"""Level-relative features: what a coming bin looks like from an origin, on a log scale and free of the level.

A column is A[target] - B[origin]. Neither side looks at a bin after its origin, so one pass over the history serves
every origin and every lead, and a backtest sees exactly what a live forecast would have seen.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast.history import DAY_SECONDS, Bools, Floats, History, Ints, local_day_numbers, utc_offsets

LEVEL_SECONDS = (0.0, 600.0, 3600.0, 3 * 3600.0, 86_400.0)  # trailing means; 0 is the newest bin alone
TEN, HOUR, DAY = 1, 2, 4  # places in LEVEL_SECONDS; targets are relative to the hour's level
WIDTH_SECONDS = (0.0, 300.0, 900.0, 3600.0)  # neighbouring bins that smooth a profile; 0 keeps every bin's own edge
QUARTER = 2  # place in WIDTH_SECONDS
LAG_DAYS = (1, 2, 7, 14)
LAG_WIDTH_SECONDS = 300.0
PROFILE_DAYS = 28
PROFILE_DECAY = 0.9  # weight of a day relative to the day after it
BLOCK = 8192  # bins whose earlier days are looked up at once: bounds memory
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
    count: int  # bins known
    day: int  # bins a day
    step_seconds: float
    values: Floats  # NaN where unknown
    sums: Floats
    seen: Ints
    shape_sums: Floats  # of values relative to the day that ended there
    shape_seen: Ints
    newest: Ints  # the newest known bin at each bin; -1 before the first
    offsets: Ints  # local time ahead of UTC in bins, coming bins included
    quiet: Bools  # kind of the day, coming bins included
    weekday: Ints  # Monday is 0; coming bins included
    clock: Floats  # local time of day at which a bin begins, as a share of the day; coming bins included


@dataclass(frozen=True, slots=True)
class Targets:
    """The A side: what coming bins should be like. `logs` (columns, bins), `plain` (2, bins) in demand per second."""

    logs: Floats
    plain: Floats


@dataclass(frozen=True, slots=True)
class Origins:
    """The B side: what origins look like. `logs` (columns, origins), `plain` and `base` (origins,)."""

    logs: Floats
    plain: Floats
    base: Floats  # log of the last hour's level


def basis(history: History, time_zone: str) -> Basis:
    recent = history.values[-14 * history.steps_per_day :]
    highest = ceiling(history.values)
    known = np.minimum(recent[np.isfinite(recent)], highest)
    mean = float(known.mean()) if len(known) else 0.0
    return Basis(time_zone, OFFSET_RATIO * mean or 1e-9, highest, quiet_weekdays(history, time_zone, highest))


def ceiling(values: Floats) -> float:
    """The largest demand that is believed: some samples a million times the rest must not shape a forecast.

    Infinite while nothing but zeros has been seen: that is no ground to doubt the first real demand.
    """
    known = np.sort(values[np.isfinite(values)])
    if not len(known) or known[-1] <= 0:
        return float("inf")
    # the usual largest: a few, or one in a thousand, may be glitches
    usual = float(known[len(known) - 1 - max(min(3, len(known) // 4), len(known) // 1000)])
    return WINSOR * (usual if usual > 0 else float(known[-1]))


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
    newest = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(count), -1))
    of_day = level(sums, seen, newest, np.arange(count), bins(LEVEL_SECONDS[DAY], step)) + fixed.level_offset
    shape_sums, shape_seen = cumulative((values + fixed.level_offset) / of_day)
    offsets = utc_offsets(history.start, step, count + coming, fixed.time_zone)
    weekday = (local_day_numbers(history.start, step, offsets) + 3) % 7
    clock = (history.start + (np.arange(count + coming) - 1 + offsets) * step) % DAY_SECONDS / DAY_SECONDS
    return Past(
        fixed,
        count,
        history.steps_per_day,
        step,
        values,
        sums,
        seen,
        shape_sums,
        shape_seen,
        newest,
        offsets,
        np.array(fixed.quiet)[weekday],
        weekday,
        clock,
    )


def first_day(past: Past, lead: int) -> int:
    """The nearest day before a target whose smoothed bins its origin, `lead` bins earlier, has seen for certain."""
    return 1 if lead <= past.day - bins(5400.0, past.step_seconds) else 2


def first_hour(past: Past, lead: int) -> int:
    return -(-lead // bins(3600.0, past.step_seconds))


def targets(past: Past, at: Ints, nearest_day: int, nearest_hour: int) -> Targets:
    sizes = [bins(seconds, past.step_seconds) for seconds in WIDTH_SECONDS]
    shapes = profiles(past, past.shape_sums, past.shape_seen, at, sizes, nearest_day)
    plain = profiles(past, past.sums, past.seen, at, [sizes[0], sizes[QUARTER]], nearest_day)[:2]
    lags = []
    size = bins(LAG_WIDTH_SECONDS, past.step_seconds)
    for days in LAG_DAYS:
        before = same_time(past.offsets, past.day, at, max(days, nearest_day))
        mean, known = window(past.sums, past.seen, before, size, size // 2)
        lags.append(np.where(known, np.log(mean + past.basis.level_offset), np.nan))
    logs = [*np.log(shapes), *lags, *lags, np.log(shapes[QUARTER]), hours(past, at, nearest_hour)]
    return Targets(np.array(logs), plain)


def origins(past: Past, at: Ints) -> Origins:
    hour, ten = (bins(LEVEL_SECONDS[place], past.step_seconds) for place in (HOUR, TEN))
    levels = [log_level(past, at, seconds) for seconds in LEVEL_SECONDS]
    base, day = levels[HOUR], levels[DAY]
    shapes = np.log(profiles(past, past.shape_sums, past.shape_seen, at, [hour, ten], 1, ahead=0))
    here, here_ten, here_kind = shapes[0], shapes[1], shapes[2]
    growth = []
    for days in LAG_DAYS:
        before = same_time(past.offsets, past.day, at, days)
        level = log_level(past, np.maximum(before, 0), LEVEL_SECONDS[HOUR])
        growth.append(np.where(before >= 0, level, np.nan))
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
    plain = profiles(past, past.sums, past.seen, at, [hour], 1, ahead=0)[0]
    return Origins(np.array(logs), plain, base)


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


def columns(target: Targets, origin: Origins, place: Ints) -> Floats:
    """The design matrix (columns, origins, leads) for `place` (origins, leads): the index of each pair's target.

    Unknown: what the smoothed profile says, and where that is unknown too, no growth.
    """
    near = target.logs.shape[0]
    aside = np.concatenate([target.logs[:, place], np.zeros((len(origin.logs) - near, *place.shape))])
    raw = aside - origin.logs[:, :, None]
    level = np.exp(origin.base)[:, None]
    growth = np.nan_to_num(target.plain[:, place] - origin.plain[:, None])
    added = np.log(np.clip(level + growth, 0.2 * level, 5 * level)) - origin.base[:, None]
    found = np.where(np.isfinite(raw), raw, np.nan_to_num(raw[QUARTER]))
    whole: Floats = np.concatenate([np.clip(found, -6.0, 6.0), added, np.ones((1, *place.shape))])
    return whole


def known_share(target: Targets, origin: Origins, rows: Ints, lead: int) -> Floats:
    """Of each column with an A side: for how many of `rows` both sides are known, as a share."""
    both = np.isfinite(target.logs[:, rows + lead] - origin.logs[: len(target.logs), rows])
    shares: Floats = both.mean(axis=1) if len(rows) else np.zeros(len(both))
    return shares


def profiles(
    past: Past, sums: Floats, seen: Ints, at: Ints, sizes: list[int], nearest_day: int, ahead: int | None = None
) -> Floats:
    """Weighted mean of the same time on earlier days (2 * sizes, bins): of all days, then of days of the same kind.

    `ahead`: how many bins of each window lie after the time itself; None: half. NaN where no day is known.
    """
    means = np.full((2 * len(sizes), len(at)), np.nan)
    for begin in range(0, len(at), BLOCK):
        part = at[begin : begin + BLOCK]
        days = np.arange(nearest_day, PROFILE_DAYS + 1)
        before = same_time(past.offsets, past.day, part, days[:, None])
        within = (before >= 0).any(axis=1)
        days, before = days[within], before[within]
        same = past.quiet[np.maximum(before, 0)] == past.quiet[part]
        for row, size in enumerate(sizes):
            mean, known = window(sums, seen, before, size, size // 2 if ahead is None else ahead)
            weight = known * (PROFILE_DECAY**days)[:, None]
            for place, chosen in ((row, weight), (len(sizes) + row, weight * same)):
                total = chosen.sum(axis=0)
                out = means[place, begin : begin + BLOCK]
                np.divide((chosen * mean).sum(axis=0), total, out=out, where=total > 0)
    return means


def hours(past: Past, at: Ints, nearest_hour: int) -> Floats:
    """Log of the same minute in earlier hours, relative to the hour that ended there; 0 where bins are too long."""
    hour = bins(3600.0, past.step_seconds)
    if hour < 2:
        return np.zeros(len(at))
    total, weights = np.zeros(len(at)), np.zeros(len(at))
    for back in range(nearest_hour, nearest_hour + PROFILE_HOURS):
        here, known = window(past.sums, past.seen, at - back * hour, 1, 0)
        around, _ = window(past.sums, past.seen, at - back * hour, hour, 0)
        weight = HOUR_DECAY**back * known
        total += weight * (here + past.basis.level_offset) / (around + past.basis.level_offset)
        weights += weight
    logs: Floats = np.log(np.divide(total, weights, out=np.full(len(at), np.nan), where=weights > 0))
    return logs


def same_time(offsets: Ints, day: int, at: Ints, days: int | Ints) -> Ints:
    """The bins at the same local time `days` earlier; negative where that lies before the history."""
    plain = at - days * day
    earlier: Ints = plain + offsets[at] - offsets[np.maximum(plain, 0)]
    return earlier


def window(sums: Floats, seen: Ints, at: Ints, size: int, ahead: int) -> tuple[Floats, Bools]:
    """Mean of the known among `size` bins, the newest `ahead` after `at` (0: none known), and where there is one."""
    high = np.minimum(np.maximum(at + (ahead + 1), 0), len(sums) - 1)
    low = np.minimum(np.maximum(at + (ahead + 1 - size), 0), len(sums) - 1)
    count = seen[high] - seen[low]
    known = (count > 0) & (at >= 0)
    return np.divide(sums[high] - sums[low], count, out=np.zeros(at.shape), where=known), known


def level(sums: Floats, seen: Ints, newest: Ints, at: Ints, size: int) -> Floats:
    """Mean of the `size` bins that end at each of `at`, or at the newest known bin before it; 0 before the first."""
    mean, known = window(sums, seen, at, size, 0)
    held, _ = window(sums, seen, newest[at], size, 0)
    levels: Floats = np.where(known, mean, held)
    return levels


def log_level(past: Past, at: Ints, seconds: float) -> Floats:
    mean = level(past.sums, past.seen, past.newest, at, bins(seconds, past.step_seconds))
    logs: Floats = np.log(mean + past.basis.level_offset)
    return logs


def cumulative(values: Floats) -> tuple[Floats, Ints]:
    """Running sums of the known values and their number, with a leading 0."""
    known = np.isfinite(values)
    return (
        np.concatenate(([0.0], np.cumsum(np.where(known, values, 0.0)))),
        np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(known))),
    )


def hold(values: Floats) -> Floats:
    """Unknown values as the last known before them; 0 before the first."""
    last = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), -1))
    held: Floats = np.where(last >= 0, values[np.clip(last, 0, None)], 0.0)
    return held


def bins(seconds: float, step_seconds: float) -> int:
    return max(1, round(seconds / step_seconds))
