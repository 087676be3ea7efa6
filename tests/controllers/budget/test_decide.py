"""What is permitted and how careful to be: tables of one decision each, and what must hold for all of them."""

import random
from collections import Counter, deque
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.budget.decide import Ask, Floor, Limit, Pace, Rules, admit, committed, decide, free, max_new
from controllers.budget.periods import hour_of_week
from controllers.budget.words import MICRO, BudgetReason, Level, Priority, Standing

WON = MICRO
DAY = 86_400.0
START = 1_793_458_800.0  # 2026-11-01 00:00 in Seoul
TOTAL, USAGE = Limit("total", 24_900 * WON, True), Limit("usage", 15_000 * WON, False)
RULES = Rules((USAGE, TOTAL), "KRW")
FIXED = 9_900 * WON


def standing(day: float = 10.0, posted: float = 0, held: float = 0, **more: object) -> Standing:
    """The tenth of a month of thirty days; amounts in won."""
    base = Standing(
        START + day * DAY, "2026-11", START, START + 30 * DAY, int(posted * WON), int(held * WON), FIXED
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sentence", "at", "ask", "level", "reason", "budget"),
    [
        ("there is room", standing(), Ask(100 * WON), Level.NORMAL, "granted", ""),
        ("to the last micro-won", standing(posted=14_999), Ask(WON), Level.NORMAL, "granted", ""),
        ("and not one beyond", standing(posted=14_999), Ask(WON + 1), Level.NORMAL, "over_limit", "usage"),
        ("what is held counts", standing(held=14_999.5), Ask(WON), Level.NORMAL, "over_limit", "usage"),
        ("fixed costs bind the total", standing(fixed=10_000 * WON, posted=14_899), Ask(2 * WON), Level.NORMAL,
         "over_limit", "total"),
        ("economy lets normal work pass", standing(), Ask(1), Level.ECONOMY, "granted", ""),
        ("economy makes deferrable work wait", standing(), Ask(1, Priority.DEFERRABLE), Level.ECONOMY, "deferred", ""),
        ("essential denies normal work", standing(), Ask(1), Level.ESSENTIAL, "not_critical", ""),
        ("essential lets critical work pass", standing(), Ask(1, Priority.CRITICAL), Level.ESSENTIAL, "granted", ""),
        ("but not beyond the limit", standing(posted=15_000), Ask(1, Priority.CRITICAL), Level.ESSENTIAL,
         "over_limit", "usage"),
        ("a renewal is not judged by the level", standing(), Ask(1, renewal=True), Level.ESSENTIAL, "granted", ""),
        ("but by the limit", standing(posted=15_000), Ask(1, renewal=True), Level.NORMAL, "over_limit", "usage"),
        ("what costs nothing is allowed on a spent budget", standing(posted=16_000), Ask(0), Level.NORMAL,
         "granted", ""),
        ("a clock that was set back", standing(clock_behind_seconds=60.0), Ask(1), Level.NORMAL,
         "clock_set_back", ""),
        ("a clock that is a moment behind", standing(clock_behind_seconds=2.0), Ask(1), Level.NORMAL, "granted", ""),
    ],
)  # fmt: skip
def test_permits(sentence: str, at: Standing, ask: Ask, level: Level, reason: str, budget: str) -> None:
    verdict = admit(at, ask, RULES, level)
    assert (verdict.reason.value, verdict.budget) == (reason, budget), sentence
    assert verdict.allowed is (reason == "granted")
    assert verdict.allowed or verdict.message


@pytest.mark.parametrize("amount", [0, 1])
def test_a_budget_of_zero_denies_everything(amount: int) -> None:
    rules = Rules((Limit("total", 0, True),), "KRW")
    verdict = admit(standing(fixed=0), Ask(amount, Priority.CRITICAL), rules, Level.NORMAL)
    assert (verdict.allowed, verdict.reason) == (False, BudgetReason.BUDGET_ZERO)
    assert max_new(standing(fixed=0), rules, 1) == 0


def test_the_refusal_says_what_is_left() -> None:
    verdict = admit(standing(posted=14_000, held=900), Ask(200 * WON), RULES, Level.NORMAL)
    assert verdict.message == (
        "this needs 200.00 KRW; of the budget 'usage' (15,000.00) 100.00 are left in 2026-11: posted 14,000.00, "
        "held 900.00, committed 0.00"
    )


def test_minimum_replicas_are_committed_for_the_rest_of_the_month_and_no_longer() -> None:
    rules = replace(RULES, floors={"default/x": Floor(2, 12 * WON, 600.0)})
    whole = standing(day=0)
    assert committed(whole, USAGE, rules) == 2 * 12 * WON * (720 * 3600 + 600) // 3600
    assert committed(whole, TOTAL, rules) == committed(whole, USAGE, rules) + FIXED
    assert committed(standing(day=29), USAGE, rules) == 2 * 12 * WON * (24 * 3600 + 600) // 3600
    # what is held for them is not owed a second time, and what is held beyond does not pay for others
    held = replace(whole, held=50 * WON, floor_held={"default/x": 50 * WON})
    assert free(held, USAGE, rules) == free(whole, USAGE, rules)
    much = replace(standing(day=30), floor_held={"default/x": 50 * WON})
    assert committed(much, USAGE, rules) == 0


def test_a_committed_replica_is_admitted_when_nothing_else_would_be() -> None:
    rules = replace(RULES, floors={"default/x": Floor(1, 12 * WON, 600.0)})
    full = standing(posted=15_000 - 12 * (20 * 24 + 1 / 6))
    assert free(full, USAGE, rules) == pytest.approx(0, abs=1)
    assert not admit(full, Ask(4 * WON), rules, Level.NORMAL).allowed
    assert admit(full, Ask(4 * WON, floor_workload="default/x", floor_amount=4 * WON), rules, Level.NORMAL).allowed


def test_new_replicas_are_what_is_left_over_the_hold_rounded_down() -> None:
    assert max_new(standing(posted=14_990), RULES, 4 * WON) == 2
    assert max_new(standing(posted=14_997), RULES, 4 * WON) == 0
    assert max_new(standing(posted=20_000), RULES, 4 * WON) == 0
    assert max_new(standing(clock_behind_seconds=60.0), RULES, 4 * WON) == 0


@given(
    posted=st.integers(0, 30_000 * WON),
    held=st.integers(0, 30_000 * WON),
    amount=st.integers(1, 30_000 * WON),
    day=st.floats(0, 30),
    level=st.sampled_from(Level),
)
def test_no_permit_ever_exceeds_a_limit(posted: int, held: int, amount: int, day: float, level: Level) -> None:
    at = replace(standing(day), posted=posted, held=held)
    if admit(at, Ask(amount, Priority.CRITICAL), RULES, level).allowed:
        assert posted + held + amount <= USAGE.amount
        assert posted + held + amount + FIXED <= TOTAL.amount
    new = max_new(at, RULES, amount)
    assert new == 0 or admit(at, Ask(new * amount, Priority.CRITICAL), RULES, level).allowed


def pace(day: float, recent_per_day: float | None, days: float = 7.0, **windows: int) -> Pace:
    recent = None if recent_per_day is None else int(recent_per_day * days * WON)
    found = {int(name[1:]): amount for name, amount in windows.items()}
    return Pace(day * 24, (30 - day) * 24, recent, days * 24, found)


@pytest.mark.parametrize(
    ("sentence", "day", "spent", "per_day", "before", "level"),
    [
        ("nothing was spent", 10, 0, 0, Level.NORMAL, Level.NORMAL),
        ("a month on plan passes 75 % on day 23 and is not degraded", 23, 11_500, 500, Level.NORMAL, Level.NORMAL),
        ("and 90 % on day 27", 27, 13_500, 500, Level.NORMAL, Level.NORMAL),
        ("half a day ahead, which may be a batch", 10, 5_250, 600, Level.NORMAL, Level.NORMAL),
        ("more than a day ahead, and going to end above", 10, 5_600, 480, Level.NORMAL, Level.ECONOMY),
        ("far ahead", 10, 8_000, 800, Level.NORMAL, Level.ESSENTIAL),
        ("less than two days ahead, however dear it gets", 10, 5_900, 900, Level.NORMAL, Level.ECONOMY),
        ("more than two days ahead", 10, 6_100, 800, Level.NORMAL, Level.ESSENTIAL),
        ("a day and a half is enough to stay there", 10, 5_800, 800, Level.ESSENTIAL, Level.ESSENTIAL),
        ("and with less what can wait still waits", 10, 5_700, 800, Level.ESSENTIAL, Level.ECONOMY),
        ("half a day is enough for that", 10, 5_300, 600, Level.ECONOMY, Level.ECONOMY),
        ("and with less nothing waits", 10, 5_200, 600, Level.ECONOMY, Level.NORMAL),
        ("four days before the end a day is six hours", 26, 13_130, 600, Level.NORMAL, Level.ECONOMY),
        ("of which half do not count", 26, 13_060, 600, Level.NORMAL, Level.NORMAL),
        ("a dear day, but still below the line", 10, 4_000, 900, Level.NORMAL, Level.NORMAL),
        ("ahead, but slow enough by now", 10, 6_000, 300, Level.NORMAL, Level.NORMAL),
        ("an early burst of small change has no consequences", 0.02, 300, 900, Level.NORMAL, Level.NORMAL),
        ("the limit is spent", 29, 15_000, 500, Level.NORMAL, Level.EXHAUSTED),
        ("a projection just below the line keeps the level", 20, 10_600, 430, Level.ECONOMY, Level.ECONOMY),
        ("and does not enter it", 20, 10_600, 430, Level.NORMAL, Level.NORMAL),
        ("well below, it is lifted", 20, 10_600, 380, Level.ECONOMY, Level.NORMAL),
        ("what is unknown holds the level", 20, 10_100, None, Level.ESSENTIAL, Level.ESSENTIAL),
        ("and does not raise it", 20, 10_100, None, Level.NORMAL, Level.NORMAL),
        ("a new month begins without the old one's level", 0, 0, 500, Level.EXHAUSTED, Level.NORMAL),
    ],
)  # fmt: skip
def test_levels(sentence: str, day: float, spent: float, per_day: float | None, before: Level, level: Level) -> None:
    decision = decide(standing(day, posted=spent), pace(day, per_day), RULES, {"usage": before, "total": before})
    usage = next(one for one in decision.budgets if one.name == "usage")
    assert usage.level is level, (sentence, usage)
    assert decision.level >= level


def test_people_are_told_by_posted_spend_alone() -> None:
    told = [
        decide(standing(posted=spent, held=15_000), pace(10, 0), RULES, {}).budgets[0].notified
        for spent in (7_499, 7_500, 11_250, 13_500, 15_000)
    ]
    assert told == [0.0, 0.5, 0.75, 0.9, 1.0]


def test_the_month_end_is_what_is_gone_plus_the_recent_rate_over_what_is_left() -> None:
    usage, total = decide(standing(20, posted=8_000), pace(20, 300), RULES, {}).budgets
    assert usage.projected == 11_000 * WON
    assert total.projected == 20_900 * WON
    assert usage.pace == 10_000 * WON
    assert total.pace == 19_900 * WON
    first_hour = Pace(1.0, 719.0, 100 * WON, 1.0)
    (usage,) = [
        one for one in decide(standing(1 / 24, posted=100), first_hour, RULES, {}).budgets if one.name == "usage"
    ]
    assert usage.projected == pytest.approx(100 * WON + 100 / 24 * 719 * WON, rel=1e-6)  # not 72,000


def test_burn_rates_compare_the_recent_rate_with_what_is_left_and_ignore_small_change() -> None:
    at = standing(20, posted=5_000)
    (usage, _) = decide(at, pace(20, 300, w3600=500 * WON, w300=10 * WON), RULES, {}).budgets
    assert usage.burn[3600] == pytest.approx(500 * 240 / 10_000)
    assert usage.burn[300] == 0.0
    (spent, _) = decide(standing(20, posted=15_000), pace(20, 300, w3600=500 * WON), RULES, {}).budgets
    assert spent.burn == {}


@pytest.mark.parametrize(
    ("sentence", "demand", "critical", "front"),
    [
        ("twice the budget", 30_000, 0.3, 1.0),
        ("twice the budget, more of it early", 24_000, 0.3, 1.6),
        ("four times the budget", 60_000, 0.2, 1.0),
        ("nearly all of the budget is critical", 30_000, 0.45, 1.0),
    ],
)
def test_a_month_of_too_much_work_stays_within_and_serves_what_is_critical(
    sentence: str, demand: float, critical: float, front: float
) -> None:
    """Calls of 15 won, by office hours; `front`: how much denser the first twelve days are."""
    chance, zone, rules = random.Random(11), ZoneInfo("Asia/Seoul"), Rules((USAGE,), "KRW")
    office = [3.0 if 9 <= hour % 24 < 19 and hour < 120 else 0.4 for hour in range(168)]
    posted, recent, levels = 0, deque[tuple[float, int]](), {"usage": Level.NORMAL}
    asked: Counter[Priority] = Counter()
    served: Counter[Priority] = Counter()
    for step in range(30 * 96):
        now = START + step * 900.0
        while recent and recent[0][0] < now - 7 * DAY:
            recent.popleft()
        whole = (now - START) / 3600
        lately = Pace(whole, 720 - whole, sum(amount for _, amount in recent), min(whole, 168.0))
        at = replace(standing(), at=now, posted=posted, fixed=0)
        levels["usage"] = decide(at, lately, rules, levels).level
        density = office[hour_of_week(now, zone)] / (sum(office) / 168) * (front if whole < 288 else 1.0)
        calls = demand / 15 / (30 * 96) * density
        for _ in range(int(calls) + (chance.random() < calls % 1)):
            priority = Priority.CRITICAL if chance.random() < critical else Priority.NORMAL
            cost = int(chance.uniform(8, 22) * WON)
            asked[priority] += 1
            at = replace(at, posted=posted)
            if admit(at, Ask(int(cost * 1.3), priority), rules, levels["usage"]).allowed:
                posted += cost
                recent.append((now, cost))
                served[priority] += 1
    assert 0.9 * USAGE.amount < posted <= USAGE.amount, sentence
    assert served[Priority.CRITICAL] >= 0.95 * asked[Priority.CRITICAL], (sentence, served, asked)
