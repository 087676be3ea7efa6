"""The scaler's step on scripted readings and targets: what is held, told, remembered and published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controllers.budget.client import Client
from controllers.config import Config, ConfigError
from controllers.domain import Money, Replicas
from controllers.loop import Tick
from controllers.scale.purse import Purse, Taken
from controllers.scale.records import read
from controllers.scale.replacements import Replacement, Replacements
from controllers.scale.run import Scaler, build
from controllers.scale.why import same_decision
from tests.controllers.scale.scripted import NAME, NOW, PRESENT, Fleet, ScriptedSource, foreseen, reasons, shown, tick


@pytest.fixture
def scaler(tmp_path: Path) -> Callable[..., tuple[Scaler, ScriptedSource, Fleet]]:
    def make(mode: str = "act", replicas: int = 11, **joined: Any) -> tuple[Scaler, ScriptedSource, Fleet]:
        config = Config.model_validate(
            {
                "workloads": [
                    {
                        "name": "video",
                        "demand": {"queue": "video-jobs"},
                        "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
                        "replicas": {"min": 1, "max": 20},
                        "slo": {"wait_seconds": 5},
                        "price": {"per_replica_hour": "12 KRW"},
                        "mode": mode,
                    }
                ],
                "scale": {"records": str(tmp_path / "records"), "record_every_seconds": 0},
            }
        )
        source, fleet = ScriptedSource(), Fleet(replicas)
        return Scaler(config, source, {NAME: fleet.actuator()}, **joined), source, fleet  # type: ignore[arg-type]

    return make


def test_a_forecast_rise_is_told_to_the_target_and_published(scaler: Any, tmp_path: Path) -> None:
    one, source, fleet = scaler()
    source.values = PRESENT | foreseen(28.0)
    one.step(tick())
    (number,) = fleet.told
    assert number > 11
    assert shown(one, "scale_replicas_desired", workload=NAME) == number
    assert reasons(one) == {"forecast", "applied"}
    assert shown(one, "scale_actions_total", workload=NAME, result="success") == 1
    assert shown(one, "scale_decisions_total", workload=NAME, reason="forecast") == 1
    (record,) = read(tmp_path / "records")
    assert same_decision(record)


@pytest.mark.parametrize("mode", ["shadow", "recommend"])
def test_what_is_not_in_act_is_decided_and_published_and_not_told(scaler: Any, mode: str) -> None:
    one, source, fleet = scaler(mode)
    source.values = PRESENT | foreseen(28.0)
    one.step(tick())
    assert fleet.told == []
    assert mode in reasons(one)


def test_prometheus_gone_holds_and_comes_back_without_a_restart(scaler: Any) -> None:
    one, source, fleet = scaler(replicas=15)
    source.values = None
    one.step(tick())
    assert fleet.told == []
    assert {"source_down", "hold"} <= reasons(one)
    assert shown(one, "source_up") == 0
    assert shown(one, "source_errors_total", kind="unreachable") == 1
    source.values = PRESENT | foreseen(34.0)
    one.step(tick(15))
    assert fleet.told
    assert fleet.told[-1] > 15
    assert shown(one, "source_up") == 1


def test_gone_blind_the_last_valid_forecast_leads_up_and_not_past_its_validity(scaler: Any) -> None:
    one, source, fleet = scaler()
    source.values = PRESENT | foreseen(20.0, valid=100.0)
    one.step(tick())
    told = len(fleet.told)
    source.values = None
    fleet.replicas = Replicas(4, 4)  # someone else took them away meanwhile
    one.step(tick(30))
    assert fleet.told[told:]
    assert fleet.told[-1] > 4
    assert "blind_follows_forecast" in reasons(one)
    fleet.replicas = Replicas(4, 4)
    count = len(fleet.told)
    one.step(tick(111))
    assert len(fleet.told) == count
    assert "forecast_expired" in reasons(one)


def test_forecasts_that_cannot_be_read_do_not_take_present_demand_with_them(scaler: Any) -> None:
    one, source, fleet = scaler(replicas=4)
    source.values, source.silent_about = PRESENT, "workload:forecast_made:timestamp"
    one.step(tick())
    assert fleet.told
    assert fleet.told[-1] >= 11
    assert {"reactive", "forecast_missing"} <= reasons(one)
    assert shown(one, "source_up") == 0


def test_a_part_of_the_data_is_not_the_data(scaler: Any) -> None:
    one, source, fleet = scaler(replicas=15)
    source.values, source.warnings = PRESENT, ("one store did not answer",)
    one.step(tick())
    assert fleet.told == []
    assert "demand_unknown" in reasons(one)


def test_old_measurements_are_stale_although_the_rule_is_fresh(scaler: Any) -> None:
    one, source, fleet = scaler(replicas=15)
    source.values = PRESENT | {"workload:data_age_seconds:max": 121.0}
    one.step(tick())
    assert fleet.told == []
    assert "demand_stale" in reasons(one)


def test_a_target_that_cannot_be_read_is_unknown_and_not_zero(scaler: Any) -> None:
    one, source, fleet = scaler()
    source.values, fleet.unreadable = PRESENT, "fleet: no answer"
    one.step(tick())
    assert "target_unknown" in reasons(one)
    assert shown(one, "scale_replicas_ready", workload=NAME) is None
    assert "fleet: no answer" in one.published.landing()


def test_a_target_that_refuses_is_counted_and_asked_again(scaler: Any) -> None:
    one, source, fleet = scaler()
    source.values, fleet.error = PRESENT | foreseen(28.0), "fleet: quota exceeded"
    one.step(tick())
    assert shown(one, "scale_actions_total", workload=NAME, result="failure") == 1
    assert "action_failed" in reasons(one)
    fleet.error = None
    one.step(tick(15))
    assert len(fleet.told) == 1


def test_a_restart_does_not_forget_its_stabilisation(scaler: Any) -> None:
    one, source, fleet = scaler(replicas=14)
    source.values = PRESENT  # 11 would do
    source.past = {"workload:replicas:recommended": [(NOW - 290, 14), (NOW - 100, 14)]}
    one.step(tick())
    assert fleet.told == []
    assert "stabilization" in reasons(one)
    for after in range(15, 240, 15):
        source.now = NOW + after
        one.step(tick(after))
    assert fleet.told == [11]


def test_a_restart_remembers_the_lead_time(scaler: Any) -> None:
    one, source, _ = scaler()
    source.values, source.lead = PRESENT, {"0.5": 41.0, "0.9": 47.0}
    one.step(tick())
    assert shown(one, "scale_lead_time_seconds", workload=NAME, quantile="0.9") == 47


def test_a_step_that_ran_out_of_time_holds(scaler: Any) -> None:
    one, source, fleet = scaler(replicas=15)
    source.values = PRESENT
    one.step(Tick(NOW, 0.0))
    assert fleet.told == []
    assert "target_unknown" in reasons(one)


def test_a_ledger_that_is_gone_for_longer_than_its_grace_drains_to_the_minimum_and_no_further(
    scaler: Any, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("the-token-of-this-test-0123456789")
    purse = Purse(Client("http://127.0.0.1:1", token), 300.0, 1200.0)  # nobody listens there
    one, source, fleet = scaler(purse=purse)
    source.values = PRESENT | {"workload:demand:rate1m": 28.0}
    for after in (0, 600, 1199):
        source.now = NOW + after
        one.step(tick(after))
        assert fleet.told == []
        assert "budget_unreachable" in reasons(one)
    assert shown(one, "scale_ledger_silent_seconds") == 1199
    assert shown(one, "scale_replicas_unbudgeted", workload=NAME) > 11
    assert "refused" in one.published.landing()
    source.now = NOW + 1215
    one.step(tick(1215))
    assert fleet.told == [1]
    assert {"budget_lost", "applied"} <= reasons(one)
    purse.close()


class Till:
    """A ledger that would admit many when it is looked at, and has money for `left` when it is asked."""

    def __init__(self, left: int, *, silent: bool = False) -> None:
        self.left = left
        self.silent = silent
        self.problem: str | None = None
        self.silent_seconds = 0.0
        self.refusals: dict[str, str] = {}
        self.taken: list[tuple[int, int]] = []

    def look(self, running: dict[str, int], tick: Tick, *, acting: bool) -> dict[str, Money]:
        return {name: Money(count, 0, 40, 0.0, 1200.0) for name, count in running.items()}

    def take(self, workload: str, running: int, more: int, lead_seconds: float, tick: Tick) -> Taken:
        self.taken.append((running, more))
        said = None if self.left >= more else "no answer" if self.silent else "this needs 4 KRW; 1 is left"
        return Taken(min(more, self.left), said, silent=self.silent and self.left < more)

    def started(self, workload: str) -> None:
        """Nothing: what was taken is in `taken`."""


@pytest.mark.parametrize(
    ("sentence", "till", "told", "outcome"),
    [
        ("money for all that were decided", Till(9), [15], "applied"),
        ("somebody else was faster: fewer are told, and it is said", Till(2), [13], "permit_refused"),
        ("the money is gone: nothing is told", Till(0), [], "permit_refused"),
        (
            "the ledger falls silent in the middle: what has its money is told",
            Till(1, silent=True),
            [12],
            "budget_unreachable",
        ),
    ],
)
def test_only_what_the_ledger_holds_money_for_is_told(
    scaler: Any, tmp_path: Path, sentence: str, till: Till, told: list[int], outcome: str
) -> None:
    one, source, fleet = scaler(purse=till)
    source.values = PRESENT | foreseen(28.0)
    one.step(tick())
    assert fleet.told == told, sentence
    (record,) = read(tmp_path / "records")
    assert record.outcome == outcome
    assert record.told == (told[0] if told else None)
    assert (record.detail is None) == (outcome == "applied")
    assert till.taken == [(11, 4)]
    assert shown(one, "scale_permits_refused_total", workload=NAME) == (outcome == "permit_refused")
    assert outcome in reasons(one)


class Holder:
    """A lease that is held or not, as the test says."""

    def __init__(self) -> None:
        self.leads = True

    def may_act(self) -> bool:
        return self.leads

    def remaining_seconds(self) -> float:
        return 10.0 if self.leads else 0.0

    def worked(self) -> None:
        """Nothing: the test looks at what was told."""


def test_without_the_lease_it_decides_and_publishes_and_touches_nothing(scaler: Any) -> None:
    lease = Holder()
    one, source, fleet = scaler(leader=lease)
    source.values, lease.leads = PRESENT | foreseen(28.0), False
    one.step(tick())
    assert fleet.told == []
    assert {"forecast", "not_leader"} <= reasons(one)
    assert shown(one, "scale_leader") == 0
    lease.leads = True
    one.step(tick(15))
    assert fleet.told
    assert shown(one, "scale_leader") == 1


def test_a_lease_that_ends_in_the_middle_of_a_step_ends_the_writing(scaler: Any) -> None:
    """It may act when the decision is made; then the ledger, or Prometheus, takes its time."""
    lease = Holder()
    lease.remaining_seconds = lambda: 0.0  # type: ignore[method-assign]
    one, source, fleet = scaler(leader=lease)
    source.values = PRESENT | foreseen(28.0)
    one.step(tick())
    assert fleet.told == []
    assert "not_leader" in reasons(one)
    assert "the lease ended" in one.published.landing()


def replacement(book: Replacements, operation: str = "op1", instance: str = "w3") -> None:
    book.accept(Replacement(NAME, instance, operation, NOW, NOW + 900))


def test_a_replacement_comes_first_and_its_victim_goes_afterwards(scaler: Any, tmp_path: Path) -> None:
    book = Replacements(tmp_path / "replacements.json")
    one, source, fleet = scaler(book=book)
    source.values = PRESENT
    replacement(book)
    one.step(tick())
    assert fleet.told == [12]
    assert "replacement" in reasons(one)
    assert shown(one, "scale_replacements", workload=NAME) == 1
    fleet.replicas = Replicas(12, 11)  # it is starting
    one.step(tick(15))
    assert fleet.told == [12]
    fleet.replicas = Replicas(12, 12)
    one.step(tick(30))
    assert fleet.told == [12, 11], "and the number is as before at once, without a window of stabilisation"
    assert fleet.victims[-1] == ("w3",)
    one.step(tick(45))
    assert fleet.told == [12, 11]


def test_a_restarted_scaler_knows_what_of_the_number_is_a_replacement(scaler: Any, tmp_path: Path) -> None:
    path = tmp_path / "replacements.json"
    one, source, fleet = scaler(book=Replacements(path))
    source.values = PRESENT
    replacement(one._book)
    one.step(tick())
    fleet.replicas = Replicas(12, 11)
    again, source, _ = scaler(book=Replacements(path))
    again._actuators = {NAME: fleet.actuator()}
    source.values = PRESENT
    again.step(tick(15))
    assert fleet.told == [12], "12 is 11 and a replacement, not 12 that want one more"


def test_a_target_that_refuses_leaves_the_replacement_to_the_next_step(scaler: Any, tmp_path: Path) -> None:
    book = Replacements(tmp_path / "replacements.json")
    one, source, fleet = scaler(book=book)
    source.values, fleet.error = PRESENT, "fleet: quota exceeded"
    replacement(book)
    one.step(tick())
    assert book.surging(NAME) == ()
    fleet.error = None
    one.step(tick(15))
    assert fleet.told == [12]


def test_in_shadow_nothing_is_replaced(scaler: Any, tmp_path: Path) -> None:
    book = Replacements(tmp_path / "replacements.json")
    one, source, fleet = scaler("shadow", book=book)
    source.values = PRESENT
    replacement(book)
    one.step(tick())
    assert fleet.told == []
    assert "replacement" not in reasons(one)


def test_a_damaged_file_of_replacements_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "replacements.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"replacements\.json: cannot be read \(it is damaged\)"):
        build(Config.model_validate({"scale": {"replacements": str(path)}}), ScriptedSource())  # type: ignore[arg-type]


def test_build_gives_the_loop_what_it_needs(tmp_path: Path) -> None:
    config = Config.model_validate({"scale": {"records": str(tmp_path), "interval_seconds": 5}})
    controller = build(config, ScriptedSource())  # type: ignore[arg-type]
    assert (controller.name, controller.interval_seconds) == ("scale", 5)
