"""The `exporters:` section of tidewise.yaml, put together from the registry: one key an exporter, and `listen`."""

from collections.abc import Collection
from typing import Any

from pydantic import create_model

from exporters.registry import EXPORTERS, exporter
from exporters.runtime.config import ListenAddress, Section

DEFAULT_LISTEN = ["127.0.0.1:9811"]


def exporters_model(names: Collection[str] = tuple(EXPORTERS)) -> type[Section]:
    """The section's model. Only `names` are checked (and imported); the rest of the section may hold anything.

    Fields: `listen`, and each exporter's name, None where the file says nothing of it.
    """
    fields: dict[str, Any] = {
        name: (exporter(name).Config | None if name in names else Any, None) for name in EXPORTERS
    }
    return create_model(
        "Exporters",
        __base__=Section,
        __doc__="What the exporters read, and where they serve it.",
        listen=(list[ListenAddress], DEFAULT_LISTEN),
        **fields,
    )
