"""Two workflows that never were: one that is in time, one that fails now and then and is late."""

import math
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from exporters.families import Observations
from exporters.workflow.state import SECONDS_BOUNDS, Count, Ended, Open, Workflow, WorkflowState, workflow_metrics

_EPOCH = 1_700_000_000.0


def demo(at: float) -> Iterator[Metric]:
    """Plausible values at a Unix time."""
    yield from workflow_metrics("demo-n8n", [_captions(at), _report(at)], at)


def _captions(at: float) -> WorkflowState:
    """Every five minutes, 1 in 50 fails."""
    runs = max(0, int((at - _EPOCH) // 300))
    durations = Observations(SECONDS_BOUNDS)
    for seconds, share in ((4.0, 0.5), (9.0, 0.3), (28.0, 0.15), (70.0, 0.05)):
        durations.observe(seconds, int(runs * share))
    last = _EPOCH + 300 * runs
    counts = {
        "production": Count(runs - runs // 50, runs // 50, last, last - 300 * (runs % 50)),
        "manual": Count(12, 3, _EPOCH, _EPOCH),
    }
    running = Open(1 + round(math.sin(at / 120)), 2, at - 40 - 30 * math.sin(at / 120))
    return WorkflowState(
        Workflow("demo-captions", "demo-captions", True), counts, Ended(runs // 400, {}, durations), running, 300, last
    )


def _report(at: float) -> WorkflowState:
    """Should be every hour and takes seven quarters of one; every third run fails."""
    runs = max(0, int((at - _EPOCH) // 6300))
    durations = Observations(SECONDS_BOUNDS)
    durations.observe(190.0, runs)
    last = _EPOCH + 6300 * runs
    succeeded = last - 6300 * (runs % 3 == 0)
    counts = {"production": Count(runs - runs // 3, runs // 3, succeeded, last - 6300 * (runs % 3))}
    return WorkflowState(
        Workflow("demo-report", "demo-report", True), counts, Ended(0, {}, durations), Open(), 3600, succeeded
    )
