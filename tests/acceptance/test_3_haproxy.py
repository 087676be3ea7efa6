"""Load rises and capacity rises before it, and falls again, and no request is lost: servers of a real HAProxy.

Everything on the way is real: HAProxy's own page, Prometheus with the rules as shipped, `tidewise scale` as a process,
its target `haproxy`, programs that take seconds to start, and clients. Two things are shortened or stood in for: a
minute of the service's rates is six seconds, and a page in the forecaster's names tells the known hour ahead, since no
forecaster learns a day's pattern within a test.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.scale.records import Record, read
from testbed.parts import HOST, Prometheus, free_port
from tests.acceptance.tide import Tide, served
from tests.controllers.actuators.haproxy_ground import Ground, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(150)]

ROOT = Path(__file__).resolve().parents[2]
RULES = ("contract.yml", "services.yml", "forecast.yml", "scale.yml")
WORKLOAD = "default/app"
SERVICE_SECONDS = 0.1  # of one request; a server has one in hand at a time, the others wait in HAProxy
LOADS_SECONDS = 3.0  # a program's start
LEAD_SECONDS = 7.0
LOW, HIGH = 6.0, 34.0  # requests a second
RISES_SECONDS, FALLS_SECONDS, ENDS_SECONDS = 19.0, 31.0, 36.0  # from the load's beginning
NEEDED = 4  # servers: what arrives while the load is high cannot be served by fewer
SLOTS = 7


@dataclass
class Clients:
    """Who sends the load, open to the clock alone; and what became of each request."""

    port: int
    tide: Tide
    answers: Counter[str] = field(default_factory=Counter)
    longest_seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Sends every request in its moment, however many are still under way."""
        self.tide.began = time.time()
        with ThreadPoolExecutor(max_workers=200) as pool:
            for at in self.tide.arrivals():
                time.sleep(max(0.0, at - time.time()))
                pool.submit(self._ask)

    def _ask(self) -> None:
        began = time.monotonic()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            connection.request("GET", f"/slow/{SERVICE_SECONDS}", headers={"Connection": "close"})
            answer = str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            answer = type(error).__name__
        finally:
            connection.close()
        with self.lock:
            self.answers[answer] += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)


def configuration(ground: Ground, prometheus: int, scale: int) -> dict[str, Any]:
    target = ground.settings(options="check inter 200ms rise 1 fall 3 maxconn 1", ready_seconds=15.0)
    return {
        "prometheus": {"url": f"http://{HOST}:{prometheus}"},
        "workloads": [
            {
                "name": "app",
                "demand": {"service": "be_app"},
                "target": {"haproxy": target},
                "replicas": {"min": 1, "max": SLOTS},
                "slo": {"wait_seconds": 1},
                "capacity": {"service_seconds": SERVICE_SECONDS},
                "lead_time_seconds": LEAD_SECONDS,
                "minimum_run_seconds": 0,
                "stabilization_window_seconds": 3,
                "mode": "act",
            }
        ],
        "scale": {
            "listen": [f"{HOST}:{scale}"],
            "interval_seconds": 1,
            "record_every_seconds": 0,
            "records": str(ground.folder / "decisions"),
            "replacements": str(ground.folder / "replacements.json"),
            "overrides": str(ground.folder / "overrides.jsonl"),
        },
    }


def prometheus_configuration(folder: Path, jobs: dict[str, int]) -> dict[str, Any]:
    shipped = ROOT / "prometheus" / "rules"
    adapter = (shipped / "adapter-haproxy.yml").read_text()
    assert "[1m]" in adapter
    (folder / "adapter.yml").write_text(adapter.replace("[1m]", "[6s]").replace("[5m]", "[20s]"))
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [*(str(shipped / name) for name in RULES), "adapter.yml", "workloads.yml"],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"{HOST}:{port}"]}]} for name, port in jobs.items()
        ],
    }


@contextmanager
def tidewise(folder: Path, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours; ended by a signal as a service manager sends it, and then with status 0."""
    with (folder / f"{argv[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "controllers", *argv], cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            yield process
        finally:
            process.terminate()
            status = process.wait(15)
    assert status == 0


def test_servers_of_haproxy_are_ready_before_the_load_needs_them_and_no_request_is_lost(
    services_root: Path, parts_root: Path, tmp_path: Path, seen: Callable[[int, str], None]
) -> None:
    (tmp_path / "loads").write_text(str(LOADS_SECONDS))
    prometheus_port, scale_port = free_port(), free_port()
    with Ground(tmp_path, services_root, slots=SLOTS, drain=3.0) as ground:
        tide = Tide(
            WORKLOAD,
            low=LOW,
            high=HIGH,
            rises_seconds=RISES_SECONDS,
            falls_seconds=FALLS_SECONDS,
            ends_seconds=ENDS_SECONDS,
            lead_seconds=LEAD_SECONDS,
            horizons=(5, 10),
        )
        clients = Clients(ground.haproxy.port, tide)
        config = tmp_path / "tidewise.yaml"
        config.write_text(json.dumps(configuration(ground, prometheus_port, scale_port)))
        made = [sys.executable, "-m", "controllers", "rules", "--config", str(config)]
        subprocess.run([*made, "--out", str(tmp_path / "workloads.yml")], cwd=ROOT, check=True, capture_output=True)
        with served(tide.page) as page:
            jobs = {"haproxy": ground.haproxy.port, "tidewise-forecast": page, "tidewise-scale": scale_port}
            file = tmp_path / "prometheus.yml"
            file.write_text(yaml.safe_dump(prometheus_configuration(tmp_path, jobs)))
            with (
                Prometheus(tmp_path / "prometheus", file, port=prometheus_port, root=parts_root),
                tidewise(tmp_path, "scale", "--config", str(config)),
            ):
                actuator = ground.actuator()
                until(lambda: actuator.read_replicas(5).ready >= 1, 20)
                ready = watched(clients, actuator.read_replicas)
                until(lambda: actuator.read_replicas(5).wanted <= 2 and actuator.read_replicas(5).draining == 0, 20)
        records = [record for record in read(tmp_path / "decisions") if record.decision.workload == WORKLOAD]

    rises = tide.began + RISES_SECONDS
    early = rises - first(ready, lambda count: count >= NEEDED)
    before_reactive = reactive_at(records, NEEDED) - first(ready, lambda count: count >= NEEDED)
    most = max(count for _, count in ready)
    assert clients.answers == Counter({"200": sum(clients.answers.values())})
    assert early > 0  # ready before the load came
    assert before_reactive > 0  # and before present demand alone would even have asked for so many
    assert most > NEEDED - 1
    assert max(count for at, count in ready if at < rises - 15) <= 2
    seen(
        3,
        f"HAProxy: {NEEDED} servers ready {early:.0f} s before the load needed them, {most} at most, 2 or fewer again",
    )
    seen(3, f"{sum(clients.answers.values())} requests, none lost, none longer than {clients.longest_seconds:.1f} s")


def watched(clients: Clients, look: Callable[[float], Any]) -> list[tuple[float, int]]:
    """Runs the load; (time, ready servers) meanwhile."""
    thread = threading.Thread(target=clients.run)
    thread.start()
    found = []
    while thread.is_alive():
        found.append((time.time(), look(5).ready))
        time.sleep(0.2)
    thread.join()
    return found


def first(ready: list[tuple[float, int]], enough: Callable[[int], bool]) -> float:
    return next(at for at, count in ready if enough(count))


def reactive_at(records: list[Record], number: int) -> float:
    """When present demand alone asked for so many."""
    return next(one.decision.at for one in records if (one.decision.reactive or 0) >= number)
