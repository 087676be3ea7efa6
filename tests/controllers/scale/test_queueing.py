"""Erlang C against its definition, the roll-forward against arithmetic that one can do by hand."""

from fractions import Fraction
from math import factorial

import pytest

from controllers.scale.queueing import (
    Load,
    Service,
    Supply,
    Wanted,
    Window,
    backlog_after,
    is_enough,
    is_steady,
    probability_of_waiting,
    smallest,
)

HALF_A_SECOND = Service(0.5)
FIVE_SECONDS = Wanted(wait_seconds=5.0, objective=0.95, drain_seconds=120.0)


def erlang_c_by_its_sum(servers: int, offered: Fraction) -> Fraction:
    """The textbook's sum, in exact fractions; what the stable recursion must agree with."""
    last = offered**servers / factorial(servers) * servers / (servers - offered)
    return last / (sum(offered**n / factorial(n) for n in range(servers)) + last)


@pytest.mark.parametrize(("servers", "offered"), [(1, "0.5"), (2, "1"), (5, "3"), (10, "8"), (50, "45"), (200, "199")])
def test_erlang_c(servers: int, offered: str) -> None:
    expected = float(erlang_c_by_its_sum(servers, Fraction(offered)))
    assert probability_of_waiting(servers, float(offered)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("servers", "offered", "expected"), [(3, 3.0, 1.0), (0, 0.1, 1.0), (4, 0.0, 0.0)])
def test_erlang_c_at_its_edges(servers: int, offered: float, expected: float) -> None:
    assert probability_of_waiting(servers, offered) == expected


def test_erlang_c_of_a_very_large_fleet_does_not_overflow() -> None:
    assert probability_of_waiting(5000, 100.0) == 0.0
    assert 0.0 < probability_of_waiting(5000, 4900.0) < 0.5


def test_steady_needs_more_than_the_load() -> None:
    assert not is_steady(10, 20.0, HALF_A_SECOND, FIVE_SECONDS)
    assert is_steady(11, 20.0, HALF_A_SECOND, FIVE_SECONDS)


def test_a_tight_wait_needs_more_than_a_loose_one() -> None:
    tight = Wanted(0.05, 0.99, 120.0)
    assert not is_steady(11, 20.0, HALF_A_SECOND, tight)
    assert is_steady(18, 20.0, HALF_A_SECOND, tight)


def test_backlog_grows_by_the_difference_and_shrinks_when_replicas_arrive() -> None:
    load = Load.steady(20.0)
    assert backlog_after(10.0, 60.0, load, Supply(5), HALF_A_SECOND) == pytest.approx(10 + 60 * 10)
    assert backlog_after(10.0, 60.0, load, Supply(5, ((30.0, 10),)), HALF_A_SECOND) == pytest.approx(10.0, abs=1.0)
    assert backlog_after(10.0, 60.0, load, Supply(20), HALF_A_SECOND) == 0.0


def test_late_work_is_drained_over_the_time_given() -> None:
    load = Load.steady(20.0)
    # 251 n >= 20 x 120 + 1000: the backlog of 1000 less what is on time, in 120 s
    assert smallest(100, 1000.0, 60.0, 80.0, load, HALF_A_SECOND, FIVE_SECONDS) == 14
    assert not is_enough(13, 1000.0, Window.of(load, 60.0, 80.0), HALF_A_SECOND, FIVE_SECONDS)


def test_more_than_most_where_most_are_not_enough() -> None:
    assert smallest(5, 0.0, 60.0, 80.0, Load.steady(20.0), HALF_A_SECOND, FIVE_SECONDS) == 6
