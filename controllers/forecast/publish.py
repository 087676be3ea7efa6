"""Forecasts on /metrics. A forecast past its `valid_until` disappears, rather than freeze into a wrong number."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controllers.forecast.facts import Facts
from controllers.forecast.history import Why
from controllers.forecast.models.ensemble import Mixture
from controllers.forecast.predict import Outlook
from controllers.forecast.selection import Fitted
from controllers.forecast.slices import Slices

MAX_SKILL = 100.0  # where the naive forecasts made no error


@dataclass(frozen=True, slots=True)
class Published:
    """What is known about one workload. `outlook` None: no forecast yet; `refused` None: the last one could be made."""

    fitted: Fitted | None = None
    outlook: Outlook | None = None
    refused: Why | None = None
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """What is known about the process as a whole. `files`: each calendar file, and whether it can be read."""

    slices: Slices | None = None
    files: Mapping[str, bool] | None = None


class ForecastCollector(Collector):
    """The forecasts' series. `show` replaces the whole state at once, from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._state: Mapping[str, Published] = {}
        self._failures: Mapping[str, int] = {}
        self._process = Process()

    def show(
        self, state: Mapping[str, Published], fit_failures: Mapping[str, int], process: Process = Process()
    ) -> None:
        self._state, self._failures, self._process = dict(state), dict(fit_failures), process

    def current(self, workload: str) -> Outlook | None:
        """The workload's forecast while it is valid."""
        outlook = self._state.get(workload, Published()).outlook
        return outlook if outlook is not None and self._clock() < outlook.forecast.valid_until else None

    def collect(self) -> Iterator[Metric]:
        state, failures = self._state, self._failures
        valid = {name: outlook for name in state if (outlook := self.current(name)) is not None}
        yield from _forecasts(valid)
        yield from _windows(valid)
        yield from _judgements(valid)
        yield from _fits({name: known.fitted for name, known in state.items() if known.fitted is not None})
        yield from _facts({name: known.facts for name, known in state.items() if known.facts is not None})
        refused = GaugeMetricFamily(
            "tidewise_forecast_refused", "1 while no new forecast can be made, and why.", labels=["workload", "reason"]
        )
        for name, known in state.items():
            if known.refused is not None:
                refused.add_metric([name, known.refused.value], 1)
        yield refused
        failed = CounterMetricFamily(
            "tidewise_forecast_fit_failures", "Fits that failed; the last good one stays in use.", labels=["kind"]
        )
        for kind, count in failures.items():
            failed.add_metric([kind], count)
        yield failed
        yield from _process(self._process)


def _forecasts(outlooks: Mapping[str, Outlook]) -> Iterator[Metric]:
    per_horizon, per_quantile = ["workload", "horizon_seconds"], ["workload", "horizon_seconds", "quantile"]
    demand = GaugeMetricFamily(
        "tidewise_forecast_demand", "Demand per second expected at made + horizon.", labels=per_horizon
    )
    quantile = GaugeMetricFamily(
        "tidewise_forecast_demand_quantile", "Quantile of the demand per second at made + horizon.", labels=per_quantile
    )
    peak = GaugeMetricFamily(
        "tidewise_forecast_peak_quantile",
        "Quantile of the largest one-minute demand per second until made + horizon.",
        labels=per_quantile,
    )
    arrivals = GaugeMetricFamily(
        "tidewise_forecast_arrivals_quantile",
        "Quantile of the work items that arrive until made + horizon.",
        labels=per_quantile,
    )
    made = _by_workload("made_timestamp_seconds", "When the forecast was made.")
    until = _by_workload("valid_until_timestamp_seconds", "Until when the forecast may be used.")
    is_open = _by_workload("gate_open", "1 while the model has skill, 0 while the scaler should be reactive.")
    gate = GaugeMetricFamily(
        "tidewise_forecast_gate_info", "Why the gate is open or closed.", labels=["workload", "reason"]
    )
    widened = _by_workload("widening_ratio", "Factor on the band after an hour of larger errors than usual.")
    for name, outlook in outlooks.items():
        forecast = outlook.forecast
        for horizon in forecast.horizons:
            labels = [name, str(horizon.seconds)]
            demand.add_metric(labels, horizon.value)
            for family, values in (
                (quantile, horizon.quantiles),
                (peak, horizon.peak),
                (arrivals, horizon.arrivals),
            ):
                for q, value in values.items():
                    family.add_metric([*labels, f"{q:g}"], value)
        made.add_metric([name], forecast.made_at)
        until.add_metric([name], forecast.valid_until)
        is_open.add_metric([name], float(forecast.gate_open))
        gate.add_metric([name, outlook.gate.value], 1)
        widened.add_metric([name], outlook.widened)
    yield from (demand, quantile, peak, arrivals, made, until, is_open, gate, widened)


def _windows(outlooks: Mapping[str, Outlook]) -> Iterator[Metric]:
    peak = GaugeMetricFamily(
        "tidewise_forecast_window_peak_quantile",
        "Quantile of the largest one-minute demand per second in the window that a decision made now covers.",
        labels=["workload", "quantile"],
    )
    begin = _by_workload("window_begin_seconds", "Seconds from now until that window begins: the lead time.")
    end = _by_workload("window_end_seconds", "Seconds from now until it ends: the next decision's replicas are ready.")
    for name, outlook in outlooks.items():
        window = outlook.forecast.window
        if window is None:
            continue
        for q, value in window.peak.items():
            peak.add_metric([name, f"{q:g}"], value)
        begin.add_metric([name], window.begin_seconds)
        end.add_metric([name], window.end_seconds)
    yield from (peak, begin, end)


def _judgements(outlooks: Mapping[str, Outlook]) -> Iterator[Metric]:
    """How good the forecaster itself takes its forecasts to be; Prometheus judges what was published."""
    skill = GaugeMetricFamily(
        "tidewise_forecast_skill_ratio",
        "Error over that time relative to the best naive forecast's, backtest included; below 1 is better.",
        labels=["workload", "window"],
    )
    coverage = GaugeMetricFamily(
        "tidewise_forecast_coverage_ratio",
        "Share of outcomes that stayed at or below the quantile; near the quantile is right.",
        labels=["workload", "kind", "horizon_seconds", "quantile"],
    )
    for name, outlook in outlooks.items():
        for window, found in (("6h", outlook.skill.quarter), ("1d", outlook.skill.day), ("7d", outlook.skill.week)):
            if found is not None:
                skill.add_metric([name, window], min(found, MAX_SKILL))
        published = {f"{q:g}" for horizon in outlook.forecast.horizons for q in horizon.quantiles}
        for each in outlook.coverage:
            if f"{each.quantile:g}" in published:
                coverage.add_metric([name, each.kind, str(each.horizon_seconds), f"{each.quantile:g}"], each.ratio)
    yield from (skill, coverage)


def _fits(fits: Mapping[str, Fitted]) -> Iterator[Metric]:
    info = GaugeMetricFamily("tidewise_forecast_model_info", "The model in use.", labels=["workload", "model"])
    stage = GaugeMetricFamily(
        "tidewise_forecast_stage_info", "What the length of the history allowed to try.", labels=["workload", "stage"]
    )
    trained = _by_workload("trained_timestamp_seconds", "The newest sample that the model has learned from.")
    history = _by_workload("history_seconds", "Length of the history that the model has learned from.")
    wape = GaugeMetricFamily(
        "tidewise_forecast_backtest_wape_ratio",
        "Summed absolute error over summed demand, on the last days, mean over the horizons.",
        labels=["workload", "model"],
    )
    skill = GaugeMetricFamily(
        "tidewise_forecast_backtest_skill_ratio",
        "Backtest error relative to that of the best naive model; below 1 is better.",
        labels=["workload", "model"],
    )
    per_model = ["workload", "model"]
    member = GaugeMetricFamily(
        "tidewise_forecast_ensemble_member_info",
        "The members that have a say in the ensemble in use.",
        labels=per_model,
    )
    age = GaugeMetricFamily(
        "tidewise_forecast_model_trained_timestamp_seconds",
        "The newest sample that each model has learned from; heavy ones are fitted less often.",
        labels=per_model,
    )
    cost = GaugeMetricFamily(
        "tidewise_forecast_model_fit_cpu_seconds", "CPU seconds of each model's last fit.", labels=per_model
    )
    left_out = GaugeMetricFamily(
        "tidewise_forecast_model_left_out_info",
        "Models that had no say: too little history, not their turn yet, or their fit failed.",
        labels=per_model,
    )
    for name, fitted in fits.items():
        if isinstance(fitted.learned, Mixture):
            for model in sorted(fitted.learned.learned):
                member.add_metric([name, model], 1)
        for model, part in fitted.parts.items():
            age.add_metric([name, model], part.fitted_at)
            cost.add_metric([name, model], part.cpu_seconds)
        for model in fitted.left_out:
            left_out.add_metric([name, model], 1)
        info.add_metric([name, fitted.model], 1)
        stage.add_metric([name, fitted.stage.value], 1)
        trained.add_metric([name], fitted.trained_at)
        history.add_metric([name], fitted.history_seconds)
        naive = fitted.best_naive
        for model, error in fitted.wape.items():
            wape.add_metric([name, model], error)
            if naive:
                skill.add_metric([name, model], min(error / naive, MAX_SKILL))
    yield from (info, stage, trained, history, wape, skill, member, age, cost, left_out)


def _facts(known: Mapping[str, Facts]) -> Iterator[Metric]:
    floor = GaugeMetricFamily(
        "tidewise_forecast_noise_floor_ratio",
        "The least WAPE that chance leaves to any forecast of means over so many seconds.",
        labels=["workload", "mean_seconds"],
    )
    series = GaugeMetricFamily(
        "tidewise_forecast_series_info",
        "Contract series that samples were learned from.",
        labels=["workload", "series"],
    )
    ahead = GaugeMetricFamily(
        "tidewise_forecast_calendar_ahead",
        "Holidays, events and floors of the calendar that go on or are to come.",
        labels=["workload", "kind"],
    )
    cost = _by_workload("fit_cpu_seconds", "CPU seconds of the last fit with its backtest.")
    for name, facts in known.items():
        for seconds, ratio in facts.floors.items():
            floor.add_metric([name, str(seconds)], ratio)
        for used in facts.series:
            series.add_metric([name, used], 1)
        for kind, count in facts.ahead.items():
            ahead.add_metric([name, kind], count)
        if facts.cpu_seconds is not None:
            cost.add_metric([name], facts.cpu_seconds)
    yield from (floor, series, ahead, cost)


def _process(process: Process) -> Iterator[Metric]:
    readable = GaugeMetricFamily(
        "tidewise_forecast_calendar_file_readable", "1 while the calendar file can be read.", labels=["file"]
    )
    for file, good in (process.files or {}).items():
        readable.add_metric([file], float(good))
    yield readable
    for name, text in (
        ("budget", "CPU seconds a day that heavy models may take."),
        ("spent", "CPU seconds that heavy models took within the last 24 hours."),
        ("wanted", "CPU seconds a day that they would take, had all workloads their turn."),
    ):
        family = GaugeMetricFamily(f"tidewise_forecast_heavy_{name}_cpu_seconds", text)
        if process.slices is not None:
            family.add_metric([], float(getattr(process.slices, f"{name}_seconds")))
        yield family


def _by_workload(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tidewise_forecast_{name}", text, labels=["workload"])
