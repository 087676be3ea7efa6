"""What went through the disks and the network interfaces."""

import re
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge
from exporters.host.files import KernelFile
from exporters.labels import clean

# Partitions would count their disk twice; memory and loop devices have no disk.
NO_DISK = re.compile(rb"(z?ram|loop|fd|sr)\d+|([hsv]|xv)d[a-z]+\d+|(nvme\d+n|mmcblk)\d+p\d+")
# The machine itself, and a container's own end of a cable, which comes and goes.
NO_INTERFACE = re.compile(rb"lo|veth.*")

_SECTOR_BYTES = 512  # in /proc/diskstats, whatever the disk's own are


def _of_disk(name: str, meaning: str) -> Counter:
    return Counter(f"host_disk_{name}", meaning, ("device",), "/proc/diskstats")


# place in a line of /proc/diskstats, the factor to base units
DISK: tuple[tuple[Counter | Gauge, int, float], ...] = (
    (_of_disk("read_bytes", "Read from the disk."), 5, _SECTOR_BYTES),
    (_of_disk("written_bytes", "Written to the disk."), 9, _SECTOR_BYTES),
    (_of_disk("io_time_seconds", "Time with at least one request running."), 12, 0.001),
    (_of_disk("reads", "Read requests that ended."), 3, 1),
    (_of_disk("writes", "Write requests that ended."), 7, 1),
    (_of_disk("read_seconds", "Time that read requests took, added up."), 6, 0.001),
    (_of_disk("write_seconds", "Time that write requests took, added up."), 10, 0.001),
    (_of_disk("queued_seconds", "Time that all requests took; its rate is how many run at once."), 13, 0.001),
    (_of_disk("flushes", "Times that everything written was made safe (fsync)."), 18, 1),
    (_of_disk("flush_seconds", "Time that took, added up."), 19, 0.001),
    (Gauge("host_disk_requests_running", "Requests under way now.", ("device",), "/proc/diskstats"), 11, 1),
)


def _of_network(name: str, meaning: str) -> Counter:
    return Counter(f"host_network_{name}", meaning, ("device",), "/proc/net/dev")


# place behind the colon of a line of /proc/net/dev
NETWORK = (
    (_of_network("receive_bytes", "Bytes received."), 0),
    (_of_network("transmit_bytes", "Bytes sent."), 8),
    (_of_network("receive_errors", "Packets received with an error."), 2),
    (_of_network("transmit_errors", "Packets that could not be sent for an error."), 10),
    (_of_network("receive_drops", "Packets received and dropped."), 3),
    (_of_network("transmit_drops", "Packets dropped instead of sent."), 11),
    (_of_network("receive_packets", "Packets received."), 1),
    (_of_network("transmit_packets", "Packets sent."), 9),
)
FAMILIES: tuple[Family, ...] = (*(family for family, *_ in DISK), *(family for family, _ in NETWORK))


def disks(diskstats: KernelFile) -> Iterator[Metric]:
    rows = disk_rows(diskstats.read())
    for known, place, factor in DISK:
        family = known.metric()
        for device, numbers in rows:
            if place < len(numbers):  # kernels before 5.5 count no flushes
                family.add_metric((device,), int(numbers[place]) * factor)
        yield family


def disk_rows(diskstats: bytes) -> list[tuple[str, list[bytes]]]:
    """(device, words of its line) of each whole disk, in the order of their names."""
    lines = (line.split() for line in diskstats.splitlines())
    return sorted((clean(words[2]), words) for words in lines if len(words) > 12 and not NO_DISK.fullmatch(words[2]))


def networks(dev: KernelFile) -> Iterator[Metric]:
    rows = network_rows(dev.read())
    for known, place in NETWORK:
        family = known.metric()
        for device, numbers in rows:
            family.add_metric((device,), int(numbers[place]))
        yield family


def network_rows(table: bytes) -> list[tuple[str, list[bytes]]]:
    """(interface, its numbers), in the order of their names. A name may hold a colon: an address of its own."""
    rows = []
    for line in table.splitlines()[2:]:
        name, colon, numbers = line.rpartition(b":")
        if colon and not NO_INTERFACE.fullmatch(name.strip()):
            rows.append((clean(name.strip()), numbers.split()))
    return sorted(rows)
