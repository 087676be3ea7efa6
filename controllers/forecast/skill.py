"""Is a model worth anything? Its errors beside those of the naive forecasts, over the last day and the last week."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.forecast.backtest import outcome, shortfall, times_of
from controllers.forecast.history import Floats, History, Ints, leads_in

DAY_SECONDS, WEEK_SECONDS = 86_400.0, 7 * 86_400.0
JUDGED_SECONDS = 3600.0
MIN_ROWS = 12  # of forecasts that came due, for a skill to mean something
WORST = 2.0  # times the naive forecast's: more than that a single forecast does not count, however far off it was
MIN_SHARE = 0.25  # of the time asked about, which they have to stand for


@dataclass(frozen=True, slots=True)
class Record:
    """Forecasts that came due, oldest first: when, what came, and how far off the model and the naive ones were."""

    due: Floats  # Unix seconds
    demand: Floats  # per second
    model: Floats  # absolute error
    naives: Floats  # (naive forecasts, due): theirs
    every_seconds: float  # between two of them: what each stands for


@dataclass(frozen=True, slots=True)
class Skill:
    """Error relative to the best naive forecast's: below 1 is better. None: too little came due to tell."""

    day: float | None = None
    week: float | None = None
    quarter: float | None = None  # of a day: the last six hours


UNKNOWN_SKILL = Skill()


def record(
    history: History, origins: Ints, path: Floats, naives: Sequence[Floats], leads: Sequence[int], every_seconds: float
) -> Record:
    """Of the forecasts made at `origins`, the mean over `leads`; one comes due with its last lead."""
    if not len(origins) or not leads or not naives:
        return Record(np.empty(0), np.empty(0), np.empty(0), np.empty((len(naives), 0)), every_seconds)
    columns = np.array(leads) - 1
    actual, censored = outcome(history, origins, max(leads))
    actual, censored = actual[:, columns], censored[:, columns]
    errors = np.array([shortfall(said[:, columns], actual, censored).mean(axis=1) for said in (path, *naives)])
    due = times_of(origins + max(leads), history)
    known = np.isfinite(errors).all(axis=0)
    return Record(due[known], actual[known].mean(axis=1), errors[0, known], errors[1:, known], every_seconds)


def judged_leads(horizons: Sequence[int], step_seconds: float) -> list[int]:
    """Leads (bins) that skill is about: up to an hour, as what is forecast further ahead comes due too late to tell."""
    leads = sorted({leads_in(seconds, step_seconds) for seconds in horizons})
    return [lead for lead in leads if lead * step_seconds <= JUDGED_SECONDS] or leads[:1]


def skill(records: Sequence[Record], now: float) -> Skill:
    """`records` may not overlap in time."""
    records = [each for each in records if len(each.due)]
    if not records:
        return UNKNOWN_SKILL
    due, model = (np.concatenate(each) for each in zip(*((one.due, one.model) for one in records), strict=True))
    weights = np.repeat([each.every_seconds for each in records], [len(each.due) for each in records])
    naives = np.concatenate([each.naives for each in records], axis=1)

    def over(seconds: float, least: int) -> float | None:
        late = (due > now - seconds) & (due <= now + 1e-3)
        return _over(model[late], naives[:, late], weights[late], seconds, least)

    return Skill(
        over(DAY_SECONDS, MIN_ROWS),
        over(WEEK_SECONDS, MIN_ROWS),
        over(DAY_SECONDS / 4, MIN_ROWS // 2),
    )


def _over(model: Floats, naives: Floats, weights: Floats, seconds: float, least: int) -> float | None:
    """One hour of a change that nobody could foresee may not outweigh a day of good forecasts, hence `WORST`.

    `weights`: seconds that each forecast stands for.
    """
    if len(model) < least or weights.sum() < MIN_SHARE * min(seconds, DAY_SECONDS):
        return None
    best = naives[int(np.argmin(naives @ weights))]
    usual = float(best @ weights) / float(weights.sum())
    if not usual > 0:
        return 1.0 if not model.any() else float("inf")
    return float(np.minimum(model, WORST * np.maximum(best, usual)) @ weights) / float(best @ weights)


def since(whole: Record, begin: float) -> Record:
    """Only what came due after `begin`."""
    later = whole.due > begin + 1e-3
    return Record(
        whole.due[later], whole.demand[later], whole.model[later], whole.naives[:, later], whole.every_seconds
    )
