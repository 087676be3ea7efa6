"""Requests to services that have no metrics of their own: from their access logs, and by asking them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from exporters.collector import CollectFunction
from exporters.families import Family
from exporters.latency.counts import BOUNDS
from exporters.latency.demo import demo as demo
from exporters.latency.logs import FAMILIES as LOG_FAMILIES
from exporters.latency.logs import Log, log_collectors
from exporters.latency.probes import FAMILIES as PROBE_FAMILIES
from exporters.latency.probes import Probes, probe_collectors
from exporters.runtime.config import Section, repeated

FAMILIES: tuple[Family, ...] = (*LOG_FAMILIES, *PROBE_FAMILIES)


def _rising(bounds: list[float]) -> list[float]:
    if sorted(set(bounds)) != bounds:
        raise ValueError(f"found {bounds}; upper bounds rise, for example [0.1, 0.5, 1, 5]")
    return bounds


def _distinct(found: list[Log]) -> list[Log]:
    paths = [log.path for log in found]
    twice = repeated(paths)
    if twice:
        raise ValueError(f"the log {twice} stands twice; its lines would count twice")
    return found


Seconds = Annotated[float, Field(gt=0, le=3600)]


class Config(Section):
    """Requests to services that have no metrics of their own."""

    logs: Annotated[list[Log], AfterValidator(_distinct)] = []
    state_folder: Path | None = None  # where the places in the logs are kept over a restart
    buckets: Annotated[list[Seconds], Field(min_length=1, max_length=50), AfterValidator(_rising)] = list(BOUNDS)
    probes: Probes = Probes()


def collectors(config: Config) -> Mapping[str, CollectFunction]:
    """One a log and one a probe, so that each that fails or hangs loses only itself."""
    return {
        **log_collectors(config.logs, config.state_folder, config.buckets),
        **probe_collectors(config.probes),
    }
