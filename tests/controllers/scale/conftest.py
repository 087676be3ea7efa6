"""A Prometheus with a constant demand, and processes of ours on it, for tests of the scaler on real parts."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from testbed.parts import Prometheus, free_port

NAME = "default/video"
NEEDED = 5
GIVEN = (
    ("workload:demand:rate1m", 2 * NEEDED - 1),
    ("workload:backlog:sum", 0),
    ("workload:service_seconds:mean5m", 0.5),
    ("workload:data_age_seconds:max", 0),
)


class Stage:
    """One folder and one configuration; processes are started as a user starts them, and killed as nobody should."""

    def __init__(self, folder: Path, prometheus: Prometheus) -> None:
        self.folder = folder
        self.prometheus = prometheus
        self.config: dict[str, Any] = {}
        self.ports: dict[str, int] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def path(self) -> Path:
        return self.folder / "tidewise.yaml"

    def start(self, command: str, name: str = "") -> None:
        """`tidewise COMMAND`; with a name of its own it gets a port and a folder of decisions of its own."""
        name = name or command
        self.ports.setdefault(name, free_port())
        section = self.config[command] | {"listen": [f"127.0.0.1:{self.ports[name]}"]}
        if command == "scale":
            section |= {"records": str(self.folder / f"decisions-{name}")}
        path = self.path if name == command else self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.config | {command: section}))
        with (self.folder / f"{name}.log").open("ab") as out:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "controllers", command, "--config", str(path)], stdout=out, stderr=out
            )
        self.until(lambda: bool(self.page(name)), f"{name} answers")

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def page(self, name: str = "scale") -> str:
        """Its /metrics; nothing while nobody listens."""
        try:
            return requests.get(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=5).text
        except requests.ConnectionError:
            return ""

    def reasons(self, name: str = "scale") -> set[str]:
        """Of the last decision, on /metrics."""
        lines = [line for line in self.page(name).splitlines() if line.startswith("tidewise_scale_decision_reason{")]
        return {line.partition('reason="')[2].partition('"')[0] for line in lines}

    def records(self, name: str = "scale") -> list[dict[str, Any]]:
        """Its decisions so far, oldest first; the last line may be half written."""
        texts = [path.read_text() for path in sorted((self.folder / f"decisions-{name}").glob("*.jsonl"))]
        return [json.loads(line) for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def until(self, true: Callable[[], bool], what: str, seconds: float = 40.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            logs = {path.name: path.read_text()[-1500:] for path in self.folder.glob("*.log")}
            assert time.monotonic() < deadline, f"not seen: {what}\n{json.dumps(logs, indent=1)}"
            time.sleep(0.1)

    def steps(self, count: int, name: str = "scale") -> None:
        """Waits until the scaler has made so many more decisions."""
        before = len(self.records(name))
        self.until(lambda: len(self.records(name)) >= before + count, f"{count} more decisions")


@pytest.fixture
def stage(prometheus_factory: Callable[..., Prometheus], tmp_path: Path) -> Iterator[Stage]:
    """On a Prometheus that says that `NAME` needs `NEEDED` replicas."""
    rules = [{"record": name, "expr": f"vector({value})", "labels": {"workload": NAME}} for name, value in GIVEN]
    (tmp_path / "given.yml").write_text(yaml.safe_dump({"groups": [{"name": "given", "rules": rules}]}))
    (tmp_path / "prometheus.yml").write_text(
        yaml.safe_dump({"global": {"evaluation_interval": "1s"}, "rule_files": [str(tmp_path / "given.yml")]})
    )
    one = Stage(tmp_path, prometheus_factory(tmp_path / "prometheus.yml"))
    yield one
    for name in list(one.running):
        one.kill(name)
