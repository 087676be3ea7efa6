"""Replicas on Amazon EC2: which of the two kinds of fleet a target means. boto3 is loaded with the first call."""

import time
from collections.abc import Callable

from controllers.actuators.aws_account import Account, account_of
from controllers.actuators.aws_group import group_actuator
from controllers.actuators.aws_instances import instances_actuator
from controllers.actuators.interface import Actuator
from controllers.config.aws import AwsTarget


def aws_actuator(target: AwsTarget, account: Account | None = None, clock: Callable[[], float] = time.time) -> Actuator:
    """The actuator for `target.aws`. Workloads of one account and region share its connections and its waits.

    `clock`: Unix seconds, of which the times in tags are.
    """
    account = account or account_of(target)
    if target.instances is not None:
        return instances_actuator(target, target.instances, account, clock)
    return group_actuator(target, str(target.auto_scaling_group), account, clock)
