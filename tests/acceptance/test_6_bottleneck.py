"""A bottleneck is named, its remedy applied, and before and after are measured on the jobs themselves.

Real: Redis, worker processes, the exporter, Prometheus with the shipped rules, the scaler that tells the fleet. Made:
the five minutes before, in which the one worker just kept up with two jobs a second.
"""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from os import kill
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import redis
import yaml

from controllers.__main__ import main as tidewise
from demo import settings
from demo.fleet import read_state
from demo.processes import OwnProcess
from testbed.parts import Prometheus, create_blocks, free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
SERVICE_SECONDS = settings.CPU_SECONDS + settings.PAUSE_SECONDS  # so one worker does two jobs a second
COMES = 5.0  # jobs a second
PROMISED = 2.0  # seconds of waiting
PAST = 330  # seconds
LOOK = "20s"  # the window of the question


@dataclass(frozen=True)
class Seen:
    """Over the last seconds: jobs finished a second, and how long those that began then had waited."""

    done: float
    waited: float

    def __str__(self) -> str:
        return f"wait {self.waited:.1f} s, {self.done:.1f} jobs/s"


class Rig:
    """Everything that runs, and the configuration that it runs on."""

    def __init__(self, folder: Path, redis_url: str, parts_root: Path) -> None:
        self.folder = folder
        self.client = redis.Redis.from_url(redis_url, protocol=2, decode_responses=True)
        self.config = folder / "tidewise.yaml"
        self.rules = folder / "workloads.yml"
        ports = {name: free_port() for name in ("exporter", "scale")}
        self.prometheus = Prometheus(folder / "prometheus", folder / "prometheus.yml", root=parts_root)
        fleet = ["serve", "--folder", str(folder), "--redis", redis_url, "--start-up", "0.5", "--workers", "1"]
        given = ["--config", str(self.config)]
        self.fleet = OwnProcess("fleet", folder, "demo.fleet", fleet, stop_seconds=20.0)
        self.exporter = OwnProcess("exporter", folder, "exporters", ["queue", *given], port=ports["exporter"])
        self.scale = OwnProcess("scale", folder, "controllers", ["scale", *given], port=ports["scale"])
        self._document = self._tidewise(redis_url, ports)
        self._scrape(ports)
        self._stop = threading.Event()
        self._load = threading.Thread(target=self._deliver, daemon=True)

    def write(self, most: int) -> None:
        """The configuration with this maximum, and the rules made of it."""
        self._document["workloads"][0]["replicas"]["max"] = most
        self.config.write_text(yaml.safe_dump(self._document))
        assert tidewise(["rules", "--config", str(self.config), "--out", str(self.rules)]) == 0

    def start(self) -> None:
        self._past()
        self.fleet.start()
        self.exporter.start()
        until(self.exporter.answers, "the exporter answers")
        self.prometheus.start()
        until(lambda: (state := read_state(self.folder)) is not None and state.ready == 1, "the worker is there")
        self.scale.start()
        self._load.start()

    def raise_maximum(self, most: int) -> None:
        """As a user does it: edit the file, make the rules anew, reload Prometheus, restart the scaler."""
        self.write(most)
        assert self.prometheus.pid is not None
        kill(self.prometheus.pid, signal.SIGHUP)
        self.scale.stop()
        self.scale.start()

    def stop(self) -> None:
        self._stop.set()
        if self._load.ident is not None:
            self._load.join()
        for part in (self.scale, self.exporter, self.fleet, self.prometheus):
            part.stop()
        self.client.close()

    def jobs(self, seconds: float) -> Seen:
        """What the workers wrote down."""
        now = time.time()
        found = [json.loads(text) for text in self.client.lrange(settings.RESULTS_KEY, 0, -1)]
        waits = [job["started_at"] - job["enqueued_at"] for job in found if job["started_at"] > now - seconds]
        done = sum(job["finished_at"] > now - seconds for job in found)
        return Seen(done / seconds, mean(waits) if waits else 0.0)

    def _deliver(self) -> None:
        began = time.time()
        for number in count(1):
            if self._stop.wait(max(0.0, began + number / COMES - time.time())):
                return
            with self.client.pipeline() as together:
                together.lpush(settings.QUEUE, json.dumps({"id": str(number), "enqueued_at": time.time()}))
                together.incr(settings.ENQUEUED_KEY)
                together.execute()

    def _past(self) -> None:
        """Counters that rose by two jobs a second until now, in Prometheus and in Redis."""
        now = int(time.time())
        labels = f'job="tidewise-exporter",instance="{self.instance}",system="redis",queue="{settings.QUEUE}"'
        with (self.folder / "past.txt").open("w") as file:
            for name, rate in (("enqueued", 2.0), ("completed", 2.0), ("process_seconds_sum", 2 * SERVICE_SECONDS)):
                full = f"queue_{name}{'' if name.endswith('_sum') else '_total'}"
                file.writelines(
                    f"{full}{{{labels}}} {rate * (at - now + PAST):g} {at}\n" for at in range(now - PAST, now + 1, 5)
                )
            file.writelines(
                f"queue_process_seconds_count{{{labels}}} {2 * (at - now + PAST)} {at}\n"
                for at in range(now - PAST, now + 1, 5)
            )
            file.write("# EOF\n")
        create_blocks(self.folder / "past.txt", self.prometheus.data_folder, root=self.prometheus.root)
        for key in (settings.ENQUEUED_KEY, settings.COMPLETED_KEY):
            self.client.set(key, 2 * PAST)
        self.client.set(settings.PROCESS_SECONDS_KEY, 2 * PAST * SERVICE_SECONDS)

    def _scrape(self, ports: dict[str, int]) -> None:
        self.instance = f"127.0.0.1:{ports['exporter']}"
        rules = [str(path) for path in (ROOT / "prometheus" / "rules").glob("*.yml") if path.name != "workloads.yml"]
        document = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [*rules, str(self.rules)],
            "scrape_configs": [
                {"job_name": f"tidewise-{name}", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                for name, port in ports.items()
            ],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(document))

    def _tidewise(self, redis_url: str, ports: dict[str, int]) -> dict[str, Any]:
        fleet = [sys.executable, "-m", "demo.fleet"]
        counters = {
            "enqueued": settings.ENQUEUED_KEY,
            "completed": settings.COMPLETED_KEY,
            "process_seconds": settings.PROCESS_SECONDS_KEY,
        }
        queue = {"name": settings.QUEUE, "active": list(settings.ACTIVE_KEYS), "counters": counters}
        return {
            "prometheus": {"url": self.prometheus.url},
            "exporters": {
                "listen": [f"127.0.0.1:{ports['exporter']}"],
                "queue": {"redis": [{"url": redis_url, "queues": [queue]}]},
            },
            "workloads": [
                {
                    "name": "video-analysis",
                    "demand": {"queue": settings.QUEUE},
                    "target": {
                        "command": {
                            "get": [*fleet, "get", "--folder", str(self.folder)],
                            "set": [*fleet, "set", "{replicas}", "--folder", str(self.folder)],
                        }
                    },
                    "replicas": {"min": 1, "max": 1},
                    "slo": {"wait_seconds": PROMISED},
                    "lead_time_seconds": 1,
                    "minimum_run_seconds": 3,
                    "mode": "act",
                }
            ],
            "scale": {
                "listen": [f"127.0.0.1:{ports['scale']}"],
                "interval_seconds": 2,
                "records": str(self.folder / "decisions"),
            },
        }


def until(
    done: Callable[[], object], what: str, instead: Callable[[], object] = lambda: "", seconds: float = 90.0
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} {instead()}"
        time.sleep(0.25)


@pytest.fixture
def rig(redis_url: str, parts_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Rig(tmp_path, redis_url, parts_root)
    made.write(most=1)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_a_maximum_of_one_is_named_raised_and_no_longer_holds_the_work_back(
    rig: Rig, capsys: pytest.CaptureFixture[str], seen: Callable[[int, str], None]
) -> None:
    def ask() -> dict[str, Any]:
        capsys.readouterr()
        tidewise(["bottleneck", "video-analysis", "--config", str(rig.config), "--window", LOOK, "--json"])
        answer: dict[str, Any] = json.loads(capsys.readouterr().out or "{}")
        return answer

    def named() -> str | None:
        found = ask().get("bottleneck")
        return str(found["resource"]) if found else None

    until(lambda: rig.jobs(5).waited > 2 * PROMISED, "jobs wait longer than promised")
    until(lambda: named() == "max_replicas", "the maximum is named")
    answer, before = ask(), rig.jobs(5)
    assert answer["bottleneck"]["raise_to"] >= COMES * SERVICE_SECONDS  # enough for what comes
    assert any(measure["series"].startswith("workload:oldest_age") for measure in answer["felt"])
    assert before.waited > PROMISED

    began = time.monotonic()
    rig.raise_maximum(answer["bottleneck"]["raise_to"])
    until(lambda: rig.jobs(5).waited < PROMISED / 2, "jobs are served in time")
    took = time.monotonic() - began
    until(lambda: ask().get("verdict") == "none", "nothing is a bottleneck any more", ask)
    after = rig.jobs(5)

    assert after.waited < PROMISED
    assert after.done > 1.5 * before.done
    seen(
        6,
        f"before: {before}; named: {answer['bottleneck']['change'].partition(':')[0]}; "
        f"done, after {took:.0f} s: {after}, nothing is a bottleneck",
    )
