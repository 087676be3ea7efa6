"""Who has memory of a card: the process, and its pod where cgroups tell.

A cgroup holds the pod's UID and never its name. The name and the namespace are in the name of the folder that the
kubelet keeps for the pod's logs, NAMESPACE_POD_UID; where that is not mounted, the UID stands for the pod.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from exporters.gpu.families import PROCESS_MEMORY
from exporters.gpu.samples import Sample
from exporters.labels import OTHER, Cap, clean

# …/kubepods-burstable-pod1234_….slice/… by systemd, …/kubepods/burstable/pod1234-…/… by cgroupfs
_POD = re.compile(r"kubepods.*?[-/]pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?:\.slice)?(?:/|$)", re.M)
# Also static pods, whose UID is a hash.
_STATIC_POD = re.compile(r"kubepods.*?[-/]pod([0-9a-f]{32})(?:\.slice)?(?:/|$)", re.M)


@dataclass(frozen=True)
class Owner:
    """Of a process. Empty: not known, or not in a pod. `pod`: its name, else its UID."""

    process: str = ""
    namespace: str = ""
    pod: str = ""


def pod_uid(cgroup: str) -> str | None:
    """The UID of the pod that a process is in, from its /proc/PID/cgroup; None: it is in none."""
    found = _POD.search(cgroup) or _STATIC_POD.search(cgroup)
    return found[1].replace("_", "-") if found else None


def pods_by_uid(folders: Iterable[str]) -> dict[str, tuple[str, str]]:
    """{UID: (namespace, name)} of the folders' names; neither a namespace nor a pod has a `_` in its name."""
    parts = (name.split("_") for name in folders)
    return {part[2]: (part[0], part[1]) for part in parts if len(part) == 3}


def read_owners(pids: Iterable[int], proc: Path, pod_logs: Path) -> dict[int, Owner]:
    """Of each process that is still there and may be looked at."""
    pods: dict[str, tuple[str, str]] | None = None
    owners: dict[int, Owner] = {}
    for pid in pids:
        uid = pod_uid(_text(proc / str(pid) / "cgroup"))
        if uid is not None and pods is None:  # listed at most once, and only where there are pods
            try:
                pods = pods_by_uid(path.name for path in pod_logs.iterdir())
            except OSError:
                pods = {}
        namespace, pod = (pods or {}).get(uid, ("", uid)) if uid else ("", "")
        owners[pid] = Owner(_text(proc / str(pid) / "comm").rstrip("\n"), namespace, pod)
    return owners


def process_samples(memory: Mapping[int, int], owners: Mapping[int, Owner], cap: Cap) -> Iterator[Sample]:
    """The `cap.most` processes with the most memory, and the sum of all others as `other`."""
    ordered = sorted(memory.items(), key=lambda item: (-item[1], item[0]))
    for pid, used in ordered[: cap.most]:
        owner = owners.get(pid, Owner())
        yield PROCESS_MEMORY, (str(pid), clean(owner.process), clean(owner.namespace), clean(owner.pod)), used
    rest = ordered[cap.most :]
    if rest:
        cap.refused += len(rest)
        yield PROCESS_MEMORY, (OTHER, OTHER, OTHER, OTHER), sum(used for _, used in rest)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "backslashreplace")
    except OSError:
        return ""
