"""What is on /metrics of one workload, as text."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controllers.domain import DecisionWindow, Forecast, Horizon
from controllers.forecast.almanac import Calendar, Event, Floor
from controllers.forecast.backtest import Learned
from controllers.forecast.facts import Facts, facts, floors
from controllers.forecast.gate import Gate
from controllers.forecast.history import History, Why
from controllers.forecast.models.ensemble import Mixture
from controllers.forecast.predict import Outlook
from controllers.forecast.publish import ForecastCollector, Process, Published
from controllers.forecast.skill import UNKNOWN_SKILL, Skill
from controllers.forecast.slices import Slices
from controllers.forecast.windows import Coverage

NAME = "default/a"
IDLE = Process()
BAND = {0.1: 4.0, 0.9: 6.0}


def made(window: DecisionWindow | None = None, skill: Skill = UNKNOWN_SKILL) -> Outlook:
    horizon = Horizon(300, 5.0, quantiles=BAND, peak={0.9: 8.0}, arrivals={0.5: 1500.0})
    forecast = Forecast(1000.0, 1900.0, "ensemble", True, (horizon,), window)
    return Outlook(forecast, Gate.OPEN, None, (), 20.0, 1.0, skill)


def fitted() -> SimpleNamespace:
    return SimpleNamespace(
        model="cheap_ensemble",
        stage=SimpleNamespace(value="cheap"),
        trained_at=900.0,
        history_seconds=86_400.0,
        wape={"cheap_ensemble": 0.1, "seasonal_naive": 0.2, "last_value": 0.25},
        best_naive=0.2,
        learned=Mixture({"ridge": None, "fourier": None}),
        parts={name: Learned(None, 900.0, 0.25) for name in ("ridge", "fourier")}
        | {"arima": Learned(None, 500.0, 4.0)},
        left_out={"random_forest": "not fitted within the last two days"},
    )


def shown(state: Mapping[str, Published], process: Process = IDLE, at: float = 1000.0) -> dict[str, float]:
    """Sample -> value, as a scrape sees them."""
    collector = ForecastCollector(lambda: at)
    collector.show(state, {}, process)
    registry = CollectorRegistry()
    registry.register(collector)
    lines = [line.rsplit(" ", 1) for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    return {name.removeprefix("tidewise_forecast_"): float(value) for name, value in lines}


def test_the_window_of_a_decision_is_told_with_its_peak() -> None:
    found = shown({NAME: Published(outlook=made(DecisionWindow(40.0, 90.0, {0.9: 7.5})))})
    assert found[f'window_peak_quantile{{quantile="0.9",workload="{NAME}"}}'] == 7.5
    assert found[f'window_begin_seconds{{workload="{NAME}"}}'] == 40
    assert found[f'window_end_seconds{{workload="{NAME}"}}'] == 90
    assert not [name for name in shown({NAME: Published(outlook=made())}) if name.startswith("window")]


@pytest.mark.parametrize(
    ("skill", "expected"),
    [
        pytest.param(Skill(0.5, 0.8, 0.4), {"6h": 0.4, "1d": 0.5, "7d": 0.8}, id="of hours, the day and the week"),
        pytest.param(Skill(0.5, None), {"1d": 0.5}, id="unknown is no series"),
        pytest.param(Skill(math.inf, 0.8), {"1d": 100, "7d": 0.8}, id="naive forecasts without an error"),
    ],
)
def test_skill(skill: Skill, expected: Mapping[str, float]) -> None:
    found = shown({NAME: Published(outlook=made(skill=skill))})
    assert {name: value for name, value in found.items() if name.startswith("skill")} == {
        f'skill_ratio{{window="{window}",workload="{NAME}"}}': value for window, value in expected.items()
    }


def test_coverage_is_told_of_the_quantiles_that_are_published() -> None:
    seen = (Coverage("peak", 300, 0.9, 0.93, 200), Coverage("value", 300, 0.5, 0.48, 200))
    found = shown({NAME: Published(outlook=replace(made(), coverage=seen))})
    assert {name: value for name, value in found.items() if name.startswith("coverage")} == {
        f'coverage_ratio{{horizon_seconds="300",kind="peak",quantile="0.9",workload="{NAME}"}}': 0.93
    }


def test_what_was_fitted_says_members_age_and_cost() -> None:
    found = shown({NAME: Published(fitted=fitted())})
    of = f'workload="{NAME}"'
    assert {name for name in found if "member" in name} == {
        f'ensemble_member_info{{model="{model}",{of}}}' for model in ("ridge", "fourier")
    }
    assert found[f'model_trained_timestamp_seconds{{model="arima",{of}}}'] == 500
    assert found[f'model_fit_cpu_seconds{{model="arima",{of}}}'] == 4
    assert found[f'model_left_out_info{{model="random_forest",{of}}}'] == 1
    assert found[f'backtest_skill_ratio{{model="cheap_ensemble",{of}}}'] == 0.5


def test_facts_of_the_workload_and_of_the_process() -> None:
    known = Facts({60: 0.2, 3600: 0.03}, ("workload:demand:rate1m",), {"holiday": 1, "event": 0}, 2.5)
    process = Process(Slices((), 0.0, 30.0, 90.0, 600.0), {"/etc/team.ics": False})
    found = shown({NAME: Published(facts=known)}, process)
    of = f'workload="{NAME}"'
    assert found[f'noise_floor_ratio{{mean_seconds="60",{of}}}'] == 0.2
    assert found[f'noise_floor_ratio{{mean_seconds="3600",{of}}}'] == 0.03
    assert found[f'series_info{{series="workload:demand:rate1m",{of}}}'] == 1
    assert found[f'calendar_ahead{{kind="holiday",{of}}}'] == 1
    assert found[f"fit_cpu_seconds{{{of}}}"] == 2.5
    assert found['calendar_file_readable{file="/etc/team.ics"}'] == 0
    heavy = {name: value for name, value in found.items() if name.startswith("heavy")}
    assert heavy == {"heavy_budget_cpu_seconds": 600, "heavy_spent_cpu_seconds": 30, "heavy_wanted_cpu_seconds": 90}


def test_an_expired_forecast_takes_all_that_was_said_with_it_and_leaves_what_is_known() -> None:
    state = {
        NAME: Published(
            fitted=fitted(),
            outlook=made(DecisionWindow(40.0, 90.0, {0.9: 7.5}), Skill(0.5, 0.8)),
            refused=Why.STALE,
            facts=Facts({60: 0.2}),
        )
    }
    before, after = shown(state), shown(state, at=1900.0)
    gone = {name.partition("{")[0] for name in before.keys() - after.keys()}
    assert gone == {
        "demand", "demand_quantile", "peak_quantile", "arrivals_quantile", "made_timestamp_seconds",
        "valid_until_timestamp_seconds", "gate_open", "gate_info", "widening_ratio", "window_peak_quantile",
        "window_begin_seconds", "window_end_seconds", "skill_ratio",
    }  # fmt: skip
    assert f'refused{{reason="stale",workload="{NAME}"}}' in after


def counts(rate: float, minutes: int) -> History:
    pieces = np.random.default_rng(3).poisson(rate, minutes).astype(float)
    return History(60.0, 60.0, pieces / 60, np.zeros(minutes, dtype=np.bool_))


def test_the_noise_floor_of_counted_pieces_is_that_of_chance() -> None:
    found = floors(counts(100, 7 * 1440), counted=True)
    assert found[60] == pytest.approx(math.sqrt(2 / math.pi / 100), rel=0.05)
    assert found[3600] < 0.02


def test_pieces_that_a_rate_has_stretched_are_pieces_still() -> None:
    history = counts(100, 7 * 1440)
    stretched = History(history.start, 60.0, history.values * 1.003, history.censored)
    assert floors(stretched, counted=False) == {}
    assert floors(stretched, counted=True)[60] == pytest.approx(floors(history, counted=True)[60], rel=0.05)


def test_what_was_cut_off_has_no_part_in_the_floor() -> None:
    history = counts(100, 2000)
    assert floors(History(60.0, 60.0, history.values, np.ones(2000, dtype=np.bool_)), counted=True) == {}


def test_facts_tell_what_was_read_and_what_the_calendar_has_ahead() -> None:
    now = 20_000.4 * 86_400
    calendar = Calendar(
        "Asia/Seoul",
        {20_000: "today", 19_999: "yesterday", 20_001: "tomorrow"},
        (Event("sale", now - 10, now + 10), Event("sale", now - 20, now - 10)),
        (Floor(now + 100, now + 200, 5.0),),
    )
    hours = History(0.0, 3600.0, np.full(3, np.nan), np.zeros(3, dtype=np.bool_))
    found = facts(counts(1, 100), hours, calendar, now, counted=True, cpu_seconds=1.5)
    assert found.series == ("workload:demand:rate1m",)
    assert found.ahead == {"holiday": 2, "event": 1, "floor": 1}
    short = counts(1, 100)
    for first, expected in ((-7200.0, True), (3600.0, False)):  # older than the history; made from it
        year = History(short.start + first, 3600.0, np.ones(2), np.zeros(2, dtype=np.bool_))
        assert ("workload:demand:avg1h" in facts(short, year, calendar, now, counted=True).series) is expected
    late = facts(counts(1, 100), None, calendar, now + 0.3 * 86_400, counted=True)  # in Seoul it is tomorrow already
    assert late.ahead == {"holiday": 1, "event": 0, "floor": 0}
