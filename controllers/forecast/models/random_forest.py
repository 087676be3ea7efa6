"""A random forest on level-relative features: grown for squared error, its leaves then set to weighted medians."""

from dataclasses import replace
from typing import Any

import numpy as np

from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models import trees
from controllers.forecast.models.trees import Learned, Rows, Trees

TREES = 40
DEPTH = 10
MIN_ROWS = 20  # in a leaf
COLUMNS_SHARE = 0.4  # of the columns looked at for a split
ROWS_SHARE = 0.5  # of the rows each tree sees


def fit(history: History, time_zone: str, steps: int) -> Learned:
    return trees.fit(history, time_zone, steps, grow)


def grow(rows: Rows) -> Trees:
    grown = forest(rows.x, rows.y)
    found = arrays(grown)
    return with_medians(found, grown.apply(rows.x) + found.roots, rows.y)


def forest(x: Floats, y: Floats) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(
        n_estimators=TREES,
        max_depth=DEPTH,
        min_samples_leaf=MIN_ROWS,
        max_features=COLUMNS_SHARE,
        max_samples=ROWS_SHARE,
        random_state=0,
    )
    return model.fit(x, y)


def arrays(model: Any) -> Trees:
    """What scikit-learn's forest knows, as arrays; a test compares the two."""
    found = [each.tree_ for each in model.estimators_]
    sizes = np.array([each.node_count for each in found])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shift = np.repeat(roots, sizes)
    left, right = (np.concatenate([getattr(each, f"children_{side}") for each in found]) for side in ("left", "right"))
    leaf, own = left < 0, np.arange(int(sizes.sum()))
    return Trees(
        np.where(leaf, 0, np.concatenate([each.feature for each in found])),
        # scikit-learn compares columns as float32
        np.where(leaf, np.inf, np.concatenate([each.threshold for each in found])),
        np.column_stack([np.where(leaf, own, left + shift), np.where(leaf, own, right + shift)]),
        np.concatenate([each.value[:, 0, 0] for each in found]) / len(found),
        roots,
        max(each.max_depth for each in found),
        0.0,
    )


def with_medians(grown: Trees, leaves: Ints, y: Floats) -> Trees:
    """Each leaf's value as the median of `y` over the rows that fall into it. `leaves`: (rows, trees), node numbers."""
    value = grown.value.copy()
    order = np.argsort(y, kind="stable")
    for column in leaves[order].T:
        by_leaf = np.argsort(column, kind="stable")  # and by `y` within a leaf
        nodes, first, count = np.unique(column[by_leaf], return_index=True, return_counts=True)
        ranked = y[order][by_leaf]
        middle = (ranked[first + (count - 1) // 2] + ranked[first + count // 2]) / 2
        value[nodes] = middle / leaves.shape[1]
    return replace(grown, value=value)
