"""Databases: whether they answer, how full they are, who waits. One file a system, one line in SYSTEMS.

A system's module has `Databases`, the type of its list in the configuration, and `collectors(databases)`.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module

from prometheus_client.metrics_core import Metric

from exporters.collector import CollectFunction
from exporters.database.demo import demo_facts
from exporters.database.postgresql import Databases as PostgresqlDatabases
from exporters.database.redis import Databases as RedisDatabases
from exporters.database.sqlite import Databases as SqliteDatabases
from exporters.database.state import FAMILIES as FAMILIES
from exporters.database.state import database_metrics
from exporters.runtime.config import Section

SYSTEMS: dict[str, str] = {
    "postgresql": "exporters.database.postgresql",
    "redis": "exporters.database.redis",
    "sqlite": "exporters.database.sqlite",
}


class Config(Section):
    """The databases to watch, by system."""

    postgresql: PostgresqlDatabases = []
    redis: RedisDatabases = []
    sqlite: SqliteDatabases = []


def collectors(config: Config) -> Mapping[str, CollectFunction]:
    """One a database, so that one that is down takes nothing else with it."""
    return {
        f"{system}.{name}": function
        for system, path in SYSTEMS.items()
        if getattr(config, system)
        for name, function in import_module(path).collectors(getattr(config, system)).items()
    }


def demo(at: float) -> Iterator[Metric]:
    """A PostgreSQL with two replicas, a Redis and a SQLite file, and one that is down."""
    yield from database_metrics(demo_facts(at))
