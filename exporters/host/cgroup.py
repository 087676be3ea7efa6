"""The limits of the cgroup that the exporter runs in, version 1 or 2: a container's own."""

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge
from exporters.host.files import KernelFile, is_readable, read

_SOURCE = "the cgroup's files"
THROTTLED = Counter("host_cgroup_cpu_throttled_seconds", "Time the cgroup was held back by its CPU quota.", (), _SOURCE)
CPU = Counter("host_cgroup_cpu_seconds", "CPU time the cgroup used.", (), _SOURCE)
CPU_LIMIT = Gauge(
    "host_cgroup_cpu_limit", "CPUs' worth of time that its quota allows; missing where it has none.", (), _SOURCE
)
USAGE = Gauge("host_cgroup_memory_usage_bytes", "Memory the cgroup uses, page cache included.", (), _SOURCE)
LIMIT = Gauge("host_cgroup_memory_limit_bytes", "The cgroup's memory limit; missing where it has none.", (), _SOURCE)
OOM_KILLS = Counter("host_cgroup_oom_kills", "Processes of the cgroup killed for want of memory.", (), _SOURCE)
PERIODS = Counter("host_cgroup_cpu_periods", "Periods of its quota in which the cgroup wanted CPU.", (), _SOURCE)
THROTTLED_PERIODS = Counter(
    "host_cgroup_cpu_throttled_periods", "Those of them in which it was held back.", (), _SOURCE
)
TASKS = Gauge("host_cgroup_tasks", "Threads in the cgroup.", (), _SOURCE)
TASKS_LIMIT = Gauge("host_cgroup_tasks_limit", "How many it may have; missing where it has no limit.", (), _SOURCE)
FAMILIES: tuple[Family, ...] = (
    THROTTLED, CPU, CPU_LIMIT, USAGE, LIMIT, OOM_KILLS, PERIODS, THROTTLED_PERIODS, TASKS, TASKS_LIMIT,
)  # fmt: skip


@dataclass(frozen=True)
class CgroupFile:
    """One number of the cgroup: the file, its key where the file has several, how many of its units are a base unit."""

    file: KernelFile
    key: str | None = None
    per_unit: float = 1.0

    def value(self, text: str) -> float | None:
        """None: no such number, or no limit."""
        words = text.split()
        if self.key is None:
            word = words[0] if words else None
        else:
            word = dict(zip(words[::2], words[1::2], strict=False)).get(self.key)
        if word is None or word == "max" or word.startswith("-"):
            return None
        number = int(word) / self.per_unit
        return None if number >= 2**60 else number  # version 1 writes "no limit" as the largest page count


@dataclass(frozen=True)
class QuotaFile:
    """CPUs' worth of time: what may be used of each period. Version 1 has a file for each of the two."""

    file: KernelFile
    period: KernelFile | None = None

    def value(self, text: str) -> float | None:
        """None: no limit."""
        words = text.split() + (self.period.read().decode().split() if self.period else [])
        if len(words) < 2 or words[0] == "max" or int(words[0]) <= 0 or int(words[1]) <= 0:
            return None
        return int(words[0]) / int(words[1])


Files = Mapping[Counter | Gauge, CgroupFile | QuotaFile]


def find_cgroup(proc: Path, tree: Path) -> Files:
    """The files of the cgroup this process runs in, by family; empty where the kernel offers none of them."""
    try:
        lines = read(proc / "self" / "cgroup").decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return {}
    paths = {
        name: path for _, names, path in (line.split(":", 2) for line in lines if line) for name in names.split(",")
    }
    if (tree / "cgroup.controllers").exists():
        folder = _folder(tree, paths.get("", "/"))
        cpu_stat = KernelFile(folder / "cpu.stat")
        files: Files = {
            THROTTLED: CgroupFile(cpu_stat, "throttled_usec", 1e6),
            CPU: CgroupFile(cpu_stat, "usage_usec", 1e6),
            CPU_LIMIT: QuotaFile(KernelFile(folder / "cpu.max")),
            USAGE: CgroupFile(KernelFile(folder / "memory.current")),
            LIMIT: CgroupFile(KernelFile(folder / "memory.max")),
            OOM_KILLS: CgroupFile(KernelFile(folder / "memory.events"), "oom_kill"),
            PERIODS: CgroupFile(cpu_stat, "nr_periods"),
            THROTTLED_PERIODS: CgroupFile(cpu_stat, "nr_throttled"),
            TASKS: CgroupFile(KernelFile(folder / "pids.current")),
            TASKS_LIMIT: CgroupFile(KernelFile(folder / "pids.max")),
        }
    else:
        cpu = _folder(tree / "cpu", paths.get("cpu", "/"))
        accounting = _folder(tree / "cpuacct", paths.get("cpuacct", "/"))
        memory = _folder(tree / "memory", paths.get("memory", "/"))
        pids = _folder(tree / "pids", paths.get("pids", "/"))
        cpu_stat = KernelFile(cpu / "cpu.stat")
        quota, period = KernelFile(cpu / "cpu.cfs_quota_us"), KernelFile(cpu / "cpu.cfs_period_us")
        files = {
            THROTTLED: CgroupFile(cpu_stat, "throttled_time", 1e9),
            CPU: CgroupFile(KernelFile(accounting / "cpuacct.usage"), None, 1e9),
            CPU_LIMIT: QuotaFile(quota, period),
            USAGE: CgroupFile(KernelFile(memory / "memory.usage_in_bytes")),
            LIMIT: CgroupFile(KernelFile(memory / "memory.limit_in_bytes")),
            OOM_KILLS: CgroupFile(KernelFile(memory / "memory.oom_control"), "oom_kill"),
            PERIODS: CgroupFile(cpu_stat, "nr_periods"),
            THROTTLED_PERIODS: CgroupFile(cpu_stat, "nr_throttled"),
            TASKS: CgroupFile(KernelFile(pids / "pids.current")),
            TASKS_LIMIT: CgroupFile(KernelFile(pids / "pids.max")),
        }
    return {family: file for family, file in files.items() if is_readable(file.file.path)}


def _folder(tree: Path, path: str) -> Path:
    """In a container without a cgroup namespace the path is the machine's and the tree begins at the container."""
    folder = tree / path.lstrip("/")
    return folder if folder.is_dir() else tree


def cgroup(files: Files) -> Iterator[Metric]:
    texts: dict[KernelFile, str] = {}
    for family, number in files.items():
        value = _value(number, texts)
        if value is not None:
            yield family.of(value)


def _value(number: CgroupFile | QuotaFile, texts: dict[KernelFile, str]) -> float | None:
    """None also where the file is gone: the cgroup was moved or taken apart."""
    try:
        if number.file not in texts:
            texts[number.file] = number.file.read().decode("ascii", "replace")
        return number.value(texts[number.file])
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return None
        raise
