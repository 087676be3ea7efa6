"""Whether a forecast counts. It has to beat the naive forecasts over the last week, the last day and the last hour.

The week says whether there is anything to foresee here; the day, whether the model still foresees it; the hour closes
the gate soon after the demand has become another one.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from controllers.forecast.backtest import ratio, shortfall
from controllers.forecast.calibration import Spread, knots, level_bins
from controllers.forecast.history import Bools, Floats, History, Ints, leads_in
from controllers.forecast.selection import NAIVES, Fitted
from controllers.forecast.skill import UNKNOWN_SKILL, Skill, judged_leads, record, since, skill

LIVE_SECONDS = 3600.0  # how far back recent forecasts are judged
HALF_LIFE_SECONDS = 1200.0  # a miss twenty minutes ago counts half
LIVE_ORIGINS = 40
MIN_LIVE_PAIRS = 12
# Hysteresis: to open, a model must be clearly better than the naives; once open it may be as good.
OPENS_BELOW, STAYS_BELOW = 0.98, 1.02
DAY_OPENS_BELOW, DAY_STAYS_BELOW = 1.0, 1.1  # a day is short: even a good model has a bad one
QUARTER_OPENS_BELOW, QUARTER_STAYS_BELOW = 0.95, 1.0  # six good hours outweigh a bad day: a change has been learned
# To close on recent errors it must be both worse than the naives and worse than it promised.
LIVE_WORSE = (1.0, 1.15)  # than the better naive, in the last hour: to keep the gate closed, to close it
LIVE_SURPRISE = (1.4, 2.0)  # than promised by the backtest; one hour in twenty is twice as far off as usual
# Times the promised error: whatever the naives do, this is not the demand that was learned. On the reference traces 2.5
# is passed in one to six per cent of all hours without a change, and within 15 to 45 minutes of one that matters.
SHOCK = (2.0, 2.5)
# Demand has another level when quarter-hour means are off by as many times their own promised error. Those are far
# smaller than single bins' where demand is noisy, so it takes more: nearly all of the last half hour lies on one side
# (a single burst does not), by a good part of the level, and a naive forecast knows better.
LEVEL_WITHIN_SECONDS = 1800.0
ONE_SIDED = 0.9
LEVEL_APART = 0.4  # of the larger of what was foreseen and what came; to a third or threefold: 0.67
MOST_SURPRISE = 10.0  # where no error at all was promised


class Gate(StrEnum):
    """Why a forecast counts, or does not: a closed vocabulary."""

    OPEN = "open"
    COLD_START = "cold_start"  # no model could be tried yet
    NO_SKILL = "no_skill"  # no better than a naive forecast over the last week
    NO_SKILL_TODAY = "no_skill_today"  # over the last day
    DEGRADED = "degraded"  # within the last hour: worse than a naive forecast and than promised, or far off


@dataclass(frozen=True, slots=True)
class Live:
    """How forecasts would have done over the last hour: errors as WAPE, or as shares of `promised` if nothing came."""

    model: float
    naive: float  # the better naive forecast
    promised: float  # what the backtest lets expect of the model, between the level foreseen and the one that came
    level: float = 0.0  # error of quarter-hour means as a multiple of the promised one; 0: not another level

    @property
    def surprise(self) -> float:
        return self.model / self.promised if self.promised > 0 else 1.0 if self.model <= 0 else MOST_SURPRISE


def recent_origins(newest: int, step_seconds: float, longest_seconds: float) -> Ints:
    """Origins whose forecasts came due within the last hour, at up to an hour's lead."""
    reach = leads_in(LIVE_SECONDS + min(longest_seconds, LIVE_SECONDS), step_seconds)
    space = max(1, reach // LIVE_ORIGINS)
    return np.arange(newest - 1, max(newest - reach, 0), -space, dtype=np.int64)[::-1]


def judge(
    known: History, fitted: Fitted, origins: Ints, paths: Floats, naives: list[Floats], actual: Floats, censored: Bools
) -> Live | None:
    """The model against the naive forecasts where both came due within the last hour, recent misses counting more."""
    leads = np.array([leads_in(h, known.step_seconds) for h in relied_on(fitted)], dtype=np.int64)
    if not naives or not len(leads):
        return None
    came, bound = actual[:, leads - 1], censored[:, leads - 1]
    age = (len(known.values) - 1 - origins[:, None] - leads) * known.step_seconds
    said = np.array([each[:, leads - 1] for each in (paths, *naives)])
    due = (age >= 0) & (age < LIVE_SECONDS) & np.isfinite(came) & np.isfinite(said).all(axis=0)
    if due.sum() < MIN_LIVE_PAIRS:
        return None
    weights = np.where(due, 0.5 ** (age / HALF_LIFE_SECONDS), 0.0)
    weights /= np.maximum(weights.sum(axis=0), 1e-9)  # every horizon counts the same
    # a forecast that is far too high has promised a large error as well: half of that counts, half at what came
    lower = np.minimum(said[0], (weights * np.where(due, came, 0.0)).sum(axis=0))
    at = np.stack((said[0], lower))
    expected = np.array(
        [nearest(fitted, lead).expected_miss(at[:, :, row]).mean(axis=0) for row, lead in enumerate(leads.tolist())]
    )

    def weighed(each: Floats) -> Floats:
        sums: Floats = (weights * np.where(due, each, 0.0)).sum(axis=(-2, -1))
        return sums

    demand, promised = float(weighed(came)), float(weighed(expected.T))
    errors, unit = weighed(shortfall(said, came, bound)), demand if demand > 0 else promised
    level = 0.0
    if one_sided(said[0], came, bound, due & (age < LEVEL_WITHIN_SECONDS)):
        level = level_apart(known, fitted, origins, paths, naives, actual, censored)
    return Live(ratio(float(errors[0]), unit), ratio(float(errors[1:].min()), unit), ratio(promised, unit), level)


def relied_on(fitted: Fitted) -> list[int]:
    """The horizons, in seconds, that decisions rest on: up to the first that reaches to the end of their window."""
    end = min(fitted.ahead.decision[1], LIVE_SECONDS) if fitted.ahead.decision else LIVE_SECONDS
    enough = min((h for h in fitted.horizons if h >= end), default=LIVE_SECONDS)
    return [h for h in fitted.horizons if h <= min(enough, LIVE_SECONDS)]


def one_sided(said: Floats, came: Floats, bound: Bools, lately: Bools) -> bool:
    """Whether nearly all forecasts (origins, horizons) were too high, or too low; every horizon counts the same."""
    pairs = np.maximum(lately.sum(axis=0), 1)
    sides = ((said > came) & ~bound, said < came)
    shares = [float(((side & lately).sum(axis=0) / pairs).sum()) for side in sides]
    return max(shares) >= ONE_SIDED * sum(shares) > 0


def level_apart(
    known: History, fitted: Fitted, origins: Ints, paths: Floats, naives: list[Floats], actual: Floats, censored: Bools
) -> float:
    """How many times their promised error quarter-hour means within the last half hour are off, if that is much."""
    bins = level_bins(known.step_seconds)
    if bins is None or fitted.level is None:
        return 0.0
    age = (len(known.values) - 1 - origins - bins) * known.step_seconds
    said = np.array([each[:, :bins].mean(axis=1) for each in (paths, *naives)])
    came, bound = actual[:, :bins].mean(axis=1), censored[:, :bins].sum(axis=1) > 0
    late = LEVEL_WITHIN_SECONDS - bins * known.step_seconds
    due = np.flatnonzero((age >= 0) & (age <= late) & np.isfinite(came) & np.isfinite(said).all(axis=0))
    if not len(due):
        return 0.0
    said, came, bound = said[:, due], came[due], bound[due]
    errors = shortfall(said, came, bound).mean(axis=1)
    if errors[0] <= max(LIVE_WORSE[1] * errors[1:].min(), LEVEL_APART * max(said[0].mean(), came.mean())):
        return 0.0
    expected = np.array([fitted.level.expected_miss(at) for at in (said[0], np.minimum(said[0], came))]).mean()
    return min(float(errors[0] / expected), MOST_SURPRISE) if expected > 0 else MOST_SURPRISE


def skill_of(known: History, fitted: Fitted, origins: Ints, paths: Floats, naives: list[Floats]) -> Skill:
    """Over the last day and week: the backtest's, and what came due since the fit."""
    if fitted.record is None:
        return UNKNOWN_SKILL
    parts = [fitted.record]
    if len(origins) > 1 and len(naives) == len(fitted.record.naives):
        every = float(origins[1] - origins[0]) * known.step_seconds
        live = record(known, origins, paths, naives, judged_leads(fitted.horizons, known.step_seconds), every)
        parts.append(since(live, fitted.trained_at))
    return skill(parts, known.end)


def gate_of(fitted: Fitted, live: Live | None, lately: Skill, was_open: bool | None) -> Gate:
    best = fitted.best_naive
    if best is None:
        return Gate.COLD_START
    limit, day_limit = (STAYS_BELOW, DAY_STAYS_BELOW) if was_open else (OPENS_BELOW, DAY_OPENS_BELOW)
    week = lately.week if lately.week is not None else ratio(fitted.wape.get(fitted.model, best), best)
    if fitted.model in NAIVES or not week < limit:
        return Gate.NO_SKILL
    if lately.day is not None and not lately.day < day_limit:
        quarter_limit = QUARTER_STAYS_BELOW if was_open else QUARTER_OPENS_BELOW
        if lately.quarter is None or not lately.quarter < quarter_limit:
            return Gate.NO_SKILL_TODAY
    if live is not None:
        trusted = was_open is not False
        worse = live.model > LIVE_WORSE[trusted] * live.naive and live.surprise > LIVE_SURPRISE[trusted]
        if worse or max(live.surprise, live.level) >= SHOCK[trusted]:
            return Gate.DEGRADED
    return Gate.OPEN


def nearest(fitted: Fitted, lead: int) -> Spread:
    return fitted.value[min(knots(fitted.steps), key=lambda knot: abs(knot - lead))]
