"""What counts as an error, what was known when, and how much of the last hour's error is taken back."""

import math

import numpy as np
import pytest

from controllers.forecast.backtest import shortfall, spacing, sums_until, wape
from controllers.forecast.calibration import knots
from controllers.forecast.correction import MAX_CORRECTION, correct, recent_bias

NAN = math.nan


def test_a_lower_bound_only_counts_where_the_prediction_lies_below_it() -> None:
    missed = shortfall(np.array([3.0, 8.0, 8.0]), np.array([5.0, 5.0, 5.0]), np.array([True, True, False]))
    assert missed.tolist() == [2.0, 0.0, 3.0]


def test_wape_leaves_out_the_unknown_and_bears_zeros() -> None:
    said, came = np.array([[1.0, 1.0], [3.0, 1.0], [9.0, 1.0]]), np.array([[2.0, 0.0], [2.0, 0.0], [NAN, 0.0]])
    assert wape(said, came, np.zeros((3, 2), dtype=np.bool_), [1, 2]) == {1: 0.5, 2: math.inf}


@pytest.mark.parametrize(("count", "day"), [(1, 1440), (50, 24), (336, 48), (2016, 288), (40_000, 1440)])
def test_origins_visit_every_time_of_the_day(count: int, day: int) -> None:
    origins = np.arange(0, count, spacing(count, 170, day))
    assert len(origins) <= 170
    assert len(set((origins % day).tolist())) == min(day, len(origins))


def test_a_sum_over_few_gaps_is_scaled_up() -> None:
    row = np.full((1, 10), 2.0)
    row[0, 4] = NAN
    assert sums_until(row, np.array([2, 10]))[0].tolist() == pytest.approx([4.0, 20.0])


def test_too_little_known_has_no_sum() -> None:
    assert np.isnan(sums_until(np.array([[1.0, NAN, NAN]]), np.array([3]))).all()


def test_only_forecasts_that_had_come_due_within_the_memory_are_remembered() -> None:
    origins = np.array([0, 10, 20, 30])
    missed = np.array([[1.0], [2.0], [4.0], [8.0]])
    bias = recent_bias(origins, missed, np.array([5]), np.array([4, 15, 26, 100]), memory=15)
    # at 4 none is due; at 15 those of 0 and 10; at 26 those of 10 and 20; at 100 all are forgotten
    assert bias[:, 0].tolist() == [0.0, 1.5, 3.0, 0.0]


def test_a_correction_is_bounded_and_never_negative() -> None:
    path = np.array([[10.0, 0.0]])
    up, down = (correct(path, 0.3, np.full((1, 2), bias), 0.5) for bias in (50.0, -50.0))
    assert up[0, 0] == pytest.approx(10.5 * math.exp(MAX_CORRECTION) - 0.5)
    assert down.min() >= 0
    np.testing.assert_allclose(correct(path, 0.0, np.full((1, 2), 9.0), 0.5), path)


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 70, 1450])
def test_spreads_are_learned_at_ascending_leads_up_to_the_last(steps: int) -> None:
    leads = knots(steps)
    assert leads == sorted(set(leads))
    assert leads[-1] == steps
