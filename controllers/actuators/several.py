"""Several targets for one workload: spot and on-demand, one's own and a cloud to overflow to.

Where one has no capacity the next gets the rest in the same call, and the first is left alone for a while, longer each
time. Where one cannot be read the whole is unknown, so the scaler holds: a number is neither lowered nor raised on half
of the picture.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from controllers.actuators.interface import Actuator, ActuatorError, NoCapacityError, NoGrowthError, PermanentError
from controllers.actuators.split import Part, cheapest_first, next_numbers
from controllers.config import PartTarget, Target
from controllers.domain import PartReplicas, Replicas

FIRST_COOL_SECONDS = 60.0
LONGEST_COOL_SECONDS = 1800.0
LOOK_LASTS_SECONDS = 5.0  # so long a read counts for the decision that it was made for


def several_actuator(
    targets: Sequence[PartTarget],
    make: Callable[[Target], Actuator] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Actuator:
    """The actuator for `target.several`. `make`: an actuator for one of the targets; None: that of its kind."""
    several = _Several(targets, [(make or _of_its_kind)(part.target) for part in targets], clock)
    return Actuator(several.read_replicas, several.apply, release=several.release)


def _of_its_kind(target: Target) -> Actuator:
    from controllers.actuators import ACTUATORS  # here, for the registry imports this file

    if target.kubernetes is not None:  # a floor is no number of replicas, and several are added up
        return ACTUATORS["kubernetes"](target.kubernetes.model_copy(update={"beside": "refuse"}))
    return ACTUATORS[target.kind](getattr(target, target.kind))


@dataclass
class _Cooling:
    """How long one target is not asked for more. `had`: what it had when it could not give more."""

    until: float = -math.inf
    seconds: float = 0.0
    had: int = 0

    def refused(self, had: int, now: float) -> None:
        self.seconds = min(LONGEST_COOL_SECONDS, max(FIRST_COOL_SECONDS, 2 * self.seconds))
        self.until, self.had = now + self.seconds, had


class _Several:
    """All targets of one workload, and what they were told together."""

    def __init__(
        self, targets: Sequence[PartTarget], actuators: Sequence[Actuator], clock: Callable[[], float]
    ) -> None:
        self._targets = targets
        self._actuators = actuators
        self._clock = clock
        self._cooling = [_Cooling() for _ in targets]
        self._told: tuple[int, int] | None = None  # the number that was asked for, and the sum of what they were told
        self._looked: tuple[float, list[Replicas]] | None = None

    def read_replicas(self, seconds: float) -> Replicas:
        found = self._read(seconds)
        self._looked = (self._clock(), found)
        parts = self._parts(found)
        told = sum(one.wanted for one in found)
        wanted = told
        if self._told is not None and told <= self._told[1]:
            wanted = min(told, self._told[0])  # beyond it are those that go when cheaper ones work
        numbers = next_numbers(wanted, parts)
        return Replicas(
            wanted=wanted,
            ready=sum(one.ready for one in found),
            draining=sum(one.draining for one in found) + told - wanted,
            unfinished=any(one.unfinished for one in found) or numbers != tuple(one.wanted for one in found),
            parts=tuple(
                PartReplicas(target.name, one.wanted, one.ready, one.draining)
                for target, one in zip(self._targets, found, strict=True)
            ),
        )

    def apply(
        self, replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        until = time.monotonic() + seconds
        looked, self._looked = self._looked, None
        fresh = looked is not None and self._clock() - looked[0] < LOOK_LASTS_SECONDS
        found = looked[1] if looked is not None and fresh else self._read(seconds)
        parts = self._parts(found)
        problems: list[ActuatorError] = []
        refusals: list[ActuatorError] = []
        told: set[int] = set()

        def tell(index: int, number: int) -> None:
            left = until - time.monotonic()
            if left <= 0:
                raise ActuatorError(f"{self._targets[index].name}: no time was left; the next step goes on from there")
            self._actuators[index].apply(number, left, victims, in_hand)

        while True:
            numbers = next_numbers(replicas, parts)
            growing = [index for index in cheapest_first(parts) if numbers[index] > found[index].wanted]
            growing = [index for index in growing if index not in told]
            if not growing:
                break
            index = growing[0]
            told.add(index)
            parts[index] = replace(parts[index], wanted=numbers[index])
            try:
                tell(index, numbers[index])
            except (NoCapacityError, PermanentError) as error:
                refusals.append(error)
                if isinstance(error, PermanentError):
                    problems.append(self._named(index, error))
                parts[index] = self._refused(index, parts[index], found[index], error)
            except ActuatorError as error:  # it may have been heard, so nobody else is asked instead
                problems.append(self._named(index, error))
        for index, number in enumerate(numbers):
            shrinks = number < found[index].wanted
            if index in told or not (shrinks or found[index].unfinished):
                continue
            parts[index] = replace(parts[index], wanted=number)
            try:
                tell(index, number)
            except NoCapacityError as error:
                refusals.append(error)
                parts[index] = self._refused(index, parts[index], found[index], error)
            except ActuatorError as error:
                problems.append(self._named(index, error))
        total = sum(part.wanted for part in parts)
        self._told = (replicas, total)
        for problem in problems:
            if isinstance(problem, NoCapacityError):
                problem.told = total
            raise problem
        if total < replicas:
            why = "; ".join(str(error) for error in refusals) or "all others are full or cool down"
            raise NoCapacityError(f"the targets together have {total} of {replicas} replicas: {why}", total)

    def release(self, seconds: float) -> None:
        """Gives up what the targets hold. One's failure keeps no other from it."""
        problems: list[ActuatorError] = []
        for index, actuator in enumerate(self._actuators):
            try:
                if actuator.release is not None:
                    actuator.release(seconds / len(self._actuators))
            except ActuatorError as error:
                problems.append(self._named(index, error))
        if problems:
            raise problems[0]

    def _read(self, seconds: float) -> list[Replicas]:
        """All of them, side by side. Raises ActuatorError with each that is silent."""

        def read(actuator: Actuator) -> Replicas | ActuatorError:
            try:
                return actuator.read_replicas(seconds)
            except ActuatorError as error:
                return error

        with ThreadPoolExecutor(max_workers=len(self._actuators)) as pool:
            answers = list(pool.map(read, self._actuators))
        silent = [self._named(i, answer) for i, answer in enumerate(answers) if isinstance(answer, ActuatorError)]
        if silent:
            raise ActuatorError("; ".join(str(error) for error in silent))
        found = [answer for answer in answers if isinstance(answer, Replicas)]
        for target, one in zip(self._targets, found, strict=True):
            if one.floor is not None:
                raise PermanentError(
                    f"{target.name}: its own autoscaler decides there, and a floor is no share of a number; delete "
                    "that autoscaler, or make this target a workload of its own"
                )
        return found

    def _parts(self, found: Sequence[Replicas]) -> list[Part]:
        now = self._clock()
        parts = []
        for target, cooling, one in zip(self._targets, self._cooling, found, strict=True):
            is_open = cooling.until <= now
            if is_open and one.ready > cooling.had:
                cooling.seconds = 0.0  # it gave more than it had then
            price = target.price.amount if target.price else None
            parts.append(Part(target.name, target.min, target.max, one.wanted, one.ready, price, is_open))
        return parts

    def _refused(self, index: int, part: Part, found: Replicas, error: ActuatorError) -> Part:
        """The target as it is after it could not give what it was asked for."""
        had = error.told if isinstance(error, NoCapacityError) and error.told is not None else found.wanted
        self._cooling[index].refused(had, self._clock())
        return replace(part, wanted=had, is_open=False)

    def _named(self, index: int, error: ActuatorError) -> ActuatorError:
        said = f"{self._targets[index].name}: {error}"
        for kind in (NoGrowthError, PermanentError, NoCapacityError):
            if isinstance(error, kind):
                return kind(said)
        return ActuatorError(said)
