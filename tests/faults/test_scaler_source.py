"""The scaler on a Prometheus that has a bad day: nothing is taken away, each day has its word, and it goes on."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controllers.config import Config
from controllers.domain import Replicas
from controllers.loop import Tick
from controllers.scale.records import read
from controllers.scale.scaler import Scaler
from controllers.scale.why import same_decision
from controllers.sources.prometheus import Source
from tests.controllers.scale.scripted import NAME, NOW, PRESENT, Fleet, reasons, shown
from tests.controllers.sources.conftest import FakePrometheus, Reply, Seen

SECONDS = 0.4  # of each request here; ten in life
NEEDED = 13  # replicas that PRESENT needs
Answer = Callable[[Seen], Reply]


def good(seen: Seen, values: dict[str, Any] = PRESENT, at: float = NOW, **more: Any) -> Reply:
    """What a good Prometheus has: each series of the contract with its time; no history, no forecast."""
    query = seen.form["query"]
    if seen.path.endswith("query_range"):
        return FakePrometheus.matrix()
    name = next((name for name in values if f"label_replace({name}," in query), None)
    if name is None:
        return FakePrometheus.vector()
    rows = [({"reading": "value", "workload": NAME}, values[name]), ({"reading": "time", "workload": NAME}, at)]
    return FakePrometheus.vector(*rows, **more)


def replaced(**change: Any) -> Answer:
    """All well, but for these series (named by their metric)."""
    values = {**PRESENT, **{f"workload:{name}": value for name, value in change.items()}}
    return lambda seen: good(seen, values)


def twice(seen: Seen) -> Reply:
    """Two servers that disagree: the same series, twice."""
    query = seen.form["query"]
    if "workload:demand:rate1m," not in query:
        return good(seen)
    both = [("a", 2.0), ("b", 20.0)]
    rows = [({"reading": "value", "workload": NAME, "replica": replica}, value) for replica, value in both]
    times = [({"reading": "time", "workload": NAME, "replica": replica}, NOW) for replica, _ in both]
    return FakePrometheus.vector(*rows, *times)


def bomb(seen: Seen) -> Reply:
    return FakePrometheus.vector(*(({"workload": f"default/w{number}"}, 1.0) for number in range(20_001)))


DAYS: list[tuple[str, Answer | Reply, str]] = [
    ("1: it refuses", Reply(503, b"<html>starting</html>"), "source_down"),
    ("2: it says nothing", Reply(wait=60), "source_down"),
    ("3: empty answers", FakePrometheus.vector(), "demand_unknown"),
    ("4: a part is missing", lambda seen: good(seen, warnings=["store b did not answer"]), "demand_unknown"),
    ("5: not a number", replaced(**{"demand:rate1m": "NaN"}), "demand_unknown"),
    ("5: infinite", replaced(**{"demand:rate1m": "-Inf"}), "demand_unknown"),
    ("6: the source is stale", replaced(**{"data_age_seconds:max": 150.0}), "demand_stale"),
    ("6: the rule has stopped", lambda seen: good(seen, at=NOW - 200), "demand_stale"),
    ("8: a rate below nothing", replaced(**{"demand:rate1m": -3.0}), "demand_unknown"),
    ("9, 13: one series twice, two replicas that disagree", twice, "demand_unknown"),
    ("10: a cardinality bomb", bomb, "source_down"),
    ("11: cut short", Reply(body=b'{"status":"success","data":{"resultType":"vec', headers={}), "source_down"),
    ("11: no JSON", Reply(body=b"<html>login</html>"), "source_down"),
    ("12: no rights", Reply(401, b"who?"), "source_down"),
    ("12: a bad question", FakePrometheus.failure(422, "execution", "cannot"), "source_down"),
    ("12: too much at once", FakePrometheus.failure(503, "unavailable", "too busy"), "source_down"),
]  # fmt: skip


@pytest.fixture
def server() -> Iterator[FakePrometheus]:
    one = FakePrometheus()
    yield one
    one.stop()


@pytest.fixture
def scaler(server: FakePrometheus, tmp_path: Path) -> tuple[Scaler, Fleet]:
    config = Config.model_validate(
        {
            "prometheus": {"url": server.url, "timeout_seconds": SECONDS},
            "scale": {"records": str(tmp_path / "records"), "record_every_seconds": 0},
            "workloads": [
                {
                    "name": "video",
                    "demand": {"queue": "video-jobs"},
                    "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
                    "replicas": {"min": 1, "max": 20},
                    "slo": {"wait_seconds": 5},
                    "capacity": {"service_seconds": 0.5},
                    "mode": "act",
                    "stabilization_window_seconds": 0,
                    "minimum_run_seconds": 0,
                }
            ],
        }
    )
    fleet = Fleet(18)
    return Scaler(config, Source(config.prometheus), {NAME: fleet.actuator()}), fleet


def step(scaler: Scaler, after: float) -> None:
    scaler.step(Tick(NOW + after, Tick.starting(20).until))


@pytest.mark.parametrize(("answer", "word"), [day[1:] for day in DAYS], ids=[day[0] for day in DAYS])
def test_nothing_is_taken_away_on_a_bad_day_and_it_goes_on_afterwards(
    server: FakePrometheus, scaler: tuple[Scaler, Fleet], tmp_path: Path, answer: Answer | Reply, word: str
) -> None:
    """18 replicas run where 13 would do: only a whole, present answer may take some away."""
    one, fleet = scaler
    server.answer = answer
    step(one, 0)
    assert fleet.told == []
    assert {word, "hold"} <= reasons(one)
    assert shown(one, "source_up") == (0.0 if word == "source_down" else 1.0)
    (record,) = read(tmp_path / "records")
    assert same_decision(record)
    server.answer = good
    step(one, 5)
    assert fleet.told
    assert NEEDED - 2 <= fleet.told[-1] < 18
    assert word not in reasons(one)


@pytest.mark.parametrize("skew", [-600.0, 600.0])
def test_7_a_clock_that_differs_by_ten_minutes_takes_nothing_away_because_of_old_data(
    server: FakePrometheus, scaler: tuple[Scaler, Fleet], skew: float
) -> None:
    """Behind: measurements look ten minutes old, and are stale. Ahead: they look as if they were yet to come."""
    one, fleet = scaler
    server.answer = lambda seen: good(seen, at=NOW + skew)
    step(one, 0)
    if skew < 0:
        assert "demand_stale" in reasons(one)
        assert fleet.told == []
    else:
        assert all(number >= NEEDED - 2 for number in fleet.told)


def test_8_a_counter_that_was_reset_makes_no_spike(server: FakePrometheus, scaler: tuple[Scaler, Fleet]) -> None:
    """While a window holds a reset its rate is unknown (prometheus/rules/contract.yml), which holds."""
    one, fleet = scaler
    fleet.replicas = Replicas(13, 13)
    server.answer = good
    step(one, 0)
    told = list(fleet.told)
    absent = {name: value for name, value in PRESENT.items() if name != "workload:demand:rate1m"}
    server.answer = lambda seen: good(seen, absent)
    step(one, 15)
    assert fleet.told == told
    assert {"demand_unknown", "hold"} <= reasons(one)


def test_what_it_asks_can_be_read(server: FakePrometheus, scaler: tuple[Scaler, Fleet]) -> None:
    """One question a series for all workloads, and no more than it needs."""
    one, _ = scaler
    server.answer = good
    step(one, 0)
    server.seen.clear()
    step(one, 15)
    named = [query for query in server.queries if NAME in query]
    assert len(server.queries) - len(named) == 9, json.dumps(server.queries, indent=1)
