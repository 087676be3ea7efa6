"""The exporters there are: a name in `tidewise-exporter NAME` and `exporters.NAME`, and the module behind it.

A module has `Config`, a Section that can be made without arguments; `collectors(config)`, which returns its collect
functions by name and raises ConfigError for what cannot work; `FAMILIES`, everything it may publish; and `demo(at)`,
what it could publish at that time, for those who have nothing to watch yet.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from prometheus_client.metrics_core import Metric

from exporters.collector import CollectFunction
from exporters.families import Family
from exporters.runtime.config import Section

EXPORTERS: dict[str, str] = {
    "host": "exporters.host",
    "gpu": "exporters.gpu",
    "queue": "exporters.queue",
    "latency": "exporters.latency",
    "workflow": "exporters.workflow",
    "database": "exporters.database",
    "cost": "exporters.cost",
}


class Exporter(Protocol):
    """What an exporter's module has."""

    Config: type[Section]
    FAMILIES: Sequence[Family]

    def collectors(self, config: Any) -> Mapping[str, CollectFunction]:
        """Collect functions by name, unique within the exporter. Reads nothing that can hang."""

    def demo(self, at: float) -> Iterable[Metric]:
        """Plausible values at that Unix time, of every family; the same for the same time. Names begin with `demo-`."""


def exporter(name: str) -> Exporter:
    """The module of a registered exporter, imported now: what it needs is not loaded for the others."""
    return cast(Exporter, import_module(EXPORTERS[name]))
