"""Against a real Prometheus whose past was backfilled minute by minute, seventeen seconds after the full minute."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.config import Prometheus as Settings
from controllers.forecast.observe import Observer
from controllers.forecast.run import Forecaster
from controllers.loop import Tick
from controllers.sources.prometheus import Source
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
