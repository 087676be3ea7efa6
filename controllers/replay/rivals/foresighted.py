"""What others foresee: PHPA, Crane, Autopilot, the clouds' predictive scaling (surrogates), schedules. Pure.

Each takes the setting and its knobs, and returns what it wants at each tick. Where it is one metric of an HPA beside
present demand, the higher of the two counts.
"""

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from controllers.replay.protocol import DAY_SECONDS, Floats, Ints, Setting, highest, highest_ahead, replicas_for
from controllers.replay.rivals.reactive import DOWN_WINDOW_SECONDS, Behaviour, follow, load

HOUR_SECONDS, WEEK_HOURS = 3600.0, 168
AWS_DAYS, AWS_BUFFER_SECONDS, AWS_DOWN_SECONDS = 14.0, 300.0, 900.0
GOOGLE_DAYS, GOOGLE_DOWN_SECONDS = 7, 600.0
AUTOPILOT_SECONDS, AUTOPILOT_MEAN_SECONDS, AUTOPILOT_DEFERRED_SECONDS = 72 * 3600.0, 300.0, 2 * 86_400.0
CRANE_MARGINS = (0.01, 0.10, 0.15, 0.20)
CRANE_LOW = 0.01  # of the strongest frequency but the mean: weaker ones are dropped
SEASONAL_WINDOW_SECONDS, SEASONAL_OFFSET_SECONDS = 1800.0, 7 * 86_400.0


def phpa(setting: Setting, target: float, smoothing: float = 0.9, *, newest_first: bool) -> Ints:
    """Holt-Winters of the replicas that an HPA had calculated, one sync ahead, rounded up; with the reactive one.

    Additive, period 6, 4 seasons kept, alpha = beta = gamma fixed (the samples' 0.9). `newest_first`: as coded, which
    hands the history over in reverse; else as documented. predictive-horizontal-pod-autoscaler 0.13, algorithms/
    holt_winters. Level, trend and season start from the first two seasons.
    """
    calculated = follow(load(setting, target), _calculated())
    kept, period = 24, 6
    rows = _behind(calculated, kept)
    foreseen = holt_winters(rows[:, ::-1] if newest_first else rows, period, smoothing)
    return _with(setting, calculated, foreseen)


def holt_winters(rows: Floats, period: int, smoothing: float) -> Floats:
    """One step after each row (rows, times), oldest first; all three smoothings alike."""
    middle = rows[:, :period].mean(axis=1)
    trend = (rows[:, period : 2 * period].mean(axis=1) - middle) / period
    season = [rows[:, place] - middle - (place - (period - 1) / 2) * trend for place in range(period)]
    level = middle + (period - 1) / 2 * trend
    for place in range(period, rows.shape[1]):
        value, last = rows[:, place], level
        old = season[place % period]
        level = smoothing * (value - old) + (1 - smoothing) * (last + trend)
        trend_before = trend
        trend = smoothing * (level - last) + (1 - smoothing) * trend
        season[place % period] = smoothing * (value - last - trend_before) + (1 - smoothing) * old
    foreseen: Floats = level + trend + season[rows.shape[1] % period]
    return foreseen


def phpa_linear(setting: Setting, target: float, points: int = 6) -> Ints:
    """A line through the last `points` calculated replicas, looked at a lead time ahead, rounded up.

    predictive-horizontal-pod-autoscaler 0.13, algorithms/linear_regression (historySize 6; lookAhead is the user's).
    """
    calculated = follow(load(setting, target), _calculated())
    rows = _behind(calculated, points)
    at = np.arange(points) - (points - 1.0)
    slope = ((rows - rows.mean(axis=1)[:, None]) @ (at - at.mean())) / ((at - at.mean()) ** 2).sum()
    return _with(setting, calculated, rows.mean(axis=1) + slope * (setting.lead_ticks - at.mean()))


def crane(setting: Setting, target: float, days: float = 7.0) -> Ints:
    """Crane's DSP: the last period again with a margin, its highest of the next hour, cut to a whole number.

    `days` of history, clipped to its 0.1 and 99.9 percentiles. A period of a day or a week where both the spectrum and
    the autocorrelation have a peak there, and two of them are known; else reactive alone. Weak frequencies are dropped.
    The margin of 1, 10, 15 or 20 % is the one with the least error on the last period, where falling short counts
    tenfold. Anew every hour. gocrane/crane, pkg/prediction/dsp.
    """
    begins, later = crane_peaks(setting, days)
    peaks = later[setting.step_of]
    peaks[setting.changes()] = begins
    # as its controller does: the integer part
    floor = np.floor(peaks / (setting.capacity * target)).astype(np.int64)
    return follow(load(setting, target), Behaviour(down_ticks=setting.ticks_of(DOWN_WINDOW_SECONDS)), floor)


@lru_cache(maxsize=4)
def crane_peaks(setting: Setting, days: float) -> tuple[Floats, Floats]:
    """The highest demand that is foreseen within the hour that begins with each step (steps,), and within it; 0: no
    period.
    """
    step, ahead = setting.step_seconds, max(1, round(HOUR_SECONDS / setting.step_seconds))
    every = filled(np.concatenate((setting.history, setting.steps)))
    kept, begin = round(days * DAY_SECONDS / step), len(setting.history)
    begins, later = np.zeros((2, len(setting.steps)))
    for place in range(0, len(begins), ahead):
        known = every[max(0, begin + place - kept) : begin + place]
        period = period_of(known, step)
        if period is None:
            continue
        cycle = last_cycle(known, period)
        rows = np.arange(min(ahead, len(begins) - place))
        windows = cycle[(rows[:, None] + np.arange(ahead + 1)) % period]
        begins[place : place + len(rows)] = windows[:, :-1].max(axis=1)
        later[place : place + len(rows)] = windows.max(axis=1)
    return begins, later


def period_of(known: Floats, step: float) -> int | None:
    """A day or a week in bins, whichever is the stronger peak; None: neither."""
    found = None
    for seconds in (DAY_SECONDS, 7 * DAY_SECONDS):
        period = round(seconds / step)
        if period < 4 or len(known) < 2 * period:
            continue
        whole = known[len(known) - len(known) // period * period :]
        off = whole - whole.mean()
        power = np.abs(np.fft.rfft(off)) ** 2
        if not power.any():
            continue
        peak = len(whole) // period
        around = power[max(1, peak - 2) : peak + 3]
        correlation = np.fft.irfft(np.abs(np.fft.rfft(off, 2 * len(off))) ** 2)[: len(off)]
        correlation /= max(correlation[0], 1e-300)
        near = correlation[period - period // 4 : period + period // 4 + 1]
        if power[peak] >= around.max() and correlation[period] > 0.2 and correlation[period] >= near.max() * 0.95:
            found = period if found is None or power[peak] > found[1] else found[0], float(power[peak])
    return None if found is None else found[0]


def last_cycle(known: Floats, period: int) -> Floats:
    """The last period, smoothed, with its margin."""
    low, high = np.percentile(known, [0.1, 99.9])
    signal = np.clip(known, low, high)
    last, before = signal[-period:], signal[-2 * period : -period]
    smooth = smoothed(before)
    errors = []
    for margin in CRANE_MARGINS:
        said = smooth * (1 + margin)
        off = (said - last) / np.maximum(last, 1e-9 + 0.01 * float(signal.mean()))
        errors.append(float(np.where(off < 0, -10.0 * off, off).mean()))
    return smoothed(last) * (1 + CRANE_MARGINS[int(np.argmin(errors))])


def smoothed(signal: Floats) -> Floats:
    spectrum = np.fft.rfft(signal)
    sizes = np.abs(spectrum)
    limit = CRANE_LOW * sizes[1:].max(initial=0.0)
    spectrum[1:][sizes[1:] < limit] = 0.0
    found: Floats = np.maximum(np.fft.irfft(spectrum, len(signal)), 0.0)
    return found


def autopilot(setting: Setting, target: float, percentile: float = 100.0) -> Ints:
    """The maximum or a percentile of 72 h of five-minute means over the target; what fell is believed two days later.

    Rzadca et al., "Autopilot: workload autoscaling at Google", EuroSys 2020, 3.3. Anew every five minutes or step.
    """
    step = setting.step_seconds
    size = max(1, round(AUTOPILOT_MEAN_SECONDS / step))
    # means of five minutes that had ended when each of them begins
    every = filled(np.concatenate((setting.history, setting.steps)))
    skip = len(setting.history) % size
    means = every[skip : skip + (len(every) - skip) // size * size].reshape(-1, size).mean(axis=1)
    kept = max(1, round(AUTOPILOT_SECONDS / (size * step)))
    padded = np.concatenate((np.full(kept - 1, np.nan), means))
    windows = sliding_window_view(padded, kept)
    begin = len(setting.history) // size
    deferred = round(AUTOPILOT_DEFERRED_SECONDS / (size * step)) if percentile < 100.0 else 0
    first = max(0, begin - 1 - deferred)
    if percentile >= 100.0:
        stat = np.nanmax(windows[first:], axis=1)
    else:
        stat = np.concatenate(
            [_percentiles(windows[at : at + 256], percentile) for at in range(first, len(windows), 256)]
        )
    raw = replicas_for(stat / target, setting.capacity)
    number = np.maximum(highest(raw, deferred), 1)
    # at tick t the newest whole mean is the one that ended by then
    place = np.clip(begin - 1 + (setting.step_of // size) - first, 0, len(number) - 1)
    return number[place]


def _percentiles(windows: Floats, percentile: float) -> Floats:
    """(rows,), NaN left out: only the first rows have any."""
    count = np.isfinite(windows).sum(axis=1)
    ordered = np.sort(windows, axis=1)
    place = np.clip(np.ceil(count * percentile / 100.0).astype(np.int64) - 1, 0, np.maximum(count - 1, 0))
    found: Floats = np.take_along_axis(ordered, place[:, None], axis=1)[:, 0]
    return found


def aws(setting: Setting, target: float) -> Ints:
    """A surrogate of EC2 predictive scaling, "forecast and scale" with the default buffer, beside target tracking.

    Each hour's mean of the same hours of the week within 14 days (of all days where there is none), in force from five
    minutes before it (the lead time, where that is longer: the user types it); never scales in by itself.
    """
    of_hours = by_hour(setting, AWS_DAYS, "mean")
    floor = replicas_for(of_hours / target, setting.capacity)
    buffer = setting.ticks_of(max(AWS_BUFFER_SECONDS, setting.lead_seconds))
    floor = highest_ahead(floor, buffer)
    return follow(load(setting, target), Behaviour(down_ticks=setting.ticks_of(AWS_DOWN_SECONDS)), floor)


def google(setting: Setting, target: float) -> Ints:
    """A surrogate of predictive instance groups: the higher of now and of what is foreseen an init period ahead.

    Foreseen is the mean of the same time of the last seven days. Scaled in to the peak of the last ten minutes.
    """
    step, every = setting.step_seconds, np.concatenate((setting.history, setting.steps))
    day = round(DAY_SECONDS / step)
    at = (setting.times() - setting.begin + setting.lead_seconds) // step
    place = len(setting.history) + at.astype(np.int64)
    before = place[:, None] - day * np.arange(1, GOOGLE_DAYS + 1)
    rows = np.where(before >= 0, every[np.clip(before, 0, len(every) - 1)], np.nan)
    known = np.isfinite(rows)
    sums = np.where(known, rows, 0.0).sum(axis=1)
    foreseen = np.divide(sums, known.sum(axis=1), out=np.zeros(len(sums)), where=known.any(axis=1))
    floor = replicas_for(foreseen / target, setting.capacity)
    return follow(load(setting, target), Behaviour(down_ticks=setting.ticks_of(GOOGLE_DOWN_SECONDS)), floor)


def seasonal_max(setting: Setting, target: float) -> Ints:
    """The higher of now and of `max_over_time(m[30m] offset 6d23h30m)`: the half hour that follows, a week ago.

    As Mimir's and Loki's autoscaling does.
    """
    step, every = setting.step_seconds, np.concatenate((setting.history, setting.steps))
    offset = setting.times() - SEASONAL_OFFSET_SECONDS - setting.begin + len(setting.history) * step
    first = np.floor(offset / step + 1e-9).astype(np.int64)
    last = np.ceil((offset + SEASONAL_WINDOW_SECONDS) / step - 1e-9).astype(np.int64) - 1
    width = int((last - first).max()) + 1
    columns = first[:, None] + np.arange(width)
    there = (columns >= 0) & (columns <= last[:, None])
    rows = np.where(there, np.nan_to_num(every[np.clip(columns, 0, len(every) - 1)]), 0.0)
    floor = replicas_for(rows.max(axis=1) / target, setting.capacity)
    return follow(load(setting, target), Behaviour(down_ticks=setting.ticks_of(DOWN_WINDOW_SECONDS)), floor)


def schedule(setting: Setting, target: float) -> Ints:
    """A fixed table, as a person would write it: each hour of the week's highest demand in the history, over `target`.

    It begins a lead time before the hour. Where the history has no such hour of the week, of that hour of all days.
    """
    number = np.maximum(replicas_for(by_hour(setting, None, "max") / target, setting.capacity), 1)
    return highest_ahead(number, setting.lead_ticks)


def static(setting: Setting, target: float) -> Ints:
    """So many as the highest demand of the history needs at `target`, always."""
    peak = float(np.nanmax(setting.history)) if np.isfinite(setting.history).any() else 0.0
    number = max(1, int(replicas_for(np.array([peak / target]), setting.capacity)[0]))
    return np.full(setting.ticks, number, dtype=np.int64)


@lru_cache(maxsize=8)
def by_hour(setting: Setting, days: float | None, how: str) -> Floats:
    """Of each tick's hour of the week, the "mean" or "max" of the history's `days` (None: all of it); 0: none known.

    A day is looked at when it begins: what came since the scored part's begin counts as well if `days` are given.
    """
    step = setting.step_seconds
    every = np.concatenate((setting.history, setting.steps))
    begin = setting.begin - len(setting.history) * step
    hours = np.floor((begin + np.arange(len(every)) * step) / HOUR_SECONDS + 1e-9).astype(np.int64)
    first_hour = int(hours[0])
    number = int(hours[-1]) - first_hour + 1
    known = np.isfinite(every)
    counts = np.bincount(hours[known] - first_hour, minlength=number)
    if how == "mean":
        sums = np.bincount(hours[known] - first_hour, weights=every[known], minlength=number)
        of_hour = np.divide(sums, counts, out=np.full(number, np.nan), where=counts > 0)
    else:
        of_hour = np.full(number, -np.inf)
        np.maximum.at(of_hour, hours[known] - first_hour, every[known])
        of_hour[counts == 0] = np.nan
    told = np.zeros(number)
    scored_hour = int(setting.begin // HOUR_SECONDS) - first_hour
    for hour in range(scored_hour, number):
        until = scored_hour if days is None else max(scored_hour, hour - (hour - scored_hour) % 24)
        since = 0 if days is None else max(0, until - round(days * 24))
        same = _known(of_hour[since + (hour - since) % WEEK_HOURS : until : WEEK_HOURS])
        if not len(same):
            same = _known(of_hour[since + (hour - since) % 24 : until : 24])
        if len(same):
            told[hour] = same.mean() if how == "mean" else same.max()
    found: Floats = told[np.floor(setting.times() / HOUR_SECONDS + 1e-9).astype(np.int64) - first_hour]
    return found


def _known(values: Floats) -> Floats:
    found: Floats = values[np.isfinite(values)]
    return found


def filled(values: Floats) -> Floats:
    """What is unknown is as the last known value before it."""
    place = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), -1))
    found: Floats = np.where(place >= 0, values[np.maximum(place, 0)], 0.0)
    return found


def _calculated() -> Behaviour:
    """What an HPA calculates before it stabilises."""
    return Behaviour(down_ticks=0)


def _behind(calculated: Ints, count: int) -> Floats:
    """Each tick's last `count` values (ticks, count), oldest first; before the first all were as the first."""
    padded = np.concatenate((np.full(count - 1, calculated[0]), calculated)).astype(np.float64)
    return sliding_window_view(padded, count)


def _with(setting: Setting, calculated: Ints, foreseen: Floats) -> Ints:
    """The higher of both, scaled in to the highest of five minutes, as PHPA does."""
    most = 10 * max(1, int(calculated.max()))
    ahead = np.ceil(np.clip(foreseen, 0, most) - 1e-9).astype(np.int64)
    return highest(np.maximum(calculated, ahead), setting.ticks_of(DOWN_WINDOW_SECONDS))
