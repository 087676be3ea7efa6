"""What others would have said, at the same origins and from the same past.

A peer gets the coarse bins known at its last origin and says, for each origin, the bin that ends an hour later and the
mean of that hour. One that has to be fitted is fitted anew every so often, on what lay before; in between it goes on
from what is known at each origin. Gaps are filled with what was last known.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.scores import PEAK_SECONDS, QUANTILES
from benchmarks.traces import HOUR, Trace
from controllers.forecast.history import Floats, Ints
from controllers.forecast.sums import hold

WEEK_SEASON = 336  # bins: a longer season than this and Holt-Winters is given the day instead of the week
ARIMA_BINS = 1152  # four days in five minutes
SLOWLY = 0.99  # share of an innovation's error that is left a bin later
FOREST_TREES = 60
FOREST_ROWS = 2880  # learned from, spread over the history
HISTORY_BINS, YEAR_DAYS = 8640, 365  # 30 days in five minutes
SMOOTHED_SEASONS = 3  # as PHPA stores them
ETS_SEASON = 24  # the longest that ETS takes

Said = tuple[Floats, Floats]  # by origin: the bin that ends an hour later, the mean of the hour


@dataclass(frozen=True, slots=True)
class Grid:
    """Bins an hour and a day."""

    hour: int
    day: int

    @property
    def history(self) -> int:
        """Bins a peer is fitted to."""
        return min(HISTORY_BINS, YEAR_DAYS * self.day)


@dataclass(frozen=True, slots=True)
class Peer:
    """`say(values, places, grid)`: from the bins known at the last place; a place is that of the bin after an origin.

    At a place it may look at no bin from there on, and fit only to bins before the first place.
    """

    say: Callable[[Floats, Ints, Grid], Said]
    refit_days: float | None = None  # None: nothing is fitted
    package: str | None = None  # without which it is left out


def said_by(peer: Peer, values: Floats, places: Ints, grid: Grid) -> Said:
    every = round(peer.refit_days * grid.day) if peer.refit_days else len(values)
    points, means = np.empty(len(places)), np.empty(len(places))
    folds = (places - places[0]) // max(1, every)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        with warnings.catch_warnings():  # a fit that did not converge is the peer's own fault
            warnings.simplefilter("ignore")
            points[rows], means[rows] = peer.say(values[: places[rows[-1]]], places[rows], grid)
    spare, spare_mean = last_value(values, places, grid)
    points, means = np.where(np.isfinite(points), points, spare), np.where(np.isfinite(means), means, spare_mean)
    return np.maximum(points, 0.0), np.maximum(means, 0.0)


def missing(peer: Peer) -> bool:
    return peer.package is not None and find_spec(peer.package) is None


def last_value(values: Floats, places: Ints, grid: Grid) -> Said:
    """The last complete bin goes on; for the mean, the last hour does."""
    points, means = hold(values)[places - 1], []
    for place, point in zip(places.tolist(), points.tolist(), strict=True):
        part = values[max(0, place - grid.hour) : place]
        known = part[np.isfinite(part)]
        means.append(float(known.mean()) if len(known) else point)
    return points, np.array(means)


def same_time(back: int) -> Callable[[Floats, Ints, Grid], Said]:
    """As so many days before; the last value where that is unknown."""

    def say(values: Floats, places: Ints, grid: Grid) -> Said:
        at = places[:, None] + np.arange(grid.hour) - back * grid.day
        there = values[np.maximum(at, 0)]
        path = np.where((at >= 0) & np.isfinite(there), there, hold(values)[places - 1][:, None])
        return path[:, -1], path.mean(axis=1)

    return say


def holt_winters_fixed(values: Floats, places: Ints, grid: Grid) -> Said:
    """Additive trend and season of a day, α = β = γ = 0.9, over the last three seasons: PHPA's example settings.

    The recursion and the heuristic start are those of statsmodels. With these parameters it is unstable: its error
    grows with every season it runs over.
    """
    season, length = grid.day, SMOOTHED_SEASONS * grid.day
    whole = places >= length
    points, means = last_value(values, places, grid)
    if not whole.any():
        return points, means
    past = hold(values)[places[whole][:, None] + np.arange(-length, 0)]
    level, trend, seasons = heuristic_start(past, season)
    for at in range(length):
        now, expected = at % season, level + trend
        new = 0.9 * (past[:, at] - seasons[:, now]) + 0.1 * expected
        seasons[:, now] = 0.9 * (past[:, at] - expected) + 0.1 * seasons[:, now]
        level, trend = new, 0.9 * (new - level) + 0.1 * trend
    ahead = np.arange(1, grid.hour + 1)
    path = level[:, None] + ahead * trend[:, None] + seasons[:, (length + ahead - 1) % season]
    path = np.maximum(path, 0.0)
    points[whole], means[whole] = path[:, -1], path.mean(axis=1)
    return points, means


def heuristic_start(past: Floats, season: int) -> tuple[Floats, Floats, Floats]:
    """Level, trend, seasons of rows of whole seasons (an even number of bins each), by a centred moving average."""
    sums = np.cumsum(np.pad(past, ((0, 0), (1, 0))), axis=1)
    average = (sums[:, season:] - sums[:, :-season]) / season
    centred = (average[:, 1:] + average[:, :-1]) / 2
    around = np.full(past.shape, np.nan)
    around[:, season // 2 : season // 2 + centred.shape[1]] = centred
    seasons = np.nanmean((past - around).reshape(len(past), -1, season), axis=1)
    seasons -= seasons.mean(axis=1, keepdims=True)
    x, y = np.arange(1.0, 11.0), centred[:, :10]
    trend = ((x - x.mean()) * (y - y.mean(axis=1, keepdims=True))).sum(axis=1) / ((x - x.mean()) ** 2).sum()
    return y.mean(axis=1) - trend * x.mean(), trend, seasons


def holt_winters_tuned(values: Floats, places: Ints, grid: Grid) -> Said:
    """statsmodels' Holt-Winters, its parameters estimated, carried on from bin to bin."""
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    season = 7 * grid.day if 7 * grid.day <= WEEK_SEASON else grid.day
    held = hold(values)
    begin = max(0, int(places[0]) - grid.history)
    past = held[begin : places[0]]
    if len(past) < 2 * season + 10 or past.max() <= past.min():
        return last_value(values, places, grid)
    model = ExponentialSmoothing(
        past, trend="add", damped_trend=True, seasonal="add", seasonal_periods=season, initialization_method="heuristic"
    )
    found = model.fit().params
    alpha, beta, gamma, phi = (
        float(found[f"{name}"])
        for name in ("smoothing_level", "smoothing_trend", "smoothing_seasonal", "damping_trend")
    )
    level, trend = float(found["initial_level"]), float(found["initial_trend"])
    seasons = [float(value) for value in found["initial_seasons"]]
    damped = np.cumsum(phi ** np.arange(1, grid.hour + 1)).tolist()
    points, means, wanted = [], [], set(places.tolist())
    for at, value in enumerate([*held[begin:].tolist(), 0.0]):
        if begin + at in wanted:
            path = [max(0.0, level + damped[h] * trend + seasons[(at + h) % season]) for h in range(grid.hour)]
            points.append(path[-1])
            means.append(sum(path) / grid.hour)
        now, expected = at % season, level + phi * trend
        new = alpha * (value - seasons[now]) + (1 - alpha) * expected
        seasons[now] = gamma * (value - expected) + (1 - gamma) * seasons[now]
        level, trend = new, beta * (new - level) + (1 - beta) * phi * trend
    return np.array(points), np.array(means)


def arima(values: Floats, places: Ints, grid: Grid) -> Said:
    """statsmodels' ARIMA(2,1,2) of the last bins; between fits its innovations go on with the same parameters."""
    from statsmodels.tsa.arima.model import ARIMA

    held = hold(values)
    past = held[max(0, int(places[0]) - ARIMA_BINS) : places[0]]
    if len(past) < 50 or past.max() <= past.min():
        return last_value(values, places, grid)
    scale = float(past.std())
    model = ARIMA(past / scale, order=(2, 1, 2))
    try:
        fit = model.fit(method="innovations_mle", cov_type="none")  # the same likelihood in a tenth of the time
    except (ValueError, np.linalg.LinAlgError):  # it begins from parameters that are not stationary
        fit = model.fit(cov_type="none", low_memory=True)
    found = dict(zip(model.param_names, fit.params, strict=True))
    a, b, c, d = (float(found[name]) for name in ("ar.L1", "ar.L2", "ma.L1", "ma.L2"))
    width = min(ARIMA_BINS, int(places[0]))
    if np.abs(np.roots([1.0, c, d])).max(initial=0.0) > SLOWLY:  # a wrong start would never be forgotten
        each = [fit.apply(held[place - width : place] / scale).forecast(grid.hour) * scale for place in places]
        exact = np.maximum(np.array(each), 0.0)
        return exact[:, -1], exact.mean(axis=1)
    rows = held[places[:, None] + np.arange(-width, 0)]
    change = np.diff(rows, axis=1)
    missed = np.zeros((len(places), 2))  # the last two innovations, newest last
    for at in range(2, change.shape[1]):
        new = change[:, at] - a * change[:, at - 1] - b * change[:, at - 2] - c * missed[:, 1] - d * missed[:, 0]
        missed = np.column_stack((missed[:, 1], new))
    level, before, last = rows[:, -1], change[:, -2], change[:, -1]
    path = []
    for _ in range(grid.hour):
        new = a * last + b * before + c * missed[:, 1] + d * missed[:, 0]
        missed = np.column_stack((missed[:, 1], np.zeros(len(places))))
        before, last, level = last, new, level + new
        path.append(level)
    return path[-1], np.maximum(np.array(path), 0.0).mean(axis=0)


def random_forest(values: Floats, places: Ints, grid: Grid) -> Said:
    """scikit-learn's forest on the last bins, the same time before, the time of day and of the week, as they are."""
    from sklearn.ensemble import RandomForestRegressor

    held = hold(values)
    first, begin = int(places[0]), max(7 * grid.day, int(places[0]) - grid.history)
    rows = np.arange(begin, first - grid.hour + 1)
    rows = rows[:: max(1, len(rows) // FOREST_ROWS)]
    if len(rows) < 50:
        return last_value(values, places, grid)

    def seen(at: Ints) -> Floats:
        target = at + grid.hour - 1
        lags = [held[at - back] for back in (1, 2, 3, 4, 6, 8, 12, *range(2 * grid.hour, 7 * grid.hour, grid.hour))]
        same = [held[target - days * grid.day] for days in (1, 2, 7)]
        return np.column_stack([*lags, *same, target % grid.day, target // grid.day % 7])

    hour = rows[:, None] + np.arange(grid.hour)
    wanted = np.column_stack((held[hour[:, -1]], held[hour].mean(axis=1)))
    forest: Any = RandomForestRegressor(FOREST_TREES, random_state=0, n_jobs=1).fit(seen(rows), wanted)
    answer = forest.predict(seen(places))
    return answer[:, 0], answer[:, 1]


def auto_ets(values: Floats, places: Ints, grid: Grid) -> Said:
    """statsforecast's AutoETS, chosen and fitted to the last bins, carried on with the same parameters."""
    models: Any = import_module("statsforecast.models")

    held = hold(values)
    past = held[max(0, int(places[0]) - ARIMA_BINS) : places[0]]
    if len(past) < 50 or past.max() <= past.min():
        return last_value(values, places, grid)
    model = models.AutoETS(season_length=grid.day if grid.day <= ETS_SEASON else 1).fit(past)
    points, means = [], []
    for place in places.tolist():
        path = np.maximum(model.forward(held[max(0, place - ARIMA_BINS) : place], h=grid.hour)["mean"], 0.0)
        points.append(float(path[-1]))
        means.append(float(path.mean()))
    return np.array(points), np.array(means)


NAIVE: dict[str, Peer] = {
    "last_value": Peer(last_value),
    "day_naive": Peer(same_time(1)),
    "week_naive": Peer(same_time(7)),
}
OTHERS: dict[str, Peer] = {
    "hw_fixed": Peer(holt_winters_fixed),
    "hw_tuned": Peer(holt_winters_tuned, refit_days=2),
    "arima_212": Peer(arima, refit_days=2),
    "random_forest": Peer(random_forest, refit_days=2),
    "auto_ets": Peer(auto_ets, refit_days=2, package="statsforecast"),
}


def peak_quantiles(trace: Trace, origins: Floats, horizon: int, days: float = 28.0) -> dict[float, Floats]:
    """The last window's peak plus the quantile of what this was off by over the trailing days, at hourly origins."""
    trace = trace.at(PEAK_SECONDS)
    width, hour = trace.bins(horizon), HOUR // trace.step_seconds
    first = round((float(origins[0]) - trace.begin) / trace.step_seconds)
    places = first + hour * np.round((origins - origins[0]) / HOUR).astype(np.int64)
    every = np.arange(first % hour, int(places[-1]) + 1, hour)
    every = every[every >= width]
    before, after = _peaks(trace.values, every - width, width), _peaks(trace.values, every, width)
    off = after - before
    found: dict[float, list[float]] = {q: [] for q in QUANTILES}
    for place in places:
        due = (every + width <= place) & (every > place - days * 24 * hour)
        known = np.sort(off[due & np.isfinite(off)])
        here = before[every == place]
        last = float(here[0]) if len(here) and np.isfinite(here[0]) else np.nan
        for q in QUANTILES:
            rank = min(int(np.ceil((len(known) + 1) * q - 1e-9)), len(known))
            found[q].append(max(0.0, last + float(known[rank - 1])) if len(known) else last)
    return {q: np.array(each) for q, each in found.items()}


def _peaks(values: Floats, begins: Ints, width: int) -> Floats:
    at = begins[:, None] + np.arange(width)
    part = np.where(at < len(values), values[np.minimum(at, len(values) - 1)], np.nan)
    known = np.isfinite(part)
    return np.where(known.any(axis=1), np.where(known, part, -np.inf).max(axis=1), np.nan)
