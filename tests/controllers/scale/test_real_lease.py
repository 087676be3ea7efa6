"""Two scalers of one Deployment on a real API server: one acts, and when it is killed the other goes on."""

from typing import Any

import pytest

from testbed.kube.cluster import Cluster

pytestmark = pytest.mark.real

NEEDED = 5  # as the stage's Prometheus says


def test_one_of_two_scalers_acts_and_the_other_follows_it_when_it_is_killed(
    stage: Any, kube_cluster: Cluster, kube_namespace: str
) -> None:
    labels = {"app": "worker"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "worker", "image": "none"}]}}
    deployment = {
        "metadata": {"name": "worker"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    place = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    kube_cluster.request("POST", place, deployment)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{kube_namespace}/leases/scaler"

    def replicas() -> int:
        return int(kube_cluster.request("GET", f"{place}/worker/scale")["spec"]["replicas"])

    def leaders() -> list[str]:
        return [name for name in stage.running if "tidewise_scale_leader 1.0" in stage.page(name)]

    access = {"kubeconfig": str(kube_cluster.kubeconfig), "namespace": kube_namespace}
    stage.config = {
        "prometheus": {"url": stage.prometheus.url},
        "workloads": [
            {
                "name": "video",
                "demand": {"queue": "video-jobs"},
                "target": {"kubernetes": {"deployment": "worker", **access}},
                "replicas": {"max": 8},
                "lead_time_seconds": 1,
                "minimum_run_seconds": 1,
                "mode": "act",
            }
        ],
        "scale": {
            "interval_seconds": 1,
            "record_every_seconds": 0,
            "replacements": str(stage.folder / "replacements.json"),
            "lease": {"name": "scaler", "duration_seconds": 6, **access},
        },
    }
    stage.start("scale", "first")
    stage.until(lambda: replicas() == NEEDED, "the first scales")
    stage.start("scale", "second")
    stage.steps(3, "second")
    assert leaders() == ["first"]
    epoch = int(kube_cluster.request("GET", lease)["spec"]["leaseTransitions"])

    stage.kill("first")
    kube_cluster.request(
        "PATCH", f"{place}/worker/scale", {"spec": {"replicas": 2}}, kind="application/merge-patch+json"
    )
    stage.until(lambda: "not_leader" in stage.reasons("second"), "the second wants to and does not yet")
    stage.until(lambda: replicas() == NEEDED, "the second scales")
    assert leaders() == ["second"]
    assert int(kube_cluster.request("GET", lease)["spec"]["leaseTransitions"]) == epoch + 1
    told = [record["told"] for record in stage.records("second") if record["told"] is not None]
    assert told == [NEEDED], "and it told the number once"
