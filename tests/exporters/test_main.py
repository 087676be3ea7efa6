"""The real `tidewise-exporter` process: its arguments, its pages, its end."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from exporters.__main__ import main
from exporters.runtime.process import version

COMMAND = (sys.executable, "-m", "exporters")


class Process:
    """A running exporter. `address`: where it serves, as its log says."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.popen = subprocess.Popen([*COMMAND, *arguments], cwd=folder, stderr=subprocess.PIPE, text=True)
        assert self.popen.stderr is not None
        self.started = json.loads(self.popen.stderr.readline())
        self.address = self.started["listen"][0]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=20) as response:
            return str(response.read().decode())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts exporters in an empty folder; those still running at the end are killed."""
    running: list[Process] = []

    def run(*arguments: str) -> Process:
        running.append(Process(arguments, tmp_path))
        return running[-1]

    yield run
    for process in running:
        process.popen.kill()
        process.popen.communicate()


def refusal(folder: Path, *arguments: str) -> str:
    """What an exporter that does not start writes to stderr; it must exit with 2 and without a traceback."""
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_host_needs_no_configuration_and_ends_at_a_signal(start: Callable[..., Process]) -> None:
    process = start("host", "--web.listen-address", "127.0.0.1:0", "--web.listen-address", "127.0.0.1:0")
    assert len(process.started["listen"]) == 2
    text = process.get("/metrics")
    assert 'tidewise_exporter_collector_success{collector="host.cpu"} 1.0' in text
    assert f'tidewise_build_info{{process="tidewise-exporter",python="{sys.version.split()[0]}"' in text
    assert process.get("/-/ready") == "ready\n"
    assert "<p>Exporters: host.</p>" in process.get("/")

    asked = time.monotonic()
    process.popen.send_signal(signal.SIGTERM)
    _, rest = process.popen.communicate(timeout=20)
    assert process.popen.returncode == 0
    assert time.monotonic() - asked < 4
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["stopped"]


def test_control_c_ends_it_without_a_traceback(start: Callable[..., Process]) -> None:
    process = start("host", "--web.listen-address", "127.0.0.1:0")
    process.popen.send_signal(signal.SIGINT)
    _, rest = process.popen.communicate(timeout=20)
    assert process.popen.returncode == 0
    assert "Traceback" not in rest


@pytest.mark.real
def test_host_and_queue_in_one_process_from_the_default_file(
    start: Callable[..., Process], redis_url: str, tmp_path: Path
) -> None:
    queue = f"{{redis: [{{url: '{redis_url}', queues: [{{name: jobs}}]}}]}}"
    (tmp_path / "tidewise.yaml").write_text(f"exporters: {{listen: ['127.0.0.1:0'], queue: {queue}}}\n")
    text = start("host", "queue", "--web.telemetry-path", "/m", "--log.format", "json").get("/m")
    assert 'queue_messages{queue="jobs",state="ready",system="redis"} 0.0' in text
    assert "host_load1 " in text


def test_a_scrape_s_short_timeout_is_kept(start: Callable[..., Process], tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)  # accepts and never answers
        server = f"127.0.0.1:{deaf.getsockname()[1]}"
        (tmp_path / "tidewise.yaml").write_text(
            f"exporters: {{queue: {{redis: [{{url: 'redis://{server}', queues: [{{name: jobs}}]}}]}}}}\n"
        )
        process = start("host", "queue", "--web.listen-address", "127.0.0.1:0")
        request = urllib.request.Request(
            f"http://{process.address}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "1"}
        )
        asked = time.monotonic()
        with urllib.request.urlopen(request, timeout=20) as response:
            text = response.read().decode()
        assert time.monotonic() - asked < 1
    assert "\nhost_load1 " in text
    assert "\nqueue_" not in text
    assert f'tidewise_exporter_collector_success{{collector="queue.redis.{server}/0"}} 0.0\n' in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "name what to export, any of: host, queue"),
        ("hots", "argument NAME: unknown exporter 'hots'; did you mean 'host'?"),
        ("printer", "argument NAME: unknown exporter 'printer'; known here: host, queue"),
        (
            "host --web.telemetry-path m",
            "argument --web.telemetry-path: found 'm'; a path begins with a slash, for example /metrics",
        ),
    ],
)
def test_a_wrong_argument_is_a_sentence(capsys: pytest.CaptureFixture[str], arguments: str, sentence: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments.split())
    assert refused.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"tidewise-exporter: error: {sentence}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("host --config none.yaml", "none.yaml: no such file; create it, or name another with --config"),
        pytest.param(
            "queue",
            "tidewise.yaml: exporters.queue: found no queue; name at least one, for example "
            "redis: [{url: redis://127.0.0.1:6379/0, queues: [{name: video-jobs}]}]",
        ),
        (
            "host --web.listen-address 9811",
            "'9811' is not an address; write HOST:PORT, for example 127.0.0.1:9811 or [::1]:9811",
        ),
    ],
)
def test_a_start_that_cannot_be_is_a_sentence(tmp_path: Path, arguments: str, sentence: str) -> None:
    assert refusal(tmp_path, *arguments.split()) == f"tidewise-exporter: {sentence}\n"


def test_every_mistake_of_the_file_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "exporters:\n  lissen: ['127.0.0.1:0']\n  queue: {redis: [{url: 'redis://h', queues: [{nam: jobs}]}]}\n"
    )
    assert refusal(tmp_path, "queue", "--config", "bad.yaml").splitlines() == [
        "tidewise-exporter: bad.yaml: exporters.queue.redis.0.queues.0.name: is missing; add it",
        "tidewise-exporter: bad.yaml: exporters.queue.redis.0.queues.0.nam: unknown key; did you mean 'name'?",
        "tidewise-exporter: bad.yaml: exporters.lissen: unknown key; did you mean 'listen'?",
    ]


def test_a_port_in_use_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal(tmp_path, "host", "--web.listen-address", address) == (
            f"tidewise-exporter: {address}: the address is in use; "
            "stop the process that has it or listen on another port\n"
        )


def test_help_teaches_and_version_tells() -> None:
    helped = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "tidewise-exporter host queue --config tidewise.yaml" in helped
    assert "queues: [{name: video-jobs}]" in helped
    told = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert told == f"tidewise-exporter {version()}\n"
