"""What the kernel tells of the whole machine: processor, load, pressure, memory, tasks, connections."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge
from exporters.host.files import KernelFile, number

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

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

# /proc/meminfo's name of each part, and what it is
_MEMORY_PARTS = {
    "total": (b"MemTotal:", "Memory of the machine."),
    "available": (b"MemAvailable:", "Memory that programs can have without swapping, as the kernel estimates it."),
    "free": (b"MemFree:", "Memory that nothing uses, not even a cache."),
    "buffers": (b"Buffers:", "Memory holding block device data."),
    "cached": (b"Cached:", "Memory holding file contents."),
    "shared": (b"Shmem:", "Memory shared between processes, tmpfs included."),
    "slab": (b"Slab:", "Memory of the kernel's own structures."),
    "anonymous": (b"AnonPages:", "Memory that programs filled themselves: no file has it."),
    "dirty": (b"Dirty:", "Memory that is still to be written to a disk."),
    "writeback": (b"Writeback:", "Memory that is being written to a disk."),
    "committed": (b"Committed_AS:", "Memory that programs asked for, used or not."),
    "commit_limit": (b"CommitLimit:", "What they may ask for together, where the kernel is told to refuse more."),
}
MEMORY = {
    part: Gauge(f"host_memory_{part}_bytes", meaning, (), "/proc/meminfo")
    for part, (_, meaning) in _MEMORY_PARTS.items()
}
SWAP_TOTAL = Gauge("host_swap_total_bytes", "Swap space of the machine.", (), "/proc/meminfo")
SWAP_FREE = Gauge("host_swap_free_bytes", "Swap space that is not in use.", (), "/proc/meminfo")
_VM_COUNTS = {
    Counter("host_swap_in_bytes", "Read back from swap.", (), "/proc/vmstat"): (b"pswpin ", PAGE_BYTES),
    Counter("host_swap_out_bytes", "Written to swap.", (), "/proc/vmstat"): (b"pswpout ", PAGE_BYTES),
    Counter("host_memory_major_faults", "Times that a page had to be read from a disk first.", (), "/proc/vmstat"): (
        b"pgmajfault ",
        1,
    ),
    Counter("host_oom_kills", "Processes killed for want of memory.", (), "/proc/vmstat"): (b"oom_kill ", 1),
}
VM_COUNTERS = tuple(_VM_COUNTS)
TCP_ESTABLISHED = Gauge("host_tcp_established", "TCP connections that are open.", (), "/proc/net/snmp")
TCP_RETRANSMITS = Counter(
    "host_tcp_retransmits", "TCP segments sent again because nobody confirmed them.", (), "/proc/net/snmp"
)
FAMILIES: tuple[Family, ...] = (
    CPU, *LOADS, *PRESSURES.values(), BOOT, TASKS, SWITCHES, FORKS, *MEMORY.values(), SWAP_TOTAL, SWAP_FREE,
    *VM_COUNTERS, TCP_ESTABLISHED, TCP_RETRANSMITS,
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
        for name, known in ((b"btime ", BOOT), (b"ctxt ", SWITCHES), (b"processes ", FORKS)):
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
    for family, average in zip(LOADS, loadavg.read().split(), strict=False):
        yield family.of(float(average))


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


def memory(meminfo: KernelFile, vmstat: KernelFile) -> Iterator[Metric]:
    text = meminfo.read()
    for part, (name, _) in _MEMORY_PARTS.items():
        if (kibibytes := number(text, name)) is not None:
            if part == "cached":  # what the kernel's structures can give back counts as such, as in `free`
                kibibytes += number(text, b"SReclaimable:") or 0
            yield MEMORY[part].of(1024 * kibibytes)
    for family, name in ((SWAP_TOTAL, b"SwapTotal:"), (SWAP_FREE, b"SwapFree:")):
        if (kibibytes := number(text, name)) is not None:
            yield family.of(1024 * kibibytes)
    text = vmstat.read()
    for counter, (name, factor) in _VM_COUNTS.items():
        if (count := number(text, name)) is not None:
            yield counter.of(count * factor)


def tcp(snmp: KernelFile) -> Iterator[Metric]:
    counts = protocol_counts(snmp.read(), "Tcp")
    if "CurrEstab" in counts:
        yield TCP_ESTABLISHED.of(counts["CurrEstab"])
    if "RetransSegs" in counts:
        yield TCP_RETRANSMITS.of(counts["RetransSegs"])


def protocol_counts(snmp: bytes, protocol: str) -> Mapping[str, float]:
    """A protocol has two lines: names, then numbers."""
    lines: Sequence[list[str]] = [
        line.split() for line in snmp.decode("ascii", "replace").splitlines() if line.startswith(f"{protocol}:")
    ]
    return {name: float(number) for name, number in zip(*(line[1:] for line in lines[:2]), strict=False)}
