"""An Auto Scaling group of the user's, on moto, and by botocore's Stubber where moto is laxer than AWS."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from controllers.actuators import Actuator, ActuatorError
from controllers.actuators.aws import aws_actuator
from controllers.actuators.aws_account import Account, LostError
from controllers.actuators.interface import NoCapacityError, NoGrowthError, PermanentError
from controllers.config import AwsTarget
from tests.controllers.actuators.lagging_aws import REGION, Cloud, KilledError, drops_the_answer, refuses

SECONDS = 30.0
NAME = "workers"


@pytest.fixture
def cloud(moto_url: str) -> Cloud:
    cloud = Cloud(moto_url)
    cloud.real("ec2").create_launch_template(
        LaunchTemplateName="worker", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"}
    )
    return cloud


@pytest.fixture
def asg(cloud: Cloud) -> Callable[..., Actuator]:
    """Makes the group, and gives its actuator."""

    def make(desired: int, smallest: int = 0, largest: int = 6, **target: Any) -> Actuator:
        cloud.real("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName=NAME,
            LaunchTemplate={"LaunchTemplateName": "worker", "Version": "$Default"},
            MinSize=smallest,
            MaxSize=largest,
            DesiredCapacity=desired,
            AvailabilityZones=["eu-west-1a"],
            TargetGroupARNs=target.get("target_groups", []),
        )
        return cloud.actuator(auto_scaling_group=NAME, **target)

    return make


def read(actuator: Actuator) -> tuple[int, int]:
    found = actuator.read_replicas(SECONDS)
    return found.wanted, found.ready


def members(cloud: Cloud) -> dict[str, bool]:
    """By instance: whether it is protected."""
    groups = cloud.real("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
    return {one["InstanceId"]: one["ProtectedFromScaleIn"] for one in groups["AutoScalingGroups"][0]["Instances"]}


def test_two_then_five_then_one_with_its_target_group(cloud: Cloud, asg: Callable[..., Actuator]) -> None:
    vpc = cloud.real("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    made = cloud.real("elbv2").create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=vpc)
    web = made["TargetGroups"][0]["TargetGroupArn"]
    actuator = asg(2, target_groups=[web])
    assert read(actuator) == (2, 2)
    actuator.apply(5, SECONDS)
    assert read(actuator) == (5, 5)
    actuator.apply(1, SECONDS)
    assert read(actuator) == (1, 1)
    assert len(members(cloud)) == 1
    registered = cloud.real("elbv2").describe_target_health(TargetGroupArn=web)["TargetHealthDescriptions"]
    assert set(members(cloud)) <= {one["Target"]["Id"] for one in registered}


def test_idle_ones_end_with_the_number_and_the_busy_are_protected_from_it(
    cloud: Cloud, asg: Callable[..., Actuator]
) -> None:
    actuator = asg(5)
    ids = list(members(cloud))
    actuator.apply(2, SECONDS, in_hand={ids[0]: 3.0, ids[1]: 0.0, ids[2]: 1.0, ids[3]: 0.0, ids[4]: 2.0})
    ended = [
        (asked["InstanceId"], asked["ShouldDecrementDesiredCapacity"])
        for name, asked in cloud.calls
        if name == "terminate_instance_in_auto_scaling_group"
    ]
    assert sorted(ended) == sorted([(ids[1], True), (ids[3], True)]), "the idle ones"
    assert members(cloud) == {ids[0]: True, ids[4]: True}, "and the least busy by the number, the others protected"
    assert read(actuator) == (2, 2)

    assert actuator.read_replicas(SECONDS).unfinished, "protection is not for ever"
    actuator.apply(2, SECONDS, in_hand={ids[0]: 3.0, ids[4]: 0.0})
    assert members(cloud) == {ids[0]: True, ids[4]: False}
    cloud.actuator(auto_scaling_group=NAME).apply(2, SECONDS)  # another process, which knows of no work
    assert members(cloud) == {ids[0]: False, ids[4]: False}
    assert not actuator.read_replicas(SECONDS).unfinished


def test_what_its_owner_protected_stays_protected(cloud: Cloud, asg: Callable[..., Actuator]) -> None:
    actuator = asg(2)
    ids = list(members(cloud))
    cloud.real("autoscaling").set_instance_protection(
        AutoScalingGroupName=NAME, InstanceIds=ids[:1], ProtectedFromScaleIn=True
    )
    actuator.apply(2, SECONDS)
    assert members(cloud) == {ids[0]: True, ids[1]: False}
    actuator.apply(1, SECONDS, in_hand={ids[0]: 0.0, ids[1]: 2.0})
    assert members(cloud) == {ids[0]: True}, "also where it is the idle one: ending by name heeds no protection"


def test_whom_we_protected_may_go_in_the_next_step_though_it_is_still_busy(
    cloud: Cloud, asg: Callable[..., Actuator]
) -> None:
    """Else a group of workers that are never idle would never get smaller again."""
    actuator = asg(4)
    ids = list(members(cloud))
    in_hand = {one: 1.0 + place for place, one in enumerate(ids)}
    for number in (3, 2, 1):
        actuator.apply(number, SECONDS, in_hand=in_hand)
        assert members(cloud).keys() == set(ids[4 - number :])


def test_named_victims_go_first(cloud: Cloud, asg: Callable[..., Actuator]) -> None:
    actuator = asg(3)
    ids = list(members(cloud))
    actuator.apply(2, SECONDS, victims=(ids[1],))
    assert list(members(cloud)) == [ids[0], ids[2]]
    assert cloud.count("set_desired_capacity") == 0
    actuator.apply(1, SECONDS, victims=("somebody-elsewhere",), in_hand={ids[0]: 2.0, ids[2]: 1.0})
    assert list(members(cloud)) == [ids[0]], "who is not there shields nobody and betrays nobody"


def test_its_bounds_hold_though_moto_has_none(cloud: Cloud, asg: Callable[..., Actuator]) -> None:
    actuator = asg(2, smallest=1, largest=3)
    with pytest.raises(NoCapacityError, match=r"at most 3 \(MaxSize\), 5 were asked for; raise its MaxSize") as caught:
        actuator.apply(5, SECONDS)
    assert caught.value.told == 3
    assert read(actuator) == (3, 3)
    with pytest.raises(ActuatorError, match=r"at least 1 \(MinSize\), 0 were asked for; lower its MinSize"):
        actuator.apply(0, SECONDS)
    assert read(actuator) == (1, 1)


def test_a_policy_on_the_same_group_is_refused(cloud: Cloud, asg: Callable[..., Actuator]) -> None:
    actuator = asg(2)
    cloud.real("autoscaling").put_scaling_policy(
        AutoScalingGroupName=NAME,
        PolicyName="cpu",
        PolicyType="TargetTrackingScaling",
        TargetTrackingConfiguration={
            "PredefinedMetricSpecification": {"PredefinedMetricType": "ASGAverageCPUUtilization"},
            "TargetValue": 50.0,
        },
    )
    with pytest.raises(PermanentError, match="its TargetTrackingScaling policy cpu scales it as well"):
        actuator.apply(3, SECONDS)
    assert read(actuator) == (2, 2)
    actuator.apply(2, SECONDS)  # the same number is no quarrel


def test_a_schedule_of_its_own_is_refused_unless_it_moves_only_the_bounds(
    cloud: Cloud, asg: Callable[..., Actuator]
) -> None:
    actuator = asg(2)
    schedule = cloud.real("autoscaling").put_scheduled_update_group_action
    schedule(AutoScalingGroupName=NAME, ScheduledActionName="night", Recurrence="0 1 * * *", MinSize=1)
    actuator.apply(3, SECONDS)
    schedule(AutoScalingGroupName=NAME, ScheduledActionName="day", Recurrence="0 8 * * *", DesiredCapacity=4)
    with pytest.raises(PermanentError, match="its scheduled action day sets the desired capacity"):
        actuator.apply(4, SECONDS)


def test_a_suspended_process_is_named(cloud: Cloud, asg: Callable[..., Actuator]) -> None:
    actuator = asg(2)
    cloud.real("autoscaling").suspend_processes(AutoScalingGroupName=NAME, ScalingProcesses=["Launch"])
    with pytest.raises(NoGrowthError, match="its process Launch is suspended, so 3 instead of 2 would not come about"):
        actuator.apply(3, SECONDS)
    actuator.apply(1, SECONDS)
    assert read(actuator)[0] == 1


def test_a_lost_answer_is_read_back(cloud: Cloud, asg: Callable[..., Actuator]) -> None:
    actuator = asg(2)
    cloud.fails("set_desired_capacity", drops_the_answer)
    actuator.apply(3, SECONDS)
    assert read(actuator) == (3, 3)
    cloud.fails("set_desired_capacity", refuses("ServiceUnavailable", status=503), nth=1)
    with pytest.raises(LostError, match="set_desired_capacity: AWS failed"):
        actuator.apply(4, SECONDS)
    assert read(actuator) == (3, 3)


def test_a_group_that_is_not_there_is_named(cloud: Cloud) -> None:
    with pytest.raises(PermanentError, match=r"Auto Scaling group workers is not there; correct target.aws"):
        cloud.actuator(auto_scaling_group=NAME).read_replicas(SECONDS)


@functools.cache
def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")


class Script:
    """AWS's answers, word by word: a request that differs from its line, or is not in it, fails the test."""

    def __init__(self, *services: str) -> None:
        self.stubs = {name: Stubber(client(name)) for name in services}
        for stub in self.stubs.values():
            stub.activate()
        self.account = Account(REGION, make=client)

    def expects(self, service: str, operation: str, asked: dict[str, Any], answer: dict[str, Any]) -> None:
        self.stubs[service].add_response(operation, answer, asked)

    def over(self) -> None:
        for stub in self.stubs.values():
            stub.assert_no_pending_responses()
            stub.deactivate()


def described(desired: int, instances: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "AutoScalingGroups": [
            {
                "AutoScalingGroupName": NAME, "MinSize": 0, "MaxSize": 9, "DesiredCapacity": desired,
                "DefaultCooldown": 300, "AvailabilityZones": ["eu-west-1a"], "HealthCheckType": "EC2",
                "CreatedTime": now,
                "Instances": [
                    {
                        "InstanceId": f"i-{n}", "AvailabilityZone": "eu-west-1a", "LifecycleState": "InService",
                        "HealthStatus": "Healthy", "ProtectedFromScaleIn": False,
                    }
                    for n in range(instances)
                ],
            }
        ]
    }  # fmt: skip


def test_the_words_of_growing() -> None:
    script, name = Script("autoscaling"), {"AutoScalingGroupName": NAME}
    script.expects("autoscaling", "describe_auto_scaling_groups", {"AutoScalingGroupNames": [NAME]}, described(2, 2))
    script.expects("autoscaling", "describe_policies", name, {"ScalingPolicies": []})
    script.expects("autoscaling", "describe_scheduled_actions", name, {"ScheduledUpdateGroupActions": []})
    script.expects("autoscaling", "set_desired_capacity", {**name, "DesiredCapacity": 4, "HonorCooldown": False}, {})
    actuator = aws_actuator(AwsTarget(region=REGION, auto_scaling_group=NAME), script.account)
    actuator.apply(4, SECONDS)
    script.over()


def test_while_aws_chooses_who_goes_nobody_loses_protection_for_want_of_data() -> None:
    """moto chooses at once; AWS takes its time, and Prometheus may be silent meanwhile."""
    script, group = Script("autoscaling"), described(2, 3)
    for one in group["AutoScalingGroups"][0]["Instances"]:
        one["ProtectedFromScaleIn"] = True
    script.expects("autoscaling", "describe_auto_scaling_groups", {"AutoScalingGroupNames": [NAME]}, group)
    aws_actuator(AwsTarget(region=REGION, auto_scaling_group=NAME), script.account).apply(2, SECONDS)
    script.over()


def test_a_group_that_got_no_instances_says_so_and_takes_its_number_back() -> None:
    """moto has no activities. Without this the number would stay, and come about when nobody wants it any more."""
    script, name = Script("autoscaling"), {"AutoScalingGroupName": NAME}
    now = datetime.now(UTC)
    failed = {
        "ActivityId": "1", "AutoScalingGroupName": NAME, "Cause": "x", "StartTime": now, "StatusCode": "Failed",
        "StatusMessage": "We currently do not have sufficient t3.micro capacity in the zone you requested.",
    }  # fmt: skip
    script.expects("autoscaling", "describe_auto_scaling_groups", {"AutoScalingGroupNames": [NAME]}, described(4, 2))
    script.expects("autoscaling", "describe_scaling_activities", {**name, "MaxRecords": 10}, {"Activities": [failed]})
    script.expects("autoscaling", "set_desired_capacity", {**name, "DesiredCapacity": 2, "HonorCooldown": False}, {})
    actuator = aws_actuator(AwsTarget(region=REGION, auto_scaling_group=NAME), script.account, lambda: now.timestamp())
    with pytest.raises(NoCapacityError, match=r"do not have sufficient t3.micro capacity") as caught:
        actuator.apply(4, SECONDS)
    assert caught.value.told == 2
    script.over()


def test_the_words_of_starting_an_instance() -> None:
    script = Script("ec2")
    target = AwsTarget.model_validate(
        {
            "region": REGION,
            "instances": {
                "fleet": "video", "launch_template": "lt-0123", "launch_template_version": "7",
                "instance_types": ["c7g.large"], "subnets": ["subnet-1"],
            },
        }
    )  # fmt: skip
    fleet = [{"Name": "tag:tidewise:fleet", "Values": ["video"]}]
    script.expects("ec2", "describe_instances", {"Filters": fleet}, {"Reservations": []})
    script.expects(
        "ec2",
        "run_instances",
        {
            "MinCount": 1,
            "MaxCount": 1,
            # the same in every version, or an upgrade in the wrong moment starts it twice
            "ClientToken": "f93f0c7be0665f183397a4dba86fb34ec77acdce27e28d6593181dce578388bf",
            "LaunchTemplate": {"LaunchTemplateId": "lt-0123", "Version": "7"},
            "InstanceType": "c7g.large",
            "SubnetId": "subnet-1",
            "TagSpecifications": [
                {
                    "ResourceType": "instance",
                    "Tags": [
                        {"Key": "Name", "Value": "video-0"},
                        {"Key": "tidewise:fleet", "Value": "video"},
                        {"Key": "tidewise:slot", "Value": "0"},
                        {"Key": "tidewise:made-by", "Value": "tidewise scale"},
                    ],
                }
            ],
        },
        {"Instances": [{"InstanceId": "i-1", "State": {"Name": "pending", "Code": 0}}]},
    )
    aws_actuator(target, script.account).apply(1, SECONDS)
    script.over()


def test_a_group_that_counts_in_weights_is_refused() -> None:
    weighted = described(4, 1)
    weighted["AutoScalingGroups"][0]["MixedInstancesPolicy"] = {
        "LaunchTemplate": {"Overrides": [{"InstanceType": "c7g.4xlarge", "WeightedCapacity": "4"}]}
    }
    script = Script("autoscaling")
    script.expects("autoscaling", "describe_auto_scaling_groups", {"AutoScalingGroupNames": [NAME]}, weighted)
    with pytest.raises(ActuatorError, match=r"it counts in weights \(WeightedCapacity\)"):
        aws_actuator(AwsTarget(region=REGION, auto_scaling_group=NAME), script.account).read_replicas(SECONDS)
    script.over()


def test_a_process_killed_after_any_call_is_followed_by_one_that_goes_on(
    cloud: Cloud, asg: Callable[..., Actuator]
) -> None:
    """3 → 5 → 2, the busy protected and released: a kill after each change in turn, and a new process."""
    actuator = asg(3)
    for after in range(20):
        cloud.kill_after = after
        for number, busy in ((5, 1.0), (2, 1.0), (2, 0.0)):
            for _ in range(6):
                try:
                    found = actuator.read_replicas(SECONDS)
                    ids = list(members(cloud))
                    in_hand = {one: busy * (1 + place) for place, one in enumerate(ids)}
                    actuator.apply(number, SECONDS, in_hand=in_hand)
                    found = actuator.read_replicas(SECONDS)
                    if found.wanted == number and (busy or not found.unfinished):
                        break
                except KilledError:
                    actuator = cloud.actuator(auto_scaling_group=NAME)
            else:
                raise AssertionError(f"killed after {after} calls it never came to {number}")
            assert len(members(cloud)) == number
        assert not any(members(cloud).values()), "nobody stays protected"
        if cloud.kill_after is not None:
            break
    assert after >= 5, "every change of the whole life was the last one once"
