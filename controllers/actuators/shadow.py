"""Shadow: reads the real target and tells it nothing. What every workload starts with."""

from collections.abc import Mapping
from dataclasses import replace

from controllers.actuators.interface import Actuator


def in_shadow(actuator: Actuator) -> Actuator:
    """The same target, looked at and left alone."""
    return replace(actuator, apply=_touch_nothing, release=None)


def _touch_nothing(
    replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
) -> None:
    del replicas, seconds, victims, in_hand
