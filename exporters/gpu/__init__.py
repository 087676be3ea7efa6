"""Graphics processors, through NVIDIA's management library (NVML)."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field

from exporters.collector import CollectFunction
from exporters.gpu.demo import demo
from exporters.gpu.families import FAMILIES
from exporters.gpu.fleet import Fleet
from exporters.gpu.processes import process_samples, read_owners
from exporters.gpu.samples import Sample
from exporters.labels import Cap
from exporters.runtime.config import ConfigError, Section

__all__ = ["FAMILIES", "Config", "collectors", "demo"]


class Config(Section):
    """Graphics processors. Every card that NVML lists is read; nothing has to be configured."""

    processes: bool = False  # memory by process and pod
    processes_max: Annotated[int, Field(ge=1, le=1000)] = 50  # of each card; the others are summed as `other`
    proc: Path = Path("/proc")
    pod_logs: Path = Path("/var/log/pods")  # the kubelet's folder, which knows the pods' names


def collectors(config: Config) -> Mapping[str, CollectFunction]:
    """One: the cards are found when it first runs, and may come and go."""
    if find_spec("pynvml") is None:
        raise ConfigError(["exporters.gpu: needs the package nvidia-ml-py; install tidewise[gpu]"])
    return {"nvml": fleet(config).collect}


def fleet(config: Config) -> Fleet:
    """The cards of this machine."""
    cap = Cap("gpu.nvml", "pid", config.processes_max)

    def owned(memory: Mapping[int, int]) -> list[Sample]:
        return list(process_samples(memory, read_owners(memory, config.proc, config.pod_logs), cap))

    return Fleet(lambda: import_module("pynvml"), config.proc, owned if config.processes else None)
