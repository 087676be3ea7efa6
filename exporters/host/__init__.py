"""What the machine offers and how much of it is used, from the kernel's own files. One file here a kind."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.metrics_core import Metric

from exporters.collector import CollectFunction, Prompt
from exporters.families import Family
from exporters.host import cgroup, devices, filesystems, kernel, memory, protocols
from exporters.host.files import KernelFile, is_readable
from exporters.runtime.config import Section

FAMILIES: tuple[Family, ...] = (
    *kernel.FAMILIES,
    *memory.FAMILIES,
    *devices.FAMILIES,
    *filesystems.FAMILIES,
    *protocols.FAMILIES,
    *cgroup.FAMILIES,
)


class Config(Section):
    """Where the machine's own trees are mounted, if this runs in a container of it."""

    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")
    root: Path = Path("/")


def collectors(config: Config) -> Mapping[str, CollectFunction]:
    """By name; those that the kernel offers nothing for are left out."""
    proc = config.proc
    # In a container its own mounts and interfaces are the container's; the machine's first process sees all of them.
    own, network = ("self", "net") if config.root == Path("/") else ("1", "1/net")
    loadavg, diskstats = KernelFile(proc / "loadavg"), KernelFile(proc / "diskstats")
    meminfo, vmstat = KernelFile(proc / "meminfo"), KernelFile(proc / "vmstat")
    dev, snmp = KernelFile(proc / network / "dev"), KernelFile(proc / network / "snmp")
    pressures = {resource: KernelFile(proc / "pressure" / resource) for resource in kernel.RESOURCES}
    file_nr = KernelFile(proc / "sys" / "fs" / "file-nr")
    netfilter = proc / "sys" / "net" / "netfilter"
    entries, limit = KernelFile(netfilter / "nf_conntrack_count"), KernelFile(netfilter / "nf_conntrack_max")
    files = filesystems.Filesystems(f"{proc}/{own}/mounts", str(config.root))
    prompt: dict[str, CollectFunction] = {
        "cpu": kernel.Processors(proc).collect,
        "load": lambda _: kernel.load(loadavg),
        "memory": lambda _: memory.memory(meminfo, vmstat),
        "disk": lambda _: devices.disks(diskstats),
        "network": lambda _: devices.networks(dev),
    }
    if is_readable(file_nr.path):
        prompt["descriptors"] = lambda _: kernel.descriptors(file_nr)
    if is_readable(snmp.path):
        prompt["protocols"] = lambda _: protocols.protocols(snmp)
    if is_readable(limit.path):
        prompt["conntrack"] = lambda _: protocols.conntrack(entries, limit)
    if is_readable(pressures["cpu"].path):
        prompt["pressure"] = lambda _: kernel.pressure(pressures)
    cgroup_files = cgroup.find_cgroup(proc, config.cgroup)
    if cgroup_files:
        prompt["cgroup"] = lambda _: cgroup.cgroup(cgroup_files)
    prompt["filesystem"] = files.collect  # the last: a mount that does not answer costs it up to a second
    return {name: Prompt(function) for name, function in prompt.items()}


def demo(at: float) -> Iterator[Metric]:
    """A machine with four processors, two disks, one interface and a cgroup with limits."""
    from exporters.host.demonstration import machine  # only where there is nothing to watch

    return machine(at)
