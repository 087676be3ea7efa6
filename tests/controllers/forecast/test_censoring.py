"""Demand that was cut off is raised to what it most likely was, and never invented."""

from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.censoring import lifted
from controllers.forecast.history import Bools, Floats, History
from controllers.forecast.models import profile_ratio

STEP, PER_DAY, DAYS = 300.0, 288, 15


@pytest.fixture(scope="module")
def truth(make: SimpleNamespace) -> Floats:
    """Fifteen days of a daily shape, each day at another level, in bins of five minutes."""
    minutes = np.arange(float(DAYS) * make.DAY)
    level = 1 + 0.2 * np.sin(2.4 * np.floor(minutes / make.DAY))
    values: Floats = make.poisson(make.daily(minutes) * level).reshape(-1, 5).mean(axis=1)
    return values


def cut(truth: Floats, days: Bools, make: SimpleNamespace, highest: float = 11.0) -> History:
    """What would have been measured on a system that serves `highest` at most, on those days."""
    over = np.repeat(days, PER_DAY) & (truth > highest)
    whole: History = make.grid(np.where(over, highest, truth), STEP)
    return History(whole.start, STEP, whole.values, over)


def last_days(count: int) -> Bools:
    return np.arange(DAYS) >= DAYS - count


def test_demand_that_was_cut_off_is_raised_to_about_what_it_was(truth: Floats, make: SimpleNamespace) -> None:
    seen = cut(truth, last_days(3), make)
    raised = lifted(seen, "UTC")
    hidden = seen.censored
    assert np.abs(raised.values - truth)[hidden].sum() < 0.4 * np.abs(seen.values - truth)[hidden].sum()
    assert abs(raised.values[hidden].mean() / truth[hidden].mean() - 1) < 0.06
    np.testing.assert_array_equal(raised.values[~hidden], seen.values[~hidden])
    np.testing.assert_array_equal(raised.censored, seen.censored)


def test_forecasts_from_raised_demand_are_nearer_to_the_true_demand(truth: Floats, make: SimpleNamespace) -> None:
    seen = cut(truth, last_days(5), make)
    origins = np.arange((DAYS - 2) * PER_DAY, DAYS * PER_DAY - 12, 7)

    def missed(history: History) -> float:
        learned = profile_ratio.fit(history.first(int(origins[0]) + 1), "UTC", 12)
        return float(np.abs(profile_ratio.paths(learned, history, origins, 12)[:, -1] - truth[origins + 12]).mean())

    assert missed(lifted(seen, "UTC")) < 0.75 * missed(seen)


def test_values_are_never_lowered_nor_raised_above_what_was_seen_at_that_time(
    truth: Floats, make: SimpleNamespace
) -> None:
    seen = cut(truth, np.arange(DAYS) % 2 == 1, make, highest=6.0)
    raised = lifted(seen, "UTC")
    assert (raised.values >= seen.values).all()
    assert raised.values.max() <= truth.max()
    night = seen.censored & (np.arange(len(truth)) % PER_DAY < 6 * 12)
    assert night.any()
    assert raised.values[night].max() < 0.8 * truth.max()  # nobody saw noon's demand at night


def test_a_week_that_is_censored_throughout_gets_no_wild_numbers(truth: Floats, make: SimpleNamespace) -> None:
    whole = make.grid(truth, STEP)
    flags = np.arange(len(truth)) >= (DAYS - 7) * PER_DAY
    raised = lifted(History(whole.start, STEP, np.where(flags, 0.3 * truth, truth), flags), "UTC")
    usual = truth[flags].mean()
    assert 0.7 * usual < raised.values[flags].mean() < 1.15 * usual
    assert raised.values.max() <= truth.max()


@pytest.mark.parametrize(
    ("values", "censored"),
    [
        (np.full(600, 5.0), np.zeros(600, dtype=np.bool_)),
        (np.full(600, 5.0), np.ones(600, dtype=np.bool_)),
        (np.zeros(600), np.arange(600) > 300),
        (np.full(600, np.nan), np.arange(600) > 300),
        (np.full(1, 5.0), np.ones(1, dtype=np.bool_)),
    ],
    ids=["nothing censored", "everything censored", "zeros", "nothing known", "one bin"],
)
def test_where_nothing_can_be_learned_all_stays_as_it_was(values: Floats, censored: Bools) -> None:
    history = History(1_700_006_700.0, STEP, values, censored)
    np.testing.assert_array_equal(lifted(history, "Asia/Seoul").values, values)


@pytest.mark.parametrize("minutes", [1, 5], ids=["bins of a minute", "bins of five minutes"])
def test_later_samples_change_nothing_that_was_raised_before(
    truth: Floats, make: SimpleNamespace, minutes: int
) -> None:
    seen = cut(truth, last_days(8), make)
    times = 5 // minutes
    fine = History(
        seen.start - (5 - minutes) * 60.0,
        60.0 * minutes,
        np.repeat(seen.values, times),
        np.repeat(seen.censored, times),
    )
    count = (DAYS - 4) * PER_DAY * times + 131 * times + 2
    early, late = lifted(fine.first(count), "UTC"), lifted(fine, "UTC")
    assert (early.values > fine.values[:count]).any()
    np.testing.assert_allclose(
        early.values, late.values[:count], rtol=0.01
    )  # the mean in the logarithms moves a little


def test_an_unknown_value_stays_unknown(truth: Floats, make: SimpleNamespace) -> None:
    seen = cut(truth, last_days(3), make)
    values = seen.values.copy()
    values[-150:-140] = np.nan
    raised = lifted(History(seen.start, STEP, values, seen.censored), "UTC")
    assert np.isnan(raised.values[-150:-140]).all()
    assert np.isfinite(np.delete(raised.values, np.arange(len(values) - 150, len(values) - 140))).all()
