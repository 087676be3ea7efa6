"""Queues: how much work waits, how old it is, how much came and went. One file a system, one line in SYSTEMS.

A system's module has `Servers`, the type of its list in the configuration, and `collectors(servers)`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Self

from pydantic import create_model, model_validator

from exporters.collector import CollectFunction
from exporters.runtime.config import Section

SYSTEMS: dict[str, str] = {
    "redis": "exporters.queue.redis",
}


class _Config(Section):
    @model_validator(mode="after")
    def _has_target(self) -> Self:
        if not any(getattr(self, system) for system in SYSTEMS):
            raise ValueError(
                "found no queue; name at least one, for example "
                "redis: [{url: redis://127.0.0.1:6379/0, queues: [{name: video-jobs}]}]"
            )
        return self


_fields: dict[str, Any] = {system: (import_module(path).Servers, []) for system, path in SYSTEMS.items()}
Config = create_model("Queues", __base__=_Config, __doc__="The queues to watch, by system.", **_fields)


def collectors(config: Any) -> Mapping[str, CollectFunction]:
    """One collector a server, so that one that is down takes only its own queues with it."""
    return {
        f"{system}.{name}": function
        for system, path in SYSTEMS.items()
        if getattr(config, system)
        for name, function in import_module(path).collectors(getattr(config, system)).items()
    }
