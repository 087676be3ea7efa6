"""The real parts start, stop, crash and start again; mistakes are told in a sentence; only own processes end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.parts import (
    HOST,
    Alertmanager,
    Part,
    PartError,
    Prometheus,
    Redis,
    amtool,
    create_blocks,
    free_port,
    http_status,
    port_in_use,
    promtool,
)

pytestmark = pytest.mark.real

NOTHING_TO_SCRAPE = "scrape_configs: []\n"
ONE_RECEIVER = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A configuration with which Prometheus does nothing but answer queries."""
    file = tmp_path / "prometheus.yml"
    file.write_text(NOTHING_TO_SCRAPE)
    return file


def make_part(kind: str, folder: Path, root: Path, **options: object) -> Part:
    """A part of each kind with the least configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(NOTHING_TO_SCRAPE)
    (folder / "alertmanager.yml").write_text(ONE_RECEIVER)
    if kind == "redis":
        return Redis(folder, root=root, **options)
    if kind == "prometheus":
        return Prometheus(folder, folder / "prometheus.yml", root=root, **options)
    return Alertmanager(folder, folder / "alertmanager.yml", root=root, **options)


every_kind = pytest.mark.parametrize("kind", ["redis", "prometheus", "alertmanager"])


def query(prometheus: Prometheus, expression: str, at: float) -> list[dict[str, object]]:
    """The answer to one instant query."""
    asked = urllib.parse.urlencode({"query": expression, "time": at})
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/query?{asked}") as answer:
        return json.load(answer)["data"]["result"]


def gone(pid: int) -> bool:
    """Whether this process has ended (one whose parent has not collected it yet counts as ended)."""
    try:
        return re.search(r"^State:\s+Z", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE) is not None
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


@every_kind
def test_a_part_answers_after_start_stops_and_starts_again_on_its_port(
    kind: str, tmp_path: Path, parts_root: Path
) -> None:
    part = make_part(kind, tmp_path, parts_root)
    assert (part.running, part.pid, part.answers()) == (False, None, False)

    part.start()
    first = part.pid
    assert first is not None
    assert part.answers()
    part.stop()
    assert (part.running, port_in_use(part.port), gone(first)) == (False, False, True)

    with part.start():
        assert part.answers()
        assert part.pid != first
    part.stop()  # a second time: nothing
    assert not part.running


@every_kind
def test_a_killed_part_starts_again(kind: str, tmp_path: Path, parts_root: Path) -> None:
    with make_part(kind, tmp_path, parts_root) as part:
        part.kill()
        assert not part.answers()
        part.start()
        assert part.answers()


@every_kind
def test_a_port_in_use_is_told_before_anything_starts(kind: str, tmp_path: Path, parts_root: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        part = make_part(kind, tmp_path, parts_root, port=port)
        with pytest.raises(PartError) as caught:
            part.start()
    assert str(caught.value) == (
        f"{kind}: port {port} on 127.0.0.1 is in use by another program; stop that one or choose another port"
    )
    assert not part.log_path.exists()


def test_a_running_part_is_not_started_twice(tmp_path: Path, parts_root: Path) -> None:
    with Redis(tmp_path, root=parts_root) as server, pytest.raises(PartError, match=f"already running.*{server.pid}"):
        server.start()


def test_a_part_that_dies_at_the_start_is_told_with_the_end_of_its_log(tmp_path: Path, parts_root: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text("scrape_config: []\n")
    prometheus = Prometheus(tmp_path, config, root=parts_root)
    with pytest.raises(PartError) as caught:
        prometheus.start()
    message = str(caught.value)
    assert message.startswith(f"prometheus ended with exit status 2 before it was ready. {prometheus.log_path}:\n    ")
    assert "field scrape_config not found" in message
    assert not prometheus.running


def test_a_part_that_does_not_get_ready_is_told_and_ended(tmp_path: Path, parts_root: Path) -> None:
    class NeverReady(Redis):
        ready_seconds = 0.3

        def answers(self) -> bool:
            seen.append(self.pid)
            return False

    seen: list[int | None] = []
    with pytest.raises(PartError, match=r"redis was not ready within 0\.3 s on port \d+"):
        NeverReady(tmp_path, root=parts_root).start()
    assert seen[0] is not None
    assert gone(seen[0])


def test_a_part_that_will_not_end_is_killed(tmp_path: Path, parts_root: Path) -> None:
    with Redis(tmp_path, root=parts_root) as server:
        server.stop_seconds = 0.2
        assert server.pid is not None
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)  # a stopped process takes no TERM
        server.stop()
        assert gone(pid)


def test_how_a_part_ended_by_itself_is_known(tmp_path: Path, parts_root: Path) -> None:
    with Redis(tmp_path, root=parts_root) as server:
        assert server.pid is not None
        assert server.ending is None
        os.kill(server.pid, signal.SIGKILL)
        assert wait_until(lambda: not server.running)
        assert server.ending == "signal SIGKILL"
        assert server.start().ending is None


def test_stopping_one_part_leaves_its_like_alone(tmp_path: Path, parts_root: Path) -> None:
    with Redis(tmp_path / "a", root=parts_root) as one, Redis(tmp_path / "b", root=parts_root) as other:
        one.stop()
        assert other.answers()
        one.start().kill()
        assert other.answers()


def test_ctrl_c_at_the_terminal_does_not_reach_a_part(tmp_path: Path, parts_root: Path) -> None:
    with Redis(tmp_path, root=parts_root) as server:
        assert server.pid is not None
        assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_a_part_ends_with_a_program_that_was_killed(tmp_path: Path, parts_root: Path) -> None:
    source = (
        "import sys, time; from pathlib import Path; from testbed.parts import Redis\n"
        "print(Redis(Path(sys.argv[1]), root=Path(sys.argv[2])).start().pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", source, tmp_path, parts_root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert not gone(pid)
        starter.kill()
    assert wait_until(lambda: gone(pid))


def test_free_ports_are_free_and_never_given_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert not any(port_in_use(port) for port in ports)


def test_readiness_is_not_asked_through_a_proxy(
    tmp_path: Path, parts_root: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{HOST}:{free_port()}")
    with Prometheus(tmp_path, config_file, root=parts_root) as prometheus:
        assert prometheus.answers()


def test_history_is_there_at_once_and_after_a_restart(
    tmp_path: Path, prometheus_factory: Callable[..., Prometheus], config_file: Path
) -> None:
    """Three days of one sample a minute, ended an hour ago."""
    end = int(time.time()) // 60 * 60 - 3600
    count = 3 * 24 * 60
    lines = [f'jobs_total{{queue="video"}} {i} {end - (count - 1 - i) * 60}' for i in range(count)]
    (tmp_path / "history.txt").write_text("\n".join(["# TYPE jobs counter", *lines, "# EOF", ""]))
    blocks = create_blocks(tmp_path / "history.txt", tmp_path / "blocks")
    assert blocks
    assert all((block / "meta.json").exists() and block.parent == tmp_path / "blocks" for block in blocks)
    assert [path.name for path in tmp_path.glob(".blocks-*")] == []

    prometheus = prometheus_factory(config_file)
    prometheus.stop()
    create_blocks(tmp_path / "history.txt", prometheus.data_folder)
    port = prometheus.port
    for _ in range(2):
        prometheus.start()
        counted = query(prometheus, 'count_over_time(jobs_total{queue="video"}[4d])', end)
        assert [series["value"] for series in counted] == [[end, str(count)]]
        assert query(prometheus, "increase(jobs_total[1h])", end)[0]["value"] == [end, "60"]
        prometheus.stop()
    assert prometheus.port == port


def test_blocks_of_a_broken_history_are_refused_and_nothing_is_left(tmp_path: Path, parts_root: Path) -> None:
    (tmp_path / "history.txt").write_text(
        "# TYPE jobs counter\njobs_total 1 1700000000\njobs_total one 1700000060\n# EOF\n"
    )
    with pytest.raises(PartError, match=r"promtool made no blocks of .*history\.txt:\n.*one") as caught:
        create_blocks(tmp_path / "history.txt", tmp_path / "data", root=parts_root)
    assert "history.txt" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path.name != "history.txt"] == ["data"]
    assert list((tmp_path / "data").iterdir()) == []


def test_retention_and_further_flags_reach_prometheus(
    prometheus_factory: Callable[..., Prometheus], config_file: Path
) -> None:
    prometheus = prometheus_factory(config_file, retention="20d", flags=["--query.max-samples=1234"])
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/status/flags") as answer:
        flags = json.load(answer)["data"]
    assert (flags["storage.tsdb.retention.time"], flags["query.max-samples"]) == ("20d", "1234")


def test_the_pages_of_prometheus_are_complete(prometheus_factory: Callable[..., Prometheus], config_file: Path) -> None:
    prometheus = prometheus_factory(config_file)
    with urllib.request.urlopen(f"{prometheus.url}/classic/graph?g0.expr=up") as answer:
        page = answer.read().decode()
    needed = re.findall(r'(?:src|href)="(/classic/static/[^"]+)"', page)
    assert len(needed) > 15
    assert [path for path in needed if http_status(prometheus.port, path) != 200] == []


def test_the_tools_check_what_the_servers_would_read(tmp_path: Path, parts_root: Path, config_file: Path) -> None:
    alertmanager = tmp_path / "alertmanager.yml"
    alertmanager.write_text(ONE_RECEIVER)
    assert promtool("check", "config", config_file, root=parts_root).returncode == 0
    assert amtool("check-config", alertmanager, root=parts_root).returncode == 0

    config_file.write_text("scrape_config: []\n")
    alertmanager.write_text("route: {receiver: somebody}\nreceivers: [{name: nobody}]\n")
    assert "field scrape_config not found" in promtool("check", "config", config_file, root=parts_root).stderr
    assert 'undefined receiver "somebody"' in amtool("check-config", alertmanager, root=parts_root).stdout
