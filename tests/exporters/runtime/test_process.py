"""Signals that end a process, its version, and the metrics every process has."""

import signal
import subprocess
import sys
import time
from importlib.metadata import version as installed_version

import pytest
from prometheus_client import Counter, Histogram, ProcessCollector, generate_latest

from exporters.runtime.process import Process, process_registry, version

WAITER = """
import time
from exporters.runtime.process import stop_on_signals
stop = stop_on_signals()
print("ready", flush=True)
stop.wait()
print("stopping", flush=True)
time.sleep({linger})
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_process_end_by_itself(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER.format(linger=0)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, error = process.communicate(timeout=30)
    assert (out, error, process.returncode) == ("stopping\nstopped\n", "", 0)


def test_a_second_signal_ends_it_at_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER.format(linger=60)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 128 + signal.SIGINT
        assert time.monotonic() - started < 5


def test_a_hangup_is_no_end() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER.format(linger=0)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("stopping\nstopped\n", 0)


def test_the_version_is_the_installed_one() -> None:
    assert version() == installed_version("tidewise")


def test_every_registry_has_build_info_and_process_metrics_and_no_created_series() -> None:
    registry = process_registry("scale")
    Counter("jobs", "Jobs.", registry=registry).inc()
    Histogram("seconds", "Seconds.", registry=registry).observe(1)
    text = generate_latest(registry).decode()
    python = ".".join(map(str, sys.version_info[:3]))
    assert f'tidewise_build_info{{process="scale",python="{python}",version="{version()}"}} 1.0\n' in text
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"):
        assert f"\n{name} " in text
    assert "_created" not in text


def test_process_metrics_have_the_names_kinds_and_values_of_prometheus_client() -> None:
    ours = {metric.name: metric for metric in Process().collect()}
    theirs = {metric.name: metric for metric in ProcessCollector(registry=None).collect()}
    assert {name: metric.type for name, metric in ours.items()} == {
        name: metric.type for name, metric in theirs.items()
    }
    for name, metric in theirs.items():
        (sample,), (own,) = metric.samples, ours[name].samples
        assert (own.name, own.labels) == (sample.name, {})
        assert own.value == pytest.approx(sample.value, rel=0.1, abs=1.5)
