"""What every process has beside its job: signals that end it, a version, and its own metrics."""

import os
import platform
import signal
import threading
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from types import FrameType

from prometheus_client import CollectorRegistry, Info, ProcessCollector, disable_created_metrics
from prometheus_client.registry import Collector


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM or SIGINT sets; a second signal ends the process at once. Call it in the main thread."""
    stop = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + signum)  # someone has lost patience: no clean-up, no waiting for threads
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
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
    ProcessCollector(registry=registry)
    return registry
