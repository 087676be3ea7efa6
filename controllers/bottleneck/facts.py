"""What is known of one workload and of the machines, and the words in which a bottleneck is told. Values only.

Names of the USE method: a resource has utilisation (how busy), saturation (what waits for it) and errors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from controllers.domain import Mode, Reason, Sample

DEMAND = "workload:demand:rate1m"
CENSORED = "workload:demand_censored:bool"
THROUGHPUT = "workload:throughput:rate1m"
BACKLOG = "workload:backlog:sum"
AGE = "workload:oldest_age_seconds:max"
SERVICE_SECONDS = "workload:service_seconds:mean5m"
FAILURES = "workload:failures:ratio_rate5m"
DATA_AGE = "workload:data_age_seconds:max"
UTILIZATION = "workload:utilization:ratio"
CURRENT = "workload:replicas:current"
WANTED = "workload:replicas:wanted"
DESIRED = "workload:replicas:desired"
RECOMMENDED = "workload:replicas:recommended"
REASON = "workload:scaling_reason:bool"
SCALING_FAILURES = "workload:scaling_failures:increase10m"
LEAD_TIME = "workload:lead_time_seconds:quantile"

DRAIN = "queue:drain_seconds:ratio"

NODE_CPU = "node:cpu_utilization:ratio_rate5m"
NODE_MEMORY = "node:memory_utilization:ratio"
NODE_PRESSURE = "node:pressure_stalled:ratio_rate5m"
NODE_DISK = "node_device:disk_io_time:ratio_rate5m"
NODE_FILESYSTEM = "node_mountpoint:filesystem_avail:ratio"
GPU_BUSY = "gpu:utilization:avg5m"
GPU_MEMORY = "gpu:memory_used:ratio"
GPU_THROTTLED = "gpu:throttled:max5m"
SPENT = "budget:spent:ratio"
PROJECTED = "budget:projected:ratio"

FOR_A_QUEUE = (THROUGHPUT, BACKLOG, AGE, SERVICE_SECONDS, FAILURES, UTILIZATION, DRAIN)
FOR_A_SERVICE = (CENSORED, THROUGHPUT, SERVICE_SECONDS, FAILURES, UTILIZATION)
FOR_ANY = (DEMAND, CURRENT, WANTED, DESIRED, REASON)
OF_MACHINES = (NODE_CPU, NODE_MEMORY, NODE_PRESSURE, NODE_DISK, NODE_FILESYSTEM)
OF_GPUS = (GPU_BUSY, GPU_MEMORY, GPU_THROTTLED)
OF_MONEY = (SPENT,)
# What the source measured: all of it is too old where its data is.
MEASURED = (DEMAND, CENSORED, THROUGHPUT, BACKLOG, AGE, SERVICE_SECONDS, FAILURES, UTILIZATION, DRAIN)
# These are told, not measured: nothing blurs them.
DECIDED = (CURRENT, WANTED, DESIRED, RECOMMENDED)


class Method(StrEnum):
    UTILIZATION = "utilization"
    SATURATION = "saturation"
    ERRORS = "errors"


class Resource(StrEnum):
    """What can hold a workload back: a closed vocabulary, in the order of the question that decide() asks."""

    NODE_CPU = "node_cpu"
    NODE_MEMORY = "node_memory"
    NODE_IO = "node_io"
    NODE_FILESYSTEM = "node_filesystem"
    GPU = "gpu"
    DEPENDENCY = "dependency"
    BUDGET = "budget"
    MAX_REPLICAS = "max_replicas"
    SCALING = "scaling"
    WORKERS = "workers"


class Verdict(StrEnum):
    BOTTLENECK = "bottleneck"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Trace:
    """One series within the window, samples ascending. `name`: as one would ask Prometheus for it."""

    name: str
    labels: Mapping[str, str]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Promise:
    """What the configuration says about the workload."""

    is_queue: bool
    is_service: bool
    max_replicas: int
    concurrency: int
    wait_seconds: float
    mode: Mode
    lead_time_seconds: float  # until learned
    minimum_run_seconds: float
    up_per_minute: int | None
    service_seconds: float | None  # until learned
    data_age_limit_seconds: float
    budget: str | None = None  # the key of the configuration that pays for it; None: it has no price
    budget_amount: float | None = None
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """`series`: by contract name; one that is absent or empty is unknown.

    `usual_service_seconds`: its median over days before the window, None where there is no such history.
    """

    workload: str
    at: float
    window_seconds: float
    promise: Promise
    series: Mapping[str, tuple[Trace, ...]] = field(default_factory=dict)
    usual_service_seconds: float | None = None

    def traces(self, name: str, **labels: str) -> Iterator[Trace]:
        """Those with these labels that have a sample within the last fifth of the window."""
        if name in MEASURED and self.too_old():
            return
        for trace in self.series.get(name, ()):
            if self.recent(trace) and all(trace.labels.get(key) == text for key, text in labels.items()):
                yield trace

    def trace(self, name: str, **labels: str) -> Trace | None:
        """The only one; None where it is unknown or there are two."""
        found = list(self.traces(name, **labels))
        return found[0] if len(found) == 1 else None

    def now(self, name: str, **labels: str) -> float | None:
        """Its value of late, as `late` has it."""
        trace = self.trace(name, **labels)
        return self.late(trace) if trace else None

    def late(self, trace: Trace) -> float:
        """The median of the last fifth, so that one odd sample decides nothing; the last one of a decided number."""
        decided = trace.name.partition("{")[0] in DECIDED
        return trace.samples[-1].value if decided else median(self.recent(trace))

    def recent(self, trace: Trace) -> list[float]:
        """The samples of the window's last fifth."""
        return [sample.value for sample in trace.samples if sample.at > self.at - self.window_seconds / 5]

    def thirds(self, name: str) -> tuple[float, float] | None:
        """Its median in the first and in the last third of the window; None where one of them is unknown."""
        trace = self.trace(name)
        if trace is None:
            return None
        start, third = self.at - self.window_seconds, self.window_seconds / 3
        first = [sample.value for sample in trace.samples if start <= sample.at <= start + third]
        last = [sample.value for sample in trace.samples if sample.at > self.at - third]
        return (median(first), median(last)) if first and last else None

    def has_reason(self, *reasons: Reason) -> Trace | None:
        """The series of the first of these reasons that the last decision had."""
        return next((t for r in reasons for t in self.traces(REASON, reason=r.value)), None)

    def wait_known(self) -> bool:
        """Whether anything tells if work is served in time."""
        names = (AGE, DRAIN) if self.promise.is_queue else (SERVICE_SECONDS, FAILURES)
        return any(self.now(name) is not None for name in names)

    def lead_time(self) -> float:
        """From asking for a replica to its first work, in seconds: as learned, else as configured."""
        learned = self.now(LEAD_TIME, quantile="0.9")
        return self.promise.lead_time_seconds if learned is None else learned

    def service_seconds(self) -> float | None:
        """Of one piece of work: as measured, else as configured."""
        learned = self.now(SERVICE_SECONDS)
        return self.promise.service_seconds if learned is None else learned

    def too_old(self) -> bool:
        """Whether what the source measured is too old to judge by."""
        ages = [s.value for trace in self.series.get(DATA_AGE, ()) for s in trace.samples[-1:]]
        return any(age > self.promise.data_age_limit_seconds for age in ages)


@dataclass(frozen=True, slots=True)
class Measure:
    """One series against its threshold. `pressure`: 1 at the threshold, more beyond it.

    `since`: from when on it has been beyond (Unix seconds), None: it is not. `at_least`: it was so already when the
    window began. `what`: the threshold in words, where the number alone says little.
    """

    resource: str
    method: Method
    series: str
    value: float
    threshold: float
    unit: str
    pressure: float
    since: float | None = None
    at_least: bool = False
    what: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One resource that is at its limit, what shows it, and what to change.

    `where`: which machine, budget, …. `raise_to`: the number, where the change is to raise replicas.max.
    """

    resource: Resource
    where: str
    evidence: tuple[Measure, ...]
    says: str
    change: str
    raise_to: int | None = None

    @property
    def pressure(self) -> float:
        return max((measure.pressure for measure in self.evidence), default=0.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """`felt`: what the users of the workload notice. `measures`: all that was looked at, nearest to its limit first.

    `unknown`: what would have been looked at and is not there, each with a remark.
    """

    workload: str
    at: float
    window_seconds: float
    verdict: Verdict
    bottleneck: Finding | None
    runners_up: tuple[Finding, ...]
    felt: tuple[Measure, ...]
    measures: tuple[Measure, ...]
    unknown: Mapping[str, str]
