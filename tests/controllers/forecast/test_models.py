"""What every model promises: pure, blind to the future, finite, small enough to be sent to another process."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast import features
from controllers.forecast.history import Floats, History
from controllers.forecast.models import MODELS, gradient_boosting, level_boosting, random_forest, ridge
from controllers.forecast.models.ridge import least_absolute

STEP = 300.0
STEPS = 12
PER_DAY = 288
TRIED = [name for name in MODELS if name != "ensemble"]  # which is the cheap one with more members


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few trees promise the same as many."""
    monkeypatch.setattr(random_forest, "TREES", 10)
    monkeypatch.setattr(gradient_boosting, "ROUNDS", 15)
    monkeypatch.setattr(level_boosting, "ROUNDS", 15)


@pytest.fixture(scope="module")
def history(make: SimpleNamespace) -> History:
    """Twelve days in bins of five minutes."""
    found: History = make.grid(make.poisson(make.daily(np.arange(12.0 * make.DAY))).reshape(-1, 5).mean(axis=1), STEP)
    return found


@pytest.mark.parametrize("name", TRIED)
def test_a_model_does_not_see_the_future(name: str, history: History) -> None:
    learned = MODELS[name].fit(history.first(9 * PER_DAY), "UTC", STEPS)
    origins = np.array([10 * PER_DAY, 10 * PER_DAY + 77])
    told = MODELS[name].paths(learned, history, origins, STEPS)
    values = history.values.copy()
    values[origins[-1] + 1 :] = 1e6
    blind = History(history.start, STEP, values, history.censored)
    np.testing.assert_array_equal(MODELS[name].paths(learned, blind, origins, STEPS), told)
    short = history.first(int(origins[-1]) + 1)
    np.testing.assert_allclose(MODELS[name].paths(learned, short, origins, STEPS), told, rtol=1e-9)


@pytest.mark.parametrize("name", TRIED)
def test_the_same_history_gives_the_same_paths_even_after_a_pickle(name: str, history: History) -> None:
    origins = np.array([len(history.values) - 1])
    first, second = (MODELS[name].fit(history, "Asia/Seoul", STEPS) for _ in range(2))
    travelled = pickle.loads(pickle.dumps(second))
    paths = [MODELS[name].paths(learned, history, origins, STEPS) for learned in (first, second, travelled)]
    np.testing.assert_array_equal(paths[0], paths[1])
    np.testing.assert_array_equal(paths[0], paths[2])
    assert paths[0].shape == (1, STEPS)


GAPS = {
    "a third of all samples missing": slice(None, None, 3),
    "no sample in the last two hours": slice(-24, None),
    "a whole day missing": slice(8 * PER_DAY, 9 * PER_DAY),
    "only the last day known": slice(0, 11 * PER_DAY),
}


@pytest.mark.parametrize("missing", GAPS.values(), ids=GAPS)
@pytest.mark.parametrize("name", TRIED)
def test_gaps_leave_paths_finite_and_near(name: str, missing: slice, history: History) -> None:
    values = history.values.copy()
    values[missing] = np.nan
    gappy = History(history.start, STEP, values, history.censored)
    learned = MODELS[name].fit(gappy, "UTC", STEPS)
    path = MODELS[name].paths(learned, gappy, np.array([len(values) - 1]), STEPS)
    assert np.isfinite(path).all()
    assert path.min() >= 0
    assert path.max() <= 2 * np.nanmax(values)


def test_the_daily_step_is_foreseen_at_the_right_local_time_over_a_clock_change(make: SimpleNamespace) -> None:
    # the step comes at 13:20 in Berlin; on 2025-10-26 the clock goes back, so in UTC it moves from 11:20 to 12:20
    start = 1_761_436_800.0 - 13 * 86_400.0  # midnight UTC, 13 days before
    utc_minutes = np.arange(15.0 * make.DAY)
    change = utc_minutes >= 13 * make.DAY + 60
    values = make.daily(utc_minutes + np.where(change, 60, 120)).reshape(-1, 5).mean(axis=1)
    at = 14 * PER_DAY + 12 * 12  # the day after, 12:00 UTC: twenty minutes before the step
    history = History(start + STEP, STEP, values[:at], np.zeros(at, dtype=np.bool_))
    path: Floats = ridge.paths(ridge.fit(history, "Europe/Berlin", STEPS), history, np.array([at - 1]), STEPS)[0]
    np.testing.assert_allclose(path, values[at : at + STEPS], rtol=0.06)


def test_a_level_that_moved_is_followed(make: SimpleNamespace) -> None:
    values = make.poisson(make.daily(np.arange(13.0 * make.DAY))).reshape(-1, 5).mean(axis=1)
    values[12 * PER_DAY :] *= 3
    learned = ridge.fit(make.grid(values[: 12 * PER_DAY], STEP), "UTC", STEPS)
    origin = 12 * PER_DAY + 4 * 12  # four hours later
    path = ridge.paths(learned, make.grid(values, STEP), np.array([origin]), STEPS)[0]
    came = values[origin + 1 : origin + 1 + STEPS]
    assert 0.75 < path.mean() / came.mean() < 1.1  # a forecast that fell back to the old level would be at a third


def test_a_job_every_25_minutes_is_foreseen(make: SimpleNamespace) -> None:
    minutes = np.arange(14.0 * make.DAY)
    rates = make.daily(minutes) * (1 + (minutes % 25 < 5))
    values = make.poisson(rates).reshape(-1, 5).mean(axis=1)
    at = 13 * PER_DAY + 100
    history = make.grid(values[:at], STEP)
    path = ridge.paths(ridge.fit(history, "UTC", STEPS), history, np.array([at - 1]), STEPS)[0]
    np.testing.assert_allclose(path, rates.reshape(-1, 5).mean(axis=1)[at : at + STEPS], rtol=0.12)


def test_censored_rows_pull_up_and_never_down() -> None:
    rows = np.arange(200.0)
    x = np.vstack([rows / 100, np.ones(200)])
    truth = 2 * x[0] + 1
    seen = np.minimum(truth, 2.0)  # all above 2 was cut off
    fitted = least_absolute_without_shifts(x, seen, seen < truth)
    assert fitted @ np.array([1.9, 1.0]) == pytest.approx(4.8, abs=0.2)
    plain = least_absolute_without_shifts(x, seen, np.zeros(200, dtype=np.bool_))
    assert plain @ np.array([1.9, 1.0]) < 3.5


def least_absolute_without_shifts(x: Floats, y: Floats, censored: Floats) -> Floats:
    padded = np.vstack([np.zeros((features.level_shifts().shape[1] - len(x), x.shape[1])), x])
    return least_absolute(padded, y, np.ones(len(y)), np.asarray(censored))[-len(x) :]
