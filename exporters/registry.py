"""The exporters there are: a name in `tidewise-exporter NAME` and `exporters.NAME`, and the module behind it.

A module has `Config`, a Section that can be made without arguments where the exporter needs no targets, and
`collectors(config)`, which returns its collect functions by name and raises ConfigError for what cannot work.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from exporters.collector import CollectFunction
from exporters.runtime.config import Section

EXPORTERS: dict[str, str] = {
    "host": "exporters.host",
    "queue": "exporters.queue",
}


class Exporter(Protocol):
    """What an exporter's module has."""

    Config: type[Section]

    def collectors(self, config: Any) -> Mapping[str, CollectFunction]:
        """Collect functions by name, unique within the exporter. Reads nothing that can hang."""


def exporter(name: str) -> Exporter:
    """The module of a registered exporter, imported now: what it needs is not loaded for the others."""
    return cast(Exporter, import_module(EXPORTERS[name]))
