"""An n8n's tables with two workflows, on each database and in each shape, and the page that is read from them."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric

from exporters.collector import PartialReadError
from exporters.workflow import Config, collectors
from tests.exporters.workflow.tables import Tables, on_postgresql, on_sqlite

Series = dict[str, float]


class Page:
    """The exporter over one n8n: `look()` reads it, `problem` says what could not be read."""

    def __init__(self, source: Mapping[str, Any], **more: object) -> None:
        [self._function] = collectors(Config(n8n=[{**source, **more}])).values()
        self.problem: str | None = None

    def look(self, seconds: float = 5) -> Series:
        found: list[Metric] = []
        self.problem = None
        try:
            for metric in self._function(time.monotonic() + seconds):
                found.append(metric)
        except PartialReadError as error:
            self.problem = str(error)
        return {
            sample.name + "".join(f" {value}" for key, value in sample.labels.items() if key != "system"): sample.value
            for metric in found
            for sample in metric.samples
        }


@pytest.fixture(
    params=[
        pytest.param(("sqlite", "old"), id="an early 1.x on SQLite"),
        pytest.param(("sqlite", "new"), id="2.x on SQLite"),
        pytest.param(("postgresql", "old"), id="an early 1.x on PostgreSQL", marks=pytest.mark.real),
        pytest.param(("postgresql", "new"), id="2.x on PostgreSQL", marks=pytest.mark.real),
    ]
)
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    """Empty tables."""
    kind, shape = request.param
    if kind == "sqlite":
        return on_sqlite(tmp_path / "database.sqlite", shape, "n8n_")
    return on_postgresql(request.getfixturevalue("postgresql_dsn"), shape, "n8n_")


@pytest.fixture
def sqlite(tmp_path: Path) -> Tables:
    """Empty tables of a 2.x on SQLite."""
    return on_sqlite(tmp_path / "database.sqlite", "new")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the exporter's clock by so many seconds."""
    real, moved = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + moved[0])

    def move(seconds: float) -> None:
        moved[0] += seconds

    return move
