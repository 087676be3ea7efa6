"""A machine for those who have none to watch yet: four processors, two disks, one interface, a cgroup with limits."""

import math
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Gauge
from exporters.host import cgroup, devices, filesystems, kernel, memory, protocols

CPUS = 4
GIB = 2.0**30
_PERIOD = 1800.0  # seconds from one busy hour to the next
_EPOCH = 1.7e9  # the machine started then


def busy(at: float) -> float:
    """Share of the processors in use, 0.2 to 0.8."""
    return 0.5 + 0.3 * math.sin(2 * math.pi * at / _PERIOD)


def busy_seconds(at: float) -> float:
    """Its integral since the start: what a counter of a processor's work shows."""
    turn = 2 * math.pi / _PERIOD
    return 0.5 * (at - _EPOCH) + 0.3 / turn * (math.cos(turn * _EPOCH) - math.cos(turn * at))


def machine(at: float) -> Iterator[Metric]:
    work, since = busy_seconds(at), at - _EPOCH
    yield from _kernel(at, work, since)
    yield from _memory(at, since)
    yield from _devices(at, work)
    yield from _protocols(at, work)
    yield from _filesystems(at)
    yield cgroup.THROTTLED.of(0.02 * work)
    yield cgroup.CPU.of(0.4 * work)
    yield cgroup.CPU_LIMIT.of(1.5)
    yield cgroup.USAGE.of((0.5 + 0.3 * busy(at)) * GIB)
    yield cgroup.LIMIT.of(GIB)
    yield cgroup.OOM_KILLS.of(math.floor(since / 86_400))
    yield cgroup.PERIODS.of(math.floor(8 * work))
    yield cgroup.THROTTLED_PERIODS.of(math.floor(0.4 * work))
    yield cgroup.TASKS.of(round(30 + 10 * busy(at)))
    yield cgroup.TASKS_LIMIT.of(512)


def _kernel(at: float, work: float, since: float) -> Iterator[Metric]:
    shares = {"user": 0.7, "nice": 0.01, "system": 0.2, "irq": 0.01, "softirq": 0.05, "steal": 0.03}
    cpu = kernel.CPU.metric()
    for number in range(CPUS):
        for mode, share in shares.items():
            cpu.add_metric((f"demo-{number}", mode), share * work)
        cpu.add_metric((f"demo-{number}", "idle"), 0.9 * (since - work))
        cpu.add_metric((f"demo-{number}", "iowait"), 0.1 * (since - work))
    yield cpu
    for family, damping in zip(kernel.LOADS, (1.2, 1.0, 0.8), strict=True):
        yield family.of(CPUS * busy(at) * damping)
    for resource, share in (("cpu", 0.1), ("memory", 0.01), ("io", 0.05)):
        pressure = kernel.PRESSURES[resource].metric()
        pressure.add_metric(("some",), share * work)
        pressure.add_metric(("full",), 0.3 * share * work)
        yield pressure
    yield kernel.BOOT.of(_EPOCH)
    tasks = kernel.TASKS.metric()
    tasks.add_metric(("running",), round(CPUS * busy(at)))
    tasks.add_metric(("blocked",), round(2 * busy(at)))
    yield tasks
    yield kernel.SWITCHES.of(8000 * work)
    yield kernel.FORKS.of(20 * work)
    yield kernel.INTERRUPTS.of(5000 * work)
    yield kernel.THREADS.of(round(400 + 200 * busy(at)))
    yield kernel.DESCRIPTORS.of(round(2000 + 3000 * busy(at)))
    yield kernel.DESCRIPTORS_LIMIT.of(100_000)


def _memory(at: float, since: float) -> Iterator[Metric]:
    used = 4 + 6 * busy(at)
    gibibytes = {
        "total": 16.0,
        "available": 16 - used,
        "free": 2.0,
        "buffers": 0.3,
        "cached": 13.5 - used,
        "shared": 0.2,
        "slab": 0.4,
        "slab_reclaimable": 0.25,
        "anonymous": used - 0.5,
        "mapped": 0.8,
        "unevictable": 0.02,
        "page_tables": 0.03,
        "dirty": 0.05 * busy(at),
        "writeback": 0.01 * busy(at),
        "committed": used + 6,
        "commit_limit": 10.0,
    }
    for part, amount in gibibytes.items():
        yield memory.PARTS[part].of(amount * GIB)
    yield memory.SWAP_TOTAL.of(2 * GIB)
    yield memory.SWAP_FREE.of((1.9 - 0.5 * busy(at)) * GIB)
    for counter, rate in (
        (memory.SWAP_IN, 4096.0),
        (memory.SWAP_OUT, 8192.0),
        (memory.MAJOR_FAULTS, 2.0),
        (memory.OOM_KILLS, 1 / 86_400),
    ):
        yield counter.of(math.floor(rate * since))
    refaults = memory.REFAULTS.metric()
    for kind, rate in (("file", 3.0), ("anonymous", 0.5)):
        refaults.add_metric((kind,), math.floor(rate * since))
    yield refaults


def _devices(at: float, work: float) -> Iterator[Metric]:
    disk_rates = (4e6, 9e6, 0.3, 60.0, 150.0, 0.2, 0.9, 1.2, 5.0, 0.02)
    network_rates = (3e6, 5e6, 0.0, 0.0, 0.01, 0.0, 3000.0, 4000.0)
    disks = {"demo-sda": 1.0, "demo-sdb": 0.4}
    *counters, (running, *_) = devices.DISK
    yield from _counted([family for family, *_ in counters], disk_rates, disks, work)
    requests = running.metric()
    for device, share in disks.items():
        requests.add_metric((device,), round(4 * share * busy(at)))
    yield requests
    yield from _counted([family for family, _ in devices.NETWORK], network_rates, {"demo-eth0": 1.0}, work)


def _protocols(at: float, work: float) -> Iterator[Metric]:
    yield protocols.ESTABLISHED.of(round(200 * busy(at)))
    for counter, rate in (
        (protocols.RETRANSMITS, 0.3),
        (protocols.FAILED_OPENS, 0.05),
        (protocols.BROKEN, 0.02),
        (protocols.RESETS, 0.1),
        (protocols.TCP_ERRORS, 0.0),
    ):
        yield counter.of(rate * work)
    for labelled, rates in (
        (protocols.SEGMENTS, {"received": 3000.0, "sent": 4000.0}),
        (protocols.OPENS, {"active": 4.0, "passive": 12.0}),
        (protocols.DATAGRAMS, {"received": 20.0, "sent": 20.0}),
        (protocols.UDP_ERRORS, {"no_port": 0.01, "damaged": 0.0, "receive_buffer": 0.0, "send_buffer": 0.0}),
    ):
        family = labelled.metric()
        for label, rate in rates.items():
            family.add_metric((label,), rate * work)
        yield family
    yield protocols.CONNTRACK.of(round(900 * busy(at)))
    yield protocols.CONNTRACK_LIMIT.of(65_536)


def _counted(
    families: list[Counter | Gauge], rates: tuple[float, ...], shares: dict[str, float], work: float
) -> Iterator[Metric]:
    for known, rate in zip(families, rates, strict=True):
        family = known.metric()
        for device, share in shares.items():
            family.add_metric((device,), rate * share * work)
        yield family


def _filesystems(at: float) -> Iterator[Metric]:
    size, avail = filesystems.SIZE.metric(), filesystems.AVAIL.metric()
    files, files_free = filesystems.FILES.metric(), filesystems.FILES_FREE.metric()
    readonly = filesystems.READONLY.metric()
    for device, mountpoint, gibibytes, left in (
        ("/dev/demo-sda1", "/demo-root", 40.0, 0.55),
        ("/dev/demo-sdb1", "/demo-data", 500.0, 0.2 + 0.1 * busy(at)),
    ):
        labels = (device, "ext4", mountpoint)
        size.add_metric(labels, gibibytes * GIB)
        avail.add_metric(labels, gibibytes * GIB * left)
        files.add_metric(labels, gibibytes * 65_536)
        files_free.add_metric(labels, gibibytes * 65_536 * (0.5 + left / 2))
        readonly.add_metric(labels, 0)
    yield from (size, avail, files, files_free, readonly)
