"""The manifests of docs/publish.md, on a real API server: an HPA there really follows our number."""

import base64
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.actuators.publish import Board
from controllers.config import ExternalMetrics
from controllers.domain import Mode
from controllers.scale.following.answers import Numbers
from controllers.scale.following.external_metrics import endpoint
from testbed.kube.cluster import AnswerError, Cluster

Json = dict[str, Any]
PAGE = Path(__file__).parents[4] / "docs/publish.md"
DRY = "?dryRun=All&fieldValidation=Strict"
EXTENSIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
API_SERVICE = f"{API_SERVICES}/v1beta1.external.metrics.k8s.io"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def manifests(name: str) -> list[Json]:
    """Of the block in the page that is marked so."""
    found = re.search(rf"<!-- tried: {name} -->\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, f"docs/publish.md has no block marked 'tried: {name}'"
    return list(yaml.safe_load_all(found[1]))


def until(true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def obj(kind: str, properties: Json, *required: str) -> Json:
    return {"type": kind, "properties": properties, "required": list(required)} if required else {
        "type": kind, "properties": properties}  # fmt: skip


def scaled_object_schema() -> Json:
    """The fields of KEDA's own definition that one may write in those places, and no others."""
    number, text = {"type": "integer", "format": "int32"}, {"type": "string"}
    policy = obj("object", {"type": text, "value": number, "periodSeconds": number}, "type", "value", "periodSeconds")
    rules = obj(
        "object",
        {
            "policies": {"type": "array", "items": policy},
            "selectPolicy": text,
            "stabilizationWindowSeconds": number,
        },
    )
    behavior = obj("object", {"scaleUp": rules, "scaleDown": rules})
    trigger = obj(
        "object",
        {
            "type": text,
            "name": text,
            "metricType": text,
            "useCachedMetrics": {"type": "boolean"},
            "authenticationRef": obj("object", {"name": text, "kind": text}, "name"),
            "metadata": {"type": "object", "additionalProperties": text},
        },
        "type",
        "metadata",
    )
    spec = obj(
        "object",
        {
            "scaleTargetRef": obj("object", {"name": text, "kind": text, "apiVersion": text}, "name"),
            "pollingInterval": number,
            "cooldownPeriod": number,
            "minReplicaCount": number,
            "maxReplicaCount": number,
            "fallback": obj(
                "object",
                {
                    "failureThreshold": number,
                    "replicas": number,
                    "behavior": {
                        "type": "string",
                        "enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"],
                    },
                },
                "failureThreshold",
                "replicas",
            ),
            "advanced": obj("object", {"horizontalPodAutoscalerConfig": obj("object", {"behavior": behavior})}),
            "triggers": {"type": "array", "items": trigger},
        },
        "scaleTargetRef",
        "triggers",
    )
    return {"openAPIV3Schema": obj("object", {"spec": spec})}


@pytest.fixture
def scaled_objects(kube_cluster: Cluster, kube_namespace: str) -> str:
    """Where ScaledObjects are taken; of a group of its own, for other tests have KEDA's with a schema of theirs."""
    names = {"plural": "scaledobjects", "singular": "scaledobject", "kind": "ScaledObject"}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": scaled_object_schema()}
    spec = {"group": "as.keda.sh", "scope": "Namespaced", "names": names, "versions": [version]}
    kube_cluster.request("POST", EXTENSIONS, {"metadata": {"name": "scaledobjects.as.keda.sh"}, "spec": spec})
    path = f"/apis/as.keda.sh/v1alpha1/namespaces/{kube_namespace}/scaledobjects"

    def served() -> bool:
        try:
            kube_cluster.request("GET", path)
        except AnswerError:
            return False
        return True

    until(served, "the definition is served")
    return path


@pytest.mark.real
def test_the_scaled_objects_have_kedas_fields_and_what_a_fallback_needs(
    kube_cluster: Cluster, kube_namespace: str, scaled_objects: str
) -> None:
    for name, kind in (("keda-prometheus", "prometheus"), ("keda-external", "external-push")):
        (manifest,) = manifests(name)
        assert (manifest["apiVersion"], manifest["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
        spec = manifest["spec"]
        (trigger,) = spec["triggers"]
        assert trigger["type"] == kind
        assert trigger.get("metricType", "AverageValue") == "AverageValue"  # else a fallback does not count
        assert spec["fallback"]["replicas"] > 0
        manifest["apiVersion"] = "as.keda.sh/v1alpha1"
        manifest["metadata"]["namespace"] = kube_namespace
        kube_cluster.request("POST", f"{scaled_objects}{DRY}", manifest)
        misspelt = {**manifest, "spec": {**spec, "fallbacks": {}}}
        with pytest.raises(AnswerError, match="unknown field"):
            kube_cluster.request("POST", f"{scaled_objects}{DRY}", misspelt)
    metadata = manifests("keda-prometheus")[0]["spec"]["triggers"][0]["metadata"]
    assert (metadata["ignoreNullValues"], metadata["threshold"]) == ("false", "1")


def signed(folder: Path, name: str) -> None:
    """NAME.crt and NAME.key for that DNS name, by an authority of its own: ca.crt."""

    def openssl(*arguments: str) -> None:
        ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        subprocess.run(["openssl", "req", "-x509", *ec, *arguments], cwd=folder, check=True, capture_output=True)

    openssl("-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", "ca.key",
            "-out", "ca.crt")  # fmt: skip
    openssl("-subj", "/CN=server", "-addext", f"subjectAltName=DNS:{name}", "-addext",
            "basicConstraints=critical,CA:FALSE", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-keyout", "tls.key", "-out", "tls.crt")  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def followed(kube_cluster: Cluster, kube_namespace: str, clock: Clock, tmp_path: Path) -> Iterator[Board]:
    """A board that the API server asks, as the page says, with the certificates that the page wants."""
    board = Board(clock)
    signed(tmp_path, f"tidewise-scale.{kube_namespace}.svc")
    (tmp_path / "front-proxy-ca.crt").write_bytes((kube_cluster.folder / "front-proxy-ca.crt").read_bytes())
    said = re.search(r"    tls_server_config:\n((?:      .*\n)+)", PAGE.read_text())
    assert said
    (tmp_path / "web.yml").write_text(f"tls_server_config:\n{said[1]}")
    settings = ExternalMetrics(listen=["127.0.0.1:0"], web_config=tmp_path / "web.yml")
    server = endpoint(settings, Numbers(board, {f"{kube_namespace}/video-analysis": Mode.ACT}, frozenset()))
    server.start()
    service, registration = manifests("external-metrics")
    assert service["spec"]["ports"][0]["port"] == registration["spec"]["service"]["port"]
    for manifest in (service, registration["spec"]["service"]):
        manifest.get("metadata", manifest)["namespace"] = kube_namespace
    services = f"/api/v1/namespaces/{kube_namespace}/services"
    kube_cluster.request("POST", f"{services}{DRY}", service)
    # There is no network of pods here: the same Service leads to the loopback instead.
    service["spec"] = {"type": "ExternalName", "externalName": "localhost"}
    registration["spec"]["service"]["port"] = int(server.addresses[0].rpartition(":")[2])
    registration["spec"]["caBundle"] = base64.b64encode((tmp_path / "ca.crt").read_bytes()).decode()
    kube_cluster.request("POST", services, service)
    kube_cluster.request("POST", f"{API_SERVICES}?fieldValidation=Strict", registration)
    try:
        until(lambda: available(kube_cluster), "the API server comes to us")
        yield board
    finally:
        kube_cluster.request("DELETE", API_SERVICE)
        server.stop()


def available(cluster: Cluster) -> bool:
    conditions = cluster.request("GET", API_SERVICE).get("status", {}).get("conditions", [])
    return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)


def deploy(cluster: Cluster, namespace: str, name: str) -> str:
    """The path of a Deployment of one replica."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "worker", "image": "none"}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    cluster.request("POST", path, {"metadata": {"name": name}, "spec": spec})
    return f"{path}/{name}"


@pytest.mark.real
def test_an_hpa_follows_the_number_up_and_down_and_holds_while_there_is_none(
    kube_cluster: Cluster, kube_namespace: str, followed: Board, clock: Clock
) -> None:
    workload = f"{kube_namespace}/video-analysis"
    followed.tell(workload, 1, 60)
    (hpa,) = manifests("hpa")
    hpa["metadata"]["namespace"] = kube_namespace
    for up_and_down in hpa["spec"]["behavior"].values():
        up_and_down["policies"][0]["periodSeconds"] = 1  # as often as this controller looks
    deployment = deploy(kube_cluster, kube_namespace, hpa["spec"]["scaleTargetRef"]["name"])
    path = f"/apis/autoscaling/v2/namespaces/{kube_namespace}/horizontalpodautoscalers"
    kube_cluster.request("POST", f"{path}?fieldValidation=Strict", hpa)

    def ready() -> int:
        return int(kube_cluster.request("GET", deployment)["status"].get("readyReplicas", 0))

    def condition(kind: str) -> Json:
        found = kube_cluster.request("GET", f"{path}/analysis-worker").get("status", {}).get("conditions", [])
        return next((one for one in found if one["type"] == kind), {})

    until(lambda: condition("ScalingActive").get("status") == "True", "the HPA reads the number")
    for number in (4, 11, 10):  # 10 is within a tenth of 11
        followed.tell(workload, number, 60)
        until(lambda number=number: ready() == number, f"{number} replicas")

    clock.now = 60.0  # the scaler has gone blind, and what it said has run out
    blind = "FailedGetExternalMetric"
    until(lambda: condition("ScalingActive").get("reason") == blind, "the HPA says that it is blind")
    assert f"the number of {workload} is unknown now" in condition("ScalingActive")["message"]
    time.sleep(1.5)  # another look of the HPA
    assert ready() == 10
    for number in (4, 1):
        followed.tell(workload, number, 60)
        until(lambda number=number: ready() == number, f"{number} replicas, once there is a number again")


@pytest.mark.real
def test_only_the_api_server_may_ask(followed: Board, kube_cluster: Cluster) -> None:
    port = kube_cluster.request("GET", API_SERVICE)["spec"]["service"]["port"]
    asked = ["curl", "-sk", "--noproxy", "*", f"https://localhost:{port}/apis/external.metrics.k8s.io/v1beta1"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stdout) == (True, "")
