"""/metrics of the foreman: series of its own for each worker, so that a sick one can be told from the others."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from exporters.runtime.endpoint import Endpoint
from exporters.runtime.process import process_registry
from testbed.parts import HOST

MEANINGS = {
    "fleet_worker_up": "1: its process lives. 0: it ended unasked, and its place is empty.",
    "fleet_worker_last_progress_timestamp_seconds": "When a ready worker last took a turn: asked for work or did some.",
}


class Gauge(NamedTuple):
    """One sample. name: one of MEANINGS."""

    name: str
    worker: str
    value: float


class Gauges(Collector):
    """What `read` tells now."""

    def __init__(self, read: Callable[[], Iterable[Gauge]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        families = {name: GaugeMetricFamily(name, text, labels=["worker"]) for name, text in MEANINGS.items()}
        for gauge in self._read():
            families[gauge.name].add_metric([gauge.worker], gauge.value)
        yield from families.values()


def endpoint(read: Callable[[], Iterable[Gauge]], port: int) -> Endpoint:
    """Serves them on this port of 127.0.0.1 until it is stopped."""
    registry = process_registry("demo-fleet")
    registry.register(Gauges(read))
    served = Endpoint([f"{HOST}:{port}"], registry, process="demo-fleet", ready=lambda: None)
    served.start()
    return served
