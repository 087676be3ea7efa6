"""Bands that hold: coverage, order, and honesty about what the residuals cannot tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.forecast.calibration import ENOUGH, UNKNOWN, spread
from controllers.forecast.history import Floats


def pairs(count: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0.2, 20, count)
    return predicted, rng.poisson(predicted * 60 * rng.lognormal(0, 0.1, count)) / 60


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9, 0.98])
def test_a_quantile_covers_its_share_at_low_and_at_high_demand(q: float) -> None:
    band = spread(*pairs(2000, seed=1))
    predicted, actual = pairs(4000, seed=2)
    below = actual <= band.quantile(predicted, q)
    for part in (predicted < 5, predicted > 15):
        assert below[part].mean() == pytest.approx(q, abs=0.04)


def test_beyond_the_residuals_the_tail_goes_on() -> None:
    band = spread(*pairs(30, seed=3))
    largest = float(band.scaled[-1])
    assert band.z(0.98) > largest  # 30 residuals vouch for 30/31
    assert band.z(0.999) > band.z(0.98)
    assert band.z(0.001) < float(band.scaled[0])


def test_few_residuals_give_a_band_wide_on_purpose() -> None:
    band = spread(*pairs(ENOUGH - 1, seed=4))
    assert band is UNKNOWN
    low, high = (float(band.quantile(np.array([10.0]), q)[0]) for q in (0.1, 0.9))
    assert low < 3
    assert high > 17


def test_where_nothing_was_predicted_and_nothing_came_nothing_is_expected() -> None:
    band = spread(np.zeros(50), np.zeros(50))
    assert band.quantile(np.zeros(1), 0.98)[0] == 0.0


def test_unknown_outcomes_are_left_out() -> None:
    predicted, actual = pairs(100, seed=5)
    actual[::2] = np.nan
    assert len(spread(predicted, actual).scaled) == 50


def test_zeros_do_not_break_the_scale() -> None:
    predicted = np.repeat([0.0, 1.0], 50)
    actual = np.where(np.arange(100) % 10 == 0, 5.0, 0.0)
    band = spread(predicted, actual)
    assert np.isfinite(band.quantile(np.array([0.0, 1.0]), 0.98)).all()
    assert band.quantile(np.array([0.0]), 0.98)[0] > 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=0, max_size=60),
    st.floats(0, 1e6),
)
def test_quantiles_are_ordered_finite_and_never_negative(found: list[tuple[float, float]], base: float) -> None:
    predicted, actual = np.array(found).reshape(-1, 2).T
    band = spread(predicted, actual)
    values = [float(band.quantile(np.array([base]), q)[0]) for q in (0.02, 0.1, 0.5, 0.9, 0.98)]
    assert values == sorted(values)
    assert values[0] >= 0
    assert np.isfinite(values).all()
