"""What people asked for, and what they are asked to do, on /metrics."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from controllers.domain import Direction, Mode, Override, Reason
from controllers.scale.publish import Published, Shown
from controllers.scale.records import Record
from controllers.scale.state import Decision, Rules, State

NOW = 1_800_000_000.0
NAME = "default/video"
RULES = Rules(
    NAME, True, 1, 20, 5.0, 0.95, 1, None, 60.0, 60.0, 300.0, None, 4, 15.0, 120.0, Mode.RECOMMEND
)  # fmt: skip
SURGE = Override("a", NOW, NOW + 8040, "ann@desk", 5)


def sample(name: str, record: Record, **labels: str) -> float | None:
    registry, published = CollectorRegistry(), Published()
    published.replace({NAME: Shown(record, None, None)})
    registry.register(published)
    return registry.get_sample_value(name, {"workload": NAME, **labels})


def record(current: int | None, desired: int | None, mode: Mode = Mode.RECOMMEND, state: State | None = None) -> Record:
    decision = Decision(NAME, NOW, desired, current, current, desired, desired, desired, (Reason.REACTIVE,))
    return Record(state or State(NOW), replace(RULES, mode=mode), decision, Reason.RECOMMEND)


@pytest.mark.parametrize(
    ("sentence", "current", "desired", "mode", "published"),
    [
        ("another number than there is", 4, 6, Mode.RECOMMEND, 6.0),
        ("none at all", 4, 0, Mode.RECOMMEND, 0.0),
        ("what there is", 4, 4, Mode.RECOMMEND, None),
        ("unknown", None, None, Mode.RECOMMEND, None),
        ("in shadow nobody is asked", 4, 6, Mode.SHADOW, None),
        ("in act nobody is asked", 4, 6, Mode.ACT, None),
    ],
)
def test_what_is_recommended(
    sentence: str, current: int | None, desired: int | None, mode: Mode, published: float | None
) -> None:
    assert sample("tidewise_scale_recommendation", record(current, desired, mode)) == published, sentence


def test_overrides_in_force_by_their_kind() -> None:
    pause = Override("c", NOW, NOW + 60, "bob@desk", 0, Direction.DOWN)
    state = State(NOW, overrides=(SURGE, replace(SURGE, id="b", surge=2), pause, replace(pause, id="d")))
    one = record(4, 4, state=state)
    values = [sample("tidewise_scale_override", one, kind=kind) for kind in ("surge", "pause_down", "pause")]
    assert values == [7.0, 1.0, None]
