"""Chooses a workload's model by backtest, and learns from the same backtest how sure it may be."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from controllers.forecast import events
from controllers.forecast import windows as ahead
from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import (
    CLOSE,
    Effort,
    Learned,
    Memory,
    Trial,
    memory_of,
    outcome,
    said,
    shortfall,
    sums_until,
    times_of,
    trial,
    wapes,
)
from controllers.forecast.calibration import Spread, knots, learn_level, learn_spread
from controllers.forecast.censoring import lifted
from controllers.forecast.correction import corrected_backtest
from controllers.forecast.features import OFFSET_RATIO, ceiling
from controllers.forecast.history import Bools, Floats, History, Ints, leads_in
from controllers.forecast.models import MODELS, Model
from controllers.forecast.models.ensemble import FEWEST, Mixture, combine, weigh
from controllers.forecast.skill import Record, judged_leads, record

NAIVES = ("last_value", "seasonal_naive", "day_naive", "week_naive")  # what a model has to beat
YARDSTICKS = ("last_value", "day_naive", "week_naive")  # of them, those that skill is told by
STALE_SECONDS = 600.0  # a forecast from older samples is refused (see stale_after); paths reach that much further
MOST_AHEAD_SECONDS = 21_600.0  # a path goes on to the end of a decision's window, but not further than this
AGE_SECONDS = 60.0  # how old the newest bin may well be when a forecast is made: calibrated with
HANDICAP = 1.04  # a naive model must be this much better: it has more luck on some days than what is learned
SINGLE = 1.05  # so must a model alone be against the ensembles: the best of many has been lucky as well
COST_MARGIN = 0.0015  # and a model, for every doubling of its cost: a per cent for seconds, two for minutes
CHEAP_SECONDS = 0.05  # of CPU a fit, which are free
HEAVY_SECONDS = 2.0  # what a heavy model is taken to cost before it was measured
LIMIT_SECONDS = 2 * 86_400.0  # a heavy model that was fitted longer ago drops out
COVERED = 0.5  # of the origins that the best known model was tried at, for another to be compared
MIN_PAIRS = 10  # of prediction and outcome, for an error to mean something


class Stage(StrEnum):
    """How much the history, and the budget for heavy models, have allowed so far."""

    LAST_VALUE = "last_value"  # minutes to hours: nothing could be tried yet
    NAIVE = "seasonal_naive"  # a day: yesterday against the last value
    CHEAP = "cheap"  # about two days: some models were tried; others need weeks, or their turn in the heavy slice
    FULL = "full"  # every model that can run here was tried


@dataclass(frozen=True, slots=True)
class Fitted:
    """What one fit of one workload learned. Picklable; `horizons` in seconds, ascending."""

    model: str
    stage: Stage
    learned: Any  # by the model; an ensemble's: by member
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
    ahead: ahead.Learned  # quantiles of what is ahead: of bins, windows' peaks, arrivals; and their coverage
    score: Mapping[str, float] = field(default_factory=dict)  # what models were chosen by: see `errors_of`
    parts: Mapping[str, Learned] = field(default_factory=dict)  # everything fitted, for the next fit to go on from
    left_out: Mapping[str, str] = field(default_factory=dict)  # models that had no say, and why
    effects: events.Effects = events.NO_EFFECTS  # of the calendar's occasions, which the models have not seen
    tried: Memory | None = None  # what was said in the backtest, for the next fit to go on from
    record: Record | None = None  # the model's errors beside the naive ones'
    level: Spread | None = None  # of the mean over a quarter of an hour; None where that is hardly more than a bin

    @property
    def best_naive(self) -> float | None:
        """The smaller of the naive models' backtest errors; None while none could be tried."""
        return min((self.wape[name] for name in NAIVES if name in self.wape), default=None)

    @property
    def yardsticks(self) -> dict[str, Any]:
        """What the naive models that skill is told by have learned."""
        return {name: self.parts[name].value for name in YARDSTICKS if name in self.wape and name in self.parts}

    @property
    def cpu_seconds(self) -> Mapping[str, float]:
        """Of each model's last fit; members of an ensemble have their own."""
        return {name: part.cpu_seconds for name, part in self.parts.items()}


def uncounted() -> float:
    """Stands in for a counter of CPU seconds: costs are not measured."""
    return 0.0


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
    effort: Effort = CLOSE,
    counter: Callable[[], float] = uncounted,
) -> Fitted:
    """Tries every model on the history's last days and fits them to all of it.

    `history` has at least one known bin (`History.until` sees to that). `hours`: hourly means of up to a year, ending
    no later. `window`: begin and end (seconds ahead) of what a decision covers. `heavy`: whether heavy models may be
    fitted now; if not, those of `before` (the last fit) are used on. `counter`: CPU seconds so far; the choice goes by
    what the fit before this one was measured to cost, so that the same input gives the same choice.
    """
    time_zone = calendar.time_zone
    highest = ceiling(history.values)
    history = bounded(history, highest)
    step = history.step_seconds
    reach = max(*horizons, min(window[1], MOST_AHEAD_SECONDS)) if window else max(horizons)
    steps = leads_in(reach + stale_after(step), step)
    leads = {horizon: leads_in(horizon, step) for horizon in sorted(horizons)}
    known = history.values[np.isfinite(history.values)]
    offset = OFFSET_RATIO * float(known.mean()) or 1e-9
    effects = events.learn(history, calendar, hours)
    plain = as_learned_from(history, calendar, effects)
    same = before if before is not None and fits_on(before, history, time_zone, steps) else None
    parts, left_out = fit_all(plain, time_zone, steps, models, heavy, same, counter)
    tried = trial(
        plain,
        time_zone,
        steps,
        models,
        effort,
        heavy=heavy,
        before=same.tried if same else None,
        learned=same.parts if same else None,
    )
    remembered = memory_of(tried, plain)
    tried = replace(tried, paths=with_occasions(tried.paths, plain, tried.origins, calendar, effects))
    actual, censored = outcome(history, tried.origins, steps)
    tried, weights = with_ensembles(tried, models, parts, actual, censored)
    common = comparable(tried.paths, len(tried.origins))
    testable = {h: lead for h, lead in leads.items() if np.isfinite(actual[common, lead - 1]).sum() >= MIN_PAIRS}
    by_horizon: dict[str, dict[int, float]] = {}
    total: dict[str, float] = {}
    scores: dict[str, float] = {}
    if testable:
        whole = {name: rows for name, path in tried.paths.items() if np.isfinite(rows := path[common]).all()}
        bins, windows = errors_of(np.array(list(whole.values())), actual[common], censored[common], testable.values())
        for name, of_bins, of_windows in zip(whole, bins, windows, strict=True):
            by_horizon[name] = dict(zip(testable, of_bins.tolist(), strict=True))
            total[name] = float(of_bins.mean())
            scores[name] = float(np.mean([of_bins, of_windows]))
    usable = {name for name in scores if name in parts or name in weights}
    costs = same.cpu_seconds if same else {}
    chosen = min(sorted(usable), key=lambda name: scores[name] * margin(name, models, costs), default="last_value")
    path = tried.paths.get(chosen, np.full(actual.shape, np.nan))
    correction, path = corrected_backtest(path, actual, censored, tried.origins, offset, list(testable.values()), step)
    naive = parts.get("seasonal_naive")
    found = ahead.learn(
        history, tried.origins, path, list(leads), window, shift=round(AGE_SECONDS / step), every=tried.spacing
    )
    if same is not None:
        behind = ahead.owed(same.ahead, history)
        said = np.empty((0, steps))
        if len(behind):
            try:
                said = asked(same, plain, calendar, behind)[same.model]
            except Exception:  # whatever a model raises: what was learned until the last fit is carried on
                behind = behind[:0]
        found = ahead.carried(found, same.ahead, history, behind, said)
    return Fitted(
        model=chosen,
        stage=_stage(total, models, {**left_out, **tried.failures}),
        learned=Mixture({member: parts[member].value for member in weights[chosen]}, weights[chosen])
        if chosen in weights
        else parts[chosen].value,
        naive=naive.value if naive else None,
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
        level=learn_level(path, actual, censored, step),
        ahead=found,
        score=scores,
        parts=parts,
        left_out={**tried.failures, **left_out},
        effects=effects,
        tried=remembered,
        record=record(
            history,
            tried.origins,
            path,
            [tried.paths[name] for name in YARDSTICKS if name in total and name in parts],
            judged_leads(horizons, step),
            tried.spacing * step,
        ),
    )


def asked(fitted: Fitted, plain: History, calendar: Calendar, at: Ints) -> dict[str, Floats]:
    """Paths (at, steps) of the model in use and of the naive ones; who is both, or a member, is asked once.

    `plain`: the history as models learn from it.
    """
    mixture = fitted.learned if isinstance(fitted.learned, Mixture) else None
    wanted = fitted.yardsticks | (dict(mixture.learned) if mixture else {fitted.model: fitted.learned})
    paths = {name: MODELS[name].paths(learned, plain, at, fitted.steps) for name, learned in wanted.items()}
    if mixture:
        paths[fitted.model] = combine({name: paths[name] for name in mixture.learned}, mixture.weights)
    return with_occasions(paths, plain, at, calendar, fitted.effects)


def as_learned_from(history: History, calendar: Calendar, effects: events.Effects) -> History:
    """What models see: without the calendar's occasions, and what was cut off raised to what it most likely was."""
    return lifted(events.without(history, calendar, effects), calendar.time_zone)


def with_occasions(
    paths: Mapping[str, Floats], history: History, origins: Ints, calendar: Calendar, effects: events.Effects
) -> dict[str, Floats]:
    """Paths (origins, steps) of models that know no calendar, as its events and holidays change them."""
    steps = max((path.shape[1] for path in paths.values()), default=0)
    if not len(origins) or not steps or effects is events.NO_EFFECTS:
        return dict(paths)
    bins = np.arange(int(origins.min()) + 1, int(origins.max()) + steps + 1)
    times = times_of(bins, history)
    ratio = events.factor(effects, calendar, times, history.step_seconds)
    if (ratio == 1.0).all():
        return dict(paths)
    mine = ratio[origins[:, None] + np.arange(1, steps + 1) - bins[0]]
    return {
        name: np.where(mine != 1.0, np.maximum((path + effects.offset) * mine - effects.offset, 0.0), path)
        for name, path in paths.items()
    }


def with_ensembles(
    tried: Trial, models: Mapping[str, Model], parts: Mapping[str, Learned], actual: Floats, censored: Bools
) -> tuple[Trial, dict[str, dict[str, Floats]]]:
    """The trial with the ensembles' paths, made from those of their members, and the members' weights by ensemble."""
    paths = dict(tried.paths)
    missed = {name: shortfall(path, actual, censored) for name, path in paths.items()}
    weights: dict[str, dict[str, Floats]] = {}
    asked: list[Mapping[str, Floats]] = []  # an ensemble of the same members as another says the same
    for name, model in models.items():
        usable = {member: paths[member] for member in model.members if member in paths and member in parts}
        if len(usable) >= FEWEST and all(set(usable) != set(others) for others in asked):
            asked.append(usable)
            weights[name] = weigh(usable, missed, NAIVES)
            paths[name] = combine(usable, weights[name])
    return replace(tried, paths=paths), weights


def fits_on(before: Fitted, history: History, time_zone: str, steps: int) -> bool:
    """Whether an earlier fit is of the same grid and length, and lies in the past of this one."""
    return (
        before.step_seconds == history.step_seconds
        and before.steps == steps
        and before.time_zone == time_zone
        and before.trained_at <= history.end + 1e-3
    )


def fit_all(
    history: History,
    time_zone: str,
    steps: int,
    models: Mapping[str, Model],
    heavy: bool,
    before: Fitted | None,
    counter: Callable[[], float],
) -> tuple[dict[str, Learned], dict[str, str]]:
    """What every model but the ensembles learns now, or has learned of late; and which have no say, and why."""
    parts: dict[str, Learned] = {}
    left_out: dict[str, str] = {}
    for name, model in models.items():
        if model.members:
            continue
        if history.known_seconds < model.needs_seconds:
            left_out[name] = TOO_YOUNG
            continue
        if model.heavy and not heavy:
            old = before.parts.get(name) if before is not None else None
            if old is None or history.end - old.fitted_at > LIMIT_SECONDS:
                left_out[name] = NOT_ITS_TURN
            else:
                parts[name] = old
            continue
        began = counter()
        try:
            parts[name] = Learned(model.fit(history, time_zone, steps), history.end, counter() - began)
        except Exception as error:  # whatever a library raises: the other models go on
            left_out[name] = said(error)
    return parts, left_out


TOO_YOUNG = "too little history"
NOT_ITS_TURN = "not fitted within the last two days"


def comparable(paths: Mapping[str, Floats], count: int) -> Bools:
    """The origins at which all models had a say, but for those that had it at few."""
    known = {name: np.isfinite(path).all(axis=1) for name, path in paths.items()}
    most = max((int(rows.sum()) for rows in known.values()), default=0)
    common = np.ones(count, dtype=np.bool_)
    for rows in known.values():
        if rows.sum() >= COVERED * most:
            common &= rows
    return common


def errors_of(paths: Floats, actual: Floats, censored: Bools, leads: Collection[int]) -> tuple[Floats, Floats]:
    """WAPE (models, leads) of `paths` (models, origins, steps): of the bin at each lead, and of all bins until there.

    A decision looks at a whole window, a chart at one point; a model is chosen by the mean of both.
    """
    last = np.array(list(leads), dtype=np.int64)
    bins = wapes(paths[:, :, last - 1], actual[:, last - 1], censored[:, last - 1])
    bounds = np.logical_or.accumulate(censored, axis=1)[:, last - 1]
    return bins, wapes(sums_until(paths, last), sums_until(actual, last), bounds)


def margin(name: str, models: Mapping[str, Model], costs: Mapping[str, float]) -> float:
    """By how much worse a model's error is taken: for being naive, being alone, and for its cost."""
    model = models[name]
    cost = sum(
        costs.get(part, 0.0) or HEAVY_SECONDS * models[part].heavy
        for part in model.members or (name,)
        if part in models
    )
    alone = HANDICAP if name in NAIVES else 1.0 if model.members else SINGLE
    return alone * (1.0 + COST_MARGIN * max(0.0, math.log2(max(cost, 1e-9) / CHEAP_SECONDS)))


def bounded(history: History, highest: float) -> History:
    return History(history.start, history.step_seconds, np.minimum(history.values, highest), history.censored)


def stale_after(step_seconds: float) -> float:
    """How old the newest sample may be: a few missing ones are normal at any step."""
    return max(STALE_SECONDS, 3 * step_seconds)


def _stage(tried: Mapping[str, float], models: Mapping[str, Model], left_out: Mapping[str, str]) -> Stage:
    if not set(tried) - set(NAIVES):
        return Stage.NAIVE if set(tried) - {"last_value"} else Stage.LAST_VALUE
    waiting = {TOO_YOUNG, NOT_ITS_TURN}
    untried = [n for n in models if n not in tried and not models[n].members and left_out.get(n, TOO_YOUNG) in waiting]
    return Stage.CHEAP if untried else Stage.FULL
