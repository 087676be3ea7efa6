"""Bands that hold: coverage, order, and honesty about what the residuals cannot tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.forecast import adaptive, bands
from controllers.forecast.adaptive import TRACKED
from controllers.forecast.bands import Residuals, Seen
from controllers.forecast.calibration import ENOUGH, UNKNOWN, spread
from controllers.forecast.history import Floats


def pairs(count: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0.2, 20, count)
    return predicted, rng.poisson(predicted * 60 * rng.lognormal(0, 0.1, count)) / 60


def test_the_expected_miss_is_right_at_low_and_at_high_demand() -> None:
    band = spread(*pairs(2000, seed=1))
    predicted, actual = pairs(4000, seed=2)
    for part in (predicted < 5, predicted > 15):
        missed = np.abs(actual - predicted)[part].mean()
        assert band.expected_miss(predicted[part]).mean() == pytest.approx(missed, rel=0.1)


def test_few_residuals_let_expect_much() -> None:
    band = spread(*pairs(ENOUGH - 1, seed=4))
    assert band is UNKNOWN
    assert band.expected_miss(np.array([10.0]))[0] == 5.0


def test_where_nothing_was_predicted_and_nothing_came_nothing_is_expected() -> None:
    assert spread(np.zeros(50), np.zeros(50)).expected_miss(np.zeros(1))[0] == 0.0


def test_unknown_outcomes_are_left_out() -> None:
    predicted, actual = pairs(100, seed=5)
    some = spread(predicted[1::2], actual[1::2])
    actual[::2] = np.nan
    assert spread(predicted, actual) == some


def test_zeros_do_not_break_the_scale() -> None:
    predicted = np.repeat([0.0, 1.0], 50)
    actual = np.where(np.arange(100) % 10 == 0, 5.0, 0.0)
    assert spread(predicted, actual).expected_miss(np.array([0.0]))[0] == pytest.approx(0.5, rel=0.3)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=0, max_size=60),
    st.floats(0, 1e6),
)
def test_expected_misses_are_finite_never_negative_and_grow_with_demand(
    found: list[tuple[float, float]], base: float
) -> None:
    predicted, actual = np.array(found).reshape(-1, 2).T
    less, more = spread(predicted, actual).expected_miss(np.array([base, 2 * base]))
    assert 0 <= less <= more < np.inf


def rows(*pairs_of: tuple[Floats, Floats]) -> Seen:
    """Each pair a row: what was predicted, and what came."""
    tops = np.array([predicted for predicted, _ in pairs_of]).T
    return Seen(tops, tops, np.array([came for _, came in pairs_of]).T)


def test_regression_finds_the_levels_of_every_row_at_once() -> None:
    predicted = np.random.default_rng(1).uniform(1, 20, 3000)
    noise = np.random.default_rng(2).lognormal(0, 0.3, 3000)
    seen = rows((predicted, predicted * noise), (predicted, np.full(3000, 5.0)), (predicted, 3 * predicted))
    middle, below, above = bands.learn(seen).around(np.full((1, 3), 10.0), np.full((1, 3), 10.0))
    levels = 10 * np.quantile(noise, [0.1, 0.5, 0.9])
    assert middle[0, 0] - below[0, 0] == pytest.approx(levels[0], rel=0.05)
    assert middle[0, 0] == pytest.approx(levels[1], rel=0.04)
    assert middle[0, 0] + above[0, 0] == pytest.approx(levels[2], rel=0.05)
    assert middle[0, 1] == pytest.approx(5.0, rel=0.02)
    assert middle[0, 2] == pytest.approx(30.0, rel=0.02)


def test_units_do_not_matter() -> None:
    predicted, actual = pairs(400, seed=6)
    one, other = (
        bands.learn(rows((unit * predicted, unit * actual))).around(np.array([unit * 8.0]), np.array([unit * 8.0]))
        for unit in (1.0, 1e-6)
    )
    np.testing.assert_allclose(1e6 * np.array(other), np.array(one), rtol=1e-6)


def residuals(count: int = 999) -> Residuals:
    return bands.sorted_residuals(np.random.default_rng(7).normal(size=(count, 1)))


def test_residuals_are_split_conformal_and_go_on_beyond_the_largest() -> None:
    known = bands.sorted_residuals(np.arange(1.0, 100.0)[:, None])
    assert known.at(np.array([[0.9, 0.5, 0.1]])).tolist() == [[90.0, 50.0, 10.0]]
    far = known.at(np.array([[0.001, 0.01, 0.99, 0.999]]))[0]
    assert far[0] < far[1] == 1.0
    assert far[3] > far[2] == 99.0


def test_misses_raise_a_quantile_and_hits_lower_it() -> None:
    start = adaptive.start(0.0, 1)
    delays = np.array([1])
    for value, sign in ((9.0, 1), (-9.0, -1)):
        shifts, held = adaptive.follow(start, residuals(), np.full((10, 1), value), delays)
        moving = TRACKED != 0.5
        assert (sign * shifts[0, moving] > 0).all()
        assert shifts[0, ~moving] == 0.0
        assert (held[0] == (sign < 0)).all()


def test_in_the_long_run_a_quantile_holds_as_often_as_it_says_whatever_comes() -> None:
    """Residuals that swing to and fro: as they come, the learned 0.9 would hold 80 % of the time."""
    came = 1.5 * np.sin(np.arange(4000) / 300)[:, None] + np.random.default_rng(8).normal(size=(4000, 1))
    _, held = adaptive.follow(adaptive.start(0.0, 1), residuals(), came, np.array([3]))
    assert held.mean(axis=0)[0, TRACKED != 0.5] == pytest.approx(TRACKED[TRACKED != 0.5], abs=0.05)


def test_an_outcome_moves_nothing_before_it_is_due() -> None:
    came = np.array([[9.0], [0.0], [0.0], [0.0]])
    late = np.array([[9.0], [0.0], [0.0], [5.0]])
    _, one = adaptive.follow(adaptive.start(0.0, 1), residuals(), came, np.array([3]))
    _, other = adaptive.follow(adaptive.start(0.0, 1), residuals(), late, np.array([3]))
    np.testing.assert_array_equal(one[:3], other[:3])


@pytest.mark.parametrize("several", [1, 12])
def test_one_large_error_is_no_drift_and_several_are(several: int) -> None:
    made: Floats = 1800.0 * np.arange(40, dtype=np.float64)
    came = np.random.default_rng(9).choice([-1.0, 1.0], size=(40, 1))
    came[-several:] = 6.0
    state = adaptive.swings(adaptive.start(0.0, 1), made, np.array([0.0]), np.array([1]), came, made[-1])[2]
    assert state.drift[0] > 2.0 if several > 1 else abs(state.drift[0]) < 0.5


def test_errors_fade_with_time() -> None:
    made: Floats = 1800.0 * np.arange(20, dtype=np.float64)
    came = np.random.default_rng(10).choice([-4.0, 4.0], size=(20, 1))
    soon, late = (
        adaptive.swings(adaptive.start(0.0, 1), made, np.array([0.0]), np.array([1]), came, made[-1] + wait)[2]
        for wait in (0.0, 86_400.0)
    )
    assert soon.swing[0] > 2.5
    assert late.swing[0] == pytest.approx(1.0, abs=0.05)
