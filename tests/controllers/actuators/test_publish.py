"""The target `publish`: what is known of it, and how long its number counts."""

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controllers.actuators.interface import Actuator, ActuatorError
from controllers.actuators.publish import EARLIER, METRIC, Board, publish_actuator
from controllers.config import Config, ConfigError, PublishTarget
from controllers.domain import Replicas, Sample
from controllers.scale.following.followers import followers
from controllers.sources.prometheus import Answer, Kind, Series, SourceError

WORKLOAD = "prod/video"
READY, WANTED = "sum(ready)", "sum(wanted)"
PUBLISHED = f'max(last_over_time({METRIC}{{workload="{WORKLOAD}"}}[{EARLIER}]))'


class Scripted:
    """A Prometheus that answers these expressions with these values, everything else with nothing."""

    url = "http://prometheus"

    def __init__(self) -> None:
        self.answers: dict[str, list[float] | SourceError] = {}
        self.warnings: tuple[str, ...] = ()

    def instant(self, expr: str, at: float | None = None, deadline_seconds: float | None = None) -> Answer:
        found = self.answers.get(expr, [])
        if isinstance(found, SourceError):
            raise found
        series = (Series({"instance": str(index)}, (Sample(value, 0.0),)) for index, value in enumerate(found))
        return Answer(series, self.warnings)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source() -> Scripted:
    return Scripted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(clock)


@pytest.fixture
def make(source: Scripted, board: Board) -> Callable[..., Actuator]:
    def actuator(**settings: Any) -> Actuator:
        return publish_actuator(PublishTarget(ready=READY, **settings), WORKLOAD, source, board)  # type: ignore[arg-type]

    return actuator


def on_page(board: Board) -> float | None:
    registry = CollectorRegistry()
    registry.register(board)
    return registry.get_sample_value(METRIC, {"workload": WORKLOAD})


def test_a_number_counts_for_so_long_and_is_then_no_zero(make: Any, board: Board, clock: Clock) -> None:
    actuator = make(valid_seconds=60)
    assert on_page(board) is None
    actuator.apply(0, 1.0)
    assert on_page(board) == 0
    actuator.apply(4, 1.0)
    clock.now = 59.9
    assert (on_page(board), board.number(WORKLOAD)) == (4, 4)
    actuator.apply(4, 1.0)  # the same number again: from now on, for so long
    clock.now = 119.8
    assert on_page(board) == 4
    clock.now = 119.9
    assert (on_page(board), board.number(WORKLOAD)) == (None, None)


def test_a_deposed_leaders_number_does_not_count(make: Any, board: Board) -> None:
    leads = [True]
    board.only_while(lambda: leads[0])
    make().apply(4, 1.0)
    assert on_page(board) == 4
    leads[0] = False
    assert (on_page(board), board.number(WORKLOAD)) == (None, None)


@pytest.mark.parametrize(
    ("answers", "told", "expected"),
    [
        pytest.param({READY: [2]}, 4, (4, 2), id="what was published is wanted, whatever others ask for"),
        pytest.param({READY: [2], WANTED: [9]}, 4, (4, 2), id="also where the other one says more"),
        pytest.param({READY: [6]}, 4, (4, 6), id="and where more work"),
        pytest.param({READY: [2]}, None, (2, 2), id="at first, as many as work"),
        pytest.param({READY: [2], WANTED: [5]}, None, (5, 2), id="or as the other one has asked for"),
        pytest.param({READY: [2], PUBLISHED: [4]}, None, (4, 2), id="or as an earlier run published"),
        pytest.param({READY: [6], WANTED: [1], PUBLISHED: [4]}, None, (6, 6), id="never fewer than work"),
        pytest.param({READY: [0]}, None, (0, 0), id="none is a number"),
        pytest.param({READY: [2.0000001]}, None, (2, 2), id="rounded"),
    ],
)
def test_what_is_wanted_and_what_works(
    make: Any, source: Scripted, answers: Any, told: int | None, expected: tuple[int, int]
) -> None:
    source.answers = answers
    actuator = make(wanted=WANTED)
    if told is not None:
        actuator.apply(told, 1.0)
    assert actuator.read_replicas(1.0) == Replicas(*expected, unfinished=True)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({}, r"target.publish.ready: sum\(ready\) is empty, so how many replicas work is unknown"),
        ({READY: [1, 2]}, r"target.publish.ready: sum\(ready\) has 2 series; write sum"),
        ({READY: [-1]}, r"is -1, which is no number of replicas"),
        ({READY: SourceError(Kind.UNREACHABLE, "refused")}, r"sum\(ready\): unreachable: refused"),
        ({READY: [2], WANTED: SourceError(Kind.BAD_QUERY, "no")}, r"target.publish.wanted: sum\(wanted\): bad_query"),
    ],
)
def test_what_is_not_known_is_an_error(make: Any, source: Scripted, answers: Any, words: str) -> None:
    source.answers = answers
    with pytest.raises(ActuatorError, match=words):
        make(wanted=WANTED).read_replicas(1.0)


def test_a_part_of_an_answer_is_none(make: Any, source: Scripted) -> None:
    source.answers, source.warnings = {READY: [2]}, ("a store is away",)
    with pytest.raises(ActuatorError, match="a store is away"):
        make().read_replicas(1.0)


def configured(target: Any, **scale: Any) -> Config:
    workload = {"name": "video", "demand": {"queue": "jobs"}, "target": target, "replicas": {"max": 4}}
    return Config.model_validate({"workloads": [workload], "scale": {"interval_seconds": 15, **scale}})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            configured({"publish": {"ready": READY, "valid_seconds": 29}}),
            (
                "default/video: target.publish.valid_seconds: found 29, but a decision comes every 15 s and one may be "
                "late; write at least 30"
            ),
        ),
        (
            configured({"command": {"get": ["true"], "set": ["true", "{replicas}"]}}, external_scaler={}),
            (
                "scale.external_scaler: nobody can follow anything there, for no workload has the target 'publish'; "
                "give one that target, or take this out"
            ),
        ),
    ],
)
def test_what_cannot_be_is_refused(config: Config, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        followers(config)
    assert str(caught.value) == words
