"""The hour ahead from a history and what was learned: the path, its quantiles, window peaks, arrivals, and the gate.

Pure: the same history, fit and now give the same forecast, live, in a test and in a replay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from controllers.domain import Forecast, Horizon
from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import outcome, ratio, shortfall
from controllers.forecast.calibration import Spread
from controllers.forecast.history import Bools, Floats, History, Ints, Refusal, Why
from controllers.forecast.models import MODELS
from controllers.forecast.selection import NAIVES, STALE_SECONDS, Fitted, bias_at, bounded, correct, knots, leads_in

LIVE_SECONDS = 3600.0  # how far back recent forecasts are judged
HALF_LIFE_SECONDS = 1200.0  # a miss twenty minutes ago counts half
LIVE_ORIGINS = 40
MIN_LIVE_PAIRS = 12
# Hysteresis: to open, a model must be clearly better than the naives; once open it may be as good.
OPENS_BELOW, STAYS_BELOW = 0.98, 1.02
# To close on recent errors it must be both worse than the naives and worse than it promised.
LIVE_WORSE = (1.0, 1.15)  # than the better naive, in the last hour: to keep the gate closed, to close it
LIVE_SURPRISE = (1.25, 1.5)  # than promised by the backtest
SHOCK = 4.0  # times the usual scaled error: whatever the naives do, this is not the demand that was learned
USUAL_SWING = 1.3  # an hour's errors may be this much above the usual without the band growing
MAX_WIDENING = 4.0
MAX_RISE = 3.0  # a path stays below this many times the highest demand seen


class Gate(StrEnum):
    """Why a forecast counts, or does not: a closed vocabulary."""

    OPEN = "open"
    COLD_START = "cold_start"  # no model could be tried yet
    NO_SKILL = "no_skill"  # no better than a naive forecast over the last days
    DEGRADED = "degraded"  # within the last hour: worse than a naive forecast and than promised, or far off


@dataclass(frozen=True, slots=True)
class Live:
    """How forecasts would have done over the last hour: errors as WAPE."""

    model: float
    naive: float  # the better naive forecast
    promised: float  # what the backtest lets expect of the model at this level of demand

    @property
    def surprise(self) -> float:
        return self.model / self.promised if self.promised > 0 else 1.0 if self.model <= 0 else SHOCK


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast with what led to it. `path`: (Unix seconds, demand per second, its quantiles) for each bin ahead."""

    forecast: Forecast
    gate: Gate
    live: Live | None  # None: too little came due to tell
    path: tuple[tuple[float, float, dict[float, float]], ...]
    data_age_seconds: float
    widened: float  # factor on the band after a bad hour; 1: as calibrated


def forecast(
    history: History,
    calendar: Calendar,
    fitted: Fitted,
    now: float,
    *,
    quantiles: Sequence[float],
    valid_seconds: float,
) -> Forecast:
    """What `outlook` says, without how it came about."""
    return outlook(history, calendar, fitted, now, quantiles=quantiles, valid_seconds=valid_seconds).forecast


def outlook(
    history: History,
    calendar: Calendar,
    fitted: Fitted,
    now: float,
    *,
    quantiles: Sequence[float],
    valid_seconds: float,
    gate_was_open: bool | None = None,
) -> Outlook:
    """The forecast made at `now` (Unix seconds) for the horizons of the fit. Raises Refusal.

    `gate_was_open`: of the forecast before this one, for hysteresis; None: this is the first.
    """
    known = bounded(history.until(now), fitted.ceiling)
    age = now - known.end
    if age > max(STALE_SECONDS, 3 * known.step_seconds):
        raise Refusal(Why.STALE, f"the newest sample is {age:.0f} s old, the limit is {STALE_SECONDS:.0f} s")
    newest = len(known.values) - 1
    origins = recent_origins(newest, known.step_seconds, max(fitted.horizons))
    paths = MODELS[fitted.model].paths(fitted.learned, known, np.append(origins, newest), fitted.steps)
    actual, censored = outcome(known, origins, fitted.steps)
    bias = bias_at(paths[:-1], actual, censored, origins, np.array([newest]), fitted.offset, known.step_seconds)
    path = correct(paths[-1:], fitted.correction, bias, fitted.offset)[0]
    path = np.minimum(path, MAX_RISE * float(np.nanmax(known.values)))
    live = judge(known, fitted, origins, paths[:-1], actual, censored)
    gate = gate_of(fitted, live, gate_was_open)
    widened = 1.0 if live is None else float(np.clip(live.surprise / USUAL_SWING, 1.0, MAX_WIDENING))
    made = Forecast(
        made_at=now,
        valid_until=now + valid_seconds,
        model=fitted.model,
        gate_open=gate is Gate.OPEN,
        horizons=horizons_of(path, fitted, age, sorted(quantiles), widened, MAX_RISE * float(np.nanmax(known.values))),
    )
    return Outlook(made, gate, live, whole_path(path, fitted, known.end, now, sorted(quantiles), widened), age, widened)


def recent_origins(newest: int, step_seconds: float, longest_seconds: float) -> Ints:
    """Origins whose forecasts came due within the last hour, at up to an hour's lead."""
    reach = leads_in(LIVE_SECONDS + min(longest_seconds, LIVE_SECONDS), step_seconds)
    space = max(1, reach // LIVE_ORIGINS)
    return np.arange(newest - 1, max(newest - reach, 0), -space, dtype=np.int64)[::-1]


def judge(known: History, fitted: Fitted, origins: Ints, paths: Floats, actual: Floats, censored: Bools) -> Live | None:
    """The model against the naive forecasts where both came due within the last hour, recent misses counting more."""
    learned = {"last_value": None, "seasonal_naive": fitted.naive}
    naives = [MODELS[name].paths(learned[name], known, origins, fitted.steps) for name in NAIVES if name in fitted.wape]
    if not naives:
        return None
    errors, demand, promised, pairs = np.zeros(1 + len(naives)), 0.0, 0.0, 0
    for horizon in fitted.horizons:
        lead = leads_in(horizon, known.step_seconds)
        age = (len(known.values) - 1 - origins - lead) * known.step_seconds
        due = (age >= 0) & (age < LIVE_SECONDS) & np.isfinite(actual[:, lead - 1])
        if horizon > LIVE_SECONDS or not due.any():
            continue
        weight = 0.5 ** (age[due] / HALF_LIFE_SECONDS)
        weight /= weight.sum()  # every horizon counts the same
        came, bound = actual[due, lead - 1], censored[due, lead - 1]
        errors += [float(weight @ shortfall(said[due, lead - 1], came, bound)) for said in (paths, *naives)]
        demand += float(weight @ came)
        promised += float(weight @ nearest(fitted, lead).expected_miss(paths[due, lead - 1]))
        pairs += int(due.sum())
    if pairs < MIN_LIVE_PAIRS:
        return None
    return Live(ratio(float(errors[0]), demand), ratio(float(errors[1:].min()), demand), ratio(promised, demand))


def gate_of(fitted: Fitted, live: Live | None, was_open: bool | None) -> Gate:
    best = fitted.best_naive
    if best is None:
        return Gate.COLD_START
    limit = STAYS_BELOW if was_open else OPENS_BELOW
    if fitted.model in NAIVES or not fitted.wape[fitted.model] < limit * best:
        return Gate.NO_SKILL
    if live is not None:
        trusted = was_open is not False
        worse = live.model > LIVE_WORSE[trusted] * live.naive and live.surprise > LIVE_SURPRISE[trusted]
        if worse or live.surprise >= SHOCK:
            return Gate.DEGRADED
    return Gate.OPEN


def horizons_of(
    path: Floats, fitted: Fitted, age: float, quantiles: list[float], widened: float, limit: float
) -> tuple[Horizon, ...]:
    """`age`: seconds between the end of the newest bin and the forecast. Longer windows never have smaller peaks."""
    step = fitted.step_seconds
    sums = np.concatenate(([0.0], np.cumsum(path))) * step
    places = np.arange(len(sums))
    found: list[Horizon] = []
    for seconds in fitted.horizons:
        lead = (age + seconds) / step
        value = float(np.interp(lead, places[1:], path))
        first = int(age / step + 0.5)
        last = max(first + 1, int(lead + 0.5))
        base = np.array([path[first:last].max()])
        arrivals = np.interp(lead, places, sums) - np.interp(age / step, places, sums)
        before = found[-1] if found else Horizon(0, 0.0)
        peaks = {q: _at(fitted.peak[seconds], base, q, widened, limit) for q in quantiles}
        due = {
            q: _at(fitted.arrivals[seconds], np.array([arrivals]), q, widened, limit * seconds)
            for q in sorted({*quantiles, 0.5})
        }
        found.append(
            Horizon(
                seconds,
                value,
                quantiles={q: min(value_quantile(fitted, value, lead, q, widened), limit) for q in quantiles},
                peak={q: max(peak, before.peak.get(q, 0.0)) for q, peak in peaks.items()},
                arrivals={q: max(items, before.arrivals.get(q, 0.0)) for q, items in due.items()},
            )
        )
    return tuple(found)


def value_quantile(fitted: Fitted, value: float, lead: float, q: float, widened: float) -> float:
    """Between the two nearest leads at which the spread was learned."""
    leads = list(fitted.value)
    there = [float(fitted.value[knot].quantile(np.array([value]), q, widened)[0]) for knot in leads]
    return float(np.interp(lead, leads, there))


def whole_path(
    path: Floats, fitted: Fitted, end: float, now: float, quantiles: list[float], widened: float
) -> tuple[tuple[float, float, dict[float, float]], ...]:
    leads, last = list(fitted.value), now + max(fitted.horizons)
    bands = {q: np.array([fitted.value[knot].quantile(path, q, widened) for knot in leads]) for q in quantiles}
    rows = []
    for place, value in enumerate(path):
        at = end + (place + 1) * fitted.step_seconds
        if now < at <= last + fitted.step_seconds:
            band = {q: float(np.interp(place + 1, leads, bands[q][:, place])) for q in quantiles}
            rows.append((at, float(value), band))
    return tuple(rows)


def nearest(fitted: Fitted, lead: int) -> Spread:
    return fitted.value[min(knots(fitted.steps), key=lambda knot: abs(knot - lead))]


def _at(band: Spread, base: Floats, q: float, widened: float, limit: float) -> float:
    return min(float(band.quantile(base, q, widened)[0]), limit)
