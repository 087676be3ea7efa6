"""The host exporter against a machine of files: its whole page, and what happens when parts are missing or hang."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric

from exporters import host
from exporters.collector import CollectFunction, PartialReadError
from exporters.host import cgroup, devices, filesystems, kernel, memory, protocols
from exporters.host.files import KernelFile, number, read
from exporters.host.filesystems import PATIENCE_SECONDS, Filesystems

MACHINE = Path(__file__).parent / "machine"
MOUNTS = str(MACHINE / "proc" / "self" / "mounts")
Page = Callable[[Mapping[str, CollectFunction]], str]


def config(**changes: Path) -> host.Config:
    return host.Config.model_validate({"proc": MACHINE / "proc", "cgroup": MACHINE / "v2", **changes})


def statvfs(path: str) -> os.statvfs_result:
    if path == "/home/a/doc":
        raise PermissionError(13, "Permission denied", path)
    blocks = 0 if path == "/mnt/empty" else 1000
    return os.statvfs_result((4096, 4096, blocks, 500, 400, 0, 0, 0, 0, 255))


def drain(metrics: Iterator[Metric]) -> tuple[dict[str, float], str | None]:
    """{mountpoint: available bytes} and the sentence of what could not be read."""
    found: dict[str, float] = {}
    try:
        for family in metrics:
            if family.name == "host_filesystem_avail_bytes":
                found = {sample.labels["mountpoint"]: sample.value for sample in family.samples}
    except PartialReadError as problem:
        return found, str(problem)
    return found, None


def series(metrics: Iterator[Metric]) -> dict[tuple[str, ...], float]:
    """Values by (name, label values…)."""
    return {(sample.name, *sample.labels.values()): sample.value for metric in metrics for sample in metric.samples}


def test_the_page_of_a_machine_is_the_expected_text(page: Page) -> None:
    functions = dict(host.collectors(config()))
    functions["filesystem"] = Filesystems(MOUNTS, "/", statvfs).collect
    assert page(functions) == (MACHINE / "metrics.txt").read_text()


def test_it_works_on_this_machine_without_configuration(page: Page) -> None:
    functions = host.collectors(host.Config())
    text = page(functions)
    assert 'host_cpu_seconds_total{cpu="0",mode="idle"}' in text
    assert "host_memory_available_bytes " in text
    assert set(functions) >= {"cpu", "load", "memory", "disk", "filesystem", "network"}


def test_what_the_kernel_does_not_offer_has_no_collector(tmp_path: Path) -> None:
    functions = host.collectors(config(proc=tmp_path, cgroup=tmp_path))
    assert {"pressure", "cgroup", "protocols", "conntrack", "descriptors"}.isdisjoint(functions)


def test_every_family_is_demonstrated_and_the_demonstration_is_the_same_at_the_same_time() -> None:
    pages = [list(host.demo(at)) for at in (1.8e9, 1.8e9, 1.8e9 + 40_000)]
    assert {metric.name for metric in pages[0]} == {family.name for family in host.FAMILIES}
    first, again, later = (series(iter(metrics)) for metrics in pages)
    assert first == again
    assert first.keys() == later.keys()
    assert all(later[key] >= first[key] >= 0 for key in first if key[0].endswith("_total"))

    for cpu in range(4):
        passed = [later[key] - first[key] for key in first if key[:2] == ("host_cpu_seconds_total", f"demo-{cpu}")]
        assert sum(passed) == pytest.approx(40_000, rel=0.01)


def test_cgroup_version_1_without_limits(page: Page) -> None:
    text = page({"cgroup": host.collectors(config(cgroup=MACHINE / "v1"))["cgroup"]})
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "host_cgroup_cpu_throttled_seconds_total 1.5",
        "host_cgroup_cpu_seconds_total 7.5",
        "host_cgroup_memory_usage_bytes 123456.0",
        "host_cgroup_oom_kills_total 3.0",
        "host_cgroup_cpu_periods_total 10.0",
        "host_cgroup_cpu_throttled_periods_total 2.0",
        "host_cgroup_tasks 7.0",
    ]


def test_cgroup_version_1_with_limits(tmp_path: Path) -> None:
    tree = Path(shutil.copytree(MACHINE / "v1", tmp_path / "v1"))
    (tree / "cpu" / "box" / "cpu.cfs_quota_us").write_text("50000\n")
    (tree / "memory" / "box" / "memory.limit_in_bytes").write_text("1048576\n")
    found = series(iter(cgroup.cgroup(cgroup.find_cgroup(MACHINE / "proc", tree))))
    assert found["host_cgroup_cpu_limit",] == 0.5
    assert found["host_cgroup_memory_limit_bytes",] == 1048576


def test_a_cgroup_that_is_taken_apart_loses_its_series_and_nothing_else_does(tmp_path: Path) -> None:
    tree = Path(shutil.copytree(MACHINE / "v2", tmp_path / "v2"))
    files = cgroup.find_cgroup(MACHINE / "proc", tree)
    (tree / "box" / "memory.max").write_text("max\n")
    (tree / "box" / "cpu.max").write_text("max 100000\n")
    assert ("host_cgroup_memory_limit_bytes",) not in series(iter(cgroup.cgroup(files)))
    assert ("host_cgroup_cpu_limit",) not in series(iter(cgroup.cgroup(files)))
    for number_of in files.values():
        number_of.file.close()  # an open file of a cgroup that is gone says ENODEV, an ordinary one stays readable
    shutil.rmtree(tree / "box")
    assert list(cgroup.cgroup(files)) == []


def test_in_a_container_without_a_cgroup_namespace_the_tree_begins_at_the_container(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    (tmp_path / "memory.current").write_text("42\n")
    files = cgroup.find_cgroup(MACHINE / "proc", tmp_path)
    assert series(iter(cgroup.cgroup(files))) == {("host_cgroup_memory_usage_bytes",): 42.0}


def test_with_the_machine_s_root_elsewhere_its_first_process_tells_of_mounts_and_interfaces(
    page: Page, tmp_path: Path
) -> None:
    proc = Path(shutil.copytree(MACHINE / "proc", tmp_path / "proc"))
    shutil.move(proc / "net", proc / "1" / "net")
    asked: list[str] = []

    def remember(path: str) -> os.statvfs_result:
        asked.append(path)
        return statvfs(path)

    found, _ = drain(Filesystems(str(proc / "1" / "mounts"), "/host", remember).collect(time.monotonic() + 5))
    assert asked == ["/host"]
    assert found == {"/": 400 * 4096}
    functions = host.collectors(config(proc=proc, root=Path("/host")))
    assert 'host_network_receive_bytes_total{device="eth0"} 1000.0' in page({"network": functions["network"]})
    assert "host_tcp_established 12.0" in page({"protocols": functions["protocols"]})


def test_a_processor_s_idle_time_that_steps_back_a_little_stands_still(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    processors = kernel.Processors(tmp_path)
    seen = []
    for idle in (4000, 3990, 4010, 100):
        stat.write_text(f"cpu 0 0 0 {idle}\ncpu3 0 0 0 {idle}\nbtime 5\n")
        seen.append(series(processors.collect(0))["host_cpu_seconds_total", "3", "idle"] * kernel.TICKS_PER_SECOND)
    assert seen == pytest.approx([4000, 4000, 4010, 100]), "the last was taken out and came back"


def test_a_device_that_vanishes_takes_its_series_with_it(tmp_path: Path) -> None:
    table = tmp_path / "diskstats"
    table.write_bytes((MACHINE / "proc" / "diskstats").read_bytes())
    assert {key[1] for key in series(devices.disks(KernelFile(table)))} == {"nvme0n1", "sda"}
    table.write_text("   8       0 sda 1000 0 2000 300 400 0 800 90 0 1250 390\n   9 0 cut off\n")
    assert {key[1] for key in series(devices.disks(KernelFile(table)))} == {"sda"}


def test_names_that_are_no_utf_8_are_written_visibly(tmp_path: Path) -> None:
    table = tmp_path / "dev"
    table.write_bytes(b"a\nb\n caf\xe9: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\neth0:1: 2" + b" 0" * 15 + b"\n")
    assert {key[1] for key in series(devices.networks(KernelFile(table)))} == {"caf\\xe9", "eth0:1"}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300) | st.text("cpu0123 \n:.-abct", max_size=200).map(str.encode))
def test_whatever_the_kernel_s_files_hold_reading_them_is_no_worse_than_a_failed_read(text: bytes) -> None:
    for parse in (
        kernel.cpu_times,
        kernel.stalled,
        memory.memory_bytes,
        devices.disk_rows,
        devices.network_rows,
        filesystems.storage_mounts,
        lambda text: number(text, b"btime "),
        lambda text: protocols.protocol_counts(text, "Tcp"),
        lambda text: cgroup.CgroupFile(KernelFile(""), "oom_kill").value(text.decode("ascii", "replace")),
    ):
        with contextlib.suppress(ValueError):
            parse(text)


def test_a_number_is_found_by_the_beginning_of_its_line() -> None:
    text = b"MemTotal: 8 kB\nSwapCached: 7 kB\nCached: 6 kB\nlast 5"
    assert [number(text, name) for name in (b"MemTotal:", b"Cached:", b"last ", b"Mem", b"none ")] == [
        8, 6, 5, None, None,
    ]  # fmt: skip


def test_long_files_are_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 200_000)
    assert len(read(tmp_path / "long")) == 200_000
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_a_file_stays_open_until_it_cannot_be_read_and_is_then_opened_again(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    path = tmp_path / "file"
    path.write_text("first")
    file = KernelFile(path)
    assert file.read() == b"first"
    path.write_text("2nd")
    assert [file.read() for _ in range(100)] == [b"2nd"] * 100
    assert len(os.listdir("/proc/self/fd")) == before + 1
    file.close()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        file.read()
    path.write_text("again")
    assert file.read() == b"again"
    del file
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_hung_mount_costs_a_moment_once_and_is_asked_again_when_it_is_back() -> None:
    gate = threading.Event()
    calls: list[str] = []

    def hang_on_the_share(path: str) -> os.statvfs_result:
        calls.append(path)
        if path == "/mnt/share":
            gate.wait(30)
        return statvfs(path)

    filesystems = Filesystems(MOUNTS, "/", hang_on_the_share)

    started = time.monotonic()
    found, problem = drain(filesystems.collect(time.monotonic() + 5))
    assert time.monotonic() - started < PATIENCE_SECONDS + 1
    assert problem == "/mnt/share (nfs4): does not answer"
    assert "/mnt/share" not in found
    assert "/data" in found
    assert '/mnt/caf\\xe9"q"' in found, "the mounts after the hung one are read too"

    started = time.monotonic()
    found, problem = drain(filesystems.collect(time.monotonic() + 5))
    assert time.monotonic() - started < PATIENCE_SECONDS / 2
    assert problem == "/mnt/share (nfs4): does not answer"
    assert calls.count("/mnt/share") == 1, "nobody else is sent into the hung mount"

    gate.set()
    deadline = time.monotonic() + 5
    while "/mnt/share" not in found and time.monotonic() < deadline:
        found, problem = drain(filesystems.collect(time.monotonic() + 5))
    assert "/mnt/share" in found
    assert problem is None


def test_a_broken_mount_is_named_and_the_others_are_read() -> None:
    def stale(path: str) -> os.statvfs_result:
        if path == "/mnt/share":
            raise OSError(116, "Stale file handle")
        return statvfs(path)

    found, problem = drain(Filesystems(MOUNTS, "/", stale).collect(time.monotonic() + 5))
    assert problem == "/mnt/share (nfs4): [Errno 116] Stale file handle"
    assert "/data" in found


def test_a_mount_that_is_gone_by_the_time_it_is_asked_is_no_failure(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text("a / ext4 rw 0 0\nb /gone ext4 rw 0 0\n")

    def unmounted_meanwhile(path: str) -> os.statvfs_result:
        if path == "/gone":
            table.write_text("a / ext4 rw 0 0\n")
            raise FileNotFoundError(2, "No such file or directory")
        return statvfs(path)

    found, problem = drain(Filesystems(str(table), "/", unmounted_meanwhile).collect(time.monotonic() + 5))
    assert (list(found), problem) == (["/"], None)

    def never_there(path: str) -> os.statvfs_result:
        raise FileNotFoundError(2, "No such file or directory")

    _, problem = drain(Filesystems(str(table), "/wrong", never_there).collect(time.monotonic() + 5))
    assert problem == "/ (ext4): [Errno 2] No such file or directory", "a wrong root is told"


# In a mount table of its own: nobody else's tests shall meet a mount that hangs.
HUNG_MOUNT = """
import ctypes, json, os, sys, time
from exporters import host
from exporters.collector import PartialReadError
mountpoint = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result != 0:
        sys.exit(f"not here: {os.strerror(ctypes.get_errno())}")
must(libc.unshare(0x20000))                                       # CLONE_NEWNS
must(libc.mount(b"none", b"/", None, 0x44000, None))              # private, with all below
try:
    served_by_nobody = os.open("/dev/fuse", os.O_RDWR)
except OSError as error:
    sys.exit(f"not here: {error}")
options = f"fd={served_by_nobody},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
must(libc.mount(b"nobody", os.fsencode(mountpoint), b"fuse", 6, options.encode()))
collect = host.collectors(host.Config())["filesystem"]
for _ in range(2):
    started, found, problem = time.monotonic(), 0, None
    try:
        for family in collect(started + 5):
            found += len(family.samples)
    except PartialReadError as error:
        problem = str(error)
    print(json.dumps([time.monotonic() - started, found, problem]), flush=True)
os._exit(0)
"""


@pytest.mark.real
def test_a_real_mount_whose_server_does_not_answer_hangs_no_scrape(tmp_path: Path) -> None:
    program = [sys.executable, "-c", HUNG_MOUNT, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    if done.stderr.startswith("not here"):
        pytest.skip(f"a FUSE mount is {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    first, again = (json.loads(line) for line in done.stdout.splitlines())
    assert first[0] < PATIENCE_SECONDS + 1
    assert again[0] < PATIENCE_SECONDS / 2, "it is not waited for again"
    assert first[1] == again[1] > 0
    assert first[2] == again[2] == f"{tmp_path} (fuse): does not answer"
