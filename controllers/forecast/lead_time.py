"""How long replicas take to start, and so which part of the hour ahead a decision has to cover."""

import math
from collections.abc import Mapping

from controllers.config import Config
from controllers.rules import expressions
from controllers.sources.prometheus import Reading, Source

LEAD_TIME = "workload:lead_time_seconds:quantile"
MEDIAN, HIGH = "0.5", "0.9"
INTERVALS = 2.0  # of the scaler: until it decides again, and as much for what its data and its loop are late


def read_windows(source: Source, config: Config, now: float, seconds: float) -> dict[str, tuple[float, float]]:
    """Begin and end (seconds ahead) of the window that a decision of each workload covers. Raises SourceError."""
    fallbacks = {LEAD_TIME: expressions(config).get(LEAD_TIME, {})}
    return windows(source.contract_at([LEAD_TIME], fallbacks, now, seconds)[LEAD_TIME], config)


def windows(reading: Reading, config: Config) -> dict[str, tuple[float, float]]:
    """[L, L + Δ): from the usual lead time until replicas that the next decision asks for are ready even if slow.

    Where nothing was learned yet, the configured lead time counts.
    """
    until_next = INTERVALS * config.scale.interval_seconds
    found: dict[str, tuple[float, float]] = {}
    for workload in config.workloads:
        learned = _quantiles(reading, workload.identity)
        usual = learned.get(MEDIAN, workload.lead_time_seconds)
        window = (usual, max(usual, learned.get(HIGH, usual)) + until_next)
        found |= {signal.identity: window for signal in workload.signals()}
    return found


def _quantiles(reading: Reading, workload: str) -> Mapping[str, float]:
    if workload in reading.errors:
        return {}
    return {
        series.labels.get("quantile", ""): series.samples[-1].value
        for series in reading.series.get(workload, ())
        if 0 <= series.samples[-1].value < math.inf
    }


def configured(config: Config) -> dict[str, tuple[float, float]]:
    """The windows while Prometheus tells nothing."""
    return windows(Reading(LEAD_TIME), config)
