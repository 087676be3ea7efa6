"""What the tests of databases share: one scrape of one configured database."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from exporters.collector import CollectFunction, PartialReadError
from exporters.config import exporters_model
from exporters.database import collectors
from exporters.runtime.config import validate


class Watched:
    """The series of one database, scrape by scrape."""

    def __init__(self, system: str, database: Mapping[str, Any]) -> None:
        (self._function,) = configured({system: [database]}).values()
        self.problem = ""

    def series(self, seconds: float = 5) -> dict[str, float]:
        """Name without database_, values of the labels after system and database -> value."""
        found: dict[str, float] = {}
        self.problem = ""
        try:
            for metric in self._function(time.monotonic() + seconds):
                for sample in metric.samples:
                    labels = [text for label, text in sample.labels.items() if label not in ("system", "database")]
                    found[" ".join([sample.name.removeprefix("database_"), *labels])] = sample.value
        except PartialReadError as error:
            self.problem = str(error)
        return found


def configured(section: Mapping[str, Any]) -> Mapping[str, CollectFunction]:
    config: Any = validate(exporters_model(["database"]), {"database": section}, Path("t.yaml"), prefix=("exporters",))
    return collectors(config.database)


@pytest.fixture
def watched() -> Callable[..., Watched]:
    """`watched("redis", url="redis://…")`."""
    return lambda system, **database: Watched(system, database)


@pytest.fixture
def configure() -> Callable[[Mapping[str, Any]], Mapping[str, CollectFunction]]:
    """The collect functions for an `exporters.database` section."""
    return configured
