"""Whose turn it is: the hour, young histories, failures that repeat, and the daily slice of heavy models."""

from dataclasses import replace

import pytest

from controllers.forecast.almanac import Calendar
from controllers.forecast.history import History
from controllers.forecast.models import Model, last_value
from controllers.forecast.selection import Fitted, select
from controllers.forecast.turns import RETRY_SECONDS, Turn, Turns, gain

DAY = 86_400.0
MODELS = {
    "cheap": Model(last_value.fit, last_value.paths, 0.0),
    "slow": Model(last_value.fit, last_value.paths, 3 * DAY, heavy=True),
    "both": Model(last_value.fit, last_value.paths, 0.0, members=("cheap", "slow")),
}


@pytest.fixture(scope="module")
def month(fortnight: History) -> Fitted:
    """As if it had learned from a month."""
    return replace(select(fortnight.first(300), Calendar(), (120,)), history_seconds=30 * DAY, score={})


def heavy(turns: Turns, names: list[str], now: float) -> list[str]:
    return [turn.workload for turn in turns.due(names, now) if turn.heavy]


def test_a_workload_is_fitted_at_once_then_every_hour_and_a_young_one_sooner(month: Fitted) -> None:
    turns = Turns(3600, 0, MODELS)
    assert turns.due(["a", "b"], 0) == [Turn("a", False), Turn("b", False)]
    turns.begun(["a", "b"], 0)
    assert turns.due(["a", "b"], 59) == []
    turns.succeeded(Turn("a", False), month, 1.0, 60)
    turns.succeeded(Turn("b", False), replace(month, history_seconds=6000), 1.0, 60)
    assert turns.due(["a", "b"], 659) == []
    assert turns.due(["a", "b"], 660) == [Turn("b", False)]
    assert turns.due(["a", "b"], 3660) == [Turn("b", False), Turn("a", False)]


def test_a_workload_whose_fits_fail_comes_last_and_ever_less_often(month: Fitted) -> None:
    turns = Turns(3600, 0, MODELS)
    now, waits = 0.0, []
    for _ in range(8):
        turns.begun(["bad"], now)
        turns.failed(Turn("bad", False), 0.0, now)
        began = now
        while not turns.due(["bad"], now):
            now += RETRY_SECONDS
        waits.append((now - began) / 60)
    assert waits == [1, 2, 4, 8, 16, 32, 61, 61]
    assert turns.due(["bad", "new"], now) == [Turn("new", False), Turn("bad", False)]
    turns.succeeded(Turn("bad", False), month, 1.0, now)
    turns.failed(Turn("bad", False), 0.0, now + 3600)
    assert turns.due(["bad"], now + 3600) == [Turn("bad", False)]


def test_heavy_models_wait_until_everybody_has_a_forecast_and_stay_within_their_budget(month: Fitted) -> None:
    turns, names = Turns(3600, 100, MODELS), [f"w{number:02d}" for number in range(20)]
    assert heavy(turns, names, 0) == []
    for name in names:
        turns.succeeded(Turn(name, False), month, 1.0, 0)
    spent = 0.0
    for step in range(1, 2 * 2880):  # two days
        now = 30.0 * step
        for turn in turns.due(names, now):
            cpu_seconds = 11.0 if turn.heavy else 1.0  # the cheap ones are in it
            spent += 10.0 * turn.heavy
            turns.succeeded(turn, month, cpu_seconds, now)
        assert turns.slices.spent_seconds <= 100
    assert 150 <= spent <= 200


def test_a_round_has_a_minute_of_heavy_work_at_most_and_cheap_fits_go_before_it(month: Fitted) -> None:
    turns, names = Turns(3600, 1e6, MODELS), [f"w{number:02d}" for number in range(20)]
    for name in names:
        turns.succeeded(Turn(name, False), month, 1.0, 0)
    due = turns.due(names, 3600)
    assert [turn.heavy for turn in due] == [False] * 14 + [True] * 6
    assert len({turn.workload for turn in due}) == 20


def test_a_young_history_and_a_budget_of_zero_have_no_heavy_models(month: Fitted) -> None:
    young, none = Turns(3600, 1000, MODELS), Turns(3600, 0, MODELS)
    young.succeeded(Turn("a", False), replace(month, history_seconds=2 * DAY), 1.0, 0)
    none.succeeded(Turn("a", False), month, 1.0, 0)
    assert heavy(young, ["a"], 3600) == heavy(none, ["a"], 3600) == []


def test_heavy_models_that_killed_their_process_are_not_tried_again_on_that_day(month: Fitted) -> None:
    turns = Turns(3600, 1000, MODELS)
    turns.succeeded(Turn("a", False), month, 1.0, 0)
    assert heavy(turns, ["a"], 30) == ["a"]
    turns.failed(Turn("a", True), 0.0, 100)
    turns.succeeded(Turn("a", False), month, 1.0, 200)
    assert heavy(turns, ["a"], 19 * 3600) == []
    assert heavy(turns, ["a"], 21 * 3600) == ["a"]
    assert turns.slices.spent_seconds > 0


def test_the_gain_of_heavy_models_is_what_the_best_score_is_below_the_best_without_them(month: Fitted) -> None:
    assert gain(replace(month, score={"cheap": 0.5, "slow": 0.6, "both": 0.4}), MODELS) == pytest.approx(0.2)
    assert gain(replace(month, score={"cheap": 0.5}), MODELS) is None
    assert gain(replace(month, score={"cheap": 0.0, "slow": 0.0}), MODELS) is None


def test_a_clock_that_was_a_day_ahead_delays_nobody(month: Fitted) -> None:
    turns = Turns(3600, 15, MODELS)
    turns.succeeded(Turn("a", False), month, 1.0, DAY)
    assert turns.due(["a"], DAY) == [Turn("a", True)]
    turns.succeeded(Turn("a", True), month, 11.0, DAY)
    assert turns.due(["a"], 60) == []
    assert turns.slices.spent_seconds == 10  # the heavy models' budget is not forgotten
    assert turns.due(["a"], 3661) == [Turn("a", False)]
    turns.succeeded(Turn("a", False), month, 1.0, 3661)
    assert heavy(turns, ["a"], 19 * 3600) == []
    assert heavy(turns, ["a"], DAY + 120) == ["a"]
