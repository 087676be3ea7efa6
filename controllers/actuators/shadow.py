"""Shadow: reads the real target and tells it nothing. What every workload starts with."""

from controllers.actuators.interface import Actuator


def in_shadow(actuator: Actuator) -> Actuator:
    """The same target, looked at and left alone."""
    return Actuator(read_replicas=actuator.read_replicas, apply=_touch_nothing)


def _touch_nothing(replicas: int, seconds: float, victims: tuple[str, ...] = ()) -> None:
    del replicas, seconds, victims
