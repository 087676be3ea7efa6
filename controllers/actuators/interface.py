"""What every actuator offers: read what the target has, and tell it an absolute number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controllers.domain import Replicas


class ActuatorError(Exception):
    """The target could not be read or told: which, what came back, what to do."""


class PermanentError(ActuatorError):
    """Trying again will not help before a person has changed something: a right, a name, another scaler."""


class NoCapacityError(ActuatorError):
    """The target cannot give so many now (no instances of that type, a quota). `told`: what it was told all the same.

    Another target may have them; this one is worth asking again only after a while.
    """

    def __init__(self, message: str, told: int | None = None) -> None:
        self.told = told
        super().__init__(message)


class NoGrowthError(PermanentError, NoCapacityError):
    """No more can be had before a person has changed something: a quota, a template that does not boot.

    Fewer can still be told, and another target may have them.
    """


class Apply(Protocol):
    """Tells an absolute number. `victims`: instances that a smaller number takes first, where they are there.

    `in_hand`: work in hand by instance; a smaller number takes the idlest, then the least busy. None: not known.
    """

    def __call__(
        self,
        replicas: int,
        seconds: float,
        victims: tuple[str, ...] = (),
        in_hand: Mapping[str, float] | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class Actuator:
    """Both functions end within the seconds they are given and raise ActuatorError.

    `read_replicas(seconds)`: what the target was last told and how many of those work (pending ones have no age yet).
    `apply(replicas, seconds, victims, in_hand)`: an absolute number; telling the same number again changes nothing.
    `is_floor`: it is told the floor of the user's own autoscaler, which may have more (a decision of the same number is
    told again, for a floor expires). An actuator that finds out only by looking says so in `Replicas.floor` instead.
    `expires`: what it was told counts for a while only, and is to end while nothing is known: a decision that merely
    holds does not tell it again.
    `release(seconds)`: gives up, at an orderly end, what it holds of the target: a floor. None: it holds nothing.
    """

    read_replicas: Callable[[float], Replicas]
    apply: Apply
    is_floor: bool = False
    expires: bool = False
    release: Callable[[float], None] | None = None
