"""What would have been forecast: walks through a history, hour by hour, with what was known then, and keeps score.

The same functions as the process's own, `select` and `outlook`, fitted anew once a day.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import ratio
from controllers.forecast.features import same_time
from controllers.forecast.history import DAY_SECONDS, Floats, History, Refusal, leads_in, utc_offsets
from controllers.forecast.predict import outlook
from controllers.forecast.selection import Fitted, select

EVERY_SECONDS = 3600.0
REFIT_SECONDS = 86_400.0
SHARE = 0.5  # of the history, at most, is walked through: the rest is learned from
HISTORY_DAYS = 30.0  # what the process learns from
MIN_KNOWN = 0.8  # of a window's bins, for its peak or mean to count
NAIVES = ("last value", "yesterday", "last week")


@dataclass(frozen=True, slots=True)
class Walk:
    """One row an origin; rows without a forecast are NaN. Demand per second; `times`: Unix seconds of the origins.

    `said`, `came`, `naive` (3, rows): of the bin that ends one horizon after the origin. `mean_*`: of all bins until
    then; the naive means in the same order. `path_said`, `path_came` (rows, leads). `peak_came`: the largest bin.
    """

    horizon_seconds: int
    step_seconds: float
    time_zone: str
    times: Floats
    said: Floats
    came: Floats
    naive: Floats
    mean_said: Floats
    mean_came: Floats
    mean_naive: Floats
    path_said: Floats
    path_came: Floats
    band: Mapping[float, Floats]
    peak_came: Floats
    peak: Mapping[float, Floats]
    gate_open: Floats  # 1, 0
    models: Mapping[str, int] = field(default_factory=dict)  # rows by model
    refused: int = 0


def rows_of(history: History, horizon_seconds: float, days: float) -> list[int]:
    """Places of the newest bin known at each origin: full hours of the last `days`, at most half of the history."""
    step, count = history.step_seconds, len(history.values)
    lead = leads_in(horizon_seconds, step)
    every = max(1, round(EVERY_SECONDS / step))
    first = max(count - lead - round(days * DAY_SECONDS / step), round((1 - SHARE) * count))
    aligned = first + round(-(history.start + first * step) % EVERY_SECONDS / step)
    return list(range(aligned, count - lead, every))


def walk(
    history: History,
    calendar: Calendar,
    *,
    horizon_seconds: int,
    days: float,
    quantiles: Sequence[float],
    heavy: bool,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> Walk:
    """`heavy`: with the heavy models. `progress(done, whole)` is called after each origin."""
    step, values = history.step_seconds, history.values
    places = rows_of(history, horizon_seconds, days)
    lead = leads_in(horizon_seconds, step)
    kept = round(HISTORY_DAYS * DAY_SECONDS / step)
    size = len(places)
    path_said = np.full((size, lead), np.nan)
    at = np.array(places, dtype=np.int64)[:, None] + np.arange(1, lead + 1)
    path_came: Floats = values[at] if size else np.empty((0, lead))
    said, gates = np.full(size, np.nan), np.full(size, np.nan)
    band = {q: np.full(size, np.nan) for q in quantiles}
    peak = {q: np.full(size, np.nan) for q in quantiles}
    models: dict[str, int] = {}
    fitted: Fitted | None = None
    refused, was_open, fitted_at = 0, None, -np.inf
    for row, place in enumerate(places):
        known = history.first(place + 1).last(kept)
        now = history.start + place * step
        try:
            known = known.until(now)
            if fitted is None or now - fitted_at >= REFIT_SECONDS:
                fitted = select(known, calendar, (horizon_seconds,), heavy=heavy, before=fitted)
                fitted_at = now
            made = outlook(
                known, calendar, fitted, now, quantiles=quantiles, valid_seconds=DAY_SECONDS, gate_was_open=was_open
            )
        except Refusal:
            refused += 1
            progress(row + 1, size)
            continue
        was_open = made.forecast.gate_open
        ahead = made.forecast.horizons[0]
        said[row], gates[row] = ahead.value, float(was_open)
        models[made.forecast.model] = models.get(made.forecast.model, 0) + 1
        rates = [value for _, value, _ in made.path[:lead]]
        path_said[row, : len(rates)] = rates
        for q in quantiles:
            band[q][row], peak[q][row] = ahead.quantiles[q], ahead.peak[q]
        progress(row + 1, size)
    naive, mean_naive = naives(history, places, lead, calendar.time_zone)
    return Walk(
        horizon_seconds,
        step,
        calendar.time_zone,
        history.start + np.array(places, dtype=np.float64) * step,
        said,
        path_came[:, -1] if size else np.empty(0),
        naive,
        mean(path_said),
        mean(path_came),
        mean_naive,
        path_said,
        path_came,
        band,
        largest(path_came),
        peak,
        gates,
        models,
        refused,
    )


def naives(history: History, places: Sequence[int], lead: int, time_zone: str) -> tuple[Floats, Floats]:
    """What "as it is", "as yesterday" and "as last week" said of the bin and of the mean: (3, rows) each."""
    values, count = history.values, len(history.values)
    hour = max(1, round(3600.0 / history.step_seconds))
    offsets = utc_offsets(history.start, history.step_seconds, count, time_zone)
    points, means = np.full((3, len(places)), np.nan), np.full((3, len(places)), np.nan)
    for row, place in enumerate(places):
        seen = values[max(0, place + 1 - hour) : place + 1]
        known = np.flatnonzero(np.isfinite(seen))
        if len(known):
            points[0, row], means[0, row] = seen[known[-1]], seen[known].mean()
        ahead = np.arange(place + 1, place + lead + 1)
        for column, days in ((1, 1), (2, 7)):
            before = same_time(offsets, history.steps_per_day, ahead, days)
            there = (before >= 0) & (before <= place)
            then = np.where(there, values[np.clip(before, 0, count - 1)], np.nan)
            points[column, row], means[column, row] = then[-1], mean(then[None])[0]
    return points, means


def mean(rows: Floats) -> Floats:
    known = np.isfinite(rows)
    found: Floats = np.where(
        known.mean(axis=1) >= MIN_KNOWN,
        np.divide(np.where(known, rows, 0.0).sum(axis=1), np.maximum(known.sum(axis=1), 1)),
        np.nan,
    )
    return found


def largest(rows: Floats) -> Floats:
    known = np.isfinite(rows)
    found: Floats = np.where(known.mean(axis=1) >= MIN_KNOWN, np.where(known, rows, 0.0).max(axis=1), np.nan)
    return found


@dataclass(frozen=True, slots=True)
class Score:
    """Of one kind of target. Ratios, not per cent; None: nothing to tell by.

    `skill`: error relative to each naive forecast's, by name, on the rows that both know; `best`: the one it is most.
    """

    rows: int
    wape: float | None
    bias: float | None
    skill: Mapping[str, float]

    @property
    def accuracy(self) -> float | None:
        return None if self.wape is None else 1.0 - self.wape

    @property
    def best(self) -> tuple[str, float] | None:
        """The best naive forecast, and the error relative to it."""
        return max(self.skill.items(), key=lambda item: item[1], default=None)


def score(said: Floats, came: Floats, naive: Floats) -> Score:
    known = np.isfinite(said) & np.isfinite(came)
    total = float(came[known].sum())
    error = np.abs(said - came)
    skill = {}
    for name, other in zip(NAIVES, naive, strict=True):
        both = known & np.isfinite(other)
        theirs = float(np.abs(other - came)[both].sum())
        if theirs > 0:
            skill[name] = float(error[both].sum()) / theirs
    return Score(
        int(known.sum()),
        ratio(float(error[known].sum()), total) if total > 0 else None,
        float((said - came)[known].sum()) / total if total > 0 else None,
        skill,
    )


def coverage(quantile: Floats, came: Floats) -> float | None:
    """The share at or below; None: none."""
    known = np.isfinite(quantile) & np.isfinite(came)
    return float((came <= quantile)[known].mean()) if known.any() else None


def pinball(q: float, quantile: Floats, came: Floats) -> float | None:
    """Loss of the quantile, of all that came (Koenker and Bassett 1978)."""
    known = np.isfinite(quantile) & np.isfinite(came)
    total = float(came[known].sum())
    missed = (came - quantile)[known]
    return float(np.maximum(q * missed, (q - 1) * missed).sum()) / total if total > 0 else None


def error_by_lead(found: Walk) -> Floats:
    """WAPE at each lead (bins), NaN where nothing came."""
    return np.array([_wape(s, c) for s, c in zip(found.path_said.T, found.path_came.T, strict=True)])


def error_by_hour(found: Walk) -> Floats:
    """WAPE of the bin one horizon ahead, by the local hour of the day in which it lies (24,)."""
    ends = found.times + found.horizon_seconds - found.step_seconds / 2
    offsets = np.array([utc_offsets(at, 60.0, 1, found.time_zone)[0] for at in ends.tolist()]) * 60.0
    hours = ((ends + offsets) % DAY_SECONDS // 3600.0).astype(np.int64)
    return np.array([_wape(found.said[hours == hour], found.came[hours == hour]) for hour in range(24)])


def _wape(said: Floats, came: Floats) -> float:
    known = np.isfinite(said) & np.isfinite(came)
    total = float(came[known].sum())
    return float(np.abs(said - came)[known].sum()) / total if total > 0 else np.nan
