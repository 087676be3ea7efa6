"""Why a forecast is as it is: the week as learned, the features that mattered, the models that were tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from controllers.forecast import events, features
from controllers.forecast.almanac import Calendar
from controllers.forecast.facts import Facts
from controllers.forecast.history import DAY_SECONDS, Floats, History, leads_in, local_day_numbers, utc_offsets
from controllers.forecast.models import MODELS, ridge, trees
from controllers.forecast.models.ensemble import Mixture
from controllers.forecast.occasions import PIECES, occasions
from controllers.forecast.predict import Outlook
from controllers.forecast.seasons import without
from controllers.forecast.selection import Fitted, bounded

PROFILE_DAYS = 28
JUDGED_SECONDS = 3600.0  # how far ahead features are looked at
JUDGED_DAYS = 7
JUDGED_ORIGINS = 400
FEWEST_ORIGINS = 10
AHEAD_SECONDS = 2 * DAY_SECONDS
MOST_OCCASIONS = 8

# What the columns of `features.columns` tell, put together by what they are made from.
_WIDTHS, _LAGS = len(features.WIDTH_SECONDS), len(features.LAG_DAYS)
GROUPS: Mapping[str, tuple[int, ...]] = {
    "profile of the day": tuple(range(_WIDTHS)),
    "profile of days of the same kind": tuple(range(_WIDTHS, 2 * _WIDTHS)),
    **{
        f"same time {name}": (2 * _WIDTHS + place, 2 * _WIDTHS + _LAGS + place)
        for place, name in enumerate(("yesterday", "two days ago", "last week", "two weeks ago"))
    },
    "profile against the whole day": (2 * _WIDTHS + 2 * _LAGS,),
    "same minute of the last hours": (2 * _WIDTHS + 2 * _LAGS + 1,),
    "newest minutes": (2 * _WIDTHS + 2 * _LAGS + 2, 2 * _WIDTHS + 2 * _LAGS + 3),
    "last three hours and day": (2 * _WIDTHS + 2 * _LAGS + 4, 2 * _WIDTHS + 2 * _LAGS + 5),
    "distance from the profile": (2 * _WIDTHS + 2 * _LAGS + 6, 2 * _WIDTHS + 2 * _LAGS + 7),
    "growth since yesterday": (2 * _WIDTHS + 2 * _LAGS + 8,),
    "growth since last week": (2 * _WIDTHS + 2 * _LAGS + 9,),
    "profile in items instead of shares": (2 * _WIDTHS + 2 * _LAGS + 10, 2 * _WIDTHS + 2 * _LAGS + 11),
}
COLUMNS = 2 * _WIDTHS + 2 * _LAGS + 12
CALENDAR_GROUPS: Mapping[str, tuple[int, ...]] = {  # beyond those, of trees
    "hour of day": (COLUMNS, COLUMNS + 1),
    "weekday": (COLUMNS + 2, COLUMNS + 3),
}


@dataclass(frozen=True, slots=True)
class Tried:
    """One model. Errors as WAPE in the backtest, by horizon; `skill`: relative to the best naive model's, over all.

    `share`: of an ensemble's member at the longest horizon. `left_out`: why it had no say; None: it had.
    """

    model: str
    wape: Mapping[int, float]
    skill: float | None
    cpu_seconds: float | None
    trained_at: float | None
    chosen: bool
    share: float | None
    left_out: str | None


@dataclass(frozen=True, slots=True)
class Coming:
    """An occasion of the calendar. `effect`: the factor it had on demand so far; None: never seen."""

    kind: str
    begin: float
    end: float
    seen: int
    effect: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`profile` (7, 24): mean demand per second by weekday (Monday first) and local hour; NaN: unknown.

    `features`: by model, how much its error grows without each group of features, as a share of it.
    """

    workload: str
    time_zone: str
    profile: Floats
    features: Mapping[str, Mapping[str, float]]
    tried: tuple[Tried, ...]
    coming: tuple[Coming, ...]
    floors: Mapping[int, float] = field(default_factory=dict)


def explain(
    workload: str, history: History, calendar: Calendar, fitted: Fitted, facts: Facts, now: float
) -> Explanation:
    known = bounded(history, fitted.ceiling)
    plain = events.without(known, calendar, fitted.effects)
    return Explanation(
        workload,
        calendar.time_zone,
        week_profile(known, calendar.time_zone),
        {name: found for name in in_use(fitted) if (found := importance(name, fitted, plain)) is not None},
        tried(fitted),
        coming(calendar, fitted, now),
        facts.floors,
    )


def in_use(fitted: Fitted) -> list[str]:
    """The model, or an ensemble's members that have a say, the weightiest first."""
    if not isinstance(fitted.learned, Mixture):
        return [fitted.model]
    shares = shares_of(fitted)
    return sorted(fitted.learned.learned, key=lambda member: -shares.get(member, 0.0))


def shares_of(fitted: Fitted) -> dict[str, float]:
    """Weights of the members at the longest horizon; empty without an ensemble."""
    weights = fitted.learned.weights if isinstance(fitted.learned, Mixture) else {}
    at = leads_in(max(fitted.horizons), fitted.step_seconds) - 1
    return {name: float(each[min(at, len(each) - 1)]) for name, each in weights.items()}


def week_profile(history: History, time_zone: str) -> Floats:
    """Mean demand per second of the last four weeks, by weekday and hour of local time."""
    recent = history.last(round(PROFILE_DAYS * DAY_SECONDS / history.step_seconds))
    offsets = utc_offsets(recent.start, recent.step_seconds, len(recent.values), time_zone)
    weekday = (local_day_numbers(recent.start, recent.step_seconds, offsets) + 3) % 7
    begins = recent.start + (np.arange(len(offsets)) - 1 + offsets) * recent.step_seconds
    hour = np.floor(begins % DAY_SECONDS / 3600.0 + 1e-9).astype(np.int64) % 24
    known = np.isfinite(recent.values)
    cells = (weekday * 24 + hour)[known]
    sums = np.bincount(cells, weights=recent.values[known], minlength=7 * 24)
    counts = np.bincount(cells, minlength=7 * 24)
    means: Floats = np.divide(sums, counts, out=np.full(7 * 24, np.nan), where=counts > 0)
    return means.reshape(7, 24)


def importance(model: str, fitted: Fitted, history: History) -> dict[str, float] | None:
    """By how much the error grows when a group of features is shuffled among the origins, as a share of the error.

    Permutation importance (Breiman 2001), on the last week, an hour ahead. None: the model knows no features, or there
    is nothing to look at.
    """
    part = fitted.parts.get(model)
    if part is None or not isinstance(part.value, ridge.Learned | trees.Learned):
        return None
    line = part.value.line if isinstance(part.value, trees.Learned) else part.value
    offset, lead = line.basis.level_offset, leads_in(min(JUDGED_SECONDS, max(fitted.horizons)), fitted.step_seconds)
    history = without(history, line.phases, offset)
    count = len(history.values)
    first = max(count - lead - round(JUDGED_DAYS * DAY_SECONDS / history.step_seconds), history.steps_per_day)
    origins = np.arange(first, count - lead, max(1, (count - lead - first) // JUDGED_ORIGINS))
    origins = origins[np.isfinite(history.values[origins + lead])]
    if len(origins) < FEWEST_ORIGINS:
        return None
    came = np.log(np.minimum(history.values[origins + lead], line.basis.ceiling) + offset)
    leads = np.full((len(origins), 1), lead)
    x, base = trees.design(features.prepare(history, line.basis, 0), origins, leads)

    def say(columns: Floats) -> Floats:
        said = trees.straight(line, columns, leads)
        if isinstance(part.value, trees.Learned):
            said = said + part.value.trees.predict(columns[:, :, 0])[:, None]
        whole: Floats = (said + base[:, None])[:, 0]
        return whole

    groups = {**GROUPS, **CALENDAR_GROUPS} if isinstance(part.value, trees.Learned) else GROUPS
    level = np.exp(came)  # an error of 10 % matters as much as the demand it is 10 % of

    def error(columns: Floats) -> float:
        return float((np.abs(np.exp(say(columns) - came) - 1.0) * level).sum())

    whole = error(x)
    if not whole > 0:
        return None
    shuffled = np.random.default_rng(0).permutation(len(origins))
    found = {}
    for name, columns in groups.items():
        mixed = x.copy()
        mixed[list(columns)] = x[list(columns)][:, shuffled]
        found[name] = error(mixed) / whole - 1.0
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def tried(fitted: Fitted) -> tuple[Tried, ...]:
    """Every model, the best first; those without a say last."""
    best = fitted.best_naive
    shares = shares_of(fitted)

    def row(name: str) -> Tried:
        error = fitted.wape.get(name)
        part = fitted.parts.get(name)
        members = [fitted.parts[member].cpu_seconds for member in MODELS[name].members if member in fitted.parts]
        return Tried(
            name,
            fitted.wape_by_horizon.get(name, {}),
            error / best if error is not None and best else None,
            part.cpu_seconds if part else sum(members) if members else None,
            part.fitted_at if part else None,
            name == fitted.model,
            shares.get(name),
            None if error is not None else fitted.left_out.get(name, "it could not be tried yet"),
        )

    return tuple(row(name) for name in sorted(MODELS, key=lambda name: (fitted.wape.get(name, np.inf), name)))


def coming(calendar: Calendar, fitted: Fitted, now: float) -> tuple[Coming, ...]:
    """What the calendar has within two days, soonest first."""
    effects = fitted.effects
    found = []
    for one in occasions(calendar, now, now + AHEAD_SECONDS):
        if one.end <= now:
            continue
        if one.weekday is None:
            learned = effects.events.get(one.kind)
            body = None if learned is None else learned[PIECES[1]]
        else:
            own = effects.holidays.get(one.kind)
            body = None if own is None else own + effects.by_weekday[one.weekday]
        effect = None if body is None else float(np.exp(body.mean()))
        found.append(Coming(one.kind, one.begin, one.end, effects.seen.get(one.kind, 0), effect))
    return tuple(sorted(found, key=lambda one: one.begin)[:MOST_OCCASIONS])


def gate_sentence(made: Outlook, fitted: Fitted) -> str:
    """Why the gate is open or closed, with the numbers."""
    skill = ", ".join(
        f"{ratio:.2f} over the last {name}"
        for name, ratio in (("week", made.skill.week), ("day", made.skill.day), ("six hours", made.skill.quarter))
        if ratio is not None
    )
    live = ""
    if made.live is not None and np.isfinite(made.live.model):
        live = (
            f"; within the last hour {_percent(made.live.model)} off, the naive ones {_percent(made.live.naive)}, "
            f"{_percent(made.live.promised)} was promised"
        )
        if made.live.level > 0:
            live += f"; quarter hours lie to one side, {made.live.level:.1f} times as far off as promised"
    return {
        "open": f"open: error relative to the best naive forecast's {skill or 'unknown'}{live}",
        "cold_start": "closed: the history is too short to try any model",
        "no_skill": f"closed: no better than the naive forecasts ({skill or 'in the backtest'})",
        "no_skill_today": f"closed: no better than the naive forecasts today ({skill})",
        "degraded": f"closed: demand is not what was learned{live}",
    }[made.gate.value]


def _percent(ratio: float) -> str:
    return f"{ratio:.1%}" if np.isfinite(ratio) else "–"
