"""The demo's workload on AWS: the scaler's own steps on moto, Kubernetes beside it, while a load comes and goes.

Prometheus is a script; everything behind it is as in `tidewise scale`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controllers.actuators import Actuator
from controllers.actuators.aws import aws_actuator
from controllers.actuators.kubernetes import kubernetes_actuator
from controllers.actuators.several import several_actuator
from controllers.config import Cluster, Config, Target
from controllers.domain import Reason
from controllers.kubernetes_api import Api
from controllers.loop import Tick
from controllers.scale.records import Record, read
from controllers.scale.scaler import Scaler
from demo import configuration, settings
from tests.controllers.actuators.lagging_aws import REGION, Cloud, drops_the_answer
from tests.controllers.scale.scripted import NOW, ScriptedSource, shown

STEP_SECONDS = 15.0
LOW, HIGH = 2.0, 8.0  # jobs a second, of half a second each


@pytest.fixture
def cloud(moto_url: str) -> Cloud:
    cloud = Cloud(moto_url, now=NOW)
    cloud.real("ec2").create_launch_template(
        LaunchTemplateName="worker", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"}
    )
    return cloud


class Ground:
    """The scaler of the demo's workload on another target, and a load for it."""

    def __init__(self, cloud: Cloud, folder: Path, target: dict[str, Any], make: Callable[[Target], Actuator]) -> None:
        addresses = configuration.Addresses("redis://127.0.0.1", *range(1, 11))
        document = configuration.tidewise(settings.Settings(folder=folder, budget=False), addresses)
        document["workloads"][0] |= {
            "target": target,
            "stabilization_window_seconds": 60.0,
            "minimum_run_seconds": 30.0,
            "replicas": {"min": 1, "max": 8},
        }
        self.config = Config.model_validate({key: document[key] for key in ("prometheus", "workloads", "scale")})
        self.cloud, self.make = cloud, make
        self.source = ScriptedSource()
        self.after_step: Callable[[], None] = lambda: None
        self.start()

    def start(self) -> None:
        """A new process."""
        actuator = self.make(self.config.workloads[0].target)
        self.scaler = Scaler(self.config, self.source, {settings.WORKLOAD: actuator})  # type: ignore[arg-type]

    def load(self, per_second: float, steps: int) -> None:
        """So many jobs a second, for so many steps."""
        of = (("workload", settings.WORKLOAD),)
        values = {"demand:rate1m": per_second, "backlog:sum": 0.0, "service_seconds:mean5m": 0.5}
        values |= {"data_age_seconds:max": 3.0}
        self.source.values = {f"workload:{name}": {of: value} for name, value in values.items()}
        for _ in range(steps):
            self.source.now = self.cloud.now
            self.scaler.step(Tick(self.cloud.now, Tick.starting(60).until))
            self.after_step()
            self.cloud.now += STEP_SECONDS

    def records(self) -> list[Record]:
        return list(read(self.config.scale.records))

    def last(self) -> tuple[int, int, int]:
        """Wanted, ready, draining, as the last step saw them."""
        replicas = self.records()[-1].state.replicas
        assert replicas is not None
        return replicas.wanted, replicas.ready, replicas.draining


def on_aws(cloud: Cloud) -> Callable[[Target], Actuator]:
    def make(target: Target) -> Actuator:
        assert target.aws is not None
        return aws_actuator(target.aws, cloud.account(), cloud.clock)

    return make


def test_the_load_rises_and_falls_over_instances_behind_a_load_balancer(cloud: Cloud, tmp_path: Path) -> None:
    vpc = cloud.real("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    made = cloud.real("elbv2").create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=vpc)
    cloud.boot_seconds, cloud.drain_seconds, cloud.lag_seconds = 20.0, 40.0, 10.0
    aws = {
        "region": REGION,
        "target_groups": [made["TargetGroups"][0]["TargetGroupArn"]],
        "instances": {"fleet": "video", "launch_template": "worker"},
    }
    ground = Ground(cloud, tmp_path, {"aws": aws}, on_aws(cloud))
    ground.load(LOW, 8)
    low = ground.last()
    assert low[0] == low[1] >= 1
    assert low[0] <= 3

    cloud.fails("run_instances", drops_the_answer, nth=2)
    ground.load(HIGH, 2)
    ground.start()  # in the middle of it another process takes over
    ground.load(HIGH, 14)
    high = ground.last()
    assert high[0] == high[1] >= 4, "half a second each, eight a second"
    assert len(cloud.instances()) == high[0], "none too many, though an answer was lost and a process ended"

    ground.load(LOW, 24)
    assert ground.last() == low
    assert len(cloud.instances()) == low[0]
    deregistered = [
        one["Id"] for name, asked in cloud.calls if name == "deregister_targets" for one in asked["Targets"]
    ]
    ended = [one for name, asked in cloud.calls if name == "terminate_instances" for one in asked["InstanceIds"]]
    assert set(ended) <= set(deregistered), "nobody ended whom the load balancer still sent work"
    before = [record.state.replicas for record in ground.records()]
    assert all(found is not None and found.ready >= min(low[0], found.wanted) for found in before[12:])


def test_the_load_rises_and_falls_over_an_auto_scaling_group(cloud: Cloud, tmp_path: Path) -> None:
    cloud.real("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="workers",
        LaunchTemplate={"LaunchTemplateName": "worker", "Version": "$Default"},
        MinSize=1,
        MaxSize=8,
        DesiredCapacity=1,
        AvailabilityZones=["eu-west-1a"],
    )
    aws = {"region": REGION, "auto_scaling_group": "workers"}
    ground = Ground(cloud, tmp_path, {"aws": aws}, on_aws(cloud))
    ground.load(LOW, 4)
    low = ground.last()
    ground.load(HIGH, 6)
    high = ground.last()
    ground.load(LOW, 16)
    assert high[1] >= 4 > low[1]
    assert ground.last() == low
    outcomes = {record.outcome for record in ground.records()}
    assert outcomes == {Reason.APPLIED, Reason.ALREADY_THERE}


SCALE = "/apis/apps/v1/namespaces/prod/deployments/worker/scale"
PODS = "/api/v1/namespaces/prod/pods"


def test_ones_own_cluster_is_filled_first_and_the_cloud_takes_the_rest(
    cloud: Cloud, tmp_path: Path, fake_api: Any, kubeconfig: Path
) -> None:
    meta = {"name": "worker", "namespace": "prod"}
    status = {"replicas": 1, "selector": "app=worker"}
    fake_api.put(
        SCALE,
        {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {"replicas": 1}, "status": status},
    )
    fake_api.objects["/apis/autoscaling/v2/namespaces/prod/horizontalpodautoscalers"] = {"items": []}
    own = {"kubernetes": {"kubeconfig": str(kubeconfig), "namespace": "prod", "deployment": "worker"}}
    rented = {"aws": {"region": REGION, "instances": {"fleet": "video", "launch_template": "worker"}}}
    parts = [{"name": "own", "min": 1, "max": 3, "target": own}, {"name": "cloud", "max": 5, "target": rented}]

    def make(target: Target) -> Actuator:
        def one(part: Target) -> Actuator:
            if part.aws is not None:
                return aws_actuator(part.aws, cloud.account(), cloud.clock)
            assert part.kubernetes is not None
            return kubernetes_actuator(part.kubernetes, Api(Cluster(kubeconfig=kubeconfig)))

        assert target.several is not None
        return several_actuator(target.several, one, cloud.clock)

    def wanted() -> int:
        return int(fake_api.objects[SCALE]["spec"].get("replicas", 0))

    def pods_follow() -> None:
        pod = {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        fake_api.objects[PODS] = {"items": [pod] * wanted()}

    ground = Ground(cloud, tmp_path, {"several": parts}, make)
    ground.after_step = pods_follow
    pods_follow()
    ground.load(LOW, 4)
    assert (wanted(), len(cloud.instances())) == (ground.last()[0], 0)
    ground.load(HIGH, 8)
    assert wanted() == 3
    assert len(cloud.instances()) == ground.last()[0] - 3 >= 1
    assert shown(ground.scaler, "scale_part_replicas", workload=settings.WORKLOAD, part="cloud", state="ready") >= 1
    ground.load(LOW, 16)
    assert cloud.instances() == [], "the rented ones go first"
    assert 1 <= wanted() <= 3
