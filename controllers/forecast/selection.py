"""Chooses a workload's model by backtest, and learns from the same backtest how sure it may be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import outcome, recent_bias, shortfall, trial, wape, windows
from controllers.forecast.calibration import UNKNOWN, Spread, spread
from controllers.forecast.features import OFFSET_RATIO, ceiling
from controllers.forecast.history import Bools, Floats, History, Ints
from controllers.forecast.models import MODELS, Model

NAIVES = ("last_value", "seasonal_naive")  # what a model has to beat
STALE_SECONDS = 600.0  # a forecast from samples older than this is refused, so paths reach that much further
AGE_SECONDS = 60.0  # how old the newest bin may well be when a forecast is made: calibrated with
KNOTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60)  # leads (bins) at which the spread of single bins is learned
HANDICAP = 1.1  # a naive model must be this much better: a lucky week is likelier than a week that only repeats itself
MIN_PAIRS = 10  # of prediction and outcome, for an error to mean something
CORRECTIONS = (0.0, 0.15, 0.3)  # shares of the last hour's mean error that may be taken back
MAX_CORRECTION = 0.4  # of the logarithm: a factor of 1.5
MEMORY_SECONDS = 3600.0


class Stage(StrEnum):
    """How much the history allows."""

    LAST_VALUE = "last_value"  # minutes to hours: nothing could be tried yet
    NAIVE = "seasonal_naive"  # a day: yesterday against the last value
    FULL = "full"  # every model was tried


@dataclass(frozen=True, slots=True)
class Fitted:
    """What one fit of one workload learned. Picklable; `horizons` in seconds, ascending."""

    model: str
    stage: Stage
    learned: Any
    naive: Any  # the seasonal naive's own; None before a day of history
    time_zone: str
    horizons: tuple[int, ...]
    step_seconds: float
    steps: int  # length of a path, in bins
    trained_at: float  # Unix seconds of the newest sample seen
    history_seconds: float
    ceiling: float  # the largest demand that is believed
    offset: float  # demand per second added before logarithms of errors
    correction: float  # share of the last hour's error that is taken back
    wape: Mapping[str, float]  # backtest error of each model, over all horizons
    wape_by_horizon: Mapping[str, Mapping[int, float]]
    value: Mapping[int, Spread]  # by lead in bins
    peak: Mapping[int, Spread]  # by horizon in seconds
    arrivals: Mapping[int, Spread]

    @property
    def best_naive(self) -> float | None:
        """The smaller of the naive models' backtest errors; None while none could be tried."""
        return min((self.wape[name] for name in NAIVES if name in self.wape), default=None)


def select(
    history: History,
    calendar: Calendar,
    horizons: Sequence[int],
    models: Mapping[str, Model] = MODELS,
    *,
    hours: History | None = None,
    window: tuple[float, float] | None = None,
    heavy: bool = True,
    before: Fitted | None = None,
) -> Fitted:
    """Tries every model on the history's last days and fits the best one to all of it.

    `history` has at least one known bin (`History.until` sees to that). `hours`: hourly means of up to a year, ending
    no later. `window`: begin and end (seconds ahead) of what a decision covers. `heavy`: whether heavy models may be
    fitted now; if not, those of `before` (the last fit) are used on.
    """
    time_zone = calendar.time_zone
    highest = ceiling(history.values)
    history = bounded(history, highest)
    step = history.step_seconds
    steps = leads_in(max(horizons) + STALE_SECONDS, step)
    leads = {horizon: leads_in(horizon, step) for horizon in sorted(horizons)}
    known = history.values[np.isfinite(history.values)]
    offset = OFFSET_RATIO * float(known.mean()) or 1e-9
    tried = trial(history, time_zone, steps, models)
    actual, censored = outcome(history, tried.origins, steps)
    common = np.ones(len(tried.origins), dtype=np.bool_)
    for path in tried.paths.values():
        common &= np.isfinite(path).all(axis=1)
    testable = {h: lead for h, lead in leads.items() if np.isfinite(actual[common, lead - 1]).sum() >= MIN_PAIRS}
    by_horizon: dict[str, dict[int, float]] = {}
    total: dict[str, float] = {}
    if testable:
        for name, path in tried.paths.items():
            table = wape(path[common], actual[common], censored[common], list(testable.values()))
            by_horizon[name] = {horizon: table[lead] for horizon, lead in testable.items()}
            total[name] = float(np.mean(list(by_horizon[name].values())))
    chosen = min(total, key=lambda name: total[name] * (HANDICAP if name in NAIVES else 1.0), default="last_value")
    path = tried.paths.get(chosen, np.full(actual.shape, np.nan))
    correction, path = corrected_backtest(path, actual, censored, tried.origins, offset, list(testable.values()), step)
    shift = round(AGE_SECONDS / step)
    naive = models.get("seasonal_naive")
    return Fitted(
        model=chosen,
        stage=_stage(total, models),
        learned=models[chosen].fit(history, time_zone, steps),
        naive=naive.fit(history, time_zone, steps)
        if naive is not None and history.known_seconds >= naive.needs_seconds
        else None,
        time_zone=time_zone,
        horizons=tuple(leads),
        step_seconds=step,
        steps=steps,
        trained_at=history.end,
        history_seconds=history.known_seconds,
        ceiling=highest,
        offset=offset,
        correction=correction,
        wape=total,
        wape_by_horizon=by_horizon,
        value={
            lead: learn_spread(path[:, lead - 1], actual[:, lead - 1], censored[:, lead - 1]) for lead in knots(steps)
        },
        peak={h: _window_spread(path, actual, censored, shift, lead, "peak", 1.0) for h, lead in leads.items()},
        arrivals={
            h: _window_spread(path, actual, censored, shift, lead, "arrivals", step) for h, lead in leads.items()
        },
    )


def bounded(history: History, highest: float) -> History:
    return History(history.start, history.step_seconds, np.minimum(history.values, highest), history.censored)


def leads_in(seconds: float, step_seconds: float) -> int:
    """Bins until `seconds` are over; at least 1."""
    return max(1, int(np.ceil(seconds / step_seconds - 1e-9)))


def knots(steps: int) -> list[int]:
    """Leads at which the spread is learned: every one at first, then ever fewer; the last lead is one."""
    found = [knot for knot in KNOTS if knot < steps]
    while found and (following := max(found[-1] + 1, int(found[-1] * 1.5))) < steps:
        found.append(following)
    return [*found, steps]


def corrected_backtest(
    path: Floats, actual: Floats, censored: Bools, origins: Ints, offset: float, leads: list[int], step: float
) -> tuple[float, Floats]:
    """The share of the last hour's error that is best taken back, and the paths with that done."""
    if not leads or not len(origins):
        return 0.0, path
    bias = bias_at(path, actual, censored, origins, origins, offset, step)
    tried = {share: correct(path, share, bias, offset) for share in CORRECTIONS}
    columns = np.array(leads) - 1
    errors = {
        share: float(np.nansum(shortfall(new[:, columns], actual[:, columns], censored[:, columns])))
        for share, new in tried.items()
    }
    best = min(errors, key=errors.__getitem__)
    return best, tried[best]


def bias_at(
    path: Floats, actual: Floats, censored: Bools, origins: Ints, at: Ints, offset: float, step_seconds: float
) -> Floats:
    """Mean log ratio of outcome to prediction over the hour before each of `at`, for every lead: (len(at), steps)."""
    steps = path.shape[1]
    leads = np.array(knots(steps))
    some, came = path[:, leads - 1], actual[:, leads - 1]
    missed = np.clip(np.log((came + offset) / (some + offset)), -1.0, 1.0)
    missed[censored[:, leads - 1] & (missed < 0)] = np.nan
    bias = recent_bias(origins, missed, leads, at, leads_in(MEMORY_SECONDS, step_seconds))
    every = np.arange(1, steps + 1)
    return np.array([np.interp(every, leads, row) for row in bias])


def correct(path: Floats, share: float, bias: Floats, offset: float) -> Floats:
    factor = np.exp(np.clip(share * bias, -MAX_CORRECTION, MAX_CORRECTION))
    taken_back: Floats = np.maximum((path + offset) * factor - offset, 0.0)
    return taken_back


def learn_spread(predicted: Floats, actual: Floats, censored: Bools) -> Spread:
    """A lower bound that the prediction already reaches says nothing about how far off it was."""
    return spread(predicted, np.where(censored & (actual < predicted), np.nan, actual))


def _window_spread(
    path: Floats, actual: Floats, censored: Bools, shift: int, lead: int, kind: str, scale: float
) -> Spread:
    first, last = 1 + shift, min(shift + lead, path.shape[1])
    if not len(path):
        return UNKNOWN
    return learn_spread(
        scale * windows(path, first, last, kind),
        scale * windows(actual, first, last, kind),
        np.any(censored[:, first - 1 : last], axis=1),
    )


def _stage(tried: Mapping[str, float], models: Mapping[str, Model]) -> Stage:
    if tried and set(tried) == set(models):
        return Stage.FULL
    return Stage.NAIVE if "seasonal_naive" in tried else Stage.LAST_VALUE
