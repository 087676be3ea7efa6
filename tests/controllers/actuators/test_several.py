"""Several targets for one workload: real programs, Kubernetes beside AWS, and what happens when one cannot."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from controllers.actuators import ACTUATORS, Actuator, ActuatorError
from controllers.actuators.interface import NoCapacityError, NoGrowthError, PermanentError
from controllers.actuators.several import several_actuator
from controllers.config import PartTarget, Target
from controllers.domain import PartReplicas, Replicas

SECONDS = 20.0
COMMAND = {"command": {"get": ["true"], "set": ["true", "{replicas}"]}}


class Place:
    """A target that has what it is told, up to its capacity; new ones work after `boot()`."""

    def __init__(self, capacity: int = 100) -> None:
        self.capacity = capacity
        self.wanted = self.ready = 0
        self.silent = False
        self.error: ActuatorError | None = None
        self.told: list[int] = []
        self.passed_on: list[tuple[tuple[str, ...], Mapping[str, float] | None]] = []

    def boot(self) -> None:
        self.ready = self.wanted

    def read(self, seconds: float) -> Replicas:
        if self.silent:
            raise ActuatorError("no answer")
        return Replicas(self.wanted, self.ready)

    def apply(
        self, replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        self.told.append(replicas)
        self.passed_on.append((victims, in_hand))
        if self.error:
            raise self.error
        self.wanted = min(replicas, self.capacity)
        self.ready = min(self.ready, self.wanted)
        if replicas > self.capacity:
            raise NoCapacityError(f"there are {self.capacity}", self.capacity)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def together(*places: Place, clock: Callable[[], float] | None = None, **of_first: Any) -> Actuator:
    targets = [
        PartTarget.model_validate({"name": f"place-{n}", "max": 10, "target": COMMAND} | (of_first if n == 0 else {}))
        for n in range(len(places))
    ]
    actuators = iter([Actuator(place.read, place.apply) for place in places])
    return several_actuator(targets, lambda target: next(actuators), clock or Clock())


def test_it_fills_the_first_overflows_to_the_second_and_empties_that_first() -> None:
    own, cloud = Place(), Place()
    actuator = together(own, cloud)
    actuator.apply(12, SECONDS, ("x",), {"y": 1.0})
    assert (own.wanted, cloud.wanted) == (10, 2)
    assert own.passed_on == cloud.passed_on == [(("x",), {"y": 1.0})]
    own.boot(), cloud.boot()
    assert actuator.read_replicas(SECONDS) == Replicas(
        12, 12, parts=(PartReplicas("place-0", 10, 10), PartReplicas("place-1", 2, 2))
    )
    actuator.apply(9, SECONDS)
    assert (own.wanted, cloud.wanted) == (9, 0)


def test_without_capacity_the_rest_goes_to_the_next_in_the_same_call() -> None:
    spot, on_demand = Place(capacity=3), Place()
    together(spot, on_demand).apply(8, SECONDS)
    assert (spot.wanted, on_demand.wanted) == (3, 5)


def test_who_had_no_capacity_is_left_alone_for_longer_each_time() -> None:
    spot, on_demand, clock = Place(capacity=0), Place(), Clock()
    actuator = together(spot, on_demand, clock=clock)
    asked = []
    for second in range(0, 3600, 15):
        clock.now = float(second)
        before = len(spot.told)
        actuator.read_replicas(SECONDS)
        actuator.apply(2, SECONDS)
        on_demand.boot()
        if len(spot.told) > before:
            asked.append(second)
    assert asked == [0, 60, 180, 420, 900, 1860]
    assert on_demand.wanted == 2


def test_capacity_moves_back_when_it_is_there_and_none_is_missing_meanwhile() -> None:
    spot, on_demand, clock = Place(capacity=0), Place(), Clock()
    actuator = together(spot, on_demand, clock=clock)
    actuator.apply(4, SECONDS)
    on_demand.boot()
    spot.capacity, clock.now = 10, 61.0
    seen = []
    for _ in range(20):
        found = actuator.read_replicas(SECONDS)
        assert found.wanted == 4, "what is held twice for a while is no number that anybody asked for"
        assert found.ready >= 4
        seen.append((spot.wanted, on_demand.wanted, found.draining))
        if not found.unfinished and not found.draining:
            break
        if found.unfinished:
            actuator.apply(4, SECONDS)
        clock.now += 15.0
        if len(seen) % 2 == 0:
            spot.boot()
    assert seen[:5] == [(0, 4, 0), (1, 4, 1), (1, 4, 1), (1, 3, 0), (2, 3, 1)]
    assert seen[-1] == (4, 0, 0)


def test_after_a_restart_in_the_middle_of_a_move_nothing_is_lost() -> None:
    spot, on_demand = Place(), Place()
    spot.wanted, on_demand.wanted, on_demand.ready = 1, 4, 4
    actuator = together(spot, on_demand)
    assert actuator.read_replicas(SECONDS).wanted == 5, "a new process takes what there is for what was wanted"
    actuator.apply(4, SECONDS)
    assert (spot.wanted, on_demand.wanted) == (1, 4)
    spot.boot()
    actuator.apply(4, SECONDS)
    assert (spot.wanted, on_demand.wanted) == (1, 3)


def test_one_that_cannot_be_read_makes_the_whole_unknown() -> None:
    own, cloud = Place(), Place()
    actuator = together(own, cloud)
    actuator.apply(12, SECONDS)
    cloud.silent = True
    with pytest.raises(ActuatorError, match=r"^place-1: no answer$"):
        actuator.read_replicas(SECONDS)
    told = len(own.told) + len(cloud.told)
    with pytest.raises(ActuatorError, match=r"^place-1: no answer$"):
        actuator.apply(3, SECONDS)
    assert len(own.told) + len(cloud.told) == told


def test_when_all_together_have_too_few_it_says_how_many() -> None:
    with pytest.raises(NoCapacityError, match="together have 5 of 8 replicas: there are 2; there are 3") as caught:
        together(Place(2), Place(3)).apply(8, SECONDS)
    assert caught.value.told == 5
    with pytest.raises(NoCapacityError, match="together have 20 of 25 replicas: all others are full"):
        together(Place(), Place()).apply(25, SECONDS)


def test_who_may_have_heard_is_not_replaced_by_another() -> None:
    own, cloud = Place(), Place()
    own.error = ActuatorError("the answer was lost")
    with pytest.raises(ActuatorError, match=r"^place-0: the answer was lost$"):
        together(own, cloud).apply(4, SECONDS)
    assert cloud.told == []


def test_who_refuses_for_good_is_replaced_and_still_reported() -> None:
    spot, on_demand = Place(), Place()
    spot.error = NoGrowthError("a quota is used up")
    with pytest.raises(NoGrowthError, match=r"^place-0: a quota is used up$") as caught:
        together(spot, on_demand).apply(4, SECONDS)
    assert (on_demand.wanted, caught.value.told) == (4, 4)


def test_a_floor_is_no_part() -> None:
    own, cloud = Place(), Place()
    actuator = several_actuator(
        [PartTarget.model_validate({"name": n, "max": 9, "target": COMMAND}) for n in ("a", "b")],
        lambda target: Actuator(lambda seconds: Replicas(3, 3, floor=1), own.apply),
    )
    with pytest.raises(PermanentError, match="a: its own autoscaler decides there"):
        actuator.read_replicas(SECONDS)
    assert cloud.told == []


PROGRAM = """
import json, pathlib, sys
state = pathlib.Path(sys.argv[1])
if len(sys.argv) > 2:
    state.write_text(sys.argv[2])
number = int(state.read_text()) if state.exists() else 0
print(json.dumps({"replicas": number, "ready": number}))
"""


def test_two_real_programs(tmp_path: Path) -> None:
    program = tmp_path / "fleet.py"
    program.write_text(PROGRAM)

    def command(name: str) -> dict[str, Any]:
        argv = [sys.executable, "-S", str(program), str(tmp_path / name)]
        return {"command": {"get": argv, "set": [*argv, "{replicas}"]}}

    target = Target.model_validate(
        {
            "several": [
                {"name": "on-demand", "max": 4, "price": "9 KRW", "target": command("on-demand")},
                {"name": "spot", "min": 1, "max": 3, "price": "3 KRW", "target": command("spot")},
            ]
        }
    )
    actuator = ACTUATORS[target.kind](target.several)

    def numbers() -> dict[str, int]:
        states = [tmp_path / name for name in ("on-demand", "spot")]
        return {state.name: json.loads(state.read_text()) for state in states if state.exists()}

    actuator.apply(5, SECONDS)
    assert numbers() == {"spot": 3, "on-demand": 2}
    assert actuator.read_replicas(SECONDS).parts == (PartReplicas("on-demand", 2, 2), PartReplicas("spot", 3, 3))
    actuator.apply(1, SECONDS)
    assert numbers() == {"spot": 1, "on-demand": 0}
