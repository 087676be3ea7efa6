"""Replicas as an Auto Scaling group of the user's: its desired capacity, and which instances go when it falls.

The group starts, registers and replaces its instances itself. Those that nobody misses (named, not working yet, idle)
are ended one by one and the number with them; only then the number falls, while the busiest are protected from it.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from controllers.actuators.aws_account import Account, LostError, RefusedError
from controllers.actuators.aws_balancer import read_health, with_health
from controllers.actuators.aws_facts import Instance, is_named, victims_of, work_in_hand
from controllers.actuators.interface import Actuator, ActuatorError, NoCapacityError, NoGrowthError, PermanentError
from controllers.config.aws import AwsTarget
from controllers.domain import Replicas

PROTECTED = "tidewise:protected"  # on an instance that was protected by us; one that its owner protected is left alone
FAILURE_COUNTS_SECONDS = 600.0  # so long a start that failed says that there is no capacity
AT_ONCE = 50  # instances that one request may name
# What a failed activity says in words; it has no codes.
NO_CAPACITY_WORDS = ("capacity", "Capacity", "limit", "Limit", "quota", "is not supported", "not offered")


def group_actuator(target: AwsTarget, name: str, account: Account, clock: Callable[[], float] = time.time) -> Actuator:
    """The actuator for `target.aws.auto_scaling_group`."""
    scaled = _Scaled(target, name, account, clock)
    return Actuator(scaled.read_replicas, scaled.apply)


@dataclass(frozen=True, slots=True)
class Group:
    """An Auto Scaling group as it was read. `members`: with how each is in the target groups."""

    desired: int
    smallest: int
    largest: int
    suspended: frozenset[str]
    members: tuple[Instance, ...]
    lifecycle: Mapping[str, str]  # instance -> its lifecycle state
    protected: frozenset[str]

    def are(self, *states: str) -> list[Instance]:
        return [i for i in self.members if self.lifecycle[i.id].split(":")[0] in states]

    @property
    def staying(self) -> list[Instance]:
        """Those that count towards the desired capacity."""
        return self.are("Pending", "InService", "Quarantined")


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """Its bounds, and why it could not be told: others that scale it, processes that are suspended."""

    smallest: int
    largest: int
    obstacles: tuple[str, ...]


def group_facts(target: AwsTarget, name: str, account: Account, until: float) -> GroupFacts:
    """For `tidewise check`. Raises ActuatorError."""
    return _Scaled(target, name, account, time.time).facts(until)


class _Scaled:
    """One group."""

    def __init__(self, target: AwsTarget, name: str, account: Account, clock: Callable[[], float]) -> None:
        self._target = target
        self._name = name
        self._account = account
        self._clock = clock

    def read_replicas(self, seconds: float) -> Replicas:
        group = self._look(self._until(seconds))
        ready = sum(i.is_ready for i in group.are("InService"))
        return Replicas(
            wanted=group.desired,
            ready=ready,
            draining=len(group.are("Terminating")),
            # told again, so that a start that failed is noticed, and what was protected is not so for ever
            unfinished=len(group.staying) < group.desired or bool(group.protected),
        )

    def apply(
        self, replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        until = self._until(seconds)
        group = self._look(until)
        told = min(max(replicas, group.smallest), group.largest)
        if told != group.desired:
            self._refuse_beside_others(until)
            self._refuse_while_suspended(group, told)
        if told < group.desired:
            self._shrink(group, told, victims, in_hand, until)
        else:
            self._unprotect(group, in_hand, until)
            if told > group.desired:
                self._set(told, until)
            elif len(group.staying) < told:
                self._notice_failed_starts(group, until)
        if replicas > group.largest:
            raise NoCapacityError(
                f"{self._at}: it has at most {group.largest} (MaxSize), {replicas} were asked for; raise its MaxSize",
                told,
            )
        if replicas < group.smallest:
            raise ActuatorError(  # not for good: more can be told all the same
                f"{self._at}: it has at least {group.smallest} (MinSize), {replicas} were asked for; lower its MinSize"
            )

    def facts(self, until: float) -> GroupFacts:
        group = self._look(until)
        obstacles: list[str] = []
        checks: list[Callable[[], None]] = [
            functools.partial(self._refuse_beside_others, until),
            *(functools.partial(self._refuse_while_suspended, group, group.desired + more) for more in (1, -1)),
        ]
        for check in checks:
            try:
                check()
            except ActuatorError as error:
                obstacles.append(str(error))
        return GroupFacts(group.smallest, group.largest, tuple(obstacles))

    def _shrink(
        self,
        group: Group,
        told: int,
        victims: tuple[str, ...],
        in_hand: Mapping[str, float] | None,
        until: float,
    ) -> None:
        """First those that nobody misses, each with the number; then the number, from which the busier are safe."""
        count = group.desired - told
        ours = self._protected_by_us(group, until)
        members = self._with_names(group, until) if victims or in_hand else group.staying
        # Ending one by name heeds no protection, so it is heeded here; a named victim is meant all the same.
        members = [i for i in members if i.id not in group.protected - ours or is_named(i, victims)]
        order = victims_of(members, len(members), victims, in_hand)
        missed = [i for i in order if not is_named(i, victims) and i.is_ready and work_in_hand(i, in_hand) != 0]
        missing = max(0, group.desired - len(group.staying))  # told and never started: the number falls by itself
        one_by_one = [i for i in order if i not in missed][: max(0, count - missing)]
        if not victims and in_hand is None:
            one_by_one = []  # the group's own termination policy decides
        rest = count - len(one_by_one)
        if rest and in_hand is not None:
            busy = [i for i in members if i not in one_by_one and work_in_hand(i, in_hand)]
            goes = missed[: max(0, rest - missing)]
            self._release([i.id for i in goes if i.id in ours], until)
            self._protect([i for i in busy if i not in goes and i.id not in group.protected], until)
        for instance in one_by_one:
            self._account.call(
                until,
                "autoscaling",
                "terminate_instance_in_auto_scaling_group",
                InstanceId=instance.id,
                ShouldDecrementDesiredCapacity=True,
            )
        if rest:
            self._set(told, until)

    def _set(self, told: int, until: float) -> None:
        """Tells the number. Where the answer is lost, looks whether it was heard."""
        try:
            self._account.call(
                until,
                "autoscaling",
                "set_desired_capacity",
                AutoScalingGroupName=self._name,
                DesiredCapacity=told,
                HonorCooldown=False,
            )
        except LostError:
            if self._look(until).desired != told:
                raise

    def _protect(self, instances: Sequence[Instance], until: float) -> None:
        """From the group's choice. The tag comes first: what a killed process protected is found by it."""
        if instances:
            ids = [i.id for i in instances]
            tags = [{"Key": PROTECTED, "Value": self._name}]
            self._account.call(until, "ec2", "create_tags", Resources=ids, Tags=tags)
            self._set_protection(ids, True, until)

    def _unprotect(self, group: Group, in_hand: Mapping[str, float] | None, until: float) -> None:
        """Of those that we protected, the ones that are not busy any more."""
        if in_hand is None and len(group.staying) > group.desired:
            return  # AWS is about to choose who goes, and who is busy is not known now
        ours = self._protected_by_us(group, until)
        if ours:
            members = self._with_names(group, until)
            busy = {i.id for i in members if in_hand and work_in_hand(i, in_hand)}
            self._release([i.id for i in members if i.id in ours - busy], until)

    def _protected_by_us(self, group: Group, until: float) -> set[str]:
        if not group.protected:
            return set()
        tagged = [{"Name": "key", "Values": [PROTECTED]}, {"Name": "value", "Values": [self._name]}]
        tags = self._account.pages(until, "ec2", "describe_tags", "Tags", Filters=tagged)
        return {tag["ResourceId"] for tag in tags} & group.protected

    def _release(self, ids: Sequence[str], until: float) -> None:
        if ids:
            self._set_protection(ids, False, until)
            self._account.call(until, "ec2", "delete_tags", Resources=ids, Tags=[{"Key": PROTECTED}])

    def _set_protection(self, ids: Sequence[str], protected: bool, until: float) -> None:
        for start in range(0, len(ids), AT_ONCE):
            self._account.call(
                until,
                "autoscaling",
                "set_instance_protection",
                AutoScalingGroupName=self._name,
                InstanceIds=list(ids[start : start + AT_ONCE]),
                ProtectedFromScaleIn=protected,
            )

    def _with_names(self, group: Group, until: float) -> list[Instance]:
        """Those that count, with the addresses by which metrics and people call them."""
        ids = [i.id for i in group.staying]
        if not ids:
            return []
        pages = self._account.pages(until, "ec2", "describe_instances", "Reservations", InstanceIds=ids)
        names = {
            raw["InstanceId"]: frozenset(
                {raw["InstanceId"], *(raw[key] for key in ("PrivateIpAddress", "PrivateDnsName") if raw.get(key))}
            )
            for reservation in pages
            for raw in reservation["Instances"]
        }
        return [replace(i, names=names.get(i.id, i.names)) for i in group.staying]

    def _refuse_beside_others(self, until: float) -> None:
        """Scaling policies and schedules would undo what is told here, and this what they do."""
        name = {"AutoScalingGroupName": self._name}
        policies = self._account.pages(until, "autoscaling", "describe_policies", "ScalingPolicies", **name)
        for policy in policies:
            if policy.get("Enabled", True):
                raise PermanentError(
                    f"{self._at}: its {policy['PolicyType']} policy {policy['PolicyName']} scales it as well, and each "
                    "would undo what the other does; disable that policy, or set this workload's mode to shadow or "
                    "recommend"
                )
        actions = self._account.pages(
            until, "autoscaling", "describe_scheduled_actions", "ScheduledUpdateGroupActions", **name
        )
        for action in actions:
            if action.get("DesiredCapacity", -1) >= 0:  # those that only move its bounds are welcome
                raise PermanentError(
                    f"{self._at}: its scheduled action {action['ScheduledActionName']} sets the desired capacity as "
                    "well; delete it and write a `schedule` floor into this workload"
                )

    def _refuse_while_suspended(self, group: Group, told: int) -> None:
        needed = ("Launch", "AddToLoadBalancer") if told > group.desired else ("Terminate",)
        for process in needed:
            if process in group.suspended:
                kind = NoGrowthError if told > group.desired else ActuatorError
                raise kind(
                    f"{self._at}: its process {process} is suspended, so {told} instead of {group.desired} would not "
                    "come about; resume it"
                )

    def _notice_failed_starts(self, group: Group, until: float) -> None:
        """A group that gets no instances asks on silently. Its number is taken back, and whoever is next is asked."""
        activities = self._account.call(
            until,
            "autoscaling",
            "describe_scaling_activities",
            AutoScalingGroupName=self._name,
            MaxRecords=10,
        ).get("Activities", [])
        failed = next(iter(sorted(activities, key=_begun, reverse=True)), None)
        if failed is None or failed.get("StatusCode") != "Failed" or not _says_no_capacity(failed):
            return
        if self._clock() - _begun(failed) > FAILURE_COUNTS_SECONDS:
            return
        have = max(len(group.staying), group.smallest)
        if have < group.desired:
            self._set(have, until)
        raise NoCapacityError(f"{self._at}: {str(failed.get('StatusMessage', ''))[:300]}", have)

    def _look(self, until: float) -> Group:
        try:
            answer = self._account.call(
                until, "autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[self._name]
            )
        except RefusedError as error:
            raise PermanentError(f"{self._at}: {error}") from None
        found = answer.get("AutoScalingGroups", [])
        if not found:
            raise PermanentError(f"{self._at} is not there; correct target.aws.auto_scaling_group or the region")
        raw = found[0]
        overrides = (raw.get("MixedInstancesPolicy") or {}).get("LaunchTemplate", {}).get("Overrides", [])
        if any(one.get("WeightedCapacity", "1") != "1" for one in overrides):
            raise PermanentError(f"{self._at}: it counts in weights (WeightedCapacity), not in instances; remove them")
        members = tuple(_member(one) for one in raw.get("Instances", []))
        if self._target.target_groups and members:
            members = tuple(with_health(members, read_health(self._account, self._target.target_groups, until)))
        return Group(
            desired=raw["DesiredCapacity"],
            smallest=raw["MinSize"],
            largest=raw["MaxSize"],
            suspended=frozenset(one["ProcessName"] for one in raw.get("SuspendedProcesses", [])),
            members=members,
            lifecycle={one["InstanceId"]: one["LifecycleState"] for one in raw.get("Instances", [])},
            protected=frozenset(one["InstanceId"] for one in raw.get("Instances", []) if one["ProtectedFromScaleIn"]),
        )

    @property
    def _at(self) -> str:
        return f"AWS {self._account.region}: Auto Scaling group {self._name}"

    def _until(self, seconds: float) -> float:
        return time.monotonic() + min(seconds, self._target.timeout_seconds)


def _member(raw: Mapping[str, Any]) -> Instance:
    """The group's view of an instance: it works where it is in service and the group holds it for healthy."""
    works = raw["LifecycleState"] == "InService"
    return Instance(
        id=raw["InstanceId"],
        state="running" if works else "pending",
        names=frozenset({raw["InstanceId"]}),
        impaired=raw.get("HealthStatus", "Healthy").lower() != "healthy",
    )


def _begun(activity: Mapping[str, Any]) -> float:
    begun = activity.get("StartTime")
    return begun.timestamp() if isinstance(begun, datetime) else 0.0


def _says_no_capacity(activity: Mapping[str, Any]) -> bool:
    return any(word in str(activity.get("StatusMessage", "")) for word in NO_CAPACITY_WORDS)
