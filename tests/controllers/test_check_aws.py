"""What `tidewise check` says of AWS targets, on moto."""

from typing import Any

import pytest

from controllers.check_aws import look, report
from controllers.config import AwsTarget, Bounds, Config
from tests.controllers.actuators.lagging_aws import REGION, Cloud, refuses

BOUNDS = Bounds(min=0, max=4)
INSTANCES = {"fleet": "video", "launch_template": "worker"}


@pytest.fixture
def cloud(moto_url: str) -> Cloud:
    cloud = Cloud(moto_url)
    cloud.real("ec2").create_launch_template(
        LaunchTemplateName="worker", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"}
    )
    return cloud


def target(**of: Any) -> AwsTarget:
    return AwsTarget.model_validate({"region": REGION, **of})


def test_instances_by_a_dry_run(cloud: Cloud) -> None:
    found = look(target(instances=INSTANCES), BOUNDS, cloud.account())
    assert (found.said, found.problems, found.warnings) == ("0 of 0 replicas work", (), ())
    assert cloud.instances() == []
    assert [asked["DryRun"] for name, asked in cloud.calls if name == "run_instances"] == [True]


def test_what_may_not_be_started_is_said(cloud: Cloud) -> None:
    cloud.fails("run_instances", refuses("UnauthorizedOperation"))
    (problem,) = look(target(instances=INSTANCES), BOUNDS, cloud.account()).problems
    assert "docs/aws.md lists the rights" in problem
    cloud.fails("run_instances", refuses("InvalidLaunchTemplateName.NotFoundException"))
    (problem,) = look(target(instances=INSTANCES), BOUNDS, cloud.account()).problems
    assert "correct target.aws.instances or the template worker" in problem


def test_the_lines_of_a_file_with_several_targets(cloud: Cloud) -> None:
    aws = {"aws": {"region": REGION, "endpoint_url": cloud.url, "instances": INSTANCES}}
    gone = {"aws": {"region": REGION, "endpoint_url": cloud.url, "auto_scaling_group": "workers"}}
    parts = [{"name": "spot", "max": 2, "target": aws}, {"name": "rest", "max": 2, "target": gone}]
    workload = {"name": "video", "demand": {"queue": "jobs"}, "target": {"several": parts}, "replicas": {"max": 4}}
    lines, missing = report(Config.model_validate({"workloads": [workload | {"mode": "act"}]}))
    assert lines[0] == "default/video: spot, aws: 0 of 0 replicas work"
    assert lines[1] == (
        "warning: default/video: spot, aws: a worker is ended with the job in its hands; set drain_seconds to the "
        "longest that one may take"
    )
    assert lines[2].startswith(
        "error: default/video: rest, aws: AWS eu-west-1: Auto Scaling group workers is not there"
    )
    assert missing


def test_a_group_with_its_bounds_and_who_else_scales_it(cloud: Cloud) -> None:
    group = cloud.real("autoscaling")
    missing = look(target(auto_scaling_group="workers"), BOUNDS, cloud.account())
    assert "is not there; correct target.aws.auto_scaling_group" in missing.problems[0]
    group.create_auto_scaling_group(
        AutoScalingGroupName="workers",
        LaunchTemplate={"LaunchTemplateName": "worker", "Version": "$Default"},
        MinSize=1,
        MaxSize=3,
        DesiredCapacity=2,
        AvailabilityZones=["eu-west-1a"],
    )
    found = look(target(auto_scaling_group="workers"), BOUNDS, cloud.account())
    assert found.said == "2 of 2 replicas work"
    assert found.problems == ()
    assert found.warnings == (
        "its MaxSize is 3, less than the 4 it may be told; raise MaxSize",
        "its MinSize is 1, more than the 0 it may be told; lower MinSize",
    )
    group.suspend_processes(AutoScalingGroupName="workers", ScalingProcesses=["Launch"])
    (problem,) = look(target(auto_scaling_group="workers"), BOUNDS, cloud.account()).problems
    assert "its process Launch is suspended" in problem
