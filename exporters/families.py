"""What the exporters say of each metric before there is a value: name, kind, labels, meaning, source.

A family is declared once, as a constant of its exporter's module, and filled at each scrape: `CPU.metric()` is an empty
family of prometheus-client's. `docs/metrics.md` is written from these, and a page holds nothing that is not declared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

M = TypeVar("M", bound=Metric)
Kind = Literal["gauge", "counter", "histogram"]

# The end of a name tells the unit; what none of these ends is a plain number.
UNITS = {
    "bytes_per_second": "bytes/s",
    "timestamp_seconds": "Unix s",
    "seconds": "s",
    "bytes": "bytes",
    "ratio": "0 to 1",
    "celsius": "°C",
    "watts": "W",
    "joules": "J",
    "hertz": "Hz",
    "info": "1",
}


@dataclass(frozen=True)
class Family:
    """One metric. `name`: without a counter's `_total`. `meaning`: its HELP. `source`: where its values are read."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    source: str = ""

    kind: ClassVar[Kind]

    @property
    def series(self) -> str:
        """The name as it stands in a query; a histogram's without its endings."""
        return self.name

    @property
    def unit(self) -> str:
        return next((unit for end, unit in UNITS.items() if self.name.endswith(f"_{end}")), "")

    def metric(self) -> Metric:
        """An empty family of prometheus-client's, to be filled by `add_metric(label values in order, …)`."""
        raise NotImplementedError


def _another(family: M) -> M:
    """A family like this one, without samples; its constructor would check the same name again at each scrape."""
    another: M = object.__new__(type(family))
    another.__dict__.update(family.__dict__)
    another.samples = []
    return another


class Gauge(Family):
    kind: ClassVar[Kind] = "gauge"

    @cached_property
    def _empty(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)

    def metric(self) -> GaugeMetricFamily:
        return _another(self._empty)

    def of(self, value: float) -> GaugeMetricFamily:
        """The family of one series without labels."""
        family = _another(self._empty)
        family.samples.append(Sample(self.name, {}, value))
        return family


class Counter(Family):
    kind: ClassVar[Kind] = "counter"

    @property
    def series(self) -> str:
        return f"{self.name}_total"

    @cached_property
    def _empty(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.meaning, labels=self.labels)

    def metric(self) -> CounterMetricFamily:
        return _another(self._empty)

    def of(self, value: float) -> CounterMetricFamily:
        """The family of one series without labels."""
        family = _another(self._empty)
        family.samples.append(Sample(self.series, {}, value))
        return family


class Histogram(Family):
    kind: ClassVar[Kind] = "histogram"

    @cached_property
    def _empty(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.meaning, labels=self.labels)

    def metric(self) -> HistogramMetricFamily:
        """`add_metric(labels, Observations.buckets(), sum_value)`."""
        return _another(self._empty)


class Observations:
    """What a histogram has seen: `observe()` each value, then `add_metric(labels, o.buckets(), o.sum)`.

    `bounds`: upper bounds in rising order, without +Inf. Not safe for threads; a collector has it for itself.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        place = next((place for place, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        self._counts[place] += count
        self.sum += value * count

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound as text, how many values are at most that), +Inf last."""
        rows, total = [], 0
        for bound, count in zip((*map(_bound, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


def _bound(value: float) -> str:
    return f"{value:.1f}" if value == int(value) else repr(value)
