"""What is said about the windows ahead: quantiles of a bin, of a window's largest bin and of what arrives in it.

Learned from the backtest's paths and what came (`learn`), followed from then on with what came due since the fit
(`follow`), and applied to the newest path (`quantiles`). Peaks are calibrated with windows in which anything came at
all: where demand is zero half of the time, a quantile of all windows would fail two times in ten when there is work.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from controllers.forecast import adaptive, bands, strays
from controllers.forecast.adaptive import TRACKED, State
from controllers.forecast.backtest import MIN_KNOWN, outcome, times_of
from controllers.forecast.bands import Bands, Residuals, Seen
from controllers.forecast.history import DAY_SECONDS, Bools, Floats, History, Ints, leads_in
from controllers.forecast.strays import Strays
from controllers.forecast.sums import running

VALUE, PEAK, ARRIVALS, WINDOW = "value", "peak", "arrivals", "window"
HELD_OUT = 0.4  # of the backtest's end, for coverage that the bands did not see
FOLLOWED_SECONDS = 3600.0  # between forecasts whose outcomes are followed since the fit
STEADY_ORIGINS, STEADY_DAYS = 600, 14.0  # at which it is asked how demand strays from what it is
MOST_TIMES = 100  # of them: an older fit is followed at a wider spacing


@dataclass(frozen=True, slots=True)
class Window:
    """Bins `first` to `last` (from 1, both in it) after the newest one. `kind`: what is asked about them.

    `seconds`: the horizon; of the window that a decision covers (`WINDOW`, its largest bin), where it ends.
    """

    kind: str
    seconds: int
    first: int
    last: int

    @property
    def reading(self) -> str:
        return "peak" if self.kind in (PEAK, WINDOW) else "arrivals"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of the outcomes of one kind and horizon, the share at or below the quantile (0 … 1), and how many there were.

    Of zero peaks none are counted. `Outlook.coverage`, of the last day, becomes `tidewise_forecast_coverage_ratio`
    {workload, kind, horizon_seconds, quantile}; `Fitted.ahead.coverage` is the backtest's.
    """

    kind: str  # VALUE, PEAK, ARRIVALS or WINDOW
    horizon_seconds: int
    quantile: float
    ratio: float
    outcomes: int


@dataclass(frozen=True, slots=True)
class Learned:
    """Picklable. `due` (times, windows): Unix seconds; `held` (times, windows, TRACKED): 1, 0; NaN: unknown."""

    windows: tuple[Window, ...]
    decision: tuple[float, float] | None  # begin and end, seconds ahead
    every: int  # bins between two origins that were looked at
    followed: float  # Unix seconds; outcomes of forecasts made before have had their say
    bands: Bands
    residuals: Residuals
    state: State
    due: Floats
    held: Floats
    coverage: tuple[Coverage, ...]  # in the backtest's last part, learned on what lay before
    strays: Strays | None = None  # of the window that a decision covers: what its quantiles are told by
    steady: Strays | None = None  # the same if demand were expected to stay as it is: while no forecast may count


def asked(horizons: Sequence[int], decision: tuple[float, float] | None, step: float, shift: int) -> list[Window]:
    """`shift`: bins between the newest known one and the forecast."""
    found = []
    for kind in (VALUE, PEAK, ARRIVALS):
        for seconds in sorted(horizons):
            last = shift + leads_in(seconds, step)
            found.append(Window(kind, seconds, last if kind == VALUE else 1 + shift, last))
    if decision is not None:
        begin, end = decision
        first = shift + 1 + math.floor(begin / step + 1e-9)
        found.append(Window(WINDOW, round(end), first, max(first, shift + math.ceil(end / step - 1e-9))))
    return found


def seen(history: History, origins: Ints, paths: Floats, windows: Sequence[Window]) -> Seen:
    """What `paths` (origins, steps) said about each window, and what came; unknown while it is not over."""
    steps = paths.shape[1]
    actual, censored = outcome(history, origins, steps)
    last = np.minimum([window.last for window in windows], steps)
    first = np.minimum([window.first for window in windows], last)
    peaks = np.array([window.reading == "peak" for window in windows])
    tops, means = read(paths, first, last, peaks)
    came, _ = read(actual, first, last, peaks)
    over = origins[:, None] + last < len(history.values)
    if censored.any():
        bounds = running(censored.astype(np.int64))
        over &= (bounds[:, last] == bounds[:, first - 1]) | (came >= tops)
    return Seen(tops, means, np.where(over, came, np.nan), strays.hints(history, origins))


def read(values: Floats, first: Ints, last: Ints, peaks: Bools) -> tuple[Floats, Floats]:
    """Of bins (origins, steps): the largest one of each window that is of `peaks`, else the mean; and the mean.

    `first`, `last` (windows,) from 1. NaN where too little is known.
    """
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    counts, sums = running(known.astype(np.int64)), running(filled)
    count = counts[:, last] - counts[:, first - 1]
    enough = count >= MIN_KNOWN * (last - first + 1)
    total = np.where(first == last, filled[:, first - 1], sums[:, last] - sums[:, first - 1])
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=enough)
    tops = means.copy()
    for begin in set(first[peaks].tolist()):
        mine = np.flatnonzero(peaks & (first == begin))
        largest = np.maximum.accumulate(filled[:, begin - 1 :], axis=1)[:, last[mine] - begin]
        tops[:, mine] = np.where(enough[:, mine], largest, np.nan)
    return tops, means


def learn(
    history: History,
    origins: Ints,
    paths: Floats,
    horizons: Sequence[int],
    decision: tuple[float, float] | None,
    *,
    shift: int,
    every: int,
) -> Learned:
    """From a backtest: `paths` (origins, steps) of the chosen model, NaN where it had no say."""
    step = history.step_seconds
    every_window = asked(horizons, decision, step, shift)
    # those that are the same in bins this long are learned once
    alike = [(window.first, window.last, window.reading, window.kind == WINDOW) for window in every_window]
    once = sorted({alike.index(key) for key in alike})
    own = np.array([once.index(alike.index(key)) for key in alike])
    windows = [every_window[row] for row in once]
    said = seen(history, origins, paths, windows)
    times = times_of(origins, history)
    cut = round((1 - HELD_OUT) * len(origins))
    early = said.part(slice(0, cut))
    first, _ = _calibrated(windows, early, times[:cut], history.end, step)
    _, held = _followed(windows, first, said.part(slice(cut, None)), times[cut:], history.end, step)
    before = _strays(windows, early)
    _hold(held, windows, before, said.part(slice(cut, None)))
    found, relative = _calibrated(windows, said, times, history.end, step)
    state, all_held = _shifted(found, relative)
    _hold(all_held, windows, before, said)  # what was learned on all of it would flatter itself
    due = times[:, None] + np.array([window.last * step for window in every_window])
    recent = (due > history.end - DAY_SECONDS).any(axis=1)
    return Learned(
        tuple(every_window),
        decision,
        every,
        state.at,
        _rows(found[0], own),
        _rows(found[1], own),
        _rows(state, own),
        due[recent],
        all_held[recent][:, own].astype(np.float32),
        coverage(every_window, held[:, own]),
        _strays(windows, said),
        _steady(history, windows),
    )


def follow(learned: Learned, history: History, origins: Ints, paths: Floats) -> tuple[State, tuple[Coverage, ...]]:
    """With what came due since the fit: the state now, and the coverage over the last day. `origins`: see `since`."""
    windows = learned.windows
    times = times_of(origins, history)
    said = seen(history, origins, paths, windows)
    calibrated = (learned.bands, learned.residuals, learned.state)
    state, held = _followed(windows, calibrated, said, times, max(history.end, learned.state.at), history.step_seconds)
    _hold(held, windows, learned.strays, said)
    due = times[:, None] + np.array([window.last * history.step_seconds for window in windows])
    fresh = np.concatenate((learned.due, due)) > history.end - DAY_SECONDS
    hits = np.where(fresh[:, :, None], np.concatenate((learned.held, held)), np.nan)
    return state, coverage(windows, hits)


def since(learned: Learned, history: History) -> Ints:
    """Origins from the fit until now at which forecasts are looked back at: full hours, so that few windows overlap."""
    step, newest = history.step_seconds, len(history.values) - 1
    every = max(1, round(FOLLOWED_SECONDS / step))
    begin = max(0, math.ceil((learned.followed - history.start) / step - 1e-6))
    if learned.every < 1 or begin >= newest:
        return np.empty(0, dtype=np.int64)
    every *= max(1, -(-(newest - begin) // (every * MOST_TIMES)))
    anchor = round(history.start / step)
    return np.arange(begin + (-(anchor + begin)) % every, newest, every, dtype=np.int64)


def owed(learned: Learned, history: History) -> Ints:
    """Those of `since` whose windows of up to an hour are over: a new fit would not hear of them."""
    origins = since(learned, history)
    longest = max((window.last for window in learned.windows if window.seconds <= FOLLOWED_SECONDS), default=1)
    return origins[origins + longest < len(history.values)]


def carried(learned: Learned, before: Learned, history: History, origins: Ints, paths: Floats) -> Learned:
    """A new fit with what misses had taught the last one, whose `paths` at its `owed` origins these are.

    Where forecasts are fitted anew every hour, nothing could be followed for long otherwise.
    """
    if before.windows != learned.windows:
        return learned
    shifts, followed = before.state.shifts, before.followed
    if len(origins):
        shifts = follow(before, history, origins, paths)[0].shifts
        followed = float(times_of(origins[-1:] + 1, history)[0])
    followed = max(followed, history.end - DAY_SECONDS)
    return replace(learned, state=replace(learned.state, shifts=shifts), followed=followed)


def newest(learned: Learned, path: Floats, age: float, step: float) -> tuple[Floats, Floats]:
    """What the newest path (steps,) says about each window, and its mean over it: (windows,) each.

    `age`: seconds since the end of the newest bin, at which the windows begin.
    """
    horizons = {window.seconds for window in learned.windows if window.kind == VALUE}
    sums, places = np.concatenate(([0.0], np.cumsum(path))), np.arange(len(path) + 1)
    tops, means = [], []
    for window in asked(sorted(horizons), learned.decision, step, int(age / step + 0.5)):
        last = min(window.last, len(path))
        part = path[min(window.first, last) - 1 : last]
        mean = float(part.mean())
        if window.kind == VALUE:
            mean = float(np.interp((age + window.seconds) / step, places[1:], path))
        elif window.kind == ARRIVALS:
            begin, end = np.interp([age / step, (age + window.seconds) / step], places, sums)
            mean = float(end - begin) * step / window.seconds
        means.append(mean)
        tops.append(float(part.max()) if window.reading == "peak" else mean)
    return np.array(tops), np.array(means)


def quantiles(
    learned: Learned, state: State, tops: Floats, means: Floats, wanted: Floats, hints: Floats | None = None
) -> Floats:
    """(…, windows, wanted), >= 0 and ascending in `wanted`. `tops`, `means` (…, windows): of one path, or of many.

    `hints` (paths, hints): what was seen before each; None: as if that told nothing.
    """
    middle, below, above = learned.bands.around(tops, means)
    z = adaptive.looked_up(learned.residuals, state.shifts, wanted)
    off = (learned.bands.usual * state.drift)[:, None] + (learned.bands.usual * state.swing)[:, None] * z
    found = middle[..., None] + off * np.where(off > 0, above[..., None], below[..., None])
    if learned.strays is not None and hints is not None:
        row = _decision_row(learned.windows)
        found[..., row, :] = learned.strays.quantiles(hints, np.atleast_1d(tops[..., row]), wanted)
    return np.maximum(np.maximum.accumulate(found, axis=-1), 0.0)


def along(learned: Learned, state: State, path: Floats, wanted: Floats) -> Floats:
    """Quantiles of each bin of the path, between what was learned at the horizons: (steps, wanted)."""
    rows = [row for row, window in enumerate(learned.windows) if window.kind == VALUE]
    z = adaptive.looked_up(learned.residuals, state.shifts, wanted)
    off = ((learned.bands.usual * state.drift)[:, None] + (learned.bands.usual * state.swing)[:, None] * z)[rows]
    tops = np.repeat(path[:, None], len(learned.windows), axis=1)
    middle, below, above = (each[:, rows, None] for each in learned.bands.around(tops, tops))
    found = np.maximum(middle + off * np.where(off > 0, above, below), 0.0)
    known = np.log([learned.windows[row].last for row in rows])
    where = np.interp(np.log(np.arange(1, len(path) + 1)), known, np.arange(len(rows)))
    low = np.minimum(where.astype(np.int64), max(0, len(rows) - 2))
    share, place = (where - low)[:, None], np.arange(len(path))
    high = np.minimum(low + 1, len(rows) - 1)
    between: Floats = (1 - share) * found[place, low] + share * found[place, high]
    return np.maximum.accumulate(between, axis=1)


def _decision_row(windows: Sequence[Window]) -> int | None:
    """Of the window that a decision covers."""
    return next((row for row, window in enumerate(windows) if window.kind == WINDOW), None)


def _strays(windows: Sequence[Window], said: Seen) -> Strays | None:
    """Of the window that a decision covers; None where there is none, or too little is known of it."""
    row = _decision_row(windows)
    if row is None or said.hints is None:
        return None
    return strays.learn(said.hints, said.tops[:, row], said.came[:, row])


def _steady(history: History, windows: Sequence[Window]) -> Strays | None:
    """How far the window that a decision covers strays from the newest bin, without any model."""
    row = _decision_row(windows)
    if row is None:
        return None
    window = windows[row]
    newest = len(history.values) - 1 - window.last
    oldest = max(0, newest - round(STEADY_DAYS * DAY_SECONDS / history.step_seconds))
    origins = np.unique(np.linspace(oldest, max(newest, oldest), STEADY_ORIGINS).astype(np.int64))
    actual, censored = outcome(history, origins, window.last)
    came, _ = read(actual, np.array([window.first]), np.array([window.last]), np.array([True]))
    known = ~censored[:, window.first - 1 :].any(axis=1)
    return strays.learn(strays.hints(history, origins), history.values[origins], np.where(known, came[:, 0], np.nan))


def _hold(held: Floats, windows: Sequence[Window], known: Strays | None, said: Seen) -> None:
    """Writes into `held` (times, windows, TRACKED) what those quantiles held of the window that a decision covers."""
    row = _decision_row(windows)
    if row is None or known is None or said.hints is None or not len(held):
        return
    came = said.came[:, row]
    upper = known.quantiles(said.hints, said.tops[:, row], TRACKED)
    held[:, row] = np.where(np.isfinite(came)[:, None], came[:, None] <= upper, np.nan)


def coverage(windows: Sequence[Window], held: Floats) -> tuple[Coverage, ...]:
    """From (times, windows, TRACKED): 1 where the quantile held, 0 where not, NaN where nobody knows."""
    counts = np.isfinite(held).sum(axis=0)
    shares = np.nansum(held, axis=0) / np.maximum(counts, 1)
    return tuple(
        Coverage(window.kind, window.seconds, q, share, count)
        for window, row, number in zip(windows, shares.tolist(), counts.tolist(), strict=True)
        for q, share, count in zip(TRACKED.tolist(), row, number, strict=True)
        if count
    )


_Rows = TypeVar("_Rows", Bands, Residuals, State)


def _rows(each: _Rows, rows: Ints) -> _Rows:
    arrays: dict[str, Any] = {
        field.name: value[rows] for field in fields(each) if isinstance(value := getattr(each, field.name), np.ndarray)
    }
    return replace(each, **arrays)


_Calibrated = tuple[Bands, Residuals, State]
_Relative = tuple[Floats, State, Ints]


def _calibrated(
    windows: Sequence[Window], said: Seen, times: Floats, now: float, step: float
) -> tuple[_Calibrated, _Relative]:
    found = bands.learn(said)
    nothing = adaptive.start(float(times[0]) if len(times) else 0.0, len(windows))
    relative = _relative(windows, found, nothing, said, times, now, step)
    return (found, bands.sorted_residuals(relative[0]), nothing), relative


def _followed(
    windows: Sequence[Window], known: _Calibrated, said: Seen, times: Floats, now: float, step: float
) -> tuple[State, Floats]:
    return _shifted(known, _relative(windows, known[0], known[2], said, times, now, step))


def _shifted(known: _Calibrated, followed: _Relative) -> tuple[State, Floats]:
    _, residuals, before = known
    relative, state, delays = followed
    shifts, held = adaptive.follow(before, residuals, relative, delays)
    return replace(state, shifts=shifts), held


def _relative(
    windows: Sequence[Window], found: Bands, before: State, said: Seen, times: Floats, now: float, step: float
) -> _Relative:
    """Residuals relative to the drift and swing of their time, NaN where they do not count; the state; delays."""
    sized = found.residuals(said) / found.usual
    reach, delays = _due(windows, times, step)
    drifts, swings, state = adaptive.swings(before, times, reach, delays, sized, now)
    return np.where(_counted(windows, said), (sized - drifts) / swings, np.nan), state, delays


def _due(windows: Sequence[Window], times: Floats, step: float) -> tuple[Floats, Ints]:
    """How long after a forecast each window is over: in seconds, and in times at which forecasts were made."""
    reach = np.array([window.last * step for window in windows])
    pace = float(times[1] - times[0]) if len(times) > 1 else np.inf
    return reach, np.maximum(np.ceil(reach / pace - 1e-6), 1.0).astype(np.int64)


def _counted(windows: Sequence[Window], said: Seen) -> Bools:
    """Which outcomes count for calibration: of peaks only those above zero."""
    peaks = np.array([window.reading == "peak" for window in windows])
    counted: Bools = np.isfinite(said.came) & ((said.came > 0) | ~peaks)
    return counted
