"""Memory: what it holds, and what had to be moved between it and the disks."""

import os
import re
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge
from exporters.host.files import KernelFile, number

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# /proc/meminfo's name of each part, and what it is
_PARTS = {
    "total": (b"MemTotal", "Memory of the machine."),
    "available": (b"MemAvailable", "Memory that programs can have without swapping, as the kernel estimates it."),
    "free": (b"MemFree", "Memory that nothing uses, not even a cache."),
    "buffers": (b"Buffers", "Memory holding block device data."),
    "cached": (b"Cached", "Memory holding file contents."),
    "shared": (b"Shmem", "Memory shared between processes, tmpfs included."),
    "slab": (b"Slab", "Memory of the kernel's own structures."),
    "slab_reclaimable": (b"SReclaimable", "The part of slab that can be given back; counted in cached too."),
    "anonymous": (b"AnonPages", "Memory that programs filled themselves: no file has it."),
    "mapped": (b"Mapped", "Memory holding files that programs have mapped, their own code included."),
    "unevictable": (b"Unevictable", "Memory that is locked in place."),
    "page_tables": (b"PageTables", "Memory that describes memory."),
    "dirty": (b"Dirty", "Memory that is still to be written to a disk."),
    "writeback": (b"Writeback", "Memory that is being written to a disk."),
    "committed": (b"Committed_AS", "Memory that programs asked for, used or not."),
    "commit_limit": (b"CommitLimit", "What they may ask for together, where the kernel is told to refuse more."),
}
PARTS = {
    part: Gauge(f"host_memory_{part}_bytes", meaning, (), "/proc/meminfo") for part, (_, meaning) in _PARTS.items()
}
SWAP_TOTAL = Gauge("host_swap_total_bytes", "Swap space of the machine.", (), "/proc/meminfo")
SWAP_FREE = Gauge("host_swap_free_bytes", "Swap space that is not in use.", (), "/proc/meminfo")
_GAUGES = (
    *((PARTS[part], name) for part, (name, _) in _PARTS.items()),
    (SWAP_TOTAL, b"SwapTotal"), (SWAP_FREE, b"SwapFree"),
)  # fmt: skip
SWAP_IN = Counter("host_swap_in_bytes", "Read back from swap.", (), "/proc/vmstat")
SWAP_OUT = Counter("host_swap_out_bytes", "Written to swap.", (), "/proc/vmstat")
MAJOR_FAULTS = Counter(
    "host_memory_major_faults", "Times that a page had to be read from a disk first.", (), "/proc/vmstat"
)
OOM_KILLS = Counter("host_oom_kills", "Processes killed for want of memory.", (), "/proc/vmstat")
_COUNTS = (
    (SWAP_IN, b"pswpin ", PAGE_BYTES),
    (SWAP_OUT, b"pswpout ", PAGE_BYTES),
    (MAJOR_FAULTS, b"pgmajfault ", 1),
    (OOM_KILLS, b"oom_kill ", 1),
)
REFAULTS = Counter(
    "host_memory_refaults",
    "Pages that were taken back and wanted again soon, of files or of programs (anonymous): memory is too small.",
    ("kind",),
    "/proc/vmstat",
)
_REFAULTS = (("file", b"workingset_refault_file "), ("anonymous", b"workingset_refault_anon "))
FAMILIES: tuple[Family, ...] = (
    *PARTS.values(), SWAP_TOTAL, SWAP_FREE, *(counter for counter, *_ in _COUNTS), REFAULTS,
)  # fmt: skip


def memory(meminfo: KernelFile, vmstat: KernelFile) -> Iterator[Metric]:
    sizes = memory_bytes(meminfo.read())
    for gauge, name in _GAUGES:
        if name in sizes:
            yield gauge.of(sizes[name])
    text = vmstat.read()
    for counter, name, factor in _COUNTS:
        if (count := number(text, name)) is not None:
            yield counter.of(count * factor)
    refaults = REFAULTS.metric()
    for kind, name in _REFAULTS:
        if (count := number(text, name)) is not None:
            refaults.add_metric((kind,), count)
    yield refaults


def memory_bytes(meminfo: bytes) -> dict[bytes, int]:
    """By the kernel's names. What can be given back from its structures counts as cached too, as in `free`."""
    sizes = {name: int(kibibytes) * 1024 for name, kibibytes in re.findall(rb"(\w+): +(\d+) kB", meminfo)}
    if b"Cached" in sizes:
        sizes[b"Cached"] += sizes.get(b"SReclaimable", 0)
    return sizes
