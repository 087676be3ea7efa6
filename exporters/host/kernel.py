"""What the kernel tells of the whole machine: processors, tasks, load, pressure, open files."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge
from exporters.host.files import KernelFile, number

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
RESOURCES = ("cpu", "memory", "io")

CPU = Counter(
    "host_cpu_seconds",
    "Time a processor spent in each mode; the modes add up to the time that passed. Guests are in user and nice.",
    ("cpu", "mode"),
    "/proc/stat",
)
LOADS = tuple(
    Gauge(f"host_load{minutes}", f"Tasks that ran or waited to, averaged over {minutes} min.", (), "/proc/loadavg")
    for minutes in (1, 5, 15)
)
PRESSURES = {
    resource: Counter(
        f"host_pressure_{resource}_stalled_seconds",
        f"Time in which some or all (full) tasks stood still for want of {resource}.",
        ("kind",),
        f"/proc/pressure/{resource}",
    )
    for resource in RESOURCES
}
BOOT = Gauge("host_boot_timestamp_seconds", "When the machine started.", (), "/proc/stat")
TASKS = Gauge(
    "host_tasks", "Tasks that run or wait for a processor (running), or for a disk (blocked).", ("state",), "/proc/stat"
)
SWITCHES = Counter("host_context_switches", "Times that a processor went from one task to another.", (), "/proc/stat")
FORKS = Counter("host_forks", "Processes and threads that were started.", (), "/proc/stat")

INTERRUPTS = Counter("host_interrupts", "Interrupts that were served.", (), "/proc/stat")
THREADS = Gauge("host_threads", "Threads that exist.", (), "/proc/loadavg")
DESCRIPTORS = Gauge("host_file_descriptors", "Files that are open, sockets included.", (), "/proc/sys/fs/file-nr")
DESCRIPTORS_LIMIT = Gauge(
    "host_file_descriptors_limit", "How many may be; missing where as many as memory holds.", (), "/proc/sys/fs/file-nr"
)
_STAT_COUNTS = ((b"btime ", BOOT), (b"ctxt ", SWITCHES), (b"processes ", FORKS), (b"intr ", INTERRUPTS))
FAMILIES: tuple[Family, ...] = (
    CPU, *LOADS, *PRESSURES.values(), BOOT, TASKS, SWITCHES, FORKS, INTERRUPTS, THREADS, DESCRIPTORS, DESCRIPTORS_LIMIT,
)  # fmt: skip


class Processors:
    """/proc/stat. Idle and waiting times are known to step back by a moment, which would look like a restart."""

    BACK_SECONDS = 3.0  # more is a processor that was taken out and came back

    def __init__(self, proc: Path) -> None:
        self._stat = KernelFile(proc / "stat")
        self._highest: dict[tuple[str, str], float] = {}

    def collect(self, deadline: float) -> Iterator[Metric]:
        stat = self._stat.read()
        times = self._rising(cpu_times(stat))
        family = CPU.metric()
        for labels, seconds in times.items():
            family.add_metric(labels, seconds)
        yield family
        tasks = TASKS.metric()
        for state, name in (("running", b"procs_running "), ("blocked", b"procs_blocked ")):
            if (count := number(stat, name)) is not None:
                tasks.add_metric((state,), count)
        yield tasks
        for name, known in _STAT_COUNTS:
            if (count := number(stat, name)) is not None:
                yield known.of(count)

    def _rising(self, times: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
        for key, seconds in times.items():
            highest = self._highest.get(key, 0.0)
            if seconds < highest < seconds + self.BACK_SECONDS:
                times[key] = highest
        self._highest = times
        return times


def cpu_times(stat: bytes) -> dict[tuple[str, str], float]:
    """Seconds by (processor, mode), of /proc/stat. An old kernel has fewer modes."""
    times = {}
    for line in stat.splitlines():
        if not line.startswith(b"cpu"):
            break  # the processors stand first
        name, *ticks = line.split()
        if name == b"cpu":
            continue  # their sum
        cpu = name[3:].decode()
        for mode, count in zip(CPU_MODES, ticks, strict=False):
            times[cpu, mode] = int(count) / TICKS_PER_SECOND
    return times


def load(loadavg: KernelFile) -> Iterator[Metric]:
    words = loadavg.read().split()
    for family, average in zip(LOADS, words, strict=False):
        yield family.of(float(average))
    if len(words) > 3 and b"/" in words[3]:  # running/all
        yield THREADS.of(float(words[3].partition(b"/")[2]))


def descriptors(file_nr: KernelFile) -> Iterator[Metric]:
    used, _, limit = file_nr.read().split()
    yield DESCRIPTORS.of(float(used))
    if int(limit) < 2**62:
        yield DESCRIPTORS_LIMIT.of(float(limit))


def pressure(files: Mapping[str, KernelFile]) -> Iterator[Metric]:
    """Pressure stall information, from the file of each resource."""
    for resource, file in files.items():
        family = PRESSURES[resource].metric()
        for kind, seconds in stalled(file.read()).items():
            family.add_metric((kind,), seconds)
        yield family


def stalled(text: bytes) -> dict[str, float]:
    """Seconds by kind (some, full); the kernel writes microseconds."""
    return {
        kind.decode(): int(micros) / 1e6 for kind, micros in re.findall(rb"^(\w+) .*total=(\d+)", text, re.MULTILINE)
    }
