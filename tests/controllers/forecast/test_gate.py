"""Skill over a day and a week, and the gate: what closes it, what opens it, and that one bad hour is not a bad day."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import FRUGAL
from controllers.forecast.calibration import Spread
from controllers.forecast.gate import SHOCK, Gate, Live, gate_of, judge, relied_on
from controllers.forecast.history import Floats, History
from controllers.forecast.predict import outlook
from controllers.forecast.selection import Fitted, select
from controllers.forecast.skill import UNKNOWN_SKILL, Record, Skill, judged_leads, record, since, skill

HOUR, DAY = 3600.0, 86_400.0
NOW = 30 * DAY
STEP = 300.0
PER_DAY = 288


def hourly(model: Floats, naive: Floats) -> Record:
    """One forecast an hour, the last one due now."""
    due = NOW - HOUR * np.arange(len(model))[::-1]
    return Record(due, np.full(len(model), 10.0), np.asarray(model), np.array([naive, 9 * np.asarray(naive)]), HOUR)


def test_skill_is_relative_to_the_best_naive_forecast_of_that_time() -> None:
    week = hourly(np.r_[np.full(144, 1.0), np.full(24, 2.0)], np.full(168, 4.0))
    found = skill([week], NOW)
    assert found.day == pytest.approx(0.5)
    assert found.week == pytest.approx((144 * 1 + 24 * 2) / (168 * 4))


def test_an_hour_of_horror_counts_as_twice_the_naive_error_and_no_more() -> None:
    model = np.full(24, 0.5)
    model[20] = 1e6
    assert skill([hourly(model, np.ones(24))], NOW).day == pytest.approx((23 * 0.5 + 2.0) / 24)


def test_six_good_hours_are_told_apart_from_a_bad_day() -> None:
    found = skill([hourly(np.r_[np.full(18, 2.0), np.full(6, 0.5)], np.ones(24))], NOW)
    assert found.day is not None
    assert found.day > 1
    assert found.quarter == pytest.approx(0.5)


@pytest.mark.parametrize("rows", [0, 5, 11])
def test_too_few_forecasts_tell_nothing(rows: int) -> None:
    assert skill([hourly(np.ones(rows), np.ones(rows))], NOW).day is None


def test_what_came_due_since_the_fit_is_added_once() -> None:
    backtest = hourly(np.ones(24), np.ones(24))
    later = Record(NOW + 60.0 * np.arange(-30, 61), np.ones(91), np.full(91, 3.0), np.full((2, 91), 2.0), 60.0)
    fresh = since(later, NOW)
    assert len(fresh.due) == 60
    both = skill([backtest, fresh], NOW + HOUR)
    # 23 hours of the backtest are left in the day; the hour since counts as one
    assert both.day == pytest.approx((23 * 1 + 1 * 3) / (23 * 1 + 1 * 2))


def test_a_naive_forecast_without_any_error_cannot_be_beaten() -> None:
    assert skill([hourly(np.ones(24), np.zeros(24))], NOW).day == float("inf")
    assert skill([hourly(np.zeros(24), np.zeros(24))], NOW).day == 1.0


def test_skill_is_about_what_comes_due_within_the_hour() -> None:
    assert judged_leads((120, 900, 3600, 86_400), 60.0) == [2, 15, 60]
    assert judged_leads((86_400,), 3600.0) == [24]


def test_censored_demand_that_is_below_the_forecast_is_no_error() -> None:
    history = History(0.0, STEP, np.full(40, 5.0), np.ones(40, dtype=np.bool_))
    path, naive = np.full((10, 3), 8.0), np.full((10, 3), 2.0)
    found = record(history, np.arange(10), path, [naive], [1, 3], STEP)
    assert found.model.tolist() == [0.0] * 10
    assert found.naives.tolist() == [[3.0] * 10]


@pytest.fixture(scope="module")
def history(make: SimpleNamespace) -> History:
    found: History = make.grid(make.poisson(make.daily(np.arange(13.0 * make.DAY))).reshape(-1, 5).mean(axis=1), STEP)
    return found


@pytest.fixture(scope="module")
def fitted(history: History) -> Fitted:
    return select(history.first(11 * PER_DAY), Calendar(), (300, 900, 3600), heavy=False, effort=FRUGAL)


GOOD = Live(model=0.1, naive=0.2, promised=0.1)
WORSE = Live(model=0.3, naive=0.2, promised=0.1)
GATES = {
    "good over all times": (Skill(0.7, 0.7), GOOD, None, Gate.OPEN),
    "no better than naive over the week": (Skill(0.7, 1.0), GOOD, None, Gate.NO_SKILL),
    "as good as naive keeps an open gate open": (Skill(0.7, 1.0), GOOD, True, Gate.OPEN),
    "no better than naive over the day": (Skill(1.05, 0.8), GOOD, False, Gate.NO_SKILL_TODAY),
    "a day a little worse keeps an open gate open": (Skill(1.05, 0.8), GOOD, True, Gate.OPEN),
    "a day that is clearly worse closes it": (Skill(1.2, 0.8, 1.1), GOOD, True, Gate.NO_SKILL_TODAY),
    "six good hours open it after a bad day": (Skill(1.2, 0.8, 0.8), GOOD, False, Gate.OPEN),
    "six middling hours do not": (Skill(1.2, 0.8, 0.97), GOOD, False, Gate.NO_SKILL_TODAY),
    "a bad hour closes it": (Skill(0.7, 0.7), WORSE, True, Gate.DEGRADED),
    "far off, though naive forecasts are as well": (Skill(0.7, 0.7), Live(0.5, 0.9, 0.1), True, Gate.DEGRADED),
    "another level, though single bins are as noisy as ever": (
        Skill(0.7, 0.7),
        Live(0.13, 0.1, 0.1, level=2.6),
        True,
        Gate.DEGRADED,
    ),
    "an hour worse than promised, but better than naive": (Skill(0.7, 0.7), Live(0.19, 0.2, 0.1), True, Gate.OPEN),
    "nothing due yet: the backtest counts": (UNKNOWN_SKILL, None, None, Gate.OPEN),
}


@pytest.mark.parametrize(("lately", "live", "was_open", "gate"), GATES.values(), ids=GATES)
def test_gate(lately: Skill, live: Live | None, was_open: bool | None, gate: Gate, fitted: Fitted) -> None:
    assert gate_of(fitted, live, lately, was_open) is gate


def test_nothing_tried_and_a_naive_choice_keep_it_closed(fitted: Fitted) -> None:
    assert gate_of(replace(fitted, wape={}), GOOD, Skill(0.5, 0.5), None) is Gate.COLD_START
    assert gate_of(replace(fitted, model="day_naive"), GOOD, Skill(0.5, 0.5), None) is Gate.NO_SKILL


def test_a_level_three_times_as_high_closes_within_half_an_hour_and_is_learned_within_the_day(
    history: History, fitted: Fitted
) -> None:
    change = 11 * PER_DAY + 144
    values = history.values.copy()
    values[change:] *= 3
    changed = replace(history, values=values)
    latest, was, gates = fitted, None, {}
    for count in [*range(change - 12, change + 7, 3), *range(change + 24, change + PER_DAY, 24)]:
        known = changed.first(count)
        if known.end - latest.trained_at >= 2 * HOUR:
            latest = select(known, Calendar(), (300, 900, 3600), heavy=False, before=latest, effort=FRUGAL)
        made = outlook(known, Calendar(), latest, known.end, quantiles=(0.9,), valid_seconds=900, gate_was_open=was)
        was = made.forecast.gate_open
        gates[(count - change) * STEP / HOUR] = made.gate
    assert all(gate is Gate.OPEN for hours, gate in gates.items() if hours <= 0)
    assert gates[0.5] is not Gate.OPEN
    assert all(gate is Gate.OPEN for hours, gate in gates.items() if hours >= 18)


def test_demand_that_ends_keeps_it_closed_while_something_is_forecast(history: History, fitted: Fitted) -> None:
    change = 11 * PER_DAY + 144
    values = history.values.copy()
    values[change:] = 0.0
    was: bool | None = True
    for count in range(change, change + 24, 3):  # after an hour nothing at all has come due
        known = replace(history, values=values).first(count)
        made = outlook(known, Calendar(), fitted, known.end, quantiles=(0.9,), valid_seconds=900, gate_was_open=was)
        was = made.forecast.gate_open
        if count - change >= 6:
            assert made.forecast.horizons[-1].value > 0
            assert made.gate is Gate.DEGRADED


@pytest.mark.parametrize(("said", "came"), [(9.0, 3.0), (3.0, 9.0)])
def test_it_is_as_much_of_a_surprise_to_foresee_far_too_much_as_far_too_little(
    said: float, came: float, fitted: Fitted
) -> None:
    """Errors of 30 % were promised; 30 % of a forecast that is three times too high would be most of what came."""
    fitted = replace(fitted, value={lead: Spread(0.0, (0.0, 0.0, 0.3)) for lead in fitted.value})
    known = History(0.0, STEP, np.full(40, came), np.zeros(40, dtype=np.bool_))
    origins = np.arange(15, 39)
    paths, actual = np.full((24, fitted.steps), said), np.full((24, fitted.steps), came)
    live = judge(known, fitted, origins, paths, [paths], actual, np.zeros(actual.shape, dtype=np.bool_))
    assert live is not None
    assert live.surprise > SHOCK[True]


def noisy(make: SimpleNamespace, last: Floats) -> Live | None:
    """Bins at nothing or twice what is foreseen, by turns; then `last`, which a naive forecast knows."""
    count = 40
    values = np.r_[np.resize([0.0, 20.0], count - len(last)), last]
    known = make.grid(values, STEP)
    origins = np.arange(15, count - 1)
    at = origins[:, None] + np.arange(1, 13)
    actual = np.where(at < count, values[np.minimum(at, count - 1)], np.nan)
    naive = np.full(actual.shape, float(last.mean()))
    spreads = {lead: Spread(10.0, (1.0, 0.0, 0.0)) for lead in (1, 3, 12)}
    fitted = SimpleNamespace(
        horizons=(300, 900, 3600),
        value=spreads,
        steps=12,
        level=Spread(10.0, (0.2, 0.0, 0.0)),
        ahead=SimpleNamespace(decision=None),
    )
    path, none = np.full(actual.shape, 10.0), np.zeros(actual.shape, dtype=np.bool_)
    return judge(known, fitted, origins, path, [naive], actual, none)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("last", "another"),
    [
        ([3.0] * 6, True),  # a third
        ([30.0] * 6, True),
        ([8.0] * 6, False),  # one-sided, but little
        ([0.0, 20.0] * 3, False),  # as noisy as ever
        ([6.0, 12.0, 8.0, 90.0, 8.0, 12.0], False),  # one burst
    ],
)
def test_half_an_hour_on_one_side_is_another_level_where_single_bins_tell_little(
    last: list[float], another: bool, make: SimpleNamespace
) -> None:
    live = noisy(make, np.array(last))
    assert live is not None
    assert (live.level >= SHOCK[True]) == another
    if last[0] == 3.0:  # the demand that fell is less far off than the noise that was promised
        assert live.surprise < 1.4


@pytest.mark.parametrize(
    ("window", "horizons"),
    [
        (None, [120, 900, 3600]),
        ((60.0, 90.0), [120]),
        ((60.0, 120.0), [120]),
        ((300.0, 400.0), [120, 900]),
        ((3000.0, 9000.0), [120, 900, 3600]),
    ],
)
def test_it_is_judged_on_the_horizons_that_decisions_rest_on(
    window: tuple[float, float] | None, horizons: list[int]
) -> None:
    fitted = SimpleNamespace(horizons=(120, 900, 3600, 86_400), ahead=SimpleNamespace(decision=window))
    assert relied_on(fitted) == horizons  # type: ignore[arg-type]
