"""A distribution from a few quantiles against sums over many draws of it; the least cost against all numbers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.scale.distribution import Distribution, at_quantile
from controllers.scale.economics import Prices, keep_seconds, least_cost, least_cost_of_queue, least_risk
from controllers.scale.queueing import Load, Service, Wanted, late_share, smallest

FEW = {0.1: 90.0, 0.5: 100.0, 0.9: 120.0, 0.98: 150.0}


def of(table: dict[float, float]) -> Distribution:
    found = Distribution.from_quantiles(table)
    assert found is not None
    return found


def test_known_quantiles_are_met_and_between_them_it_is_linear_in_the_normal_deviate() -> None:
    demand = of(FEW)
    assert [demand.at(q) for q in FEW] == pytest.approx(list(FEW.values()))
    assert demand.at(0.8) == pytest.approx(100.0 + 20.0 * 0.8416 / 1.2816, rel=1e-3)
    assert at_quantile(FEW, 0.9) == 120.0
    assert at_quantile(FEW, 0.8) == pytest.approx(demand.at(0.8))


def test_beyond_the_highest_known_quantile_the_last_slope_goes_on() -> None:
    demand = of(FEW)
    slope = 30.0 / (2.0537 - 1.2816)
    assert demand.at(0.999) == pytest.approx(150.0 + slope * (3.0902 - 2.0537), rel=1e-3)
    assert demand.at(1e-9) >= 0.0


def test_one_quantile_is_all_there_is_and_none_is_unknown() -> None:
    assert Distribution.certain(5.0).at(0.99) == 5.0
    assert (Distribution.certain(5.0).above(4.9), Distribution.certain(5.0).above(5.0)) == (1.0, 0.0)
    assert Distribution.certain(5.0).excess(3.0) == pytest.approx(2.0)
    assert Distribution.from_quantiles({}) is None
    assert at_quantile({}, 0.9) is None


def test_quantiles_that_cross_are_lifted() -> None:
    assert of({0.5: 10.0, 0.9: 8.0}).at(0.9) == 10.0


@pytest.mark.parametrize("x", [0.0, 80.0, 100.0, 119.0, 140.0, 200.0])
@pytest.mark.parametrize("table", [FEW, {0.5: 100.0, 0.9: 100.0, 0.98: 130.0}, {0.1: 0.0, 0.9: 90.0}])
def test_probability_and_excess_are_those_of_many_draws(table: dict[float, float], x: float) -> None:
    demand = of(table)
    draws = [demand.at((i + 0.5) / 20_000) for i in range(20_000)]
    assert demand.above(x) == pytest.approx(sum(d > x for d in draws) / 20_000, abs=2e-3)
    assert demand.excess(x) == pytest.approx(sum(max(0.0, d - x) for d in draws) / 20_000, abs=0.05)


tables = st.builds(
    lambda start, steps: dict(zip((0.1, 0.5, 0.9, 0.98), [start + sum(steps[:i]) for i in range(4)], strict=True)),
    st.floats(0, 100),
    st.lists(st.floats(0, 60), min_size=3, max_size=3),
)


@given(tables, st.floats(0.5, 20), st.floats(0.0001, 1))
@settings(max_examples=100, deadline=None)
def test_least_cost_is_the_least_of_all_numbers(table: dict[float, float], capacity: float, late: float) -> None:
    demand, prices = of(table), Prices(12.0, late)

    def cost(n: int) -> float:
        return n * 12.0 / 3600.0 + late * demand.excess(n * capacity)

    number = least_cost(demand, capacity, prices, 5000)
    assert cost(number) <= min(cost(n) for n in range(max(0, number - 30), number + 30)) + 1e-9


def test_the_newsvendors_fractile() -> None:
    # a replica serves 1 a second for 3.6 an hour, 0.001 a second; a late job costs 0.01: nine in ten moments pay for it
    assert least_cost(of(FEW), 1.0, Prices(3.6, 0.01), 1000) == 120


def test_serving_that_costs_more_than_it_is_worth_is_not_bought() -> None:
    assert least_cost(of(FEW), 1.0, Prices(3.6, 0.0009), 1000) == 0
    assert least_cost(of(FEW), 1.0, Prices(3.6, 0.0), 1000) == 0


def test_the_least_cost_beyond_the_most_is_one_more_than_that() -> None:
    assert least_cost(of(FEW), 1.0, Prices(3.6, 0.01), 50) == 51
    assert least_risk(of(FEW), 1.0, 100.0, 50) == 51


@given(tables, st.floats(0.5, 20), st.floats(0.1, 300))
@settings(max_examples=100, deadline=None)
def test_least_risk_is_the_least_of_all_numbers_from_the_median_on(
    table: dict[float, float], capacity: float, shortage: float
) -> None:
    demand = of(table)

    def cost(n: int) -> float:
        return n + shortage * demand.above(n * capacity)

    number = least_risk(demand, capacity, shortage, 5000)
    first = -int(-(demand.at(0.5) / capacity - 1e-9) // 1)
    assert cost(number) <= min(cost(n) for n in range(first, first + 400)) + 1e-9


def test_risk_is_taken_where_protection_is_dear() -> None:
    narrow, wide = of({0.5: 100.0, 0.98: 104.0}), of({0.5: 100.0, 0.98: 180.0})
    sure, dear = (d.above(least_risk(d, 1.0, 50.0, 1000)) for d in (narrow, wide))
    assert sure < 0.03 < dear


QUEUE = Service(0.5)
FIVE_SECONDS = Wanted(5.0, 0.95, 120.0)


@pytest.mark.parametrize("late", [0.0001, 0.001, 0.01, 1.0])
def test_a_queue_at_least_cost_is_the_least_of_all_numbers(late: float) -> None:
    load, demand, prices = Load.steady(20.0), of({0.5: 20.0, 0.9: 22.0, 0.98: 24.0}), Prices(12.0, late)

    def cost(n: int) -> float:
        share = late_share(n, 20.0, QUEUE, 1.0)
        return n * 12.0 / 3600.0 + late * (20.0 * share + demand.excess(n * QUEUE.rate))

    wanted = Wanted(1.0, 0.95, 120.0)
    number = least_cost_of_queue(100, 0.0, 60.0, 105.0, load, demand, QUEUE, wanted, prices)
    assert cost(number) == min(cost(n) for n in range(11, 100))


def test_a_queue_at_least_cost_drains_late_work_whatever_it_costs() -> None:
    load, cheap = Load.steady(20.0), Prices(12.0, 0.0)
    number = least_cost_of_queue(100, 1000.0, 60.0, 105.0, load, Distribution.certain(20.0), QUEUE, FIVE_SECONDS, cheap)
    assert number == smallest(100, 1000.0, 60.0, 105.0, load, QUEUE, FIVE_SECONDS) == 14


def test_capacity_is_kept_for_a_start_and_a_minimum_run() -> None:
    assert keep_seconds(60.0, None, 120.0) == 180.0
    assert keep_seconds(60.0, 60.0, 120.0) == 180.0  # a start is paid from the ask: it is the lead time already
    assert keep_seconds(60.0, 200.0, 120.0) == 320.0
