"""Actuators: write a number of replicas to the world. One file and one line each."""

from collections.abc import Callable
from typing import Any

from controllers.actuators.aws import aws_actuator
from controllers.actuators.command import command_actuator
from controllers.actuators.docker import docker_actuator
from controllers.actuators.haproxy import haproxy_actuator
from controllers.actuators.interface import Actuator, ActuatorError
from controllers.actuators.kubernetes import kubernetes_actuator
from controllers.actuators.several import several_actuator

ACTUATORS: dict[str, Callable[[Any], Actuator]] = {
    "aws": aws_actuator,
    "command": command_actuator,
    "docker": docker_actuator,
    "haproxy": haproxy_actuator,
    "kubernetes": kubernetes_actuator,
    "several": several_actuator,
}

__all__ = ["ACTUATORS", "Actuator", "ActuatorError"]
