"""Target groups of ELBv2: who is registered and how it is, registering and deregistering. Targets are instances."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from controllers.actuators.aws_account import Account, RefusedError
from controllers.actuators.aws_facts import ABSENT, LEAVING, Instance
from controllers.actuators.interface import ActuatorError, PermanentError


def read_health(account: Account, groups: Sequence[str], until: float) -> dict[str, dict[str, str]]:
    """By target group: instance -> initial, healthy, unhealthy, unused, draining, unavailable."""
    found: dict[str, dict[str, str]] = {}
    for group in groups:
        try:
            answer = account.call(until, "elbv2", "describe_target_health", TargetGroupArn=group)
        except RefusedError as error:
            if error.code in ("TargetGroupNotFound", "ValidationError"):
                raise PermanentError(f"target.aws.target_groups: {group} is not there ({error}); correct it") from None
            raise
        found[group] = {
            one["Target"]["Id"]: one["TargetHealth"]["State"] for one in answer.get("TargetHealthDescriptions", [])
        }
    return found


def with_health(instances: Iterable[Instance], health: Mapping[str, Mapping[str, str]]) -> list[Instance]:
    """Each with what every target group says of it."""
    return [replace(i, health={group: words.get(i.id, ABSENT) for group, words in health.items()}) for i in instances]


def finish_registrations(account: Account, instances: Sequence[Instance], until: float) -> list[ActuatorError]:
    """Registers what works and is not registered, deregisters what leaves and still is; in every group.

    One group's failure keeps no other from it: the next call goes on with what is left. Returns what went wrong.
    """
    problems: list[ActuatorError] = []
    for instance in instances:
        for group, word in instance.health.items():
            if word == "unused" and instance.is_replica and instance.state == "running":
                problems.append(
                    ActuatorError(
                        f"{instance.id} is unused in {group}: no listener of a load balancer has this target group, or "
                        "its zone is not enabled there; correct the load balancer"
                    )
                )
    for group in sorted({group for i in instances for group in i.health}):
        new = [i.id for i in instances if i.is_replica and i.state == "running" and i.health.get(group) == ABSENT]
        old = [
            i.id
            for i in instances
            if i.is_alive and i.stage in LEAVING and i.health.get(group) not in (ABSENT, "draining", None)
        ]
        for operation, ids in (("register_targets", new), ("deregister_targets", old)):
            if not ids:
                continue
            try:
                account.call(until, "elbv2", operation, TargetGroupArn=group, Targets=[{"Id": one} for one in ids])
            except ActuatorError as error:
                problems.append(error)
    return problems
