"""What `tidewise forecast` would have said at each step of a scored demand: its own functions, many steps at a time.

    every refit: select()          as the process does it, its memory carried from fit to fit
    every step:  path ─▶ quantiles of each horizon, and of the window that a decision's replicas are for
    every ten minutes (or step): the gate; every hour: how far the last hours' errors move and widen the bands

A rate is measured live: when a step of the trace begins, its value is the newest that is known, and the forecast made
then is about the steps after it. So bins are stamped with their begin here. Pure: no client, clock or environment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.domain import DecisionWindow, Forecast, Horizon
from controllers.forecast import adaptive, strays
from controllers.forecast import windows as ahead
from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import outcome
from controllers.forecast.correction import bias_at, correct
from controllers.forecast.gate import Gate, gate_of, judge, recent_origins, skill_of
from controllers.forecast.history import Bools, Floats, History, Refusal, usable
from controllers.forecast.predict import MAX_RISE
from controllers.forecast.selection import Fitted, as_learned_from, asked, bounded, select
from controllers.replay.protocol import Setting

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.65, 0.8, 0.9, 0.95, 0.975, 0.985, 0.99, 0.995, 0.998, 0.999)
HORIZONS = (120, 300, 900, 1800, 3600)
REFIT_SECONDS = 3600.0
HEAVY_SECONDS = 86_400.0
CHECK_SECONDS = 600.0
HISTORY_DAYS, HISTORY_DAYS_HOURLY = 30.0, 365.0
HOUR = 3600.0

Narrow = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A row a step. `peak`, `arrivals`, `quantile` (steps, horizons, quantiles): see `Horizon`; NaN: no forecast.

    `window` (steps, quantiles): of the largest of the bins `first` to `last` after the step, from 1; `bins` (steps,
    each of `leads`, quantiles): of single bins, so many after the step.
    """

    quantiles: tuple[float, ...]
    horizons: tuple[int, ...]
    first: int
    last: int
    leads: tuple[int, ...]
    gate_open: Bools
    value: Narrow
    quantile: Narrow
    peak: Narrow
    arrivals: Narrow
    window: Narrow
    bins: Narrow


def window_bins(lead_seconds: float, step_seconds: float, every_seconds: float) -> dict[int, tuple[int, int]]:
    """Which bins after the present one a decision at each offset (seconds into it) is for: {offset: (first, last)}.

    Replicas asked for then serve from offset + lead on, those of the next decision `every_seconds` later. 0: the
    present bin, whose demand is known.
    """
    found, offset = {}, 0.0
    while offset < step_seconds - 1e-9:
        begin, end = offset + lead_seconds, offset + lead_seconds + every_seconds
        found[round(offset)] = (int(begin / step_seconds + 1e-9), int(np.ceil(end / step_seconds - 1e-9)) - 1)
        offset += every_seconds
    return found


def foresee(
    setting: Setting,
    *,
    every_seconds: float,
    calendar: Calendar | None = None,
    quantiles: Sequence[float] = QUANTILES,
    horizons: Sequence[int] = HORIZONS,
    refit_seconds: float = REFIT_SECONDS,
    heavy: bool = False,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> Foreseen:
    """`every_seconds`: between two decisions. `heavy`: with the models that cost seconds to fit, once a day.

    `progress(done, whole)`: in steps.
    """
    step, calendar = setting.step_seconds, calendar or Calendar()
    pairs = [pair for pair in window_bins(setting.lead_seconds, step, every_seconds).values() if pair[1] >= 1]
    first, last = max(pairs, key=pairs.count) if pairs else (1, 1)
    first = max(first, 1)
    leads = tuple(sorted({lead for pair in pairs for lead in range(max(1, pair[0]), pair[1] + 1)}))
    asked_for = tuple(sorted({*horizons, *(round(lead * step) for lead in leads)}))
    said = _Said(setting, asked_for, tuple(sorted(quantiles)), first, last, leads)
    whole = History(
        setting.begin - len(setting.history) * step,
        step,
        usable(np.concatenate((setting.history, setting.steps))),
        np.zeros(len(setting.history) + len(setting.steps), dtype=np.bool_),
    )
    kept = round((HISTORY_DAYS if step < HOUR else HISTORY_DAYS_HOURLY) * 86_400 / step)
    block = max(1, round(refit_seconds / step))
    fitted: Fitted | None = None
    was_open: bool | None = None
    heavy_at = -np.inf
    # the window in seconds that asks for those bins, see `ahead.asked`
    window = ((first - 1) * step, last * step)
    for begin in range(0, len(setting.steps), block):
        place = len(setting.history) + begin
        end = min(place + block, len(whole.values))
        now = whole.start + place * step
        try:
            known = whole.first(place + 1).last(kept).until(now)
            is_heavy = heavy and now - heavy_at >= HEAVY_SECONDS - 1.0
            hours = hourly(whole.first(place + 1)) if step < HOUR else None
            fitted = select(known, calendar, asked_for, hours=hours, window=window, heavy=is_heavy, before=fitted)
            heavy_at = now if is_heavy else heavy_at
        except Refusal:
            progress(end - len(setting.history), len(setting.steps))
            continue
        skip = max(0, place + 1 - kept)
        seen = History(whole.start + skip * step, step, whole.values[skip:end], whole.censored[skip:end])
        was_open = said.block(seen, calendar, fitted, place - skip, begin, was_open)
        progress(end - len(setting.history), len(setting.steps))
    return said.done()


class _Said:
    """Fills the rows of `Foreseen`, a refit's steps at a time."""

    def __init__(
        self,
        setting: Setting,
        horizons: tuple[int, ...],
        quantiles: tuple[float, ...],
        first: int,
        last: int,
        leads: tuple[int, ...],
    ) -> None:
        rows, wanted = len(setting.steps), len(quantiles)
        self._setting, self._horizons, self._quantiles = setting, horizons, quantiles
        self._first, self._last, self._leads = first, last, leads
        self._gate = np.zeros(rows, dtype=np.bool_)
        self._value = np.full((rows, len(horizons)), np.nan, dtype=np.float32)
        self._by_kind = {
            kind: np.full((rows, len(horizons), wanted), np.nan, dtype=np.float32)
            for kind in (ahead.VALUE, ahead.PEAK, ahead.ARRIVALS)
        }
        self._window = np.full((rows, wanted), np.nan, dtype=np.float32)

    def block(
        self, seen: History, calendar: Calendar, fitted: Fitted, place: int, row: int, was_open: bool | None
    ) -> bool | None:
        """The steps from `place` in `seen` to its end, the first of them `row`. Returns whether the gate was open."""
        seen = bounded(seen, fitted.ceiling)
        step, count = seen.step_seconds, len(seen.values)
        plain = as_learned_from(seen, calendar, fitted.effects)
        every = max(1, round(CHECK_SECONDS / step))
        checks = range(place, count, every)
        recent = [recent_origins(check, step, max(self._horizons)) for check in checks]
        behind = [ahead.since(fitted.ahead, seen.first(check + 1)) for check in checks]
        origins = np.unique(np.concatenate((*recent, *behind, np.arange(place, count))).astype(np.int64))
        said = asked(fitted, plain, calendar, origins)
        paths = said[fitted.model]
        state: adaptive.State | None = None
        heard = 0
        for check, late, followed in zip(checks, recent, behind, strict=True):
            known = seen.first(check + 1)
            at = np.searchsorted(origins, late)
            actual, censored = outcome(known, late, fitted.steps)
            naives = [said[name][at] for name in fitted.yardsticks]
            live = judge(known, fitted, late, paths[at], naives, actual, censored)
            skill = skill_of(known, fitted, late, paths[at], naives)
            was_open = gate_of(fitted, live, skill, was_open) is Gate.OPEN
            if state is None or len(followed) != heard:  # it looks at full hours
                state, _ = ahead.follow(fitted.ahead, known, followed, paths[np.searchsorted(origins, followed)])
                heard = len(followed)
            mine = np.arange(check, min(check + every, count))
            # of the last hour's errors those are known that had come due at each step
            actual, censored = outcome(seen.first(int(mine[-1]) + 1), late, fitted.steps)
            bias = bias_at(paths[at], actual, censored, late, mine, fitted.offset, step)
            path = correct(paths[np.searchsorted(origins, mine)], fitted.correction, bias, fitted.offset)
            limit = MAX_RISE * float(np.nanmax(known.values))
            hints = strays.hints(seen, mine)
            self._write(fitted, state, np.minimum(path, limit), hints, limit, row + check - place, was_open)
        return was_open

    def _write(
        self,
        fitted: Fitted,
        state: adaptive.State,
        path: Floats,
        hints: Floats,
        limit: float,
        row: int,
        is_open: bool,
    ) -> None:
        learned, step = fitted.ahead, fitted.step_seconds
        asked_now = ahead.asked(self._horizons, learned.decision, step, 0)
        tops, means = newest(asked_now, path, step)
        found = np.minimum(ahead.quantiles(learned, state, tops, means, np.array(self._quantiles), hints), limit)
        rows = slice(row, row + len(path))
        self._gate[rows] = is_open & np.isfinite(path).all(axis=1)
        places = {seconds: place for place, seconds in enumerate(self._horizons)}
        for column, window in enumerate(asked_now):
            if window.kind == ahead.WINDOW:
                self._window[rows] = found[:, column]
                if not is_open and learned.steady is not None:
                    said = learned.steady.quantiles(hints, hints[:, 0], np.array(self._quantiles))
                    self._window[rows] = np.minimum(said, limit)
                continue
            times = window.seconds if window.kind == ahead.ARRIVALS else 1.0
            self._by_kind[window.kind][rows, places[window.seconds]] = found[:, column] * times
            if window.kind == ahead.VALUE:
                self._value[rows, places[window.seconds]] = tops[:, column]

    def done(self) -> Foreseen:
        places = [self._horizons.index(round(lead * self._setting.step_seconds)) for lead in self._leads]
        for kind in (ahead.PEAK, ahead.ARRIVALS):  # a longer window never has a smaller one
            np.maximum.accumulate(self._by_kind[kind], axis=1, out=self._by_kind[kind])
        return Foreseen(
            self._quantiles,
            self._horizons,
            self._first,
            self._last,
            self._leads,
            self._gate,
            self._value,
            self._by_kind[ahead.VALUE],
            self._by_kind[ahead.PEAK],
            self._by_kind[ahead.ARRIVALS],
            self._window,
            self._by_kind[ahead.VALUE][:, places],
        )


def newest(asked_now: Sequence[ahead.Window], path: Floats, step: float) -> tuple[Floats, Floats]:
    """As `windows.newest` with samples that have just ended, at many origins: (origins, windows) each."""
    tops, means = np.empty((2, len(path), len(asked_now)))
    sums = np.concatenate((np.zeros((len(path), 1)), np.cumsum(path, axis=1)), axis=1)
    for column, window in enumerate(asked_now):
        last = min(window.last, path.shape[1])
        part = path[:, min(window.first, last) - 1 : last]
        bins = min(window.seconds / step, float(path.shape[1]))
        whole = int(bins)
        beyond = (bins - whole) * path[:, min(whole, path.shape[1] - 1)]
        if window.kind == ahead.VALUE:
            before = path[:, max(whole - 1, 0)]
            after = path[:, min(whole, path.shape[1] - 1)]
            means[:, column] = before + (bins - whole) * (after - before) if whole else path[:, 0]
        elif window.kind == ahead.ARRIVALS:
            means[:, column] = (sums[:, whole] + beyond) * step / window.seconds
        else:
            means[:, column] = part.mean(axis=1)
        tops[:, column] = part.max(axis=1) if window.reading == "peak" else means[:, column]
    return tops, means


def hourly(history: History) -> History | None:
    """Means of full hours, as the process reads them; None where there is none yet."""
    step, count = history.step_seconds, len(history.values)
    size = round(HOUR / step)
    skip = round(-(history.start - step) % HOUR / step) % size
    whole = (count - skip) // size
    if whole < 1:
        return None
    rows = history.values[skip : skip + whole * size].reshape(whole, size)
    known = np.isfinite(rows)
    means = np.divide(
        np.where(known, rows, 0.0).sum(axis=1), known.sum(axis=1), out=np.full(whole, np.nan), where=known.any(axis=1)
    )
    means = means[-round(HISTORY_DAYS_HOURLY * 24) :]
    start = history.start + (skip + whole * size - 1) * step - (len(means) - 1) * HOUR
    return History(start, HOUR, means, np.zeros(len(means), dtype=np.bool_)) if np.isfinite(means).any() else None


class Teller:
    """Forecasts as decide() is given them: at a tick, the step's, with the window that this tick's decision is for."""

    def __init__(self, found: Foreseen, setting: Setting, every_seconds: float) -> None:
        self._found, self._setting = found, setting
        self._every = every_seconds
        self._pairs = window_bins(setting.lead_seconds, setting.step_seconds, every_seconds)
        self._made: tuple[int, tuple[Horizon, ...]] = (-1, ())

    def at(self, tick: int) -> Forecast | None:
        """None where nothing could be forecast."""
        setting, found = self._setting, self._found
        row = int(setting.step_of[tick])
        if not np.isfinite(found.window[row, 0]):
            return None
        if self._made[0] != row:
            self._made = (row, self._horizons(row))
        offset = tick * setting.tick_seconds - row * setting.step_seconds
        # the process says anew every half minute what it knows, so that nothing of it is old
        made_at = setting.begin + tick * setting.tick_seconds
        begin = setting.lead_seconds
        return Forecast(
            made_at,
            made_at + 900.0,
            "replay",
            bool(found.gate_open[row]),
            tuple(replace(h, seconds=round(h.seconds - offset)) for h in self._made[1] if h.seconds > offset),
            DecisionWindow(begin, begin + self._every, self._window(row, offset)),
        )

    def _window(self, row: int, offset: float) -> dict[float, float]:
        found = self._found
        begin, end = self._pairs[max(o for o in self._pairs if o <= offset + 1e-6)]
        if (max(begin, 1), end) == (found.first, found.last):
            said = found.window[row]
        elif end >= 1:
            said = found.bins[row, [found.leads.index(lead) for lead in range(max(1, begin), end + 1)]].max(axis=0)
        else:
            said = np.zeros(len(found.quantiles), dtype=np.float32)
        if begin < 1 and np.isfinite(present := self._setting.steps[row]):
            said = np.maximum(said, present)
        return dict(zip(found.quantiles, said.tolist(), strict=True))

    def _horizons(self, row: int) -> tuple[Horizon, ...]:
        found = self._found
        return tuple(
            Horizon(
                seconds,
                float(found.value[row, place]),
                *(
                    dict(zip(found.quantiles, of[row, place].tolist(), strict=True))
                    for of in (found.quantile, found.peak, found.arrivals)
                ),
            )
            for place, seconds in enumerate(found.horizons)
        )


def save(found: Foreseen, out: str) -> None:
    """As a NumPy archive. Raises OSError."""
    arrays: dict[str, Any] = {name: np.asarray(getattr(found, name)) for name in Foreseen.__slots__}
    np.savez(out, **arrays)


def restored(path: str) -> Foreseen:
    """What `save` wrote. Raises OSError, KeyError, ValueError."""
    with np.load(path, allow_pickle=False) as kept:
        each = {name: kept[name] for name in Foreseen.__slots__}
    plain = {name: tuple(each[name].tolist()) for name in ("quantiles", "horizons", "leads")}
    return Foreseen(**{**each, **plain, "first": int(each["first"]), "last": int(each["last"])})
