"""A Docker daemon of one's own, and that nothing of it stays."""

import contextlib
import time
from pathlib import Path

import pytest

from testbed import docker, fetch


@pytest.mark.real
def test_a_container_runs_and_all_goes_when_the_daemon_ends(tmp_path: Path) -> None:
    if (reason := docker.absence()) is not None:
        pytest.skip(reason)
    client = pytest.importorskip("docker", reason="needs the package docker")
    root = fetch.ensure_docker()
    before = bridges()
    with docker.Docker(tmp_path / "d", root=root) as part:
        assert part.answers()
        api = client.APIClient(part.url, version="auto")
        api.import_image_from_data(docker.image(root), "shell", "1")
        api.create_network("net", driver="bridge")
        made = api.create_container("shell:1", ["/bin/sh", "-c", "sleep 12345"], host_config={"NetworkMode": "net"})
        api.start(made["Id"])
        assert api.inspect_container(made["Id"])["State"]["Running"]
        api.close()
        group = part._cgroup
        assert bridges() == before
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{group}"))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    deadline = time.monotonic() + 5
    while "sleep 12345" in commands():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_why_there_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert docker.absence() == "no Docker daemon: only root can start one"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert docker.absence() == "no Docker daemon: unshare is not on this machine; install util-linux"


def bridges() -> set[str]:
    return {folder.name for folder in Path("/sys/class/net").glob("br-*")}


def commands() -> str:
    listed = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            listed.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(listed)
