"""Against a real Prometheus whose past was backfilled minute by minute, seventeen seconds after the full minute."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from controllers.config import Config
from controllers.config import Prometheus as Settings
from controllers.forecast.history import Floats
from controllers.forecast.observe import Observer
from controllers.forecast.run import Forecaster
from controllers.loop import Tick
from controllers.sources.prometheus import Reading, Source
from testbed.parts import Prometheus, create_blocks

NAME = "default/a"
PHASE = 17.0
DAYS = 2


@pytest.mark.real
def test_a_backfilled_past_is_read_as_it_was_and_forecast(
    make: SimpleNamespace, prometheus_factory: Callable[..., Prometheus], parts_root: Path, tmp_path: Path
) -> None:
    newest = time.time() // 60 * 60 - 60 + PHASE
    times = newest - 60 * np.arange(DAYS * 1440 - 1, -1, -1)
    values = make.poisson(make.daily(times / 60))
    text = tmp_path / "history.txt"
    lines = [
        f'workload:demand:rate1m{{workload="{NAME}"}} {value} {at}' for at, value in zip(times, values, strict=True)
    ]
    text.write_text("\n".join(["# TYPE workload:demand:rate1m gauge", *lines, "# EOF", ""]), encoding="utf-8")
    (tmp_path / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
    server = prometheus_factory(tmp_path / "prometheus.yml")
    server.stop()
    create_blocks(text, server.data_folder, root=parts_root)
    server.start()
    source = Source(Settings(url=server.url))
    config = make.config("a", history_days=DAYS)

    observer = Observer(source, config)
    now = newest + 20
    observer.read(now, lambda: 30.0)
    history = observer.history(NAME)
    assert history.end == newest
    np.testing.assert_allclose(history.values, values)

    forecaster = Forecaster(config, source)
    try:
        forecaster.step(Tick(now, time.monotonic() + 60))
    finally:
        forecaster.close()
    made = forecaster.collector.current(NAME)
    assert made is not None
    due = make.daily(np.array([(now + 300) / 60]))[0]
    assert made.forecast.horizons[1].value == pytest.approx(due, rel=0.2)


class Counting(Source):
    """Counts the samples that it was sent."""

    samples = 0

    def contract_range(self, *args: Any, **kwargs: Any) -> dict[str, Reading]:
        readings = super().contract_range(*args, **kwargs)
        for reading in readings.values():
            self.samples += sum(len(series.samples) for found in reading.series.values() for series in found)
        return readings


def exposed(name: str, labels: str, times: Floats, values: Floats) -> list[str]:
    kind = "counter" if name.endswith("_total") else "gauge"
    lines = [f"{name}{{{labels}}} {value} {at:.3f}" for at, value in zip(times, values, strict=True)]
    return [f"# TYPE {name.removesuffix('_total')} {kind}", *lines]


@pytest.mark.real
def test_a_year_of_hours_beside_a_month_of_minutes_with_a_restarted_counter(
    make: SimpleNamespace, prometheus_factory: Callable[..., Prometheus], parts_root: Path, tmp_path: Path
) -> None:
    newest = time.time() // 60 * 60 - 60 + PHASE
    minutes = newest - 60 * np.arange(30 * 1440 - 1, -1, -1)
    per_minute = make.poisson(make.daily(minutes / 60))
    hours = newest // 3600 * 3600 - 3600 * np.arange(365 * 24 - 1, -1, -1)
    per_hour = make.daily(hours / 60) + 100  # not what the minutes say: one sees where a figure is from
    raw = newest - 15 * np.arange(4 * 240 - 1, -1, -1)
    counter = 30.0 * np.arange(len(raw))  # two a second
    counter[500:] -= counter[500]  # its exporter was restarted: it begins at 0 again
    (tmp_path / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
    server = prometheus_factory(tmp_path / "prometheus.yml", retention="400d")
    server.stop()
    demand, label = "workload:demand:rate1m", f'workload="{NAME}"'
    # the last days come first, and a week of them once more: blocks that overlap, neither in order nor once
    for begin, end in ((-10 * 1440, None), (None, -10 * 1440), (-17 * 1440, -10 * 1440)):
        part = slice(begin, end)
        lines = exposed(demand, label, minutes[part], per_minute[part])
        if begin is None:
            lines += exposed("workload:demand:avg1h", label, hours, per_hour)
            lines += exposed("jobs_total", "", raw, counter)
        text = tmp_path / "part.txt"
        text.write_text("\n".join([*lines, "# EOF", ""]), encoding="utf-8")
        create_blocks(text, server.data_folder, root=parts_root)
    server.start()

    source = Counting(Settings(url=server.url))
    target = {"command": {"get": ["true"], "set": ["true", "{replicas}"]}}
    config = Config.model_validate(
        {
            "workloads": [
                {"name": "a", "demand": {"promql": "vector(1)"}, "target": target, "replicas": {"max": 4}},
                {"name": "b", "demand": {"promql": "rate(jobs_total[1m])"}, "target": target, "replicas": {"max": 4}},
            ]
        }
    )
    now = newest + 20
    observer = Observer(source, config)
    observer.read(now, lambda: 60.0)
    assert observer.complete
    assert observer.year_complete
    history = observer.history(NAME)
    assert history.end == newest
    np.testing.assert_allclose(history.values, per_minute)
    year = observer.hours(NAME)
    assert year is not None
    assert year.step_seconds == 3600
    assert year.end == hours[-1]
    old = len(year.values) - 30 * 24 - 1
    ends = year.start + 3600 * np.arange(len(year.values))
    np.testing.assert_allclose(year.values[:old], per_hour[-len(ends) :][:old], rtol=1e-6)
    in_last_hour = (minutes > ends[-1] - 3600 + PHASE) & (minutes <= ends[-1] + PHASE)
    assert year.values[-1] == pytest.approx(per_minute[in_last_hour].mean(), rel=1e-6)

    counted = observer.history("default/b").values
    inside = counted[2:]  # the first two have no whole minute before them
    assert len(inside) > 200
    assert np.nanmin(inside) >= 1.5  # what came between two scrapes of the restart is lost
    assert np.nanmax(inside) < 2.5  # neither a spike nor less than nothing where the counter fell

    source.samples = 0
    for cycle in range(1, 5):
        observer.read(now + 30 * cycle, lambda: 60.0)
    assert source.samples <= 4 * 2 * 7  # two minutes were new; not a month again

    long = Observer(source, config.model_copy(update={"forecast": make.config("a", step_seconds=300).forecast}))
    long.read(now, lambda: 60.0)
    bins = long.history(NAME)
    at = [(minutes > end - 300 + 1e-3) & (minutes <= end + 1e-3) for end in bins.start + 300 * np.arange(5, 300)]
    np.testing.assert_allclose(bins.values[5:300], [per_minute[here].mean() for here in at], rtol=1e-9)
    assert np.nanmax(long.history("default/b").values[1:]) < 2.5
