"""Room on the mounted file systems. Those that may hang are asked in another thread, so that the scrape does not."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric

from exporters.collector import PartialReadError
from exporters.families import Family, Gauge
from exporters.host.files import KernelFile
from exporters.labels import clean
from exporters.lanes import LANES

# No storage of its own, or read-only by nature and therefore always full.
NO_STORAGE = re.compile(
    "autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|erofs|fuse.lxcfs|fusectl|hugetlbfs|"
    "iso9660|mqueue|nsfs|procf?s?|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs"
)
# What container engines mount for their own ends, many times over.
NOT_OURS = re.compile(
    r"/(dev|proc|sys|run/credentials|var/lib/(docker|containers|kubelet))(/.*)?|/etc/(hosts|hostname|resolv\.conf)"
)
# Answer out of memory, whatever their disk does. Everything else may wait for another machine or program.
LOCAL = re.compile("bcachefs|btrfs|exfat|ext[234]|f2fs|fat|jfs|msdos|ntfs3|overlay|ramfs|tmpfs|ubifs|vfat|xfs|zfs")
PATIENCE_SECONDS = 1.0  # a healthy file system answers in microseconds
LONGEST = 4096  # characters of a path: the kernel's own limit

_LABELS = ("device", "fstype", "mountpoint")
SIZE = Gauge("host_filesystem_size_bytes", "Size of the file system.", _LABELS, "statvfs")
AVAIL = Gauge("host_filesystem_avail_bytes", "Space left for programs that are not root.", _LABELS, "statvfs")
FILES = Gauge("host_filesystem_files", "Files that fit; missing where there is no such limit.", _LABELS, "statvfs")
FILES_FREE = Gauge(
    "host_filesystem_files_free", "Files that still fit; missing where there is no such limit.", _LABELS, "statvfs"
)
READONLY = Gauge(
    "host_filesystem_readonly", "1: nothing can be written, meant so or after an error.", _LABELS, "statvfs"
)
FAMILIES: tuple[Family, ...] = (SIZE, AVAIL, FILES, FILES_FREE, READONLY)

Answer = os.statvfs_result | OSError | None  # None: it has not answered


@dataclass(frozen=True)
class Mount:
    """A line of the mounts table. Bytes that are no UTF-8 are surrogates, as in every path of Python's."""

    device: str
    mountpoint: str
    kind: str


@dataclass(frozen=True)
class _Known:
    """A mount, how to ask it, and what to call it. `may_hang`: it, or one on the way to it, is not local."""

    mount: Mount
    path: str
    labels: tuple[str, str, str]
    may_hang: bool


class Filesystems:
    """A mount that does not answer is left alone until the thread that asked it has returned.

    table: path of the mounts table. root: where the machine's own root is mounted.
    """

    def __init__(self, table: str, root: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> None:
        self._table = KernelFile(table)
        self._root = root.rstrip("/")
        self._statvfs = statvfs
        self._stuck: dict[str, _Walk] = {}
        self._last: tuple[bytes, list[_Known]] = (b"", [])

    def collect(self, deadline: float) -> Iterator[Metric]:
        problems: list[str] = []
        answered: list[tuple[tuple[str, str, str], os.statvfs_result]] = []
        for each, answer in self._ask(self._mounts(), deadline):
            if isinstance(answer, os.statvfs_result):
                if answer.f_blocks:
                    answered.append((each.labels, answer))
            elif isinstance(answer, FileNotFoundError) and each not in self._mounts():
                continue  # unmounted since
            elif not isinstance(answer, PermissionError):  # someone's private mount is none of our business
                problems.append(f"{each.labels[2]} ({each.mount.kind}): {answer or 'does not answer'}")
        yield from filesystem_metrics(answered)
        if problems:
            raise PartialReadError("; ".join(problems))

    def _mounts(self) -> list[_Known]:
        """Those worth measuring. The table seldom changes."""
        table = self._table.read()
        if table != self._last[0]:
            mounts = storage_mounts(table)
            afar = [mount.mountpoint for mount in mounts if not LOCAL.fullmatch(mount.kind)]
            self._last = (table, [self._known(mount, afar) for mount in mounts])
        return self._last[1]

    def _known(self, mount: Mount, afar: list[str]) -> _Known:
        path = f"{self._root}{mount.mountpoint}".rstrip("/") or "/"
        labels = (_text(mount.device), mount.kind, _text(mount.mountpoint))
        return _Known(mount, path, labels, any(f"{mount.mountpoint}/".startswith(f"{way}/") for way in afar))

    def _ask(self, mounts: list[_Known], deadline: float) -> Iterator[tuple[_Known, Answer]]:
        self._stuck = {mountpoint: walk for mountpoint, walk in self._stuck.items() if not walk.done.is_set()}
        waiting = []
        for each in mounts:
            if not each.may_hang:
                yield each, self._answer(each.path)
            elif each.mount.mountpoint in self._stuck:
                yield each, None
            else:
                waiting.append(each)
        while waiting:
            walk = _Walk([each.path for each in waiting], self._answer)
            LANES.start(walk)
            answers = walk.wait(deadline)
            yield from zip(waiting, answers, strict=False)
            if len(answers) < len(waiting):
                stuck = waiting[len(answers)]
                self._stuck[stuck.mount.mountpoint] = walk
                yield stuck, None
            waiting = waiting[len(answers) + 1 :]

    def _answer(self, path: str) -> os.statvfs_result | OSError:
        try:
            return self._statvfs(path)
        except OSError as error:
            return error


class _Walk:
    """Asks one path after another, in a thread; stops at the first that does not answer in time."""

    def __init__(self, paths: list[str], ask: Callable[[str], os.statvfs_result | OSError]) -> None:
        self._paths = paths
        self._ask = ask
        self._answers: list[os.statvfs_result | OSError] = []
        self._is_abandoned = False
        self.done = threading.Event()

    def __call__(self) -> None:
        try:
            for path in self._paths:
                if self._is_abandoned:
                    return
                self._answers.append(self._ask(path))
        finally:
            self.done.set()

    def wait(self, deadline: float) -> list[os.statvfs_result | OSError]:
        """The answers: fewer than paths when the one behind them does not come. Each gets its time."""
        seen = 0
        while not self.done.wait(max(0.01, min(PATIENCE_SECONDS, deadline - time.monotonic()))):
            if seen == len(self._answers):
                self._is_abandoned = True
                break
            seen = len(self._answers)
        return self._answers[:]


def filesystem_metrics(answered: list[tuple[tuple[str, str, str], os.statvfs_result]]) -> Iterator[Metric]:
    size, avail, files, files_free, readonly = (
        family.metric() for family in (SIZE, AVAIL, FILES, FILES_FREE, READONLY)
    )
    for labels, answer in answered:
        size.add_metric(labels, answer.f_blocks * answer.f_frsize)
        avail.add_metric(labels, answer.f_bavail * answer.f_frsize)
        readonly.add_metric(labels, 1.0 if answer.f_flag & os.ST_RDONLY else 0.0)
        if answer.f_files:
            files.add_metric(labels, answer.f_files)
            files_free.add_metric(labels, answer.f_favail)
    yield from (size, avail, files, files_free, readonly)


def storage_mounts(table: bytes) -> list[Mount]:
    """The mounts worth measuring, of a mounts table; of several on one mountpoint the last, which hides the others."""
    mounts: dict[str, Mount] = {}
    for line in table.splitlines():
        words = line.split(b" ")
        if len(words) < 3:
            continue
        device, mountpoint, kind = (_unescape(word) for word in words[:3])
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
    return clean(os.fsencode(path), LONGEST)
