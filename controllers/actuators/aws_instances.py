"""Replicas as plain EC2 instances of a launch template, behind target groups where there are some.

Each call looks at what there is, goes on with what is unfinished, then starts or ends what the number asks for. Who
belongs to the fleet, and how far each is, stands in tags. What this process remembers is only what it did in the last
minutes and EC2 does not show yet: EC2's answers lag behind its actions.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from controllers.actuators.aws_account import Account, LostError, RefusedError
from controllers.actuators.aws_balancer import finish_registrations, read_health, with_health
from controllers.actuators.aws_facts import (
    FLEET,
    LEAVING,
    MADE_BY,
    SINCE,
    SLOT,
    STATE,
    Instance,
    Stage,
    boot_failed,
    client_token,
    failures_in_a_row,
    free_slots,
    parsed,
    predecessor,
    victims_of,
    work_in_hand,
)
from controllers.actuators.interface import Actuator, ActuatorError, NoCapacityError, NoGrowthError
from controllers.config.aws import AwsInstances, AwsTarget
from controllers.domain import Replicas

VISIBLE_SECONDS = 300.0  # until then EC2 shows what it did
LOOK_LASTS_SECONDS = 5.0  # so long a read counts for the decision that it was made for
CAPACITY_COOL_SECONDS = 120.0  # so long a type in a place is not asked for again that had no capacity
MOST_ATTEMPTS = 20  # names of one wish whose instances had ended already

Option = tuple[str | None, str | None]  # instance type, subnet or zone; None: the template's


def instances_actuator(
    target: AwsTarget, settings: AwsInstances, account: Account, clock: Callable[[], float] = time.time
) -> Actuator:
    """The actuator for `target.aws.instances`."""
    fleet = _Fleet(target, settings, account, clock)
    return Actuator(fleet.read_replicas, fleet.apply)


@dataclass
class _Recent:
    """What was done and is not shown yet, with the time it was done (Unix seconds)."""

    started: dict[str, tuple[Instance, float]] = field(default_factory=dict)
    tagged: dict[str, tuple[Stage, float]] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def over(self, shown: Sequence[Instance], now: float) -> list[Instance]:
        """`shown`, and over it what is not shown yet. What is shown by now, or was never to be, is forgotten."""
        since = now - VISIBLE_SECONDS
        by_id = {i.id: i for i in shown}
        self.started = {name: one for name, one in self.started.items() if name not in by_id and one[1] > since}
        self.tagged = {
            name: (stage, at)
            for name, (stage, at) in self.tagged.items()
            if at > since and not (name in by_id and by_id[name].stage is stage)
        }
        self.ended = {
            name: at
            for name, at in self.ended.items()
            if at > since and not (name in by_id and not by_id[name].is_alive)
        }
        merged = [*shown, *(instance for instance, _ in self.started.values())]
        merged = [
            replace(i, stage=self.tagged[i.id][0], since=self.tagged[i.id][1]) if i.id in self.tagged else i
            for i in merged
        ]
        return [replace(i, state="shutting-down") if i.id in self.ended and i.is_alive else i for i in merged]


class _Fleet:
    """The instances with one value of the tag `tidewise:fleet`."""

    def __init__(self, target: AwsTarget, settings: AwsInstances, account: Account, clock: Callable[[], float]) -> None:
        self._target = target
        self._settings = settings
        self._account = account
        self._clock = clock
        self._recent = _Recent()
        self._looked: tuple[float, list[Instance]] | None = None
        self._cooling: dict[Option, float] = {}
        self._failed: dict[str, Instance] = {}  # EC2 takes the tags of ended instances away by and by
        self._lost: dict[int, Option] = {}  # slot -> what was asked for there and not answered

    def read_replicas(self, seconds: float) -> Replicas:
        instances = self._look(self._until(seconds))
        self._looked = (self._clock(), instances)
        replicas = [i for i in instances if i.is_replica]
        leaving = sum(i.is_alive and i.stage in LEAVING for i in instances)
        starting = sum(not i.is_ready or i.stage is Stage.STARTING for i in replicas)
        return Replicas(
            wanted=len(replicas),
            ready=sum(i.is_ready for i in replicas),
            draining=sum(i.is_leaving for i in instances),
            unfinished=bool(leaving or starting),
        )

    def apply(
        self, replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        until = self._until(seconds)
        looked, self._looked = self._looked, None
        fresh = looked is not None and abs(self._clock() - looked[0]) < LOOK_LASTS_SECONDS
        instances = looked[1] if looked is not None and fresh else self._look(until)
        problems: list[ActuatorError] = []
        instances = self._judge(instances, problems, until)
        present = [i for i in instances if i.is_replica]
        if replicas < len(present):
            chosen = victims_of(present, len(present) - replicas, victims, in_hand)
            instances = self._mark(instances, chosen, Stage.DRAINING, problems, until)
        problems += finish_registrations(self._account, instances, until)
        self._end(instances, in_hand, problems, until)
        if replicas > len(present):
            try:
                self._start(instances, replicas - len(present), until)
            except ActuatorError as error:
                problems.insert(0, error)
        if problems:
            raise problems[0]

    def _look(self, until: float) -> list[Instance]:
        """All of the fleet, ended ones included as long as EC2 shows them, with their health."""
        fleet = {"Name": f"tag:{FLEET}", "Values": [self._settings.fleet]}
        pages = self._account.pages(until, "ec2", "describe_instances", "Reservations", Filters=[fleet])
        shown = [parsed(raw) for reservation in pages for raw in reservation["Instances"]]
        instances = self._recent.over(shown, self._clock())
        if not any(i.is_alive for i in instances):
            return instances
        if self._target.target_groups:
            return with_health(instances, read_health(self._account, self._target.target_groups, until))
        running = [i.id for i in shown if i.state == "running"]
        if not running:
            return instances
        wanted = {"Name": "instance-status.status", "Values": ["impaired"]}
        checks = self._account.pages(until, "ec2", "describe_instance_status", "InstanceStatuses", Filters=[wanted])
        impaired = {check["InstanceId"] for check in checks if check["InstanceStatus"]["Status"] == "impaired"}
        return [replace(i, impaired=i.id in impaired) for i in instances]

    def _judge(self, instances: list[Instance], problems: list[ActuatorError], until: float) -> list[Instance]:
        """Notes who is healthy for the first time, and who had its time and never was."""
        now = self._clock()
        healthy = [i for i in instances if i.is_ready and i.stage is Stage.STARTING]
        failed = [i for i in instances if boot_failed(i, now, self._settings.boot_seconds)]
        instances = self._mark(instances, healthy, Stage.READY, problems, until)
        instances = self._mark(instances, failed, Stage.FAILED, problems, until)
        self._failed.update({i.id: i for i in instances if i.stage is Stage.FAILED})
        self._failed = {i.id: i for i in failures_in_a_row(self._failed.values(), now)}
        return instances

    def _mark(
        self,
        instances: list[Instance],
        chosen: Sequence[Instance],
        stage: Stage,
        problems: list[ActuatorError],
        until: float,
    ) -> list[Instance]:
        """Writes the stage into the tags of `chosen`. Nothing is taken away from one before that is written."""
        if not chosen:
            return instances
        now = self._clock()
        ids = [i.id for i in chosen]
        tags = [{"Key": STATE, "Value": stage.value}, {"Key": SINCE, "Value": f"{now:.0f}"}]
        try:
            self._account.call(until, "ec2", "create_tags", Resources=ids, Tags=tags)
        except ActuatorError as error:
            problems.append(error)
            return instances
        self._recent.tagged.update(dict.fromkeys(ids, (stage, now)))
        return [replace(i, stage=stage, since=now) if i.id in ids else i for i in instances]

    def _end(
        self,
        instances: Iterable[Instance],
        in_hand: Mapping[str, float] | None,
        problems: list[ActuatorError],
        until: float,
    ) -> None:
        """Ends those that are told to end and have nothing left: no load balancer sends them work, none is in hand."""
        now = self._clock()
        ids = [i.id for i in instances if i.is_alive and i.stage in LEAVING and self._may_end(i, in_hand, now)]
        if not ids:
            return
        try:
            self._account.call(until, "ec2", "terminate_instances", InstanceIds=ids)
        except ActuatorError as error:
            problems.append(error)
            return
        self._recent.ended.update(dict.fromkeys(ids, now))

    def _may_end(self, instance: Instance, in_hand: Mapping[str, float] | None, now: float) -> bool:
        longest = self._settings.drain_seconds
        if longest is not None and now - (instance.since or now) >= longest:
            return True
        if instance.registered_in:
            return False
        if longest is None or instance.stage is Stage.FAILED:
            return True
        work = work_in_hand(instance, in_hand)
        return work == 0 if work is not None else bool(instance.health)

    def _start(self, instances: Sequence[Instance], count: int, until: float) -> None:
        """One request an instance, each with a name of its own. Raises NoCapacityError, ActuatorError."""
        present = sum(i.is_replica for i in instances)
        known = {**self._failed, **{i.id: i for i in instances}}
        failures = failures_in_a_row(known.values(), self._clock())
        if len(failures) >= self._settings.boot_attempts:
            raise NoGrowthError(
                f"fleet {self._settings.fleet}: {len(failures)} instances in a row were not healthy within "
                f"{self._settings.boot_seconds:.0f} s (the last: {failures[-1].id}), so no more are started for an "
                f"hour; see its console output and correct the launch template {self._settings.launch_template}",
                present,
            )
        if failures:  # a template that does not boot is not paid for by the dozen
            starting = sum(i.is_replica and i.stage is Stage.STARTING for i in instances)
            count = min(count, self._settings.boot_attempts - len(failures) - starting)
            if count <= 0:
                raise NoCapacityError(
                    f"fleet {self._settings.fleet}: the last {len(failures)} were not healthy in time; no more are "
                    f"started until one of the {starting} that boot is",
                    present,
                )
        for number, slot in enumerate(free_slots(instances, count)):
            try:
                started = self._start_one(slot, predecessor(instances, slot), until)
            except NoCapacityError as error:
                error.told = present + number
                raise
            self._recent.started[started.id] = (started, self._clock())

    def _start_one(self, slot: int, after: str, until: float) -> Instance:
        """In the first type and place that has capacity. What was not answered is asked for again in the same words."""
        now = self._clock()
        able = [option for option in options(self._settings) if self._cooling.get(option, 0.0) <= now]
        if slot in self._lost:
            able = [self._lost[slot], *(option for option in able if option != self._lost[slot])]
        refusals: list[NoCapacityError] = []
        for option in able:
            try:
                started = self._run(slot, after, option, until)
            except NoGrowthError:
                self._lost.pop(slot, None)
                raise
            except NoCapacityError as error:
                self._lost.pop(slot, None)
                self._cooling[option] = now + CAPACITY_COOL_SECONDS
                refusals.append(error)
            except LostError:
                self._lost[slot] = option
                raise
            else:
                self._lost.pop(slot, None)
                return started
        count = len(options(self._settings))
        what = f"the {count} configured types and places" if count > 1 else "what the template asks for"
        why = refusals[-1] if refusals else f"they were asked less than {CAPACITY_COOL_SECONDS:.0f} s ago"
        raise NoCapacityError(f"fleet {self._settings.fleet}: there is no capacity for {what} ({why})")

    def _run(self, slot: int, after: str, option: Option, until: float) -> Instance:
        """One request; where the instance of that name has ended long since, the next name."""
        for attempt in range(MOST_ATTEMPTS):
            token = client_token(self._settings.fleet, slot, after, option, attempt)
            try:
                answer = self._account.call(until, "ec2", "run_instances", **wish(self._settings, slot, option, token))
            except RefusedError as error:
                if error.code in ("IdempotentInstanceTerminated", "IdempotentParameterMismatch"):
                    continue
                raise told_what_to_correct(error, self._settings) from None
            started = replace(parsed(answer["Instances"][0]), slot=slot)
            if started.is_alive:
                return replace(started, stage=Stage.STARTING, launched_at=started.launched_at or self._clock())
        raise ActuatorError(
            f"fleet {self._settings.fleet}: EC2 answers with ended instances for slot {slot}, {MOST_ATTEMPTS} times"
        )

    def _until(self, seconds: float) -> float:
        return time.monotonic() + min(seconds, self._target.timeout_seconds)


def options(settings: AwsInstances) -> list[Option]:
    """Types and places in the order in which they are asked."""
    kinds: list[str | None] = [*settings.instance_types] or [None]
    places: list[str | None] = [*(settings.subnets or settings.zones)] or [None]
    return list(itertools.product(kinds, places))


def wish(settings: AwsInstances, slot: int, option: Option, token: str) -> dict[str, Any]:
    """The request that starts one instance."""
    template = settings.launch_template
    kind, place = option
    tags = {
        "Name": f"{settings.fleet}-{slot}",
        **settings.tags,
        FLEET: settings.fleet,
        SLOT: str(slot),
        MADE_BY: "tidewise scale",
    }
    request: dict[str, Any] = {
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "LaunchTemplate": {
            "LaunchTemplateId" if template.startswith("lt-") else "LaunchTemplateName": template,
            "Version": settings.launch_template_version,
        },
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        ],
    }
    if kind is not None:
        request["InstanceType"] = kind
    if place is not None and settings.subnets:
        request["SubnetId"] = place
    elif place is not None:
        request["Placement"] = {"AvailabilityZone": place}
    return request


def told_what_to_correct(error: RefusedError, settings: AwsInstances) -> ActuatorError:
    """Mistakes of the configuration are permanent."""
    wrong = ("InvalidLaunchTemplate", "InvalidSubnet", "InvalidParameter", "InvalidAMI", "InvalidGroup", "InvalidKey")
    if error.code.startswith((*wrong, "MissingParameter", "InvalidBlockDevice", "InvalidZone")):
        return NoGrowthError(f"{error}; correct target.aws.instances or the template {settings.launch_template}")
    return error
