"""The hour ahead from a history and what was learned: the path, its quantiles, window peaks and arrivals.

Pure: the same history, fit and now give the same forecast, live, in a test and in a replay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controllers.domain import DecisionWindow, Forecast, Horizon
from controllers.forecast import events, floors, strays
from controllers.forecast import windows as ahead
from controllers.forecast.adaptive import State
from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import outcome
from controllers.forecast.correction import bias_at, correct
from controllers.forecast.gate import Gate as Gate
from controllers.forecast.gate import Live, gate_of, judge, recent_origins, skill_of
from controllers.forecast.history import Floats, History, Refusal, Why
from controllers.forecast.selection import (
    Fitted,
    as_learned_from,
    asked,
    bounded,
    stale_after,
)
from controllers.forecast.skill import UNKNOWN_SKILL, Skill
from controllers.forecast.windows import Coverage

# Of what a decision covers the scaler is told the whole distribution, so that it can weigh being short against cost.
DECISION_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995)
MAX_RISE = 3.0  # a path stays below this many times the highest demand seen


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast with what led to it. `path`: (Unix seconds, demand per second, its quantiles) for each bin ahead."""

    forecast: Forecast
    gate: Gate
    live: Live | None  # None: too little came due to tell
    path: tuple[tuple[float, float, dict[float, float]], ...]
    data_age_seconds: float
    widened: float  # factor on the nearest horizon's band by the last hours' errors; 1: as calibrated
    skill: Skill = UNKNOWN_SKILL  # of the last day and week
    coverage: tuple[Coverage, ...] = ()  # of what came due within the last day


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
    oldest = stale_after(known.step_seconds)
    if age > oldest:
        raise Refusal(Why.STALE, f"the newest sample is {age:.0f} s old, the limit is {oldest:.0f} s")
    fitted = replace(fitted, effects=events.believed(fitted.effects, known, calendar))
    newest = len(known.values) - 1
    origins = recent_origins(newest, known.step_seconds, max(fitted.horizons))
    plain = as_learned_from(known, calendar, fitted.effects)

    behind = ahead.since(fitted.ahead, known)
    said = asked(fitted, plain, calendar, np.concatenate((behind, origins, [newest])))
    every = said[fitted.model]
    paths = every[len(behind) :]
    actual, censored = outcome(known, origins, fitted.steps)
    bias = bias_at(paths[:-1], actual, censored, origins, np.array([newest]), fitted.offset, known.step_seconds)
    path = correct(paths[-1:], fitted.correction, bias, fitted.offset)[0]
    limit = MAX_RISE * float(np.nanmax(known.values))
    if not np.isfinite(path).all():
        raise Refusal(Why.FAILED, f"{fitted.model} gave no number for {int((~np.isfinite(path)).sum())} bins")
    path = np.minimum(path, limit)
    naives = [said[name][len(behind) : -1] for name in fitted.yardsticks]
    live = judge(known, fitted, origins, paths[:-1], naives, actual, censored)
    skill = skill_of(known, fitted, origins, paths[:-1], naives)
    gate = gate_of(fitted, live, skill, gate_was_open)
    state, coverage = ahead.follow(fitted.ahead, known, behind, every[: len(behind)])
    shown = sorted(quantiles)
    hints = strays.hints(known, np.array([newest]))
    horizons, window = horizons_of(path, hints, fitted, state, age, shown, limit)
    if window is not None and gate is not Gate.OPEN and fitted.ahead.steady is not None:
        quantiles_of = sorted(window.peak)
        said = fitted.ahead.steady.quantiles(hints, hints[:, 0], np.array(quantiles_of))[0]
        window = replace(window, peak=dict(zip(quantiles_of, np.minimum(said, limit).tolist(), strict=True)))
    made = Forecast(
        made_at=now,
        valid_until=now + valid_seconds,
        model=fitted.model,
        gate_open=gate is Gate.OPEN,
        horizons=floors.lifted_horizons(horizons, now, calendar),
        window=floors.lifted_window(window, now, calendar),
    )
    return Outlook(
        forecast=made,
        gate=gate,
        live=live,
        path=floors.lifted_path(
            whole_path(path, fitted, state, known.end, now, shown, limit), known.step_seconds, calendar
        ),
        data_age_seconds=age,
        widened=float(state.swing[0]),
        skill=skill,
        coverage=coverage,
    )


def horizons_of(
    path: Floats,
    hints: Floats,
    fitted: Fitted,
    state: State,
    age: float,
    quantiles: list[float],
    limit: float,
) -> tuple[tuple[Horizon, ...], DecisionWindow | None]:
    """`hints`: see `strays`. `age`: seconds between the end of the newest bin and the forecast.

    Longer windows never have smaller peaks.
    """
    learned, step = fitted.ahead, fitted.step_seconds
    tops, means = ahead.newest(learned, path, age, step)
    wanted = sorted({*quantiles, 0.5, *(DECISION_QUANTILES if learned.decision else ())})
    found = np.minimum(ahead.quantiles(learned, state, tops, means, np.array(wanted), hints), limit)
    answers = {
        (window.kind, window.seconds): dict(zip(wanted, row, strict=True))
        for window, row in zip(learned.windows, found.tolist(), strict=True)
    }
    ends = (age + np.array(fitted.horizons)) / step
    rates = np.interp(ends, np.arange(1, len(path) + 1), path).tolist()
    horizons: list[Horizon] = []
    for seconds, demand in zip(fitted.horizons, rates, strict=True):
        before = horizons[-1] if horizons else Horizon(0, 0.0)
        value, peak, rate = (answers[kind, seconds] for kind in (ahead.VALUE, ahead.PEAK, ahead.ARRIVALS))
        horizons.append(
            Horizon(
                seconds,
                demand,
                quantiles={q: value[q] for q in quantiles},
                peak={q: max(peak[q], before.peak.get(q, 0.0)) for q in quantiles},
                arrivals={q: max(rate[q] * seconds, before.arrivals.get(q, 0.0)) for q in sorted({*quantiles, 0.5})},
            )
        )
    if learned.decision is None:
        return tuple(horizons), None
    peak = next(answers[window.kind, window.seconds] for window in learned.windows if window.kind == ahead.WINDOW)
    return tuple(horizons), DecisionWindow(*learned.decision, peak={q: peak[q] for q in wanted})


def whole_path(
    path: Floats,
    fitted: Fitted,
    state: State,
    end: float,
    now: float,
    quantiles: list[float],
    limit: float,
) -> tuple[tuple[float, float, dict[float, float]], ...]:
    last = now + max(fitted.horizons)
    bands = np.minimum(ahead.along(fitted.ahead, state, path, np.array(quantiles)), limit)
    rows = []
    for place, value in enumerate(path):
        at = end + (place + 1) * fitted.step_seconds
        if now < at <= last + fitted.step_seconds:
            rows.append((at, float(value), dict(zip(quantiles, bands[place].tolist(), strict=True))))
    return tuple(rows)
