"""BullMQ: what Bull keeps under another version's name, found by the key `meta` of each queue."""

from collections.abc import Mapping, Sequence

from exporters.collector import CollectFunction
from exporters.queue.bull import Server, collectors_of
from exporters.queue.bull import Servers as Servers


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a server, by its address. Raises ConfigError where the package `redis` is not installed."""
    return collectors_of("bullmq", servers)
