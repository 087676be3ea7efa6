"""`python -m demo` as a newcomer meets it: help, wrong usage, and what it writes before anything runs."""

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controllers.config import load
from demo import configuration, page
from demo.configuration import Addresses
from demo.receiver import Receiver, notifications
from demo.recording import Recording
from demo.settings import Settings
from demo.show import summary_text
from demo.summary import summary
from exporters.__main__ import read_section
from testbed.parts import amtool, free_port, promtool


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "demo", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_help_teaches() -> None:
    shown = demo("--help")
    assert shown.returncode == 0
    for word in (
        "--minutes",
        "--start-up",
        "--trace",
        "--seed",
        "--folder",
        "--no-burst",
        "--no-failures",
        "report",
        "Ctrl-C",
    ):
        assert word in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--minutes", "0"], "found '0'; give minutes, 1.5 to 60", id="no minutes"),
        pytest.param(["--minutes", "long"], "found 'long'; give minutes", id="no number"),
        pytest.param(["--start-up", "-1"], "found '-1'; give seconds, 0 to 600", id="a negative start-up"),
        pytest.param(["--minutes", "2"], "give 2.5 or more, or a shorter --start-up", id="too short for the start-up"),
        pytest.param(["--prometheus-port", "0"], "give a port, 1 to 65535", id="no port"),
        pytest.param(["ran"], "invalid choice: 'ran'", id="no such action"),
    ],
)
def test_wrong_usage_is_answered_with_what_to_give(arguments: list[str], said: str) -> None:
    refused = demo(*arguments)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_a_bad_trace_is_refused_before_anything_starts(csv_file: Callable[[str], Path], tmp_path: Path) -> None:
    path = csv_file("timestamp,value\n0,1\n60,x\n")
    refused = demo("--trace", str(path), "--folder", str(tmp_path / "demo"))
    assert refused.returncode == 1
    assert refused.stderr == (
        f"demo: {path}: line 3: 'x' is not a number; write one, or nothing where the sample is missing\n"
    )


def test_a_port_in_use_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = demo("--prometheus-port", str(port), "--folder", str(tmp_path / "demo"))
    assert refused.returncode == 1
    assert f"--prometheus-port {port}: another program listens there; stop it" in refused.stderr


def test_a_report_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    refused = demo("report", "--folder", str(tmp_path))
    assert refused.returncode == 1
    assert "recording.json: no such file; run the demo first" in refused.stderr


def test_a_recording_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recording.json").write_text('{"preparation": {}}')
    refused = demo("report", "--folder", str(tmp_path))
    assert refused.returncode == 1
    assert "not a recording of this version" in refused.stderr


def test_the_written_configuration_is_a_users(addresses: Addresses, tmp_path: Path) -> None:
    path = tmp_path / "tidewise.yaml"
    configuration.write(configuration.tidewise(Settings(folder=tmp_path), addresses), path, "Written.")
    config = load(path)
    workload = config.workload("demo/video-analysis")
    assert workload is not None
    assert (workload.mode, workload.replicas.min, workload.replicas.max) == ("act", 1, 20)
    assert (workload.slo.wait_seconds, workload.slo.objective, workload.lead_time_seconds) == (5.0, 0.95, 60.0)
    assert config.scale.record_every_seconds == 0.0
    section: Any = read_section(path, configuration.exporters(Settings(folder=tmp_path)))
    assert section.listen == [addresses.exporter]
    assert len(section.queue.redis[0].queues[0].active) == 20
    assert [probe.service for probe in section.latency.probes.http][-1] == "tidewise-budget"
    assert config.budget is not None
    assert section.cost.ledger.token_file == config.budget.token_file
    assert (str(config.budget.total), str(config.budget.usage), config.budget.time_zone) == (
        "24,900 KRW",
        "15,000 KRW",
        "Asia/Seoul",
    )
    assert config.recovery is not None
    (target,) = config.recovery.targets
    assert (target.mode, target.label, target.verify_seconds) == ("act", "worker", 45.0)
    for token in (config.budget.token_file, config.recovery.token_file):
        assert token is not None
        assert token.stat().st_mode & 0o077 == 0
        assert len(token.read_text().strip()) >= 16


def test_without_a_budget_nothing_has_a_price(addresses: Addresses, tmp_path: Path) -> None:
    path = tmp_path / "tidewise.yaml"
    configuration.write(configuration.tidewise(Settings(folder=tmp_path, budget=False), addresses), path, "Written.")
    config = load(path)
    assert config.budget is None
    assert config.workloads[0].price is None


@pytest.mark.real
def test_prometheus_and_alertmanager_take_theirs(addresses: Addresses, tmp_path: Path, parts_root: Path) -> None:
    rules = tmp_path / "workloads.yml"
    rules.write_text("groups: []\n")
    path = tmp_path / "prometheus.yml"
    document = configuration.prometheus(Settings(folder=tmp_path), addresses, rules)
    configuration.write(document, path, "Written.")
    checked = promtool("check", "config", path, root=parts_root)
    assert checked.returncode == 0, checked.stderr
    assert document["global"]["scrape_interval"] == document["global"]["evaluation_interval"] == "5s"
    jobs = {job["job_name"] for job in document["scrape_configs"]}
    ours = {f"tidewise-{name}" for name in ("exporter", "forecast", "scale", "budget", "recovery")}
    assert jobs == {*ours, "demo-fleet", "prometheus"}
    assert "remote_write" not in document
    configuration.write(
        configuration.alertmanager(Settings(folder=tmp_path), addresses), tmp_path / "am.yml", "Written."
    )
    checked = amtool("check-config", tmp_path / "am.yml", root=parts_root)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.real
@pytest.mark.parametrize(
    ("alert", "receivers"),
    [
        pytest.param("QueueAgeSLO", "people", id="people hear of the queue"),
        pytest.param("WorkerDown", "recovery,people", id="recovery and people hear of a worker"),
        pytest.param("WorkerHung", "recovery,people", id="of one that hangs too"),
        pytest.param("Watchdog", "nobody", id="nobody hears of the sign of life"),
    ],
)
def test_an_alert_takes_its_route(
    addresses: Addresses, tmp_path: Path, parts_root: Path, alert: str, receivers: str
) -> None:
    path = tmp_path / "alertmanager.yml"
    configuration.write(configuration.alertmanager(Settings(folder=tmp_path), addresses), path, "Written.")
    routed = amtool("config", "routes", "test", f"--config.file={path}", f"alertname={alert}", root=parts_root)
    assert routed.stdout.strip() == receivers, routed.stderr


@pytest.mark.real
def test_only_the_contract_is_kept_for_a_year(addresses: Addresses, tmp_path: Path, parts_root: Path) -> None:
    rules = tmp_path / "workloads.yml"
    rules.write_text("groups: []\n")
    document = configuration.prometheus(Settings(folder=tmp_path, long_term=True), addresses, rules)
    (remote,) = document["remote_write"]
    assert remote["url"] == "http://127.0.0.1:20011/api/v1/write"
    assert [rule["action"] for rule in remote["write_relabel_configs"]] == ["keep"]
    for name, content in (("prometheus", document), ("longterm", configuration.long_term())):
        configuration.write(content, tmp_path / f"{name}.yml", "Written.")
        checked = promtool("check", "config", tmp_path / f"{name}.yml", root=parts_root)
        assert checked.returncode == 0, checked.stderr


MESSAGE = {
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "QueueAgeSLO", "workload": "demo/video-analysis"},
            "annotations": {"summary": "Work waits."},
            "generatorURL": "http://127.0.0.1/",
        }
    ]
}


def test_a_notification_is_kept_as_it_is_shown() -> None:
    (found,) = notifications(MESSAGE, at=5.0)
    assert (found["at"], found["status"], found["alertname"], found["summary"]) == (
        5.0, "firing", "QueueAgeSLO", "Work waits.",
    )  # fmt: skip


def test_the_receiver_takes_webhooks_and_refuses_what_is_none(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path, free_port())
    receiver.start()
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://127.0.0.1:{receiver.port}/"
        assert opener.open(url, json.dumps(MESSAGE).encode(), timeout=5).status == 200
        for wrong in (b"no json", b"[]", b'{"alerts": [{}]}'):
            with pytest.raises(urllib.error.HTTPError, match="400"):
                opener.open(url, wrong, timeout=5)
    finally:
        receiver.stop()
    assert [n["alertname"] for n in receiver.notifications] == ["QueueAgeSLO"]
    assert len((tmp_path / "notifications.jsonl").read_text().splitlines()) == 1


COMPARISON = {
    "simulated": {
        "tidewise": {"wait_p95_seconds": 0.4, "worker_minutes": 70.1},
        "reactive": {"wait_p95_seconds": 1.9, "worker_minutes": 70.9, "target": 0.8},
        "measured_fleet": {"wait_p95_seconds": 0.9, "worker_minutes": 69.0},
    }
}


def test_the_summary_on_the_terminal_says_what_counts(recording: Recording) -> None:
    text = summary_text(summary(recording, COMPARISON, None))
    for shown in (
        "8800 done, 0 failed, 0 lost, 0 left",
        "p95 wait 0.40 s at 70.10 worker-minutes",
        "p95 wait 1.90 s at 70.90 worker-minutes",
        "for the fleet as it was, the simulator says p95 0.90 s",
        "a worker starts in 60 s",
    ):
        assert shown in text


def test_the_page_says_how_it_was_made_and_where_to_doubt_it(recording: Recording, tmp_path: Path) -> None:
    page.write(recording, summary(recording, COMPARISON, None), COMPARISON, tmp_path / "report.html")
    html = " ".join((tmp_path / "report.html").read_text().split())
    for said in (
        "interpolated linearly to one minute",
        "seed 7",
        "13:20 in trace time",
        "shifted by one constant",
        "Reactive rule, simulated (target 80 %)",
        "more than the 15 % that a comparison should rest on",
        "QueueAgeSLO",
    ):
        assert said in html
    assert html.count("data:image/svg+xml;base64,") == 7


def test_a_page_of_a_run_that_knew_nothing_says_so(changed: Callable[..., Recording], tmp_path: Path) -> None:
    bare = changed(
        jobs=[], arrivals=[], fleet=[], series=[], notifications=[], burst_at=None, delivered=0,
        failures=[], repairs=[], remarks=["Prometheus did not answer"],
    )  # fmt: skip
    page.write(bare, summary(bare, None, "only 0 jobs arrived"), None, tmp_path / "report.html")
    html = " ".join((tmp_path / "report.html").read_text().split())
    for said in (
        "No forecast was recorded",
        "There is no comparison: only 0 jobs arrived",
        "Prometheus did not answer",
        "None was delivered",
        "No decision was recorded",
        "No worker failed",
    ):
        assert said in html
