"""Plain EC2 instances behind target groups, on moto and on a fake that lags and fails (faults 49 to 55)."""

import random
import threading
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import botocore.parsers
import pytest

from controllers.actuators import Actuator, ActuatorError
from controllers.actuators.aws_account import BackOff, LostError
from controllers.actuators.interface import NoCapacityError, NoGrowthError, PermanentError
from controllers.domain import Replicas
from tests.controllers.actuators.lagging_aws import Cloud, KilledError, answers_after, drops_the_answer, refuses

SECONDS = 30.0
FLEET = {"fleet": "video", "launch_template": "worker", "tags": {"team": "vision"}}


@pytest.fixture
def cloud(moto_url: str) -> Cloud:
    cloud = Cloud(moto_url)
    cloud.real("ec2").create_launch_template(
        LaunchTemplateName="worker", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"}
    )
    return cloud


@pytest.fixture
def group(cloud: Cloud) -> Callable[[str], str]:
    """Makes a target group, and gives its ARN."""

    def make(name: str) -> str:
        vpc = cloud.real("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
        made = cloud.real("elbv2").create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=vpc)
        return str(made["TargetGroups"][0]["TargetGroupArn"])

    return make


def read(actuator: Actuator) -> tuple[int, int, int]:
    found = actuator.read_replicas(SECONDS)
    return found.wanted, found.ready, found.draining


def settle(actuator: Actuator, cloud: Cloud, number: int, seconds: float = 60.0) -> Replicas:
    """Tells the number again, as the scaler does, until nothing is unfinished."""
    for _ in range(12):
        found = actuator.read_replicas(SECONDS)
        if found.wanted == number and not found.unfinished:
            return found
        actuator.apply(number, SECONDS)
        cloud.now += seconds
    raise AssertionError(f"still {actuator.read_replicas(SECONDS)}")


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"] if not tag["Key"].startswith("aws:")}


def test_two_then_five_then_one_behind_a_load_balancer(cloud: Cloud, group: Callable[[str], str]) -> None:
    cloud.boot_seconds, cloud.drain_seconds = 90.0, 120.0
    actuator = cloud.actuator(instances=FLEET, target_groups=[group("web")])
    assert read(actuator) == (0, 0, 0)

    actuator.apply(2, SECONDS)
    assert read(actuator) == (2, 0, 0), "asked for, and not yet healthy in the target group"
    assert settle(actuator, cloud, 2) == Replicas(2, 2)
    assert settle(actuator, cloud, 5) == Replicas(5, 5)
    assert sorted(tags(one)["tidewise:slot"] for one in cloud.instances()) == ["0", "1", "2", "3", "4"]
    for one in cloud.instances():
        assert tags(one) | {"tidewise:slot": "", "tidewise:since": "", "Name": ""} == {
            "team": "vision",
            "Name": "",
            "tidewise:fleet": "video",
            "tidewise:made-by": "tidewise scale",
            "tidewise:slot": "",
            "tidewise:state": "ready",
            "tidewise:since": "",
        }

    actuator.apply(1, SECONDS)
    assert read(actuator) == (1, 1, 4)
    assert cloud.count("deregister_targets") == 1
    assert cloud.count("terminate_instances") == 0, "the load balancer lets go of them first"
    cloud.now += 60.0
    actuator.apply(1, SECONDS)
    assert read(actuator) == (1, 1, 4)
    cloud.now += 61.0
    actuator.apply(1, SECONDS)
    assert read(actuator) == (1, 1, 0)
    assert len(cloud.instances()) == 1


def test_what_was_started_counts_before_it_is_shown_and_is_not_started_twice(cloud: Cloud) -> None:
    """Fault 49."""
    cloud.lag_seconds = 60.0
    actuator = cloud.actuator(instances=FLEET)
    actuator.apply(2, SECONDS)
    assert read(actuator) == (2, 0, 0)
    actuator.apply(2, SECONDS)

    other = cloud.actuator(instances=FLEET)  # a process that knows nothing of it, while EC2 shows nothing
    assert read(other) == (0, 0, 0)
    other.apply(2, SECONDS)
    assert read(other)[0] == 2
    assert len(cloud.instances()) == 2
    other.apply(3, SECONDS)
    assert len(cloud.instances()) == 3, "a new wish is a new instance"

    cloud.now += 61.0
    assert settle(other, cloud, 3).ready == 3
    assert len(cloud.instances()) == 3


def test_what_is_never_shown_stops_counting(cloud: Cloud) -> None:
    cloud.lag_seconds = 3600.0
    actuator = cloud.actuator(instances=FLEET)
    actuator.apply(1, SECONDS)
    cloud.now += 301.0
    assert read(actuator) == (0, 0, 0)
    actuator.apply(1, SECONDS)
    assert len(cloud.instances()) == 1, "and asking again in the same words starts no second one"


def test_a_start_whose_answer_is_lost_is_one_instance(cloud: Cloud) -> None:
    """Fault 50."""
    actuator = cloud.actuator(instances=FLEET)
    cloud.fails("run_instances", drops_the_answer, nth=2)
    with pytest.raises(LostError, match=r"the answer was lost \(ReadTimeoutError\); it may have been carried out"):
        actuator.apply(3, SECONDS)
    assert len(cloud.instances()) == 2
    cloud.lag_seconds, cloud.shown = 60.0, [(0.0, [])]  # EC2 shows none of them yet
    actuator.apply(3, SECONDS)
    assert len(cloud.instances()) == 3


def test_a_call_that_hangs_ends_with_the_deadline_and_is_found_later(cloud: Cloud) -> None:
    actuator = cloud.actuator(instances=FLEET)
    actuator.read_replicas(SECONDS)
    release = threading.Event()
    cloud.fails("run_instances", answers_after(release))
    with pytest.raises(LostError, match="run_instances did not answer within"):
        actuator.apply(1, 0.5)
    assert cloud.instances() == []
    release.set()
    for _ in range(200):
        if cloud.tokens:
            break
        threading.Event().wait(0.05)
    actuator.apply(1, SECONDS)
    assert len(cloud.instances()) == 1


def test_an_instance_that_ended_is_followed_by_a_new_one(cloud: Cloud) -> None:
    actuator = cloud.actuator(instances=FLEET)
    settle(actuator, cloud, 1)
    first = cloud.instances()[0]["InstanceId"]
    cloud.real("ec2").terminate_instances(InstanceIds=[first])
    assert read(actuator) == (0, 0, 0)
    actuator.apply(1, SECONDS)
    cloud.real("ec2").terminate_instances(InstanceIds=[cloud.instances()[0]["InstanceId"]])
    # EC2 has forgotten both and still knows the names of the wishes: it answers with what has ended
    cloud.lag_seconds, cloud.shown = 1e6, [(0.0, [])]
    other = cloud.actuator(instances=FLEET)
    other.apply(1, SECONDS)
    assert len(cloud.instances()) == 1


def test_a_used_up_quota_is_named_and_permanent(cloud: Cloud) -> None:
    """Fault 51."""
    actuator = cloud.actuator(instances={**FLEET, "instance_types": ["t3.micro", "t3.small"]})
    cloud.fails("run_instances", refuses("VcpuLimitExceeded"), nth=2)
    with pytest.raises(NoGrowthError, match=r"a quota is used up \(VcpuLimitExceeded: .*Service Quotas") as caught:
        actuator.apply(3, SECONDS)
    assert isinstance(caught.value, PermanentError)
    assert caught.value.told == 1
    assert len(cloud.instances()) == 1


def test_without_capacity_the_next_type_and_place_is_asked(cloud: Cloud) -> None:
    """Fault 52: the first type everywhere, then the second."""
    zones, types = ["eu-west-1a", "eu-west-1b"], ["t3.micro", "t3.small"]
    actuator = cloud.actuator(instances={**FLEET, "instance_types": types, "zones": zones})
    cloud.fails(
        "run_instances",
        refuses("InsufficientInstanceCapacity"),
        times=99,
        when=lambda asked: asked["InstanceType"] == "t3.micro",
    )
    actuator.apply(2, SECONDS)
    asked = [
        (wish["InstanceType"], wish["Placement"]["AvailabilityZone"])
        for name, wish in cloud.calls
        if name == "run_instances"
    ]
    assert asked == [
        ("t3.micro", "eu-west-1a"),
        ("t3.micro", "eu-west-1b"),
        ("t3.small", "eu-west-1a"),
        ("t3.small", "eu-west-1a"),
    ]
    assert [one["InstanceType"] for one in cloud.instances()] == ["t3.small", "t3.small"]


def test_without_capacity_anywhere_it_says_so_and_waits(cloud: Cloud) -> None:
    actuator = cloud.actuator(instances={**FLEET, "instance_types": ["t3.micro", "t3.small"]})
    cloud.fails("run_instances", refuses("InsufficientInstanceCapacity"), nth=2, times=99)
    with pytest.raises(NoCapacityError, match="there is no capacity for the 2 configured types and places") as caught:
        actuator.apply(3, SECONDS)
    assert caught.value.told == 1
    asked = cloud.count("run_instances")
    with pytest.raises(NoCapacityError, match="asked less than 120 s ago"):
        actuator.apply(3, SECONDS)
    assert cloud.count("run_instances") == asked, "bounded: nobody is asked twice within two minutes"
    cloud.now += 121.0
    cloud.faults.clear()
    actuator.apply(3, SECONDS)
    assert len(cloud.instances()) == 3


def test_instances_that_do_not_boot_are_ended_and_only_so_many_are_tried(
    cloud: Cloud, group: Callable[[str], str]
) -> None:
    """Fault 53."""
    actuator = cloud.actuator(instances={**FLEET, "boot_seconds": 300.0}, target_groups=[group("web")])
    settle(actuator, cloud, 1)
    good = cloud.instances()[0]["InstanceId"]
    cloud.sick, cloud.now = True, cloud.now + 60.0
    problem = None
    for _ in range(40):
        try:
            actuator.apply(2, SECONDS)
        except NoGrowthError as error:
            problem = error
            break
        cloud.now += 60.0
    assert "3 instances in a row were not healthy within 300 s" in str(problem)
    assert isinstance(problem, PermanentError)
    assert cloud.count("run_instances") == 1 + 3
    settle(actuator, cloud, 1)
    assert [one["InstanceId"] for one in cloud.instances()] == [good], "the healthy one was kept throughout"

    cloud.sick = False
    with pytest.raises(NoGrowthError):
        cloud.actuator(instances=FLEET).apply(2, SECONDS)  # a new process knows it too
    cloud.now += 3600.0
    assert settle(actuator, cloud, 2).ready == 2


def test_failures_to_boot_are_remembered_where_ec2_forgets_them(cloud: Cloud, group: Callable[[str], str]) -> None:
    actuator = cloud.actuator(instances={**FLEET, "boot_attempts": 2}, target_groups=[group("web")])
    cloud.sick = cloud.forgets = True
    for _ in range(6):
        actuator.apply(1, SECONDS)
        cloud.now += 290.0  # never just boot_seconds after a start: a launch time is not as exact as this clock
    for _ in range(2):
        with pytest.raises(NoGrowthError, match="2 instances in a row"):
            actuator.apply(1, SECONDS)
    assert cloud.count("run_instances") == 2


def test_a_target_group_without_a_listener_is_named_and_nobody_ended_for_it(
    cloud: Cloud, group: Callable[[str], str]
) -> None:
    cloud.no_listener = True
    actuator = cloud.actuator(instances=FLEET, target_groups=[group("web")])
    actuator.apply(1, SECONDS)
    actuator.apply(1, SECONDS)
    cloud.now += 3600.0
    with pytest.raises(
        ActuatorError, match=r"is unused in arn:.*: no listener of a load balancer has this target group"
    ):
        actuator.apply(1, SECONDS)
    assert read(actuator) == (1, 0, 0)


def test_after_a_failure_to_boot_only_so_many_are_tried_at_once(cloud: Cloud, group: Callable[[str], str]) -> None:
    actuator = cloud.actuator(instances={**FLEET, "boot_attempts": 4}, target_groups=[group("web")])
    cloud.sick = True
    actuator.apply(1, SECONDS)
    actuator.apply(1, SECONDS)
    cloud.now += 601.0
    actuator.apply(8, SECONDS)
    assert cloud.count("run_instances") == 1 + 3
    with pytest.raises(
        NoCapacityError, match=r"the last 1 were not healthy in time; .* until one of the 3 that boot is"
    ):
        actuator.apply(8, SECONDS)
    cloud.sick_ones.clear()
    actuator.apply(3, SECONDS)
    actuator.apply(8, SECONDS)
    assert cloud.count("run_instances") == 1 + 3 + 5


def test_a_throttled_account_is_left_alone_by_all_its_workloads(cloud: Cloud) -> None:
    """Fault 54."""
    account = cloud.account()
    one = cloud.actuator(account, instances=FLEET)
    other = cloud.actuator(account, instances={**FLEET, "fleet": "audio"})
    cloud.fails("describe_instances", refuses("RequestLimitExceeded", {"retry-after": "30"}, 503), times=1)
    with pytest.raises(ActuatorError, match=r"throttled \(RequestLimitExceeded\); all workloads .* wait 30 s"):
        one.read_replicas(SECONDS)
    cloud.now += 29.0
    calls = len(cloud.calls)
    with pytest.raises(ActuatorError, match="AWS eu-west-1 throttles this account; it is left alone for 1 s more"):
        other.read_replicas(SECONDS)
    assert len(cloud.calls) == calls
    cloud.now += 2.0
    assert read(other) == (0, 0, 0)


def test_the_wait_doubles_to_two_minutes_and_ends_with_an_answer() -> None:
    now = [0.0]
    back_off = BackOff(lambda: now[0])
    waits = []
    for _ in range(8):
        waits.append(back_off.throttled(None))
        assert back_off.throttled(None) == waits[-1], "calls that were under way together count once"
        now[0] = back_off.until
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0, 120.0]
    back_off.answered()
    assert back_off.throttled(None) == 2.0


def test_half_a_registration_is_finished_by_the_next_call(cloud: Cloud, group: Callable[[str], str]) -> None:
    """Fault 55: the second group refuses; nobody counts as working before both have it."""
    groups = [group("web"), group("api")]
    actuator = cloud.actuator(instances=FLEET, target_groups=groups)
    settle(actuator, cloud, 2)
    actuator.apply(4, SECONDS)
    registered = cloud.count("register_targets")
    cloud.fails("register_targets", refuses("InternalFailure", status=500), nth=2)
    with pytest.raises(ActuatorError, match="register_targets: AWS failed"):
        actuator.apply(4, SECONDS)
    assert cloud.count("register_targets") == registered + 2
    assert read(actuator) == (4, 2, 0)
    assert settle(actuator, cloud, 4).ready == 4

    actuator.apply(5, SECONDS)  # one more boots
    cloud.fails("deregister_targets", refuses("InternalFailure", status=500), nth=1)
    with pytest.raises(ActuatorError, match="deregister_targets: AWS failed"):
        actuator.apply(3, SECONDS)
    assert read(actuator)[:2] == (3, 3), "those that work are kept, the one that boots goes first"
    assert settle(actuator, cloud, 3) == Replicas(3, 3)
    assert len(cloud.instances()) == 3


def test_a_process_killed_after_any_call_is_followed_by_one_that_goes_on(
    cloud: Cloud, group: Callable[[str], str]
) -> None:
    """0 → 2 → 1 with a kill after each change in turn; the tags tell the next process how far it was."""
    web = group("web")
    survived = 0
    for after in range(40):
        settings = {"instances": {**FLEET, "fleet": f"fleet-{after}"}, "target_groups": [web]}
        actuator = cloud.actuator(**settings)
        cloud.kill_after = after
        cloud.tokens.clear()
        for number in (2, 1):
            for _ in range(8):
                try:
                    found = actuator.read_replicas(SECONDS)
                    if found.wanted == number and not found.unfinished:
                        break
                    actuator.apply(number, SECONDS)
                except KilledError:
                    survived += 1
                    actuator = cloud.actuator(**settings)
            else:
                raise AssertionError(f"killed after {after} calls it never came to {number}")
        assert len(cloud.tokens) == 2, "no more than were ever wished for"
        (left,) = cloud.instances()
        cloud.real("ec2").terminate_instances(InstanceIds=[left["InstanceId"]])
        if cloud.kill_after is not None:
            break
    assert survived == after >= 7, "every change of the whole life was the last one once"


def test_whatever_fails_there_are_never_more_than_were_wished_for(cloud: Cloud, group: Callable[[str], str]) -> None:
    """A chain of chance: numbers, lost answers, failures, kills, restarts, while EC2 shows everything late."""
    chance = random.Random(4)
    cloud.lag_seconds, cloud.boot_seconds, cloud.drain_seconds = 45.0, 20.0, 30.0
    settings = {"instances": FLEET, "target_groups": [group("web")]}
    actuator = cloud.actuator(**settings)
    changes = ("run_instances", "create_tags", "terminate_instances", "register_targets", "deregister_targets")
    number, wished = 0, [0]
    for _ in range(24):
        number = chance.randint(0, 4) if chance.random() < 0.3 else number
        wished = [*wished[-7:], number]
        cloud.faults.clear()
        cloud.seen.clear()
        does = chance.choice([drops_the_answer, refuses("InternalFailure", status=500), None, None])
        if does is not None:
            cloud.fails(chance.choice(changes), does)
        cloud.kill_after = chance.randint(0, 2) if chance.random() < 0.15 else None
        try:
            actuator.read_replicas(SECONDS)
            actuator.apply(number, SECONDS)
        except KilledError:
            actuator = cloud.actuator(**settings)
        except ActuatorError:
            pass  # the next step goes on
        kept = [one for one in cloud.instances() if tags(one).get("tidewise:state") != "draining"]
        assert len(kept) <= max(wished)
        cloud.now += 15.0
    cloud.faults.clear()
    cloud.kill_after = None
    for _ in range(12):
        actuator.apply(number, SECONDS)
        cloud.now += 15.0
    assert read(actuator) == (number, number, 0)
    assert len(cloud.instances()) == number


def test_the_idlest_go_first_and_a_busy_one_gets_its_time(cloud: Cloud) -> None:
    actuator = cloud.actuator(instances={**FLEET, "drain_seconds": 600.0})
    settle(actuator, cloud, 3)
    ids = [one["InstanceId"] for one in cloud.instances()]
    addresses = [one["PrivateIpAddress"] for one in cloud.instances()]
    in_hand = {ids[0]: 5.0, f"{addresses[1]}:9100": 2.0, addresses[2]: 0.0}

    actuator.apply(1, SECONDS, in_hand=in_hand)
    assert {one["InstanceId"] for one in cloud.instances()} == set(ids[:2]), "the idle one went at once"
    assert read(actuator) == (1, 1, 1), "the less busy one drains"
    in_hand[f"{addresses[1]}:9100"] = 1.0
    cloud.now += 300.0
    actuator.apply(1, SECONDS, in_hand=in_hand)
    assert len(cloud.instances()) == 2
    in_hand[f"{addresses[1]}:9100"] = 0.0
    actuator.apply(1, SECONDS, in_hand=in_hand)
    assert [one["InstanceId"] for one in cloud.instances()] == ids[:1]


def test_work_that_does_not_end_is_waited_for_so_long_and_no_longer(cloud: Cloud) -> None:
    actuator = cloud.actuator(instances={**FLEET, "drain_seconds": 600.0})
    settle(actuator, cloud, 1)
    busy = {cloud.instances()[0]["InstanceId"]: 1.0}
    actuator.apply(0, SECONDS, in_hand=busy)
    cloud.now += 599.0
    actuator.apply(0, SECONDS, in_hand=busy)
    assert len(cloud.instances()) == 1
    cloud.now += 2.0
    actuator.apply(0, SECONDS, in_hand=busy)
    assert cloud.instances() == []


def test_named_victims_go_before_idle_ones(cloud: Cloud) -> None:
    actuator = cloud.actuator(instances=FLEET)
    settle(actuator, cloud, 3)
    ids = [one["InstanceId"] for one in cloud.instances()]
    actuator.apply(2, SECONDS, victims=(ids[1],), in_hand={ids[0]: 0.0, ids[1]: 9.0, ids[2]: 0.0})
    assert {one["InstanceId"] for one in cloud.instances()} == {ids[0], ids[2]}


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("UnauthorizedOperation", PermanentError, r"refused \(UnauthorizedOperation.*docs/aws.md lists the rights"),
        ("AuthFailure", PermanentError, "the credentials were refused"),
        ("InvalidLaunchTemplateName.NotFoundException", NoGrowthError, "correct .* the template worker"),
        ("InsufficientFreeAddressesInSubnet", NoCapacityError, "there is no capacity for what the template asks for"),
    ],
)
def test_what_ec2_refuses_is_said_with_what_to_do(cloud: Cloud, code: str, kind: type[Exception], says: str) -> None:
    cloud.fails("run_instances", refuses(code), times=9)
    with pytest.raises(kind, match=says):
        cloud.actuator(instances=FLEET).apply(1, SECONDS)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (botocore.exceptions.SSLError(endpoint_url="https://ec2", error="no certificate"), LostError),
        (botocore.parsers.ResponseParserError("<html>please log in</html>"), LostError),
        (ConnectionResetError(104, "Connection reset by peer"), LostError),
        (botocore.exceptions.UnauthorizedSSOTokenError(), PermanentError),
    ],
)
def test_what_botocore_raises_is_an_error_of_this_target_alone(
    cloud: Cloud, error: Exception, kind: type[Exception]
) -> None:
    """Anything else would end the scaler's whole step, with all its other workloads."""

    def raises(call: Callable[[], Any]) -> Any:
        raise error

    cloud.fails("describe_instances", raises)
    with pytest.raises(ActuatorError, match="AWS eu-west-1: describe_instances") as caught:
        cloud.actuator(instances=FLEET).read_replicas(SECONDS)
    assert type(caught.value) is kind


def test_a_target_group_that_is_not_there_is_named(cloud: Cloud, group: Callable[[str], str]) -> None:
    actuator = cloud.actuator(instances=FLEET, target_groups=[group("web").replace("web", "wep")])
    actuator.apply(1, SECONDS)
    with pytest.raises(PermanentError, match=r"target.aws.target_groups: arn:aws:.*wep.* is not there"):
        actuator.read_replicas(SECONDS)
