"""Rolling-origin backtest: what each model would have said on the last days, knowing only what was known then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.forecast.history import Bools, Floats, History, Ints
from controllers.forecast.models import Model

SPAN_DAYS = 7.0  # of the history's end, at most
SPAN_SHARE = 0.25
FOLD_DAYS = 2.5  # a model is fitted anew at least this often
MAX_ORIGINS = 400
MIN_KNOWN = 0.8  # of a window, for its maximum or sum to count


@dataclass(frozen=True, slots=True)
class Trial:
    """Predictions of every model at the same origins. `paths[model]` is (origins, steps); NaN where it had no say."""

    origins: Ints
    paths: Mapping[str, Floats]

    def outcome(self, history: History, steps: int) -> tuple[Floats, Bools]:
        return outcome(history, self.origins, steps)


def outcome(history: History, origins: Ints, steps: int) -> tuple[Floats, Bools]:
    """What came after each origin (origins, steps), NaN where unknown, and which of it is only a lower bound."""
    at = origins[:, None] + np.arange(1, steps + 1)
    inside = at < len(history.values)
    at = np.minimum(at, len(history.values) - 1)
    return np.where(inside, history.values[at], np.nan), inside & history.censored[at]


def trial(history: History, time_zone: str, steps: int, models: Mapping[str, Model]) -> Trial:
    """Fits on what lies before each fold of the last days, predicts inside it. No origins when it is too short."""
    count = len(history.values)
    span = min(round(SPAN_DAYS * history.steps_per_day), int(SPAN_SHARE * count))
    folds = max(1, -(-span // round(FOLD_DAYS * history.steps_per_day)))
    origins = spaced(count - span, count - 1)
    if span < 2 or not len(origins):
        return Trial(np.empty(0, dtype=np.int64), {})
    paths = {name: np.full((len(origins), steps), np.nan) for name in models}
    for fold in range(folds):
        cut = count - span + fold * span // folds
        end = count - span + (fold + 1) * span // folds
        rows = np.flatnonzero((origins >= cut) & (origins < end))
        before = history.first(cut)
        if not len(rows) or not np.isfinite(before.values).any():
            continue
        known = history.first(int(origins[rows].max()) + 1)
        for name, model in models.items():
            if before.known_seconds >= model.needs_seconds:
                learned = model.fit(before, time_zone, steps)
                paths[name][rows] = model.paths(learned, known, origins[rows], steps)
    return Trial(origins, {name: path for name, path in paths.items() if np.isfinite(path).any()})


def spaced(first: int, end: int) -> Ints:
    """At most MAX_ORIGINS indices in [first, end), at a spacing that visits every minute of the hour in turn."""
    space = max(1, -(-(end - first) // MAX_ORIGINS))
    while np.gcd(space, 60) != 1:
        space += 1
    return np.arange(first, end, space, dtype=np.int64)


def shortfall(predicted: Floats, actual: Floats, censored: Bools) -> Floats:
    """Absolute error; where reality is only a lower bound, only what the prediction lies below it."""
    missed = actual - predicted
    return np.where(censored, np.maximum(missed, 0.0), np.abs(missed))


def wape(paths: Floats, actual: Floats, censored: Bools, leads: Sequence[int]) -> dict[int, float]:
    """Summed absolute error over summed demand, at each lead (bins); infinite where there was error but no demand."""
    table = {}
    for lead in leads:
        error = shortfall(paths[:, lead - 1], actual[:, lead - 1], censored[:, lead - 1])
        known = np.isfinite(error)
        table[lead] = ratio(float(error[known].sum()), float(actual[known, lead - 1].sum()))
    return table


def ratio(error: float, demand: float) -> float:
    if error <= 0:
        return 0.0
    return error / demand if demand > 0 else float("inf")


def windows(values: Floats, first: int, last: int, kind: str) -> Floats:
    """Largest value ("peak") or sum ("arrivals") of the leads first..last (from 1) in each row of (origins, steps).

    NaN where too little is known; a sum over few gaps is scaled up.
    """
    part = values[:, first - 1 : last]
    known = np.isfinite(part)
    share = known.mean(axis=1)
    enough = share >= MIN_KNOWN
    filled = np.where(known, part, 0.0)
    whole = filled.max(axis=1) if kind == "peak" else filled.sum(axis=1) / np.where(enough, share, 1.0)
    return np.where(enough, whole, np.nan)


def recent_bias(origins: Ints, missed: Floats, leads: Ints, at: Ints, memory: int) -> Floats:
    """Mean residual, at each lead, of the forecasts whose outcome was known at `at` and at most `memory` bins old.

    `missed` (origins, leads): residuals; NaN unknown. Shape (len(at), leads); 0 where nothing is known.
    """
    bias = np.zeros((len(at), len(leads)))
    for column, lead in enumerate(leads.tolist()):
        known = np.isfinite(missed[:, column])
        sums = np.concatenate(([0.0], np.cumsum(np.where(known, missed[:, column], 0.0))))
        counts = np.concatenate(([0], np.cumsum(known)))
        high = np.searchsorted(origins, at - lead, side="right")
        low = np.searchsorted(origins, at - lead - memory, side="right")
        number = counts[high] - counts[low]
        bias[:, column] = np.divide(sums[high] - sums[low], number, out=np.zeros(len(at)), where=number > 0)
    return bias
