"""The machine: processor, load, pressure, memory, disks, file systems, network, and the cgroup this runs in.

Reads through psutil and, where psutil has nothing, /proc and the cgroup tree (version 1 and 2).
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from exporters.collector import CollectFunction, PartialReadError
from exporters.runtime.config import Section


class Config(Section):
    """Where the machine's own trees are mounted, if this runs in a container of it."""

    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")
    root: Path = Path("/")


def collectors(config: Config) -> Mapping[str, CollectFunction]:
    """By name; pressure and cgroup only where the kernel offers them."""
    psutil.PROCFS_PATH = str(config.proc)
    functions: dict[str, CollectFunction] = {
        "cpu": lambda _: cpu(),
        "load": lambda _: load(config.proc),
        "memory": lambda _: memory(),
        "disk": lambda _: disks(),
        "filesystem": Filesystems(config).collect,
        "network": lambda _: networks(),
    }
    if _readable(config.proc / "pressure" / "cpu"):
        functions["pressure"] = lambda _: pressure(config.proc)
    cgroup_files = find_cgroup(config.proc, config.cgroup)
    if cgroup_files:
        functions["cgroup"] = lambda _: cgroup(cgroup_files)
    return functions


CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def cpu() -> Iterator[Metric]:
    family = CounterMetricFamily(
        "host_cpu_seconds",
        "Time a processor spent in each mode; the modes add up to the time that passed. Guests are in user and nice.",
        labels=["cpu", "mode"],
    )
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        for mode in CPU_MODES:
            if hasattr(times, mode):
                family.add_metric([str(number), mode], getattr(times, mode))
    yield family


def load(proc: Path) -> Iterator[Metric]:
    averages = (proc / "loadavg").read_text().split()
    for minutes, average in zip((1, 5, 15), averages, strict=False):
        yield GaugeMetricFamily(
            f"host_load{minutes}", f"Tasks that ran or waited to, averaged over {minutes} min.", float(average)
        )


def pressure(proc: Path) -> Iterator[Metric]:
    """Pressure stall information; its totals are microseconds."""
    for resource in ("cpu", "memory", "io"):
        family = CounterMetricFamily(
            f"host_pressure_{resource}_stalled_seconds",
            f"Time in which some or all (full) tasks stood still for want of {resource}.",
            labels=["kind"],
        )
        for line in (proc / "pressure" / resource).read_text().splitlines():
            kind, *fields = line.split()
            total = next(field for field in fields if field.startswith("total="))
            family.add_metric([kind], int(total.removeprefix("total=")) / 1e6)
        yield family


def memory() -> Iterator[Metric]:
    now = psutil.virtual_memory()
    for part, meaning in (
        ("total", "Memory of the machine."),
        ("available", "Memory that programs can have without swapping, as the kernel estimates it."),
        ("free", "Memory that nothing uses, not even a cache."),
        ("buffers", "Memory holding block device data."),
        ("cached", "Memory holding file contents."),
        ("shared", "Memory shared between processes, tmpfs included."),
        ("slab", "Memory of the kernel's own structures."),
    ):
        if hasattr(now, part):
            yield GaugeMetricFamily(f"host_memory_{part}_bytes", meaning, getattr(now, part))
    swap = psutil.swap_memory()
    yield GaugeMetricFamily("host_swap_total_bytes", "Swap space of the machine.", swap.total)
    yield GaugeMetricFamily("host_swap_free_bytes", "Swap space that is not in use.", swap.free)
    yield CounterMetricFamily("host_swap_in_bytes", "Read back from swap.", swap.sin)
    yield CounterMetricFamily("host_swap_out_bytes", "Written to swap.", swap.sout)


# Partitions would count their disk twice; memory and loop devices have no disk.
NO_DISK = re.compile(r"(z?ram|loop|fd|sr)\d+|([hsv]|xv)d[a-z]+\d+|(nvme\d+n|mmcblk)\d+p\d+")


def disks() -> Iterator[Metric]:
    read = CounterMetricFamily("host_disk_read_bytes", "Read from the disk.", labels=["device"])
    written = CounterMetricFamily("host_disk_written_bytes", "Written to the disk.", labels=["device"])
    busy = CounterMetricFamily(
        "host_disk_io_time_seconds", "Time with at least one request running.", labels=["device"]
    )
    for device, counts in sorted(psutil.disk_io_counters(perdisk=True, nowrap=False).items()):
        if not NO_DISK.fullmatch(device):
            read.add_metric([device], counts.read_bytes)
            written.add_metric([device], counts.write_bytes)
            if hasattr(counts, "busy_time"):
                busy.add_metric([device], counts.busy_time / 1000)
    yield from (read, written, busy)


def networks() -> Iterator[Metric]:
    counted = (
        ("receive_bytes", "bytes_recv", "Bytes received."),
        ("transmit_bytes", "bytes_sent", "Bytes sent."),
        ("receive_errors", "errin", "Packets received with an error."),
        ("transmit_errors", "errout", "Packets that could not be sent for an error."),
        ("receive_drops", "dropin", "Packets received and dropped."),
        ("transmit_drops", "dropout", "Packets dropped instead of sent."),
    )
    devices = {
        device: counts
        for device, counts in sorted(psutil.net_io_counters(pernic=True, nowrap=False).items())
        if device != "lo" and not device.startswith("veth")  # a container's own end of a cable comes and goes
    }
    for name, attribute, meaning in counted:
        family = CounterMetricFamily(f"host_network_{name}", meaning, labels=["device"])
        for device, counts in devices.items():
            family.add_metric([device], getattr(counts, attribute))
        yield family


# No storage of its own, or read-only by nature and therefore always full.
NO_STORAGE = re.compile(
    "autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|erofs|fuse.lxcfs|fusectl|hugetlbfs|"
    "iso9660|mqueue|nsfs|procf?s?|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs"
)
# What container engines mount for their own ends, many times over.
NOT_OURS = re.compile(
    r"/(dev|proc|sys|run/credentials|var/lib/(docker|containers|kubelet))(/.*)?|/etc/(hosts|hostname|resolv\.conf)"
)
PATIENCE_SECONDS = 1.0  # a healthy file system answers in microseconds


@dataclass(frozen=True)
class Mount:
    """A line of the mounts table. Bytes that are no UTF-8 are surrogates, as in every path of Python's."""

    device: str
    mountpoint: str
    kind: str


class Filesystems:
    """Sizes of the mounted file systems, read in a thread that may hang without the scrape hanging.

    A mount that does not answer is left alone until the thread that asked it has returned.
    """

    def __init__(self, config: Config, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> None:
        # In a container the process's own mounts are the container's; the machine's first process sees all of them.
        self._table = config.proc / ("self" if config.root == Path("/") else "1") / "mounts"
        self._root = config.root
        self._statvfs = statvfs
        self._stuck: dict[str, threading.Thread] = {}

    def collect(self, deadline: float) -> Iterator[Metric]:
        labels = ["device", "fstype", "mountpoint"]
        size = GaugeMetricFamily("host_filesystem_size_bytes", "Size of the file system.", labels=labels)
        avail = GaugeMetricFamily(
            "host_filesystem_avail_bytes", "Space left for programs that are not root.", labels=labels
        )
        problems: list[str] = []
        for mount, answer in self._ask(storage_mounts(self._table.read_bytes()), deadline):
            if isinstance(answer, os.statvfs_result):
                if answer.f_blocks:
                    values = [_text(mount.device), mount.kind, _text(mount.mountpoint)]
                    size.add_metric(values, answer.f_blocks * answer.f_frsize)
                    avail.add_metric(values, answer.f_bavail * answer.f_frsize)
            elif not isinstance(answer, PermissionError):  # someone's private mount is none of our business
                problems.append(f"{_text(mount.mountpoint)} ({mount.kind}): {answer or 'does not answer'}")
        yield from (size, avail)
        if problems:
            raise PartialReadError("; ".join(problems))

    def _ask(self, mounts: list[Mount], deadline: float) -> Iterator[tuple[Mount, os.statvfs_result | OSError | None]]:
        """Each mount with its answer; None: it has not answered."""
        self._stuck = {mountpoint: thread for mountpoint, thread in self._stuck.items() if thread.is_alive()}
        waiting = []
        for mount in mounts:
            if mount.mountpoint in self._stuck:
                yield mount, None
            else:
                waiting.append(mount)
        while waiting:
            answers: queue.SimpleQueue[os.statvfs_result | OSError] = queue.SimpleQueue()
            abandoned = threading.Event()
            thread = threading.Thread(target=self._walk, args=(list(waiting), answers, abandoned), daemon=True)
            thread.start()
            try:
                while waiting:
                    patience = max(0.01, min(PATIENCE_SECONDS, deadline - time.monotonic()))
                    yield waiting[0], answers.get(timeout=patience)
                    waiting.pop(0)
            except queue.Empty:
                abandoned.set()
                self._stuck[waiting[0].mountpoint] = thread
                yield waiting.pop(0), None

    def _walk(
        self, mounts: list[Mount], answers: "queue.SimpleQueue[os.statvfs_result | OSError]", abandoned: threading.Event
    ) -> None:
        for mount in mounts:
            if abandoned.is_set():
                return
            try:
                answers.put(self._statvfs(str(self._root / mount.mountpoint.lstrip("/"))))
            except OSError as error:
                answers.put(error)


def storage_mounts(table: bytes) -> list[Mount]:
    """The mounts worth measuring, of a mounts table; of several on one mountpoint the last, which hides the others."""
    mounts: dict[str, Mount] = {}
    for line in table.splitlines():
        device, mountpoint, kind = (_unescape(word) for word in line.split(b" ")[:3])
        if NO_STORAGE.fullmatch(kind) or NOT_OURS.fullmatch(mountpoint):
            continue
        if kind == "overlay" and mountpoint != "/":
            continue  # another container's root
        mounts[mountpoint] = Mount(device, mountpoint, kind)
    return list(mounts.values())


def _unescape(word: bytes) -> str:
    r"""The kernel writes a blank as \040."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 255]), word))


def _text(path: str) -> str:
    r"""`path` as a label value: bytes that are no UTF-8 become visible as \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class CgroupFile:
    """One number of the cgroup: the file, its key where the file has several, and the factor to base units."""

    path: Path
    key: str | None = None
    factor: float = 1.0

    def read(self) -> float | None:
        """None: no such number, or no limit."""
        try:
            words = self.path.read_text().split()
        except FileNotFoundError:
            return None
        text = words[0] if self.key is None else dict(zip(words[::2], words[1::2], strict=False)).get(self.key)
        if text is None or text == "max":
            return None
        number = int(text) * self.factor
        return None if number >= 2**60 else number  # version 1 writes "no limit" as the largest page count


def find_cgroup(proc: Path, tree: Path) -> dict[str, CgroupFile]:
    """The files of the cgroup this process runs in, by metric; empty where the kernel offers none of them."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return {}
    paths = {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}
    if (tree / "cgroup.controllers").exists():
        folder = _cgroup_folder(tree, paths.get("", "/"))
        files = {
            "cpu_throttled_seconds": CgroupFile(folder / "cpu.stat", "throttled_usec", 1e-6),
            "memory_usage_bytes": CgroupFile(folder / "memory.current"),
            "memory_limit_bytes": CgroupFile(folder / "memory.max"),
            "oom_kills": CgroupFile(folder / "memory.events", "oom_kill"),
        }
    else:
        cpu_folder = _cgroup_folder(tree / "cpu", paths.get("cpu", "/"))
        memory_folder = _cgroup_folder(tree / "memory", paths.get("memory", "/"))
        files = {
            "cpu_throttled_seconds": CgroupFile(cpu_folder / "cpu.stat", "throttled_time", 1e-9),
            "memory_usage_bytes": CgroupFile(memory_folder / "memory.usage_in_bytes"),
            "memory_limit_bytes": CgroupFile(memory_folder / "memory.limit_in_bytes"),
            "oom_kills": CgroupFile(memory_folder / "memory.oom_control", "oom_kill"),
        }
    return {metric: file for metric, file in files.items() if _readable(file.path)}


def _cgroup_folder(tree: Path, path: str) -> Path:
    """In a container without a cgroup namespace the path is the machine's and the tree begins at the container."""
    folder = tree / path.lstrip("/")
    return folder if folder.is_dir() else tree


def cgroup(files: Mapping[str, CgroupFile]) -> Iterable[Metric]:
    values = {metric: file.read() for metric, file in files.items()}
    kinds: tuple[tuple[str, type[CounterMetricFamily] | type[GaugeMetricFamily], str], ...] = (
        ("cpu_throttled_seconds", CounterMetricFamily, "Time the cgroup was held back by its CPU quota."),
        ("memory_usage_bytes", GaugeMetricFamily, "Memory the cgroup uses, page cache included."),
        ("memory_limit_bytes", GaugeMetricFamily, "The cgroup's memory limit; missing where it has none."),
        ("oom_kills", CounterMetricFamily, "Processes of the cgroup killed for want of memory."),
    )
    for metric, kind, meaning in kinds:
        value = values.get(metric)
        if value is not None:
            yield kind(f"host_cgroup_{metric}", meaning, value)


def _readable(path: Path) -> bool:
    """A kernel may have the file and refuse to read it (pressure switched off at boot)."""
    try:
        path.read_bytes()
    except OSError:
        return False
    return True
