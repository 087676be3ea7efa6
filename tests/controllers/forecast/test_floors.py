"""Nothing that is said goes below a floor; where there is none, nothing changes."""

import numpy as np

from controllers.domain import DecisionWindow, Horizon
from controllers.forecast.almanac import Calendar, Floor
from controllers.forecast.floors import floor_between, floored, lifted_horizons, lifted_path, lifted_window
from controllers.forecast.history import History
from controllers.forecast.models import MODELS
from controllers.forecast.predict import outlook
from controllers.forecast.selection import select


def test_floors_hold_within_their_time_only() -> None:
    calendar = Calendar(floors=(Floor(600.0, 1200.0, 5.0), Floor(900.0, 1500.0, 8.0)))
    times = 300.0 * np.arange(1, 8)
    lifted = floored(np.array([np.full(7, 6.0), np.full(7, 1.0)]), times, 300.0, calendar)
    np.testing.assert_array_equal(lifted, [[6, 6, 6, 8, 8, 6, 6], [1, 1, 5, 8, 8, 1, 1]])


def test_a_window_knows_the_highest_floor_in_it_and_what_floors_bring() -> None:
    calendar = Calendar(floors=(Floor(600.0, 1200.0, 5.0), Floor(900.0, 1500.0, 8.0)))
    assert floor_between(calendar, 0.0, 600.0) == (0.0, 0.0)
    assert floor_between(calendar, 0.0, 900.0) == (5.0, 1500.0)
    assert floor_between(calendar, 0.0, 2000.0) == (8.0, 300 * 5.0 + 600 * 8.0)


HORIZONS = (
    Horizon(600, 2.0, {0.1: 1.0, 0.9: 9.0}, {0.9: 9.0, 0.98: 11.0}, {0.5: 1200.0}),
    Horizon(1200, 2.0, {0.1: 1.0, 0.9: 9.0}, {0.9: 9.0, 0.98: 11.0}, {0.5: 2400.0}),
)


def test_values_quantiles_peaks_and_arrivals_are_lifted() -> None:
    calendar = Calendar(floors=(Floor(700.0, 1600.0, 10.0),))
    soon, later = lifted_horizons(HORIZONS, 100.0, calendar)  # until 700: the floor has not begun
    assert soon == HORIZONS[0]
    assert later == Horizon(1200, 10.0, {0.1: 10.0, 0.9: 10.0}, {0.9: 10.0, 0.98: 11.0}, {0.5: 6000.0})
    assert lifted_horizons(HORIZONS, 100.0, Calendar()) is HORIZONS


def test_the_window_of_a_decision_is_lifted_where_it_meets_a_floor() -> None:
    calendar = Calendar(floors=(Floor(700.0, 1600.0, 10.0),))
    window = DecisionWindow(60.0, 300.0, {0.9: 3.0})
    assert lifted_window(window, 300.0, calendar) == window
    assert lifted_window(window, 500.0, calendar) == DecisionWindow(60.0, 300.0, {0.9: 10.0})
    assert lifted_window(None, 500.0, calendar) is None


def test_the_path_is_lifted_bin_by_bin() -> None:
    calendar = Calendar(floors=(Floor(600.0, 900.0, 5.0),))
    path = tuple((at, 1.0, {0.1: 0.5, 0.9: 8.0}) for at in (600.0, 900.0, 1200.0))
    assert lifted_path(path, 300.0, calendar) == (path[0], (900.0, 5.0, {0.1: 5.0, 0.9: 8.0}), path[2])


def test_a_forecast_of_idle_demand_is_the_floor_and_no_more() -> None:
    end = 1_700_006_400.0
    values = np.zeros(3 * 144)
    history = History(end - 600.0 * (len(values) - 1), 600.0, values, np.zeros(len(values), dtype=np.bool_))
    calendar = Calendar(floors=(Floor(end + 1800, end + 7200, 5.0),))
    models = {name: MODELS[name] for name in ("last_value", "seasonal_naive")}
    fitted = select(history, calendar, [900, 3600], models)
    soon, later = outlook(history, calendar, fitted, end, quantiles=[0.1, 0.98], valid_seconds=900).forecast.horizons
    assert (soon.value, soon.peak[0.98]) == (0.0, 0.0)
    assert (later.value, later.quantiles[0.1], later.peak[0.98]) == (5.0, 5.0, 5.0)
    assert later.arrivals[0.5] == 1800 * 5.0
