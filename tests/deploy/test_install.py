"""The chart on a real API server: admitted, installed and ready, with the rights that it says and no others."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from deploy.render import MANIFESTS
from testbed.kube.account import Account, Right
from testbed.kube.cluster import AnswerError, Cluster

pytestmark = pytest.mark.real

Json = dict[str, Any]
PROMETHEUS = {"url": "http://prometheus.monitoring:9090"}
COMPONENTS = ("forecast", "scale", "budget", "recovery", "exporter-services")
# What no component may do, in its own namespace, in those of the workloads, or anywhere.
NEVER = [
    ("list", "secrets"), ("get", "secrets"), ("create", "pods"), ("create", "pods/exec"), ("create", "pods/eviction"),
    ("delete", "pods"), ("update", "deployments.apps"), ("delete", "deployments.apps"), ("patch", "nodes"),
    ("create", "serviceaccounts/token"), ("escalate", "roles.rbac.authorization.k8s.io"),
    ("bind", "roles.rbac.authorization.k8s.io"), ("impersonate", "users"), ("*", "*.*"), ("get", "*.*"),
    ("create", "leases.coordination.k8s.io"), ("delete", "leases.coordination.k8s.io"),
]  # fmt: skip


FLOORS = {
    (group, resource, "", verb)
    for group, resource in (("autoscaling", "horizontalpodautoscalers"), ("keda.sh", "scaledobjects"))
    for verb in ("get", "list", "patch")
}


def workload(name: str, namespace: str, **more: Any) -> Json:
    target = {"kubernetes": {"namespace": namespace, "deployment": name}}
    return {"name": name, "demand": {"queue": name}, "target": target, "replicas": {"max": 4}, **more}


@dataclasses.dataclass(frozen=True)
class Installed:
    """A release, in a namespace that admits restricted pods only."""

    cluster: Cluster
    namespace: str
    values: Json
    notes: str

    def account(self, component: str) -> Account:
        return self.cluster.account(self.namespace, f"tide-tidewise-{component}")

    def get(self, path: str) -> Json:
        return self.cluster.request("GET", path.format(namespace=self.namespace))


@pytest.fixture(scope="module")
def installed(kube_cluster: Cluster, install: Callable[..., Any]) -> Installed:
    """Everything that there is, but what reads the node: that is not restricted."""
    namespace, prod = kube_cluster.namespace("tide"), kube_cluster.namespace("prod")
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    kube_cluster.request("PATCH", f"/api/v1/namespaces/{namespace}", label, kind="application/merge-patch+json")
    for definition in ("ServiceMonitor", "PrometheusRule"):
        define(kube_cluster, "monitoring.coreos.com", definition)
    for name in ("one", "two", "three"):
        volume(kube_cluster, f"{namespace}-{name}", storage_class=namespace)
    for name in ("budget", "scale", "recovery", "web"):
        body = {"metadata": {"name": name}, "stringData": {"token": f"{name}-token"}}
        kube_cluster.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body)
    target = {"name": "workers", "instances": {"promql": "up"}, "symptoms": [{"alert": "WorkerHung"}]}
    keeping = {"enabled": True, "persistence": {"enabled": True, "storageClass": namespace}}
    values = {
        "prometheus": PROMETHEUS,
        "config": {
            "exporters": {"database": {"redis": [{"url": "redis://redis:6379/0"}]}, "cost": {"ledger": {}, "aws": {}}},
            "workloads": [workload("video", prod, mode="act"), workload("audio", prod)],
            "budget": {"total": "24900 KRW"},
            "recovery": {"targets": [target]},
        },
        "tokens": {name: {"existingSecret": name} for name in ("budget", "scale", "recovery")},
        "scale": {"replicas": 2, "lease": {"enabled": True}},
        "budget": keeping,
        "recovery": keeping,
        "exporters": {
            "web": {"existingSecret": "web"},
            "services": keeping,
            "gpu": {"enabled": True, "nodeSelector": {"nvidia.com/gpu.present": None}},
        },
        "metrics": {"serviceMonitor": {"enabled": True}},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
        "networkPolicy": {"enabled": True},
    }
    done = install("tide", namespace, values, "--wait", "--timeout", "90s")
    return Installed(kube_cluster, namespace, values, done.stdout)


def define(cluster: Cluster, group: str, kind: str) -> None:
    """A CustomResourceDefinition that takes anything: the API server knows the kind, not its fields."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    cluster.request("POST", path, {"metadata": {"name": f"{plural}.{group}"}, "spec": spec})
    deadline = time.monotonic() + 30
    while True:
        try:
            cluster.request("GET", f"/apis/{group}/v1/{plural}")
            return
        except AnswerError:  # not served yet
            assert time.monotonic() < deadline
            time.sleep(0.1)


def volume(cluster: Cluster, name: str, storage_class: str) -> None:
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "hostPath": {"path": "/none"},
    }
    cluster.request("POST", "/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": spec})


def test_all_of_it_is_admitted_by_a_restricted_namespace_and_gets_ready(installed: Installed) -> None:
    found = installed.get("/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
    ready = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one["status"].get("readyReplicas")
             for one in found}  # fmt: skip
    assert ready == {name: 2 if name == "scale" else 1 for name in COMPONENTS}
    (cards,) = installed.get("/apis/apps/v1/namespaces/{namespace}/daemonsets")["items"]
    assert (cards["metadata"]["name"], cards["status"]["numberReady"]) == ("tide-tidewise-exporter-gpu", 1)
    claims = installed.get("/api/v1/namespaces/{namespace}/persistentvolumeclaims")["items"]
    assert {one["metadata"]["name"]: one["status"]["phase"] for one in claims} == {
        "tide-tidewise-budget": "Bound",
        "tide-tidewise-exporter-services": "Bound",
        "tide-tidewise-recovery": "Bound",
    }
    rules = installed.get("/apis/monitoring.coreos.com/v1/namespaces/{namespace}/prometheusrules")["items"]
    assert "tide-tidewise-contract" in {one["metadata"]["name"] for one in rules}


def test_its_test_runs_the_check(installed: Installed) -> None:
    done = installed.cluster.helm("test", "tide", "--namespace", installed.namespace, "--timeout", "60s")
    assert done.returncode == 0, done.stderr
    assert "Phase:          Succeeded" in done.stdout


def test_the_notes_tell_the_first_steps(installed: Installed) -> None:
    for line in (
        "Replicas are set for video; every other workload is in shadow",
        f"helm test tide --namespace {installed.namespace}",
        "kubectl get prometheus --all-namespaces",
        "tidewise rules --config tidewise.yaml",
        f"Alertmanager delivers to http://tide-tidewise-recovery.{installed.namespace}:9815/alerts",
        f"if it searches the namespace {installed.namespace}",
    ):
        assert line in installed.notes
    assert "WARNING" not in installed.notes


def test_the_scaler_may_do_what_it_needs_on_the_objects_that_are_named(installed: Installed) -> None:
    prod = installed.values["config"]["workloads"][0]["target"]["kubernetes"]["namespace"]
    scaler = installed.account("scale")
    assert rights(installed.cluster, scaler, prod) == {
        ("apps", "deployments/scale", "video", "get"),
        ("apps", "deployments/scale", "video", "update"),
        ("apps", "deployments/scale", "audio", "get"),
        ("", "pods", "", "list"),
        *FLOORS,
    }
    assert rights(installed.cluster, scaler, installed.namespace) == {
        ("coordination.k8s.io", "leases", "tide-tidewise-scale", verb) for verb in ("get", "update")
    }
    assert scaler.may("update", "deployments.apps/scale", prod, "video")
    assert not scaler.may("update", "deployments.apps/scale", prod, "audio")  # it is in shadow
    assert not scaler.may("update", "deployments.apps/scale", prod, "another")
    assert not scaler.may("get", "deployments.apps/scale", installed.namespace, "tide-tidewise-budget")
    assert not scaler.may("update", "leases.coordination.k8s.io", installed.namespace, "another")


def test_the_others_may_do_nothing(installed: Installed) -> None:
    prod = installed.values["config"]["workloads"][0]["target"]["kubernetes"]["namespace"]
    for component in (*COMPONENTS, "exporter-gpu"):
        if component != "scale":
            account = installed.account(component)
            for namespace in (installed.namespace, prod, "default"):
                assert rights(installed.cluster, account, namespace) == set(), (component, namespace)


def test_nobody_may_do_what_nobody_should(installed: Installed) -> None:
    prod = installed.values["config"]["workloads"][0]["target"]["kubernetes"]["namespace"]
    for component in COMPONENTS:
        account = installed.account(component)
        for verb, resource in NEVER:
            for namespace in (prod, installed.namespace, ""):
                assert not account.may(verb, resource, namespace), (component, verb, resource, namespace)


def test_several_namespaces_get_a_role_each_and_no_other_one(kube_cluster: Cluster, install: Any) -> None:
    ours, one, two, third = (kube_cluster.namespace() for _ in range(4))
    workloads = [workload("video", one, mode="act"), workload("audio", two)]
    values = {"prometheus": PROMETHEUS, "rbac": {"namespaces": [one, two]}, "config": {"workloads": workloads}}
    install("tide", ours, values)
    scaler = kube_cluster.account(ours, "tide-tidewise-scale")
    settle(lambda: scaler.may("update", "deployments.apps/scale", one, "video"))
    assert scaler.may("get", "deployments.apps/scale", two, "audio")
    assert not scaler.may("update", "deployments.apps/scale", two, "audio")
    for namespace in (ours, third, "kube-system"):
        assert rights(kube_cluster, scaler, namespace) == set()
    # Promoted: the right to set its number comes with `mode: act`, and goes with it.
    workloads[0]["mode"], workloads[1]["mode"] = "shadow", "act"
    install("tide", ours, values)
    settle(lambda: scaler.may("update", "deployments.apps/scale", two, "audio"))
    settle(lambda: not scaler.may("update", "deployments.apps/scale", one, "video"))


def test_rights_follow_how_a_target_is_told(kube_cluster: Cluster, install: Any) -> None:
    """In one namespace each: it sets the number and keeps off others, it puts floors, it lets the idlest go first."""
    ours, sets, floors, drains = (kube_cluster.namespace() for _ in range(4))
    workloads = [
        workload("video", sets, mode="act"),
        workload("audio", floors, mode="act"),
        workload("text", drains, mode="act", in_hand="sum by (pod) (busy)"),
    ]
    workloads[0]["target"]["kubernetes"]["beside"] = "refuse"
    install("tide", ours, {"prometheus": PROMETHEUS, "config": {"workloads": workloads}})
    scaler = kube_cluster.account(ours, "tide-tidewise-scale")
    settle(lambda: all(scaler.may("list", "pods", one) for one in (sets, floors, drains)))
    tells = ("patch", "horizontalpodautoscalers.autoscaling")
    chooses = ("patch", "pods")
    assert [[scaler.may(*right, one) for right in (tells, chooses)] for one in (sets, floors, drains)] == [
        [False, False],
        [True, False],
        [True, True],
    ]
    assert rights(kube_cluster, scaler, floors) == {
        *(("apps", "deployments/scale", "audio", verb) for verb in ("get", "update")),
        ("", "pods", "", "list"),
        *FLOORS,
    }
    for namespace in (sets, floors, drains):
        assert scaler.may("list", "horizontalpodautoscalers.autoscaling", namespace)
        assert not scaler.may("update", "horizontalpodautoscalers.autoscaling", namespace)
        assert not scaler.may("delete", "horizontalpodautoscalers.autoscaling", namespace)
    cron = kube_cluster.request("GET", f"/apis/batch/v1/namespaces/{ours}/cronjobs/tide-tidewise-floors")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"


def test_one_that_may_scale_in_all_namespaces_may_do_no_more_there(kube_cluster: Cluster, install: Any) -> None:
    ours, one, other = (kube_cluster.namespace() for _ in range(3))
    more = {"apiGroups": ["argoproj.io"], "resources": ["rollouts/scale"], "verbs": ["get", "update"]}
    values = {
        "prometheus": PROMETHEUS,
        "rbac": {"scope": "cluster", "extraRules": [more]},
        "config": {"workloads": [workload("video", one, mode="act")]},
    }
    install("tide", ours, values)
    scaler = kube_cluster.account(ours, "tide-tidewise-scale")
    settle(lambda: scaler.may("update", "deployments.apps/scale"))
    setting = ("deployments.apps", "statefulsets.apps", "rollouts.argoproj.io")
    kinds = [whole.partition(".") for whole in setting]
    assert rights(kube_cluster, scaler, other) == {
        *((group, f"{plural}/scale", "", verb) for plural, _, group in kinds for verb in ("get", "update")),
        ("", "pods", "", "list"),
        *FLOORS,
    }
    for verb, resource in NEVER:
        assert not scaler.may(verb, resource), (verb, resource)
        assert not scaler.may(verb, resource, other), (verb, resource)
    assert not kube_cluster.account(ours, "tide-tidewise-forecast").may("list", "pods")
    kube_cluster.helm("uninstall", "tide", "--namespace", ours)
    settle(lambda: not scaler.may("update", "deployments.apps/scale"))


def test_the_doors_of_who_follows_a_number_are_admitted(kube_cluster: Cluster, install: Any) -> None:
    namespace = kube_cluster.namespace()
    doors = {"external_metrics": {"web_config": "/etc/tidewise/secrets/web/web.yml"}, "external_scaler": {}}
    install(
        "tide", namespace,
        {"prometheus": PROMETHEUS, "config": {"scale": doors}, "networkPolicy": {"enabled": True}},
    )  # fmt: skip
    service = kube_cluster.request("GET", f"/api/v1/namespaces/{namespace}/services/tide-tidewise-scale")
    assert [one["port"] for one in service["spec"]["ports"]] == [9813, 443, 9817]
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/tide-tidewise-scale"
    (container,) = kube_cluster.request("GET", path)["spec"]["template"]["spec"]["containers"]
    names = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert [names.get(one["targetPort"]) for one in service["spec"]["ports"]] == [9813, 9816, 9817]


def test_what_reads_the_node_needs_a_namespace_that_allows_it(kube_cluster: Cluster, install: Any) -> None:
    ours = kube_cluster.namespace()
    cards = {"enabled": True, "nodeSelector": {"nvidia.com/gpu.present": None}}
    values = {"prometheus": PROMETHEUS, "exporters": {"host": {"enabled": True}, "gpu": cards},
              "config": {"exporters": {"gpu": {"processes": True}}}, "scale": {"enabled": False},
              "forecast": {"enabled": False}}  # fmt: skip
    install("tide", ours, values, "--wait", "--timeout", "60s")
    for name in ("exporter-host", "exporter-gpu"):
        path = f"/apis/apps/v1/namespaces/{ours}/daemonsets/tide-tidewise-{name}"
        settle(lambda path=path: kube_cluster.request("GET", path)["status"]["numberReady"] == 1)  # type: ignore[misc]
        assert rights(kube_cluster, kube_cluster.account(ours, f"tide-tidewise-{name}"), ours) == set()


def test_the_plain_manifests_are_taken_to_the_last_field(kube_cluster: Cluster) -> None:
    for name in ("tidewise", "prod"):  # those that the sample's values name
        kube_cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    documents = [document for document in yaml.safe_load_all(MANIFESTS.read_text()) if document]
    for one in documents:
        group, kind, meta = one["apiVersion"], one["kind"], one["metadata"]
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        path = f"{root}/namespaces/{meta['namespace']}/{kind.lower()}s"
        kube_cluster.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", one)
    assert len(documents) > 10


def rights(cluster: Cluster, account: Account, namespace: str) -> set[Right]:
    """What it may do there beyond what every ServiceAccount may."""
    return account.rights(namespace) - cluster.account("default", "default").rights(namespace)


def settle(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """The authorizer hears of a new binding a moment later."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
