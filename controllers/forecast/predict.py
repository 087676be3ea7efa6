"""The hour ahead from a history and what was learned: the path, its quantiles, window peaks and arrivals.

Pure: the same history, fit and now give the same forecast, live, in a test and in a replay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.domain import Forecast, Horizon
from controllers.forecast import events
from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import outcome, times_of
from controllers.forecast.calibration import Spread
from controllers.forecast.gate import Gate as Gate
from controllers.forecast.gate import Live, gate_of, judge, recent_origins, skill_of
from controllers.forecast.history import Floats, History, Ints, Refusal, Why
from controllers.forecast.models import MODELS
from controllers.forecast.selection import NAIVES, STALE_SECONDS, Fitted, bias_at, bounded, correct, with_occasions
from controllers.forecast.skill import UNKNOWN_SKILL, Skill

USUAL_SWING = 1.3  # an hour's errors may be this much above the usual without the band growing
MAX_WIDENING = 4.0
MAX_RISE = 3.0  # a path stays below this many times the highest demand seen


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast with what led to it. `path`: (Unix seconds, demand per second, its quantiles) for each bin ahead."""

    forecast: Forecast
    gate: Gate
    live: Live | None  # None: too little came due to tell
    path: tuple[tuple[float, float, dict[float, float]], ...]
    data_age_seconds: float
    widened: float  # factor on the band after a bad hour; 1: as calibrated
    skill: Skill = UNKNOWN_SKILL  # of the last day and week


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
    plain = events.without(known, calendar, fitted.effects)

    def told(model: str, learned: Any, at: Ints) -> Floats:
        path = MODELS[model].paths(learned, plain, at, fitted.steps)
        return with_occasions({model: path}, plain, at, calendar, fitted.effects)[model]

    paths = told(fitted.model, fitted.learned, np.append(origins, newest))
    actual, censored = outcome(known, origins, fitted.steps)
    bias = bias_at(paths[:-1], actual, censored, origins, np.array([newest]), fitted.offset, known.step_seconds)
    path = correct(paths[-1:], fitted.correction, bias, fitted.offset)[0]
    path = np.minimum(path, MAX_RISE * float(np.nanmax(known.values)))
    coming = times_of(newest + np.arange(1, fitted.steps + 1), known)
    path = events.floored(path, coming, known.step_seconds, calendar)
    naives = [
        told(name, fitted.parts[name].value, origins) for name in NAIVES if name in fitted.wape and name in fitted.parts
    ]
    live = judge(known, fitted, origins, paths[:-1], naives, actual, censored)
    skill = skill_of(known, fitted, origins, paths[:-1], naives)
    gate = gate_of(fitted, live, skill, gate_was_open)
    widened = 1.0 if live is None else float(np.clip(live.surprise / USUAL_SWING, 1.0, MAX_WIDENING))
    made = Forecast(
        made_at=now,
        valid_until=now + valid_seconds,
        model=fitted.model,
        gate_open=gate is Gate.OPEN,
        horizons=horizons_of(path, fitted, age, sorted(quantiles), widened, MAX_RISE * float(np.nanmax(known.values))),
    )
    return Outlook(
        made, gate, live, whole_path(path, fitted, known.end, now, sorted(quantiles), widened), age, widened, skill
    )


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


def _at(band: Spread, base: Floats, q: float, widened: float, limit: float) -> float:
    return min(float(band.quantile(base, q, widened)[0]), limit)
