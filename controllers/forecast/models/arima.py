"""ARIMA(2,1,2) on what the seasons leave of the logs.

The coefficients come from statsmodels' likelihood over the last days, in a fit bounded by its points and iterations.
One that fails, or is worse an hour ahead than exponential smoothing on the same days, is replaced by that, which is an
ARIMA(0,1,1). Forecasts are made by a recursion of our own, so the process that publishes needs no statsmodels; a gap is
filled with what was expected of it.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from controllers.forecast.features import Basis, basis
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models.days import by_days, coarse, softened
from controllers.forecast.models.weekday_paths import weekday_paths
from controllers.forecast.models.weekdays import State, likeness, seasons
from controllers.forecast.seasons import Phases, phase_factors, without
from controllers.forecast.sums import bins

NEEDS_SECONDS = 2 * 86_400.0
ORDER = (2, 1, 2)
POINTS = 1500
ITERATIONS = 50
SMOOTHING = (0.0, 0.0, -0.85, 0.0)
ALIKE, OTHER = 0.3, 0.1  # how much days of the same kind, and others, count in a weekday's season
SEASON_SHARE = 0.06
WIDTH_SECONDS = 300.0
RUN_IN_DAYS = 3
LARGEST_ROOT = 0.985
FURTHEST = 300.0  # a logarithm beyond this is not worth computing with

Coefficients = tuple[float, float, float, float]  # autoregressive 1, 2; moving average 1, 2


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    mix: Floats  # (7, 7), as `likeness` gives it
    coefficients: Coefficients
    state: State
    phases: tuple[Phases, ...]  # of steady periods other than the calendar's


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = softened(basis(coarse(history, len(history.values) - 1), time_zone))
    phases = phase_factors(history)
    part = coarse(without(history, phases, fixed.level_offset), len(history.values) - 1)
    mix = likeness(fixed.quiet, ALIKE, OTHER)
    days = by_days(part, time_zone, fixed.ceiling, 0)
    logs = np.log(days.values + fixed.level_offset)
    width = int(WIDTH_SECONDS / part.step_seconds)
    season = seasons(days, logs, mix[None], share=SEASON_SHARE, logs=True, width=width)
    rest = (logs - season.own(0, days)).ravel()[: int(days.places[-1]) + 1][-POINTS:]
    found = estimated(rest)
    hour = bins(3600.0, part.step_seconds)
    if found is None or not missed(rest, found, hour) < missed(rest, SMOOTHING, hour):
        found = SMOOTHING
    return Learned(fixed, mix, found, season.state, phases)


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    return weekday_paths(learned, history, origins, steps, _paths)


def _paths(learned: Learned, after: State | None, part: History, origins: Ints, steps: int) -> Floats:
    fixed = learned.basis
    days = by_days(part, fixed.time_zone, fixed.ceiling, steps)
    logs = np.log(days.values + fixed.level_offset)
    width = int(WIDTH_SECONDS / part.step_seconds)
    season = seasons(days, logs, learned.mix[None], share=SEASON_SHARE, logs=True, width=width, after=after)
    rest = (logs - season.own(0, days)).ravel()
    mine = days.places[origins]
    skip = max(0, int(mine.min()) - RUN_IN_DAYS * days.slots)
    ahead = foreseen(rest[skip : int(mine.max()) + 1], learned.coefficients, mine - skip, steps)
    at = origins[:, None] + np.arange(1, steps + 1)
    ahead += season.at(0, days, origins[:, None], days.places[at])
    demand: Floats = np.clip(np.exp(ahead) - fixed.level_offset, 0.0, fixed.ceiling)
    return demand


def estimated(rest: Floats) -> Coefficients | None:
    """By maximum likelihood; None where that fails or gives something that would run away."""
    known = rest[np.isfinite(rest)]
    if len(known) < 100 or float(np.ptp(known)) < 1e-9:
        return None
    from statsmodels.tsa.arima.model import ARIMA
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # matrices this small gain nothing from threads, which would wait for one another
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged shows in how far off it is
        try:
            fitted = ARIMA(rest, order=ORDER, trend="n").fit(method_kwargs={"maxiter": ITERATIONS, "disp": 0})
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            return None
    first, second, third, fourth = (float(each) for each in fitted.params[:4])
    if not np.isfinite([first, second, third, fourth]).all():
        return None
    first, second = drawn_in(first, second, -1.0)
    third, fourth = drawn_in(third, fourth, 1.0)
    return first, second, third, fourth


def drawn_in(one: float, two: float, sign: float) -> tuple[float, float]:
    """A polynomial's coefficients with its roots drawn inside the unit circle: what lies on it is never forgotten."""
    largest = float(np.abs(np.roots([1.0, sign * one, sign * two])).max(initial=0.0))
    shrink = min(1.0, LARGEST_ROOT / largest) if largest > 0 else 1.0
    return one * shrink, two * shrink**2


def missed(rest: Floats, coefficients: Coefficients, lead: int) -> float:
    """Mean absolute error at that lead."""
    at = np.arange(len(rest) // 8, max(len(rest) - lead, 0))
    error = np.abs(foreseen(rest, coefficients, at, lead)[:, -1] - rest[at + lead])
    return float(np.nanmean(error)) if np.isfinite(error).any() else float("inf")


def foreseen(rest: Floats, coefficients: Coefficients, at: Ints, steps: int) -> Floats:
    """The `steps` values after each of `at`: (at, steps). Unknown ones (NaN) are taken as they were expected."""
    first, second, third, fourth = coefficients
    known = rest[np.isfinite(rest)]
    value = float(known[0]) if len(known) else 0.0
    change = change_before = surprise = surprise_before = 0.0
    states = np.empty((len(rest), 5))
    for place, seen in enumerate(rest.tolist()):
        expected = first * change + second * change_before + third * surprise + fourth * surprise_before
        change_before, surprise_before = change, surprise
        if seen == seen:
            change, surprise, value = seen - value, seen - value - expected, seen
        else:
            change, surprise, value = expected, 0.0, value + expected
        states[place] = value, change, change_before, surprise, surprise_before
    values, changes, before, surprises, surprises_before = states[at].T
    found = np.empty((len(at), steps))
    for lead in range(steps):
        coming = first * changes + second * before + third * surprises + fourth * surprises_before
        before, surprises_before = changes, surprises
        changes, surprises = coming, np.zeros(len(at))
        values = values + coming
        found[:, lead] = np.clip(values, -FURTHEST, FURTHEST)
    return found
