"""What every actuator offers: read what the target has, and tell it an absolute number."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controllers.domain import Replicas


class ActuatorError(Exception):
    """The target could not be read or told: which, what came back, what to do."""


class PermanentError(ActuatorError):
    """Trying again will not help before a person has changed something: a right, a name, another scaler."""


class Apply(Protocol):
    """Tells an absolute number. `victims`: instances that a smaller number takes first, where they are there."""

    def __call__(self, replicas: int, seconds: float, victims: tuple[str, ...] = ()) -> None: ...


@dataclass(frozen=True)
class Actuator:
    """Both functions end within the seconds they are given and raise ActuatorError.

    `read_replicas(seconds)`: what the target was last told and how many of those work (pending ones have no age yet).
    `apply(replicas, seconds, victims)`: an absolute number; telling the same number again changes nothing.
    """

    read_replicas: Callable[[float], Replicas]
    apply: Apply
