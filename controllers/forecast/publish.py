"""Forecasts on /metrics. A forecast past its `valid_until` disappears, rather than freeze into a wrong number."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controllers.forecast.history import Why
from controllers.forecast.predict import Outlook
from controllers.forecast.selection import Fitted


@dataclass(frozen=True, slots=True)
class Published:
    """What is known about one workload. `outlook` None: no forecast yet; `refused` None: the last one could be made."""

    fitted: Fitted | None = None
    outlook: Outlook | None = None
    refused: Why | None = None


class ForecastCollector(Collector):
    """The forecasts' series. `show` replaces the whole state at once, from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._state: Mapping[str, Published] = {}
        self._failures: Mapping[str, int] = {}

    def show(self, state: Mapping[str, Published], fit_failures: Mapping[str, int]) -> None:
        self._state, self._failures = dict(state), dict(fit_failures)

    def current(self, workload: str) -> Outlook | None:
        """The workload's forecast while it is valid."""
        outlook = self._state.get(workload, Published()).outlook
        return outlook if outlook is not None and self._clock() < outlook.forecast.valid_until else None

    def collect(self) -> Iterator[Metric]:
        state, failures = self._state, self._failures
        yield from _forecasts({name: outlook for name in state if (outlook := self.current(name)) is not None})
        yield from _fits({name: known.fitted for name, known in state.items() if known.fitted is not None})
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
        "Backtest error relative to the seasonal naive's; below 1 is better.",
        labels=["workload", "model"],
    )
    for name, fitted in fits.items():
        info.add_metric([name, fitted.model], 1)
        stage.add_metric([name, fitted.stage.value], 1)
        trained.add_metric([name], fitted.trained_at)
        history.add_metric([name], fitted.history_seconds)
        naive = fitted.wape.get("seasonal_naive", 0.0)
        for model, error in fitted.wape.items():
            wape.add_metric([name, model], error)
            if naive > 0:
                skill.add_metric([name, model], error / naive)
    yield from (info, stage, trained, history, wape, skill)


def _by_workload(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tidewise_forecast_{name}", text, labels=["workload"])
