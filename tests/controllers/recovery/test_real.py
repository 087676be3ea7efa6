"""The whole way on real parts: a worker dies, one hangs, Prometheus sees it, Alertmanager delivers, both are mended."""

import http.client
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.recovery.journal import JournalError, read_journal
from controllers.recovery.operation import Reason
from testbed.parts import Alertmanager, Prometheus, free_port

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[3]

WORKER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *args): pass
open(sys.argv[2], "w").write(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

# As a service manager does: what is left of the old one is ended, a new one started and not waited for.
RESTART = """\
#!/bin/sh
port=${{1##*:}}
[ ! -e {folder}/$port.pid ] || kill -9 $(cat {folder}/$port.pid) 2>/dev/null
echo $1 >> {folder}/restarts
exec setsid -f {python} {folder}/worker.py $port {folder}/$port.pid
"""


class Fleet:
    """Three workers, each a process with an endpoint that Prometheus scrapes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        (folder / "worker.py").write_text(WORKER)
        self.program = folder / "restart"
        self.program.write_text(RESTART.format(folder=folder, python=sys.executable))
        self.program.chmod(0o755)
        for name in self.names:
            os.spawnl(os.P_WAIT, str(self.program), str(self.program), name)
        self.restarts_at_start = len(self.restarted())

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name.rpartition(':')[2]}.pid").read_text() or 0)

    def restarted(self) -> list[str]:
        return (self.folder / "restarts").read_text().split()

    def mended(self) -> list[str]:
        return self.restarted()[self.restarts_at_start :]

    def stop(self) -> None:
        for name in self.names:
            os.kill(self.pid(name), signal.SIGKILL)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    one = Fleet(tmp_path)
    yield one
    one.stop()


def until(done: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def get(port: int, path: str) -> str:
    """The page; nothing while nobody listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except ConnectionRefusedError:
        return ""
    finally:
        connection.close()


def test_a_worker_killed_and_a_worker_that_hangs_are_both_mended_and_people_are_told(
    process: Any, fleet: Fleet, parts_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("the-token-of-alertmanager")
    port = free_port()
    rules = textwrap.dedent("""
        groups:
          - name: workers
            rules:
              - alert: WorkerDown
                expr: up{job="worker"} == 0
                labels: {severity: page}
    """)
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(_alertmanager(port, tmp_path / "token")))
    with Alertmanager(tmp_path / "alertmanager", tmp_path / "alertmanager.yml", root=parts_root) as alertmanager:
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(_prometheus(alertmanager.port, fleet, port)))
        with Prometheus(tmp_path / "prometheus", tmp_path / "prometheus.yml", root=parts_root) as prometheus:
            process.start(_tidewise(prometheus.url, alertmanager.url, port, fleet, tmp_path), tmp_path)
            until(lambda: 'tidewise_recovery_instances{health="healthy",target="workers"} 3.0' in get(port, "/metrics"))

            os.kill(fleet.pid(fleet.names[0]), signal.SIGKILL)
            until(lambda: closed(tmp_path) == 1)
            os.kill(fleet.pid(fleet.names[1]), signal.SIGSTOP)
            until(lambda: closed(tmp_path) == 2)
            until(lambda: 'repair_seconds_count{target="workers"} 2.0' in get(port, "/metrics"))  # at the step's end
            page = get(port, "/metrics")
            until(lambda: "RecoveryActed" in told(alertmanager))
            # and nothing was left for a person to do
            assert not told(alertmanager) & {"RecoveryFailed", "RecoveryLoop", "RecoveryFrozen", "RecoverySuggested"}
            assert process.stop() == 0
    assert fleet.mended() == fleet.names[:2]
    assert 'tidewise_recovery_actions_total{remedy="restart",result="done",target="workers"} 2.0' in page
    assert 'tidewise_recovery_repair_seconds_count{target="workers"} 2.0' in page
    accepted = next(line for line in page.splitlines() if line.startswith('tidewise_recovery_alerts_total{result="acc'))
    assert float(accepted.split()[-1]) >= 2


def told(alertmanager: Alertmanager) -> set[str]:
    """The names of the alerts that stand."""
    return {alert["labels"]["alertname"] for alert in json.loads(get(alertmanager.port, "/api/v2/alerts"))}


def closed(tmp_path: Path) -> int:
    """How many operations ended well."""
    try:
        book = read_journal(tmp_path / "journal.db")[1]
    except JournalError:
        return 0
    return sum(operation.closed_for is Reason.RECOVERED for operation in book.operations.values())


def _alertmanager(port: int, token: Path) -> dict[str, Any]:
    webhook = {
        "url": f"http://127.0.0.1:{port}/alerts",
        "max_alerts": 100,
        "http_config": {"authorization": {"credentials_file": str(token)}},
    }
    return {
        "route": {"receiver": "recovery", "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"},
        "receivers": [{"name": "recovery", "webhook_configs": [webhook]}],
    }


def _prometheus(alertmanager: int, fleet: Fleet, port: int) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "500ms"},
        "rule_files": [
            "rules.yml",
            *(str(ROOT / "prometheus" / "rules" / n) for n in ("recovery.yml", "recovery-alerts.yml")),
        ],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]},
        "scrape_configs": [
            {"job_name": "worker", "static_configs": [{"targets": fleet.names}]},
            {"job_name": "tidewise-recovery", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]},
        ],
    }


def _tidewise(prometheus: str, alertmanager: str, port: int, fleet: Fleet, folder: Path) -> dict[str, Any]:
    return {
        "prometheus": {"url": prometheus},
        "recovery": {
            "listen": [f"127.0.0.1:{port}"],
            "token_file": str(folder / "token"),
            "alertmanager": alertmanager,
            "journal": str(folder / "journal.db"),
            "interval_seconds": 0.5,
            "targets": [
                {
                    "name": "workers",
                    "mode": "act",
                    "instances": {"promql": 'up{job="worker"}'},
                    "healthy": 'up{job="worker"} == 1',
                    "liveness": 'up{job="worker"}',
                    "symptoms": [{"alert": "WorkerDown"}],
                    "restart": {"argv": [str(fleet.program), "{instance}"]},
                    "verify_seconds": 10,
                    "stability_seconds": 2,
                }
            ],
        },
    }
