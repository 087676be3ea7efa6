"""What a first configuration says: demands joined from several sources, guesses marked, names as they may be."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.config import Cluster, Config
from controllers.init.cloud import draft_of as group_draft
from controllers.init.cluster import default_kubeconfig, draft_of, quantity
from controllers.init.draft import Draft, Queue, Value, bounds, joined, label, text
from exporters.runtime.config import validate

HERE = Cluster(kubeconfig=Path("/etc/kube"))
REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "video-worker"}


def scaler(kind: str, spec: dict[str, Any], cores: float | None = 0.5) -> Draft:
    body = {"metadata": {"name": "own", "namespace": "prod", "uid": "1", "resourceVersion": "1"}, "spec": spec}
    return draft_of(kind, body, HERE, lambda: cores)


def hpa(*metrics: dict[str, Any], **spec: Any) -> Draft:
    return scaler(
        "HorizontalPodAutoscaler", {"scaleTargetRef": REFERENCE, "maxReplicas": 8, "metrics": list(metrics), **spec}
    )


def keda(*triggers: dict[str, Any], **spec: Any) -> Draft:
    return scaler("ScaledObject", {"scaleTargetRef": {"name": "video-worker"}, "triggers": list(triggers), **spec})


CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
CPU_QUERY = 'sum(rate(container_cpu_usage_seconds_total{namespace="prod",pod=~"video-worker-.+"}[2m]))'


@pytest.mark.parametrize(
    ("sentence", "draft", "demand", "capacity"),
    [
        ("CPU: a replica does its request times its target", hpa(CPU), {"promql": CPU_QUERY}, 2.5),
        (
            "a metric of pods",
            hpa(
                {
                    "type": "Pods",
                    "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "20"}},
                }
            ),
            {"promql": 'sum(hits{namespace="prod",pod=~"video-worker-.+"})'},
            0.05,
        ),
        (
            "an external metric with its labels",
            hpa(
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": "jobs", "selector": {"matchLabels": {"queue": "video"}}},
                        "target": {"type": "AverageValue", "averageValue": "500m"},
                    },
                }
            ),
            {"promql": 'sum(jobs{queue="video"})'},
            2.0,
        ),
        (
            "bytes, of which one takes next to no time",
            hpa(
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": "bytes"},
                        "target": {"type": "AverageValue", "averageValue": "10Mi"},
                    },
                }
            ),
            {"promql": "sum(bytes)"},
            9.53674e-08,
        ),
        (
            "a Redis list",
            keda({"type": "redis", "metadata": {"listName": "video-jobs", "listLength": "5"}}),
            {"queue": "video-jobs", "system": "redis"},
            None,
        ),
        (
            "an SQS queue by its address",
            keda({"type": "aws-sqs-queue", "metadata": {"queueURL": "https://sqs.eu-west-1.amazonaws.com/1/video"}}),
            {"queue": "video", "system": "sqs"},
            None,
        ),
        (
            "a rate in Prometheus",
            keda({"type": "prometheus", "metadata": {"query": "sum(rate(hits[1m]))", "threshold": "4"}}),
            {"promql": "sum(rate(hits[1m]))"},
            0.25,
        ),
        ("KEDA's CPU", keda({"type": "cpu", "metadata": {"value": "50"}}), {"promql": CPU_QUERY}, 4.0),
    ],
)
def test_demand_of_a_scaler(sentence: str, draft: Draft, demand: dict[str, Any], capacity: float | None) -> None:
    assert draft.demand is not None
    assert draft.demand.value == demand, sentence
    assert draft.demand.guess, "nobody said that this is what arrives"
    assert (draft.capacity.value["service_seconds"] if draft.capacity else None) == capacity


@pytest.mark.parametrize(
    ("trigger", "note"),
    [
        (
            {"type": "prometheus", "metadata": {"query": "sum(queue_length)", "threshold": "4"}},
            "left out: its prometheus trigger, a level and no rate: sum(queue_length)",
        ),
        (
            {
                "type": "cron",
                "metadata": {
                    "start": "0 8 * * *", "end": "0 18 * * *", "timezone": "UTC", "desiredReplicas": "3",
                },
            },
            "left out: its cron trigger, 3 replicas from '0 8 * * *' to '0 18 * * *' in UTC; write it as schedule",
        ),
        ({"type": "kafka", "metadata": {}}, "left out: its trigger kafka"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_said(trigger: dict[str, Any], note: str) -> None:
    draft = keda(trigger)
    assert draft.demand is None
    assert draft.notes == (note,)


def test_a_value_for_all_replicas_together_is_no_capacity_of_one() -> None:
    """An HPA holds a latency, say, at it; that says neither what arrives nor what one replica does."""
    external = {"metric": {"name": "p95_seconds"}, "target": {"type": "Value", "value": "250m"}}
    draft = hpa({"type": "External", "external": external})
    assert (draft.demand, draft.capacity, draft.notes) == (None, None, ("left out: its metric p95_seconds",))


def test_bounds_and_targets() -> None:
    assert hpa(CPU).replicas == Value({"min": 1, "max": 8})
    assert hpa(CPU, minReplicas=3).replicas.value == {"min": 3, "max": 8}
    no_maximum = keda()
    assert no_maximum.replicas.value == {"min": 0, "max": 100}
    assert no_maximum.replicas.guess == "it states no maxReplicaCount, so KEDA's own counts"
    assert hpa(CPU).target.value == {
        "kubernetes": {"kubeconfig": "/etc/kube", "namespace": "prod", "deployment": "video-worker"}
    }
    rollout = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web"}
    assert hpa(CPU, scaleTargetRef=rollout).target.value["kubernetes"]["generic"] == {
        "kind": "Rollout", "name": "web", "api_version": "argoproj.io/v1alpha1",
    }  # fmt: skip
    assert bounds(0, 0) == Value({"min": 0, "max": 1}, "its maximum is 0: switched off")
    assert bounds(5, 3).value == {"min": 3, "max": 3}


@pytest.mark.parametrize(
    ("written", "number"), [("500m", 0.5), ("2", 2.0), ("1k", 1000.0), ("0", None), ("much", None), (None, None)]
)
def test_quantities(written: Any, number: float | None) -> None:
    assert quantity(written) == number


def group(name: str, **more: Any) -> Draft:
    return group_draft({"AutoScalingGroupName": name, "MinSize": 0, "MaxSize": 4, **more}, "eu-west-1", None, None)


def demands(drafts: list[Draft]) -> dict[str, Any]:
    return {draft.identity: draft.demand.value if draft.demand else None for draft in drafts}


@pytest.mark.parametrize(
    ("sentence", "drafts", "queues", "services", "expected"),
    [
        (
            "the queue that a trigger names, with the system that Prometheus knows",
            [keda({"type": "redis", "metadata": {"listName": "video"}})],
            [Queue("celery", "video")],
            [],
            {"prod/video-worker": {"queue": "video", "system": "celery"}},
        ),
        (
            "a service of the same name is better than CPU",
            [hpa(CPU)],
            [],
            ["video-worker"],
            {"prod/video-worker": {"service": "video-worker"}},
        ),
        (
            "and so is the queue whose name is nearest",
            [hpa(CPU)],
            [Queue("redis", "mail-jobs"), Queue("redis", "video-jobs")],
            [],
            {
                "prod/video-worker": {"queue": "video-jobs", "system": "redis"},
                "default/mail-jobs": {"queue": "mail-jobs", "system": "redis"},
            },
        ),
        (
            "two queues that are as near are near to nobody",
            [group("video")],
            [Queue("redis", "video-a"), Queue("redis", "video-b")],
            [],
            {
                "default/video": {"service": "video"},
                "default/video-a": {"queue": "video-a", "system": "redis"},
                "default/video-b": {"queue": "video-b", "system": "redis"},
            },
        ),
        (
            "words that everybody uses bring nothing together",
            [group("workers")],
            [Queue("redis", "workers-queue")],
            [],
            {"default/workers": {"service": "workers"},
             "default/workers-queue": {"queue": "workers-queue", "system": "redis"}},
        ),
        (
            "no name twice",
            [group("Video"), group("video")],
            [],
            [],
            {"default/video": {"service": "video"}, "default/video-2": {"service": "video"}},
        ),
    ],
)  # fmt: skip
def test_what_belongs_together(
    sentence: str, drafts: list[Draft], queues: list[Queue], services: list[str], expected: dict[str, Any]
) -> None:
    assert demands(joined(drafts, queues, services)) == expected, sentence


@pytest.mark.parametrize(
    ("found", "name"),
    [("Video_Workers EU", "video-workers-eu"), ("--x--", "x"), ("💡", "workload"), ("a" * 80, "a" * 63)],
)
def test_names(found: str, name: str) -> None:
    assert label(found) == name


def test_the_file_says_what_is_a_guess_and_is_a_configuration() -> None:
    drafts = joined([hpa(CPU), group("Blue: green", SuspendedProcesses=[{"ProcessName": "Launch"}])], [], [])
    content = text(drafts, "http://prometheus:9090", ["the cluster: 1 HorizontalPodAutoscaler"])
    assert content == (
        "# A first configuration, written by `tidewise init` from what it found:\n"
        "#   the cluster: 1 HorizontalPodAutoscaler\n"
        "# Every workload is in shadow: it is decided and published, and nothing is touched.\n"
        "# What stands behind 'guess:' nobody said so; look at it, then remove the comment.\n"
        "prometheus: {url: 'http://prometheus:9090'}\n"
        "workloads:\n"
        "\n"
        "  # from the HorizontalPodAutoscaler prod/own\n"
        "  - name: video-worker\n"
        "    namespace: prod\n"
        "    # guess: CPU seconds a second are its work; a queue or service is better\n"
        '    demand: {promql: \'sum(rate(container_cpu_usage_seconds_total{namespace="prod",'
        'pod=~"video-worker-.+"}[2m]))\'}\n'
        "    target: {kubernetes: {kubeconfig: /etc/kube, namespace: prod, deployment: video-worker}}\n"
        "    replicas: {min: 1, max: 8}\n"
        "    # guess: from its target of 80% of 0.5 cores\n"
        "    capacity: {service_seconds: 2.5}\n"
        "    mode: shadow\n"
        "\n"
        "  # from the Auto Scaling group Blue: green in eu-west-1\n"
        "  # its processes Launch are suspended\n"
        "  - name: blue-green\n"
        "    # guess: nothing found says what arrives; name its queue, its service, or a promql (per second)\n"
        "    demand: {service: blue-green}\n"
        "    target: {aws: {region: eu-west-1, auto_scaling_group: 'Blue: green'}}\n"
        "    replicas: {min: 0, max: 4}\n"
        "    mode: shadow\n"
    )
    config = validate(Config, yaml.safe_load(content), Path("tidewise.yaml"))
    assert [w.identity for w in config.workloads] == ["prod/video-worker", "default/blue-green"]


def test_the_kubeconfig_is_where_kubectl_looks(tmp_path: Path) -> None:
    assert default_kubeconfig({}, tmp_path) is None
    assert default_kubeconfig({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path) == Cluster()
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text("")
    assert default_kubeconfig({}, tmp_path) == Cluster(kubeconfig=tmp_path / ".kube" / "config")
    (tmp_path / "other").write_text("")
    named = {"KUBECONFIG": f"{tmp_path}/other:{tmp_path}/more"}
    assert default_kubeconfig(named, tmp_path) == Cluster(kubeconfig=tmp_path / "other")


def test_what_is_written_in_somebody_s_cluster_stays_a_comment() -> None:
    trigger = {
        "type": "cron",
        "metadata": {"start": "0 8 * * *\n", "end": "x\n    mode: act\x1b", "timezone": "\u2028"},
    }
    queue = Queue("redis", "jobs\n    mode: act")
    content = text(joined([keda(trigger)], [queue], []), "http://prometheus:9090", ["a cluster\n- of theirs"])
    config = validate(Config, yaml.safe_load(content), Path("tidewise.yaml"))
    assert [w.mode.value for w in config.workloads] == ["shadow", "shadow"]
    assert config.workloads[1].demand.queue == queue.name
