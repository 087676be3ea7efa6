"""What every queue system says of its queues, in the same families: how much waits, how old it is, what came and went.

A system reads its servers into `QueueState`s; `queue_metrics` is the only place where these become series. None is
"this system cannot tell", which leaves the series out; 0 is "somebody looked and there was nothing".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge, Histogram, Observations

# How long work waits and takes: from milliseconds to hours.
SECONDS_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
STATES = ("ready", "active", "delayed", "failed")

_QUEUE = ("system", "queue")
CONFIGURED = Gauge("queue_configured", "1 for each queue that is watched.", _QUEUE, "the configuration")
MESSAGES = Gauge(
    "queue_messages",
    "Messages by state: ready to be taken, active (taken, not done), delayed, failed. No message is in two.",
    (*_QUEUE, "state"),
    "the queue's server",
)
OLDEST = Gauge(
    "queue_oldest_message_age_seconds",
    "How long the message that is served next has waited (ready), or the oldest of a state; 0 while there is none.",
    (*_QUEUE, "state"),
    "the time in the message, or the server's own",
)
CONSUMERS = Gauge("queue_consumers", "Consumers or workers that take messages from it.", _QUEUE, "the queue's server")
ENQUEUED = Counter("queue_enqueued", "Messages put into the queue.", _QUEUE, "a counter that the system keeps")
COMPLETED = Counter("queue_completed", "Messages worked off.", _QUEUE, "a counter that the system keeps")
FAILED = Counter("queue_failed", "Messages given up.", _QUEUE, "a counter that the system keeps")
WAIT = Histogram(
    "queue_wait_seconds",
    "From enqueued (or due) to taken, of the messages that were finished since the exporter started.",
    _QUEUE,
    "the times that the system keeps of finished messages",
)
PROCESS = Histogram(
    "queue_process_seconds",
    "Time spent on messages, of those that were finished since the exporter started.",
    _QUEUE,
    "the times that the system keeps of finished messages",
)
READ_AT = Gauge(
    "queue_read_timestamp_seconds",
    "When the server was last asked, where that is not at each scrape.",
    _QUEUE,
    "the exporter itself",
)
FAMILIES: tuple[Family, ...] = (
    CONFIGURED, MESSAGES, OLDEST, CONSUMERS, ENQUEUED, COMPLETED, FAILED, WAIT, PROCESS, READ_AT,
)  # fmt: skip


@dataclass(frozen=True)
class QueueState:
    """What is known of one queue.

    messages: by state (`STATES`), with an explicit 0; a state that the system does not have is left out.
    oldest_age: seconds by state; a state is left out where the system does not tell.
    counters: `enqueued`, `completed`, `failed`; only real counts, never estimates. `process_seconds`: a sum over the
        completed ones where no histogram can be had.
    read_at: Unix seconds, where it is older than the scrape.
    """

    messages: Mapping[str, int]
    oldest_age: Mapping[str, float] = field(default_factory=dict)
    consumers: int | None = None
    counters: Mapping[str, float] = field(default_factory=dict)
    wait: Observations | None = None
    process: Observations | None = None
    read_at: float | None = None


def queue_metrics(system: str, states: Mapping[str, QueueState]) -> Iterator[Metric]:
    """The queue_ series of one system's `states`, by queue name."""
    configured, messages, oldest, consumers = (family.metric() for family in (CONFIGURED, MESSAGES, OLDEST, CONSUMERS))
    counted = {role: family.metric() for role, family in
               (("enqueued", ENQUEUED), ("completed", COMPLETED), ("failed", FAILED))}  # fmt: skip
    wait, process, read_at = WAIT.metric(), PROCESS.metric(), READ_AT.metric()
    for name, state in states.items():
        identity = [system, name]
        configured.add_metric(identity, 1)
        for kind, count in state.messages.items():
            messages.add_metric([*identity, kind], count)
        for kind, seconds in state.oldest_age.items():
            oldest.add_metric([*identity, kind], seconds)
        if state.consumers is not None:
            consumers.add_metric(identity, state.consumers)
        for role, family in counted.items():
            if role in state.counters:
                family.add_metric(identity, state.counters[role])
        if state.wait is not None:
            wait.add_metric(identity, state.wait.buckets(), state.wait.sum)
        if state.process is not None:
            process.add_metric(identity, state.process.buckets(), state.process.sum)
        elif "process_seconds" in state.counters:
            whole = [("+Inf", state.counters["completed"])]  # a sum tells of no distribution
            process.add_metric(identity, whole, state.counters["process_seconds"])
        if state.read_at is not None:
            read_at.add_metric(identity, state.read_at)
    families = (configured, messages, oldest, consumers, *counted.values(), wait, process, read_at)
    yield from (family for family in families if family.samples)
