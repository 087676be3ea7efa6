"""Recovery's step against a scripted Prometheus and real programs: what is done, held back, verified and told."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controllers.config import Config
from controllers.recovery.operation import Reason
from controllers.recovery.run import build
from controllers.sources.prometheus import Source


def shown(one: Any, name: str, **labels: str) -> float | None:
    """The sample on /metrics; None where there is none."""
    registry = CollectorRegistry()
    registry.register(one.recovery.published)
    return registry.get_sample_value(f"tidewise_recovery_{name}", labels)


def test_a_hung_worker_is_restarted_watched_and_closed(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document()).after(10)
    assert workers.effects() == []
    assert shown(one, "instances", target="workers", health="healthy") == 5
    workers.hung.add("w2")
    one.after(10)
    (effect,) = workers.effects()
    operation = one.book.open_one("workers", "w2")
    assert effect == f"w2 {operation.id}/restart/1"
    assert shown(one, "operations", target="workers", step="restart", state="acting") == 1
    assert shown(one, "attempts", target="workers", step="restart") == 1
    one.after(10)
    assert one.next("w2") == ("verify", "stabilizing")
    one.after(50, times=2)
    assert one.next("w2") == ("verify", "stabilizing")
    one.after(20)
    assert one.next("w2") == ("close", "recovered")
    assert workers.restarted() == ["w2"]
    assert shown(one, "actions_total", target="workers", remedy="restart", result="done") == 1
    assert shown(one, "repair_seconds_sum", target="workers") == pytest.approx(10)
    assert shown(one, "repair_seconds_bucket", target="workers", le="30.0") == 1
    assert shown(one, "decision_reason", target="workers", reason="recovered") == 1


def test_a_restart_that_does_not_help_is_repeated_thrice_and_then_people_take_over(
    document: Any, stepped: Any, workers: Any, alertmanager: Any
) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url}))
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10, times=60)
    assert workers.restarted() == ["w2"] * 3
    assert len(set(workers.effects())) == 3
    assert one.next("w2") == ("page", "ladder_end")
    assert alertmanager.standing(one.now) == {("RecoveryFailed", "workers", "ladder_end")}
    assert "(w2)" in alertmanager.posted[-1]["annotations"]["summary"]
    failed = [attempt.failed for attempt in one.book.open_one("workers", "w2").attempts]
    assert failed == [Reason.SYMPTOM_REMAINS] * 3
    workers.hung.clear()  # somebody mended it
    one.after(10, times=13)
    assert one.book.open_operations() == []
    one.after(10)
    assert alertmanager.standing(one.now) == set()


def test_healthy_for_twenty_seconds_and_sick_again_is_counted_and_three_times_is_flapping(
    document: Any, stepped: Any, workers: Any
) -> None:
    one = stepped(document())
    for _ in range(4):
        workers.hung.add("w2")
        one.after(10)
        if "flapping" in one.next("w2"):
            break
        workers.hung.clear()
        one.after(10, times=2)
    assert one.next("w2")[0] == "page"
    assert "flapping" in one.next("w2")
    assert len(one.book.open_one("workers", "w2").relapses) == 3
    assert 1 <= len(workers.restarted()) <= 3


def test_recurrences_count_across_operations(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document(stability_seconds=20))
    restarts = []
    for _ in range(4):
        workers.hung.add("w2")
        one.after(200)
        restarts.append(len(workers.restarted()))
        workers.hung.clear()
        one.after(20, times=3)
    assert restarts == [1, 2, 3, 3]
    assert one.book.operations[list(one.book.operations)[-1]].handed_for is Reason.FLAPPING


def test_an_hour_later_it_may_be_tried_again(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document(stability_seconds=20))
    for _ in range(4):
        workers.hung.add("w2")
        one.after(1300)
        workers.hung.clear()
        one.after(20, times=3)
    assert len(workers.restarted()) == 4


@pytest.mark.parametrize("mode", ["shadow", "recommend"])
def test_what_is_not_in_act_is_decided_and_published_and_not_done(
    document: Any, stepped: Any, workers: Any, alertmanager: Any, mode: str
) -> None:
    one = stepped(document(mode=mode, section={"alertmanager": alertmanager.url}))
    workers.hung.add("w2")
    one.after(10, times=3)
    assert workers.effects() == []
    assert one.next("w2")[1:] == ("peers_fine", mode)
    suggested = {("RecoverySuggested", "workers", "recommend")}
    assert alertmanager.standing(one.now) == (suggested if mode == "recommend" else set())
    assert shown(one, "decision_reason", target="workers", reason=mode) == 1


def test_all_sick_together_is_nobodys_fault(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document())
    workers.hung |= {"w1", "w2", "w3"}  # 60 %
    one.after(10)
    assert workers.effects() == []
    assert {one.next(name) for name in ("w1", "w2", "w3")} == {("freeze", "breaker")}
    workers.hung -= {"w1", "w2"}  # it clears unevenly
    one.after(10)
    assert one.next("w3") == ("wait", "cooldown")
    one.after(110)
    assert workers.restarted() == ["w3"]


def test_a_restarted_recovery_remembers_the_pause_after_the_breaker(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document())
    workers.hung |= {"w1", "w2", "w3"}
    one.after(10)
    one.recovery.close()
    workers.hung -= {"w1", "w2"}
    again = stepped(document())
    again.now = one.now
    assert again.after(10).next("w3") == ("wait", "cooldown")


def test_a_small_group_is_mended_one_at_a_time(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document())
    workers.cures(False)
    workers.hung |= {"w1", "w2"}
    one.after(10)
    assert workers.restarted() == ["w1"]
    assert one.next("w2") == ("wait", "group_limit")


def test_the_database_comes_first(document: Any, stepped: Any, workers: Any, prometheus: Any) -> None:
    """As n8n does: it answers, but is not ready while its database is away."""
    config = document(depends_on=["database"])
    database = {
        "name": "database",
        "mode": "act",
        "instances": ["db1"],
        "healthy": "pg_up == 1",
        "liveness": "pg_up",
        "symptoms": [{"alert": "DatabaseDown", "promql": "pg_up == 0"}],
        "restart": {"argv": workers.argv},
    }
    config["recovery"]["targets"].append(database)
    up = {"value": 0}
    prometheus.answers["pg_up"] = lambda: [({"instance": "db1"}, up["value"])]
    prometheus.answers["pg_up == 1"] = lambda: [({"instance": "db1"}, 1)] * up["value"]
    prometheus.answers["pg_up == 0"] = lambda: [({"instance": "db1"}, 0)] * (1 - up["value"])
    workers.hung.add("w2")
    one = stepped(config).after(10)
    assert workers.restarted() == ["db1"]
    assert one.next("w2") == ("wait", "dependency_down")
    up["value"] = 1
    one.after(30, times=4)
    assert workers.restarted() == ["db1"]  # it is back, and not yet for good
    one.after(30, times=2)
    assert workers.restarted() == ["db1", "w2"]


def silence(**matchers: str) -> dict[str, Any]:
    found = [{"name": k, "value": v, "isRegex": False, "isEqual": True} for k, v in matchers.items()]
    return {"id": "s", "status": {"state": "active"}, "matchers": found}


def test_a_silence_in_the_middle_stops_after_the_step(
    document: Any, stepped: Any, workers: Any, alertmanager: Any
) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url}))
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10)
    alertmanager.silences = [silence(alertname="WorkerHung", instance="w2")]
    one.after(30, times=10)
    assert workers.restarted() == ["w2"]
    assert one.next("w2") == ("wait", "silenced")
    assert alertmanager.posted == []
    alertmanager.silences = []
    one.after(10)
    assert workers.restarted() == ["w2", "w2"]


@pytest.mark.parametrize(
    ("sentence", "silences", "muted", "acts"),
    [
        ("a silence of this instance", [silence(instance="w2")], [], False),
        ("a silence of a label that the symptom's series has", [silence(job="worker")], [], False),
        ("a silence of another instance", [silence(instance="w3")], [], True),
        ("an expired silence", [{**silence(instance="w2"), "status": {"state": "expired"}}], [], True),
        ("a mute by time of its alert", [], [("w2", ["nights"])], False),
        ("a mute by time of its neighbour", [], [("w3", ["nights"])], True),
        ("an alert that is not muted", [], [("w2", [])], True),
        ("one that only one of its routes mutes", [], [("w2", ["nights"]), ("w2", [])], True),
        (
            "a regex over the whole value",
            [{**silence(), "matchers": [{"name": "instance", "value": "w", "isRegex": True, "isEqual": True}]}],
            [],
            True,
        ),
        (
            "everything but this instance",
            [{**silence(), "matchers": [{"name": "instance", "value": "w2", "isRegex": False, "isEqual": False}]}],
            [],
            True,
        ),
        ("a silence that cannot be read", [{"status": {"state": "active"}, "matchers": [{"name": "x"}]}], [], False),
    ],
)
def test_silences(
    document: Any, stepped: Any, workers: Any, alertmanager: Any, sentence: str, silences: Any, muted: Any, acts: bool
) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url}))
    alertmanager.silences = silences
    alertmanager.muted = [
        {"labels": {"alertname": "WorkerHung", "instance": name, "severity": "page"},
         "status": {"state": "suppressed" if by else "active", "silencedBy": [], "mutedBy": by}}
        for name, by in muted
    ]  # fmt: skip
    workers.hung.add("w2")
    one.after(10)
    assert (workers.restarted() == ["w2"]) is acts, sentence


def test_a_changed_configuration_leaves_an_open_operation_as_it_began(
    document: Any, stepped: Any, workers: Any
) -> None:
    one = stepped(document())
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10)
    one.recovery.close()
    again = stepped(document(section={"limits": {"attempts_per_step": 1}}))
    again.now = one.now
    again.after(70)
    assert workers.restarted() == ["w2", "w2"]


def test_a_target_that_is_no_longer_configured_is_let_go(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document())
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10)
    one.recovery.close()
    again = stepped(document(name="others"))
    again.now = one.now
    again.after(10)
    assert [o.closed_for for o in again.book.operations.values() if o.target == "workers"] == [Reason.TARGET_REMOVED]


def test_a_step_that_is_no_longer_configured_is_refused_and_handed_on(
    document: Any, stepped: Any, workers: Any
) -> None:
    one = stepped(document())
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10)
    one.recovery.close()
    again = stepped(document(restart=None))
    again.now = one.now
    again.after(70)
    again.after(30)
    assert again.next("w2")[0] == "page"
    assert workers.restarted() == ["w2"]


def test_an_instance_that_was_scaled_in_is_let_go(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document(mode="shadow"))
    workers.hung.add("w2")
    one.after(10)
    workers.lost.add("w2")
    one.after(10)
    assert one.next("w2") == ("close", "instance_gone")


def test_build_gives_the_loop_what_it_needs(document: Any) -> None:
    config = Config.model_validate(document())
    controller = build(config, Source(config.prometheus))
    assert (controller.name, controller.interval_seconds) == ("recovery", 10)
    assert controller.deadline_seconds == 35
    assert ("POST", "/alerts") in controller.routes
