"""Who has memory of a card: process and pod from /proc and the kubelet's folder."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.gpu import Config, collectors, fleet
from exporters.gpu.processes import Owner, pod_uid, pods_by_uid, process_samples, read_owners
from exporters.labels import Cap
from exporters.runtime.config import ConfigError
from tests.exporters.gpu.conftest import State

UID = "0f2b7a44-7f3a-4a7e-9f9c-3d6a2d4b1c11"
CONTAINER = "c" * 64


@pytest.mark.parametrize(
    ("cgroup", "uid"),
    [
        pytest.param(
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/"
            f"cri-containerd-{CONTAINER}.scope\n",
            UID,
            id="version 2, by systemd",
        ),
        pytest.param(f"0::/kubepods/besteffort/pod{UID}/{CONTAINER}\n", UID, id="version 2, by cgroupfs"),
        pytest.param(f"0::/kubepods/pod{UID}/{CONTAINER}\n", UID, id="a guaranteed pod"),
        pytest.param(
            f"12:memory:/kubepods/burstable/pod{UID}/{CONTAINER}\n11:cpu,cpuacct:/kubepods/burstable/pod{UID}/x\n",
            UID,
            id="version 1",
        ),
        pytest.param(
            f"0::/system.slice/k3s.service/kubepods/burstable/pod{UID}/{CONTAINER}\n", UID, id="a kubelet in a service"
        ),
        pytest.param(
            f"0::/kubepods.slice/kubepods-pod{'ab' * 16}.slice/crio-{CONTAINER}.scope\n", "ab" * 16, id="a static pod"
        ),
        pytest.param(f"0::/system.slice/docker-{CONTAINER}.scope\n", None, id="a container of Docker"),
        pytest.param("0::/user.slice/user-1000.slice/session-2.scope\n", None, id="somebody at a terminal"),
        pytest.param("0::/\n", None, id="the same cgroup as the exporter's"),
        pytest.param("", None, id="a process that has ended"),
    ],
)
def test_the_pod_of_a_cgroup(cgroup: str, uid: str | None) -> None:
    assert pod_uid(cgroup) == uid


@settings(max_examples=100)
@given(st.text())
def test_no_text_is_a_cgroup_that_fails(text: str) -> None:
    pod_uid(text)
    pods_by_uid(text.splitlines())


def a_process(proc: Path, pid: int, cgroup: str, comm: bytes = b"python3\n") -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cgroup").write_text(cgroup)
    (proc / str(pid) / "comm").write_bytes(comm)


def test_the_kubelet_s_folder_names_the_pod_and_without_it_its_uid_stands_for_it(tmp_path: Path) -> None:
    proc, logs = tmp_path / "proc", tmp_path / "pods"
    a_process(proc, 1, f"0::/kubepods/pod{UID}/{CONTAINER}\n")
    a_process(proc, 2, "0::/user.slice\n", b"blender\n")
    assert read_owners([1, 2, 3], proc, logs) == {
        1: Owner("python3", "", UID),
        2: Owner("blender"),
        3: Owner(),
    }
    (logs / f"ml_trainer-0_{UID}").mkdir(parents=True)
    (logs / "nonsense").mkdir()
    assert read_owners([1], proc, logs) == {1: Owner("python3", "ml", "trainer-0")}


def test_only_so_many_processes_have_a_series_and_the_others_are_summed_and_counted() -> None:
    cap = Cap("test", "pid", 2)
    owners = {7: Owner('a"\n\\\udcff' * 100, "ml", "trainer-0")}
    samples = list(process_samples({5: 10, 6: 300, 7: 200, 8: 1, 9: 2}, owners, cap))
    assert [(labels[0], value) for _, labels, value in samples] == [("6", 300), ("7", 200), ("other", 13)]
    assert cap.refused == 3
    assert all(len(text) <= 200 and text.encode() for text in samples[1][1])


def test_the_page_has_the_processes_of_each_card_where_that_is_switched_on(cards: State, tmp_path: Path) -> None:
    """Process 300 has memory that the driver cannot tell; 200 is gone meanwhile."""
    a_process(tmp_path / "proc", 100, f"0::/kubepods/pod{UID}/{CONTAINER}\n")
    (tmp_path / "pods" / f"ml_trainer-0_{UID}").mkdir(parents=True)
    on = fleet(Config(processes=True, proc=tmp_path / "proc", pod_logs=tmp_path / "pods"))
    try:
        found = {metric.name: metric.samples for metric in on.collect(time.monotonic() + 5)}
    finally:
        on.close()
    assert [(*sample.labels.values(), sample.value) for sample in found["gpu_process_memory_bytes"]] == [
        ("GPU-aaaaaaaa-0000-0000-0000-000000000000", "100", "python3", "ml", "trainer-0", 3000000),
        ("GPU-aaaaaaaa-0000-0000-0000-000000000000", "200", "", "", "", 1000000),
    ]
    assert [sample.value for sample in found["gpu_processes"]] == [3, 0]


def test_without_the_bindings_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.gpu.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as refused:
        collectors(Config())
    assert str(refused.value) == "exporters.gpu: needs the package nvidia-ml-py; install tidewise[gpu]"
