"""Which pods go first: the idlest, by their deletion cost; on a table, and on the real control plane."""

import time
from pathlib import Path
from typing import Any

import pytest

from controllers.actuators.interface import Actuator, ActuatorError, PermanentError
from controllers.actuators.kubernetes import kubernetes_actuator
from controllers.actuators.kubernetes_pods import BUSIEST, COST, IDLEST, OURS, VICTIM, cost_changes, write_costs
from controllers.config import Cluster, KubernetesTarget
from controllers.domain import Replicas
from controllers.kubernetes_api import Api
from testbed.kube.cluster import Cluster as ControlPlane

Json = dict[str, Any]


def pod(name: str, cost: int | None = None, *, ours: bool = True, ready: bool = True, leaving: bool = False) -> Json:
    annotations = {} if cost is None else {COST: str(cost), **({OURS: str(cost)} if ours else {})}
    meta: Json = {"name": name, "annotations": annotations}
    if leaving:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": meta, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


@pytest.mark.parametrize(
    ("pods", "in_hand", "leaving", "victims", "expected"),
    [
        pytest.param(
            [pod("a"), pod("b"), pod("c")], {"a": 3, "b": 0, "c": 1}, 1, (), {"b": IDLEST}, id="the idlest goes"
        ),
        pytest.param(
            [pod("a"), pod("b"), pod("c")], {"a": 3, "b": 0, "c": 1}, 2, (), {"b": IDLEST, "c": IDLEST + 1000},
            id="then the least busy",
        ),
        pytest.param(
            [pod("a"), pod("b")], {"b": 7}, 1, (), {"b": IDLEST + 7000}, id="one that says nothing may be busier"
        ),
        pytest.param([pod("a"), pod("b")], {"b": 1e9}, 2, (), {"b": BUSIEST, "a": BUSIEST}, id="however busy it is"),
        pytest.param(
            [pod("a", IDLEST + 1000), pod("b", IDLEST), pod("c")], {"a": 1, "b": 2, "c": 0}, 3, (),
            {"c": IDLEST, "b": IDLEST + 2000}, id="a rank that changes alone changes no cost",
        ),
        pytest.param(
            [pod("a"), pod("b")], {"a": 0, "b": 5}, 1, ("b",), {"b": VICTIM}, id="a victim goes before an idle one"
        ),
        pytest.param(
            [pod("a"), pod("b", ready=False), pod("c", leaving=True)], {"a": 1, "b": 0, "c": 0}, 1, (),
            {"a": IDLEST + 1000},
            id="what does not work goes first by itself",
        ),
        pytest.param([pod("a", IDLEST), pod("b")], {"a": 0, "b": 5}, 1, (), {}, id="what is right already is left"),
        pytest.param(
            [pod("a", IDLEST), pod("b")], {"a": 5, "b": 0}, 1, (), {"b": IDLEST, "a": None},
            id="an old cost is taken away, those that go first",
        ),
        pytest.param([pod("a", IDLEST)], {"a": 0}, 0, (), {"a": None}, id="and so it is when nobody goes"),
        pytest.param([pod("a", 5, ours=False), pod("b")], {"a": 0, "b": 0}, 2, (), {"b": IDLEST},
                     id="a cost that somebody else wrote stays"),
        pytest.param([pod("a")], {"a": 0}, 9, (), {"a": IDLEST}, id="all of them go"),
        pytest.param([pod("a")], {"a": 0}, -3, (), {}, id="more are wanted"),
    ],
)  # fmt: skip
def test_whose_cost_changes(
    pods: list[Json], in_hand: dict[str, float], leaving: int, victims: tuple[str, ...], expected: Json
) -> None:
    changes = cost_changes(pods, in_hand, leaving, victims)
    assert list(changes.items()) == list(expected.items())


PODS = "/api/v1/namespaces/prod/pods"
SCALE = "/apis/apps/v1/namespaces/prod/deployments/worker/scale"


@pytest.fixture
def api(fake_api: Any) -> Any:
    """prod/worker with three working pods."""
    meta = {"name": "worker", "namespace": "prod"}
    fake_api.put(SCALE, {"kind": "Scale", "metadata": meta, "spec": {"replicas": 3}, "status": {"selector": "app=w"}})
    fake_api.put(SCALE.replace("deployments", "statefulsets"), fake_api.objects[SCALE])
    fake_api.objects["/apis/autoscaling/v2/namespaces/prod/horizontalpodautoscalers"] = {"items": []}
    fake_api.collections.add(PODS)
    for name in "abc":
        fake_api.put(f"{PODS}/{name}", pod(name))
    return fake_api


def actuator_on(kubeconfig: Path, **options: Any) -> Actuator:
    options = {"namespace": "prod", "deployment": "worker", **options}
    target = KubernetesTarget(kubeconfig=kubeconfig, **options)
    return kubernetes_actuator(target, Api(Cluster(kubeconfig=kubeconfig)))


def test_the_cost_is_written_before_the_number(api: Any, kubeconfig: Path) -> None:
    actuator = actuator_on(kubeconfig)
    actuator.read_replicas(5)
    actuator.apply(2, 5, in_hand={"a": 1, "b": 0, "c": 1})
    assert api.writes() == [f"{PODS}/b", SCALE]
    actuator.read_replicas(5)
    actuator.apply(2, 5, in_hand={"a": 1, "b": 1, "c": 1})
    assert api.objects[f"{PODS}/b"]["metadata"]["annotations"] == {}


def test_nothing_is_written_where_work_in_hand_is_not_known_or_does_not_count(api: Any, kubeconfig: Path) -> None:
    actuator_on(kubeconfig).apply(2, 5)
    actuator_on(kubeconfig).apply(1, 5, in_hand={})
    stateful = actuator_on(kubeconfig, deployment=None, statefulset="worker")
    stateful.apply(2, 5, in_hand={"a": 1, "b": 0, "c": 1})
    assert [path for path in api.writes() if "/pods/" in path] == []


def test_who_cannot_choose_ends_nobody(api: Any, kubeconfig: Path, fault: Any) -> None:
    actuator = actuator_on(kubeconfig)
    api.faults = [fault("PATCH", "/a", 403)]
    with pytest.raises(PermanentError, match="may not patch pods in namespace prod"):
        actuator.apply(2, 5, in_hand={"a": 0, "b": 1, "c": 1})
    api.faults = [fault("PATCH", "/a", 500)]
    with pytest.raises(ActuatorError, match="500: told to"):
        actuator.apply(2, 5, in_hand={"a": 0, "b": 1, "c": 1})
    assert api.objects[SCALE]["spec"]["replicas"] == 3


def test_a_pod_that_has_gone_needs_no_cost(api: Any, kubeconfig: Path) -> None:
    write_costs(Api(Cluster(kubeconfig=kubeconfig)), "prod", {"gone": 1, "a": 2}, time.monotonic() + 5)
    assert api.objects[f"{PODS}/a"]["metadata"]["annotations"] == {COST: "2", OURS: "2"}


def test_of_many_all_that_go_are_told_and_some_of_those_that_stay(
    api: Any, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were only some of them told, the ReplicaSet would end busy ones beside them."""
    monkeypatch.setattr("controllers.actuators.kubernetes_pods.MAX_TAKEN_AWAY", 2)
    names = [f"idle-{index}" for index in range(8)]
    stale = [f"busy-{index}" for index in range(4)]
    for name in names:
        api.put(f"{PODS}/{name}", pod(name))
    for name in stale:
        api.put(f"{PODS}/{name}", pod(name, IDLEST))
    api.objects[SCALE]["spec"]["replicas"] = 15
    actuator = actuator_on(kubeconfig)
    actuator.read_replicas(30)
    actuator.apply(7, 30, in_hand={**dict.fromkeys(names, 0), **dict.fromkeys([*stale, *"abc"], 1)})
    costs = {
        path.rpartition("/")[2]: one["metadata"].get("annotations", {}).get(COST)
        for path, one in api.objects.items()
        if path.startswith(f"{PODS}/")
    }
    assert all(costs[name] is not None for name in names)
    assert [costs[name] for name in stale].count(None) == 2
    assert api.objects[SCALE]["spec"]["replicas"] == 7


@pytest.mark.real
def test_the_idle_pod_goes_and_the_busy_ones_stay(kube_cluster: ControlPlane, kube_namespace: str) -> None:
    """The idle one is the oldest, which a ReplicaSet left to itself would keep longest."""
    path = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    labels = {"app": "worker"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "worker", "image": "none"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    kube_cluster.request("POST", path, {"metadata": {"name": "worker"}, "spec": spec})
    rules = [
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "update"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]},
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
        {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list"]},
    ]
    actuator = actuator_on(kube_cluster.service_account(kube_namespace, "scaler", rules), namespace=kube_namespace)

    def names() -> set[str]:
        pods = kube_cluster.request("GET", f"/api/v1/namespaces/{kube_namespace}/pods")["items"]
        return {one["metadata"]["name"] for one in pods}

    def settled(count: int) -> set[str]:
        deadline = time.monotonic() + 60
        while actuator.read_replicas(5) != Replicas(count, count) or len(names()) != count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return names()

    (oldest,) = settled(1)
    time.sleep(1.1)  # the age of pods is told in seconds
    actuator.apply(4, 5)
    all_of_them = settled(4)
    busy = dict.fromkeys(all_of_them - {oldest}, 1.0)
    actuator.apply(3, 5, in_hand={oldest: 0.0, **busy})
    assert settled(3) == all_of_them - {oldest}
    first, second, third = sorted(busy)
    actuator.apply(1, 5, in_hand={first: 2.0, second: 9.0, third: 1.0})
    assert settled(1) == {second}
