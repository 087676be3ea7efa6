"""What the queues of a shop would look like: to look at before anything is configured."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric

from exporters.families import Observations
from exporters.queue.state import SECONDS_BOUNDS, QueueState, queue_metrics

BEGAN = 1_767_225_600.0  # 2026-01-01: the counters count from here
WAVE_SECONDS = 900.0


@dataclass(frozen=True)
class Shown:
    """One queue of the demonstration. `seconds`: what a message takes; `counted`: its system counts what comes."""

    system: str
    name: str
    per_second: float
    ready: float
    active: int
    seconds: float
    failures: float = 0.02
    consumers: int | None = 4
    counted: bool = True
    timed: bool = True
    cached: bool = False


SHOWN = (
    Shown("redis", "demo-video-jobs", 5, ready=40, active=4, seconds=0.8),
    Shown("redis_streams", "demo-clicks", 50, ready=120, active=16, seconds=0.3, consumers=8, timed=False),
    Shown("bull", "demo-n8n-jobs", 0.5, ready=2, active=1, seconds=4, consumers=2),
    Shown("bullmq", "demo-emails", 2, ready=6, active=3, seconds=1.5, consumers=3),
    Shown("celery", "demo-reports", 0.3, ready=9, active=2, seconds=20, consumers=2, counted=False, timed=False),
    Shown("rq", "demo-thumbnails", 1, ready=3, active=2, seconds=2, consumers=2, counted=False),
    Shown("rabbitmq", "demo-orders", 10, ready=15, active=5, seconds=0.5, consumers=6, timed=False),
    Shown("postgresql", "demo-invoices", 0.2, ready=1, active=1, seconds=3, consumers=None),
    Shown(
        "sqs", "demo-uploads", 4, ready=25, active=6, seconds=1, consumers=None, counted=False, timed=False, cached=True
    ),
)


def demo(at: float) -> Iterator[Metric]:
    """Every family of FAMILIES at that Unix time."""
    for system in dict.fromkeys(shown.system for shown in SHOWN):
        yield from queue_metrics(system, {shown.name: state(shown, at) for shown in SHOWN if shown.system == system})


def state(shown: Shown, at: float) -> QueueState:
    """The backlog swings by a third around its mean; what comes is what goes and what the backlog grew by."""
    waiting = shown.ready * (1 + math.sin(2 * math.pi * at / WAVE_SECONDS) / 3)
    taken = max(0.0, at - BEGAN) * shown.per_second
    came, left = int(taken + waiting), int(taken)  # both only rise: the wave is slower than what comes
    ready, failed = came - left, int(left * shown.failures)
    done = left - failed
    counters = {"enqueued": came, "completed": done, "failed": failed} if shown.counted else {}
    waited = ready / shown.per_second
    return QueueState(
        {"ready": ready, "active": shown.active, "delayed": 3, "failed": 1},
        {"ready": waited, "active": shown.seconds},
        shown.consumers,
        counters,
        spread(shown.ready / shown.per_second, done) if shown.timed else None,
        spread(shown.seconds, done) if shown.timed else None,
        at // 30 * 30 if shown.cached else None,
    )


def spread(mean: float, count: int) -> Observations:
    """`count` observations around `mean`: half of them at half of it, one in twenty at four times."""
    seen = Observations(SECONDS_BOUNDS)
    for share, factor in ((0.5, 0.5), (0.45, 1.2), (0.05, 4.0)):
        seen.observe(mean * factor, int(count * share))
    return seen
