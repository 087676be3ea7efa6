"""Faults 15 to 23, in front of the real API server: what passes the front is carried out by the real rules."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controllers.actuators.interface import Actuator, ActuatorError, PermanentError
from controllers.actuators.kubernetes import kubernetes_actuator
from controllers.config import Cluster, KubernetesTarget
from controllers.kubernetes_api import PAGE, Api
from testbed.kube.cluster import Cluster as ControlPlane
from tests.controllers.fake_api import Fault, serving, write_kubeconfig
from tests.controllers.kube_front import Front

pytestmark = pytest.mark.real

Json = dict[str, Any]
RIGHTS = [
    {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "update"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
    {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list"]},
]


class Ground:
    """A Deployment of two in a namespace of its own, and an actuator that reaches it through the front."""

    def __init__(self, cluster: ControlPlane, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace, self.folder = cluster, namespace, folder
        self.front = Front(cluster)
        self.deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self.create()
        cluster.service_account(namespace, "scaler", RIGHTS)

    def create(self) -> None:
        labels = {"app": "worker"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "worker", "image": "none"}]}}
        spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
        self.cluster.request("POST", self.deployments, {"metadata": {"name": "worker"}, "spec": spec})

    def actuator(self) -> Actuator:
        token = self.cluster.token(self.namespace, "scaler")
        kubeconfig = write_kubeconfig(self.folder, self.front.url, token)
        target = KubernetesTarget(kubeconfig=kubeconfig, namespace=self.namespace, deployment="worker")
        return kubernetes_actuator(target, Api(Cluster(kubeconfig=kubeconfig)))

    def wanted(self) -> int:
        return int(self.cluster.request("GET", f"{self.deployments}/worker")["spec"]["replicas"])

    def until_ready(self, actuator: Actuator, count: int) -> None:
        """And the object says so too: its version does not change any more."""
        deadline = time.monotonic() + 60
        path = f"{self.deployments}/worker"
        while self.cluster.request("GET", path)["status"].get("availableReplicas") != count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert actuator.read_replicas(5).ready == count


@pytest.fixture
def ground(kube_cluster: ControlPlane, kube_namespace: str, tmp_path: Path) -> Iterator[Ground]:
    found = Ground(kube_cluster, kube_namespace, tmp_path)
    with serving(found.front):
        yield found


def test_15_a_version_that_somebody_outdates_while_it_is_written_is_taken_anew(ground: Ground) -> None:
    def touch() -> None:
        patch = {"metadata": {"annotations": {"seen": "by somebody"}}}
        ground.cluster.request("PATCH", f"{ground.deployments}/worker", patch, kind="application/merge-patch+json")

    actuator = ground.actuator()
    actuator.read_replicas(5)
    ground.front.faults = [Fault("PUT", "/scale", 200, before=touch)]
    actuator.apply(4, 5)
    assert ground.wanted() == 4
    assert len(ground.front.writes()) == 2, "the first was the real server's 409"


def test_16_the_servers_wish_to_be_left_alone_is_honoured(ground: Ground) -> None:
    actuator = ground.actuator()
    actuator.read_replicas(5)
    ground.front.faults = [Fault("PUT", "/scale", 429, {"Retry-After": "1"})]
    began = time.monotonic()
    actuator.apply(4, 5)
    assert time.monotonic() - began >= 1.0
    assert ground.wanted() == 4
    actuator.read_replicas(5)
    ground.front.faults = [Fault("PUT", "/scale", 429, {"Retry-After": "60"})]
    with pytest.raises(ActuatorError, match=r"asked to be left alone for (59|60) s more"):
        actuator.apply(1, 5)
    asked = len(ground.front.asked)
    with pytest.raises(ActuatorError, match="asked to be left alone"):
        actuator.read_replicas(5)
    assert (ground.wanted(), len(ground.front.asked)) == (4, asked)


def test_17_a_disruption_budget_keeps_the_victim_and_the_number(ground: Ground) -> None:
    place = f"/apis/policy/v1/namespaces/{ground.namespace}/poddisruptionbudgets"
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "worker"}}}
    ground.cluster.request("POST", place, {"metadata": {"name": "worker"}, "spec": spec})
    actuator = ground.actuator()
    ground.until_ready(actuator, 2)
    deadline = time.monotonic() + 60
    while "observedGeneration" not in (ground.cluster.request("GET", f"{place}/worker").get("status") or {}):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pods = ground.cluster.request("GET", f"/api/v1/namespaces/{ground.namespace}/pods")["items"]
    with pytest.raises(ActuatorError, match="429"):
        actuator.apply(1, 2, (pods[0]["metadata"]["name"],))
    assert (ground.wanted(), actuator.read_replicas(5).ready) == (2, 2)


@pytest.mark.parametrize(
    "lost",
    [Fault("PUT", "/scale", 500, done=True), Fault("PUT", "/scale", 200, done=True, silent_seconds=2)],
    ids=["500", "no answer"],
)
def test_18_a_deed_whose_answer_is_lost_is_read_back(ground: Ground, lost: Fault) -> None:
    actuator = ground.actuator()
    ground.until_ready(actuator, 2)
    ground.front.faults = [lost]
    actuator.apply(4, 2)
    assert (ground.wanted(), len(ground.front.writes())) == (4, 1)


def test_19_a_connection_that_says_nothing_holds_nobody_beyond_the_deadline(ground: Ground) -> None:
    actuator = ground.actuator()
    ground.until_ready(actuator, 2)
    ground.front.faults = [Fault("PUT", "/scale", 200, silent_seconds=2), Fault("GET", "/scale", silent_seconds=2)]
    began = time.monotonic()
    with pytest.raises(ActuatorError, match="no complete answer within"):
        actuator.apply(4, 1)
    assert time.monotonic() - began < 1.5
    ground.until_ready(actuator, 4)  # the request was on its way: what is there is what counts, and it is read
    assert ground.wanted() == 4


def test_20_pages_that_the_server_has_forgotten_are_read_from_the_start(ground: Ground) -> None:
    actuator = ground.actuator()
    ground.until_ready(actuator, 2)
    ground.front.faults = [Fault("GET", "/pods", 410)]
    assert actuator.read_replicas(5).ready == 2
    assert ground.front.queries[-1]["limit"] == [str(PAGE)]


def test_21_a_role_that_is_revoked_is_permanent_and_names_the_right(ground: Ground) -> None:
    actuator = ground.actuator()
    actuator.read_replicas(5)
    binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ground.namespace}/rolebindings/scaler"
    ground.cluster.request("DELETE", binding)
    account = ground.cluster.account(ground.namespace, "scaler")
    while account.may("get", "deployments.apps/scale", ground.namespace):  # the authorizer hears of it a moment later
        time.sleep(0.05)
    with pytest.raises(PermanentError, match=r"may not get deployments/scale in API group apps in namespace .*\(403\)"):
        actuator.read_replicas(5)
    assert ground.wanted() == 2


def test_22_a_token_that_is_rotated_is_read_again(ground: Ground) -> None:
    actuator = ground.actuator()
    actuator.read_replicas(5)
    before = (ground.folder / "token").read_text()
    renewed = ground.cluster.token(ground.namespace, "scaler")
    ground.front.tokens = {renewed}
    (ground.folder / "token").write_text(renewed)
    actuator.apply(3, 5)
    assert (ground.wanted(), before != renewed) == (3, True)


def test_23_an_object_of_the_same_name_is_another_one(ground: Ground) -> None:
    actuator = ground.actuator()
    actuator.read_replicas(5)
    ground.cluster.request("DELETE", f"{ground.deployments}/worker")
    ground.create()
    with pytest.raises(ActuatorError, match="was deleted and created anew meanwhile"):
        actuator.apply(0, 5)
    assert ground.wanted() == 2
