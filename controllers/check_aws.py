"""What `tidewise check` finds out about AWS targets: what is there, whether more may be started, who else scales it."""

import time
from dataclasses import dataclass

from controllers.actuators.aws import aws_actuator
from controllers.actuators.aws_account import Account, RefusedError, account_of
from controllers.actuators.aws_group import GroupFacts, group_facts
from controllers.actuators.aws_instances import options, told_what_to_correct, wish
from controllers.actuators.interface import ActuatorError
from controllers.config import Bounds, Config, Workload
from controllers.config.aws import AwsInstances, AwsTarget
from controllers.domain import Mode

SECONDS = 20.0  # for one target; the first loads boto3


@dataclass(frozen=True, slots=True)
class Found:
    """`said`: what is there. `problems`: without which an acting workload is not told. `warnings`: the rest."""

    said: str | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def report(config: Config) -> tuple[list[str], bool]:
    """The lines to be said, and whether an acting workload cannot be scaled. Targets of several are looked at too."""
    lines: list[str] = []
    missing = False
    for workload in config.workloads:
        acts = workload.mode is Mode.ACT
        places = [("", workload.target, workload.replicas)]
        for part in workload.target.several or []:
            places.append((f"{part.name}, ", part.target, Bounds(min=part.min, max=part.max)))
        for name, target, bounds in places:
            if target.aws is None:
                continue
            found = look(target.aws, bounds)
            at = f"{workload.identity}: {name}aws"
            lines += [f"{at}: {found.said}"] if found.said else []
            lines += [f"{'error' if acts else 'warning'}: {at}: {problem}" for problem in found.problems]
            warnings = [*found.warnings, *_cut_off(target.aws, workload)]
            lines += [f"warning: {at}: {warning}" for warning in warnings]
            missing = missing or (acts and bool(found.problems))
    return lines, missing


def look(target: AwsTarget, bounds: Bounds, account: Account | None = None) -> Found:
    """Asks AWS, changes nothing. `bounds`: within which it will be told."""
    account = account or account_of(target)
    until = time.monotonic() + SECONDS
    try:
        found = aws_actuator(target, account).read_replicas(SECONDS)
        said = f"{found.ready} of {found.wanted} replicas work"
        if target.instances is not None:
            return Found(
                said, tuple(_may_start(target.instances, account, until)), tuple(_kinds(target, account, until))
            )
        facts = group_facts(target, str(target.auto_scaling_group), account, until)
    except ActuatorError as error:
        return Found(problems=(str(error),))
    return Found(said, tuple(facts.obstacles), tuple(_within(facts, bounds)))


def _cut_off(target: AwsTarget, workload: Workload) -> list[str]:
    """The warning that busy workers are ended. A group has lifecycle hooks for that; requests have their balancer."""
    if target.instances is None or workload.demand.queue is None:
        return []
    if target.instances.drain_seconds is None:
        return ["a worker is ended with the job in its hands; set drain_seconds to the longest that one may take"]
    if workload.in_hand is None and not target.target_groups:
        return ["without in_hand nobody knows who is idle, so each is kept and paid for its whole drain_seconds"]
    return []


def _may_start(settings: AwsInstances, account: Account, until: float) -> list[str]:
    """By a dry run: EC2 checks rights and parameters and starts nothing."""
    request = wish(settings, 0, options(settings)[0], f"tidewise-check-{settings.fleet}"[:64])
    try:
        account.call(until, "ec2", "run_instances", **request, DryRun=True)
    except RefusedError as error:
        return [] if error.code == "DryRunOperation" else [str(told_what_to_correct(error, settings))]
    except ActuatorError as error:
        return [str(error)]
    return ["EC2 answered a dry run as if it were none; is another server behind this address?"]


def _kinds(target: AwsTarget, account: Account, until: float) -> list[str]:
    """Target groups that take no instances. The right to ask this is not needed otherwise."""
    if not target.target_groups:
        return []
    try:
        answer = account.call(until, "elbv2", "describe_target_groups", TargetGroupArns=target.target_groups)
    except ActuatorError as error:
        return [f"of which type its target groups are could not be asked ({error})"]
    return [
        f"the target group {group['TargetGroupName']} is of the type '{group['TargetType']}'; it must be 'instance'"
        for group in answer.get("TargetGroups", [])
        if group.get("TargetType", "instance") != "instance"
    ]


def _within(facts: GroupFacts, bounds: Bounds) -> list[str]:
    warnings = []
    if facts.largest < bounds.max:
        warnings.append(f"its MaxSize is {facts.largest}, less than the {bounds.max} it may be told; raise MaxSize")
    if facts.smallest > bounds.min:
        warnings.append(f"its MinSize is {facts.smallest}, more than the {bounds.min} it may be told; lower MinSize")
    return warnings
