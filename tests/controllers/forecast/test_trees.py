"""Trees as arrays say what scikit-learn's own say; level-relative rows let them follow a level they never saw."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.history import History
from controllers.forecast.models import gradient_boosting, level_boosting, random_forest, ridge, trees

STEP = 300.0
STEPS = 12
PER_DAY = 288
GROWERS = {"gradient_boosting": gradient_boosting, "level_boosting": level_boosting, "random_forest": random_forest}


@pytest.fixture(scope="module")
def history(make: SimpleNamespace) -> History:
    """Ten days in bins of five minutes."""
    found: History = make.grid(make.poisson(make.daily(np.arange(10.0 * make.DAY))).reshape(-1, 5).mean(axis=1), STEP)
    return found


def test_boosted_trees_say_what_scikit_learn_says(history: History) -> None:
    rows = trees.rows_of(history, ridge.fit(history, "UTC", STEPS), STEPS)
    model = gradient_boosting.boosted(rows.x, rows.y)
    np.testing.assert_allclose(gradient_boosting.arrays(model).predict(rows.x.T), model.predict(rows.x), rtol=1e-9)


def test_a_forest_says_what_scikit_learn_says(history: History) -> None:
    rows = trees.rows_of(history, ridge.fit(history, "UTC", STEPS), STEPS)
    forest = random_forest.forest(rows.x, rows.y)
    np.testing.assert_allclose(random_forest.arrays(forest).predict(rows.x.T), forest.predict(rows.x), rtol=1e-9)


def test_a_leaf_of_the_forest_says_the_median_of_its_rows() -> None:
    x = np.repeat([[0.0], [1.0]], 200, axis=0)
    y = np.concatenate([np.where(np.arange(200) < 120, 1.0, 90.0), np.arange(200.0)])
    grown = random_forest.grow(trees.Rows(x, y))
    np.testing.assert_allclose(grown.predict(np.array([[0.0, 1.0]])), [1.0, 99.5])
    assert len(grown.roots) == random_forest.TREES


@pytest.mark.parametrize("name", GROWERS)
def test_trees_follow_a_level_they_never_saw(name: str, make: SimpleNamespace) -> None:
    values = make.poisson(make.daily(np.arange(13.0 * make.DAY))).reshape(-1, 5).mean(axis=1)
    values[12 * PER_DAY :] *= 3
    learned = GROWERS[name].fit(make.grid(values[: 12 * PER_DAY], STEP), "UTC", STEPS)
    origin = 12 * PER_DAY + 4 * 12  # four hours later
    path = trees.paths(learned, make.grid(values, STEP), np.array([origin]), STEPS)[0]
    came = values[origin + 1 : origin + 1 + STEPS]
    assert 0.75 < path.mean() / came.mean() < 1.15


def test_bounds_that_the_line_reaches_say_nothing(history: History) -> None:
    line = ridge.fit(history, "UTC", STEPS)
    cut = history.values > 12.0
    capped = replace(history, values=np.minimum(history.values, 12.0), censored=cut)
    told, blind = (trees.rows_of(h, line, STEPS).y for h in (capped, replace(capped, censored=np.zeros_like(cut))))
    assert len(told) < 0.8 * len(blind)
    assert np.median(blind) < 0 < np.median(told)


def test_without_a_line_trees_start_from_the_last_hour(history: History) -> None:
    nothing = trees.Trees(
        np.zeros(1, dtype=np.int64),
        np.array([np.inf]),
        np.zeros((1, 2), dtype=np.int64),
        np.zeros(1),
        np.zeros(1, dtype=np.int64),
        1,
        0.0,
    )
    learned = trees.fit(history, "UTC", STEPS, lambda _: nothing, trees.flat)
    path = trees.paths(learned, history, np.array([1000]), STEPS)[0]
    np.testing.assert_allclose(path, history.values[1000 - 11 : 1001].mean(), rtol=1e-6)


def test_to_forecast_with_trees_needs_no_scikit_learn() -> None:
    code = "import sys, controllers.forecast.models; sys.exit(any('sklearn' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
