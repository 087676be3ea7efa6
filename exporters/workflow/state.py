"""What is known of workflows, and the one place where it becomes series. None: unknown, which leaves a series out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge, Histogram, Observations
from exporters.labels import clean

SECONDS_BOUNDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)

_ONE = ("system", "workflow_id")
INFO = Gauge(
    "workflow_info", "1 for each workflow; its name, and whether it is active.", (*_ONE, "name", "active"), "n8n"
)
EXECUTIONS = Counter(
    "workflow_executions",
    "Executions that ended, by mode: production (started by a trigger, a webhook, another workflow) or manual.",
    (*_ONE, "mode"),
    "workflow_statistics, else the executions that ended since the exporter started",
)
FAILURES = Counter(
    "workflow_execution_failures",
    "Executions that ended in an error, by mode.",
    (*_ONE, "mode"),
    "workflow_statistics, else the executions that ended since the exporter started",
)
CRASHES = Counter(
    "workflow_crashes",
    "Production executions that n8n gave up as crashed, since the exporter started.",
    _ONE,
    "the status of executions",
)
LAST_SUCCESS = Gauge(
    "workflow_last_success_timestamp_seconds",
    "Unix time at which a production execution last succeeded; missing where none is known.",
    _ONE,
    "workflow_statistics and the executions",
)
LAST_FAILURE = Gauge(
    "workflow_last_failure_timestamp_seconds",
    "Unix time at which a production execution last failed or crashed; missing where none is known.",
    _ONE,
    "workflow_statistics and the executions",
)
EXPECTED = Gauge(
    "workflow_expected_interval_seconds",
    "The longest time that may pass between two runs: as configured, else by the schedule of an active workflow.",
    _ONE,
    "the configuration, else the workflow's schedule trigger",
)
EXPECTED_SINCE = Gauge(
    "workflow_expected_since_timestamp_seconds",
    "Unix time from which the expected interval counts: the last success, or what came later: activated, first seen.",
    _ONE,
    "the above",
)
RUNNING = Gauge("workflow_running", "Executions that run or are queued.", _ONE, "the status of executions")
WAITING = Gauge("workflow_waiting", "Executions that wait for a time or an event.", _ONE, "the status of executions")
RUNNING_OLDEST = Gauge(
    "workflow_running_oldest_seconds",
    "How long the oldest running execution has run; 0 while none runs.",
    _ONE,
    "the start of executions",
)
DURATION = Histogram(
    "workflow_duration_seconds",
    "From start to end, waiting included, of the production executions that ended since the exporter started.",
    _ONE,
    "the times of executions",
)
FAMILIES: tuple[Family, ...] = (
    INFO, EXECUTIONS, FAILURES, CRASHES, LAST_SUCCESS, LAST_FAILURE, EXPECTED, EXPECTED_SINCE, RUNNING, WAITING,
    RUNNING_OLDEST, DURATION,
)  # fmt: skip


@dataclass(frozen=True)
class Workflow:
    """As n8n lists it. `schedule`: seconds between two runs by its triggers; `changed`: Unix time of the last edit."""

    workflow_id: str
    name: str
    active: bool
    changed: float | None = None
    schedule: float | None = None


@dataclass(frozen=True)
class Count:
    """What n8n counted of one workflow and mode; `last_…`: Unix times."""

    successes: int = 0
    failures: int = 0
    last_success: float | None = None
    last_failure: float | None = None


@dataclass(frozen=True)
class Open:
    """Executions of one workflow that have not ended. `oldest_start`: Unix time of the oldest that runs."""

    running: int = 0
    waiting: int = 0
    oldest_start: float | None = None


@dataclass
class Ended:
    """What was seen to end of one workflow since the exporter started."""

    crashes: int = 0
    counts: dict[str, Count] = field(default_factory=dict)  # by mode
    durations: Observations | None = None


@dataclass(frozen=True)
class WorkflowState:
    """All of one workflow. `counts`: by mode; `still_open`: None where not all executions that run are known."""

    workflow: Workflow
    counts: Mapping[str, Count]
    ended: Ended
    still_open: Open | None
    expected: float | None = None
    since: float | None = None


def latest(*times: float | None) -> float | None:
    """The latest of the times that are known."""
    return max((time for time in times if time is not None), default=None)


def workflow_metrics(system: str, states: Sequence[WorkflowState], now: float) -> Iterator[Metric]:
    """The workflow_ series of one n8n. `now`: Unix time."""
    made: dict[str, Any] = {one.name: one.metric() for one in FAMILIES}
    for state in states:
        workflow = state.workflow
        identity = [clean(system), clean(workflow.workflow_id)]
        production = state.counts.get("production", Count())
        made[INFO.name].add_metric([*identity, clean(workflow.name), str(workflow.active).lower()], 1)
        for mode, count in {"production": production, **state.counts}.items():
            made[EXECUTIONS.name].add_metric([*identity, mode], count.successes + count.failures)
            made[FAILURES.name].add_metric([*identity, mode], count.failures)
        made[CRASHES.name].add_metric(identity, state.ended.crashes)
        seen = state.ended.counts.get("production", Count())
        for family, value in (
            (LAST_SUCCESS, latest(production.last_success, seen.last_success)),
            (LAST_FAILURE, latest(production.last_failure, seen.last_failure)),
            (EXPECTED, state.expected),
            (EXPECTED_SINCE, state.since if state.expected is not None else None),
        ):
            if value is not None:
                made[family.name].add_metric(identity, value)
        if state.still_open is not None:
            oldest = state.still_open.oldest_start
            made[RUNNING.name].add_metric(identity, state.still_open.running)
            made[WAITING.name].add_metric(identity, state.still_open.waiting)
            made[RUNNING_OLDEST.name].add_metric(identity, 0 if oldest is None else max(0.0, now - oldest))
        if state.ended.durations is not None:
            durations = state.ended.durations
            made[DURATION.name].add_metric(identity, durations.buckets(), durations.sum)
    yield from (family for family in made.values() if family.samples)
