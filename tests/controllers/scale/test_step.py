"""The scaler's step on scripted readings: what it learns, reads from hours, and makes of targets that refuse."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controllers.actuators.interface import Actuator, NoCapacityError, PermanentError
from controllers.config import Config
from controllers.domain import Replicas
from controllers.scale.records import read
from controllers.scale.scaler import Scaler
from controllers.sources.prometheus import Kind, SourceError
from tests.controllers.scale.scripted import NAME, NOW, PRESENT, Fleet, ScriptedSource, foreseen, reasons, shown, tick

EXTRA = f"{NAME}/llm"
Made = tuple[Scaler, ScriptedSource, Fleet]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Made]:
    def make(replicas: int = 11, *, fleet: Fleet | None = None, folder: str = "records", **more: Any) -> Made:
        workload = {
            "name": "video",
            "demand": {"queue": "video-jobs"},
            "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
            "replicas": {"min": 1, "max": 20},
            "slo": {"wait_seconds": 5},
            "price": {"per_replica_hour": "12 KRW"},
            "mode": "act",
        }
        scale = {"records": str(tmp_path / folder), "record_every_seconds": 0}
        config = Config.model_validate({"workloads": [workload | more], "scale": scale})
        source, fleet = ScriptedSource(), fleet or Fleet(replicas)
        return Scaler(config, source, {NAME: fleet.actuator()}), source, fleet  # type: ignore[arg-type]

    return make


def run(scaler: Scaler, source: ScriptedSource, steps: int, since: float = 0.0) -> None:
    for number in range(steps):
        source.now = NOW + since + 15 * number
        scaler.step(tick(since + 15 * number))


class TestDays:
    """Whole loops over what goes wrong on a bad day."""

    LESS = PRESENT | {"workload:demand:rate1m": 4.0, "workload:backlog:sum": 0.0}

    def test_after_a_long_silence_the_first_number_ends_nothing(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made()
        source.values = PRESENT
        run(one, source, 30)
        before = fleet.replicas.wanted
        source.values = None
        run(one, source, 30, 450)
        source.values = self.LESS  # a source that comes back tells of part of a minute
        run(one, source, 20, 900)
        assert fleet.replicas.wanted == before
        run(one, source, 4, 1200)
        assert fleet.replicas.wanted < before

    def test_a_history_that_ended_long_ago_is_no_window(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(minimum_run_seconds=7200)
        fleet.replicas = Replicas(11, 11)
        source.values = self.LESS
        source.past = {
            f"workload:replicas:{name}": [(NOW - 7200 + 15 * i, 11) for i in range(240)]
            for name in ("recommended", "wanted")
        }
        run(one, source, 19)
        assert fleet.replicas.wanted == 11
        run(one, source, 4, 300)
        assert fleet.replicas.wanted < 11

    def test_a_clock_that_was_a_year_ahead_holds_scale_in_for_one_window(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(limits={"down_per_minute": 20})
        source.values = PRESENT
        run(one, source, 30, 365 * 86_400)
        before = fleet.replicas.wanted
        source.values = self.LESS
        run(one, source, 25)
        assert fleet.replicas.wanted < before


class TestDoubt:
    def test_a_source_that_fell_silent_is_told_from_one_that_never_was(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made()
        source.values = {"workload:data_age_seconds:max": 75.0}
        one.step(tick())
        assert "demand_down" in reasons(one)
        source.values = {}  # after ten minutes nothing tells any more
        one.step(tick(600))
        assert "demand_down" in reasons(one)
        source.values = PRESENT
        one.step(tick(615))
        assert not {"demand_down", "demand_unknown"} & reasons(one)
        source.values = {}
        one.step(tick(630))
        assert "demand_unknown" in reasons(one)
        assert fleet.told == []

    def test_a_rate_that_is_not_covered_yet_is_no_silence(self, made: Callable[..., Made]) -> None:
        one, source, _ = made()
        source.values = {"workload:data_age_seconds:max": 14.0}
        one.step(tick())
        assert "demand_unknown" in reasons(one)

    def test_prometheus_gone_is_another_thing_than_a_source_gone(self, made: Callable[..., Made]) -> None:
        one, source, _ = made()
        source.values = None
        one.step(tick())
        assert "source_down" in reasons(one)


class TestFurtherDemands:
    ALSO = {"also": [{"name": "llm", "queue": "llm-jobs", "slo": {"wait_seconds": 5}, "capacity": {"concurrency": 2}}]}

    def present(self, rate: float) -> dict[str, Any]:
        of = (("workload", EXTRA),)
        extra = {
            "workload:demand:rate1m": rate,
            "workload:backlog:sum": 3.0,
            "workload:service_seconds:mean5m": 2.0,
            "workload:data_age_seconds:max": 3.0,
        }
        return {name: {(): PRESENT[name], of: value} for name, value in extra.items()}

    def test_the_one_that_needs_most_counts_and_both_are_published(
        self, made: Callable[..., Made], tmp_path: Path
    ) -> None:
        one, source, fleet = made(**self.ALSO)
        source.values = self.present(18.0)
        one.step(tick())
        assert fleet.told
        assert fleet.told[-1] >= 18
        (record,) = read(tmp_path / "records")
        (signal,) = record.state.more
        assert signal.demand is not None
        assert (signal.demand.value, signal.service_seconds) == (18.0, 2.0)
        assert record.rules.more[0].name == EXTRA
        assert shown(one, "scale_service_seconds", workload=EXTRA, source="learned") == 2.0
        assert shown(one, "scale_concurrency", workload=EXTRA, source="configured") == 2.0
        assert shown(one, "scale_replicas_desired", workload=EXTRA) is None

    def test_a_small_one_changes_nothing(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(**self.ALSO)
        source.values = self.present(1.0)
        one.step(tick())
        assert all(number <= 13 for number in fleet.told)


def test_the_forecast_of_the_decisions_window_is_read(made: Callable[..., Made], tmp_path: Path) -> None:
    one, source, _ = made()
    source.values = PRESENT | foreseen(28.0) | {
        "workload:forecast_window_peak:quantile": {(("quantile", "0.9"),): 33.0},
        "workload:forecast_window_begin_seconds:min": 60.0,
        "workload:forecast_window_end_seconds:max": 90.0,
    }  # fmt: skip
    one.step(tick())
    (record,) = read(tmp_path / "records")
    assert record.state.forecast is not None
    window = record.state.forecast.window
    assert window is not None
    assert (window.begin_seconds, window.end_seconds, window.peak) == (60.0, 90.0, {0.9: 33.0})


def test_a_forecast_is_read_again_only_when_a_new_one_was_made(made: Callable[..., Made]) -> None:
    one, source, _ = made()
    source.values = PRESENT | foreseen(28.0)
    run(one, source, 3)
    assert source.asked.count("workload:forecast_arrivals:quantile") == 1
    assert source.asked.count("workload:forecast_made:timestamp") == 3
    source.values |= {"workload:forecast_made:timestamp": NOW + 20, "workload:forecast_gate:bool": 0.0}
    one.step(tick(45))
    assert source.asked.count("workload:forecast_arrivals:quantile") == 2
    assert "gate_closed" in reasons(one)


def test_a_forecast_that_says_one_thing_twice_is_none(made: Callable[..., Made]) -> None:
    one, source, _ = made()
    source.values = PRESENT | foreseen(28.0)
    value = source.values["workload:forecast_demand:value"]
    twice = {(*key, ("instance", instance)): rate for key, rate in value.items() for instance in "ab"}
    source.values["workload:forecast_demand:value"] = twice
    one.step(tick())
    assert "forecast_missing" in reasons(one)


class TestHours:
    def test_a_floor_of_the_schedule_is_there_when_it_begins(self, made: Callable[..., Made]) -> None:
        """NOW is 08:00 UTC, a Friday."""
        schedule = {"schedule": [{"cron": "2 8 * * *", "for": "1h", "min": 15}], "lead_time_seconds": 60}
        one, source, fleet = made(**schedule)
        source.values = PRESENT
        run(one, source, 2)
        assert max([11, *fleet.told]) < 15
        run(one, source, 2, since=30)
        assert fleet.told[-1] == 15
        assert "schedule_floor" in reasons(one)

    def test_it_is_in_the_workloads_zone(self, made: Callable[..., Made], tmp_path: Path) -> None:
        one, source, _ = made(schedule=[{"cron": "0 17 * * *", "for": "1h", "min": 15}], time_zone="Asia/Seoul")
        source.values = PRESENT
        one.step(tick())
        (record,) = read(tmp_path / "records")
        assert record.state.schedule_floor == 15

    def test_cheap_hours_are_told_until_the_deadline(self, made: Callable[..., Made], tmp_path: Path) -> None:
        price = {
            "per_replica_hour": "12 KRW",
            "cheap": [{"cron": "0 10 * * *", "for": "1h", "per_replica_hour": "4 KRW"}],
        }
        one, source, _ = made(slo={"deadline": "6h"}, price=price)
        source.values = PRESENT | {"workload:oldest_age_seconds:max": 7.0}
        one.step(tick())
        (record,) = read(tmp_path / "records")
        assert record.state.cheap == ((NOW + 7200, NOW + 10800),)
        assert record.state.oldest_age_seconds == 7.0
        assert record.rules.deadline_seconds == 6 * 3600


class TestWorkInHand:
    IN_HAND = {"in_hand": "sum by (pod) (busy)", "stabilization_window_seconds": 0}

    def test_it_is_read_when_fewer_are_told(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(18, **self.IN_HAND)
        source.values, source.in_hand = PRESENT, {"a": 1.0, "b": 0.0}
        run(one, source, 8)
        assert fleet.told
        assert fleet.in_hand[-1] == {"a": 1.0, "b": 0.0}

    def test_it_is_not_read_when_more_are_told(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(4, **self.IN_HAND)
        source.values, source.in_hand = PRESENT, SourceError(Kind.TIMEOUT, "nobody may ask")
        one.step(tick())
        assert fleet.told
        assert fleet.in_hand == [None]

    def test_where_it_cannot_be_read_the_target_chooses_and_it_is_said(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(18, **self.IN_HAND)
        source.values, source.in_hand = PRESENT, SourceError(Kind.TIMEOUT, "no answer")
        run(one, source, 8)
        assert fleet.in_hand
        assert fleet.in_hand[-1] is None


class TestRefusals:
    def test_one_for_good_is_tried_ever_less_often_and_counted_when_tried(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(4)
        source.values, fleet.error = PRESENT, PermanentError("fleet: forbidden")
        tried = []
        for number in range(120):  # half an hour
            before = fleet.asked
            source.now = NOW + 15 * number
            one.step(tick(15 * number))
            if fleet.asked > before:
                tried.append(15 * number)
            else:
                assert shown(one, "scale_retry_seconds", workload=NAME)
            assert "action_failed" in reasons(one)
        assert tried[:5] == [0, 30, 90, 210, 450]
        assert max(later - earlier for earlier, later in pairwise(tried)) == 300
        assert shown(one, "scale_actions_total", workload=NAME, result="failure") == len(tried)
        assert "fleet: forbidden" in one.published.landing()
        fleet.error = None
        run(one, source, 21, since=1800)
        assert fleet.told
        assert shown(one, "scale_retry_seconds", workload=NAME) is None

    @pytest.mark.parametrize("at", ["read", "told"])
    def test_what_an_actuator_should_not_raise_costs_its_own_workload_only(
        self, made: Callable[..., Made], at: str
    ) -> None:
        class Odd(Fleet):
            def actuator(self) -> Actuator:
                def fail(*_: object, **__: object) -> Any:
                    raise ValueError("not in the manual")

                whole = super().actuator()
                return replace(whole, read_replicas=fail) if at == "read" else replace(whole, apply=fail)

        one, source, _ = made(4, fleet=Odd(4))
        source.values = PRESENT
        run(one, source, 3)
        assert reasons(one) >= {"target_unknown" if at == "read" else "action_failed"}
        assert "ValueError: not in the manual" in one.published.landing()

    def test_one_from_a_future_that_a_clock_took_back_is_over(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(4)
        source.values, fleet.error = PRESENT, PermanentError("fleet: forbidden")
        run(one, source, 1, since=86_400)
        fleet.error = None
        run(one, source, 1)
        assert fleet.told

    def test_a_target_without_capacity_keeps_what_it_gave_and_is_asked_again_after_a_while(
        self, made: Callable[..., Made]
    ) -> None:
        one, source, fleet = made(4)
        source.values, fleet.error = PRESENT, NoCapacityError("zone a has no g5.xlarge", told=6)
        one.step(tick())
        assert {"no_capacity"} <= reasons(one)
        fleet.replicas = Replicas(6, 6)
        one.step(tick(15))
        assert fleet.asked == 1
        run(one, source, 8, since=30)
        assert 2 <= fleet.asked <= 4

    def test_and_told_at_once_where_it_is_to_have_fewer(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(4, stabilization_window_seconds=0, minimum_run_seconds=0)
        source.values, fleet.error = PRESENT, NoCapacityError("no capacity")
        one.step(tick())
        fleet.error = None
        source.values = PRESENT | {"workload:demand:rate1m": 0.1, "workload:backlog:sum": 0.0}
        one.step(tick(15))
        assert fleet.told
        assert fleet.told[-1] < 4

    def test_a_floor_is_told_with_each_decision(self, made: Callable[..., Made]) -> None:
        fleet = Fleet(13)
        fleet.is_floor = True
        one, source, _ = made(fleet=fleet)
        source.values = PRESENT
        run(one, source, 3)
        assert fleet.asked == 3
        assert "floor_told" in reasons(one)

    def test_what_is_not_finished_is_told_again(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(13)
        source.values = PRESENT
        one.step(tick())
        asked = fleet.asked
        fleet.replicas = replace(fleet.replicas, unfinished=True)
        one.step(tick(15))
        assert fleet.asked == asked + 1
        assert shown(one, "scale_actions_total", workload=NAME, result="success") == 0, "which is no action"

    def test_what_is_not_finished_goes_on_while_more_are_refused(self, made: Callable[..., Made]) -> None:
        one, source, fleet = made(2)
        source.values = PRESENT
        fleet.error = NoCapacityError("no more of that type")
        one.step(tick())
        asked, fleet.error = fleet.asked, None
        fleet.replicas = replace(fleet.replicas, unfinished=True)
        one.step(tick(15))
        assert fleet.asked == asked + 1
        assert fleet.replicas.wanted == 2, "told the number that it has"


class TestLearned:
    def test_each_number_is_published_with_its_source(self, made: Callable[..., Made]) -> None:
        one, source, _ = made(start_seconds=90, lead_time_seconds=45, minimum_run_seconds=600)
        source.values = PRESENT
        one.step(tick())
        assert shown(one, "scale_service_seconds", workload=NAME, source="learned") == 0.5
        assert shown(one, "scale_concurrency", workload=NAME, source="configured") == 1
        assert shown(one, "scale_capacity_per_second", workload=NAME, source="learned") == 2.0
        assert shown(one, "scale_minimum_billing_seconds", workload=NAME, source="configured") == 600
        assert shown(one, "scale_start_seconds", workload=NAME, source="configured") == 90
        assert shown(one, "scale_start_cost", workload=NAME, currency="KRW") == pytest.approx(0.3)
        assert shown(one, "scale_replicas_bound", workload=NAME) is None

    def test_a_restart_goes_on_from_what_was_published(self, made: Callable[..., Made], tmp_path: Path) -> None:
        one, source, _ = made()
        source.values = PRESENT
        source.lead = {"0.5": 41.0, "0.9": 47.0}
        source.learned = {
            "workload:service_seconds:learned": 0.49,
            "workload:concurrency:learned": 3.0,
            "workload:replicas:bound": 9.0,
        }
        source.past = {"workload:replicas:wanted": [(NOW - 280, 8), (NOW - 40, 11)]}
        one.step(tick())
        (record,) = read(tmp_path / "records")
        state = record.state
        assert (state.concurrency, state.bound, state.start_seconds) == (3.0, 9, 41.0)
        assert state.service_seconds == pytest.approx(0.49, abs=0.01)
        assert [(told.at, told.replicas) for told in state.started] == [(NOW - 295, 8), (NOW - 55, 3)]


class SlowFleet(Fleet):
    """Replicas work 40 s after they were asked for; the time is the step's."""

    def __init__(self, replicas: int) -> None:
        super().__init__(replicas)
        self.now = NOW
        self.starts: list[tuple[float, int]] = []

    def copy(self) -> "SlowFleet":
        twin = SlowFleet(0)
        twin.replicas, twin.starts, twin.now = self.replicas, [*self.starts], self.now
        return twin

    def _read(self, seconds: float) -> Replicas:
        late = sum(count for at, count in self.starts if self.now < at + 40)
        self.replicas = replace(self.replicas, ready=max(0, self.replicas.wanted - late))
        return self.replicas

    def _apply(self, replicas: int, *args: Any) -> None:
        if replicas > self.replicas.wanted:
            self.starts.append((self.now, replicas - self.replicas.wanted))
        super()._apply(replicas, *args)


@pytest.mark.parametrize("at", [3, 7, 11, 12, 20, 33])
def test_a_restart_in_the_middle_decides_as_if_there_had_been_none(
    made: Callable[..., Made], tmp_path: Path, at: int
) -> None:
    """Demand rises and falls; after `at` steps another process takes over with what the first had published."""
    demand = [20.0] * 10 + [34.0] * 8 + [20.0] * 12 + [12.0] * 30
    fleet = SlowFleet(11)
    one, source, _ = made(fleet=fleet, folder="one", minimum_run_seconds=300)
    published: dict[str, list[tuple[float, int]]] = {}
    twin: tuple[Scaler, ScriptedSource, SlowFleet] | None = None
    for number, rate in enumerate(demand):
        now = NOW + 15 * number
        values = PRESENT | {"workload:demand:rate1m": rate}
        if number == at:
            copy = fleet.copy()
            scaler, script, _ = made(fleet=copy, folder="two", minimum_run_seconds=300)
            script.past = {name: [*history] for name, history in published.items()}
            script.learned = {
                f"workload:{name}:learned": value
                for name in ("service_seconds", "concurrency")
                if (value := shown(one, f"scale_{name}", workload=NAME, source="learned")) is not None
            }
            script.lead = {
                quantile: value
                for quantile in ("0.5", "0.9")
                if (value := shown(one, "scale_lead_time_seconds", workload=NAME, quantile=quantile)) is not None
            }
            twin = (scaler, script, copy)
        for scaler, script, target in [(one, source, fleet), *([twin] if twin else [])]:
            script.values, script.now, target.now = values, now, now
            scaler.step(tick(15 * number))
        for record, series in (
            ("workload:replicas:recommended", "scale_replicas_recommended"),
            ("workload:replicas:needed", "scale_replicas_needed"),
            ("workload:replicas:wanted", "scale_replicas_wanted"),
        ):
            value = shown(one, series, workload=NAME)
            if value is not None:
                published.setdefault(record, []).append((now, round(value)))
    whole = {record.decision.at: record for record in read(tmp_path / "one")}
    after = {record.decision.at: record for record in read(tmp_path / "two")}
    assert len(after) == len(demand) - at
    numbers = [(when, whole[when].decision.desired, record.decision.desired) for when, record in after.items()]
    assert [row for row in numbers if row[1] != row[2]] == []
    first = min(after)
    pending, known = (of[first].state.replicas.pending for of in (whole, after))  # type: ignore[union-attr]
    assert [one.count for one in pending] == [one.count for one in known]
    ages = [abs(a.age_seconds - b.age_seconds) for a, b in zip(pending, known, strict=True)]
    assert max(ages, default=0) <= 15, "what is starting is as old as it is, to a step"
    assert len({record.decision.desired for record in whole.values()}) > 2
