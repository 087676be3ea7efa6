"""Queues: how much work waits, how old it is, how much came and went. One file a system, one line in SYSTEMS.

A system's module has `Servers`, the type of its list in the configuration, and `collectors(servers)`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import create_model

from exporters.collector import CollectFunction
from exporters.queue.demo import demo as demo
from exporters.queue.state import FAMILIES as FAMILIES
from exporters.runtime.config import Section

SYSTEMS: dict[str, str] = {
    "redis": "exporters.queue.redis",
    "redis_streams": "exporters.queue.redis_streams",
    "bull": "exporters.queue.bull",
    "bullmq": "exporters.queue.bullmq",
    "celery": "exporters.queue.celery",
    "rq": "exporters.queue.rq",
    "postgresql": "exporters.queue.postgresql",
    "rabbitmq": "exporters.queue.rabbitmq",
    "sqs": "exporters.queue.sqs",
}

_fields: dict[str, Any] = {system: (import_module(path).Servers, []) for system, path in SYSTEMS.items()}
Config = create_model("Queues", __base__=Section, __doc__="The queues to watch, by system.", **_fields)


def collectors(config: Any) -> Mapping[str, CollectFunction]:
    """One collector a server, so that one that is down takes only its own queues with it."""
    return {
        f"{system}.{name}": function
        for system, path in SYSTEMS.items()
        if getattr(config, system)
        for name, function in import_module(path).collectors(getattr(config, system)).items()
    }
