"""Money in the decision on real parts: `tidewise scale`, `tidewise budget`, a Prometheus and a target."""

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

pytestmark = pytest.mark.real

TOKEN = "the-token-of-this-test-0123456789"
NAME = "default/video"
NEEDED = 5

RULES = {
    "groups": [
        {
            "name": "given",
            "rules": [
                {"record": record, "expr": f"vector({value})", "labels": {"workload": NAME}}
                for record, value in (
                    ("workload:demand:rate1m", 2 * NEEDED - 1),
                    ("workload:backlog:sum", 0),
                    ("workload:service_seconds:mean5m", 0.5),
                    ("workload:data_age_seconds:max", 0),
                )
            ],
        }
    ]
}


class Stage:
    """A file as the fleet, whose number the test reads; budget and scaler as a user starts them."""

    def __init__(self, folder: Path, prometheus: Prometheus) -> None:
        self.folder = folder
        self.replicas = folder / "replicas"
        self.replicas.write_text("1")
        (folder / "token").write_text(TOKEN + "\n")
        self.ports = {"budget": free_port(), "scale": free_port()}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        put = f"import sys; open({str(self.replicas)!r}, 'w').write(sys.argv[1])"
        self.config: dict[str, Any] = {
            "prometheus": {"url": prometheus.url},
            "workloads": [
                {
                    "name": "video",
                    "demand": {"queue": "video-jobs"},
                    "target": {
                        "command": {
                            "get": ["/bin/cat", str(self.replicas)],
                            "set": [sys.executable, "-c", put, "{replicas}"],
                        }
                    },
                    "replicas": {"min": 0, "max": 8},
                    "price": {"per_replica_hour": "360 KRW"},  # 0.1 a second
                    "lead_time_seconds": 1,
                    "minimum_run_seconds": 1,
                    "stabilization_window_seconds": 0,
                    "mode": "act",
                }
            ],
            "scale": {
                "listen": [f"127.0.0.1:{self.ports['scale']}"],
                "interval_seconds": 1,
                "records": str(folder / "decisions"),
                "record_every_seconds": 0,
                "replacements": str(folder / "replacements.json"),
            },
            "budget": {
                "total": "55 KRW",
                "time_zone": "Asia/Seoul",
                "listen": [f"127.0.0.1:{self.ports['budget']}"],
                "url": f"http://127.0.0.1:{self.ports['budget']}",
                "token_file": str(folder / "token"),
                "ledger": str(folder / "ledger.sqlite"),
                "interval_seconds": 1,
                "replica_hold": {"ttl_seconds": 2, "grace_seconds": 200},
                "prices": [{"provider": "acme", "model": "ocr", "per_unit": {"pages": "1 KRW"}}],
            },
        }

    @property
    def path(self) -> Path:
        return self.folder / "tidewise.yaml"

    def start(self, name: str) -> None:
        self.path.write_text(yaml.safe_dump(self.config))
        with (self.folder / f"{name}.log").open("ab") as out:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "controllers", name, "--config", str(self.path)], stdout=out, stderr=out
            )
        self.until(lambda: bool(self.page(name)), f"{name} answers")

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def page(self, name: str) -> str:
        try:
            return requests.get(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=5).text
        except requests.ConnectionError:
            return ""

    def ledger(self, method: str, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"http://127.0.0.1:{self.ports['budget']}{path}"
        return requests.request(method, url, json=body or None, headers=headers, timeout=10).json()

    def budget(self) -> dict[str, float]:
        found = self.ledger("GET", "/state")["budgets"]["total"]
        return {key: float(found[key]) for key in ("posted", "held", "limit")}

    def fleet(self) -> int:
        return int(self.replicas.read_text() or -1)

    def reasons(self) -> set[str]:
        """Of the last decision, on /metrics."""
        return {
            line.partition('reason="')[2].partition('"')[0]
            for line in self.page("scale").splitlines()
            if line.startswith("tidewise_scale_decision_reason{")
        }

    def until(self, true: Callable[[], bool], what: str, seconds: float = 40.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            logs = {path.name: path.read_text()[-1500:] for path in self.folder.glob("*.log")}
            assert time.monotonic() < deadline, f"not seen: {what}\n{json.dumps(logs, indent=1)}"
            time.sleep(0.1)

    def steps(self, count: int) -> None:
        """Waits until the scaler has made so many more decisions."""
        records = self.folder / "decisions"

        def made() -> int:
            return sum(len(path.read_bytes().splitlines()) for path in records.glob("*.jsonl"))

        before = made()
        self.until(lambda: made() >= before + count, f"{count} more decisions")


@pytest.fixture
def stage(prometheus_factory: Callable[..., Prometheus], tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "given.yml").write_text(yaml.safe_dump(RULES))
    (tmp_path / "prometheus.yml").write_text(
        yaml.safe_dump({"global": {"evaluation_interval": "1s"}, "rule_files": [str(tmp_path / "given.yml")]})
    )
    one = Stage(tmp_path, prometheus_factory(tmp_path / "prometheus.yml"))
    yield one
    for name in list(one.running):
        one.kill(name)


def test_growth_is_paid_for_held_while_the_ledger_is_away_and_drained_when_the_money_is_gone(stage: Stage) -> None:
    stage.start("budget")
    stage.start("scale")

    # a hold is 20.4 won: of 55, the running one and one more have their money, and for a minute of renewals
    stage.until(lambda: stage.fleet() == 2, "two replicas")
    stage.until(lambda: "budget_cap" in stage.reasons(), "the cap")
    stage.steps(3)
    assert stage.fleet() == 2
    assert stage.budget()["held"] + stage.budget()["posted"] <= 55
    argv = [sys.executable, "-m", "controllers", "why", "video", "--config", str(stage.path)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    assert f"without budget         {NEEDED}" in said, said
    assert "2 replicas paid for, 0 more would be admitted" in said, said

    # the ledger is killed: no growth, no kill, and the reason is on the page
    stage.kill("budget")
    stage.until(lambda: "budget_unreachable" in stage.reasons(), "the silence")
    stage.steps(3)
    assert stage.fleet() == 2
    assert "tidewise_scale_ledger_up 0.0" in stage.page("scale")

    # it comes back with more money, and nobody had to restart the scaler
    stage.config["budget"]["total"] = "1000 KRW"
    stage.start("budget")
    stage.until(lambda: stage.fleet() == NEEDED, "all that are needed")
    stage.until(lambda: stage.ledger("GET", "/state")["workloads"][NAME]["replicas"] == NEEDED, "a hold for each")

    # the scaler is killed and started again: it goes on with the holds that are there
    stage.kill("scale")
    stage.start("scale")
    stage.steps(3)
    assert stage.fleet() == NEEDED
    assert stage.ledger("GET", "/state")["workloads"][NAME]["replicas"] == NEEDED

    # something else spends the month: renewals are refused, the fleet drains, and nothing stays held
    stage.ledger("POST", "/usage", event_id="a/large/bill", provider="acme", model="ocr", units={"pages": 1000})
    stage.until(lambda: "budget_drain" in stage.reasons() or stage.fleet() == 0, "the drain notice")
    stage.until(lambda: stage.fleet() == 0, "an empty fleet")
    stage.until(lambda: stage.budget()["held"] == 0, "nothing held")
    told = [json.loads(line)["told"] for path in (stage.folder / "decisions").glob("*.jsonl") for line in path.open()]
    numbers = [number for number in told if number is not None]
    assert numbers[-1] == 0
    assert numbers == [2, NEEDED, *numbers[2:]], "told only what was paid for"
    assert numbers[1:] == sorted(numbers[1:], reverse=True)
