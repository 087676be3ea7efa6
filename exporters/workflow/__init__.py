"""Workflows of n8n, without a change to n8n: what ran, what failed, what is late. From its database or its API.

Queue mode's queue is Bull's: the queue exporter reads it.
"""

import time
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric

from exporters.collector import CollectFunction, PartialReadError
from exporters.labels import Cap
from exporters.postgresql import needs_psycopg
from exporters.runtime.config import Section
from exporters.workflow.api import ApiReader
from exporters.workflow.config import Instances, N8n
from exporters.workflow.database import DatabaseReader
from exporters.workflow.demo import demo
from exporters.workflow.executions import Tally
from exporters.workflow.expectation import Expectations
from exporters.workflow.reading import Reader, Reading
from exporters.workflow.state import FAMILIES, Count, Open, Workflow, WorkflowState, latest, workflow_metrics

__all__ = ["FAMILIES", "Config", "collectors", "demo"]


class Config(Section):
    """What ran, failed or is late in n8n."""

    n8n: Instances = []


def collectors(config: Config) -> Mapping[str, CollectFunction]:
    """One an n8n, by its address. Raises ConfigError where a package is missing."""
    if any(one.postgresql for one in config.n8n):
        needs_psycopg("exporters.workflow.n8n.postgresql")
    return {one.address: Workflows(one).collect for one in config.n8n}


class Workflows:
    """Looks at one n8n at each scrape and remembers what has ended."""

    def __init__(self, config: N8n) -> None:
        self._config = config
        self._reader: Reader = ApiReader(config) if config.api else DatabaseReader(config)
        self._tally = Tally()
        self._expectations = Expectations()
        self._cap = Cap(f"workflow.{config.address}", "workflow_id", config.workflows_max)

    def collect(self, deadline: float) -> Iterator[Metric]:
        reading = self._reader.read(deadline, self._tally)
        self._cap.refused += reading.beyond
        now = time.time()
        declared, unknown = self._declared(reading)
        states = [self._state(workflow, reading, declared, now) for workflow in reading.workflows]
        known = {workflow.workflow_id for workflow in reading.workflows}
        self._tally.keep(known)
        self._expectations.looked(known)
        yield from workflow_metrics(self._config.name, states, now)
        problems = [*reading.problems, *(f"expected: there is no workflow '{name}'" for name in unknown)]
        if reading.beyond:
            problems.append(f"{reading.beyond} workflows more than workflows_max are not shown")
        if problems:
            raise PartialReadError("; ".join(problems))

    def _declared(self, reading: Reading) -> tuple[dict[str, float], list[str]]:
        """What the configuration expects, by workflow; and the names that no workflow has."""
        by_word: dict[str, list[str]] = {}
        for workflow in reading.workflows:
            for word in {workflow.workflow_id, workflow.name}:
                by_word.setdefault(word, []).append(workflow.workflow_id)
        found = {
            workflow_id: one.seconds for one in self._config.expected for workflow_id in by_word.get(one.workflow, [])
        }
        return found, [one.workflow for one in self._config.expected if one.workflow not in by_word]

    def _state(self, workflow: Workflow, reading: Reading, declared: Mapping[str, float], now: float) -> WorkflowState:
        ended = self._tally.of(workflow.workflow_id)
        counts = ended.counts if reading.counts is None else reading.counts.get(workflow.workflow_id, {})
        expected = declared.get(workflow.workflow_id, workflow.schedule)
        last_success = latest(
            *(each.get("production", Count()).last_success for each in (counts, ended.counts)),
        )
        still_open = None if reading.still_open is None else _open_of(reading, workflow.workflow_id)
        since = self._expectations.since(workflow, expected, last_success, now)
        return WorkflowState(workflow, counts, ended, still_open, expected, since)


def _open_of(reading: Reading, workflow_id: str) -> Open:
    return (reading.still_open or {}).get(workflow_id, Open())
