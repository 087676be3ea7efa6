"""The controller as the loop runs it: first forecast, bad days, HTTP, and the command that runs once."""

import json
import math
import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controllers.config import Config
from controllers.forecast import run
from controllers.forecast.almanac import Calendar
from controllers.forecast.history import History
from controllers.forecast.job import Job
from controllers.forecast.predict import Outlook
from controllers.forecast.run import Forecaster
from controllers.loop import StepError, Tick
from controllers.sources.prometheus import Kind, SourceError
from exporters.runtime.endpoint import Request

NAME = "default/a"
START = 1_699_999_980.0  # a whole minute


def rate(t: float) -> float:
    """A smooth day, with a little that no model knows."""
    return 10 + 4 * math.sin(2 * math.pi * t / 86_400) + 0.3 * math.sin(t / 7)


def tick(seconds: float) -> Tick:
    return Tick(START + seconds, time.monotonic() + 120)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer to start a process than a step would wait; it goes on as soon as there is one."""
    monkeypatch.setattr(run, "FIRST_FIT_SECONDS", 60.0)


def get(forecaster: Forecaster, **query: str) -> tuple[int, Any]:
    response = forecaster.answer(Request("GET", "/forecast", query, {}, b""))
    return response.status, json.loads(response.body)


def metrics(forecaster: Forecaster) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(forecaster.collector)
    lines = [line.rsplit(" ", 1) for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in lines}


@pytest.fixture
def source(make: SimpleNamespace) -> SimpleNamespace:
    return make.FakeSource({NAME: rate})


@pytest.fixture
def forecaster(make: SimpleNamespace, source: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forecaster]:
    """Over three days of history, on a clock that a test sets through `forecaster.at`."""
    found = Forecaster(make.config("a", history_days=3, valid_seconds=300, heavy_cpu_seconds_per_day=0), source)
    found.at = START
    monkeypatch.setattr(found.collector, "_clock", lambda: found.at)
    yield found
    found.close()


def test_the_first_step_publishes_a_forecast(forecaster: Forecaster) -> None:
    forecaster.step(tick(0))
    found = metrics(forecaster)
    label = f'workload="{NAME}"'
    assert found[f"tidewise_forecast_made_timestamp_seconds{{{label}}}"] == START
    assert found[f"tidewise_forecast_valid_until_timestamp_seconds{{{label}}}"] == START + 300
    assert found[f"tidewise_forecast_gate_open{{{label}}}"] == 1
    assert len([name for name in found if name.startswith("tidewise_forecast_model_info{")]) == 1
    assert len([name for name in found if name.startswith("tidewise_forecast_stage_info{")]) == 1
    assert found[f'tidewise_forecast_series_info{{series="workload:demand:rate1m",{label}}}'] == 1
    assert found[f"tidewise_forecast_fit_cpu_seconds{{{label}}}"] > 0
    assert found[f"tidewise_forecast_history_seconds{{{label}}}"] == 3 * 86_400
    for horizon in (120, 300, 900, 1800, 3600):
        value = found[f'tidewise_forecast_demand{{horizon_seconds="{horizon}",{label}}}']
        assert value == pytest.approx(rate(START + horizon), abs=1)
        for kind in ("demand", "peak", "arrivals"):
            for q in ("0.1", "0.9", "0.98"):
                labels = f'{{horizon_seconds="{horizon}",quantile="{q}",{label}}}'
                assert found[f"tidewise_forecast_{kind}_quantile{labels}"] > 0
        assert f'tidewise_forecast_arrivals_quantile{{horizon_seconds="{horizon}",quantile="0.5",{label}}}' in found
    naive = ("last_value", "seasonal_naive", "day_naive")
    assert min(found[f'tidewise_forecast_backtest_skill_ratio{{model="{model}",{label}}}'] for model in naive) == 1
    assert found[f'tidewise_forecast_backtest_wape_ratio{{model="ridge",{label}}}'] < 0.05


def test_a_forecast_past_its_validity_disappears(forecaster: Forecaster) -> None:
    forecaster.step(tick(0))
    forecaster.at = START + 299
    assert f'tidewise_forecast_gate_open{{workload="{NAME}"}}' in metrics(forecaster)
    assert get(forecaster)[0] == 200
    forecaster.at = START + 300
    left = metrics(forecaster)
    families = {name.partition("{")[0] for name in left}
    assert not [
        name for name in families if "demand" in name or "quantile" in name or "gate" in name or "valid" in name
    ]
    assert get(forecaster)[0] == 503


def test_prometheus_away_is_a_failed_step_and_the_last_forecast_stays(
    forecaster: Forecaster, source: SimpleNamespace
) -> None:
    forecaster.step(tick(0))

    def fail(start: float, end: float) -> None:
        raise SourceError(Kind.UNREACHABLE, "connection refused")

    source.fail = fail
    with pytest.raises(StepError) as failed:
        forecaster.step(tick(60))
    assert failed.value.kind == "unreachable"
    assert get(forecaster)[1]["made_at"] == START
    source.fail = lambda start, end: None
    forecaster.step(tick(120))
    assert get(forecaster)[1]["made_at"] == START + 120


def test_demand_that_stopped_coming_is_refused_with_its_reason(forecaster: Forecaster, source: SimpleNamespace) -> None:
    forecaster.step(tick(0))
    source.demand = {NAME: lambda t: rate(t) if t <= START else None}
    forecaster.step(tick(1200))
    assert metrics(forecaster)[f'tidewise_forecast_refused{{reason="stale",workload="{NAME}"}}'] == 1
    source.demand = {NAME: rate}
    forecaster.step(tick(1260))
    assert not [name for name in metrics(forecaster) if "refused" in name]


def test_a_workload_without_samples_has_no_forecast_and_says_why(make: SimpleNamespace) -> None:
    forecaster = Forecaster(make.config("a", history_days=1), make.FakeSource({}))
    forecaster.step(tick(0))
    assert metrics(forecaster)[f'tidewise_forecast_refused{{reason="no_samples",workload="{NAME}"}}'] == 1
    status, told = get(forecaster)
    assert status == 503
    assert "no_samples" in told["error"]
    assert "no valid forecast" in forecaster.landing()


def test_heavy_models_do_not_wait_for_a_workload_without_samples(
    make: SimpleNamespace, source: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster = Forecaster(make.config("a", "b", history_days=8), source)
    begun: dict[str, Job] = {}
    try:
        forecaster.step(tick(0))
        monkeypatch.setattr(forecaster._fitter, "begin", lambda jobs: begun.update(jobs) or [])
        forecaster.step(tick(30))
    finally:
        forecaster.close()
    assert {name: job.heavy for name, job in begun.items()} == {NAME: True}


def test_a_fit_killed_with_minus_nine_is_counted_and_made_again(
    forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FIRST_FIT_SECONDS", 0.0)
    forecaster.step(tick(0))
    assert forecaster._fitter.pid is not None
    os.kill(forecaster._fitter.pid, signal.SIGKILL)
    monkeypatch.setattr(run, "FIRST_FIT_SECONDS", 30.0)
    forecaster.step(tick(30))
    assert metrics(forecaster)['tidewise_forecast_fit_failures_total{kind="died"}'] == 1
    assert get(forecaster)[0] == 503
    forecaster.step(tick(61))  # a minute after the first try
    assert get(forecaster)[0] == 200


def test_models_are_fitted_anew_after_an_hour_and_the_last_one_serves_meanwhile(forecaster: Forecaster) -> None:
    forecaster.step(tick(0))
    for seconds in (1800, 3590):
        forecaster.step(tick(seconds))
        assert not forecaster._fitter.busy
    forecaster.step(tick(3601))
    assert forecaster._fitter.busy
    forecaster.at = START + 3601
    assert get(forecaster)[1]["trained_at"] == START
    until = time.monotonic() + 30
    while forecaster._fitter.busy and time.monotonic() < until:
        time.sleep(0.1)
        forecaster.step(tick(3602))
    assert get(forecaster)[1]["trained_at"] > START + 3500


def test_the_whole_path_is_told_as_json(forecaster: Forecaster) -> None:
    forecaster.step(tick(0))
    status, told = get(forecaster, workload="a")
    assert status == 200
    assert told["workload"] == NAME
    assert told["gate"] == {"open": True, "reason": "open"}
    assert len(told["path"]) == 61
    assert START < told["path"][0]["at"] <= START + 60
    assert set(told["path"][0]["quantiles"]) == {"0.1", "0.9", "0.98"}
    assert get(forecaster, workload="nobody") == (404, {"error": "no workload 'nobody'", "workloads": [NAME]})
    assert f'<a href="/forecast?workload={NAME}">' in forecaster.landing()


def test_a_workload_that_cannot_be_thought_about_costs_the_others_nothing(
    make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real = "default/b", run.forecast_of

    def failing(config: Config, calendar: Calendar, history: History, *rest: Any) -> Outlook:
        if float(history.values[0]) > 100:
            raise ZeroDivisionError("of the test")
        return real(config, calendar, history, *rest)

    monkeypatch.setattr(run, "forecast_of", failing)
    source = make.FakeSource({other: lambda t: 1000.0, NAME: rate})
    forecaster = Forecaster(make.config("b", "a", history_days=1), source)
    monkeypatch.setattr(forecaster.collector, "_clock", lambda: START)
    try:
        forecaster.step(tick(0))
    finally:
        forecaster.close()
    found = metrics(forecaster)
    assert found[f'tidewise_forecast_refused{{reason="failed",workload="{other}"}}'] == 1
    assert f'tidewise_forecast_gate_open{{workload="{other}"}}' not in found
    assert found[f'tidewise_forecast_made_timestamp_seconds{{workload="{NAME}"}}'] == START
