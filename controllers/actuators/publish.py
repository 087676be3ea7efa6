"""A number that is only published: KEDA or an HPA reads it and carries it out.

The number has an age. It counts until `valid_seconds` after it was last told, and is then unknown, to every reader: a
scaler that is gone, or no longer sees what it decides upon, must not look as if it still meant its last word.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controllers.actuators.interface import Actuator, ActuatorError
from controllers.config import PublishTarget
from controllers.domain import Replicas
from controllers.sources.prometheus import Source, SourceError

METRIC = "tidewise_scale_published_replicas"
EARLIER = "10m"  # so far back a number that an earlier run published is looked for


@dataclass(frozen=True, slots=True)
class Told:
    """A number, and until when it counts (monotonic clock)."""

    replicas: int
    until: float


class Board(Collector):
    """The numbers in force, by workload; on /metrics as long as they are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, Told] = {}
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._leads: Callable[[], bool] = lambda: True

    def only_while(self, leads: Callable[[], bool]) -> None:
        """Its numbers count only while this is so: what a deposed leader said is nobody's word any more."""
        self._leads = leads

    def tell(self, workload: str, replicas: int, valid_seconds: float) -> None:
        """From now on, for so long."""
        with self._lock:
            self._told[workload] = Told(replicas, self._clock() + valid_seconds)
        for changed in tuple(self._watchers):
            changed()

    def number(self, workload: str) -> int | None:
        """None: nothing was told, or it does not count any more."""
        told = self._told.get(workload)
        return told.replicas if told is not None and self._clock() < told.until and self._leads() else None

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called after each number that is told, in the thread that tells it; it must not wait."""
        self._watchers.append(changed)

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(METRIC, "What KEDA or an HPA is to set, as long as it counts.", labels=["workload"])
        for workload in sorted(self._told):
            replicas = self.number(workload)
            if replicas is not None:
                family.add_metric([workload], replicas)
        yield family


def publish_actuator(target: PublishTarget, workload: str, source: Source, board: Board) -> Actuator:
    """The actuator for `target.publish`; who reads `board` learns the number.

    `wanted` is what was published. Where nothing is (a start), it is the last that an earlier run published, else what
    `target.wanted` says, else as many as work: never fewer than work, so that a restart alone ends nothing.
    """

    def read_replicas(seconds: float) -> Replicas:
        until = time.monotonic() + seconds
        ready = _count(source, target.ready, "ready", until)
        if ready is None:
            raise ActuatorError(
                f"target.publish.ready: {target.ready} is empty, so how many replicas work is unknown; "
                f"ask {source.url} for it, and check what measures it"
            )
        told = board.number(workload)
        if told is not None:
            return Replicas(wanted=told, ready=ready, unfinished=True)  # it is told again, to count on
        earlier = _count(source, f'max(last_over_time({METRIC}{{workload="{workload}"}}[{EARLIER}]))', "", until)
        wanted = None if target.wanted is None else _count(source, target.wanted, "wanted", until)
        known = [n for n in (ready, earlier, wanted) if n is not None]
        return Replicas(wanted=max(known), ready=ready, unfinished=True)

    def apply(
        replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        del seconds, victims, in_hand  # who carries it out chooses which
        board.tell(workload, replicas, target.valid_seconds)

    return Actuator(read_replicas, apply, expires=True)


def _count(source: Source, promql: str, key: str, until: float) -> int | None:
    """A number of replicas; None where the answer is empty."""
    where = f"target.publish.{key}: {promql}" if key else promql
    try:
        answered = source.instant(promql, None, until - time.monotonic()).complete()
    except SourceError as error:
        raise ActuatorError(f"{where}: {error}") from None
    if len(answered) > 1:
        raise ActuatorError(f"{where} has {len(answered)} series; write sum(…) or max(…) around it")
    if not answered:
        return None
    value = answered[0].samples[-1].value
    if value < 0:
        raise ActuatorError(f"{where} is {value:g}, which is no number of replicas")
    return round(value)
