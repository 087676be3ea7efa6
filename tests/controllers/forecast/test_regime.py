"""Demand becomes another one: the gate closes soon, present demand decides meanwhile, and it opens again by evidence.

A real Prometheus holds nine days of minutes; the forecaster steps through the hours around the change as its loop
would, at a clock that runs ahead: it reads, fits in its own process, judges and publishes as ever.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.config import Prometheus as Settings
from controllers.forecast.run import Forecaster
from controllers.loop import Tick
from controllers.sources.prometheus import Source
from testbed.parts import Prometheus, create_blocks

NAME = "default/a"
DAYS, HOURS = 8, 5  # before the change, after it
FACTOR = 2.5  # a new customer at 10:00
CLOSED_WITHIN_MINUTES, OPEN_AGAIN_WITHIN_MINUTES = 30, 240
MINUTES = (*range(-20, 0, 5), *range(0, 30, 2), *range(30, 60 * HOURS - 10, 15))  # of the steps, from the change


@dataclass(frozen=True)
class Seen:
    """What was published that many minutes after the change."""

    minute: int
    is_open: bool
    reason: str
    demand_ratio: float  # what was forecast five minutes ahead, of the rate that was true then


@pytest.fixture(scope="module")
def seen(make: SimpleNamespace, parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    folder = tmp_path_factory.mktemp("regime")
    changed = time.time() // 60 * 60 - 3600 * HOURS
    minutes = np.arange(-DAYS * 1440, HOURS * 60)
    rates = make.daily(minutes + 600.0) * np.where(minutes > 0, FACTOR, 1.0)
    samples = zip(minutes.tolist(), make.poisson(rates).tolist(), strict=True)
    lines = [f'workload:demand:rate1m{{workload="{NAME}"}} {value} {changed + 60 * at}' for at, value in samples]
    (folder / "history.txt").write_text("\n".join(["# TYPE workload:demand:rate1m gauge", *lines, "# EOF", ""]))
    (folder / "prometheus.yml").write_text("global: {}\n")
    server = Prometheus(folder / "server", folder / "prometheus.yml", root=parts_root)
    create_blocks(folder / "history.txt", server.data_folder, root=parts_root)
    true = dict(zip(minutes.tolist(), rates.tolist(), strict=True))
    config = make.config("a", history_days=DAYS, refit_seconds=7200, heavy_cpu_seconds_per_day=0)
    with server:
        forecaster = Forecaster(config, Source(Settings(url=server.url)))
        try:
            return [published(forecaster, changed, minute, true) for minute in MINUTES]
        finally:
            forecaster.close()


def published(forecaster: Forecaster, changed: float, minute: int, rates: dict[int, float]) -> Seen:
    now = changed + 60 * minute + 1
    forecaster.collector._clock = lambda: now
    forecaster.step(Tick(now, time.monotonic() + 60))
    while forecaster._fitter.busy:  # at this clock a fit would take hours
        time.sleep(0.05)
        forecaster.step(Tick(now, time.monotonic() + 60))
    metrics = {
        (sample.name.removeprefix("tidewise_forecast_"), sample.labels.get("horizon_seconds", "")): sample
        for family in forecaster.collector.collect()
        for sample in family.samples
    }
    return Seen(
        minute,
        metrics["gate_open", ""].value == 1,
        metrics["gate_info", ""].labels["reason"],
        metrics["demand", "300"].value / rates[minute + 5],
    )


@pytest.mark.real
def test_before_the_change_the_forecast_decides(seen: list[Seen]) -> None:
    assert [one.reason for one in seen if one.minute < 0] == ["open"] * 4


@pytest.mark.real
def test_the_gate_closes_within_half_an_hour_and_says_why(seen: list[Seen]) -> None:
    closed = next(one for one in seen if one.minute >= 0 and not one.is_open)
    assert closed.minute <= CLOSED_WITHIN_MINUTES
    assert closed.reason == "degraded"
    # closed for as long as what was learned misleads, not for a moment
    assert [one.is_open for one in seen if closed.minute <= one.minute <= 30].count(True) == 0


@pytest.mark.real
def test_it_opens_again_once_the_forecast_has_followed(seen: list[Seen]) -> None:
    closed = next(one.minute for one in seen if one.minute >= 0 and not one.is_open)
    opened = next(one for one in seen if one.minute > closed and one.is_open)
    assert opened.minute <= OPEN_AGAIN_WITHIN_MINUTES
    assert opened.demand_ratio == pytest.approx(1.0, abs=0.15)
    assert sum(one.is_open for one in seen[-5:]) >= 4
