"""What `tidewise check` says of Kubernetes targets: on a table, and on the real control plane."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.actuators.kubernetes import shared_api
from controllers.actuators.kubernetes_scalers import HPA, SCALED_OBJECT, parsed
from controllers.check import main
from controllers.check_kubernetes import Found, Takes, report, told
from controllers.config import Config, Workload
from testbed.kube.cluster import Cluster as ControlPlane

Json = dict[str, Any]
REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"}
UNKNOWN = (
    "Deployment worker in prod: it may not list HPAs and ScaledObjects here, "
    "so whether one scales it as well is not known"
)
HOW = "Deployment worker in prod: its number is set"


def workload(namespace: str = "prod", kubeconfig: Path | None = None, **more: Any) -> Json:
    target = {"namespace": namespace, **({} if {"statefulset", "generic"} & set(more) else {"deployment": "worker"})}
    target |= {key: more.pop(key) for key in ("beside", "statefulset", "generic") if key in more}
    if kubeconfig is not None:
        target["kubeconfig"] = str(kubeconfig)
    return {
        "name": "video",
        "demand": {"queue": "jobs"},
        "target": {"kubernetes": target},
        "replicas": {"max": 4},
        **more,
    }


def hpa(**more: Any) -> Any:
    spec = {"scaleTargetRef": REFERENCE, "minReplicas": 2, "maxReplicas": 10, **more}
    return parsed(HPA, "prod", {"metadata": {"name": "busy"}, "spec": spec})


def grace(seconds: int, needed: int, words: str) -> str:
    return (
        f"warning: its pods have {seconds} s to end in (terminationGracePeriodSeconds) and one piece of work takes "
        f"{words} when it is scaled in; write terminationGracePeriodSeconds: {needed} in the pod template of "
        "Deployment worker"
    )


def floor(scaler: str, least: int, most: int) -> str:
    bounds = f"(its own minimum is {least}, its maximum {most})"
    return f"Deployment worker in prod: a floor is put under {scaler} {bounds}, for 600 s at a time"


def nothing(why: str) -> str:
    return f"Deployment worker in prod: nothing is told: {why}"


def lacks(*rights: str) -> str:
    return f"warning: it may not {', '.join(rights)} in namespace prod; grant it, see docs/kubernetes.md"


BUSY = "the HorizontalPodAutoscaler busy"
HPAS = "horizontalpodautoscalers in API group autoscaling"
KILLED = "45 s on average, as capacity.service_seconds says: a busy worker is killed before it is done"
CUT = "12.5 s on average, as measured: longer ones are cut off"
LOW = (
    f"warning: {BUSY} has at most 3 and replicas.max is 4; a floor goes no higher than its maximum: "
    "raise one or lower the other"
)
IDLES = (
    "warning: the ScaledObject jobs has idleReplicaCount 0, to which KEDA scales while no trigger is active, "
    "whatever the minimum; without it the floor would hold then as well"
)
STATEFUL = [
    "StatefulSet worker in prod: its number is set",
    "warning: in_hand chooses nobody here: a StatefulSet ends the highest ordinal first, busy or not",
]
SLOW = {"capacity": {"service_seconds": 45}}
IDLE = {"scaleTargetRef": {"name": "worker"}, "idleReplicaCount": 0, "minReplicaCount": 1}
KEDA = parsed(SCALED_OBJECT, "prod", {"metadata": {"name": "jobs"}, "spec": IDLE})
TOLD: list[tuple[str, Json, Found, Takes, list[str]]] = [
    ("30 s are enough for 10 s of work", {}, Found(grace_seconds=30), Takes(10), [HOW]),
    ("30 s are too few for 45 s", SLOW, Found(grace_seconds=30), Takes(10), [HOW, grace(30, 135, KILLED)]),
    ("30 s are too few for the longest of 12.5 s", {}, Found(grace_seconds=30), Takes(12.5), [HOW, grace(30, 38, CUT)]),
    ("30 s are too few for the longest, which are known", {}, Found(grace_seconds=30), Takes(12.5, 33.2),
     [HOW, grace(30, 34, CUT.replace(": longer", ", and up to 33.2 s (99 % of it): longer"))]),
    ("30 s are enough for the longest, which are known", {}, Found(grace_seconds=30), Takes(12.5, 29), [HOW]),
    ("nothing is said of a grace period that is not known", {}, Found(), Takes(99), [HOW]),
    ("nor of work that nobody has measured", {}, Found(grace_seconds=1), Takes(), [HOW]),
    ("a floor", {}, Found(scalers=(hpa(),)), Takes(), [floor(BUSY, 2, 10)]),
    ("no floor is wanted", {"beside": "refuse"}, Found(scalers=(hpa(),)), Takes(),
     [nothing(f"{BUSY} scales it as well, and target.kubernetes.beside is refuse")]),
    ("two of them", {}, Found(scalers=(hpa(), hpa())), Takes(),
     [nothing(f"{BUSY} and {BUSY} scale it, and each undoes what the other does; delete all but one")]),
    ("a right is missing, and its maximum is low", {}, Found((hpa(maxReplicas=3),), (f"patch {HPAS}",)), Takes(),
     [floor(BUSY, 2, 3), lacks(f"patch {HPAS}"), LOW]),
    ("KEDA that idles at zero", {}, Found((KEDA,)), Takes(), [floor("the ScaledObject jobs", 1, 100), IDLES]),
    ("a StatefulSet chooses by itself", {"statefulset": "worker", "in_hand": "busy"}, Found(), Takes(), STATEFUL),
]  # fmt: skip


@pytest.mark.parametrize(("more", "found", "takes", "expected"), [row[1:] for row in TOLD], ids=[r[0] for r in TOLD])
def test_what_is_said(more: Json, found: Found, takes: Takes, expected: list[str]) -> None:
    one = Workload.model_validate(workload(**more))
    assert one.target.kubernetes is not None
    assert told(one, one.target.kubernetes, found, takes) == expected


def test_a_cluster_that_cannot_be_asked_is_said_once(kubeconfig: Path, fake_api: Any) -> None:
    shared_api.cache_clear()
    fake_api.tokens = set()
    config = Config.model_validate(
        {"workloads": [workload(kubeconfig=kubeconfig), {**workload(kubeconfig=kubeconfig), "name": "audio"}]}
    )
    (line,) = report(config, {}).lines
    assert line.startswith("warning: Kubernetes cannot be asked (")
    assert line.endswith(
        "the credentials are not accepted (401); renew them: Unauthorized), so its targets were not looked at"
    )


# ------------------------------------------------------------------------------------- on a real control plane


@pytest.fixture
def checked(
    kube_cluster: ControlPlane, kube_namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str]]]:
    """`checked(rules, **workload)`: exit status and Kubernetes' lines, for an account with these rights."""
    pod = {"terminationGracePeriodSeconds": 20, "containers": [{"name": "worker", "image": "none"}]}
    template = {"metadata": {"labels": {"app": "worker"}}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "worker"}}, "template": template}
    path = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    kube_cluster.request("POST", path, {"metadata": {"name": "worker"}, "spec": spec})
    pods = f"/api/v1/namespaces/{kube_namespace}/pods"
    deadline = time.monotonic() + 60
    while not kube_cluster.request("GET", pods)["items"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    def check(rules: list[Json], lease: str | None = None, **more: Any) -> tuple[int, list[str]]:
        name = f"account-{len(list(tmp_path.iterdir()))}"
        kubeconfig = kube_cluster.service_account(kube_namespace, name, rules)
        file = tmp_path / f"{name}.yaml"
        document: Json = {"workloads": [workload(kube_namespace, kubeconfig, **more)]}
        if lease is not None:
            document["scale"] = {"lease": {"name": lease, "namespace": kube_namespace, "kubeconfig": str(kubeconfig)}}
        file.write_text(yaml.safe_dump(document))
        status = main([str(file), "--prometheus", "http://127.0.0.1:1"])
        lines = capsys.readouterr().out.replace(kube_namespace, "prod").splitlines()
        return status, [line.removeprefix("default/video: ") for line in lines[2:]]

    return check


READS = [
    {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
]
LOOKS = [
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
    {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list"]},
]


@pytest.mark.real
def test_on_the_real_api_server(
    kube_cluster: ControlPlane, kube_namespace: str, checked: Callable[..., tuple[int, list[str]]]
) -> None:
    words = KILLED.replace("45 s", "25 s")
    assert checked(READS, capacity={"service_seconds": 25})[1] == [UNKNOWN, grace(20, 75, words)]
    assert checked([*READS, *LOOKS])[1] == [HOW]
    missing = lacks("update deployments/scale in API group apps", "patch pods")
    assert checked([*READS, *LOOKS], mode="act", in_hand="busy")[1] == [HOW, missing]
    path = f"/apis/autoscaling/v2/namespaces/{kube_namespace}/horizontalpodautoscalers"
    spec = {"scaleTargetRef": REFERENCE, "minReplicas": 2, "maxReplicas": 10}
    kube_cluster.request("POST", path, {"metadata": {"name": "busy"}, "spec": spec})
    how = floor(BUSY, 2, 10)
    assert checked([*READS, *LOOKS], mode="act")[1] == [how, lacks(f"get {HPAS}", f"patch {HPAS}")]
    tells = {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "patch"]}
    assert checked([*READS, *LOOKS, tells], mode="act")[1] == [how]
    generic = {"kind": "Nothing", "name": "worker", "api_version": "apps/v1"}
    assert checked(READS, generic=generic, mode="act")[1] == [
        "warning: target.kubernetes.generic: Nothing of apps/v1 is not served by this cluster; correct it"
    ]


@pytest.mark.real
def test_the_rights_on_the_lease_are_asked_for(
    kube_cluster: ControlPlane, kube_namespace: str, checked: Callable[..., tuple[int, list[str]]]
) -> None:
    def said(*verbs: str) -> list[str]:
        rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": list(verbs)}
        return checked([*READS, *LOOKS, rule], lease="ours")[1][1:]

    def lacking(*verbs: str) -> list[str]:
        rights = ", ".join(f"{verb} leases in API group coordination.k8s.io" for verb in verbs)
        words = "and without it nobody acts; grant it, see docs/kubernetes.md"
        return [f"scale.lease: warning: it may not {rights} in namespace prod, {words}"]

    assert said("list") == lacking("get", "update")
    assert said("get", "update") == lacking("create")
    assert said("get", "update", "create") == []
    path = f"/apis/coordination.k8s.io/v1/namespaces/{kube_namespace}/leases"
    kube_cluster.request("POST", path, {"metadata": {"name": "ours"}})
    assert said("get", "update") == []
