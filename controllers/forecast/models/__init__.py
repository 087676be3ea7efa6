"""The models, by name. A new one is a file with `fit` and `paths`, and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models import (
    arima,
    ensemble,
    fourier,
    gradient_boosting,
    holt_winters,
    last_value,
    level_boosting,
    profile_ratio,
    random_forest,
    ridge,
    seasonal_naive,
    smoothing,
    trees,
)

Fit = Callable[[History, str, int], Any]
Paths = Callable[[Any, History, Ints, int], Floats]


@dataclass(frozen=True, slots=True)
class Model:
    """Two pure functions.

    `fit(history, time_zone, steps)`: what is learned from a history, as a value that can be pickled.
    `paths(learned, history, origins, steps)`: demand per second of the `steps` bins after each of `origins` (indices of
    the newest bin known), shape (origins, steps), finite and >= 0. It may not look at bins after an origin.
    """

    fit: Fit
    paths: Paths
    needs_seconds: float  # of history, before it says anything
    heavy: bool = False  # costs seconds of CPU a fit: fitted in the daily slice that the configuration bounds
    members: tuple[str, ...] = ()  # of an ensemble, whose `paths` come from theirs; see models/ensemble.py


MODELS: dict[str, Model] = {
    "last_value": Model(last_value.fit, last_value.paths, last_value.NEEDS_SECONDS),
    "seasonal_naive": Model(seasonal_naive.fit, seasonal_naive.paths, seasonal_naive.NEEDS_SECONDS),
    "day_naive": Model(seasonal_naive.fit_day, seasonal_naive.paths, seasonal_naive.NEEDS_SECONDS),
    "week_naive": Model(seasonal_naive.fit_week, seasonal_naive.paths, seasonal_naive.NEEDS_WEEK_SECONDS),
    "holt_winters": Model(holt_winters.fit, holt_winters.paths, holt_winters.NEEDS_SECONDS),
    "fourier": Model(fourier.fit, fourier.paths, fourier.NEEDS_SECONDS),
    "profile_ratio": Model(profile_ratio.fit, profile_ratio.paths, profile_ratio.NEEDS_SECONDS),
    "ridge": Model(ridge.fit, ridge.paths, ridge.NEEDS_SECONDS),
    "smoothing": Model(smoothing.fit, smoothing.paths, smoothing.NEEDS_SECONDS),
    "arima": Model(arima.fit, arima.paths, arima.NEEDS_SECONDS, heavy=True),
    "gradient_boosting": Model(gradient_boosting.fit, trees.paths, trees.NEEDS_SECONDS, heavy=True),
    "level_boosting": Model(level_boosting.fit, trees.paths, trees.NEEDS_SECONDS, heavy=True),
    "random_forest": Model(random_forest.fit, trees.paths, trees.NEEDS_SECONDS, heavy=True),
}

NAIVE = ("last_value", "day_naive", "week_naive")  # good ones have a say as well
CHEAP = ("ridge", "fourier", "holt_winters", "profile_ratio", "smoothing")
HEAVY = ("arima", "random_forest", "gradient_boosting", "level_boosting")


def mixed(*names: str) -> Model:
    """The ensemble of those of `names` that there are."""
    members = {name: MODELS[name] for name in names if name in MODELS}
    needs = sorted(member.needs_seconds for member in members.values())[: ensemble.FEWEST][-1]
    return Model(partial(ensemble.fit, members), partial(ensemble.paths, members), needs, members=tuple(members))


MODELS["cheap_ensemble"] = mixed(*NAIVE, *CHEAP)
MODELS["ensemble"] = mixed(*NAIVE, *CHEAP, *HEAVY)
