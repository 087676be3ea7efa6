"""`tidewise init` on real parts: a control plane, a fake AWS, a real Prometheus; and what it says where none is."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from controllers import check
from controllers.__main__ import main
from controllers.config import load
from controllers.domain import Mode
from testbed.kube.cluster import AnswerError
from testbed.kube.cluster import Cluster as ControlPlane
from testbed.parts import Prometheus

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def init(out: Path, *words: str) -> int:
    return main(["init", "--out", str(out), *words])


def test_where_there_is_nothing_it_says_where_it_looked_and_writes_nothing(tmp_path: Path, capsys: Any) -> None:
    assert init(tmp_path / "tidewise.yaml") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "looked at no cluster: there is no kubeconfig where kubectl looks; name one with --kubeconfig\n" in said.err
    assert "looked at no cloud: name a region with --aws-region\n" in said.err
    assert "could not look at Prometheus http://127.0.0.1:9090: " in said.err
    assert said.err.endswith(
        "nothing to scale was found, so nothing is written; docs/configuration.md shows a first one by hand\n"
    )
    assert not (tmp_path / "tidewise.yaml").exists()


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text("mine")
    assert init(path) == 2
    assert capsys.readouterr().err == (
        f"{path}: is there already and is not overwritten; name another with --out, or - to see it\n"
    )
    assert path.read_text() == "mine"


def test_what_was_named_and_cannot_be_asked_is_an_error(tmp_path: Path, capsys: Any) -> None:
    assert init(tmp_path / "new.yaml", "--kubeconfig", str(tmp_path / "none"), "--prometheus", NOWHERE) == 1
    said = capsys.readouterr().err
    assert f"could not look at the cluster: {tmp_path}/none: no such file" in said
    assert f"could not look at Prometheus {NOWHERE}" in said
    assert main(["init", "--prometheus", "nowhere"]) == 2
    assert "--prometheus: url: found 'nowhere'" in capsys.readouterr().err


def make_keda(cluster: ControlPlane, namespace: str) -> str:
    """The path of the namespace's ScaledObjects, of a definition that lets all through."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": "scaledobjects", "singular": "scaledobject", "kind": "ScaledObject", "listKind": "ScaledObjects"}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "keda.sh", "scope": "Namespaced", "names": names, "versions": [version]}
    definition = {"metadata": {"name": "scaledobjects.keda.sh"}, "spec": spec}
    try:
        cluster.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    except AnswerError as error:
        if error.status != 409:  # another test has made it
            raise
    path = f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects"
    deadline = time.monotonic() + 30
    while True:
        try:
            cluster.request("GET", path)
            return path
        except AnswerError:
            assert time.monotonic() < deadline, "ScaledObjects are not served"
            time.sleep(0.1)


@pytest.mark.real
def test_a_cluster_with_an_hpa_and_keda(
    kube_cluster: ControlPlane, kube_namespace: str, tmp_path: Path, capsys: Any
) -> None:
    apps = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    labels = {"matchLabels": {"app": "api"}}
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": "500m"}}}
    pods = {"metadata": {"labels": {"app": "api"}}, "spec": {"containers": [container]}}
    kube_cluster.request(
        "POST", apps, {"metadata": {"name": "api"}, "spec": {"replicas": 0, "selector": labels, "template": pods}}
    )
    kube_cluster.request(
        "POST",
        f"/apis/autoscaling/v2/namespaces/{kube_namespace}/horizontalpodautoscalers",
        {
            "metadata": {"name": "api"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
                "minReplicas": 2,
                "maxReplicas": 6,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                    }
                ],
            },
        },
    )
    kube_cluster.request(
        "POST",
        make_keda(kube_cluster, kube_namespace),
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": "video"},
            "spec": {
                "scaleTargetRef": {"name": "video-worker"},
                "maxReplicaCount": 9,
                "triggers": [{"type": "redis", "metadata": {"listName": "video-jobs", "listLength": "5"}}],
            },
        },
    )
    path = tmp_path / "tidewise.yaml"
    kubeconfig = ["--kubeconfig", str(kube_cluster.kubeconfig)]
    assert init(path, *kubeconfig, "--namespace", kube_namespace) == 0
    said = capsys.readouterr()
    assert said.out == (f"{path}: 2 workloads in shadow mode, 3 guesses to look at\nnext: tidewise check {path}\n")
    assert f"namespace {kube_namespace}: 1 ScaledObject of KEDA" in said.err
    api, video = load(path).workloads
    assert (api.identity, api.replicas.min, api.replicas.max) == (f"{kube_namespace}/api", 2, 6)
    assert api.capacity.service_seconds == 2.5, "half a core at 80 %"
    assert (video.demand.queue, video.replicas.min, video.replicas.max) == ("video-jobs", 0, 9)
    assert {api.mode, video.mode} == {Mode.SHADOW}
    assert check.main([str(path), "--no-prometheus"]) == 0
    assert init(tmp_path / "all.yaml", *kubeconfig) == 0, "and without a namespace all of them"
    assert f"{kube_namespace}/api" in [w.identity for w in load(tmp_path / "all.yaml").workloads]

    stranger = kube_cluster.service_account(kube_namespace, "stranger", [])
    assert init(tmp_path / "not.yaml", "--kubeconfig", str(stranger)) == 1
    assert "(403)" in (refused := capsys.readouterr().err)
    assert "(or name what you may read with --namespace)" in refused


@pytest.mark.real
def test_groups_of_a_region_and_queues_of_prometheus(
    moto_url: str, prometheus_factory: Callable[..., Prometheus], tmp_path: Path, capsys: Any
) -> None:
    region = "eu-west-1"
    ec2 = boto3.client("ec2", region_name=region, endpoint_url=moto_url)
    ec2.create_launch_template(
        LaunchTemplateName="worker", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"}
    )
    boto3.client("autoscaling", region_name=region, endpoint_url=moto_url).create_auto_scaling_group(
        AutoScalingGroupName="Video_Workers",
        LaunchTemplate={"LaunchTemplateName": "worker", "Version": "$Default"},
        MinSize=1,
        MaxSize=6,
        DesiredCapacity=1,
        AvailabilityZones=[f"{region}a"],
    )
    rules = [
        {"record": "queue:messages:sum", "expr": "vector(3)", "labels": {"system": "rabbitmq", "queue": name}}
        for name in ("video-jobs", "mail")
    ]
    (tmp_path / "given.yml").write_text(yaml.safe_dump({"groups": [{"name": "given", "rules": rules}]}))
    (tmp_path / "prometheus.yml").write_text(
        yaml.safe_dump({"global": {"evaluation_interval": "1s"}, "rule_files": [str(tmp_path / "given.yml")]})
    )
    url = prometheus_factory(tmp_path / "prometheus.yml").url
    path = tmp_path / "tidewise.yaml"
    cloud = ["--aws-region", region, "--aws-endpoint-url", moto_url]
    deadline = time.monotonic() + 30
    while init(path, "--prometheus", url, *cloud) != 0 or "no queues" in capsys.readouterr().err:
        assert time.monotonic() < deadline
        path.unlink(missing_ok=True)
        time.sleep(0.2)
    workers, mail = load(path).workloads
    assert workers.identity == "default/video-workers"
    assert (workers.demand.queue, workers.demand.system) == ("video-jobs", "rabbitmq")
    assert workers.target.aws is not None
    assert workers.target.aws.auto_scaling_group == "Video_Workers"
    assert (workers.replicas.min, workers.replicas.max) == (1, 6)
    assert (mail.identity, mail.demand.queue) == ("default/mail", "mail")
    assert check.main([str(path), "--no-prometheus"]) == 0
    assert main(["init", "--prometheus", url, "--out", "-", *cloud]) == 0
    assert capsys.readouterr().out.endswith(path.read_text())
