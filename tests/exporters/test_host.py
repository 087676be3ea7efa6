"""The host exporter against a machine of files: its whole page, and what happens when parts are missing or hang."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from prometheus_client.metrics_core import Metric

from exporters import host
from exporters.collector import CollectFunction, PartialReadError

MACHINE = Path(__file__).parent / "machine"
Page = Callable[[Mapping[str, CollectFunction]], str]


@pytest.fixture(autouse=True)
def own_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/proc")  # the exporter sets it; this puts it back after the test


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


def test_the_page_of_a_machine_is_the_expected_text(page: Page) -> None:
    functions = dict(host.collectors(config()))
    functions["filesystem"] = host.Filesystems(config(), statvfs).collect
    assert page(functions) == (MACHINE / "metrics.txt").read_text()


def test_it_works_on_this_machine_without_configuration(page: Page) -> None:
    functions = host.collectors(host.Config())
    text = page(functions)
    assert 'host_cpu_seconds_total{cpu="0",mode="idle"}' in text
    assert "host_memory_available_bytes " in text
    assert set(functions) >= {"cpu", "load", "memory", "disk", "filesystem", "network"}


def test_without_pressure_and_cgroup_in_the_kernel_there_is_no_such_collector(tmp_path: Path) -> None:
    functions = host.collectors(config(proc=tmp_path, cgroup=tmp_path))
    assert "pressure" not in functions
    assert "cgroup" not in functions


def test_cgroup_version_1_without_a_limit(page: Page) -> None:
    text = page({"cgroup": host.collectors(config(cgroup=MACHINE / "v1"))["cgroup"]})
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "host_cgroup_cpu_throttled_seconds_total 1.5",
        "host_cgroup_memory_usage_bytes 123456.0",
        "host_cgroup_oom_kills_total 3.0",
    ]


def test_in_a_container_without_a_cgroup_namespace_the_tree_begins_at_the_container(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    (tmp_path / "memory.current").write_text("42\n")
    files = host.find_cgroup(MACHINE / "proc", tmp_path)
    assert {metric: file.read() for metric, file in files.items()} == {"memory_usage_bytes": 42.0}


def test_with_the_machine_s_root_mounted_elsewhere_its_first_process_lists_the_mounts() -> None:
    asked: list[str] = []

    def remember(path: str) -> os.statvfs_result:
        asked.append(path)
        return statvfs(path)

    host_root = config(root=Path("/host"))
    found, _ = drain(host.Filesystems(host_root, remember).collect(time.monotonic() + 5))
    assert asked == ["/host"]
    assert found == {"/": 400 * 4096}


def test_a_hung_mount_costs_a_moment_once_and_is_asked_again_when_it_is_back() -> None:
    gate = threading.Event()
    calls: list[str] = []

    def hang_on_the_share(path: str) -> os.statvfs_result:
        calls.append(path)
        if path == "/mnt/share":
            gate.wait(30)
        return statvfs(path)

    filesystems = host.Filesystems(config(), hang_on_the_share)

    started = time.monotonic()
    found, problem = drain(filesystems.collect(time.monotonic() + 5))
    assert time.monotonic() - started < host.PATIENCE_SECONDS + 1
    assert problem == "/mnt/share (nfs4): does not answer"
    assert "/mnt/share" not in found
    assert "/data" in found
    assert '/mnt/caf\\xe9"q"' in found, "the mounts after the hung one are read too"

    started = time.monotonic()
    found, problem = drain(filesystems.collect(time.monotonic() + 5))
    assert time.monotonic() - started < host.PATIENCE_SECONDS / 2
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

    found, problem = drain(host.Filesystems(config(), stale).collect(time.monotonic() + 5))
    assert problem == "/mnt/share (nfs4): [Errno 116] Stale file handle"
    assert "/data" in found
