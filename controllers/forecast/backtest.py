"""Rolling-origin backtest: what each model would have said on the last days, knowing only what was known then."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.forecast.history import Bools, Floats, History, Ints
from controllers.forecast.models import Model

SPAN_DAYS = 7.0  # of the history's end, at most
SPAN_SHARE = 0.25
FOLD_DAYS = 2.5  # a model is fitted anew about this often, where the effort allows
MIN_KNOWN = 0.8  # of a window, for its maximum or sum to count
WORTH_A_FOLD = 0.1  # of a fold's origins that nothing is known about, for models to be fitted for them


@dataclass(frozen=True, slots=True)
class Effort:
    """What a backtest may cost: at how many origins it looks, and how often it fits a model for them."""

    origins: int = 400
    folds: int = 3


CLOSE = Effort()
FRUGAL = Effort(origins=170, folds=1)  # for fleets
FEW_WORKLOADS = 50


def effort_for(workloads: int) -> Effort:
    """A few workloads may be looked at more closely than thousands."""
    return CLOSE if workloads <= FEW_WORKLOADS else FRUGAL


@dataclass(frozen=True, slots=True)
class Trial:
    """Predictions of every model at the same origins. `paths[model]` is (origins, steps); NaN where it had no say."""

    origins: Ints
    paths: Mapping[str, Floats]
    spacing: int = 0  # bins between two origins
    failures: Mapping[str, str] = field(default_factory=dict)  # models that could not be fitted, and why


@dataclass(frozen=True, slots=True)
class Memory:
    """What a trial leaves for the next one, in single precision. `times`: Unix seconds of the origins, ascending."""

    times: Floats
    spacing: int
    paths: Mapping[str, NDArray[np.float32]]


def memory_of(tried: Trial, history: History) -> Memory:
    return Memory(
        times_of(tried.origins, history),
        tried.spacing,
        {name: path.astype(np.float32) for name, path in tried.paths.items()},
    )


@dataclass(frozen=True, slots=True)
class Learned:
    """What one model learned. `fitted_at`: Unix seconds of the newest sample that it has seen."""

    value: Any
    fitted_at: float
    cpu_seconds: float = 0.0  # of the fit; 0: not measured


def times_of(places: Ints, history: History) -> Floats:
    times: Floats = (history.start + places * history.step_seconds).astype(np.float64)
    return times


def outcome(history: History, origins: Ints, steps: int) -> tuple[Floats, Bools]:
    """What came after each origin (origins, steps), NaN where unknown, and which of it is only a lower bound."""
    at = origins[:, None] + np.arange(1, steps + 1)
    inside = at < len(history.values)
    at = np.minimum(at, len(history.values) - 1)
    return np.where(inside, history.values[at], np.nan), inside & history.censored[at]


def trial(
    history: History,
    time_zone: str,
    steps: int,
    models: Mapping[str, Model],
    effort: Effort = CLOSE,
    *,
    heavy: bool = True,
    before: Memory | None = None,
    learned: Mapping[str, Learned] | None = None,
) -> Trial:
    """What every model says at origins of the last days. No origins when the history is too short.

    Where `before` (the last trial) knows what a model said, that stays. Later origins are asked of `learned`, what was
    fitted then, if it had not seen them. For the rest, models are fitted on what lies before each fold: heavy ones only
    where `heavy`, in a single fold. Ensembles have no paths of their own here: `select` makes them from their members'.
    """
    count = len(history.values)
    span = min(round(SPAN_DAYS * history.steps_per_day), int(SPAN_SHARE * count))
    space = spacing(span, effort.origins, history.steps_per_day)
    begins = count - span
    anchor = round(history.start / history.step_seconds)
    origins = np.arange(begins + (-(anchor + begins)) % space, count - 1, space, dtype=np.int64)
    if span < 2 or not len(origins):
        return Trial(np.empty(0, dtype=np.int64), {})
    times = times_of(origins, history)
    single = {name: model for name, model in models.items() if not model.members}
    paths = {name: np.full((len(origins), steps), np.nan) for name in single}
    if before is not None and before.spacing == space:
        _recall(paths, times, before)
    failures: dict[str, str] = {}
    for name, part in (learned or {}).items():
        if name in paths:
            rows = np.flatnonzero(~np.isfinite(paths[name]).all(axis=1) & (times >= part.fitted_at - 1e-3))
            if len(rows):
                try:
                    paths[name][rows] = single[name].paths(part.value, history, origins[rows], steps)
                except Exception as error:  # it is asked again as it is fitted anew
                    failures[name] = said(error)
    wanted = max(1, min(effort.folds, -(-span // round(FOLD_DAYS * history.steps_per_day))))
    for name, model in single.items():
        folds = 1 if model.heavy else wanted
        for fold in range(folds if heavy or not model.heavy else 0):
            cut = begins + fold * span // folds
            rows = np.flatnonzero((origins >= cut) & (origins < begins + (fold + 1) * span // folds))
            missing = rows[~np.isfinite(paths[name][rows]).all(axis=1)]
            past = history.first(cut)
            if (
                len(missing) <= WORTH_A_FOLD * len(rows)
                or past.known_seconds < model.needs_seconds
                or not np.isfinite(past.values).any()
            ):
                continue
            try:
                value = model.fit(past, time_zone, steps)
                known = history.first(int(origins[missing].max()) + 1)
                paths[name][missing] = model.paths(value, known, origins[missing], steps)
            except Exception as error:  # whatever a library raises: the other models go on, and `failures` tells
                failures[name] = said(error)
                break
    heard = {name: paths[name] for name in single if paths[name].size and np.isfinite(paths[name]).any()}
    return Trial(origins, heard, space, failures)


def _recall(paths: Mapping[str, Floats], times: Floats, before: Memory) -> None:
    place = np.searchsorted(before.times, times - 1e-3)
    place = np.minimum(place, max(0, len(before.times) - 1))
    same = np.abs(before.times[place] - times) < 1e-3 if len(before.times) else np.zeros(len(times), dtype=np.bool_)
    for name, path in paths.items():
        if name in before.paths and before.paths[name].shape[1] == path.shape[1]:
            path[same] = before.paths[name][place[same]]


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def spacing(span: int, most: int, day: int) -> int:
    """Bins between origins: at most `most` of them, and every time of the day (`day` bins) gets its turn."""
    space = max(1, -(-span // most))
    while math.gcd(space, day) != 1:
        space += 1
    return space


def shortfall(predicted: Floats, actual: Floats, censored: Bools) -> Floats:
    """Absolute error; where reality is only a lower bound, only what the prediction lies below it."""
    missed = actual - predicted
    return np.where(censored, np.maximum(missed, 0.0), np.abs(missed))


def wape(paths: Floats, actual: Floats, censored: Bools, leads: Sequence[int]) -> dict[int, float]:
    """Summed absolute error over summed demand, at each lead (bins); infinite where there was error but no demand."""
    columns = np.array(leads, dtype=np.int64) - 1
    found = wapes(paths[None, :, columns], actual[:, columns], censored[:, columns])
    return dict(zip(leads, found[0].tolist(), strict=True))


def wapes(said: Floats, came: Floats, censored: Bools) -> Floats:
    """As `wape`, of several models' predictions (models, origins, columns) at once: (models, columns)."""
    error = shortfall(said, came, censored)
    known = np.isfinite(error)
    errors, demands = (np.where(known, each, 0.0).sum(axis=1) for each in (error, came))
    infinite = np.where(errors > 0, np.inf, 0.0)
    found: Floats = np.divide(errors, demands, out=infinite, where=(errors > 0) & (demands > 0))
    return found


def ratio(error: float, demand: float) -> float:
    if error <= 0:
        return 0.0
    return error / demand if demand > 0 else float("inf")


def sums_until(values: Floats, leads: Ints) -> Floats:
    """Sums of the bins from the first to each of `leads` (…, origins, leads); one over few gaps is scaled up.

    NaN where too little is known.
    """
    known = np.isfinite(values)
    share = np.cumsum(known, axis=-1)[..., leads - 1] / leads
    sums = np.cumsum(np.where(known, values, 0.0), axis=-1)[..., leads - 1]
    whole: Floats = np.divide(sums, share, out=np.full(sums.shape, np.nan), where=share >= MIN_KNOWN)
    return whole
