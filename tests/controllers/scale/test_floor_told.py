"""What is told where the target is the floor of the user's own autoscaler, and when it is given up."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controllers.actuators import Actuator, ActuatorError
from controllers.config import Config
from controllers.domain import Mode, Reason, Replicas
from controllers.scale.carry_out import Teller
from controllers.scale.configured import rules_of
from controllers.scale.state import Decision, State
from tests.controllers.scale.scripted import NAME, NOW, tick

HPA = Replicas(wanted=9, ready=9, floor=4)


class Autoscaler:
    """Somebody else's, whose floor is told."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.released = 0
        self.error: ActuatorError | None = None

    def apply(
        self, replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        self.told.append(replicas)

    def release(self, seconds: float) -> None:
        if self.error:
            raise self.error
        self.released += 1


class Leader:
    def __init__(self, acts: bool) -> None:
        self._acts = acts

    def may_act(self) -> bool:
        return self._acts

    def remaining_seconds(self) -> float:
        return 5.0


def teller(autoscaler: Autoscaler, leader: Any = None) -> Teller:
    actuator = Actuator(lambda seconds: HPA, autoscaler.apply, release=autoscaler.release)
    return Teller({NAME: actuator}, None, None, leader, lambda workload, tick: None, 15.0)


def carry_out(one: Teller, desired: int, *reasons: Reason, mode: str = "act") -> Any:
    target = {"command": {"get": ["true"], "set": ["true", "{replicas}"]}}
    workload = {"name": "video", "demand": {"queue": "q"}, "target": target, "replicas": {"max": 20}, "mode": mode}
    config = Config.model_validate({"workloads": [workload]})
    rules = replace(rules_of(config.workloads[0], config), mode=Mode(mode))
    decision = Decision(NAME, NOW, desired, HPA.wanted, HPA.ready, desired, desired, None, reasons)
    return one.carry_out(decision, State(NOW, replicas=HPA), rules, tick())


@pytest.mark.parametrize(
    ("desired", "reasons", "told"),
    [
        pytest.param(6, (Reason.FORECAST,), 6, id="what is needed, though the autoscaler has more"),
        pytest.param(9, (Reason.FORECAST,), 9, id="the number that it has, for it may go"),
        pytest.param(9, (Reason.DEMAND_STALE, Reason.HOLD), 4, id="held: the floor, not the autoscaler's number"),
        pytest.param(9, (Reason.FORECAST, Reason.PAUSED), 4, id="paused: the floor as well"),
    ],
)
def test_what_is_told(desired: int, reasons: tuple[Reason, ...], told: int) -> None:
    autoscaler = Autoscaler()
    outcome = carry_out(teller(autoscaler), desired, *reasons)
    assert (autoscaler.told, outcome.told, outcome.reason) == ([told], told, Reason.FLOOR_TOLD)


def test_shadow_tells_no_floor() -> None:
    autoscaler = Autoscaler()
    assert carry_out(teller(autoscaler), 6, mode="shadow").reason is Reason.SHADOW
    assert autoscaler.told == []


def test_it_is_given_up_at_an_orderly_end_by_whoever_acts() -> None:
    autoscaler = Autoscaler()
    teller(autoscaler, Leader(False)).release(5.0)
    assert autoscaler.released == 0
    teller(autoscaler, Leader(True)).release(5.0)
    assert autoscaler.released == 1
    autoscaler.error = ActuatorError("the API server is gone")
    teller(autoscaler).release(5.0)  # said in the log; it expires
    assert autoscaler.released == 1
