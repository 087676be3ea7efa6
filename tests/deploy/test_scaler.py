"""The scaler as the chart installs it: the rendered configuration, the account's own token, a real API server.

Only the image is missing: the process runs here instead of in its pod. It finds API server and token where a pod finds
them, in the environment and in the files of its ServiceAccount.
"""

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.kube.cluster import Cluster
from testbed.parts import Prometheus, free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

Json = dict[str, Any]
SECONDS = 60.0  # for what should come within a second or two, on a machine that others use

# What a pod has at /var/run/secrets/kubernetes.io/serviceaccount lies in a folder of the test.
IN_POD = """
import sys
from kubernetes.config import incluster_config
incluster_config.SERVICE_TOKEN_FILENAME, incluster_config.SERVICE_CERT_FILENAME = sys.argv[1:3]
from controllers.__main__ import main
sys.exit(main(sys.argv[3:]))
"""


@dataclass(frozen=True)
class Pod:
    """The scaler of one release, and the fleet that it scales."""

    cluster: Cluster
    namespace: str  # the release's
    prod: str  # the fleet's
    port: int
    config: Path
    log: Path
    upgrade: Callable[[], object]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def wanted(self) -> int:
        path = f"/apis/apps/v1/namespaces/{self.prod}/deployments/worker"
        return int(self.cluster.request("GET", path)["spec"]["replicas"])

    def working(self) -> int:
        path = f"/apis/apps/v1/namespaces/{self.prod}/deployments/worker"
        return int(self.cluster.request("GET", path)["status"].get("readyReplicas", 0))

    def tell(self, replicas: int) -> None:
        path = f"/apis/apps/v1/namespaces/{self.prod}/deployments/worker/scale"
        body = {"spec": {"replicas": replicas}}
        self.cluster.request("PATCH", path, body, kind="application/merge-patch+json")

    def reasons(self) -> set[str]:
        """Those of the last decision, as /metrics shows them."""
        lines = self.page("/metrics").splitlines()
        shown = [line for line in lines if line.startswith("tidewise_scale_decision_reason{")]
        return {line.split('reason="')[1].split('"')[0] for line in shown}

    def page(self, path: str = "/") -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline, f"{what}: not seen; {self.reasons()}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def why(self) -> str:
        argv = [sys.executable, "-m", "controllers", "why", "video", "--config", str(self.config)]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def pod(
    kube_cluster: Cluster,
    install: Callable[..., Any],
    parts_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pod]:
    """Demand for five replicas of one that serves one a second; a lease of six seconds; a step every second."""
    tmp_path = tmp_path_factory.mktemp("scaler")
    namespace, prod = kube_cluster.namespace("tide"), kube_cluster.namespace("prod")
    fleet(kube_cluster, prod)
    rules = tmp_path / "rules"
    rules.mkdir()
    demand = [{"record": "shop:orders:rate1m", "expr": "vector(3.2)"}]
    (rules / "demand.yml").write_text(yaml.safe_dump({"groups": [{"name": "demand", "rules": demand}]}))
    ask = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"global": ask, "rule_files": [str(rules / "*.yml")]}))
    prometheus = Prometheus(tmp_path / "prometheus", tmp_path / "prometheus.yml", root=parts_root)
    port = free_port()
    workload = {
        "name": "video",
        "demand": {"promql": "shop:orders:rate1m"},
        "target": {"kubernetes": {"namespace": prod, "deployment": "worker"}},
        "replicas": {"min": 1, "max": 8},
        "capacity": {"service_seconds": 1},
        "mode": "act",
    }
    state = tmp_path / "state"
    values = {
        "prometheus": {"url": prometheus.url},
        "scale": {"lease": {"enabled": True, "durationSeconds": 6}},
        "forecast": {"enabled": False},
        "config": {
            "workloads": [workload],
            # Addresses and paths of this machine; all else is the chart's.
            "scale": {
                "listen": [f"127.0.0.1:{port}"],
                "interval_seconds": 1,
                "record_every_seconds": 0,
                "records": str(state / "decisions"),
                "replacements": str(state / "replacements.json"),
            },
        },
    }

    def upgrade() -> object:
        return install("tide", namespace, values)

    upgrade()
    path = f"/api/v1/namespaces/{namespace}/configmaps/tide-tidewise"
    config = tmp_path / "tidewise.yaml"
    config.write_text(kube_cluster.request("GET", path)["data"]["tidewise.yaml"])
    command(["rules", "--config", str(config), "--out", str(rules / "workloads.yml")])
    found = Pod(kube_cluster, namespace, prod, port, config, tmp_path / "scale.log", upgrade)
    token = tmp_path / "token"
    token.write_text(kube_cluster.token(namespace, "tide-tidewise-scale"))
    with prometheus, running(found, token) as process:
        found.processes.append(process)
        yield found


def fleet(cluster: Cluster, namespace: str) -> None:
    labels = {"app": "worker"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "worker", "image": "none"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    body = {"metadata": {"name": "worker"}, "spec": spec}
    cluster.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", body)


def command(arguments: list[str]) -> None:
    argv = [sys.executable, "-m", "controllers", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def running(pod: Pod, token: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`tidewise scale` with the arguments of the Deployment and what its pod would have."""
    path = f"/apis/apps/v1/namespaces/{pod.namespace}/deployments/tide-tidewise-scale"
    (container,) = pod.cluster.request("GET", path)["spec"]["template"]["spec"]["containers"]
    program, *arguments = container["command"]
    assert program == "tidewise"
    arguments = [str(pod.config) if one == "/etc/tidewise/config/tidewise.yaml" else one for one in arguments]
    argv = [sys.executable, "-c", IN_POD, str(token), str(pod.cluster.ca_file), *arguments]
    server = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(pod.cluster.api_server.port)}
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    with (
        pod.log.open("wb") as log,
        subprocess.Popen(argv, env={**environment, **server}, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                assert process.wait(30) == 0
            finally:
                process.kill()


def test_it_scales_with_its_own_rights_holds_without_them_and_goes_on_when_they_are_back(pod: Pod) -> None:
    cluster, rbac = pod.cluster, "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings/{}"
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{pod.namespace}/leases/tide-tidewise-scale"

    # It leads, by the Lease that the chart made, and its number is the Deployment's.
    pod.until(lambda: pod.working() > 1, "pods")
    number = pod.wanted()
    assert 4 <= number <= 8
    pod.until(lambda: pod.working() == number, "all pods")
    assert cluster.request("GET", lease)["spec"]["holderIdentity"]
    pod.until(lambda: "already_there" in pod.reasons(), "a decision that changes nothing")

    # Its rights on the fleet are taken away: it knows nothing of it any more, says so, and nothing changes.
    cluster.request("DELETE", rbac.format(pod.prod, "tide-tidewise-scale"))
    pod.until(lambda: "target_unknown" in pod.reasons(), "a held decision")
    refused = f"may not get deployments/scale in API group apps in namespace {pod.prod} (403); grant it"
    pod.until(lambda: refused in pod.page(), "why")
    assert "target_unknown" in pod.why()
    pod.tell(2)
    pod.until(lambda: "target_unknown" in pod.reasons() and pod.working() == 2, "what somebody else set")

    # An upgrade gives them back, and the fleet gets what it needs.
    pod.upgrade()
    pod.until(lambda: pod.wanted() == number, "the number again")

    # Without the lease's rights nobody leads after two thirds of its duration, and nothing is told.
    cluster.request("DELETE", rbac.format(pod.namespace, "tide-tidewise-scale-lease"))
    pod.until(lambda: "\ntidewise_scale_leader 0.0\n" in pod.page("/metrics"), "no leader")
    pod.tell(2)
    pod.until(lambda: "not_leader" in pod.reasons() and pod.working() == 2, "what somebody else set")
    pod.upgrade()
    pod.until(lambda: pod.wanted() == number, "a leader again")

    # An upgrade of the chart leaves the lease to its holder.
    assert cluster.request("GET", lease)["spec"]["holderIdentity"]


def test_the_right_to_set_goes_with_the_mode(pod: Pod) -> None:
    """Only `update` is taken away: it still reads, decides, is refused, and says which right it lacks."""
    pod.until(lambda: pod.working() > 1, "pods")
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{pod.prod}/roles/tide-tidewise-scale"
    rules = pod.cluster.request("GET", role)["rules"]
    reading = [{**rule, "verbs": [verb for verb in rule["verbs"] if verb != "update"]} for rule in rules]
    pod.cluster.request("PATCH", role, {"rules": reading}, kind="application/merge-patch+json")
    account = pod.cluster.account(pod.namespace, "tide-tidewise-scale")
    pod.until(lambda: not account.may("update", "deployments.apps/scale", pod.prod, "worker"), "the right is gone")
    pod.tell(1)
    pod.until(lambda: "action_failed" in pod.reasons(), "a refused action")
    pod.until(lambda: "may not update deployments/scale in API group apps" in pod.page(), "why")
    assert pod.wanted() == 1


def test_beside_an_hpa_it_puts_a_floor_and_takes_it_back_when_it_ends(pod: Pod) -> None:
    """The last one here, for it ends the scaler."""
    pod.upgrade()
    hpas = f"/apis/autoscaling/v2/namespaces/{pod.prod}/horizontalpodautoscalers"

    def minimum() -> int:
        return int(pod.cluster.request("GET", f"{hpas}/theirs")["spec"]["minReplicas"])

    pod.until(lambda: pod.wanted() > 3, "the number that it sets itself")
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"}
    spec = {"scaleTargetRef": reference, "minReplicas": 2, "maxReplicas": 7}
    pod.cluster.request("POST", hpas, {"metadata": {"name": "theirs"}, "spec": spec})
    pod.tell(2)  # and now somebody else's number is what it meets
    pod.until(lambda: minimum() > 3, "the floor")
    pod.until(lambda: pod.working() == minimum(), "the HPA's pods")
    pod.until(lambda: "floor_told" in pod.reasons(), "what it says of it")
    found = pod.cluster.request("GET", f"{hpas}/theirs")
    assert (found["spec"]["maxReplicas"], found["metadata"]["annotations"]["tidewise.io/floor-original"]) == (7, "2")
    (process,) = pod.processes
    process.terminate()
    assert process.wait(30) == 0
    assert minimum() == 2
    assert "annotations" not in pod.cluster.request("GET", f"{hpas}/theirs")["metadata"]
