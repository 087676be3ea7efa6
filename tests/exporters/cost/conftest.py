"""What the cost exporter's tests share: its page as a dictionary, and a clock to set."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from prometheus_client.core import Metric

from exporters.collector import PartialReadError
from exporters.cost import Config, collectors

Series = dict[str, float]
LEFT_OUT = ("source", "basis")


class Page:
    """The exporter with one source configured: `look()` reads it, `problem` says what could not be read."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        [(self.name, self._function)] = collectors(Config.model_validate(config)).items()
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
            sample.name + "".join(f" {text or '-'}" for key, text in sample.labels.items() if key not in LEFT_OUT):
            sample.value
            for metric in found
            for sample in metric.samples
        }  # fmt: skip


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the exporter's clock."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: seconds)

    return set_to
