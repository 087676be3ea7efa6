"""The protocol of the comparison, on traces that one can do by hand: a tick is 15 s, a step here is a minute."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.replay.protocol import (
    Demand,
    Point,
    ProtocolError,
    Setting,
    cheapest,
    compared,
    cost_at,
    front,
    highest_ahead,
    lowest,
    oracle,
    play,
    replica_hours,
    score,
    scored,
    waiting,
)


def setting(steps: list[float], lead: float = 30.0, history: int = 0, capacity: float = 1.0, **more: float) -> Setting:
    """Minutes of demand that are all scored, after `history` minutes of 1."""
    values = np.array([1.0] * history + steps)
    share = len(steps) / len(values)
    return scored(Demand(0.0, 60.0, values), lead, capacity=capacity, share=share, **more)


def ticks(*numbers: int) -> np.ndarray:
    """A number a minute, as a number a tick."""
    return np.repeat(np.array(numbers, dtype=np.int64), 4)


def test_the_last_quarter_is_scored_and_a_replica_serves_a_twentieth_of_its_peak() -> None:
    found = scored(Demand(600.0, 60.0, np.arange(400.0)), 60.0)
    assert (len(found.history), len(found.steps), found.ticks) == (300, 100, 400)
    assert found.begin == 600.0 + 300 * 60
    assert found.capacity == pytest.approx(np.percentile(np.arange(300.0, 400.0), 99.9) / 20)
    assert found.demand[:5].tolist() == [300.0] * 4 + [301.0]
    assert found.changes()[:3].tolist() == [0, 4, 8]


def test_at_most_ten_days_are_scored() -> None:
    assert len(scored(Demand(0.0, 3600.0, np.ones(2000)), 60.0).steps) == 240


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0] * 8 + [math.nan] * 4, "found no known demand in the 3 steps to be scored, of 12"),
        ([1.0] * 9 + [0.0] * 3, "found a capacity of 0 a replica; without demand there is nothing to compare"),
        ([1.0, 1.0], "found no known demand in the 0 steps to be scored, of 2"),
    ],
)
def test_a_trace_without_demand_is_refused(values: list[float], said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        scored(Demand(0.0, 60.0, np.array(values)), 60.0)


@pytest.mark.parametrize(
    ("name", "wanted", "lead", "ready"),
    [
        ("what is wanted first serves at once", [2, 2, 2], 30.0, [2] * 12),
        ("a new one serves a lead time later", [1, 3, 3], 30.0, [1] * 6 + [3] * 6),
        ("a lead time counts in whole ticks", [1, 3, 3], 31.0, [1] * 7 + [3] * 5),
        ("without a lead time it serves in its tick", [1, 3, 3], 0.0, [1] * 4 + [3] * 8),
        ("scale-in takes effect at once", [3, 1, 1], 30.0, [3] * 4 + [1] * 8),
        ("the newest that still starts goes first", [1, 3, 2], 75.0, [1] * 9 + [2] * 3),
        ("one that was given up starts anew", [2, 0, 2], 30.0, [2] * 4 + [0] * 6 + [2] * 2),
    ],
)
def test_what_serves(name: str, wanted: list[int], lead: float, ready: list[int]) -> None:
    result = play(ticks(*wanted), setting([1.0, 1.0, 1.0], lead))
    assert result.ready.tolist() == ready, name
    assert result.paid.tolist() == ticks(*wanted).tolist(), "paid from the ask"


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 9))
def test_what_serves_is_a_stack_of_replicas_each_with_its_age(wanted: list[int], lead: int) -> None:
    stack, ready = [-lead] * wanted[0], []
    for tick, number in enumerate(wanted):
        stack = stack[:number] + [tick] * (number - len(stack))
        ready.append(sum(tick - asked >= lead for asked in stack))
    assert lowest(np.array(wanted), lead).tolist() == ready


def test_scores_by_hand() -> None:
    # needed 2, 4, 1; wanted 2, 4, 4: of the second minute two ticks are short of two
    found = setting([2.0, 3.5, 0.5], lead=30.0, price_per_replica_hour=6.0)
    assert found.need.tolist() == ticks(2, 4, 1).tolist()
    result = play(ticks(2, 4, 4), found)
    assert result.ready.tolist() == [2] * 6 + [4] * 6
    of = score(result)
    assert of["replica_hours"] == pytest.approx((2 + 4 + 4) / 60)
    assert of["money"] == pytest.approx(1.0)
    assert of["under"] == of["tau_u"] == pytest.approx(2 / 12)
    assert of["slo_minutes"] == 0.5
    assert of["unserved"] == pytest.approx(2 * 1.5 / (4 * 6.0))
    assert of["theta_u"] == pytest.approx((2 * 2 / 4) / 12)
    assert of["theta_o"] == pytest.approx((4 * 3 / 1) / 12)
    assert of["tau_o"] == pytest.approx(4 / 12)
    assert (of["actions"], of["reversals"]) == (1, 0)
    # the oracle has four from two ticks before the second minute on
    assert oracle(found).tolist() == [2, 2, 4, 4, 4, 4, 4, 4, 1, 1, 1, 1]
    assert of["cost_to_oracle"] == pytest.approx(40 / (2 * 2 + 6 * 4 + 4 * 1))


def test_supply_that_moves_against_the_need_is_instability() -> None:
    found = setting([1.0, 3.0, 1.0, 3.0], lead=0.0)
    assert score(play(ticks(3, 1, 3, 1), found))["instability"] == 1.0
    assert score(play(ticks(1, 3, 1, 3), found))["instability"] == 0.0
    assert score(play(ticks(1, 3, 1, 3), found))["reversals"] == 2


def test_what_is_unknown_is_not_scored_neither_capacity_nor_money() -> None:
    found = setting([2.0, math.nan, 2.0], lead=0.0)
    of = score(play(ticks(2, 9, 1), found))
    assert of["replica_hours"] == pytest.approx((2 + 1) / 60)
    assert of["under"] == 0.5
    assert of["cost_to_oracle"] == pytest.approx(3 / 4)


def test_a_demand_of_exactly_n_replicas_is_served_by_n() -> None:
    found = setting([0.3], capacity=0.1)
    assert found.need.tolist() == [3] * 4
    assert score(play(np.full(4, 3), found))["unserved"] == 0.0


@given(
    st.lists(st.floats(0, 9) | st.just(math.nan), min_size=1, max_size=30).filter(lambda v: np.isfinite(v).any()),
    st.integers(0, 20),
)
def test_the_oracle_is_never_short_and_nothing_that_is_not_is_cheaper(steps: list[float], lead: int) -> None:
    found = setting(steps, lead=15.0 * lead)
    best = play(oracle(found), found)
    known = found.known
    assert (best.ready[known] >= found.need[known]).all()
    for less in range(0, found.ticks, 3):  # one replica fewer at any tick: somewhere it is missed, or nobody needed it
        if best.desired[less] > 0:
            fewer = best.desired.copy()
            fewer[less] -= 1
            assert (play(fewer, found).ready < found.need).any()


def test_a_queue_by_hand() -> None:
    # a replica serves 1 a second; two a second come in the first minute, none after it
    found = setting([2.0, 0.0, 0.0], lead=0.0)
    result = play(ticks(1, 1, 1), found)
    waits, backlog = waiting(found.demand, result.ready.astype(float), 15.0)
    assert backlog.tolist() == [15, 30, 45, 60, 45, 30, 15, 0, 0, 0, 0, 0]
    assert waits[:4].tolist() == [15, 30, 45, 60]
    of = score(result)
    assert (of["late"], of["wait_p95"], of["left"]) == (0.0, 60.0, 0.0)
    assert of["under"] == pytest.approx(4 / 12)
    slower = score(play(ticks(1, 0, 0), found))
    assert slower["left"] == pytest.approx(60 / 120)


def test_work_that_waits_where_nothing_serves_waits_for_ever() -> None:
    of = score(play(ticks(0, 0), setting([1.0, 0.0])))
    assert (of["late"], of["wait_p95"], of["left"]) == (1.0, math.inf, 1.0)


def test_a_policy_is_asked_with_the_setting() -> None:
    found = setting([1.0, 2.0])
    assert play(lambda seen: seen.need, found).desired.tolist() == ticks(1, 2).tolist()
    with pytest.raises(ValueError, match=r"a policy wants \(3,\), a number a tick is \(8,\)"):
        play(np.ones(3), found)


def test_windows_ahead_end_where_the_trace_does() -> None:
    assert highest_ahead(np.array([1, 0, 5, 2]), 1).tolist() == [1, 5, 5, 2]
    assert highest_ahead(np.array([1, 0]), 5).tolist() == [1, 0]


FRONT = [Point("a", 1.0, 0.08), Point("b", 1.5, 0.02), Point("dear", 1.6, 0.03), Point("c", 2.0, 0.0)]


def test_costs_are_compared_on_the_front() -> None:
    assert [point.knob for point in front(FRONT)] == ["a", "b", "c"]
    best = cheapest(FRONT, 0.05)
    assert best is not None
    assert best.knob == "b"
    assert cost_at(FRONT, 0.05) == pytest.approx(1.25)
    assert cost_at(FRONT, 0.01) == pytest.approx(1.75)
    assert cost_at(FRONT, 0.5) == 1.0
    assert cost_at(FRONT[:1], 0.01) is None
    assert cheapest(FRONT[:1], 0.01) is None
    assert compared({"x": FRONT}) == {"x": [2.0, 1.5, 1.5]}


def test_replica_hours() -> None:
    assert replica_hours(ticks(3, 3), setting([1.0, 1.0])) == pytest.approx(0.1)
