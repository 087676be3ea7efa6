"""What is said about why a forecast is as it is."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast import features
from controllers.forecast.almanac import Calendar, Event
from controllers.forecast.explain import (
    CALENDAR_GROUPS,
    COLUMNS,
    GROUPS,
    explain,
    gate_sentence,
    importance,
    week_profile,
)
from controllers.forecast.explain_text import as_json, bars, heat_map, text
from controllers.forecast.facts import Facts
from controllers.forecast.gate import Gate, Live
from controllers.forecast.history import History
from controllers.forecast.models import MODELS
from controllers.forecast.predict import Outlook, outlook
from controllers.forecast.selection import Fitted, select
from controllers.forecast.skill import Skill

MODELS_HERE = {name: MODELS[name] for name in ("last_value", "seasonal_naive", "ridge", "random_forest")}


@pytest.fixture(scope="module")
def week(make: SimpleNamespace) -> History:
    """Nine days in five-minute bins: nights and days, and a jump every day at 13:20."""
    minutes = np.arange(9.0 * 288) * 5
    return make.grid(make.poisson(make.daily(minutes)), 300.0)


@pytest.fixture(scope="module")
def fitted(week: History) -> Fitted:
    return select(week, Calendar(), (300, 3600), MODELS_HERE, counter=iter(range(1000)).__next__)


@pytest.fixture(scope="module")
def made(week: History, fitted: Fitted) -> Outlook:
    return outlook(week, Calendar(), fitted, week.end, quantiles=(0.1, 0.9), valid_seconds=900)


def test_groups_name_every_column_once() -> None:
    named = [column for group in GROUPS.values() for column in group]
    assert sorted(named) == list(range(COLUMNS))
    assert features.level_shifts().shape[1] == COLUMNS + 1  # and ones
    assert sorted(column for group in CALENDAR_GROUPS.values() for column in group) == list(range(COLUMNS, COLUMNS + 4))


def test_the_profile_is_by_local_hour_and_weekday(make: SimpleNamespace) -> None:
    hours = np.zeros(14 * 24)
    hours[9::24] = 5.0  # 9:00 to 10:00 UTC every day, which is 18:00 in Seoul
    found = week_profile(make.grid(hours, 3600.0), "Asia/Seoul")
    assert found[:, 18].tolist() == [5.0] * 7
    assert np.nansum(found) == 35.0


def test_hours_that_were_never_seen_are_unknown(make: SimpleNamespace) -> None:
    found = week_profile(make.grid(np.ones(30), 3600.0), "UTC")  # from Wednesday 0:00 to Thursday 6:00
    assert np.isfinite(found[2]).all()
    assert np.isfinite(found[3]).sum() == 6
    assert np.isnan(found[0]).all()


@pytest.mark.parametrize("model", ["ridge", "random_forest"])
def test_what_a_daily_jump_is_foreseen_by_is_the_profile(model: str, fitted: Fitted, week: History) -> None:
    found = importance(model, fitted, week)
    assert found is not None
    profile = found["profile of the day"] + found["profile of days of the same kind"]
    others = [found[name] for name in ("growth since last week", "same time two weeks ago", "newest minutes")]
    assert profile > 0.05
    assert profile > 3 * max(others)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_model_without_features_has_none(fitted: Fitted, week: History) -> None:
    assert importance("last_value", fitted, week) is None
    assert importance("arima", fitted, week) is None  # not fitted at all


def test_an_explanation_tells_everything_and_is_json(week: History, fitted: Fitted, made: Outlook) -> None:
    now = week.end
    calendar = Calendar("UTC", {int(now // 86_400) + 1: "Founders' day"}, (Event("sale", now + 3600, now + 7200),))
    found = explain("default/a", week, calendar, fitted, Facts({60: 0.2}), now)
    shown = text(found, made, fitted)
    for expected in (
        f"default/a: {fitted.model}, stage ",
        f"gate {gate_sentence(made, fitted).partition(';')[0]}\n",
        "Mon  ",
        "profile of the day",
        "Chance alone leaves an error of 20.0% of single minutes",
        "sale (never seen before)",
        "Founders' day",
    ):
        assert expected in shown
    assert sum(line.startswith("* ") for line in shown.splitlines()) == 1  # the model in use
    assert max(map(len, shown.splitlines())) <= 160
    told = json.loads(json.dumps(as_json(found, made, fitted), allow_nan=False))
    assert {row["model"] for row in told["models"]} == set(MODELS)
    (used,) = [row for row in told["models"] if row["chosen"]]
    assert used["model"] == fitted.model
    assert set(used["wape"]) == {"300", "3600"}
    assert next(row for row in told["models"] if row["model"] == "random_forest")["cpu_seconds"] > 0
    assert [one["kind"] for one in told["coming"]] == ["sale", "Founders' day"]
    assert len(told["week_profile"]["Mon"]) == 24


def test_a_history_of_minutes_is_explained_as_well(make: SimpleNamespace) -> None:
    young = make.grid(np.ones(30))
    fitted = select(young, Calendar(), (300,))
    made = outlook(young, Calendar(), fitted, young.end, quantiles=(0.9,), valid_seconds=900)
    found = explain("default/a", young, Calendar(), fitted, Facts(), young.end)
    shown = text(found, made, fitted)
    assert "gate closed: the history is too short to try any model" in shown
    assert "none could be tried yet" in shown
    assert "knows no features" in shown
    json.dumps(as_json(found, made, fitted), allow_nan=False)


def test_the_heat_map_goes_from_nothing_to_the_most_and_shows_what_is_unknown() -> None:
    profile = np.full((7, 24), np.nan)
    profile[0] = np.arange(24.0)
    lines = heat_map(profile)
    assert lines[1].startswith("Mon  ▁▁▁▁▁▁▂▂")
    assert "██" in lines[1]
    assert lines[2] == f"Tue  {'·' * 48}       –"
    assert len({len(line) for line in lines[1:8]}) == 1
    assert heat_map(np.zeros((7, 24)))[1].startswith("Mon  ▁▁")


def test_bars_leave_out_what_did_not_matter() -> None:
    lines = bars({"a": 0.5, "b": 0.25, "c": 0.001, "d": -0.1})
    assert [line.split()[0] for line in lines] == ["a", "b"]
    assert lines[0].count("█") == 2 * lines[1].count("█")
    assert bars({"a": 0.0}) == ["  nothing in particular"]


GATES = [
    (Gate.OPEN, Skill(0.5, 0.6), "open: error relative to the best naive forecast's 0.60 over the last week, 0.50"),
    (Gate.NO_SKILL, Skill(None, 1.2), "closed: no better than the naive forecasts (1.20 over the last week)"),
    (Gate.NO_SKILL_TODAY, Skill(1.3, 0.9), "closed: no better than the naive forecasts today (0.90 over"),
    (Gate.DEGRADED, Skill(), "closed: demand is not what was learned; within the last hour 40.0% off, the naive ones"),
    (Gate.COLD_START, Skill(), "closed: the history is too short to try any model"),
]


@pytest.mark.parametrize(("gate", "skill", "expected"), GATES, ids=[row[0].value for row in GATES])
def test_the_gate_says_why(gate: Gate, skill: Skill, expected: str, made: Outlook, fitted: Fitted) -> None:
    told = Outlook(made.forecast, gate, Live(0.4, 0.2, 0.1), (), 0.0, 1.0, skill)
    assert gate_sentence(told, fitted).startswith(expected)


def test_another_level_is_told(made: Outlook, fitted: Fitted) -> None:
    told = Outlook(made.forecast, Gate.DEGRADED, Live(0.13, 0.1, 0.1, level=2.6), (), 0.0, 1.0, Skill())
    assert gate_sentence(told, fitted).endswith("to one side, 2.6 times as far off as promised")


def test_every_gate_has_its_sentence() -> None:
    assert {row[0] for row in GATES} == set(Gate)
