"""The one loop: the only place that knows the time, catches what nobody else could answer, counts it and backs off."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.registry import Collector

from exporters.runtime.endpoint import Endpoint, Request, Response
from exporters.runtime.logs import configure_logs
from exporters.runtime.process import process_registry, stop_on_signals

MAX_BACK_OFF_SECONDS = 60.0


class StepError(Exception):
    """A step that could not be done for a reason it can name. `kind` becomes the metric's label."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Tick:
    """One turn of the loop: what time it is, and how much of the step's total deadline is left."""

    now: float  # Unix seconds
    until: float  # on the monotonic clock

    @classmethod
    def starting(cls, deadline_seconds: float) -> "Tick":
        return cls(time.time(), time.monotonic() + deadline_seconds)

    def remaining(self) -> float:
        """Seconds left for reading and writing in this step. Raises StepError('deadline') when there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise StepError("deadline", "the step's total deadline has passed; what it had not read stays unknown")
        return left


Step = Callable[[Tick], None]
Route = Callable[[Request], Response]


@dataclass(frozen=True)
class Controller:
    """What a controller gives the loop.

    `step(tick)` reads, thinks and writes once, each read and write bounded by `tick.remaining()`. A step longer than
    the interval makes the next one start at once; missed ones are not made up for.
    """

    name: str
    interval_seconds: float
    listen: Sequence[str]
    step: Step
    collectors: Iterable[Collector] = ()
    routes: Mapping[tuple[str, str], Route] = field(default_factory=dict)
    landing: Callable[[], str] | None = None
    close: Callable[[], None] = lambda: None
    deadline_seconds: float = 30.0  # of one step, in total


def run(
    controller: Controller,
    stop: threading.Event | None = None,
    started: Callable[[list[str]], None] = lambda addresses: None,
) -> int:
    """Serves /metrics and steps until told to stop. Returns the process's exit status.

    `started` hears the addresses really listened on. Raises EndpointError when one of them cannot be had.
    """
    configure_logs(controller.name)
    stop = stop or stop_on_signals()
    log = structlog.get_logger(controller=controller.name)
    registry = process_registry(controller.name)
    for collector in controller.collectors:
        registry.register(collector)
    measures = LoopMetrics(controller, registry)
    endpoint = Endpoint(
        controller.listen,
        registry,
        process=controller.name,
        ready=measures.not_ready,
        routes=controller.routes,
        landing=controller.landing,
    )
    endpoint.start()
    started(endpoint.addresses)
    log.info("started", addresses=endpoint.addresses, interval_seconds=controller.interval_seconds)
    failures = 0
    try:
        while not stop.is_set():
            began = time.monotonic()
            failed = step_once(controller, measures, log)
            failures = failures + 1 if failed else 0
            elapsed = time.monotonic() - began
            stop.wait(pause_seconds(controller.interval_seconds, elapsed, failures))
    finally:
        endpoint.stop()
        controller.close()
        log.info("stopped")
    return 0


def pause_seconds(interval: float, elapsed: float, failures: int) -> float:
    """Until the next step: the rest of the interval; after failures in a row, doubling up to a minute."""
    if failures > 1:
        interval = max(interval, min(interval * 2.0 ** (failures - 1), MAX_BACK_OFF_SECONDS))
    return max(0.0, interval - elapsed)


def step_once(controller: Controller, measures: "LoopMetrics", log: structlog.stdlib.BoundLogger) -> bool:
    """One step with its measurements. Returns whether it failed; never raises."""
    began = time.monotonic()
    measures.began(began)
    try:
        controller.step(Tick.starting(controller.deadline_seconds))
    except StepError as error:
        measures.failed(error.kind)
        log.error("step_failed", kind=error.kind, error=str(error))
        return True
    except Exception as error:  # the one place that answers what nothing else did: count it, back off, hold
        measures.failed(type(error).__name__)
        log.exception("step_failed", kind=type(error).__name__)
        return True
    finally:
        measures.took(time.monotonic() - began)
    measures.succeeded(time.time())
    return False


class LoopMetrics:
    """The loop's own series, on every controller's /metrics."""

    def __init__(self, controller: Controller, registry: CollectorRegistry) -> None:
        label = ["controller"]
        name = controller.name
        self._success = Gauge(
            "tidewise_loop_last_success_timestamp_seconds", "When a step last succeeded.", label, registry=registry
        )
        self._duration = Gauge(
            "tidewise_loop_duration_seconds", "How long the last step took.", label, registry=registry
        )
        self._failures = Counter(
            "tidewise_loop_failures", "Steps that failed, by kind of failure.", [*label, "kind"], registry=registry
        )
        interval = Gauge("tidewise_loop_interval_seconds", "Time between two steps.", label, registry=registry)
        interval.labels(name).set(controller.interval_seconds)
        self._name = name
        self._reason: str | None = "no step has succeeded yet"
        self._began: float | None = None
        self._deadline = controller.deadline_seconds

    def not_ready(self) -> str | None:
        """None when the last step succeeded and the present one is in time, else the sentence for /-/ready."""
        if self._began is not None and time.monotonic() - self._began > 2 * self._deadline:
            ran = time.monotonic() - self._began
            return f"the present step has run for {ran:.0f} s, its deadline is {self._deadline:g} s"
        return self._reason

    def began(self, monotonic: float) -> None:
        self._began = monotonic

    def failed(self, kind: str) -> None:
        self._failures.labels(self._name, kind).inc()
        self._reason = f"the last step failed: {kind}"

    def took(self, seconds: float) -> None:
        self._began = None
        self._duration.labels(self._name).set(seconds)

    def succeeded(self, now: float) -> None:
        self._success.labels(self._name).set(now)
        self._reason = None
