"""A month's engine against a till one can read, and what a seed draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from controllers.budget.words import Priority
from controllers.domain import Mode, Money
from controllers.replay.month import Lived, Plan, live
from controllers.replay.usage import Job, Kind, Size, jobs
from controllers.scale.state import Rules

HOUR, DAY = 3600.0, 86_400.0
START = 1_788_188_400.0  # 2026-09-01 00:00 in Seoul
RULES = Rules("default/w", True, 0, 2, 60.0, 0.95, 1, 100.0, 30.0, 0.0, 0.0, None, None, 60.0, 120.0, Mode.ACT)
PATIENCE = {Priority.CRITICAL: HOUR, Priority.NORMAL: 4 * HOUR, Priority.DEFERRABLE: DAY}
AGAIN = {Priority.CRITICAL: 600.0, Priority.NORMAL: HOUR, Priority.DEFERRABLE: 6 * HOUR}
PLAN = Plan(START, START + 2 * DAY, 60.0, PATIENCE, AGAIN)
CALL = Kind("call", "acme", "ocr", "n8n", 10, {Priority.NORMAL: 1.0}, 100, 50, Size(20, 0.5, 50))
WORK = replace(CALL, name="work", workload="default/w", work=Size(100, 0.0, 100))


@dataclass
class Till:
    """Permits between `opens` and `closes`; pays for `most` replicas. Keeps what it was asked."""

    opens: float = 0.0
    closes: float = 1e12
    most: int = 10
    asked: list[tuple[float, str, Mapping[str, Any]]] = field(default_factory=list)
    paid: list[tuple[float, int]] = field(default_factory=list)  # (when, replicas with a hold)

    def ask(self, method: str, path: str, body: Mapping[str, Any], now: float) -> tuple[int, Mapping[str, Any]]:
        self.asked.append((now, path, body))
        if path == "/permit" and not self.opens <= now < self.closes:
            return 402, {"reason": "over_limit"}
        return 200, {}

    def step(self, now: float) -> None:
        pass

    def look(self, running: Mapping[str, int], now: float) -> Mapping[str, Money]:
        self.paid.append((now, running["default/w"]))
        return {"default/w": Money(running["default/w"], 0, 10, 0.0, 900.0)}

    def take(self, workload: str, running: int, more: int, lead_seconds: float, now: float) -> int:
        return max(0, min(more, self.most - running))

    def permits(self) -> list[tuple[float, str]]:
        return [(now - START, str(body["event_id"])) for now, path, body in self.asked if path == "/permit"]


def job(name: str, at: float, priority: Priority = Priority.NORMAL, kind: Kind = CALL, **more: Any) -> Job:
    drawn = Job(name, START + at, kind, priority, {"input_tokens": 9}, {"input_tokens": 5}, 100.0, False)
    return replace(drawn, **more)


def lived(till: Till, *wanted: Job, plan: Plan = PLAN) -> Lived:
    return live(wanted, till, [RULES], plan)


def test_a_call_is_permitted_at_its_most_and_settled_at_what_it_was() -> None:
    till = Till()
    month = lived(till, job("a", 10))
    assert [(now - START, path) for now, path, _ in till.asked] == [(10, "/permit"), (30, "/settle")]
    assert till.asked[0][2]["units"] == {"input_tokens": 9}
    assert till.asked[1][2] == {"hold": "a", "units": {"input_tokens": 5}}
    assert month.served_ratio(Priority.NORMAL) == 1.0
    assert month.served_ratio(Priority.CRITICAL) is None


@pytest.mark.parametrize(
    ("sentence", "priority", "opens", "times", "served"),
    [
        ("it asks again until it is let in", Priority.NORMAL, 2 * HOUR, [0.0, HOUR, 2 * HOUR], 1),
        ("and no longer than the answer is of use", Priority.NORMAL, 9 * HOUR, [0.0, HOUR, 2 * HOUR, 3 * HOUR], 0),
        ("what is critical asks often", Priority.CRITICAL, 900.0, [0.0, 600.0, 1200.0], 1),
        ("what can wait asks seldom", Priority.DEFERRABLE, HOUR, [0.0, 6 * HOUR], 1),
    ],
)
def test_who_is_refused(sentence: str, priority: Priority, opens: float, times: list[float], served: int) -> None:
    till = Till(opens=START + opens)
    month = lived(till, job("a", 0, priority))
    assert [at for at, _ in till.permits()] == times, sentence
    assert month.served[priority] == served
    assert month.refused[priority, "over_limit"] == len(times) - served


def test_alike_everybody_asks_as_critical_and_is_counted_as_what_it_is() -> None:
    till = Till()
    month = lived(till, job("a", 0, Priority.DEFERRABLE), plan=replace(PLAN, alike=True))
    assert till.asked[0][2]["priority"] == "critical"
    assert month.served == {Priority.DEFERRABLE: 1}


def test_work_waits_for_a_replica_which_is_paid_until_it_has_stopped() -> None:
    till = Till()
    month = lived(till, job("a", 90, kind=WORK))
    settled = next(now - START for now, path, _ in till.asked if path == "/settle")
    assert settled == 120 + 30 + 100  # the next turn, its lead time, its work
    assert (month.most_replicas["default/w"], till.paid[-1][1]) == (1, 0)
    stopped = next(now for now, count in till.paid if now > START + settled and count == 0)
    assert month.replica_seconds["default/w"] == stopped - START - 120


def test_what_is_critical_is_worked_first() -> None:
    till = Till(most=1)
    wanted = [job(f"n{n}", n, kind=WORK) for n in range(3)] + [job("c", 20, Priority.CRITICAL, WORK)]
    lived(till, *wanted)
    assert [body["hold"] for _, path, body in till.asked if path == "/settle"] == ["c", "n0", "n1", "n2"]


def test_without_money_nothing_grows_and_work_is_late() -> None:
    month = lived(Till(most=0), job("a", 0, kind=WORK))
    assert month.served[Priority.NORMAL] == 0
    assert month.reasons["permit_refused"] > 1000


def test_a_lost_call_is_never_settled() -> None:
    till = Till()
    month = lived(till, job("a", 0, is_lost=True))
    assert "/settle" not in [path for _, path, _ in till.asked]
    assert month.served[Priority.NORMAL] == 1  # whoever asked for it has it; only the ledger was not told


def test_a_seed_draws_the_same_month_again_and_another_one_another() -> None:
    weights = [1.0] * 288
    drawn = [jobs([CALL, WORK], weights, START, START + DAY, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    # more of one kind leaves the other's jobs as they were
    more = jobs([CALL, replace(WORK, per_month=50)], weights, START, START + DAY, 1)
    assert [one for one in more if one.kind.name == "call"] == [one for one in drawn[0] if one.kind.name == "call"]


def test_jobs_come_when_the_weights_and_the_hours_say_and_never_use_more_than_they_asked_for() -> None:
    weights = [0.0] * 144 + [1.0] * 144
    night = replace(CALL, name="night", hours=(2.0, 3.0), per_month=200)
    found = jobs([replace(CALL, per_month=500)], weights, START, START + DAY, 3)
    assert 400 < len(found) < 600
    assert min(one.at for one in found) >= START + DAY / 2
    hours = {
        datetime.fromtimestamp(one.at, ZoneInfo("Asia/Seoul")).hour
        for one in jobs([night], [1.0] * 24, START, START + DAY, 3)
    }
    assert hours == {2}
    assert found == sorted(found, key=lambda one: one.at)
    for one in found:
        assert one.most.keys() == one.actual.keys()
        assert all(one.actual[unit] <= count for unit, count in one.most.items())
