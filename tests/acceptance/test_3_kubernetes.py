"""Load rises and capacity rises before it, and falls again, and no job is lost: pods of a real Kubernetes.

The demo's own workload, its target a Deployment: real queue, exporter, Prometheus with the rules as shipped, `tidewise
scale` as a process with the rights that docs/kubernetes.md names, and a real control plane. Pods run nothing there, so
each that gets ready has a worker of the demo here, which finishes its job when the pod is told to end. The last jobs
before the load falls take long, so that nearly every pod is busy when there are to be fewer. A minute of the queue's
rates is six seconds, and a page in the forecaster's names tells the known hour ahead.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from controllers.scale.records import read
from demo import settings
from demo.configuration import SHIPPED, Addresses, tidewise
from demo.load import Driver, read_progress
from demo.processes import OwnProcess
from demo.settings import LoadPlan, Settings
from demo.worker import Job, Worker, put_back
from testbed.kube.cluster import Cluster
from testbed.parts import HOST, Prometheus, free_port
from tests.acceptance.tide import Tide, served

pytestmark = [pytest.mark.real, pytest.mark.timeout(200)]

RULES = ("contract.yml", "forecast.yml", "scale.yml")
STARTS_SECONDS = 4.0  # a pod, from its creation to ready
LEAD_SECONDS = 7.0
LOW, HIGH, AFTER = 3.0, 14.0, 0.5  # jobs a second; a worker does two
RISES_SECONDS, FALLS_SECONDS, ENDS_SECONDS = 22.0, 33.0, 36.0  # from the load's beginning
MINUTE_DELAY_SECONDS = 30  # a forecast tells of a rate over the minute before its horizon: of half a minute earlier
LONG_SECONDS = 9.0  # of each job that comes in the last LONG_ONES_SECONDS before the load falls
LONG_ONES_SECONDS = 0.5  # seven jobs: no more than pods
GRACE_SECONDS = 30  # that a pod has to end in
NEEDED = 7  # workers: what arrives while the load is high
RIGHTS = [
    {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "update"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["get", "list", "patch"]},
]


class LongWorker(Worker):
    """The demo's, with some jobs that take long."""

    tide: Tide

    def _call(self, job: Job) -> None:
        """Amid a job, where the demo's worker asks whether it may make a paid call."""
        since = float(str(job.enqueued_at)) - self.tide.began - FALLS_SECONDS
        if -LONG_ONES_SECONDS < since < 0:
            time.sleep(LONG_SECONDS)


class Fleet:
    """Gives every ready pod a worker, and lets it finish when its pod is told to end or is gone."""

    def __init__(self, cluster: Cluster, namespace: str, url: str, tide: Tide) -> None:
        self.ready: list[tuple[float, int]] = []  # (time, ready pods)
        self.finished_after: list[float] = []  # seconds that each pod told to end with a job in hand took to finish it
        self._tide = tide
        self.problem: BaseException | None = None
        self._cluster, self._pods = cluster, f"/api/v1/namespaces/{namespace}/pods"
        self._url = url
        self._workers: dict[str, tuple[int, threading.Event, threading.Thread]] = {}
        self._ending: list[threading.Thread] = []
        self._slots = set(range(1, settings.MAX_WORKERS + 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._redis = self._client()

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self._url, socket_timeout=5.0, retry=None, protocol=2)

    def __enter__(self) -> "Fleet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for name in list(self._workers):
            self._end(name)
        for thread in self._ending:
            thread.join(GRACE_SECONDS)

    def now(self) -> int:
        """Ready pods. Raises what keeps it from looking."""
        if self.problem is not None:
            raise self.problem
        return self.ready[-1][1] if self.ready else 0

    def waiting(self) -> int:
        """Jobs that no worker has taken."""
        return int(self._redis.llen(settings.QUEUE))

    def page(self) -> str:
        """Work in hand of each pod."""
        busy = {name: self._redis.llen(settings.active_key(slot)) for name, (slot, _, _) in list(self._workers.items())}
        return "".join(f'worker_in_hand{{pod="{name}"}} {count}\n' for name, count in busy.items())

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.1):
                self._follow(self._cluster.request("GET", self._pods)["items"])
        except BaseException as error:
            self.problem = error

    def _follow(self, pods: list[dict[str, Any]]) -> None:
        ready = {
            pod["metadata"]["name"]
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))
        }
        self.ready.append((time.time(), len(ready)))
        for name in ready - self._workers.keys():
            slot, stop = min(self._slots), threading.Event()
            self._slots.remove(slot)
            worker = LongWorker(self._client(), slot, stop, lambda _: None)
            worker.tide = self._tide
            thread = threading.Thread(target=self._work, args=(worker, slot))
            thread.start()
            self._workers[name] = (slot, stop, thread)
        for name in self._workers.keys() - ready:
            self._end(name)

    def _work(self, worker: Worker, slot: int) -> None:
        worker.run(0.0)
        assert put_back(worker.client, slot) == 0, "a worker ended with a job in its hand"
        self._slots.add(slot)

    def _end(self, name: str) -> None:
        slot, stop, worker = self._workers.pop(name)
        busy, told = bool(self._redis.llen(settings.active_key(slot))), time.monotonic()
        stop.set()

        def wait() -> None:
            worker.join()
            if busy:
                self.finished_after.append(time.monotonic() - told)

        self._ending.append(threading.Thread(target=wait))
        self._ending[-1].start()


def configuration(folder: Path, addresses: Addresses, target: dict[str, Any]) -> dict[str, Any]:
    """The demo's, its target Kubernetes and its seconds shorter."""
    document = tidewise(Settings(folder, start_up_seconds=LEAD_SECONDS, budget=False), addresses)
    (workload,) = document["workloads"]
    workload |= {
        "target": {"kubernetes": target},
        "in_hand": "worker_in_hand",
        "minimum_run_seconds": 0,
        "stabilization_window_seconds": 3,
    }
    document["scale"] |= {
        "interval_seconds": 1,
        "replacements": str(folder / "replacements.json"),
        "overrides": str(folder / "overrides.jsonl"),
    }
    document["exporters"] = {key: document["exporters"][key] for key in ("listen", "queue")}
    return {key: value for key, value in document.items() if key != "recovery"}


def prometheus(folder: Path, jobs: dict[str, int]) -> dict[str, Any]:
    for name in RULES:
        text = (SHIPPED / "rules" / name).read_text()
        for long, short in (("1m", "6s"), ("5m", "20s")):
            text = text.replace(f"[{long}]", f"[{short}]").replace(f"offset {long}", f"offset {short}")
        (folder / name).write_text(text)
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [*RULES, "workloads.yml"],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"{HOST}:{port}"]}]} for name, port in jobs.items()
        ],
    }


def deployment(cluster: Cluster, namespace: str) -> None:
    labels, ready = {"app": "worker"}, {"testbed/ready-after": f"{STARTS_SECONDS * 1000:.0f}ms"}
    pod = {"containers": [{"name": "worker", "image": "none"}], "terminationGracePeriodSeconds": GRACE_SECONDS}
    template = {"metadata": {"labels": labels, "annotations": ready}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    cluster.request("POST", path, {"metadata": {"name": "worker"}, "spec": spec})


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def test_pods_are_ready_before_the_load_needs_them_and_no_job_is_lost(
    kube_cluster: Cluster,
    kube_namespace: str,
    redis_url: str,
    parts_root: Path,
    tmp_path: Path,
    seen: Callable[[int, str], None],
) -> None:
    deployment(kube_cluster, kube_namespace)
    kubeconfig = kube_cluster.service_account(kube_namespace, "scaler", RIGHTS)
    addresses = Addresses(redis_url, *(free_port() for _ in range(10)))
    config = tmp_path / "tidewise.yaml"
    target = {"kubeconfig": str(kubeconfig), "namespace": kube_namespace, "deployment": "worker"}
    config.write_text(json.dumps(configuration(tmp_path, addresses, target)))
    made = [sys.executable, "-m", "controllers", "rules", "--config", str(config), "--out"]
    subprocess.run([*made, str(tmp_path / "workloads.yml")], check=True, capture_output=True)

    tide = Tide(
        settings.WORKLOAD,
        low=LOW,
        high=HIGH,
        after=AFTER,
        rises_seconds=RISES_SECONDS,
        falls_seconds=FALLS_SECONDS,
        ends_seconds=ENDS_SECONDS,
        lead_seconds=LEAD_SECONDS,
        horizons=(1, 3, 6, 9, 12, 16),
        delay_seconds=MINUTE_DELAY_SECONDS,
    )
    exporter = ["queue", "--config", str(config)]
    processes = [
        OwnProcess("exporter", tmp_path, "exporters", exporter, port=addresses.exporter_port),
        OwnProcess("scale", tmp_path, "controllers", ["scale", "--config", str(config)], port=addresses.scale_port),
    ]
    with (
        Fleet(kube_cluster, kube_namespace, redis_url, tide) as fleet,
        served(tide.page) as forecast,
        served(fleet.page) as in_hand,
    ):
        jobs = {
            "tidewise-exporter": addresses.exporter_port,
            "tidewise-scale": addresses.scale_port,
            "tidewise-forecast": forecast,
            "workers": in_hand,
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(prometheus(tmp_path, jobs)))
        with Prometheus(
            tmp_path / "prometheus", tmp_path / "prometheus.yml", port=addresses.prometheus_port, root=parts_root
        ):
            try:
                for process in processes:
                    process.start()
                until(lambda: fleet.now() >= 1, 30, "a first pod")
                until(lambda: all(process.answers() for process in processes), 30, "the processes")
                tide.began = time.time() + 1
                plan = LoadPlan(redis_url, list(tide.arrivals()), tide.began + ENDS_SECONDS, None)
                driver = Driver(plan, tmp_path, threading.Event().wait)
                driver.run()
                until(lambda: fleet.now() <= 3 and not fleet.waiting(), 30, "fewer pods again, no job waiting")
            finally:
                for process in reversed(processes):
                    process.stop()
    assert fleet.problem is None

    records = [record for record in read(tmp_path / "decisions") if record.decision.workload == settings.WORKLOAD]
    progress = read_progress(tmp_path)
    assert progress is not None
    with redis.Redis.from_url(redis_url) as client:
        results = [json.loads(line) for line in client.lrange(settings.RESULTS_KEY, 0, -1)]
        left = client.llen(settings.QUEUE)
    sent = [json.loads(line)["id"] for line in (tmp_path / "delivered.jsonl").read_text().splitlines()]
    assert (progress.undelivered, left) == (0, 0)
    assert sorted(one["id"] for one in results) == sorted(sent), "every job that was sent was done, once"

    rises = tide.began + RISES_SECONDS
    enough = next(at for at, count in fleet.ready if at > tide.began and count >= NEEDED)
    reactive = next(
        r.decision.at for r in records if r.decision.at > tide.began and (r.decision.reactive or 0) >= NEEDED
    )
    waits = sorted(one["started_at"] - one["enqueued_at"] for one in results)
    late = sum(wait > settings.SLO_WAIT_SECONDS for wait in waits)
    assert enough < reactive, "present demand alone would not even have asked for them yet"
    assert fleet.finished_after, "no pod was told to end with a job in hand"
    assert max(fleet.finished_after) < GRACE_SECONDS
    assert late <= (1 - settings.SLO_OBJECTIVE) * len(waits)
    assert max(count for at, count in fleet.ready if tide.began < at < rises - LEAD_SECONDS - 4) <= 4
    seen(
        3,
        f"Kubernetes: {NEEDED} pods ready {rises - enough:+.0f} s before the load rose, {reactive - enough:.0f} s "
        f"before present demand would have asked for them; {max(count for _, count in fleet.ready)} at most, "
        f"{fleet.ready[-1][1]} again",
    )
    seen(
        3,
        f"{len(sent)} jobs, none lost, {late} waited longer than {settings.SLO_WAIT_SECONDS:g} s, the longest "
        f"{waits[-1]:.1f} s",
    )
    finished = fleet.finished_after
    seen(3, f"{len(finished)} pods that went had a job in hand and finished it, within {max(finished):.0f} s")
