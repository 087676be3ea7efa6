"""Workflows of n8n."""

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric

from exporters.collector import CollectFunction
from exporters.families import Family
from exporters.runtime.config import Section

FAMILIES: tuple[Family, ...] = ()


class Config(Section):
    """Workflows of n8n."""


def collectors(config: Config) -> Mapping[str, CollectFunction]:
    return {}


def demo(at: float) -> Iterator[Metric]:
    yield from ()
