"""Each collector alone: one that fails or hangs loses its own series and nothing else.

A collector is a function from a deadline to metrics. They run within the time that the scrape allows; what is not
there by then is left out, and `tidewise_exporter_collector_success` says so. One thread takes the quick ones, one
after another; a collector that takes its time gets another thread beside it, so that slow ones wait together. What
only reads the kernel's memory cannot hang, says so (`Prompt`), and spares the scrape the way to another thread.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client.metrics_core import Metric

from exporters.lanes import LANES
from exporters.own import DURATION, LAST_SUCCESS, SUCCESS
from exporters.runtime.endpoint import SCRAPE_TIMEOUT_SECONDS

# Takes the time.monotonic() by which it must be done. May be a generator. Raises what it likes: that is a failed read.
CollectFunction = Callable[[float], Iterable[Metric]]

DEFAULT_BUDGET_SECONDS = 9.5  # Prometheus's default scrape timeout is 10 s
_SPARE_SECONDS = 0.5  # left for rendering and the way back
_PATIENCE_SECONDS = 0.02  # then the collectors behind a slow one go on in a thread of their own

_log = structlog.get_logger()


@dataclass(frozen=True)
class Prompt:
    """A collect function that asks nothing that could be away: it runs in the scrape's own thread."""

    function: CollectFunction

    def __call__(self, deadline: float) -> Iterable[Metric]:
        return self.function(deadline)


class PartialReadError(Exception):
    """Raised by a collector after its last metric: what it yielded is good, something else could not be read."""


class _Run:
    """One call of one collector. `kind` of its problem: "failed" or "incomplete"; None: everything was read."""

    __slots__ = ("_latch", "deadline", "is_done", "kind", "metrics", "problem", "seconds", "started")

    def __init__(self, deadline: float, started: float) -> None:
        self.deadline = deadline
        self.started = started
        self.metrics: Sequence[Metric] = ()
        self.kind: str | None = "failed"
        self.problem = "ended without an answer"
        self.seconds = 0.0
        self.is_done = False
        self._latch = threading.Lock()  # held until it is done; an Event would cost ten times as much
        self._latch.acquire()

    def end(self) -> None:
        self.is_done = True
        self._latch.release()

    def wait(self, seconds: float) -> None:
        """Until it is done, and no longer than that."""
        if self._latch.acquire(timeout=seconds):
            self._latch.release()


@dataclass
class _Memory:
    """What is known of one collector between scrapes."""

    function: CollectFunction
    run: _Run | None = None
    kind: str | None = None  # of its last problem: "failed", "incomplete", "hanging"; None: it had none
    last_success: float | None = None  # Unix seconds


class Collectors:
    """The collectors of a process, as one prometheus_client collector.

    Scrapes may overlap: one that comes while a collector runs waits for the same run. A run that has outlived its
    deadline is not waited for again and no second one is started beside it.
    """

    def __init__(self, functions: Mapping[str, CollectFunction]) -> None:
        self._memory = {name: _Memory(function) for name, function in functions.items()}
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        now = time.monotonic()
        deadline = now + budget_seconds(SCRAPE_TIMEOUT_SECONDS.get())
        runs, new = self._runs(now, deadline)
        _perform_all(new, list(runs.values()), deadline)
        families: dict[str, Metric] = {}
        success, duration, last_success = SUCCESS.metric(), DURATION.metric(), LAST_SUCCESS.metric()
        for name, run in runs.items():
            done = run.is_done
            kind: str | None
            seconds = run.seconds if done else time.monotonic() - run.started
            if not done:
                kind, problem = "hanging", f"no answer after {seconds:.1f} s; it is left alone until it returns"
            elif clash := _clash(run.metrics, families):
                kind, problem = "failed", clash
            else:
                kind, problem = run.kind, run.problem
                _merge(run.metrics, families)
            last = self._conclude(name, kind, problem)
            success.add_metric([name], 0 if kind else 1)
            duration.add_metric([name], seconds)
            if last is not None:
                last_success.add_metric([name], last)
        yield from families.values()
        yield from (success, duration, last_success)

    def _runs(self, now: float, deadline: float) -> tuple[dict[str, _Run], deque[tuple[CollectFunction, _Run]]]:
        """The run of each collector: the one that is going on, or else a new one, which is also in the second part."""
        runs: dict[str, _Run] = {}
        new: deque[tuple[CollectFunction, _Run]] = deque()
        with self._lock:
            for name, memory in self._memory.items():
                if memory.run is None or memory.run.is_done:
                    memory.run = _Run(deadline, now)
                    new.append((memory.function, memory.run))
                runs[name] = memory.run
        return runs, new

    def _conclude(self, name: str, kind: str | None, problem: str) -> float | None:
        """Remember how it went, log it where that is news, and say when it last succeeded."""
        with self._lock:
            memory = self._memory[name]
            if kind is None:
                memory.last_success = time.time()
            before, memory.kind = memory.kind, kind
            last_success = memory.last_success
        if kind and kind != before:
            _log.warning(f"collector_{kind}", collector=name, problem=problem)
        elif before and not kind:
            _log.info("collector_recovered", collector=name)
        return last_success


def budget_seconds(scrape_timeout_seconds: float | None) -> float:
    """How long collectors may take: the scrape's timeout less half a second, and never less than half of it."""
    if scrape_timeout_seconds is None:
        return DEFAULT_BUDGET_SECONDS
    return max(scrape_timeout_seconds - _SPARE_SECONDS, scrape_timeout_seconds / 2)


def _perform_all(new: deque[tuple[CollectFunction, _Run]], runs: Sequence[_Run], deadline: float) -> None:
    """Perform what is new; return when every run is done or may no longer be waited for."""

    def lane() -> None:
        with contextlib.suppress(IndexError):  # until none is left
            while True:
                _perform(*new.popleft())

    prompt = [each for each in new if isinstance(each[0], Prompt)]
    new = deque(each for each in new if not isinstance(each[0], Prompt))
    if new:
        try:
            LANES.start(lane)
        except RuntimeError as error:  # the system has no more threads for us; perhaps it has at the next scrape
            _give_up(new, str(error))
    for each in prompt:
        _perform(*each)
    for run in reversed(runs):  # the last one is done when all are, mostly: one wake-up instead of many
        while not run.is_done and (left := min(run.deadline, deadline) - time.monotonic()) > 0:
            run.wait(min(left, _PATIENCE_SECONDS) if new else left)
            if new and not run.is_done:
                with contextlib.suppress(RuntimeError):
                    LANES.start(lane)
    _give_up(new, "the scrape's time was over before its turn came")


def _give_up(new: deque[tuple[CollectFunction, _Run]], problem: str) -> None:
    """End what nobody has begun: a run without an end would count as hanging for ever."""
    with contextlib.suppress(IndexError):
        while True:
            _, run = new.popleft()
            run.problem = problem
            run.end()


def _perform(function: CollectFunction, run: _Run) -> None:
    run.started = time.monotonic()
    metrics: list[Metric] = []
    try:
        for metric in function(run.deadline):
            metrics.append(_checked(metric))
        run.metrics, run.kind = metrics, None
    except PartialReadError as partly:
        run.metrics, run.kind, run.problem = metrics, "incomplete", str(partly)
    except Exception as error:  # the last resort: whatever one collector does, the others go on
        run.problem = f"{type(error).__name__}: {error}"
    finally:
        run.seconds = time.monotonic() - run.started
        run.end()


def _checked(metric: Metric) -> Metric:
    """`metric`, if it can be written. One value that cannot would otherwise empty the whole page."""
    for sample in metric.samples:
        if type(sample.value) is not float:
            float(sample.value)
        for text in sample.labels.values():
            if not str.isascii(text):  # a TypeError for what is no text
                text.encode()
    return metric


def _clash(metrics: Iterable[Metric], families: Mapping[str, Metric]) -> str | None:
    for metric in metrics:
        other = families.get(metric.name)
        if other is not None and other.type != metric.type:
            return f"{metric.name} is a {metric.type} here and a {other.type} in another collector"
    return None


def _merge(metrics: Iterable[Metric], families: dict[str, Metric]) -> None:
    """A name may stand on the page once, however many collectors have series of it."""
    for metric in metrics:
        known = families.get(metric.name)
        if known is not None:  # a new family: the runs' own may be shared with an overlapping scrape
            together = Metric(known.name, known.documentation, known.type, known.unit)
            together.samples = [*known.samples, *metric.samples]
            metric = together
        families[metric.name] = metric
