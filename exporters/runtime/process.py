"""What every process has beside its job: signals that end it, a version, and its own metrics."""

import os
import platform
import resource
import signal
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from types import FrameType

from prometheus_client import CollectorRegistry, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM or SIGINT sets; a second signal ends the process at once. Call it in the main thread.

    SIGHUP, by which services are told to read their files again, changes nothing; from a terminal that closes it ends
    the process, as ever.
    """
    stop = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + signum)  # someone has lost patience: no clean-up, no waiting for threads
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    if not os.isatty(0):
        # Not SIG_IGN, which commands that are started would inherit; no log either: its lock may be held just now.
        signal.signal(signal.SIGHUP, lambda signum, frame: None)
    return stop


def version() -> str:
    """The installed distribution's version, or "unknown" when run from a tree that is not installed."""
    try:
        return installed_version("tidewise")
    except PackageNotFoundError:
        return "unknown"


def build_info(process: str) -> Collector:
    """tidewise_build_info{version,python,process} = 1."""
    info = Info(
        "tidewise_build", "What runs here: version of Tidewise and of Python, name of the process.", registry=None
    )
    info.info({"version": version(), "python": platform.python_version(), "process": process})
    return info


def process_registry(process: str) -> CollectorRegistry:
    """The registry of a process, with tidewise_build_info and process_* (CPU, memory, files, start) in it."""
    # a `_created` beside every counter doubles the series and nobody reads it
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it untyped
    registry = CollectorRegistry()
    registry.register(build_info(process))
    registry.register(Process())
    return registry


_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


_CPU = CounterMetricFamily("process_cpu_seconds", "Total user and system CPU time spent in seconds.")
_VIRTUAL = GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory size in bytes.")
_RESIDENT = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes.")
_START = GaugeMetricFamily("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")
_OPEN_FDS = GaugeMetricFamily("process_open_fds", "Number of open file descriptors.")
_MAX_FDS = GaugeMetricFamily("process_max_fds", "Maximum number of open file descriptors.")


class Process(Collector):
    """process_* of this process, named as everywhere. prometheus-client's own takes four times the time."""

    def __init__(self) -> None:
        self._started: float | None = None

    def collect(self) -> Iterator[Metric]:
        try:
            stat = _stat()
            descriptors = len(os.listdir("/proc/self/fd")) - 1  # without the one that lists them
        except OSError:  # no /proc here
            return
        yield _with(_VIRTUAL, int(stat[20]))
        yield _with(_RESIDENT, int(stat[21]) * _PAGE_BYTES)
        yield _with(_START, self._start(stat))
        yield _with(_CPU, (int(stat[11]) + int(stat[12])) / _TICKS_PER_SECOND)
        yield _with(_OPEN_FDS, descriptors)
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most != resource.RLIM_INFINITY:
            yield _with(_MAX_FDS, most)

    def _start(self, stat: list[bytes]) -> float:
        """Unix seconds, as the clock was when it was first asked: a clock that is set back restarts nothing."""
        if self._started is None:
            with open("/proc/stat", "rb") as lines:
                boot = next(float(line.split()[1]) for line in lines if line.startswith(b"btime "))
            self._started = boot + int(stat[19]) / _TICKS_PER_SECOND
        return self._started


def _with(family: Metric, value: float) -> Metric:
    """The family of that one series; its constructor would check the same name again at each scrape."""
    another = object.__new__(type(family))
    another.__dict__.update(family.__dict__)
    another.samples = [Sample(f"{family.name}_total" if family.type == "counter" else family.name, {}, value)]
    return another


def _stat() -> list[bytes]:
    """The words of /proc/self/stat behind the program's name, which may hold anything."""
    descriptor = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096).rpartition(b")")[2].split()
    finally:
        os.close(descriptor)
