"""`tidewise promote`: the proof in figures, what speaks against it, and exactly one word changed."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from controllers.__main__ import main
from controllers.config import load
from controllers.domain import Mode, Reason, Sample
from controllers.promote.command import preconditions, replay_table, told
from controllers.promote.evidence import evidence
from controllers.scale.moments import zone_of
from controllers.scale.records import Record, Records
from controllers.scale.state import Decision, Rules, State
from testbed.kube.cluster import Cluster as ControlPlane
from testbed.parts import Prometheus
from tests.controllers.actuators.lagging_aws import REGION, Cloud

NOW = 1_790_000_000.0
RULES = Rules(
    "default/video", True, 0, 20, 5.0, 0.95, 1, None, 60.0, 60.0, 300.0, None, 4, 15.0, 120.0, Mode.SHADOW
)  # fmt: skip


def record(at: float, ran: int, needed: int, desired: int | None = None, ready: int | None = None) -> Record:
    wanted = needed if desired is None else desired
    decision = Decision(
        "default/video", at, wanted, ran, ran if ready is None else ready, needed, needed, None, (Reason.REACTIVE,),
        lead_seconds=120.0,
    )  # fmt: skip
    return Record(State(now=at, demand=Sample(1.0, at)), RULES, decision, Reason.SHADOW)


def test_hours_and_time_short_are_counted_for_what_ran_and_for_acting() -> None:
    found = evidence(
        [
            record(NOW, ran=4, needed=2),
            record(NOW + 600, ran=4, needed=6),
            record(NOW + 1200, ran=4, needed=6),
            record(NOW + 1800, ran=6, needed=2),
        ],
        NOW + 2400,
        1000.0,
    )
    assert found is not None
    assert (found.since, found.until, found.unknown_seconds) == (NOW, NOW + 2400, 0.0)
    assert found.ran.replica_hours == pytest.approx((4 + 4 + 4 + 6) / 6)
    assert found.act.replica_hours == pytest.approx((2 + 6 + 6 + 2) / 6)
    assert found.ran.short_seconds == 1200
    assert found.act.short_seconds == 120, "a lead time after it was asked for it is there"
    assert (found.ran.changes, found.act.changes) == (1, 2)


def test_what_was_not_decided_or_not_known_is_unknown_and_counts_for_neither() -> None:
    blind = record(NOW + 600, 4, 4)
    blind = replace(blind, decision=replace(blind.decision, desired=None, current=None, recommended=None))
    found = evidence([record(NOW, 4, 4), blind, record(NOW + 7200, 4, 4)], NOW + 7800, 1000.0)
    assert found is not None
    assert found.unknown_seconds == 6600
    assert found.ran.replica_hours == pytest.approx(4 * 1200 / 3600)


def test_a_decision_below_the_need_is_short_for_all_of_it() -> None:
    found = evidence([record(NOW, 4, 6, desired=5), record(NOW + 600, 4, 4)], NOW + 600, 1000.0)
    assert found is not None
    assert found.act.short_seconds == 600
    assert evidence([record(NOW, 4, 4)], NOW + 60, 1000.0) is None


def configuration(folder: Path, url: str = "http://127.0.0.1:9", **changes: Any) -> Path:
    workload = {
        "name": "video",
        "demand": {"queue": "jobs"},
        "target": {"command": {"get": ["echo", "4"], "set": ["true", "{replicas}"]}},
        "replicas": {"min": 0, "max": 20},
        "price": {"per_replica_hour": "12 KRW"},
        **changes,
    }
    path = folder / "tidewise.yaml"
    path.write_text(
        "# ours\n"
        + yaml.safe_dump(
            {
                "prometheus": {"url": url},
                "workloads": [workload],
                "scale": {"records": str(folder / "decisions")},
            }
        )
    )
    return path


def run(path: Path, *words: str) -> int:
    return main(["promote", *words, "--config", str(path)])


def test_the_table(tmp_path: Path) -> None:
    config = load(configuration(tmp_path, time_zone="Asia/Seoul"))
    records = [record(NOW + 600 * n, ran=4, needed=6 if n >= 30 else 2) for n in range(60)]
    found = evidence(records, NOW + 36_000, 1000.0)
    assert found is not None
    assert "\n".join(told(found, config.workloads[0], zone_of(config.workloads[0], config))) == (
        "default/video, 2026-09-21 23:13:20 KST to 2026-09-22 09:13:20 KST, from its decisions\n"
        "                           what ran   acting\n"
        "  replica-hours                40.0     40.0\n"
        "  they cost                 480 KRW  480 KRW\n"
        "  fewer ready than needed   300 min    2 min\n"
        "    share of the time       50.00 %   0.33 %\n"
        "  changes                         0        1\n"
        "  an estimate: in shadow each decision starts from the replicas that somebody else has set"
    )


def test_the_table_of_a_replay(tmp_path: Path) -> None:
    config = load(configuration(tmp_path))
    runs = {
        "tidewise": {"money": 9876.4, "replica_hours": 823.04, "slo_minutes": 12.0, "under": 0.0011},
        "as-it-was": {"money": 14_880.0, "replica_hours": 1240.0, "slo_minutes": 95.0, "under": 0.0088},
        "hpa": {"money": None, "replica_hours": None, "slo_minutes": None, "under": None},
    }
    setting = {"begin": "2026-09-01T00:00:00+00:00", "end": "2026-09-08T12:00:00+00:00"}
    found = {"policies": runs, "setting": setting, "notes": ["No start was measured."]}
    assert "\n".join(replay_table(found, config.workloads[0], ZoneInfo("UTC"))) == (
        "default/video, 2026-09-01 00:00 UTC to 2026-09-08 12:00 UTC, a replay of its demand in Prometheus\n"
        "                      replica-hours    they cost  SLO minutes  short of the time\n"
        "  acting                      823.0    9,876 KRW           12             0.11 %\n"
        "  what ran                  1,240.0   14,880 KRW           95             0.88 %\n"
        "  an HPA as it comes        unknown  unknown KRW      unknown          unknown %\n"
        "  No start was measured.\n"
        "  tidewise replay --workload default/video tells more"
    )


def test_what_cannot_act_yet_is_not_promoted_unless_somebody_insists(tmp_path: Path, capsys: Any) -> None:
    target = {"command": {"get": ["false"], "set": ["true", "{replicas}"]}}
    path = configuration(tmp_path, target=target)
    before = path.read_bytes()
    assert run(path, "video", "--write") == 1
    said = capsys.readouterr()
    assert "no replay of its demand: unreachable" in said.out
    assert f"what acting would have come to is not known: {tmp_path}/decisions: no such folder" in said.out
    assert "  NOT YET  http://127.0.0.1:9 tells nothing (unreachable" in said.out
    assert "  NOT YET  the target cannot be read: " in said.out
    assert said.err == "default/video: not yet; mend what stands above, or add --anyway\n"
    assert path.read_bytes() == before
    assert run(path, "video", "--anyway") == 0
    assert "+  mode: act\n" in capsys.readouterr().out
    assert path.read_bytes() == before, "without --write the change is only shown"


def test_back_to_shadow_needs_no_proof_and_keeps_permissions_and_comments(tmp_path: Path, capsys: Any) -> None:
    path = configuration(tmp_path, mode="act")
    path.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    assert main(["promote", "video", "--to", "shadow", "--write", "--config", str(link)]) == 0
    assert path.read_text().startswith("# ours\n")
    assert load(path).workloads[0].mode is Mode.SHADOW
    assert path.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link.yaml", "tidewise.yaml"]
    assert "restart `tidewise scale`" in capsys.readouterr().out
    assert run(path, "video", "--to", "shadow") == 0
    assert capsys.readouterr().out == "default/video: its mode is shadow already\n"


def test_a_workload_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    path = configuration(tmp_path)
    assert run(path, "vidoe") == 2
    assert capsys.readouterr().err == f"{path}: no workload 'vidoe'; did you mean 'video'?\n"


def test_on_aws_it_says_who_else_scales(moto_url: str, tmp_path: Path) -> None:
    cloud = Cloud(moto_url)
    cloud.real("ec2").create_launch_template(
        LaunchTemplateName="worker", LaunchTemplateData={"ImageId": "ami-12345678"}
    )
    group = {"AutoScalingGroupName": "workers", "MinSize": 0, "MaxSize": 9, "AvailabilityZones": ["eu-west-1a"]}
    cloud.real("autoscaling").create_auto_scaling_group(LaunchTemplate={"LaunchTemplateName": "worker"}, **group)
    cloud.real("autoscaling").put_scaling_policy(
        AutoScalingGroupName="workers", PolicyName="cpu", AdjustmentType="ChangeInCapacity", ScalingAdjustment=1
    )
    aws = {"region": REGION, "endpoint_url": moto_url, "auto_scaling_group": "workers"}
    config = load(configuration(tmp_path, target={"aws": aws}))
    found = [str(one) for one in preconditions(config, config.workloads[0], NOW, [])]
    assert "  ok       default/video: aws: 0 of 0 replicas work" in found
    assert any(one.startswith("  NOT YET  default/video: aws: ") and "policy cpu scales it" in one for one in found)


@pytest.mark.real
def test_what_can_act_is_promoted_by_one_word(
    tmp_path: Path, prometheus_factory: Callable[..., Prometheus], capsys: Any
) -> None:
    import time

    given = {"rate1m": "workload:demand:rate1m", "age": "workload:data_age_seconds:max", "back": "workload:backlog:sum"}
    rules = [{"record": name, "expr": "vector(1)", "labels": {"workload": "default/video"}} for name in given.values()]
    (tmp_path / "given.yml").write_text(yaml.safe_dump({"groups": [{"name": "given", "rules": rules}]}))
    (tmp_path / "prometheus.yml").write_text(
        yaml.safe_dump({"global": {"evaluation_interval": "1s"}, "rule_files": [str(tmp_path / "given.yml")]})
    )
    server = prometheus_factory(tmp_path / "prometheus.yml")
    path = configuration(tmp_path, server.url)
    records = Records(tmp_path / "decisions", 0)
    now = time.time()
    for number in range(200, 0, -1):
        records.write(record(now - 600 * number + 300, ran=4, needed=2))
    deadline = time.monotonic() + 30
    while run(path, "video", "--write") != 0:
        said = capsys.readouterr()
        assert time.monotonic() < deadline, said.out
        time.sleep(0.3)
    said = capsys.readouterr()
    assert f"  ok       {server.url} has what it is decided from" in said.out
    assert "  ok       the target (command) answers: 4 ready of 4" in said.out
    assert "  ok       1 d 9 h of decisions are on record" in said.out
    assert "  mind     scale.token_file: is missing, so nobody could surge or pause it" in said.out
    assert [line for line in said.out.splitlines() if line.startswith(("+", "-")) and "mode" in line] == [
        "+  mode: act"
    ]
    assert load(path).workloads[0].mode is Mode.ACT


@pytest.mark.real
def test_on_kubernetes_it_says_who_else_scales_and_which_rights_are_missing(
    kube_cluster: ControlPlane, kube_namespace: str, tmp_path: Path
) -> None:
    template = {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "w"}}, "template": template}
    apps = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    kube_cluster.request("POST", apps, {"metadata": {"name": "worker"}, "spec": spec})
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"}
    kube_cluster.request(
        "POST",
        f"/apis/autoscaling/v2/namespaces/{kube_namespace}/horizontalpodautoscalers",
        {"metadata": {"name": "own"}, "spec": {"scaleTargetRef": reference, "maxReplicas": 3}},
    )

    def findings(kubeconfig: Path) -> list[str]:
        target = {"namespace": kube_namespace, "deployment": "worker", "kubeconfig": str(kubeconfig)}
        config = load(configuration(tmp_path, target={"kubernetes": target}))
        return [str(finding) for finding in preconditions(config, config.workloads[0], NOW, [])]

    may_all = findings(kube_cluster.kubeconfig)
    assert "  ok       the target (kubernetes) answers: 0 ready of 0" in may_all
    assert any("HorizontalPodAutoscaler own" in line for line in may_all), may_all
    looks_only = [
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
        {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list"]},
    ]
    looking = findings(kube_cluster.service_account(kube_namespace, "looker", looks_only))
    missing = [line for line in looking if "NOT YET" in line and "patch" in line]
    assert missing, looking
